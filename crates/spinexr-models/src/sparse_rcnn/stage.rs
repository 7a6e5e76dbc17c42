//! One stage of Sparse R-CNN: proposals look at each other, then at the image, and say what they are and where.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use spinexr_ops::{matmul, relu};

use super::StageOutput;
use super::attention::SelfAttention;
use super::interaction::DynamicInteraction;
use crate::layer_norm::LayerNorm;
use crate::linear::Linear;

/// Weights of a box's shift, along x and y, and of its growth.
const DELTA_WEIGHTS: [f64; 2] = [2.0, 1.0];
/// Largest log-scale a width or height may grow by in a stage: ln(100000 / 16).
const MAX_LOG_SCALE: f64 = 8.740_336_742_730_447;

/// The measures of a stage.
pub(super) struct StageConfig {
    pub num_classes: usize,
    pub hidden_dim: usize,
    pub attention_heads: usize,
    pub feedforward_dim: usize,
    pub dynamic_dim: usize,
    pub class_layers: usize,
    pub box_layers: usize,
    /// Bins of a pooled box.
    pub bins: usize,
}

impl StageConfig {
    pub(super) fn init(&self, device: &Device) -> Stage {
        let dim = self.hidden_dim;
        let tower = |layers: usize| (0..layers).map(|_| TowerLayer::new(dim, device)).collect();
        Stage {
            self_attn: SelfAttention::new(dim, self.attention_heads, device),
            inst_interact: DynamicInteraction::new(dim, self.dynamic_dim, self.bins, device),
            linear1: Linear::new(dim, self.feedforward_dim, device),
            linear2: Linear::new(self.feedforward_dim, dim, device),
            norm1: LayerNorm::new(dim, device),
            norm2: LayerNorm::new(dim, device),
            norm3: LayerNorm::new(dim, device),
            cls_module: tower(self.class_layers),
            reg_module: tower(self.box_layers),
            class_logits: Linear::new(dim, self.num_classes, device),
            bboxes_delta: Linear::new(dim, 4, device),
        }
    }
}

/// A stage.
#[derive(Module, Debug)]
pub struct Stage {
    /// Proposals look at each other.
    pub self_attn: SelfAttention,
    /// Each looks at the image.
    pub inst_interact: DynamicInteraction,
    /// First of two layers on each proposal.
    pub linear1: Linear,
    /// Second.
    pub linear2: Linear,
    /// After the attention.
    pub norm1: LayerNorm,
    /// After the interaction.
    pub norm2: LayerNorm,
    /// After the two layers.
    pub norm3: LayerNorm,
    /// Before the class logits.
    pub cls_module: Vec<TowerLayer>,
    /// Before the box offsets.
    pub reg_module: Vec<TowerLayer>,
    /// What.
    pub class_logits: Linear,
    /// Where, from where the box was.
    pub bboxes_delta: Linear,
}

/// A linear layer without shift, a norm and a ReLU.
#[derive(Module, Debug)]
pub struct TowerLayer {
    /// `[dim, dim]`.
    pub linear: Projection,
    /// After it.
    pub norm: LayerNorm,
}

/// A linear layer without shift.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
}

impl TowerLayer {
    fn new(dim: usize, device: &Device) -> Self {
        Self {
            linear: Projection { weight: Param::from_tensor(Tensor::zeros([dim, dim], device)) },
            norm: LayerNorm::new(dim, device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        relu(self.norm.forward(matmul(x, self.linear.weight.val().transpose())))
    }
}

impl Stage {
    /// # Shapes
    /// - `pooled`: `[N * P, hidden, bins, bins]`
    /// - `boxes`: `[N, P, 4]`, where the proposals are, input pixels
    /// - `features`: `[N * P, hidden]`
    pub fn forward(&self, pooled: Tensor<4>, boxes: Tensor<3>, features: Tensor<2>) -> StageOutput {
        let [n, p, _] = boxes.dims();
        let [r, hidden, rows, cols] = pooled.dims();
        let pooled = pooled.reshape([r, hidden, rows * cols]);
        let features = self.norm1.forward(features.clone() + self.self_attn.forward(features, n));
        let seen = self.inst_interact.forward(features.clone(), pooled, |_, _| {});
        let features = self.feed_forward(self.norm2.forward(features + seen));

        let through = |tower: &[TowerLayer]| tower.iter().fold(features.clone(), |x, layer| layer.forward(x));
        let logits = self.class_logits.forward(through(&self.cls_module)); // [N * P, K]
        let deltas = self.bboxes_delta.forward(through(&self.reg_module)); // [N * P, 4]
        let [_, k] = logits.dims();
        StageOutput {
            class_logits: logits.reshape([n, p, k]),
            boxes: moved(boxes.reshape([r, 4]), deltas).reshape([n, p, 4]),
            features,
        }
    }

    /// The two layers on each proposal, and the norm after them. `[R, hidden]` -> the same
    pub fn feed_forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.norm3.forward(x.clone() + self.linear2.forward(relu(self.linear1.forward(x))))
    }
}

/// Where `deltas` lead from `boxes`, both `[R, 4]`.
fn moved(boxes: Tensor<2>, deltas: Tensor<2>) -> Tensor<2> {
    let (first, last) = (boxes.clone().narrow(1, 0, 2), boxes.narrow(1, 2, 2)); // [R, 2]: x and y
    let size = last - first.clone();
    let centre = first + size.clone().mul_scalar(0.5);
    let [shift_weight, growth_weight] = DELTA_WEIGHTS;
    let shift = deltas.clone().narrow(1, 0, 2).div_scalar(shift_weight) * size.clone();
    let growth = deltas.narrow(1, 2, 2).div_scalar(growth_weight).clamp_max(MAX_LOG_SCALE).exp();
    let (centre, half) = (shift + centre, (growth * size).mul_scalar(0.5));
    Tensor::cat(vec![centre.clone() - half.clone(), centre + half], 1)
}
