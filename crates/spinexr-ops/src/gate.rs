//! A factor for each channel of each film: squeeze-and-excitation, weighted sums of maps, dropped paths.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::backend::FilmOps;
use crate::precision;

/// `x * gate`, each plane by its own factor, with both gradients in one pass.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`; the output has the same
/// - `gate`: `[N, C, 1, 1]`
///
/// # Panics
/// When `gate` has another shape.
pub fn channel_gate(x: Tensor<4>, gate: Tensor<4>) -> Tensor<4> {
    let [n, c, _, _] = x.dims();
    assert_eq!(gate.dims(), [n, c, 1, 1], "channel gate for {:?}", x.dims());
    let (x, gate) = (precision::rounded(x).into_dispatch(), gate.into_dispatch());
    Tensor::from_dispatch(<Dispatch as FilmOps>::op_channel_gate(x, gate))
}
