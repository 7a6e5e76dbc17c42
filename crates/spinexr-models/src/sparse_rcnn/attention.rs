//! Attention of proposals to each other (Vaswani et al., arXiv 1706.03762), with the state names of
//! `torch.nn.MultiheadAttention`.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use spinexr_ops::matmul;

use crate::linear::Linear;

/// Multi-head attention of rows to the other rows of their image.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// To queries, keys and values, `[3 * dim, dim]`.
    pub in_proj_weight: Param<Tensor<2>>,
    /// `[3 * dim]`.
    pub in_proj_bias: Param<Tensor<1>>,
    /// From the heads' results.
    pub out_proj: Linear,
    /// Heads.
    pub heads: usize,
}

impl SelfAttention {
    /// A layer of zeros; the network's scheme gives it its first weights.
    ///
    /// # Panics
    /// When `heads` does not divide `dim`.
    pub fn new(dim: usize, heads: usize, device: &Device) -> Self {
        assert!(heads > 0 && dim.is_multiple_of(heads), "{heads} heads cannot share {dim} features equally");
        Self {
            in_proj_weight: Param::from_tensor(Tensor::zeros([3 * dim, dim], device)),
            in_proj_bias: Param::from_tensor(Tensor::zeros([3 * dim], device)),
            out_proj: Linear::new(dim, dim, device),
            heads,
        }
    }

    /// # Shapes
    /// `x`: `[N * P, dim]`, P rows an image; the output has the same
    pub fn forward(&self, x: Tensor<2>, images: usize) -> Tensor<2> {
        let [rows, dim] = x.dims();
        let (p, width) = (rows / images, dim / self.heads);
        let projected =
            matmul(x, self.in_proj_weight.val().transpose()) + self.in_proj_bias.val().unsqueeze();
        // [N * P, 3 * dim] -> 3 × [N, heads, P, width]
        let of_heads = |part: usize| {
            let part = projected.clone().narrow(1, part * dim, dim);
            part.reshape([images, p, self.heads, width]).swap_dims(1, 2)
        };
        let query = of_heads(0).mul_scalar((width as f64).sqrt().recip());
        let weights = softmax(matmul(query, of_heads(1).swap_dims(2, 3)), 3); // [N, heads, P, P]
        let result = matmul(weights, of_heads(2)).swap_dims(1, 2).reshape([rows, dim]);
        self.out_proj.forward(result)
    }
}
