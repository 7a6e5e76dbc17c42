//! What a store must know of a DICOM file: who it is (PS3.3 C.12.1), how it is coded, and its attributes in the DICOM JSON
//! Model (PS3.18 annex F), without pixels.
//!
//! As everywhere in this crate the elements are walked without recursion, every length is held against the bytes that
//! are there, and what a hostile header can make us keep is bounded: long binary values are left out, and a header of more
//! than [`MAX_ELEMENTS`] elements or [`MAX_TEXT_BYTES`] of values is refused.

use crate::attributes::{number, tag_text, unusable};
use crate::dataset::{chain, inflate};
use crate::error::ReadError;
use crate::options::Limits;
use crate::read::{HEAD_BYTES, read_bytes};
use crate::syntax::{Syntax, detect, looks_like_dicom, unknown_format};
use base64::Engine;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use serde_json::{Map, Value, json};
use std::io::Cursor;
use std::path::Path;

/// Most elements of a header, those in sequences counted.
pub const MAX_ELEMENTS: usize = 50_000;
/// Most bytes of values of a header.
pub const MAX_TEXT_BYTES: usize = 4 << 20;
/// Binary values up to this length are kept, as Base64.
const MAX_INLINE_BYTES: usize = 1024;

/// A DICOM instance, without its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Transfer Syntax UID (0002,0010), or the one that was guessed for a file without it.
    pub transfer_syntax: String,
    /// Where the data set begins in the file, after the file meta information: byte.
    pub data_set_start: u64,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: String,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// Study Instance UID (0020,000D).
    pub study_uid: String,
    /// Series Instance UID (0020,000E).
    pub series_uid: String,
    /// Whether there is Pixel Data (7FE0,0010).
    pub has_pixels: bool,
    /// The attributes in the DICOM JSON Model, text in UTF-8.
    pub attributes: Map<String, Value>,
}

impl Instance {
    /// First value of an attribute as text: `00100020` for Patient ID. A person's name gives its alphabetic form.
    pub fn text(&self, tag: &str) -> Option<String> {
        match self.attributes.get(tag)?.get("Value")?.get(0)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Object(name) => Some(name.get("Alphabetic")?.as_str()?.to_owned()),
            _ => None,
        }
    }
}

/// Whether `text` is a UID in form (PS3.5 9.1): 1 to 64 characters, numbers parted by dots. Leading zeros, which real
/// devices write, are let pass.
pub fn is_uid(text: &str) -> bool {
    text.len() <= 64
        && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// The instance in a DICOM file.
///
/// # Errors
/// Any [`ReadError`]; a file without the four UIDs is one.
pub fn read_instance(path: &Path, limits: &Limits) -> Result<Instance, ReadError> {
    let (head, complete) = read_bytes(path, HEAD_BYTES, limits)?;
    if !looks_like_dicom(&head) {
        return Err(unknown_format(path, &head));
    }
    if !complete {
        match parse(path, head, false, limits) {
            Ok(instance) if instance.has_pixels => return Ok(instance),
            _ => {}
        }
        let (whole, _) = read_bytes(path, u64::MAX, limits)?;
        return parse(path, whole, true, limits);
    }
    parse(path, head, true, limits)
}

fn parse(path: &Path, file: Vec<u8>, complete: bool, limits: &Limits) -> Result<Instance, ReadError> {
    let (syntax, data_set_start) = detect(path, &file, &mut Vec::new())?;
    let bytes = if syntax.deflated {
        let cap = if complete { limits.max_inflated_bytes } else { 4 * HEAD_BYTES };
        inflate(path, &file[data_set_start..], cap, complete, limits)?
    } else {
        file[data_set_start..].to_vec()
    };
    let mut walk = Walk {
        path,
        bytes: &bytes,
        big_endian: syntax.big_endian,
        limits,
        charset: None,
        root: Map::new(),
        open: vec![],
        elements: 0,
        kept_bytes: 0,
    };
    let has_pixels = walk.run(&syntax)?;
    let mut attributes = walk.root;
    let uid = |tag: Tag, name: &'static str| {
        let text = attributes.get(&key(tag)).and_then(|e| e.get("Value")?.get(0)?.as_str());
        match text {
            Some(uid) if is_uid(uid) => Ok(uid.to_owned()),
            other => Err(unusable(path, tag, name, "a UID", other.unwrap_or("nothing"))),
        }
    };
    let [sop_class_uid, sop_instance_uid, study_uid, series_uid] = [
        uid(tags::SOP_CLASS_UID, "SOP Class UID")?,
        uid(tags::SOP_INSTANCE_UID, "SOP Instance UID")?,
        uid(tags::STUDY_INSTANCE_UID, "Study Instance UID")?,
        uid(tags::SERIES_INSTANCE_UID, "Series Instance UID")?,
    ];
    // Text is UTF-8 from here on, whatever it was (PS3.18 F.2.2).
    if let Some(charset) = attributes.get_mut(&key(tags::SPECIFIC_CHARACTER_SET)) {
        *charset = json!({"vr": "CS", "Value": ["ISO_IR 192"]});
    }
    Ok(Instance {
        transfer_syntax: syntax.uid,
        data_set_start: data_set_start as u64,
        sop_class_uid,
        sop_instance_uid,
        study_uid,
        series_uid,
        has_pixels,
        attributes,
    })
}

