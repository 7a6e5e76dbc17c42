//! Equal to scikit-learn, scipy and pycocotools on the reference cases in `tests/golden`, and to
//! pycocotools on the outside COCO data where that is present.

#![allow(clippy::unwrap_used, reason = "a test may panic on a broken fixture")]

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use spinexr_eval::coco::{self, BoxSet, DetectedBox, Protocol, TruthBox};
use spinexr_eval::{LabelledScores, binary, coco_json, intervals, roc};
use std::path::PathBuf;

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

struct Case {
    results: Value,
    tensors: Vec<u8>,
}

impl Case {
    fn open(name: &str) -> Self {
        let dir = workspace().join("tests/golden").join(name);
        let manifest = std::fs::read_to_string(dir.join("manifest.json")).unwrap();
        let mut manifest: Value = serde_json::from_str(&manifest).unwrap();
        Self {
            results: manifest["results"].take(),
            tensors: std::fs::read(dir.join("tensors.safetensors")).unwrap(),
        }
    }

    /// A tensor's values, row-major; f32 and i64 are both exact in f64 here.
    fn values(&self, name: &str) -> Vec<f64> {
        let all = SafeTensors::deserialize(&self.tensors).unwrap();
        let tensor = all.tensor(name).unwrap();
        match tensor.dtype() {
            Dtype::F32 => tensor
                .data()
                .chunks_exact(4)
                .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                .collect(),
            Dtype::I64 => tensor
                .data()
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
                .collect(),
            other => panic!("{name} is {other:?}"),
        }
    }
}

fn assert_near(what: &str, got: Option<f64>, expected: &Value, tolerance: f64) {
    match (got, expected.as_f64()) {
        (Some(got), Some(expected)) => {
            assert!((got - expected).abs() <= tolerance, "{what}: {got}, expected {expected}");
        }
        (None, None) => assert!(expected.is_null(), "{what}: {expected}"),
        _ => panic!("{what}: {got:?}, expected {expected}"),
    }
}

const SETS: [&str; 6] = ["plain", "ties", "rare", "perfect", "chance", "constant"];

#[test]
fn film_metrics_equal_scikit_learn() {
    let case = Case::open("metrics_binary");
    for set in SETS {
        let labels: Vec<bool> = case.values(&format!("{set}/labels")).iter().map(|&l| l == 1.0).collect();
        let data = LabelledScores::new(&labels, &case.values(&format!("{set}/scores"))).unwrap();
        let expected = &case.results[set];
        let near = |what: &str, got, expected: &Value| {
            assert_near(&format!("{set} {what}"), got, expected, 1e-12);
        };
        assert_eq!(data.len() as u64, expected["n"].as_u64().unwrap());
        near("auroc", roc::auroc(&data), &expected["roc_auc"]);
        near("ap", roc::average_precision(&data), &expected["average_precision"]);
        near("log loss", binary::log_loss(&data), &expected["log_loss"]);
        near("brier", binary::brier(&data), &expected["brier"]);

        let point = binary::youden(&data).unwrap();
        let youden = &expected["youden"];
        assert_eq!(point.threshold, youden["threshold"].as_f64().unwrap(), "{set} threshold");
        near("sensitivity", Some(point.sensitivity), &youden["sensitivity"]);
        near("specificity", Some(point.specificity), &youden["specificity"]);
        near("j", Some(point.youden_j), &youden["j"]);

        let c = binary::Confusion::at(&data, point.threshold);
        near("f1", c.f1(), &expected["f1_at_youden"]);
        for (name, k, n) in [
            ("sensitivity_wilson95", c.true_positives, data.positives()),
            ("specificity_wilson95", c.true_negatives, data.negatives()),
        ] {
            assert_eq!(expected[name]["k"], k);
            let [low, high] = intervals::wilson(k, n).unwrap();
            near(name, Some(low), &expected[name]["low"]);
            near(name, Some(high), &expected[name]["high"]);
        }

        let delong = intervals::delong(&data).unwrap();
        let wanted = &expected["delong"];
        near("delong auc", Some(delong.auroc), &wanted["auc"]);
        near("delong variance", Some(delong.variance), &wanted["variance"]);
        near("delong low", Some(delong.interval[0]), &wanted["low"]);
        near("delong high", Some(delong.interval[1]), &wanted["high"]);

        // The reference bootstrap has 2,000 resamples of another generator: near, not equal.
        let options = intervals::BootstrapOptions::paper(7);
        let boot = intervals::bootstrap(&data, None, intervals::Unit::Film, &options).auroc.unwrap();
        for (got, expected) in
            boot.interval.iter().zip(expected["bootstrap95_for_information"].as_array().unwrap())
        {
            assert_near(&format!("{set} bootstrap"), Some(*got), expected, 0.012);
        }
    }
}

#[test]
fn wilson_equals_scipy() {
    let case = Case::open("metrics_binary");
    let all = case.results["wilson95"].as_object().unwrap();
    assert_eq!(all.len(), 8);
    for (name, expected) in all {
        let of = |key: &str| expected[key].as_u64().unwrap() as usize;
        let [low, high] = intervals::wilson(of("k"), of("n")).unwrap();
        assert_near(name, Some(low), &expected["low"], 1e-12);
        assert_near(name, Some(high), &expected["high"], 1e-12);
    }
}

