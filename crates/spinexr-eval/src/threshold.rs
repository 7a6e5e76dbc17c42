//! Predictions that know their split, and the thresholds that only validation predictions can make.
//!
//! The paper chose c* on its test films, so its figures at that threshold are optimistic. Here
//! [`choose`] takes `Predictions<Validation>` and nothing else:
//!
//! ```
//! use spinexr_eval::threshold::{Predictions, Scorer, Truth, Validation, choose};
//! fn c_star(films: &Predictions<Validation>, truth: &Truth) -> Option<f64> {
//!     choose(films, truth, &Scorer::Ensemble).ok().flatten().map(|t| t.value())
//! }
//! ```
//!
//! and the same with test predictions does not compile:
//!
//! ```compile_fail,E0308
//! use spinexr_eval::threshold::{Predictions, Scorer, Test, Truth, choose};
//! fn c_star(films: &Predictions<Test>, truth: &Truth) -> Option<f64> {
//!     choose(films, truth, &Scorer::Ensemble).ok().flatten().map(|t| t.value())
//! }
//! ```
//!
//! To repeat the paper there is [`paper_protocol_choose_on_test`], whose thresholds carry a label that
//! follows them into every table.

use crate::error::{EvalError, Problem};
use crate::scores::Step;
use crate::{LabelledScores, binary, records};
use serde::{Deserialize, Serialize};
use spinexr_core::{ClassList, FilmAnnotation, FilmPrediction, Split, fusion};
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// Marks [`Predictions`] of validation films.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {}

/// Marks [`Predictions`] of test films.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Validation {}
    impl Sealed for super::Test {}
}

/// [`Validation`] or [`Test`].
pub trait Part: sealed::Sealed {
    /// The split that the records must name.
    const SPLIT: Split;
}

impl Part for Validation {
    const SPLIT: Split = Split::Validation;
}

impl Part for Test {
    const SPLIT: Split = Split::Test;
}

/// Checked records of one split, by image id.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions<P> {
    films: BTreeMap<String, FilmPrediction>,
    models: Vec<String>,
    part: PhantomData<P>,
}

impl<P: Part> Predictions<P> {
    /// Takes the records after checking each.
    ///
    /// # Errors
    /// [`EvalError::Film`] for a record of another split or none, a film that occurs twice, a number or box
    /// that cannot be, or classifiers that differ from the first record's.
    pub fn new(records: Vec<FilmPrediction>) -> Result<Self, EvalError> {
        let mut films: BTreeMap<String, FilmPrediction> = BTreeMap::new();
        let mut models: Option<(String, Vec<String>)> = None;
        for record in records {
            let fail = |problem| EvalError::Film { image: record.image.clone(), problem };
            if record.split != Some(P::SPLIT) {
                return Err(fail(Problem::WrongSplit { expected: P::SPLIT, got: record.split }));
            }
            records::check(&record).map_err(fail)?;
            let classifies = record.logits.iter().filter(|(_, logits)| logits.abnormal().is_some());
            let here: Vec<String> = classifies.map(|(model, _)| model.clone()).collect();
            let (first, expected) = models.get_or_insert_with(|| (record.image.clone(), here.clone()));
            if *expected != here {
                let (expected, first) = (expected.clone(), first.clone());
                return Err(fail(Problem::OtherModels { expected, got: here, first }));
            }
            if films.contains_key(&record.image) {
                let first = format!("another {} record", P::SPLIT);
                return Err(fail(Problem::Duplicate { id: record.image.clone(), first }));
            }
            films.insert(record.image.clone(), record);
        }
        Ok(Self { films, models: models.map_or_else(Vec::new, |m| m.1), part: PhantomData })
    }

    /// Records in the order of image ids.
    pub fn films(&self) -> impl ExactSizeIterator<Item = &FilmPrediction> {
        self.films.values()
    }

    /// The record of a film.
    pub fn get(&self, image: &str) -> Option<&FilmPrediction> {
        self.films.get(image)
    }

    /// Number of films.
    pub fn len(&self) -> usize {
        self.films.len()
    }

    /// No film.
    pub fn is_empty(&self) -> bool {
        self.films.is_empty()
    }

    /// Names of the classifiers, the same in every record.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// Labels and probabilities of the films that `scorer` scores, with their studies.
    ///
    /// # Errors
    /// [`EvalError::Film`] for a film without annotation.
    pub fn probabilities(&self, truth: &Truth, scorer: &Scorer) -> Result<LabelledScores, EvalError> {
        self.scores(truth, |film| scorer.probability(film))
    }

    /// As [`Self::probabilities`], with logits, which do not saturate: for ranking.
    ///
    /// # Errors
    /// As [`Self::probabilities`].
    pub fn logits(&self, truth: &Truth, scorer: &Scorer) -> Result<LabelledScores, EvalError> {
        self.scores(truth, |film| scorer.logit(film))
    }

