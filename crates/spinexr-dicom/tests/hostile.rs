//! Broken and hostile files give errors: quickly, without a panic, without great memory.
#![allow(clippy::unwrap_used)] // in a helper, as in a test, it fails the test

use spinexr_dicom::samples::SAMPLES;
use spinexr_dicom::{
    DxFilm, DxSyntax, Limits, Policy, ReadError, ReadOptions, Stage, encode_dx, read_film, read_header,
    read_size, read_stage,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The system's allocator, with a count of what is held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Tests that watch memory or time run one after the other.
static ALONE: Mutex<()> = Mutex::new(());

// SAFETY: every call goes to the system's allocator unchanged; the counters only observe.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn film(transfer_syntax: DxSyntax) -> DxFilm {
    let pixels = (0..96u32 * 80).map(|i| ((i * 37) ^ (i / 80 * 11)) as u16 & 4095).collect();
    DxFilm { transfer_syntax, ..DxFilm::new(96, 80, pixels) }
}

/// Reads a file in every way; returns the outcome of the display stage.
fn read_all(path: &Path) -> Result<(), ReadError> {
    let options = ReadOptions::default();
    let _ = read_header(path, &options.limits);
    let _ = read_size(path, &options.limits);
    let _ = read_stage(path, Stage::Voi, &options);
    let _ = read_film(path, &ReadOptions { policy: Policy::Vindr, ..options });
    read_film(path, &options).map(|_| ())
}

/// Reads `bytes` as a file within two seconds and `memory` bytes.
fn read_bounded(folder: &Path, bytes: &[u8], memory: usize, what: &str) -> Result<(), ReadError> {
    let path = folder.join("hostile.dcm");
    std::fs::write(&path, bytes).unwrap();
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let began = Instant::now();
    let outcome = read_all(&path);
    let (took, used) = (began.elapsed(), PEAK.load(Ordering::Relaxed) - before);
    assert!(took < Duration::from_secs(2), "{what}: {took:?}");
    assert!(used < memory, "{what}: {used} bytes");
    outcome
}

const MIB: usize = 1 << 20;

/// Overwrites the value of a `US` element, explicit little endian.
fn set_us(bytes: &mut [u8], tag: [u8; 4], value: u16) {
    let head = [&tag[..], b"US\x02\x00"].concat();
    let at = bytes.windows(8).position(|w| w == head).unwrap() + 8;
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn cut_files_are_errors() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for transfer_syntax in DxSyntax::ALL {
        let bytes = encode_dx(&film(transfer_syntax));
        for sixteenth in 0..16 {
            let what = format!("{transfer_syntax:?} cut at {sixteenth}/16");
            let outcome = read_bounded(folder.path(), &bytes[..bytes.len() * sixteenth / 16], 4 * MIB, &what);
            let error = outcome.expect_err(&what).to_string();
            assert!(error.contains("hostile.dcm"), "{what}: {error}");
        }
    }
}

#[test]
fn cut_headers_are_errors_at_every_byte() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.dcm");
    let bytes = encode_dx(&film(DxSyntax::ExplicitLe));
    let pixels = bytes.windows(4).rposition(|w| w == [0xE0, 0x7F, 0x10, 0x00]).unwrap();
    for cut in (0..pixels + 12).step_by(3) {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(read_film(&path, &ReadOptions::default()).is_err(), "{cut}");
    }
}

#[test]
fn lying_sizes_are_errors_before_memory_is_taken() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (rows, columns) = ([0x28, 0, 0x10, 0], [0x28, 0, 0x11, 0]);
    for transfer_syntax in [DxSyntax::ExplicitLe, DxSyntax::RleLossless, DxSyntax::JpegLossless] {
        for (height, width) in
            [(97, 80), (96, 81), (0, 80), (96, 0), (9000, 9000), (60_000, 60_000), (65_535, 1)]
        {
            let mut bytes = encode_dx(&film(transfer_syntax));
            set_us(&mut bytes, rows, height);
            set_us(&mut bytes, columns, width);
            let what = format!("{transfer_syntax:?} as {height} x {width}");
            assert!(read_bounded(folder.path(), &bytes, 4 * MIB, &what).is_err(), "{what}");
        }
    }
}

#[test]
fn a_jpeg_that_lies_about_its_size_is_an_error() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = encode_dx(&film(DxSyntax::JpegLossless));
    let at = bytes.windows(5).position(|w| w == [0xFF, 0xC3, 0, 11, 12]).unwrap();
    bytes[at + 5..at + 9].copy_from_slice(&[0xFF, 0xF0, 0xFF, 0xF0]);
    let error = read_bounded(folder.path(), &bytes, 4 * MIB, "SOF of 65520").unwrap_err();
    assert!(error.to_string().contains("65520"), "{error}");
}

#[test]
fn damaged_bytes_never_panic() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut random = 99u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for transfer_syntax in DxSyntax::ALL {
        let good = encode_dx(&film(transfer_syntax));
        for round in 0..60 {
            let mut bytes = good.clone();
            // The header is where damage has consequences; half of the rounds stay within it.
            let reach = if round % 2 == 0 { 1600.min(bytes.len()) } else { bytes.len() };
            for _ in 0..1 + next(6) {
                let at = 128 + next(reach - 128);
                bytes[at] = next(256) as u8;
            }
            let _ =
                read_bounded(folder.path(), &bytes, 300 * MIB, &format!("{transfer_syntax:?} round {round}"));
        }
    }
}

