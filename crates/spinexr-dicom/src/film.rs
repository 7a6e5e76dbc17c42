//! A film in memory, and the record of how it came to be.

use crate::options::{Policy, Stage};
use serde::{Deserialize, Serialize};
use spinexr_core::FilmFacts;
use spinexr_core::film_facts::{age_band, code, exposure_band, maker, size_band};

/// Display pixels, row-major `[H, W]`, in the sense of MONOCHROME2: bone is bright.
#[derive(Debug, Clone, PartialEq)]
pub enum Display {
    /// 0 to 255, from [`Policy::Vindr`].
    U8(Vec<u8>),
    /// 0 to 1, from [`Policy::Standard`].
    F32(Vec<f32>),
}

/// What the header says of a film. A missing or unreadable attribute is `None`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FilmHeader {
    /// File stem: the name annotations use.
    pub image_id: String,
    /// Study Instance UID (0020,000D).
    pub study_uid: Option<String>,
    /// Series Instance UID (0020,000E).
    pub series_uid: Option<String>,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: Option<String>,
    /// Patient's Sex (0010,0040).
    pub sex: Option<String>,
    /// Patient's Age (0010,1010), years.
    pub age_years: Option<f32>,
    /// View Position (0018,5101).
    pub view_position: Option<String>,
    /// Body Part Examined (0018,0015).
    pub body_part: Option<String>,
    /// Image Laterality (0020,0062), else Laterality (0020,0060).
    pub laterality: Option<String>,
    /// Manufacturer (0008,0070).
    pub manufacturer: Option<String>,
    /// Modality (0008,0060).
    pub modality: Option<String>,
    /// Row and column spacing, mm: Pixel Spacing (0028,0030), else Imager Pixel Spacing (0018,1164).
    pub pixel_spacing_mm: Option<[f64; 2]>,
    /// Deviation Index (0018,1413): how far the exposure was from the one aimed at.
    #[serde(default)]
    pub deviation_index: Option<f64>,
    /// Bits Stored (0028,0101).
    #[serde(default)]
    pub bits_stored: Option<u16>,
    /// Lossy Image Compression (0028,2110), or a transfer syntax that is always lossy. `None` where neither says.
    #[serde(default)]
    pub lossy: Option<bool>,
}

impl FilmHeader {
    /// What may travel with a prediction: bands and coded values, nothing that points to a person.
    pub fn facts(&self, height_px: u32, width_px: u32) -> FilmFacts {
        let longer_side_mm =
            |[row, column]: [f64; 2]| f64::max(row * f64::from(height_px), column * f64::from(width_px));
        let sex = self.sex.as_deref().and_then(code).filter(|sex| ["F", "M", "O"].contains(&sex.as_str()));
        FilmFacts {
            sex,
            age: self.age_years.and_then(age_band),
            view: self.view_position.as_deref().and_then(code),
            body_part: self.body_part.as_deref().and_then(code),
            manufacturer: self.manufacturer.as_deref().and_then(maker),
            film_size: self.pixel_spacing_mm.map(longer_side_mm).and_then(size_band),
            exposure: self.deviation_index.and_then(exposure_band),
            compression: self.lossy.map(|lossy| if lossy { "lossy" } else { "lossless" }.to_owned()),
            depth: self.bits_stored.filter(|bits| (1..=64).contains(bits)).map(|bits| format!("{bits} bits")),
        }
    }
}

/// File format a film was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// DICOM file (PS3.10), or a bare data set.
    Dicom,
    /// PNG.
    Png,
    /// JPEG outside DICOM.
    Jpeg,
}

/// The modality step that was applied (PS3.3 C.11.1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ModalityApplied {
    /// Stored values went on unchanged.
    None,
    /// First item of the Modality LUT Sequence.
    Lut {
        /// Number of entries.
        entries: u32,
        /// Stored value mapped by the first entry.
        first: i32,
        /// Bits of an entry.
        bits: u16,
    },
    /// `slope * x + intercept`.
    Rescale {
        /// Rescale Slope (0028,1053).
        slope: f64,
        /// Rescale Intercept (0028,1052).
        intercept: f64,
    },
}

/// VOI LUT Function (0028,1056), PS3.3 C.11.2.1.2 and C.11.2.1.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VoiFunction {
    /// The default, with its half-pixel offsets.
    Linear,
    /// Without offsets.
    LinearExact,
    /// A logistic curve.
    Sigmoid,
}

