//! RetinaNet: one-stage detection on a feature pyramid.
//!
//! Paper: Lin et al., "Focal Loss for Dense Object Detection" (arXiv 1708.02002). Reference:
//! `torchvision.models.detection.retinanet`; module paths mirror its state dict. Deviations: any number of
//! input channels, and heads that may carry a batch norm of their own for each level, which makes training
//! without pretrained weights possible. This file assembles the parts; the heads are in
//! [`crate::retinanet_head`], matching and loss in [`crate::retinanet_loss`], boxes from outputs in
//! [`crate::retinanet_detect`].

use burn::module::Module;
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::anchors::{AnchorConfig, Anchors};
use crate::fpn::{self, ExtraLevels, Fpn, FpnConfig};
use crate::init::{Draw, initialise};
use crate::matcher::MatcherConfig;
use crate::resnet::{self, NormMode, ResNet, ResNetConfig};
use crate::retinanet_head::HeadConfig;
pub use crate::retinanet_head::{Head, HeadNorm};
pub use crate::retinanet_loss::{LossConfig, RegressionLoss, RetinaNetLoss};

/// The measures of a RetinaNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetinaNetConfig {
    /// Classes, background not counted.
    pub num_classes: usize,
    /// The backbone.
    pub backbone: ResNetConfig,
    /// Finest map of the backbone that the pyramid takes: 2 for C2 (a quarter of the size) to 5 for C5.
    pub finest_level: usize,
    /// Channels of the pyramid and the heads.
    pub fpn_channels: usize,
    /// Levels above C5.
    pub extra_levels: ExtraLevels,
    /// Anchors, one list of sizes for each level of the pyramid.
    pub anchors: AnchorConfig,
    /// 3×3 convolutions of each head before its last.
    pub head_convs: usize,
    /// Norm after each of them.
    pub head_norm: HeadNorm,
    /// Probability of a finding that the untrained network gives each anchor and class.
    pub prior_probability: f64,
    /// Which anchors answer for a true box.
    pub matcher: MatcherConfig,
    /// The losses.
    pub loss: LossConfig,
}

impl RetinaNetConfig {
    fn published(backbone: ResNetConfig) -> Self {
        Self {
            num_classes: 7,
            backbone: backbone.with_norm(NormMode::Frozen),
            finest_level: 3,
            fpn_channels: 256,
            extra_levels: ExtraLevels::P6P7OnP5,
            anchors: AnchorConfig::retinanet(),
            head_convs: 4,
            head_norm: HeadNorm::None,
            prior_probability: 0.01,
            matcher: MatcherConfig::RETINANET,
            loss: LossConfig::RETINANET,
        }
    }

    /// ResNet-18, P3–P7, frozen norms, seven classes.
    pub fn resnet18() -> Self {
        Self::published(ResNetConfig::resnet18())
    }

    /// ResNet-50, P3–P7, frozen norms, seven classes: torchvision's `retinanet_resnet50_fpn`.
    pub fn resnet50() -> Self {
        Self::published(ResNetConfig::resnet50())
    }

    /// A small network for films of about 384×256 px in one channel, trained from nothing in minutes on a CPU:
    /// P3–P5, live norms everywhere, anchors of 16–128 px for findings of 14–160 px, one convolution a head.
    pub fn mini() -> Self {
        Self {
            backbone: ResNetConfig::mini(),
            fpn_channels: 48,
            extra_levels: ExtraLevels::None,
            anchors: AnchorConfig {
                sizes_px: vec![vec![18.0, 27.0], vec![38.0, 54.0], vec![76.0, 108.0]],
                aspect_ratios: vec![0.45, 1.0, 2.0],
            },
            head_convs: 1,
            head_norm: HeadNorm::BatchPerLevel,
            matcher: MatcherConfig { foreground_iou: 0.45, background_iou: 0.35, ..MatcherConfig::RETINANET },
            ..Self::published(ResNetConfig::mini())
        }
    }

    /// With another number of classes.
    pub fn with_num_classes(self, num_classes: usize) -> Self {
        Self { num_classes, ..self }
    }

    /// The anchors of an image of `height` × `width` px, which is padded to a multiple of 32 first, in the order of
    /// the network's outputs.
    pub fn anchors_of(&self, height: usize, width: usize) -> Anchors {
        let size = (height.next_multiple_of(SIZE_DIVISOR), width.next_multiple_of(SIZE_DIVISOR));
        // Every step to a coarser level halves and rounds up.
        let levels = self.finest_level..self.finest_level + self.fpn().levels();
        let maps: Vec<(usize, usize)> =
            levels.map(|level| (size.0.div_ceil(1 << level), size.1.div_ceil(1 << level))).collect();
        self.anchors.generate(size, &maps)
    }

    /// The pyramid's configuration.
    ///
    /// # Panics
    /// When `finest_level` is not 2 to 5.
    fn fpn(&self) -> FpnConfig {
        assert!((2..=5).contains(&self.finest_level), "finest level {} is not 2 to 5", self.finest_level);
        FpnConfig {
            in_channels: self.backbone.out_channels()[self.finest_level - 2..].to_vec(),
            out_channels: self.fpn_channels,
            extra: self.extra_levels,
        }
    }

