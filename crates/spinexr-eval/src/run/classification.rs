//! Rows of the film-level table.

use super::{Protocol, RunOptions, source};
use crate::binary::{self, Confusion};
use crate::error::EvalError;
use crate::intervals::{self, BinaryBootstrap, DeLong, Interval, Unit};
use crate::threshold::{ChosenOn, Predictions, Scorer, Test, Threshold, Truth};
use crate::{LabelledScores, roc};
use serde::{Deserialize, Serialize};
use spinexr_core::fusion::sigmoid;

/// One classifier, or the ensemble. Shares lie in `[0, 1]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassificationRow {
    /// Area under the ROC curve.
    pub auroc: Option<f64>,
    /// Its 95 % interval, by the bootstrap of `auroc_ci_unit`.
    pub auroc_ci: Option<Interval>,
    /// What was drawn for `auroc_ci`: films as in the paper, or studies.
    pub auroc_ci_unit: Unit,
    /// F1 at the threshold.
    pub f1: Option<f64>,
    /// Sensitivity at the threshold.
    pub sensitivity: Option<f64>,
    /// Specificity at the threshold.
    pub specificity: Option<f64>,
    /// p(abnormal) from which a film is called abnormal.
    pub threshold: Option<f64>,
    /// The films the threshold was chosen on.
    pub threshold_chosen_on: Option<ChosenOn>,
    /// Youden's J there.
    pub threshold_youden_j: Option<f64>,
    /// Films by verdict.
    pub confusion: Option<Confusion>,
    /// Wilson interval of the sensitivity.
    pub sensitivity_ci: Option<Interval>,
    /// Wilson interval of the specificity.
    pub specificity_ci: Option<Interval>,
    /// Average precision.
    pub average_precision: Option<f64>,
    /// Brier score of p(abnormal).
    pub brier: Option<f64>,
    /// Log-loss of p(abnormal), nats.
    pub log_loss: Option<f64>,
    /// AUROC with its DeLong interval, which takes films for independent.
    pub delong: Option<DeLong>,
    /// Bootstrap of films, threshold fixed.
    pub bootstrap_by_film: BinaryBootstrap,
    /// Bootstrap of studies, threshold fixed.
    pub bootstrap_by_study: BinaryBootstrap,
}

/// p(abnormal) of the test films in bins of equal width over `[0, 1]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreHistogram {
    /// Normal films a bin.
    pub normal: Vec<usize>,
    /// Abnormal films a bin.
    pub abnormal: Vec<usize>,
}

const BINS: usize = 20;

/// `[false positive rate, true positive rate]`, from the origin.
type RocCurve = Vec<[f64; 2]>;

/// The row of one scorer and its ROC curve.
pub(super) fn evaluate(
    test: &Predictions<Test>,
    truth: &Truth,
    scorer: &Scorer,
    threshold: Option<&Threshold>,
    options: &RunOptions,
) -> Result<(ClassificationRow, Option<RocCurve>), EvalError> {
    // Logits rank films that a saturated sigmoid would tie.
    let logits = test.logits(truth, scorer)?;
    let probabilities = test.probabilities(truth, scorer)?;
    let cut = threshold.map(|t| logit_cut(&logits, t.value()));
    let confusion = cut.map(|cut| Confusion::at(&logits, cut));
    let by_film = intervals::bootstrap(&logits, cut, Unit::Film, &options.bootstrap);
    let by_study = intervals::bootstrap(&logits, cut, Unit::Study, &options.bootstrap);
    let (auroc_ci_unit, auroc_ci) = match options.protocol {
        Protocol::Paper => (Unit::Film, by_film.auroc),
        Protocol::Improved => (Unit::Study, by_study.auroc),
    };
    let row = ClassificationRow {
        auroc: roc::auroc(&logits),
        auroc_ci: auroc_ci.map(|b| b.interval),
        auroc_ci_unit,
        f1: confusion.and_then(|c| c.f1()),
        sensitivity: confusion.and_then(|c| c.sensitivity()),
        specificity: confusion.and_then(|c| c.specificity()),
        threshold: threshold.map(Threshold::value),
        threshold_chosen_on: source(threshold),
        threshold_youden_j: threshold.and_then(Threshold::youden_j),
        confusion,
        sensitivity_ci: confusion.and_then(|c| intervals::wilson(c.true_positives, logits.positives())),
        specificity_ci: confusion.and_then(|c| intervals::wilson(c.true_negatives, logits.negatives())),
        average_precision: roc::average_precision(&logits),
        brier: binary::brier(&probabilities),
        log_loss: binary::log_loss(&probabilities),
        delong: intervals::delong(&logits),
        bootstrap_by_film: by_film,
        bootstrap_by_study: by_study,
    };
    let curve = roc::roc_curve(&logits)
        .map(|points| points.iter().map(|p| [p.false_positive_rate, p.true_positive_rate]).collect());
    Ok((row, curve))
}

/// The lowest logit whose probability reaches `c`; infinity when none does.
fn logit_cut(logits: &LabelledScores, c: f64) -> f64 {
    let called = logits.scores().partition_point(|&l| sigmoid(l) >= c);
    if called == 0 { f64::INFINITY } else { logits.scores()[called - 1] }
}

/// Histogram of the ensemble's probabilities; `None` without a classifier.
pub(super) fn histogram(
    test: &Predictions<Test>,
    truth: &Truth,
) -> Result<Option<ScoreHistogram>, EvalError> {
    if test.models().is_empty() {
        return Ok(None);
    }
    let data = test.probabilities(truth, &Scorer::Ensemble)?;
    let mut histogram = ScoreHistogram { normal: vec![0; BINS], abnormal: vec![0; BINS] };
    for (&p, &positive) in data.scores().iter().zip(data.positive()) {
        let bin = ((p * BINS as f64) as usize).min(BINS - 1);
        let side = if positive { &mut histogram.abnormal } else { &mut histogram.normal };
        side[bin] += 1;
    }
    Ok(Some(histogram))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_in_logits_is_the_cut_in_probabilities() {
        let logits = [-50.0, -2.0, -0.1, 0.3, 3.0, 40.0, 41.0];
        let data = LabelledScores::new(&[true; 7], &logits).unwrap();
        for c in [0.0, 0.2, sigmoid(0.3), 0.99, 1.0] {
            let cut = logit_cut(&data, c);
            let expected = logits.iter().filter(|&&l| sigmoid(l) >= c).count();
            assert_eq!(logits.iter().filter(|&&l| l >= cut).count(), expected, "{c}");
        }
    }
}