/// The VOI step that was applied (PS3.3 C.11.2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum VoiApplied {
    /// No VOI step (earlier stages, colour, PNG and JPEG files).
    None,
    /// First item of the VOI LUT Sequence.
    Lut {
        /// Number of entries.
        entries: u32,
        /// Input value mapped by the first entry.
        first: i32,
        /// Bits of an entry.
        bits: u16,
    },
    /// First window.
    Window {
        /// Window Center (0028,1050).
        center: f64,
        /// Window Width (0028,1051).
        width: f64,
        /// VOI LUT Function (0028,1056).
        function: VoiFunction,
    },
    /// Stretched from the least to the greatest value that is not padding.
    MinMax {
        /// Least value.
        min: f64,
        /// Greatest value.
        max: f64,
    },
}

/// What was done about polarity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolarityApplied {
    /// Nothing: high values are bright already, or the stage precedes polarity.
    Unchanged,
    /// Inverted once, because Photometric Interpretation (0028,0004) is MONOCHROME1.
    Inverted,
}

/// What was done to a film on its way from file to pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// File format.
    pub format: Format,
    /// Transfer Syntax UID (0002,0010); none for PNG and JPEG files.
    pub transfer_syntax: Option<String>,
    /// Photometric Interpretation (0028,0004) of the file.
    pub photometric: Option<String>,
    /// Policy asked for.
    pub policy: Policy,
    /// Stage the pixels are at.
    pub stage: Stage,
    /// Frame read, counted from 0.
    pub frame: u32,
    /// Modality step applied.
    pub modality: ModalityApplied,
    /// VOI step applied.
    pub voi: VoiApplied,
    /// Polarity step applied.
    pub polarity: PolarityApplied,
    /// Why the regular way of the policy failed, when its fallback made the pixels.
    pub fallback: Option<String>,
    /// Departures of the file from the standard, and how each was understood.
    pub notes: Vec<String>,
}

/// A film ready for a model or a viewer.
#[derive(Debug, Clone, PartialEq)]
pub struct Radiograph {
    /// Height, px.
    pub height_px: u32,
    /// Width, px.
    pub width_px: u32,
    /// Display pixels.
    pub display: Display,
    /// What the header says.
    pub header: FilmHeader,
    /// What was done.
    pub provenance: Provenance,
}

impl Radiograph {
    /// Coded facts of the header; see [`FilmHeader::facts`].
    pub fn facts(&self) -> FilmFacts {
        self.header.facts(self.height_px, self.width_px)
    }
}

/// Pixels of one stage, row-major `[H, W]`, in the stage's own type.
#[derive(Debug, Clone, PartialEq)]
pub enum StageData {
    /// Stored values.
    I32(Vec<i32>),
    /// Modality and VOI values.
    F64(Vec<f64>),
    /// Display of [`Policy::Vindr`].
    U8(Vec<u8>),
    /// Display of [`Policy::Standard`].
    F32(Vec<f32>),
}

/// One stage of a film.
#[derive(Debug, Clone, PartialEq)]
pub struct StageImage {
    /// Height, px.
    pub height: usize,
    /// Width, px.
    pub width: usize,
    /// Pixels.
    pub data: StageData,
    /// What was done up to this stage.
    pub provenance: Provenance,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_point_to_nobody() {
        let header = FilmHeader {
            image_id: "a".into(),
            study_uid: Some("1.2.3".into()),
            sex: Some("f".into()),
            age_years: Some(91.0),
            view_position: Some("LL".into()),
            body_part: Some("Doe^Jane in the wrong field".into()),
            manufacturer: Some("Maker  Inc.".into()),
            pixel_spacing_mm: Some([0.15, 0.2]),
            deviation_index: Some(-2.0),
            bits_stored: Some(12),
            lossy: Some(false),
            ..FilmHeader::default()
        };
        let facts = header.facts(2400, 1000);
        let expected = FilmFacts {
            sex: Some("F".into()),
            age: Some("80 and over".into()),
            view: Some("LL".into()),
            body_part: None,
            manufacturer: Some("MAKER INC.".into()),
            film_size: Some("350-449 mm".into()),
            exposure: Some("under target".into()),
            compression: Some("lossless".into()),
            depth: Some("12 bits".into()),
        };
        assert_eq!(facts, expected);
        assert!(FilmHeader::default().facts(100, 100).is_empty());
    }
}
