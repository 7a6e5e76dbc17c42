//! Filling a prepared cache: every film is decoded once and resized to every input asked for.

use crate::cache_index::{
    Appender, Folder, Header, Index, PixelDepth, Record, SourceStamp, read_bytes, read_index,
};
use crate::error::{panic_message, reading, writing};
use crate::parallel::in_parallel;
use crate::{DataError, Dataset, Film, InputSize, prepare_film};
use serde::Serialize;
use sha2::{Digest, Sha256};
use spinexr_core::hex;
use spinexr_core::progress::{OnProgress, Progress};
use spinexr_dicom::{ReadOptions, read_film};
use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// A film that could not be prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FilmFailure {
    /// Image id.
    pub image_id: String,
    /// Its file.
    pub path: PathBuf,
    /// Why, in words, the file among them.
    pub error: String,
}

/// What [`prepare`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrepareOutcome {
    /// Films decoded now.
    pub prepared: usize,
    /// Films that were already there, unchanged.
    pub reused: usize,
    /// Prepared films that were found torn, damaged or outdated, and were dropped to be made again.
    pub dropped: usize,
    /// Films that could not be read, in the data set's order; all others are in the cache.
    pub failures: Vec<FilmFailure>,
}

/// Decodes every film of `dataset` that is not yet in the cache under `dir` and resizes it to all `inputs`.
///
/// Films are decoded on `threads` threads, one film a thread in memory. A run that was killed at any moment is
/// taken up again where it stopped; all that is there is checked against its checksums first. A film whose
/// file has changed since is made again. A film that cannot be read is listed in the outcome, and the rest
/// goes on. `on_progress` is called on the calling thread.
///
/// # Errors
/// [`DataError::Setting`] for no input or one out of range, [`DataError::ImageTwice`],
/// [`DataError::CacheBusy`] when another process is at it, [`DataError::Read`] and [`DataError::Write`] for the
/// cache's own files.
pub fn prepare(
    dataset: &Dataset,
    dir: &Path,
    inputs: &[InputSize],
    read: &ReadOptions,
    threads: usize,
    on_progress: OnProgress<'_>,
) -> Result<PrepareOutcome, DataError> {
    prepare_as(dataset, dir, inputs, read, None, threads, on_progress)
}

/// As [`prepare`], with a grey value kept in `depth`; `None` keeps to the depth of the films that are there, and
/// begins with 16 bits. Films of another depth are made again.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_as(
    dataset: &Dataset,
    dir: &Path,
    inputs: &[InputSize],
    read: &ReadOptions,
    depth: Option<PixelDepth>,
    threads: usize,
    on_progress: OnProgress<'_>,
) -> Result<PrepareOutcome, DataError> {
    let inputs = distinct(inputs)?;
    dataset.refuse_same_ids()?;
    let stamps: HashMap<&str, SourceStamp> = dataset
        .films
        .iter()
        // A film without a stamp is left to fail, with its reason, when it is read.
        .filter_map(|f| Some((f.annotation.image_id.as_str(), SourceStamp::of(&f.path).ok()?)))
        .collect();

    let mut outcome = PrepareOutcome::default();
    let (mut appenders, mut ready, mut locks) = (Vec::new(), Vec::new(), Vec::new());
    for input in &inputs {
        let store = open_store(dir, input, read, depth, &stamps, threads)?;
        outcome.dropped += store.dropped;
        appenders.push(store.appender);
        ready.push(store.ready);
        locks.push(store.lock);
    }
    let depths: Vec<PixelDepth> = appenders.iter().map(Appender::depth).collect();
    // Inputs that a film still lacks.
    let wanted = |film: &Film| -> Vec<usize> {
        (0..inputs.len()).filter(|&k| !ready[k].contains(&film.annotation.image_id)).collect()
    };
    let todo: Vec<&Film> = dataset.films.iter().filter(|f| !wanted(f).is_empty()).collect();
    outcome.reused = dataset.films.len() - todo.len();

    let total = dataset.films.len();
    let mut done = outcome.reused;
    on_progress(Progress { done, total });
    let mut failures: Vec<(usize, FilmFailure)> = Vec::new();
    let job = |i: usize| {
        catch_unwind(AssertUnwindSafe(|| decode(todo[i], &inputs, &depths, &wanted(todo[i]), read)))
            .unwrap_or_else(|panic| {
                let (path, message) = (todo[i].path.display(), panic_message(panic.as_ref()));
                Err(format!("{path}: the reader panicked: {message}"))
            })
    };
    let appended = in_parallel(todo.len(), threads, job, |i, made| {
        match made {
            Ok(entries) => {
                for entry in entries {
                    appenders[entry.input].append(entry.record, &entry.bytes)?;
                }
                outcome.prepared += 1;
            }
            Err(error) => {
                let image_id = todo[i].annotation.image_id.clone();
                failures.push((i, FilmFailure { image_id, path: todo[i].path.clone(), error }));
            }
        }
        done += 1;
        on_progress(Progress { done, total });
        Ok(())
    });
    // What was appended before an error stays of use: bring it to the disk, then tell of the error.
    for appender in &mut appenders {
        appender.sync()?;
    }
    appended?;
    drop(locks);
    failures.sort_by_key(|(i, _)| *i);
    outcome.failures = failures.into_iter().map(|(_, f)| f).collect();
    Ok(outcome)
}

