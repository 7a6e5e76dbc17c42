//! The class and the box net: convolutions shared between levels, norms of their own for each level.
//!
//! Reference: `effdet`'s `HeadNet` with the norms ordered by convolution, then level; module paths mirror its state
//! dict.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use spinexr_ops::{BatchNorm2d, silu};

use super::EfficientDetConfig;
use super::bifpn::SeparableConv;

impl EfficientDetConfig {
    /// A net with `outputs` values for each anchor.
    pub(super) fn head(&self, outputs: usize, device: &Device) -> HeadNet {
        let of_level = || LevelNorm { bn: self.norm(device) };
        HeadNet {
            conv_rep: (0..self.head_repeats)
                .map(|_| self.separable(self.fpn_channels, self.redundant_bias, device))
                .collect(),
            bn_rep: (0..self.head_repeats)
                .map(|_| (0..self.levels()).map(|_| of_level()).collect())
                .collect(),
            predict: self.separable(self.anchors.per_location() * outputs, true, device),
        }
    }
}

/// A class or box net.
#[derive(Module, Debug)]
pub struct HeadNet {
    /// One after the other, the same for all levels.
    pub conv_rep: Vec<SeparableConv>,
    /// By convolution and level.
    pub bn_rep: Vec<Vec<LevelNorm>>,
    /// To the values of all anchors of a place.
    pub predict: SeparableConv,
}

/// The norm of one level.
#[derive(Module, Debug)]
pub struct LevelNorm {
    /// The norm.
    pub bn: BatchNorm2d,
}

impl HeadNet {
    /// The values of each level, anchors outermost.
    ///
    /// # Shapes
    /// `maps`: `[N, C, H_l, W_l]` for each level → `[N, A * outputs, H_l, W_l]`, A anchors at one place
    pub fn forward(&self, maps: &[Tensor<4>]) -> Vec<Tensor<4>> {
        maps.iter().enumerate().map(|(level, map)| self.of_level(level, map.clone())).collect()
    }

    // map: [N, C, H, W] of one level -> [N, A * outputs, H, W]
    pub(super) fn of_level(&self, level: usize, map: Tensor<4>) -> Tensor<4> {
        let convs = self.conv_rep.iter().zip(&self.bn_rep);
        let x = convs.fold(map, |x, (conv, norms)| silu(norms[level].bn.forward(conv.forward(x))));
        self.predict.forward(x)
    }
}

/// All levels as one list of anchors.
// levels: [N, A * outputs, H_l, W_l] -> [N, sum over l of H_l * W_l * A, outputs]
pub(super) fn by_anchor(levels: Vec<Tensor<4>>, outputs: usize) -> Tensor<3> {
    let lists = levels
        .into_iter()
        .map(|x| {
            let [n, c, h, w] = x.dims();
            x.reshape([n, c, h * w]).swap_dims(1, 2).reshape([n, h * w * c / outputs, outputs])
        })
        .collect();
    Tensor::cat(lists, 1)
}
