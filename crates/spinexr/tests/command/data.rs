//! Data sets checked, counted, split and de-identified.

use crate::{films, json, own_films, spinexr};
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
