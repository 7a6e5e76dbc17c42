//! A whole run from its records: tables, thresholds, report, and every way the inputs can disagree.

mod made_up;

use proptest::prelude::*;
use serde_json::Value;
use spinexr_core::{ClassList, Finding, Gate, Label, Split};
use spinexr_eval::coco::{self, Protocol as BoxProtocol};
use spinexr_eval::report::{self, Thumbnail};
use spinexr_eval::run::{self, LossCurve, Protocol, RunOptions, RunReport, ThresholdSource, evaluate_run};
use spinexr_eval::threshold::{Predictions, Test, Truth, Validation};
use spinexr_eval::{EvalError, records};
use std::collections::BTreeSet;

fn options() -> RunOptions {
    let mut options = RunOptions::new("A made-up run", Protocol::Improved, 7);
    options.bootstrap.resamples = 200;
    options.detector = Some("retinanet_mini".into());
    options.synthetic = true;
    options.losses =
        vec![LossCurve { name: "retinanet_mini/loss".into(), points: vec![[1.0, 2.0], [2.0, f64::NAN]] }];
    options
}

fn evaluate(data: &made_up::MadeUp) -> Result<RunReport, EvalError> {
    let validation = Predictions::<Validation>::new(data.validation.clone())?;
    let source = ThresholdSource::Validation { films: &validation, annotations: &data.validation_truth };
    evaluate_run(&Predictions::<Test>::new(data.test.clone())?, &data.test_truth, source, &options())
}

/// Every path in a JSON document, list positions as `[]`.
fn paths(value: &Value, prefix: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                paths(value, &format!("{prefix}.{key}"), out);
            }
        }
        Value::Array(list) => {
            for value in list {
                paths(value, &format!("{prefix}[]"), out);
            }
        }
        _ => {
            out.insert(prefix.trim_start_matches('.').to_owned());
        }
    }
}

#[test]
fn both_tables_and_their_thresholds() {
    let data = made_up::make(120, 160, 20, 1);
    let report = evaluate(&data).unwrap();
    assert_eq!(report.classifier_names(), ["densenet121_mini_a", "densenet121_mini_b", "ensemble"]);
    assert_eq!(report.detector_names(), ["retinanet_mini", "framework"]);
    for row in report.classification.values() {
        assert!((0.75..1.0).contains(&row.auroc.unwrap()));
        let [low, high] = row.auroc_ci.unwrap();
        assert!(low < row.auroc.unwrap() && row.auroc.unwrap() < high);
        assert_eq!(row.threshold_chosen_on.unwrap().name(), "validation");
    }
    let row = &report.classification["ensemble"];
    let c = row.confusion.unwrap();
    assert_eq!(c.true_positives + c.false_negatives, report.counts.test.abnormal);
    let gate = report.gate.as_ref().unwrap();
    assert_eq!(Some(gate.c_star), row.threshold);

    // The gate, by hand.
    let called = |p: f64| p >= gate.c_star;
    let kept: usize = data
        .test
        .iter()
        .map(|f| {
            let all = &f.boxes_before_gate;
            let p = f.p_abnormal.unwrap();
            all.iter().filter(|b| called(p) || b.score >= 0.5).count()
        })
        .sum();
    assert_eq!(report.detection["framework"].boxes, kept);
    assert!(kept < report.detection["retinanet_mini"].boxes);
    let ap50 = &report.detection["framework"].ap50;
    let defined: Vec<f64> = Finding::ALL.iter().filter_map(|f| ap50[f.name()]).collect();
    let mean = defined.iter().sum::<f64>() / defined.len() as f64;
    assert!((report.detection["framework"].map50.unwrap() - mean).abs() < 1e-15);
    assert_eq!(report.provenance.bundle_hash.as_deref(), Some("3f9a1c0e5d7b"));
    assert_eq!(report.losses[0].points, [[1.0, 2.0]]);
}

