//! Decisions at a threshold, and how good probabilities are as probabilities.
//!
//! Reference: scikit-learn `f1_score`, `brier_score_loss`, `log_loss`; Youden, Cancer 1950;3:32–35.

use crate::LabelledScores;
use serde::{Deserialize, Serialize};

/// Films by verdict; positive is a score of at least the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Positive, called positive.
    pub true_positives: usize,
    /// Negative, called positive.
    pub false_positives: usize,
    /// Negative, called negative.
    pub true_negatives: usize,
    /// Positive, called negative.
    pub false_negatives: usize,
}

fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Confusion {
    /// Counts at a threshold.
    pub fn at(data: &LabelledScores, threshold: f64) -> Self {
        let called = data.scores().partition_point(|&s| s >= threshold);
        let true_positives = data.positive()[..called].iter().filter(|&&p| p).count();
        let false_positives = called - true_positives;
        Self {
            true_positives,
            false_positives,
            true_negatives: data.negatives() - false_positives,
            false_negatives: data.positives() - true_positives,
        }
    }

    /// Share of positive films called positive; `None` without a positive film.
    pub fn sensitivity(&self) -> Option<f64> {
        ratio(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Share of negative films called negative; `None` without a negative film.
    pub fn specificity(&self) -> Option<f64> {
        ratio(self.true_negatives, self.true_negatives + self.false_positives)
    }

    /// Share of the films called positive that are; `None` when none is called positive.
    pub fn positive_predictive_value(&self) -> Option<f64> {
        ratio(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Share of the films called negative that are; `None` when none is called negative.
    pub fn negative_predictive_value(&self) -> Option<f64> {
        ratio(self.true_negatives, self.true_negatives + self.false_negatives)
    }

    /// Harmonic mean of sensitivity and positive predictive value; `None` when no film is positive and
    /// none is called so.
    pub fn f1(&self) -> Option<f64> {
        ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)
    }
}

/// A point on the ROC curve that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// A film is called positive when its score is at least this.
    pub threshold: f64,
    /// Sensitivity there.
    pub sensitivity: f64,
    /// Specificity there.
    pub specificity: f64,
    /// Sensitivity + specificity - 1.
    pub youden_j: f64,
}

/// The threshold with the largest Youden's J; of several, the highest. `None` unless both classes occur.
pub fn youden(data: &LabelledScores) -> Option<OperatingPoint> {
    if !data.has_both_classes() {
        return None;
    }
    let (p, n) = (data.positives() as f64, data.negatives() as f64);
    let mut best: Option<OperatingPoint> = None;
    for step in data.steps() {
        let (sensitivity, false_positive_rate) = (step.tp as f64 / p, step.fp as f64 / n);
        let youden_j = sensitivity - false_positive_rate;
        if best.is_none_or(|b| youden_j > b.youden_j) {
            let specificity = 1.0 - false_positive_rate;
            best = Some(OperatingPoint { threshold: step.threshold, sensitivity, specificity, youden_j });
        }
    }
    best
}

/// Mean squared distance of probability and label; `None` for no film, or scores that are no
/// probabilities.
pub fn brier(data: &LabelledScores) -> Option<f64> {
    mean_loss(data, |p, y| {
        let label = if y { 1.0 } else { 0.0 };
        (p - label) * (p - label)
    })
}

/// Mean negative log-likelihood in nats, probabilities clipped by the f64 machine epsilon; `None` for no
/// film, or scores that are no probabilities.
pub fn log_loss(data: &LabelledScores) -> Option<f64> {
    mean_loss(data, |p, y| {
        let p = p.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
        if y { -p.ln() } else { -(1.0 - p).ln() }
    })
}

fn mean_loss(data: &LabelledScores, loss: impl Fn(f64, bool) -> f64) -> Option<f64> {
    if data.is_empty() || !data.are_probabilities() {
        return None;
    }
    let sum: f64 = data.scores().iter().zip(data.positive()).map(|(&p, &y)| loss(p, y)).sum();
    Some(sum / data.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(labels: &[bool], scores: &[f64]) -> LabelledScores {
        LabelledScores::new(labels, scores).unwrap()
    }

    #[test]
    fn a_score_at_the_threshold_is_positive() {
        let data = data(&[true, true, false, false], &[0.9, 0.4, 0.4, 0.1]);
        let c = Confusion::at(&data, 0.4);
        assert_eq!((c.true_positives, c.false_positives, c.true_negatives, c.false_negatives), (2, 1, 1, 0));
        assert_eq!((c.sensitivity(), c.specificity()), (Some(1.0), Some(0.5)));
        assert_eq!(c.f1(), Some(0.8));
        assert_eq!(Confusion::at(&data, 0.41).true_positives, 1);
    }

    #[test]
    fn of_equal_youden_the_higher_threshold_wins() {
        let point = youden(&data(&[true, false, true, false], &[0.9, 0.7, 0.5, 0.3])).unwrap();
        assert_eq!((point.threshold, point.youden_j), (0.9, 0.5));
    }

    #[test]
    fn undefined_is_none() {
        let negatives = data(&[false, false], &[0.2, 0.3]);
        let c = Confusion::at(&negatives, 0.5);
        assert_eq!((c.sensitivity(), c.specificity(), c.f1()), (None, Some(1.0), None));
        assert_eq!(c.positive_predictive_value(), None);
        assert_eq!(youden(&negatives), None);
        assert_eq!(brier(&data(&[], &[])), None);
        assert_eq!(log_loss(&data(&[true], &[1.5])), None);
    }

    #[test]
    fn a_sure_mistake_costs_much_but_not_everything() {
        let loss = log_loss(&data(&[true], &[0.0])).unwrap();
        assert!((loss - 36.04365338911715).abs() < 1e-12, "{loss}");
    }
}
