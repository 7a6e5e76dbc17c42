//! The bidirectional feature pyramid: cells of nodes, each a weighted sum of maps brought to one size.
//!
//! Reference: `effdet`'s `BiFpn` with `bifpn_fa` (fast normalised weights); module paths mirror its state dict. There a
//! node's inputs are keyed by their number; here they are lists with holes, which gives the same paths.

use burn::module::{Module, Param};
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor};
use spinexr_ops::{
    BatchNorm2d, BatchNorm2dConfig, Conv2d, Conv2dConfig, channel_gate, max_pool2d, relu, silu,
    upsample_nearest,
};

use super::EfficientDetConfig;
use crate::efficientnet::Padding;

/// Keeps the sum of a node's weights from 0.
const WEIGHT_EPS: f32 = 1e-4;

impl EfficientDetConfig {
    pub(super) fn bifpn(&self, device: &Device) -> BiFpn {
        let levels = self.levels();
        let mut channels = self.backbone.out_channels().to_vec();
        let mut resample: Vec<Option<Resample>> = channels.iter().map(|_| None).collect();
        for _ in channels.len()..levels {
            let coarsest = channels[channels.len() - 1];
            resample.push(self.resample(coarsest, device));
            channels.push(self.fpn_channels);
        }
        let cell = (0..self.fpn_repeats)
            .map(|_| {
                let cell = self.cell(&channels, device);
                channels.fill(self.fpn_channels);
                cell
            })
            .collect();
        BiFpn { resample, cell, padding: self.backbone.padding }
    }

    /// A 1×1 convolution to the pyramid's channels, where there are others.
    fn resample(&self, channels: usize, device: &Device) -> Option<Resample> {
        (channels != self.fpn_channels).then(|| Resample {
            conv: ConvNorm {
                conv: Conv2dConfig::new(channels, self.fpn_channels, 1)
                    .with_bias(self.redundant_bias)
                    .init(device),
                bn: self.norm(device),
            },
        })
    }

    pub(super) fn norm(&self, device: &Device) -> BatchNorm2d {
        BatchNorm2dConfig::new(self.fpn_channels)
            .with_eps(self.norm_eps)
            .with_momentum(self.norm_momentum)
            .init(device)
    }

    /// A 3×3 depthwise and a 1×1 convolution.
    pub(super) fn separable(&self, outputs: usize, bias: bool, device: &Device) -> SeparableConv {
        let channels = self.fpn_channels;
        SeparableConv {
            conv_dw: Conv2dConfig::new(channels, channels, 3)
                .with_padding(1)
                .with_groups(channels)
                .with_bias(false)
                .init(device),
            conv_pw: Conv2dConfig::new(channels, outputs, 1).with_bias(bias).init(device),
            bn: None,
        }
    }

    fn cell(&self, channels: &[usize], device: &Device) -> Cell {
        // Channels of the cell's inputs, then of its nodes.
        let of = |map: usize| channels.get(map).copied().unwrap_or(self.fpn_channels);
        let fnode = nodes(channels.len())
            .into_iter()
            .map(|NodePlan { level, inputs }| {
                let maps = inputs.iter().max().map_or(0, |map| map + 1);
                let mut resample: Vec<Option<Resample>> = (0..maps).map(|_| None).collect();
                for &map in &inputs {
                    resample[map] = self.resample(of(map), device);
                }
                Node {
                    combine: Combine {
                        edge_weights: Param::from_tensor(Tensor::ones([inputs.len()], device)),
                        resample,
                        level,
                        inputs,
                    },
                    after_combine: AfterCombine {
                        conv: SeparableConv {
                            bn: Some(self.norm(device)),
                            ..self.separable(self.fpn_channels, self.redundant_bias, device)
                        },
                    },
                }
            })
            .collect();
        Cell { fnode }
    }
}

/// What a node makes of which maps. Maps are numbered: the cell's inputs, finest first, then the nodes in order.
struct NodePlan {
    /// Level of the result, 0 the finest.
    level: usize,
    inputs: Vec<usize>,
}

