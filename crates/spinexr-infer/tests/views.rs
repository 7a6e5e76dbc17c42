//! Test-time augmentation and box fusion in the pipeline.

#![allow(clippy::unwrap_used, reason = "a test ends where its setting fails")]

mod support;

use image::imageops::flip_horizontal;
use spinexr_core::progress::silent;
use spinexr_core::{BoxFusion, Detection, FilmPrediction, Method, Split, Tta, WeightedBoxFusion};
use spinexr_data::{Dataset, Film, cache};
use spinexr_dicom::ReadOptions;
use spinexr_infer::{Bundle, Decision, FilmResult, InferError, Pipeline, PipelineOptions};
use spinexr_models::Architecture;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use support::{bundle, classifier, decision, detector, films, framework, options, predictions, write_png};

fn with(tta: Tta) -> PipelineOptions {
    PipelineOptions { method: Some(Method { tta, ..Method::plain() }), ..options(3, 2) }
}

fn run(bundles: &[Bundle], options: PipelineOptions, paths: &[PathBuf]) -> Vec<FilmPrediction> {
    predictions(&Pipeline::load(bundles, options).unwrap(), paths)
}

/// The logit of a classifier for "abnormal".
fn abnormal(film: &FilmPrediction, model: &str) -> f64 {
    film.logits[model].abnormal().unwrap()
}

/// A film and its mirror image.
fn mirrored_pair(dir: &Path) -> [PathBuf; 2] {
    let [plain, mirrored] = ["plain.png", "mirrored.png"].map(|name| dir.join(name));
    write_png(&plain, 300, 200, 4);
    flip_horizontal(&image::open(&plain).unwrap().to_luma8()).save(&mirrored).unwrap();
    [plain, mirrored]
}

#[test]
fn with_flips_a_film_and_its_mirror_image_get_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let pair = mirrored_pair(dir.path());
    let bundles = [framework(None)];
    let tta = Tta { flip: true, scales: vec![1.5] };
    let [a, b] = &run(&bundles, with(tta), &pair)[..] else { panic!("two films") };
    for (name, logit) in &a.logits {
        let (one, other) = (logit.abnormal().unwrap(), abnormal(b, name));
        assert!((one - other).abs() < 1e-4, "{name}: {one} and {other}");
    }
    assert!(!a.boxes.is_empty() && a.boxes.len() == b.boxes.len());
    for found in &a.boxes {
        let seen = found.xyxy.flip_horizontal(200.0);
        let same = |d: &&Detection| d.label == found.label && d.xyxy.iou(&seen) > 0.98;
        let twin = b.boxes.iter().find(same).unwrap_or_else(|| panic!("no twin of {found:?}"));
        assert!((twin.score - found.score).abs() < 1e-3);
    }
    // Without flips the two films differ.
    let [a, b] = &run(&bundles, options(3, 2), &pair)[..] else { panic!("two films") };
    assert!((abnormal(a, "a") - abnormal(b, "a")).abs() > 1e-4);
}

#[test]
fn logits_are_averaged_before_the_sigmoid() {
    let dir = tempfile::tempdir().unwrap();
    let pair = mirrored_pair(dir.path());
    let bundles = [bundle(vec![classifier("a", Architecture::DensenetMiniA, 1)], None)];
    let alone = run(&bundles, options(3, 2), &pair);
    let both = &run(&bundles, with(Tta { flip: true, scales: vec![] }), &pair[..1])[0];
    // The net stretches films to its input, so the mirror image of the film is the mirrored view.
    let expected = (abnormal(&alone[0], "a") + abnormal(&alone[1], "a")) / 2.0;
    let found = abnormal(both, "a");
    assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
    assert_eq!(both.p_abnormal.unwrap(), spinexr_core::fusion::sigmoid(found));
    assert!(both.method.as_ref().is_some_and(|m| m.tta.flip), "the record says so");
}

#[test]
fn one_view_of_one_detector_is_as_if_there_were_no_method() {
    let dir = tempfile::tempdir().unwrap();
    let paths = films(dir.path());
    let plain = run(&[framework(None)], options(3, 2), &paths);
    assert_eq!(run(&[framework(None)], with(Tta::none()), &paths), plain);
    assert!(plain.iter().all(|film| film.method.is_none()));
}

