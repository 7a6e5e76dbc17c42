//! Bundles from other programs' weights, and for other programs.

use crate::{a_film, json, spinexr};
use std::path::{Path, PathBuf};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The weights of the demonstration bundle as safetensors files in `dir/weights`.
fn export(dir: &Path, format: &str) {
    let demo = repository("bundles/demo.spinexr");
    spinexr(dir)
        .args(["model", "export", demo.to_str().unwrap(), "--format", format, "-o", "weights"])
        .assert()
        .success();
}

fn film_of(output: &std::process::Output) -> serde_json::Value {
    json(output)["films"][0].clone()
}

#[test]
fn exported_weights_come_back_and_predict_the_same() {
    let dir = tempfile::tempdir().unwrap();
    export(dir.path(), "safetensors");
    let imported = spinexr(dir.path())
        .args(["model", "import", "weights/densenet_mini_a.safetensors", "--arch", "densenet_mini_a"])
        .args(["--source", "torchvision", "-o", "densenet_mini_a.spinexr", "--json"])
        .output()
        .unwrap();
    assert_eq!(imported.status.code(), Some(0), "{}", String::from_utf8_lossy(&imported.stderr));
    let document = json(&imported);
    let rows = document["tensors"].as_array().unwrap();
    assert_eq!(document["counts"]["matched"], rows.len());
    assert!(rows.iter().all(|row| row["fate"] == "matched" && row["name"] == row["file_name"]));
    let model = &document["manifest"]["model"][0];
    assert_eq!(model["classes"], serde_json::json!(["abnormal"]));

    let film = a_film();
    let predict = |arguments: &[&str]| {
        let output = spinexr(dir.path())
            .args(["predict", film.to_str().unwrap(), "--json"])
            .args(arguments)
            .output()
            .unwrap();
        film_of(&output)
    };
    let logit = |film: &serde_json::Value| film["logits"]["densenet_mini_a"].as_f64().unwrap();
    // Input size and normalisation of small networks are the demonstration's.
    let (own, imported) = (predict(&[]), predict(&["--model", "densenet_mini_a.spinexr"]));
    assert_eq!(logit(&own), logit(&imported));
    assert!(imported["p_abnormal"].is_number());
}

#[test]
fn a_classifier_of_other_classes_gives_a_list_and_no_verdict() {
    let dir = tempfile::tempdir().unwrap();
    export(dir.path(), "safetensors");
    spinexr(dir.path())
        .args(["model", "import", "weights/densenet_mini_b.safetensors", "--arch", "densenet_mini_b"])
        .args(["--classes", "cat", "-o", "cats.spinexr"])
        .assert()
        .success();
    let film = a_film();
    let output = spinexr(dir.path())
        .args(["predict", film.to_str().unwrap(), "--model", "cats.spinexr", "--json"])
        .output()
        .unwrap();
    let film = film_of(&output);
    assert_eq!(film["logits"]["cats"].as_array().unwrap().len(), 1);
    assert!(film["p_abnormal"].is_null(), "{film}");
}

#[test]
fn weights_that_do_not_fit_are_listed_and_no_bundle_is_written() {
    let dir = tempfile::tempdir().unwrap();
    export(dir.path(), "safetensors");
    let import = |arguments: &[&str]| {
        let arguments = [&["model", "import", "--json", "-o", "x.spinexr"], arguments].concat();
        let output = spinexr(dir.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!dir.path().join("x.spinexr").exists());
        json(&output)
    };
    let other = import(&["weights/densenet_mini_a.safetensors", "--arch", "densenet_mini_b"]);
    let fates: Vec<&str> =
        other["tensors"].as_array().unwrap().iter().map(|row| row["fate"].as_str().unwrap()).collect();
    assert!(fates.contains(&"missing") && fates.contains(&"wrong_shape"), "{fates:?}");

    let classes =
        import(&["weights/densenet_mini_a.safetensors", "--arch", "densenet_mini_a", "--classes", "a,b"]);
    let error = classes["error"].as_str().unwrap();
    assert!(error.contains("1 outputs in the file, expected 2") && error.contains("leave"), "{error}");

    let harm = repository("tests/weights/harm.pth");
    let harm = import(&[harm.to_str().unwrap(), "--arch", "densenet121"]);
    let error = harm["error"].as_str().unwrap();
    assert!(error.contains("harm.pth") && error.contains("posix.system: refused"), "{error}");
}

#[test]
fn networks_become_onnx_files() {
    let dir = tempfile::tempdir().unwrap();
    export(dir.path(), "onnx");
    for name in ["densenet_mini_a.onnx", "densenet_mini_b.onnx", "retinanet_mini.onnx"] {
        let bytes = std::fs::read(dir.path().join("weights").join(name)).unwrap();
        // ModelProto: field 1, the version of the format.
        assert_eq!(bytes[..2], [0x08, 0x08], "{name}");
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("spinexr.mean") && has("images"), "{name}");
    }
    assert!(dir.path().join("weights/retinanet_mini.anchors.safetensors").exists());
}

#[cfg(not(feature = "ort"))]
#[test]
fn an_engine_that_is_not_built_names_its_feature() {
    let dir = tempfile::tempdir().unwrap();
    let film = a_film();
    let output =
        spinexr(dir.path()).args(["predict", film.to_str().unwrap(), "--engine", "ort"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--features ort"));
}
