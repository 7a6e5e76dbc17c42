//! Every compressed transfer syntax, on the small films of `samples/`.
#![allow(clippy::unwrap_used)] // in a helper, as in a test, it fails the test

use spinexr_dicom::samples::SAMPLES;
use spinexr_dicom::{ReadError, ReadOptions, Stage, StageData, StageImage, read_stage_from};
use std::path::Path;
use std::time::{Duration, Instant};

fn read(file: &[u8]) -> Result<StageImage, ReadError> {
    read_stage_from(Path::new("sample.dcm"), file.to_vec(), Stage::Stored, &ReadOptions::default())
}

fn stored(image: StageImage) -> Vec<i32> {
    let StageData::I32(values) = image.data else { panic!("stored values are i32") };
    values
}

#[test]
fn every_sample_gives_its_stored_values() {
    for sample in SAMPLES {
        let image = read(sample.file).unwrap_or_else(|e| panic!("{}: {e}", sample.name));
        assert_eq!((image.height, image.width), (45, 37), "{}", sample.name);
        assert_eq!(image.provenance.transfer_syntax.as_deref(), Some(sample.transfer_syntax));
        let difference = sample.largest_difference(&stored(image)).unwrap();
        println!(
            "{:28} …{:4} {difference} of {}",
            sample.name,
            &sample.transfer_syntax[20..],
            sample.tolerance
        );
        assert!(difference <= sample.tolerance, "{}: {difference}", sample.name);
    }
}

/// Luma of the RGB picture, as `colour.rs` weighs it.
fn luma() -> Vec<i32> {
    let rgb = raw(include_bytes!("../samples/picture_rgb.raw"));
    rgb.as_chunks().0.iter().map(|&[r, g, b]| (299 * r + 587 * g + 114 * b + 500) / 1000).collect()
}

#[test]
fn colour_becomes_luma_in_every_interleave_mode() {
    let files: [(&str, &[u8]); 5] = [
        ("JPEG-LS by plane", include_bytes!("../samples/jpeg_ls_rgb_plane.dcm")),
        ("JPEG-LS by line", include_bytes!("../samples/jpeg_ls_rgb_line.dcm")),
        ("JPEG-LS by sample", include_bytes!("../samples/jpeg_ls_rgb_sample.dcm")),
        ("HTJ2K", include_bytes!("../samples/htj2k_rgb.dcm")),
        ("JPEG 2000 with YBR_RCT", include_bytes!("../samples/jpeg_2000_rgb.dcm")),
    ];
    for (name, file) in files {
        let image = read(file).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(stored(image), luma(), "{name}");
    }
}

fn raw(bytes: &[u8]) -> Vec<i32> {
    bytes.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect()
}

/// Forms of JPEG 2000 that the built-in samples have not; grey ones, with what the reference decoders make of them.
const FORMS: [(&str, &[u8], &[u8], i32); 5] = [
    (
        "all code-block styles, layers, precincts, tiles off the image's origin",
        include_bytes!("../samples/jpeg_2000_styles.dcm"),
        include_bytes!("../samples/picture.raw"),
        0,
    ),
    (
        "raw bits of the lower planes of 16 signed ones, tile-parts",
        include_bytes!("../samples/jpeg_2000_bypass.dcm"),
        include_bytes!("../samples/picture_signed.raw"),
        0,
    ),
    (
        "irreversible, raw bits, an odd origin",
        include_bytes!("../samples/jpeg_2000_lossy_bypass.dcm"),
        include_bytes!("../samples/jpeg_2000_lossy_bypass.raw"),
        1,
    ),
    (
        "HTJ2K in flat blocks, an odd origin",
        include_bytes!("../samples/htj2k_blocks.dcm"),
        include_bytes!("../samples/picture.raw"),
        0,
    ),
    (
        "HTJ2K with all three passes",
        include_bytes!("../samples/htj2k_refined.dcm"),
        include_bytes!("../samples/htj2k_refined.raw"),
        0,
    ),
];

#[test]
fn every_form_of_jpeg_2000_gives_its_stored_values() {
    for (name, file, expected, tolerance) in FORMS {
        let image = read(file).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (values, expected) = (stored(image), raw(expected));
        assert_eq!(values.len(), expected.len(), "{name}");
        let difference = values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).max().unwrap();
        assert!(difference <= tolerance, "{name}: {difference}");
    }
    // Progression changes and a raised component; colour becomes luma.
    let changes = read(include_bytes!("../samples/jpeg_2000_changes.dcm")).unwrap();
    assert_eq!(stored(changes), luma());
}

