//! EfficientDet: one-stage detection on a bidirectional pyramid.
//!
//! Paper: Tan, Pang and Le, "EfficientDet" (arXiv 1911.09070). Reference: `effdet` (its `tf_efficientdet_d*`, whose
//! padding and norms are those of the authors' COCO weights, and `efficientdet_d0`); module paths mirror its state dict.
//! Deviations: any number of input channels, images of any size (zeros are added), pyramids of fewer levels. This file
//! assembles the parts: the backbone is in [`crate::efficientnet`], the pyramid in [`bifpn`], the two nets in [`head`],
//! anchors in [`anchors`], matching and losses in [`loss`], boxes from outputs in [`detect`].

pub mod anchors;
pub mod bifpn;
pub mod detect;
pub mod head;
pub mod inference;
pub mod loss;

use burn::module::Module;
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use self::anchors::ScaledAnchors;
use self::bifpn::BiFpn;
use self::head::{HeadNet, by_anchor};
pub use self::loss::{Assigned, EfficientDetLoss, LossConfig};
use crate::anchors::Anchors;
use crate::efficientnet::{self, EfficientNet, EfficientNetConfig, Padding};
use crate::init::{Draw, initialise};

/// Level of the finest map: an eighth of the size.
const FINEST_LEVEL: usize = 3;

/// The measures of an EfficientDet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficientDetConfig {
    /// Classes, background not counted.
    pub num_classes: usize,
    /// The backbone. Its padding is that of the pyramid too.
    pub backbone: EfficientNetConfig,
    /// Coarsest level of the pyramid, 5 to 7: a place is `2^level` px.
    pub coarsest_level: usize,
    /// Channels of the pyramid and the nets.
    pub fpn_channels: usize,
    /// Cells of the pyramid.
    pub fpn_repeats: usize,
    /// Convolutions of each net before its last.
    pub head_repeats: usize,
    /// Whether convolutions have a bias although a norm follows, as in the authors' weights.
    pub redundant_bias: bool,
    /// Added to a norm's variance in pyramid and nets.
    pub norm_eps: f64,
    /// Share of the new batch in a running statistic of pyramid and nets.
    pub norm_momentum: f64,
    /// Sizes and shapes of the anchors.
    pub anchors: ScaledAnchors,
    /// Probability of a finding that the untrained network gives each anchor and class.
    pub prior_probability: f64,
    /// Matching and losses.
    pub loss: LossConfig,
}

impl EfficientDetConfig {
    /// The authors' padding and biases, P3–P7, seven classes.
    fn published(backbone: EfficientNetConfig, channels: usize, cells: usize, convs: usize) -> Self {
        Self {
            num_classes: 7,
            backbone,
            coarsest_level: 7,
            fpn_channels: channels,
            fpn_repeats: cells,
            head_repeats: convs,
            redundant_bias: true,
            norm_eps: 1e-3,
            norm_momentum: 0.01,
            anchors: ScaledAnchors::published(),
            prior_probability: 0.01,
            loss: LossConfig::PUBLISHED,
        }
    }

    /// EfficientDet-D0, made for 512 px: `tf_efficientdet_d0`.
    pub fn d0() -> Self {
        Self::published(EfficientNetConfig::b0(), 64, 3, 3)
    }

    /// EfficientDet-D1, made for 640 px.
    pub fn d1() -> Self {
        Self::published(EfficientNetConfig::b1(), 88, 4, 3)
    }

    /// EfficientDet-D2, made for 768 px.
    pub fn d2() -> Self {
        Self::published(EfficientNetConfig::b2(), 112, 5, 3)
    }

    /// EfficientDet-D3, made for 896 px.
    pub fn d3() -> Self {
        Self::published(EfficientNetConfig::b3(), 160, 6, 4)
    }

    /// EfficientDet-D4, made for 1024 px.
    pub fn d4() -> Self {
        Self::published(EfficientNetConfig::b4(), 224, 7, 4)
    }

    /// A small network for films of about 384×256 px in one channel, trained from nothing in minutes on a CPU: P3–P5,
    /// anchors of 13–160 px for findings of 14–160 px.
    pub fn mini() -> Self {
        Self {
            coarsest_level: 5,
            norm_momentum: 0.1,
            redundant_bias: false,
            anchors: ScaledAnchors { scale: 2.25, ..ScaledAnchors::published() },
            ..Self::published(EfficientNetConfig::mini(), 32, 2, 1)
        }
    }

    /// With as many zeros on each side, no bias before a norm, and the backbone's norms PyTorch's: `effdet`'s own
    /// `efficientdet_d0` to `d3`.
    pub fn with_symmetric_padding(mut self) -> Self {
        self.backbone.padding = Padding::Symmetric;
        self.backbone.norm_eps = 1e-5;
        self.redundant_bias = false;
        self
    }

    /// With another number of classes.
    pub fn with_num_classes(self, num_classes: usize) -> Self {
        Self { num_classes, ..self }
    }

    /// Levels of the pyramid.
    ///
    /// # Panics
    /// When the coarsest is not 5 to 7.
    pub fn levels(&self) -> usize {
        assert!(
            (5..=7).contains(&self.coarsest_level),
            "coarsest level {} is not 5 to 7",
            self.coarsest_level
        );
        self.coarsest_level - FINEST_LEVEL + 1
    }

