//! The films of a run, and the way from a data set's folder to them.

use crate::config::{Experiment, TrainOn};
use crate::error::TrainError;
use crate::ranks::Ranks;
use spinexr_core::progress::OnProgress;
use spinexr_core::{ClassList, FilmAnnotation, Split};
use spinexr_data::{Cache, DataError, FilmFailure, HoldOut, ReadyDataset, SplitDataset, split};
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
    /// The classes of their boxes, in index order.
    pub classes: ClassList,
    /// The studies that the validation films are of.
    pub hold_out: HoldOut,
    /// Films of the data set that could not be prepared; they are in neither list.
    pub left_out: Vec<FilmFailure>,
    /// SHA-256 over the ids, annotations and pixels of both lists, over which is which, and over the classes where
    /// they are not those of VinDr-SpineXR.
    pub hash: String,
}

impl TrainData {
    /// From prepared films, their annotations and classes, the hold-out and the films that could not be prepared.
    ///
    /// # Errors
    /// When a split is empty, a film is not prepared, or a box is of a class that is not listed.
    pub fn new(
        cache: Arc<Cache>,
        train: Vec<FilmAnnotation>,
        validation: Vec<FilmAnnotation>,
        classes: ClassList,
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
        for film in train.iter().chain(&validation) {
            for marked in &film.boxes {
                let unknown = |source| DataError::UnknownLabel { image_id: film.image_id.clone(), source };
                classes.index(&marked.label).map_err(unknown)?;
            }
        }
        let mut parts = vec![cache.data_hash(&train)?, cache.data_hash(&validation)?];
        // Runs on the release's classes began before there were others, and go on with the hash they have.
        if !classes.is_vindr() {
            let names = classes.labels().iter().map(|label| format!("{label}\n"));
            parts.push(names.collect());
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let hash = crate::state::sha256_hex(&parts);
        Ok(Self { cache, train, validation, classes, hold_out, left_out, hash })
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
        let (hold_out, left_out) = (ready.hold_out.clone(), ready.left_out.clone());
        Self::new(Arc::new(cache), train, validation, dataset.classes.clone(), hold_out, left_out)
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
    let split = SplitDataset::read(&data.dir, data.format, data.validation_fraction, data.split_seed)?;
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
