use super::*;
use crate::pixel_format::Photometric;

fn grey(height: usize, width: usize, bits: u32) -> PixelFormat {
    PixelFormat {
        height,
        width,
        frames: 1,
        samples_per_pixel: 1,
        photometric: Photometric::Monochrome2,
        planar: false,
        bits_allocated: if bits > 8 { 16 } else { 8 },
        bits_stored: bits,
        high_bit: bits - 1,
        signed: false,
    }
}

/// The worked example of T.87 H.3.
const EXAMPLE: [u8; 57] = [
    0xFF, 0xD8, 0xFF, 0xF7, 0x00, 0x0B, 0x08, 0x00, 0x04, 0x00, 0x04, 0x01, 0x01, 0x11, 0x00, 0xFF, 0xDA,
    0x00, 0x08, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0xC0, 0x00, 0x00, 0x6C, 0x80, 0x20, 0x8E, 0x01, 0xC0,
    0x00, 0x00, 0x57, 0x40, 0x00, 0x00, 0x6E, 0xE6, 0x00, 0x00, 0x01, 0xBC, 0x18, 0x00, 0x00, 0x05, 0xD8,
    0x00, 0x00, 0x91, 0x60, 0xFF, 0xD9,
];

#[test]
fn the_example_of_the_standard_decodes_as_printed() {
    let samples = decode(&EXAMPLE, &grey(4, 4, 8)).unwrap();
    assert_eq!(samples.values, [0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145]);
    assert_eq!(samples.precision, Some(8));
}

#[test]
fn the_example_cut_anywhere_in_its_scan_is_an_error() {
    for cut in 0..54 {
        assert!(decode(&EXAMPLE[..cut], &grey(4, 4, 8)).is_err(), "{cut}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let with = |at: usize, value: u8| {
        let mut stream = EXAMPLE.to_vec();
        stream[at] = value;
        decode(&stream, &grey(4, 4, 8)).unwrap_err()
    };
    assert!(with(6, 9).contains("9 bits"));
    assert!(with(6, 1).contains("1 bits"));
    assert!(with(10, 5).contains("4 x 5"));
    assert!(with(13, 0x21).contains("subsampled"));
    assert!(with(20, 7).contains("does not have"));
    assert!(with(21, 1).contains("mapping"));
    assert!(with(22, 200).contains("NEAR 200"));
    assert!(with(24, 1).contains("point transform"));
    assert!(with(3, 0xC3).contains("FFC3"));
}

#[test]
fn preset_parameters_are_bounded() {
    let presets = |t1| Presets { thresholds: [t1, 7, 21], reset: 64, max_value: 255 };
    assert!(Coding::new(8, 0, &presets(3)).is_ok());
    for broken in [presets(8), Presets { reset: 2, ..presets(3) }, Presets { max_value: 256, ..presets(3) }] {
        assert!(Coding::new(8, 0, &broken).is_err(), "{broken:?}");
    }
}
