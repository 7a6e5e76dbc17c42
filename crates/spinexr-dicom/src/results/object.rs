//! What every result has: the patient, study, series, equipment and SOP Common modules, and the file around them.

use super::codes::{self, PRIVATE_SCHEME, PRIVATE_SCHEME_SEED, PROCESSING_EQUIPMENT};
use super::uids::{self, Kind};
use super::{DEMONSTRATION_NOTICE, NOTICE, SourceFilm};
use crate::error::WriteError;
use crate::write::derived_uid;
use crate::write::element::{Element, Encoding};
use crate::write::header::preamble_and_meta;
use spinexr_core::{BoxXyxy, Detection, FilmPrediction};
use std::fmt;
use std::str::FromStr;

/// Explicit VR Little Endian.
const TRANSFER_SYNTAX: &str = "1.2.840.10008.1.2.1";

/// What made a prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Algorithm {
    /// What the model is called; for several bundles, their names.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// SHA-256 of the bundle, or over those of several: what names the model in every record.
    pub model_hash: String,
    /// SHA-256 of the weights, or over those of several; at most 64 characters.
    pub weights_sha256: String,
    /// SHA-256 over what else decides a prediction: thresholds, views, fusion, engine, device.
    pub config_hash: String,
    /// Thresholds and method in words, for people.
    pub parameters: String,
    /// Version of the program.
    pub software_version: String,
}

/// SOP class of a structured report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReportClass {
    /// Comprehensive SR, 1.2.840.10008.5.1.4.1.1.88.33: for viewers that read no other.
    Comprehensive,
    /// Comprehensive 3D SR, 1.2.840.10008.5.1.4.1.1.88.34, which IHE AI Results asks for.
    #[default]
    Comprehensive3d,
}

impl ReportClass {
    /// SOP Class UID.
    pub const fn uid(self) -> &'static str {
        match self {
            Self::Comprehensive => "1.2.840.10008.5.1.4.1.1.88.33",
            Self::Comprehensive3d => "1.2.840.10008.5.1.4.1.1.88.34",
        }
    }
}

/// What a caller chooses of a result.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ResultOptions {
    /// Frame that was predicted, counted from 0.
    pub frame: u32,
    /// Boxes below this score are left out; the bundle's display score.
    pub min_score: f32,
    /// SOP class of a structured report.
    pub report_class: ReportClass,
    /// Content Date and Time (0008,0023), (0008,0033) of the objects. `None` takes the film's own, so that a second run
    /// gives the same bytes; a given time is part of the UIDs.
    pub content_time: Option<ContentTime>,
}

/// A date and time of day as DICOM writes them, in the time zone of the film.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentTime {
    date: String,
    time: String,
}

/// A text that is not `YYYY-MM-DDThh:mm:ss`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a date and time such as 2026-01-31T14:05:00, found {0:?}")]
pub struct NotAContentTime(String);

impl FromStr for ContentTime {
    type Err = NotAContentTime;

    fn from_str(text: &str) -> Result<Self, NotAContentTime> {
        let error = || NotAContentTime(text.to_owned());
        let pattern = b"dddd-dd-ddTdd:dd:dd";
        let fits = |(b, p): (&u8, &u8)| if *p == b'd' { b.is_ascii_digit() } else { b == p };
        if text.len() != pattern.len() || !text.as_bytes().iter().zip(pattern).all(fits) {
            return Err(error());
        }
        let digits = |range: std::ops::Range<usize>| text[range].replace(['-', ':'], "");
        let (date, time) = (digits(0..10), digits(11..19));
        let number = |text: &str| text.parse::<u32>().unwrap_or(u32::MAX);
        let (month, day) = (number(&date[4..6]), number(&date[6..8]));
        let (hour, minute, second) = (number(&time[..2]), number(&time[2..4]), number(&time[4..]));
        let in_range =
            (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
        if in_range { Ok(Self { date, time }) } else { Err(error()) }
    }
}

impl fmt::Display for ContentTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.date, self.time)
    }
}

/// A finished DICOM object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DicomObject {
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: &'static str,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// Series Instance UID (0020,000E).
    pub series_uid: String,
    /// Study Instance UID (0020,000D), the film's.
    pub study_uid: String,
    file: Vec<u8>,
    data_set_start: usize,
}

