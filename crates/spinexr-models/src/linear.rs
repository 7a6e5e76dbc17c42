//! A linear layer whose weight is stored as PyTorch does, `[out, in]`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use spinexr_ops::{Conv2d, matmul};

/// `x Wᵀ + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// A layer of zeros; the network's scheme gives it its first weights.
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::zeros([outputs, inputs], device)),
            bias: Param::from_tensor(Tensor::zeros([outputs], device)),
        }
    }

    /// # Shapes
    /// `x`: `[N, in]` → `[N, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        matmul(x, self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}

/// A linear layer that is only run, on one row at a time.
#[derive(Debug)]
pub(crate) struct PreparedLinear {
    /// `[out, in]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl PreparedLinear {
    pub(crate) fn new(layer: &Linear) -> Self {
        let read = |data: burn::tensor::TensorData| data.iter::<f32>().collect();
        Self { weight: read(layer.weight.val().into_data()), bias: read(layer.bias.val().into_data()) }
    }

    /// A 1×1 convolution with a bias, of one pixel.
    pub(crate) fn of_conv(conv: &Conv2d) -> Self {
        let read = |data: burn::tensor::TensorData| data.iter::<f32>().collect();
        let bias = conv
            .bias
            .as_ref()
            .map_or_else(|| vec![0.0; conv.weight.val().dims()[0]], |bias| read(bias.val().into_data()));
        Self { weight: read(conv.weight.val().into_data()), bias }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.bias.len()
    }

    // x: [in] -> [out]
    pub(crate) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(x.len());
        // In f64: a thousand products cost nothing, and the sum is rounded once.
        let sum = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
        rows.zip(&self.bias).map(|(row, bias)| (sum(row) + f64::from(*bias)) as f32).collect()
    }
}
