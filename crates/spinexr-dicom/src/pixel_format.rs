//! The Image Pixel module (PS3.3 C.7.6.3): how pixels are laid out, checked before any is touched.

use crate::attributes::{number, unusable};
use crate::dataset::DataSet;
use crate::error::ReadError;
use crate::options::Limits;
use dicom_dictionary_std::tags;
use std::path::Path;

/// Photometric Interpretation (0028,0004), PS3.3 C.7.6.3.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Photometric {
    Monochrome1,
    Monochrome2,
    Rgb,
    YbrFull,
    YbrFull422,
    /// YBR_RCT or YBR_ICT: what JPEG 2000 decoders give back as RGB.
    YbrWavelet,
    PaletteColor,
}

impl Photometric {
    pub fn is_grey(self) -> bool {
        matches!(self, Self::Monochrome1 | Self::Monochrome2)
    }
}

/// Layout of the pixels of one file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PixelFormat {
    pub height: usize,
    pub width: usize,
    pub frames: u32,
    pub samples_per_pixel: usize,
    pub photometric: Photometric,
    /// Samples by plane instead of by pixel.
    pub planar: bool,
    /// 8 or 16.
    pub bits_allocated: u32,
    pub bits_stored: u32,
    pub high_bit: u32,
    pub signed: bool,
}

impl PixelFormat {
    /// Samples of one frame.
    pub fn frame_samples(&self) -> usize {
        self.height * self.width * self.samples_per_pixel
    }
}

/// Rows and Columns.
pub(crate) fn size(path: &Path, data_set: &DataSet) -> Result<(u16, u16), ReadError> {
    let rows = data_set.required_word(path, tags::ROWS, "Rows")?;
    let columns = data_set.required_word(path, tags::COLUMNS, "Columns")?;
    if rows == 0 {
        return Err(unusable(path, tags::ROWS, "Rows", "at least 1", "0"));
    }
    if columns == 0 {
        return Err(unusable(path, tags::COLUMNS, "Columns", "at least 1", "0"));
    }
    Ok((rows, columns))
}

/// The layout the header claims, within `limits`.
pub(crate) fn pixel_format(
    path: &Path,
    data_set: &DataSet,
    limits: &Limits,
    notes: &mut Vec<String>,
) -> Result<PixelFormat, ReadError> {
    let (rows, columns) = size(path, data_set)?;
    let photometric = photometric(path, data_set)?;
    let samples = match data_set.word(tags::SAMPLES_PER_PIXEL) {
        None if photometric.is_grey() || photometric == Photometric::PaletteColor => {
            notes.push("no Samples per Pixel (0028,0002): 1 assumed".into());
            1
        }
        found => found.unwrap_or(0),
    };
    let expected = if photometric.is_grey() || photometric == Photometric::PaletteColor { 1 } else { 3 };
    if samples != expected {
        let (name, wanted) = ("Samples per Pixel", if expected == 1 { "1 for grey" } else { "3 for colour" });
        return Err(unusable(path, tags::SAMPLES_PER_PIXEL, name, wanted, samples.to_string()));
    }
    let frames = frames(path, data_set)?;
    let total = u64::from(rows) * u64::from(columns) * u64::from(samples);
    let total = total.saturating_mul(u64::from(frames));
    if total > limits.max_pixels {
        return Err(ReadError::TooLarge {
            path: path.into(),
            what: "rows x columns x samples x frames",
            found: total,
            limit: limits.max_pixels,
        });
    }

    let allocated = data_set.required_word(path, tags::BITS_ALLOCATED, "Bits Allocated")?;
    if allocated != 8 && allocated != 16 {
        return Err(unusable(path, tags::BITS_ALLOCATED, "Bits Allocated", "8 or 16", allocated.to_string()));
    }
    let stored = data_set.required_word(path, tags::BITS_STORED, "Bits Stored")?;
    if stored == 0 || stored > allocated {
        let found = format!("{stored} (Bits Allocated is {allocated})");
        return Err(unusable(path, tags::BITS_STORED, "Bits Stored", "1 to Bits Allocated", found));
    }
    let high_bit = data_set.word(tags::HIGH_BIT).unwrap_or_else(|| {
        notes.push("no High Bit (0028,0102): Bits Stored - 1 assumed".into());
        stored - 1
    });
    if high_bit < stored - 1 || high_bit >= allocated {
        let found = format!("{high_bit} (Bits Stored is {stored}, Bits Allocated {allocated})");
        return Err(unusable(path, tags::HIGH_BIT, "High Bit", "Bits Stored - 1", found));
    }
    if high_bit != stored - 1 {
        notes.push(format!("High Bit (0028,0102) is {high_bit}: stored values shifted down"));
    }
    let signed = match data_set.word(tags::PIXEL_REPRESENTATION) {
        Some(representation @ (0 | 1)) => representation == 1,
        None => {
            notes.push("no Pixel Representation (0028,0103): unsigned assumed".into());
            false
        }
        Some(other) => {
            let found = other.to_string();
            return Err(unusable(path, tags::PIXEL_REPRESENTATION, "Pixel Representation", "0 or 1", found));
        }
    };
    Ok(PixelFormat {
        height: usize::from(rows),
        width: usize::from(columns),
        frames,
        samples_per_pixel: usize::from(samples),
        photometric,
        planar: data_set.word(tags::PLANAR_CONFIGURATION) == Some(1),
        bits_allocated: u32::from(allocated),
        bits_stored: u32::from(stored),
        high_bit: u32::from(high_bit),
        signed,
    })
}

fn photometric(path: &Path, data_set: &DataSet) -> Result<Photometric, ReadError> {
    let (tag, name) = (tags::PHOTOMETRIC_INTERPRETATION, "Photometric Interpretation");
    let expected = "MONOCHROME1, MONOCHROME2, RGB, YBR_FULL, YBR_FULL_422, YBR_RCT, YBR_ICT or PALETTE COLOR";
    match data_set.text(tag).as_deref() {
        Some("MONOCHROME1") => Ok(Photometric::Monochrome1),
        Some("MONOCHROME2") => Ok(Photometric::Monochrome2),
        Some("RGB") => Ok(Photometric::Rgb),
        Some("YBR_FULL") => Ok(Photometric::YbrFull),
        Some("YBR_FULL_422") => Ok(Photometric::YbrFull422),
        Some("YBR_RCT" | "YBR_ICT") => Ok(Photometric::YbrWavelet),
        Some("PALETTE COLOR") => Ok(Photometric::PaletteColor),
        Some(other) => Err(unusable(path, tag, name, expected, other)),
        None => Err(unusable(path, tag, name, expected, "nothing")),
    }
}

fn frames(path: &Path, data_set: &DataSet) -> Result<u32, ReadError> {
    let (tag, name) = (tags::NUMBER_OF_FRAMES, "Number of Frames");
    let Some(text) = data_set.text(tag) else { return Ok(1) };
    match number(&text) {
        Some(n) if n >= 1.0 && n.fract() == 0.0 && n <= f64::from(u32::MAX) => Ok(n as u32),
        _ => Err(unusable(path, tag, name, "a whole number of at least 1", text)),
    }
}