    fn scores(
        &self,
        truth: &Truth,
        score: impl Fn(&FilmPrediction) -> Option<f64>,
    ) -> Result<LabelledScores, EvalError> {
        let mut rows = Vec::with_capacity(self.len());
        for film in self.films() {
            let annotation = truth.get(&film.image).ok_or_else(|| EvalError::Film {
                image: film.image.clone(),
                problem: Problem::NoAnnotation(P::SPLIT),
            })?;
            if let Some(score) = score(film) {
                rows.push((annotation.abnormal, score, annotation.study_id.as_str()));
            }
        }
        LabelledScores::with_studies(rows)
    }
}

/// Records by split; those without a split are kept apart, for nothing can be said of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BySplit {
    /// Training films.
    pub train: Vec<FilmPrediction>,
    /// Validation films.
    pub validation: Vec<FilmPrediction>,
    /// Test films.
    pub test: Vec<FilmPrediction>,
    /// Films whose record names no split.
    pub without: Vec<FilmPrediction>,
}

impl BySplit {
    /// No study has films in two splits, as far as the records tell.
    ///
    /// # Errors
    /// [`EvalError::Leak`], for films that thresholds were chosen on, or that a model was trained on, and that are tested.
    pub fn check_leak(&self) -> Result<(), EvalError> {
        let mut first: BTreeMap<&str, Split> = BTreeMap::new();
        for film in self.train.iter().chain(&self.validation).chain(&self.test) {
            let Some(split) = film.split else { continue };
            let before = *first.entry(film.study.as_str()).or_insert(split);
            if before != split {
                return Err(EvalError::Leak {
                    study: film.study.clone(),
                    first: before,
                    second: split,
                    example: film.image.clone(),
                });
            }
        }
        Ok(())
    }
}

/// Sorts records by the split they name.
pub fn by_split(records: Vec<FilmPrediction>) -> BySplit {
    let mut parts = BySplit::default();
    for record in records {
        match record.split {
            Some(Split::Train) => parts.train.push(record),
            Some(Split::Validation) => parts.validation.push(record),
            Some(Split::Test) => parts.test.push(record),
            None => parts.without.push(record),
        }
    }
    parts
}

/// Annotations by image id, and the classes of their boxes.
#[derive(Debug, Clone)]
pub struct Truth<'a> {
    classes: ClassList,
    films: BTreeMap<&'a str, &'a FilmAnnotation>,
}

impl<'a> Truth<'a> {
    /// Takes the annotations.
    ///
    /// # Errors
    /// [`EvalError::Film`] for a film that occurs twice, or an annotated box that is not finite, inverted or of a
    /// class that is not listed.
    pub fn new(
        annotations: impl IntoIterator<Item = &'a FilmAnnotation>,
        classes: &ClassList,
    ) -> Result<Self, EvalError> {
        let mut films = BTreeMap::new();
        for annotation in annotations {
            let fail = |problem| EvalError::Film { image: annotation.image_id.clone(), problem };
            for marked in &annotation.boxes {
                classes.index(&marked.label).map_err(|e| fail(e.into()))?;
                let b = marked.xyxy;
                if !b.is_finite() {
                    let what = format!("annotated box of {}", marked.label);
                    return Err(fail(Problem::NotFinite { what, value: f64::NAN }));
                }
                if b.width() < 0.0 || b.height() < 0.0 {
                    return Err(fail(Problem::InvertedBox(b)));
                }
            }
            if films.insert(annotation.image_id.as_str(), annotation).is_some() {
                let first = "another annotation".to_owned();
                return Err(fail(Problem::Duplicate { id: annotation.image_id.clone(), first }));
            }
        }
        Ok(Self { classes: classes.clone(), films })
    }

    /// The classes of the evaluation, in index order.
    pub fn classes(&self) -> &ClassList {
        &self.classes
    }

    /// A film's annotation.
    pub fn get(&self, image: &str) -> Option<&'a FilmAnnotation> {
        self.films.get(image).copied()
    }

    /// Annotations in the order of image ids.
    pub fn films(&self) -> impl ExactSizeIterator<Item = &'a FilmAnnotation> {
        self.films.values().copied()
    }
}

/// What gives a film its score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scorer {
    /// One classifier, by name.
    Model(String),
    /// The mean of all classifiers' logits.
    Ensemble,
}

impl Scorer {
    /// The row's name in tables and files.
    pub fn name(&self) -> &str {
        match self {
            Self::Model(name) => name,
            Self::Ensemble => "ensemble",
        }
    }

    /// Logit of the film; `None` where the record has none.
    pub fn logit(&self, film: &FilmPrediction) -> Option<f64> {
        match self {
            Self::Model(name) => film.logits.get(name)?.abnormal(),
            Self::Ensemble => film.ensemble_logit(),
        }
    }

