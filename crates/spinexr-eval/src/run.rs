//! One run, evaluated from its records: both tables of the paper, curves, and the films to look at.
//!
//! [`evaluate_run`] takes its thresholds from validation films, from the records, or by the paper's protocol
//! from the test films: see [`ThresholdSource`].
//!
//! The decision rule is applied anew: p(abnormal) from the logits, boxes from `boxes_before_gate`.

mod cases;
mod classification;
mod detection;
mod report_types;
mod subgroups;

pub use cases::{Case, CaseKind, MarkedBox, ShownBox};
pub use classification::{
    CalibrationReport, ClassificationRow, OperatingPointRow, PREVALENCES, ScoreHistogram, StudyLevel, Worth,
};
pub use detection::{DetectionRow, Studies, box_set, regate};
pub use report_types::{
    Counts, Curves, GateReport, LossCurve, Note, NoteKind, Protocol, RunOptions, RunProvenance, RunReport,
    ShownScore, SplitCounts,
};
pub(crate) use subgroups::facts;
pub use subgroups::{FEW_FILMS, NOT_KNOWN, Subgroup, Subgroups};

use crate::error::{EvalError, Problem};
use crate::froc;
use crate::threshold::{self, ChosenOn, Part, Predictions, Scorer, Test, Threshold, Truth, Validation};
use spinexr_core::{ClassList, FilmAnnotation, Gate, Split};
use std::collections::{BTreeMap, BTreeSet};

/// Films with fewer boxes of a class than this get a warning beside that class's AP.
pub const FEW_BOXES: usize = 10;
/// IoU from which a box counts as found in FROC and in the gallery.
pub const FOUND_IOU: f64 = 0.5;
/// Boxes shown in the gallery when no validation film says which score is best.
pub const SHOWN_SCORE: f64 = 0.3;

/// Where the thresholds of a run come from.
#[derive(Debug, Clone, Copy)]
pub enum ThresholdSource<'a> {
    /// Chosen on validation films, of which exactly the annotated ones must have been predicted.
    Validation {
        /// Their predictions, by the models that predicted the test films.
        films: &'a Predictions<Validation>,
        /// Their annotations.
        annotations: &'a [FilmAnnotation],
    },
    /// The c* that every record carries from its bundle. Rows of single classifiers have no threshold then.
    Frozen,
    /// Chosen on the test films themselves, as the paper did. Every threshold in the report says so, and a
    /// warning is attached.
    TestAsInThePaper,
}

/// Evaluates a run on its test films, of which exactly the annotated ones must have been predicted.
///
/// # Errors
/// A film that is annotated and not predicted or the other way round, a box of a class that `options` does not list,
/// a study with films in both splits,
/// classifiers that differ between the splits, no test film, or records without one common c* where they
/// should have it. Undefined metrics are `None` with a note.
pub fn evaluate_run(
    test: &Predictions<Test>,
    annotations: &[FilmAnnotation],
    source: ThresholdSource<'_>,
    options: &RunOptions,
) -> Result<RunReport, EvalError> {
    let truth = Truth::new(annotations, &options.classes)?;
    check_pairing(test, &truth)?;
    let mut counts = Counts { validation: None, test: SplitCounts::of(&truth) };
    match source {
        ThresholdSource::Validation { films, annotations } => {
            let validation_truth = Truth::new(annotations, &options.classes)?;
            check_pairing(films, &validation_truth)?;
            check_leak(&validation_truth, &truth)?;
            check_models(films, test)?;
            let thresholds = choose(test, |scorer| threshold::choose(films, &validation_truth, scorer))?;
            let shown = best_shown_score(films, &validation_truth, thresholds.get("ensemble"), options);
            counts.validation = Some(SplitCounts::of(&validation_truth));
            let validation = Some((films, &validation_truth));
            evaluate(test, &truth, &thresholds, validation, shown, counts, options)
        }
        ThresholdSource::Frozen => {
            let mut thresholds = BTreeMap::new();
            if !test.models().is_empty() {
                thresholds.insert(Scorer::Ensemble.name().to_owned(), threshold::frozen(test)?);
            }
            evaluate(test, &truth, &thresholds, None, None, counts, options)
        }
        ThresholdSource::TestAsInThePaper => {
            let on_test = |scorer: &Scorer| threshold::paper_protocol_choose_on_test(test, &truth, scorer);
            let mut report = evaluate(test, &truth, &choose(test, on_test)?, None, None, counts, options)?;
            report.notes.insert(
                0,
                Note::warning(
                    "Thresholds were chosen on the test films themselves, as in the paper: F1, sensitivity, \
                     specificity and the framework's AP are optimistic.",
                ),
            );
            Ok(report)
        }
    }
}

