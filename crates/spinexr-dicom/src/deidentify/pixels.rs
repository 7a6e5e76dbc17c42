//! Rectangles of pixels blackened, where text is burnt in.

use super::tree::{Tree, Value};
use crate::error::ReadError;
use crate::options::{Limits, ReadOptions};
use crate::pixel_format::{Photometric, PixelFormat, pixel_format};
use crate::stored::read_stored;
use crate::syntax::Syntax;
use dicom_core::VR;
use dicom_dictionary_std::tags;
use std::path::Path;

/// A rectangle in pixels of the film: from `x0`, `y0` up to, but not with, `x1`, `y1`. What lies outside the film does
/// not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskRect {
    /// Left column.
    pub x0: u32,
    /// Top row.
    pub y0: u32,
    /// Column right of it.
    pub x1: u32,
    /// Row below it.
    pub y1: u32,
}

/// Blackens the rectangles in every frame. Native pixels are overwritten where they lie; compressed grey ones are
/// decoded and become native. Gives a note of what was done.
pub(super) fn mask(
    path: &Path,
    file: &[u8],
    tree: &mut Tree,
    rects: &[MaskRect],
    limits: &Limits,
) -> Result<Option<String>, ReadError> {
    let options = ReadOptions { limits: *limits, ..ReadOptions::default() };
    let data_set =
        crate::dataset::parse(path, file.to_vec(), true, crate::dataset::Extent::Whole, &options.limits)?;
    let format = pixel_format(path, &data_set, limits, &mut Vec::new())?;
    let pixels = tree.find(tags::PIXEL_DATA).ok_or_else(|| ReadError::NoPixelData { path: path.into() })?;
    let refuse = |reason: String| ReadError::Pixels {
        path: path.into(),
        syntax: tree.syntax.name.clone(),
        reason: format!("cannot mask: {reason}"),
    };
    match &pixels.value {
        Value::Kept(range) => {
            let range = range.clone();
            if !matches!(format.bits_allocated, 8 | 16) {
                return Err(refuse(format!("{} bits allocated, expected 8 or 16", format.bits_allocated)));
            }
            if !(format.photometric.is_grey() || matches!(format.photometric, Photometric::Rgb)) {
                return Err(refuse(format!("{:?} pixels, expected grey or RGB", format.photometric)));
            }
            let big_endian = tree.syntax.big_endian;
            blacken(&mut tree.bytes[range], &format, rects, big_endian);
            Ok(None)
        }
        Value::Fragments(_) => {
            if !format.photometric.is_grey() {
                return Err(refuse(format!("compressed {:?} pixels, expected grey", format.photometric)));
            }
            let mut native = Vec::new();
            let (mut bits, mut wide) = (format.bits_stored, format.bits_stored > 8);
            for frame in 0..format.frames {
                let options = ReadOptions { frame, ..options };
                let stored = read_stored(path, &data_set, &options, None, &mut Vec::new())?;
                if frame == 0 {
                    (bits, wide) = (stored.bits, stored.bits > 8);
                }
                for value in stored.values {
                    let bytes = (value as u32).to_le_bytes();
                    native.extend_from_slice(if wide { &bytes[..2] } else { &bytes[..1] });
                }
            }
            let allocated = if wide { 16 } else { 8 };
            let format = PixelFormat {
                bits_allocated: allocated,
                bits_stored: bits,
                high_bit: bits - 1,
                samples_per_pixel: 1,
                ..format
            };
            blacken(&mut native, &format, rects, false);
            let from = std::mem::replace(&mut tree.syntax, Syntax::explicit_le()).name;
            let word = |value: u32| Value::New((value as u16).to_le_bytes().to_vec());
            tree.set(tags::BITS_ALLOCATED, VR::US, word(allocated));
            tree.set(tags::BITS_STORED, VR::US, word(bits));
            tree.set(tags::HIGH_BIT, VR::US, word(bits - 1));
            tree.set(tags::PIXEL_DATA, if wide { VR::OW } else { VR::OB }, Value::New(native));
            Ok(Some(format!("masked: pixels decoded from {from} and written uncompressed")))
        }
        Value::New(_) | Value::Items(_) => Err(refuse("no pixels".to_owned())),
    }
}