/// The nodes of a cell of `levels`: from the coarsest to the finest, then back. On the way back a node also takes the
/// cell's own input at its level.
fn nodes(levels: usize) -> Vec<NodePlan> {
    let mut of_level: Vec<Vec<usize>> = (0..levels).map(|level| vec![level]).collect();
    let mut plans = Vec::new();
    let last = |maps: &Vec<usize>| maps[maps.len() - 1];
    for level in (0..levels - 1).rev() {
        let inputs = vec![last(&of_level[level]), last(&of_level[level + 1])];
        of_level[level].push(levels + plans.len());
        plans.push(NodePlan { level, inputs });
    }
    for level in 1..levels {
        let mut inputs = of_level[level].clone();
        inputs.push(last(&of_level[level - 1]));
        of_level[level].push(levels + plans.len());
        plans.push(NodePlan { level, inputs });
    }
    plans
}

/// The pyramid.
#[derive(Module, Debug)]
pub struct BiFpn {
    /// By level: the convolution on the way to a level above the backbone's, if channels change.
    pub resample: Vec<Option<Resample>>,
    /// One after the other.
    pub cell: Vec<Cell>,
    /// Where zeros go.
    #[module(skip)]
    pub padding: Padding,
}

/// A cell.
#[derive(Module, Debug)]
pub struct Cell {
    /// In the order of `nodes`.
    pub fnode: Vec<Node>,
}

/// A node.
#[derive(Module, Debug)]
pub struct Node {
    /// The weighted sum.
    pub combine: Combine,
    /// What follows, after a swish.
    pub after_combine: AfterCombine,
}

/// A weighted sum of maps.
#[derive(Module, Debug)]
pub struct Combine {
    /// One for each input.
    pub edge_weights: Param<Tensor<1>>,
    /// By number of the map.
    pub resample: Vec<Option<Resample>>,
    /// Of the result.
    #[module(skip)]
    pub level: usize,
    /// Numbers of the maps.
    #[module(skip)]
    pub inputs: Vec<usize>,
}

/// The convolution of a node.
#[derive(Module, Debug)]
pub struct AfterCombine {
    /// With a norm.
    pub conv: SeparableConv,
}

/// A change of channels.
#[derive(Module, Debug)]
pub struct Resample {
    /// 1×1 and a norm.
    pub conv: ConvNorm,
}

/// A convolution and a norm.
#[derive(Module, Debug)]
pub struct ConvNorm {
    /// 1×1.
    pub conv: Conv2d,
    /// Of its output.
    pub bn: BatchNorm2d,
}

impl Resample {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.bn.forward(self.conv.conv.forward(x))
    }
}

/// A depthwise convolution, then a 1×1.
#[derive(Module, Debug)]
pub struct SeparableConv {
    /// 3×3 of each channel.
    pub conv_dw: Conv2d,
    /// 1×1.
    pub conv_pw: Conv2d,
    /// A norm, in the pyramid.
    pub bn: Option<BatchNorm2d>,
}

impl SeparableConv {
    // x: [N, C, H, W] -> [N, C', H, W]; at stride 1 both paddings are one
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv_pw.forward(self.conv_dw.forward(x));
        match &self.bn {
            Some(bn) => bn.forward(x),
            None => x,
        }
    }
}

impl BiFpn {
    /// The maps of all levels, finest first.
    ///
    /// # Shapes
    /// `maps`: those of the backbone, each half the size of the one before, rounded up → `[N, C, H_l, W_l]` for each level
    pub fn forward(&self, maps: Vec<Tensor<4>>) -> Vec<Tensor<4>> {
        let mut maps = maps;
        for level in maps.len()..self.resample.len() {
            let below = maps[level - 1].clone();
            let below = match &self.resample[level] {
                Some(resample) => resample.forward(below),
                None => below,
            };
            maps.push(halved(below, self.padding));
        }
        self.cell.iter().fold(maps, |maps, cell| cell.forward(maps, self.padding))
    }
}