/// `00080018`.
fn key(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

/// An open sequence.
struct Open {
    tag: Tag,
    items: Vec<Map<String, Value>>,
}

struct Walk<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    big_endian: bool,
    limits: &'a Limits,
    charset: Option<SpecificCharacterSet>,
    root: Map<String, Value>,
    open: Vec<Open>,
    elements: usize,
    kept_bytes: usize,
}

impl Walk<'_> {
    fn error(&self, position: u64, reason: impl Into<String>) -> ReadError {
        ReadError::Parse { path: self.path.into(), offset: position, reason: reason.into() }
    }

    fn too_large(&self, what: &'static str, found: usize, limit: usize) -> ReadError {
        ReadError::TooLarge { path: self.path.into(), what, found: found as u64, limit: limit as u64 }
    }

    /// Collects what lies before Pixel Data and says whether that is there.
    fn run(&mut self, syntax: &Syntax) -> Result<bool, ReadError> {
        let mut reader = LazyDataSetReader::new_with_ts(Cursor::new(self.bytes), syntax.parsed_as)
            .map_err(|e| self.error(0, chain(&e)))?;
        let mut position = 0;
        while let Some(token) = reader.advance() {
            match token.map_err(|e| self.error(position, chain(&e)))? {
                LazyDataToken::PixelSequenceStart if self.open.is_empty() => return Ok(true),
                LazyDataToken::PixelSequenceStart => {
                    return Err(self.error(position, "encapsulated pixels inside a sequence"));
                }
                LazyDataToken::SequenceStart { tag, .. } => {
                    if self.open.len() >= self.limits.max_depth {
                        let limit = self.limits.max_depth;
                        return Err(self.too_large("the nesting of sequences", limit + 1, limit));
                    }
                    self.count()?;
                    self.open.push(Open { tag, items: vec![] });
                }
                LazyDataToken::ItemStart { .. } => {
                    self.count()?;
                    if let Some(open) = self.open.last_mut() {
                        open.items.push(Map::new());
                    }
                }
                LazyDataToken::SequenceEnd => {
                    if let Some(Open { tag, items }) = self.open.pop() {
                        let items: Vec<Value> = items.into_iter().map(Value::Object).collect();
                        self.put(tag, VR::SQ, Some(("Value", Value::Array(items))));
                    }
                }
                LazyDataToken::LazyValue { header, decoder } => {
                    position = decoder.position();
                    if header.tag == tags::PIXEL_DATA && self.open.is_empty() {
                        return Ok(true);
                    }
                    let length = header.len.get().unwrap_or(u32::MAX);
                    let left = (self.bytes.len() as u64).saturating_sub(position);
                    if u64::from(length) > left {
                        let tag = tag_text(header.tag);
                        return Err(
                            self.error(position, format!("{tag} claims {length} bytes, {left} are left"))
                        );
                    }
                    self.count()?;
                    let begin = position as usize;
                    let value = self.value(header.tag, header.vr, begin..begin + length as usize)?;
                    self.put(header.tag, header.vr, value);
                    decoder.skip_bytes(length).map_err(|e| self.error(position, chain(&e)))?;
                }
                LazyDataToken::LazyItemValue { len, decoder } => {
                    position = decoder.position();
                    decoder.skip_bytes(len).map_err(|e| self.error(position, chain(&e)))?;
                }
                _ => {}
            }
        }
        if self.open.is_empty() {
            Ok(false)
        } else {
            Err(self.error(position, "the file ends inside a sequence"))
        }
    }

    fn count(&mut self) -> Result<(), ReadError> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(self.too_large("the number of elements", self.elements, MAX_ELEMENTS));
        }
        Ok(())
    }

    /// Puts an element where it belongs. Group lengths are the coding's, not the data set's.
    fn put(&mut self, tag: Tag, vr: VR, value: Option<(&str, Value)>) {
        if tag.element() == 0 {
            return;
        }
        let mut element = Map::new();
        element.insert("vr".into(), vr.to_string().into());
        if let Some((name, value)) = value.filter(|(_, v)| v.as_array().is_none_or(|list| !list.is_empty())) {
            element.insert(name.into(), value);
        }
        let home = match self.open.last_mut() {
            None => Some(&mut self.root),
            Some(open) => open.items.last_mut(),
        };
        if let Some(home) = home {
            home.insert(key(tag), Value::Object(element));
        }
    }

    /// The value in the DICOM JSON Model and the name it goes by; `None` for one that is empty or left out.
    fn value(
        &mut self,
        tag: Tag,
        vr: VR,
        range: std::ops::Range<usize>,
    ) -> Result<Option<(&'static str, Value)>, ReadError> {
        let bytes = &self.bytes[range];
        if bytes.is_empty() {
            return Ok(None);
        }
        if matches!(vr, VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::UN) {
            // Words of a big endian file would have to be turned around; nothing short and binary is worth that.
            if bytes.len() > MAX_INLINE_BYTES || self.big_endian {
                return Ok(None);
            }
            self.keep(bytes.len())?;
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            return Ok(Some(("InlineBinary", text.into())));
        }
        self.keep(bytes.len())?;
        let values = match vr {
            VR::US => self.numbers(bytes, |b| json!(u16::from_le_bytes(b))),
            VR::SS => self.numbers(bytes, |b| json!(i16::from_le_bytes(b))),
            VR::UL => self.numbers(bytes, |b| json!(u32::from_le_bytes(b))),
            VR::SL => self.numbers(bytes, |b| json!(i32::from_le_bytes(b))),
            VR::UV => self.numbers(bytes, |b| json!(u64::from_le_bytes(b))),
            VR::SV => self.numbers(bytes, |b| json!(i64::from_le_bytes(b))),
            VR::FL => self.numbers(bytes, |b| json!(f32::from_le_bytes(b))),
            VR::FD => self.numbers(bytes, |b| json!(f64::from_le_bytes(b))),
            VR::AT => self.tag_values(bytes),
            _ => {
                let text = self.decode(tag, bytes);
                let text = text.trim_end_matches([' ', '\0']);
                if text.is_empty() {
                    return Ok(None);
                }
                match vr {
                    VR::LT | VR::ST | VR::UT | VR::UR => vec![json!(text)],
                    _ => text.split('\\').map(|part| text_value(vr, part)).collect(),
                }
            }
        };
        Ok(Some(("Value", Value::Array(values))))
    }

    fn keep(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.kept_bytes += bytes;
        if self.kept_bytes > MAX_TEXT_BYTES {
            return Err(self.too_large("the header's values in bytes", self.kept_bytes, MAX_TEXT_BYTES));
        }
        Ok(())
    }

    /// Numbers of `N` bytes, each given to `number` in little endian order.
    fn numbers<const N: usize>(&self, bytes: &[u8], number: impl Fn([u8; N]) -> Value) -> Vec<Value> {
        let little = |chunk: &[u8]| {
            let mut value = [0; N];
            value.copy_from_slice(chunk);
            if self.big_endian {
                value.reverse();
            }
            number(value)
        };
        bytes.chunks_exact(N).map(little).collect()
    }

    fn tag_values(&self, bytes: &[u8]) -> Vec<Value> {
        let words = self.numbers(bytes, |b| json!(u16::from_le_bytes(b)));
        let text = |pair: &[Value]| {
            let word = |v: &Value| v.as_u64().unwrap_or_default();
            json!(format!("{:04X}{:04X}", word(&pair[0]), word(&pair[1])))
        };
        words.chunks_exact(2).map(text).collect()
    }

    /// Text in UTF-8: by Specific Character Set (0008,0005), by Latin-1 where that does not explain the bytes.
    fn decode(&mut self, tag: Tag, bytes: &[u8]) -> String {
        let latin = || bytes.iter().map(|&b| char::from(b)).collect::<String>();
        if tag == tags::SPECIFIC_CHARACTER_SET && self.open.is_empty() {
            let declared = latin();
            let first = declared.split('\\').next().unwrap_or_default();
            self.charset = SpecificCharacterSet::from_code(first.trim_matches([' ', '\0']));
        }
        match &self.charset {
            Some(charset) if !bytes.is_ascii() => charset.decode(bytes).unwrap_or_else(|_| latin()),
            _ => latin(),
        }
    }
}

