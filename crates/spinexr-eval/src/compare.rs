//! Any number of runs on the same test films: their figures side by side, and which of them differ.
//!
//! Several runs of one method (seeds) are summarised, and what is compared is the mean over them. All tests are paired: they
//! ask about the very same films. Every p of a report is one of many, so all of them are corrected together.

use crate::box_bootstrap::{RankedBoxes, resampled_ap};
use crate::error::EvalError;
use crate::intervals::{self, BootstrapOptions, Bootstrapped, Interval, student_t_975, summarise};
use crate::paired::{self, mcnemar};
use crate::run::{self, FOUND_IOU, RunReport, Studies};
use crate::threshold::{Predictions, Scorer, Test, Truth};
use serde::{Deserialize, Serialize};
use spinexr_core::{ClassList, FilmAnnotation, Gate};
use std::collections::{BTreeMap, BTreeSet};

/// A run as it goes into a comparison.
#[derive(Debug, Clone, Copy)]
pub struct ComparedRun<'a> {
    /// What it is a run of; runs of one name are seeds of one method.
    pub method: &'a str,
    /// Where it comes from, such as its file.
    pub source: &'a str,
    /// Its records of the test films.
    pub test: &'a Predictions<Test>,
    /// Its own evaluation.
    pub report: &'a RunReport,
}

/// How p values are corrected for their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Correction {
    /// Holm: the chance that any claim is false stays below the level.
    Holm,
    /// Benjamini and Hochberg: of the claims, that share is false on average.
    BenjaminiHochberg,
}

impl Correction {
    /// As in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Holm => "Holm",
            Self::BenjaminiHochberg => "Benjamini–Hochberg",
        }
    }

    /// The adjusted p values.
    pub fn adjust(self, p: &[f64]) -> Vec<f64> {
        match self {
            Self::Holm => paired::holm(p),
            Self::BenjaminiHochberg => paired::benjamini_hochberg(p),
        }
    }
}

/// What a comparison needs beside the runs.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareOptions {
    /// Headline.
    pub title: String,
    /// Correction of all p values together.
    pub correction: Correction,
    /// Bootstrap of studies.
    pub bootstrap: BootstrapOptions,
}

/// A figure of one method.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean over the runs in which it is defined; `None` where it is in none.
    pub mean: Option<f64>,
    /// Sample standard deviation over the runs; `None` for one run.
    pub sd: Option<f64>,
    /// 95 % interval of the mean over runs, Student's t: what other seeds would give on these films. `None` for one run.
    pub interval_of_runs: Option<Interval>,
    /// 95 % interval, bootstrap of studies: what these runs would give on other films. `None` where none was made.
    pub interval_of_studies: Option<Interval>,
}

impl Summary {
    fn of(values: impl IntoIterator<Item = Option<f64>>, of_studies: Option<Bootstrapped>) -> Self {
        let values: Vec<f64> = values.into_iter().flatten().collect();
        let count = values.len() as f64;
        let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / count);
        let sd = mean
            .filter(|_| values.len() > 1)
            .map(|mean| (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (count - 1.0)).sqrt());
        let interval_of_runs = mean.zip(sd).map(|(mean, sd)| {
            let half = student_t_975(values.len() - 1) * sd / count.sqrt();
            [mean - half, mean + half]
        });
        Self { mean, sd, interval_of_runs, interval_of_studies: of_studies.map(|b| b.interval) }
    }
}

/// A method with the figures of its runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodRow {
    /// Name.
    pub name: String,
    /// Where its runs come from.
    pub sources: Vec<String>,
    /// Area under the ROC curve of the ensemble.
    pub auroc: Summary,
    /// F1 at each run's own c*.
    pub f1: Summary,
    /// Sensitivity there.
    pub sensitivity: Summary,
    /// Specificity there.
    pub specificity: Summary,
    /// mAP at IoU 0.5 of the detector alone.
    pub map50_detector: Summary,
    /// mAP at IoU 0.5 after the decision rule.
    pub map50: Summary,
    /// AP at IoU 0.5 by class, after the decision rule where there is one.
    pub ap50: BTreeMap<String, Summary>,
}

/// What is compared, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairedTestKind {
    /// AUROC, DeLong, which takes films for independent.
    AurocDelong,
    /// AUROC, bootstrap of studies.
    AurocBootstrap,
    /// Right and wrong calls at each run's c*, McNemar's exact test, which takes films for independent.
    DecisionsMcnemar,
    /// mAP at IoU 0.5 of the detectors alone, bootstrap of studies.
    DetectorMapBootstrap,
    /// mAP at IoU 0.5 after the decision rule, bootstrap of studies.
    FrameworkMapBootstrap,
}

