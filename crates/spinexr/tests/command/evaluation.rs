//! Tables from files alone, and the way from training to a frozen bundle.

use crate::{json, spinexr};
use std::fs;
use std::path::Path;

#[test]
fn scores_give_the_known_figures() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.csv"), "id,label,score\na,0,0.1\nb,0,0.4\nc,1,0.35\nd,1,0.8\n").unwrap();
    let output = spinexr(dir.path())
        .args(["evaluate", "scores", "s.csv", "--json", "--resamples", "200"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(json(&output)["auroc"], 0.75);

    fs::write(dir.path().join("one.csv"), "id,label,score\na,0,0.1\nb,0,0.4\n").unwrap();
    let output = spinexr(dir.path())
        .args(["evaluate", "scores", "one.csv", "--json", "--resamples", "200"])
        .output()
        .unwrap();
    assert!(json(&output)["auroc"].is_null());
    assert!(String::from_utf8_lossy(&output.stderr).contains("n/a"));
}

#[test]
fn a_score_that_is_no_number_is_named_by_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.csv"), "id,label,score\na,0,0.1\nb,1,NaN\n").unwrap();
    let output = spinexr(dir.path()).args(["evaluate", "scores", "s.csv"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("s.csv") && text.contains('3'), "{text}");
}

#[test]
fn detections_give_the_known_figures() {
    let dir = tempfile::tempdir().unwrap();
    let gt = r#"{"images":[{"id":1,"width":100,"height":100}],"categories":[{"id":1,"name":"a"}],
        "annotations":[{"id":1,"image_id":1,"category_id":1,"bbox":[10,10,20,20],"area":400,"iscrowd":0}]}"#;
    fs::write(dir.path().join("gt.json"), gt).unwrap();
    fs::write(
        dir.path().join("dt.json"),
        r#"[{"image_id":1,"category_id":1,"bbox":[10,10,20,20],"score":0.4},{"image_id":1,"category_id":1,"bbox":[60,60,20,20],"score":0.9}]"#,
    )
    .unwrap();
    let output = spinexr(dir.path())
        .args(["evaluate", "detections", "--gt", "gt.json", "--dt", "dt.json", "--iou", "0.5", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The better-scored box is wrong: precision 1/2 at every recall.
    assert!((json(&output)["map50"].as_f64().unwrap() - 0.5).abs() < 1e-12);
    spinexr(dir.path())
        .args(["evaluate", "detections", "--gt", "gt.json", "--dt", "dt.json", "--iou", "half"])
        .assert()
        .code(2);
}

/// The whole demo, small: every part works with the next, and the report holds both tables. The films are
/// too few and the steps too short for the figures to mean anything.
#[test]
fn a_small_demo_runs_from_films_to_report() {
    let dir = tempfile::tempdir().unwrap();
    let output = spinexr(dir.path())
        .args([
            "demo",
            "--out",
            "d",
            "--studies",
            "24",
            "--test-studies",
            "10",
            "--size",
            "256",
            "--steps",
            "4",
            "--json",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let demo = dir.path().join("d");
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(demo.join("report.json")).unwrap()).unwrap();
    assert_eq!(json(&output), report);
    for row in ["densenet_mini_a", "densenet_mini_b", "ensemble"] {
        for key in ["auroc", "auroc_ci", "f1", "sensitivity", "specificity", "threshold"] {
            assert!(!report["classification"][row][key].is_null(), "{row}.{key}");
        }
    }
    for row in ["retinanet_mini", "framework"] {
        assert!(report["detection"][row]["map50"].is_number(), "{row}");
        assert_eq!(report["detection"][row]["ap50"].as_object().unwrap().len(), 7, "{row}");
    }
    let html = fs::read_to_string(demo.join("report.html")).unwrap();
    assert!(
        html.contains("<svg")
            && html.contains("data:image/jpeg;base64,")
            && html.contains("<img class=\"evidence\"")
            && html.contains("not a medical device")
    );
    assert!(
        !html.contains("src=\"http") && !html.contains("href=\"http"),
        "the report reaches for the network"
    );

    frozen_bundle_predicts(&demo, dir.path());
    evaluation_repeats(&demo, dir.path(), &report);
}

/// The bundle carries c* and reads films by itself.
fn frozen_bundle_predicts(demo: &Path, dir: &Path) {
    let bundle = demo.join("framework.spinexr");
    let manifest = spinexr(dir).args(["model", "inspect", "--json"]).arg(&bundle).output().unwrap();
    let c_star = json(&manifest)["decision"]["c_star"].as_f64().unwrap();
    let films = demo.join("films/test_images");
    spinexr(dir).args(["predict", "-o", "p", "--model"]).arg(&bundle).arg(films).assert().success();
    let text = fs::read_to_string(dir.join("p/predictions.jsonl")).unwrap();
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["threshold"].as_f64(), Some(c_star));
    }
}

/// The tables come out of the prediction file alone.
fn evaluation_repeats(demo: &Path, dir: &Path, report: &serde_json::Value) {
    let again = spinexr(dir)
        .args([
            "evaluate",
            "run",
            "--json",
            "--seed",
            "2021",
            "--detector",
            "retinanet_mini",
            "--predictions",
        ])
        .arg(demo.join("predictions.jsonl"))
        .arg("--annotations")
        .arg(demo.join("films"))
        .output()
        .unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(json(&again)["classification"], report["classification"]);
    assert_eq!(json(&again)["detection"]["framework"], report["detection"]["framework"]);
}
