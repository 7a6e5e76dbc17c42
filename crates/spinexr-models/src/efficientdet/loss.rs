//! Which anchors answer for which true boxes, and the losses of EfficientDet: focal for the classes of all anchors, Huber
//! for the offsets of those that answer for a box; both are divided by the number of the latter in the batch plus one.
//!
//! Reference: `effdet.loss.loss_fn` and `effdet.anchors.AnchorLabeler`. Kept from it: an offset that should be exactly 0
//! has no part in the loss. Matching runs on the host, one film a thread.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use spinexr_core::BoxXyxy;
use spinexr_ops::ranks;

use super::{EfficientDet, EfficientDetConfig, EfficientDetOutput};
use crate::box_coder::BoxCoder;
use crate::detector::{Detector, DetectorConfig, Target};
use crate::losses::{focal_terms, smooth_l1_loss};

/// Parameters of the losses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// Overlap (IoU) from which an anchor answers for a box.
    pub match_iou: f32,
    /// Weight of the foreground in the focal loss; the background has one minus it.
    pub focal_alpha: f64,
    /// How far the focal loss turns away from easy anchors.
    pub focal_gamma: f64,
    /// Where the Huber loss of an offset turns linear.
    pub huber_delta: f64,
    /// Weight of the boxes' loss beside the classes'.
    pub box_weight: f64,
}

impl LossConfig {
    /// The reference's: 0.5; α 0.25, γ 1.5; δ 0.1; 50.
    pub const PUBLISHED: Self =
        Self { match_iou: 0.5, focal_alpha: 0.25, focal_gamma: 1.5, huber_delta: 0.1, box_weight: 50.0 };
}

/// The two losses of a batch, each a tensor of one value with its graph.
#[derive(Debug, Clone)]
pub struct EfficientDetLoss {
    /// Focal loss of the class logits.
    pub classification: Tensor<1>,
    /// Huber loss of the offsets, without its weight; 0 without boxes.
    pub boxes: Tensor<1>,
    /// Anchors that answer for a box, in the batch.
    pub foreground: usize,
}

impl EfficientDetLoss {
    /// Their weighted sum.
    pub fn total(&self, config: &LossConfig) -> Tensor<1> {
        self.classification.clone() + self.boxes.clone().mul_scalar(config.box_weight)
    }
}

/// What an anchor should say that answers for a box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assigned {
    /// From 0.
    pub class: usize,
    /// `dy, dx, dh, dw` from the anchor to the box.
    pub offsets: [f32; 4],
}

impl Detector for EfficientDet {
    type Config = EfficientDetConfig;

    fn config_of(config: &DetectorConfig) -> Option<&EfficientDetConfig> {
        match config {
            DetectorConfig::EfficientDet(config) => Some(config),
            _ => None,
        }
    }

    fn init_seeded(config: &EfficientDetConfig, seed: u64, device: &Device) -> Self {
        config.init_seeded(seed, device)
    }

    fn losses(
        &self,
        images: Tensor<4>,
        _content_px: &[(f32, f32)],
        targets: &[Vec<Target>],
        draw: u64,
    ) -> Vec<(&'static str, Tensor<1>)> {
        let loss = self.loss(&self.forward_dropping(images, draw), targets);
        vec![
            ("classification", loss.classification),
            ("boxes", loss.boxes.mul_scalar(self.config.loss.box_weight)),
        ]
    }
}

impl LossConfig {
    /// For each anchor the box it answers for, `None` for background.
    ///
    /// An anchor answers for the box it overlaps most, the first of equals, from [`LossConfig::match_iou`] on. The best
    /// anchor of a box, the first of equals, answers for it whatever their overlap; if it is the best of several boxes,
    /// for the first. One difference to the reference: a box that overlaps no anchor claims none, and not the first.
    ///
    /// Boxes must be proper.
    pub fn assign(&self, anchors: &[BoxXyxy], targets: &[Target]) -> Vec<Option<Assigned>> {
        let mut best: Vec<(f32, usize)> = vec![(0.0, 0); anchors.len()];
        let mut claimed: Vec<Option<usize>> = vec![None; anchors.len()];
        let boxes: Vec<BoxXyxy> = targets.iter().map(|target| target.xyxy.into()).collect();
        for (index, truth) in boxes.iter().enumerate() {
            let (mut highest, mut leader) = (0.0, None);
            for (a, anchor) in anchors.iter().enumerate() {
                let iou = truth.iou(anchor);
                if iou > best[a].0 {
                    best[a] = (iou, index);
                }
                if iou > highest {
                    (highest, leader) = (iou, Some(a));
                }
            }
            if let Some(a) = leader {
                claimed[a] = claimed[a].or(Some(index));
            }
        }
        let answer = |a: usize| {
            let (iou, index) = best[a];
            let index = claimed[a].or((iou >= self.match_iou && iou > 0.0).then_some(index))?;
            let [dx, dy, dw, dh] = BoxCoder::UNIT.encode(&boxes[index], &anchors[a]);
            Some(Assigned { class: targets[index].class, offsets: [dy, dx, dh, dw] })
        };
        (0..anchors.len()).map(answer).collect()
    }
}

