//! The folder of a run.
//!
//! ```text
//! config.toml              the experiment as resolved
//! manifest.json            experiment, seed, data hash, hold-out, films left out, code version, device, state, weights hash
//! log.jsonl                one line an update or evaluation
//! events.out.tfevents.…    the same scalars for TensorBoard
//! checkpoints/last.ckpt    everything a resume needs
//! checkpoints/best.ckpt    weights of the best evaluation
//! ```

use crate::checkpoint::Evaluation;
use crate::config::Experiment;
use crate::error::TrainError;
use crate::tensorboard;
use serde::{Deserialize, Serialize};
use spinexr_core::whole_file;
use spinexr_data::{FilmFailure, HoldOut};
use std::path::{Path, PathBuf};

/// Paths of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    /// The folder.
    pub root: PathBuf,
}

impl RunDir {
    /// The run in `root`; nothing is touched.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The experiment as resolved.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// What made the weights.
    pub fn manifest(&self) -> PathBuf {
        self.root.join("manifest.json")
    }

    /// The log.
    pub fn log(&self) -> PathBuf {
        self.root.join("log.jsonl")
    }

    /// TensorBoard's events.
    pub fn events(&self) -> PathBuf {
        self.root.join(tensorboard::FILE_NAME)
    }

    /// The checkpoint that a resume starts from. A run exists when it does.
    pub fn last(&self) -> PathBuf {
        self.root.join("checkpoints").join("last.ckpt")
    }

    /// The checkpoint with the best weights, for reading only.
    pub fn best(&self) -> PathBuf {
        self.root.join("checkpoints").join("best.ckpt")
    }

    /// Makes the folders, unless there is a run already.
    pub(crate) fn create(&self) -> Result<(), TrainError> {
        if self.last().exists() {
            return Err(TrainError::RunExists { path: self.root.clone() });
        }
        let checkpoints = self.root.join("checkpoints");
        std::fs::create_dir_all(&checkpoints).map_err(TrainError::io(&checkpoints, "create the folder"))
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// In progress, or killed.
    Running,
    /// Stopped early, to be resumed.
    Stopped,
    /// All steps made, or its time used up.
    Finished,
}

/// Films of the data set that could not be prepared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// How many.
    pub count: usize,
    /// Which.
    pub image_ids: Vec<String>,
}

impl LeftOut {
    pub(crate) fn of(failures: &[FilmFailure]) -> Self {
        let image_ids: Vec<String> = failures.iter().map(|failure| failure.image_id.clone()).collect();
        Self { count: image_ids.len(), image_ids }
    }
}

/// What made the weights, written at the start and at the end of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The experiment as resolved.
    pub experiment: Experiment,
    /// Its seed.
    pub seed: u64,
    /// Hash of films, annotations and split.
    pub data_hash: String,
    /// Films that are not among them because they could not be prepared.
    pub left_out: LeftOut,
    /// The studies held out for validation.
    pub hold_out: HoldOut,
    /// Version of the program.
    pub code_version: String,
    /// The engine's device.
    pub device: String,
    /// Processes that train together.
    pub ranks: usize,
    /// Where the run stands.
    pub state: RunState,
    /// Updates made.
    pub steps: u64,
    /// The best evaluation.
    pub best: Option<Evaluation>,
    /// Hash of the weights handed over: the best evaluation's.
    pub weights_hash: Option<String>,
    /// Hash of the weights (averaged, where there is an average) after the last update.
    pub final_weights_hash: Option<String>,
}

impl Manifest {
    pub(crate) fn write(&self, run: &RunDir) -> Result<(), TrainError> {
        let mut json = serde_json::to_string_pretty(self).expect("a manifest is plain data");
        json.push('\n');
        let path = run.manifest();
        whole_file::write(&path, json.as_bytes()).map_err(TrainError::io(&path, "write"))
    }
}