impl PairedTestKind {
    /// As in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AurocDelong => "AUROC, DeLong",
            Self::AurocBootstrap => "AUROC, bootstrap of studies",
            Self::DecisionsMcnemar => "share of films called rightly, McNemar",
            Self::DetectorMapBootstrap => "mAP@0.5 before the gate, bootstrap of studies",
            Self::FrameworkMapBootstrap => "mAP@0.5 after the gate, bootstrap of studies",
        }
    }
}

/// One paired test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedTest {
    /// A method.
    pub first: String,
    /// Another.
    pub second: String,
    /// What is compared, and how.
    pub kind: PairedTestKind,
    /// Figure of the first less that of the second.
    pub difference: f64,
    /// 95 % interval of the difference; `None` where the test gives none.
    pub interval: Option<Interval>,
    /// Two-sided p of no difference; `None` where the two never disagree.
    pub p: Option<f64>,
    /// p corrected for the number of tests in this report.
    pub p_adjusted: Option<f64>,
}

/// The comparison, as in `comparison.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareReport {
    /// Headline.
    pub title: String,
    /// [`RunReport::NOTICE`].
    pub notice: String,
    /// Test films, the same for every run.
    pub films: usize,
    /// Studies they are of.
    pub studies: usize,
    /// Classes in the order of tables.
    pub classes: Vec<String>,
    /// The methods, in the order they were given.
    pub methods: Vec<MethodRow>,
    /// Paired tests of every two methods.
    pub tests: Vec<PairedTest>,
    /// How p values were corrected, all of them together.
    pub correction: Correction,
    /// How the intervals were made.
    pub bootstrap: BootstrapOptions,
    /// ROC of each method's first run: `[false positive rate, true positive rate]`.
    pub roc: BTreeMap<String, Vec<[f64; 2]>>,
    /// Findings found against false alarms a film, each method's first run.
    pub froc: BTreeMap<String, Vec<[f64; 2]>>,
    /// Warnings of single runs, and of the comparison.
    pub notes: Vec<String>,
}

/// Compares runs that predicted the same test films.
///
/// # Errors
/// [`EvalError::OtherFilms`] when a run's test films are not the first run's, [`EvalError::NoRuns`] without a run, [`EvalError::OtherClasses`] when their
/// classes differ, or broken annotations.
pub fn compare(
    runs: &[ComparedRun<'_>],
    annotations: &[FilmAnnotation],
    options: &CompareOptions,
) -> Result<CompareReport, EvalError> {
    let first = runs.first().ok_or(EvalError::NoRuns)?;
    for other in &runs[1..] {
        same_films(first, other)?;
        if other.report.classes != first.report.classes {
            let (first, second) = (first.source.to_owned(), other.source.to_owned());
            return Err(EvalError::OtherClasses { first, second });
        }
    }
    let predicted = annotations.iter().filter(|a| first.test.get(&a.image_id).is_some());
    let truth = Truth::new(predicted, &first.report.classes)?;
    let studies = Studies::of(first.test, &truth);

    let mut methods: Vec<Method<'_>> = Vec::new();
    for run in runs {
        let of_run = Resampled::of(run, &truth, &studies, &options.bootstrap)?;
        match methods.iter_mut().find(|method| method.name == run.method) {
            Some(method) => method.runs.push((*run, of_run)),
            None => methods.push(Method { name: run.method, runs: vec![(*run, of_run)] }),
        }
    }
    let mut tests = Vec::new();
    for (i, first) in methods.iter().enumerate() {
        for second in &methods[i + 1..] {
            tests.extend(paired_tests(first, second, &truth)?);
        }
    }
    let p: Vec<f64> = tests.iter().filter_map(|test| test.p).collect();
    let mut adjusted = options.correction.adjust(&p).into_iter();
    for test in tests.iter_mut().filter(|test| test.p.is_some()) {
        test.p_adjusted = adjusted.next();
    }
    let curve = |of: &dyn Fn(&RunReport) -> Option<Vec<[f64; 2]>>| {
        methods.iter().filter_map(|m| Some((m.name.to_owned(), of(m.runs[0].0.report)?))).collect()
    };
    Ok(CompareReport {
        title: options.title.clone(),
        notice: RunReport::NOTICE.into(),
        films: truth.films().len(),
        studies: studies.count,
        classes: if has_boxes(runs.iter()) { names(&first.report.classes) } else { Vec::new() },
        methods: methods.iter().map(Method::row).collect(),
        tests,
        correction: options.correction,
        bootstrap: options.bootstrap,
        roc: curve(&|report| report.curves.roc.get(Scorer::Ensemble.name()).cloned()),
        froc: curve(&|report| Some(last_row(report)?.froc.as_ref()?.sensitivity_at.clone())),
        notes: notes(&methods),
    })
}

fn same_films(first: &ComparedRun<'_>, other: &ComparedRun<'_>) -> Result<(), EvalError> {
    let ids = |run: &ComparedRun<'_>| -> BTreeSet<String> {
        run.test.films().map(|film| film.image.clone()).collect()
    };
    let (a, b) = (ids(first), ids(other));
    if a == b {
        return Ok(());
    }
    Err(EvalError::OtherFilms {
        first: first.source.to_owned(),
        second: other.source.to_owned(),
        only_first: a.difference(&b).cloned().collect(),
        only_second: b.difference(&a).cloned().collect(),
    })
}

