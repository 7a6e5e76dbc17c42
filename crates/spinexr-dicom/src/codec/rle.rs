//! RLE Lossless (PS3.5 annex G): byte planes, the most significant first, each packed with PackBits.
//!
//! Our own decoder, because it must never allocate more than the header's claim, which the packed bytes have to
//! make plausible first, and never panic on what a hostile file says about segments.

use super::{Colour, Samples};
use crate::pixel_format::PixelFormat;

/// Bytes before the first segment.
const HEADER_BYTES: usize = 64;
/// Most bytes that two packed bytes can stand for.
const MAX_RUN: usize = 128;

pub(super) fn decode(stream: &[u8], format: &PixelFormat) -> Result<Samples, String> {
    let pixels = format.height * format.width;
    let bytes_per_sample = (format.bits_allocated / 8) as usize;
    let planes = format.samples_per_pixel * bytes_per_sample;
    let Some(header) = stream.get(..HEADER_BYTES) else {
        return Err(format!("expected a header of {HEADER_BYTES} bytes, found {} bytes", stream.len()));
    };
    let field = |i: usize| {
        let b = &header[4 * i..4 * i + 4];
        u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize
    };
    if field(0) != planes {
        return Err(format!("expected {planes} segments, found {}", field(0)));
    }
    if stream.len().saturating_mul(MAX_RUN / 2) < pixels * planes {
        return Err(format!("{} bytes cannot hold {} packed ones", stream.len(), pixels * planes));
    }
    let mut values = vec![0u16; pixels * format.samples_per_pixel];
    for plane in 0..planes {
        let begin = field(plane + 1);
        let end = if plane + 1 < planes { field(plane + 2) } else { stream.len() };
        let segment = match stream.get(begin..end) {
            Some(segment) if begin >= HEADER_BYTES => segment,
            _ => return Err(format!("segment {plane} lies at {begin}..{end} of {} bytes", stream.len())),
        };
        let (sample, byte) = (plane / bytes_per_sample, plane % bytes_per_sample);
        let shift = 8 * (bytes_per_sample - 1 - byte);
        let target = values.iter_mut().skip(sample).step_by(format.samples_per_pixel);
        let unpacked = if format.samples_per_pixel == 1 {
            unpack_grey(segment, &mut values, shift)
        } else {
            unpack(segment, target, shift, pixels)
        };
        if unpacked < pixels {
            return Err(format!("segment {plane} holds {unpacked} of {pixels} bytes"));
        }
    }
    Ok(Samples { values, colour: Colour::AsDeclared, precision: None })
}

/// Runs and literals of a segment: `(bytes, repeat)`, a run being one byte repeated.
fn runs(segment: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut rest = segment;
    std::iter::from_fn(move || {
        loop {
            let (&count, after) = rest.split_first()?;
            let count = usize::from(count);
            match count {
                0..=127 => {
                    let (literal, after) = after.split_at(after.len().min(count + 1));
                    rest = after;
                    return Some((literal, 1));
                }
                128 => rest = after, // no operation
                _ => {
                    let run = after.get(..1)?;
                    rest = &after[1..];
                    return Some((run, 257 - count));
                }
            }
        }
    })
}

/// Adds the bytes of `segment`, shifted, to `values`; returns how many there were, at most `values.len()`.
fn unpack_grey(segment: &[u8], values: &mut [u16], shift: usize) -> usize {
    let mut at = 0;
    for (bytes, repeat) in runs(segment) {
        let left = values.len() - at;
        if repeat == 1 {
            let count = bytes.len().min(left);
            for (value, &byte) in values[at..at + count].iter_mut().zip(bytes) {
                *value |= u16::from(byte) << shift;
            }
            at += count;
        } else {
            let count = repeat.min(left);
            for value in &mut values[at..at + count] {
                *value |= u16::from(bytes[0]) << shift;
            }
            at += count;
        }
        if at == values.len() {
            break;
        }
    }
    at
}

/// As [`unpack_grey`], into every so many-th value.
fn unpack<'a>(
    segment: &[u8],
    target: impl Iterator<Item = &'a mut u16>,
    shift: usize,
    pixels: usize,
) -> usize {
    let bytes = runs(segment)
        .flat_map(|(bytes, repeat)| bytes.iter().flat_map(move |&b| std::iter::repeat_n(b, repeat)));
    let mut count = 0;
    for (value, byte) in target.zip(bytes).take(pixels) {
        *value |= u16::from(byte) << shift;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_literals_and_no_operation() {
        let mut values = [0u16; 6];
        let count = unpack_grey(&[1, 10, 11, 128, 254, 7, 0, 9, 0, 99], &mut values, 8);
        assert_eq!(count, 6);
        assert_eq!(values.map(|v| v >> 8), [10, 11, 7, 7, 7, 9]);
    }

    #[test]
    fn a_cut_segment_gives_what_it_holds() {
        let mut values = [0u16; 8];
        assert_eq!(unpack_grey(&[5, 1, 2], &mut values, 0), 2);
        assert_eq!(unpack_grey(&[254], &mut values, 0), 0);
    }
}
