//! From the outputs of RetinaNet to boxes.
//!
//! Reference: `torchvision.models.detection.retinanet.RetinaNet.postprocess_detections`. Runs on the host,
//! one film a thread.

use burn::tensor::Tensor;
use rayon::prelude::*;
use spinexr_core::BoxXyxy;
use spinexr_core::nms::class_wise_nms;

use crate::anchors::Anchors;
use crate::box_coder::BoxCoder;
use crate::detector::{Detect, DetectConfig, NotFinite, RawDetection};
use crate::retinanet::{RetinaNet, RetinaNetOutput};
use crate::retinanet_inference::RetinaNetInference;

impl Detect for RetinaNet {
    fn detect(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        self.forward(images).detect(content_px, config)
    }
}

impl Detect for RetinaNetInference {
    fn detect(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        self.forward(images).detect(content_px, config)
    }
}

impl RetinaNetOutput {
    /// The detections of each image, best first; [`NotFinite`] for an image with a NaN or an infinity.
    ///
    /// `input_sizes`: height and width of each image in input pixels, without padding; boxes are clipped to it.
    ///
    /// # Panics
    /// When there is not one size for each image.
    pub fn detect(
        &self,
        input_sizes: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        let [n, a, k] = self.class_logits.dims();
        assert_eq!(input_sizes.len(), n, "one size for each of {n} images");
        let read = |tensor: Tensor<3>| {
            tensor
                .try_into_vec_as::<f32>()
                .expect("the network's output is a float tensor that can be read back")
        };
        let logits = read(self.class_logits.clone());
        let deltas = read(self.box_deltas.clone());
        if a == 0 || k == 0 {
            return vec![Ok(Vec::new()); n];
        }
        logits
            .par_chunks(a * k)
            .zip(deltas.par_chunks(a * 4))
            .zip(input_sizes)
            .map(|((logits, deltas), &size)| {
                finite(logits, "class logits")?;
                finite(deltas, "box offsets")?;
                Ok(detect_one(logits, deltas, k, &self.anchors, size, config))
            })
            .collect()
    }
}

/// `what` if a value is a NaN or an infinity.
pub(crate) fn finite(values: &[f32], what: &'static str) -> Result<(), NotFinite> {
    // 0 · x is 0 for a finite x and NaN otherwise; a sum of them takes every lane of a register.
    let marks: f32 = values.iter().map(|v| v * 0.0).sum();
    if marks == 0.0 { Ok(()) } else { Err(NotFinite(what)) }
}

fn detect_one(
    logits: &[f32],
    deltas: &[f32],
    k: usize,
    anchors: &Anchors,
    (height, width): (f32, f32),
    config: &DetectConfig,
) -> Vec<RawDetection> {
    let mut candidates: Vec<RawDetection> = Vec::new();
    let mut start = 0;
    for &count in &anchors.per_level {
        let level = &logits[start * k..(start + count) * k];
        let level = best_above(level, config.score_threshold, config.top_k_per_level);
        candidates.extend(level.into_iter().map(|(index, logit)| {
            let anchor = start + index / k;
            let offsets = [0, 1, 2, 3].map(|i| deltas[anchor * 4 + i]);
            RawDetection {
                class: index % k,
                logit,
                score: sigmoid(logit),
                xyxy: BoxCoder::UNIT.decode(offsets, &anchors.boxes[anchor]).clip(width, height),
            }
        }));
        start += count;
    }
    candidates.retain(|candidate| candidate.xyxy.is_finite());
    let boxes: Vec<BoxXyxy> = candidates.iter().map(|c| c.xyxy).collect();
    let order: Vec<f32> = candidates.iter().map(|c| c.logit).collect();
    let classes: Vec<usize> = candidates.iter().map(|c| c.class).collect();
    let kept = class_wise_nms(&boxes, &order, &classes, config.nms_iou);
    kept.into_iter().take(config.max_detections).map(|i| candidates[i]).collect()
}

/// `(index, logit)` of at most `count` logits whose score is greater than `threshold`: best first, of equals the first.
pub(crate) fn best_above(logits: &[f32], threshold: f32, count: usize) -> Vec<(usize, f32)> {
    let mut best = above(logits, threshold);
    best.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
    best.truncate(count);
    best
}

