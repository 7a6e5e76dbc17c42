//! Data elements as bytes, little endian, in the explicit or implicit form (PS3.5 7.1).

use std::borrow::Cow;

/// Form of the data elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Value representation in every element.
    Explicit,
    /// Value representation known from the dictionary.
    Implicit,
}

/// Value of an element, with its value representation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A text VR (`LO`, `CS`, `DS` …), padded with a space.
    Text(&'static str, String),
    /// A text VR in another character set than ASCII or UTF-8, as it is to stand in the file; padded with a space.
    Coded(&'static str, Vec<u8>),
    /// `UI`, padded with NUL.
    Uid(String),
    /// `US`, any number of values.
    Us(Vec<u16>),
    /// `SS`, any number of values.
    Ss(Vec<i16>),
    /// `UL`.
    Ul(u32),
    /// `SL`, any number of values.
    Sl(Vec<i32>),
    /// `FL`, any number of values.
    Fl(Vec<f32>),
    /// `FD`.
    Fd(f64),
    /// `OB`.
    Bytes(Vec<u8>),
    /// `OW`.
    Words(Vec<u16>),
    /// `SQ` with its items.
    Sequence(Vec<Vec<Element>>),
}

/// A data element; the tag is `0xggggeeee`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Element {
    pub tag: u32,
    pub value: Value,
}

impl Element {
    pub(crate) fn text(tag: u32, vr: &'static str, text: impl Into<String>) -> Self {
        Self { tag, value: Value::Text(vr, text.into()) }
    }

    pub(crate) fn uid(tag: u32, uid: impl Into<String>) -> Self {
        Self { tag, value: Value::Uid(uid.into()) }
    }

    pub(crate) fn us(tag: u32, value: u16) -> Self {
        Self { tag, value: Value::Us(vec![value]) }
    }

    /// A sequence; the elements of each item are put in the order of their tags.
    pub(crate) fn sequence(tag: u32, mut items: Vec<Vec<Self>>) -> Self {
        for item in &mut items {
            item.sort_by_key(|element| element.tag);
        }
        Self { tag, value: Value::Sequence(items) }
    }

    /// Appends the element to `out`.
    pub(crate) fn write(&self, encoding: Encoding, out: &mut Vec<u8>) {
        let (vr, bytes): (&str, Cow<'_, [u8]>) = match &self.value {
            Value::Text(vr, text) => (*vr, text.as_bytes().into()),
            Value::Coded(vr, bytes) => (*vr, bytes.into()),
            Value::Uid(uid) => ("UI", uid.as_bytes().into()),
            Value::Us(values) => ("US", little_endian(values, |v| v.to_le_bytes()).into()),
            Value::Ss(values) => ("SS", little_endian(values, |v| v.to_le_bytes()).into()),
            Value::Ul(v) => ("UL", v.to_le_bytes().to_vec().into()),
            Value::Sl(values) => ("SL", little_endian(values, |v| v.to_le_bytes()).into()),
            Value::Fl(values) => ("FL", little_endian(values, |v| v.to_le_bytes()).into()),
            Value::Fd(v) => ("FD", v.to_le_bytes().to_vec().into()),
            Value::Bytes(bytes) => ("OB", bytes.into()),
            Value::Words(values) => ("OW", little_endian(values, |v| v.to_le_bytes()).into()),
            Value::Sequence(items) => ("SQ", items_bytes(items, encoding).into()),
        };
        let padded = bytes.len().next_multiple_of(2);
        let length = u32::try_from(padded).expect("no value here comes near 4 GiB");
        write_head(self.tag, vr, length, encoding, out);
        out.extend_from_slice(&bytes);
        if padded > bytes.len() {
            out.push(if matches!(self.value, Value::Text(..) | Value::Coded(..)) { b' ' } else { 0 });
        }
    }
}

fn little_endian<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}

