//! Files: films by their content hash, results by their job. No name from outside ever becomes part of a path.
//!
//! ```text
//! DATA/lock             held by the process that serves
//! DATA/jobs.sqlite      the job store, unless it is in PostgreSQL
//! DATA/node             the node's name, where it is one of several
//! DATA/audit.jsonl      the audit log
//! SPOOL/incoming/NODE/  being received
//! SPOOL/films/ab/abcd….dcm
//! SPOOL/results/ab/abcd…/{record.json,overlay.png,sr.dcm,…}
//! SPOOL/id              what tells this spool from others, where several nodes share it
//! ```
//!
//! SPOOL is `DATA/spool` unless the configuration names another folder.

use crate::config::Config;
use crate::error::ServeError;
use crate::store::Store;
use sha2::{Digest, Sha256};
use spinexr_core::hex;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The data folder, held by this process.
#[derive(Debug)]
pub struct Spool {
    data: PathBuf,
    spool: PathBuf,
    incoming: PathBuf,
    /// Locked as long as it is open, whatever kills the process.
    _lock: File,
}

/// The node's name, made at its first start.
///
/// # Errors
/// [`ServeError::Io`].
pub fn node_name(data_dir: &Path) -> Result<String, ServeError> {
    random_name(&data_dir.join("node"))
}

/// What tells a spool from others, made by the first node that uses it.
///
/// # Errors
/// [`ServeError::Io`].
pub fn spool_id(spool: &Path) -> Result<String, ServeError> {
    random_name(&spool.join("id"))
}

/// The name in a file, made up where there is none.
fn random_name(path: &Path) -> Result<String, ServeError> {
    let io = || ServeError::io(path);
    let folder = path.parent().expect("a file has a folder");
    fs::create_dir_all(folder).map_err(io())?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io()(io::Error::other(error)))?;
    let mut new = NamedTempFile::new_in(folder).map_err(io())?;
    new.write_all(hex(&random).as_bytes()).and_then(|()| new.as_file().sync_all()).map_err(io())?;
    match new.persist_noclobber(path) {
        Ok(_) => sync_folder(folder)?,
        // Made before, or by another node at the same moment.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io()(error.error)),
    }
    Ok(fs::read_to_string(path).map_err(io())?.trim().to_owned())
}

impl Spool {
    /// Makes the folders where they are missing, and takes hold of the data folder.
    ///
    /// # Errors
    /// [`ServeError::InUse`], [`ServeError::Io`].
    pub fn open(config: &Config) -> Result<Self, ServeError> {
        let (data, spool) = (config.data_dir.clone(), config.spool_dir());
        fs::create_dir_all(&data).map_err(ServeError::io(&data))?;
        let path = data.join("lock");
        let lock = File::create(&path).map_err(ServeError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(ServeError::InUse { path: data }),
            Err(fs::TryLockError::Error(source)) => return Err(ServeError::Io { path, source }),
        }
        let incoming = spool.join("incoming").join(match config.store.postgres {
            Some(_) => node_name(&data)?,
            None => "local".into(),
        });
        for folder in [incoming.clone(), spool.join("films"), spool.join("results")] {
            fs::create_dir_all(&folder).map_err(ServeError::io(&folder))?;
        }
        Ok(Self { data, spool, incoming, _lock: lock })
    }

    /// The audit log's file.
    pub fn audit_path(&self) -> PathBuf {
        self.data.join("audit.jsonl")
    }

    /// A file for something that is being received; gone when dropped.
    ///
    /// # Errors
    /// [`ServeError::Io`].
    pub fn incoming(&self) -> Result<NamedTempFile, ServeError> {
        NamedTempFile::new_in(&self.incoming).map_err(ServeError::io(&self.incoming))
    }

    /// The place of a file that the store names.
    pub fn path(&self, stored: &str) -> PathBuf {
        self.spool.join(stored)
    }

    /// Name of a film's file in the store.
    pub fn film_name(film: &str) -> String {
        format!("films/{}/{film}.dcm", &film[..2])
    }

    /// Name of the folder of a job's results.
    pub fn results_name(job: &str) -> String {
        format!("results/{}/{job}", &job[..2])
    }

    /// Gives a received file, already synced, its place, durably. A film that is there stays as it is: it may be being read.
    ///
    /// # Errors
    /// [`ServeError::Io`].
    pub fn keep_film(&self, received: NamedTempFile, film: &str) -> Result<(), ServeError> {
        let path = self.path(&Self::film_name(film));
        let folder = path.parent().expect("a film's path has a folder");
        fs::create_dir_all(folder).map_err(ServeError::io(folder))?;
        if !path.exists() {
            received.persist(&path).map_err(|e| ServeError::Io { path: path.clone(), source: e.error })?;
        }
        // Also of one that is there: who put it there may have been killed before this.
        sync_folder(folder)
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
        let mut remove = |path: PathBuf| {
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            swept += 1;
            gone.map_err(ServeError::io(path))
        };
        for path in entries(&self.incoming)? {
            remove(path)?;
        }
        store.sweep(|kept| {
            for folder in entries(&self.path("incoming"))? {
                if folder != self.incoming && !kept.nodes.contains(name(&folder)) {
                    remove(folder)?;
                }
            }
            for folder in entries(&self.path("films"))? {
                for film in entries(&folder)? {
                    let stored = film.strip_prefix(&self.spool).ok().and_then(Path::to_str);
                    if !stored.is_some_and(|stored| kept.paths.contains(stored)) {
                        remove(film)?;
                    }
                }
            }
            for folder in entries(&self.path("results"))? {
                for results in entries(&folder)? {
                    if !kept.jobs.contains(name(&results)) {
                        remove(results)?;
                    }
                }
            }
            Ok(())
        })?;
        Ok(swept)
    }
}

/// The last part of a path.
fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
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

    fn config(dir: &Path) -> Config {
        Config { data_dir: dir.into(), ..Config::default() }
    }

    #[test]
    fn one_process_holds_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let spool = Spool::open(&config).unwrap();
        assert!(matches!(Spool::open(&config), Err(ServeError::InUse { .. })));
        drop(spool);
        Spool::open(&config).unwrap();
    }

    #[test]
    fn leftovers_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let spool = Spool::open(&config).unwrap();
        let store = Store::of(&config).unwrap();
        let (_, half) = spool.incoming().unwrap().keep().unwrap();
        let film = "ab".repeat(32);
        spool.keep_film(spool.incoming().unwrap(), &film).unwrap();
        let film = spool.path(&Spool::film_name(&film));
        let results = spool.path(&Spool::results_name("00ff"));
        fs::create_dir_all(&results).unwrap();
        // Of a node that does not live any more.
        let other = spool.path("incoming/other");
        fs::create_dir_all(&other).unwrap();
        assert_eq!(spool.sweep(&store).unwrap(), 4);
        assert!(!half.exists() && !film.exists() && !results.exists() && !other.exists());
    }

    #[test]
    fn a_name_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = node_name(dir.path()).unwrap();
        assert_eq!((first.len(), &node_name(dir.path()).unwrap()), (16, &first));
        assert_ne!(spool_id(&dir.path().join("a")).unwrap(), spool_id(&dir.path().join("b")).unwrap());
    }
}
