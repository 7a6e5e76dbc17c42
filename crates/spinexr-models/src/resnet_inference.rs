//! A ResNet and a feature pyramid prepared for the CPU: what [`ResNet::features`] and [`Fpn::forward`] compute,
//! without tensors. Norms are folded into the convolutions; the sum and the ReLU at the end of a residual unit
//! are part of its last convolution.

use spinexr_ops::MaxPool2dOptions;
use spinexr_ops::inference::{Activation, Finish, Maps, Norms, PreparedConv, add_upsampled, max_pool};

use crate::fpn::{ExtraLevels, Fpn};
use crate::resnet::{self, ResNet};

const STEM_POOL: MaxPool2dOptions = MaxPool2dOptions { kernel: [3, 3], stride: [2, 2], padding: [1, 1] };
/// Every other pixel ([`ExtraLevels::MaxPool`]).
const EVERY_OTHER: MaxPool2dOptions = MaxPool2dOptions { kernel: [1, 1], stride: [2, 2], padding: [0, 0] };

/// A ResNet that is only run, without its classifier.
#[derive(Debug)]
pub(crate) struct ResNetInference {
    stem: PreparedConv,
    stages: Vec<Vec<Block>>,
}

#[derive(Debug)]
struct Block {
    /// One after the other, each with its norm; a ReLU follows each, after the last with the short cut's sum.
    convs: Vec<PreparedConv>,
    downsample: Option<PreparedConv>,
}

/// The maps C2 to C5 of a call, and what lies between.
#[derive(Debug, Default)]
pub(crate) struct ResNetBuffers {
    stem: Maps,
    pooled: Maps,
    inner: [Maps; 2],
    short_cut: Maps,
    /// Unit outputs, written in turn.
    units: [Maps; 2],
    pub(crate) stages: Vec<Maps>,
}

impl ResNetInference {
    pub(crate) fn new(network: &ResNet) -> Self {
        let stages = [&network.layer1, &network.layer2, &network.layer3, &network.layer4];
        Self {
            stem: PreparedConv::new(&network.conv1, Norms::after(&network.bn1)),
            stages: stages.map(|stage| stage.iter().map(Block::new).collect()).into(),
        }
    }

    /// The maps C2, C3, C4 and C5, into `buffers.stages`.
    pub(crate) fn run(&self, x: &Maps, buffers: &mut ResNetBuffers) {
        let ResNetBuffers { stem, pooled, inner, short_cut, units, stages } = buffers;
        self.stem.run_into(x, Finish::RELU, stem);
        let [n, c, h, w] = stem.shape();
        let [h, w] = STEM_POOL.output_size([h, w]);
        pooled.reshape([n, c, h, w]);
        max_pool(stem.view(), STEM_POOL, pooled.view_mut());

        stages.resize_with(self.stages.len(), Maps::default);
        for (index, blocks) in self.stages.iter().enumerate() {
            let (before, now) = stages.split_at_mut(index);
            let input: &Maps = before.last().unwrap_or(pooled);
            for (i, block) in blocks.iter().enumerate() {
                let [even, odd] = &mut *units;
                let (from, to) = if i % 2 == 0 { (&*odd, even) } else { (&*even, odd) };
                let from = if i == 0 { input } else { from };
                let to = if i + 1 == blocks.len() { &mut now[0] } else { to };
                block.run(from, inner, short_cut, to);
            }
        }
    }
}

impl Block {
    fn new(block: &resnet::Block) -> Self {
        let mut convs = vec![
            PreparedConv::new(&block.conv1, Norms::after(&block.bn1)),
            PreparedConv::new(&block.conv2, Norms::after(&block.bn2)),
        ];
        if let (Some(conv), Some(norm)) = (&block.conv3, &block.bn3) {
            convs.push(PreparedConv::new(conv, Norms::after(norm)));
        }
        let downsample =
            block.downsample.as_ref().map(|(conv, norm)| PreparedConv::new(conv, Norms::after(norm)));
        Self { convs, downsample }
    }

