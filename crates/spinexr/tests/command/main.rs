//! The command as a user meets it: what it prints, writes and exits with.

#![allow(clippy::unwrap_used, reason = "a test ends where its setting fails")]

mod broken_input;
mod data;
mod dicom_results;
mod evaluation;
mod films;
mod formats;
#[cfg(feature = "gpu")]
mod gpu;
mod help;
mod hold_out;
mod models;
mod reports;
mod resume;
mod serve;

use assert_cmd::Command;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The program, in `dir`.
fn spinexr(dir: &Path) -> Command {
    let mut command = Command::cargo_bin("spinexr").expect("cargo builds the program before its tests");
    command.current_dir(dir).arg("--quiet");
    command
}

/// A small synthetic data set, made once for all tests.
fn films() -> &'static Path {
    static FILMS: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, films) = FILMS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let films = dir.path().join("films");
        spinexr(dir.path())
            .args([
                "synth",
                "films",
                "--studies",
                "12",
                "--test-studies",
                "6",
                "--size",
                "256",
                "--seed",
                "5",
                "--balanced",
            ])
            .assert()
            .success();
        (dir, films)
    });
    films
}

/// A copy of [`films`] at `to`, to be altered.
fn own_films(to: &Path) {
    for part in ["annotations", "train_images", "test_images"] {
        std::fs::create_dir_all(to.join(part)).expect("a folder in a temporary one");
        for entry in std::fs::read_dir(films().join(part)).expect("the data set has this part") {
            let from = entry.expect("a readable folder").path();
            let name = from.file_name().expect("an entry of a folder has a name");
            std::fs::copy(&from, to.join(part).join(name)).expect("a film can be copied");
        }
    }
}

/// The parts of a JSON document on stdout.
fn json(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("stdout is no JSON document ({e}): {}", String::from_utf8_lossy(&output.stdout))
    })
}

/// A film's file of the test part.
fn a_film() -> PathBuf {
    let mut paths: Vec<_> = std::fs::read_dir(films().join("test_images"))
        .expect("the data set has test films")
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    paths.swap_remove(0)
}
