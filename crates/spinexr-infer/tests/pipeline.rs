//! Films to predictions.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use spinexr_core::progress::silent;
use spinexr_core::{BoxFusion, FilmAnnotation, FilmPrediction, Method, Split, fusion};
use spinexr_data::{Dataset, Film, cache};
use spinexr_dicom::{Policy, ReadOptions, find_films};
use spinexr_infer::{Bundle, FilmResult, InferError, Pipeline, PipelineOptions};
use spinexr_models::Architecture;
use std::fs;
use std::ops::ControlFlow;
use std::sync::Mutex;
use support::{
    FLOOR, bundle, classifier, decision, detector, detector_of, films, framework, options, pipeline, predict,
    predictions, write_dicom, write_png,
};

#[test]
fn a_film_in_a_batch_is_the_film_alone() {
    let dir = tempfile::tempdir().unwrap();
    let paths = films(dir.path());
    let bundle = framework(Some(decision(0.5, 0.5)));
    let alone = predictions(&pipeline(std::slice::from_ref(&bundle), 1, 1), &paths);
    assert!(alone.iter().all(|film| !film.boxes_before_gate.is_empty()), "the test wants boxes");
    let first = &alone[0].logits["a"];
    assert!(alone[1..].iter().any(|film| film.logits["a"] != *first), "the test wants films that differ");
    for (batch, threads) in [(5, 1), (3, 2), (4, 4)] {
        let together = predictions(&pipeline(std::slice::from_ref(&bundle), batch, threads), &paths);
        assert_eq!(together, alone, "batches of {batch}, {threads} threads");
    }
    let reversed: Vec<_> = paths.iter().rev().cloned().collect();
    let mut together = predictions(&pipeline(&[bundle], 5, 2), &reversed);
    together.reverse();
    assert_eq!(together, alone);
}

#[test]
fn the_record_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0a1b.dcm");
    write_dicom(&path, 300, 200, 1);
    let bundle = framework(None);
    let result = predict(&pipeline(std::slice::from_ref(&bundle), 4, 2), &[path]).remove(0);
    let film = result.1.unwrap();
    assert_eq!((film.image.as_str(), film.height_px, film.width_px), ("0a1b", 300, 200));
    assert!(film.study.starts_with("2.25."), "the study of the header: {}", film.study);
    assert_eq!(film.logits.keys().collect::<Vec<_>>(), ["a", "b"]);
    let logit = |model: &str| film.logits[model].abnormal().unwrap();
    let mean = (logit("a") + logit("b")) / 2.0;
    assert_eq!(film.p_abnormal, Some(fusion::sigmoid(mean)));
    assert_eq!((film.threshold, film.split), (None, None));
    assert_eq!(film.boxes, film.boxes_before_gate, "no threshold, no gate");
    assert_eq!(film.pixels["policy"], "standard");
    assert_eq!(film.pixels["polarity"], "inverted", "seed 1 writes MONOCHROME1");
    assert_eq!(film.model, bundle.hash());
    assert!(film.timings.read_ms > 0.0 && film.timings.classify_ms > 0.0 && film.timings.detect_ms > 0.0);
    for b in &film.boxes {
        assert!(b.score > FLOOR && b.xyxy.is_proper());
        assert_eq!(b.xyxy.clip(200.0, 300.0), b.xyxy, "inside the film");
    }
    // Boxes of the whole film, not only of a corner in input px (64 × 96).
    assert!(film.boxes.iter().any(|b| b.xyxy.y2 > 200.0));
}

#[test]
fn the_gate_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let paths = films(dir.path());
    let with =
        |c_star, keep| predictions(&pipeline(&[framework(Some(decision(c_star, keep)))], 4, 2), &paths);
    for film in with(0.0, 1.0) {
        assert_eq!(film.boxes, film.boxes_before_gate);
        assert_eq!(film.threshold, Some(0.0));
    }
    for film in with(1.0, 1.0) {
        assert!(film.boxes.is_empty() && !film.boxes_before_gate.is_empty());
    }
    for film in with(1.0, 0.01) {
        let best: Vec<_> =
            film.boxes_before_gate.iter().filter(|b| f64::from(b.score) >= 0.01).cloned().collect();
        assert_eq!(film.boxes, best);
    }
}