/// The framework's row of a report, or the detector's where there is no decision rule.
fn last_row(report: &RunReport) -> Option<&run::DetectionRow> {
    report.detector_names().last().map(|name| &report.detection[*name])
}

/// Some run has a row of boxes.
fn has_boxes<'a, 'b: 'a>(mut runs: impl Iterator<Item = &'a ComparedRun<'b>>) -> bool {
    runs.any(|run| last_row(run.report).is_some())
}

fn names(classes: &ClassList) -> Vec<String> {
    classes.labels().iter().map(ToString::to_string).collect()
}

/// A run's figures in the resamples; runs of the same films share the draws.
struct Resampled {
    auroc: Option<Vec<f64>>,
    detector: Option<Vec<f64>>,
    framework: Option<Vec<f64>>,
    /// Of `last_row`, by class.
    by_class: Vec<Vec<f64>>,
}

impl Resampled {
    fn of(
        run: &ComparedRun<'_>,
        truth: &Truth,
        studies: &Studies,
        options: &BootstrapOptions,
    ) -> Result<Self, EvalError> {
        let auroc = match run.test.models() {
            [] => None,
            _ => Some(intervals::resampled_auroc(&run.test.logits(truth, &Scorer::Ensemble)?, options)),
        };
        let resampled = |gate: Option<&Gate>| {
            let boxes = run::box_set(run.test, truth, gate);
            resampled_ap(&RankedBoxes::new(&boxes, &studies.of_image, studies.count, FOUND_IOU), options)
        };
        let detector = run.report.detector.as_ref().map(|_| resampled(None));
        let gate = run.report.gate.as_ref().map(|g| Gate { c_star: g.c_star, keep_score: g.keep_score });
        let framework = detector.as_ref().and(gate.as_ref()).map(|gate| resampled(Some(gate)));
        let count = last_row(run.report).map_or(0, |row| row.ap50.len());
        let by_class = framework.as_ref().or(detector.as_ref()).map_or_else(Vec::new, |resampled| {
            (0..count).map(|class| resampled.class(class).collect()).collect()
        });
        Ok(Self {
            auroc,
            detector: detector.map(|r| r.mean().collect()),
            framework: framework.map(|r| r.mean().collect()),
            by_class,
        })
    }
}

struct Method<'a> {
    name: &'a str,
    runs: Vec<(ComparedRun<'a>, Resampled)>,
}

