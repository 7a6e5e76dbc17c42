//! Pixels that are not compressed (PS3.5 8.1 and annex D), in either byte order.

use super::{Colour, Samples};
use crate::dataset::{DataSet, Element};
use crate::pixel_format::{Photometric, PixelFormat};
use dicom_core::VR;

pub(super) fn decode(
    data_set: &DataSet,
    element: &Element,
    format: &PixelFormat,
    frame: u32,
    notes: &mut Vec<String>,
) -> Result<Samples, String> {
    let bytes = data_set.value(element);
    let halved = format.photometric == Photometric::YbrFull422;
    let samples = if halved { format.height * format.width * 2 } else { format.frame_samples() };
    let frame_bytes = samples * (format.bits_allocated / 8) as usize;
    let expected = frame_bytes as u64 * u64::from(format.frames);
    if (bytes.len() as u64) < expected {
        return Err(format!("expected {expected} bytes, found {}", bytes.len()));
    }
    if bytes.len() as u64 > expected + expected % 2 {
        notes.push(format!("{} bytes after the pixels ignored", bytes.len() as u64 - expected));
    }
    let begin = frame_bytes * frame as usize;
    let swapped = data_set.syntax.big_endian && element.vr == VR::OW && format.bits_allocated == 8;
    let mut values: Vec<u16> = if format.bits_allocated == 16 {
        let frame = &bytes[begin..begin + frame_bytes];
        let big = data_set.syntax.big_endian;
        let word = |b: [u8; 2]| if big { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) };
        frame.chunks_exact(2).map(|b| word([b[0], b[1]])).collect()
    } else if swapped {
        // Words of two 8-bit pixels: the first pixel is the low byte, which big endian stores second.
        let at = |i: usize| bytes.get(i ^ 1).or(bytes.get(i)).copied().map_or(0, u16::from);
        (begin..begin + frame_bytes).map(at).collect()
    } else {
        bytes[begin..begin + frame_bytes].iter().map(|&b| u16::from(b)).collect()
    };
    if halved {
        // Two pixels as Y1 Y2 Cb Cr: grey needs the first two, and zero colour difference stands for the others.
        let half = 1 << (format.bits_stored - 1);
        values = values
            .chunks(4)
            .flat_map(|b| [b[0], half, half, b.get(1).copied().unwrap_or(b[0]), half, half])
            .collect();
        values.truncate(format.frame_samples());
    } else if format.planar && format.samples_per_pixel > 1 {
        values = interleave(&values, format);
    }
    Ok(Samples { values, colour: Colour::AsDeclared, precision: None })
}

/// Samples by plane put together by pixel.
fn interleave(planes: &[u16], format: &PixelFormat) -> Vec<u16> {
    let pixels = format.height * format.width;
    (0..pixels).flat_map(|i| (0..format.samples_per_pixel).map(move |s| planes[s * pixels + i])).collect()
}