#[test]
fn broken_films_are_listed_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_png(&at("b.png"), 120, 100, 1);
    write_dicom(&at("d.dcm"), 140, 90, 2);
    write_png(&at("f.png"), 100, 100, 3);
    let whole = fs::read(at("b.png")).unwrap();
    fs::write(at("a.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(at("c.dcm"), "not a film").unwrap();
    let whole = fs::read(at("d.dcm")).unwrap();
    fs::write(at("e.dcm"), &whole[..whole.len() / 2]).unwrap();
    fs::write(at("notes.txt"), "no film at all").unwrap();

    let paths = find_films(dir.path()).unwrap();
    assert_eq!(paths.len(), 6, "notes.txt is passed over: {paths:?}");
    for batch in [1, 2, 8] {
        let pipeline = pipeline(&[framework(None)], batch, 2);
        let results = predict(&pipeline, &paths);
        let order: Vec<_> = results.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(order, paths, "the order of the paths");
        for (path, outcome) in &results {
            let name = path.file_name().unwrap().to_str().unwrap();
            match outcome {
                Ok(film) => assert!(name.starts_with(&film.image) && "bdf".contains(&film.image), "{name}"),
                Err(error) => {
                    assert!(matches!(error, InferError::Read(_)), "{error}");
                    assert!("a.png c.dcm e.dcm".contains(name), "{name}");
                    assert!(error.to_string().contains(name), "{error}");
                }
            }
        }
    }
}

#[test]
fn progress_counts_every_film_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = films(dir.path());
    paths.insert(2, dir.path().join("absent.png"));
    let seen = Mutex::new(vec![]);
    let mut radiographs = 0;
    let mut on_film = |film: FilmResult| {
        radiographs += usize::from(film.radiograph.is_some());
        ControlFlow::Continue(())
    };
    let summary = pipeline(&[framework(None)], 2, 2)
        .predict(&paths, &mut on_film, &|p| seen.lock().unwrap().push((p.done, p.total)));
    assert_eq!((summary.predicted, summary.failed), (5, 1));
    assert_eq!(radiographs, 5);
    assert_eq!(*seen.lock().unwrap(), (1..=6).map(|done| (done, 6)).collect::<Vec<_>>());
}

#[test]
fn breaking_off_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let paths = films(dir.path());
    let mut taken = 0;
    let mut on_film = |_: FilmResult| {
        taken += 1;
        if taken == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    pipeline(&[framework(None)], 1, 2).predict(&paths, &mut on_film, &silent);
    assert_eq!(taken, 2);
}

#[test]
fn no_film_is_no_work() {
    let summary = pipeline(&[framework(None)], 4, 2).predict(&[], &mut |_| panic!("no film"), &silent);
    assert_eq!((summary.predicted, summary.failed), (0, 0));
}

