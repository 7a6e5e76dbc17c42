//! ResNet-18 and 50, and a small variant for detectors trained from nothing.
//!
//! Paper: He et al., "Deep Residual Learning" (arXiv 1512.03385), with the stride in the 3×3 convolution of a
//! bottleneck. Reference: `torchvision.models.resnet`; module paths mirror its state dict. Deviations: any
//! number of input channels, a stem of choice, and norms that can be frozen (`FrozenBatchNorm2d`).

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use spinexr_ops::{
    BatchNorm2d, BatchNorm2dConfig, Conv2d, Conv2dConfig, add_relu, global_avg_pool, max_pool2d,
    norm_relu_conv,
};

use crate::init::{Draw, initialise};
use crate::linear::Linear;

/// The residual unit of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3, 1×1 to four times the width.
    Bottleneck,
}

impl BlockKind {
    /// Channels a unit of `width` puts out.
    pub fn out_channels(self, width: usize) -> usize {
        match self {
            Self::Basic => width,
            Self::Bottleneck => 4 * width,
        }
    }
}

/// The first layers, from the image to a quarter of its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// 7×7 with stride 2, then 3×3 maximum with stride 2, as published.
    Conv7,
    /// 3×3 with stride 2, then 3×3 maximum with stride 2: a third of the work for one channel.
    Conv3,
}

/// Whether the norms take part in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormMode {
    /// Batch statistics in training, trained weights.
    Live,
    /// Stored statistics and weights always, none of them trained: for small batches on pretrained weights.
    Frozen,
}

/// The measures of a ResNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// Channels of the input; 3 as published.
    pub in_channels: usize,
    /// The residual unit.
    pub block: BlockKind,
    /// Units of the four stages.
    pub layers: [usize; 4],
    /// Widths of the four stages; the stem has the first.
    pub widths: [usize; 4],
    /// The first layers.
    pub stem: Stem,
    /// Whether the norms take part in training.
    pub norm: NormMode,
    /// Outputs of the classifier; `None` for a backbone.
    pub num_classes: Option<usize>,
}

impl ResNetConfig {
    fn published(block: BlockKind, layers: [usize; 4]) -> Self {
        Self {
            in_channels: 3,
            block,
            layers,
            widths: [64, 128, 256, 512],
            stem: Stem::Conv7,
            norm: NormMode::Live,
            num_classes: None,
        }
    }

    /// ResNet-18 without classifier.
    pub fn resnet18() -> Self {
        Self::published(BlockKind::Basic, [2, 2, 2, 2])
    }

    /// ResNet-50 without classifier.
    pub fn resnet50() -> Self {
        Self::published(BlockKind::Bottleneck, [3, 4, 6, 3])
    }

    /// A quarter of ResNet-18's width, one channel, 3×3 stem.
    pub fn mini() -> Self {
        Self {
            in_channels: 1,
            widths: [16, 32, 64, 128],
            stem: Stem::Conv3,
            layers: [1, 2, 2, 1],
            ..Self::resnet18()
        }
    }

    /// With norms that are live or frozen.
    pub fn with_norm(self, norm: NormMode) -> Self {
        Self { norm, ..self }
    }

    /// With a classifier of so many classes.
    pub fn with_num_classes(self, num_classes: usize) -> Self {
        Self { num_classes: Some(num_classes), ..self }
    }

    /// Channels of C2, C3, C4 and C5.
    pub fn out_channels(&self) -> [usize; 4] {
        self.widths.map(|width| self.block.out_channels(width))
    }

    /// The network with weights drawn by torchvision's scheme (Kaiming normal by outputs, norms at 1 and 0)
    /// as a pure function of `seed`.
    pub fn init_seeded(&self, seed: u64, device: &Device) -> ResNet {
        initialise(self.build(device), seed, scheme)
    }

    /// The network with weights drawn from seed 0.
    pub fn init(&self, device: &Device) -> ResNet {
        self.init_seeded(0, device)
    }

    pub(crate) fn build(&self, device: &Device) -> ResNet {
        let kernel = match self.stem {
            Stem::Conv7 => 7,
            Stem::Conv3 => 3,
        };
        let mut in_channels = self.widths[0];
        let mut stage = |index: usize| {
            let stride = if index == 0 { 1 } else { 2 };
            (0..self.layers[index])
                .map(|i| {
                    let block =
                        self.block(in_channels, self.widths[index], if i == 0 { stride } else { 1 }, device);
                    in_channels = self.block.out_channels(self.widths[index]);
                    block
                })
                .collect()
        };
        let (layer1, layer2, layer3, layer4) = (stage(0), stage(1), stage(2), stage(3));
        ResNet {
            conv1: Conv2dConfig::new(self.in_channels, self.widths[0], kernel)
                .with_stride(2)
                .with_padding(kernel / 2)
                .with_bias(false)
                .init(device),
            bn1: self.norm(self.widths[0], device),
            layer1,
            layer2,
            layer3,
            layer4,
            fc: self.num_classes.map(|classes| Linear::new(in_channels, classes, device)),
        }
    }

