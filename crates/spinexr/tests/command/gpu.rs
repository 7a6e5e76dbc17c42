//! The command on the GPU of this build against the same command on the CPU.

use crate::{films, json, spinexr};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const DEVICE: &str = if cfg!(feature = "vulkan") { "vulkan" } else { "wgpu" };
/// Set where a missing GPU is a failure and not a reason to skip.
const REQUIRED: &str = "SPINEXR_REQUIRE_GPU";

/// Runs the command on a device; `None`, with a word on stderr, when the machine has no GPU.
fn on(device: &str, dir: &Path, arguments: &[String]) -> Option<Value> {
    let output = spinexr(dir).args(arguments).args(["--device", device, "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if device != "cpu" && text.contains("No adapter available") {
        assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set: {text}");
        eprintln!("skipped: no GPU: {text}");
        return None;
    }
    assert_eq!(output.status.code(), Some(0), "{device}: {text}");
    Some(json(&output))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The numbers of a record, by place; what differs in anything else is an error.
fn numbers(place: &str, found: &Value, expected: &Value, pairs: &mut Vec<(String, f64, f64)>) {
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) => {
            pairs.push((place.to_owned(), a.as_f64().unwrap(), b.as_f64().unwrap()));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}: {found} and {expected}");
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                numbers(&format!("{place}/{index}"), a, b, pairs);
            }
        }
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{place}: {found} and {expected}");
            for (key, value) in a {
                numbers(&format!("{place}/{key}"), value, &b[key], pairs);
            }
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

#[test]
fn predictions_are_those_of_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let mut paths: Vec<PathBuf> =
        fs::read_dir(films().join("test_images")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let records = |device: &str| -> Option<Vec<Value>> {
        let mut arguments = strings(&["predict", "-o", device]);
        arguments.extend(paths[..2].iter().map(|path| path.display().to_string()));
        on(device, dir.path(), &arguments)?;
        Some(lines(&dir.path().join(device).join("predictions.jsonl")))
    };
    let Some(found) = records(DEVICE) else { return };
    let expected = records("cpu").expect("a CPU");
    assert_eq!(expected.len(), 2);
    let mut pairs = vec![];
    for (mut found, mut expected) in found.into_iter().zip(expected) {
        for record in [&mut found, &mut expected] {
            record.as_object_mut().unwrap().remove("timings");
        }
        let place = expected["image"].as_str().unwrap().to_owned();
        numbers(&place, &found, &expected, &mut pairs);
    }
    let (mut box_px, mut rest) = (0.0f64, 0.0f64);
    for (place, found, expected) in &pairs {
        let difference = (found - expected).abs();
        let worst = if place.contains("xyxy") { &mut box_px } else { &mut rest };
        *worst = worst.max(difference);
    }
    println!("| predict --device {DEVICE} | boxes, px | {box_px:.1e} | 1e-2 |");
    println!("| predict --device {DEVICE} | logits, probabilities, scores | {rest:.1e} | 1e-4 |");
    assert!(pairs.iter().any(|(place, ..)| place.contains("xyxy")), "no box to compare");
    assert!(box_px <= 1e-2 && rest <= 1e-4, "boxes {box_px:e} px, the rest {rest:e}");
}

/// The losses of three steps on each device.
fn losses_agree(config: &str) {
    let dir = tempfile::tempdir().unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo").join(config);
    let losses = |device: &str| -> Option<Vec<f64>> {
        let mut arguments = strings(&["train", &config.display().to_string(), "--out", device]);
        let sets = [
            &format!("data.dir={}", films().display()),
            "data.cache_dir=prepared",
            "data.validation_fraction=0.3",
            "model.input.height_px=96",
            "model.input.width_px=64",
            "schedule.total_steps=3",
            "schedule.warmup_steps=1",
            "schedule.decay=constant",
            "training.batch_size=4",
            "training.eval_every=3",
        ];
        arguments.extend(sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        on(device, dir.path(), &arguments)?;
        let log = lines(&dir.path().join(device).join("log.jsonl"));
        Some(log.iter().filter_map(|record| record["loss"].as_f64()).collect())
    };
    let Some(found) = losses(DEVICE) else { return };
    let expected = losses("cpu").expect("a CPU");
    assert_eq!((found.len(), expected.len()), (3, 3), "{found:?} and {expected:?}");
    let worst = found.iter().zip(&expected).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max);
    println!("| train --device {DEVICE} {} | losses of three steps | {worst:.1e} | 1e-3 |", config.display());
    assert!(worst <= 1e-3, "{found:?} and {expected:?}");
    assert!(expected[2] != expected[0], "nothing was trained: {expected:?}");
}

#[test]
fn a_classifier_trains_as_on_the_cpu() {
    losses_agree("densenet_mini_a.toml");
}

#[test]
fn a_detector_trains_as_on_the_cpu() {
    losses_agree("retinanet_mini.toml");
}

/// Where the GPU has bf16, training in it begins as on the CPU; where it has not, nothing begins.
#[test]
fn bf16_trains_as_on_the_cpu_or_is_refused_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo/retinanet_mini.toml");
    let run = |device: &str| {
        let mut arguments = strings(&["train", &config.display().to_string(), "--out", device]);
        let sets = [
            &format!("data.dir={}", films().display()),
            "data.cache_dir=prepared",
            "data.validation_fraction=0.3",
            "model.input.height_px=96",
            "model.input.width_px=64",
            "training.batch_size=4",
            "training.precision=bf16",
        ];
        arguments.extend(sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        arguments.extend(strings(&["--stop-after", "1", "--device", device, "--json"]));
        spinexr(dir.path()).args(arguments).output().unwrap()
    };
    let output = run(DEVICE);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.contains("No adapter available") {
        assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set: {text}");
        eprintln!("skipped: no GPU: {text}");
        return;
    }
    if output.status.code() == Some(2) {
        assert!(text.contains("training.precision: expected one that the device computes in"), "{text}");
        assert!(!dir.path().join(DEVICE).exists(), "no run was begun");
        eprintln!("skipped: device has no bf16");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(run("cpu").status.code(), Some(0));
    let loss = |device: &str| lines(&dir.path().join(device).join("log.jsonl"))[0]["loss"].as_f64().unwrap();
    let (found, expected) = (loss(DEVICE), loss("cpu"));
    assert!((found / expected - 1.0).abs() <= 1e-2, "{found} and {expected}");
}
