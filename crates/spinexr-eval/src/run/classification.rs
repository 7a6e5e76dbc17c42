//! Rows of the film-level table.

use super::{Protocol, RunOptions, source};
use crate::binary::{self, Confusion};
use crate::calibration::{self, CalibrationLine, Isotonic, ReliabilityBin, Temperature};
use crate::decision_curve::{self, NetBenefit, Predictive};
use crate::error::EvalError;
use crate::intervals::{self, BinaryBootstrap, DeLong, Interval, Unit};
use crate::threshold::{self, ChosenOn, Predictions, Scorer, Target, Test, Threshold, Truth, Validation};
use crate::ties::Ties;
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
    /// The same question asked of studies.
    pub study_level: StudyLevel,
    /// Whether p(abnormal) means what it says.
    pub calibration: CalibrationReport,
    /// What a call at the threshold is worth.
    pub worth: Worth,
    /// Films of equal score.
    pub ties: Ties,
    /// Other thresholds, chosen on validation films for what they reach there; empty without validation films.
    pub operating_points: Vec<OperatingPointRow>,
}

/// A threshold chosen on validation films, and what it does on the test films.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatingPointRow {
    /// What it was to reach on validation films.
    pub target: Target,
    /// p(abnormal) from which a film is called abnormal; `None` where no threshold reaches the target there.
    pub threshold: Option<f64>,
    /// Sensitivity on the test films.
    pub sensitivity: Option<f64>,
    /// Its Wilson interval.
    pub sensitivity_ci: Option<Interval>,
    /// Specificity on the test films.
    pub specificity: Option<f64>,
    /// Its Wilson interval.
    pub specificity_ci: Option<Interval>,
    /// F1 on the test films.
    pub f1: Option<f64>,
}

/// Operating points of the report: a reader who must not miss, and one who must not alarm.
const TARGETS: [Target; 4] = [
    Target::Sensitivity(0.95),
    Target::Sensitivity(0.9),
    Target::Specificity(0.9),
    Target::Specificity(0.95),
];

/// Studies in place of films: a study's score is its highest film's, and it is abnormal when a film of it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyLevel {
    /// Studies.
    pub studies: usize,
    /// Abnormal ones.
    pub abnormal: usize,
    /// Area under the ROC curve with its DeLong interval.
    pub auroc: Option<DeLong>,
    /// Sensitivity at the threshold of films.
    pub sensitivity: Option<f64>,
    /// Specificity at the threshold of films.
    pub specificity: Option<f64>,
}

/// Calibration of p(abnormal) on the test films.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationReport {
    /// Expected calibration error in 15 bins.
    pub expected_error: Option<f64>,
    /// Logistic recalibration; `None` where it has no best fit.
    pub line: Option<CalibrationLine>,
    /// Ten bins.
    pub reliability: Vec<ReliabilityBin>,
    /// The temperature that fits validation films best; `None` without them, or where none is best.
    pub temperature: Option<Temperature>,
    /// Log-loss of the test films at that temperature, nats.
    pub log_loss_at_temperature: Option<f64>,
    /// Expected calibration error at that temperature.
    pub expected_error_at_temperature: Option<f64>,
    /// Brier score after the isotonic map that fits validation films best; `None` without them.
    pub brier_isotonic: Option<f64>,
    /// Expected calibration error after that map.
    pub expected_error_isotonic: Option<f64>,
}

/// What a call at the threshold is worth to whoever acts on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worth {
    /// Sensitivity over 1 − specificity.
    pub positive_likelihood_ratio: Option<f64>,
    /// 1 − sensitivity over specificity.
    pub negative_likelihood_ratio: Option<f64>,
    /// Predictive values at the shares of abnormal films in [`PREVALENCES`].
    pub predictive: Vec<Predictive>,
    /// Net benefit by threshold probability.
    pub decision_curve: Vec<NetBenefit>,
}

/// Shares of abnormal films at which predictive values are given: from screening to a spine clinic.
pub const PREVALENCES: [f64; 4] = [0.05, 0.1, 0.25, 0.5];

/// Bins of the expected calibration error, as usual in the field, and of the reliability curve.
const ERROR_BINS: usize = 15;
const CURVE_BINS: usize = 10;

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
    validation: Option<(&Predictions<Validation>, &Truth)>,
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
        study_level: study_level(&logits, cut),
        calibration: calibration_report(&logits, &probabilities, validation, scorer)?,
        worth: worth(&probabilities, confusion.as_ref()),
        ties: Ties::of(&logits, cut),
        operating_points: operating_points(&logits, validation, scorer)?,
    };
    let curve = roc::roc_curve(&logits)
        .map(|points| points.iter().map(|p| [p.false_positive_rate, p.true_positive_rate]).collect());
    Ok((row, curve))
}

