//! What results take over from the film they speak of: patient, study, references, and how the film is presented.

use super::words::Words;
use crate::attributes::{number, tag_text, unusable};
use crate::dataset::DataSet;
use crate::error::ReadError;
use crate::instance;
use crate::lut::{Lut, RawLut};
use crate::options::Limits;
use crate::pixel_format;
use crate::read::{data_set_of_bytes, read_data_set};
use crate::write::element::{Element, Value};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use std::path::{Path, PathBuf};

/// Most bytes of a value that is copied; the longest VR among them, LO with many values, stays far below.
const MAX_COPIED_BYTES: usize = 4096;

/// How an attribute is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// Type 2: there in every result, empty where the film has none.
    Always,
    /// Type 3: there where the film has a value.
    IfThere,
}

/// Attributes of patient and study (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2) that every object of a study shares.
const SHARED: [(Tag, &str, Copied); 21] = [
    (tags::STUDY_DATE, "DA", Copied::Always),
    (tags::STUDY_TIME, "TM", Copied::Always),
    (tags::ACCESSION_NUMBER, "SH", Copied::Always),
    (tags::REFERRING_PHYSICIAN_NAME, "PN", Copied::Always),
    (tags::STUDY_DESCRIPTION, "LO", Copied::IfThere),
    (tags::TIMEZONE_OFFSET_FROM_UTC, "SH", Copied::IfThere),
    (tags::PATIENT_NAME, "PN", Copied::Always),
    (tags::PATIENT_ID, "LO", Copied::Always),
    (tags::ISSUER_OF_PATIENT_ID, "LO", Copied::IfThere),
    (tags::PATIENT_BIRTH_DATE, "DA", Copied::Always),
    (tags::PATIENT_BIRTH_TIME, "TM", Copied::IfThere),
    (tags::PATIENT_SEX, "CS", Copied::Always),
    (tags::OTHER_PATIENT_NAMES, "PN", Copied::IfThere),
    (tags::PATIENT_AGE, "AS", Copied::IfThere),
    (tags::PATIENT_SIZE, "DS", Copied::IfThere),
    (tags::PATIENT_WEIGHT, "DS", Copied::IfThere),
    (tags::PATIENT_COMMENTS, "LT", Copied::IfThere),
    (tags::DEIDENTIFICATION_METHOD, "LO", Copied::IfThere),
    (tags::PATIENT_IDENTITY_REMOVED, "CS", Copied::IfThere),
    (tags::STUDY_INSTANCE_UID, "UI", Copied::Always),
    (tags::STUDY_ID, "SH", Copied::Always),
];

/// The header of a film, as results need it.
#[derive(Debug, Clone)]
pub struct SourceFilm {
    path: PathBuf,
    pub(super) study_uid: String,
    pub(super) series_uid: String,
    pub(super) sop_class_uid: String,
    pub(super) sop_instance_uid: String,
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) frames: u32,
    pub(super) modality: Option<String>,
    pub(super) body_part: Option<String>,
    pub(super) instance_number: Option<u32>,
    /// Date and time of the pixels: DA and TM, of the first pair that has a date.
    pub(super) content_time: Option<(String, String)>,
    pub(super) presentation: Presentation,
    /// Lossy Image Compression (0028,2110) and its ratio and method, where it is `01`.
    pub(super) lossy: Option<[String; 2]>,
    pub(super) words: Words,
    shared: Vec<Element>,
}

/// What a presentation state needs beside the steps that were applied.
#[derive(Debug, Clone)]
pub(super) struct Presentation {
    /// MONOCHROME1 or MONOCHROME2 (0028,0004).
    pub photometric: String,
    /// Pixel Spacing (0028,0030), else Imager Pixel Spacing (0018,1164), as in the film.
    pub spacing: Option<String>,
    /// Pixel Aspect Ratio (0028,0034), as in the film.
    pub aspect_ratio: Option<String>,
    /// Rescale Type (0028,1054).
    pub rescale_type: Option<String>,
    /// First item of Modality LUT Sequence, and its Modality LUT Type (0028,3004).
    pub modality_lut: Option<(Lut, String)>,
    /// First item of VOI LUT Sequence.
    pub voi_lut: Option<Lut>,
}

impl SourceFilm {
    /// The header of the film at `path`; pixels are not decoded.
    ///
    /// # Errors
    /// The file cannot be read, is no DICOM file ([`ReadError::NoDicomHeader`]), holds no image, or lacks a UID that
    /// results must refer to.
    pub fn read(path: &Path, limits: &Limits) -> Result<Self, ReadError> {
        Self::of(path, &read_data_set(path, limits)?)
    }

