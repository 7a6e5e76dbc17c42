//! The published VinDr preprocessing (arXiv 2106.12930 and its code): pydicom's `apply_voi_lut` on stored values,
//! inversion of MONOCHROME1, stretching to 8 bits with truncation.
//!
//! It leaves out the modality step, and numpy's integer arithmetic is part of it. Both are kept, so that its
//! results can be compared. Where it fails, as pydicom does on a Window Center that is not a number, the
//! published fallback takes over: stored values scaled to 8 bits and equalised. The film is marked then.

use crate::attributes::number;
use crate::dataset::DataSet;
use crate::error::ReadError;
use crate::film::{PolarityApplied, VoiApplied, VoiFunction};
use crate::lut::RawLut;
use crate::options::ReadOptions;
use crate::pixel_format::Photometric;
use crate::standard::Applied;
use crate::stored::{Stored, read_stored};
use crate::window::Window;
use dicom_dictionary_std::tags;
use std::path::Path;

/// An 8-bit display image with its record.
pub(crate) struct VindrImage {
    pub pixels: Vec<u8>,
    pub applied: Applied,
    /// Why the fallback was used, if it was.
    pub fallback: Option<String>,
}

/// The recipe on `stored`, or its fallback.
pub(crate) fn display(
    path: &Path,
    data_set: &DataSet,
    stored: &Stored,
    options: &ReadOptions,
    notes: &mut Vec<String>,
) -> Result<VindrImage, ReadError> {
    let inverted = stored.format.photometric == Photometric::Monochrome1;
    let polarity = if inverted { PolarityApplied::Inverted } else { PolarityApplied::Unchanged };
    let counts = stored.histogram();
    let recipe = apply_voi_lut(data_set, stored, &counts).and_then(|(values, voi)| {
        let table = stretch(values, inverted, &counts, notes)?;
        Ok((table, voi))
    });
    match recipe {
        Ok((table, voi)) => Ok(VindrImage {
            pixels: stored.through(&table),
            applied: Applied { voi, polarity, ..Applied::NOTHING },
            fallback: None,
        }),
        Err(reason) => {
            let pixels = fallback(path, data_set, stored, options, inverted)?;
            Ok(VindrImage {
                pixels,
                applied: Applied { polarity, ..Applied::NOTHING },
                fallback: Some(format!("{reason}: scaled to 8 bits and equalised instead")),
            })
        }
    }
}

/// Values of every possible stored value, in the type numpy would hold them in.
enum Values {
    /// Signed integers of this many bits, which wrap around.
    Signed(Vec<i64>, u32),
    /// Unsigned integers: differences from the least or to the greatest never wrap.
    Unsigned(Vec<i64>),
    Float(Vec<f64>),
}

/// pydicom's `apply_voi_lut` with the LUT preferred, on stored values.
fn apply_voi_lut(
    data_set: &DataSet,
    stored: &Stored,
    counts: &[u32],
) -> Result<(Values, VoiApplied), String> {
    let inputs = (0..1i32 << stored.bits).map(|i| stored.lowest + i);
    let plain = || {
        let values = inputs.clone().map(i64::from).collect();
        if stored.format.signed {
            Values::Signed(values, stored.format.bits_allocated)
        } else {
            Values::Unsigned(values)
        }
    };
    if stored.is_luma {
        return Ok((plain(), VoiApplied::None));
    }
    if let Some(lut) = data_set.voi_lut.as_ref().and_then(|item| RawLut::of(data_set, item)) {
        let values = through_lut(&lut, inputs, counts)?;
        let applied = VoiApplied::Lut { entries: lut.count as u32, first: lut.first, bits: lut.bits };
        return Ok((Values::Unsigned(values), applied));
    }
    let texts = (data_set.raw_text(tags::WINDOW_CENTER), data_set.raw_text(tags::WINDOW_WIDTH));
    let (Some(centers), Some(widths)) = texts else { return Ok((plain(), VoiApplied::None)) };
    if centers.is_empty() || widths.is_empty() {
        return Ok((plain(), VoiApplied::None));
    }
    let first = |text: &str, name: &str| {
        let part = text.split('\\').next().unwrap_or_default();
        number(part).ok_or_else(|| format!("{name} {part:?} is not a number"))
    };
    let center = first(&centers, "Window Center (0028,1050)")?;
    let width = first(&widths, "Window Width (0028,1051)")?;
    let function = match data_set.text(tags::VOILUT_FUNCTION).map(|t| t.to_uppercase()).as_deref() {
        None | Some("LINEAR") => VoiFunction::Linear,
        Some("LINEAR_EXACT") => VoiFunction::LinearExact,
        Some("SIGMOID") => VoiFunction::Sigmoid,
        Some(other) => return Err(format!("VOI LUT Function (0028,1056) {other:?} is unknown")),
    };
    if (function == VoiFunction::Linear && width < 1.0) || width <= 0.0 {
        return Err(format!("Window Width (0028,1051) {width} is too small"));
    }
    let (low, high) = output_range(data_set, stored)?;
    let window = Window { center, width, function, repaired: false };
    let values = inputs.map(|x| window.map_to(f64::from(x), low, high)).collect();
    Ok((Values::Float(values), VoiApplied::Window { center, width, function }))
}

