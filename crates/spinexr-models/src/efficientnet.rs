//! EfficientNet-B0 to B4 as backbones.
//!
//! Paper: Tan and Le, "EfficientNet" (arXiv 1905.11946): inverted residuals with squeeze-and-excitation, one recipe of
//! depth and width for all sizes. Reference: `timm`'s `efficientnet_b*` and `tf_efficientnet_b*` with `features_only`;
//! module paths mirror their state dicts. Deviations: any number of input channels, and norms that can be frozen.

use burn::module::Module;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use spinexr_ops::{
    BatchNorm2d, BatchNorm2dConfig, Conv2d, Conv2dConfig, channel_gate, global_avg_pool, silu,
};

use crate::init::{Draw, initialise};
use crate::resnet::NormMode;

/// Where the zeros around a map go when a kernel takes every other pixel of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// TensorFlow's: as few as needed, of an odd number one more at the bottom and the right. What weights trained by
    /// the papers' authors expect.
    Same,
    /// As many on each side.
    Symmetric,
}

impl Padding {
    /// `conv` with this padding; the layer itself carries the symmetric one.
    pub(crate) fn convolve(self, conv: &Conv2d, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Same => conv.forward_same(x),
            Self::Symmetric => conv.forward(x),
        }
    }
}

/// The measures of an EfficientNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficientNetConfig {
    /// Channels of the input; 3 as published.
    pub in_channels: usize,
    /// Factor of B0's channels.
    pub width: f64,
    /// Factor of B0's blocks in a stage.
    pub depth: f64,
    /// Where zeros go.
    pub padding: Padding,
    /// Added to a norm's variance.
    pub norm_eps: f64,
    /// Whether the norms take part in training.
    pub norm: NormMode,
    /// Probability that the last block is left out for a film in training; it grows from 0 at the first block.
    pub drop_path: f64,
}

/// A stage of B0.
struct Stage {
    kernel: usize,
    stride: usize,
    expansion: usize,
    channels: usize,
    blocks: usize,
}

const fn stage(kernel: usize, stride: usize, expansion: usize, channels: usize, blocks: usize) -> Stage {
    Stage { kernel, stride, expansion, channels, blocks }
}

/// B0 (table 1 of the paper).
const STAGES: [Stage; 7] = [
    stage(3, 1, 1, 16, 1),
    stage(3, 2, 6, 24, 2),
    stage(5, 2, 6, 40, 2),
    stage(3, 2, 6, 80, 3),
    stage(5, 1, 6, 112, 3),
    stage(5, 2, 6, 192, 4),
    stage(3, 1, 6, 320, 1),
];

/// Channels of B0's stem.
const STEM_CHANNELS: usize = 32;

/// The stages whose outputs are features: strides 8, 16 and 32.
pub(crate) const FEATURE_STAGES: [usize; 3] = [2, 4, 6];

impl EfficientNetConfig {
    /// Three channels, the padding and the norms of the authors' own weights, live norms, paths dropped up to 0.2.
    fn published(width: f64, depth: f64) -> Self {
        Self {
            in_channels: 3,
            width,
            depth,
            padding: Padding::Same,
            norm_eps: 1e-3,
            norm: NormMode::Live,
            drop_path: 0.2,
        }
    }

    /// EfficientNet-B0.
    pub fn b0() -> Self {
        Self::published(1.0, 1.0)
    }

    /// EfficientNet-B1.
    pub fn b1() -> Self {
        Self::published(1.0, 1.1)
    }

    /// EfficientNet-B2.
    pub fn b2() -> Self {
        Self::published(1.1, 1.2)
    }

    /// EfficientNet-B3.
    pub fn b3() -> Self {
        Self::published(1.2, 1.4)
    }

    /// EfficientNet-B4.
    pub fn b4() -> Self {
        Self::published(1.4, 1.8)
    }

    /// A quarter of B0's width and eight blocks, one channel, no dropped path.
    pub fn mini() -> Self {
        Self { in_channels: 1, drop_path: 0.0, ..Self::published(0.25, 1.0 / 3.0) }
    }

    /// Channels of the features of strides 8, 16 and 32.
    pub fn out_channels(&self) -> [usize; 3] {
        FEATURE_STAGES.map(|stage| self.channels(STAGES[stage].channels))
    }

    /// `of_b0` channels times the width, to the nearest multiple of 8 that is no more than a tenth smaller.
    fn channels(&self, of_b0: usize) -> usize {
        let wanted = of_b0 as f64 * self.width;
        let nearest = ((wanted + 4.0) as usize / 8 * 8).max(8);
        if (nearest as f64) < 0.9 * wanted { nearest + 8 } else { nearest }
    }

    fn blocks(&self, of_b0: usize) -> usize {
        (of_b0 as f64 * self.depth).ceil() as usize
    }

