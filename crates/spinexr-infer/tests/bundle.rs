//! Bundles on disk: what is saved comes back, and what is broken is refused by name.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use burn::tensor::Device;
use sha2::{Digest, Sha256};
use spinexr_core::hex;
use spinexr_data::HoldOut;
use spinexr_infer::model::load_models;
use spinexr_infer::{Bundle, CardFacts, CardMetric, InferError, ModelSpec, Storage, card, combine};
use spinexr_models::Architecture;
use spinexr_models::weights::StateDict;
use std::fs;
use std::path::{Path, PathBuf};
use support::{bundle, classifier, decision, detector, detector_of, framework, info};
use tempfile::TempDir;

/// A saved framework bundle.
fn saved() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.spinexr");
    framework(Some(decision(0.4, 0.5))).save(&path).unwrap();
    (dir, path)
}

fn error_of(path: &Path) -> InferError {
    Bundle::load(path).unwrap_err()
}

#[test]
fn what_is_saved_comes_back() {
    let (_dir, path) = saved();
    let loaded = Bundle::load(&path).unwrap();
    let made = framework(Some(decision(0.4, 0.5)));
    assert_eq!(loaded.manifest(), made.manifest());
    assert_eq!(loaded.hash(), made.hash(), "the same bundle has the same hash");
    assert_eq!(loaded.card(), "card");
    for (spec, state) in [classifier("a", Architecture::DensenetMiniA, 1), detector("boxes", 3)] {
        assert_eq!(loaded.state_dict(&spec.name).unwrap(), state);
    }
    assert_eq!(load_models(&loaded, &Device::flex()).unwrap().len(), 3);
    let mut files: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["bundle.toml", "card.md", "weights.safetensors"]);
    // Nothing temporary stays beside it.
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn parts_in_memory_load_as_files_do() {
    let (_dir, path) = saved();
    let text = |file: &str| fs::read_to_string(path.join(file)).unwrap();
    let weights = fs::read(path.join("weights.safetensors")).unwrap();
    let embedded = Bundle::from_parts(&text("bundle.toml"), &weights, &text("card.md")).unwrap();
    assert_eq!(embedded.hash(), Bundle::load(&path).unwrap().hash());
    let error = Bundle::from_parts(&text("bundle.toml"), &weights[..1000], "").unwrap_err();
    assert!(matches!(error, InferError::Checksum { .. }), "{error}");
}

#[test]
fn the_hash_is_the_documented_one() {
    let (_dir, path) = saved();
    let mut hash = Sha256::new();
    for line in fs::read_to_string(path.join("bundle.toml")).unwrap().lines() {
        if !line.starts_with("bundle_hash = ") {
            hash.update(format!("{line}\n"));
        }
    }
    hash.update(fs::read(path.join("weights.safetensors")).unwrap());
    assert_eq!(Bundle::load(&path).unwrap().hash(), hex(&hash.finalize()));
}

#[test]
fn a_flipped_byte_and_a_cut_file_fail_the_checksum() {
    let (_dir, path) = saved();
    let weights = path.join("weights.safetensors");
    let good = fs::read(&weights).unwrap();
    for broken in [
        {
            let mut bytes = good.clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        },
        good[..good.len() - 1].to_vec(),
        vec![],
    ] {
        fs::write(&weights, broken).unwrap();
        match error_of(&path) {
            InferError::Checksum { what, expected, got, .. } => {
                assert_eq!(what, "weights.safetensors");
                assert!(expected.len() == 64 && got.len() == 64 && expected != got);
            }
            other => panic!("{other}"),
        }
    }
    fs::write(&weights, good).unwrap();
    assert!(Bundle::load(&path).is_ok());
}

