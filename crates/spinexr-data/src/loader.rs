//! Training batches, made by background threads.
//!
//! The batch of step s holds the places `s·N .. (s+1)·N` of the [`Sampler`]'s endless sequence, and every
//! film is changed by a generator seeded with the run's seed and its place. A batch is therefore a pure
//! function of seed and step: resuming a run needs no loader state, and the number of threads changes
//! nothing but the pace.

use crate::error::panic_message;
use crate::mix::{item_rng, scatter2};
use crate::prefetch::Prefetcher;
use crate::{AugmentConfig, Cache, DataError, LabelledBox, ResizeMap, Sampler, augment};
use spinexr_core::FilmAnnotation;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Smallest side of a training box, input px; less is nothing a detector could learn.
const MIN_BOX_PX: f32 = 0.5;

/// Films of one step, ready for a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Number of the step, from 0.
    pub step: u64,
    /// `[N, 1, H, W]`, `0..=1`, bone bright.
    pub images: Vec<f32>,
    /// N.
    pub n: usize,
    /// H, px.
    pub height: usize,
    /// W, px.
    pub width: usize,
    /// `[N]` image ids.
    pub image_ids: Vec<String>,
    /// `[N]` whether the film is abnormal.
    pub abnormal: Vec<bool>,
    /// `[N]` boxes in input px.
    pub boxes: Vec<Vec<LabelledBox>>,
    /// `[N]` maps from film px to input px, as before any augmentation.
    pub maps: Vec<ResizeMap>,
    /// `[N]` height and width of the films themselves, px.
    pub film_sizes_px: Vec<(u32, u32)>,
    /// `[N]` height and width of the part of the input that the film covers, px.
    pub content_px: Vec<(usize, usize)>,
    /// Seed of what a loss draws at random: a hash of the order's seed and the step.
    pub draw: u64,
}

/// What a [`Loader`] is made of.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Prepared films.
    pub cache: Arc<Cache>,
    /// The films to draw from; the sampler's indices point here.
    pub films: Vec<FilmAnnotation>,
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
    /// Background threads, at least one.
    pub threads: usize,
    /// Batches under way or waiting, at least one.
    pub prefetch: usize,
}

/// Endless training batches, step after step.
pub struct Loader {
    prefetcher: Prefetcher,
    epoch_len: u64,
    batch_size: u64,
}

impl Loader {
    /// Starts the background threads.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a setting out of range or a sampler of other films,
    /// [`DataError::NotPrepared`] for a film that the cache lacks.
    pub fn new(config: LoaderConfig) -> Result<Self, DataError> {
        let LoaderConfig { cache, films, sampler, augment, batch_size, seed, first_step, threads, prefetch } =
            config;
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
        check_prepared(&cache, &films)?;
        let epoch_len = sampler.epoch_len();
        let make = move |step: u64| {
            let first = step * batch_size as u64;
            let items: Vec<_> = (first..first + batch_size as u64)
                .map(|position| (&films[sampler.index(seed, position)], position))
                .collect();
            make_batch(&cache, step, &items, augment.as_ref(), seed)
        };
        let prefetcher = Prefetcher::start(Arc::new(make), first_step, u64::MAX, threads, prefetch)?;
        Ok(Self { prefetcher, epoch_len, batch_size: batch_size as u64 })
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
        self.epoch_len.div_ceil(self.batch_size)
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

/// Puts films (with their places in the sequence) into a batch; a panic on the way becomes an error that
/// names the film.
pub(crate) fn make_batch(
    cache: &Cache,
    step: u64,
    items: &[(&FilmAnnotation, u64)],
    changes: Option<&AugmentConfig>,
    seed: u64,
) -> Result<Batch, DataError> {
    let input = cache.input();
    let (n, height, width) = (items.len(), input.height_px as usize, input.width_px as usize);
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
        draw: scatter2(scatter2(seed, 0x10_55D4), step),
    };
    // The order of films, the changes to them and what a loss draws must not share random numbers.
    let change_seed = scatter2(seed, 0xA06_3E47);
    for &(film, position) in items {
        catch_unwind(AssertUnwindSafe(|| {
            let mut prepared = cache.get(&film.image_id)?;
            let mut boxes = prepared.input_boxes(&film.boxes, MIN_BOX_PX);
            batch.content_px.push(prepared.content_px());
            if let Some(changes) = changes {
                augment(&mut prepared, &mut boxes, changes, &mut item_rng(change_seed, position));
            }
            batch.images.extend(prepared.pixels.iter().map(|&v| f32::from(v) * (1.0 / 65535.0)));
            batch.image_ids.push(film.image_id.clone());
            batch.abnormal.push(film.abnormal);
            batch.boxes.push(boxes);
            batch.maps.push(prepared.map);
            batch.film_sizes_px.push((prepared.film_height_px, prepared.film_width_px));
            Ok(())
        }))
        .unwrap_or_else(|panic| {
            Err(DataError::Panicked {
                image_id: film.image_id.clone(),
                message: panic_message(panic.as_ref()),
            })
        })?;
    }
    Ok(batch)
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
