//! Films in, pictures, arrays and findings out.

use crate::{a_film, films, json, spinexr};
use spinexr_core::Finding;
use spinexr_data::{Fit, InputSize};
use spinexr_dicom::Policy;
use spinexr_infer::{Bundle, BundleInfo, ModelSpec, Storage};
use spinexr_models::{Architecture, DetectConfig, Task};
use std::fs;
use std::path::Path;

#[test]
fn the_same_seed_gives_the_same_data_set() {
    let dir = tempfile::tempdir().unwrap();
    for (out, threads) in [("a", "1"), ("b", "3")] {
        spinexr(dir.path())
            .args([
                "synth",
                out,
                "--studies",
                "3",
                "--test-studies",
                "2",
                "--size",
                "200",
                "--seed",
                "9",
                "--threads",
                threads,
            ])
            .assert()
            .success();
    }
    let sums = |name: &str| fs::read_to_string(dir.path().join(name).join("SHA256SUMS.txt")).unwrap();
    assert_eq!(sums("a"), sums("b"));
    assert!(sums("a").lines().count() >= 7);
}

#[test]
fn a_data_set_is_checked_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let output = spinexr(dir.path()).args(["data", "check", "--json"]).arg(films()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(json(&output)["films"].as_u64().unwrap() >= 18);
    assert!(json(&output)["leak"].is_null());

    let stats = spinexr(dir.path())
        .args(["data", "stats", "--json", "--validation-fraction", "0.3"])
        .arg(films())
        .output()
        .unwrap();
    assert!(json(&stats)["validation"]["films"].as_u64().unwrap() > 0);
    assert_eq!(json(&stats)["test"]["studies"], 6);
}

#[test]
fn a_stage_keeps_its_own_type() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (vec!["--stage", "stored"], "'<i4'"),
        (vec!["--stage", "modality"], "'<f8'"),
        (vec!["--stage", "voi"], "'<f8'"),
        (vec!["--policy", "vindr"], "'|u1'"),
        (vec!["--policy", "standard"], "'<f4'"),
    ];
    for (arguments, kind) in cases {
        spinexr(dir.path())
            .arg("image")
            .arg(a_film())
            .args(["-o", "a.npy"])
            .args(&arguments)
            .assert()
            .success();
        let bytes = fs::read(dir.path().join("a.npy")).unwrap();
        assert_eq!(&bytes[..6], b"\x93NUMPY");
        let header = String::from_utf8_lossy(&bytes[..128]).into_owned();
        assert!(
            header.contains(kind) && header.contains("'fortran_order': False"),
            "{arguments:?}: {header}"
        );
    }
    spinexr(dir.path()).arg("image").arg(a_film()).args(["-o", "a.png"]).assert().success();
    assert_eq!(&fs::read(dir.path().join("a.png")).unwrap()[..4], b"\x89PNG");
    spinexr(dir.path()).arg("image").arg(a_film()).args(["-o", "new/folder/a.png"]).assert().success();
    assert!(dir.path().join("new/folder/a.png").is_file());
    spinexr(dir.path()).arg("image").arg(a_film()).args(["-o", "a.bmp"]).assert().code(2);
}

#[test]
fn a_folder_is_predicted_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let output = spinexr(dir.path())
        .args(["predict", "-o", "out", "--format", "jsonl,csv,coco,png", "--json"])
        .arg(films().join("test_images"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("DEMONSTRATION") && text.contains("not a medical device"), "{text}");
    let count = json(&output)["predicted"].as_u64().unwrap() as usize;

    let lines = fs::read_to_string(dir.path().join("out/predictions.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), count);
    for line in lines.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in [
            "image",
            "study",
            "logits",
            "p_abnormal",
            "threshold",
            "boxes",
            "boxes_before_gate",
            "pixels",
            "model",
        ] {
            assert!(!record[key].is_null(), "{key} is missing: {line}");
        }
        assert_eq!(record["demonstration"], true);
        let image = record["image"].as_str().unwrap();
        assert!(dir.path().join("out").join(format!("{image}.png")).is_file());
    }
    let coco: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join("out/coco_results.json")).unwrap()).unwrap();
    assert!(coco.is_array());
    assert!(
        fs::read_to_string(dir.path().join("out/predictions.csv")).unwrap().starts_with("kind,image,study")
    );
}