impl Method<'_> {
    /// Mean over the runs in every resample; `None` when a run lacks the figure.
    fn resampled(&self, of: impl Fn(&Resampled) -> Option<&Vec<f64>>) -> Option<Vec<f64>> {
        let runs: Vec<&Vec<f64>> = self.runs.iter().map(|run| of(&run.1)).collect::<Option<_>>()?;
        let mut mean = vec![0.0; runs[0].len()];
        for values in &runs {
            mean.iter_mut().zip(*values).for_each(|(sum, value)| *sum += value);
        }
        mean.iter_mut().for_each(|sum| *sum /= runs.len() as f64);
        Some(mean)
    }

    fn row(&self) -> MethodRow {
        let reports = || self.runs.iter().map(|(run, _)| run.report);
        let ensemble = |of: &dyn Fn(&run::ClassificationRow) -> Option<f64>| -> Vec<Option<f64>> {
            reports().map(|r| r.classification.get(Scorer::Ensemble.name()).and_then(of)).collect()
        };
        let at_c_star = |of: &dyn Fn(&intervals::BinaryBootstrap) -> Option<Bootstrapped>| {
            let [(run, _)] = &self.runs[..] else { return None };
            of(&run.report.classification.get(Scorer::Ensemble.name())?.bootstrap_by_study)
        };
        let swing = |of: &dyn Fn(&Resampled) -> Option<&Vec<f64>>| {
            self.resampled(of).and_then(|values| summarise(values.into_iter()))
        };
        let detector = |r: &RunReport| r.detection.get(r.detector.as_ref()?)?.map50;
        let framework = |r: &RunReport| r.gate.as_ref().and_then(|_| last_row(r)?.map50);
        let has_boxes = has_boxes(self.runs.iter().map(|(run, _)| run));
        let labels = self.runs[0].0.report.classes.labels();
        let ap50 = labels.iter().enumerate().filter(|_| has_boxes).map(|(i, label)| {
            let values = reports().map(|r| last_row(r)?.ap50.get(label).copied().flatten());
            (label.to_string(), Summary::of(values, swing(&|r| r.by_class.get(i))))
        });
        MethodRow {
            name: self.name.to_owned(),
            sources: self.runs.iter().map(|(run, _)| run.source.to_owned()).collect(),
            auroc: Summary::of(ensemble(&|row| row.auroc), swing(&|r| r.auroc.as_ref())),
            f1: Summary::of(ensemble(&|row| row.f1), at_c_star(&|b| b.f1)),
            sensitivity: Summary::of(ensemble(&|row| row.sensitivity), at_c_star(&|b| b.sensitivity)),
            specificity: Summary::of(ensemble(&|row| row.specificity), at_c_star(&|b| b.specificity)),
            map50_detector: Summary::of(reports().map(detector), swing(&|r| r.detector.as_ref())),
            map50: Summary::of(reports().map(framework), swing(&|r| r.framework.as_ref())),
            ap50: ap50.collect(),
        }
    }
}

fn paired_tests(
    first: &Method<'_>,
    second: &Method<'_>,
    truth: &Truth,
) -> Result<Vec<PairedTest>, EvalError> {
    let test = |kind, difference, interval, p| PairedTest {
        first: first.name.to_owned(),
        second: second.name.to_owned(),
        kind,
        difference,
        interval,
        p,
        p_adjusted: None,
    };
    let mut tests = Vec::new();
    if let Some(delong) = delong(first, second, truth)? {
        tests.push(test(PairedTestKind::AurocDelong, delong.difference, Some(delong.interval), delong.p));
    }
    let rows = [first.row(), second.row()];
    let mut bootstrap =
        |kind, of: &dyn Fn(&Resampled) -> Option<&Vec<f64>>, figure: &dyn Fn(&MethodRow) -> Option<f64>| {
            let resampled = first.resampled(of).zip(second.resampled(of));
            let figures = figure(&rows[0]).zip(figure(&rows[1]));
            if let Some(((a, b), (figure_a, figure_b))) = resampled.zip(figures)
                && let Some((interval, p)) = paired_bootstrap(&a, &b)
            {
                tests.push(test(kind, figure_a - figure_b, Some(interval), p));
            }
        };
    bootstrap(PairedTestKind::AurocBootstrap, &|r| r.auroc.as_ref(), &|row| row.auroc.mean);
    bootstrap(PairedTestKind::DetectorMapBootstrap, &|r| r.detector.as_ref(), &|row| row.map50_detector.mean);
    bootstrap(PairedTestKind::FrameworkMapBootstrap, &|r| r.framework.as_ref(), &|row| row.map50.mean);
    if let ([a], [b]) = (&first.runs[..], &second.runs[..])
        && let Some((only_first, only_second)) = disagreements(&a.0, &b.0, truth)
    {
        let difference = (only_first as f64 - only_second as f64) / truth.films().len() as f64;
        let p = (only_first + only_second > 0).then(|| mcnemar(only_first, only_second));
        tests.push(test(PairedTestKind::DecisionsMcnemar, difference, None, p));
    }
    Ok(tests)
}

fn delong(
    first: &Method<'_>,
    second: &Method<'_>,
    truth: &Truth,
) -> Result<Option<paired::DeLongTest>, EvalError> {
    let positive: Vec<bool> = truth.films().map(|a| a.abnormal).collect();
    // Films in the order of ids on both sides.
    let scores = |method: &Method<'_>| -> Option<Vec<Vec<f64>>> {
        let run = |run: &ComparedRun<'_>| -> Option<Vec<f64>> {
            truth.films().map(|a| Scorer::Ensemble.logit(run.test.get(&a.image_id)?)).collect()
        };
        method.runs.iter().map(|(compared, _)| run(compared)).collect()
    };
    let Some((a, b)) = scores(first).zip(scores(second)) else { return Ok(None) };
    let a: Vec<&[f64]> = a.iter().map(Vec::as_slice).collect();
    let b: Vec<&[f64]> = b.iter().map(Vec::as_slice).collect();
    paired::delong_test_of_means(&positive, &a, &b)
}

