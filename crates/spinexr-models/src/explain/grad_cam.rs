//! Grad-CAM of the last map, Selvaraju et al. (arXiv 1610.02391), equation 2.
//!
//! A channel weighs by the mean over all places of the logit's gradient; the map is the positive part of the weighted
//! sum. With average pooling the sum over all places before the positive part is taken is the logit without its bias.

use burn::tensor::Tensor;

use super::{EvidenceMap, read};
use crate::densenet::DenseNet;

/// Grad-CAM of the logit `class` for each image, at the resolution of the last map (a thirty-second of the image).
///
/// # Shapes
/// `images`: `[N, C, H, W]`, normalised, on an autodiff device as the network is ([`super::for_explaining`])
///
/// # Panics
/// When the network or the images are not on an autodiff device, or `class` is not one of its outputs.
pub fn grad_cam(network: &DenseNet, images: Tensor<4>, class: usize) -> Vec<EvidenceMap> {
    let [n, _, height, width] = images.dims();
    let map = network.features(images).detach().require_grad(); // [N, F, h, w]
    let logits = network.classify(map.clone()); // [N, K]
    // Films do not mix in evaluation: the gradient of the sum is each film's own.
    let gradients = logits.narrow(1, class, 1).sum().backward();
    let gradient = map.grad(&gradients).expect("the logits depend on the map");
    let weights = gradient.mean_dim(3).mean_dim(2); // [N, F, 1, 1]
    let evidence = (map.inner() * weights).sum_dim(1).clamp_min(0.0); // [N, 1, h, w]
    let [_, _, h, w] = evidence.dims();
    let covers_px = (height as f32, width as f32);
    let values = read(evidence);
    values
        .chunks(h * w)
        .take(n)
        .map(|v| EvidenceMap { height: h, width: w, values: v.to_vec(), covers_px })
        .collect()
}