    /// The network with weights drawn from seed 0; see [`RetinaNetConfig::init_seeded`].
    pub fn init(&self, device: &Device) -> RetinaNet {
        self.init_seeded(0, device)
    }

    /// The network with weights drawn by torchvision's scheme as a pure function of `seed`. Convolutions that
    /// a norm follows in the heads are drawn by Kaiming's scheme instead.
    ///
    /// # Panics
    /// When the levels, the anchors' size lists or `finest_level` do not agree.
    pub fn init_seeded(&self, seed: u64, device: &Device) -> RetinaNet {
        let prior_bias = -((1.0 - self.prior_probability) / self.prior_probability).ln() as f32;
        let normed_heads = self.head_norm != HeadNorm::None;
        initialise(self.build(device), seed, |name, shape| {
            if name.starts_with("backbone.body.") {
                resnet::scheme(name, shape)
            } else if name.starts_with("backbone.fpn.") {
                fpn::scheme(name, shape)
            } else if name.ends_with("cls_logits.bias") {
                Draw::Constant(prior_bias)
            } else if shape.len() == 4 && normed_heads && name.contains(".conv.") {
                Draw::kaiming_fan_in(shape)
            } else if shape.len() == 4 {
                Draw::Normal { std: 0.01 }
            } else if name.ends_with("weight") {
                Draw::Constant(1.0) // a norm's
            } else {
                Draw::Constant(0.0)
            }
        })
    }

    fn build(&self, device: &Device) -> RetinaNet {
        let fpn = self.fpn();
        let levels = fpn.levels();
        assert!(
            self.anchors.is_consistent() && self.anchors.sizes_px.len() == levels,
            "the pyramid has {levels} levels, which need as many lists of as many anchor sizes, found {:?}",
            self.anchors.sizes_px
        );
        let head = HeadConfig {
            channels: self.fpn_channels,
            convs: self.head_convs,
            norm: self.head_norm,
            levels,
            anchors: self.anchors.per_location(),
        };
        RetinaNet {
            backbone: Backbone { body: self.backbone.build(device), fpn: fpn.build(device) },
            head: head.init(self.num_classes, device),
            config: self.clone(),
        }
    }
}

/// A RetinaNet.
#[derive(Module, Debug)]
pub struct RetinaNet {
    /// From the image to the pyramid.
    pub backbone: Backbone,
    /// From the pyramid to logits and offsets.
    pub head: Head,
    /// What it was built from.
    #[module(skip)]
    pub config: RetinaNetConfig,
}

/// Residual network and pyramid.
#[derive(Module, Debug)]
pub struct Backbone {
    /// To C2–C5.
    pub body: ResNet,
    /// To P3–P7, or as configured.
    pub fpn: Fpn,
}

/// What a RetinaNet says about a batch of images: N images, A anchors, K classes.
#[derive(Debug, Clone)]
pub struct RetinaNetOutput {
    /// `[N, A, K]`, independent logits.
    pub class_logits: Tensor<3>,
    /// `[N, A, 4]`, offsets `dx, dy, dw, dh` from the anchors.
    pub box_deltas: Tensor<3>,
    /// The A anchors in input pixels, the same for every image.
    pub anchors: Anchors,
}

/// Images are padded at the bottom and the right to a multiple of this, as torchvision does.
pub(crate) const SIZE_DIVISOR: usize = 32;

// x: [N, C, H, W] -> the same with zeros at the bottom and the right, up to a multiple of SIZE_DIVISOR
pub(crate) fn padded_input(x: Tensor<4>) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    let padded = (height.next_multiple_of(SIZE_DIVISOR), width.next_multiple_of(SIZE_DIVISOR));
    if padded == (height, width) {
        return x;
    }
    x.pad((0, padded.1 - width, 0, padded.0 - height), PadMode::Constant(0.0))
}

impl RetinaNet {
    /// Logits and offsets for every anchor.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]`, normalised, any H and W from 1 (zeros are added up to a multiple of 32)
    pub fn forward(&self, x: Tensor<4>) -> RetinaNetOutput {
        let x = padded_input(x);
        let [_, _, height, width] = x.dims();
        self.of_maps(&self.pyramid(x), (height, width))
    }

    /// [`RetinaNet::forward`] on the pyramid of images of `image_size` (height, width, px), padding included.
    pub(crate) fn of_maps(&self, maps: &[Tensor<4>], image_size: (usize, usize)) -> RetinaNetOutput {
        let sizes: Vec<(usize, usize)> = maps
            .iter()
            .map(|map| {
                let [_, _, h, w] = map.dims();
                (h, w)
            })
            .collect();
        let (class_logits, box_deltas) = self.head.forward(maps);
        let anchors = self.config.anchors.generate(image_size, &sizes);
        RetinaNetOutput { class_logits, box_deltas, anchors }
    }

    /// The maps of the pyramid, finest first.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]` → `[N, fpn_channels, H/2^level, W/2^level]` for each level
    pub fn pyramid(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let maps = self.backbone.body.features(x, |_, _| {});
        self.backbone.fpn.forward(maps.into_iter().skip(self.config.finest_level - 2).collect())
    }
}