impl Cell {
    fn forward(&self, mut maps: Vec<Tensor<4>>, padding: Padding) -> Vec<Tensor<4>> {
        let levels = maps.len();
        let sizes: Vec<[usize; 2]> = maps
            .iter()
            .map(|map| {
                let [_, _, height, width] = map.dims();
                [height, width]
            })
            .collect();
        for node in &self.fnode {
            let sum = node.combine.forward(&maps, &sizes, padding);
            maps.push(node.after_combine.conv.forward(silu(sum)));
        }
        maps.split_off(maps.len() - levels)
    }
}

impl Combine {
    /// The factors of the inputs: none below 0, and they add up to nearly 1.
    pub(super) fn weights(&self) -> Tensor<1> {
        let weights = relu(self.edge_weights.val());
        weights.clone() / (weights.sum() + WEIGHT_EPS)
    }

    fn forward(&self, maps: &[Tensor<4>], sizes: &[[usize; 2]], padding: Padding) -> Tensor<4> {
        let weights = self.weights();
        let terms = self.inputs.iter().enumerate().map(|(i, &map)| {
            let x = maps[map].clone();
            let x = match &self.resample[map] {
                Some(resample) => resample.forward(x),
                None => x,
            };
            let x = fitted(x, sizes[self.level], padding);
            let [n, c, _, _] = x.dims();
            let weight = weights.clone().narrow(0, i, 1).reshape([1, 1, 1, 1]);
            channel_gate(x, weight.expand([n, c, 1, 1]))
        });
        terms.reduce(|a, b| a + b).expect("a node has two or three inputs")
    }
}

/// A map of the level below or above at this level's size.
fn fitted(x: Tensor<4>, size: [usize; 2], padding: Padding) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    if height > size[0] || width > size[1] {
        halved(x, padding)
    } else if [height, width] != size {
        upsample_nearest(x, size)
    } else {
        x
    }
}

/// The maxima of 3×3 windows around every other pixel.
fn halved(x: Tensor<4>, padding: Padding) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    match padding {
        Padding::Symmetric => max_pool2d(x, [3, 3], [2, 2], [1, 1]),
        Padding::Same => {
            let before = [height % 2, width % 2]; // of an even size, the one row and column lies at the end
            let x = x.pad((before[1], 1, before[0], 1), PadMode::Constant(f32::NEG_INFINITY));
            max_pool2d(x, [3, 3], [2, 2], [0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_go_down_and_back() {
        let plans: Vec<(usize, Vec<usize>)> =
            nodes(5).into_iter().map(|node| (node.level, node.inputs)).collect();
        let wanted = [
            (3, vec![3, 4]),
            (2, vec![2, 5]),
            (1, vec![1, 6]),
            (0, vec![0, 7]),
            (1, vec![1, 7, 8]),
            (2, vec![2, 6, 9]),
            (3, vec![3, 5, 10]),
            (4, vec![4, 11]),
        ];
        assert_eq!(plans, wanted);
    }

    #[test]
    fn halving_looks_where_the_padding_says() {
        let device = Device::flex();
        let x = Tensor::<4>::from_data([[[[4.0, 3.0, 2.0, 1.0], [-1.0, 7.0, 0.0, 5.0]]]], &device);
        let maxima = |padding| halved(x.clone(), padding).try_into_vec_as::<f32>().unwrap();
        assert_eq!(maxima(Padding::Same), [7.0, 5.0]); // columns 0..3 and 2..
        assert_eq!(maxima(Padding::Symmetric), [7.0, 7.0]); // columns ..2 and 1..4
        for size in 1..6usize {
            for padding in [Padding::Same, Padding::Symmetric] {
                let map = halved(Tensor::<4>::zeros([1, 1, size, size], &device) - 3.0, padding);
                assert_eq!(map.dims()[2], size.div_ceil(2));
                assert!(map.try_into_vec_as::<f32>().unwrap().iter().all(|v| *v == -3.0), "{size}");
            }
        }
    }
}
