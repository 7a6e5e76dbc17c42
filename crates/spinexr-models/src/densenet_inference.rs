//! A DenseNet prepared for the CPU: what [`DenseNet::forward`] computes, without tensors.
//!
//! Norms and ReLUs are part of the convolutions beside them, each block writes into one buffer that already has
//! room for all its layers, and a transition averages before its 1×1 convolution (both are linear, so the order
//! is free), which spares three quarters of the products.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use spinexr_ops::inference::{
    Affine, Finish, Maps, Norms, PreparedConv, avg_pool_2x2, global_pools, max_pool,
};
use spinexr_ops::{BatchNorm2d, MaxPool2dOptions};

use crate::densenet::{DenseBlock, DenseNet, DenseNetConfig, Pooling, Transition};
use crate::linear::PreparedLinear;

/// A DenseNet that is only run.
#[derive(Debug)]
pub struct DenseNetInference {
    stem: PreparedConv,
    blocks: Vec<Block>,
    norm5: Affine,
    final_relu: bool,
    pooling: Pooling,
    classifier: PreparedLinear,
    /// Buffers of calls that have ended; a call takes one, or makes its own.
    spare: Mutex<Vec<Buffers>>,
}

#[derive(Debug)]
struct Block {
    layers: Vec<Layer>,
    /// Channels of the block's input, and those each layer adds.
    channels: usize,
    growth_rate: usize,
    /// Of the last block there is none.
    transition: Option<(Affine, PreparedConv)>,
}

#[derive(Debug)]
struct Layer {
    conv1: PreparedConv,
    conv2: PreparedConv,
}

#[derive(Debug, Default)]
struct Buffers {
    stem: Maps,
    /// The maps of each block, input and layers.
    blocks: Vec<Maps>,
    bottleneck: Maps,
    pooled: Maps,
}

const STEM_POOL: MaxPool2dOptions = MaxPool2dOptions { kernel: [3, 3], stride: [2, 2], padding: [1, 1] };

impl DenseNetInference {
    /// The network with the weights and running statistics it has now.
    pub fn new(network: &DenseNet) -> Self {
        let features = &network.features;
        let blocks = [
            (&features.denseblock1, Some(&features.transition1)),
            (&features.denseblock2, Some(&features.transition2)),
            (&features.denseblock3, Some(&features.transition3)),
            (&features.denseblock4, None),
        ];
        let mut channels = features.conv0.weight.val().dims()[0];
        let blocks = blocks
            .into_iter()
            .map(|(block, transition)| {
                let block = Block::new(block, channels, transition);
                channels = block.out_channels() / 2;
                block
            })
            .collect();
        Self {
            stem: PreparedConv::new(&features.conv0, Norms::after(&features.norm0)),
            blocks,
            norm5: Affine::of(&features.norm5),
            final_relu: network.final_relu,
            pooling: network.pooling,
            classifier: PreparedLinear::new(&network.classifier),
            spare: Mutex::new(Vec::new()),
        }
    }

    /// Logits.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]`, normalised → `[N, num_classes]`
    ///
    /// # Panics
    /// When the image is smaller than [`DenseNetConfig::MIN_INPUT_PX`].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let (device, shape) = (x.device(), x.dims());
        let x = x.try_into_vec_as::<f32>().expect("images are float tensors that can be read back");
        let logits = self.logits(&Maps::new(x, shape));
        let classes = self.classifier.outputs();
        Tensor::from_data(TensorData::new(logits, [shape[0], classes]), &device)
    }

    /// Logits, film by film.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]`, normalised → `N * num_classes`
    ///
    /// # Panics
    /// As [`DenseNetInference::forward`].
    pub fn logits(&self, x: &Maps) -> Vec<f32> {
        let [_, _, height, width] = x.shape();
        DenseNetConfig::check_input(height, width);
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = spare().pop().unwrap_or_default();
        buffers.blocks.resize_with(self.blocks.len(), Maps::default);
        // On a thread of the pool the many small tasks need no waking of another.
        let logits = rayon::scope(|_| self.run(x, &mut buffers));
        spare().push(buffers);
        logits
    }

    fn run(&self, x: &Maps, buffers: &mut Buffers) -> Vec<f32> {
        let Buffers { stem, blocks: maps, bottleneck, pooled } = buffers;
        self.stem.run_into(x, Finish::RELU, stem);
        let [n, _, h, w] = stem.shape();
        let [h, w] = STEM_POOL.output_size([h, w]);
        maps[0].reshape([n, self.blocks[0].out_channels(), h, w]);
        max_pool(stem.view(), STEM_POOL, maps[0].channels_mut(0..self.blocks[0].channels));
        for (index, block) in self.blocks.iter().enumerate() {
            block.run(&mut maps[index], bottleneck);
            if let Some((norm, conv)) = &block.transition {
                let next = &self.blocks[index + 1];
                let [n, c, h, w] = maps[index].shape();
                pooled.reshape([n, c, h / 2, w / 2]);
                avg_pool_2x2(maps[index].view(), norm, pooled.view_mut());
                maps[index + 1].reshape([n, next.out_channels(), h / 2, w / 2]);
                conv.run(pooled.view(), maps[index + 1].channels_mut(0..next.channels), Finish::NONE);
            }
        }
        let last = maps[self.blocks.len() - 1].view();
        let (mean, max) = global_pools(last, &self.norm5, self.final_relu);
        let [_, c, _, _] = last.shape();
        let film = |film: usize| {
            let part = film * c..(film + 1) * c;
            match self.pooling {
                Pooling::Average => self.classifier.forward(&mean[part]),
                Pooling::AverageAndMax => {
                    self.classifier.forward(&[&mean[part.clone()], &max[part]].concat())
                }
            }
        };
        (0..n).flat_map(film).collect()
    }
}

impl Block {
    fn new(block: &DenseBlock, channels: usize, transition: Option<&Transition>) -> Self {
        let conv = |conv, before: &BatchNorm2d, after| {
            PreparedConv::new(conv, Norms { before: Some(before), after })
        };
        let layers: Vec<Layer> = block
            .denselayer
            .iter()
            .map(|layer| Layer {
                conv1: conv(&layer.conv1, &layer.norm1, Some(&layer.norm2)),
                conv2: PreparedConv::new(&layer.conv2, Norms::NONE),
            })
            .collect();
        let growth_rate = layers.first().map_or(0, |layer| layer.conv2.out_channels());
        let transition = transition.map(|transition| {
            (Affine::of(&transition.norm), PreparedConv::new(&transition.conv, Norms::NONE))
        });
        Self { layers, channels, growth_rate, transition }
    }

    fn out_channels(&self) -> usize {
        self.channels + self.layers.len() * self.growth_rate
    }

    // maps: [N, C + L*K, H, W], of which the first C channels are set   L layers, growth rate K
    fn run(&self, maps: &mut Maps, bottleneck: &mut Maps) {
        for (index, layer) in self.layers.iter().enumerate() {
            let seen = self.channels + index * self.growth_rate;
            let x = maps.channels(0..seen);
            bottleneck.reshape(layer.conv1.output_shape(x.shape()));
            layer.conv1.run(x, bottleneck.view_mut(), Finish::RELU);
            let new = maps.channels_mut(seen..seen + self.growth_rate);
            layer.conv2.run(bottleneck.view(), new, Finish::NONE);
        }
    }
}
