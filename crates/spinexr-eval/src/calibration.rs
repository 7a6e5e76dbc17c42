//! Whether probabilities mean what they say, and maps that make them.
//!
//! - Reliability and the expected calibration error: bin `min(floor(p · n), n − 1)`, positive class (Naeini et al., AAAI
//!   2015, in the binary form).
//! - Intercept and slope of a logistic regression on the logit, and the intercept at slope 1, calibration in the large
//!   (Cox, Biometrika 1958;45:562–565). Reference: statsmodels `Logit`, `GLM` with offset.
//! - [`Temperature`] (Guo et al., arXiv 1706.04599) and [`Isotonic`] (pool adjacent violators; reference: scikit-learn
//!   `IsotonicRegression`) are fitted on validation predictions and applied to others; a type that test predictions cannot
//!   make.

use crate::LabelledScores;
use crate::error::EvalError;
use crate::intervals::{Interval, wilson};
use crate::threshold::{Predictions, Scorer, Truth, Validation};
use serde::{Deserialize, Serialize};
use spinexr_core::fusion::sigmoid;

/// Films whose probability lies in one bin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lowest probability of the bin.
    pub from: f64,
    /// Highest; it belongs to the next bin, but for the last.
    pub to: f64,
    /// Films in it.
    pub films: usize,
    /// Mean probability; `None` without a film.
    pub mean_probability: Option<f64>,
    /// Share of positive films; `None` without a film.
    pub share_positive: Option<f64>,
    /// 95 % interval of that share (Wilson).
    pub interval: Option<Interval>,
}

/// The reliability curve in `bins` bins of equal width; `None` when the scores are no probabilities.
///
/// # Panics
/// When `bins` is 0.
pub fn reliability(data: &LabelledScores, bins: usize) -> Option<Vec<ReliabilityBin>> {
    assert!(bins > 0, "a reliability curve needs a bin");
    if !data.are_probabilities() {
        return None;
    }
    let mut sums = vec![(0usize, 0usize, 0.0f64); bins]; // films, positives, probabilities
    for (&p, &positive) in data.scores().iter().zip(data.positive()) {
        let sum = &mut sums[((p * bins as f64) as usize).min(bins - 1)];
        *sum = (sum.0 + 1, sum.1 + usize::from(positive), sum.2 + p);
    }
    let bin = |(i, (films, positives, probabilities)): (usize, (usize, usize, f64))| {
        let share = |sum: f64| (films > 0).then(|| sum / films as f64);
        ReliabilityBin {
            from: i as f64 / bins as f64,
            to: (i + 1) as f64 / bins as f64,
            films,
            mean_probability: share(probabilities),
            share_positive: share(positives as f64),
            interval: wilson(positives, films),
        }
    };
    Some(sums.into_iter().enumerate().map(bin).collect())
}

/// Expected calibration error: the mean over films of how far their bin's mean probability lies from its share of
/// positive films. `None` for no film, or scores that are no probabilities.
pub fn expected_calibration_error(data: &LabelledScores, bins: usize) -> Option<f64> {
    let curve = reliability(data, bins)?;
    let total: usize = curve.iter().map(|bin| bin.films).sum();
    let gap = |bin: &ReliabilityBin| {
        Some(bin.films as f64 * (bin.mean_probability? - bin.share_positive?).abs() / total as f64)
    };
    (total > 0).then(|| curve.iter().filter_map(gap).sum())
}

/// Logistic recalibration: `logit P(positive) = intercept + slope · logit`. 0 and 1 are perfect.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationLine {
    /// Intercept beside the slope.
    pub intercept: f64,
    /// Below 1: the probabilities are too extreme.
    pub slope: f64,
    /// Intercept with the slope held at 1: below 0, the probabilities are too high on average.
    pub in_the_large: f64,
}

/// Most steps of Newton's method; it converges in about ten.
const MAX_STEPS: usize = 100;

/// The calibration line of logits; `None` unless both classes occur and the likelihood has a maximum (classes that
/// the logits separate have none, nor have logits that are all the same).
pub fn calibration_line(logits: &LabelledScores) -> Option<CalibrationLine> {
    if !logits.has_both_classes() {
        return None;
    }
    let films = || logits.scores().iter().zip(logits.positive());
    let [intercept, slope] = newton([0.0, 1.0], |[a, b]| {
        let mut gradient = [0.0; 2];
        let mut hessian = [0.0; 3];
        for (&z, &positive) in films() {
            let p = sigmoid(a + b * z);
            let (error, weight) = (p - f64::from(u8::from(positive)), p * (1.0 - p));
            gradient = [gradient[0] + error, gradient[1] + error * z];
            hessian = [hessian[0] + weight, hessian[1] + weight * z, hessian[2] + weight * z * z];
        }
        let [h00, h01, h11] = hessian;
        let determinant = h00 * h11 - h01 * h01;
        // Relative to its terms: collinear logits leave rounding alone.
        (determinant > 1e-12 * h00 * h11).then(|| {
            let [g0, g1] = gradient;
            [(h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant]
        })
    })?;
    let [in_the_large] = newton([0.0], |[a]| {
        let (mut gradient, mut curvature) = (0.0, 0.0);
        for (&z, &positive) in films() {
            let p = sigmoid(a + z);
            gradient += p - f64::from(u8::from(positive));
            curvature += p * (1.0 - p);
        }
        (curvature > 0.0).then(|| [gradient / curvature])
    })?;
    Some(CalibrationLine { intercept, slope, in_the_large })
}

/// Newton's method with steps of bounded size; `None` when it does not settle.
fn newton<const D: usize>(start: [f64; D], step: impl Fn([f64; D]) -> Option<[f64; D]>) -> Option<[f64; D]> {
    const LARGEST_STEP: f64 = 5.0;
    let mut at = start;
    for _ in 0..MAX_STEPS {
        let change = step(at)?;
        let size = change.iter().fold(0.0f64, |most, c| most.max(c.abs()));
        let scale = if size > LARGEST_STEP { LARGEST_STEP / size } else { 1.0 };
        for (value, change) in at.iter_mut().zip(change) {
            *value -= scale * change;
        }
        // Separated classes send the slope to infinity.
        if at.iter().any(|value| !value.is_finite() || value.abs() > 1e4) {
            return None;
        }
        if size < 1e-12 {
            return Some(at);
        }
    }
    None
}

/// One number that logits are divided by. Ranking, and so the AUROC, stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// Above 1: the logits were too extreme.
    pub temperature: f64,
    /// Validation films it was fitted on.
    pub films: usize,
}