/// One value of a text VR; an empty one among several is null.
fn text_value(vr: VR, part: &str) -> Value {
    let text = part.trim_matches([' ', '\0']);
    if text.is_empty() {
        return Value::Null;
    }
    match vr {
        VR::PN => {
            let forms = ["Alphabetic", "Ideographic", "Phonetic"].into_iter().zip(text.split('='));
            Value::Object(
                forms.filter(|(_, t)| !t.is_empty()).map(|(name, t)| (name.into(), json!(t))).collect(),
            )
        }
        VR::IS => text.parse::<i64>().map_or_else(|_| json!(text), |v| json!(v)),
        VR::DS => number(text).filter(|v| v.is_finite()).map_or_else(|| json!(text), |v| json!(v)),
        _ => json!(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DxFilm, DxSyntax, encode_dx};

    fn instance_of(bytes: &[u8]) -> Result<Instance, ReadError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read_instance(file.path(), &Limits::default())
    }

    /// An explicit little endian data set without file meta information.
    fn data_set(elements: &[(u16, u16, &[u8; 2], &[u8])]) -> Vec<u8> {
        let mut out = vec![];
        for (group, element, vr, value) in elements {
            out.extend(group.to_le_bytes());
            out.extend(element.to_le_bytes());
            out.extend(*vr);
            if matches!(*vr, b"SQ" | b"OB" | b"OW" | b"UN") {
                out.extend([0, 0]);
                out.extend((value.len() as u32).to_le_bytes());
            } else {
                out.extend((value.len() as u16).to_le_bytes());
            }
            out.extend(*value);
        }
        out
    }

    const UIDS: [(u16, u16, &[u8; 2], &[u8]); 4] = [
        (0x0008, 0x0016, b"UI", b"1.2.840.10008.5.1.4.1.1.1.1\0"),
        (0x0008, 0x0018, b"UI", b"1.2.3.4\0"),
        (0x0020, 0x000D, b"UI", b"1.2.3\0"),
        (0x0020, 0x000E, b"UI", b"1.2.5\0"),
    ];

    #[test]
    fn every_coding_of_a_film_gives_the_same_attributes() {
        let film = DxFilm::new(4, 6, (0..24).collect());
        let first = instance_of(&encode_dx(&film)).unwrap();
        assert!(first.has_pixels);
        assert_eq!(first.study_uid, film.study_uid);
        assert_eq!(first.attributes["00280010"], json!({"vr": "US", "Value": [4]}));
        assert_eq!(first.attributes["00100010"], json!({"vr": "PN", "Value": [{"Alphabetic": "SYNTHETIC"}]}));
        assert_eq!(first.text("00100020").as_deref(), Some("SYNTHETIC"));
        for transfer_syntax in DxSyntax::ALL {
            let other = instance_of(&encode_dx(&DxFilm { transfer_syntax, ..film.clone() })).unwrap();
            assert_eq!(other.transfer_syntax, transfer_syntax.uid());
            assert_eq!(other.attributes["00181164"], first.attributes["00181164"], "{transfer_syntax:?}");
            assert_eq!(other.sop_instance_uid, first.sop_instance_uid);
        }
    }

    #[test]
    fn sequences_text_and_numbers() {
        let item = data_set(&[(0x0008, 0x0100, b"SH", b"T-D04F8 ")]);
        let mut items = vec![0xFE, 0xFF, 0x00, 0xE0];
        items.extend((item.len() as u32).to_le_bytes());
        items.extend(item);
        let mut elements = vec![(0x0008, 0x0005, b"CS", b"ISO_IR 192".as_slice())];
        elements.extend(&UIDS[..2]);
        elements.push((0x0008, 0x2218, b"SQ", &items));
        elements.push((0x0010, 0x0010, b"PN", "Müller^Ä=山田 ".as_bytes()));
        elements.extend(&UIDS[2..]);
        elements.push((0x0020, 0x0013, b"IS", b"7 "));
        elements.push((0x0028, 0x0030, b"DS", b"0.14\\x "));
        elements.push((0x0029, 0x1010, b"OB", &[0; 2000]));
        let instance = instance_of(&data_set(&elements)).unwrap();
        let a = &instance.attributes;
        assert!(!instance.has_pixels);
        assert_eq!(
            a["00082218"],
            json!({"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["T-D04F8"]}}]})
        );
        assert_eq!(a["00100010"]["Value"], json!([{"Alphabetic": "Müller^Ä", "Ideographic": "山田"}]));
        assert_eq!(a["00200013"]["Value"], json!([7]));
        assert_eq!(a["00280030"]["Value"], json!([0.14, "x"]));
        assert_eq!(a["00291010"], json!({"vr": "OB"}));
    }

    #[test]
    fn what_is_no_instance_is_refused() {
        assert!(matches!(instance_of(b"%PDF-1.4 and more"), Err(ReadError::UnknownFormat { .. })));
        let missing = instance_of(&data_set(&UIDS[..3]));
        assert!(
            matches!(missing, Err(ReadError::Attribute { name: "Series Instance UID", .. })),
            "{missing:?}"
        );
        let mut tricky = UIDS;
        tricky[2].3 = b"../../etc/passwd";
        assert!(matches!(
            instance_of(&data_set(&tricky)),
            Err(ReadError::Attribute { name: "Study Instance UID", .. })
        ));
        let mut cut = data_set(&UIDS);
        cut.truncate(cut.len() - 3);
        assert!(matches!(instance_of(&cut), Err(ReadError::Parse { .. })));
    }

    #[test]
    fn uids_in_form() {
        for good in ["1.2.840", "2.25.0123", "0"] {
            assert!(is_uid(good), "{good}");
        }
        let long = "1".repeat(65);
        for bad in ["", ".", "1..2", "1.2.", "1.2/3", "../1", long.as_str(), "1.2 "] {
            assert!(!is_uid(bad), "{bad}");
        }
    }
}