    /// The network with weights drawn from seed 0; see [`EfficientDetConfig::init_seeded`].
    pub fn init(&self, device: &Device) -> EfficientDet {
        self.init_seeded(0, device)
    }

    /// The network with weights drawn by the authors' scheme as a pure function of `seed`: the backbone normal by
    /// outputs, the pyramid Glorot's uniform, the nets normal by inputs, the class net's last bias by the prior.
    ///
    /// # Panics
    /// When the coarsest level is not 5 to 7.
    pub fn init_seeded(&self, seed: u64, device: &Device) -> EfficientDet {
        let prior_bias = -((1.0 - self.prior_probability) / self.prior_probability).ln() as f32;
        initialise(self.build(device), seed, |name, shape| match shape {
            _ if name.starts_with("backbone.") => efficientnet::scheme(name, shape),
            [out, input, kh, kw] => {
                let (fan_in, fan_out) = match input {
                    1 => (kh * kw, kh * kw), // depthwise
                    _ => (input * kh * kw, out * kh * kw),
                };
                if name.starts_with("fpn.") {
                    Draw::Uniform { bound: (6.0 / (fan_in + fan_out) as f64).sqrt() }
                } else {
                    Draw::Normal { std: (1.0 / fan_in as f64).sqrt() }
                }
            }
            _ if name == "class_net.predict.conv_pw.bias" => Draw::Constant(prior_bias),
            _ if name.ends_with("weight") || name.ends_with("edge_weights") => Draw::Constant(1.0),
            _ => Draw::Constant(0.0),
        })
    }

    fn build(&self, device: &Device) -> EfficientDet {
        EfficientDet {
            backbone: self.backbone.build(device),
            fpn: self.bifpn(device),
            class_net: self.head(self.num_classes, device),
            box_net: self.head(4, device),
            config: self.clone(),
        }
    }
}

/// An EfficientDet.
#[derive(Module, Debug)]
pub struct EfficientDet {
    /// To the maps of strides 8, 16 and 32.
    pub backbone: EfficientNet,
    /// To the maps of all levels.
    pub fpn: BiFpn,
    /// What.
    pub class_net: HeadNet,
    /// Where.
    pub box_net: HeadNet,
    /// What it was built from.
    #[module(skip)]
    pub config: EfficientDetConfig,
}

/// What an EfficientDet says about a batch of images: N images, A anchors, K classes.
#[derive(Debug, Clone)]
pub struct EfficientDetOutput {
    /// `[N, A, K]`.
    pub class_logits: Tensor<3>,
    /// `[N, A, 4]`, offsets `dy, dx, dh, dw` from the anchors, in the reference's order.
    pub box_offsets: Tensor<3>,
    /// The A anchors in input pixels, the same for every image.
    pub anchors: Anchors,
}

impl EfficientDet {
    /// Logits and offsets for every anchor.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]`, normalised, any H and W from 1 (zeros are added at the bottom and the right up to a multiple
    /// of the coarsest level's stride)
    pub fn forward(&self, x: Tensor<4>) -> EfficientDetOutput {
        self.run(x, None)
    }

    /// [`EfficientDet::forward`] for training: blocks of the backbone are left out at random for single films, as `draw`
    /// says.
    pub fn forward_dropping(&self, x: Tensor<4>, draw: u64) -> EfficientDetOutput {
        self.run(x, Some(draw))
    }

    fn run(&self, x: Tensor<4>, draw: Option<u64>) -> EfficientDetOutput {
        let x = self.padded_input(x);
        let [_, _, height, width] = x.dims();
        let maps = self.fpn.forward(self.backbone.features(x, draw).into());
        self.of_maps(&maps, (height, width))
    }

    /// The maps of the pyramid, finest first.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]`, H and W multiples of the coarsest level's stride → `[N, fpn_channels, H/2^level, W/2^level]`
    /// for each level
    pub fn pyramid(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        self.fpn.forward(self.backbone.features(x, None).into())
    }

    /// [`EfficientDet::forward`] on the pyramid of images of `image_size` (height, width, px), padding included.
    pub(crate) fn of_maps(&self, maps: &[Tensor<4>], image_size: (usize, usize)) -> EfficientDetOutput {
        let (height, width) = image_size;
        let levels = FINEST_LEVEL..=self.config.coarsest_level;
        EfficientDetOutput {
            class_logits: by_anchor(self.class_net.forward(maps), self.config.num_classes),
            box_offsets: by_anchor(self.box_net.forward(maps), 4),
            anchors: self.config.anchors.generate([height, width], levels),
        }
    }

    // map: [N, C, H, W] of one level -> [N, A of the level, K]
    pub(crate) fn class_logits(&self, level: usize, map: Tensor<4>) -> Tensor<3> {
        by_anchor(vec![self.class_net.of_level(level, map)], self.config.num_classes)
    }

    // x: [N, C, H, W] -> the same with zeros at the bottom and the right, up to a multiple of the coarsest level's stride
    pub(crate) fn padded_input(&self, x: Tensor<4>) -> Tensor<4> {
        padded(x, 1 << self.config.coarsest_level)
    }
}

// x: [N, C, H, W] -> the same with zeros at the bottom and the right, up to a multiple of `divisor`
fn padded(x: Tensor<4>, divisor: usize) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    let (below, right) = (height.next_multiple_of(divisor) - height, width.next_multiple_of(divisor) - width);
    if (below, right) == (0, 0) { x } else { x.pad((0, right, 0, below), PadMode::Constant(0.0)) }
}
