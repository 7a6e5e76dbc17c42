//! Rows of the box-level table.

use super::FOUND_IOU;
use crate::box_bootstrap::{self, RankedBoxes};
use crate::box_metrics::{self, BoxConfusion, HitsInBox};
use crate::coco::{self, BoxSet, DetectedBox, Protocol, TruthBox};
use crate::error_kinds::{self, ErrorCost};
use crate::froc::{self, Froc};
use crate::intervals::{BootstrapOptions, Interval};
use crate::threshold::{Part, Predictions, Scorer, Truth};
use serde::{Deserialize, Serialize};
use spinexr_core::{BoxXyxy, ClassList, Detection, FilmPrediction, Gate, Label};
use std::collections::BTreeMap;

/// A detector alone, or the framework (its boxes after the gate). Shares lie in `[0, 1]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectionRow {
    /// AP at IoU 0.5 by class; `None` for a class without a marked box.
    pub ap50: BTreeMap<Label, Option<f64>>,
    /// Mean of them over the classes that have one.
    pub map50: Option<f64>,
    /// 95 % interval of the mean, bootstrap of studies.
    pub map50_ci: Option<Interval>,
    /// 95 % intervals of `ap50`, bootstrap of studies.
    pub ap50_ci: BTreeMap<Label, Option<Interval>>,
    /// AP averaged over IoU 0.20:0.05:0.50, by class.
    pub ap_20_50: BTreeMap<Label, Option<f64>>,
    /// Mean of them over the classes that have one.
    pub map_20_50: Option<f64>,
    /// Share of the marked boxes found at IoU 0.5, whatever the score, by class.
    pub recall50: BTreeMap<Label, Option<f64>>,
    /// Proposed boxes.
    pub boxes: usize,
    /// Findings found against false alarms a film, all classes together.
    pub froc: Option<Froc>,
    /// AP at IoU 0.5 as Pascal VOC has it, by class.
    pub voc_ap50: BTreeMap<Label, Option<f64>>,
    /// Kinds of mistakes, and what AP@0.5 would gain without each.
    pub errors: Vec<ErrorCost>,
    /// Marked boxes that hold the middle of a shown box of their class, by class.
    pub hits_in_box: BTreeMap<Label, HitsInBox>,
    /// Which class is taken for which among the shown boxes, at IoU 0.5; the background last.
    pub confusion: BoxConfusion,
}

/// p(abnormal) from the logits, then the decision rule on `boxes_before_gate`; without a gate or without a
/// classifier every box stays.
pub fn regate(film: &FilmPrediction, gate: Option<&Gate>) -> Vec<Detection> {
    match (gate, Scorer::Ensemble.probability(film)) {
        (Some(gate), Some(p)) => gate.apply(p, &film.boxes_before_gate),
        _ => film.boxes_before_gate.clone(),
    }
}

fn xywh(b: BoxXyxy) -> [f64; 4] {
    let [x1, y1, x2, y2] = <[f32; 4]>::from(b).map(f64::from);
    [x1, y1, x2 - x1, y2 - y1]
}

/// True boxes and proposed boxes of a split, images in the order of their ids. Films that are not annotated
/// are left out, and so are proposed boxes of other classes; [`super::evaluate_run`] refuses both.
pub fn box_set<P: Part>(films: &Predictions<P>, truth: &Truth, gate: Option<&Gate>) -> BoxSet {
    let classes = truth.classes();
    let mut boxes = BoxSet { classes: classes.len(), ..BoxSet::default() };
    for (film, annotation) in films.films().filter_map(|f| Some((f, truth.get(&f.image)?))) {
        let image = boxes.images;
        boxes.images += 1;
        boxes.truth.extend(annotation.boxes.iter().filter_map(|marked| {
            let class = classes.index(&marked.label).ok()?;
            let xywh = xywh(marked.xyxy);
            let area = xywh[2] * xywh[3];
            Some(TruthBox { image, class, xywh, area, crowd: false })
        }));
        boxes.detections.extend(regate(film, gate).iter().filter_map(|d| {
            let class = classes.index(&d.label).ok()?;
            Some(DetectedBox { image, class, xywh: xywh(d.xyxy), score: f64::from(d.score) })
        }));
    }
    boxes
}

/// The study of each image of a [`box_set`], numbered by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Studies {
    /// `0..count`, in the order of images.
    pub of_image: Vec<u32>,
    /// Number of studies.
    pub count: usize,
}

impl Studies {
    /// Of the films that [`box_set`] takes.
    pub fn of<P: Part>(films: &Predictions<P>, truth: &Truth) -> Self {
        let annotated = || films.films().filter_map(|film| truth.get(&film.image));
        let mut names: Vec<&str> = annotated().map(|a| a.study_id.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let number = |name: &str| names.binary_search(&name).expect("every study is among the names") as u32;
        Self { of_image: annotated().map(|a| number(&a.study_id)).collect(), count: names.len() }
    }
}

/// Detections of a class and film that count, as in the protocol of the AP.
const MAX_DETECTIONS: usize = 100;

/// Precision at the 101 recall points, by class.
type PrCurves = BTreeMap<Label, Option<Vec<f64>>>;

/// The row and its precision–recall curves at IoU 0.5; boxes are shown from `shown_score` on.
pub(super) fn evaluate(
    boxes: &BoxSet,
    names: &ClassList,
    studies: &Studies,
    shown_score: f64,
    bootstrap: &BootstrapOptions,
) -> (DetectionRow, PrCurves) {
    let ranked = RankedBoxes::new(boxes, &studies.of_image, studies.count, FOUND_IOU);
    let swing = box_bootstrap::resampled_ap(&ranked, bootstrap).summary();
    let classes = coco::evaluate(boxes, &Protocol::all_areas(coco::iou_paper()));
    let half = classes.first().map_or(0, |c| c.by_iou.len() - 1); // the last threshold is 0.5
    let labels = || names.labels().iter().cloned();
    let by_class = |value: &dyn Fn(&coco::ClassResult) -> Option<f64>| {
        labels().zip(classes.iter().map(value)).collect::<BTreeMap<_, _>>()
    };
    let row = DetectionRow {
        ap50: by_class(&|c| c.by_iou[half].ap()),
        map50: coco::mean(classes.iter().map(|c| c.by_iou[half].ap())),
        map50_ci: swing.mean.map(|b| b.interval),
        ap50_ci: labels().zip(swing.by_class.iter().map(|b| b.map(|b| b.interval))).collect(),
        ap_20_50: by_class(&coco::ClassResult::ap),
        map_20_50: coco::mean_ap(&classes),
        recall50: by_class(&|c| c.by_iou[half].recall),
        boxes: boxes.detections.len(),
        froc: froc::froc(boxes, FOUND_IOU),
        voc_ap50: labels().zip(box_metrics::voc_ap(boxes, FOUND_IOU)).collect(),
        errors: error_kinds::error_costs(boxes, MAX_DETECTIONS),
        hits_in_box: labels().zip(box_metrics::hits_in_box(boxes, shown_score)).collect(),
        confusion: box_metrics::confusion(boxes, FOUND_IOU, shown_score),
    };
    let curves = labels().zip(classes.iter().map(|class| class.by_iou[half].precision.clone())).collect();
    (row, curves)
}
