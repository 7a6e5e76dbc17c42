//! Layer normalisation (Ba et al., arXiv 1607.06450) with the state names of `torch.nn.LayerNorm`.

use burn::module::{Module, Param};
use burn::tensor::module::layer_norm;
use burn::tensor::{Device, Tensor};

/// Added to the variance before the square root.
const EPSILON: f64 = 1e-5;

/// Normalisation over the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[features]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[features]`.
    pub bias: Param<Tensor<1>>,
}

impl LayerNorm {
    /// A layer with scale 1 and shift 0.
    pub fn new(features: usize, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::ones([features], device)),
            bias: Param::from_tensor(Tensor::zeros([features], device)),
        }
    }

    /// # Shapes
    /// `x`: `[..., features]`; the output has the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.weight.val(), Some(self.bias.val()), EPSILON)
    }
}
