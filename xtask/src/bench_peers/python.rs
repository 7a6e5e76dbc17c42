//! The Python stack: its environment and its programs.

use super::output;
use crate::process::visible;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = "benches/peers/requirements.txt";
const SERVE_REQUIREMENTS: &str = "benches/peers/requirements_serve.txt";
const PEERS: &str = "benches/peers/peers.py";
/// The service of `cargo xtask bench-serve`.
const SERVE: &str = "benches/peers/serve.py";
/// The script of a cold start.
pub const COLD_START: &str = "benches/peers/cold_start.py";

/// The interpreter of a virtual environment under `work` with the pinned packages; it is kept between runs, and made
/// anew when the pins change.
pub fn environment(work: &Path) -> Result<PathBuf> {
    let venv = work.join("venv");
    install(&venv, REQUIREMENTS, || {
        eprintln!("xtask: installing the Python stack into {} (some gigabytes, once)", venv.display());
        let venv_text = venv.to_str().context("the target folder's path is not UTF-8")?;
        visible(Command::new("python3").args(["-m", "venv", "--clear", venv_text]))
    })
}

/// The same one, with what [`SERVE`] needs beyond.
pub fn serve_environment(work: &Path) -> Result<PathBuf> {
    environment(work)?;
    install(&work.join("venv"), SERVE_REQUIREMENTS, || Ok(()))
}

/// Installs a requirements file into `venv` after `prepare`, unless the same one is there. Gives the interpreter.
fn install(venv: &Path, requirements: &str, prepare: impl FnOnce() -> Result<()>) -> Result<PathBuf> {
    let wanted = std::fs::read_to_string(requirements)
        .with_context(|| format!("reading {requirements} (run from the repository root)"))?;
    let python = venv.join("bin/python");
    // Written last, so that an installation that was broken off is made again.
    let name = Path::new(requirements).file_name().context("a requirements file has a name")?;
    let installed = venv.join(name);
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    prepare()?;
    let options = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "-r", requirements];
    visible(Command::new(&python).args(options))?;
    std::fs::write(&installed, wanted).with_context(|| format!("writing {}", installed.display()))?;
    Ok(python)
}

/// `peers.py`, with so many threads in every library it may call.
pub fn peers(python: &Path, threads: &str) -> Command {
    script(python, PEERS, threads)
}

/// `serve.py`, with so many threads in every library it may call.
pub fn serve(python: &Path, threads: &str) -> Command {
    script(python, SERVE, threads)
}

fn script(python: &Path, script: &str, threads: &str) -> Command {
    let mut command = Command::new(python);
    for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"] {
        command.env(variable, threads);
    }
    // A core type that somebody forced would slow NumPy down, or make it faster than it comes.
    command.env_remove("OPENBLAS_CORETYPE").arg(script);
    command
}

/// Names and versions of the packages, for people.
pub fn versions(python: &Path) -> Result<String> {
    versions_of(python, REQUIREMENTS)
}

/// The same, with what [`SERVE`] needs beyond.
pub fn serve_versions(python: &Path) -> Result<String> {
    Ok([versions(python)?, versions_of(python, SERVE_REQUIREMENTS)?].join(", "))
}

fn versions_of(python: &Path, requirements: &str) -> Result<String> {
    Ok(output(Command::new(python).args([PEERS, "versions", requirements]))?.trim().to_owned())
}
