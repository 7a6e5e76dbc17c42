//! The films of a run, and the way from a data set's folder to them.

use crate::config::{Experiment, TrainOn};
use crate::error::TrainError;
use crate::ranks::Ranks;
use spinexr_core::progress::OnProgress;
use spinexr_core::{FilmAnnotation, Split};
use spinexr_data::{Cache, FilmFailure, HoldOut, ReadyDataset, SplitDataset, split};
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
    /// The studies that the validation films are of.
    pub hold_out: HoldOut,
    /// Films of the data set that could not be prepared; they are in neither list.
    pub left_out: Vec<FilmFailure>,
    /// SHA-256 over the ids, annotations and pixels of both lists, and over which is which.
    pub hash: String,
}

impl TrainData {
    /// From prepared films, their annotations, the hold-out and the films that could not be prepared.
    ///
    /// # Errors
    /// When a split is empty or a film is not prepared.
    pub fn new(
        cache: Arc<Cache>,
        train: Vec<FilmAnnotation>,
        validation: Vec<FilmAnnotation>,
        hold_out: HoldOut,
        left_out: Vec<FilmFailure>,
    ) -> Result<Self, TrainError> {
        for (films, split) in [(&train, Split::Train), (&validation, Split::Validation)] {
            if films.is_empty() {
                return Err(match left_out.first() {
                    None => TrainError::NoFilms { split },
                    Some(first) => {
                        let (failed, first) = (left_out.len(), first.error.clone());
                        TrainError::NonePrepared { split, failed, first }
                    }
                });
            }
        }
        let hash = crate::state::sha256_hex(&[&cache.data_hash(&train)?, &cache.data_hash(&validation)?]);
        Ok(Self { cache, train, validation, hold_out, left_out, hash })
    }

    /// From a data set that is split and prepared already, with the films that `experiment` trains on.
    ///
    /// # Errors
    /// When there is no prepared cache for the experiment's input, a split is empty, or studies leak.
    pub fn open(experiment: &Experiment, ready: &ReadyDataset) -> Result<Self, TrainError> {
        let dataset = &ready.dataset;
        split::check_leakage(dataset)?;
        let cache = Cache::open(&experiment.data.cache_dir, &experiment.model.input, experiment.data.policy)?;
        let mut train = dataset.annotations(Split::Train);
        if experiment.data.train_on == TrainOn::WithBoxes {
            train.retain(|film| !film.boxes.is_empty());
        }
        let validation = dataset.annotations(Split::Validation);
        Self::new(Arc::new(cache), train, validation, ready.hold_out.clone(), ready.left_out.clone())
    }
}

/// Reads the experiment's data set, holds validation studies out, checks for leakage, prepares what is not
/// prepared yet, and opens it. Films that cannot be prepared are left out and listed.
///
/// Only training and validation films are prepared: test films have no part in training. Of several processes the
/// first prepares and the others open its cache, which they must all see.
///
/// # Errors
/// Broken annotations, a split without a film, or a full disk.
pub fn load(
    experiment: &Experiment,
    ranks: &Ranks,
    threads: usize,
    on_progress: OnProgress<'_>,
) -> Result<TrainData, TrainError> {
    let data = &experiment.data;
    let split = SplitDataset::read(&data.dir, data.validation_fraction, data.split_seed)?;
    let splits = [Split::Train, Split::Validation];
    let inputs = [(data.policy, experiment.model.input)];
    let ready = if ranks.is_first() {
        let ready = split.prepare(&splits, &data.cache_dir, &inputs, threads, on_progress)?;
        ranks.wait();
        ready
    } else {
        ranks.wait();
        split.prepared(&splits, &data.cache_dir, &inputs)?
    };
    TrainData::open(experiment, &ready)
}