/// `(index, logit)` of the logits whose score is greater than `threshold`; NaN never is.
fn above(logits: &[f32], threshold: f32) -> Vec<(usize, f32)> {
    // Most anchors are far below the threshold: spare them the exponential.
    let surely_below =
        if threshold > 0.0 { (threshold / (1.0 - threshold)).ln() - 0.01 } else { f32::NEG_INFINITY };
    logits
        .iter()
        .enumerate()
        .filter(|(_, logit)| **logit >= surely_below && sigmoid(**logit) > threshold)
        .map(|(index, logit)| (index, *logit))
        .collect()
}

pub(crate) fn sigmoid(x: f32) -> f32 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchors() -> Anchors {
        let at = |x: f32| BoxXyxy::new(x, 0.0, x + 10.0, 10.0);
        Anchors { boxes: vec![at(0.0), at(1.0), at(50.0), at(95.0)], per_level: vec![3, 1] }
    }

    const ALL: DetectConfig =
        DetectConfig { score_threshold: 0.5, top_k_per_level: 10, nms_iou: 0.5, max_detections: 10 };

    #[test]
    fn suppresses_within_a_class_clips_and_sorts() {
        // Two classes; anchors 0 and 1 overlap.
        let logits = [1.0, -9.0, 2.0, 0.5, -9.0, -9.0, -9.0, 3.0];
        let found = detect_one(&logits, &[0.0; 16], 2, &anchors(), (8.0, 100.0), &ALL);
        let brief: Vec<_> =
            found.iter().map(|d| (d.class, d.logit, d.xyxy.x1, d.xyxy.x2, d.xyxy.y2)).collect();
        assert_eq!(brief, [(1, 3.0, 95.0, 100.0, 8.0), (0, 2.0, 1.0, 11.0, 8.0), (1, 0.5, 1.0, 11.0, 8.0)]);
    }

    #[test]
    fn limits_hold() {
        let logits = [1.0, 1.5, 2.0, 3.0];
        let config = DetectConfig { top_k_per_level: 1, nms_iou: 1.0, ..ALL };
        let found = detect_one(&logits, &[0.0; 16], 1, &anchors(), (20.0, 200.0), &config);
        assert_eq!(found.iter().map(|d| d.logit).collect::<Vec<_>>(), [3.0, 2.0]); // one of each level
        let config = DetectConfig { max_detections: 1, ..config };
        assert_eq!(detect_one(&logits, &[0.0; 16], 1, &anchors(), (20.0, 200.0), &config).len(), 1);
    }

    #[test]
    fn not_a_number_is_no_detection() {
        let logits = [f32::NAN, 2.0, f32::NAN, 2.0];
        let mut deltas = [0.0; 16];
        deltas[4] = f32::NAN; // the offsets of anchor 1
        let found = detect_one(&logits, &deltas, 1, &anchors(), (20.0, 200.0), &ALL);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].xyxy.x1, 95.0);
    }

    #[test]
    fn thresholds_of_zero_and_one_work() {
        assert_eq!(above(&[-200.0, 0.0, 90.0], 0.0).len(), 2); // a score of exactly 0 is not greater
        assert_eq!(above(&[-200.0, f32::NAN], -1.0).len(), 1);
        assert!(above(&[-20.0, 0.0, 90.0], 1.0).is_empty());
        assert!(above(&[-20.0, 0.0, 90.0], 2.0).is_empty());
    }

    #[test]
    fn one_nan_marks_its_image_alone() {
        let device = burn::tensor::Device::flex();
        let tensor = |values: Vec<f32>, k: usize| {
            Tensor::<3>::from_data(burn::tensor::TensorData::new(values, [2, 4, k]), &device)
        };
        // Values whose sum would overflow are fine.
        let mut logits = vec![f32::MAX; 8];
        logits[6] = f32::NAN;
        let mut output = RetinaNetOutput {
            class_logits: tensor(logits, 1),
            box_deltas: tensor(vec![0.0; 32], 4),
            anchors: anchors(),
        };
        let found = output.detect(&[(20.0, 200.0); 2], &ALL);
        assert!(found[0].is_ok());
        assert_eq!(found[1], Err(NotFinite("class logits")));

        let mut deltas = vec![0.0; 32];
        deltas[3] = f32::INFINITY;
        (output.class_logits, output.box_deltas) = (tensor(vec![1.0; 8], 1), tensor(deltas, 4));
        let found = output.detect(&[(20.0, 200.0); 2], &ALL);
        assert_eq!(found[0], Err(NotFinite("box offsets")));
        assert!(found[1].is_ok());
    }
}
