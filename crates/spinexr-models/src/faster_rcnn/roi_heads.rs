//! The second stage: from the features of a box to its class and a better box.
//!
//! Reference: `torchvision.models.detection.roi_heads.RoIHeads` with `TwoMLPHead` and `FastRCNNPredictor`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use spinexr_ops::relu;

use super::sampler::SamplerConfig;
use crate::box_coder::BoxCoder;
use crate::linear::Linear;
use crate::matcher::MatcherConfig;
use crate::roi_pooler::RoiPooler;

/// The measures of the second stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoiConfig {
    /// Maps that boxes are pooled from, finest first: 4 for P2–P5.
    pub pooled_levels: usize,
    /// Bins of a pooled box along each axis.
    pub bins: usize,
    /// Samples of a bin along each axis; 0 takes as many as it has pixels.
    pub sampling_ratio: usize,
    /// Width of the two linear layers.
    pub hidden: usize,
    /// Which proposals answer for a true box.
    pub matcher: MatcherConfig,
    /// Which of them take part in the loss.
    pub sampler: SamplerConfig,
}

/// How boxes are encoded relative to proposals.
pub(super) const BOX_CODER: BoxCoder = BoxCoder { weights: [10.0, 10.0, 5.0, 5.0] };

impl RoiConfig {
    /// torchvision's.
    pub fn published() -> Self {
        Self {
            pooled_levels: 4,
            bins: 7,
            sampling_ratio: 2,
            hidden: 1024,
            matcher: MatcherConfig { foreground_iou: 0.5, background_iou: 0.5, low_quality_matches: false },
            sampler: SamplerConfig { per_image: 512, foreground_share: 0.25 },
        }
    }

    pub(super) fn build(&self, channels: usize, num_classes: usize, device: &Device) -> RoiHeads {
        let linear = |from, to| Linear::new(from, to, device);
        let outputs = 1 + num_classes;
        RoiHeads {
            box_head: BoxHead {
                fc6: linear(channels * self.bins * self.bins, self.hidden),
                fc7: linear(self.hidden, self.hidden),
            },
            box_predictor: BoxPredictor {
                cls_score: linear(self.hidden, outputs),
                bbox_pred: linear(self.hidden, outputs * 4),
            },
        }
    }

    /// How boxes are pooled from maps of which the first is `finest_level`.
    pub(super) fn pooler(&self, finest_level: usize) -> RoiPooler {
        RoiPooler::torchvision(self.bins, self.sampling_ratio, finest_level as u32)
    }
}

/// The second stage.
#[derive(Module, Debug)]
pub struct RoiHeads {
    /// From pooled features to a vector.
    pub box_head: BoxHead,
    /// From the vector to class and box.
    pub box_predictor: BoxPredictor,
}

/// Two linear layers.
#[derive(Module, Debug)]
pub struct BoxHead {
    /// From all bins and channels.
    pub fc6: Linear,
    /// To as many features.
    pub fc7: Linear,
}

/// Class and box of a vector.
#[derive(Module, Debug)]
pub struct BoxPredictor {
    /// To `1 + K` logits, background first.
    pub cls_score: Linear,
    /// To offsets for each of them; those of the background mean nothing.
    pub bbox_pred: Linear,
}

/// What the second stage says about R boxes: K classes and the background.
#[derive(Debug, Clone)]
pub struct RoiOutput {
    /// `[R, 1 + K]`, logits of a softmax, background first.
    pub class_logits: Tensor<2>,
    /// `[R, (1 + K) * 4]`, for each class offsets `dx, dy, dw, dh` from the proposal, ten and five times as large as
    /// those of the first stage.
    pub box_deltas: Tensor<2>,
}

impl BoxHead {
    /// # Shapes
    /// `features`: `[R, C, bins, bins]` → `[R, hidden]`
    pub fn forward(&self, features: Tensor<4>) -> Tensor<2> {
        let [r, c, h, w] = features.dims();
        let x = features.reshape([r, c * h * w]);
        relu(self.fc7.forward(relu(self.fc6.forward(x))))
    }
}

impl RoiHeads {
    /// # Shapes
    /// `features`: `[R, C, bins, bins]`, R at least 1
    pub fn forward(&self, features: Tensor<4>) -> RoiOutput {
        let x = self.box_head.forward(features);
        RoiOutput {
            class_logits: self.box_predictor.cls_score.forward(x.clone()),
            box_deltas: self.box_predictor.bbox_pred.forward(x),
        }
    }
}