/// Black is the least value, or the greatest where high values are dark.
fn blacken(bytes: &mut [u8], format: &PixelFormat, rects: &[MaskRect], big_endian: bool) {
    let PixelFormat { height, width, samples_per_pixel, bits_stored, high_bit, signed, .. } = *format;
    let inverse = format.photometric == Photometric::Monochrome1;
    let ones = |bits: u32| u16::try_from((1u32 << bits) - 1).unwrap_or(u16::MAX);
    let black = match (signed, inverse) {
        (false, false) => 0,
        (false, true) => ones(bits_stored),
        // The sign bit alone, and all others.
        (true, false) => 1 << (bits_stored - 1),
        (true, true) => ones(bits_stored - 1),
    } << (high_bit + 1 - bits_stored);
    // The sign goes on above the stored bits.
    let black = if signed && !inverse { black | !ones((high_bit + 1).min(16)) } else { black };
    let bytes_a_sample = if format.bits_allocated == 16 { 2 } else { 1 };
    let black = if big_endian { black.to_be_bytes() } else { black.to_le_bytes() };
    let black = &black[..bytes_a_sample];
    // Planes of one sample each, or pixels of all samples.
    let (planes, samples) = if format.planar { (samples_per_pixel, 1) } else { (1, samples_per_pixel) };
    let row_bytes = width * samples * bytes_a_sample;
    for plane in bytes.chunks_exact_mut(height * row_bytes).take(format.frames as usize * planes) {
        for rect in rects {
            let (x0, x1) = ((rect.x0 as usize).min(width), (rect.x1 as usize).min(width));
            let (y0, y1) = ((rect.y0 as usize).min(height), (rect.y1 as usize).min(height));
            for row in plane.chunks_exact_mut(row_bytes).take(y1).skip(y0) {
                let from = x0 * samples * bytes_a_sample;
                let to = (x1 * samples * bytes_a_sample).max(from);
                row[from..to]
                    .chunks_exact_mut(bytes_a_sample)
                    .for_each(|sample| sample.copy_from_slice(black));
            }
        }
    }
}

/// Clears the bits of native pixels in which overlays lie (retired; PS3.3 C.9.2, Overlay Bit Position (60xx,0102)).
/// Gives the number of overlays.
pub(super) fn clear_embedded_overlays(tree: &mut Tree) -> usize {
    let mut bits = 0u16;
    let mut overlays = 0;
    for group in (0x6000..=0x601E).step_by(2) {
        let tag = |element| dicom_core::Tag(group, element);
        let Some(position) = tree.word(tag(0x0102)).filter(|position| (1..16).contains(position)) else {
            continue;
        };
        // With data of its own the overlay is not in the pixels.
        if tree.find(tag(0x3000)).is_none() && tree.word(tag(0x0100)) == tree.word(tags::BITS_ALLOCATED) {
            bits |= 1 << position;
            overlays += 1;
        }
    }
    // Never a bit of the image itself, whatever the overlay claims.
    let stored = tree.word(tags::BITS_STORED).unwrap_or(16).min(16);
    let high = tree.word(tags::HIGH_BIT).unwrap_or(stored.saturating_sub(1)).min(15);
    let image =
        (0..16).filter(|bit| *bit <= high && *bit + stored > high).fold(0u16, |mask, bit| mask | 1 << bit);
    let mask = tree.word_bytes(!(bits & !image));
    let is_16_bit = tree.word(tags::BITS_ALLOCATED) == Some(16);
    if overlays > 0
        && is_16_bit
        && let Some(Value::Kept(range)) = tree.find(tags::PIXEL_DATA).map(|element| &element.value)
    {
        let range = range.clone();
        for pair in tree.bytes[range].chunks_exact_mut(2) {
            pair[0] &= mask[0];
            pair[1] &= mask[1];
        }
    }
    overlays
}
