//! The four losses of Faster R-CNN: of each stage one for what and one for where.
//!
//! Reference: `torchvision.models.detection` (`RegionProposalNetwork.compute_loss`, `fastrcnn_loss`). The first stage
//! has binary cross-entropy of the sampled anchors and smooth L1 of the foreground ones, the second cross-entropy of
//! the sampled proposals and smooth L1 of the offsets of the true class; all are divided by the number of samples in
//! the batch. The true boxes are proposals too. Matching and sampling run on the host, one film a thread.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;
use spinexr_core::BoxXyxy;
use spinexr_ops::ranks;

use super::roi_heads::{BOX_CODER, RoiOutput};
use super::rpn::{Proposal, RpnOutput};
use super::sampler::{Sample, SampleOrder};
use super::{FasterRcnn, FasterRcnnConfig};
use crate::box_coder::BoxCoder;
use crate::detector::{Detector, DetectorConfig, Target};
use crate::losses::{bce_with_logits, smooth_l1_loss};
use crate::matcher::Match;
use crate::retinanet::padded_input;

/// Where smooth L1 turns linear, in both stages.
const SMOOTH_L1_BETA: f64 = 1.0 / 9.0;

/// The losses of a batch, each a tensor of one value with its graph.
#[derive(Debug, Clone)]
pub struct FasterRcnnLoss {
    /// First stage: cross-entropy of the objectness.
    pub objectness: Tensor<1>,
    /// First stage: smooth L1 of the offsets; 0 without boxes.
    pub proposal_boxes: Tensor<1>,
    /// Second stage: cross-entropy of the classes.
    pub classification: Tensor<1>,
    /// Second stage: smooth L1 of the offsets; 0 without boxes.
    pub regression: Tensor<1>,
}

impl FasterRcnnLoss {
    /// Their sum.
    pub fn total(&self) -> Tensor<1> {
        self.objectness.clone()
            + self.proposal_boxes.clone()
            + self.classification.clone()
            + self.regression.clone()
    }
}

/// A proposal that takes part in training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingRoi {
    /// Input pixels.
    pub xyxy: BoxXyxy,
    /// Class (from 0) and box it answers for; `None` for background.
    pub truth: Option<(usize, BoxXyxy)>,
}

impl Detector for FasterRcnn {
    type Config = FasterRcnnConfig;

    fn config_of(config: &DetectorConfig) -> Option<&FasterRcnnConfig> {
        match config {
            DetectorConfig::FasterRcnn(config) => Some(config),
            _ => None,
        }
    }

    fn init_seeded(config: &FasterRcnnConfig, seed: u64, device: &Device) -> Self {
        config.init_seeded(seed, device)
    }

    fn losses(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        targets: &[Vec<Target>],
        draw: u64,
    ) -> Vec<(&'static str, Tensor<1>)> {
        let loss = self.loss(images, content_px, targets, SampleOrder::Drawn(draw));
        vec![
            ("objectness", loss.objectness),
            ("proposal_boxes", loss.proposal_boxes),
            ("classification", loss.classification),
            ("regression", loss.regression),
        ]
    }
}

impl FasterRcnn {
    /// Losses of a batch; an image without boxes is all background.
    ///
    /// A box without area, or with a coordinate that is not finite, is no target and is left out.
    ///
    /// # Shapes
    /// `images`: `[N, C, H, W]`, normalised, any H and W from 1; `content_px`: height and width of each without
    /// padding
    ///
    /// # Panics
    /// When there is not one size and one list of targets for each image, or a class is not below the number of
    /// classes.
    pub fn loss(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        targets: &[Vec<Target>],
        order: SampleOrder,
    ) -> FasterRcnnLoss {
        let images = padded_input(images);
        let [n, _, height, width] = images.dims();
        assert_eq!(targets.len(), n, "one list of targets for each of {n} images");
        let maps = self.pyramid(images);
        let rpn = self.propose(&maps, (height, width));
        let (objectness, proposal_boxes) = self.proposal_loss(&rpn, targets, order);
        let proposals = rpn
            .proposals(content_px, &self.config.rpn.training)
            .into_iter()
            .map(|found| found.unwrap_or_default()) // then the first stage's loss is no number either
            .collect::<Vec<_>>();
        let rois = self.training_rois(&proposals, targets, order);
        let (classification, regression) = self.roi_loss(&maps, &rois);
        FasterRcnnLoss { objectness, proposal_boxes, classification, regression }
    }

