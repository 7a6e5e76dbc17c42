//! From the outputs of EfficientDet to boxes: the best places and classes of all levels together, then suppression by
//! class.
//!
//! Reference: `effdet.bench._post_process` and `effdet.anchors.generate_detections` without soft suppression. One
//! difference: a width or height grows from its anchor's by at most a factor of 62.5, so that none is infinite. Runs on
//! the host, one film a thread.

use burn::tensor::Tensor;
use rayon::prelude::*;
use spinexr_core::BoxXyxy;
use spinexr_core::nms::class_wise_nms;

use super::{EfficientDet, EfficientDetOutput};
use crate::anchors::Anchors;
use crate::box_coder::BoxCoder;
use crate::detector::{Detect, DetectConfig, NotFinite, RawDetection};
use crate::retinanet_detect::{above, finite, sigmoid};

impl DetectConfig {
    /// The reference's: any score, the 5000 best places and classes, 0.5, 100.
    pub const EFFICIENTDET: Self =
        Self { score_threshold: 0.0, top_k_per_level: 5000, nms_iou: 0.5, max_detections: 100 };
}

impl Detect for EfficientDet {
    fn detect(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        self.forward(images).detect(content_px, config)
    }
}

impl EfficientDetOutput {
    /// The anchor that a detection of the first image was read from; `content_px` as it was detected with.
    pub(crate) fn anchor_of(&self, detection: &RawDetection, content_px: (f32, f32)) -> Option<usize> {
        let read = |tensor: &Tensor<3>| tensor.clone().into_data().iter::<f32>().collect::<Vec<f32>>();
        let [_, a, k] = self.class_logits.dims();
        let (logits, offsets) = (read(&self.class_logits), read(&self.box_offsets));
        let (height, width) = content_px;
        (0..a).find(|&anchor| {
            logits[anchor * k + detection.class] == detection.logit
                && decoded(&offsets, &self.anchors, anchor).clip(width, height) == detection.xyxy
        })
    }

    /// As [`Detect::detect`]; `top_k_per_level` holds for all levels together.
    ///
    /// # Panics
    /// When there is not one size for each image.
    pub fn detect(
        &self,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        let [n, a, k] = self.class_logits.dims();
        assert_eq!(content_px.len(), n, "one size for each of {n} images");
        let read = |tensor: &Tensor<3>| {
            let values = tensor.clone().try_into_vec_as::<f32>();
            values.expect("the network's output is a float tensor that can be read back")
        };
        let (logits, offsets) = (read(&self.class_logits), read(&self.box_offsets));
        if a == 0 || k == 0 {
            return vec![Ok(Vec::new()); n];
        }
        logits
            .par_chunks(a * k)
            .zip(offsets.par_chunks(a * 4))
            .zip(content_px)
            .map(|((logits, offsets), &size)| {
                finite(logits, "class logits")?;
                finite(offsets, "box offsets")?;
                Ok(detect_one(logits, offsets, k, &self.anchors, size, config))
            })
            .collect()
    }
}

fn detect_one(
    logits: &[f32],
    offsets: &[f32],
    k: usize,
    anchors: &Anchors,
    (height, width): (f32, f32),
    config: &DetectConfig,
) -> Vec<RawDetection> {
    let mut best = above(logits, config.score_threshold);
    // Best first, of equals the first.
    let order = |x: &(usize, f32), y: &(usize, f32)| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0));
    let count = config.top_k_per_level;
    if count < best.len() {
        best.select_nth_unstable_by(count, order);
        best.truncate(count);
    }
    best.sort_unstable_by(order);
    let candidates: Vec<RawDetection> = best
        .into_iter()
        .map(|(index, logit)| {
            let anchor = index / k;
            let xyxy = decoded(offsets, anchors, anchor).clip(width, height);
            RawDetection { class: index % k, logit, score: sigmoid(logit), xyxy }
        })
        .filter(|candidate| candidate.xyxy.is_finite())
        .collect();
    let boxes: Vec<BoxXyxy> = candidates.iter().map(|c| c.xyxy).collect();
    let scores: Vec<f32> = candidates.iter().map(|c| c.logit).collect();
    let classes: Vec<usize> = candidates.iter().map(|c| c.class).collect();
    let kept = class_wise_nms(&boxes, &scores, &classes, config.nms_iou);
    kept.into_iter().take(config.max_detections).map(|i| candidates[i]).collect()
}

/// Where an anchor's offsets lead.
fn decoded(offsets: &[f32], anchors: &Anchors, anchor: usize) -> BoxXyxy {
    let [dy, dx, dh, dw] = [0, 1, 2, 3].map(|i| offsets[anchor * 4 + i]);
    BoxCoder::UNIT.decode([dx, dy, dw, dh], &anchors.boxes[anchor])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_all_levels_are_kept_and_clipped() {
        let boxes = [0.0, 40.0, 80.0].map(|x| BoxXyxy::new(x, 0.0, x + 20.0, 20.0)).to_vec();
        let anchors = Anchors { boxes, per_level: vec![2, 1] };
        let logits = [-1.0, 2.0, 0.5, -3.0, 1.0, -9.0]; // two classes
        let mut offsets = [0.0; 12];
        offsets[8] = 0.5; // the third box half its height down
        let two = DetectConfig { top_k_per_level: 2, ..DetectConfig::EFFICIENTDET };
        let found = detect_one(&logits, &offsets, 2, &anchors, (25.0, 90.0), &two);
        let summary: Vec<_> = found.iter().map(|d| (d.class, d.logit, d.xyxy)).collect();
        let wanted =
            [(1, 2.0, BoxXyxy::new(0.0, 0.0, 20.0, 20.0)), (0, 1.0, BoxXyxy::new(80.0, 10.0, 90.0, 25.0))];
        assert_eq!(summary, wanted);
        let all = detect_one(&logits, &offsets, 2, &anchors, (25.0, 90.0), &DetectConfig::EFFICIENTDET);
        assert_eq!(all.len(), 6);
    }
}
