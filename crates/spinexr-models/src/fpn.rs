//! Feature pyramid network.
//!
//! Paper: Lin et al., "Feature Pyramid Networks for Object Detection" (arXiv 1612.03144); P6 and P7 as in
//! RetinaNet (arXiv 1708.02002). Reference: `torchvision.ops.FeaturePyramidNetwork`; module paths mirror its
//! state dict.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use spinexr_ops::{Conv2d, Conv2dConfig, max_pool2d, relu, upsample_nearest};

use crate::init::{Draw, initialise};

/// Levels above the coarsest input map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtraLevels {
    /// None.
    None,
    /// One, every other pixel of the coarsest output.
    MaxPool,
    /// Two, by 3×3 convolutions of stride 2 from the coarsest output P5.
    P6P7OnP5,
    /// Two, by 3×3 convolutions of stride 2 from the coarsest input C5.
    P6P7OnC5,
}

impl ExtraLevels {
    /// How many.
    pub fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::MaxPool => 1,
            Self::P6P7OnP5 | Self::P6P7OnC5 => 2,
        }
    }
}

/// The measures of a pyramid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FpnConfig {
    /// Channels of the input maps, finest first.
    pub in_channels: Vec<usize>,
    /// Channels of every output map.
    pub out_channels: usize,
    /// Levels above the coarsest input.
    pub extra: ExtraLevels,
}

impl FpnConfig {
    /// Output levels.
    pub fn levels(&self) -> usize {
        self.in_channels.len() + self.extra.count()
    }

    /// The pyramid with weights drawn by torchvision's scheme (Kaiming uniform with slope one, biases 0) as a
    /// pure function of `seed`.
    ///
    /// # Panics
    /// When there is no input map.
    pub fn init_seeded(&self, seed: u64, device: &Device) -> Fpn {
        initialise(self.build(device), seed, scheme)
    }

    pub(crate) fn build(&self, device: &Device) -> Fpn {
        let out = self.out_channels;
        let coarsest = *self.in_channels.last().expect("a pyramid has at least one input map");
        let down = |from| Conv2dConfig::new(from, out, 3).with_stride(2).with_padding(1).init(device);
        let p6p7 = |from| P6P7 { p6: down(from), p7: down(out) };
        Fpn {
            inner_blocks: self
                .in_channels
                .iter()
                .map(|&channels| [Conv2dConfig::new(channels, out, 1).init(device)])
                .collect(),
            layer_blocks: self
                .in_channels
                .iter()
                .map(|_| [Conv2dConfig::new(out, out, 3).with_padding(1).init(device)])
                .collect(),
            extra_blocks: match self.extra {
                ExtraLevels::None | ExtraLevels::MaxPool => None,
                ExtraLevels::P6P7OnP5 => Some(p6p7(out)),
                ExtraLevels::P6P7OnC5 => Some(p6p7(coarsest)),
            },
            extra: self.extra,
        }
    }
}

/// torchvision's scheme for a pyramid.
pub(crate) fn scheme(_name: &str, shape: &[usize]) -> Draw {
    if shape.len() == 4 { Draw::kaiming_uniform_linear(shape) } else { Draw::Constant(0.0) }
}

/// A feature pyramid.
#[derive(Module, Debug)]
pub struct Fpn {
    /// 1×1 from each input map; an array of one, for the path `inner_blocks.0.0` of torchvision.
    pub inner_blocks: Vec<[Conv2d; 1]>,
    /// 3×3 to each output map.
    pub layer_blocks: Vec<[Conv2d; 1]>,
    /// The convolutions of P6 and P7.
    pub extra_blocks: Option<P6P7>,
    /// Which levels are added.
    #[module(skip)]
    pub extra: ExtraLevels,
}

/// The convolutions of P6 and P7.
#[derive(Module, Debug)]
pub struct P6P7 {
    /// To P6.
    pub p6: Conv2d,
    /// From P6, after a ReLU, to P7.
    pub p7: Conv2d,
}

impl Fpn {
    /// The output maps, finest first, extra levels last.
    ///
    /// # Shapes
    /// `maps[i]`: `[N, C_i, H_i, W_i]`, finest first → `[N, out, H_i, W_i]`, and the extra levels of half and a
    /// quarter of the coarsest size, rounded up
    ///
    /// # Panics
    /// When the number of maps is not that of the configuration.
    pub fn forward(&self, maps: Vec<Tensor<4>>) -> Vec<Tensor<4>> {
        assert_eq!(maps.len(), self.inner_blocks.len(), "one map for each 1×1 convolution");
        let coarsest = maps.last().cloned().expect("a pyramid has at least one input map");
        let mut outputs = Vec::with_capacity(maps.len() + self.extra.count());
        let mut above: Option<Tensor<4>> = None;
        let laterals = maps.into_iter().zip(self.inner_blocks.iter().zip(&self.layer_blocks));
        for (map, ([inner], [layer])) in laterals.rev() {
            let mut merged = inner.forward(map);
            if let Some(above) = above {
                let [_, _, height, width] = merged.dims();
                merged = merged + upsample_nearest(above, [height, width]);
            }
            outputs.push(layer.forward(merged.clone()));
            above = Some(merged);
        }
        outputs.reverse();
        match (self.extra, &self.extra_blocks) {
            (ExtraLevels::MaxPool, _) => {
                let p5 = outputs[outputs.len() - 1].clone();
                outputs.push(max_pool2d(p5, [1, 1], [2, 2], [0, 0]));
            }
            (extra, Some(blocks)) => {
                let from = match extra {
                    ExtraLevels::P6P7OnC5 => coarsest,
                    _ => outputs[outputs.len() - 1].clone(),
                };
                let p6 = blocks.p6.forward(from);
                outputs.push(p6.clone());
                outputs.push(blocks.p7.forward(relu(p6)));
            }
            (_, None) => {}
        }
        outputs
    }
}
