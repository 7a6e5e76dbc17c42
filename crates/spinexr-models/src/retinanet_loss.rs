//! The losses of RetinaNet: focal for every anchor that is not ignored, L1 for the offsets of the foreground
//! ones; both are divided by an image's foreground anchors (at least 1), then by the number of images.
//!
//! Reference: `torchvision.models.detection.retinanet` (`RetinaNetClassificationHead.compute_loss`,
//! `RetinaNetRegressionHead.compute_loss`). Matching runs on the host, one film a thread.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use spinexr_core::BoxXyxy;

use crate::box_coder::BoxCoder;
use crate::detector::{Detector, DetectorConfig, Target};
use crate::losses::{focal_terms, smooth_l1_loss};
use crate::matcher::Match;
use crate::retinanet::{RetinaNet, RetinaNetConfig, RetinaNetOutput};

/// The loss of the offsets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RegressionLoss {
    /// The sum of absolute differences, torchvision's default.
    L1,
    /// Quadratic below `beta`.
    SmoothL1 {
        /// Where it turns linear.
        beta: f64,
    },
}

/// Parameters of the losses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// Weight of the foreground in the focal loss; the background has one minus it.
    pub focal_alpha: f64,
    /// How far the focal loss turns away from easy anchors.
    pub focal_gamma: f64,
    /// The loss of the offsets.
    pub regression: RegressionLoss,
}

impl LossConfig {
    /// α 0.25, γ 2, L1.
    pub const RETINANET: Self = Self { focal_alpha: 0.25, focal_gamma: 2.0, regression: RegressionLoss::L1 };
}

/// The two losses of a batch, each a tensor of one value with its graph.
#[derive(Debug, Clone)]
pub struct RetinaNetLoss {
    /// Focal loss of the class logits.
    pub classification: Tensor<1>,
    /// L1 loss of the offsets; 0 without boxes.
    pub regression: Tensor<1>,
    /// Foreground anchors in the batch.
    pub foreground: usize,
}

impl RetinaNetLoss {
    /// Their sum.
    pub fn total(&self) -> Tensor<1> {
        self.classification.clone() + self.regression.clone()
    }
}

/// What matching says about one image.
struct Assigned {
    /// `[A, K]`: -1 where the anchor shows the class, 1 elsewhere.
    sign: Vec<f32>,
    /// `[A, K]`: weight in the loss.
    weight: Vec<f32>,
    /// Foreground anchors with their offsets.
    foreground: Vec<(usize, [f32; 4])>,
}

impl Detector for RetinaNet {
    type Config = RetinaNetConfig;

    fn config_of(config: &DetectorConfig) -> Option<&RetinaNetConfig> {
        match config {
            DetectorConfig::RetinaNet(config) => Some(config),
            _ => None,
        }
    }

    fn init_seeded(config: &RetinaNetConfig, seed: u64, device: &Device) -> Self {
        config.init_seeded(seed, device)
    }

    fn losses(
        &self,
        images: Tensor<4>,
        _content_px: &[(f32, f32)],
        targets: &[Vec<Target>],
        _draw: u64,
    ) -> Vec<(&'static str, Tensor<1>)> {
        let loss = self.loss(&self.forward(images), targets);
        vec![("classification", loss.classification), ("regression", loss.regression)]
    }
}

