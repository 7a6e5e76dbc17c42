//! Data sets checked, counted, split and de-identified.

use crate::{films, json, own_films, spinexr};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

fn run(dir: &Path, arguments: &[&str]) -> Output {
    spinexr(dir).arg("data").args(arguments).arg("--json").output().unwrap()
}

fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Film files of a part, sorted.
fn part(dir: &Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir.join(name)).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_film_that_is_in_two_splits_by_its_pixels_is_leakage() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own");
    own_films(&own);
    fs::copy(&part(&own, "train_images")[0], &part(&own, "test_images")[0]).unwrap();
    fs::write(&part(&own, "train_images")[1], "no film").unwrap();
    fs::copy(films().join("SHA256SUMS.txt"), own.join("SHA256SUMS.txt")).unwrap();
    let output = run(dir.path(), &["check", "own"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr_of(&output));
    let document = json(&output);
    assert_eq!(document["sound"], false);
    assert_eq!(document["counts"]["pixels_in_two_splits"], 1);
    assert_eq!(document["counts"]["film_unreadable"], 1);
    assert_eq!(document["counts"]["checksum_differs"], 2);
    assert!(document["leak"].is_string());
    assert!(stderr_of(&output).contains("films in two splits by their pixels"));

    // Headers alone do not show the pixels.
    let document = json(&run(dir.path(), &["check", "own", "--no-pixels"]));
    assert!(document["counts"]["pixels_in_two_splits"].is_null());
    assert_eq!(document["decoded"], 0);
    assert_eq!(json(&run(dir.path(), &["check", "own", "--no-films"]))["headers_read"], 0);
}

