//! Losses of the detectors and the classifiers, from logits.
//!
//! References: `torchvision.ops.sigmoid_focal_loss`, `torch.nn.functional.smooth_l1_loss` and
//! `binary_cross_entropy_with_logits`. All are element-wise: the caller weighs and sums.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_sigmoid, sigmoid};

/// Focal loss of a binary target for each logit.
///
/// Paper: Lin et al., "Focal Loss for Dense Object Detection" (arXiv 1708.02002). With `z` the logit of being
/// wrong (`x` where the target is 0, `-x` where it is 1) the loss is `α_t · sigmoid(z)^γ · softplus(z)`.
///
/// # Shapes
/// `logits`, `targets` (exactly 0 or 1): alike, as is the result. `alpha` below 0 leaves the balance out.
pub fn sigmoid_focal_loss<const D: usize>(
    logits: Tensor<D>,
    targets: Tensor<D>,
    alpha: f64,
    gamma: f64,
) -> Tensor<D> {
    let sign = targets.clone().mul_scalar(-2.0).add_scalar(1.0);
    let loss = focal_terms(logits * sign, gamma);
    if alpha < 0.0 {
        return loss;
    }
    loss * targets.mul_scalar(2.0 * alpha - 1.0).add_scalar(1.0 - alpha)
}

/// `sigmoid(z)^γ · softplus(z)`: the unbalanced focal loss of the logit `z` of being wrong.
pub(crate) fn focal_terms<const D: usize>(z: Tensor<D>, gamma: f64) -> Tensor<D> {
    let cross_entropy = log_sigmoid(z.clone().neg()).neg(); // softplus without overflow
    if gamma == 0.0 {
        return cross_entropy;
    }
    let wrong = sigmoid(z);
    let focus = if gamma == 2.0 { wrong.clone() * wrong } else { wrong.powf_scalar(gamma) };
    cross_entropy * focus
}

/// Smooth L1 of each difference: quadratic below `beta`, linear above; plain L1 for `beta` 0.
///
/// # Shapes
/// `x`, `target`: alike, as is the result.
pub fn smooth_l1_loss<const D: usize>(x: Tensor<D>, target: Tensor<D>, beta: f64) -> Tensor<D> {
    let distance = (x - target).abs();
    if beta == 0.0 {
        return distance;
    }
    // min(d, beta)²/(2 beta) + (d - min(d, beta)) has the right value and gradient on both sides.
    let near = distance.clone().clamp_max(beta);
    near.clone().powi_scalar(2).mul_scalar(0.5 / beta) + (distance - near)
}

/// Binary cross-entropy of each logit, without overflow; `pos_weight` multiplies the loss of a target 1.
///
/// # Shapes
/// `logits`, `targets` (0..1): alike, as is the result. `pos_weight`: broadcastable to them.
pub fn bce_with_logits<const D: usize>(
    logits: Tensor<D>,
    targets: Tensor<D>,
    pos_weight: Option<Tensor<D>>,
) -> Tensor<D> {
    let if_one = log_sigmoid(logits.clone()).neg();
    let if_zero = log_sigmoid(logits.neg()).neg();
    let positive = match pos_weight {
        Some(weight) => if_one * targets.clone() * weight,
        None => if_one * targets.clone(),
    };
    positive + if_zero * targets.neg().add_scalar(1.0)
}