#[test]
fn a_model_that_gives_nan_fails_the_film_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let paths = films(dir.path());
    let (spec, mut state) = classifier("wild", Architecture::DensenetMiniA, 1);
    for (name, entry) in &mut state {
        if name.ends_with("classifier.weight") {
            entry.values.iter_mut().enumerate().for_each(|(i, v)| *v = if i % 2 == 0 { 3e38 } else { -3e38 });
        }
        if name.ends_with("norm5.bias") || name.ends_with("norm5.weight") {
            entry.values.iter_mut().for_each(|v| *v = 1e30);
        }
    }
    let mixed = bundle(vec![(spec, state), detector("boxes", 3)], None);
    let results = predict(&pipeline(&[mixed], 3, 1), &paths);
    assert_eq!(results.len(), 5);
    for (_, outcome) in results {
        match outcome.unwrap_err() {
            InferError::NotFinite { model, image, .. } => {
                assert_eq!(model, "wild");
                assert!(image.starts_with("film"));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn prepared_films_give_what_files_give() {
    let dir = tempfile::tempdir().unwrap();
    let paths = films(dir.path());
    let pipeline = pipeline(&[framework(Some(decision(0.5, 0.5)))], 3, 2);
    let dataset = Dataset {
        films: paths
            .iter()
            .enumerate()
            .map(|(i, path)| Film {
                path: path.clone(),
                annotation: FilmAnnotation {
                    image_id: path.file_stem().unwrap().to_str().unwrap().to_owned(),
                    study_id: format!("study{i}"),
                    series_id: String::new(),
                    abnormal: false,
                    boxes: vec![],
                },
                split: if i < 2 { Split::Validation } else { Split::Test },
            })
            .collect(),
        ..Dataset::default()
    };
    let cache_dir = dir.path().join("cache");
    let inputs: Vec<_> = pipeline.inputs().iter().map(|(_, input)| *input).collect();
    cache::prepare(&dataset, &cache_dir, &inputs, &ReadOptions::default(), 2, &silent).unwrap();

    let mut prepared: Vec<FilmPrediction> = vec![];
    let mut on_film = |film: FilmResult| {
        assert!(film.radiograph.is_none());
        prepared.push(film.outcome.unwrap());
        ControlFlow::Continue(())
    };
    let summary = pipeline.predict_prepared(&cache_dir, &dataset.films, &mut on_film, &silent).unwrap();
    assert_eq!(summary.predicted, 5);
    let from_files = predictions(&pipeline, &paths);
    for (i, (cached, read)) in prepared.iter().zip(&from_files).enumerate() {
        assert_eq!(cached.study, format!("study{i}"));
        assert_eq!(cached.split, Some(if i < 2 { Split::Validation } else { Split::Test }));
        assert_eq!(cached.image, read.image);
        assert_eq!(cached.logits, read.logits, "the same pixels, the same code, the same bits");
        assert_eq!(cached.boxes_before_gate, read.boxes_before_gate);
        assert_eq!(cached.boxes, read.boxes);
        assert_eq!(cached.pixels, read.pixels);
    }

    let elsewhere = dir.path().join("no_cache");
    let error =
        pipeline.predict_prepared(&elsewhere, &dataset.films, &mut |_| ControlFlow::Continue(()), &silent);
    assert!(matches!(error.unwrap_err(), InferError::Data(_)));
}

#[test]
fn two_detectors_can_be_joined_by_suppression() {
    let dir = tempfile::tempdir().unwrap();
    let paths = films(dir.path());
    let one = |name: &str, seed| bundle(vec![detector(name, seed)], None);
    let first = predictions(&pipeline(&[one("x", 3)], 4, 2), &paths);
    let method = Method { box_fusion: BoxFusion::Nms, ..Method::plain() };
    let options = PipelineOptions { method: Some(method.clone()), ..options(4, 2) };
    let both = predictions(&Pipeline::load(&[one("x", 3), one("y", 4)], options).unwrap(), &paths);
    assert!(first.iter().all(|film| film.method.is_none()) && both[0].method == Some(method));
    let mut from_second = 0;
    for (alone, joined) in first.iter().zip(&both) {
        assert!(joined.logits.is_empty() && joined.p_abnormal.is_none());
        let boxes = &joined.boxes_before_gate;
        assert!(!boxes.is_empty() && boxes.len() <= 30);
        assert!(boxes.is_sorted_by(|a, b| a.score >= b.score));
        for (i, a) in boxes.iter().enumerate() {
            assert!(boxes[i + 1..].iter().all(|b| b.label != a.label || a.xyxy.iou(&b.xyxy) <= 0.5));
        }
        from_second += boxes.iter().filter(|b| !alone.boxes_before_gate.contains(b)).count();
    }
    assert!(from_second > 0, "the second detector has a say");
}

#[test]
fn a_sparse_rcnn_predicts_from_a_saved_bundle() {
    predicts_from_a_saved_bundle(Architecture::SparseRcnnMini);
}

#[test]
fn a_faster_rcnn_predicts_from_a_saved_bundle() {
    predicts_from_a_saved_bundle(Architecture::FasterRcnnMini);
}

#[test]
fn an_efficientdet_predicts_from_a_saved_bundle() {
    predicts_from_a_saved_bundle(Architecture::EfficientdetMini);
}

fn predicts_from_a_saved_bundle(architecture: Architecture) {
    let dir = tempfile::tempdir().unwrap();
    let paths = films(dir.path());
    let path = dir.path().join("boxes.spinexr");
    let made = bundle(vec![detector_of(architecture, "boxes", 3)], None);
    made.save(&path).unwrap();
    let loaded = Bundle::load(&path).unwrap();
    let found = predictions(&pipeline(&[loaded], 2, 2), &paths);
    assert_eq!(found, predictions(&pipeline(&[made], 2, 2), &paths));
    for film in &found {
        let boxes = &film.boxes_before_gate;
        assert!(!boxes.is_empty() && boxes.len() <= 30);
        assert!(boxes.iter().all(|b| b.score > FLOOR && b.xyxy.is_proper()), "{boxes:?}");
    }
}

#[test]
fn models_of_two_policies_read_a_film_twice_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.dcm");
    write_dicom(&path, 200, 150, 2);
    let (mut spec, state) = classifier("v", Architecture::DensenetMiniA, 1);
    spec.policy = Policy::Vindr;
    let both = bundle(vec![(spec, state), classifier("s", Architecture::DensenetMiniA, 1)], None);
    let film = predictions(&pipeline(&[both], 4, 1), &[path]).remove(0);
    assert_eq!(film.pixels["vindr"]["policy"], "vindr");
    assert_eq!(film.pixels["standard"]["policy"], "standard");
    assert_ne!(film.logits["v"], film.logits["s"], "the pixels differ");
}

#[test]
fn thresholds_of_several_bundles_must_be_clear() {
    let a = bundle(vec![classifier("a", Architecture::DensenetMiniA, 1)], Some(decision(0.4, 0.5)));
    let b = bundle(vec![classifier("b", Architecture::DensenetMiniB, 2)], None);
    let boxes = bundle(vec![detector("boxes", 3)], None);
    let load = |bundles: &[_]| Pipeline::load(bundles, options(4, 1));
    assert_eq!(load(&[boxes.clone(), a.clone()]).unwrap().decision().unwrap().c_star, 0.4);
    let error = load(&[a.clone(), b.clone()]).unwrap_err();
    assert!(matches!(error, InferError::AmbiguousDecision { bundles: 2, .. }), "{error}");
    let mut given = options(4, 1);
    given.decision = Some(decision(0.6, 0.5));
    assert_eq!(Pipeline::load(&[a.clone(), b], given).unwrap().decision().unwrap().c_star, 0.6);
    assert!(matches!(load(&[a.clone(), a]).unwrap_err(), InferError::NameClash { .. }));
    assert!(matches!(load(&[]).unwrap_err(), InferError::NoModel));
}
