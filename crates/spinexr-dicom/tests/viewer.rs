//! A viewer that applies the window it is given shows what the standard's pipeline shows.
#![allow(clippy::unwrap_used)] // in a helper, as in a test, it fails the test

use spinexr_dicom::samples::SAMPLES;
use spinexr_dicom::{
    Display, DxFilm, Policy, ReadOptions, encode_dx, find_films, read_film, read_viewer_pixels,
};
use std::path::{Path, PathBuf};

fn options() -> ReadOptions {
    ReadOptions { policy: Policy::Standard, ..ReadOptions::default() }
}

/// Largest difference between the film through the viewer's window and its display pixels; `None` for no film.
fn difference(path: &Path) -> Option<f64> {
    let film = read_film(path, &options()).ok()?;
    let shown = read_viewer_pixels(path, &options()).unwrap();
    assert_eq!((shown.height_px, shown.width_px), (film.height_px, film.width_px));
    let Display::F32(expected) = film.display else { panic!("not f32") };
    assert_eq!(shown.values.len(), expected.len());
    assert!(shown.high > shown.low, "{}: {} to {}", path.display(), shown.low, shown.high);
    let through = |value: u16| {
        let y = ((f64::from(value) - shown.low) / (shown.high - shown.low)).clamp(0.0, 1.0);
        if shown.inverted { 1.0 - y } else { y }
    };
    let differences = shown.values.iter().zip(&expected).map(|(v, y)| (through(*v) - f64::from(*y)).abs());
    Some(differences.fold(0.0, f64::max))
}

/// Half a step of 16 bits, where display values were rounded to them, and what f32 loses.
const TOLERANCE: f64 = 0.5 / 65_535.0 + 1e-6;

#[test]
fn written_films() {
    let pixels: Vec<u16> = (0..40 * 30).map(|i| (i * 37 % 4096) as u16).collect();
    let film = DxFilm { bits_stored: 12, ..DxFilm::new(40, 30, pixels) };
    let films = [
        ("plain", film.clone()),
        ("inverted", DxFilm { monochrome1: true, ..film.clone() }),
        ("window", DxFilm { windows: vec![(1000.0, 700.0)], ..film.clone() }),
        (
            "rescaled",
            DxFilm { windows: vec![(3000.0, 2000.0)], rescale: Some((2.0, -100.0)), ..film.clone() },
        ),
        ("turned", DxFilm { windows: vec![(-900.0, 500.0)], rescale: Some((-1.0, 0.0)), ..film.clone() }),
        ("flat", DxFilm { pixels: vec![7; 1200], ..film }),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, film) in films {
        let path = folder.path().join(format!("{name}.dicom"));
        std::fs::write(&path, encode_dx(&film)).unwrap();
        let found = difference(&path).unwrap();
        assert!(found <= TOLERANCE, "{name}: {found:e}");
    }
}

#[test]
fn films_of_every_coding() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("film.dicom");
    for sample in SAMPLES {
        std::fs::write(&path, sample.file).unwrap();
        let found = difference(&path).unwrap();
        assert!(found <= TOLERANCE, "{}: {found:e}", sample.name);
    }
}

#[test]
fn the_shared_collection() {
    let shared = std::env::var_os("SPINEXR_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let Ok(films) = find_films(&shared.join("data/dicom")) else {
        println!("skipped: no ../shared/data/dicom");
        return;
    };
    let mut count = 0;
    for path in films {
        let Some(found) = difference(&path) else { continue };
        assert!(found <= TOLERANCE, "{}: {found:e}", path.display());
        count += 1;
    }
    println!("{count} films of the shared collection show through their window as they should");
}
