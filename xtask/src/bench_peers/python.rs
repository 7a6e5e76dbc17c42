//! The Python stack: its environment and its programs.

use super::output;
use crate::process::visible;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = "benches/peers/requirements.txt";
const PEERS: &str = "benches/peers/peers.py";
/// The script of a cold start.
pub const COLD_START: &str = "benches/peers/cold_start.py";

/// The interpreter of a virtual environment under `work` with the pinned packages; it is kept between runs, and made
/// anew when the pins change.
pub fn environment(work: &Path) -> Result<PathBuf> {
    let wanted = std::fs::read_to_string(REQUIREMENTS)
        .with_context(|| format!("reading {REQUIREMENTS} (run from the repository root)"))?;
    let venv = work.join("venv");
    let python = venv.join("bin/python");
    // Written last, so that an installation that was broken off is made again.
    let installed = venv.join("requirements.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    eprintln!("xtask: installing the Python stack into {} (some gigabytes, once)", venv.display());
    let venv_text = venv.to_str().context("the target folder's path is not UTF-8")?;
    visible(Command::new("python3").args(["-m", "venv", "--clear", venv_text]))?;
    visible(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--only-binary",
        ":all:",
        "-r",
        REQUIREMENTS,
    ]))?;
    std::fs::write(&installed, wanted).with_context(|| format!("writing {}", installed.display()))?;
    Ok(python)
}

/// `peers.py`, with so many threads in every library it may call.
pub fn peers(python: &Path, threads: &str) -> Command {
    let mut command = Command::new(python);
    for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"] {
        command.env(variable, threads);
    }
    // A core type that somebody forced would slow NumPy down, or make it faster than it comes.
    command.env_remove("OPENBLAS_CORETYPE").arg(PEERS);
    command
}

/// Names and versions of the packages, for people.
pub fn versions(python: &Path) -> Result<String> {
    Ok(output(Command::new(python).args([PEERS, "versions", REQUIREMENTS]))?.trim().to_owned())
}
