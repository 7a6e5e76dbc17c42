//! The run's log: JSON Lines, one record a line, cut back to the checkpoint on resume.

use crate::TrainError;
use crate::checkpoint::Evaluation;
use crate::tensorboard::open_at;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// One optimiser update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Updates made, this one included.
    pub step: u64,
    /// Updates in the whole run.
    pub total: u64,
    /// Sum of the loss parts, mean over the accumulated batches.
    pub loss: f64,
    /// The parts by name.
    pub parts: BTreeMap<String, f64>,
    /// Learning rate of the update, before group multipliers.
    pub lr: f64,
    /// L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Films a second, over the last updates.
    pub films_per_s: f64,
    /// Time left at that rate, seconds.
    pub eta_s: f64,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// An update.
    Step(StepRecord),
    /// An evaluation.
    Evaluation(Evaluation),
}

impl Record {
    /// The record without what depends on the clock, for comparing runs.
    pub fn without_times(mut self) -> Self {
        if let Self::Step(step) = &mut self {
            step.films_per_s = 0.0;
            step.eta_s = 0.0;
        }
        self
    }
}

/// `log.jsonl` open for appending.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    /// Begins a new log.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path) -> Result<Self, TrainError> {
        let file = File::create(path).map_err(TrainError::io(path, "create"))?;
        Ok(Self { path: path.to_owned(), file, bytes: 0 })
    }

    /// Continues a log from its first `bytes` bytes; later lines are dropped.
    ///
    /// # Errors
    /// When the log is shorter than that, or cannot be written.
    pub fn resume(path: &Path, bytes: u64) -> Result<Self, TrainError> {
        let file = open_at(path, bytes)?;
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&mut self, record: &Record) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(record).expect("a record is plain data");
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(TrainError::io(&self.path, "write"))?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Bytes written so far, after making them durable.
    ///
    /// # Errors
    /// When the file cannot be synced.
    pub fn sync(&mut self) -> Result<u64, TrainError> {
        self.file.sync_data().map_err(TrainError::io(&self.path, "sync"))?;
        Ok(self.bytes)
    }
}

/// Reads a log back, for reports.
///
/// # Errors
/// A line that is no record, by its number.
pub fn read(path: &Path) -> Result<Vec<Record>, TrainError> {
    let text = std::fs::read_to_string(path).map_err(TrainError::io(path, "read"))?;
    text.lines()
        .enumerate()
        .map(|(i, line)| {
            serde_json::from_str(line).map_err(|e| TrainError::LogLine {
                path: path.to_owned(),
                line: i + 1,
                message: e.to_string(),
            })
        })
        .collect()
}

/// The updates of a log in order, for loss curves.
///
/// # Errors
/// As [`read`].
pub fn read_log(path: &Path) -> Result<Vec<StepRecord>, TrainError> {
    let steps = read(path)?.into_iter().filter_map(|record| match record {
        Record::Step(step) => Some(step),
        Record::Evaluation(_) => None,
    });
    Ok(steps.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Record {
        Record::Step(StepRecord {
            step,
            total: 3,
            loss: 0.1 + 0.2,
            parts: BTreeMap::from([("bce".into(), 0.3)]),
            lr: 0.01,
            grad_norm: 2.0,
            films_per_s: 5.0,
            eta_s: 1.0,
        })
    }

    #[test]
    fn lines_survive_and_a_resume_cuts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let mut log = Log::create(&path).unwrap();
        log.append(&step(1)).unwrap();
        let at = log.sync().unwrap();
        log.append(&step(2)).unwrap();
        drop(log);
        let evaluation = Record::Evaluation(Evaluation {
            step: 1,
            metric_name: "auroc".into(),
            metric: None,
            others: BTreeMap::new(),
        });
        let mut log = Log::resume(&path, at).unwrap();
        log.append(&evaluation).unwrap();
        drop(log);
        assert_eq!(read(&path).unwrap(), [step(1), evaluation]);
        assert_eq!(read_log(&path).unwrap().len(), 1);
        std::fs::write(&path, "{\"kind\":\"step\"").unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("log.jsonl:1"), "{message}");
    }
}
