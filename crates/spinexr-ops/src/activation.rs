//! Rectified linear units, alone and after a sum (the end of a residual block), and the sigmoid one.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::backend::FilmOps;
use crate::precision;

/// `max(x, 0)`, with gradient 0 at 0 as in PyTorch. A NaN stays a NaN.
///
/// # Shapes
/// - `x`: any; the output has the same.
pub fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let mask = precision::is_bf16(&x.device());
    Tensor::from_dispatch(<Dispatch as FilmOps>::op_relu(x.into_dispatch(), mask))
}

/// `max(a + b, 0)` in one pass: the end of a residual block.
///
/// # Shapes
/// - `a`, `b`: the same shape, which is also the output's.
///
/// # Panics
/// When the shapes differ.
pub fn add_relu<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    assert_eq!(a.dims(), b.dims(), "add_relu: both terms must have one shape");
    let mask = precision::is_bf16(&a.device());
    Tensor::from_dispatch(<Dispatch as FilmOps>::op_add_relu(a.into_dispatch(), b.into_dispatch(), mask))
}

/// `x · sigmoid(x)`: the sigmoid linear unit, EfficientNet's swish. One pass forward, one backward.
///
/// # Shapes
/// - `x`: any; the output has the same.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as FilmOps>::op_silu(precision::rounded(x).into_dispatch()))
}