#[test]
fn damaged_samples_of_every_coding_take_little_memory() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut random = 5u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for sample in SAMPLES {
        let pixels = sample.file.windows(4).rposition(|w| w == [0xE0, 0x7F, 0x10, 0x00]).unwrap();
        for round in 0..40 {
            let mut bytes = sample.file.to_vec();
            for _ in 0..1 + next(3) {
                bytes[pixels + 32 + next(110)] =
                    [0, 1, 0x0F, 0x1F, 0x40, 0xF0, 0xFE, next(256) as u8][next(8)];
            }
            // The picture has 1665 pixels.
            let _ = read_bounded(folder.path(), &bytes, 4 * MIB, &format!("{} round {round}", sample.name));
        }
    }
}

/// A codestream's marker segment of `marker`, to be changed in place.
fn codestream_segment(bytes: &mut [u8], marker: u8) -> &mut [u8] {
    let start = bytes.windows(4).position(|w| w == [0xFF, 0x4F, 0xFF, 0x51]).unwrap();
    let at = start + bytes[start..].windows(3).position(|w| w == [0xFF, marker, 0]).unwrap();
    let length = usize::from(bytes[at + 3]);
    &mut bytes[at + 4..at + 2 + length]
}

#[test]
fn a_codestream_that_asks_for_much_is_refused() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for sample in SAMPLES.iter().filter(|s| s.name.contains("2000") || s.name.contains("HTJ2K")) {
        let refused = |change: &dyn Fn(&mut [u8]), wanted: &str| {
            let mut bytes = sample.file.to_vec();
            change(&mut bytes);
            let error = read_bounded(folder.path(), &bytes, 4 * MIB, sample.name).unwrap_err().to_string();
            assert!(error.contains(wanted), "{}: {error}", sample.name);
        };
        let size = |at: usize, value: u32| {
            move |bytes: &mut [u8]| {
                codestream_segment(bytes, 0x51)[at..at + 4].copy_from_slice(&value.to_be_bytes());
            }
        };
        refused(&size(2, 2_000_000_000), "the stream holds");
        refused(&size(10, 30), "the stream holds");
        let one_pixel_tiles = |bytes: &mut [u8]| {
            codestream_segment(bytes, 0x51)[18..26].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
        };
        refused(&one_pixel_tiles, "1665 tiles in");
        refused(&size(18, 0), "first tile");
        refused(&|bytes| codestream_segment(bytes, 0x52)[2] = 0xFF, "packets in");
        refused(&|bytes| codestream_segment(bytes, 0x52)[5] = 33, "decomposition levels");
        refused(&|bytes| codestream_segment(bytes, 0x52)[6] = 8, "code blocks");
        refused(&|bytes| codestream_segment(bytes, 0x51)[36] = 37, "38 bits");
    }
}

#[test]
fn garbage_is_no_film() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let error = read_bounded(folder.path(), &noise, 4 * MIB, "noise").unwrap_err();
    assert!(matches!(error, ReadError::UnknownFormat { .. }), "{error}");
    let mut prefixed = noise;
    prefixed[128..132].copy_from_slice(b"DICM");
    assert!(read_bounded(folder.path(), &prefixed, 4 * MIB, "noise after DICM").is_err());
    assert!(read_bounded(folder.path(), &[], MIB, "nothing").is_err());
}

#[test]
fn nested_sequences_neither_overflow_nor_take_long() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = vec![0u8; 128];
    bytes.extend_from_slice(b"DICM\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0");
    for _ in 0..300_000 {
        bytes.extend_from_slice(b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff");
    }
    let error = read_bounded(folder.path(), &bytes, 32 * MIB, "nesting").unwrap_err();
    assert!(matches!(error, ReadError::TooLarge { what: "the nesting of sequences", .. }), "{error}");
}

#[test]
fn a_deflate_bomb_stops_at_the_limit() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let blank = DxFilm { transfer_syntax: DxSyntax::Deflated, ..DxFilm::new(3000, 3000, vec![0; 9_000_000]) };
    let path = folder.path().join("bomb.dcm");
    let bytes = encode_dx(&blank);
    assert!(bytes.len() < 400_000);
    std::fs::write(&path, bytes).unwrap();
    assert!(read_film(&path, &ReadOptions::default()).is_ok());
    let limits = Limits { max_inflated_bytes: 1 << 20, ..Limits::default() };
    let error = read_film(&path, &ReadOptions { limits, ..ReadOptions::default() }).unwrap_err();
    assert!(matches!(error, ReadError::TooLarge { limit: 1_048_576, .. }), "{error}");
}

#[test]
fn limits_are_limits() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dcm");
    std::fs::write(&path, encode_dx(&film(DxSyntax::ExplicitLe))).unwrap();
    let read = |limits| read_film(&path, &ReadOptions { limits, ..ReadOptions::default() });
    assert!(read(Limits { max_pixels: 96 * 80, ..Limits::default() }).is_ok());
    let error = read(Limits { max_pixels: 96 * 80 - 1, ..Limits::default() }).unwrap_err();
    assert!(matches!(error, ReadError::TooLarge { found: 7680, limit: 7679, .. }), "{error}");
    let error = read(Limits { max_file_bytes: 1000, ..Limits::default() }).unwrap_err();
    assert!(matches!(error, ReadError::TooLarge { limit: 1000, .. }), "{error}");
    let beyond = ReadOptions { frame: 1, ..ReadOptions::default() };
    assert!(matches!(read_film(&path, &beyond), Err(ReadError::NoSuchFrame { frame: 1, frames: 1, .. })));
}