#[test]
fn the_keys_of_report_json_are_a_contract() {
    let report = evaluate(&made_up::make(60, 80, 10, 2)).unwrap();
    let value = serde_json::to_value(&report).unwrap();
    for row in ["densenet121_mini_a", "ensemble"] {
        for key in ["auroc", "auroc_ci", "f1", "sensitivity", "specificity", "threshold"] {
            assert!(value["classification"][row].get(key).is_some(), "{row} {key}");
        }
    }
    for row in ["retinanet_mini", "framework"] {
        assert!(value["detection"][row]["map50"].is_number());
        assert!(value["detection"][row]["ap50"]["Osteophytes"].is_number());
    }
    let mut all = BTreeSet::new();
    paths(&value, "", &mut all);
    insta::assert_snapshot!("report_json_keys", all.into_iter().collect::<Vec<_>>().join("\n"));
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<RunReport>(&text).unwrap(), report);
}

#[test]
fn the_order_of_films_and_the_threads_change_nothing() {
    let mut data = made_up::make(60, 80, 10, 3);
    let report = evaluate(&data).unwrap();
    data.test.reverse();
    data.test_truth.rotate_left(17);
    data.validation.rotate_left(5);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(pool.install(|| evaluate(&data)).unwrap(), report);
}

#[test]
fn the_paper_protocol_says_that_it_chose_on_test() {
    let data = made_up::make(0, 80, 10, 4);
    let test = Predictions::<Test>::new(data.test).unwrap();
    let mut options = options();
    options.protocol = Protocol::Paper;
    let report = evaluate_run(&test, &data.test_truth, ThresholdSource::TestAsInThePaper, &options).unwrap();
    let value = serde_json::to_value(&report).unwrap();
    let label = "test (as the paper did; optimistic)";
    assert_eq!(value["classification"]["ensemble"]["threshold_chosen_on"], label);
    assert_eq!(value["gate"]["chosen_on"], label);
    assert_eq!(value["classification"]["ensemble"]["auroc_ci_unit"], "film");
    assert!(report.notes[0].text.contains("optimistic"));
    assert!(report::html(&report, &|_| None).contains(label));
}

#[test]
fn a_frozen_threshold_is_read_from_the_records() {
    let mut data = made_up::make(0, 60, 10, 5);
    for film in &mut data.test {
        film.apply_gate(&Gate::with_c_star(0.4));
    }
    let test = Predictions::<Test>::new(data.test.clone()).unwrap();
    let report = evaluate_run(&test, &data.test_truth, ThresholdSource::Frozen, &options()).unwrap();
    assert_eq!(report.gate.unwrap().c_star, 0.4);
    assert_eq!(report.classification["densenet121_mini_a"].f1, None);
    assert!(report.classification["ensemble"].f1.is_some());
    let kept: usize = data.test.iter().map(|f| f.boxes.len()).sum();
    assert_eq!(report.detection["framework"].boxes, kept);

    data.test[3].threshold = Some(0.41);
    let test = Predictions::<Test>::new(data.test).unwrap();
    let error = evaluate_run(&test, &data.test_truth, ThresholdSource::Frozen, &options()).unwrap_err();
    assert!(matches!(error, EvalError::NoFrozenThreshold { .. }), "{error}");
}

#[test]
fn undefined_figures_are_none_and_noted() {
    let mut data = made_up::make(40, 40, 5, 6);
    for film in &mut data.test_truth {
        film.abnormal = false;
        film.boxes.clear();
    }
    let report = evaluate(&data).unwrap();
    let row = &report.classification["ensemble"];
    assert_eq!((row.auroc, row.auroc_ci, row.sensitivity), (None, None, None));
    assert!(row.specificity.is_some());
    assert_eq!(report.detection["framework"].map50, None);
    assert!(report.notes.iter().any(|n| n.text.contains("AUROC is n/a")));
    assert!(report.notes.iter().any(|n| n.text.starts_with("No box among the test films")));
    let html = report::html(&report, &|_| None);
    assert!(html.contains("n/a") && !html.contains("NaN"));

    // Validation films of one class: no threshold, no gate, no figure at a threshold.
    let mut data = made_up::make(40, 40, 5, 6);
    data.validation_truth.iter_mut().for_each(|f| f.abnormal = true);
    let report = evaluate(&data).unwrap();
    assert!(report.gate.is_none() && !report.detection.contains_key("framework"));
    assert_eq!(report.classification["ensemble"].f1, None);
    assert!(report.classification["ensemble"].auroc.is_some());
}

