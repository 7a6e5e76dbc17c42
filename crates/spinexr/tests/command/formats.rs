//! Data sets of other formats and classes: converted, checked, prepared, trained on, predicted and evaluated.

use crate::spinexr;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A YOLO data set of two classes with bright squares and dark bars on grey films of 96 x 64 px: 12 to train on, 4 to
/// validate on, 4 to test on; every fourth film is empty.
fn squares(dir: &Path) -> PathBuf {
    let root = dir.join("squares");
    let names = "train: images/train\nval: images/val\ntest: images/test\nnames: [square, \"bar, dark\"]\n";
    for (i, split) in (0..20u32).map(|i| {
        (
            i,
            if i < 12 {
                "train"
            } else if i < 16 {
                "val"
            } else {
                "test"
            },
        )
    }) {
        let (images, labels) = (root.join("images").join(split), root.join("labels").join(split));
        fs::create_dir_all(&images).unwrap();
        fs::create_dir_all(&labels).unwrap();
        let (x, y) = (6 + 5 * (i % 6), 8 + 9 * (i % 7));
        let (w, h, grey) = if i % 2 == 0 { (18, 18, 230) } else { (26, 9, 10) };
        let film = image::GrayImage::from_fn(64, 96, |px, py| {
            let inside = i % 4 != 3 && (x..x + w).contains(&px) && (y..y + h).contains(&py);
            image::Luma([if inside { grey } else { (100 + (px * 3 + py * 5 + i * 11) % 40) as u8 }])
        });
        film.save(images.join(format!("f{i:02}.png"))).unwrap();
        let middle = |low: u32, side: u32| f64::from(low) + f64::from(side) / 2.0;
        let line = format!(
            "{} {} {} {} {}\n",
            i % 2,
            middle(x, w) / 64.0,
            middle(y, h) / 96.0,
            f64::from(w) / 64.0,
            f64::from(h) / 96.0
        );
        fs::write(labels.join(format!("f{i:02}.txt")), if i % 4 == 3 { "" } else { &line }).unwrap();
    }
    fs::write(root.join("data.yaml"), names).unwrap();
    root
}

fn config(dir: &Path, data: &Path, steps: u32) -> PathBuf {
    let text = format!(
        r#"
name = "tiny"
protocol = "improved"
seed = 3
[data]
dir = {data:?}
cache_dir = {cache:?}
validation_fraction = 0.25
split_seed = 0
policy = "standard"
train_on = "all"
[model]
architecture = "retinanet_mini"
in_channels = 1
input = {{ height_px = 96, width_px = 128, fit = "letterbox" }}
normalisation = {{ mean = [0.5], std = [0.25] }}
[optimiser]
lr = 2e-3
weight_decay = 0.0
weight_decay_norms = 0.0
weight_decay_biases = 0.0
rule = {{ adamw = {{ beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 }} }}
[schedule]
total_steps = {steps}
warmup_steps = 2
warmup_start = 0.1
decay = "constant"
[training]
batch_size = 4
accumulation = 1
clip = {{ global_norm = 5.0 }}
eval_every = {steps}
checkpoint_every = {steps}
"#,
        data = data.display().to_string(),
        cache = dir.join("prepared").display().to_string(),
    );
    let path = dir.join("tiny.toml");
    fs::write(&path, text).unwrap();
    path
}

fn json(dir: &Path, args: &[&str]) -> Value {
    let output = spinexr(dir).arg("--json").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_format_is_checked_counted_and_prepared() {
    let dir = tempfile::tempdir().unwrap();
    squares(dir.path());
    for format in ["coco", "voc", "vindr"] {
        let converted = json(dir.path(), &["data", "convert", "squares", "--to", format, "-o", format]);
        assert_eq!(converted["converted"]["films"], 20, "{format}");
        assert_eq!(converted["converted"]["boxes"], 15, "{format}");
        assert_eq!(converted["classes"], serde_json::json!(["square", "bar, dark"]));
    }
    let mut counts = vec![];
    for format in ["squares", "coco", "voc", "vindr"] {
        let checked = json(dir.path(), &["data", "check", format]);
        assert_eq!(checked["films"], 20, "{format}");
        counts.push(json(dir.path(), &["data", "stats", format]));
        let args = ["data", "prepare", format, "--cache", &format!("{format}-cache"), "--input", "48x32"];
        assert_eq!(json(dir.path(), &args)["prepared"], 20, "{format}");
    }
    assert_eq!(counts[0]["train"]["boxes"], serde_json::json!({"bar, dark": 3, "square": 6}));
    assert!(counts.windows(2).all(|pair| pair[0] == pair[1]), "{counts:?}");
}

#[test]
fn wrong_conversions_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let root = squares(dir.path());
    let args = ["data", "convert", "squares", "--to", "voc", "-o", "out", "--films", "reference"];
    spinexr(dir.path()).args(args).assert().code(2);
    fs::write(root.join("labels/train/f00.txt"), "0 0.5 0.5 0.1\n").unwrap();
    let output = spinexr(dir.path())
        .args(["data", "convert", "squares", "--to", "coco", "-o", "out"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "the other films are written");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("f00.txt:1: expected a class and a box (5 columns)"), "{text}");
    assert_eq!(json(dir.path(), &["data", "stats", "out"])["train"]["films"], 11);
    // The same place a second time.
    spinexr(dir.path()).args(["data", "convert", "squares", "--to", "coco", "-o", "out"]).assert().failure();
}