#[test]
fn a_split_is_what_check_and_stats_find_again() {
    let dir = tempfile::tempdir().unwrap();
    let films = films().to_str().unwrap();
    let split = |out: &str, seed: &str| {
        run(
            dir.path(),
            &["split", films, "-o", out, "--validation", "0.3", "--by", "patient", "--seed", seed],
        )
    };
    let output = split("a", "1");
    assert_eq!(output.status.code(), Some(0), "{}", stderr_of(&output));
    let parts = json(&output)["parts"].clone();
    assert_eq!(run(dir.path(), &["check", "a"]).status.code(), Some(0));
    let stats = json(&run(dir.path(), &["stats", "a"]));
    for part in ["train", "validation"] {
        assert!(stats[part]["films"].as_u64().unwrap() > 0);
        assert_eq!(stats[part]["films"], parts[part]["films"], "{part}");
        assert_eq!(stats[part]["films_with"], parts[part]["films_with"], "{part}");
    }
    assert_eq!(stats["test"]["studies"], 6);

    let rows =
        |out: &str| fs::read_to_string(dir.path().join(out).join("annotations/validation.csv")).unwrap();
    split("again", "1");
    split("other", "2");
    assert_eq!(rows("a"), rows("again"));
    assert_ne!(rows("a"), rows("other"));
    // Nothing is written over, and a part that is there is not shared out unasked.
    assert_eq!(split("a", "1").status.code(), Some(2));
    let output = run(dir.path(), &["split", films, "-o", "b", "--test", "0.2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr_of(&output).contains("--pool"));
    assert!(!dir.path().join("b").exists());
}

#[test]
fn a_data_set_of_another_format_is_split_in_that_format() {
    let dir = tempfile::tempdir().unwrap();
    let films = films().to_str().unwrap();
    let output = run(dir.path(), &["convert", films, "--to", "coco", "-o", "coco", "--films", "link"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr_of(&output));
    let output = run(dir.path(), &["split", "coco", "-o", "parts", "--validation", "0.3", "--by", "patient"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr_of(&output));
    let document = json(&output);
    assert_eq!(document["source_format"], "coco");
    assert!(dir.path().join("parts/annotations/instances_val.json").is_file());
    assert_eq!(run(dir.path(), &["check", "parts"]).status.code(), Some(0));
    // Its annotations would be left behind.
    let refused = run(dir.path(), &["deidentify", "coco", "-o", "nobody", "--key", "key", "--make-key"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr_of(&refused).contains("--to vindr"), "{}", stderr_of(&refused));
    assert!(!dir.path().join("key").exists());
    let [before, after] = ["coco", "parts"].map(|set| json(&run(dir.path(), &["stats", set])));
    let boxes =
        |part: &Value| -> u64 { part["boxes"].as_object().unwrap().values().filter_map(Value::as_u64).sum() };
    let to_share = |stats: &Value, count: &dyn Fn(&Value) -> u64| -> u64 {
        ["train", "validation"]
            .iter()
            .filter(|part| stats[part].is_object())
            .map(|part| count(&stats[part]))
            .sum()
    };
    for count in [&boxes as &dyn Fn(&Value) -> u64, &|part| part["films"].as_u64().unwrap()] {
        assert!(to_share(&before, count) > 0);
        assert_eq!(to_share(&before, count), to_share(&after, count));
        assert_eq!(count(&before["test"]), count(&after["test"]));
    }
    assert_eq!(after["validation"]["films"], document["parts"]["validation"]["films"]);
}

#[test]
fn every_film_is_validated_on_in_one_fold() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(
        dir.path(),
        &["split", films().to_str().unwrap(), "-o", "folds", "--folds", "3", "--pool", "--test", "0.2"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr_of(&output));
    let names = |fold: u32, name: &str| -> BTreeSet<_> {
        part(&dir.path().join(format!("folds/fold{fold}")), name)
            .into_iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect()
    };
    let all: BTreeSet<_> = ["train_images", "test_images"]
        .into_iter()
        .flat_map(|name| part(films(), name))
        .map(|path| path.file_name().unwrap().to_owned())
        .collect();
    let mut seen = BTreeSet::new();
    for fold in 1..=3 {
        let validation = names(fold, "validation_images");
        assert!(!validation.is_empty() && validation.is_disjoint(&seen));
        assert!(validation.is_disjoint(&names(fold, "train_images")));
        assert_eq!(names(fold, "test_images"), names(1, "test_images"));
        seen.extend(validation);
        assert_eq!(run(dir.path(), &["check", &format!("folds/fold{fold}")]).status.code(), Some(0));
    }
    seen.extend(names(1, "test_images"));
    assert_eq!(seen, all);
}

#[test]
fn a_data_set_is_deidentified_with_its_annotations() {
    let dir = tempfile::tempdir().unwrap();
    let films = films().to_str().unwrap();
    let run_with = |arguments: &[&str]| {
        let all = [&["deidentify", films, "--key", "key"], arguments].concat();
        run(dir.path(), &all)
    };
    assert_eq!(run_with(&["-o", "a"]).status.code(), Some(2), "there is no key yet");
    let output = run_with(&["-o", "a", "--make-key", "--retain", "characteristics", "--map", "map.csv"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr_of(&output));
    let n = json(&output)["films"].as_u64().unwrap() as usize;
    assert!(n >= 18);
    assert_eq!(run_with(&["-o", "a"]).status.code(), Some(2), "nothing is written over");
    assert_eq!(run_with(&["-o", "c", "--map", "map.csv"]).status.code(), Some(2), "nor is a map");
    assert!(!dir.path().join("c").exists());
    assert_eq!(fs::read_to_string(dir.path().join("map.csv")).unwrap().lines().count(), n + 1);

    // The same films, studies, boxes and pixels under other names.
    let check = run(dir.path(), &["check", "a"]);
    assert_eq!(check.status.code(), Some(0), "{}", stderr_of(&check));
    let stats = |of: &str| json(&run(dir.path(), &["stats", of]));
    let (before, after) = (stats(films), stats("a"));
    for figure in ["studies", "films", "boxes", "films_with", "sex", "age_years", "height_px"] {
        assert_eq!(before["train"][figure], after["train"][figure], "{figure}");
    }
    let names = |of: &Path| -> BTreeSet<_> {
        part(of, "train_images").into_iter().map(|p| p.file_name().unwrap().to_owned()).collect()
    };
    assert!(names(Path::new(films)).is_disjoint(&names(&dir.path().join("a"))));
    let old = fs::read_to_string(Path::new(films).join("annotations/train.csv")).unwrap();
    let new = fs::read_to_string(dir.path().join("a/annotations/train.csv")).unwrap();
    for line in old.lines().skip(1) {
        for id in line.split(',').take(3).filter(|id| !id.is_empty()) {
            assert!(!new.contains(id), "{id} is left");
        }
    }
    // The same key gives the same files.
    assert_eq!(run_with(&["-o", "b", "--retain", "characteristics"]).status.code(), Some(0));
    for (a, b) in
        part(&dir.path().join("a"), "test_images").iter().zip(part(&dir.path().join("b"), "test_images"))
    {
        assert_eq!(a.file_name(), b.file_name());
        assert!(fs::read(a).unwrap() == fs::read(b).unwrap());
    }
}

#[test]
fn films_that_cannot_be_deidentified_are_listed_and_nothing_of_them_is_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    let film = &part(films(), "test_images")[0];
    for name in ["Hansen Eva.dcm", "same again.dcm"] {
        fs::copy(film, dir.path().join("in").join(name)).unwrap();
    }
    fs::write(dir.path().join("in/torn.dcm"), &fs::read(film).unwrap()[..900]).unwrap();
    fs::write(dir.path().join("key"), [3; 32]).unwrap();
    let arguments = ["deidentify", "in", "-o", "out", "--key", "key", "--mask", "0,0,20,10"];
    let output = run(dir.path(), &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", stderr_of(&output));
    let document = json(&output);
    assert_eq!(document["films"], 1);
    assert_eq!(document["failed"].as_array().unwrap().len(), 2);
    let written = part(dir.path(), "out");
    assert_eq!(written.len(), 1);
    assert!(!written[0].to_str().unwrap().contains("Hansen"));
    assert!(!document["made"].to_string().contains("Hansen"));

    for wrong in [["--mask", "1,2,3"], ["--mask", "5,0,5,9"], ["--retain", "full-dates,shifted-dates"]] {
        let output =
            run(dir.path(), &[&["deidentify", "in", "-o", "other", "--key", "key"][..], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    fs::write(dir.path().join("key"), "short").unwrap();
    let output = run(dir.path(), &["deidentify", "in", "-o", "other", "--key", "key"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr_of(&output).contains("32 to 4096"));
}