#[test]
fn films_without_classifier_or_boxes_still_make_a_report() {
    let mut data = made_up::make(30, 30, 5, 8);
    for film in data.test.iter_mut().chain(&mut data.validation) {
        film.logits.clear();
        film.p_abnormal = None;
    }
    let report = evaluate(&data).unwrap();
    assert!(report.classification.is_empty() && report.detection.contains_key("retinanet_mini"));
    report::html(&report, &|_| None);
    for film in data.test.iter_mut().chain(&mut data.validation) {
        film.boxes_before_gate.clear();
    }
    let report = evaluate(&data).unwrap();
    assert_eq!(report.detection["retinanet_mini"].map50, Some(0.0));
}

#[test]
fn inputs_that_disagree_name_the_film() {
    type Breakage = fn(&mut made_up::MadeUp);
    let cases: [(&str, Breakage); 12] = [
        ("annotated for test, but no prediction is there", |d| drop(d.test.pop())),
        ("predicted for test, but no annotation is there", |d| drop(d.test_truth.pop())),
        ("annotated for validation, but no prediction", |d| drop(d.validation.remove(0))),
        ("was there before (another test record)", |d| d.test.push(d.test[0].clone())),
        ("was there before (another annotation)", |d| d.test_truth.push(d.test_truth[0].clone())),
        ("split is validation, expected test", |d| d.test[2].split = Some(Split::Validation)),
        ("split is missing, expected test", |d| d.test[2].split = None),
        ("logit of densenet121_mini_a is NaN", |d| {
            d.test[4].logits.insert("densenet121_mini_a".into(), f64::NAN.into());
        }),
        ("is inf; expected a finite number", |d| d.test[4].boxes_before_gate[0].score = f32::INFINITY),
        ("inverted box", |d| d.test[4].boxes_before_gate[0].xyxy.x2 = -5000.0),
        ("logits of [\"densenet121_mini_b\"], expected [\"densenet121_mini_a\"", |d| {
            d.test[5].logits.remove("densenet121_mini_a");
        }),
        ("no test prediction to evaluate", |d| {
            d.test.clear();
            d.test_truth.clear();
        }),
    ];
    for (expected, breakage) in cases {
        let mut data = made_up::make(30, 30, 5, 9);
        breakage(&mut data);
        let error = evaluate(&data).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.starts_with("film ") || error.starts_with("no test"), "{error}");
    }
}

#[test]
fn a_study_in_two_splits_is_a_leak() {
    let mut data = made_up::make(30, 30, 5, 10);
    data.test_truth[7].study_id = data.validation_truth[3].study_id.clone();
    let error = evaluate(&data).unwrap_err();
    assert!(matches!(&error, EvalError::Leak { example, .. } if *example == data.test_truth[7].image_id));
    assert!(error.to_string().contains("has films in validation and in test"));
}

#[test]
fn a_study_in_two_splits_of_the_records_is_a_leak() {
    let mut data = made_up::make(10, 10, 0, 10);
    let parts = |data: &made_up::MadeUp| {
        spinexr_eval::threshold::by_split(data.validation.iter().chain(&data.test).cloned().collect())
    };
    parts(&data).check_leak().unwrap();
    // A film of a test study that a model was trained on.
    let mut trained = data.test[4].clone();
    trained.image = "another film of that study".into();
    trained.split = Some(Split::Train);
    data.validation.push(trained);
    let error = parts(&data).check_leak().unwrap_err();
    assert!(matches!(&error, EvalError::Leak { first: Split::Train, second: Split::Test, .. }), "{error}");
    assert!(error.to_string().contains(&data.test[4].study), "{error}");
}