    // x: [N, C, H, W] -> out: [N, C', H/s, W/s]
    fn run(&self, x: &Maps, inner: &mut [Maps; 2], short_cut: &mut Maps, out: &mut Maps) {
        let residual = match &self.downsample {
            Some(conv) => {
                conv.run_into(x, Finish::NONE, short_cut);
                &*short_cut
            }
            None => x,
        };
        let (last, first) = self.convs.split_last().expect("a unit has two or three convolutions");
        let [from, to] = inner;
        let (mut from, mut to) = (from, to);
        for (i, conv) in first.iter().enumerate() {
            let source = if i == 0 { x } else { &*from };
            conv.run_into(source, Finish::RELU, to);
            std::mem::swap(&mut from, &mut to);
        }
        let finish = Finish { residual: Some(residual.view()), activation: Activation::Relu };
        last.run_into(from, finish, out);
    }
}

/// A feature pyramid that is only run.
#[derive(Debug)]
pub(crate) struct FpnInference {
    inner: Vec<PreparedConv>,
    layer: Vec<PreparedConv>,
    extra: ExtraLevels,
    /// To P6, and from P6 to P7 with a ReLU first.
    p6p7: Option<(PreparedConv, PreparedConv)>,
}

/// The maps of a pyramid.
#[derive(Debug, Default)]
pub(crate) struct FpnBuffers {
    /// Sums of a map and those above it.
    merged: Vec<Maps>,
    /// Finest first, extra levels last.
    pub(crate) levels: Vec<Maps>,
}

impl FpnInference {
    pub(crate) fn new(network: &Fpn) -> Self {
        let plain = |[conv]: &[_; 1]| PreparedConv::new(conv, Norms::NONE);
        Self {
            inner: network.inner_blocks.iter().map(plain).collect(),
            layer: network.layer_blocks.iter().map(plain).collect(),
            extra: network.extra,
            p6p7: network.extra_blocks.as_ref().map(|blocks| {
                (PreparedConv::new(&blocks.p6, Norms::NONE), PreparedConv::after_relu(&blocks.p7))
            }),
        }
    }

    /// The output maps, into `buffers.levels`.
    ///
    /// # Panics
    /// When the number of maps is not that of the network.
    pub(crate) fn run(&self, maps: &[Maps], buffers: &mut FpnBuffers) {
        let count = self.inner.len();
        assert_eq!(maps.len(), count, "one map for each 1×1 convolution");
        let FpnBuffers { merged, levels } = buffers;
        merged.resize_with(count, Maps::default);
        levels.resize_with(count + self.extra.count(), Maps::default);
        for level in (0..count).rev() {
            let (finer, above) = merged.split_at_mut(level + 1);
            let merged = &mut finer[level];
            self.inner[level].run_into(&maps[level], Finish::NONE, merged);
            if let Some(above) = above.first() {
                add_upsampled(merged, above.view());
            }
            self.layer[level].run_into(merged, Finish::NONE, &mut levels[level]);
        }
        let (outputs, extra) = levels.split_at_mut(count);
        let coarsest = &outputs[count - 1];
        match (self.extra, &self.p6p7, extra) {
            (ExtraLevels::MaxPool, _, [pooled]) => {
                let [n, c, h, w] = coarsest.shape();
                let [h, w] = EVERY_OTHER.output_size([h, w]);
                pooled.reshape([n, c, h, w]);
                max_pool(coarsest.view(), EVERY_OTHER, pooled.view_mut());
            }
            (extra, Some((conv6, conv7)), [p6, p7]) => {
                let from = if extra == ExtraLevels::P6P7OnC5 { &maps[count - 1] } else { coarsest };
                conv6.run_into(from, Finish::NONE, p6);
                conv7.run_into(p6, Finish::NONE, p7);
            }
            _ => {}
        }
    }
}
