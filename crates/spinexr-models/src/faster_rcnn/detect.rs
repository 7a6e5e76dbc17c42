//! From the outputs of Faster R-CNN to boxes.
//!
//! Reference: `torchvision.models.detection.roi_heads.RoIHeads.postprocess_detections`. Runs on the host, one film a
//! thread; the second stage runs film by film, since the features of a thousand proposals are large.

use burn::tensor::Tensor;
use rayon::prelude::*;
use spinexr_core::BoxXyxy;
use spinexr_core::nms::class_wise_nms;

use super::roi_heads::{BOX_CODER, RoiOutput};
use super::rpn::Proposal;
use super::{FasterRcnn, ProposalConfig};
use crate::detector::{Detect, DetectConfig, NotFinite, RawDetection};
use crate::retinanet::padded_input;
use crate::retinanet_detect::{finite, sigmoid};

/// A detection must be as wide and as high as this, px.
const MIN_SIZE_PX: f32 = 1e-2;

/// The proposals of one image and what the second stage says of them.
#[derive(Debug, Clone)]
pub struct ImageOutput {
    /// Best first; R of them.
    pub proposals: Vec<Proposal>,
    /// One row each; `None` without proposals.
    pub rois: Option<RoiOutput>,
}

impl ImageOutput {
    /// The proposal that a detection was read from; `content_px` as it was detected with.
    pub(crate) fn proposal_of(&self, detection: &RawDetection, content_px: (f32, f32)) -> Option<usize> {
        let rois = self.rois.as_ref()?;
        let read = |tensor: &Tensor<2>| tensor.clone().into_data().iter::<f32>().collect::<Vec<f32>>();
        let (logits, deltas) = (read(&rois.class_logits), read(&rois.box_deltas));
        let [_, outputs] = rois.class_logits.dims();
        let column = 1 + detection.class;
        let (height, width) = content_px;
        let rows = logits.chunks_exact(outputs).zip(deltas.chunks_exact(outputs * 4));
        self.proposals.iter().zip(rows).position(|(proposal, (logits, deltas))| {
            against_the_others(logits, column) == detection.logit
                && decoded(deltas, column, proposal).clip(width, height) == detection.xyxy
        })
    }
}

impl Detect for FasterRcnn {
    /// `config.top_k_per_level` is that of the first stage.
    fn detect(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        detect(self.forward(images, content_px, config), content_px, config)
    }
}