#[test]
fn subgroups_share_out_the_films_and_small_ones_are_marked() {
    let report = evaluate(&made_up::make(60, 400, 10, 21)).unwrap();
    let facts: Vec<&str> = report.subgroups.iter().map(|s| s.fact.as_str()).collect();
    let expected = [
        "sex",
        "age, years",
        "view",
        "body part",
        "manufacturer",
        "film size",
        "exposure",
        "compression",
        "longer side",
    ];
    assert_eq!(facts, expected, "no header says the depth");
    for subgroups in &report.subgroups {
        let sum = |of: &dyn Fn(&run::Subgroup) -> usize| subgroups.groups.iter().map(of).sum::<usize>();
        assert_eq!(sum(&|g| g.films), report.counts.test.films, "{}", subgroups.fact);
        assert_eq!(sum(&|g| g.abnormal), report.counts.test.abnormal);
        assert_eq!(sum(&|g| g.boxes), report.counts.test.boxes.values().sum::<usize>());
        for group in &subgroups.groups {
            for (value, ci) in [
                (group.auroc, group.auroc_ci),
                (group.sensitivity, group.sensitivity_ci),
                (group.map50, group.map50_ci),
            ] {
                if let (Some(value), Some([low, high])) = (value, ci) {
                    assert!(
                        low <= value && value <= high,
                        "{} {}: {low} {value} {high}",
                        subgroups.fact,
                        group.name
                    );
                }
            }
            let few = group.abnormal < run::FEW_FILMS || group.films - group.abnormal < run::FEW_FILMS;
            assert_eq!(group.warning.contains("films"), few, "{group:?}");
        }
    }
    let lossy = report.subgroups.iter().find(|s| s.fact == "compression").unwrap();
    assert!(lossy.groups.iter().any(|g| g.name == "lossy" && !g.warning.is_empty()));
    assert!(report.notes.iter().any(|n| n.text.contains("subgroups are too small")));
    // The whole as a group of its own says what the table says.
    let whole = &report.subgroups.last().unwrap().groups;
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].auroc, report.classification["ensemble"].auroc);
    assert_eq!(whole[0].auroc_ci, report.classification["ensemble"].auroc_ci);
    assert_eq!(whole[0].sensitivity, report.classification["ensemble"].sensitivity);
    let framework = &report.detection["framework"];
    assert_eq!((whole[0].map50, whole[0].map50_ci), (framework.map50, framework.map50_ci));
    let html = report::html(&report, &|_| None);
    assert!(html.contains("MAKER B") && html.contains("80 and over"));
}

#[test]
fn pictures_of_evidence_stand_under_their_films() {
    let report = evaluate(&made_up::make(40, 60, 5, 22)).unwrap();
    let shown = |evidence: Option<Vec<u8>>, box_evidence: Option<Vec<u8>>| {
        let thumbnail = Thumbnail {
            bytes: vec![1],
            mime: "image/png".into(),
            width_px: 4,
            height_px: 6,
            scale: [0.1, 0.1],
            evidence,
            box_evidence,
        };
        let html = report::html(&report, &|_| Some(thumbnail.clone()));
        ["evidence for abnormal lies\"", "evidence for each proposed box lies\""]
            .map(|what| html.matches(what).count())
    };
    let films = report.cases.len();
    assert!(films > 0);
    assert_eq!(shown(None, None), [0, 0]);
    assert_eq!(shown(Some(vec![2]), None), [films, 0]);
    assert_eq!(shown(None, Some(vec![3])), [0, films]);
    assert_eq!(shown(Some(vec![2]), Some(vec![3])), [films; 2]);
}

#[test]
fn records_without_header_facts_have_no_such_subgroups() {
    let mut data = made_up::make(40, 60, 5, 22);
    for film in &mut data.test {
        film.facts = spinexr_core::FilmFacts::default();
    }
    let report = evaluate(&data).unwrap();
    assert_eq!(report.subgroups.iter().map(|s| s.fact.as_str()).collect::<Vec<_>>(), ["longer side"]);
}

#[test]
fn planted_ties_are_counted_and_told() {
    let mut data = made_up::make(60, 100, 5, 23);
    let quiet = evaluate(&data).unwrap();
    assert_eq!(quiet.classification["ensemble"].ties.pairs_between_classes, 0);
    assert!(!quiet.notes.iter().any(|n| n.text.starts_with("Ties")));
    for film in &mut data.test[..40] {
        for logits in film.logits.values_mut() {
            *logits = 0.25.into();
        }
        film.p_abnormal = Some(spinexr_core::fusion::sigmoid(0.25));
    }
    let report = evaluate(&data).unwrap();
    let row = &report.classification["ensemble"];
    let abnormal = data.test_truth[..40].iter().filter(|a| a.abnormal).count() as u64;
    assert_eq!((row.ties.films, row.ties.scores), (40, 1));
    assert_eq!(row.ties.pairs_between_classes, abnormal * (40 - abnormal));
    let [low, high] = row.ties.auroc_range.unwrap();
    assert!(low < row.auroc.unwrap() && row.auroc.unwrap() < high);
    let note = report.notes.iter().find(|n| n.text.starts_with("Ties in the scores of ensemble")).unwrap();
    assert_eq!(note.kind, run::NoteKind::Warning);
    assert!(note.text.contains("40 films share 1 scores"), "{}", note.text);
}