fn study_level(logits: &LabelledScores, cut: Option<f64>) -> StudyLevel {
    let studies = logits.by_study();
    let confusion = cut.map(|cut| Confusion::at(&studies, cut));
    StudyLevel {
        studies: studies.len(),
        abnormal: studies.positives(),
        auroc: intervals::delong(&studies),
        sensitivity: confusion.and_then(|c| c.sensitivity()),
        specificity: confusion.and_then(|c| c.specificity()),
    }
}

fn calibration_report(
    logits: &LabelledScores,
    probabilities: &LabelledScores,
    validation: Option<(&Predictions<Validation>, &Truth)>,
    scorer: &Scorer,
) -> Result<CalibrationReport, EvalError> {
    let temperature = match validation {
        Some((films, truth)) => Temperature::fit(films, truth, scorer)?,
        None => None,
    };
    let calibrated = temperature.map(|temperature| {
        let calibrated: Vec<f64> = logits.scores().iter().map(|z| temperature.probability(*z)).collect();
        LabelledScores::new(logits.positive(), &calibrated).expect("probabilities are finite")
    });
    let isotonic = match validation {
        Some((films, truth)) => Isotonic::fit(films, truth, scorer)?,
        None => None,
    };
    let mapped = isotonic.map(|isotonic| {
        let mapped: Vec<f64> = probabilities.scores().iter().map(|p| isotonic.probability(*p)).collect();
        LabelledScores::new(probabilities.positive(), &mapped).expect("probabilities are finite")
    });
    Ok(CalibrationReport {
        expected_error_at_temperature: calibrated
            .as_ref()
            .and_then(|data| calibration::expected_calibration_error(data, ERROR_BINS)),
        brier_isotonic: mapped.as_ref().and_then(binary::brier),
        expected_error_isotonic: mapped
            .as_ref()
            .and_then(|data| calibration::expected_calibration_error(data, ERROR_BINS)),
        expected_error: calibration::expected_calibration_error(probabilities, ERROR_BINS),
        line: calibration::calibration_line(logits),
        reliability: calibration::reliability(probabilities, CURVE_BINS).unwrap_or_default(),
        temperature,
        log_loss_at_temperature: calibrated.as_ref().and_then(binary::log_loss),
    })
}

fn operating_points(
    logits: &LabelledScores,
    validation: Option<(&Predictions<Validation>, &Truth)>,
    scorer: &Scorer,
) -> Result<Vec<OperatingPointRow>, EvalError> {
    let Some((films, truth)) = validation else { return Ok(Vec::new()) };
    let mut rows = Vec::with_capacity(TARGETS.len());
    for target in TARGETS {
        let threshold = threshold::choose_at(films, truth, scorer, target)?.map(|t| t.value());
        let at = threshold.map(|c| Confusion::at(logits, logit_cut(logits, c)));
        rows.push(OperatingPointRow {
            target,
            threshold,
            sensitivity: at.and_then(|c| c.sensitivity()),
            sensitivity_ci: at.and_then(|c| intervals::wilson(c.true_positives, logits.positives())),
            specificity: at.and_then(|c| c.specificity()),
            specificity_ci: at.and_then(|c| intervals::wilson(c.true_negatives, logits.negatives())),
            f1: at.and_then(|c| c.f1()),
        });
    }
    Ok(rows)
}

fn worth(probabilities: &LabelledScores, confusion: Option<&Confusion>) -> Worth {
    let thresholds: Vec<f64> = (1..20).map(|i| f64::from(i) / 20.0).collect();
    let predictive = |c: &Confusion| PREVALENCES.iter().filter_map(|&p| c.predictive_at(p)).collect();
    Worth {
        positive_likelihood_ratio: confusion.and_then(Confusion::positive_likelihood_ratio),
        negative_likelihood_ratio: confusion.and_then(Confusion::negative_likelihood_ratio),
        predictive: confusion.map(predictive).unwrap_or_default(),
        decision_curve: decision_curve::decision_curve(probabilities, &thresholds).unwrap_or_default(),
    }
}

/// The lowest logit whose probability reaches `c`; infinity when none does.
pub(super) fn logit_cut(logits: &LabelledScores, c: f64) -> f64 {
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
