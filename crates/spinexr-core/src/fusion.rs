//! The paper's ensemble and decision rule, over plain numbers.
//!
//! Source: paper section 2.3 and figure 2. The ensemble averages logits. The gate lets a film-level
//! classifier and a detector speak together: on a film called abnormal every box stays, on a film called
//! normal only boxes that are sure of themselves do.

use crate::Detection;
use serde::{Deserialize, Serialize};

/// Logistic function, `logit` to probability in `[0, 1]`.
pub fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// Inverse of [`sigmoid`], with the probability first clipped to `[1e-6, 1 - 1e-6]` as the paper's
/// code clips it.
pub fn logit(probability: f64) -> f64 {
    let p = probability.clamp(1e-6, 1.0 - 1e-6);
    (p / (1.0 - p)).ln()
}

/// Mean of the members' logits; `None` for no member.
pub fn ensemble_logit(logits: &[f64]) -> Option<f64> {
    if logits.is_empty() {
        return None;
    }
    Some(logits.iter().sum::<f64>() / logits.len() as f64)
}

/// The decision rule with its two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// c*: a film with `p_abnormal >= c_star` keeps every box. Chosen on validation films.
    pub c_star: f64,
    /// On other films a box stays when its score is at least this; the paper's value is 0.5.
    pub keep_score: f64,
}

impl Gate {
    /// The paper's box score for films below c*.
    pub const PAPER_KEEP_SCORE: f64 = 0.5;

    /// The paper's rule at a given c*.
    pub const fn with_c_star(c_star: f64) -> Self {
        Self { c_star, keep_score: Self::PAPER_KEEP_SCORE }
    }

    /// The boxes that stay, in their order. Never adds, moves or rescores a box.
    pub fn apply(&self, p_abnormal: f64, boxes: &[Detection]) -> Vec<Detection> {
        boxes
            .iter()
            .filter(|b| p_abnormal >= self.c_star || f64::from(b.score) >= self.keep_score)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BoxXyxy, Finding};
    use proptest::prelude::*;

    fn detection(score: f32) -> Detection {
        Detection { label: Finding::Osteophytes.label(), score, xyxy: BoxXyxy::new(0.0, 0.0, 1.0, 1.0) }
    }

    #[test]
    fn at_c_star_every_box_stays() {
        let gate = Gate::with_c_star(0.28);
        let boxes = [detection(0.1), detection(0.5), detection(0.9)];
        assert_eq!(gate.apply(0.28, &boxes).len(), 3);
        assert_eq!(gate.apply(0.2799, &boxes), &boxes[1..]);
    }

    #[test]
    fn ensemble_is_the_mean_of_logits() {
        assert_eq!(ensemble_logit(&[]), None);
        assert_eq!(ensemble_logit(&[1.0, -2.0, 4.0]), Some(1.0));
    }

    #[test]
    fn logit_inverts_sigmoid_within_its_clip() {
        for x in [-13.0, -3.0, 0.0, 0.5, 8.0] {
            assert!((logit(sigmoid(x)) - x).abs() < 1e-8);
        }
        assert!(logit(0.0).is_finite() && logit(1.0).is_finite());
    }

    proptest! {
        #[test]
        fn the_gate_never_adds_boxes(p in 0.0f64..1.0, c in 0.0f64..1.0, scores in prop::collection::vec(0.0f32..1.0, 0..20)) {
            let boxes: Vec<_> = scores.into_iter().map(detection).collect();
            let kept = Gate::with_c_star(c).apply(p, &boxes);
            prop_assert!(kept.iter().all(|k| boxes.contains(k)));
            prop_assert!(kept.len() <= boxes.len());
        }
    }
}