#[test]
fn an_edited_threshold_fails_the_bundle_hash() {
    let (_dir, path) = saved();
    let manifest = path.join("bundle.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("c_star = 0.4"), "{text}");
    fs::write(&manifest, text.replace("c_star = 0.4", "c_star = 0.9")).unwrap();
    match error_of(&path) {
        InferError::Checksum { what, .. } => assert_eq!(what, "bundle.toml + weights.safetensors"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_missing_file_is_named() {
    for file in ["bundle.toml", "weights.safetensors", "card.md"] {
        let (_dir, path) = saved();
        fs::remove_file(path.join(file)).unwrap();
        match error_of(&path) {
            InferError::NotABundle { file: named, .. } => assert_eq!(named, file),
            other => panic!("{other}"),
        }
    }
    let error = error_of(Path::new("/nowhere/x.spinexr"));
    assert!(matches!(error, InferError::Io { .. }), "{error}");
}

#[test]
fn a_misspelt_key_is_named_with_its_line() {
    let (_dir, path) = saved();
    let manifest = path.join("bundle.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let line = 1 + text.lines().position(|l| l.starts_with("licence")).unwrap();
    fs::write(&manifest, text.replace("licence =", "license =")).unwrap();
    match error_of(&path) {
        InferError::Manifest { place, message } => {
            assert!(place.ends_with("bundle.toml"));
            assert!(message.contains("license") && message.contains(&format!("line {line}")), "{message}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn thresholds_from_test_films_do_not_load() {
    let (_dir, path) = saved();
    let manifest = path.join("bundle.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"validation\"", "\"test\"")).unwrap();
    let error = error_of(&path).to_string();
    assert!(error.contains("test") && error.contains("validation"), "{error}");
}

#[test]
fn values_that_do_not_fit_together_are_named() {
    type Change = fn(&mut ModelSpec);
    let cases: [(&str, Change); 8] = [
        ("model.name", |m| m.name = "a.b".to_owned()),
        ("task", |m| m.task = spinexr_models::Task::Detection),
        ("classes", |m| m.classes.clear()),
        ("classes", |m| m.classes = vec!["x".to_owned(), "x".to_owned()]),
        ("input", |m| m.input.height_px = 0),
        ("input", |m| m.input.width_px = 8),
        ("normalisation", |m| m.normalisation.std = vec![0.0]),
        ("in_channels", |m| m.in_channels = 3),
    ];
    for (key, change) in cases {
        let (mut spec, state) = classifier("a", Architecture::DensenetMiniA, 1);
        change(&mut spec);
        let made = Bundle::new(info("x"), vec![(spec, state)], None, Storage::F32, |_| String::new());
        match made.unwrap_err() {
            InferError::ManifestValue { key: named, .. } => {
                assert!(named.contains(key), "{named}, not {key}")
            }
            other => panic!("{key}: {other}"),
        }
    }
    let wild = Bundle::new(
        info("x"),
        vec![classifier("a", Architecture::DensenetMiniA, 1)],
        Some(decision(f64::NAN, 0.5)),
        Storage::F32,
        |_| String::new(),
    );
    assert!(wild.unwrap_err().to_string().contains("c_star"));
}

#[test]
fn another_number_of_classes_names_the_tensor() {
    for (architecture, tensor) in [
        (Architecture::RetinanetMini, "cls_logits"),
        (Architecture::SparseRcnnMini, "class_logits"),
        (Architecture::FasterRcnnMini, "box_predictor.cls_score"),
        (Architecture::EfficientdetMini, "class_net.predict"),
    ] {
        let (mut spec, state) = detector_of(architecture, "boxes", 3);
        spec.classes.pop();
        match load_models(&bundle(vec![(spec, state)], None), &Device::flex()).unwrap_err() {
            InferError::ModelWeights { model, message, .. } => {
                assert_eq!(model, "boxes");
                assert!(message.contains(tensor), "{message}");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn weights_of_another_architecture_name_tensors() {
    let (mut spec, state) = classifier("a", Architecture::DensenetMiniA, 1);
    spec.architecture = Architecture::DensenetMiniB;
    let error = load_models(&bundle(vec![(spec, state)], None), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("densenet_mini_b") && error.contains("denseblock"), "{error}");
}

#[test]
fn combining_keeps_models_and_refuses_one_name_twice() {
    let a = bundle(vec![classifier("a", Architecture::DensenetMiniA, 1)], None);
    let boxes = bundle(vec![detector("boxes", 3)], None);
    let both =
        combine(&[a.clone(), boxes.clone()], info("both"), Some(decision(0.3, 0.5)), Storage::F32, |m| {
            format!("{} models", m.models.len())
        })
        .unwrap();
    assert_eq!(both.card(), "2 models");
    assert_eq!(both.manifest().decision.as_ref().unwrap().gate().c_star, 0.3);
    assert_eq!(both.state_dict("a").unwrap(), a.state_dict("a").unwrap());
    assert_eq!(both.state_dict("boxes").unwrap(), boxes.state_dict("boxes").unwrap());
    assert!(!both.manifest().demonstration);

    let twice = combine(&[a.clone(), a.clone()], info("x"), None, Storage::F32, |_| String::new());
    assert!(matches!(twice.unwrap_err(), InferError::NameClash { name, .. } if name == "a"));
    let none = combine(&[], info("x"), None, Storage::F32, |_| String::new());
    assert!(matches!(none.unwrap_err(), InferError::NoModel));
}

#[test]
fn one_decision_holds_for_models_that_held_out_the_same_studies() {
    let hold_out = |studies: &str| {
        Some(HoldOut { validation_fraction: 0.1, split_seed: 0, studies_sha256: studies.to_owned() })
    };
    let (mut a, mut boxes) = (classifier("a", Architecture::DensenetMiniA, 1), detector("boxes", 3));
    a.0.hold_out = hold_out("aaaa");
    boxes.0.hold_out = hold_out("bbbb");
    let used = a.0.hold_out.clone().unwrap();
    a.0.check_hold_out(&used).unwrap();
    let error = boxes.0.check_hold_out(&used).unwrap_err().to_string();
    assert!(error.contains("boxes") && error.contains("aaaa") && error.contains("bbbb"), "{error}");

    let together = |a: &(ModelSpec, StateDict), boxes: &(ModelSpec, StateDict), decision| {
        Bundle::new(info("x"), vec![a.clone(), boxes.clone()], decision, Storage::F32, |_| String::new())
    };
    let error = together(&a, &boxes, Some(decision(0.4, 0.5))).unwrap_err().to_string();
    assert!(error.contains("boxes") && error.contains("hold_out") && error.contains("bbbb"), "{error}");
    together(&a, &boxes, None).unwrap();
    // Drawn in another way, but the same studies.
    boxes.0.hold_out = Some(HoldOut { split_seed: 9, ..used.clone() });
    let made = together(&a, &boxes, Some(decision(0.4, 0.5))).unwrap();
    assert_eq!(made.manifest().models[0].hold_out, Some(used.clone()));
    boxes.0.hold_out = None;
    assert!(together(&a, &boxes, Some(decision(0.4, 0.5))).is_err());
    let error = boxes.0.check_hold_out(&used).unwrap_err();
    assert!(matches!(error, InferError::HoldOutUnknown { .. }), "{error}");
}

#[test]
fn a_demonstration_makes_the_whole_a_demonstration() {
    let mut of_demo = info("demo");
    of_demo.demonstration = true;
    let models = vec![classifier("a", Architecture::DensenetMiniA, 1)];
    let demo = Bundle::new(of_demo, models, None, Storage::F32, |_| String::new()).unwrap();
    let boxes = bundle(vec![detector("boxes", 3)], None);
    let both = combine(&[boxes, demo], info("both"), None, Storage::F32, |_| String::new()).unwrap();
    assert!(both.manifest().demonstration);
}

#[test]
fn half_storage_halves_the_file_and_loads() {
    let models = || vec![classifier("a", Architecture::DensenetMiniA, 1), detector("boxes", 3)];
    let full = bundle(models(), None);
    let half = Bundle::new(info("half"), models(), None, Storage::F16, |_| String::new()).unwrap();
    assert!((half.size_bytes() as f64) < 0.65 * full.size_bytes() as f64);
    assert_eq!(load_models(&half, &Device::flex()).unwrap().len(), 2);
    let (was, is) = (full.state_dict("boxes").unwrap(), half.state_dict("boxes").unwrap());
    for (name, entry) in &was {
        for (a, b) in entry.values.iter().zip(&is[name].values) {
            assert!((a - b).abs() <= a.abs() * 2f32.powi(-11) + 2f32.powi(-24), "{name}: {a} {b}");
        }
    }
}

#[test]
fn saving_replaces_a_bundle_and_nothing_else() {
    let (dir, path) = saved();
    let other = bundle(vec![classifier("z", Architecture::DensenetMiniA, 9)], None);
    other.save(&path).unwrap();
    assert_eq!(Bundle::load(&path).unwrap().hash(), other.hash());

    let photos = dir.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("cat.jpg"), "cat").unwrap();
    assert!(other.save(&photos).is_err());
    assert!(photos.join("cat.jpg").exists());
}

#[test]
fn a_card_says_what_the_bundle_is() {
    let facts = CardFacts {
        data: "120 synthetic studies.".to_owned(),
        metrics: vec![
            CardMetric {
                name: "AUROC, ensemble".to_owned(),
                value: Some(0.9312),
                interval: Some((0.9, 0.95)),
                films: "80 synthetic test films".to_owned(),
            },
            CardMetric {
                name: "AP50, LT8".to_owned(),
                value: None,
                interval: None,
                films: "none".to_owned(),
            },
        ],
        limits: vec!["One view only.".to_owned()],
    };
    let mut of_demo = info("demo");
    of_demo.demonstration = true;
    let models = vec![classifier("a", Architecture::DensenetMiniA, 1), detector("boxes", 3)];
    let made =
        Bundle::new(of_demo, models, Some(decision(0.25, 0.5)), Storage::F32, |m| card(m, &facts)).unwrap();
    let text = made.card();
    for part in [
        "# demo",
        "**Demonstration.**",
        "Research only",
        "| a | densenet_mini_a | classification | 64 × 48 px | standard |",
        "Spondylolysthesis",
        "c* = 0.2500",
        "12 validation films",
        "| AUROC, ensemble | 0.9312 | 0.9000 – 0.9500 | 80 synthetic test films |",
        "| AP50, LT8 | n/a | n/a | none |",
        "- One view only.",
        made.hash(),
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}