    /// The losses of the first stage: objectness and boxes.
    ///
    /// # Panics
    /// When there is not one list of targets for each image, or a class is not below the number of classes.
    pub fn proposal_loss(
        &self,
        output: &RpnOutput,
        targets: &[Vec<Target>],
        order: SampleOrder,
    ) -> (Tensor<1>, Tensor<1>) {
        let [n, a] = output.objectness.dims();
        assert_eq!(targets.len(), n, "one list of targets for each of {n} images");
        let anchors = &output.anchors.boxes;
        let config = &self.config.rpn;
        // Of each image the sample, and the offsets of its foreground.
        let sampled: Vec<(Sample, Vec<[f32; 4]>)> = targets
            .par_iter()
            .enumerate()
            .map(|(image, targets)| {
                let (_, truth) = self.truth(targets);
                let matches = config.matcher.assign(anchors, &truth);
                let sample = config.sampler.sample(&matches, order, &format!("rpn/{image}"));
                let offsets = sample.foreground.iter().map(|&anchor| match matches[anchor] {
                    Match::Foreground(b) => BoxCoder::UNIT.encode(&truth[b], &anchors[anchor]),
                    _ => unreachable!("the foreground of a sample is foreground"),
                });
                let offsets = offsets.collect();
                (sample, offsets)
            })
            .collect();

        // Rows of [N*A, …]: the foreground of all images, then the background.
        let rows = |part: fn(&Sample) -> &Vec<usize>| -> Vec<i64> {
            let of_image = |(image, (sample, _)): (usize, &(Sample, _))| {
                part(sample).iter().map(|&anchor| (image * a + anchor) as i64).collect::<Vec<_>>()
            };
            sampled.iter().enumerate().flat_map(of_image).collect()
        };
        let foreground = rows(|sample| &sample.foreground);
        let background = rows(|sample| &sample.background);
        let wanted: Vec<f32> =
            sampled.iter().flat_map(|(_, offsets)| offsets.as_flattened().to_vec()).collect();
        let count = foreground.len() + background.len();
        // Before any return: every process that trains with this one asks.
        let divisor = ranks::count_to_divide_by(count as f64);
        if count == 0 {
            let nothing = |sum: Tensor<1>| sum.mul_scalar(0.0); // part of the graph, and a NaN is not hidden
            return (nothing(output.objectness.clone().sum()), nothing(output.box_deltas.clone().sum()));
        }

        let device = output.objectness.device();
        let labels = [vec![1.0f32; foreground.len()], vec![0.0; background.len()]].concat();
        let labels = Tensor::<1>::from_data(TensorData::new(labels, [count]), &device);
        let deltas = output.box_deltas.clone().reshape([n * a, 4]);
        let boxes = sum_of_smooth_l1(deltas, foreground.clone(), wanted).div_scalar(divisor);
        let logits = output
            .objectness
            .clone()
            .reshape([n * a])
            .select(0, indices([foreground, background].concat(), &device));
        (bce_with_logits(logits, labels, None).sum().div_scalar(divisor), boxes)
    }

    /// The proposals of each image that take part in training, true boxes among them, in the order of the proposals.
    ///
    /// # Panics
    /// When there is not one list of targets for each image, or a class is not below the number of classes.
    pub fn training_rois(
        &self,
        proposals: &[Vec<Proposal>],
        targets: &[Vec<Target>],
        order: SampleOrder,
    ) -> Vec<Vec<TrainingRoi>> {
        assert_eq!(targets.len(), proposals.len(), "one list of targets for each image");
        let config = &self.config.roi;
        proposals
            .par_iter()
            .zip(targets)
            .enumerate()
            .map(|(image, (proposals, targets))| {
                let (classes, truth) = self.truth(targets);
                let boxes: Vec<BoxXyxy> =
                    proposals.iter().map(|p| p.xyxy).chain(truth.iter().copied()).collect();
                let matches = config.matcher.assign(&boxes, &truth);
                let sample = config.sampler.sample(&matches, order, &format!("roi/{image}"));
                let answers = |index: usize| match matches[index] {
                    Match::Foreground(b) => Some((classes[b], truth[b])),
                    _ => None,
                };
                let roi = |index: usize| TrainingRoi { xyxy: boxes[index], truth: answers(index) };
                sample.all().into_iter().map(roi).collect()
            })
            .collect()
    }

