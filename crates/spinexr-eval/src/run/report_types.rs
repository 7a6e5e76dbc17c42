//! What goes into an evaluation beside the records, and what comes out: `report.json`.

use super::{Case, ClassificationRow, DetectionRow, ScoreHistogram, Subgroups};
use crate::intervals::BootstrapOptions;
use crate::threshold::Truth;
use serde::{Deserialize, Serialize};
use spinexr_core::{ClassList, Gate, Label};
use std::collections::{BTreeMap, BTreeSet};

/// Which of the two recipes made the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// What the official code does, flaws included.
    Paper,
    /// The repaired recipe.
    Improved,
}

impl Protocol {
    /// `paper` or `improved`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Improved => "improved",
        }
    }
}

/// Everything an evaluation needs beside records and annotations.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// Headline of the report.
    pub title: String,
    /// The recipe.
    pub protocol: Protocol,
    /// The classes of the boxes, in index order.
    pub classes: ClassList,
    /// Name of the detector's row; without one, `detector` when the records hold boxes.
    pub detector: Option<String>,
    /// Box score from which a box stays on a film below c*.
    pub keep_score: f64,
    /// Bootstrap of the film-level metrics.
    pub bootstrap: BootstrapOptions,
    /// The films are synthetic.
    pub synthetic: bool,
    /// What was run.
    pub provenance: RunProvenance,
    /// Training histories.
    pub losses: Vec<LossCurve>,
    /// Films of each kind in the gallery, at most.
    pub cases_per_kind: usize,
    /// Give the figures by subgroup too.
    pub subgroups: bool,
}

impl RunOptions {
    /// The classes of VinDr-SpineXR, the paper's box score and 10,000 resamples, eight films of each kind.
    pub fn new(title: &str, protocol: Protocol, seed: u64) -> Self {
        Self {
            title: title.into(),
            protocol,
            classes: ClassList::vindr(),
            detector: None,
            keep_score: Gate::PAPER_KEEP_SCORE,
            bootstrap: BootstrapOptions::paper(seed),
            synthetic: false,
            provenance: RunProvenance::default(),
            losses: Vec::new(),
            cases_per_kind: 8,
            subgroups: true,
        }
    }
}

/// What was run, for whoever wants to run it again. Fields that are not known are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunProvenance {
    /// Command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Seed of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Configuration as resolved, TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Hash of the bundle; taken from the records where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_hash: Option<String>,
    /// Hash of the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_hash: Option<String>,
    /// Versions of the program and what it stands on, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// Anything else worth a line, by name (device, duration).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, String>,
}

/// The course of one quantity in training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossCurve {
    /// Name in the legend.
    pub name: String,
    /// `[step, value]`.
    pub points: Vec<[f64; 2]>,
}

impl LossCurve {
    /// The curve without points that are no numbers.
    pub(super) fn finite(&self) -> Self {
        let points = self.points.iter().filter(|p| p.iter().all(|v| v.is_finite())).copied().collect();
        Self { name: self.name.clone(), points }
    }
}

/// How weighty a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoteKind {
    /// Bears on how far a figure can be trusted.
    Warning,
    /// Good to know.
    Info,
}

/// A remark that belongs to the figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// How weighty it is.
    pub kind: NoteKind,
    /// Plain text.
    pub text: String,
}

impl Note {
    /// A remark that bears on trust.
    pub fn warning(text: &str) -> Self {
        Self { kind: NoteKind::Warning, text: text.into() }
    }

    /// A remark that is good to know.
    pub fn info(text: &str) -> Self {
        Self { kind: NoteKind::Info, text: text.into() }
    }
}

/// What a split holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// Films.
    pub films: usize,
    /// Studies.
    pub studies: usize,
    /// Films with a finding.
    pub abnormal: usize,
    /// Films without.
    pub normal: usize,
    /// Marked boxes by class.
    pub boxes: BTreeMap<Label, usize>,
}

