//! Runs side by side: planted differences are found, seeds are summarised, and other films are refused.

#![allow(clippy::unwrap_used, reason = "a test ends where its setting fails")]

mod made_up;

use spinexr_core::{ClassList, FilmPrediction};
use spinexr_eval::compare::{
    CompareOptions, CompareReport, ComparedRun, Correction, PairedTestKind, compare,
};
use spinexr_eval::intervals::BootstrapOptions;
use spinexr_eval::run::{Protocol, RunOptions, RunReport, ThresholdSource, evaluate_run};
use spinexr_eval::threshold::{Predictions, Test, Validation};
use spinexr_eval::{EvalError, LabelledScores, intervals, paired, report};

const BOOTSTRAP: BootstrapOptions = BootstrapOptions { resamples: 500, seed: 5 };

fn evaluated(data: &made_up::MadeUp) -> (Predictions<Test>, RunReport) {
    let validation = Predictions::<Validation>::new(data.validation.clone()).unwrap();
    let test = Predictions::<Test>::new(data.test.clone()).unwrap();
    let source = ThresholdSource::Validation { films: &validation, annotations: &data.validation_truth };
    let mut options = RunOptions::new("a run", Protocol::Improved, BOOTSTRAP.seed);
    options.bootstrap = BOOTSTRAP;
    let report = evaluate_run(&test, &data.test_truth, source, &options).unwrap();
    (test, report)
}

/// The run with its logits pulled towards chance and its boxes with other scores.
fn worse(data: &made_up::MadeUp, k: u32) -> made_up::MadeUp {
    let spoil = |films: &[FilmPrediction]| -> Vec<FilmPrediction> {
        let noise =
            |i: usize| f64::from((i as u32 + 7 * k).wrapping_mul(2_654_435_761) >> 16) / 65536.0 - 0.5;
        let spoilt = films.iter().enumerate().map(|(i, film)| {
            let mut film = film.clone();
            for logits in film.logits.values_mut() {
                *logits = (0.3 * logits.values()[0] + 4.0 * noise(i)).into();
            }
            film.p_abnormal = film.ensemble_logit().map(spinexr_core::fusion::sigmoid);
            for (j, b) in film.boxes_before_gate.iter_mut().enumerate() {
                b.score = (0.4 * b.score + 0.5 * (noise(31 * i + j) as f32 + 0.5)).min(1.0);
            }
            film
        });
        spoilt.collect()
    };
    made_up::MadeUp {
        validation: spoil(&data.validation),
        test: spoil(&data.test),
        validation_truth: data.validation_truth.clone(),
        test_truth: data.test_truth.clone(),
    }
}

fn options() -> CompareOptions {
    CompareOptions { title: "two runs".into(), correction: Correction::Holm, bootstrap: BOOTSTRAP }
}

fn test_of(report: &CompareReport, kind: PairedTestKind) -> &spinexr_eval::compare::PairedTest {
    report.tests.iter().find(|t| t.kind == kind).unwrap()
}

#[test]
fn a_planted_difference_is_found_by_every_test() {
    let data = made_up::make(150, 300, 12, 1);
    let (good, good_report) = evaluated(&data);
    let (bad, bad_report) = evaluated(&worse(&data, 1));
    let runs = [
        ComparedRun { method: "good", source: "good.jsonl", test: &good, report: &good_report },
        ComparedRun { method: "bad", source: "bad.jsonl", test: &bad, report: &bad_report },
    ];
    let report = compare(&runs, &data.test_truth, &options()).unwrap();
    assert_eq!((report.films, report.studies), (300, 150));
    assert_eq!(report.tests.len(), 5);
    for test in &report.tests {
        let (p, adjusted) = (test.p.unwrap(), test.p_adjusted.unwrap());
        assert!(test.difference > 0.0 && p < 0.05 && adjusted < 0.05, "{test:?}");
        assert!(adjusted >= p && adjusted <= 5.0 * p + 1e-12);
        if let Some([low, high]) = test.interval {
            assert!(low <= test.difference && test.difference <= high, "{test:?}");
        }
    }
    // DeLong by hand.
    let logits = |films: &Predictions<Test>| -> Vec<f64> {
        films.films().map(|f| f.ensemble_logit().unwrap()).collect()
    };
    let mut truth = data.test_truth.clone();
    truth.sort_by(|a, b| a.image_id.cmp(&b.image_id));
    let positive: Vec<bool> = truth.iter().map(|a| a.abnormal).collect();
    let by_hand = paired::delong_test(&positive, &logits(&good), &logits(&bad)).unwrap().unwrap();
    let delong = test_of(&report, PairedTestKind::AurocDelong);
    assert_eq!((delong.difference, delong.p), (by_hand.difference, by_hand.p));
    // The figures are the runs' own, and the bootstraps draw as theirs do.
    assert_eq!(report.methods[0].auroc.mean, good_report.classification["ensemble"].auroc);
    assert_eq!(report.methods[0].auroc.interval_of_studies, good_report.classification["ensemble"].auroc_ci);
    assert_eq!(report.methods[1].map50.mean, bad_report.detection["framework"].map50);
    assert_eq!(report.methods[1].map50.interval_of_studies, bad_report.detection["framework"].map50_ci);
    let rows = truth.iter().zip(logits(&good)).map(|(a, z)| (a.abnormal, z, a.study_id.as_str()));
    let data = LabelledScores::with_studies(rows).unwrap();
    assert_eq!(intervals::resampled_auroc(&data, &BOOTSTRAP).len(), BOOTSTRAP.resamples);

    let html = report::comparison_html(&report);
    assert!(html.contains("McNemar") && html.contains("Holm") && !html.contains("NaN"));
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<CompareReport>(&text).unwrap(), report);
}