/// 95 % interval of the paired differences and the two-sided p of none: twice the smaller share of resamples on either side of
/// 0, with one added above and below, so that p is never 0. p is `None` where no resample differs.
fn paired_bootstrap(first: &[f64], second: &[f64]) -> Option<(Interval, Option<f64>)> {
    let differences: Vec<f64> =
        first.iter().zip(second).map(|(a, b)| a - b).filter(|d| !d.is_nan()).collect();
    let interval = summarise(differences.iter().copied())?.interval;
    if differences.iter().all(|d| *d == 0.0) {
        return Some((interval, None));
    }
    let share = |of: &dyn Fn(&f64) -> bool| {
        (1 + differences.iter().filter(|d| of(d)).count()) as f64 / (1 + differences.len()) as f64
    };
    let p = (2.0 * share(&|d| *d <= 0.0).min(share(&|d| *d >= 0.0))).min(1.0);
    Some((interval, Some(p)))
}

/// Films that only the first run called rightly at its c*, and only the second; `None` when a run has no c*.
fn disagreements(first: &ComparedRun<'_>, second: &ComparedRun<'_>, truth: &Truth) -> Option<(u64, u64)> {
    let right = |run: &ComparedRun<'_>, a: &FilmAnnotation| -> Option<bool> {
        let c_star = run.report.gate.as_ref()?.c_star;
        let p = Scorer::Ensemble.probability(run.test.get(&a.image_id)?)?;
        Some((p >= c_star) == a.abnormal)
    };
    let mut only = (0, 0);
    for annotation in truth.films() {
        match (right(first, annotation)?, right(second, annotation)?) {
            (true, false) => only.0 += 1,
            (false, true) => only.1 += 1,
            _ => {}
        }
    }
    Some(only)
}

fn notes(methods: &[Method<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    if methods.iter().any(|m| m.runs.len() > 1) {
        notes.push(
            "Methods of several runs are compared by the mean over their runs; McNemar's test needs one decision a \
             film and is left out for them."
                .to_owned(),
        );
    }
    if methods.iter().any(|m| (2..5).contains(&m.runs.len())) {
        notes.push(
            "Fewer than five runs of a method: the standard deviation over runs is itself uncertain."
                .to_owned(),
        );
    }
    for (run, _) in methods.iter().flat_map(|m| &m.runs) {
        let warnings = run.report.notes.iter().filter(|note| note.kind == run::NoteKind::Warning);
        notes.extend(warnings.map(|note| format!("{}: {}", run.source, note.text)));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_runs_are_summarised_as_statistics_has_it() {
        // statistics.mean, statistics.stdev and scipy.stats.t.interval of these values.
        let summary = Summary::of([Some(0.80), Some(0.84), Some(0.79)], None);
        assert!((summary.mean.unwrap() - 0.81).abs() < 1e-12);
        assert!((summary.sd.unwrap() - 0.026_457_513_110_645_87).abs() < 1e-12);
        let [low, high] = summary.interval_of_runs.unwrap();
        assert!(
            (low - 0.744_275_893_922_7).abs() < 1e-9 && (high - 0.875_724_106_077_3).abs() < 1e-9,
            "{low} {high}"
        );
        let one = Summary::of([Some(0.8)], None);
        assert_eq!((one.mean, one.sd, one.interval_of_runs), (Some(0.8), None, None));
        assert_eq!(Summary::of([None, None], None).mean, None);
    }

    #[test]
    fn a_bootstrap_p_is_never_nought_and_no_difference_has_none() {
        let (zeros, ones) = (vec![0.0; 99], vec![1.0; 99]);
        let (interval, p) = paired_bootstrap(&ones, &zeros).unwrap();
        assert_eq!((interval, p), ([1.0, 1.0], Some(0.02)));
        assert_eq!(paired_bootstrap(&ones, &ones).unwrap().1, None);
        let both_ways = [vec![1.0; 50], vec![-1.0; 49]].concat();
        assert_eq!(paired_bootstrap(&both_ways, &zeros).unwrap().1, Some(1.0));
        assert_eq!(paired_bootstrap(&[f64::NAN], &[1.0]), None);
    }
}
