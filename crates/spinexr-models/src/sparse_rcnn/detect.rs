//! From the last stage's outputs to boxes: the best pairs of proposal and class, doubles suppressed.
//!
//! Reference: VinDr-SpineXR's `SparseRCNN.inference` and detectron2's `detector_postprocess`. The published Sparse
//! R-CNN needs no suppression; VinDr-SpineXR adds it, and an IoU threshold of 1 turns it off. Runs on the host, one film a
//! thread.

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;
use spinexr_core::BoxXyxy;
use spinexr_core::nms::class_wise_nms;

use super::{SparseRcnn, SparseRcnnConfig, SparseRcnnOutput};
use crate::detector::{Detect, DetectConfig, Detector, DetectorConfig, NotFinite, RawDetection, Target};
use crate::retinanet_detect::{best_above, finite, sigmoid};

impl DetectConfig {
    /// VinDr-SpineXR's for Sparse R-CNN: the best 100 pairs of proposal and class whatever their score, an IoU of 0.7.
    pub const SPARSE_RCNN: Self =
        Self { score_threshold: 0.0, top_k_per_level: 100, nms_iou: 0.7, max_detections: 100 };
}

impl Detect for SparseRcnn {
    fn detect(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        self.forward(images, content_px).detect(config)
    }
}

impl Detector for SparseRcnn {
    type Config = SparseRcnnConfig;

    fn config_of(config: &DetectorConfig) -> Option<&SparseRcnnConfig> {
        match config {
            DetectorConfig::SparseRcnn(config) => Some(config),
            _ => None,
        }
    }

    fn init_seeded(config: &SparseRcnnConfig, seed: u64, device: &Device) -> Self {
        config.init_seeded(seed, device)
    }

    /// Nothing is drawn at random.
    fn losses(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        targets: &[Vec<Target>],
        _draw: u64,
    ) -> Vec<(&'static str, Tensor<1>)> {
        self.loss(&self.forward(images, content_px), targets).parts().to_vec()
    }
}

impl SparseRcnnOutput {
    /// The proposal that a detection of the first image was read from.
    pub(crate) fn proposal_of(&self, detection: &RawDetection) -> Option<usize> {
        let (last, (height, width)) = (self.stages.last()?, *self.content_px.first()?);
        let [_, p, k] = last.class_logits.dims();
        let read = |tensor: &Tensor<3>| tensor.clone().into_data().iter::<f32>().collect::<Vec<f32>>();
        let (logits, boxes) = (read(&last.class_logits), read(&last.boxes));
        let boxes = boxes.as_chunks::<4>().0;
        (0..p).find(|&proposal| {
            logits[proposal * k + detection.class] == detection.logit
                && BoxXyxy::from(boxes[proposal]).clip(width, height) == detection.xyxy
        })
    }

    /// The detections of each image, best first, clipped to the image; [`NotFinite`] for an image with a NaN or an
    /// infinity in the last stage.
    pub fn detect(&self, config: &DetectConfig) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        let Some(last) = self.stages.last() else { return vec![Ok(Vec::new()); self.content_px.len()] };
        let [_, p, k] = last.class_logits.dims();
        let read = |tensor: &Tensor<3>| {
            let values = tensor.clone().try_into_vec_as::<f32>();
            values.expect("the network's output is a float tensor that can be read back")
        };
        let (logits, boxes) = (read(&last.class_logits), read(&last.boxes));
        let images = logits.par_chunks(p * k).zip(boxes.par_chunks(p * 4)).zip(&self.content_px);
        images
            .map(|((logits, boxes), &size)| {
                finite(logits, "class logits")?;
                finite(boxes, "boxes")?;
                Ok(detect_one(logits, boxes.as_chunks::<4>().0, size, config))
            })
            .collect()
    }
}

fn detect_one(
    logits: &[f32],
    boxes: &[[f32; 4]],
    (height, width): (f32, f32),
    config: &DetectConfig,
) -> Vec<RawDetection> {
    let k = logits.len() / boxes.len();
    let best = best_above(logits, config.score_threshold, config.top_k_per_level);
    let of = |index: usize| BoxXyxy::from(boxes[index / k]);
    let candidates: Vec<BoxXyxy> = best.iter().map(|&(index, _)| of(index)).collect();
    let order: Vec<f32> = best.iter().map(|&(_, logit)| logit).collect();
    let classes: Vec<usize> = best.iter().map(|&(index, _)| index % k).collect();
    let kept =
        class_wise_nms(&candidates, &order, &classes, config.nms_iou).into_iter().map(|i| RawDetection {
            class: classes[i],
            logit: order[i],
            score: sigmoid(order[i]),
            xyxy: candidates[i].clip(width, height),
        });
    kept.filter(|detection| detection.xyxy.is_proper()).take(config.max_detections).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: DetectConfig =
        DetectConfig { score_threshold: 0.0, top_k_per_level: 10, nms_iou: 0.5, max_detections: 10 };

    #[test]
    fn doubles_of_a_class_go_and_boxes_beside_the_image_too() {
        let boxes = [[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [50.0, 0.0, 60.0, 10.0]];
        let logits = [1.0, -1.0, 2.0, 0.5, 3.0, -2.0];
        let brief = |config: &DetectConfig| -> Vec<(usize, f32, f32)> {
            let found = detect_one(&logits, &boxes, (8.0, 40.0), config);
            found.iter().map(|d| (d.class, d.logit, d.xyxy.x2)).collect()
        };
        assert_eq!(brief(&ALL), [(0, 2.0, 11.0), (1, 0.5, 11.0)]);
        assert_eq!(brief(&DetectConfig { nms_iou: 1.0, ..ALL }).len(), 4);
        assert_eq!(brief(&DetectConfig { top_k_per_level: 2, ..ALL }), [(0, 2.0, 11.0)]);
        assert_eq!(brief(&DetectConfig { score_threshold: 0.7, ..ALL }), [(0, 2.0, 11.0)]);
        assert_eq!(brief(&DetectConfig { max_detections: 1, ..ALL }), [(0, 2.0, 11.0)]);
    }
}