/// Output range of a window as pydicom has it: it looks at the modality attributes although the recipe has not
/// applied them.
fn output_range(data_set: &DataSet, stored: &Stored) -> Result<(f64, f64), String> {
    let bits = stored.format.bits_stored;
    let modality_lut = data_set.modality_lut.as_ref().and_then(|item| RawLut::of(data_set, item));
    let (low, high) = match modality_lut {
        Some(lut) => (0.0, f64::from((1u32 << lut.bits.min(31)) - 1)),
        None if stored.format.signed => (-f64::from(1u32 << (bits - 1)), f64::from((1u32 << (bits - 1)) - 1)),
        None => (0.0, f64::from((1u32 << bits) - 1)),
    };
    let texts = (data_set.text(tags::RESCALE_SLOPE), data_set.text(tags::RESCALE_INTERCEPT));
    let (Some(slope), Some(intercept)) = texts else { return Ok((low, high)) };
    match (number(&slope), number(&intercept)) {
        (Some(slope), Some(intercept)) => Ok((low * slope + intercept, high * slope + intercept)),
        _ => Err(format!("rescale slope {slope:?} or intercept {intercept:?} is not a number")),
    }
}

/// pydicom's `apply_voi`: indices are held in as many bits as an entry has, and wrap.
fn through_lut(lut: &RawLut, inputs: impl Iterator<Item = i32>, counts: &[u32]) -> Result<Vec<i64>, String> {
    let index_bits = match lut.bits {
        8 => 8,
        10..=16 => 16,
        other => return Err(format!("VOI LUT (0028,3010) with entries of {other} bits")),
    };
    if index_bits == 8 && lut.count > 256 {
        return Err(format!("VOI LUT (0028,3010) with {} entries of 8 bits", lut.count));
    }
    let mut values = Vec::with_capacity(counts.len());
    for (input, &count) in inputs.zip(counts) {
        let offset = (i64::from(input) - i64::from(lut.first)).max(0) & ((1 << index_bits) - 1);
        let index = (offset as usize).min(lut.count - 1);
        match lut.words.get(index) {
            Some(&entry) => values.push(i64::from(entry) & ((1 << index_bits) - 1)),
            None if count == 0 => values.push(0),
            None => {
                let there = lut.words.len();
                return Err(format!("VOI LUT (0028,3010) of {} entries has only {there}", lut.count));
            }
        }
    }
    Ok(values)
}

/// Inversion, minus the least, over the greatest, times 255, truncated: for every possible stored value.
fn stretch(
    values: Values,
    inverted: bool,
    counts: &[u32],
    notes: &mut Vec<String>,
) -> Result<Vec<u8>, String> {
    let floats: Vec<f64> = match values {
        Values::Float(mut values) => {
            let (min, max) = range_of(&values, counts);
            if !min.is_finite() || !max.is_finite() {
                return Err("the window gives values that are not finite".into());
            }
            if inverted {
                values.iter_mut().for_each(|v| *v = max - *v);
            }
            let (min, _) = range_of(&values, counts);
            values.iter_mut().for_each(|v| *v -= min);
            values
        }
        Values::Unsigned(values) => shifted(values, inverted, counts, |v| v),
        Values::Signed(values, bits) => {
            let unused = 64 - bits;
            let out = shifted(values, inverted, counts, |v| (v << unused) >> unused);
            if range_of(&out, counts).0 < 0.0 {
                notes.push(
                    "the range exceeds the signed type and wraps around, as in the published recipe".into(),
                );
            }
            out
        }
    };
    let (_, max) = range_of(&floats, counts);
    if max == 0.0 || !max.is_finite() {
        return Err("every pixel has the same value after the VOI step".into());
    }
    // A negative value, which only wrapping makes, is cast as C does it: truncated, then modulo 256.
    Ok(floats.iter().map(|v| (v / max * 255.0) as i64 as u8).collect())
}

