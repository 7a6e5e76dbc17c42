//! Small models with drawn weights, and films, for the tests of this crate.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use burn::tensor::Device;
use spinexr_core::prediction::Timings;
use spinexr_core::progress::silent;
use spinexr_core::{FilmPrediction, Finding};
use spinexr_data::{Fit, InputSize};
use spinexr_dicom::{DxFilm, DxSyntax, Policy, write_dx};
use spinexr_infer::{
    Bundle, BundleInfo, ChosenOn, Decision, FilmResult, InferError, ModelSpec, Pipeline, PipelineOptions,
    Storage,
};
use spinexr_models::weights::{StateDict, state_dict};
use spinexr_models::{Architecture, DetectConfig, Task};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub const FLOOR: f32 = 0.002;

pub fn info(name: &str) -> BundleInfo {
    BundleInfo {
        name: name.to_owned(),
        licence: "Apache-2.0".to_owned(),
        intended_use: "Tests.".to_owned(),
        demonstration: false,
    }
}

pub fn decision(c_star: f64, keep_score: f64) -> Decision {
    let chosen_on = ChosenOn::Validation;
    Decision { c_star, keep_score, display_score: 0.3, chosen_on, films: 12, method: None }
}

/// A small classifier of 64 × 48 px.
pub fn classifier(name: &str, architecture: Architecture, seed: u64) -> (ModelSpec, StateDict) {
    let network = architecture.build_classifier(1, seed, &Device::flex()).unwrap();
    let spec = ModelSpec {
        name: name.to_owned(),
        architecture,
        task: Task::Classification,
        classes: vec!["abnormal".to_owned()],
        in_channels: architecture.in_channels(),
        final_relu: None,
        training_manifest_sha256: None,
        policy: Policy::Standard,
        hold_out: None,
        input: InputSize { height_px: 64, width_px: 48, fit: Fit::Stretch },
        normalisation: architecture.default_normalisation(),
        detect: None,
    };
    (spec, state_dict(&network))
}

/// A small detector of 96 × 64 px. Its drawn weights give scores near their prior of 0.01, hence the low
/// threshold.
pub fn detector(name: &str, seed: u64) -> (ModelSpec, StateDict) {
    detector_of(Architecture::RetinanetMini, name, seed)
}

/// As [`detector`], of any family.
pub fn detector_of(architecture: Architecture, name: &str, seed: u64) -> (ModelSpec, StateDict) {
    let weights = architecture.detector_config().unwrap().state_dict_seeded(seed);
    let spec = ModelSpec {
        name: name.to_owned(),
        architecture,
        task: Task::Detection,
        classes: Finding::ALL.iter().map(|f| f.name().to_owned()).collect(),
        in_channels: architecture.in_channels(),
        final_relu: None,
        training_manifest_sha256: None,
        policy: Policy::Standard,
        hold_out: None,
        input: InputSize { height_px: 96, width_px: 64, fit: Fit::Letterbox },
        normalisation: architecture.default_normalisation(),
        detect: Some(DetectConfig {
            score_threshold: FLOOR,
            top_k_per_level: 40,
            nms_iou: 0.5,
            max_detections: 30,
        }),
    };
    (spec, weights)
}

pub fn bundle(models: Vec<(ModelSpec, StateDict)>, decision: Option<Decision>) -> Bundle {
    Bundle::new(info("test"), models, decision, Storage::F32, |_| "card".to_owned()).unwrap()
}

/// Two classifiers and a detector.
pub fn framework(decision: Option<Decision>) -> Bundle {
    let models = vec![
        classifier("a", Architecture::DensenetMiniA, 1),
        classifier("b", Architecture::DensenetMiniB, 2),
        detector("boxes", 3),
    ];
    bundle(models, decision)
}

/// A smooth film with something in it, 0 to 4095, other for every seed.
pub fn pixels(height: u32, width: u32, seed: u32) -> Vec<u16> {
    let mut values = Vec::with_capacity((height * width) as usize);
    for y in 0..height {
        for x in 0..width {
            let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
            let wave = ((7.0 + seed as f32) * v * 3.0).sin() * (5.0 * u + seed as f32).cos();
            let body = (-(u - 0.5).powi(2) / 0.05).exp();
            values.push((2047.0 * (0.7 * body + 0.3 * wave + 0.6)).clamp(0.0, 4095.0) as u16);
        }
    }
    values
}

pub fn write_png(path: &Path, height: u32, width: u32, seed: u32) {
    let bytes = pixels(height, width, seed).into_iter().map(|v| (v >> 4) as u8).collect();
    image::GrayImage::from_raw(width, height, bytes).unwrap().save(path).unwrap();
}

pub fn write_dicom(path: &Path, height: u32, width: u32, seed: u32) {
    let mut film = DxFilm::new(height, width, pixels(height, width, seed));
    film.transfer_syntax = DxSyntax::RleLossless;
    film.monochrome1 = seed % 2 == 1;
    write_dx(path, &film).unwrap();
}

/// Five films of several sizes and formats.
pub fn films(dir: &Path) -> Vec<PathBuf> {
    let sizes = [(300, 200), (240, 260), (411, 173), (128, 128), (500, 320)];
    sizes
        .iter()
        .enumerate()
        .map(|(i, &(height, width))| {
            let seed = i as u32;
            let extension = if i % 2 == 0 { "dcm" } else { "png" };
            let path = dir.join(format!("film{i}.{extension}"));
            if i % 2 == 0 {
                write_dicom(&path, height, width, seed)
            } else {
                write_png(&path, height, width, seed)
            }
            path
        })
        .collect()
}

pub fn options(batch: usize, threads: usize) -> PipelineOptions {
    PipelineOptions { batch, threads, ..PipelineOptions::default() }
}

pub fn pipeline(bundles: &[Bundle], batch: usize, threads: usize) -> Pipeline {
    Pipeline::load(bundles, options(batch, threads)).unwrap()
}

/// Every film's result, in order.
pub fn predict(pipeline: &Pipeline, paths: &[PathBuf]) -> Vec<(PathBuf, Result<FilmPrediction, InferError>)> {
    let mut results = vec![];
    let mut on_film = |film: FilmResult| {
        results.push((film.path, film.outcome));
        ControlFlow::Continue(())
    };
    pipeline.predict(paths, &mut on_film, &silent);
    results
}

/// As [`predict`] when all films are good; without the timings, which differ from run to run.
pub fn predictions(pipeline: &Pipeline, paths: &[PathBuf]) -> Vec<FilmPrediction> {
    let results = predict(pipeline, paths);
    results
        .into_iter()
        .map(|(_, outcome)| FilmPrediction { timings: Timings::default(), ..outcome.unwrap() })
        .collect()
}