impl FasterRcnn {
    /// Both stages. `config.top_k_per_level` is that of the first.
    ///
    /// # Shapes
    /// `images`: `[N, C, H, W]`, normalised, any H and W from 1; `content_px`: height and width of each without
    /// padding
    ///
    /// # Panics
    /// When there is not one size for each image.
    pub fn forward(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<ImageOutput, NotFinite>> {
        let images = padded_input(images);
        let [_, _, height, width] = images.dims();
        self.of_maps(&self.pyramid(images), (height, width), content_px, config)
    }

    /// [`FasterRcnn::forward`] on the pyramid of images of `image_size` (height, width, px), padding included.
    pub(crate) fn of_maps(
        &self,
        maps: &[Tensor<4>],
        image_size: (usize, usize),
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<ImageOutput, NotFinite>> {
        let rpn = self.propose(maps, image_size);
        let limits = ProposalConfig { top_k_per_level: config.top_k_per_level, ..self.config.rpn.inference };
        let of_image = |(image, proposals): (usize, Result<Vec<Proposal>, NotFinite>)| {
            let proposals = proposals?;
            let rois = (!proposals.is_empty()).then(|| {
                let maps: Vec<_> = maps.iter().map(|map| map.clone().narrow(0, image, 1)).collect();
                let boxes = proposals.iter().map(|p| p.xyxy.into()).collect();
                self.roi_heads.forward(self.pool(&maps, &[boxes]))
            });
            Ok(ImageOutput { proposals, rois })
        };
        rpn.proposals(content_px, &limits).into_iter().enumerate().map(of_image).collect()
    }
}

/// The detections of each image, best first.
pub(crate) fn detect(
    outputs: Vec<Result<ImageOutput, NotFinite>>,
    content_px: &[(f32, f32)],
    config: &DetectConfig,
) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
    outputs
        .into_par_iter()
        .zip(content_px)
        .map(|(output, &size)| match output? {
            ImageOutput { proposals, rois: Some(rois) } => detect_one(&proposals, rois, size, config),
            ImageOutput { rois: None, .. } => Ok(Vec::new()),
        })
        .collect()
}

fn detect_one(
    proposals: &[Proposal],
    rois: RoiOutput,
    (height, width): (f32, f32),
    config: &DetectConfig,
) -> Result<Vec<RawDetection>, NotFinite> {
    const READ: &str = "the network's output is a float tensor that can be read back";
    let [_, outputs] = rois.class_logits.dims();
    let logits = rois.class_logits.try_into_vec_as::<f32>().expect(READ);
    let deltas = rois.box_deltas.try_into_vec_as::<f32>().expect(READ);
    finite(&logits, "class logits")?;
    finite(&deltas, "box offsets")?;
    let mut candidates = Vec::new();
    let rows = logits.chunks_exact(outputs).zip(deltas.chunks_exact(outputs * 4));
    for (proposal, (logits, deltas)) in proposals.iter().zip(rows) {
        // Column 0 is the background.
        for class in 0..outputs - 1 {
            let logit = against_the_others(logits, 1 + class);
            let score = sigmoid(logit);
            if score > config.score_threshold {
                let xyxy = decoded(deltas, 1 + class, proposal).clip(width, height);
                candidates.push(RawDetection { class, logit, score, xyxy });
            }
        }
    }
    // No comparison holds for a box that is not finite.
    candidates.retain(|c| c.xyxy.width() >= MIN_SIZE_PX && c.xyxy.height() >= MIN_SIZE_PX);
    let boxes: Vec<BoxXyxy> = candidates.iter().map(|c| c.xyxy).collect();
    let order: Vec<f32> = candidates.iter().map(|c| c.logit).collect();
    let classes: Vec<usize> = candidates.iter().map(|c| c.class).collect();
    let kept = class_wise_nms(&boxes, &order, &classes, config.nms_iou);
    Ok(kept.into_iter().take(config.max_detections).map(|i| candidates[i]).collect())
}

/// Where a proposal's offsets in a column lead.
fn decoded(deltas: &[f32], column: usize, proposal: &Proposal) -> BoxXyxy {
    BOX_CODER.decode([0, 1, 2, 3].map(|i| deltas[column * 4 + i]), &proposal.xyxy)
}

/// `ln(p / (1 - p))` of the softmax probability `p` of one class: its logit less `ln Σ exp` of the others'.
fn against_the_others(logits: &[f32], class: usize) -> f32 {
    let others = || logits.iter().enumerate().filter(|(i, _)| *i != class).map(|(_, z)| f64::from(*z));
    let highest = others().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = others().map(|z| (z - highest).exp()).sum();
    (f64::from(logits[class]) - highest - sum.ln()) as f32
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    use super::*;

    const ALL: DetectConfig =
        DetectConfig { score_threshold: 0.05, top_k_per_level: 10, nms_iou: 0.5, max_detections: 10 };

    /// Two classes and the background; proposals at x of 0, 1 and 50 without offsets.
    fn found(logits: [[f32; 3]; 3], config: &DetectConfig) -> Vec<RawDetection> {
        run(logits, [0.0; 36], config).unwrap()
    }

    fn run(
        logits: [[f32; 3]; 3],
        deltas: [f32; 36],
        config: &DetectConfig,
    ) -> Result<Vec<RawDetection>, NotFinite> {
        let device = Device::flex();
        let proposals: Vec<Proposal> = [0.0, 1.0, 50.0]
            .map(|x| Proposal { logit: 0.0, xyxy: BoxXyxy::new(x, 0.0, x + 10.0, 10.0) })
            .into();
        let rois = RoiOutput {
            class_logits: Tensor::from_data(TensorData::new(logits.concat(), [3, 3]), &device),
            box_deltas: Tensor::from_data(TensorData::new(deltas.to_vec(), [3, 12]), &device),
        };
        detect_one(&proposals, rois, (20.0, 55.0), config)
    }

    #[test]
    fn background_is_dropped_and_classes_are_suppressed_apart() {
        let found = found([[0.0, 3.0, 3.0], [0.0, 4.0, -9.0], [9.0, 0.0, 0.0]], &ALL);
        let seen: Vec<_> = found.iter().map(|d| (d.class, d.xyxy.x1)).collect();
        assert_eq!(seen, [(0, 1.0), (1, 0.0)]); // class 0 at 0 gives way to class 0 at 1
        assert!(found[0].score > 0.98 && found[1].score < 0.5);
    }

    #[test]
    fn the_score_is_the_softmax() {
        let found = found([[1.0, 2.0, 3.0], [9.0, 0.0, 0.0], [9.0, 0.0, 0.0]], &ALL);
        let sum = 1f32.exp() + 2f32.exp() + 3f32.exp();
        assert_eq!(found.len(), 2);
        for (detection, z) in found.iter().zip([3f32, 2.0]) {
            let p = z.exp() / sum;
            assert!((detection.score - p).abs() < 1e-6);
            assert!((detection.logit - (p / (1.0 - p)).ln()).abs() < 1e-5);
        }
    }

    #[test]
    fn a_sure_class_keeps_its_place_among_sure_ones() {
        // Softmax says 1 for both in single precision; the logits still tell them apart.
        let found = found([[0.0, 40.0, 0.0], [9.0, 0.0, 0.0], [0.0, 60.0, 0.0]], &ALL);
        assert_eq!((found[0].score, found[1].score), (1.0, 1.0));
        assert_eq!((found[0].xyxy.x1, found[1].xyxy.x1), (50.0, 0.0));
        assert_eq!(found[0].xyxy.x2, 55.0, "clipped to the film");
    }

    #[test]
    fn limits_hold() {
        let logits = [[0.0, 3.0, -9.0], [9.0, 0.0, 0.0], [0.0, 2.0, -9.0]];
        assert_eq!(found(logits, &ALL).len(), 2);
        assert_eq!(found(logits, &DetectConfig { max_detections: 1, ..ALL }).len(), 1);
        assert_eq!(found(logits, &DetectConfig { score_threshold: 0.9, ..ALL }).len(), 1);
    }

    #[test]
    fn what_is_not_finite_is_said() {
        let logits = [[0.0, 3.0, -9.0]; 3];
        let mut deltas = [0.0; 36];
        let error = run([[0.0, f32::NAN, 0.0]; 3], deltas, &ALL).unwrap_err();
        assert_eq!(error.to_string(), "the network's class logits are not finite");
        deltas[30] = f32::INFINITY;
        let error = run(logits, deltas, &ALL).unwrap_err();
        assert_eq!(error.to_string(), "the network's box offsets are not finite");
        deltas[30] = 0.0;
        deltas[4] = 3e38; // of class 0 at proposal 0: finite, and its box is not
        assert!(run(logits, deltas, &ALL).unwrap().iter().all(|d| d.xyxy.is_finite()));
    }

    proptest! {
        #[test]
        fn the_logit_is_that_of_the_probability(z in prop::collection::vec(-8.0f32..8.0, 2..9), class in 0usize..9) {
            let class = class % z.len();
            let sum: f64 = z.iter().map(|z| f64::from(*z).exp()).sum();
            let p = f64::from(z[class]).exp() / sum;
            let logit = against_the_others(&z, class);
            prop_assert!((f64::from(logit) - (p / (1.0 - p)).ln()).abs() < 1e-5);
        }
    }
}