    /// As [`SourceFilm::read`], of a file that is already in memory; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`SourceFilm::read`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>, limits: &Limits) -> Result<Self, ReadError> {
        Self::of(path, &data_set_of_bytes(path, bytes, limits)?)
    }

    /// Study Instance UID (0020,000D).
    pub fn study_uid(&self) -> &str {
        &self.study_uid
    }

    /// Series Instance UID (0020,000E).
    pub fn series_uid(&self) -> &str {
        &self.series_uid
    }

    /// SOP Instance UID (0008,0018).
    pub fn sop_instance_uid(&self) -> &str {
        &self.sop_instance_uid
    }

    /// Number of Frames (0028,0008); 1 where it is absent.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Attributes of patient and study, Specific Character Set (0008,0005) among them.
    pub(super) fn shared(&self) -> Vec<Element> {
        self.words.character_set().into_iter().chain(self.shared.iter().cloned()).collect()
    }

    fn of(path: &Path, data_set: &DataSet) -> Result<Self, ReadError> {
        if data_set.pixels.is_none() {
            return Err(ReadError::NoPixelData { path: path.into() });
        }
        let uid = |tag, name| required_uid(path, data_set, tag, name);
        let (rows, columns) = pixel_format::size(path, data_set)?;
        let shared = shared_elements(path, data_set)?;
        let texts = shared.iter().filter_map(|element| match &element.value {
            Value::Coded(_, bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        let declared = data_set.elements.get(&tags::SPECIFIC_CHARACTER_SET).map(|e| data_set.value(e));
        let words = Words::beside(declared.filter(|bytes| bytes.len() <= 256), texts);
        let text = |tag| data_set.text(tag);
        let count = |tag| text(tag).and_then(|text| text.trim().parse::<u32>().ok());
        Ok(Self {
            path: path.to_owned(),
            study_uid: uid(tags::STUDY_INSTANCE_UID, "Study Instance UID")?,
            series_uid: uid(tags::SERIES_INSTANCE_UID, "Series Instance UID")?,
            sop_class_uid: uid(tags::SOP_CLASS_UID, "SOP Class UID")?,
            sop_instance_uid: uid(tags::SOP_INSTANCE_UID, "SOP Instance UID")?,
            rows,
            columns,
            frames: count(tags::NUMBER_OF_FRAMES).unwrap_or(1).max(1),
            modality: text(tags::MODALITY),
            body_part: text(tags::BODY_PART_EXAMINED),
            instance_number: count(tags::INSTANCE_NUMBER).filter(|n| i32::try_from(*n).is_ok()),
            content_time: content_time(data_set),
            presentation: Presentation::of(data_set),
            lossy: lossy(data_set),
            words,
            shared,
        })
    }
}

impl Presentation {
    fn of(data_set: &DataSet) -> Self {
        let item = |item: Option<&crate::dataset::Elements>| RawLut::of(data_set, item?)?.usable().ok();
        let lut_type = data_set.modality_lut.as_ref().and_then(|elements| {
            let bytes = data_set.value(elements.get(&tags::MODALITY_LUT_TYPE)?);
            let text = String::from_utf8_lossy(bytes).trim_matches([' ', '\0']).to_owned();
            is_line(&text).then_some(text)
        });
        let modality_lut = item(data_set.modality_lut.as_ref());
        let numbers = |tag| data_set.text(tag).filter(|text| is_pair_of_positive_numbers(text));
        Self {
            photometric: data_set.text(tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default(),
            spacing: numbers(tags::PIXEL_SPACING).or_else(|| numbers(tags::IMAGER_PIXEL_SPACING)),
            aspect_ratio: numbers(tags::PIXEL_ASPECT_RATIO),
            rescale_type: data_set.text(tags::RESCALE_TYPE).filter(|text| is_line(text)),
            modality_lut: modality_lut.map(|lut| (lut, lut_type.unwrap_or_else(|| "US".to_owned()))),
            voi_lut: item(data_set.voi_lut.as_ref()),
        }
    }
}

/// A value of VR LO in plain ASCII.
fn is_line(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| (b' '..0x7F).contains(&b) && b != b'\\')
}

fn is_pair_of_positive_numbers(text: &str) -> bool {
    let values: Vec<&str> = text.split('\\').collect();
    let fits = |v: &&str| v.len() <= 16 && number(v).is_some_and(|v| v.is_finite() && v > 0.0);
    values.len() == 2 && values.iter().all(fits)
}

/// The elements of [`SHARED`] as the film has them.
fn shared_elements(path: &Path, data_set: &DataSet) -> Result<Vec<Element>, ReadError> {
    let mut shared = vec![];
    for (tag, vr, copied) in SHARED {
        let value = data_set.elements.get(&tag).map(|element| data_set.value(element)).unwrap_or_default();
        if value.len() > MAX_COPIED_BYTES {
            return Err(ReadError::Attribute {
                path: path.into(),
                tag: tag_text(tag),
                name: "an attribute of patient or study",
                expected: "at most 4096 bytes",
                found: format!("{} bytes", value.len()),
            });
        }
        let value = trimmed(value);
        // A value that its VR forbids would make the result an invalid object; names and identifiers are never changed.
        let value = if is_valid(vr, value) { value } else { &[] };
        if copied == Copied::Always || !value.is_empty() {
            let tag = u32::from(tag.group()) << 16 | u32::from(tag.element());
            let value = match vr {
                "UI" => Value::Uid(value.iter().map(|&b| char::from(b)).collect()),
                vr => Value::Coded(vr, value.to_vec()),
            };
            shared.push(Element { tag, value });
        }
    }
    // Patient Identity Removed (0012,0062) may not stand without the method.
    let removed = |e: &Element| e.tag == 0x0012_0062;
    if !shared.iter().any(|e| e.tag == 0x0012_0063) {
        shared.retain(|e| !removed(e));
    }
    Ok(shared)
}

/// Without the padding at the end.
fn trimmed(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|b| !matches!(b, b' ' | 0)).map_or(0, |last| last + 1);
    &value[..end]
}

/// Whether a value has the form of its VR (PS3.5 6.2), as far as it is one that machines compute with.
fn is_valid(vr: &str, value: &[u8]) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit);
    match vr {
        "DA" => value.len() == 8 && digits(value),
        "TM" => is_time(value),
        "AS" => value.len() == 4 && digits(&value[..3]) && b"DWMY".contains(&value[3]),
        "CS" => {
            let allowed = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'_' | b' ');
            value.len() <= 16 && value.iter().all(allowed)
        }
        "DS" => {
            value.len() <= 16
                && std::str::from_utf8(value).is_ok_and(|v| number(v).is_some_and(f64::is_finite))
        }
        _ => true,
    }
}

