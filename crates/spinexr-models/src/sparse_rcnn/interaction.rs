//! Dynamic interaction: each proposal's features make two matrices that its pooled features are multiplied by
//! (section 3.2 of the paper, "dynamic instance interactive head").

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use spinexr_ops::{matmul, relu};

use crate::layer_norm::LayerNorm;
use crate::linear::Linear;

/// The interaction of proposals with the image.
#[derive(Module, Debug)]
pub struct DynamicInteraction {
    /// To the values of both matrices, `[hidden, dynamic]` and `[dynamic, hidden]`.
    pub dynamic_layer: Linear,
    /// After the first product.
    pub norm1: LayerNorm,
    /// After the second product.
    pub norm2: LayerNorm,
    /// From all bins to the proposal's features.
    pub out_layer: Linear,
    /// After that.
    pub norm3: LayerNorm,
    /// Channels between the two products.
    pub dynamic_dim: usize,
}

impl DynamicInteraction {
    /// Layers of zeros; the network's scheme gives them their first weights.
    pub fn new(hidden_dim: usize, dynamic_dim: usize, bins: usize, device: &Device) -> Self {
        Self {
            dynamic_layer: Linear::new(hidden_dim, 2 * hidden_dim * dynamic_dim, device),
            norm1: LayerNorm::new(dynamic_dim, device),
            norm2: LayerNorm::new(hidden_dim, device),
            out_layer: Linear::new(hidden_dim * bins, hidden_dim, device),
            norm3: LayerNorm::new(hidden_dim, device),
            dynamic_dim,
        }
    }

    /// New features of the proposals. `seen` is shown the norms' results by their names on the way.
    ///
    /// # Shapes
    /// - `features`: `[R, hidden]`
    /// - `pooled`: `[R, hidden, bins]`
    /// - result: `[R, hidden]`
    pub fn forward(
        &self,
        features: Tensor<2>,
        pooled: Tensor<3>,
        mut seen: impl FnMut(&str, &Tensor<3>),
    ) -> Tensor<2> {
        let [r, hidden, bins] = pooled.dims();
        let matrices = self.dynamic_layer.forward(features); // [R, 2 * hidden * dynamic]
        let half = hidden * self.dynamic_dim;
        let first = matrices.clone().narrow(1, 0, half).reshape([r, hidden, self.dynamic_dim]);
        let second = matrices.narrow(1, half, half).reshape([r, self.dynamic_dim, hidden]);

        let x = self.norm1.forward(matmul(pooled.swap_dims(1, 2), first)); // [R, bins, dynamic]
        seen("norm1", &x);
        let x = self.norm2.forward(matmul(relu(x), second)); // [R, bins, hidden]
        seen("norm2", &x);
        let x = relu(x).reshape([r, bins * hidden]);
        let x = self.norm3.forward(self.out_layer.forward(x).reshape([r, 1, hidden]));
        seen("norm3", &x);
        relu(x).reshape([r, hidden])
    }
}