#[test]
fn a_run_beside_itself_shows_nothing() {
    let data = made_up::make(60, 80, 8, 2);
    let (test, run_report) = evaluated(&data);
    let run = |method| ComparedRun { method, source: "p.jsonl", test: &test, report: &run_report };
    let report = compare(&[run("a"), run("b")], &data.test_truth, &options()).unwrap();
    assert!(report.tests.iter().all(|t| t.difference == 0.0 && t.p.is_none() && t.p_adjusted.is_none()));
    let alone = compare(&[run("a")], &data.test_truth, &options()).unwrap();
    assert!(alone.tests.is_empty() && alone.methods.len() == 1);
}

#[test]
fn seeds_are_summarised_and_compared_by_their_mean() {
    let data = made_up::make(100, 160, 8, 3);
    let good = evaluated(&data);
    let bad: Vec<_> = (1..=3).map(|k| evaluated(&worse(&data, k))).collect();
    let mut runs = vec![ComparedRun { method: "good", source: "g", test: &good.0, report: &good.1 }];
    runs.extend(bad.iter().map(|b| ComparedRun { method: "bad", source: "b", test: &b.0, report: &b.1 }));
    let report = compare(&runs, &data.test_truth, &options()).unwrap();
    let row = &report.methods[1];
    assert_eq!(row.sources.len(), 3);
    let aurocs: Vec<f64> = bad.iter().map(|b| b.1.classification["ensemble"].auroc.unwrap()).collect();
    let mean = aurocs.iter().sum::<f64>() / 3.0;
    assert!((row.auroc.mean.unwrap() - mean).abs() < 1e-15 && row.auroc.sd.unwrap() > 0.0);
    let [low, high] = row.auroc.interval_of_runs.unwrap();
    assert!(low < mean && mean < high);
    let delong = test_of(&report, PairedTestKind::AurocDelong);
    assert!((delong.difference - (report.methods[0].auroc.mean.unwrap() - mean)).abs() < 1e-12);
    assert!(!report.tests.iter().any(|t| t.kind == PairedTestKind::DecisionsMcnemar));
    assert!(report.notes.iter().any(|n| n.contains("McNemar")));
}

#[test]
fn other_films_are_refused_and_listed() {
    let data = made_up::make(40, 50, 4, 4);
    let mut fewer = made_up::make(40, 50, 4, 4);
    let lost = fewer.test.pop().unwrap().image;
    fewer.test_truth.retain(|a| a.image_id != lost);
    let (all, few) = (evaluated(&data), evaluated(&fewer));
    let runs = [
        ComparedRun { method: "a", source: "a.jsonl", test: &all.0, report: &all.1 },
        ComparedRun { method: "b", source: "b.jsonl", test: &few.0, report: &few.1 },
    ];
    let error = compare(&runs, &data.test_truth, &options()).unwrap_err();
    assert!(
        matches!(&error, EvalError::OtherFilms { only_first, .. } if only_first == std::slice::from_ref(&lost))
    );
    assert!(error.to_string().contains(&lost) && error.to_string().contains("b.jsonl"), "{error}");
    let mut other_classes = all.1.clone();
    other_classes.classes = ClassList::from_names(["something else"]).unwrap();
    let runs = [runs[0], ComparedRun { report: &other_classes, source: "c.jsonl", ..runs[0] }];
    let error = compare(&runs, &data.test_truth, &options()).unwrap_err();
    assert!(matches!(&error, EvalError::OtherClasses { second, .. } if second == "c.jsonl"), "{error}");
    assert!(matches!(compare(&[], &data.test_truth, &options()), Err(EvalError::NoRuns)));
}
