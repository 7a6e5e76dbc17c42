//! What a place of training shows: its film, pasted into, put beside others, changed.
//!
//! Order: size of the batch, copy-paste, mosaic, AutoAugment, the changes of [`augment`]. Each of them draws from a
//! stream of its own, a function of the seed and the place, so that switching one off leaves the others as they were.

use crate::augment::augment;
use crate::auto_augment::auto_augment;
use crate::copy_paste::{Donors, paste};
use crate::example::Example;
use crate::mix::{item_rng, scatter2, unit};
use crate::mosaic::mosaic;
use crate::{AugmentConfig, Cache, DataError, InputSize, Sampler};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use spinexr_core::{ClassList, FilmAnnotation};
use std::sync::Arc;

/// Which random choice a stream of numbers is for.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Change = 0xA06_3E47,
    Loss = 0x10_55D4,
    Size = 0x512E,
    Mosaic = 0x0305_A1C0,
    CopyPaste = 0xC09F,
    AutoAugment = 0xA070,
}

/// The training films and all that is done to them.
pub(crate) struct Composer {
    pub(crate) cache: Arc<Cache>,
    pub(crate) films: Vec<FilmAnnotation>,
    classes: ClassList,
    pub(crate) sampler: Sampler,
    pub(crate) changes: Option<AugmentConfig>,
    donors: Donors,
    seed: u64,
}

impl Composer {
    pub(crate) fn new(
        cache: Arc<Cache>,
        films: Vec<FilmAnnotation>,
        classes: ClassList,
        sampler: Sampler,
        changes: Option<AugmentConfig>,
        seed: u64,
    ) -> Self {
        let donors = match &changes {
            Some(changes) if changes.copy_paste > 0.0 => {
                Donors::new(&films, &classes, changes.copy_paste_below)
            }
            _ => Donors::default(),
        };
        Self { cache, films, classes, sampler, changes, donors, seed }
    }

    /// The input size of the batch of a step.
    pub(crate) fn input(&self, step: u64) -> InputSize {
        let sizes = self.changes.as_ref().map_or(&[][..], |c| &c.sizes);
        let drawn = unit(scatter2(self.stream_seed(Stream::Size), step));
        match sizes.get((drawn * sizes.len() as f64) as usize) {
            Some(share) => self.cache.input().scaled(*share),
            None => self.cache.input(),
        }
    }

    /// The seed of what a loss draws in a step.
    pub(crate) fn draw(&self, step: u64) -> u64 {
        scatter2(self.stream_seed(Stream::Loss), step)
    }

    /// What the place `position` of training shows, in the size `input`; the first film of it, and the film's own
    /// place and size in the input (of a mosaic, all of the input).
    pub(crate) fn example(&self, position: u64, input: &InputSize) -> Result<Example, DataError> {
        let film = self.film(position);
        let Some(changes) = &self.changes else {
            return Example::read(&self.cache, input, film, &self.classes);
        };
        let mut rng = self.rng(Stream::Mosaic, position);
        let mut example = if rng.random::<f64>() < f64::from(changes.mosaic) {
            let mut parts = [position, 0, 0, 0];
            // Places of the endless sequence: the sampler's weights hold for the other three as well.
            parts[1..].iter_mut().for_each(|place| *place = rng.random_range(0..1 << 40));
            let parts = parts.map(|place| self.pasted(place, input, changes));
            let [a, b, c, d] = parts;
            mosaic(&[a?, b?, c?, d?], &mut rng)
        } else {
            self.pasted(position, input, changes)?
        };
        let Example { film, boxes, .. } = &mut example;
        if let Some(policy) = changes.auto_augment {
            let mut rng = self.rng(Stream::AutoAugment, position);
            auto_augment(film, boxes, policy, changes.min_visible, &mut rng);
        }
        augment(film, boxes, changes, &mut self.rng(Stream::Change, position));
        Ok(example)
    }

    /// The film at a place of training.
    pub(crate) fn film(&self, position: u64) -> &FilmAnnotation {
        &self.films[self.sampler.index(self.seed, position)]
    }

    /// The film at a place, with a rare finding pasted in where one is drawn.
    fn pasted(
        &self,
        position: u64,
        input: &InputSize,
        changes: &AugmentConfig,
    ) -> Result<Example, DataError> {
        let film = self.film(position);
        let mut example = Example::read(&self.cache, input, film, &self.classes)?;
        let mut rng = self.rng(Stream::CopyPaste, position);
        if rng.random::<f64>() < f64::from(changes.copy_paste)
            && let Some((donor, found)) = self.donors.draw(&mut rng)
            && self.films[donor].image_id != film.image_id
        {
            let found = std::slice::from_ref(&self.films[donor].boxes[found]);
            let annotation = FilmAnnotation { boxes: found.to_vec(), ..self.films[donor].clone() };
            let donor = Example::read(&self.cache, input, &annotation, &self.classes)?;
            if let Some(found) = donor.boxes.first() {
                paste(&mut example, &donor, found, &mut rng);
            }
        }
        Ok(example)
    }

    fn stream_seed(&self, stream: Stream) -> u64 {
        scatter2(self.seed, stream as u64)
    }

    fn rng(&self, stream: Stream, position: u64) -> ChaCha8Rng {
        item_rng(self.stream_seed(stream), position)
    }
}