#[test]
fn a_class_with_no_truth_or_too_few_is_said() {
    let mut data = made_up::make(60, 120, 8, 24);
    let (collapse, implant) = (Finding::VertebralCollapse.label(), Finding::SurgicalImplant.label());
    let mut implants = 0;
    for film in &mut data.test_truth {
        film.boxes.retain(|b| b.label != collapse);
        film.boxes.retain(|b| {
            implants += usize::from(b.label == implant);
            b.label != implant || implants <= 3
        });
    }
    let report = evaluate(&data).unwrap();
    let row = &report.detection["framework"];
    assert_eq!((row.ap50[&collapse], row.ap50_ci[&collapse]), (None, None));
    let warned = |start: &str, name: &str| {
        report
            .notes
            .iter()
            .any(|n| n.kind == run::NoteKind::Warning && n.text.starts_with(start) && n.text.contains(name))
    };
    assert!(warned("No box among the test films, AP is n/a", "Vertebral collapse"));
    assert!(warned("Fewer than 10 boxes", "Surgical implant (3)"));
    let small = evaluate(&made_up::make(40, 30, 2, 25)).unwrap();
    assert!(small.notes.iter().any(|n| n.text.starts_with("Only ") && n.text.contains("normal test films")));
}

#[test]
fn operating_points_come_from_validation_films() {
    let data = made_up::make(200, 200, 0, 26);
    let report = evaluate(&data).unwrap();
    let truth = Truth::new(&data.validation_truth, &ClassList::vindr()).unwrap();
    let films = Predictions::<Validation>::new(data.validation.clone()).unwrap();
    let validation = films.probabilities(&truth, &spinexr_eval::threshold::Scorer::Ensemble).unwrap();
    let points = &report.classification["ensemble"].operating_points;
    assert_eq!(points.len(), 4);
    for point in points {
        let c = spinexr_eval::binary::Confusion::at(&validation, point.threshold.unwrap());
        match point.target {
            spinexr_eval::threshold::Target::Sensitivity(least) => assert!(c.sensitivity().unwrap() >= least),
            spinexr_eval::threshold::Target::Specificity(least) => assert!(c.specificity().unwrap() >= least),
        }
        let [low, high] = point.sensitivity_ci.unwrap();
        assert!(low < point.sensitivity.unwrap() && point.sensitivity.unwrap() < high);
    }
    assert!(points[0].threshold <= points[1].threshold && points[2].threshold <= points[3].threshold);
}

