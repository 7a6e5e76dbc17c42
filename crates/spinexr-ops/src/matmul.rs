//! The matrix product, in the [`precision`] of the training step.

use burn::tensor::{FloatDType, Tensor};

use crate::precision;

/// `a b`.
///
/// # Shapes
/// - `a`: `[.., M, K]`, `b`: `[.., K, N]` -> `[.., M, N]`; leading dimensions are equal or 1.
///
/// # Panics
/// When the shapes do not agree.
pub fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    if !precision::is_bf16(&a.device()) {
        return a.matmul(b);
    }
    precision::rounded(a).matmul(precision::rounded(b)).cast(FloatDType::F32)
}
