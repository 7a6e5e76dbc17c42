//! The coded vocabulary of results: every code that a result holds, in one table with one version.
//!
//! Standard codes come first; what no public scheme names has a code of our own under [`PRIVATE_SCHEME`], which every
//! object declares in its Coding Scheme Identification Sequence (0008,0110). A class outside the table, of a model with
//! a class list of its own, gets a private code that is derived from its name, so that the same name always has the
//! same code.
//!
//! The check digit of every SNOMED CT code is tested. What else backs a code is said beside it: *DICOM* where it stands
//! in a context group of PS3.16 2022b, *check digit* where only public secondary sources name it and no release of
//! SNOMED CT was at hand. A change of this table is a new [`VERSION`], and with it new UIDs of results.

use super::words::Words;
use crate::write::element::Element;
use sha2::{Digest, Sha256};
use spinexr_core::hex;
use std::borrow::Cow;

/// Version of this table; Coding Scheme Version (0008,0103) of [`PRIVATE_SCHEME`].
pub const VERSION: &str = "1";

/// Coding Scheme Designator of codes that are ours.
pub const PRIVATE_SCHEME: &str = "99SPINEXR";

/// Seed of the UID of [`PRIVATE_SCHEME`].
pub(super) const PRIVATE_SCHEME_SEED: &[u8] = b"spinexr coding scheme 99SPINEXR";

/// Most characters of a Code Meaning (0008,0104), VR LO.
const MEANING_CHARS: usize = 64;

/// A coded concept (PS3.3 section 8): value, scheme and meaning.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Code {
    /// Code Value (0008,0100).
    pub value: Cow<'static, str>,
    /// Coding Scheme Designator (0008,0102).
    pub scheme: Cow<'static, str>,
    /// Code Meaning (0008,0104).
    pub meaning: Cow<'static, str>,
}

impl Code {
    const fn new(value: &'static str, scheme: &'static str, meaning: &'static str) -> Self {
        Self { value: Cow::Borrowed(value), scheme: Cow::Borrowed(scheme), meaning: Cow::Borrowed(meaning) }
    }

    /// Whether both name the same concept. Meanings are for people and may differ.
    pub fn is(&self, other: &Self) -> bool {
        self.value == other.value && self.scheme == other.scheme
    }

    /// The elements of an item of a code sequence.
    pub(super) fn item(&self, words: &Words) -> Vec<Element> {
        let long = self.value.len() > 16;
        let (tag, vr) = if long { (0x0008_0119, "UC") } else { (0x0008_0100, "SH") };
        vec![
            Element::text(tag, vr, self.value.as_ref()),
            Element::text(0x0008_0102, "SH", self.scheme.as_ref()),
            words.line(0x0008_0104, "LO", &self.meaning, MEANING_CHARS),
        ]
    }
}

const fn dcm(value: &'static str, meaning: &'static str) -> Code {
    Code::new(value, "DCM", meaning)
}

const fn sct(value: &'static str, meaning: &'static str) -> Code {
    Code::new(value, "SCT", meaning)
}

const fn ours(value: &'static str, meaning: &'static str) -> Code {
    Code::new(value, PRIVATE_SCHEME, meaning)
}

// Names of content items, after TID 1500, 1410, 1419, 320, 1204, 1004, 4019, 1600 to 1602.
pub(super) const IMAGING_MEASUREMENT_REPORT: Code = dcm("126000", "Imaging Measurement Report");
pub(super) const LANGUAGE: Code = dcm("121049", "Language of Content Item and Descendants");
pub(super) const OBSERVER_TYPE: Code = dcm("121005", "Observer Type");
pub(super) const DEVICE_OBSERVER_UID: Code = dcm("121012", "Device Observer UID");
pub(super) const DEVICE_OBSERVER_NAME: Code = dcm("121013", "Device Observer Name");
pub(super) const DEVICE_OBSERVER_MANUFACTURER: Code = dcm("121014", "Device Observer Manufacturer");
pub(super) const DEVICE_OBSERVER_MODEL: Code = dcm("121015", "Device Observer Model Name");
pub(super) const DEVICE_OBSERVER_SERIAL: Code = dcm("121016", "Device Observer Serial Number");
pub(super) const PROCEDURE_REPORTED: Code = dcm("121058", "Procedure reported");
pub(super) const IMAGE_LIBRARY: Code = dcm("111028", "Image Library");
pub(super) const IMAGE_LIBRARY_GROUP: Code = dcm("126200", "Image Library Group");
pub(super) const MODALITY: Code = dcm("121139", "Modality");
pub(super) const TARGET_REGION: Code = dcm("123014", "Target Region");
pub(super) const PIXEL_DATA_ROWS: Code = dcm("110910", "Pixel Data Rows");
pub(super) const PIXEL_DATA_COLUMNS: Code = dcm("110911", "Pixel Data Columns");
pub(super) const IMAGING_MEASUREMENTS: Code = dcm("126010", "Imaging Measurements");
pub(super) const MEASUREMENT_GROUP: Code = dcm("125007", "Measurement Group");
pub(super) const TRACKING_IDENTIFIER: Code = dcm("112039", "Tracking Identifier");
pub(super) const TRACKING_UID: Code = dcm("112040", "Tracking Unique Identifier");
pub(super) const FINDING: Code = dcm("121071", "Finding");
pub(super) const FINDING_SITE: Code = sct("363698007", "Finding Site"); // DICOM
pub(super) const ALGORITHM_NAME: Code = dcm("111001", "Algorithm Name");
pub(super) const ALGORITHM_PARAMETERS: Code = dcm("111002", "Algorithm Parameters");
pub(super) const ALGORITHM_VERSION: Code = dcm("111003", "Algorithm Version");
pub(super) const IMAGE_REGION: Code = dcm("111030", "Image Region");
pub(super) const SOURCE: Code = sct("260753009", "Source"); // DICOM
pub(super) const SOURCE_OF_MEASUREMENT: Code = dcm("121112", "Source of Measurement");
pub(super) const QUALITATIVE_EVALUATIONS: Code = Code::new("C0034375", "UMLS", "Qualitative Evaluations");
pub(super) const COMMENT: Code = dcm("121106", "Comment");