#[test]
fn several_detectors_are_joined_by_weighted_box_fusion() {
    let dir = tempfile::tempdir().unwrap();
    let paths = films(dir.path());
    let one = |name: &str, seed| bundle(vec![detector(name, seed)], None);
    let boxes = |bundles: &[Bundle]| {
        run(bundles, options(3, 2), &paths).into_iter().map(|f| f.boxes).collect::<Vec<_>>()
    };
    let (x, y) = (boxes(&[one("x", 3)]), boxes(&[one("y", 4)]));
    let both = boxes(&[one("x", 3), one("y", 4)]);
    for ((x, y), both) in x.into_iter().zip(y).zip(both) {
        let mut expected = WeightedBoxFusion::PUBLISHED.fuse(&[x, y], &[1.0, 1.0]);
        expected.truncate(30);
        assert_eq!(both, expected);
    }
}

#[test]
fn prepared_films_give_what_files_give_at_every_size() {
    let dir = tempfile::tempdir().unwrap();
    let paths = films(dir.path());
    let tta = Tta { flip: true, scales: vec![0.75, 1.25] };
    let pipeline = Pipeline::load(&[framework(None)], with(tta)).unwrap();
    let expected = predictions(&pipeline, &paths);

    let mut dataset = Dataset::default();
    for (path, film) in paths.iter().zip(&expected) {
        let annotation = spinexr_core::FilmAnnotation {
            image_id: film.image.clone(),
            study_id: film.study.clone(),
            series_id: String::new(),
            abnormal: false,
            boxes: vec![],
        };
        dataset.films.push(Film { path: path.clone(), annotation, split: Split::Test });
    }
    let sizes: Vec<_> = pipeline.inputs().iter().map(|(_, input)| *input).collect();
    let prepared = dir.path().join("prepared");
    cache::prepare(&dataset, &prepared, &sizes, &ReadOptions::default(), 2, &silent).unwrap();
    let mut found = vec![];
    let mut on_film = |film: FilmResult| {
        found.push(film.outcome.unwrap());
        ControlFlow::Continue(())
    };
    pipeline.predict_prepared(&prepared, &dataset.films, &mut on_film, &silent).unwrap();
    for (from_cache, from_file) in found.iter().zip(&expected) {
        assert_eq!(from_cache.logits, from_file.logits);
        assert_eq!(from_cache.boxes, from_file.boxes);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn the_method_that_thresholds_were_chosen_with_is_done() {
    let tta = Tta { flip: true, scales: vec![] };
    let method = Method { tta, box_fusion: BoxFusion::Nms };
    let chosen = Decision { method: Some(method.clone()), ..decision(0.4, 0.5) };
    let bundle = framework(Some(chosen));
    let dir = tempfile::tempdir().unwrap();
    bundle.save(&dir.path().join("f.spinexr")).unwrap();
    let bundle = Bundle::load(&dir.path().join("f.spinexr")).unwrap();
    assert!(bundle.manifest().decision.as_ref().unwrap().method.is_some());

    let pipeline = Pipeline::load(std::slice::from_ref(&bundle), options(3, 2)).unwrap();
    assert_eq!((pipeline.method(), pipeline.is_method_foreign()), (&method, false));
    let other = Pipeline::load(&[bundle], with(Tta::none())).unwrap();
    assert!(other.is_method_foreign(), "these thresholds are of other predictions");
    let plain = Pipeline::load(&[framework(Some(decision(0.4, 0.5)))], options(3, 2)).unwrap();
    assert!(!plain.is_method_foreign());
}

#[test]
fn views_that_cannot_be_are_refused_when_models_are_loaded() {
    let refused = |scale: f32| {
        let tta = Tta { flip: false, scales: vec![scale] };
        let error = Pipeline::load(&[framework(None)], with(tta)).unwrap_err();
        assert!(matches!(error, InferError::ManifestValue { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(9.0).contains("from 0.25 to 4"));
    assert!(refused(0.3).contains("29×29"), "a DenseNet needs a pixel in its last map");
}
