//! Every case runs at a tiny size and prints its line.

#![allow(clippy::unwrap_used, reason = "a program that cannot be started has failed")]

use serde_json::Value;
use std::process::Command;

const CASES: [&str; 10] = [
    "densenet121-infer-b1",
    "densenet121-infer-b8",
    "densenet121-step-b8",
    "retinanet-r50-infer",
    "retinanet-r50-step",
    "sparse-rcnn-r50-infer",
    "sparse-rcnn-r50-step",
    "prepare",
    "coco-eval",
    "bootstrap",
];

/// What the program prints.
fn bench(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_spinexr-bench")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_case_prints_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = dir.path().to_str().unwrap();
    bench(&["inputs", inputs, "--tiny"]);
    for case in CASES {
        let text = bench(&["run", case, "--inputs", inputs, "--iterations", "2"]);
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["case"], case);
        let seconds = line["seconds"].as_array().unwrap();
        assert!(seconds.len() == 2 && seconds.iter().all(|s| s.as_f64().unwrap() > 0.0), "{line}");
        assert!(line["check"].as_f64().unwrap().is_finite(), "{line}");
        assert!(!cfg!(target_os = "linux") || line["max_rss_kb"].as_u64().unwrap() > 1000, "{line}");
    }
}

#[test]
fn a_folder_with_something_in_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mine.txt"), "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_spinexr-bench"))
        .args(["inputs", dir.path().to_str().unwrap(), "--tiny"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("expected a new or an empty folder"), "{error}");
}
