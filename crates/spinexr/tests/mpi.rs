//! `mpirun -n 2 spinexr train` beside one process with twice the batch. Needs the feature `mpi` and Open MPI's
//! `mpirun`; `.ci/mpi` installs it and runs this.

#![cfg(feature = "mpi")]
#![allow(clippy::unwrap_used, reason = "a test ends where its setting fails")]

use spinexr_train::{Checkpoint, read_log};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Distance allowed between the two runs, as a share of the way they trained. Sums are added in another order; a
/// ReLU's unit may be on in one and off in the other.
const TOLERANCE: f64 = 2e-3;

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo").join(name)
}

/// Arguments of a short run with plain SGD: an adaptive rule turns the rounding of a gradient near 0 into a step.
fn train(config: &Path, out: &str, batch_size: usize, sets: &[&str]) -> Vec<String> {
    let batch_size = format!("training.batch_size={batch_size}");
    let all = [
        &batch_size,
        "data.dir=films",
        "data.cache_dir=prepared",
        "data.validation_fraction=0.3",
        "model.input.height_px=96",
        "model.input.width_px=64",
        "optimiser.lr=0.02",
        "optimiser.rule={ sgd = { momentum = 0.9, nesterov = false } }",
        "schedule.total_steps=5",
        "schedule.warmup_steps=2",
        "training.eval_every=5",
        "training.checkpoint_every=3",
    ];
    let mut arguments: Vec<String> =
        ["--threads", "1", "train", config.to_str().unwrap(), "--out", out].map(str::to_owned).to_vec();
    arguments.extend(all.iter().chain(sets).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
    arguments
}

fn alone(dir: &Path, arguments: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spinexr")).current_dir(dir).args(arguments).output().unwrap()
}

/// One process for each list of arguments.
fn together(dir: &Path, arguments: [&[String]; 2]) -> Output {
    let mut mpirun = Command::new("mpirun");
    mpirun.current_dir(dir).args(["--allow-run-as-root", "--oversubscribe"]);
    for (rank, arguments) in arguments.into_iter().enumerate() {
        mpirun.args(if rank == 0 { &[][..] } else { &[":"] });
        mpirun.args(["-n", "1", env!("CARGO_BIN_EXE_spinexr")]).args(arguments);
    }
    mpirun.output().expect("mpirun is installed: `apt-get install openmpi-bin libopenmpi-dev`")
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    stderr
}

fn films(dir: &Path) {
    let arguments =
        ["synth", "films", "--studies", "12", "--test-studies", "4", "--size", "256", "--seed", "5"];
    let arguments: Vec<String> =
        arguments.iter().chain(&["--balanced", "--quiet"]).map(|s| (*s).into()).collect();
    succeeded(&alone(dir, &arguments));
}

fn checkpoint(run: &Path) -> Checkpoint {
    Checkpoint::read(&run.join("checkpoints/last.ckpt")).unwrap()
}

/// L2 distance of `a` and `b` over weights, running statistics and averages, as a share of that of `begin` and `a`.
fn distance(begin: &Path, a: &Path, b: &Path) -> f64 {
    let [begin, a, b] = [begin, a, b].map(|run| {
        let checkpoint = checkpoint(run);
        let all =
            checkpoint.model.into_values().chain(checkpoint.ema.into_iter().flat_map(|e| e.into_values()));
        all.flat_map(|entry| entry.values).collect::<Vec<f32>>()
    });
    assert!(begin.len() == a.len() && a.len() == b.len());
    let l2 =
        |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>().sqrt();
    l2(&a, &b) / l2(&begin, &a)
}

#[test]
fn two_processes_come_to_the_weights_of_one_with_twice_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    films(dir);
    for (name, sets) in [("retinanet_mini.toml", &["model.norms=frozen"][..]), ("densenet_mini_a.toml", &[])]
    {
        let run = |kind: &str| format!("{kind}-{name}");
        let path = |kind: &str| dir.join(run(kind));
        let config = config(name);
        succeeded(&alone(dir, &train(&config, &run("alone"), 4, sets)));
        succeeded(&alone(
            dir,
            &[train(&config, &run("begin"), 4, sets), vec!["--stop-after=0".into()]].concat(),
        ));
        let half = train(&config, &run("together"), 2, sets);
        let stderr = succeeded(&together(dir, [&half, &half]));
        assert!(stderr.contains("2 processes, 4 films a forward pass together"), "{stderr}");
        assert_eq!(stderr.matches("step 5:").count(), 1, "one process speaks: {stderr}");
        let found = distance(&path("begin"), &path("alone"), &path("together"));
        println!(
            "{name}: two processes and one are apart by {found:.1e} of the way, allowed {TOLERANCE:.0e}"
        );
        assert!(found < TOLERANCE);
        assert_eq!(read_log(&path("together").join("log.jsonl")).unwrap().len(), 5, "one process writes");
        assert!(path("together").join(name.replace(".toml", ".spinexr")).is_dir());

        // Stopped and resumed, in the same number of processes: the same bits. In another number: refused.
        let parted = train(&config, &run("parted"), 2, sets);
        let until_2 = [&parted[..], &["--stop-after=2".into()]].concat();
        let resumed = [&parted[..], &["--resume".into()]].concat();
        succeeded(&together(dir, [&until_2, &until_2]));
        let refused = alone(dir, &resumed);
        assert!(!refused.status.success());
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(message.contains("with 1 processes: it was trained by 2"), "{message}");
        succeeded(&together(dir, [&resumed, &resumed]));
        let (whole, parted) = (checkpoint(&path("together")), checkpoint(&path("parted")));
        assert!(
            whole.model == parted.model && whole.optimiser == parted.optimiser && whole.best == parted.best
        );
    }
}

#[test]
fn a_process_that_fails_ends_all() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    films(dir);
    let sound = train(&config("densenet_mini_a.toml"), "run", 2, &[]);
    // Fails before the first sum, where the other waits; and in the first sum, of another experiment.
    let elsewhere = [&sound[..], &["--device=nowhere".into()]].concat();
    let reseeded = [&sound[..], &["--seed=9".into()]].concat();
    for (other, expected) in
        [(elsewhere, "unknown device"), (reseeded, "expected the same experiment in all 2 processes")]
    {
        let output = together(dir, [&sound, &other]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn processes_that_do_not_find_each_other_do_not_begin() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_spinexr"))
        .current_dir(dir.path())
        .args(train(&config("densenet_mini_a.toml"), "run", 2, &[]))
        .env("PMI_SIZE", "2")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("expected the 2 processes of PMI_SIZE to train together, found 1"), "{stderr}");
    assert_eq!(output.status.code(), Some(2));
}