impl RetinaNet {
    /// Losses of a batch; an image without boxes is all background.
    ///
    /// A box without area, or with a coordinate that is not finite, is no target and is left out.
    ///
    /// # Panics
    /// When there is not one list of targets for each image, or a class is not below the number of classes.
    pub fn loss(&self, output: &RetinaNetOutput, targets: &[Vec<Target>]) -> RetinaNetLoss {
        let [n, a, k] = output.class_logits.dims();
        assert_eq!(targets.len(), n, "one list of targets for each of {n} images");
        let assigned: Vec<Assigned> =
            targets.par_iter().map(|boxes| self.assign(&output.anchors.boxes, boxes, n, k)).collect();

        let device = output.class_logits.device();
        let gather = |part: fn(&Assigned) -> &Vec<f32>| {
            let mut values = Vec::with_capacity(n * a * k);
            assigned.iter().for_each(|image| values.extend_from_slice(part(image)));
            Tensor::<3>::from_data(TensorData::new(values, [n, a, k]), &device)
        };
        let (sign, weight) = (gather(|image| &image.sign), gather(|image| &image.weight));
        let wrong = output.class_logits.clone() * sign;
        let focal = focal_terms(wrong, self.config.loss.focal_gamma);
        let classification = (focal * weight).sum();

        let foreground = assigned.iter().map(|image| image.foreground.len()).sum();
        let regression = self.regression_loss(output, &assigned, foreground);
        RetinaNetLoss { classification, regression, foreground }
    }

    fn assign(&self, anchors: &[BoxXyxy], targets: &[Target], n: usize, k: usize) -> Assigned {
        let (classes, truth): (Vec<usize>, Vec<BoxXyxy>) = targets
            .iter()
            .map(|target| (target.class, BoxXyxy::from(target.xyxy)))
            .filter(|(_, b)| b.is_proper())
            .unzip();
        if let Some(class) = classes.iter().find(|class| **class >= k) {
            panic!("target of class {class} for a network of {k} classes");
        }
        let matches = self.config.matcher.assign(anchors, &truth);
        let mut foreground = Vec::new();
        for (index, (found, anchor)) in matches.iter().zip(anchors).enumerate() {
            if let Match::Foreground(b) = found {
                foreground.push((index, BoxCoder::UNIT.encode(&truth[*b], anchor)));
            }
        }
        let share = 1.0 / (foreground.len().max(1) * n) as f64;
        let alpha = self.config.loss.focal_alpha;
        let (for_zero, for_one) = match alpha {
            alpha if alpha < 0.0 => (share as f32, share as f32),
            alpha => ((share * (1.0 - alpha)) as f32, (share * alpha) as f32),
        };
        let mut sign = vec![1.0; anchors.len() * k];
        let mut weight = vec![for_zero; anchors.len() * k];
        for (index, found) in matches.iter().enumerate() {
            match found {
                Match::Foreground(b) => {
                    sign[index * k + classes[*b]] = -1.0;
                    weight[index * k + classes[*b]] = for_one;
                }
                Match::Ignored => weight[index * k..(index + 1) * k].fill(0.0),
                Match::Background => {}
            }
        }
        Assigned { sign, weight, foreground }
    }

    fn regression_loss(
        &self,
        output: &RetinaNetOutput,
        assigned: &[Assigned],
        foreground: usize,
    ) -> Tensor<1> {
        let [n, a, _] = output.box_deltas.dims();
        let device = output.box_deltas.device();
        if foreground == 0 {
            // Zero, but part of the graph: every parameter gets a gradient, and a NaN is not hidden.
            return output.box_deltas.clone().sum().mul_scalar(0.0);
        }
        let mut rows = Vec::with_capacity(foreground); // into [N*A, 4]
        let mut wanted = Vec::with_capacity(foreground * 4);
        let mut share = Vec::with_capacity(foreground);
        for (image, assigned) in assigned.iter().enumerate() {
            for (anchor, deltas) in &assigned.foreground {
                rows.push((image * a + anchor) as i64);
                wanted.extend_from_slice(deltas);
                share.push((1.0 / (assigned.foreground.len() * n) as f64) as f32);
            }
        }
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [foreground]), &device);
        let wanted = Tensor::<2>::from_data(TensorData::new(wanted, [foreground, 4]), &device);
        let share = Tensor::<2>::from_data(TensorData::new(share, [foreground, 1]), &device);
        let predicted = output.box_deltas.clone().reshape([n * a, 4]).select(0, rows); // [F, 4]
        let beta = match self.config.loss.regression {
            RegressionLoss::L1 => 0.0,
            RegressionLoss::SmoothL1 { beta } => beta,
        };
        (smooth_l1_loss(predicted, wanted, beta) * share).sum()
    }
}
