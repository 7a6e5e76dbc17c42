use super::*;
use crate::golden_sets;
use serde_json::Value;
use spinexr_core::prediction::Timings;
use spinexr_core::{BoxXyxy, Detection, FilmFacts};

fn numbers_of(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Every film a study of its own.
fn deals(reference: usize, batch: usize) -> Deals {
    Deals {
        study: (0..(reference + batch) as u32).collect(),
        reference_films: reference,
        reference_studies: reference,
        studies: reference + batch,
        in_both: 0,
    }
}

fn options(permutations: usize) -> DriftOptions {
    DriftOptions { permutations, seed: 7, ..DriftOptions::default() }
}

#[test]
fn distances_indices_and_quartiles_equal_the_reference() {
    let results = golden_sets::results("metrics_drift");
    for case in ["alike", "shifted", "tied"] {
        let wanted = &results[case];
        let (reference, batch) = (numbers_of(&wanted["reference"]), numbers_of(&wanted["batch"]));
        let values: Vec<Option<f64>> = reference.iter().chain(&batch).map(|v| Some(*v)).collect();
        let deals = deals(reference.len(), batch.len());
        let row = number_row(case, &values, &deals, &options(20_000)).unwrap();
        let near = |what: &str, got: f64, expected: &Value, tolerance: f64| {
            let expected = expected.as_f64().unwrap();
            assert!((got - expected).abs() < tolerance, "{case} {what}: {got}, expected {expected}");
        };
        near("distance", row.distance, &wanted["distance"], 1e-12);
        near("PSI", row.psi, &wanted["psi"], 1e-12);
        // Drawn, so within five standard errors of the exact p; with ties scipy's p is a bound.
        if case != "tied" {
            near("p", row.p, &wanted["p_exact"], 5.0 * (0.25f64 / 20_000.0).sqrt());
        } else {
            assert!(row.p <= wanted["p_exact"].as_f64().unwrap() + 0.02);
        }
        for (side, got) in [&row.reference, &row.batch].into_iter().enumerate() {
            let Distribution::Quartiles(got) = got else { panic!("numbers have quartiles") };
            for (got, expected) in got.iter().zip(numbers_of(&wanted["quartiles"][side])) {
                assert!((got - expected).abs() < 1e-12);
            }
        }
    }
    let codes = &results["codes"];
    let side = |i: usize| numbers_of(&codes["counts"][i]).iter().map(|v| *v as usize).collect::<Vec<_>>();
    let counts = [side(0), side(1)];
    assert!((chi_squared(&counts) - codes["chi_squared"].as_f64().unwrap()).abs() < 1e-12);
    assert!((psi(&counts) - codes["psi"].as_f64().unwrap()).abs() < 1e-12);
}

fn film(index: usize, study: usize, logit: f64, maker: &str) -> FilmPrediction {
    FilmPrediction {
        image: format!("{maker}{index}"),
        study: format!("{maker}{study}"),
        split: None,
        height_px: 2000,
        width_px: 1000,
        facts: FilmFacts { manufacturer: Some(maker.into()), ..FilmFacts::default() },
        logits: [("m".to_owned(), logit.into())].into(),
        p_abnormal: Some(spinexr_core::fusion::sigmoid(logit)),
        threshold: Some(0.5),
        boxes: vec![],
        boxes_before_gate: vec![Detection {
            label: spinexr_core::Label::new("Osteophytes").unwrap(),
            score: 0.4,
            xyxy: BoxXyxy::new(0.0, 0.0, 9.0, 9.0),
        }],
        method: None,
        pixels: Value::Null,
        timings: Timings::default(),
        model: "h".into(),
        demonstration: false,
    }
}

fn films(count: usize, maker: &str, shift: f64, k: u32) -> Vec<FilmPrediction> {
    let noise = |i: usize| f64::from((i as u32 + 31 * k).wrapping_mul(2_654_435_761) >> 16) / 65536.0;
    (0..count).map(|i| film(i, i, 4.0 * noise(i) - 2.0 + shift, maker)).collect()
}

#[test]
fn a_planted_shift_is_found_and_its_absence_is_said_with_its_limits() {
    let reference = films(300, "A", 0.0, 1);
    let found = drift(&reference, &films(120, "B", 1.5, 2), &options(999));
    let row = |report: &DriftReport, name: &str| {
        report.rows.iter().find(|row| row.quantity == name).unwrap().clone()
    };
    for name in ["p(abnormal), ensemble", "p(abnormal), m", "call at c*", "manufacturer"] {
        assert!(row(&found, name).differs, "{name}");
    }
    assert_eq!(row(&found, "manufacturer").distance, 1.0);
    assert!(row(&found, "p(abnormal), ensemble").psi > MUCH);
    assert!(!row(&found, "best score of a box, Osteophytes").differs);
    assert!(found.statement[0].starts_with("Drift: "), "{:?}", found.statement);

    let mut quiet = films(300, "A", 0.0, 1).split_off(200);
    quiet.iter_mut().for_each(|film| film.image.push('b'));
    let report = drift(&reference, &quiet, &options(999));
    assert!(report.rows.iter().all(|row| !row.differs), "{:?}", report.rows);
    assert!(report.statement[0].starts_with("No drift is shown"));
    assert!(report.statement[1].contains("would mostly go unseen"));
}

#[test]
fn small_batches_are_judged_by_what_chance_gives() {
    let reference = films(300, "A", 0.0, 1);
    let mut batch = films(300, "A", 0.0, 1).split_off(288);
    batch.iter_mut().for_each(|film| film.image.push('b'));
    let report = drift(&reference, &batch, &options(999));
    let row = &report.rows[0];
    assert!(row.psi_by_chance > MUCH, "an index of {} is usual with twelve films", row.psi_by_chance);
    assert!(report.statement.iter().any(|line| line.contains("Only 12 studies")), "{:?}", report.statement);
    let none = drift(&reference, &[], &options(99));
    assert!(none.rows.is_empty() && none.statement[0].contains("nothing can be said"));
}

#[test]
fn films_of_one_study_are_dealt_together() {
    // Each study is ten films of one score: the films alone would make chance look like drift.
    let side = |studies: usize, k: u32, maker: &str| -> Vec<FilmPrediction> {
        let of = films(studies, maker, 0.0, k);
        let copies = of.into_iter().flat_map(|film| std::iter::repeat_n(film, 10).enumerate());
        copies
            .map(|(i, mut film)| {
                film.image.push_str(&format!("-{i}"));
                film
            })
            .collect()
    };
    let report = drift(&side(12, 1, "A"), &side(12, 5, "A"), &options(999));
    let alone = |films: Vec<FilmPrediction>| -> Vec<FilmPrediction> {
        films
            .into_iter()
            .map(|mut film| {
                film.study = film.image.clone();
                film
            })
            .collect()
    };
    let naive = drift(&alone(side(12, 1, "A")), &alone(side(12, 5, "A")), &options(999));
    assert!(naive.rows[0].p < report.rows[0].p, "{} {}", naive.rows[0].p, report.rows[0].p);
    assert_eq!(naive.rows[0].distance, report.rows[0].distance);
    // The same seed gives the same figures on any number of threads.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let again = pool.install(|| drift(&side(12, 1, "A"), &side(12, 5, "A"), &options(999)));
    assert_eq!(again, report);
}