#[test]
fn the_page_stands_alone() {
    let mut data = made_up::make(60, 80, 10, 11);
    data.test[0].image = "<script>alert(1)</script>".into();
    data.test_truth[0].image_id = data.test[0].image.clone();
    let mut report = evaluate(&data).unwrap();
    report.title = "Spine & <b>".into();
    let html = report::html(&report, &|_| None);
    assert!(html.contains("Research use only; not a medical device."));
    assert!(html.contains("not comparable with synthetic films"));
    assert!(html.contains("Spine &amp; &lt;b&gt;") && !html.contains("<script"));
    for outside in ["http:", "https:", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    // Figures of the paper that were not checked against it are not printed.
    for unchecked in ["87.29", "28.09", "28.73", "31.83"] {
        assert!(!html.contains(unchecked), "{unchecked}");
    }
    assert!(html.contains("33.56") && html.contains("88.61 (87.19–90.02)"));
}

#[test]
fn the_worst_films_come_first() {
    let data = made_up::make(120, 160, 20, 12);
    let report = evaluate(&data).unwrap();
    let kinds: Vec<_> = report.cases.iter().map(|c| c.kind).collect();
    assert!(kinds.is_sorted() && kinds.first() < kinds.last());
    let gate = report.gate.unwrap();
    for case in &report.cases {
        let called = case.p_abnormal.unwrap() >= gate.c_star;
        match case.kind {
            run::CaseKind::MissedFilm => assert!(case.abnormal && !called),
            run::CaseKind::FalseAlarm => assert!(!case.abnormal && called),
            run::CaseKind::MissedBoxes => assert!(case.missed() > 0 && case.abnormal == called),
            run::CaseKind::Right => assert!(case.missed() == 0 && case.false_boxes() == 0),
        }
        assert!(case.boxes.iter().all(|b| f64::from(b.score) >= report.shown_score.score));
        let found = case.marked.iter().filter(|b| b.found).count();
        assert_eq!(found, case.boxes.iter().filter(|b| b.right).count());
    }
    let missed = report.cases.iter().filter(|c| c.kind == run::CaseKind::MissedFilm);
    assert!(missed.map(|c| c.p_abnormal.unwrap()).is_sorted());
}

#[test]
fn records_read_from_a_file_give_the_same_report() {
    let data = made_up::make(30, 30, 5, 13);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("predictions.jsonl");
    let all: Vec<_> = data.validation.iter().chain(&data.test).cloned().collect();
    records::write(&path, &all).unwrap();
    let parts = spinexr_eval::threshold::by_split(records::read(&path).unwrap());
    assert!(parts.train.is_empty() && parts.without.is_empty());
    let again =
        made_up::MadeUp { validation: parts.validation, test: parts.test, ..made_up::make(30, 30, 5, 13) };
    assert_eq!(evaluate(&again).unwrap(), evaluate(&data).unwrap());
}

#[test]
fn other_classes_have_their_names_in_tables() {
    let mut data = made_up::make(60, 80, 12, 5);
    let names = ["<b>nucleus</b>", "RBC", "WBC", "d", "e", "f", "g"];
    let classes = ClassList::from_names(names).unwrap();
    let rename = |label: &mut Label| {
        let index = ClassList::vindr().index(label).unwrap();
        *label = classes.get(index).unwrap().clone();
    };
    for film in data.validation.iter_mut().chain(&mut data.test) {
        film.boxes.iter_mut().chain(&mut film.boxes_before_gate).for_each(|b| rename(&mut b.label));
    }
    for film in data.validation_truth.iter_mut().chain(&mut data.test_truth) {
        film.boxes.iter_mut().for_each(|b| rename(&mut b.label));
    }
    // Held against another list, the first label in the way is named.
    let error = evaluate(&data).unwrap_err().to_string();
    assert!(error.contains("unknown class") && error.contains("Disc space narrowing"), "{error}");

    let validation = Predictions::<Validation>::new(data.validation.clone()).unwrap();
    let source = ThresholdSource::Validation { films: &validation, annotations: &data.validation_truth };
    let test = Predictions::<Test>::new(data.test.clone()).unwrap();
    let options = RunOptions { classes: classes.clone(), ..options() };
    let report = evaluate_run(&test, &data.test_truth, source, &options).unwrap();
    let vindr = evaluate(&made_up::make(60, 80, 12, 5)).unwrap();
    assert_eq!(report.detection["framework"].map50, vindr.detection["framework"].map50);
    assert!(report.detection["framework"].ap50.keys().all(|label| classes.index(label).is_ok()));
    let page = report::html(&report, &|_| None);
    assert!(page.contains("&lt;b&gt;nucleus&lt;/b&gt;") && !page.contains("<b>nucleus"));
    assert!(!page.contains("LT10") && !page.contains("Sparse R-CNN"), "the paper's rows have other classes");
    assert!(report::html(&vindr, &|_| None).contains("LT10"));

    // A box of an unlisted class among the predictions alone.
    data.test[0].boxes_before_gate[0].label = Label::new("stranger").unwrap();
    let test = Predictions::<Test>::new(data.test).unwrap();
    let source = ThresholdSource::Validation { films: &validation, annotations: &data.validation_truth };
    let error = evaluate_run(&test, &data.test_truth, source, &options).unwrap_err().to_string();
    assert!(error.contains(r#"unknown class "stranger""#), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_gate_never_raises_recall(seed in any::<u64>(), c_star in 0.0f64..1.0, keep_score in 0.0f64..1.0) {
        let data = made_up::make(0, 25, 8, seed);
        let test = Predictions::<Test>::new(data.test).unwrap();
        let truth = Truth::new(&data.test_truth, &ClassList::vindr()).unwrap();
        let recalls = |gate: Option<&Gate>| {
            let boxes = run::box_set(&test, &truth, gate);
            coco::evaluate(&boxes, &BoxProtocol { max_detections: usize::MAX, ..BoxProtocol::all_areas(coco::iou_paper()) })
        };
        let (before, after) = (recalls(None), recalls(Some(&Gate { c_star, keep_score })));
        for (before, after) in before.iter().zip(&after) {
            for (before, after) in before.by_iou.iter().zip(&after.by_iou) {
                prop_assert!(after.recall <= before.recall);
            }
        }
    }
}

#[test]
fn tables_and_plots_are_files_of_the_same_figures() {
    let mut data = made_up::make(60, 120, 8, 30);
    // A name that LaTeX would take for a command, and SVG for markup.
    for film in data.test.iter_mut().chain(&mut data.validation) {
        let logits = film.logits.remove("densenet121_mini_a").unwrap();
        film.logits.insert("a_<b>&50%".into(), logits);
    }
    let report = evaluate(&data).unwrap();
    let tables = report::table_files(&report);
    let names: Vec<&str> = tables.iter().map(|f| f.name.as_str()).collect();
    for name in ["classification", "operating_points", "detection", "subgroups"] {
        assert!(names.contains(&format!("tables/{name}.csv").as_str()), "{names:?}");
        assert!(names.contains(&format!("tables/{name}.tex").as_str()), "{names:?}");
    }
    let text = |name: &str| {
        String::from_utf8(tables.iter().find(|f| f.name == name).unwrap().bytes.clone()).unwrap()
    };
    let csv = text("tables/classification.csv");
    let ensemble = csv.lines().find(|l| l.starts_with("ensemble,")).unwrap();
    let auroc: f64 = ensemble.split(',').nth(1).unwrap().parse().unwrap();
    assert_eq!(Some(auroc), report.classification["ensemble"].auroc);
    let tex = text("tables/classification.tex");
    assert!(tex.contains("a\\_\\textless{}b\\textgreater{}\\&50\\%"), "{tex}");
    let row = &report.classification["ensemble"];
    assert!(tex.contains(&format!("\\textbf{{{:.2}}}", 100.0 * row.f1.unwrap())), "{tex}");
    let detection = text("tables/detection.tex");
    assert!(detection.contains("LT2 & LT4") && detection.contains("\\bottomrule"), "{detection}");
    let mean = text("tables/detection.csv").lines().last().unwrap().to_owned();
    assert!(mean.starts_with("framework,mean,"), "{mean}");
    assert_eq!(mean.split(',').nth(2).unwrap().parse().ok(), report.detection["framework"].map50);

    let plots = report::plot_files(&report).unwrap();
    assert_eq!(plots.len(), 2 * (5 + Finding::COUNT));
    for plot in &plots {
        if plot.name.ends_with(".png") {
            let picture = image::load_from_memory(&plot.bytes).unwrap().to_rgb8();
            assert!(picture.width() >= 900 && picture.height() >= 720, "{}", plot.name);
            // Ground, ink and at least one colour of a line.
            let coloured =
                picture.pixels().filter(|p| p.0.iter().max().unwrap() - p.0.iter().min().unwrap() > 60);
            assert!(coloured.count() > 300 || plot.name.contains("precision_recall"), "{}", plot.name);
            assert!(picture.pixels().any(|p| p.0 == [255; 3]) && picture.pixels().any(|p| p.0[0] < 110));
        } else {
            let svg = std::str::from_utf8(&plot.bytes).unwrap();
            assert!(svg.starts_with("<svg xmlns=") && svg.contains("<style>") && !svg.contains("var("));
        }
    }
    let again = report::plot_files(&report).unwrap();
    assert_eq!(again, plots, "the same report gives the same bytes");
}
