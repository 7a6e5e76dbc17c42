//! DenseNet-121, 169, 201 and small variants.
//!
//! Paper: Huang et al., "Densely Connected Convolutional Networks" (arXiv 1608.06993).
//! Reference: `torchvision.models.densenet`; module paths mirror its state dict. Deviations: an input of any
//! number of channels, a head without the last ReLU ([`DenseNetConfig::final_relu`]) and an optional
//! maximum beside the average of the last map ([`Pooling`]).

use burn::module::Module;
use burn::tensor::module::avg_pool2d;
use burn::tensor::ops::AvgPoolOptions;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use spinexr_ops::{
    BatchNorm2d, BatchNorm2dConfig, Conv2d, Conv2dConfig, global_avg_pool, max_pool2d, norm_relu_conv,
};

use crate::init::{Draw, initialise};
use crate::linear::Linear;

/// How the last feature map becomes one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean of each channel, as published.
    Average,
    /// The mean and the maximum of each channel, one after the other: a small finding is not averaged away.
    AverageAndMax,
}

/// The measures of a DenseNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseNetConfig {
    /// Channels of the input; 3 as published.
    pub in_channels: usize,
    /// Outputs of the classifier.
    pub num_classes: usize,
    /// Channels each layer adds.
    pub growth_rate: usize,
    /// Layers of the four blocks.
    pub block_config: [usize; 4],
    /// Channels of the stem.
    pub num_init_features: usize,
    /// Channels of a layer's bottleneck, in units of the growth rate.
    pub bn_size: usize,
    /// A ReLU after the last norm: torchvision has it, the head of the VinDr-SpineXR paper has not.
    pub final_relu: bool,
    /// How the last map becomes a vector.
    pub pooling: Pooling,
}

impl DenseNetConfig {
    fn published(growth_rate: usize, block_config: [usize; 4], num_init_features: usize) -> Self {
        Self {
            in_channels: 3,
            num_classes: 1,
            growth_rate,
            block_config,
            num_init_features,
            bn_size: 4,
            final_relu: true,
            pooling: Pooling::Average,
        }
    }

    /// DenseNet-121 as torchvision builds it, one class.
    pub fn densenet121() -> Self {
        Self::published(32, [6, 12, 24, 16], 64)
    }

    /// DenseNet-169 as torchvision builds it, one class.
    pub fn densenet169() -> Self {
        Self::published(32, [6, 12, 32, 32], 64)
    }

    /// DenseNet-201 as torchvision builds it, one class.
    pub fn densenet201() -> Self {
        Self::published(32, [6, 12, 48, 32], 64)
    }

    /// A small network for films of about 256×176 px in one channel, trained in minutes on a CPU.
    pub fn mini_a() -> Self {
        Self { in_channels: 1, pooling: Pooling::AverageAndMax, ..Self::published(12, [3, 4, 4, 3], 24) }
    }

    /// A second small network of other depth and growth, so that an ensemble has two members.
    pub fn mini_b() -> Self {
        Self {
            in_channels: 1,
            bn_size: 2,
            pooling: Pooling::AverageAndMax,
            ..Self::published(16, [2, 4, 6, 4], 24)
        }
    }

    /// The first small network: [`DenseNetConfig::mini_a`].
    pub fn mini() -> Self {
        Self::mini_a()
    }

    /// With another number of classes.
    pub fn with_num_classes(self, num_classes: usize) -> Self {
        Self { num_classes, ..self }
    }

    /// With another number of input channels.
    pub fn with_in_channels(self, in_channels: usize) -> Self {
        Self { in_channels, ..self }
    }

    /// With or without the last ReLU.
    pub fn with_final_relu(self, final_relu: bool) -> Self {
        Self { final_relu, ..self }
    }

    /// Smallest height and width of an image that leaves a pixel in every map.
    pub const MIN_INPUT_PX: usize = 29;

    pub(crate) fn check_input(height: usize, width: usize) {
        assert!(
            height.min(width) >= Self::MIN_INPUT_PX,
            "a DenseNet needs at least {0}×{0} px, found {height}×{width}",
            Self::MIN_INPUT_PX
        );
    }

    /// The network with weights drawn from seed 0; see [`DenseNetConfig::init_seeded`].
    pub fn init(&self, device: &Device) -> DenseNet {
        self.init_seeded(0, device)
    }