#[test]
fn a_film_alone_is_predicted_as_in_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let records = |input: &std::path::Path, out: &str, batch: &str| {
        spinexr(dir.path()).args(["predict", "-o", out, "--batch", batch]).arg(input).assert().success();
        let text = fs::read_to_string(dir.path().join(out).join("predictions.jsonl")).unwrap();
        let parse = |line: &str| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            record.as_object_mut().unwrap().remove("timings");
            record
        };
        text.lines().map(parse).collect::<Vec<_>>()
    };
    let together = records(&films().join("test_images"), "together", "5");
    let alone = records(&a_film(), "alone", "1");
    assert_eq!(alone.len(), 1);
    assert!(together.contains(&alone[0]), "the film's record differs from the one in a batch");
}

#[test]
fn the_doctor_finds_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let output = spinexr(dir.path()).args(["doctor", "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let checks = json(&output)["checks"].as_array().unwrap().clone();
    assert!(checks.len() >= 8 && checks.iter().all(|c| c["ok"] == true), "{text}");
}

#[test]
fn views_are_recorded_and_evidence_is_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let said = spinexr(dir.path())
        .args(["predict", "--explain", "--explain-npy", "--tta", "flip,0.75", "-o", "out"])
        .arg(a_film())
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success(), "{messages}");
    assert!(messages.contains("thresholds were not chosen with 4 views a film"), "{messages}");
    let line = fs::read_to_string(out.join("predictions.jsonl")).unwrap();
    let record: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(record["method"]["tta"], serde_json::json!({"flip": true, "scales": [0.75]}));

    let stem = a_film().file_stem().unwrap().to_string_lossy().into_owned();
    let picture = image::open(out.join(format!("{stem}.explain.png"))).unwrap().to_rgb8();
    let coloured = picture.pixels().filter(|p| p.0[0] > p.0[2].saturating_add(40)).count();
    assert!(coloured > 500, "warm colours lie over the film: {coloured} px");
    let npy = fs::read(out.join(format!("{stem}.explain.npy"))).unwrap();
    let head = String::from_utf8_lossy(&npy[..128]).into_owned();
    assert!(npy.starts_with(b"\x93NUMPY") && head.contains("'<f4'") && head.contains("(256, "), "{head}");

    let refused = spinexr(dir.path()).args(["predict", "--tta", "9"]).arg(a_film()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("0.25 to 4"));
}

/// A bundle of a small detector with drawn weights, for the shape of what comes out.
fn drawn_detector(architecture: Architecture, path: &Path) {
    let spec = ModelSpec {
        name: architecture.to_string(),
        architecture,
        task: Task::Detection,
        classes: Finding::ALL.iter().map(|f| f.name().to_owned()).collect(),
        in_channels: architecture.in_channels(),
        final_relu: None,
        training_manifest_sha256: None,
        policy: Policy::Standard,
        hold_out: None,
        input: InputSize { height_px: 192, width_px: 128, fit: Fit::Letterbox },
        normalisation: architecture.default_normalisation(),
        // Drawn class weights give every class a small share of the score.
        detect: Some(DetectConfig { score_threshold: 0.002, max_detections: 3, ..DetectConfig::FASTER_RCNN }),
    };
    let weights = architecture.detector_config().unwrap().state_dict_seeded(3);
    let info = BundleInfo {
        name: architecture.to_string(),
        licence: "Apache-2.0".to_owned(),
        intended_use: "Tests.".to_owned(),
        demonstration: false,
    };
    let bundle = Bundle::new(info, vec![(spec, weights)], None, Storage::F32, |_| "card".to_owned());
    bundle.unwrap().save(path).unwrap();
}

#[test]
fn boxes_of_every_family_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let stem = a_film().file_stem().unwrap().to_string_lossy().into_owned();
    for architecture in
        [Architecture::FasterRcnnMini, Architecture::SparseRcnnMini, Architecture::EfficientdetMini]
    {
        let name = architecture.to_string();
        drawn_detector(architecture, &dir.path().join(&name));
        let said = spinexr(dir.path())
            .args(["predict", "--explain", "--format", "jsonl,png", "--model", &name, "-o", "out"])
            .arg(a_film())
            .output()
            .unwrap();
        let messages = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success(), "{name}: {messages}");
        let coloured = |kind: &str| {
            let path = dir.path().join(format!("out/{stem}{kind}.png"));
            let picture = image::open(path).unwrap().to_rgb8();
            picture.pixels().filter(|p| p.0[0] != p.0[1] || p.0[1] != p.0[2]).count()
        };
        let (plain, explained) = (coloured(""), coloured(".explain"));
        assert!(explained > plain + 500, "{name}: {explained} px are coloured, {plain} without evidence");
    }
}
