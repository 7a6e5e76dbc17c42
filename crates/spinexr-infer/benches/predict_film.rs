//! How long a film takes, from its file to its record, with the small networks.
//!
//! `cargo bench -p spinexr-infer`

#[path = "../tests/support/mod.rs"]
mod support;

use divan::{Bencher, counter::ItemsCount};
use spinexr_data::{Fit, InputSize};
use spinexr_infer::overlay::{OverlayOptions, render};
use spinexr_infer::{Bundle, FilmResult, Pipeline};
use spinexr_models::Architecture;
use std::ops::ControlFlow;
use std::path::PathBuf;
use tempfile::TempDir;

fn main() {
    divan::main();
}

/// Two classifiers and a detector at the input sizes of the demonstration.
fn framework() -> Bundle {
    let mut models = vec![
        support::classifier("a", Architecture::DensenetMiniA, 1),
        support::classifier("b", Architecture::DensenetMiniB, 2),
        support::detector("boxes", 3),
    ];
    for (spec, _) in &mut models {
        let (height_px, width_px) = if spec.detect.is_some() { (384, 256) } else { (256, 176) };
        spec.input = InputSize { height_px, width_px, fit: Fit::Letterbox };
    }
    support::bundle(models, Some(support::decision(0.5, 0.5)))
}

fn films(count: u32, height: u32, width: u32) -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let paths = (0..count)
        .map(|i| {
            let path = dir.path().join(format!("{i}.dcm"));
            support::write_dicom(&path, height, width, i);
            path
        })
        .collect();
    (dir, paths)
}

/// Eight films of 768 × 502 px, RLE, in batches of the given size.
#[divan::bench(args = [1, 4, 8], sample_count = 5, sample_size = 1)]
fn framework_of_three_small_models(bencher: Bencher, batch: usize) {
    let (_dir, paths) = films(8, 768, 502);
    let pipeline = support::pipeline(&[framework()], batch, 2);
    bencher.counter(ItemsCount::new(paths.len())).bench(|| run(&pipeline, &paths));
}

/// One film of full size.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn one_film_of_full_size(bencher: Bencher) {
    let (_dir, paths) = films(1, 2455, 1606);
    let pipeline = support::pipeline(&[framework()], 1, 1);
    bencher.bench(|| run(&pipeline, &paths));
}

/// Drawing the picture of a film of full size.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn overlay_of_full_size(bencher: Bencher) {
    let (_dir, paths) = films(1, 2455, 1606);
    let pipeline = support::pipeline(&[framework()], 1, 1);
    let mut drawn = None;
    let mut on_film = |film: FilmResult| {
        drawn = film.radiograph.zip(film.outcome.ok());
        ControlFlow::Continue(())
    };
    pipeline.predict(&paths, &mut on_film, &spinexr_core::progress::silent);
    let (radiograph, prediction) = drawn.expect("the film is good");
    bencher.bench(|| render(&radiograph, &prediction, &OverlayOptions::default()));
}

fn run(pipeline: &Pipeline, paths: &[PathBuf]) -> usize {
    support::predictions(pipeline, paths).len()
}