    /// The network with weights drawn by torchvision's scheme (Kaiming normal convolutions, norms at 1 and
    /// 0) as a pure function of `seed`.
    pub fn init_seeded(&self, seed: u64, device: &Device) -> DenseNet {
        initialise(self.build(device), seed, |name, shape| match shape.len() {
            4 => Draw::kaiming_fan_in(shape),
            2 => Draw::torch_linear(shape[1]),
            _ if name.ends_with("weight") => Draw::Constant(1.0),
            _ => Draw::Constant(0.0),
        })
    }

    fn build(&self, device: &Device) -> DenseNet {
        let norm = |channels| BatchNorm2dConfig::new(channels).init(device);
        let mut channels = self.num_init_features;
        let mut blocks = Vec::with_capacity(4);
        let mut transitions = Vec::with_capacity(3);
        for (index, layers) in self.block_config.into_iter().enumerate() {
            let denselayer =
                (0..layers).map(|i| DenseLayer::new(channels + i * self.growth_rate, self, device)).collect();
            blocks.push(DenseBlock { denselayer });
            channels += layers * self.growth_rate;
            if index < 3 {
                transitions.push(Transition {
                    norm: norm(channels),
                    conv: Conv2dConfig::new(channels, channels / 2, 1).with_bias(false).init(device),
                });
                channels /= 2;
            }
        }
        let [denseblock1, denseblock2, denseblock3, denseblock4] =
            blocks.try_into().expect("four blocks were pushed");
        let [transition1, transition2, transition3] =
            transitions.try_into().expect("three transitions were pushed");
        let pooled = match self.pooling {
            Pooling::Average => channels,
            Pooling::AverageAndMax => 2 * channels,
        };
        DenseNet {
            features: Features {
                conv0: Conv2dConfig::new(self.in_channels, self.num_init_features, 7)
                    .with_stride(2)
                    .with_padding(3)
                    .with_bias(false)
                    .init(device),
                norm0: norm(self.num_init_features),
                denseblock1,
                transition1,
                denseblock2,
                transition2,
                denseblock3,
                transition3,
                denseblock4,
                norm5: norm(channels),
            },
            classifier: Linear::new(pooled, self.num_classes, device),
            final_relu: self.final_relu,
            pooling: self.pooling,
        }
    }
}

/// A DenseNet with a linear classifier.
#[derive(Module, Debug)]
pub struct DenseNet {
    /// Everything up to the last norm.
    pub features: Features,
    /// From pooled features to logits.
    pub classifier: Linear,
    /// Whether a ReLU follows the last norm.
    pub final_relu: bool,
    /// How the last map becomes a vector.
    #[module(skip)]
    pub pooling: Pooling,
}

impl DenseNet {
    /// Logits.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]`, normalised → `[N, num_classes]`
    ///
    /// # Panics
    /// When the image is smaller than [`DenseNetConfig::MIN_INPUT_PX`].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.classify(self.features(x))
    }

    /// Logits from the last map.
    ///
    /// # Shapes
    /// `features`: `[N, F, H, W]`, of [`DenseNet::features`] → `[N, num_classes]`
    pub fn classify(&self, features: Tensor<4>) -> Tensor<2> {
        let pooled = match self.pooling {
            Pooling::Average => global_avg_pool(features),
            Pooling::AverageAndMax => {
                let [n, c, h, w] = features.dims();
                let highest = max_pool2d(features.clone(), [h, w], [h, w], [0, 0]);
                Tensor::cat(vec![global_avg_pool(features), highest.reshape([n, c])], 1) // [N, 2 C]
            }
        };
        self.classifier.forward(pooled)
    }

    /// Logits of every place of the last map, as if the whole map were like it. With [`Pooling::Average`] their
    /// mean is [`DenseNet::classify`]: the class activation map of Zhou et al. (arXiv 1512.04150).
    ///
    /// # Shapes
    /// `features`: `[N, F, H, W]`, of [`DenseNet::features`] → `[N, H * W, num_classes]`
    pub fn classify_places(&self, features: Tensor<4>) -> Tensor<3> {
        let [n, f, h, w] = features.dims();
        let places = features.reshape([n, f, h * w]).swap_dims(1, 2).reshape([n * h * w, f]);
        let pooled = match self.pooling {
            Pooling::Average => places,
            Pooling::AverageAndMax => Tensor::cat(vec![places.clone(), places], 1), // [N H W, 2 F]
        };
        let logits = self.classifier.forward(pooled);
        let classes = logits.dims()[1];
        logits.reshape([n, h * w, classes])
    }

    /// The last map, after the last norm and, where the network has it, the last ReLU.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]` → `[N, F, H/32, W/32]`
    ///
    /// # Panics
    /// As [`DenseNet::forward`].
    pub fn features(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.features.forward(x, |_, _| {});
        if self.final_relu { self.features.norm5.forward_relu(x) } else { self.features.norm5.forward(x) }
    }
}

