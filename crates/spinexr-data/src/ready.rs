//! From a data set's folder to films that a model can see: read, validation studies held out, leakage checked,
//! films prepared, boxes clipped to their films. Training, prediction on a data set and the demo take this one way.
//!
//! Studies are held out by the annotation files alone, before any film is opened: whether a film can be read
//! today must not move a study from one split to another.

use crate::cache::{self, Cache, FilmFailure};
use crate::formats::{self, Format};
use crate::vindr::VindrOptions;
use crate::{DataError, Dataset, HoldOut, InputSize, split};
use spinexr_core::Split;
use spinexr_core::progress::OnProgress;
use spinexr_dicom::{Policy, ReadOptions};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// A data set that is read and split; none of its films was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitDataset {
    /// Films of all splits.
    pub dataset: Dataset,
    /// The studies that are its validation films.
    pub hold_out: HoldOut,
}

/// A data set whose films are all in the prepared cache.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadyDataset {
    /// The films of the splits asked for, but for those left out; boxes clipped to their films.
    pub dataset: Dataset,
    /// The studies held out for validation, whether or not their films could be prepared.
    pub hold_out: HoldOut,
    /// Films of these splits that could not be prepared.
    pub left_out: Vec<FilmFailure>,
}

impl SplitDataset {
    /// Reads `dir` in the format named, or the one it is laid out in, holds validation studies out and checks that no
    /// study is in two splits. A data set that has a validation part of its own keeps it: fraction and seed are then of
    /// no use.
    ///
    /// # Errors
    /// As [`formats::read`], [`split::hold_out_validation`] and [`split::check_leakage`].
    pub fn read(
        dir: &Path,
        format: Option<Format>,
        validation_fraction: f64,
        split_seed: u64,
    ) -> Result<Self, DataError> {
        let mut dataset = formats::read(dir, format)?;
        let has_own = dataset.of(Split::Validation).next().is_some();
        let hold_out = if has_own {
            HoldOut::of_own_part(&dataset)
        } else {
            split::hold_out_validation(&mut dataset, validation_fraction, split_seed)?
        };
        split::check_leakage(&dataset)?;
        Ok(Self { dataset, hold_out })
    }

    /// Prepares the films of `splits` for every policy and input size into the cache under `cache_dir`. A film
    /// that one policy cannot read is left out for all.
    ///
    /// # Errors
    /// As [`cache::prepare`]; a film that cannot be read is no error.
    pub fn prepare(
        self,
        splits: &[Split],
        cache_dir: &Path,
        inputs: &[(Policy, InputSize)],
        threads: usize,
        on_progress: OnProgress<'_>,
    ) -> Result<ReadyDataset, DataError> {
        let mut dataset = self.dataset;
        dataset.films.retain(|film| splits.contains(&film.split));
        let mut sizes_of: BTreeMap<Policy, Vec<InputSize>> = BTreeMap::new();
        for &(policy, input) in inputs {
            sizes_of.entry(policy).or_default().push(input);
        }
        let mut left_out = Vec::new();
        for (policy, sizes) in sizes_of {
            let read = ReadOptions { policy, ..ReadOptions::default() };
            let outcome = cache::prepare(&dataset, cache_dir, &sizes, &read, threads, on_progress)?;
            let failed: HashSet<&str> = outcome.failures.iter().map(|f| f.image_id.as_str()).collect();
            dataset.films.retain(|film| !failed.contains(film.annotation.image_id.as_str()));
            left_out.extend(outcome.failures);
        }
        clip_boxes(&mut dataset, cache_dir, inputs)?;
        Ok(ReadyDataset { dataset, hold_out: self.hold_out, left_out })
    }

    /// What [`SplitDataset::prepare`] gave another process a moment ago, from its cache: a film that is not there
    /// could not be prepared and is left out. Opens no film.
    ///
    /// # Errors
    /// As [`Cache::open`].
    pub fn prepared(
        self,
        splits: &[Split],
        cache_dir: &Path,
        inputs: &[(Policy, InputSize)],
    ) -> Result<ReadyDataset, DataError> {
        let mut dataset = self.dataset;
        dataset.films.retain(|film| splits.contains(&film.split));
        let mut left_out = Vec::new();
        for (policy, input) in inputs {
            let cache = Cache::open(cache_dir, input, *policy)?;
            dataset.films.retain(|film| {
                let image_id = film.annotation.image_id.clone();
                let is_there = cache.contains(&image_id);
                if !is_there {
                    let error = cache.not_prepared(&image_id).to_string();
                    left_out.push(FilmFailure { image_id, path: film.path.clone(), error });
                }
                is_there
            });
        }
        clip_boxes(&mut dataset, cache_dir, inputs)?;
        Ok(ReadyDataset { dataset, hold_out: self.hold_out, left_out })
    }
}

// The cache knows the size of every film in it: no header is read a second time.
fn clip_boxes(
    dataset: &mut Dataset,
    cache_dir: &Path,
    inputs: &[(Policy, InputSize)],
) -> Result<(), DataError> {
    if let Some((policy, input)) = inputs.first() {
        let cache = Cache::open(cache_dir, input, *policy)?;
        let min_side_px = VindrOptions::new().min_box_px;
        dataset.clip_boxes(min_side_px, |film| cache.film_size_px(&film.annotation.image_id));
    }
    Ok(())
}
