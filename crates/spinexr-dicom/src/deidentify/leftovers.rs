//! The patient's own names and ids in attributes that the profile leaves alone, such as a comment that holds the
//! name. The table goes by attribute; this goes by value.

use super::tree::{Element, Elements, Value, value};
use dicom_core::{Tag, VR};
use std::collections::BTreeSet;

/// Letters of a name that are worth looking for: `Li` would be found everywhere.
const MIN_LETTERS: usize = 4;
/// Characters of an id that are worth looking for: `2024` may be a version or a size.
const MIN_DIGITS: usize = 6;

/// Words that name a patient, or those around one, in lower case.
#[derive(Default)]
pub(super) struct Words(BTreeSet<Vec<u8>>);

impl Words {
    /// From the values of a data set before anything is removed: names of persons anywhere, and the patient's ids,
    /// birth date, address and accession numbers.
    pub fn of(bytes: &[u8], elements: &Elements) -> Self {
        let mut words = Self::default();
        words.collect(bytes, elements);
        words
    }

    fn collect(&mut self, bytes: &[u8], elements: &Elements) {
        for element in elements {
            if let Value::Items(items) = &element.value {
                items.iter().for_each(|item| self.collect(bytes, item));
            } else if names_someone(element) {
                self.0.extend(words(value(bytes, element)).filter(|word| is_telling(word)));
            }
        }
    }

    /// Whether a value has one of the words.
    pub fn are_in(&self, value: &[u8]) -> bool {
        !self.0.is_empty() && words(value).any(|word| self.0.contains(&word))
    }
}

fn names_someone(element: &Element) -> bool {
    element.vr == VR::PN
        || matches!(
            element.tag,
            Tag(0x0008, 0x0050)                                  // Accession Number
                | Tag(0x0010, 0x0010 | 0x0020 | 0x0021 | 0x0030) // name, id, issuer, birth date
                | Tag(0x0010, 0x1000 | 0x1001 | 0x1005 | 0x1040 | 0x1060 | 0x1090)
                | Tag(0x0010, 0x2154)                            // telephone numbers
                | Tag(0x0038, 0x0010) // Admission ID
        )
}

/// Runs of letters and digits in lower case. Bytes above ASCII count as letters, whatever the character set.
fn words(value: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    value
        .split(|b| !(b.is_ascii_alphanumeric() || *b >= 0x80))
        .filter(|word| !word.is_empty())
        .map(<[u8]>::to_ascii_lowercase)
}

fn is_telling(word: &[u8]) -> bool {
    // What such fields hold where they were emptied before is no name.
    const SAYS_NOTHING: [&[u8]; 6] =
        [b"anonymous", b"anonymized", b"anonymised", b"unknown", b"deidentified", b"patient"];
    let letters_only = !word.iter().any(u8::is_ascii_digit);
    word.len() >= if letters_only { MIN_LETTERS } else { MIN_DIGITS } && !SAYS_NOTHING.contains(&word)
}

/// VRs that can hold a text. Numbers, dates, UIDs and bulk data cannot, or are no text that anyone would read.
pub(super) fn is_text(vr: VR) -> bool {
    use VR::{AE, CS, LO, LT, PN, SH, ST, UC, UN, UR, UT};
    matches!(vr, AE | CS | LO | LT | PN | SH | ST | UC | UN | UR | UT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_words_whatever_their_case() {
        let bytes = b"Hansen^Li^Eva P-104711".to_vec();
        let element = |tag, range| Element { tag, vr: VR::LO, value: Value::Kept(range) };
        let words = Words::of(
            &bytes,
            &vec![element(Tag(0x0010, 0x0010), 0..13), element(Tag(0x0010, 0x0020), 14..22)],
        );
        assert!(words.are_in(b"film of Mrs HANSEN, standing"));
        assert!(words.are_in(b"id=104711"));
        for innocent in [&b"Hansenite"[..], b"Eva Li", b"P", b"1047110", b""] {
            assert!(!words.are_in(innocent), "{innocent:?}");
        }
    }
}
