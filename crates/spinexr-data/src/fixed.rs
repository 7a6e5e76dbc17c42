//! Every film once, in the given order, unchanged: what validation, testing and prediction read.

use crate::example::Example;
use crate::loader::{check_batch_size, check_prepared, make_batch};
use crate::prefetch::Prefetcher;
use crate::{Batch, Cache, DataError};
use spinexr_core::{ClassList, FilmAnnotation};
use std::sync::Arc;

/// Batches over films in order; the last may be smaller. An iterator.
pub struct FixedBatches {
    prefetcher: Prefetcher,
}

impl FixedBatches {
    /// Starts `threads` background threads (at least one) that keep up to `prefetch` batches ready.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a batch size out of range, [`DataError::NotPrepared`] for a film that the
    /// cache lacks.
    pub fn new(
        cache: Arc<Cache>,
        films: Vec<FilmAnnotation>,
        classes: &ClassList,
        batch_size: usize,
        threads: usize,
        prefetch: usize,
    ) -> Result<Self, DataError> {
        check_batch_size(batch_size)?;
        check_prepared(&cache, &films)?;
        let classes = classes.clone();
        let batches = films.len().div_ceil(batch_size) as u64;
        let make = move |step: u64| {
            let first = step as usize * batch_size;
            let part = &films[first..(first + batch_size).min(films.len())];
            let part: Vec<_> = part.iter().collect();
            let input = cache.input();
            make_batch(step, 0, &input, &part, |place| Example::read(&cache, &input, part[place], &classes))
        };
        Ok(Self { prefetcher: Prefetcher::start(Arc::new(make), 0, batches, threads, prefetch)? })
    }
}

impl Iterator for FixedBatches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.prefetcher.next()
    }
}
