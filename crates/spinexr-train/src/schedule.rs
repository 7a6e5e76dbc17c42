//! Learning rate as a function of the step: linear warm-up times a decay.
//!
//! Reference: detectron2's `WarmupMultiStepLR` (the paper's recipe) and the usual half cosine. Steps count
//! optimiser updates from 0, so the rate of step 0 is the one that makes the first update.

use serde::{Deserialize, Serialize};

/// Warm-up and decay of the learning rate, without the base rate itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Optimiser updates in the whole run.
    pub total_steps: u64,
    /// Updates over which the factor rises linearly to 1; 0 for none.
    pub warmup_steps: u64,
    /// Factor of the very first update when there is a warm-up.
    pub warmup_start: f64,
    /// What happens afterwards.
    pub decay: Decay,
}

/// Shape of the learning rate after the warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decay {
    /// Stays at the base rate.
    Constant,
    /// Times `factor` at every milestone.
    Steps {
        /// Steps at which the rate drops, ascending; step `m` already has the lower rate.
        milestones: Vec<u64>,
        /// Factor of each drop.
        factor: f64,
    },
    /// Half a cosine from the end of the warm-up to the last step.
    Cosine {
        /// Factor reached at the end of the run.
        final_factor: f64,
    },
}

impl Schedule {
    /// Factor on the base learning rate for the update at `step` (from 0).
    ///
    /// The warm-up multiplies the decay, as detectron2 does: a milestone inside the warm-up counts.
    pub fn factor(&self, step: u64) -> f64 {
        let warmup = if step < self.warmup_steps {
            let alpha = step as f64 / self.warmup_steps as f64;
            self.warmup_start * (1.0 - alpha) + alpha
        } else {
            1.0
        };
        let decay = match &self.decay {
            Decay::Constant => 1.0,
            Decay::Steps { milestones, factor } => {
                let passed = milestones.iter().filter(|&&m| step >= m).count();
                factor.powi(i32::try_from(passed).unwrap_or(i32::MAX))
            }
            Decay::Cosine { final_factor } => {
                let length = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
                let progress = (step.saturating_sub(self.warmup_steps) as f64 / length).min(1.0);
                let half_cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                final_factor + (1.0 - final_factor) * half_cosine
            }
        };
        warmup * decay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn the_papers_classifier_schedule() {
        let schedule = Schedule {
            total_steps: 10_000,
            warmup_steps: 1000,
            warmup_start: 1e-3,
            decay: Decay::Steps { milestones: vec![5000, 7500], factor: 0.1 },
        };
        // step -> factor, by hand
        let table = [
            (0, 0.001),
            (1, 0.001 * 0.999 + 0.001),
            (500, 0.5005),
            (999, 0.001 * 0.001 + 0.999),
            (1000, 1.0),
            (4999, 1.0),
            (5000, 0.1),
            (7499, 0.1),
            (7500, 0.01),
            (9999, 0.01),
        ];
        for (step, expected) in table {
            close(schedule.factor(step), expected);
        }
    }

    #[test]
    fn cosine_from_the_end_of_the_warm_up() {
        let schedule = Schedule {
            total_steps: 110,
            warmup_steps: 10,
            warmup_start: 0.0,
            decay: Decay::Cosine { final_factor: 0.1 },
        };
        for (step, expected) in [(0, 0.0), (5, 0.5), (10, 1.0), (60, 0.55), (110, 0.1), (500, 0.1)] {
            close(schedule.factor(step), expected);
        }
        let factors: Vec<f64> = (10..110).map(|s| schedule.factor(s)).collect();
        assert!(factors.windows(2).all(|w| w[1] < w[0]), "the cosine falls at every step");
    }

    #[test]
    fn constant_without_warm_up_is_one() {
        let schedule =
            Schedule { total_steps: 5, warmup_steps: 0, warmup_start: 0.0, decay: Decay::Constant };
        assert!((0..5).all(|s| schedule.factor(s) == 1.0));
    }
}
