//! Broken input: an error that names file, place, expected and found; the rest goes on.

use crate::resume::train_arguments;
use crate::{a_film, films, json, own_films, spinexr};
use std::fs;
use std::path::Path;

fn stderr_of(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn broken_films_are_listed_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    fs::create_dir(&input).unwrap();
    let film = fs::read(a_film()).unwrap();
    fs::write(input.join("sound.dcm"), &film).unwrap();
    fs::write(input.join("cut.dcm"), &film[..film.len() / 2]).unwrap();
    fs::write(input.join("noise.png"), b"\x89PNG\r\n\x1a\nnothing of the kind").unwrap();
    let output =
        spinexr(dir.path()).args(["predict", "in", "absent.dcm", "-o", "out", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr_of(&output));
    let document = json(&output);
    assert_eq!(document["predicted"], 1);
    let failed: Vec<&str> =
        document["failed"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(failed.len(), 3, "{failed:?}");
    for name in ["cut.dcm", "noise.png", "absent.dcm"] {
        assert!(failed.iter().any(|f| f.ends_with(name)), "{name} is not listed in {failed:?}");
    }
    assert_eq!(fs::read_to_string(dir.path().join("out/predictions.jsonl")).unwrap().lines().count(), 1);
}

#[test]
fn training_goes_on_without_films_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    own_films(&dir.path().join("own"));
    let mut images: Vec<_> =
        fs::read_dir(dir.path().join("own/train_images")).unwrap().map(|e| e.unwrap().path()).collect();
    images.sort();
    let train = |out: &str| {
        spinexr(dir.path())
            .args(train_arguments(out))
            .args(["--set", "data.dir=own", "--set", "schedule.total_steps=1"])
            .args(["--set", "schedule.warmup_steps=0", "--json"])
            .output()
            .unwrap()
    };
    fs::write(&images[0], b"no film").unwrap();
    let output = train("run");
    let text = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let file = images[0].file_name().unwrap().to_str().unwrap();
    assert!(text.contains("left out (1)") && text.contains(file), "{text}");
    assert!(json(&output)["failed"][0]["path"].as_str().unwrap().ends_with(file));
    assert_eq!(json(&output)["steps"], 1);
    assert!(dir.path().join("run/densenet_mini_a.spinexr/bundle.toml").is_file(), "{text}");
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join("run/manifest.json")).unwrap()).unwrap();
    let image_id = images[0].file_stem().unwrap().to_str().unwrap();
    assert_eq!(manifest["left_out"], serde_json::json!({"count": 1, "image_ids": [image_id]}));

    for image in &images {
        fs::write(image, b"no film").unwrap();
    }
    let output = train("none");
    let text = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("train split, found none") && text.contains(file), "{text}");
    assert!(!dir.path().join("none").exists());
}

/// A data set with one annotation file, and films named `a` and `b`.
fn data_set(dir: &Path, rows: &str) {
    for folder in ["annotations", "train_images"] {
        fs::create_dir_all(dir.join(folder)).unwrap();
    }
    let head = "study_id,series_id,image_id,rad_id,lesion_type,xmin,ymin,xmax,ymax\n";
    fs::write(dir.join("annotations/train.csv"), format!("{head}{rows}")).unwrap();
    for name in ["a", "b"] {
        fs::copy(a_film(), dir.join("train_images").join(format!("{name}.dicom"))).unwrap();
    }
}

#[test]
fn a_broken_row_is_named_with_file_line_expected_and_found() {
    let dir = tempfile::tempdir().unwrap();
    data_set(dir.path(), "s1,x,a,rad1,No finding,,,,\ns2,x,b,rad1,Osteophytes,1,2,thirty,40\n");
    let output = spinexr(dir.path()).args(["data", "stats", "."]).output().unwrap();
    let text = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("train.csv") && text.contains('3') && text.contains("thirty") && text.contains("xmax"),
        "{text}"
    );
}

#[test]
fn an_unknown_class_is_named_with_the_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    data_set(dir.path(), "s1,x,a,rad1,Scoliosis,1,2,30,40\ns2,x,b,rad1,No finding,,,,\n");
    let output = spinexr(dir.path()).args(["data", "stats", "."]).output().unwrap();
    let text = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("Scoliosis") && text.contains("Vertebral collapse"), "{text}");
}

#[test]
fn a_misspelt_key_is_wrong_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(config_path()).unwrap().replace("batch_size", "batchsize");
    fs::write(dir.path().join("c.toml"), config).unwrap();
    let output = spinexr(dir.path()).args(["train", "c.toml"]).output().unwrap();
    let text = stderr_of(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("c.toml") && text.contains("batchsize") && text.contains("batch_size"), "{text}");

    let output = spinexr(dir.path())
        .arg("train")
        .arg(config_path())
        .args(["--set", "optimiser.rl=0.1"])
        .output()
        .unwrap();
    let text = stderr_of(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("optimiser.rl") && text.contains("optimiser.lr"), "{text}");
}

pub fn config_path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo/densenet_mini_a.toml")
}

#[test]
fn an_altered_bundle_is_refused_with_both_checksums() {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bundles/demo.spinexr");
    let bundle = dir.path().join("b.spinexr");
    fs::create_dir(&bundle).unwrap();
    for name in ["bundle.toml", "card.md", "weights.safetensors"] {
        fs::copy(source.join(name), bundle.join(name)).unwrap();
    }
    spinexr(dir.path()).args(["model", "verify", "b.spinexr"]).assert().success();
    let weights = bundle.join("weights.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    let output = spinexr(dir.path()).args(["model", "verify", "b.spinexr"]).output().unwrap();
    let text = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("expected") && text.contains("weights.safetensors"), "{text}");
    bytes.truncate(last / 2);
    fs::write(&weights, &bytes).unwrap();
    spinexr(dir.path()).args(["predict", "--model", "b.spinexr"]).arg(a_film()).assert().code(2);
}

#[test]
fn synth_does_not_write_over_anything() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    fs::write(dir.path().join("out/mine.txt"), "mine").unwrap();
    let output = spinexr(dir.path()).args(["synth", "out", "--studies", "1"]).output().unwrap();
    assert!(!output.status.success());
    assert!(stderr_of(&output).contains("out"));
    assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 1);
    let output = spinexr(dir.path()).args(["demo", "--out", "out"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read_to_string(dir.path().join("out/mine.txt")).unwrap(), "mine");
}

#[test]
fn an_empty_folder_and_an_unknown_device_are_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let output = spinexr(dir.path()).args(["predict", "empty"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr_of(&output).contains("no DICOM, PNG or JPEG film"));
    let output = spinexr(dir.path()).args(["predict", "--device", "abacus"]).arg(films()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr_of(&output).contains("abacus"));
}