impl EfficientDet {
    /// Losses of a batch; an image without boxes is all background.
    ///
    /// A box without area, or with a coordinate that is not finite, is no target and is left out.
    ///
    /// # Panics
    /// When there is not one list of targets for each image, or a class is not below the number of classes.
    pub fn loss(&self, output: &EfficientDetOutput, targets: &[Vec<Target>]) -> EfficientDetLoss {
        let [n, a, k] = output.class_logits.dims();
        assert_eq!(targets.len(), n, "one list of targets for each of {n} images");
        let config = &self.config.loss;
        let assigned: Vec<Vec<Option<Assigned>>> = targets
            .par_iter()
            .map(|boxes| {
                let proper = |target: &&Target| BoxXyxy::from(target.xyxy).is_proper();
                let boxes: Vec<Target> = boxes.iter().filter(proper).copied().collect();
                if let Some(target) = boxes.iter().find(|target| target.class >= k) {
                    panic!("target of class {} for a network of {k} classes", target.class);
                }
                config.assign(&output.anchors.boxes, &boxes)
            })
            .collect();
        // Row in [N * A] and what its anchor should say.
        let foreground: Vec<(usize, Assigned)> = assigned
            .iter()
            .flatten()
            .enumerate()
            .filter_map(|(row, assigned)| assigned.map(|assigned| (row, assigned)))
            .collect();
        // One more than there are, counted over all processes that train together.
        let one = 1.0 / ranks::size() as f64;
        let share = 1.0 / ranks::count_to_divide_by(foreground.len() as f64 + one);

        let mut sign = vec![1.0f32; n * a * k]; // of the logit, so that a positive one is wrong
        let mut weight = vec![(share * (1.0 - config.focal_alpha)) as f32; n * a * k];
        for (row, assigned) in &foreground {
            sign[row * k + assigned.class] = -1.0;
            weight[row * k + assigned.class] = (share * config.focal_alpha) as f32;
        }
        let device = output.class_logits.device();
        let tensor = |values| Tensor::<3>::from_data(TensorData::new(values, [n, a, k]), &device);
        let wrong = output.class_logits.clone() * tensor(sign);
        let classification = (focal_terms(wrong, config.focal_gamma) * tensor(weight)).sum();
        let boxes = box_loss(output, &foreground, config.huber_delta, share);
        EfficientDetLoss { classification, boxes, foreground: foreground.len() }
    }
}

fn box_loss(
    output: &EfficientDetOutput,
    foreground: &[(usize, Assigned)],
    delta: f64,
    share: f64,
) -> Tensor<1> {
    let [n, a, _] = output.box_offsets.dims();
    if foreground.is_empty() {
        // Zero, but part of the graph: every parameter gets a gradient, and a NaN is not hidden.
        return output.box_offsets.clone().sum().mul_scalar(0.0);
    }
    let device = output.box_offsets.device();
    let count = foreground.len();
    let rows = foreground.iter().map(|(row, _)| *row as i64).collect::<Vec<_>>();
    let wanted: Vec<f32> = foreground.iter().flat_map(|(_, assigned)| assigned.offsets).collect();
    // Huber's loss is delta times smooth L1.
    let part = (delta * share / 4.0) as f32;
    let weight: Vec<f32> = wanted.iter().map(|offset| if *offset == 0.0 { 0.0 } else { part }).collect();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device);
    let tensor = |values| Tensor::<2>::from_data(TensorData::new(values, [count, 4]), &device);
    let found = output.box_offsets.clone().reshape([n * a, 4]).select(0, rows); // [F, 4]
    (smooth_l1_loss(found, tensor(wanted), delta) * tensor(weight)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(x: f32) -> BoxXyxy {
        BoxXyxy::new(x, 0.0, x + 10.0, 10.0)
    }

    fn target(class: usize, x: f32) -> Target {
        Target { class, xyxy: column(x).into() }
    }

    fn classes(anchors: &[BoxXyxy], targets: &[Target]) -> Vec<Option<usize>> {
        let assigned = LossConfig::PUBLISHED.assign(anchors, targets);
        assigned.into_iter().map(|assigned| assigned.map(|a| a.class)).collect()
    }

    #[test]
    fn anchors_answer_from_half_an_overlap() {
        // IoU with the box at 0: 1, 0.6, 0.43, 0
        let anchors = [column(0.0), column(2.5), column(4.0), column(40.0)];
        assert_eq!(classes(&anchors, &[target(3, 0.0)]), [Some(3), Some(3), None, None]);
        assert_eq!(classes(&anchors, &[]), [None; 4]);
    }

    #[test]
    fn the_first_of_the_best_anchors_answers_for_its_box_alone() {
        assert_eq!(classes(&[column(8.0), column(8.0)], &[target(1, 0.0)]), [Some(1), None]);
        // Nearer to box 0, but the best there is for box 1, which box 0 does not need: claimed by both, the first wins.
        assert_eq!(classes(&[column(0.0)], &[target(0, 1.0), target(1, 8.0)]), [Some(0)]);
        let anchors = [column(0.0), column(3.0)];
        assert_eq!(classes(&anchors, &[target(0, 0.0), target(1, 9.0)]), [Some(0), Some(1)]);
        assert_eq!(classes(&[column(0.0)], &[target(0, 500.0)]), [None]);
    }
}