impl DicomObject {
    /// Transfer Syntax UID of the data set: Explicit VR Little Endian.
    pub const TRANSFER_SYNTAX: &'static str = TRANSFER_SYNTAX;

    /// The object as a DICOM file (PS3.10).
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// As [`DicomObject::file`], without a copy.
    pub fn into_file(self) -> Vec<u8> {
        self.file
    }

    /// The data set alone, as C-STORE sends it.
    pub fn data_set(&self) -> &[u8] {
        self.file.get(self.data_set_start..).unwrap_or_default()
    }
}

/// What tells the kinds of objects apart in the modules they share.
pub(super) struct KindOfObject {
    pub kind: Kind,
    pub sop_class: &'static str,
    pub modality: &'static str,
    pub series_number: u32,
    pub series_description: &'static str,
}

/// The object with its common modules around `own` elements.
pub(super) fn finish(
    object: &KindOfObject,
    film: &SourceFilm,
    by: &Algorithm,
    options: &ResultOptions,
    own: Vec<Element>,
) -> DicomObject {
    let sop_instance_uid = uids::instance_uid(object.kind, film, by, options);
    let series_uid = uids::series_uid(object.kind, film, by);
    let mut elements = film.shared();
    elements.extend(own);
    elements.extend([
        Element::uid(0x0008_0016, object.sop_class),
        Element::uid(0x0008_0018, sop_instance_uid.as_str()),
        Element::text(0x0008_0060, "CS", object.modality),
        film.words.line(0x0008_103E, "LO", object.series_description, 64),
        Element::uid(0x0020_000E, series_uid.as_str()),
        Element::text(0x0020_0011, "IS", object.series_number.to_string()),
        Element::text(0x0020_0013, "IS", film.instance_number.unwrap_or(1).to_string()),
        Element::sequence(0x0018_A001, vec![contributing_equipment(film, by)]),
        Element::sequence(0x0008_0110, vec![private_scheme(film)]),
    ]);
    elements.extend(equipment(film, by));
    elements.sort_by_key(|element| element.tag);

    let mut file = preamble_and_meta(object.sop_class, &sop_instance_uid, TRANSFER_SYNTAX);
    let data_set_start = file.len();
    for element in &elements {
        element.write(Encoding::Explicit, &mut file);
    }
    DicomObject {
        sop_class_uid: object.sop_class,
        sop_instance_uid,
        series_uid,
        study_uid: film.study_uid.clone(),
        file,
        data_set_start,
    }
}

/// Enhanced General Equipment (PS3.3 C.7.5.2). The serial number is the hash of the weights: what tells one device of
/// this maker and model from another.
pub(super) fn equipment(film: &SourceFilm, by: &Algorithm) -> Vec<Element> {
    vec![
        film.words.line(0x0008_0070, "LO", "spinexr", 64),
        film.words.line(0x0008_1090, "LO", &by.name, 64),
        film.words.line(0x0018_1000, "LO", &by.weights_sha256, 64),
        film.words.line(0x0018_1020, "LO", &by.software_version, 64),
    ]
}

/// Item of Contributing Equipment Sequence (0018,A001), PS3.3 C.12.1.5: the model, its version, its weights' hash.
fn contributing_equipment(film: &SourceFilm, by: &Algorithm) -> Vec<Element> {
    let words = &film.words;
    let description = format!("{} {}; weights SHA-256 {}; {NOTICE}", by.name, by.version, by.weights_sha256);
    let mut item = equipment(film, by);
    item.push(Element::sequence(0x0040_A170, vec![PROCESSING_EQUIPMENT.item(words)]));
    item.push(words.text(0x0018_A003, "ST", &description.chars().take(1024).collect::<String>()));
    item
}

/// Item of Coding Scheme Identification Sequence (0008,0110), PS3.3 C.12.1.1.8.
fn private_scheme(film: &SourceFilm) -> Vec<Element> {
    let words = &film.words;
    vec![
        Element::text(0x0008_0102, "SH", PRIVATE_SCHEME),
        Element::uid(0x0008_010C, derived_uid(PRIVATE_SCHEME_SEED)),
        Element::text(0x0008_0103, "SH", codes::VERSION),
        words.text(0x0008_0115, "ST", "Findings and results of spinexr"),
        words.text(0x0008_0116, "ST", "spinexr"),
    ]
}

