//! An EfficientNet prepared for the CPU: what [`EfficientNet::features`] computes without a draw, without tensors. Norms
//! are folded into the convolutions; a SiLU, or the sum at the end of a block, is part of the convolution before it.

use spinexr_ops::inference::{Activation, Finish, Maps, Norms, PreparedConv, gate, means};
use spinexr_ops::{BatchNorm2d, Conv2d};

use crate::efficientnet::{Block, EfficientNet, FEATURE_STAGES, Padding, SqueezeExcite};
use crate::linear::PreparedLinear;
use crate::retinanet_detect::sigmoid;

/// An EfficientNet that is only run.
#[derive(Debug)]
pub(crate) struct EfficientNetInference {
    stem: PreparedConv,
    stages: Vec<Vec<BlockInference>>,
}

/// An inverted residual.
#[derive(Debug)]
struct BlockInference {
    /// To more channels; the first stage has none.
    widen: Option<PreparedConv>,
    depthwise: PreparedConv,
    excite: Excite,
    narrow: PreparedConv,
    residual: bool,
}

/// The factors of a map's channels.
#[derive(Debug)]
struct Excite {
    reduce: PreparedLinear,
    expand: PreparedLinear,
}

/// The features of a call, and what lies between.
#[derive(Debug, Default)]
pub(crate) struct EfficientNetBuffers {
    stem: Maps,
    wide: Maps,
    inner: Maps,
    /// Block outputs, written in turn.
    blocks: [Maps; 2],
    /// Of strides 8, 16 and 32.
    pub(crate) features: [Maps; 3],
}

impl EfficientNetInference {
    pub(crate) fn new(network: &EfficientNet) -> Self {
        let padding = network.padding;
        let blocks = |stage: &Vec<Block>| stage.iter().map(|b| BlockInference::new(b, padding)).collect();
        Self {
            stem: padded(padding, &network.conv_stem, &network.bn1),
            stages: network.blocks.iter().map(blocks).collect(),
        }
    }

    /// The maps of strides 8, 16 and 32, into `buffers.features`.
    pub(crate) fn run(&self, x: &Maps, buffers: &mut EfficientNetBuffers) {
        let EfficientNetBuffers { stem, wide, inner, blocks: [from, to], features } = buffers;
        self.stem.run_into(x, Finish::SILU, stem);
        let (mut from, mut to) = (from, to);
        std::mem::swap(stem, from);
        let mut features = features.iter_mut();
        for (stage, blocks) in self.stages.iter().enumerate() {
            for block in blocks {
                block.run(from, wide, inner, to);
                std::mem::swap(&mut from, &mut to);
            }
            if FEATURE_STAGES.contains(&stage) {
                let feature = features.next().expect("three of the seven stages give features");
                feature.clone_from(from);
            }
        }
    }
}

/// A convolution with the network's padding, and the norm after it.
fn padded(padding: Padding, conv: &Conv2d, norm: &BatchNorm2d) -> PreparedConv {
    match padding {
        Padding::Same => PreparedConv::same(conv, Norms::after(norm)),
        Padding::Symmetric => PreparedConv::new(conv, Norms::after(norm)),
    }
}

impl BlockInference {
    fn new(block: &Block, padding: Padding) -> Self {
        let excite = Excite::new(&block.se);
        let pointwise = |conv, norm| PreparedConv::new(conv, Norms::after(norm));
        match (&block.conv_pwl, &block.bn3) {
            (Some(conv_pwl), Some(bn3)) => Self {
                widen: Some(pointwise(&block.conv_pw, &block.bn1)),
                depthwise: padded(padding, &block.conv_dw, &block.bn2),
                excite,
                narrow: pointwise(conv_pwl, bn3),
                residual: block.residual,
            },
            _ => Self {
                widen: None,
                depthwise: padded(padding, &block.conv_dw, &block.bn1),
                excite,
                narrow: pointwise(&block.conv_pw, &block.bn2),
                residual: block.residual,
            },
        }
    }

    // x: [N, C, H, W] -> out: [N, C', H/s, W/s]
    fn run(&self, x: &Maps, wide: &mut Maps, inner: &mut Maps, out: &mut Maps) {
        let source = match &self.widen {
            Some(conv) => {
                conv.run_into(x, Finish::SILU, wide);
                &*wide
            }
            None => x,
        };
        self.depthwise.run_into(source, Finish::SILU, inner);
        self.excite.run(inner);
        let residual = self.residual.then(|| x.view());
        self.narrow.run_into(inner, Finish { residual, activation: Activation::Identity }, out);
    }
}

impl Excite {
    fn new(layers: &SqueezeExcite) -> Self {
        Self {
            reduce: PreparedLinear::of_conv(&layers.conv_reduce),
            expand: PreparedLinear::of_conv(&layers.conv_expand),
        }
    }

    /// Each plane times its factor.
    fn run(&self, maps: &mut Maps) {
        let means = means(maps.view());
        let channels = self.expand.outputs();
        let factors: Vec<f32> = means
            .chunks_exact(channels)
            .flat_map(|means| {
                let mut few = self.reduce.forward(means);
                few.iter_mut().for_each(|x| *x *= sigmoid(*x));
                self.expand.forward(&few).into_iter().map(sigmoid)
            })
            .collect();
        gate(maps, &factors);
    }
}