/// The threshold of every classifier and of the ensemble, where `of` gives one.
fn choose(
    test: &Predictions<Test>,
    of: impl Fn(&Scorer) -> Result<Option<Threshold>, EvalError>,
) -> Result<BTreeMap<String, Threshold>, EvalError> {
    let mut thresholds = BTreeMap::new();
    for scorer in scorers(test) {
        if let Some(threshold) = of(&scorer)? {
            thresholds.insert(scorer.name().to_owned(), threshold);
        }
    }
    Ok(thresholds)
}

/// Every classifier, then the ensemble.
fn scorers<P: Part>(films: &Predictions<P>) -> Vec<Scorer> {
    let models = films.models();
    let mut scorers: Vec<Scorer> = models.iter().cloned().map(Scorer::Model).collect();
    if !models.is_empty() {
        scorers.push(Scorer::Ensemble);
    }
    scorers
}

fn check_pairing<P: Part>(films: &Predictions<P>, truth: &Truth) -> Result<(), EvalError> {
    let fail = |image: &str, problem| EvalError::Film { image: image.to_owned(), problem };
    if films.is_empty() && P::SPLIT == Split::Test {
        return Err(EvalError::NoFilms(Split::Test));
    }
    if let Some(film) = films.films().find(|f| truth.get(&f.image).is_none()) {
        return Err(fail(&film.image, Problem::NoAnnotation(P::SPLIT)));
    }
    if let Some(film) = truth.films().find(|a| films.get(&a.image_id).is_none()) {
        return Err(fail(&film.image_id, Problem::NoPrediction(P::SPLIT)));
    }
    for film in films.films() {
        for detection in &film.boxes_before_gate {
            truth.classes().index(&detection.label).map_err(|e| fail(&film.image, e.into()))?;
        }
    }
    Ok(())
}

fn check_leak(validation: &Truth, test: &Truth) -> Result<(), EvalError> {
    let studies: BTreeSet<&str> = validation.films().map(|f| f.study_id.as_str()).collect();
    match test.films().find(|f| studies.contains(f.study_id.as_str())) {
        Some(film) => Err(EvalError::Leak {
            study: film.study_id.clone(),
            first: Split::Validation,
            second: Split::Test,
            example: film.image_id.clone(),
        }),
        None => Ok(()),
    }
}

/// Thresholds are of the classifiers they were chosen for.
fn check_models(validation: &Predictions<Validation>, test: &Predictions<Test>) -> Result<(), EvalError> {
    match (validation.films().next(), test.films().next()) {
        (Some(first), Some(other)) if validation.models() != test.models() => {
            let problem = Problem::OtherModels {
                expected: validation.models().to_vec(),
                got: test.models().to_vec(),
                first: first.image.clone(),
            };
            Err(EvalError::Film { image: other.image.clone(), problem })
        }
        _ => Ok(()),
    }
}

/// The box score with the best F1 on the validation films, after the gate.
fn best_shown_score(
    validation: &Predictions<Validation>,
    truth: &Truth,
    c_star: Option<&Threshold>,
    options: &RunOptions,
) -> Option<ShownScore> {
    let gate = c_star.map(|t| options.gate(t.value()));
    let boxes = box_set(validation, truth, gate.as_ref());
    let score = froc::best_f1_score(&boxes, FOUND_IOU)?;
    Some(ShownScore { score, from: "best F1 of boxes on validation films".into() })
}

