//! Files that appear whole or not at all.

use crate::EvalError;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes `bytes` under a temporary name beside `path`, flushes them to the disk and renames.
///
/// # Errors
/// [`EvalError::Io`] with the path; nothing is left behind under `path` then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), EvalError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary: PathBuf = path.with_file_name(name);
    let attempt = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    attempt().map_err(|source| {
        // The first error is the one to tell; a leftover that cannot be removed changes nothing.
        let _ = fs::remove_file(&temporary);
        EvalError::Io { path: path.to_owned(), source }
    })
}

/// The text of a file, with a byte order mark removed.
pub(crate) fn read_text(path: &Path) -> Result<String, EvalError> {
    let text = fs::read_to_string(path).map_err(|source| EvalError::Io { path: path.to_owned(), source })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent").join("report.json");
        let error = write_whole(&path, b"{}").unwrap_err().to_string();
        assert!(error.contains("report.json"), "{error}");
        write_whole(&dir.path().join("a.json"), b"{}").unwrap();
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["a.json"]);
    }
}
