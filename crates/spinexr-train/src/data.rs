//! The films of a run, and the way from a data set's folder to them.

use crate::config::{Experiment, TrainOn};
use crate::error::TrainError;
use spinexr_core::progress::OnProgress;
use spinexr_core::{FilmAnnotation, Split};
use spinexr_data::{Cache, Dataset, cache, split, vindr};
use spinexr_dicom::ReadOptions;
use std::sync::Arc;

/// Films ready to train on.
#[derive(Debug, Clone)]
pub struct TrainData {
    /// Prepared films of the model's input size.
    pub cache: Arc<Cache>,
    /// Films to train on.
    pub train: Vec<FilmAnnotation>,
    /// Films to choose the best weights on.
    pub validation: Vec<FilmAnnotation>,
    /// SHA-256 over the ids, annotations and pixels of all of them, and over which is which.
    pub hash: String,
}

impl TrainData {
    /// From prepared films and their annotations.
    ///
    /// # Errors
    /// When a split is empty or a film is not prepared.
    pub fn new(
        cache: Arc<Cache>,
        train: Vec<FilmAnnotation>,
        validation: Vec<FilmAnnotation>,
    ) -> Result<Self, TrainError> {
        for (films, split) in [(&train, Split::Train), (&validation, Split::Validation)] {
            if films.is_empty() {
                return Err(TrainError::NoFilms { split });
            }
        }
        let hash = crate::state::sha256_hex(&[&cache.data_hash(&train)?, &cache.data_hash(&validation)?]);
        Ok(Self { cache, train, validation, hash })
    }

    /// From a data set that is split and prepared already, with the films that `experiment` trains on.
    ///
    /// # Errors
    /// When there is no prepared cache for the experiment's input, a split is empty, or studies leak.
    pub fn open(experiment: &Experiment, dataset: &Dataset) -> Result<Self, TrainError> {
        split::check_leakage(dataset)?;
        let cache = Cache::open(&experiment.data.cache_dir, &experiment.model.input, experiment.data.policy)?;
        let mut train = dataset.annotations(Split::Train);
        if experiment.data.train_on == TrainOn::WithBoxes {
            train.retain(|film| !film.boxes.is_empty());
        }
        Self::new(Arc::new(cache), train, dataset.annotations(Split::Validation))
    }
}

/// Reads the experiment's data set, holds validation studies out, checks for leakage, prepares what is not
/// prepared yet, and opens it.
///
/// Only training and validation films are prepared: test films have no part in training.
///
/// # Errors
/// Broken annotations, a film that cannot be prepared, or a full disk.
pub fn load(
    experiment: &Experiment,
    threads: usize,
    on_progress: OnProgress<'_>,
) -> Result<TrainData, TrainError> {
    let mut dataset = vindr::read(&experiment.data.dir)?;
    split::hold_out_validation(&mut dataset, experiment.data.validation_fraction, experiment.seed)?;
    split::check_leakage(&dataset)?;
    dataset.films.retain(|film| film.split != Split::Test);
    let options = ReadOptions { policy: experiment.data.policy, ..ReadOptions::default() };
    let inputs = [experiment.model.input];
    let outcome =
        cache::prepare(&dataset, &experiment.data.cache_dir, &inputs, &options, threads, on_progress)?;
    if let Some(first) = outcome.failures.first() {
        return Err(TrainError::NotPrepared {
            failed: outcome.failures.len(),
            total: dataset.films.len(),
            first: format!("{}: {}", first.path.display(), first.error),
        });
    }
    TrainData::open(experiment, &dataset)
}