fn items_bytes(items: &[Vec<Element>], encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let mut body = Vec::new();
        for element in item {
            element.write(encoding, &mut body);
        }
        write_tag(0xFFFE_E000, &mut out);
        let length = u32::try_from(body.len()).expect("header values are far below 4 GiB");
        out.extend_from_slice(&length.to_le_bytes());
        out.append(&mut body);
    }
    out
}

fn write_tag(tag: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&((tag >> 16) as u16).to_le_bytes());
    out.extend_from_slice(&(tag as u16).to_le_bytes());
}

/// Tag, value representation and length (PS3.5 tables 7.1-1 to 7.1-3).
fn write_head(tag: u32, vr: &str, length: u32, encoding: Encoding, out: &mut Vec<u8>) {
    write_tag(tag, out);
    if encoding == Encoding::Implicit {
        out.extend_from_slice(&length.to_le_bytes());
        return;
    }
    out.extend_from_slice(vr.as_bytes());
    if matches!(vr, "OB" | "OW" | "SQ" | "UC" | "UN" | "UT") {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&length.to_le_bytes());
    } else {
        let short = u16::try_from(length).expect("what writes a film or a result bounds its texts");
        out.extend_from_slice(&short.to_le_bytes());
    }
}

/// Appends Pixel Data (7FE0,0010) in native form, 16 bits a value.
pub(super) fn native(pixels: &[u16], encoding: Encoding, out: &mut Vec<u8>) {
    let length = u32::try_from(2 * pixels.len()).expect("DxFilm::check bounds the number of pixels");
    write_head(0x7FE0_0010, "OW", length, encoding, out);
    out.extend(pixels.iter().flat_map(|v| v.to_le_bytes()));
}

/// Appends Pixel Data (7FE0,0010) as one fragment after an empty offset table (PS3.5 A.4).
pub(super) fn encapsulated(fragment: &[u8], out: &mut Vec<u8>) {
    write_head(0x7FE0_0010, "OB", u32::MAX, Encoding::Explicit, out);
    write_tag(0xFFFE_E000, out);
    out.extend_from_slice(&0u32.to_le_bytes());
    write_tag(0xFFFE_E000, out);
    let padded = fragment.len().next_multiple_of(2);
    let length = u32::try_from(padded).expect("DxFilm::check bounds the number of pixels");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(fragment);
    out.resize(out.len() + padded - fragment.len(), 0);
    write_tag(0xFFFE_E0DD, out);
    out.extend_from_slice(&0u32.to_le_bytes());
}

/// A decimal string of at most 16 characters (PS3.5 6.2, VR DS), as near to `value` as that allows.
pub(crate) fn decimal_string(value: f64) -> String {
    let plain = value.to_string();
    if plain.len() <= 16 {
        return plain;
    }
    (0..=15)
        .rev()
        .flat_map(|digits| [format!("{value:.digits$}"), format!("{value:.digits$e}")])
        .find(|text| text.len() <= 16)
        .expect("the exponent form without digits is short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_strings_fit_and_stay_near() {
        for value in [0.0, 1.0, -1024.0, 0.1 + 0.2, 1.0 / 3.0, 1e-9, 12_345_678.123_456_7] {
            let text = decimal_string(value);
            assert!(text.len() <= 16, "{text}");
            let back: f64 = text.parse().unwrap();
            assert!((back - value).abs() <= 1e-6 * value.abs(), "{value} became {text}");
        }
        assert!(decimal_string(f64::MIN_POSITIVE).len() <= 16);
        assert!(decimal_string(f64::MAX).len() <= 16);
    }

    #[test]
    fn values_are_padded_to_even_length() {
        let mut out = Vec::new();
        Element::text(0x0010_0020, "LO", "abc").write(Encoding::Explicit, &mut out);
        assert_eq!(out, b"\x10\x00\x20\x00LO\x04\x00abc ");
        out.clear();
        Element::uid(0x0008_0018, "1.2").write(Encoding::Implicit, &mut out);
        assert_eq!(out, b"\x08\x00\x18\x00\x04\x00\x00\x001.2\0");
    }
}