impl Temperature {
    /// Fitted by least log-loss on validation films; `None` where no temperature is best (one class alone, or classes
    /// that the logits separate).
    ///
    /// # Errors
    /// [`EvalError::Film`] for a film without annotation.
    pub fn fit(
        predictions: &Predictions<Validation>,
        truth: &Truth,
        scorer: &Scorer,
    ) -> Result<Option<Self>, EvalError> {
        Ok(fit_temperature(&predictions.logits(truth, scorer)?))
    }

    /// The calibrated probability of a logit.
    pub fn probability(&self, logit: f64) -> f64 {
        sigmoid(logit / self.temperature)
    }
}

fn fit_temperature(logits: &LabelledScores) -> Option<Temperature> {
    if !logits.has_both_classes() {
        return None;
    }
    // Convex in the inverse of the temperature.
    let [inverse] = newton([1.0], |[inverse]| {
        let (mut gradient, mut curvature) = (0.0, 0.0);
        for (&z, &positive) in logits.scores().iter().zip(logits.positive()) {
            let p = sigmoid(inverse * z);
            gradient += (p - f64::from(u8::from(positive))) * z;
            curvature += p * (1.0 - p) * z * z;
        }
        (curvature > 0.0).then(|| [gradient / curvature])
    })?;
    (inverse > 0.0).then(|| Temperature { temperature: 1.0 / inverse, films: logits.len() })
}

/// A non-decreasing map from probability to probability: straight between its corners, level beyond them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Isotonic {
    /// `(given, calibrated)`, ascending.
    pub corners: Vec<(f64, f64)>,
    /// Validation films it was fitted on.
    pub films: usize,
}

impl Isotonic {
    /// Fitted by least squares on validation films; `None` without a film.
    ///
    /// # Errors
    /// [`EvalError::Film`] for a film without annotation.
    pub fn fit(
        predictions: &Predictions<Validation>,
        truth: &Truth,
        scorer: &Scorer,
    ) -> Result<Option<Self>, EvalError> {
        Ok(fit_isotonic(&predictions.probabilities(truth, scorer)?))
    }

    /// The calibrated probability.
    pub fn probability(&self, probability: f64) -> f64 {
        let after = self.corners.partition_point(|corner| corner.0 <= probability);
        match (after.checked_sub(1).map(|i| self.corners[i]), self.corners.get(after)) {
            (Some((x0, y0)), Some(&(x1, y1))) => y0 + (y1 - y0) * (probability - x0) / (x1 - x0),
            (Some((_, y)), None) | (None, Some(&(_, y))) => y,
            (None, None) => probability,
        }
    }
}

fn fit_isotonic(data: &LabelledScores) -> Option<Isotonic> {
    if data.is_empty() {
        return None;
    }
    // Blocks of films with one calibrated value, ascending: first score, last score, positives, films.
    let mut blocks: Vec<(f64, f64, f64, f64)> = Vec::new();
    let (mut tp, mut fp) = (0, 0);
    let mut steps: Vec<(f64, f64, f64)> = Vec::new();
    for step in data.steps() {
        let (positives, films) = (step.tp - tp, step.tp - tp + step.fp - fp);
        steps.push((step.threshold, positives as f64, films as f64));
        (tp, fp) = (step.tp, step.fp);
    }
    for &(score, positives, films) in steps.iter().rev() {
        let mut block = (score, score, positives, films);
        while let Some(&(first, _, before, count)) = blocks.last()
            && before * block.3 >= block.2 * count
        {
            block = (first, block.1, before + block.2, count + block.3);
            blocks.pop();
        }
        blocks.push(block);
    }
    let mut corners = Vec::with_capacity(2 * blocks.len());
    for (first, last, positives, films) in blocks {
        corners.push((first, positives / films));
        if last > first {
            corners.push((last, positives / films));
        }
    }
    Some(Isotonic { corners, films: data.len() })
}

#[cfg(test)]
#[path = "calibration_tests.rs"]
mod tests;