    /// Sigmoid of [`Self::logit`].
    pub fn probability(&self, film: &FilmPrediction) -> Option<f64> {
        self.logit(film).map(fusion::sigmoid)
    }
}

/// Which films a threshold was chosen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChosenOn {
    /// Validation films.
    #[serde(rename = "validation")]
    Validation,
    /// Validation films of the training run; the value was read from the records.
    #[serde(rename = "frozen in the bundle")]
    Frozen,
    /// The test films themselves, as the paper did: figures at this threshold are optimistic.
    #[serde(rename = "test (as the paper did; optimistic)")]
    TestAsInThePaper,
}

impl ChosenOn {
    /// As in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Frozen => "frozen in the bundle",
            Self::TestAsInThePaper => "test (as the paper did; optimistic)",
        }
    }
}

/// A threshold on a probability, which cannot be made without saying from which films.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Threshold {
    value: f64,
    chosen_on: ChosenOn,
    youden_j: Option<f64>,
}

impl Threshold {
    /// A film is called abnormal when its probability is at least this.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The films it was chosen on.
    pub fn chosen_on(&self) -> ChosenOn {
        self.chosen_on
    }

    /// Youden's J on those films, where known.
    pub fn youden_j(&self) -> Option<f64> {
        self.youden_j
    }
}

/// The threshold with the largest Youden's J on validation films; `None` unless both classes occur among
/// them.
///
/// # Errors
/// [`EvalError::Film`] for a film without annotation.
pub fn choose(
    validation: &Predictions<Validation>,
    truth: &Truth,
    scorer: &Scorer,
) -> Result<Option<Threshold>, EvalError> {
    youden(&validation.probabilities(truth, scorer)?, ChosenOn::Validation)
}

/// The threshold as the paper chose it: on the test films, which flatters every figure at it. Only for
/// comparison with the paper; the label [`ChosenOn::TestAsInThePaper`] goes with it.
///
/// # Errors
/// [`EvalError::Film`] for a film without annotation.
pub fn paper_protocol_choose_on_test(
    test: &Predictions<Test>,
    truth: &Truth,
    scorer: &Scorer,
) -> Result<Option<Threshold>, EvalError> {
    youden(&test.probabilities(truth, scorer)?, ChosenOn::TestAsInThePaper)
}

/// What a threshold has to reach on validation films.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// At least this sensitivity, with the highest threshold that has it.
    Sensitivity(f64),
    /// At least this specificity, with the lowest threshold that has it.
    Specificity(f64),
}

/// The threshold that reaches `target` on validation films; `None` where none does, or a class is missing. What it reaches on
/// other films is theirs to say.
///
/// # Errors
/// [`EvalError::Film`] for a film without annotation.
pub fn choose_at(
    validation: &Predictions<Validation>,
    truth: &Truth,
    scorer: &Scorer,
    target: Target,
) -> Result<Option<Threshold>, EvalError> {
    let data = validation.probabilities(truth, scorer)?;
    if !data.has_both_classes() {
        return Ok(None);
    }
    let steps = data.steps();
    let sensitivity = |step: &Step| step.tp as f64 / data.positives() as f64;
    let specificity = |step: &Step| 1.0 - step.fp as f64 / data.negatives() as f64;
    let step = match target {
        Target::Sensitivity(least) => steps.iter().find(|step| sensitivity(step) >= least),
        Target::Specificity(least) => steps.iter().rfind(|step| specificity(step) >= least),
    };
    Ok(step.map(|step| Threshold {
        value: step.threshold,
        chosen_on: ChosenOn::Validation,
        youden_j: Some(sensitivity(step) + specificity(step) - 1.0),
    }))
}

fn youden(data: &LabelledScores, chosen_on: ChosenOn) -> Result<Option<Threshold>, EvalError> {
    Ok(binary::youden(data).map(|point| Threshold {
        value: point.threshold,
        chosen_on,
        youden_j: Some(point.youden_j),
    }))
}

/// The c* that every record carries from its bundle.
///
/// # Errors
/// [`EvalError::NoFrozenThreshold`] when a record has none, or another one.
pub fn frozen(test: &Predictions<Test>) -> Result<Threshold, EvalError> {
    let mut found: Option<f64> = None;
    for film in test.films() {
        match (found, film.threshold) {
            (None, Some(value)) => found = Some(value),
            (Some(first), Some(value)) if first == value => {}
            (first, other) => {
                let found = if first.is_some() { vec![first, other] } else { vec![other] };
                return Err(EvalError::NoFrozenThreshold { found, image: film.image.clone() });
            }
        }
    }
    match found {
        Some(value) => Ok(Threshold { value, chosen_on: ChosenOn::Frozen, youden_j: None }),
        None => Err(EvalError::NoFilms(Split::Test)),
    }
}