// Values.
pub(super) const ENGLISH: Code = Code::new("en", "RFC5646", "English");
pub(super) const DEVICE: Code = dcm("121007", "Device");
/// Of CID 100, the one that says no more than is known.
pub(super) const IMAGING_PROCEDURE: Code = sct("363679005", "Imaging procedure"); // DICOM
pub(super) const SPINE: Code = sct("421060004", "Spine"); // DICOM
pub(super) const CERVICAL_SPINE: Code = sct("122494005", "Cervical spine"); // DICOM
pub(super) const THORACIC_SPINE: Code = sct("122495006", "Thoracic spine"); // DICOM
pub(super) const LUMBAR_SPINE: Code = sct("122496007", "Lumbar spine"); // DICOM
pub(super) const NO_UNITS: Code = Code::new("1", "UCUM", "no units");
pub(super) const PIXELS: Code = Code::new("{pixels}", "UCUM", "pixels");
pub(super) const PROCESSING_EQUIPMENT: Code = dcm("109102", "Processing Equipment");
pub(super) const SOURCE_IMAGE: Code = dcm("121322", "Source image for image processing operation");

// What a film-level classifier and a detector say. (111047,DCM) is the probability of cancer, and so not ours.
pub(super) const CONFIDENCE: Code = ours("CONFIDENCE", "Detector confidence");
pub(super) const P_ABNORMAL: Code = ours("P_ABNORMAL", "Probability of film being abnormal");
pub(super) const C_STAR: Code = ours("C_STAR", "Threshold c* on probability of film being abnormal");
pub(super) const FINDING_COUNT: Code = ours("FINDING_COUNT", "Number of findings reported");
pub(super) const LEAST_CONFIDENCE: Code = ours("LEAST_CONFIDENCE", "Least confidence of reported findings");
pub(super) const FILM_VERDICT: Code = ours("VERDICT", "Film-level verdict");
pub(super) const CALLED_ABNORMAL: Code = ours("ABNORMAL", "Called abnormal");
/// Below the threshold is not the same as healthy, and so not (17621005,SCT,"Normal").
pub(super) const NOT_CALLED_ABNORMAL: Code = ours("NOT_ABNORMAL", "Not called abnormal");
pub(super) const NOT_DECIDED: Code = ours("NOT_DECIDED", "No film-level decision");

/// The 13 categories of VinDr-SpineXR by the name of the data set's files, each with its code.
pub const FINDINGS: [(&str, Code); 13] = [
    ("Ankylosis", ours("LT1", "Ankylosis")),
    ("Disc space narrowing", ours("LT2", "Disc space narrowing")),
    ("Enthesophytes", ours("LT3", "Enthesophytes")),
    ("Foraminal stenosis", sct("371000119109", "Stenosis of intervertebral foramina")), // check digit
    ("Fracture", sct("125605004", "Fracture of bone")),                                 // check digit
    ("Osteophytes", sct("88998003", "Osteophyte")),                                     // check digit
    ("Sclerotic lesion", ours("LT7", "Sclerotic lesion")),
    ("Spondylolysthesis", sct("274152003", "Spondylolisthesis")), // check digit
    ("Subchondral sclerosis", ours("LT9", "Subchondral sclerosis")),
    ("Surgical implant", sct("40388003", "Implant")), // DICOM
    // Narrower than the category: not every collapse is a compression fracture.
    ("Vertebral collapse", sct("42942008", "Compression fracture of vertebral column")), // check digit
    ("Foreign body", sct("19227008", "Foreign body")),                                   // DICOM
    ("Other lesions", ours("LT13", "Other lesions")),
];