/// The inputs without repetitions.
fn distinct(inputs: &[InputSize]) -> Result<Vec<InputSize>, DataError> {
    let mut distinct: Vec<InputSize> = Vec::new();
    for input in inputs {
        input.check()?;
        if !distinct.contains(input) {
            distinct.push(*input);
        }
    }
    if distinct.is_empty() {
        let expected = "at least one";
        return Err(DataError::Setting { name: "inputs", expected, found: "none".to_owned() });
    }
    Ok(distinct)
}

/// One film at one input size, ready to append.
struct Entry {
    /// Index of the input.
    input: usize,
    record: Record,
    bytes: Vec<u8>,
}

fn decode(
    film: &Film,
    inputs: &[InputSize],
    depths: &[PixelDepth],
    wanted: &[usize],
    read: &ReadOptions,
) -> Result<Vec<Entry>, String> {
    // Taken before reading: a file that changes meanwhile is found outdated the next time.
    let source = SourceStamp::of(&film.path).map_err(|e| e.to_string())?;
    let radiograph = read_film(&film.path, read).map_err(|e| e.to_string())?;
    let provenance = serde_json::to_value(&radiograph.provenance).map_err(|e| e.to_string())?;
    let entry = |&input: &usize| {
        let prepared = prepare_film(&radiograph, &inputs[input]);
        let bytes = depths[input].to_bytes(&prepared.pixels);
        let sha256 = hex(&Sha256::digest(&bytes));
        let record = Record {
            image_id: film.annotation.image_id.clone(),
            offset: 0, // set when it is appended
            crc32: crc32fast::hash(&bytes),
            sha256,
            film_height_px: prepared.film_height_px,
            film_width_px: prepared.film_width_px,
            source,
            provenance: provenance.clone(),
            facts: radiograph.facts(),
        };
        Entry { input, record, bytes }
    };
    Ok(wanted.iter().map(entry).collect())
}

/// A cache folder, locked and cleared of what is of no use.
struct OpenStore {
    appender: Appender,
    /// Films that are there, sound and up to date.
    ready: HashSet<String>,
    dropped: usize,
    /// Held until the films are on the disk; the system lets go of it when the process dies.
    lock: File,
}

fn open_store(
    dir: &Path,
    input: &InputSize,
    read: &ReadOptions,
    depth: Option<PixelDepth>,
    stamps: &HashMap<&str, SourceStamp>,
    threads: usize,
) -> Result<OpenStore, DataError> {
    let folder = Folder::new(dir, read.policy, input);
    std::fs::create_dir_all(&folder.path).map_err(writing(&folder.path))?;
    let lock_path = folder.lock();
    let lock = File::create(&lock_path).map_err(writing(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        // Some network file systems know no locks; films are none the worse for it.
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
        Err(TryLockError::WouldBlock) => return Err(DataError::CacheBusy { path: lock_path }),
        Err(TryLockError::Error(source)) => return Err(DataError::Write { path: lock_path, source }),
    }

    let found = read_index(&folder, input)?;
    let there = found.as_ref().and_then(|index| Some(index.header.as_ref()?.depth));
    let header = Header::new(read.policy, read.frame, *input, depth.or(there).unwrap_or_default());
    let there_before = found.as_ref().map(|index| index.records.len() + index.unsound);
    let same_header = found.as_ref().is_some_and(|index| index.header.as_ref() == Some(&header));
    let mut kept = match found {
        Some(index) if same_header => latest(index),
        _ => Vec::new(),
    };
    kept.retain(|r| stamps.get(r.image_id.as_str()).is_none_or(|stamp| *stamp == r.source));
    let sound = sound_records(&folder, input, header.depth, &kept, threads)?;
    let mut sound = sound.into_iter();
    kept.retain(|_| sound.next().unwrap_or(false));

    let rewrite = !same_header || there_before != Some(kept.len());
    let appender = Appender::open(&folder, &header, &kept, rewrite)?;
    let dropped = there_before.unwrap_or(0) - kept.len();
    let ready = kept.into_iter().map(|r| r.image_id).collect();
    Ok(OpenStore { appender, ready, dropped, lock })
}

/// The last record of each film.
fn latest(index: Index) -> Vec<Record> {
    let mut last: HashMap<String, usize> = HashMap::new();
    for (i, record) in index.records.iter().enumerate() {
        last.insert(record.image_id.clone(), i);
    }
    index.records.into_iter().enumerate().filter(|(i, r)| last[&r.image_id] == *i).map(|(_, r)| r).collect()
}

/// For each record, whether its pixels have the checksum they were written with.
fn sound_records(
    folder: &Folder,
    input: &InputSize,
    depth: PixelDepth,
    records: &[Record],
    threads: usize,
) -> Result<Vec<bool>, DataError> {
    const FILMS_A_JOB: usize = 64;
    let path = folder.pixels(depth);
    let jobs: Vec<&[Record]> = records.chunks(FILMS_A_JOB).collect();
    let mut sound = vec![false; records.len()];
    let check = |job: usize| -> Result<Vec<bool>, DataError> {
        let mut file = File::open(&path).map_err(reading(&path))?;
        let mut bytes = vec![0u8; depth.film_bytes(input) as usize];
        jobs[job]
            .iter()
            .map(|record| {
                read_bytes(&mut file, record.offset, &mut bytes).map_err(reading(&path))?;
                Ok(crc32fast::hash(&bytes) == record.crc32)
            })
            .collect()
    };
    in_parallel(jobs.len(), threads, check, |job, found| {
        let found = found?;
        sound[job * FILMS_A_JOB..][..found.len()].copy_from_slice(&found);
        Ok::<(), DataError>(())
    })?;
    Ok(sound)
}
