//! Stored values: the integers a file codes (PS3.3 C.7.6.3.1, PS3.5 8.1.1).

use crate::attributes::unusable;
use crate::codec::{Colour, decode_frame};
use crate::colour;
use crate::dataset::DataSet;
use crate::error::ReadError;
use crate::options::ReadOptions;
use crate::pixel_format::{Photometric, PixelFormat, pixel_format};
use dicom_dictionary_std::tags;
use std::path::Path;

/// Stored values of one grey frame, or the luma of a colour one.
#[derive(Debug)]
pub(crate) struct Stored {
    pub height: usize,
    pub width: usize,
    /// Row-major `[H, W]`.
    pub values: Vec<i32>,
    /// Least value the bits can hold.
    pub lowest: i32,
    /// Bits that hold a value; at most 16.
    pub bits: u32,
    pub format: PixelFormat,
    /// Grey made from colour: no modality, VOI or polarity step applies.
    pub is_luma: bool,
}

impl Stored {
    /// How often each possible value occurs, from `lowest` on.
    pub fn histogram(&self) -> Vec<u32> {
        let mut counts = vec![0u32; 1 << self.bits];
        for &value in &self.values {
            counts[(value - self.lowest) as usize] += 1;
        }
        counts
    }

    /// The image with each value replaced by its entry in `table`, which begins at `lowest`.
    pub fn through<T: Copy>(&self, table: &[T]) -> Vec<T> {
        self.values.iter().map(|&value| table[(value - self.lowest) as usize]).collect()
    }
}

/// Decodes the stored values of the frame asked for. `bits_stored` replaces Bits Stored (0028,0101).
pub(crate) fn read_stored(
    path: &Path,
    data_set: &DataSet,
    options: &ReadOptions,
    bits_stored: Option<u32>,
    notes: &mut Vec<String>,
) -> Result<Stored, ReadError> {
    if data_set.pixels.is_none() {
        return Err(ReadError::NoPixelData { path: path.into() });
    }
    let mut format = pixel_format(path, data_set, &options.limits, notes)?;
    if let Some(bits) = bits_stored {
        format.bits_stored = bits;
        format.high_bit = bits - 1;
    }
    if options.frame >= format.frames {
        return Err(ReadError::NoSuchFrame {
            path: path.into(),
            frame: options.frame,
            frames: format.frames,
        });
    }
    if format.frames > 1 {
        notes.push(format!("frame {} of {}", options.frame, format.frames));
    }
    let samples = decode_frame(path, data_set, &format, options.frame, notes)?;
    let (height, width) = (format.height, format.width);
    if !format.photometric.is_grey() {
        let photometric = match samples.colour {
            Colour::Rgb => Photometric::Rgb,
            Colour::AsDeclared => format.photometric,
        };
        let palette = match photometric {
            Photometric::PaletteColor => Some(colour::Palette::of(data_set).ok_or_else(|| {
                let (tag, name) =
                    (tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, "Red Palette Color Lookup Table");
                unusable(path, tag, name, "three tables of equal size", "no usable tables")
            })?),
            _ => None,
        };
        notes.push(format!("{photometric:?} pixels turned into grey (luma)"));
        let bits = if palette.is_some() { 8 } else { format.bits_stored };
        let values = colour::luma(&samples.values, photometric, palette.as_ref(), bits);
        return Ok(Stored { height, width, values, lowest: 0, bits, format, is_luma: true });
    }

    // A JPEG states its own precision; unused bits and High Bit exist in uncompressed forms only.
    let (bits, shift) = match samples.precision {
        Some(_) if format.signed => (format.bits_stored, 0),
        Some(precision) => (precision.max(format.bits_stored), 0),
        None => (format.bits_stored, format.high_bit + 1 - format.bits_stored),
    };
    let unused = 32 - bits;
    let values: Vec<i32> = if format.signed {
        // Up to the top and back down: the sign bit is the highest of the stored bits.
        samples.values.iter().map(|&v| ((u32::from(v >> shift) << unused) as i32) >> unused).collect()
    } else {
        let mask = u16::MAX >> (16 - bits);
        samples.values.iter().map(|&v| i32::from((v >> shift) & mask)).collect()
    };
    let lowest = if format.signed { -(1 << (bits - 1)) } else { 0 };
    Ok(Stored { height, width, values, lowest, bits, format, is_luma: false })
}
