//! The blood cell images of BCCD (github.com/Shenggan/BCCD_Dataset, MIT): a Pascal VOC set with its oddities, through
//! every format and back. Skipped where the collection is not there.

#![allow(clippy::unwrap_used, reason = "a test ends where its setting fails")]

use spinexr_core::progress::silent;
use spinexr_core::{Annotation, Split};
use spinexr_data::convert::{ConvertOptions, Degenerate, FilmFiles, convert};
use spinexr_data::vindr::VindrOptions;
use spinexr_data::{Dataset, Format, formats};
use std::path::{Path, PathBuf};

fn bccd() -> Option<PathBuf> {
    let shared = match std::env::var_os("SPINEXR_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    };
    let folder = shared.join("data/bccd");
    folder.is_dir().then_some(folder)
}

fn read(dir: &Path) -> Dataset {
    let options = VindrOptions { min_box_px: 0.0, ..VindrOptions::new() };
    let (dataset, errors) = formats::read_and_collect(dir, None, &options).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    dataset
}

/// Image id, split and boxes of every film.
fn content(dataset: &Dataset) -> Vec<(&str, Split, &[Annotation])> {
    dataset
        .films
        .iter()
        .map(|f| (f.annotation.image_id.as_str(), f.split, f.annotation.boxes.as_slice()))
        .collect()
}

#[test]
fn bccd_goes_through_every_format_and_back() {
    let Some(folder) = bccd() else {
        println!("skipped: no BCCD collection (set SPINEXR_SHARED)");
        return;
    };
    let original = read(&folder);
    let names: Vec<&str> = original.classes.labels().iter().map(|label| label.name()).collect();
    assert_eq!(names, ["Platelets", "RBC", "WBC"]);
    let count = |name: &str| {
        let boxes = original.films.iter().flat_map(|f| &f.annotation.boxes);
        boxes.filter(|b| b.label.name() == name).count()
    };
    assert_eq!(["RBC", "WBC", "Platelets"].map(count), [4155, 372, 361]);
    assert_eq!(Split::ALL.map(|split| original.of(split).count()), [205, 87, 72]);
    // Corners of 1 to 640 and 480: pixels counted from one, none past the border.
    assert_eq!((original.read.clipped_boxes, original.read.thin_boxes), (0, 0));

    let dir = tempfile::tempdir().unwrap();
    for format in Format::ALL {
        let options = ConvertOptions { format, films: FilmFiles::Link, degenerate: Degenerate::Keep };
        let out = dir.path().join(format.name());
        let converted = convert(&original, &out, &options, 2, &silent).unwrap();
        assert_eq!((converted.films, converted.boxes, converted.rounded), (364, 4888, 0), "{format}");
        assert!(converted.failures.is_empty());
        let mut ids: Vec<&str> = converted.degenerate.iter().map(|b| b.image_id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["BloodImage_00338", "BloodImage_00343"]);
        let there = read(&out);
        assert_eq!(there.classes, original.classes);
        assert!(content(&there) == content(&original), "{format} holds something else");
        let voc = ConvertOptions { format: Format::Voc, ..options };
        let back = dir.path().join(format!("{format}-voc"));
        convert(&there, &back, &voc, 2, &silent).unwrap();
        assert!(content(&read(&back)) == content(&original), "{format} gives something else back");
    }
}
