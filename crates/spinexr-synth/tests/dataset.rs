//! A data set as a whole: bytes, files, annotations.

#![allow(clippy::unwrap_used, reason = "a test ends where its setting fails")]

use spinexr_core::progress::silent;
use spinexr_core::{Category, Finding};
use spinexr_dicom::{Policy, ReadOptions, read_film};
use spinexr_synth::{SynthConfig, SynthError, generate};
use std::collections::BTreeMap;
use std::path::Path;

fn config() -> SynthConfig {
    SynthConfig { studies: 10, test_studies: 4, seed: 11, height_px: 160, balanced: true }
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for sub in ["", "annotations", "train_images", "test_images"] {
        for entry in std::fs::read_dir(dir.join(sub)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
                all.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    all
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
    let one = on_threads(1, || generate(&a, &config(), &silent)).unwrap();
    let two = on_threads(2, || generate(&b, &config(), &silent)).unwrap();
    assert_eq!(one, two);
    assert_eq!(files(&a), files(&b));
    let other = SynthConfig { seed: 12, studies: 1, test_studies: 0, ..config() };
    generate(&c, &other, &silent).unwrap();
    assert!(files(&c).keys().filter(|k| k.ends_with(".dicom")).all(|k| !files(&a).contains_key(k)));
}

#[test]
fn the_layout_is_that_of_the_release() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("data");
    let summary = generate(&out, &config(), &silent).unwrap();
    let files = files(&out);
    assert_eq!(files.keys().filter(|k| k.ends_with(".dicom")).count(), summary.films);

    let mut boxes = [0usize; Finding::COUNT];
    let mut normal = 0;
    let mut sizes = BTreeMap::new();
    let (mut inverse, mut upright) = (0, 0);
    for split in ["train", "test"] {
        let mut csv = csv::Reader::from_path(out.join(format!("annotations/{split}.csv"))).unwrap();
        let header = csv.headers().unwrap().iter().collect::<Vec<_>>().join(",");
        assert_eq!(header, "study_id,series_id,image_id,rad_id,lesion_type,xmin,ymin,xmax,ymax");
        for row in csv.records() {
            let row = row.unwrap();
            for id in 0..3 {
                assert!(row[id].len() == 32 && row[id].bytes().all(|b| b.is_ascii_hexdigit()), "{row:?}");
            }
            assert!(["rad1", "rad2", "rad3"].contains(&&row[3]));
            let image = row[2].to_owned();
            let (w, h) = *sizes.entry(image.clone()).or_insert_with(|| {
                let path = out.join(format!("{split}_images/{image}.dicom"));
                let options = ReadOptions { policy: Policy::Standard, ..ReadOptions::default() };
                let film = read_film(&path, &options).unwrap();
                let raw = &files[&format!("{split}_images/{image}.dicom")];
                // In a deflated file the word is not to be found; such a file counts for neither.
                let has = |word: &[u8]| raw.windows(word.len()).any(|w| w == word);
                inverse += usize::from(has(b"MONOCHROME1"));
                upright += usize::from(has(b"MONOCHROME2"));
                assert_eq!(film.height_px, 160);
                (film.width_px as f32, film.height_px as f32)
            });
            if &row[4] == "No finding" {
                normal += 1;
                assert!((5..9).all(|k| row[k].is_empty()));
            } else {
                let finding: Finding = row[4].parse().unwrap();
                assert_eq!(finding.name(), &row[4]);
                boxes[finding.index()] += 1;
                let b: Vec<f32> = (5..9).map(|k| row[k].parse().unwrap()).collect();
                assert!(0.0 <= b[0] && b[0] < b[2] && b[2] <= w, "{row:?}");
                assert!(0.0 <= b[1] && b[1] < b[3] && b[3] <= h, "{row:?}");
            }
        }
    }
    assert_eq!(boxes, summary.boxes_per_finding);
    assert_eq!(normal, summary.normal_films);
    assert!(inverse > 0 && upright > 0, "MONOCHROME1 {inverse}, MONOCHROME2 {upright}");

    let mut csv = csv::Reader::from_path(out.join("annotations/categories.csv")).unwrap();
    let named = csv.records().map(|r| r.unwrap()[2].parse::<Category>().unwrap()).collect::<Vec<_>>().len();
    assert_eq!(named, boxes.iter().sum::<usize>());
    let sums = String::from_utf8(files["SHA256SUMS.txt"].clone()).unwrap();
    assert_eq!(sums.lines().count(), summary.films + 3);
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        use sha2::Digest;
        let hash: String = sha2::Sha256::digest(&files[name]).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash, sum, "{name}");
    }
}

#[test]
fn an_occupied_folder_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "x").unwrap();
    let error = generate(dir.path(), &config(), &silent).unwrap_err();
    assert!(matches!(error, SynthError::NotEmpty { .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let file = dir.path().join("thesis.txt");
    assert!(generate(&file, &config(), &silent).is_err());

    let bad = SynthConfig { height_px: 3, ..config() };
    let message = generate(&dir.path().join("new"), &bad, &silent).unwrap_err().to_string();
    assert!(message.contains("height_px") && message.contains('3'), "{message}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
