//! Small films for the tests of this crate.

use crate::{Dataset, Film};
use spinexr_core::{Annotation, BoxXyxy, FilmAnnotation, Finding, Split};
use spinexr_dicom::{
    Display, FilmHeader, Format, ModalityApplied, PolarityApplied, Policy, Provenance, Radiograph, Stage,
    VoiApplied,
};
use std::path::Path;

/// A film in memory.
pub(crate) fn radiograph(height_px: u32, width_px: u32, display: Display) -> Radiograph {
    let policy = if matches!(display, Display::U8(_)) { Policy::Vindr } else { Policy::Standard };
    let provenance = Provenance {
        format: Format::Png,
        transfer_syntax: None,
        photometric: None,
        policy,
        stage: Stage::Display,
        frame: 0,
        modality: ModalityApplied::None,
        voi: VoiApplied::None,
        polarity: PolarityApplied::Unchanged,
        fallback: None,
        notes: vec![],
    };
    Radiograph { height_px, width_px, display, header: FilmHeader::default(), provenance }
}

/// Grey values that differ from film to film and from place to place.
pub(crate) fn pattern(height: usize, width: usize, seed: u64) -> Vec<u8> {
    (0..height * width)
        .map(|i| {
            let (y, x) = (i / width, i % width);
            ((x * 3 + y * 5 + seed as usize * 37 + crate::mix::scatter2(seed, i as u64) as usize % 40) % 256)
                as u8
        })
        .collect()
}

/// Writes a film as a PNG file.
pub(crate) fn write_film(path: &Path, height: usize, width: usize, seed: u64) {
    let pixels = pattern(height, width, seed);
    let image = image::GrayImage::from_raw(width as u32, height as u32, pixels).unwrap();
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    std::fs::write(path, bytes.into_inner()).unwrap();
}

/// An annotation: abnormal with one box for odd `i`, normal for even.
pub(crate) fn annotation(i: usize) -> FilmAnnotation {
    let xyxy = BoxXyxy::new(4.0 + i as f32 % 7.0, 6.0, 20.0, 31.0);
    let label = Finding::ALL[i % Finding::COUNT].label();
    FilmAnnotation {
        image_id: format!("film{i:03}"),
        study_id: format!("study{:03}", i / 2),
        series_id: String::new(),
        abnormal: i % 2 == 1,
        boxes: if i % 2 == 1 { vec![Annotation { label, xyxy }] } else { vec![] },
    }
}

/// `n` films of 60 × 40 px on disk, with their annotations.
pub(crate) fn dataset(dir: &Path, n: usize) -> Dataset {
    let films = (0..n)
        .map(|i| {
            let annotation = annotation(i);
            let path = dir.join(format!("{}.png", annotation.image_id));
            write_film(&path, 60, 40, i as u64);
            Film { path, annotation, split: Split::Train }
        })
        .collect();
    Dataset { films, ..Dataset::default() }
}
