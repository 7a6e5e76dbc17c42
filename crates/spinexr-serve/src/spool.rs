//! Files: films by their content hash, results by their job. No name from outside ever becomes part of a path.
//!
//! ```text
//! DATA/lock             held by the process that serves
//! DATA/jobs.sqlite      the job store
//! DATA/audit.jsonl      the audit log
//! DATA/spool/incoming/  being received
//! DATA/spool/films/ab/abcd….dcm
//! DATA/spool/results/ab/abcd…/{record.json,overlay.png,sr.dcm,…}
//! ```

use crate::error::ServeError;
use crate::store::Store;
use sha2::{Digest, Sha256};
use spinexr_core::hex;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The data folder, held by this process.
#[derive(Debug)]
pub struct Spool {
    root: PathBuf,
    /// Locked as long as it is open, whatever kills the process.
    _lock: File,
}

/// The file of a data folder that a row of its store names.
pub fn stored_file(data_dir: &Path, stored: &str) -> PathBuf {
    data_dir.join("spool").join(stored)
}

impl Spool {
    /// Makes the folder where it is missing, and takes hold of it.
    ///
    /// # Errors
    /// [`ServeError::InUse`], [`ServeError::Io`].
    pub fn open(root: &Path) -> Result<Self, ServeError> {
        for folder in ["spool/incoming", "spool/films", "spool/results"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(ServeError::io(&folder))?;
        }
        let path = root.join("lock");
        let lock = File::create(&path).map_err(ServeError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(ServeError::InUse { path: root.to_owned() }),
            Err(fs::TryLockError::Error(source)) => Err(ServeError::Io { path, source }),
        }
    }

    /// The job store's file.
    pub fn store_path(&self) -> PathBuf {
        self.root.join("jobs.sqlite")
    }

    /// The audit log's file.
    pub fn audit_path(&self) -> PathBuf {
        self.root.join("audit.jsonl")
    }

    /// A file for something that is being received; gone when dropped.
    ///
    /// # Errors
    /// [`ServeError::Io`].
    pub fn incoming(&self) -> Result<NamedTempFile, ServeError> {
        let folder = self.root.join("spool/incoming");
        NamedTempFile::new_in(&folder).map_err(ServeError::io(folder))
    }

    /// The place of a file that the store names.
    pub fn path(&self, stored: &str) -> PathBuf {
        stored_file(&self.root, stored)
    }

    /// Name of a film's file in the store.
    pub fn film_name(film: &str) -> String {
        format!("films/{}/{film}.dcm", &film[..2])
    }

    /// Name of the folder of a job's results.
    pub fn results_name(job: &str) -> String {
        format!("results/{}/{job}", &job[..2])
    }

    /// Gives a received file, already synced, its place, durably.
    ///
    /// # Errors
    /// [`ServeError::Io`].
    pub fn keep_film(&self, received: NamedTempFile, film: &str) -> Result<String, ServeError> {
        let name = Self::film_name(film);
        let path = self.path(&name);
        let folder = path.parent().expect("a film's path has a folder");
        fs::create_dir_all(folder).map_err(ServeError::io(folder))?;
        received.persist(&path).map_err(|e| ServeError::Io { path: path.clone(), source: e.error })?;
        sync_folder(folder)?;
        Ok(name)
    }

    /// Deletes a film's files and its jobs' results. What is gone already is no error.
    ///
    /// # Errors
    /// [`ServeError::Io`].
    pub fn remove(&self, paths: &[String], jobs: &[String]) -> Result<(), ServeError> {
        let gone = |result: io::Result<()>, path: PathBuf| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ServeError::io(path)(error)),
            _ => Ok(()),
        };
        for path in paths.iter().map(|p| self.path(p)) {
            gone(fs::remove_file(&path), path)?;
        }
        for folder in jobs.iter().map(|job| self.path(&Self::results_name(job))) {
            gone(fs::remove_dir_all(&folder), folder)?;
        }
        Ok(())
    }

    /// Takes away what a killed process left behind: half received files, films without a row, results of jobs that did
    /// not finish. Says how many files and folders that were.
    ///
    /// # Errors
    /// [`ServeError::Io`], [`ServeError::Store`].
    pub fn sweep(&self, store: &Store) -> Result<usize, ServeError> {
        let mut swept = 0;
        for path in entries(&self.path("incoming"))? {
            fs::remove_file(&path).map_err(ServeError::io(path))?;
            swept += 1;
        }
        let known: BTreeSet<PathBuf> = store.paths()?.iter().map(|p| self.path(p)).collect();
        for folder in entries(&self.path("films"))? {
            for film in entries(&folder)? {
                if !known.contains(&film) {
                    fs::remove_file(&film).map_err(ServeError::io(film))?;
                    swept += 1;
                }
            }
        }
        for folder in entries(&self.path("results"))? {
            for results in entries(&folder)? {
                let job = results.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                if !store.job(job)?.is_some_and(|job| job.state == crate::store::JobState::Done) {
                    fs::remove_dir_all(&results).map_err(ServeError::io(results))?;
                    swept += 1;
                }
            }
        }
        Ok(swept)
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ServeError> {
    let entries = fs::read_dir(folder).map_err(ServeError::io(folder))?;
    entries.map(|entry| Ok(entry.map_err(ServeError::io(folder))?.path())).collect()
}

/// Makes a new name durable.
fn sync_folder(folder: &Path) -> Result<(), ServeError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(ServeError::io(folder))
}

/// What identifies an instance: SHA-256 of its transfer syntax and its data set. The file meta information has no part in
/// it, so that a film is the same whether it came by C-STORE or as a file.
///
/// # Errors
/// What the disk says.
pub fn content_id(file: &mut File, transfer_syntax: &str, data_set_start: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(transfer_syntax.as_bytes());
    hash.update([0]);
    file.seek(SeekFrom::Start(data_set_start))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What identifies a job: film and model.
pub fn job_id(film: &str, model: &str) -> String {
    hex(&Sha256::digest(format!("{film} {model}").as_bytes())[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        assert!(matches!(Spool::open(dir.path()), Err(ServeError::InUse { .. })));
        drop(spool);
        Spool::open(dir.path()).unwrap();
    }

    #[test]
    fn leftovers_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let store = Store::open(&spool.store_path()).unwrap();
        let (_, half) = spool.incoming().unwrap().keep().unwrap();
        let film = "ab".repeat(32);
        let name = spool.keep_film(spool.incoming().unwrap(), &film).unwrap();
        let results = spool.path(&Spool::results_name("00ff"));
        fs::create_dir_all(&results).unwrap();
        assert_eq!(spool.sweep(&store).unwrap(), 3);
        assert!(!half.exists() && !spool.path(&name).exists() && !results.exists());
    }
}