#[test]
fn a_detector_of_other_classes_is_trained_and_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    squares(dir.path());
    json(dir.path(), &["data", "convert", "squares", "--to", "voc", "-o", "voc", "--films", "link"]);
    let config = config(dir.path(), Path::new("voc"), 6);
    let config = config.to_str().unwrap();
    let trained = json(dir.path(), &["train", config, "--out", "run"]);
    let metrics = trained["best"]["others"].as_object().unwrap();
    assert!(metrics.contains_key("ap50/square") && metrics.contains_key("ap50/bar, dark"), "{metrics:?}");
    let bundle = fs::read_to_string(dir.path().join("run/tiny.spinexr/bundle.toml")).unwrap();
    assert!(bundle.contains(r#"classes = ["square", "bar, dark"]"#), "{bundle}");

    let predict =
        ["predict", "--config", config, "--splits", "validation,test", "--model", "run/tiny.spinexr"];
    json(dir.path(), &[&predict[..], &["-o", "out", "--format", "jsonl,coco,csv"]].concat());
    let report = json(
        dir.path(),
        &[
            "evaluate",
            "run",
            "--predictions",
            "out/predictions.jsonl",
            "--annotations",
            "voc",
            "-o",
            "report",
        ],
    );
    assert_eq!(report["classes"], serde_json::json!(["square", "bar, dark"]));
    assert_eq!(report["counts"]["test"]["boxes"]["square"], 2);
    // The format can be named, and a wrong one is not read as if it were the right one.
    let named = |format: &str| {
        spinexr(dir.path())
            .args(["evaluate", "run", "--predictions", "out/predictions.jsonl", "--annotations", "voc"])
            .args(["--annotations-format", format])
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(named("voc") && !named("coco"));
    let page = fs::read_to_string(dir.path().join("report/report.html")).unwrap();
    assert!(page.contains("bar, dark") && !page.contains("LT10"));

    // Held against annotations of other classes, the first label in the way is named with its line.
    let records = fs::read_to_string(dir.path().join("out/predictions.jsonl")).unwrap();
    let first = records.lines().position(|line| line.contains(r#""label""#));
    let line = first.expect("an untrained detector still proposes boxes") + 1;
    fs::write(dir.path().join("voc/classes.txt"), "circle\n").unwrap();
    for entry in fs::read_dir(dir.path().join("voc/Annotations")).unwrap() {
        let path = entry.unwrap().path();
        let text =
            fs::read_to_string(&path).unwrap().replace("square", "circle").replace("bar, dark", "circle");
        fs::write(&path, text).unwrap();
    }
    let output = spinexr(dir.path())
        .args(["evaluate", "run", "--predictions", "out/predictions.jsonl", "--annotations", "voc"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    let expected = format!("out/predictions.jsonl, line {line}: unknown class");
    assert!(text.contains(&expected) && text.contains("expected one of: circle"), "{text}");
}

#[test]
fn bccd_is_prepared_and_trained_on() {
    let shared = match std::env::var_os("SPINEXR_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    };
    let bccd = shared.join("data/bccd");
    let Ok(bccd) = bccd.canonicalize() else {
        println!("skipped: no BCCD collection (set SPINEXR_SHARED)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let checked = json(dir.path(), &["data", "check", bccd.to_str().unwrap()]);
    assert_eq!((&checked["films"], &checked["read"]["rows"]), (&Value::from(364), &Value::from(4888)));
    let config = config(dir.path(), &bccd, 24);
    let trained = json(dir.path(), &["train", config.to_str().unwrap(), "--out", "run"]);
    assert!(trained["best"]["others"].as_object().unwrap().contains_key("ap50/Platelets"));
    let log = fs::read_to_string(dir.path().join("run/log.jsonl")).unwrap();
    let losses: Vec<f64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64())
        .collect();
    assert_eq!(losses.len(), 24);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[18..]) < 0.8 * mean(&losses[..6]), "{losses:?}");
}
