//! A run that was killed goes on to the weights it would have had.

use crate::broken_input::config_path;
use crate::{films, json, spinexr};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// A short run of a small classifier that evaluates and checkpoints every other step.
pub fn train_arguments(out: &str) -> Vec<String> {
    let sets = [
        format!("data.dir={}", films().display()),
        "data.cache_dir=prepared".to_owned(),
        "data.validation_fraction=0.3".to_owned(),
        "model.input.height_px=96".to_owned(),
        "model.input.width_px=64".to_owned(),
        "schedule.total_steps=10".to_owned(),
        "schedule.warmup_steps=2".to_owned(),
        "training.batch_size=4".to_owned(),
        "training.eval_every=2".to_owned(),
        "training.checkpoint_every=2".to_owned(),
    ];
    let mut arguments =
        vec!["train".to_owned(), config_path().display().to_string(), "--out".to_owned(), out.to_owned()];
    arguments.extend(sets.into_iter().flat_map(|set| ["--set".to_owned(), set]));
    arguments
}

fn weights_hash(dir: &Path, out: &str, more: &[&str]) -> String {
    let output = spinexr(dir).args(train_arguments(out)).arg("--json").args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    json(&output)["final_weights_hash"].as_str().unwrap().to_owned()
}

#[test]
fn killed_and_resumed_equals_uninterrupted_and_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let whole = weights_hash(dir.path(), "whole", &["--threads", "2"]);
    assert_eq!(weights_hash(dir.path(), "again", &["--threads", "1"]), whole, "one seed, two results");

    // Killed (SIGKILL) as soon as it tells of the evaluation after step 4, wherever it is then.
    let mut child = Command::new(env!("CARGO_BIN_EXE_spinexr"))
        .current_dir(dir.path())
        .args(train_arguments("killed"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = lines.map_while(Result::ok).any(|line| line.contains("step 4:"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told, "the run ended before step 4");
    let kept = dir.path().join("killed/checkpoints/last.ckpt");
    assert!(kept.is_file(), "no checkpoint was on the disk when the run was killed");

    let refused = spinexr(dir.path()).args(train_arguments("killed")).output().unwrap();
    assert!(!refused.status.success(), "a run was written over without --resume");
    assert_eq!(weights_hash(dir.path(), "killed", &["--resume"]), whole);

    // A checkpoint cut short is told, not used.
    let bytes = std::fs::read(&kept).unwrap();
    std::fs::write(&kept, &bytes[..bytes.len() / 2]).unwrap();
    let output = spinexr(dir.path()).args(train_arguments("killed")).arg("--resume").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("last.ckpt"), "{text}");
}