/// Integers inverted and shifted to start at zero, each result held by `hold`.
fn shifted(mut values: Vec<i64>, inverted: bool, counts: &[u32], hold: impl Fn(i64) -> i64) -> Vec<f64> {
    let occurring = |values: &[i64]| -> Vec<i64> {
        values.iter().zip(counts).filter(|&(_, &count)| count > 0).map(|(&v, _)| v).collect()
    };
    if inverted {
        let max = occurring(&values).into_iter().max().unwrap_or(0);
        values.iter_mut().for_each(|v| *v = hold(max - *v));
    }
    let min = occurring(&values).into_iter().min().unwrap_or(0);
    values.into_iter().map(|v| hold(v - min) as f64).collect()
}

/// Least and greatest of the values that occur.
fn range_of(values: &[f64], counts: &[u32]) -> (f64, f64) {
    let occurring = values.iter().zip(counts).filter(|&(_, &count)| count > 0);
    occurring.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (&v, _)| {
        if v.is_nan() || low.is_nan() { (f64::NAN, f64::NAN) } else { (low.min(v), high.max(v)) }
    })
}

/// The published fallback: Bits Stored 10 or 12 taken as 16, scaled by 255 over the greatest value with
/// saturation, inverted if MONOCHROME1, equalised.
fn fallback(
    path: &Path,
    data_set: &DataSet,
    stored: &Stored,
    options: &ReadOptions,
    inverted: bool,
) -> Result<Vec<u8>, ReadError> {
    let whole;
    let format = &stored.format;
    let widened = matches!(format.bits_stored, 10 | 12) && format.bits_allocated == 16 && !stored.is_luma;
    let stored = if widened {
        whole = read_stored(path, data_set, options, Some(16), &mut Vec::new())?;
        &whole
    } else {
        stored
    };
    let max = stored.values.iter().copied().max().unwrap_or(0);
    let alpha = if max == 0 { 0.0 } else { 255.0 / f64::from(max) };
    let scale = |value: i32| (f64::from(value) * alpha).abs().round_ties_even().min(255.0) as u8;
    let mut pixels: Vec<u8> = stored.values.iter().map(|&v| scale(v)).collect();
    if inverted {
        pixels.iter_mut().for_each(|v| *v = 255 - *v);
    }
    equalise(&mut pixels);
    Ok(pixels)
}

/// Histogram equalisation that sends the darkest value to 0 and the brightest to 255.
fn equalise(pixels: &mut [u8]) {
    let mut counts = [0usize; 256];
    for &v in pixels.iter() {
        counts[usize::from(v)] += 1;
    }
    let Some(darkest) = counts.iter().position(|&count| count > 0) else { return };
    let above = pixels.len() - counts[darkest];
    if above == 0 {
        return; // one value: nothing to spread
    }
    let scale = 255.0f32 / above as f32;
    let mut table = [0u8; 256];
    let mut below = 0;
    for value in darkest + 1..256 {
        below += counts[value];
        table[value] = (below as f32 * scale).round_ties_even().min(255.0) as u8;
    }
    pixels.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equalising_spreads_to_both_ends() {
        let mut pixels = vec![10, 10, 20, 30];
        equalise(&mut pixels);
        assert_eq!(pixels, [0, 0, 128, 255]);
        let mut flat = vec![7; 5];
        equalise(&mut flat);
        assert_eq!(flat, [7; 5]);
    }

    #[test]
    fn stretching_truncates() {
        let counts = [1, 1, 1];
        let table = stretch(Values::Unsigned(vec![0, 1, 2]), false, &counts, &mut vec![]).unwrap();
        assert_eq!(table, [0, 127, 255]);
        let table = stretch(Values::Unsigned(vec![0, 1, 2]), true, &counts, &mut vec![]).unwrap();
        assert_eq!(table, [255, 127, 0]);
    }

    #[test]
    fn signed_values_wrap_as_numpy_does() {
        let mut notes = vec![];
        let table =
            stretch(Values::Signed(vec![-128, 0, 127], 8), false, &[1, 1, 1], &mut notes).unwrap_err();
        // 127 + 128 and 0 + 128 both wrap below zero, so that the greatest value is 0.
        assert!(table.contains("same value"));
        let table = stretch(Values::Signed(vec![-100, 0, 100], 8), false, &[1, 1, 1], &mut notes).unwrap();
        assert_eq!(table, [0, 255, (-142i64) as u8]);
    }
}
