//! Which film comes at which place of training, as a pure function of seed and position.
//!
//! Every film has a weight, the mean number of times it comes in an epoch. An epoch has as many places as
//! the weights sum to (rounded); a seeded permutation (a Feistel network with cycle walking, so that no
//! list is kept) shuffles the places, and places are laid over the films by systematic sampling: a film of
//! weight 2.3 comes two or three times in an epoch, 2.3 times in the mean. With weights of 1 an epoch is
//! a permutation of the films.

use crate::DataError;
use crate::mix::{scatter2, unit};
use serde::{Deserialize, Serialize};
use spinexr_core::{FilmAnnotation, Label};
use std::collections::{HashMap, HashSet};

/// How films are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default = "SamplerConfig::shuffled")]
pub struct SamplerConfig {
    /// Threshold t of repeat-factor sampling: classes on less than this share of films are repeated.
    /// The paper's detector has 0.1.
    pub repeat_threshold: Option<f64>,
    /// Share of abnormal films among those drawn, inside `(0, 1)`; `None` leaves the films' own share.
    pub abnormal_fraction: Option<f64>,
}

impl SamplerConfig {
    /// Every film once an epoch.
    pub const fn shuffled() -> Self {
        Self { repeat_threshold: None, abnormal_fraction: None }
    }

    /// The paper's detector: repeat-factor sampling with t = 0.1.
    pub const fn paper_detector() -> Self {
        Self { repeat_threshold: Some(0.1), abnormal_fraction: None }
    }
}

/// Films with their weights, ready to draw.
#[derive(Debug, Clone)]
pub struct Sampler {
    /// `cumulative[i]`: sum of the weights of films `0..=i`.
    cumulative: Vec<f64>,
    epoch_len: u64,
}

impl Sampler {
    /// Weighs `films` as `config` asks; the indices drawn are indices into `films`.
    ///
    /// # Errors
    /// [`DataError::Setting`] for no film, a threshold or share out of range, or a share of abnormal films
    /// where one of the two groups is empty.
    pub fn new(config: &SamplerConfig, films: &[FilmAnnotation]) -> Result<Self, DataError> {
        let mut weights = match config.repeat_threshold {
            None => vec![1.0; films.len()],
            Some(t) if t > 0.0 && t <= 1.0 => repeat_factors(t, films),
            Some(t) => {
                return Err(DataError::Setting {
                    name: "repeat_threshold",
                    expected: "a number above 0, up to 1",
                    found: t.to_string(),
                });
            }
        };
        if let Some(fraction) = config.abnormal_fraction {
            set_abnormal_share(&mut weights, films, fraction)?;
        }
        Self::from_weights(&weights)
    }

    /// A sampler from weights: the mean number of times that each film comes in an epoch.
    ///
    /// # Errors
    /// [`DataError::Setting`] for no weight, a negative or not finite one, or a sum under 1/2.
    pub fn from_weights(weights: &[f64]) -> Result<Self, DataError> {
        let cumulative: Vec<f64> = weights
            .iter()
            .scan(0.0, |sum, w| {
                *sum += w;
                Some(*sum)
            })
            .collect();
        let total = cumulative.last().copied().unwrap_or(0.0);
        let valid = weights.iter().all(|w| w.is_finite() && *w >= 0.0);
        if !valid || !(0.5..1e15).contains(&total) {
            return Err(DataError::Setting {
                name: "sampler",
                expected: "at least one film, with finite weights of 0 or more",
                found: format!("{} films with weights that sum to {total}", weights.len()),
            });
        }
        Ok(Self { cumulative, epoch_len: total.round() as u64 })
    }

    /// Number of films drawn from.
    pub fn films(&self) -> usize {
        self.cumulative.len()
    }

    /// Places in an epoch.
    pub fn epoch_len(&self) -> u64 {
        self.epoch_len
    }

    /// The film at `position` of training (0 is the first of the first epoch): pure, and quick at any
    /// position.
    pub fn index(&self, seed: u64, position: u64) -> usize {
        let epoch = position / self.epoch_len;
        let key = scatter2(seed, epoch);
        let place = permute(position % self.epoch_len, self.epoch_len, key);
        let last = self.cumulative.len() - 1;
        let total = self.cumulative[last];
        let point = (place as f64 + unit(scatter2(key, 0x0FF5E7))) * total / self.epoch_len as f64;
        self.cumulative.partition_point(|&sum| sum <= point).min(last)
    }
}

/// Repeat factors of LVIS (Gupta, Dollár, Girshick 2019, section 4.1): a class on the share f of films has
/// r = max(1, sqrt(t / f)), a film the largest r of its classes.
pub fn repeat_factors(t: f64, films: &[FilmAnnotation]) -> Vec<f64> {
    let mut films_with: HashMap<&Label, usize> = HashMap::new();
    for film in films {
        let labels: HashSet<&Label> = film.boxes.iter().map(|b| &b.label).collect();
        labels.into_iter().for_each(|label| *films_with.entry(label).or_default() += 1);
    }
    let factor = |label: &Label| {
        let share = films_with[label] as f64 / films.len() as f64;
        (t / share).sqrt().max(1.0)
    };
    films.iter().map(|film| film.boxes.iter().map(|b| factor(&b.label)).fold(1.0, f64::max)).collect()
}

/// Scales the weights of abnormal and normal films so that abnormal ones make up `fraction`, the sum kept.
fn set_abnormal_share(weights: &mut [f64], films: &[FilmAnnotation], fraction: f64) -> Result<(), DataError> {
    let total: f64 = weights.iter().sum();
    let abnormal: f64 = weights.iter().zip(films).filter(|(_, f)| f.abnormal).map(|(w, _)| w).sum();
    let normal = total - abnormal;
    let in_range = fraction > 0.0 && fraction < 1.0;
    if !in_range || films.iter().all(|f| f.abnormal) || !films.iter().any(|f| f.abnormal) {
        return Err(DataError::Setting {
            name: "abnormal_fraction",
            expected: "a number inside 0 to 1, with films of both kinds",
            found: format!(
                "{fraction} with {} abnormal of {} films",
                films.iter().filter(|f| f.abnormal).count(),
                films.len()
            ),
        });
    }
    for (weight, film) in weights.iter_mut().zip(films) {
        *weight *=
            if film.abnormal { fraction * total / abnormal } else { (1.0 - fraction) * total / normal };
    }
    Ok(())
}

/// A keyed permutation of `0..n`: a balanced Feistel network on the next power of four, walked until it
/// lands inside (Black and Rogaway 2002).
fn permute(place: u64, n: u64, key: u64) -> u64 {
    let bits = 64 - n.saturating_sub(1).leading_zeros();
    let half = bits.div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut x = place;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..8u64 {
            let mixed = scatter2(key ^ round.wrapping_mul(0xA24B_AED4_963E_E407), right) & mask;
            (left, right) = (right, left ^ mixed);
        }
        x = (left << half) | right;
        if x < n {
            return x;
        }
    }
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
