//! Training batches, made by background threads.
//!
//! Batch b holds the places `b·N .. (b+1)·N` of the [`Sampler`]'s endless sequence, and every
//! film is changed by a generator seeded with the run's seed and its place. A batch is therefore a pure
//! function of seed and step: resuming a run needs no loader state, and the number of threads changes
//! nothing but the pace. Processes that train together take the batches in turn ([`Share`]).

use crate::compose::Composer;
use crate::error::panic_message;
use crate::example::Example;
use crate::prefetch::Prefetcher;
use crate::{AugmentConfig, Cache, DataError, InputSize, LabelledBox, ResizeMap, Sampler};
use spinexr_core::{ClassList, FilmAnnotation};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Films of one step, ready for a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its number in the sequence of batches, from 0: the step, where one process takes them all.
    pub step: u64,
    /// `[N, 1, H, W]`, `0..=1`, bone bright.
    pub images: Vec<f32>,
    /// N.
    pub n: usize,
    /// H, px: the prepared height, or the one drawn for the batch.
    pub height: usize,
    /// W, px.
    pub width: usize,
    /// `[N]` image ids; of a mosaic the first film's.
    pub image_ids: Vec<String>,
    /// `[N]` whether the film is abnormal.
    pub abnormal: Vec<bool>,
    /// `[N]` boxes in input px.
    pub boxes: Vec<Vec<LabelledBox>>,
    /// `[N]` maps from film px to input px, as before any augmentation; a mosaic counts as a film of the input's size.
    pub maps: Vec<ResizeMap>,
    /// `[N]` height and width of the films themselves, px.
    pub film_sizes_px: Vec<(u32, u32)>,
    /// `[N]` height and width of the part of the input that the film covers, px.
    pub content_px: Vec<(usize, usize)>,
    /// Seed of what a loss draws at random: a hash of the order's seed and the step.
    pub draw: u64,
}

/// Which batches of the sequence a process takes: at step s, process r of n takes batch s·n + r. Its n batches of
/// N films are together the one batch that a process alone takes at step s with n·N films.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Number of the process, from 0.
    pub rank: u64,
    /// Processes.
    pub of: u64,
}

impl Share {
    /// Every batch.
    pub const ALL: Self = Self { rank: 0, of: 1 };
}

/// What a [`Loader`] is made of.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Prepared films.
    pub cache: Arc<Cache>,
    /// The films to draw from; the sampler's indices point here.
    pub films: Vec<FilmAnnotation>,
    /// Classes of their boxes, by index.
    pub classes: ClassList,
    /// Which film comes when.
    pub sampler: Sampler,
    /// Random changes, or none.
    pub augment: Option<AugmentConfig>,
    /// N.
    pub batch_size: usize,
    /// Seed of the order and of all changes.
    pub seed: u64,
    /// The first step to give: 0, or where a resumed run goes on.
    pub first_step: u64,
    /// Which batches are this process's.
    pub share: Share,
    /// Background threads, at least one.
    pub threads: usize,
    /// Batches under way or waiting, at least one.
    pub prefetch: usize,
}

/// Endless training batches, step after step.
pub struct Loader {
    prefetcher: Prefetcher,
    epoch_len: u64,
    /// Films a step, of all processes.
    step_films: u64,
}

