//! De-identification of every sample, of damaged ones, and of the shared collection where it is there.
#![allow(clippy::unwrap_used)] // in a helper, as in a test, it fails the test

use spinexr_dicom::samples::SAMPLES;
use spinexr_dicom::{
    Deidentified, DeidentifyOptions, Key, MaskRect, ReadError, ReadOptions, Stage, StageData, deidentify,
    find_films, read_header, read_stage_from,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn run(path: &Path, file: Vec<u8>, mask: &[MaskRect]) -> Result<Deidentified, ReadError> {
    let options = DeidentifyOptions { mask: mask.to_vec(), ..DeidentifyOptions::default() };
    deidentify(path, file, &options, &Key::new(&[7; 32]).unwrap())
}

fn stored(path: &Path, file: Vec<u8>) -> Option<(usize, Vec<i32>)> {
    let image = read_stage_from(path, file, Stage::Stored, &ReadOptions::default()).ok()?;
    match image.data {
        StageData::I32(values) => Some((image.width, values)),
        other => panic!("stored values are {other:?}"),
    }
}

#[test]
fn every_coding_keeps_its_pixels_and_can_be_masked() {
    let rect = MaskRect { x0: 3, y0: 2, x1: 9, y1: 7 };
    for sample in SAMPLES {
        let path = Path::new(sample.name);
        let (width, before) = stored(path, sample.file.to_vec()).unwrap();
        let plain = run(path, sample.file.to_vec(), &[]).unwrap();
        assert_eq!(stored(path, plain.bytes), Some((width, before.clone())), "{}", sample.name);

        let masked = run(path, sample.file.to_vec(), &[rect]).unwrap();
        let (_, after) = stored(path, masked.bytes).unwrap();
        let black = after[2 * width + 3];
        for (i, (a, b)) in before.iter().zip(&after).enumerate() {
            let is_inside = (3..9).contains(&(i % width)) && (2..7).contains(&(i / width));
            assert_eq!(*b, if is_inside { black } else { *a }, "{} at {i}", sample.name);
        }
    }
}

#[test]
fn damaged_films_are_errors_or_films_and_nothing_else() {
    let began = Instant::now();
    let mut outcomes = [0usize; 2];
    for sample in SAMPLES {
        let path = Path::new(sample.name);
        for n in 0..60usize {
            let mut file = sample.file.to_vec();
            // A cut, or a byte changed somewhere; most of the header is in the first 1500 bytes.
            let at = (n * 7919 + 131) % file.len().min(1500);
            if n % 4 == 0 {
                file.truncate(at + file.len() / 2);
            } else {
                file[at] ^= [0xFF, 0x01, 0x80][n % 3];
            }
            match run(path, file, &[]) {
                Ok(film) => {
                    outcomes[0] += 1;
                    let again = run(path, film.bytes, &[]).expect("what was written is read again");
                    assert_eq!((again.report.private, again.report.removed), (0, 0));
                }
                Err(error) => {
                    outcomes[1] += 1;
                    assert!(error.to_string().contains(sample.name), "{error}");
                }
            }
        }
    }
    assert!(outcomes.iter().all(|&n| n > 50), "{outcomes:?}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_shared_collection_comes_out_readable_and_nameless() {
    let folder = match std::env::var_os("SPINEXR_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    }
    .join("data/dicom");
    if !folder.join("index.json").is_file() {
        println!("skipped: no shared DICOM collection (set SPINEXR_SHARED)");
        return;
    }
    let (mut films, mut refused) = (0, 0);
    for path in find_films(&folder).unwrap() {
        let file = std::fs::read(&path).unwrap();
        let before = stored(&path, file.clone());
        let header = read_header(&path, &ReadOptions::default().limits).ok();
        let out = match run(&path, file, &[]) {
            Ok(out) => out,
            Err(error) => {
                assert!(before.is_none(), "readable, but refused: {error}");
                refused += 1;
                continue;
            }
        };
        films += 1;
        let name = path.display();
        assert_eq!(stored(&path, out.bytes.clone()), before, "{name}");
        // The UIDs that every film has are gone from the bytes.
        let uids = header.map(|h| [h.sop_instance_uid, h.study_uid, h.series_uid]).unwrap_or_default();
        for uid in uids.into_iter().flatten().filter(|uid| uid.len() > 20) {
            let is_left = out.bytes.windows(uid.len()).any(|window| window == uid.as_bytes());
            assert!(!is_left, "{name}: {uid}");
        }
    }
    println!("{films} films de-identified, {refused} refused");
    assert!(films > 150, "{films} films, {refused} refused");
}
