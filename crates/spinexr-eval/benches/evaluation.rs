//! Evaluation at the size of the official test set: 2,077 films of 100 boxes, 10,000 resamples.

#[path = "../tests/made_up/mod.rs"]
mod made_up;

use spinexr_core::ClassList;
use spinexr_eval::box_bootstrap::{RankedBoxes, resampled_ap};
use spinexr_eval::coco::{self, BoxSet, Protocol};
use spinexr_eval::intervals::{self, BootstrapOptions, Unit};
use spinexr_eval::run::{self, RunOptions, ThresholdSource, evaluate_run};
use spinexr_eval::threshold::{Predictions, Scorer, Test, Truth, Validation};
use spinexr_eval::{LabelledScores, report, roc};

const FILMS: usize = 2077;
const BOXES: usize = 100;

fn main() {
    divan::main();
}

fn boxes() -> BoxSet {
    let data = made_up::make(0, FILMS, BOXES, 1);
    let test = Predictions::<Test>::new(data.test).expect("made-up records are sound");
    let truth = Truth::new(&data.test_truth, &ClassList::vindr()).expect("made-up annotations are sound");
    run::box_set(&test, &truth, None)
}

fn scores() -> LabelledScores {
    let data = made_up::make(0, FILMS, 0, 1);
    let test = Predictions::<Test>::new(data.test).expect("made-up records are sound");
    let truth = Truth::new(&data.test_truth, &ClassList::vindr()).expect("made-up annotations are sound");
    test.logits(&truth, &Scorer::Ensemble).expect("every film is annotated")
}

#[divan::bench(sample_count = 10)]
fn coco_iou_20_to_50(bencher: divan::Bencher) {
    let boxes = boxes();
    assert_eq!(boxes.classes, ClassList::vindr().len());
    bencher.bench(|| coco::evaluate(&boxes, &Protocol::all_areas(coco::iou_paper())));
}

#[divan::bench(sample_count = 10)]
fn bootstrap_10000_auroc_by_film(bencher: divan::Bencher) {
    let data = scores();
    bencher.bench(|| intervals::bootstrap(&data, None, Unit::Film, &BootstrapOptions::paper(1)));
}

#[divan::bench(sample_count = 10)]
fn bootstrap_10000_all_metrics_by_study(bencher: divan::Bencher) {
    let data = scores();
    bencher.bench(|| intervals::bootstrap(&data, Some(0.0), Unit::Study, &BootstrapOptions::paper(1)));
}

#[divan::bench(sample_count = 10)]
fn one_auroc(bencher: divan::Bencher) {
    let data = scores();
    bencher.bench(|| roc::auroc(&data));
}

#[divan::bench(sample_count = 5)]
fn bootstrap_10000_ap_by_study(bencher: divan::Bencher) {
    let data = made_up::make(0, FILMS, BOXES, 1);
    let test = Predictions::<Test>::new(data.test).expect("made-up records are sound");
    let truth = Truth::new(&data.test_truth, &ClassList::vindr()).expect("made-up annotations are sound");
    let boxes = run::box_set(&test, &truth, None);
    let studies = run::Studies::of(&test, &truth);
    let ranked = RankedBoxes::new(&boxes, &studies.of_image, studies.count, run::FOUND_IOU);
    bencher.bench(|| resampled_ap(&ranked, &BootstrapOptions::paper(1)).summary());
}

/// All that `evaluate run -o` computes: tables, intervals, subgroups, page, CSV, LaTeX, SVG and PNG.
#[divan::bench(sample_count = 3)]
fn whole_report(bencher: divan::Bencher) {
    let data = made_up::make(800, FILMS, BOXES, 1);
    let validation = Predictions::<Validation>::new(data.validation).expect("made-up records are sound");
    let test = Predictions::<Test>::new(data.test).expect("made-up records are sound");
    let source = ThresholdSource::Validation { films: &validation, annotations: &data.validation_truth };
    let options = RunOptions::new("bench", run::Protocol::Improved, 1);
    bencher.bench(|| {
        let report = evaluate_run(&test, &data.test_truth, source, &options).expect("sound inputs");
        let plots = report::plot_files(&report).expect("every plot can be drawn");
        report::html(&report, &|_| None).len() + report::table_files(&report).len() + plots.len()
    });
}
