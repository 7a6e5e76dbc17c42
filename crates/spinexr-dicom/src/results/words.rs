//! Own words beside values copied from a film: the character set of a result.
//!
//! A film's patient and study attributes are copied byte for byte together with its Specific Character Set (0008,0005),
//! so that the result matches the film in every archive, even where the declaration is wrong. What the result itself
//! has to say must then be written in that same set:
//!
//! | film | declared in the result | own words |
//! |---|---|---|
//! | copied values are all ASCII, or UTF-8 is declared | `ISO_IR 192` | UTF-8 |
//! | one 8-bit set (`ISO_IR 100` …) | the film's | in that set, `?` for what it lacks |
//! | ISO 2022, GB18030, GBK, unknown or undeclared | the film's, or none | ASCII, `?` for the rest |

use crate::write::element::{Element, Value};
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};

/// 8-bit sets with ASCII in their lower half.
const EIGHT_BIT: [&str; 9] = [
    "ISO_IR 100",
    "ISO_IR 101",
    "ISO_IR 109",
    "ISO_IR 110",
    "ISO_IR 126",
    "ISO_IR 127",
    "ISO_IR 138",
    "ISO_IR 144",
    "ISO_IR 166",
];

/// The escape that begins a change of sets in ISO 2022.
const ESCAPE: u8 = 0x1B;

/// How text is written into a result.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// Specific Character Set (0008,0005) as it is to stand in the result.
    declared: Option<Vec<u8>>,
    coding: Coding,
}

#[derive(Debug, Clone)]
enum Coding {
    Utf8,
    EightBit(SpecificCharacterSet),
    Ascii,
}

impl Words {
    /// Words beside `copied` values of a film that declares `declared`.
    pub fn beside<'a>(declared: Option<&[u8]>, mut copied: impl Iterator<Item = &'a [u8]>) -> Self {
        let code = declared.map(|bytes| String::from_utf8_lossy(bytes).trim_matches([' ', '\0']).to_owned());
        let code = code.filter(|code| !code.is_empty());
        let plain = |b: &u8| b.is_ascii() && *b != ESCAPE;
        let is_ascii = copied.all(|value| value.iter().all(plain));
        // In JIS X 0201 two ASCII bytes are other characters.
        let is_japanese = code.as_deref().is_some_and(|code| code.contains("IR 13"));
        if code.as_deref() == Some("ISO_IR 192") || is_ascii && !is_japanese {
            return Self { declared: Some(b"ISO_IR 192".to_vec()), coding: Coding::Utf8 };
        }
        let eight_bit = code.as_deref().filter(|code| EIGHT_BIT.contains(code));
        let coding = match eight_bit.and_then(SpecificCharacterSet::from_code) {
            Some(set) => Coding::EightBit(set),
            None => Coding::Ascii,
        };
        Self { declared: code.and(declared.map(<[u8]>::to_vec)), coding }
    }

    /// Specific Character Set (0008,0005), where one is declared.
    pub fn character_set(&self) -> Option<Element> {
        let declared = self.declared.clone()?;
        Some(Element { tag: 0x0008_0005, value: Value::Coded("CS", declared) })
    }

    /// A text of one line and one value, cut after `most` characters: VRs LO and SH.
    pub fn line(&self, tag: u32, vr: &'static str, text: &str, most: usize) -> Element {
        let plain = |c: char| match c {
            '\\' => '/', // the separator of values
            c if c.is_control() => ' ',
            c => c,
        };
        let line: String = text.chars().map(plain).take(most).collect();
        self.text(tag, vr, line.trim())
    }

    /// A text of any length: VRs UT and ST.
    pub fn text(&self, tag: u32, vr: &'static str, text: &str) -> Element {
        Element { tag, value: Value::Coded(vr, self.encode(text)) }
    }

    fn encode(&self, text: &str) -> Vec<u8> {
        let ascii = |c: char| if c.is_ascii() { c as u8 } else { b'?' };
        match &self.coding {
            Coding::Utf8 => text.as_bytes().to_vec(),
            Coding::EightBit(set) => {
                let one = |c: char| match set.encode(c.encode_utf8(&mut [0; 4])) {
                    Ok(bytes) if bytes.len() == 1 && !c.is_ascii() => bytes[0],
                    _ => ascii(c),
                };
                text.chars().map(one).collect()
            }
            Coding::Ascii => text.chars().map(ascii).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(declared: Option<&str>, copied: &[u8]) -> Words {
        Words::beside(declared.map(str::as_bytes), std::iter::once(copied))
    }

    fn declared(words: &Words) -> Option<String> {
        words.declared.clone().map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn plain_films_get_utf8() {
        for set in [None, Some(""), Some("ISO_IR 100"), Some("ISO_IR 192 "), Some("\\ISO 2022 IR 87")] {
            let words = words(set, b"Doe^Jane");
            assert_eq!(declared(&words).as_deref(), Some("ISO_IR 192"), "{set:?}");
            assert_eq!(words.encode("Xẹp đốt sống"), "Xẹp đốt sống".as_bytes());
        }
    }

    #[test]
    fn latin_films_keep_their_set() {
        let words = words(Some("ISO_IR 100"), b"Buc^J\xE9r\xF4me");
        assert_eq!(declared(&words).as_deref(), Some("ISO_IR 100"));
        assert_eq!(words.encode("Höhe ≥ 3"), b"H\xF6he ? 3");
    }

    #[test]
    fn other_sets_get_ascii_beside_the_copied_bytes() {
        let japanese = words(Some("\\ISO 2022 IR 87"), b"Yamada^Tarou=\x1B$B;3ED\x1B(B");
        assert_eq!(declared(&japanese).as_deref(), Some("\\ISO 2022 IR 87"));
        assert_eq!(japanese.encode("Höhe"), b"H?he");
        let undeclared = words(None, b"J\xE9r\xF4me");
        assert_eq!(declared(&undeclared), None);
        assert!(undeclared.character_set().is_none());
        assert_eq!(declared(&words(Some("ISO_IR 13"), b"ABC")).as_deref(), Some("ISO_IR 13"));
    }

    #[test]
    fn a_line_is_one_value_of_bounded_length() {
        let words = words(None, b"");
        let line = words.line(0x0008_0104, "LO", " a\\b\nc and more ", 6);
        assert_eq!(line.value, Value::Coded("LO", b"a/b c".to_vec()));
    }
}