impl Loader {
    /// Starts the background threads.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a setting out of range or a sampler of other films,
    /// [`DataError::NotPrepared`] for a film that the cache lacks.
    pub fn new(config: LoaderConfig) -> Result<Self, DataError> {
        let LoaderConfig {
            cache,
            films,
            classes,
            sampler,
            augment,
            batch_size,
            seed,
            first_step,
            share,
            threads,
            prefetch,
        } = config;
        check_batch_size(batch_size)?;
        if let Some(augment) = &augment {
            augment.check()?;
        }
        if sampler.films() != films.len() {
            return Err(DataError::Setting {
                name: "sampler",
                expected: "a sampler made from the loader's films",
                found: format!("a sampler of {} films beside {} films", sampler.films(), films.len()),
            });
        }
        if share.rank >= share.of {
            return Err(DataError::Setting {
                name: "share",
                expected: "a process below their number",
                found: format!("process {} of {}", share.rank, share.of),
            });
        }
        check_prepared(&cache, &films)?;
        let epoch_len = sampler.epoch_len();
        let composer = Composer::new(cache, films, classes, sampler, augment, seed);
        let make = move |step: u64| {
            let batch = step * share.of + share.rank;
            let first = batch * batch_size as u64;
            let films: Vec<_> = (first..first + batch_size as u64).map(|p| composer.film(p)).collect();
            // Processes that share a step share its input size.
            let input = composer.input(step);
            make_batch(batch, composer.draw(batch), &input, &films, |place| {
                composer.example(first + place as u64, &input)
            })
        };
        let prefetcher = Prefetcher::start(Arc::new(make), first_step, u64::MAX, threads, prefetch)?;
        Ok(Self { prefetcher, epoch_len, step_films: batch_size as u64 * share.of })
    }

    /// The batch of the next step. Waits until it is made.
    ///
    /// # Errors
    /// The error of a film of this batch; the next call gives the next step.
    #[expect(clippy::should_implement_trait, reason = "endless: there is no `None` to give")]
    pub fn next(&mut self) -> Result<Batch, DataError> {
        self.prefetcher.next().unwrap_or(Err(DataError::LoaderStopped { step: u64::MAX }))
    }

    /// Steps in an epoch, rounded up.
    pub fn steps_per_epoch(&self) -> u64 {
        self.epoch_len.div_ceil(self.step_films)
    }
}

pub(crate) fn check_batch_size(batch_size: usize) -> Result<(), DataError> {
    if (1..=65_536).contains(&batch_size) {
        return Ok(());
    }
    Err(DataError::Setting {
        name: "batch_size",
        expected: "a number from 1 to 65536",
        found: batch_size.to_string(),
    })
}

pub(crate) fn check_prepared(cache: &Cache, films: &[FilmAnnotation]) -> Result<(), DataError> {
    match films.iter().find(|f| !cache.contains(&f.image_id)) {
        None => Ok(()),
        Some(film) => Err(cache.not_prepared(&film.image_id)),
    }
}

/// Makes a batch of `input`'s size from films; `example` gives each by its place in the batch, and a panic on the way
/// becomes an error that names the film.
pub(crate) fn make_batch(
    step: u64,
    draw: u64,
    input: &InputSize,
    films: &[&FilmAnnotation],
    example: impl Fn(usize) -> Result<Example, DataError>,
) -> Result<Batch, DataError> {
    let (n, height, width) = (films.len(), input.height_px as usize, input.width_px as usize);
    let mut batch = Batch {
        step,
        images: Vec::with_capacity(n * height * width),
        n,
        height,
        width,
        image_ids: Vec::with_capacity(n),
        abnormal: Vec::with_capacity(n),
        boxes: Vec::with_capacity(n),
        maps: Vec::with_capacity(n),
        film_sizes_px: Vec::with_capacity(n),
        content_px: Vec::with_capacity(n),
        draw,
    };
    for (place, film) in films.iter().enumerate() {
        let made = catch_unwind(AssertUnwindSafe(|| example(place))).unwrap_or_else(|panic| {
            Err(DataError::Panicked {
                image_id: film.image_id.clone(),
                message: panic_message(panic.as_ref()),
            })
        })?;
        let Example { film: prepared, boxes, abnormal } = made;
        batch.content_px.push(prepared.content_px());
        batch.images.extend(prepared.pixels.iter().map(|&v| f32::from(v) * (1.0 / 65535.0)));
        batch.image_ids.push(film.image_id.clone());
        batch.abnormal.push(abnormal);
        batch.boxes.push(boxes);
        batch.maps.push(prepared.map);
        batch.film_sizes_px.push((prepared.film_height_px, prepared.film_width_px));
    }
    Ok(batch)
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