    /// The losses of the second stage: classes and boxes.
    fn roi_loss(&self, maps: &[Tensor<4>], rois: &[Vec<TrainingRoi>]) -> (Tensor<1>, Tensor<1>) {
        let mut boxes: Vec<Vec<[f32; 4]>> =
            rois.iter().map(|rois| rois.iter().map(|roi| roi.xyxy.into()).collect()).collect();
        let rois: Vec<TrainingRoi> = rois.iter().flatten().copied().collect();
        if rois.is_empty() {
            // Neither a proposal nor a true box. One row that counts for nothing keeps every parameter in the graph.
            boxes[0].push([0.0, 0.0, 1.0, 1.0]);
        }
        let output = self.roi_heads.forward(self.pool(maps, &boxes));
        output.loss(&rois)
    }

    /// Classes and boxes of the targets that are boxes.
    fn truth(&self, targets: &[Target]) -> (Vec<usize>, Vec<BoxXyxy>) {
        let k = self.config.num_classes;
        let (classes, boxes): (Vec<usize>, Vec<BoxXyxy>) = targets
            .iter()
            .map(|target| (target.class, BoxXyxy::from(target.xyxy)))
            .filter(|(_, b)| b.is_proper())
            .unzip();
        if let Some(class) = classes.iter().find(|class| **class >= k) {
            panic!("target of class {class} for a network of {k} classes");
        }
        (classes, boxes)
    }
}

impl RoiOutput {
    /// Cross-entropy of the classes and smooth L1 of the boxes.
    ///
    /// `rois`: what each row should say. Rows beyond them count for nothing.
    ///
    /// # Panics
    /// When there are more of them than rows.
    pub fn loss(&self, rois: &[TrainingRoi]) -> (Tensor<1>, Tensor<1>) {
        let [r, outputs] = self.class_logits.dims();
        assert!(rois.len() <= r, "{} boxes for {r} rows", rois.len());
        let share = 1.0 / ranks::count_to_divide_by(rois.len() as f64);
        let column = |roi: &TrainingRoi| roi.truth.map_or(0, |(class, _)| 1 + class);
        let mut weights = vec![0.0f32; r * outputs];
        for (row, roi) in rois.iter().enumerate() {
            weights[row * outputs + column(roi)] = -share as f32;
        }
        let device = self.class_logits.device();
        let weights = Tensor::<2>::from_data(TensorData::new(weights, [r, outputs]), &device);
        let classification = (log_softmax(self.class_logits.clone(), 1) * weights).sum();

        let mut rows = Vec::new(); // of [R * (1 + K), 4]
        let mut wanted = Vec::new();
        for (row, roi) in rois.iter().enumerate() {
            if let Some((_, truth)) = roi.truth {
                rows.push((row * outputs + column(roi)) as i64);
                wanted.extend(BOX_CODER.encode(&truth, &roi.xyxy));
            }
        }
        let deltas = self.box_deltas.clone().reshape([r * outputs, 4]);
        (classification, sum_of_smooth_l1(deltas, rows, wanted).mul_scalar(share))
    }
}

// deltas: [B, 4]; wanted: 4 values for each of the rows
fn sum_of_smooth_l1(deltas: Tensor<2>, rows: Vec<i64>, wanted: Vec<f32>) -> Tensor<1> {
    if rows.is_empty() {
        // Zero, but part of the graph: every parameter gets a gradient, and a NaN is not hidden.
        return deltas.sum().mul_scalar(0.0);
    }
    let device = deltas.device();
    let wanted = Tensor::<2>::from_data(TensorData::new(wanted, [rows.len(), 4]), &device);
    smooth_l1_loss(deltas.select(0, indices(rows, &device)), wanted, SMOOTH_L1_BETA).sum()
}

fn indices(rows: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), device)
}