#[test]
fn box_metrics_equal_pycocotools() {
    let case = Case::open("metrics_coco");
    for (set, images) in [("small_ties", 20), ("distinct", 40), ("many_dets", 6)] {
        let expected = &case.results[set];
        let rows = |name: &str| -> Vec<(usize, usize, [f64; 4])> {
            case.values(&format!("{set}/{name}"))
                .chunks_exact(6)
                .map(|r| (r[0] as usize - 1, r[1] as usize - 1, [r[2], r[3], r[4], r[5]]))
                .collect()
        };
        let truth = rows("gt").into_iter().map(|(image, class, xywh)| TruthBox {
            image,
            class,
            xywh,
            area: xywh[2] * xywh[3],
            crowd: false,
        });
        let detections = rows("det")
            .into_iter()
            .zip(case.values(&format!("{set}/det_scores")))
            .map(|((image, class, xywh), score)| DetectedBox { image, class, xywh, score });
        let boxes = BoxSet { images, classes: 4, truth: truth.collect(), detections: detections.collect() };
        let classes = coco::evaluate(&boxes, &Protocol::all_areas(coco::iou_paper()));

        let tolerance = 1e-12;
        assert_near(set, coco::mean_ap(&classes), &expected["map"], tolerance);
        let half = coco::mean(classes.iter().map(|c| c.by_iou[6].ap()));
        assert_near(set, half, &expected["map50"], tolerance);
        let precision = case.values(&format!("{set}/precision")); // [7, 101, 4]
        let recall = case.values(&format!("{set}/recall")); // [7, 4]
        for (k, class) in classes.iter().enumerate() {
            let name = (k + 1).to_string();
            assert_near(set, class.ap(), &expected["ap_per_class"][&name], tolerance);
            assert_near(set, class.by_iou[6].ap(), &expected["ap50_per_class"][&name], tolerance);
            for (t, at) in class.by_iou.iter().enumerate() {
                assert_near(set, at.ap(), &expected["ap_per_class_per_iou"][&name][t], tolerance);
                assert!((at.recall.unwrap_or(-1.0) - recall[t * 4 + k]).abs() < 1e-6);
                for r in 0..coco::RECALL_POINTS {
                    let got = at.precision.as_ref().map_or(-1.0, |p| p[r]);
                    assert!((got - precision[(t * coco::RECALL_POINTS + r) * 4 + k]).abs() < 1e-6);
                }
            }
        }
    }
}

#[test]
fn coco_files_equal_pycocotools() {
    let shared = std::env::var_os("SPINEXR_SHARED").map_or(workspace().join("../shared"), PathBuf::from);
    let dir = shared.join("data/coco");
    if !dir.join("expected.json").exists() {
        println!("skipped: {} is not there", dir.display());
        return;
    }
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
    let truth = coco_json::read_truth(&dir.join("instances_val2014_100.json")).unwrap();
    let boxes =
        coco_json::read_detections(&dir.join("instances_val2014_fakebbox100_results.json"), &truth).unwrap();
    let tolerance = 5.1e-11; // the file gives ten decimals

    let report = coco_json::evaluate_detections(&truth, &boxes, &coco::iou_paper());
    let twelve = serde_json::to_value(report.coco).unwrap();
    let names = expected["coco_12"].as_object().unwrap();
    assert_eq!(names.len(), 12);
    for (name, value) in names {
        assert_near(name, twelve[name].as_f64(), value, tolerance);
    }
    let low = &expected["iou_0.2_to_0.5"];
    assert_near("AP 0.2 to 0.5", report.ap, &low["AP"], tolerance);
    for (got, value) in report.ap_by_iou.iter().zip(low["AP_by_iou"].as_array().unwrap()) {
        assert_near("AP by IoU", *got, value, tolerance);
    }
    for (area, range) in
        [("small", coco::AREA_SMALL), ("medium", coco::AREA_MEDIUM), ("large", coco::AREA_LARGE)]
    {
        let protocol = Protocol { iou_thresholds: coco::iou_paper(), area: range, max_detections: 100 };
        let classes = coco::evaluate(&boxes, &protocol);
        assert_near(area, coco::mean_ap(&classes), &low["AP_by_area"][area], tolerance);
    }
    for (name, max_detections) in [("AR_1", 1), ("AR_10", 10), ("AR_100", 100)] {
        let protocol = Protocol { iou_thresholds: coco::iou_paper(), area: coco::AREA_ALL, max_detections };
        let recalls = coco::evaluate(&boxes, &protocol);
        let got = coco::mean(recalls.iter().map(coco::ClassResult::average_recall));
        assert_near(name, got, &low[name], tolerance);
    }

    let usual = coco_json::evaluate_detections(&truth, &boxes, &coco::iou_coco());
    let categories = expected["per_category"].as_array().unwrap();
    assert_eq!(usual.per_category.len(), categories.len());
    for ((got, paper), wanted) in usual.per_category.iter().zip(&report.per_category).zip(categories) {
        assert_eq!(
            (got.id, got.name.as_str()),
            (wanted["id"].as_i64().unwrap(), wanted["name"].as_str().unwrap())
        );
        assert_eq!(got.detections as u64, wanted["detections"].as_u64().unwrap());
        assert_near(&got.name, got.ap, &wanted["AP"], tolerance);
        assert_near(&got.name, got.ap50, &wanted["AP50"], tolerance);
        assert_near(&got.name, paper.ap, &wanted["AP_iou_0.2_to_0.5"], tolerance);
    }
}