#[test]
fn forms_of_jpeg_2000_that_are_cut_or_damaged_are_no_harm() {
    let mut random = 3u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for (name, file, ..) in FORMS {
        let start = stream_start(file);
        for sixteenth in 0..16 {
            // A hole at the end: zeros where the last part was.
            let mut cut = file.to_vec();
            let keep = start + (file.len() - 8 - start) * sixteenth / 16;
            cut[keep..file.len() - 8].fill(0);
            let began = Instant::now();
            let _ = read(&cut);
            assert!(began.elapsed() < Duration::from_secs(3), "{name} {sixteenth}/16: slow");
        }
        for round in 0..100 {
            let mut damaged = file.to_vec();
            let reach = if round % 2 == 0 { 150 } else { file.len() - 8 - start };
            for _ in 0..1 + next(3) {
                damaged[start + next(reach)] = next(256) as u8;
            }
            let began = Instant::now();
            let _ = read(&damaged);
            assert!(began.elapsed() < Duration::from_secs(3), "{name} round {round}: slow");
        }
    }
}

/// Where the coded stream of a sample begins: behind the offset table and the item header.
fn stream_start(file: &[u8]) -> usize {
    let pixels = file.windows(4).rposition(|w| w == [0xE0, 0x7F, 0x10, 0x00]).unwrap();
    pixels + 12 + 12 + 8
}

#[test]
fn cut_streams_are_errors() {
    for sample in SAMPLES {
        let start = stream_start(sample.file);
        let length = sample.file.len() - 8 - start;
        for sixteenth in 0..16 {
            let keep = start + length * sixteenth / 16;
            let mut file = sample.file[..keep].to_vec();
            file.resize(keep.next_multiple_of(2), 0);
            let item = u32::try_from(file.len() - start).unwrap();
            file[start - 4..start].copy_from_slice(&item.to_le_bytes());
            file.extend_from_slice(&[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
            let outcome = read(&file);
            // dicom-rs' decoder fills a baseline image that is cut with grey; nothing tells us of it.
            if sample.name != "JPEG baseline" {
                let error = outcome.expect_err(&format!("{} cut at {sixteenth}/16", sample.name)).to_string();
                assert!(error.contains("sample.dcm: pixel data (J") || error.contains("(H"), "{error}");
            }
        }
    }
}

#[test]
fn a_stream_of_another_size_depth_or_syntax_is_refused_before_it_is_decoded() {
    let set = |file: &mut [u8], tag: [u8; 4], value: u16| {
        let head = [&tag[..], b"US\x02\x00"].concat();
        let at = file.windows(8).position(|w| w == head).unwrap() + 8;
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    };
    for sample in SAMPLES {
        for (tag, value, wanted) in [
            ([0x28, 0, 0x10, 0], 46, "expected 46 x 37 pixels"),
            ([0x28, 0, 0x11, 0], 36, "expected 45 x 36 pixels"),
            ([0x28, 0, 0x10, 0], 9000, "expected 9000 x 37 pixels"),
        ] {
            let mut file = sample.file.to_vec();
            set(&mut file, tag, value);
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(wanted), "{}: {error}", sample.name);
        }
        // The bytes of one coding under the name of another.
        let uid = sample.transfer_syntax.as_bytes();
        let at = sample.file.windows(uid.len()).position(|w| w == uid).unwrap();
        let other = if sample.transfer_syntax.contains(".4.8") { b"90" } else { b"80" };
        let mut file = sample.file.to_vec();
        file[at + 20..at + 22].copy_from_slice(other);
        if uid.len() == 23 {
            file[at + 22] = 0;
        }
        let error = read(&file).unwrap_err();
        assert!(matches!(error, ReadError::Pixels { .. }), "{}: {error}", sample.name);
    }
}

/// Damage of all kinds to the coded streams: neither a panic nor a hang may come of it, whatever the decoder.
#[test]
fn damaged_streams_neither_panic_nor_hang() {
    let path = Path::new("sample.dcm");
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut read, mut refused) = (0, 0);
    for sample in SAMPLES {
        let start = stream_start(sample.file);
        let length = sample.file.len() - 8 - start;
        for round in 0..250 {
            let mut file = sample.file.to_vec();
            // The stream's header is where damage has consequences; half of the rounds stay within it.
            let reach = if round % 2 == 0 { length.min(120) } else { length };
            for _ in 0..1 + next(4) {
                let at = start + next(reach);
                match next(4) {
                    0 => file[at] ^= 1 << next(8),
                    1 => file[at] = [0, 0xFF, 0x7F, 0x80][next(4)],
                    2 => file[at] = next(256) as u8,
                    _ => {
                        let from = start + next(length - 8);
                        let to = start + next(length - 8);
                        file.copy_within(from..from + 8, to);
                    }
                }
            }
            let began = Instant::now();
            match read_stage_from(path, file, Stage::Display, &ReadOptions::default()) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
            assert!(began.elapsed() < Duration::from_secs(3), "{} round {round}: slow", sample.name);
        }
    }
    println!("{read} read, {refused} refused");
    assert!(read > 0 && refused > 500, "{read} read, {refused} refused");
}