impl SplitCounts {
    pub(super) fn of(truth: &Truth) -> Self {
        let mut boxes: BTreeMap<Label, usize> =
            truth.classes().labels().iter().map(|label| (label.clone(), 0)).collect();
        for marked in truth.films().flat_map(|f| &f.boxes) {
            *boxes.entry(marked.label.clone()).or_default() += 1;
        }
        let films = truth.films().len();
        let abnormal = truth.films().filter(|f| f.abnormal).count();
        let studies = truth.films().map(|f| f.study_id.as_str()).collect::<BTreeSet<_>>().len();
        Self { films, studies, abnormal, normal: films - abnormal, boxes }
    }
}

/// What the splits hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Validation films; `None` when the evaluation had none.
    pub validation: Option<SplitCounts>,
    /// Test films.
    pub test: SplitCounts,
}

/// The decision rule that made the framework row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// c*.
    pub c_star: f64,
    /// Box score from which a box stays on a film below c*.
    pub keep_score: f64,
    /// The films c* was chosen on.
    pub chosen_on: String,
}

/// From which score on the gallery shows a box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownScore {
    /// Box score.
    pub score: f64,
    /// Where it comes from.
    pub from: String,
}

/// Curves for plotting.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Curves {
    /// ROC by classifier: `[false positive rate, true positive rate]`.
    pub roc: BTreeMap<String, Vec<[f64; 2]>>,
    /// p(abnormal) of normal and abnormal films; `None` without a classifier.
    pub scores: Option<ScoreHistogram>,
    /// Precision at the 101 recall points at IoU 0.5, by detector and class; `None` for a class without
    /// truth.
    pub detection_pr: BTreeMap<String, BTreeMap<Label, Option<Vec<f64>>>>,
}

/// The evaluation of a run, as in `report.json`. Undefined figures are `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Headline.
    pub title: String,
    /// [`RunReport::NOTICE`].
    pub notice: String,
    /// The recipe that made the result.
    pub protocol: Protocol,
    /// The films are synthetic.
    pub synthetic: bool,
    /// The classes, in index order.
    #[serde(default = "ClassList::vindr")]
    pub classes: ClassList,
    /// What the splits hold.
    pub counts: Counts,
    /// By classifier, and `ensemble`.
    pub classification: BTreeMap<String, ClassificationRow>,
    /// By detector, and `framework` for its boxes after the gate.
    pub detection: BTreeMap<String, DetectionRow>,
    /// The detector's name in `detection`.
    pub detector: Option<String>,
    /// The decision rule of the framework row.
    pub gate: Option<GateReport>,
    /// From which score on the gallery shows a box.
    pub shown_score: ShownScore,
    /// How the intervals were made.
    pub bootstrap: BootstrapOptions,
    /// Figures by what the films' headers say; facts that no header carries are left out.
    #[serde(default)]
    pub subgroups: Vec<Subgroups>,
    /// Curves.
    pub curves: Curves,
    /// Training histories.
    pub losses: Vec<LossCurve>,
    /// Films to look at, worst first.
    pub cases: Vec<Case>,
    /// Remarks on the figures.
    pub notes: Vec<Note>,
    /// What was run.
    pub provenance: RunProvenance,
}

impl RunReport {
    /// Said by every output.
    pub const NOTICE: &str = "Research use only; not a medical device.";

    /// Names of the classifiers, the ensemble last.
    pub fn classifier_names(&self) -> Vec<&str> {
        last(&self.classification, "ensemble")
    }

    /// Names of the detection rows, the framework last.
    pub fn detector_names(&self) -> Vec<&str> {
        last(&self.detection, "framework")
    }
}

fn last<'a, V>(rows: &'a BTreeMap<String, V>, summary: &str) -> Vec<&'a str> {
    let mut names: Vec<&str> = rows.keys().map(String::as_str).collect();
    names.sort_by_key(|name| *name == summary);
    names
}
