//! Whole streams, changed in ways that no encoder at hand writes.

use super::*;
use crate::samples::SAMPLES;

/// The stream of the 12-bit sample, and its format.
fn picture() -> (Vec<u8>, PixelFormat) {
    let sample = SAMPLES.iter().find(|sample| sample.name == "JPEG 2000 lossless").unwrap();
    let start = sample.file.windows(4).position(|w| w == [0xFF, 0x4F, 0xFF, 0x51]).unwrap();
    let format = PixelFormat {
        height: 45,
        width: 37,
        frames: 1,
        samples_per_pixel: 1,
        photometric: crate::pixel_format::Photometric::Monochrome2,
        planar: false,
        bits_allocated: 16,
        bits_stored: 12,
        high_bit: 11,
        signed: false,
    };
    (sample.file[start..sample.file.len() - 8].to_vec(), format)
}

fn values(stream: &[u8], format: &PixelFormat) -> Result<Vec<u16>, String> {
    decode(stream, format, "1.2.840.10008.1.2.4.90").map(|samples| samples.values)
}

/// Where the segment of a marker begins, and where it ends.
fn segment(stream: &[u8], marker: u8) -> (usize, usize) {
    let at = stream.windows(3).position(|w| w == [0xFF, marker, 0]).unwrap();
    (at, at + 2 + usize::from(stream[at + 3]))
}

/// Puts segments into the header of the first tile-part.
fn with_tile_segments(stream: &[u8], segments: &[u8]) -> Vec<u8> {
    let (part, end) = segment(stream, 0x90);
    let mut changed = [&stream[..end], segments, &stream[end..]].concat();
    let length = u32::from_be_bytes(*stream[part + 6..].first_chunk().unwrap());
    if length > 0 {
        changed[part + 6..part + 10].copy_from_slice(&(length + segments.len() as u32).to_be_bytes());
    }
    changed
}

#[test]
fn a_tile_may_have_a_coding_of_its_own() {
    let (stream, format) = picture();
    let expected = values(&stream, &format).unwrap();
    let ((style, style_end), (steps, steps_end)) = (segment(&stream, 0x52), segment(&stream, 0x5C));
    let own = [&stream[style..style_end], &stream[steps..steps_end]].concat();
    let mut changed = with_tile_segments(&stream, &own);
    // The main header says something else: fewer levels, and more guard bits.
    changed[style + 9] -= 1;
    changed[steps + 4] += 1 << 5;
    assert_eq!(values(&changed, &format), Ok(expected.clone()));
    // What is said of the component wins over what is said of all, in the main header and in the tile.
    let mut one = vec![0xFF, 0x53, 0, (style_end - style - 5) as u8, 0, stream[style + 4]];
    one.extend_from_slice(&stream[style + 9..style_end]);
    let mut all = stream[style..style_end].to_vec();
    all[9] -= 1;
    let changed = with_tile_segments(&stream, &[one, all].concat());
    assert_eq!(values(&changed, &format), Ok(expected));
}

#[test]
fn headers_that_contradict_themselves_are_told() {
    let (stream, format) = picture();
    let (style, _) = segment(&stream, 0x52);
    let (steps, _) = segment(&stream, 0x5C);
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = stream.clone();
        change(&mut changed);
        values(&changed, &format).unwrap_err()
    };
    assert!(error(&|s| s[style + 5] = 5).contains("progression order 5"));
    assert!(error(&|s| s[style + 8] = 1).contains("colour transform of 1 components"));
    assert!(error(&|s| s[style + 8] = 2).contains("colour transform 2"));
    assert!(error(&|s| s[style + 13] = 0).contains("does not belong to the wavelet"));
    assert!(error(&|s| s[style + 13] = 2).contains("wavelet 2"));
    assert!(error(&|s| s[style + 12] = 0xC0).contains("both parts"));
    assert!(error(&|s| s[style + 12] = 0x40).contains("High-Throughput blocks"));
    assert!(error(&|s| s[steps + 4] = 3).contains("kind 3"));
    assert!(error(&|s| s[style + 1] = 0x64).contains("no coding style"));
    assert!(error(&|s| s[steps + 1] = 0x64).contains("no quantisation"));
    let missing = with_tile_segments(&stream, &[0xFF, 0x5E, 0, 5, 0, 0, 99]);
    assert!(values(&missing, &format).unwrap_err().contains("region of interest"));
}
