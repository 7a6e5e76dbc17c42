//! Programs that the developer commands start.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Runs a command whose messages are for people.
pub fn visible(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("starting {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status})");
    }
    Ok(())
}

/// Builds the workspace, as the tests do, so that nothing is built twice.
pub fn build_release() -> Result<()> {
    visible(Command::new("cargo").args(["build", "--release", "--workspace", "--locked"]))
}

/// The program that [`build_release`] built, with so many threads.
pub fn spinexr(threads: u64) -> Command {
    let mut command = Command::new("target/release/spinexr");
    command.arg("--threads").arg(threads.to_string());
    command
}

/// Trains `config` into the folder `run`, with `options` of `spinexr train`. With `resume`, a run that has its bundle is
/// kept, and one that was broken off goes on from its last checkpoint.
pub fn train(config: &str, run: &Path, options: &[String], threads: u64, resume: bool) -> Result<()> {
    let name = Path::new(config).file_stem().with_context(|| format!("{config}: not a file's name"))?;
    let mut command = spinexr(threads);
    command.arg("train");
    if resume && run.join(name).with_extension("spinexr").exists() {
        eprintln!("{}: trained already, kept", run.display());
        return Ok(());
    }
    if resume && run.join("checkpoints/last.ckpt").exists() {
        command.arg(run.join("config.toml")).arg("--resume");
    } else {
        command.arg(config).args(options);
    }
    visible(command.arg("--out").arg(run))
}

/// Options of `spinexr train` for so many steps.
pub fn schedule(steps: Option<u64>) -> Vec<String> {
    let Some(steps) = steps else { return vec![] };
    let set = |key: &str, value: u64| ["--set".to_owned(), format!("schedule.{key}={value}")];
    [set("total_steps", steps), set("warmup_steps", steps / 10)].concat()
}
