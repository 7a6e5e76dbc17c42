//! Nearest-neighbour upsampling to a given size (feature pyramids).

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::backend::FilmOps;

/// Nearest-neighbour resize of each channel to `size` = `[height, width]`.
///
/// Output row `r` takes input row `floor(r * (H / size[0]))` with the ratio in f32, as
/// `torch.nn.functional.interpolate(mode="nearest")` does.
///
/// # Shapes
/// - `x`: `[N, C, H, W]` -> `[N, C, size[0], size[1]]`
pub fn upsample_nearest(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as FilmOps>::op_upsample_nearest(x.into_dispatch(), size))
}
