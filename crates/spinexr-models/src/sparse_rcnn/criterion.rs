//! Matching of proposals to true boxes, and the losses of the matched.
//!
//! Section 3.3 of the paper, after DETR (arXiv 2005.12872). Every stage is matched and judged by itself: each true box
//! gets the one proposal that makes the whole matching cheapest; the focal loss is of every proposal and class, the L1
//! and GIoU losses are of the matched boxes; all are divided by the number of true boxes in the batch, at least 1.
//! Matching runs on the host, one film and stage a thread.

use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use spinexr_core::BoxXyxy;
use spinexr_ops::ranks;

use super::{SparseRcnn, SparseRcnnOutput, StageOutput, boxes_by_image};
use crate::assignment::cheapest_assignment;
use crate::detector::Target;
use crate::giou::{generalised_iou, giou_loss};
use crate::losses::focal_terms;

/// Parameters of matching and losses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriterionConfig {
    /// Weight of the focal loss, in matching as well.
    pub class_weight: f64,
    /// Weight of the L1 loss of boxes in shares of the image, in matching as well.
    pub l1_weight: f64,
    /// Weight of the GIoU loss, in matching as well.
    pub giou_weight: f64,
    /// Weight of a finding in the focal loss; the background has one minus it.
    pub focal_alpha: f64,
    /// How far the focal loss turns away from easy proposals.
    pub focal_gamma: f64,
}

impl CriterionConfig {
    /// 2, 5 and 2; α 0.25, γ 2.
    pub const PUBLISHED: Self =
        Self { class_weight: 2.0, l1_weight: 5.0, giou_weight: 2.0, focal_alpha: 0.25, focal_gamma: 2.0 };
}

/// The losses of one stage, each a tensor of one value with its graph, before their weights.
#[derive(Debug, Clone)]
pub struct StageLoss {
    /// Focal loss of the class logits.
    pub classification: Tensor<1>,
    /// L1 loss of the boxes in shares of the image; 0 without boxes.
    pub l1: Tensor<1>,
    /// GIoU loss of the boxes; 0 without boxes.
    pub giou: Tensor<1>,
}

/// The losses of a batch.
#[derive(Debug, Clone)]
pub struct SparseRcnnLoss {
    /// Of every stage, first to last.
    pub stages: Vec<StageLoss>,
    /// Their weights.
    pub config: CriterionConfig,
}

impl SparseRcnnLoss {
    /// The weighted sums over the stages, by name.
    pub fn parts(&self) -> [(&'static str, Tensor<1>); 3] {
        let sum = |part: fn(&StageLoss) -> &Tensor<1>, weight: f64| {
            Tensor::cat(self.stages.iter().map(|stage| part(stage).clone()).collect(), 0)
                .sum()
                .mul_scalar(weight)
        };
        let CriterionConfig { class_weight, l1_weight, giou_weight, .. } = self.config;
        [
            ("classification", sum(|stage| &stage.classification, class_weight)),
            ("box_l1", sum(|stage| &stage.l1, l1_weight)),
            ("box_giou", sum(|stage| &stage.giou, giou_weight)),
        ]
    }

    /// The sum of all.
    pub fn total(&self) -> Tensor<1> {
        let [(_, classification), (_, l1), (_, giou)] = self.parts();
        classification + l1 + giou
    }
}

/// A true box that can be matched.
struct Truth {
    class: usize,
    xyxy: BoxXyxy,
}

impl SparseRcnn {
    /// Losses of a batch; an image without boxes is all background.
    ///
    /// A box without area, or with a coordinate that is not finite, is no target and is left out. Of more boxes than
    /// there are proposals, those that are cheapest to match get one.
    ///
    /// # Panics
    /// When there is not one list of targets for each image, or a class is not below the number of classes.
    pub fn loss(&self, output: &SparseRcnnOutput, targets: &[Vec<Target>]) -> SparseRcnnLoss {
        let truth = self.truth(output, targets);
        // Of all processes that train together, as the reference counts them.
        let boxes = ranks::count_to_divide_by(truth.iter().map(Vec::len).sum::<usize>() as f64);
        let stages = output
            .stages
            .iter()
            .map(|stage| {
                let matched = self.match_stage(stage, &truth, &output.content_px);
                self.stage_loss(stage, &truth, &matched, &output.content_px, boxes)
            })
            .collect();
        SparseRcnnLoss { stages, config: self.config.criterion }
    }

    /// For every stage and image, pairs of a proposal and the target it answers for, by proposal.
    ///
    /// # Panics
    /// As [`SparseRcnn::loss`].
    pub fn matches(
        &self,
        output: &SparseRcnnOutput,
        targets: &[Vec<Target>],
    ) -> Vec<Vec<Vec<(usize, usize)>>> {
        let truth = self.truth(output, targets);
        output.stages.iter().map(|stage| self.match_stage(stage, &truth, &output.content_px)).collect()
    }

    fn truth(&self, output: &SparseRcnnOutput, targets: &[Vec<Target>]) -> Vec<Vec<Truth>> {
        let n = output.content_px.len();
        assert_eq!(targets.len(), n, "one list of targets for each of {n} images");
        let k = self.config.num_classes;
        if let Some(target) = targets.iter().flatten().find(|target| target.class >= k) {
            panic!("target of class {} for a network of {k} classes", target.class);
        }
        let proper = |targets: &Vec<Target>| {
            targets
                .iter()
                .map(|target| Truth { class: target.class, xyxy: target.xyxy.into() })
                .filter(|truth| truth.xyxy.is_proper())
                .collect()
        };
        targets.iter().map(proper).collect()
    }

