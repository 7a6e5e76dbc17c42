//! Films of equal score: how many, and what could come of breaking the ties either way.
//!
//! A tie between a positive and a negative film counts half in the AUROC. Many of them mean that the scores were rounded or
//! have saturated, and that the operating point moves whole groups of films at once.

use crate::{LabelledScores, roc};
use serde::{Deserialize, Serialize};

/// Ties among the scores of one model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ties {
    /// Films that share their score with another.
    pub films: usize,
    /// Scores that are shared.
    pub scores: usize,
    /// Pairs of a positive and a negative film of one score.
    pub pairs_between_classes: u64,
    /// AUROC if those pairs were all ranked wrongly, and all rightly; `None` unless both classes occur.
    pub auroc_range: Option<[f64; 2]>,
    /// Films that lie exactly on the threshold, and so are all called positive: `[positive, negative]`; `None` without one.
    pub on_threshold: Option<[usize; 2]>,
}

impl Ties {
    /// Counts the ties; `threshold` is in the unit of the scores.
    pub fn of(data: &LabelledScores, threshold: Option<f64>) -> Self {
        let mut ties =
            Self { films: 0, scores: 0, pairs_between_classes: 0, auroc_range: None, on_threshold: None };
        let mut on_threshold = [0, 0];
        let (mut tp, mut fp) = (0, 0);
        for step in data.steps() {
            let (positive, negative) = (step.tp - tp, step.fp - fp);
            (tp, fp) = (step.tp, step.fp);
            if positive + negative > 1 {
                ties.films += positive + negative;
                ties.scores += 1;
                ties.pairs_between_classes += positive as u64 * negative as u64;
            }
            if threshold == Some(step.threshold) {
                on_threshold = [positive, negative];
            }
        }
        ties.on_threshold = threshold.map(|_| on_threshold);
        ties.auroc_range = roc::auroc(data).map(|auroc| {
            let pairs = data.positives() as f64 * data.negatives() as f64;
            let half = 0.5 * ties.pairs_between_classes as f64 / pairs;
            [auroc - half, auroc + half]
        });
        ties
    }

    /// How far the AUROC could move either way.
    pub fn auroc_swing(&self) -> f64 {
        self.auroc_range.map_or(0.0, |[low, high]| 0.5 * (high - low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_counted_and_their_effect_is_the_pairs_between_classes() {
        let labels = [true, true, false, false, true, false];
        let scores = [0.9, 0.5, 0.5, 0.5, 0.1, 0.1];
        let data = LabelledScores::new(&labels, &scores).unwrap();
        let ties = Ties::of(&data, Some(0.5));
        assert_eq!((ties.films, ties.scores, ties.pairs_between_classes), (5, 2, 3));
        assert_eq!(ties.on_threshold, Some([1, 2]));
        // Nine pairs: three of 0.9, two half and one right of 0.5, one half of 0.1.
        let [low, high] = ties.auroc_range.unwrap();
        assert!((low - 4.0 / 9.0).abs() < 1e-15 && (high - 7.0 / 9.0).abs() < 1e-15, "{low} {high}");
        assert!((ties.auroc_swing() - 1.5 / 9.0).abs() < 1e-15);
    }

    #[test]
    fn without_ties_there_is_nothing_to_tell() {
        let data = LabelledScores::new(&[true, false, true], &[0.3, 0.2, 0.1]).unwrap();
        let ties = Ties::of(&data, None);
        assert_eq!((ties.films, ties.pairs_between_classes, ties.on_threshold), (0, 0, None));
        assert_eq!(ties.auroc_range, Some([0.5, 0.5]));
        let one_class = LabelledScores::new(&[true, true], &[0.2, 0.2]).unwrap();
        assert_eq!(Ties::of(&one_class, Some(0.3)).auroc_range, None);
        assert_eq!(Ties::of(&one_class, Some(0.3)).on_threshold, Some([0, 0]));
    }
}