/// The convolutional part of a DenseNet.
#[derive(Module, Debug)]
pub struct Features {
    /// 7×7, stride 2.
    pub conv0: Conv2d,
    /// Norm of the stem.
    pub norm0: BatchNorm2d,
    /// At a quarter of the input's size.
    pub denseblock1: DenseBlock,
    /// To an eighth.
    pub transition1: Transition,
    /// At an eighth.
    pub denseblock2: DenseBlock,
    /// To a sixteenth.
    pub transition2: Transition,
    /// At a sixteenth.
    pub denseblock3: DenseBlock,
    /// To a thirty-second.
    pub transition3: Transition,
    /// At a thirty-second.
    pub denseblock4: DenseBlock,
    /// Norm of the last map.
    pub norm5: BatchNorm2d,
}

impl Features {
    /// The map before the last norm. `seen` is shown each stage by its torchvision name on the way.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]` → `[N, F, H/32, W/32]`
    ///
    /// # Panics
    /// When the image is smaller than [`DenseNetConfig::MIN_INPUT_PX`].
    pub fn forward(&self, x: Tensor<4>, mut seen: impl FnMut(&str, &Tensor<4>)) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        DenseNetConfig::check_input(height, width);
        let x = self.conv0.forward(x);
        seen("conv0", &x);
        let mut x = max_pool2d(self.norm0.forward_relu(x), [3, 3], [2, 2], [1, 1]);
        seen("pool0", &x);
        for (index, (block, transition)) in [
            (&self.denseblock1, Some(&self.transition1)),
            (&self.denseblock2, Some(&self.transition2)),
            (&self.denseblock3, Some(&self.transition3)),
            (&self.denseblock4, None),
        ]
        .into_iter()
        .enumerate()
        {
            x = block.forward(x);
            seen(&format!("denseblock{}", index + 1), &x);
            if let Some(transition) = transition {
                x = transition.forward(x);
                seen(&format!("transition{}", index + 1), &x);
            }
        }
        x
    }
}

/// Layers that each see everything before them.
#[derive(Module, Debug)]
pub struct DenseBlock {
    /// In order; the state dict counts them from one.
    pub denselayer: Vec<DenseLayer>,
}

impl DenseBlock {
    // x: [N, C, H, W] -> [N, C + L*K, H, W]   L layers, growth rate K
    fn forward(&self, mut x: Tensor<4>) -> Tensor<4> {
        for layer in &self.denselayer {
            let new = layer.forward(x.clone()); // [N, K, H, W]
            x = Tensor::cat(vec![x, new], 1);
        }
        x
    }
}

/// Norm, ReLU, 1×1 bottleneck, norm, ReLU, 3×3 convolution.
#[derive(Module, Debug)]
pub struct DenseLayer {
    /// Norm of all features so far.
    pub norm1: BatchNorm2d,
    /// 1×1 to the bottleneck.
    pub conv1: Conv2d,
    /// Norm of the bottleneck.
    pub norm2: BatchNorm2d,
    /// 3×3 to the new features.
    pub conv2: Conv2d,
}

impl DenseLayer {
    fn new(in_channels: usize, config: &DenseNetConfig, device: &Device) -> Self {
        let bottleneck = config.bn_size * config.growth_rate;
        Self {
            norm1: BatchNorm2dConfig::new(in_channels).init(device),
            conv1: Conv2dConfig::new(in_channels, bottleneck, 1).with_bias(false).init(device),
            norm2: BatchNorm2dConfig::new(bottleneck).init(device),
            conv2: Conv2dConfig::new(bottleneck, config.growth_rate, 3)
                .with_padding(1)
                .with_bias(false)
                .init(device),
        }
    }

    // x: [N, C, H, W] -> [N, K, H, W]
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let bottleneck = norm_relu_conv(&self.norm1, &self.conv1, x);
        norm_relu_conv(&self.norm2, &self.conv2, bottleneck)
    }
}

/// Norm, ReLU, 1×1 convolution to half the channels, 2×2 average.
#[derive(Module, Debug)]
pub struct Transition {
    /// Norm of the block's features.
    pub norm: BatchNorm2d,
    /// 1×1 to half the channels.
    pub conv: Conv2d,
}

impl Transition {
    // x: [N, C, H, W] -> [N, C/2, H/2, W/2]
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        avg_pool2d(norm_relu_conv(&self.norm, &self.conv, x), AvgPoolOptions::new([2, 2]))
    }
}
