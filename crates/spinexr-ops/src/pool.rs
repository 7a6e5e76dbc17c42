//! Max pooling, average pooling and global average pooling.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::backend::FilmOps;

/// Window of a pooling operation; all values in input pixels, `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPool2dOptions {
    /// Window size.
    pub kernel: [usize; 2],
    /// Step between windows.
    pub stride: [usize; 2],
    /// Padding on each side; padded positions never win.
    pub padding: [usize; 2],
}

impl MaxPool2dOptions {
    /// Output size for an `[height, width]` input (floor division, as PyTorch's default).
    ///
    /// # Panics
    /// When the window does not fit into the padded input, a kernel or stride is zero, or the padding
    /// exceeds half the window (a window would then see no pixel).
    pub fn output_size(&self, input: [usize; 2]) -> [usize; 2] {
        core::array::from_fn(|d| {
            let (kernel, stride, padding) = (self.kernel[d], self.stride[d], self.padding[d]);
            assert!(kernel > 0 && stride > 0, "pool: kernel and stride must not be zero, got {self:?}");
            assert!(padding * 2 <= kernel, "pool: padding must be at most half the kernel, got {self:?}");
            let padded = input[d] + 2 * padding;
            assert!(padded >= kernel, "pool: {self:?} does not fit an input of {input:?}");
            (padded - kernel) / stride + 1
        })
    }
}

/// Largest value of each window. Ties go to the first in row-major order.
///
/// # Shapes
/// - `x`: `[N, C, H, W]` -> `[N, C, H', W']`, see [`MaxPool2dOptions::output_size`]
///
/// # Panics
/// See [`MaxPool2dOptions::output_size`].
pub fn max_pool2d(x: Tensor<4>, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Tensor<4> {
    let options = MaxPool2dOptions { kernel, stride, padding };
    let [_, _, height, width] = x.dims();
    options.output_size([height, width]);
    Tensor::from_dispatch(<Dispatch as FilmOps>::op_max_pool2d(x.into_dispatch(), options))
}

/// Mean over all pixels of each channel.
///
/// # Shapes
/// - `x`: `[N, C, H, W]` -> `[N, C]`
pub fn global_avg_pool(x: Tensor<4>) -> Tensor<2> {
    let [n, c, _, _] = x.dims();
    let mean: Tensor<4> = Tensor::from_dispatch(<Dispatch as FilmOps>::op_global_avg_pool(x.into_dispatch()));
    mean.reshape([n, c]) // [N, C, 1, 1] -> [N, C]
}
