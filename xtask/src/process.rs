//! Programs that the developer commands start.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Cargo, as a shell would start it. `cargo run`, which runs this program, tells it of its own package in the
/// environment; a cargo started with that has other variables than one from a shell, and every build script that asks
/// for `CARGO_PKG_*` or `CARGO_MANIFEST_DIR` by `rerun-if-env-changed` (ring's) runs anew, with all that depends on it.
pub fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for name in told_by_cargo_run(std::env::vars_os().map(|(name, _)| name)) {
        command.env_remove(name);
    }
    command
}

/// Those of the variables that `cargo run` sets for the program; what steers cargo itself (`CARGO_HOME`,
/// `CARGO_BUILD_JOBS`, `CARGO_TERM_COLOR`, …) stays.
fn told_by_cargo_run(names: impl Iterator<Item = OsString>) -> Vec<OsString> {
    names
        .filter(|name| {
            let name = name.to_string_lossy();
            matches!(&*name, "CARGO" | "CARGO_MANIFEST_DIR" | "CARGO_MANIFEST_PATH")
                || name.starts_with("CARGO_PKG_")
        })
        .collect()
}

/// Runs a command whose messages are for people.
pub fn visible(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("starting {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status})");
    }
    Ok(())
}

/// What cargo prints.
pub fn cargo_says(args: &[&str]) -> Result<String> {
    let output = cargo().args(args).output().with_context(|| format!("starting cargo {}", args[0]))?;
    if !output.status.success() {
        bail!(
            "cargo {} failed ({}): {}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("cargo {} does not speak UTF-8", args[0]))
}

/// Where cargo builds.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()).into()
}

/// Builds the workspace, as the tests do, so that nothing is built twice.
pub fn build_release() -> Result<()> {
    visible(cargo().args(["build", "--release", "--workspace", "--locked"]))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_hears_nothing_of_the_package_that_runs_it() {
        let of_the_package =
            ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION_PRE"];
        let of_the_user = [
            "CARGO_HOME",
            "CARGO_BUILD_JOBS",
            "CARGO_TARGET_DIR",
            "CARGO_TERM_COLOR",
            "CARGO_NET_OFFLINE",
            "PATH",
        ];
        let all = of_the_user.iter().chain(&of_the_package).map(OsString::from);
        assert_eq!(told_by_cargo_run(all), of_the_package);
        // `cargo test` sets them for this test, too.
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        let removed = cargo();
        assert!(removed.get_envs().any(|(name, value)| name == "CARGO_PKG_NAME" && value.is_none()));
    }
}
