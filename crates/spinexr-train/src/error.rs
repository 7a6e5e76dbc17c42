//! Errors of training.

use crate::checkpoint::CheckpointFault;
use crate::config_error::ConfigError;
use crate::optim::UnusedGroup;
use spinexr_data::DataError;
use spinexr_models::weights::WeightsError;
use spinexr_ops::Precision;
use std::io;
use std::path::{Path, PathBuf};

/// What is wrong with a file of weights; some errors name the file themselves.
fn of_file(path: &Path, error: &WeightsError) -> String {
    let (path, error) = (path.display().to_string(), error.to_string());
    if error.starts_with(&path) { error } else { format!("{path}: {error}") }
}

/// Why a training run did not start, stopped or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The experiment is not in order.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Films, annotations or the prepared cache.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A learning-rate group fits no parameter.
    #[error(transparent)]
    Group(#[from] UnusedGroup),
    /// Weights to begin with, or those of a checkpoint, do not fit the model.
    #[error("{}", of_file(path, source))]
    Weights {
        /// The file.
        path: PathBuf,
        /// What differs.
        source: WeightsError,
    },
    /// A start of parameter names fits none.
    #[error("{key}: expected the start of a parameter's name, found {prefix:?}, which fits none")]
    UnusedPrefix {
        /// Key of the experiment.
        key: &'static str,
        /// The prefix.
        prefix: String,
    },
    /// A file of the run.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A checkpoint is damaged or of another version.
    #[error("{}: {fault}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: CheckpointFault,
    },
    /// A log is shorter than its checkpoint says.
    #[error("{}: expected at least {expected} bytes as at the checkpoint, found {got}", path.display())]
    LogTooShort {
        /// The log.
        path: PathBuf,
        /// Bytes at the checkpoint.
        expected: u64,
        /// Bytes now.
        got: u64,
    },
    /// A line of a log is no record.
    #[error("{}:{line}: expected a log record: {message}", path.display())]
    LogLine {
        /// The log.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What was found.
        message: String,
    },
    /// The device does not compute in the experiment's precision.
    #[error(
        "training.precision: expected one that the device computes in, found \"{precision}\", which {device} does not; \
         train with training.precision=f32, or on a device that has it"
    )]
    Precision {
        /// The experiment's.
        precision: Precision,
        /// The engine's name of the device.
        device: String,
    },
    /// There is a run already.
    #[error("{}: expected a new or empty folder, found a run; continue it with --resume or choose another folder", path.display())]
    RunExists {
        /// The run's folder.
        path: PathBuf,
    },
    /// There is nothing to resume.
    #[error("{}: expected a checkpoint to resume from, found none; start without --resume", path.display())]
    NothingToResume {
        /// The missing checkpoint.
        path: PathBuf,
    },
    /// The experiment is not that of the run to be resumed.
    #[error("{}: cannot resume with another experiment: {key} was {was}, is now {now}", path.display())]
    ExperimentDiffers {
        /// The checkpoint.
        path: PathBuf,
        /// Dotted key.
        key: String,
        /// Value in the checkpoint.
        was: String,
        /// Value now.
        now: String,
    },
    /// The films are not those of the run to be resumed.
    #[error("{}: cannot resume with other films: their hash was {was}, is now {now}", path.display())]
    DataDiffers {
        /// The checkpoint.
        path: PathBuf,
        /// Hash in the checkpoint.
        was: String,
        /// Hash now.
        now: String,
    },
    /// The run to be resumed was of another number of processes: its batches were other ones.
    #[error("{}: cannot resume with {now} processes: it was trained by {was}", path.display())]
    RankCountDiffers {
        /// The checkpoint.
        path: PathBuf,
        /// Processes at the checkpoint.
        was: usize,
        /// Processes now.
        now: usize,
    },
    /// The processes that train together have not the same of something.
    #[error(
        "expected the same {what} in all {size} processes, found others; process {rank} has SHA-256 {hash}"
    )]
    RanksDiffer {
        /// `experiment`, `films`, `checkpoint`, `weights`.
        what: &'static str,
        /// Number of this process, from 0.
        rank: usize,
        /// Processes.
        size: usize,
        /// Hash of what this one has.
        hash: String,
    },
    /// A loss or gradient is NaN or infinite.
    #[error("step {step}: {part} is {value}, expected a finite number; films of the batch: {}", image_ids.join(", "))]
    NotFinite {
        /// The update that was being computed, from 1.
        step: u64,
        /// `loss bce`, `loss classification`, `gradient of conv0.weight`.
        part: String,
        /// NaN or an infinity.
        value: String,
        /// The films that went into the update.
        image_ids: Vec<String>,
    },
    /// No film to train or validate on.
    #[error("expected at least one film in the {split} split, found none")]
    NoFilms {
        /// `train` or `validation`.
        split: spinexr_core::Split,
    },
    /// As [`Self::NoFilms`], after films could not be prepared.
    #[error(
        "expected at least one film in the {split} split, found none: {failed} films could not be prepared; the first: {first}"
    )]
    NonePrepared {
        /// `train` or `validation`.
        split: spinexr_core::Split,
        /// Films that failed, of both splits.
        failed: usize,
        /// Error of the first.
        first: String,
    },
}

impl TrainError {
    /// For `map_err` on file operations.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}