    fn norm(&self, channels: usize, device: &Device) -> BatchNorm2d {
        BatchNorm2dConfig::new(channels).with_frozen(self.norm == NormMode::Frozen).init(device)
    }

    fn block(&self, in_channels: usize, width: usize, stride: usize, device: &Device) -> Block {
        let out_channels = self.block.out_channels(width);
        let conv = |from, to, kernel: usize, stride| {
            Conv2dConfig::new(from, to, kernel)
                .with_stride(stride)
                .with_padding(kernel / 2)
                .with_bias(false)
                .init(device)
        };
        let norm = |channels| self.norm(channels, device);
        let downsample = (stride != 1 || in_channels != out_channels)
            .then(|| (conv(in_channels, out_channels, 1, stride), norm(out_channels)));
        let (conv1, conv2, third) = match self.block {
            BlockKind::Basic => (conv(in_channels, width, 3, stride), conv(width, width, 3, 1), None),
            BlockKind::Bottleneck => (
                conv(in_channels, width, 1, 1),
                conv(width, width, 3, stride),
                Some((conv(width, out_channels, 1, 1), norm(out_channels))),
            ),
        };
        let (conv3, bn3) = third.unzip();
        Block { conv1, bn1: norm(width), conv2, bn2: norm(width), conv3, bn3, downsample }
    }
}

/// torchvision's scheme for a ResNet.
pub(crate) fn scheme(name: &str, shape: &[usize]) -> Draw {
    match shape.len() {
        4 => Draw::kaiming_fan_out(shape),
        2 => Draw::torch_linear(shape[1]),
        _ if name.ends_with("weight") => Draw::Constant(1.0),
        _ => Draw::Constant(0.0),
    }
}

/// A residual network.
#[derive(Module, Debug)]
pub struct ResNet {
    /// The stem's convolution.
    pub conv1: Conv2d,
    /// The stem's norm.
    pub bn1: BatchNorm2d,
    /// To C2, a quarter of the input's size.
    pub layer1: Vec<Block>,
    /// To C3.
    pub layer2: Vec<Block>,
    /// To C4.
    pub layer3: Vec<Block>,
    /// To C5, a thirty-second.
    pub layer4: Vec<Block>,
    /// The classifier, if any.
    pub fc: Option<Linear>,
}

impl ResNet {
    /// The maps C2, C3, C4 and C5. `seen` is shown the stem's stages by their torchvision names on the way.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]` → four maps of a quarter to a thirty-second of the size, rounded up
    pub fn features(&self, x: Tensor<4>, mut seen: impl FnMut(&str, &Tensor<4>)) -> [Tensor<4>; 4] {
        let x = self.conv1.forward(x);
        seen("conv1", &x);
        let x = max_pool2d(self.bn1.forward_relu(x), [3, 3], [2, 2], [1, 1]);
        seen("maxpool", &x);
        let stage = |blocks: &[Block], x| blocks.iter().fold(x, |x, block| block.forward(x));
        let c2 = stage(&self.layer1, x);
        let c3 = stage(&self.layer2, c2.clone());
        let c4 = stage(&self.layer3, c3.clone());
        let c5 = stage(&self.layer4, c4.clone());
        [c2, c3, c4, c5]
    }

    /// Logits of a network with a classifier, `None` for a backbone.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]` → `[N, num_classes]`
    pub fn classify(&self, x: Tensor<4>) -> Option<Tensor<2>> {
        let fc = self.fc.as_ref()?;
        let [_, _, _, c5] = self.features(x, |_, _| {});
        Some(fc.forward(global_avg_pool(c5)))
    }
}

/// A residual unit, basic or bottleneck.
#[derive(Module, Debug)]
pub struct Block {
    /// 3×3 (basic) or 1×1 (bottleneck).
    pub conv1: Conv2d,
    /// Norm after the first convolution.
    pub bn1: BatchNorm2d,
    /// 3×3.
    pub conv2: Conv2d,
    /// Norm after the second convolution.
    pub bn2: BatchNorm2d,
    /// 1×1 to four times the width, in a bottleneck.
    pub conv3: Option<Conv2d>,
    /// Norm after the third convolution.
    pub bn3: Option<BatchNorm2d>,
    /// 1×1 and norm on the short cut, where the shape changes.
    pub downsample: Option<(Conv2d, BatchNorm2d)>,
}

impl Block {
    // x: [N, C, H, W] -> [N, C', H/s, W/s]
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = norm_relu_conv(&self.bn1, &self.conv2, self.conv1.forward(x.clone()));
        let y = match (&self.conv3, &self.bn3) {
            (Some(conv3), Some(bn3)) => bn3.forward(norm_relu_conv(&self.bn2, conv3, y)),
            _ => self.bn2.forward(y),
        };
        let short_cut = match &self.downsample {
            Some((conv, norm)) => norm.forward(conv.forward(x)),
            None => x,
        };
        add_relu(y, short_cut)
    }
}