/// The code of a class by its name: that of [`FINDINGS`], or a private one derived from the name.
pub fn finding_code(class: &str) -> Code {
    match FINDINGS.iter().find(|(name, _)| *name == class) {
        Some((_, code)) => code.clone(),
        None => {
            let digest = hex(&Sha256::digest(class.as_bytes())[..6]);
            Code {
                value: format!("F-{digest}").into(),
                scheme: PRIVATE_SCHEME.into(),
                meaning: class.to_owned().into(),
            }
        }
    }
}

/// The class that a code names: by [`FINDINGS`], else its meaning, which is the name for private codes of this crate.
pub fn class_of_code(code: &Code) -> String {
    match FINDINGS.iter().find(|(_, known)| known.is(code)) {
        Some((name, _)) => (*name).to_owned(),
        None => code.meaning.clone().into_owned(),
    }
}

/// The region of a Body Part Examined (0018,0015); the spine where it says no more.
pub(super) fn region(body_part: Option<&str>) -> Code {
    match body_part {
        Some("CSPINE") => CERVICAL_SPINE,
        Some("TSPINE") => THORACIC_SPINE,
        Some("LSPINE") => LUMBAR_SPINE,
        _ => SPINE,
    }
}

/// Code of a Modality (0008,0060), from CID 29; `None` for others than a film can have.
pub(super) fn modality(modality: &str) -> Option<Code> {
    const MODALITIES: [(&str, &str); 8] = [
        ("CR", "Computed Radiography"),
        ("DX", "Digital Radiography"),
        ("RG", "Radiographic imaging"),
        ("RF", "Radiofluoroscopy"),
        ("XA", "X-Ray Angiography"),
        ("CT", "Computed Tomography"),
        ("OT", "Other Modality"),
        ("SC", "Secondary Capture"),
    ];
    MODALITIES.into_iter().find(|(value, _)| *value == modality).map(|(value, meaning)| dcm(value, meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verhoeff's check of a decimal number with its check digit (SNOMED CT, Technical Implementation Guide 5.5):
    /// the digits permuted by place, multiplied in the dihedral group D5.
    fn verhoeff_holds(digits: &str) -> bool {
        let times = |a: u32, b: u32| match (a < 5, b < 5) {
            (true, true) => (a + b) % 5,
            (true, false) => (a + b) % 5 + 5,
            (false, true) => (a + 5 - b) % 5 + 5,
            (false, false) => (a + 5 - b) % 5,
        };
        const PERMUTATION: [u32; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
        let check = digits.chars().rev().enumerate().fold(0, |check, (place, digit)| {
            let digit = digit.to_digit(10).expect("SNOMED CT codes are digits");
            let permuted = (0..place % 8).fold(digit, |d, _| PERMUTATION[d as usize]);
            times(check, permuted)
        });
        check == 0
    }

    /// Every code of the table: the constants, as their source names them, and the findings.
    fn all_sct() -> Vec<String> {
        let source = include_str!("codes.rs");
        source
            .split("sct(\"")
            .skip(1)
            .filter_map(|rest| rest.split_once('"'))
            .map(|(value, _)| value.to_owned())
            .filter(|value| value.bytes().all(|b| b.is_ascii_digit()) && !value.is_empty())
            .collect()
    }

    #[test]
    fn verhoeff_knows_right_from_wrong() {
        // 2363 and its neighbours: the example of the algorithm's description.
        assert!(verhoeff_holds("2363"));
        for wrong in ["2364", "2336", "3263", "2360"] {
            assert!(!verhoeff_holds(wrong), "{wrong}");
        }
    }

    #[test]
    fn check_digits_of_every_snomed_ct_code_hold() {
        let codes = all_sct();
        assert!(codes.len() >= 14, "{codes:?}");
        for code in codes {
            assert!(verhoeff_holds(&code), "{code}");
        }
    }

    #[test]
    fn every_category_has_one_code_that_names_it() {
        for category in spinexr_core::Category::ALL {
            let code = finding_code(category.name());
            assert!(FINDINGS.iter().any(|(name, _)| *name == category.name()), "{}", category.name());
            assert_eq!(class_of_code(&code), category.name());
        }
    }

    #[test]
    fn a_class_outside_the_table_has_the_code_of_its_name() {
        let code = finding_code("Scoliosis");
        assert_eq!((code.scheme.as_ref(), code.meaning.as_ref()), (PRIVATE_SCHEME, "Scoliosis"));
        assert!(code.value.len() <= 16);
        assert_eq!(code, finding_code("Scoliosis"));
        assert_ne!(code.value, finding_code("scoliosis").value);
        assert_eq!(class_of_code(&code), "Scoliosis");
    }

    #[test]
    fn meanings_and_values_fit_their_vr() {
        let fits = |code: &Code| {
            assert!(code.meaning.chars().count() <= MEANING_CHARS, "{code:?}");
            assert!(code.value.len() <= 16 && code.scheme.len() <= 16, "{code:?}");
        };
        FINDINGS.iter().for_each(|(_, code)| fits(code));
        [C_STAR, LEAST_CONFIDENCE, NOT_CALLED_ABNORMAL, SOURCE_IMAGE].iter().for_each(fits);
    }
}
