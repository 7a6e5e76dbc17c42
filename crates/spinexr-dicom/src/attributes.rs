//! Values of attributes: texts, numbers, and the header fields a film carries.

use crate::dataset::{DataSet, Element};
use crate::error::ReadError;
use crate::film::FilmHeader;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};
use std::path::Path;

/// `(gggg,eeee)`.
pub(crate) fn tag_text(tag: Tag) -> String {
    format!("({:04X},{:04X})", tag.group(), tag.element())
}

/// An attribute that is missing or unusable.
pub(crate) fn unusable(
    path: &Path,
    tag: Tag,
    name: &'static str,
    expected: &'static str,
    found: impl Into<String>,
) -> ReadError {
    ReadError::Attribute { path: path.into(), tag: tag_text(tag), name, expected, found: found.into() }
}

impl DataSet {
    /// Bytes of an element.
    pub fn value(&self, element: &Element) -> &[u8] {
        self.bytes.get(element.range.clone()).unwrap_or_default()
    }

    /// A text attribute as stored, with its spaces, in the default repertoire; `None` when absent.
    pub fn raw_text(&self, tag: Tag) -> Option<String> {
        let bytes = self.value(self.elements.get(&tag)?);
        Some(bytes.iter().map(|&b| char::from(b)).collect())
    }

    /// A text attribute without padding; `None` when absent or empty.
    pub fn text(&self, tag: Tag) -> Option<String> {
        let text = self.raw_text(tag)?;
        let text = text.trim_matches([' ', '\0']);
        (!text.is_empty()).then(|| text.to_string())
    }

    /// A text attribute of a VR that Specific Character Set (0008,0005) governs. Bytes that it does not
    /// explain are read as Latin-1: no text of a header is worth losing a film for.
    pub fn charset_text(&self, tag: Tag) -> Option<String> {
        let declared = self.text(tags::SPECIFIC_CHARACTER_SET);
        let code = declared.as_deref().and_then(|codes| codes.split('\\').next()).unwrap_or_default();
        let decoded = SpecificCharacterSet::from_code(code.trim())
            .and_then(|charset| charset.decode(self.value(self.elements.get(&tag)?)).ok());
        match decoded {
            Some(text) => {
                let text = text.trim_matches([' ', '\0']);
                (!text.is_empty()).then(|| text.to_string())
            }
            None => self.text(tag),
        }
    }

    /// 16-bit values of an element of VR US, SS or OW, whatever their sign.
    pub fn words(&self, element: &Element) -> Vec<u16> {
        let word = |b: &[u8]| {
            if self.syntax.big_endian {
                u16::from_be_bytes([b[0], b[1]])
            } else {
                u16::from_le_bytes([b[0], b[1]])
            }
        };
        self.value(element).chunks_exact(2).map(word).collect()
    }

    /// First 16-bit value of an attribute; `None` when absent or empty.
    pub fn word(&self, tag: Tag) -> Option<u16> {
        self.words(self.elements.get(&tag)?).first().copied()
    }

    /// First 16-bit value of an attribute that must be there.
    pub fn required_word(&self, path: &Path, tag: Tag, name: &'static str) -> Result<u16, ReadError> {
        let expected = "a 16-bit number";
        match self.elements.get(&tag) {
            None => Err(unusable(path, tag, name, expected, "nothing: the attribute is missing")),
            Some(element) => self.words(element).first().copied().ok_or_else(|| {
                unusable(path, tag, name, expected, format!("{} bytes", self.value(element).len()))
            }),
        }
    }

    /// Whether 16-bit values of `element` are signed. The VR says so; where it is implicit or wrong, Pixel
    /// Representation does.
    pub fn is_signed(&self, element: &Element) -> bool {
        element.vr == VR::SS || self.word(tags::PIXEL_REPRESENTATION) == Some(1)
    }

    /// Values of a decimal string attribute; `None` for each that is not a finite number.
    fn decimals(&self, tag: Tag) -> Vec<Option<f64>> {
        let text = self.raw_text(tag).unwrap_or_default();
        text.split('\\').map(|part| number(part).filter(|v| v.is_finite())).collect()
    }

    /// Whether something was lost on the film's way: the attribute says so for good (PS3.3 C.7.6.1.1.5), and a transfer
    /// syntax that cannot be lossless says it too.
    fn lossy(&self) -> Option<bool> {
        let uid = self.syntax.uid.as_str();
        if crate::syntax::ALWAYS_LOSSY.contains(&uid) {
            return Some(true);
        }
        match self.text(tags::LOSSY_IMAGE_COMPRESSION).as_deref() {
            Some("01") => Some(true),
            Some("00") => Some(false),
            _ => None,
        }
    }

    /// The header fields of a film whose file stem is `image_id`.
    pub fn film_header(&self, image_id: String) -> FilmHeader {
        let spacing = |tag| match self.decimals(tag)[..] {
            [Some(row), Some(column)] if row > 0.0 && column > 0.0 => Some([row, column]),
            _ => None,
        };
        FilmHeader {
            image_id,
            study_uid: self.text(tags::STUDY_INSTANCE_UID),
            series_uid: self.text(tags::SERIES_INSTANCE_UID),
            sop_instance_uid: self.text(tags::SOP_INSTANCE_UID),
            sex: self.text(tags::PATIENT_SEX),
            age_years: self.text(tags::PATIENT_AGE).as_deref().and_then(age_years),
            view_position: self.text(tags::VIEW_POSITION),
            body_part: self.text(tags::BODY_PART_EXAMINED),
            laterality: self.text(tags::IMAGE_LATERALITY).or_else(|| self.text(tags::LATERALITY)),
            manufacturer: self.charset_text(tags::MANUFACTURER),
            modality: self.text(tags::MODALITY),
            pixel_spacing_mm: spacing(tags::PIXEL_SPACING).or_else(|| spacing(tags::IMAGER_PIXEL_SPACING)),
            deviation_index: self.decimals(tags::DEVIATION_INDEX).first().copied().flatten(),
            bits_stored: self.word(tags::BITS_STORED),
            lossy: self.lossy(),
        }
    }
}

/// A decimal or integer string as a number: padding stripped, exponents allowed.
pub(crate) fn number(text: &str) -> Option<f64> {
    text.trim_matches([' ', '\0']).parse().ok()
}

/// Age String (PS3.5 6.2, VR AS) in years; a bare number is taken as years.
fn age_years(text: &str) -> Option<f32> {
    let (digits, per_year) = match text.char_indices().last()? {
        (at, 'Y') => (&text[..at], 1.0),
        (at, 'M') => (&text[..at], 12.0),
        (at, 'W') => (&text[..at], 365.25 / 7.0),
        (at, 'D') => (&text[..at], 365.25),
        _ => (text, 1.0),
    };
    let number: u32 = digits.trim().parse().ok()?;
    Some(number as f32 / per_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        assert_eq!(age_years("045Y"), Some(45.0));
        assert_eq!(age_years("018M"), Some(1.5));
        assert_eq!(age_years("61"), Some(61.0));
        assert_eq!(age_years("Y"), None);
        assert_eq!(age_years("-3Y"), None);
        assert_eq!(age_years("abc"), None);
    }

    #[test]
    fn numbers() {
        assert_eq!(number("  2000.50  "), Some(2000.5));
        assert_eq!(number("2.0E+03 \0"), Some(2000.0));
        assert_eq!(number("32688,"), None);
        assert_eq!(number(""), None);
    }
}