/// `HH`, `HHMM`, `HHMMSS` or `HHMMSS.F…`, in range.
fn is_time(value: &[u8]) -> bool {
    let (whole, fraction) = match value.iter().position(|&b| b == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &[][..]),
    };
    let has_dot = whole.len() < value.len();
    let in_range = whole.chunks(2).zip([24, 60, 61]).all(|(pair, limit)| {
        let both = pair.len() == 2 && pair.iter().all(u8::is_ascii_digit);
        both && (pair[0] - b'0') * 10 + (pair[1] - b'0') < limit
    });
    let fraction_fits = (1..=6).contains(&fraction.len()) && fraction.iter().all(u8::is_ascii_digit);
    matches!(whole.len(), 2 | 4 | 6) && in_range && (!has_dot || whole.len() == 6 && fraction_fits)
}

/// The first pair of date and time that has a date: of the content, the acquisition, the series, the study.
fn content_time(data_set: &DataSet) -> Option<(String, String)> {
    const PAIRS: [(Tag, Tag); 4] = [
        (tags::CONTENT_DATE, tags::CONTENT_TIME),
        (tags::ACQUISITION_DATE, tags::ACQUISITION_TIME),
        (tags::SERIES_DATE, tags::SERIES_TIME),
        (tags::STUDY_DATE, tags::STUDY_TIME),
    ];
    PAIRS.into_iter().find_map(|(date, time)| {
        let date = data_set.text(date).filter(|date| is_valid("DA", date.as_bytes()))?;
        let time = data_set.text(time).filter(|time| is_time(time.as_bytes()));
        Some((date, time.unwrap_or_else(|| "000000".to_owned())))
    })
}

fn lossy(data_set: &DataSet) -> Option<[String; 2]> {
    (data_set.text(tags::LOSSY_IMAGE_COMPRESSION)? == "01").then(|| {
        let ratio = data_set.text(tags::LOSSY_IMAGE_COMPRESSION_RATIO);
        let ratio = ratio.filter(|text| is_valid("DS", text.as_bytes())).unwrap_or_default();
        let method = data_set.text(tags::LOSSY_IMAGE_COMPRESSION_METHOD);
        [ratio, method.filter(|text| is_valid("CS", text.as_bytes())).unwrap_or_default()]
    })
}

fn required_uid(path: &Path, data_set: &DataSet, tag: Tag, name: &'static str) -> Result<String, ReadError> {
    let expected = "a UID of at most 64 digits and dots";
    let Some(uid) = data_set.text(tag) else {
        return Err(unusable(path, tag, name, expected, "nothing"));
    };
    if is_uid(&uid) { Ok(uid) } else { Err(unusable(path, tag, name, expected, format!("{uid:.80?}"))) }
}

/// Whether a text has the form of a UID of more than one component.
pub(super) fn is_uid(text: &str) -> bool {
    instance::is_uid(text) && text.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_values() {
        assert!(is_valid("DA", b"20240131") && !is_valid("DA", b"2024.01.31") && !is_valid("DA", b""));
        for time in ["10", "1030", "103059", "103059.1", "235960.123456"] {
            assert!(is_time(time.as_bytes()), "{time}");
        }
        for time in ["", "1", "103", "2400", "1060", "10.5", "103059.", "103059.1234567", "10:30"] {
            assert!(!is_time(time.as_bytes()), "{time}");
        }
        assert!(is_valid("CS", b"M") && !is_valid("CS", b"m") && !is_valid("AS", b"45"));
        assert!(is_valid("DS", b"71.5 ") && !is_valid("DS", b"7,1"));
    }

    #[test]
    fn forms_of_uids() {
        assert!(is_uid("1.2.840.0.1"));
        for text in ["", "1", "1..2", "1.2.", "1.2a", "../../etc/passwd", &format!("1.{}", "2".repeat(63))] {
            assert!(!is_uid(text), "{text}");
        }
    }
}
