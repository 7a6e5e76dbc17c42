//! JPEG-LS, lossless and near-lossless (ITU-T T.87 | ISO/IEC 14495-1), transfer syntaxes …4.80 and …4.81.
//!
//! Our own decoder: the crates there are take sizes from the stream before they look at its length, or overflow on
//! broken headers. All of T.87 that DICOM allows is here: 2 to 16 bits, the three interleave modes, coding
//! parameters of an LSE segment, restart markers. Mapping tables, which DICOM does not allow, are refused.

mod bits;
mod scan;

use super::{Colour, Samples};
use crate::pixel_format::PixelFormat;
use scan::{Coding, Interleave, Scan};

/// Frame header, T.87 C.2.2.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    bits: u32,
    components: Vec<u8>,
}

/// Preset coding parameters, T.87 C.2.4.1.1; 0 stands for the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Presets {
    max_value: i32,
    thresholds: [i32; 3],
    reset: i32,
}

pub(super) fn decode(stream: &[u8], format: &PixelFormat) -> Result<Samples, String> {
    if !stream.starts_with(&[0xFF, 0xD8]) {
        return Err("expected a JPEG-LS stream (FF D8)".into());
    }
    let (mut frame, mut presets, mut restart_interval) = (None, Presets::default(), 0);
    let mut values = Vec::new();
    let mut decoded = [false; 3];
    let mut at = 2;
    loop {
        let (marker, segment, next) = segment(stream, at)?;
        at = next;
        match marker {
            0xF7 => {
                let found = frame_header(segment, format)?;
                // A pixel takes a bit at least, unless it lies in a run; those have at most 2^15 pixels a bit.
                if stream.len().saturating_mul(8 << 15) < format.frame_samples() {
                    return Err(format!("{} bytes cannot hold the image", stream.len()));
                }
                values = vec![0u16; format.frame_samples()];
                frame = Some(found);
            }
            0xF8 => presets = presets_of(segment)?,
            0xDD => {
                restart_interval = match *segment {
                    [a, b] => usize::from(u16::from_be_bytes([a, b])),
                    [a, b, c] => u32::from_be_bytes([0, a, b, c]) as usize,
                    [a, b, c, d] => u32::from_be_bytes([a, b, c, d]) as usize,
                    _ => return Err("restart interval of a wrong length".into()),
                }
            }
            0xDA => {
                let frame = frame.as_ref().ok_or("the scan comes before the frame header")?;
                let (scan, places) = scan_header(segment, frame, &presets, restart_interval, format)?;
                for &place in &places {
                    if std::mem::replace(&mut decoded[place], true) {
                        return Err("a component is coded twice".into());
                    }
                }
                at += scan.decode(&stream[at..], &places, frame.components.len(), &mut values)?;
                if decoded[..frame.components.len()].iter().all(|&done| done) {
                    let precision = Some(frame.bits);
                    return Ok(Samples { values, colour: Colour::AsDeclared, precision });
                }
            }
            0xD9 => return Err("the stream ends before all components are decoded".into()),
            0xE8 if segment.starts_with(b"mrfx") && segment.get(4).is_some_and(|&kind| kind != 0) => {
                return Err("colour transform of an APP8 segment is not supported".into());
            }
            0xE0..=0xEF | 0xFE => {}
            other => return Err(format!("marker FF{other:02X} does not belong to JPEG-LS")),
        }
    }
}

/// The marker segment at `at`: marker, parameters, end.
fn segment(stream: &[u8], mut at: usize) -> Result<(u8, &[u8], usize), String> {
    while stream.get(at..at + 2) == Some(&[0xFF, 0xFF]) {
        at += 1;
    }
    let Some(&[0xFF, marker]) = stream.get(at..at + 2) else {
        return Err(format!("expected a marker at byte {at}"));
    };
    if marker == 0xD9 {
        return Ok((marker, &[], at + 2));
    }
    let length = match stream.get(at + 2..at + 4) {
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    match stream.get(at + 4..at + 2 + length) {
        Some(segment) => Ok((marker, segment, at + 2 + length)),
        None => Err(format!("the stream ends inside the segment of marker FF{marker:02X}")),
    }
}

fn frame_header(segment: &[u8], format: &PixelFormat) -> Result<Frame, String> {
    let Some((&[bits, h0, h1, w0, w1, count], components)) = segment.split_first_chunk::<6>() else {
        return Err("the frame header is too short".into());
    };
    let (height, width) =
        (usize::from(u16::from_be_bytes([h0, h1])), usize::from(u16::from_be_bytes([w0, w1])));
    if (height, width) != (format.height, format.width) {
        return Err(format!(
            "expected {} x {} pixels (rows x columns), the stream holds {height} x {width}",
            format.height, format.width
        ));
    }
    if usize::from(count) != format.samples_per_pixel || components.len() != 3 * usize::from(count) {
        let samples = format.samples_per_pixel;
        return Err(format!("expected {samples} samples per pixel, the stream holds {count}"));
    }
    let bits = u32::from(bits);
    if !(2..=format.bits_allocated).contains(&bits) {
        return Err(format!("{bits} bits for Bits Allocated {}", format.bits_allocated));
    }
    if components.chunks_exact(3).any(|c| c[1] != 0x11) {
        return Err("subsampled components are not supported".into());
    }
    let components: Vec<u8> = components.chunks_exact(3).map(|c| c[0]).collect();
    Ok(Frame { bits, components })
}

fn presets_of(segment: &[u8]) -> Result<Presets, String> {
    match segment.split_first() {
        Some((&1, rest)) => {
            let Some(&[m0, m1, a0, a1, b0, b1, c0, c1, r0, r1]) = rest.first_chunk::<10>() else {
                return Err("preset coding parameters are too short".into());
            };
            let word = |high, low| i32::from(u16::from_be_bytes([high, low]));
            Ok(Presets {
                max_value: word(m0, m1),
                thresholds: [word(a0, a1), word(b0, b1), word(c0, c1)],
                reset: word(r0, r1),
            })
        }
        Some((kind, _)) => Err(format!("preset parameters of type {kind} are not supported")),
        None => Err("empty preset parameters".into()),
    }
}

/// Scan header (T.87 C.2.3): how to decode, and the places of its components within a pixel.
fn scan_header(
    segment: &[u8],
    frame: &Frame,
    presets: &Presets,
    restart_interval: usize,
    format: &PixelFormat,
) -> Result<(Scan, Vec<usize>), String> {
    let broken = || "broken scan header".to_string();
    let (&count, rest) = segment.split_first().ok_or_else(broken)?;
    let (components, rest) = rest.split_at_checked(2 * usize::from(count)).ok_or_else(broken)?;
    let &[near, interleave, transform] = rest else { return Err(broken()) };
    let mut places = Vec::new();
    for component in components.chunks_exact(2) {
        let place = frame.components.iter().position(|&c| c == component[0]);
        places.push(place.ok_or("the scan names a component that the frame does not have")?);
        if component[1] != 0 {
            return Err("mapping tables are not supported".into());
        }
    }
    if transform != 0 {
        return Err("a point transform is not supported".into());
    }
    let interleave = match (interleave, places.len()) {
        (_, 1) => Interleave::None,
        (1, 2..=3) => Interleave::Line,
        (2, 2..=3) => Interleave::Sample,
        (mode, n) => return Err(format!("interleave mode {mode} with {n} components")),
    };
    let coding = Coding::new(frame.bits, i32::from(near), presets)?;
    Ok((Scan { coding, interleave, restart_interval, height: format.height, width: format.width }, places))
}

#[cfg(test)]
mod tests;
