//! What calling films positive is worth: predictive values at any prevalence, likelihood ratios, net benefit.
//!
//! Decision curves: Vickers & Elkin, Med Decis Making 2006;26:565–574.

use crate::LabelledScores;
use crate::binary::Confusion;
use serde::{Deserialize, Serialize};

/// What a call means where a share of the films is positive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Predictive {
    /// Share of positive films, in `(0, 1)`.
    pub prevalence: f64,
    /// Probability that a film called positive is; `None` when none is called positive.
    pub positive_predictive_value: Option<f64>,
    /// Probability that a film called negative is; `None` when none is called negative.
    pub negative_predictive_value: Option<f64>,
}

impl Confusion {
    /// Predictive values by Bayes' rule; `None` unless both classes occur.
    ///
    /// A test set's own share of positive films is rarely a clinic's.
    pub fn predictive_at(&self, prevalence: f64) -> Option<Predictive> {
        let (sensitivity, specificity) = (self.sensitivity()?, self.specificity()?);
        let ratio = |part: f64, other: f64| (part + other > 0.0).then(|| part / (part + other));
        Some(Predictive {
            prevalence,
            positive_predictive_value: ratio(
                sensitivity * prevalence,
                (1.0 - specificity) * (1.0 - prevalence),
            ),
            negative_predictive_value: ratio(
                specificity * (1.0 - prevalence),
                (1.0 - sensitivity) * prevalence,
            ),
        })
    }

    /// Sensitivity over 1 − specificity; `None` when no negative film is called positive, or a class is missing.
    pub fn positive_likelihood_ratio(&self) -> Option<f64> {
        let (sensitivity, specificity) = (self.sensitivity()?, self.specificity()?);
        (self.false_positives > 0).then(|| sensitivity / (1.0 - specificity))
    }

    /// 1 − sensitivity over specificity; `None` when no negative film is called negative, or a class is missing.
    pub fn negative_likelihood_ratio(&self) -> Option<f64> {
        let (sensitivity, specificity) = (self.sensitivity()?, self.specificity()?);
        (self.true_negatives > 0).then(|| (1.0 - sensitivity) / specificity)
    }
}

/// A point of a decision curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NetBenefit {
    /// Probability from which on a film is called positive: what a reader would accept as a price of `t / (1 − t)`
    /// true positives for a false one.
    pub threshold: f64,
    /// True positives a film, less false ones at that price.
    pub model: f64,
    /// The same for calling every film positive. Calling none has 0.
    pub all: f64,
}

/// The decision curve at the thresholds; `None` for no film, or scores that are no probabilities. Thresholds outside
/// `(0, 1)` are left out.
pub fn decision_curve(data: &LabelledScores, thresholds: &[f64]) -> Option<Vec<NetBenefit>> {
    if data.is_empty() || !data.are_probabilities() {
        return None;
    }
    let films = data.len() as f64;
    let point = |&threshold: &f64| {
        let price = threshold / (1.0 - threshold);
        let benefit = |true_positives: usize, false_positives: usize| {
            true_positives as f64 / films - false_positives as f64 / films * price
        };
        let at = Confusion::at(data, threshold);
        NetBenefit {
            threshold,
            model: benefit(at.true_positives, at.false_positives),
            all: benefit(data.positives(), data.negatives()),
        }
    };
    Some(thresholds.iter().filter(|t| **t > 0.0 && **t < 1.0).map(point).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden_sets;
    use serde_json::Value;

    fn data(labels: &[bool], scores: &[f64]) -> LabelledScores {
        LabelledScores::new(labels, scores).unwrap()
    }

    #[test]
    fn equal_to_the_formulas_on_the_reference_sets() {
        let results = golden_sets::results("metrics_calibration");
        for set in ["plain", "rare"] {
            let data = golden_sets::scores(set);
            let near = |what: &str, got: f64, expected: &Value| {
                let expected = expected.as_f64().unwrap();
                assert!((got - expected).abs() < 1e-12, "{set} {what}: {got}, expected {expected}");
            };
            let wanted = results[set]["decision_curve"].as_array().unwrap();
            let thresholds: Vec<f64> = wanted.iter().map(|w| w["threshold"].as_f64().unwrap()).collect();
            for (point, wanted) in decision_curve(&data, &thresholds).unwrap().iter().zip(wanted) {
                near("model", point.model, &wanted["model"]);
                near("all", point.all, &wanted["all"]);
            }
            let wanted = &results[set]["predictive"];
            let at = Confusion::at(&data, wanted["threshold"].as_f64().unwrap());
            near("LR+", at.positive_likelihood_ratio().unwrap(), &wanted["positive_likelihood_ratio"]);
            near("LR−", at.negative_likelihood_ratio().unwrap(), &wanted["negative_likelihood_ratio"]);
            for wanted in wanted["at"].as_array().unwrap() {
                let found = at.predictive_at(wanted["prevalence"].as_f64().unwrap()).unwrap();
                near("PPV", found.positive_predictive_value.unwrap(), &wanted["ppv"]);
                near("NPV", found.negative_predictive_value.unwrap(), &wanted["npv"]);
            }
        }
    }

    #[test]
    fn undefined_is_none_and_a_perfect_call_is_perfect() {
        let perfect = Confusion::at(&data(&[true, false], &[0.9, 0.1]), 0.5);
        assert_eq!(perfect.positive_likelihood_ratio(), None);
        assert_eq!(perfect.negative_likelihood_ratio(), Some(0.0));
        let found = perfect.predictive_at(0.01).unwrap();
        assert_eq!(
            (found.positive_predictive_value, found.negative_predictive_value),
            (Some(1.0), Some(1.0))
        );
        let nothing_called = Confusion::at(&data(&[true, false], &[0.1, 0.1]), 0.5);
        assert_eq!(nothing_called.predictive_at(0.5).unwrap().positive_predictive_value, None);
        assert_eq!(Confusion::at(&data(&[true], &[0.9]), 0.5).predictive_at(0.5), None);
        assert_eq!(decision_curve(&data(&[], &[]), &[0.5]), None);
        assert_eq!(decision_curve(&data(&[true], &[2.0]), &[0.5]), None);
        assert_eq!(decision_curve(&data(&[true], &[0.7]), &[0.0, 1.0, 0.5]).unwrap().len(), 1);
    }
}