fn evaluate(
    test: &Predictions<Test>,
    truth: &Truth,
    thresholds: &BTreeMap<String, Threshold>,
    validation: Option<(&Predictions<Validation>, &Truth)>,
    shown: Option<ShownScore>,
    counts: Counts,
    options: &RunOptions,
) -> Result<RunReport, EvalError> {
    let mut notes = few_boxes(&counts.test, truth.classes());
    notes.extend(few_films(&counts.test));
    let mut curves = Curves::default();

    let mut classification = BTreeMap::new();
    for scorer in scorers(test) {
        let threshold = thresholds.get(scorer.name());
        let (row, roc) = classification::evaluate(test, truth, &scorer, threshold, validation, options)?;
        if threshold.is_none() {
            notes.push(Note::warning(&format!(
                "No threshold for {}: figures at a threshold are n/a.",
                scorer.name()
            )));
        }
        notes.extend(tied(scorer.name(), &row));
        curves.roc.extend(roc.map(|curve| (scorer.name().to_owned(), curve)));
        classification.insert(scorer.name().to_owned(), row);
    }
    curves.scores = classification::histogram(test, truth)?;
    if curves.scores.is_none() {
        notes.push(Note::info("No classifier in the records: no film-level table and no decision rule."));
    } else if counts.test.abnormal == 0 || counts.test.normal == 0 {
        notes.push(Note::warning("The test films are all of one class: AUROC is n/a."));
    }

    let c_star = thresholds.get(Scorer::Ensemble.name());
    let gate = c_star.map(|t| options.gate(t.value()));
    let detector = options.detector.clone().or_else(|| {
        let any = test.films().any(|f| !f.boxes_before_gate.is_empty());
        any.then(|| "detector".to_owned())
    });
    let shown = shown.unwrap_or(ShownScore { score: SHOWN_SCORE, from: "fixed".into() });
    let studies = Studies::of(test, truth);
    let mut detection = BTreeMap::new();
    let mut last_boxes = None;
    if let Some(name) = &detector {
        let rows = [(name.as_str(), None), ("framework", gate.as_ref())];
        for (row_name, row_gate) in rows {
            if row_name == "framework" && gate.is_none() {
                notes.push(Note::warning("No c*: the framework row (boxes after the gate) is n/a."));
                continue;
            }
            let boxes = box_set(test, truth, row_gate);
            let classes = truth.classes();
            let (row, pr) = detection::evaluate(&boxes, classes, &studies, shown.score, &options.bootstrap);
            last_boxes = Some(boxes);
            detection.insert(row_name.to_owned(), row);
            curves.detection_pr.insert(row_name.to_owned(), pr);
        }
    }

    let cut = match c_star {
        Some(c_star) => {
            let logits = test.logits(truth, &Scorer::Ensemble)?;
            Some(classification::logit_cut(&logits, c_star.value()))
        }
        None => None,
    };
    let of_films =
        subgroups::Films { test, truth, cut, boxes: last_boxes.as_ref(), study_of_image: &studies.of_image };
    let subgroups = if options.subgroups { subgroups::evaluate(&of_films, options)? } else { Vec::new() };
    notes.extend(small_subgroups(&subgroups));

    let disagreeing = test.films().filter(|f| probability_disagrees(f)).count();
    if disagreeing > 0 {
        notes.push(Note::warning(&format!(
            "p_abnormal of {disagreeing} records is not the sigmoid of the mean logit; it was computed anew."
        )));
    }
    let bundles: BTreeSet<&str> = test.films().map(|f| f.model.as_str()).collect();
    if bundles.len() > 1 {
        notes.push(Note::warning(&format!(
            "The test records come from {} different bundles; the figures belong to none of them alone.",
            bundles.len()
        )));
    }
    if test.films().any(|f| f.demonstration) {
        notes.push(Note::warning("Made by small demonstration models that were trained on synthetic films."));
    }
    let mut provenance = options.provenance.clone();
    if provenance.bundle_hash.is_none() && bundles.len() == 1 {
        provenance.bundle_hash = bundles.first().filter(|b| !b.is_empty()).map(|&b| b.to_owned());
    }

    let cases = cases::select(test, truth, gate.as_ref(), shown.score, options.cases_per_kind);
    Ok(RunReport {
        title: options.title.clone(),
        notice: RunReport::NOTICE.into(),
        protocol: options.protocol,
        synthetic: options.synthetic,
        classes: options.classes.clone(),
        counts,
        classification,
        detection,
        detector,
        gate: gate.zip(c_star).map(|(gate, t)| GateReport {
            c_star: gate.c_star,
            keep_score: gate.keep_score,
            chosen_on: t.chosen_on().name().into(),
        }),
        shown_score: shown,
        bootstrap: options.bootstrap,
        subgroups,
        curves,
        losses: options.losses.iter().map(LossCurve::finite).collect(),
        cases,
        notes,
        provenance,
    })
}