    /// The network with weights drawn by the authors' scheme (normal by outputs, norms at 1 and 0) as a pure function of
    /// `seed`.
    pub fn init_seeded(&self, seed: u64, device: &Device) -> EfficientNet {
        initialise(self.build(device), seed, scheme)
    }

    pub(crate) fn build(&self, device: &Device) -> EfficientNet {
        let stem = self.channels(STEM_CHANNELS);
        let mut channels = stem;
        let blocks = STAGES
            .iter()
            .map(|stage| {
                (0..self.blocks(stage.blocks))
                    .map(|i| {
                        let out = self.channels(stage.channels);
                        let stride = if i == 0 { stage.stride } else { 1 };
                        let block = self.block(channels, out, stage.kernel, stride, stage.expansion, device);
                        channels = out;
                        block
                    })
                    .collect()
            })
            .collect();
        EfficientNet {
            conv_stem: conv(self.in_channels, stem, 3, 2, 1, device),
            bn1: self.norm(stem, device),
            blocks,
            padding: self.padding,
            drop_path: self.drop_path,
        }
    }

    fn norm(&self, channels: usize, device: &Device) -> BatchNorm2d {
        let frozen = self.norm == NormMode::Frozen;
        BatchNorm2dConfig::new(channels).with_eps(self.norm_eps).with_frozen(frozen).init(device)
    }

    fn block(
        &self,
        from: usize,
        to: usize,
        kernel: usize,
        stride: usize,
        expansion: usize,
        device: &Device,
    ) -> Block {
        let wide = from * expansion;
        let expands = expansion > 1;
        let (conv_pw, first, second) =
            if expands { ((from, wide), wide, wide) } else { ((wide, to), wide, to) };
        Block {
            conv_pw: conv(conv_pw.0, conv_pw.1, 1, 1, 1, device),
            bn1: self.norm(first, device),
            conv_dw: conv(wide, wide, kernel, stride, wide, device),
            bn2: self.norm(second, device),
            se: SqueezeExcite::new(wide, from / 4, device),
            conv_pwl: expands.then(|| conv(wide, to, 1, 1, 1, device)),
            bn3: expands.then(|| self.norm(to, device)),
            residual: stride == 1 && from == to,
        }
    }
}

/// A convolution without bias that keeps the size, but for its stride.
fn conv(from: usize, to: usize, kernel: usize, stride: usize, groups: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new(from, to, kernel)
        .with_stride(stride)
        .with_padding(kernel / 2)
        .with_groups(groups)
        .with_bias(false)
        .init(device)
}

/// The authors' scheme.
pub(crate) fn scheme(name: &str, shape: &[usize]) -> Draw {
    match shape {
        // A depthwise value reaches one channel.
        [_, 1, kh, kw] if name.ends_with("conv_dw.weight") => Draw::kaiming_fan_out(&[1, 1, *kh, *kw]),
        [_, _, _, _] => Draw::kaiming_fan_out(shape),
        _ if name.ends_with("weight") => Draw::Constant(1.0), // a norm's
        _ => Draw::Constant(0.0),
    }
}

/// The features of an EfficientNet.
#[derive(Module, Debug)]
pub struct EfficientNet {
    /// 3×3 with stride 2.
    pub conv_stem: Conv2d,
    /// Norm of the stem.
    pub bn1: BatchNorm2d,
    /// By stage.
    pub blocks: Vec<Vec<Block>>,
    /// Where zeros go.
    #[module(skip)]
    pub padding: Padding,
    /// Probability that the last block is left out in training.
    #[module(skip)]
    pub drop_path: f64,
}

impl EfficientNet {
    /// The maps of strides 8, 16 and 32. With `draw`, blocks are left out at random for single films, as in training; the
    /// same draw leaves out the same.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]` → three maps of an eighth to a thirty-second of the size, rounded up
    pub fn features(&self, x: Tensor<4>, draw: Option<u64>) -> [Tensor<4>; 3] {
        let mut x = silu(self.bn1.forward(self.padding.convolve(&self.conv_stem, x)));
        let count = self.blocks.iter().map(Vec::len).sum::<usize>();
        let mut index = 0;
        let mut maps = Vec::with_capacity(FEATURE_STAGES.len());
        for (stage, blocks) in self.blocks.iter().enumerate() {
            for block in blocks {
                let rate = self.drop_path * index as f64 / count as f64;
                let dropped = draw.filter(|_| rate > 0.0).map(|seed| Dropped { rate, seed, index });
                x = block.forward(x, self.padding, dropped);
                index += 1;
            }
            if FEATURE_STAGES.contains(&stage) {
                maps.push(x.clone());
            }
        }
        maps.try_into().expect("three of the seven stages give features")
    }
}

/// A block that may be left out.
struct Dropped {
    /// How often.
    rate: f64,
    seed: u64,
    index: usize,
}

