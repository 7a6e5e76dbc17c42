//! Evaluation of a test set, from boxes and scores in memory.

use crate::inputs;
use crate::measure::{Plan, timed};
use crate::sizes::Sizes;
use anyhow::{Context, Result};
use spinexr_eval::coco::{self, Protocol};
use spinexr_eval::intervals::{self, BootstrapOptions, Unit};
use std::path::Path;

/// AP at the paper's IoU thresholds, all areas, 100 detections; their mean is what was computed.
pub fn coco_eval(dir: &Path, plan: &Plan) -> Result<(Vec<f64>, f64)> {
    let boxes = inputs::read_boxes(dir)?;
    plan.measure(|| {
        let (seconds, classes) = timed(|| coco::evaluate(&boxes, &Protocol::all_areas(coco::iou_paper())));
        Ok((seconds, coco::mean_ap(&classes).context("no class has a true box")?))
    })
}

/// AUROC of resamples drawn by film; its mean is what was computed.
pub fn bootstrap(dir: &Path, sizes: &Sizes, plan: &Plan) -> Result<(Vec<f64>, f64)> {
    let scores = inputs::read_scores(dir)?;
    let options = BootstrapOptions { resamples: sizes.resamples, seed: 1 };
    plan.measure(|| {
        let (seconds, intervals) = timed(|| intervals::bootstrap(&scores, None, Unit::Film, &options));
        Ok((seconds, intervals.auroc.context("the scores are of one class")?.mean))
    })
}
