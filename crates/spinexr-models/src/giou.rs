//! Generalised intersection over union, and the loss made of it.
//!
//! Paper: Rezatofighi et al., "Generalized Intersection over Union" (arXiv 1902.09630). References:
//! `torchvision.ops.generalized_box_iou` and `generalized_box_iou_loss`.

use burn::tensor::Tensor;
use spinexr_core::BoxXyxy;

/// IoU less the share of the smallest box around both that neither covers, in -1..=1. Two boxes without area around
/// them share nothing and leave nothing out: 0.
pub fn generalised_iou(a: &BoxXyxy, b: &BoxXyxy) -> f64 {
    let [a, b] = [a, b].map(|b| [b.x1, b.y1, b.x2, b.y2].map(f64::from));
    let area = |[x1, y1, x2, y2]: [f64; 4]| (x2 - x1) * (y2 - y1);
    let overlap = |low: usize, high: usize| (a[high].min(b[high]) - a[low].max(b[low])).max(0.0);
    let span = |low: usize, high: usize| a[high].max(b[high]) - a[low].min(b[low]);
    let shared = overlap(0, 2) * overlap(1, 3);
    let union = area(a) + area(b) - shared;
    let around = span(0, 2) * span(1, 3);
    let share = |part: f64, whole: f64| if whole == 0.0 { 0.0 } else { part / whole };
    share(shared, union) - share(around - union, around)
}

/// Added to areas before a division, px².
const LEAST_AREA: f64 = 1e-7;

/// `1 - generalised IoU` of each pair of boxes, with gradients for both.
///
/// # Shapes
/// - `a`, `b`: `[R, 4]`, `x1, y1, x2, y2`
/// - result: `[R]`, 0..=2
pub fn giou_loss(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    let [count, _] = a.dims();
    let corners = |x: Tensor<2>| (x.clone().narrow(1, 0, 2), x.narrow(1, 2, 2)); // [R, 2] each
    let area = |sides: Tensor<2>| sides.clone().narrow(1, 0, 1) * sides.narrow(1, 1, 1); // [R, 2] -> [R, 1]
    let ((a_first, a_last), (b_first, b_last)) = (corners(a), corners(b));
    let areas = area(a_last.clone() - a_first.clone()) + area(b_last.clone() - b_first.clone());
    let overlap = a_last.clone().min_pair(b_last.clone()) - a_first.clone().max_pair(b_first.clone());
    let shared = area(overlap.clamp_min(0.0));
    let around = area(a_last.max_pair(b_last) - a_first.min_pair(b_first));
    let union = areas - shared.clone();
    let iou = shared / union.clone().add_scalar(LEAST_AREA);
    let outside = (around.clone() - union) / around.add_scalar(LEAST_AREA);
    (outside - iou).add_scalar(1.0).reshape([count])
}