fn probability_disagrees(film: &spinexr_core::FilmPrediction) -> bool {
    match (film.p_abnormal, Scorer::Ensemble.probability(film)) {
        (Some(recorded), Some(computed)) => (recorded - computed).abs() > 1e-6,
        (recorded, computed) => recorded.is_some() != computed.is_some(),
    }
}

fn few_boxes(test: &SplitCounts, classes: &ClassList) -> Vec<Note> {
    let (mut none, mut few) = (Vec::new(), Vec::new());
    for label in classes.labels() {
        match test.boxes.get(label).copied().unwrap_or(0) {
            0 => none.push(label.name().to_owned()),
            count if count < FEW_BOXES => few.push(format!("{label} ({count})")),
            _ => {}
        }
    }
    let mut notes = Vec::new();
    if !none.is_empty() {
        notes.push(Note::warning(&format!(
            "No box among the test films, AP is n/a and left out of the mean: {}.",
            none.join(", ")
        )));
    }
    if !few.is_empty() {
        notes.push(Note::warning(&format!(
            "Fewer than {FEW_BOXES} boxes among the test films, so the AP says little: {}.",
            few.join(", ")
        )));
    }
    notes
}

/// A class of films too small for its rates.
fn few_films(test: &SplitCounts) -> Option<Note> {
    let few = |count: usize| (1..FEW_FILMS).contains(&count);
    (few(test.abnormal) || few(test.normal)).then(|| {
        Note::warning(&format!(
            "Only {} abnormal and {} normal test films: AUROC, sensitivity and specificity say little.",
            test.abnormal, test.normal
        ))
    })
}

/// Swing of the AUROC from which ties are a warning.
const MUCH_SWING: f64 = 0.001;

/// What ties there are, and what they do.
fn tied(name: &str, row: &ClassificationRow) -> Option<Note> {
    let ties = &row.ties;
    if ties.pairs_between_classes == 0 {
        return None;
    }
    let range = ties.auroc_range.map_or_else(String::new, |[low, high]| {
        format!("; ranked otherwise, the AUROC would lie anywhere from {low:.4} to {high:.4}")
    });
    let on = ties.on_threshold.map_or(0, |[positive, negative]| positive + negative);
    let on = match on {
        0 | 1 => String::new(),
        on => format!("; {on} films lie exactly on the threshold and are called abnormal together"),
    };
    let text = format!(
        "Ties in the scores of {name}: {} films share {} scores, {} pairs of a normal and an abnormal film among \
         them{range}{on}.",
        ties.films, ties.scores, ties.pairs_between_classes
    );
    Some(if ties.auroc_swing() >= MUCH_SWING { Note::warning(&text) } else { Note::info(&text) })
}

fn small_subgroups(subgroups: &[Subgroups]) -> Option<Note> {
    let groups = || subgroups.iter().flat_map(|s| &s.groups);
    let small = groups().filter(|group| !group.warning.is_empty()).count();
    (small > 0).then(|| {
        Note::info(&format!(
            "{small} of {} subgroups are too small for their figures to say much; they are marked.",
            groups().count()
        ))
    })
}

impl RunOptions {
    /// The decision rule at a c*, with the box score of the options.
    pub fn gate(&self, c_star: f64) -> Gate {
        Gate { c_star, keep_score: self.keep_score }
    }
}

/// The threshold's source as text, or `None`.
fn source(threshold: Option<&Threshold>) -> Option<ChosenOn> {
    threshold.map(Threshold::chosen_on)
}
