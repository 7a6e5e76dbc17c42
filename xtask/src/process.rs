//! Programs that the developer commands start.

use anyhow::{Context, Result, bail};
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