/// Date and time of an object's content. A film without any date, such as a synthetic one, gives 1 January 1900: the
/// attributes may not be empty, and no true film has that date.
pub(super) fn content_time(film: &SourceFilm, options: &ResultOptions) -> (String, String) {
    let given = options.content_time.as_ref().map(|t| (t.date.clone(), t.time.clone()));
    let unknown = || ("19000101".to_owned(), "000000".to_owned());
    given.or_else(|| film.content_time.clone()).unwrap_or_else(unknown)
}

/// Image classes that hold one frame by definition: CR, DX, mammography, intra-oral, CT, MR, Secondary Capture.
const ONE_FRAME: [&str; 11] = [
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.2",
    "1.2.840.10008.5.1.4.1.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.1.3",
    "1.2.840.10008.5.1.4.1.1.1.3.1",
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.7",
];

/// The elements of a reference to an image (PS3.3 10.8): class, instance, and the frame where there are several. Classes of
/// one frame may not be referred to by frame; where a file has several all the same, only those after the first are.
pub(super) fn image_reference(film: &SourceFilm, options: &ResultOptions) -> Vec<Element> {
    let mut reference = vec![
        Element::uid(0x0008_1150, film.sop_class_uid.as_str()),
        Element::uid(0x0008_1155, film.sop_instance_uid.as_str()),
    ];
    let one_frame = ONE_FRAME.contains(&film.sop_class_uid.as_str());
    if options.frame > 0 || film.frames > 1 && !one_frame {
        reference.push(Element::text(0x0008_1160, "IS", (options.frame + 1).to_string()));
    }
    reference
}

/// The notices of a prediction.
pub(super) fn notices(prediction: &FilmPrediction) -> String {
    if prediction.demonstration { format!("{NOTICE}. {DEMONSTRATION_NOTICE}") } else { NOTICE.to_owned() }
}

/// A box to be written: its class, score, and place clipped to the film.
pub(super) struct Finding<'a> {
    pub class: &'a str,
    pub score: f32,
    pub xyxy: BoxXyxy,
}

impl Finding<'_> {
    /// The closed outline: five points as (column, row), the origin at the outer corner of the first pixel.
    pub fn outline(&self) -> Vec<f32> {
        let BoxXyxy { x1, y1, x2, y2 } = self.xyxy;
        vec![x1, y1, x2, y1, x2, y2, x1, y2, x1, y1]
    }
}

/// The boxes of a prediction that are reported, surest first; checked to lie on the film that they are to be written for.
pub(super) fn findings<'a>(
    object: &'static str,
    film: &SourceFilm,
    prediction: &'a FilmPrediction,
    options: &ResultOptions,
) -> Result<Vec<Finding<'a>>, WriteError> {
    let fail =
        |field, expected: String, found: String| Err(WriteError::Result { object, field, expected, found });
    let (columns, rows) = (u32::from(film.columns), u32::from(film.rows));
    if (prediction.width_px, prediction.height_px) != (columns, rows) {
        let found = format!("{} x {}", prediction.width_px, prediction.height_px);
        return fail("size of the prediction", format!("{columns} x {rows} px as in the film"), found);
    }
    if options.frame >= film.frames {
        return fail("frame", format!("below {}", film.frames), options.frame.to_string());
    }
    let mut reported: Vec<&Detection> =
        prediction.boxes.iter().filter(|b| b.score >= options.min_score || b.score.is_nan()).collect();
    reported.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut findings = vec![];
    for b in reported {
        let clipped = b.xyxy.clip(columns as f32, rows as f32);
        let on_film = b.xyxy.is_finite() && clipped.x1 < clipped.x2 && clipped.y1 < clipped.y2;
        if !on_film {
            return fail("box", format!("a box on a film of {columns} x {rows} px"), format!("{:?}", b.xyxy));
        }
        if !(0.0..=1.0).contains(&b.score) {
            return fail("score", "0 to 1".to_owned(), b.score.to_string());
        }
        findings.push(Finding { class: b.label.name(), score: b.score, xyxy: clipped });
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_times() {
        assert_eq!("2026-01-31T14:05:09".parse::<ContentTime>().unwrap().to_string(), "20260131140509");
        for text in ["", "2026-01-31", "2026-13-31T14:05:09", "2026-01-31T24:00:00", "2026-01-31 14:05:09"] {
            assert!(text.parse::<ContentTime>().is_err(), "{text}");
        }
    }
}