impl Dropped {
    /// 0 for the films whose path is dropped, and for the others what keeps the mean: `[N, C, 1, 1]`.
    fn gate(&self, [n, c, _, _]: [usize; 4], device: &Device) -> Tensor<4> {
        let name = format!("drop_path.{}", self.index);
        let kept = 1.0 - self.rate;
        let factors = Draw::Uniform { bound: 1.0 }
            .values(self.seed, &name, n)
            .into_iter()
            .map(|u| if f64::from(u) < 2.0 * kept - 1.0 { (1.0 / kept) as f32 } else { 0.0 })
            .collect::<Vec<_>>();
        Tensor::<4>::from_data(TensorData::new(factors, [n, 1, 1, 1]), device).expand([n, c, 1, 1])
    }
}

/// An inverted residual: 1×1 to more channels, depthwise, squeeze-and-excitation, 1×1 to fewer. Without `conv_pwl` it is
/// the first stage's, which does not widen: depthwise, squeeze-and-excitation, 1×1; `conv_pw` is its last then, as in
/// the reference.
#[derive(Module, Debug)]
pub struct Block {
    /// 1×1.
    pub conv_pw: Conv2d,
    /// Norm after the first convolution.
    pub bn1: BatchNorm2d,
    /// Depthwise.
    pub conv_dw: Conv2d,
    /// Norm after the second convolution.
    pub bn2: BatchNorm2d,
    /// A factor for each channel.
    pub se: SqueezeExcite,
    /// 1×1 to the block's output.
    pub conv_pwl: Option<Conv2d>,
    /// Norm after it.
    pub bn3: Option<BatchNorm2d>,
    /// Whether the input is added.
    #[module(skip)]
    pub residual: bool,
}

impl Block {
    // x: [N, C, H, W] -> [N, C', H/s, W/s]
    fn forward(&self, x: Tensor<4>, padding: Padding, dropped: Option<Dropped>) -> Tensor<4> {
        let depthwise = |x| padding.convolve(&self.conv_dw, x);
        let y = match (&self.conv_pwl, &self.bn3) {
            (Some(conv_pwl), Some(bn3)) => {
                let wide = silu(self.bn1.forward(self.conv_pw.forward(x.clone())));
                let y = self.se.forward(silu(self.bn2.forward(depthwise(wide))));
                bn3.forward(conv_pwl.forward(y))
            }
            _ => {
                let y = self.se.forward(silu(self.bn1.forward(depthwise(x.clone()))));
                self.bn2.forward(self.conv_pw.forward(y))
            }
        };
        if !self.residual {
            return y;
        }
        match dropped {
            Some(dropped) => {
                let gate = dropped.gate(y.dims(), &y.device());
                channel_gate(y, gate) + x
            }
            None => y + x,
        }
    }
}

/// Squeeze-and-excitation (arXiv 1709.01507): a factor for each channel from the means of all.
#[derive(Module, Debug)]
pub struct SqueezeExcite {
    /// 1×1 to few channels.
    pub conv_reduce: Conv2d,
    /// 1×1 back.
    pub conv_expand: Conv2d,
}

impl SqueezeExcite {
    fn new(channels: usize, reduced: usize, device: &Device) -> Self {
        Self {
            conv_reduce: Conv2dConfig::new(channels, reduced, 1).init(device),
            conv_expand: Conv2dConfig::new(reduced, channels, 1).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, _, _] = x.dims();
        let means = global_avg_pool(x.clone()).reshape([n, c, 1, 1]);
        let gate = sigmoid(self.conv_expand.forward(silu(self.conv_reduce.forward(means))));
        channel_gate(x, gate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_paths_keep_the_mean_and_are_a_function_of_the_draw() {
        let device = Device::flex();
        let gate = |seed| {
            let dropped = Dropped { rate: 0.2, seed, index: 3 };
            dropped.gate([5000, 2, 1, 1], &device).try_into_vec_as::<f32>().unwrap()
        };
        let factors = gate(1);
        assert!(factors.iter().all(|f| *f == 0.0 || *f == 1.25));
        assert!(factors.chunks(2).all(|film| film[0] == film[1]));
        let mean = factors.iter().sum::<f32>() / factors.len() as f32;
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        assert_eq!(factors, gate(1));
        assert_ne!(factors, gate(2));
    }

    #[test]
    fn only_a_draw_drops_paths() {
        let device = Device::flex();
        let config = EfficientNetConfig { drop_path: 0.9, depth: 1.0, ..EfficientNetConfig::mini() };
        let network = config.init_seeded(1, &device);
        let x = Tensor::<4>::ones([1, 1, 64, 32], &device);
        let p5 = |draw| {
            let [_, _, p5] = network.features(x.clone(), draw);
            assert_eq!(p5.dims(), [1, 80, 2, 1]);
            p5.try_into_vec_as::<f32>().unwrap()
        };
        assert_eq!(p5(None), p5(None));
        assert_eq!(p5(Some(4)), p5(Some(4)));
        assert_ne!(p5(None), p5(Some(4)));
    }
}
