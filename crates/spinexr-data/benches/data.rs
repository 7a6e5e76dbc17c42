//! Resize, augmentation and loader: `cargo bench -p spinexr-data`.
//!
//! The film is 2455 × 1606 px, the mean size of VinDr-SpineXR; inputs are 384 × 256 px.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use spinexr_core::progress::silent;
use spinexr_core::{FilmAnnotation, Split};
use spinexr_data::{
    AugmentConfig, Cache, Dataset, Film, Fit, InputSize, LabelledBox, Loader, LoaderConfig, PreparedFilm,
    Sampler, SamplerConfig, Share, augment, cache, prepare_film,
};
use spinexr_dicom::{Display, Policy, Radiograph, ReadOptions, read_film};
use std::path::Path;
use std::sync::Arc;

const INPUT: InputSize = InputSize { height_px: 384, width_px: 256, fit: Fit::Letterbox };

fn main() {
    divan::main();
}

/// Writes a film of grey stripes as a PNG file.
fn write_png(path: &Path, height: u32, width: u32) {
    let image = image::GrayImage::from_fn(width, height, |x, y| image::Luma([((x / 3 + y / 5) % 256) as u8]));
    image.save_with_format(path, image::ImageFormat::Png).expect("a temporary folder can be written");
}

fn full_size_film(display: Display) -> Radiograph {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let path = dir.path().join("film.png");
    write_png(&path, 1, 1);
    // Header and provenance of a small film, pixels of a large one.
    let film = read_film(&path, &ReadOptions::default()).expect("a PNG can be read");
    Radiograph { height_px: 2455, width_px: 1606, display, ..film }
}

fn prepared() -> PreparedFilm {
    let values = (0..2455 * 1606).map(|i| (i % 251) as u8).collect();
    prepare_film(&full_size_film(Display::U8(values)), &INPUT)
}

#[divan::bench]
fn prepare_u8(bencher: Bencher) {
    let film = full_size_film(Display::U8((0..2455 * 1606).map(|i| (i % 251) as u8).collect()));
    bencher.bench_local(|| prepare_film(black_box(&film), &INPUT));
}

#[divan::bench]
fn prepare_f32(bencher: Bencher) {
    let film = full_size_film(Display::F32((0..2455 * 1606).map(|i| (i % 251) as f32 / 250.0).collect()));
    bencher.bench_local(|| prepare_film(black_box(&film), &INPUT));
}

fn augment_with(bencher: Bencher, config: AugmentConfig) {
    let film = prepared();
    let b = LabelledBox { class: 1, xyxy: spinexr_core::BoxXyxy::new(40.0, 50.0, 90.0, 120.0) };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    bencher.with_inputs(|| (film.clone(), vec![b; 5])).bench_local_values(|(mut film, mut boxes)| {
        augment(&mut film, &mut boxes, &config, &mut rng);
        (film, boxes)
    });
}

#[divan::bench]
fn augment_mild(bencher: Bencher) {
    augment_with(bencher, AugmentConfig::mild());
}

#[divan::bench]
fn augment_flip_only(bencher: Bencher) {
    augment_with(bencher, AugmentConfig::flip_only());
}

#[divan::bench(args = [1, 2])]
fn loader_batch_of_16(bencher: Bencher, threads: usize) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let films = (0..64)
        .map(|i| {
            let path = dir.path().join(format!("f{i}.png"));
            write_png(&path, 400, 262);
            let annotation = FilmAnnotation {
                image_id: format!("f{i}"),
                study_id: format!("s{i}"),
                series_id: String::new(),
                abnormal: i % 2 == 0,
                boxes: vec![],
            };
            Film { path, annotation, split: Split::Train }
        })
        .collect();
    let data = Dataset { films, ..Dataset::default() };
    let options = ReadOptions { policy: Policy::Vindr, ..ReadOptions::default() };
    cache::prepare(&data, dir.path(), &[INPUT], &options, 2, &silent).expect("the films are sound");
    let films = data.annotations(Split::Train);
    let config = LoaderConfig {
        cache: Arc::new(Cache::open(dir.path(), &INPUT, Policy::Vindr).expect("prepared above")),
        sampler: Sampler::new(&SamplerConfig::shuffled(), &films).expect("there are films"),
        films,
        classes: data.classes,
        augment: Some(AugmentConfig::mild()),
        batch_size: 16,
        seed: 1,
        first_step: 0,
        share: Share::ALL,
        threads,
        prefetch: 4,
    };
    let mut loader = Loader::new(config).expect("all films are prepared");
    bencher.counter(ItemsCount::new(16usize)).bench_local(|| loader.next().expect("sound films"));
}
