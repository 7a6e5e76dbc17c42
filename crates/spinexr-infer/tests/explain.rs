//! Where the evidence for a film's boxes lies, for a detector of every family.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use burn::tensor::Device;
use image::Rgb;
use spinexr_core::FilmPrediction;
use spinexr_dicom::{Limits, ReadOptions, read_film};
use spinexr_infer::overlay::OverlayOptions;
use spinexr_infer::{Bundle, Explainer, Explanation, evidence_picture};
use spinexr_models::Architecture;
use std::path::Path;
use support::{bundle, classifier, detector_of, pipeline, predictions, write_dicom};

const FAMILIES: [Architecture; 4] = [
    Architecture::RetinanetMini,
    Architecture::EfficientdetMini,
    Architecture::FasterRcnnMini,
    Architecture::SparseRcnnMini,
];

fn explain(bundle: &Bundle, path: &Path) -> (FilmPrediction, Explanation) {
    let film = predictions(&pipeline(std::slice::from_ref(bundle), 1, 1), &[path.to_owned()]).remove(0);
    let bundles = std::slice::from_ref(bundle);
    let explainer = Explainer::load(bundles, &Device::flex(), Limits::default(), 0).unwrap();
    (film, explainer.explain(path).unwrap())
}

/// Pixels of the picture of an explanation that are coloured.
fn coloured(film: &FilmPrediction, explanation: &Explanation, path: &Path) -> usize {
    let radiograph = read_film(path, &ReadOptions::default()).unwrap();
    let options = OverlayOptions { min_score: 0.0, ..OverlayOptions::default() };
    let with = evidence_picture::render(&radiograph, film, explanation, &options);
    let nothing = Explanation { abnormal: None, boxes: vec![] };
    let without = evidence_picture::render(&radiograph, film, &nothing, &options);
    assert_eq!((with.width(), with.height() >= without.height()), (without.width(), true));
    let grey = |Rgb([r, g, b]): &Rgb<u8>| r == g && g == b;
    let count = |picture: &image::RgbImage| picture.pixels().filter(|p| !grey(p)).count();
    count(&with).saturating_sub(count(&without))
}

#[test]
fn the_boxes_of_every_family_have_their_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.dcm");
    write_dicom(&path, 300, 200, 1);
    for architecture in FAMILIES {
        let (film, explanation) = explain(&bundle(vec![detector_of(architecture, "boxes", 3)], None), &path);
        assert!(explanation.abnormal.is_none(), "{architecture}: there is no classifier");
        assert!(explanation.boxes.len() >= 3, "{architecture}: {} boxes", explanation.boxes.len());
        for (explained, predicted) in explanation.boxes.iter().zip(&film.boxes_before_gate) {
            let found = &explained.found;
            // Prediction runs the network's prepared form, which rounds elsewhere.
            let same = found.label == predicted.label
                && found.xyxy.iou(&predicted.xyxy) > 0.999
                && (found.score - predicted.score).abs() < 1e-4;
            assert!(same, "{architecture}: explained {found:?}, predicted {predicted:?}");
            let map = &explained.map;
            assert_eq!((map.height, map.width), (256, 171), "{architecture}");
            assert!(map.values.iter().all(|v| v.is_finite() && *v >= 0.0));
            assert!(map.peak() > 0.0, "{architecture}: nothing speaks for {found:?}");
            assert_eq!(explanation.of_box(predicted), Some(map), "{architecture}");
        }
        let coloured = coloured(&film, &explanation, &path);
        assert!(coloured > 500, "{architecture}: {coloured} px are coloured");
    }
}

#[test]
fn a_film_without_boxes_has_no_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.dcm");
    write_dicom(&path, 300, 200, 2);
    for architecture in FAMILIES {
        let (mut spec, weights) = detector_of(architecture, "boxes", 3);
        spec.detect.as_mut().unwrap().score_threshold = 0.9;
        let (film, explanation) = explain(&bundle(vec![(spec, weights)], None), &path);
        assert_eq!(explanation, Explanation { abnormal: None, boxes: vec![] }, "{architecture}");
        assert_eq!(coloured(&film, &explanation, &path), 0, "{architecture}");
    }
}

#[test]
fn a_classifier_of_other_classes_says_nothing_of_abnormal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.dcm");
    write_dicom(&path, 300, 200, 2);
    let own = classifier("a", Architecture::DensenetMiniA, 1);
    let (mut other, weights) = classifier("b", Architecture::DensenetMiniA, 2);
    other.classes = vec!["cat".to_owned()];
    let (_, alone) = explain(&bundle(vec![own.clone()], None), &path);
    let (_, both) = explain(&bundle(vec![own, (other.clone(), weights.clone())], None), &path);
    assert!(alone.abnormal.is_some() && both == alone);
    assert_eq!(explain(&bundle(vec![(other, weights)], None), &path).1.abnormal, None);
}
