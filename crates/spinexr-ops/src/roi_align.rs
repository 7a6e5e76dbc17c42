//! RoIAlign: a grid of features for each box, sampled between pixels.
//!
//! Paper: He et al., "Mask R-CNN" (arXiv 1703.06870), section 3. Reference: `torchvision.ops.roi_align`, with
//! and without `aligned`. Deviation: a box with a coordinate that is not finite gives NaN and takes no part in the
//! gradient (the reference is undefined there).

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::backend::FilmOps;

/// A box on one film of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roi {
    /// Index of the film in the batch.
    pub film: usize,
    /// `x1, y1, x2, y2` in the pixels of which [`RoiAlignOptions::spatial_scale`] speaks. May lie outside the film,
    /// be empty or inverted.
    pub xyxy: [f32; 4],
}

/// How a box is sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiAlignOptions {
    /// Bins, `[height, width]`.
    pub output_size: [usize; 2],
    /// Pixels of the map to a pixel of the boxes, such as 1/4 on a map of stride 4.
    pub spatial_scale: f32,
    /// Samples along each axis of a bin; 0 takes one for each pixel of the map that the bin is long, rounded up.
    pub sampling_ratio: usize,
    /// Whether pixel centres lie at halves, so that a box is moved by half a pixel (detectron2's `ROIAlignV2`). If
    /// not, a box is at least one pixel of the map wide and high (torchvision's `MultiScaleRoIAlign`).
    pub aligned: bool,
}

/// Mean of the bilinear samples of each bin of each box; a sample more than a pixel outside the map counts as 0.
///
/// The gradient goes to the map alone. No box gives a tensor without values.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`
/// - `rois`: R boxes
/// - result: `[R, C, output_size[0], output_size[1]]`, in the order of `rois`
///
/// # Panics
/// When a box is on a film that the batch has not, there are no bins, or the map has no pixel.
pub fn roi_align(x: Tensor<4>, rois: &[Roi], options: RoiAlignOptions) -> Tensor<4> {
    let [n, _, height, width] = x.dims();
    assert!(rois.is_empty() || height * width > 0, "RoIAlign: a map of {height}×{width} pixels");
    assert!(options.output_size.iter().all(|&bins| bins > 0), "RoIAlign: no bins in {options:?}");
    if let Some(roi) = rois.iter().find(|roi| roi.film >= n) {
        panic!("RoIAlign: {roi:?} in a batch of {n} films");
    }
    Tensor::from_dispatch(<Dispatch as FilmOps>::op_roi_align(x.into_dispatch(), Arc::from(rois), options))
}
