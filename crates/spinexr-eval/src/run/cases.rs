//! The films to look at: missed ones first, then false alarms, then missed boxes, then some that are right.

use super::{FOUND_IOU, box_set, regate};
use crate::coco;
use crate::threshold::{Predictions, Scorer, Test, Truth};
use serde::{Deserialize, Serialize};
use spinexr_core::{BoxXyxy, Detection, Gate, Label};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Why a film is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseKind {
    /// Abnormal, called normal.
    MissedFilm,
    /// Normal, called abnormal.
    FalseAlarm,
    /// Called rightly, with marked boxes that no shown box finds.
    MissedBoxes,
    /// Called rightly, every marked box found and no false box shown.
    Right,
}

/// A box of the reader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MarkedBox {
    /// Class.
    pub label: Label,
    /// Place, film px.
    pub xyxy: BoxXyxy,
    /// A shown box of the same class lies on it at IoU 0.5 or more.
    pub found: bool,
}

/// A box of the framework.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownBox {
    /// Class.
    pub label: Label,
    /// Score.
    pub score: f32,
    /// Place, film px.
    pub xyxy: BoxXyxy,
    /// It finds a marked box that no better one found.
    pub right: bool,
}

/// A film with what was marked and what was said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Why it is shown.
    pub kind: CaseKind,
    /// Image id.
    pub image: String,
    /// Study.
    pub study: String,
    /// The reader's verdict.
    pub abnormal: bool,
    /// The ensemble's probability; `None` without a classifier.
    pub p_abnormal: Option<f64>,
    /// Film height, px.
    pub height_px: u32,
    /// Film width, px.
    pub width_px: u32,
    /// Marked boxes.
    pub marked: Vec<MarkedBox>,
    /// Boxes after the gate with at least the shown score.
    pub boxes: Vec<ShownBox>,
    /// Boxes after the gate below the shown score.
    pub boxes_not_shown: usize,
}

impl Case {
    /// Marked boxes that are not found.
    pub fn missed(&self) -> usize {
        self.marked.iter().filter(|b| !b.found).count()
    }

    /// Shown boxes that find nothing.
    pub fn false_boxes(&self) -> usize {
        self.boxes.iter().filter(|b| !b.right).count()
    }
}

/// At most `per_kind` films of each kind, the worst of a kind first.
pub(super) fn select(
    test: &Predictions<Test>,
    truth: &Truth,
    gate: Option<&Gate>,
    shown_score: f64,
    per_kind: usize,
) -> Vec<Case> {
    let mut cases = assess(test, truth, gate, shown_score);
    let p = |case: &Case| case.p_abnormal.unwrap_or(0.5);
    let kind = |kind: CaseKind| move |case: &Case| case.kind == kind;
    cases.sort_by_key(|case| case.kind);
    let mut selected = Vec::new();
    // The surest mistakes first; image ids settle ties.
    let mut missed: Vec<Case> = cases.extract_if(.., |c| kind(CaseKind::MissedFilm)(c)).collect();
    missed.sort_by(|a, b| p(a).total_cmp(&p(b)).then_with(|| a.image.cmp(&b.image)));
    selected.extend(missed.into_iter().take(per_kind));
    let mut alarms: Vec<Case> = cases.extract_if(.., |c| kind(CaseKind::FalseAlarm)(c)).collect();
    alarms.sort_by(|a, b| p(b).total_cmp(&p(a)).then_with(|| a.image.cmp(&b.image)));
    selected.extend(alarms.into_iter().take(per_kind));
    let mut boxes: Vec<Case> = cases.extract_if(.., |c| kind(CaseKind::MissedBoxes)(c)).collect();
    boxes.sort_by_key(|c| (Reverse(c.missed() + c.false_boxes()), c.image.clone()));
    selected.extend(boxes.into_iter().take(per_kind));
    // Of the right ones, those with findings say most; a third is left for normal films.
    let mut right: Vec<Case> = cases.extract_if(.., |c| kind(CaseKind::Right)(c)).collect();
    right.sort_by_key(|c| (Reverse(c.marked.len()), c.image.clone()));
    let (mut with, mut normal): (Vec<Case>, Vec<Case>) = right.into_iter().partition(|c| c.abnormal);
    normal.sort_by(|a, b| p(a).total_cmp(&p(b)).then_with(|| a.image.cmp(&b.image)));
    normal.truncate(per_kind.div_ceil(3));
    with.truncate(per_kind - normal.len().min(per_kind));
    selected.extend(with);
    selected.extend(normal);
    selected
}

/// Every film that is wholly right or wrong in one of the ways of [`CaseKind`].
fn assess(test: &Predictions<Test>, truth: &Truth, gate: Option<&Gate>, shown_score: f64) -> Vec<Case> {
    let mut boxes = box_set(test, truth, gate);
    boxes.detections.retain(|d| d.score >= shown_score);
    let hits = coco::hits(&boxes, FOUND_IOU, usize::MAX);
    let right: BTreeSet<usize> = hits.iter().filter(|h| h.found.is_some()).map(|h| h.detection).collect();
    let found: BTreeSet<usize> = hits.iter().filter_map(|h| h.found).collect();

    let (mut next_truth, mut next_box) = (0, 0);
    let mut cases = Vec::new();
    for (film, annotation) in test.films().filter_map(|f| Some((f, truth.get(&f.image)?))) {
        let kept = regate(film, gate);
        let (shown, hidden): (Vec<&Detection>, Vec<&Detection>) =
            kept.iter().partition(|d| f64::from(d.score) >= shown_score);
        let marked: Vec<MarkedBox> = (next_truth..)
            .zip(&annotation.boxes)
            .map(|(i, b)| MarkedBox { label: b.label.clone(), xyxy: b.xyxy, found: found.contains(&i) })
            .collect();
        let boxes: Vec<ShownBox> = (next_box..)
            .zip(shown)
            .map(|(i, d)| ShownBox {
                label: d.label.clone(),
                score: d.score,
                xyxy: d.xyxy,
                right: right.contains(&i),
            })
            .collect();
        next_truth += marked.len();
        next_box += boxes.len();

        let p_abnormal = Scorer::Ensemble.probability(film);
        let called_abnormal = p_abnormal.zip(gate).map(|(p, gate)| p >= gate.c_star);
        let mut case = Case {
            kind: CaseKind::Right,
            image: film.image.clone(),
            study: annotation.study_id.clone(),
            abnormal: annotation.abnormal,
            p_abnormal,
            height_px: film.height_px,
            width_px: film.width_px,
            marked,
            boxes,
            boxes_not_shown: hidden.len(),
        };
        case.kind = match called_abnormal {
            Some(false) if annotation.abnormal => CaseKind::MissedFilm,
            Some(true) if !annotation.abnormal => CaseKind::FalseAlarm,
            _ if case.missed() > 0 => CaseKind::MissedBoxes,
            _ if case.false_boxes() == 0 => CaseKind::Right,
            // Right but for a false box: neither a lesson nor a proof.
            _ => continue,
        };
        cases.push(case);
    }
    cases
}