    fn match_stage(
        &self,
        stage: &StageOutput,
        truth: &[Vec<Truth>],
        content_px: &[(f32, f32)],
    ) -> Vec<Vec<(usize, usize)>> {
        let [_, p, k] = stage.class_logits.dims();
        let logits = stage
            .class_logits
            .clone()
            .try_into_vec_as::<f32>()
            .expect("the network's logits are a float tensor that can be read back");
        let boxes = boxes_by_image(&stage.boxes);
        let images = logits.par_chunks(p * k).zip(&boxes).zip(truth).zip(content_px);
        images
            .map(|(((logits, boxes), truth), &size)| {
                let costs = matching_costs(&self.config.criterion, logits, boxes, truth, size);
                cheapest_assignment(&costs, p, truth.len())
            })
            .collect()
    }

    /// The cost of every proposal for every target of an image, row-major `[P, targets]`, as [`SparseRcnn::loss`]
    /// matches them. `logits`: `[P, K]`.
    pub fn matching_costs(
        &self,
        logits: &[f32],
        boxes: &[[f32; 4]],
        targets: &[Target],
        content_px: (f32, f32),
    ) -> Vec<f64> {
        let truth: Vec<Truth> =
            targets.iter().map(|t| Truth { class: t.class, xyxy: t.xyxy.into() }).collect();
        matching_costs(&self.config.criterion, logits, boxes, &truth, content_px)
    }

    fn stage_loss(
        &self,
        stage: &StageOutput,
        truth: &[Vec<Truth>],
        matched: &[Vec<(usize, usize)>],
        content_px: &[(f32, f32)],
        boxes: f64,
    ) -> StageLoss {
        let CriterionConfig { focal_alpha, focal_gamma, .. } = self.config.criterion;
        let [n, p, k] = stage.class_logits.dims();
        let device = stage.class_logits.device();
        let (for_zero, for_one) = match focal_alpha {
            alpha if alpha < 0.0 => (1.0, 1.0),
            alpha => ((1.0 - alpha) as f32, alpha as f32),
        };
        let mut sign = vec![1.0f32; n * p * k]; // -1 where the proposal shows the class
        let mut weight = vec![for_zero; n * p * k];
        let (mut rows, mut wanted, mut scales) = (Vec::new(), Vec::new(), Vec::new());
        for (image, pairs) in matched.iter().enumerate() {
            let (height, width) = content_px[image];
            for &(proposal, target) in pairs {
                let Truth { class, xyxy } = &truth[image][target];
                let row = image * p + proposal;
                sign[row * k + class] = -1.0;
                weight[row * k + class] = for_one;
                rows.push(row as i64);
                wanted.extend_from_slice(&<[f32; 4]>::from(*xyxy));
                scales.extend_from_slice(&[width, height, width, height]);
            }
        }
        let of_logits = |values| Tensor::<3>::from_data(TensorData::new(values, [n, p, k]), &device);
        let wrong = stage.class_logits.clone() * of_logits(sign);
        let focal = focal_terms(wrong, focal_gamma) * of_logits(weight);
        let share = 1.0 / boxes;
        let classification = focal.sum().mul_scalar(share);
        if rows.is_empty() {
            // Zero, but part of the graph: every parameter gets a gradient, and a NaN is not hidden.
            let zero = stage.boxes.clone().sum().mul_scalar(0.0);
            return StageLoss { classification, l1: zero.clone(), giou: zero };
        }
        let count = rows.len();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device);
        let of_boxes = |values| Tensor::<2>::from_data(TensorData::new(values, [count, 4]), &device);
        let found = stage.boxes.clone().reshape([n * p, 4]).select(0, rows); // [M, 4]
        let (wanted, scales) = (of_boxes(wanted), of_boxes(scales));
        let distance = found.clone() / scales.clone() - wanted.clone() / scales;
        StageLoss {
            classification,
            l1: distance.abs().sum().mul_scalar(share),
            giou: giou_loss(found, wanted).sum().mul_scalar(share),
        }
    }
}

fn matching_costs(
    config: &CriterionConfig,
    logits: &[f32],
    boxes: &[[f32; 4]],
    truth: &[Truth],
    (height, width): (f32, f32),
) -> Vec<f64> {
    let k = logits.len() / boxes.len().max(1);
    let sides = [width, height, width, height].map(f64::from);
    let mut costs = Vec::with_capacity(boxes.len() * truth.len());
    for (logits, &found) in logits.chunks_exact(k.max(1)).zip(boxes) {
        for Truth { class, xyxy } in truth {
            let wanted = <[f32; 4]>::from(*xyxy);
            let l1: f64 = (0..4).map(|i| (f64::from(found[i]) - f64::from(wanted[i])).abs() / sides[i]).sum();
            costs.push(
                config.class_weight * class_cost(config, f64::from(logits[*class])) + config.l1_weight * l1
                    - config.giou_weight * generalised_iou(&found.into(), xyxy),
            );
        }
    }
    costs
}

/// What the focal loss of a logit would grow by if its class were shown: its term for 1 less its term for 0.
fn class_cost(config: &CriterionConfig, logit: f64) -> f64 {
    const LEAST: f64 = 1e-8; // the reference's guard of the logarithm
    let probability = 1.0 / (1.0 + (-logit).exp());
    let term = |p: f64| (1.0 - p).powf(config.focal_gamma) * -(p + LEAST).ln();
    let alpha = config.focal_alpha;
    alpha * term(probability) - (1.0 - alpha) * term(1.0 - probability)
}
