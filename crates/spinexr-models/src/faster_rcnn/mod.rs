//! Faster R-CNN: two-stage detection on a feature pyramid.
//!
//! Papers: Ren et al., "Faster R-CNN" (arXiv 1506.01497); Lin et al., "Feature Pyramid Networks" (arXiv 1612.03144).
//! Reference: `torchvision.models.detection.faster_rcnn`; module paths mirror its state dict. Deviations: any number of
//! input channels, and samples that are a pure function of a seed. This file assembles the parts: the first stage
//! [`rpn`], the second [`roi_heads`], what takes part in training [`sampler`], the losses [`loss`], boxes from outputs
//! [`detect`], the network prepared for the CPU [`inference`].

pub mod detect;
pub mod inference;
pub mod loss;
pub mod roi_heads;
pub mod rpn;
pub mod sampler;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use self::inference::FasterRcnnInference;
pub use self::loss::FasterRcnnLoss;
pub use self::roi_heads::{RoiConfig, RoiHeads, RoiOutput};
pub use self::rpn::{Proposal, ProposalConfig, Rpn, RpnConfig, RpnOutput};
pub use self::sampler::{SampleOrder, SamplerConfig};
use crate::anchors::AnchorConfig;
use crate::fpn::{self, ExtraLevels, FpnConfig};
use crate::init::{Draw, initialise};
use crate::matcher::MatcherConfig;
use crate::resnet::{self, NormMode, ResNetConfig};
use crate::retinanet::Backbone;

/// The measures of a Faster R-CNN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FasterRcnnConfig {
    /// Classes, background not counted.
    pub num_classes: usize,
    /// The backbone.
    pub backbone: ResNetConfig,
    /// Finest map of the backbone that the pyramid takes: 2 for C2 (a quarter of the size) to 5 for C5.
    pub finest_level: usize,
    /// Channels of the pyramid and the first stage.
    pub fpn_channels: usize,
    /// Levels above C5. Boxes are not pooled from them.
    pub extra_levels: ExtraLevels,
    /// The first stage.
    pub rpn: RpnConfig,
    /// The second stage.
    pub roi: RoiConfig,
}

impl FasterRcnnConfig {
    /// ResNet-50, P2–P6, frozen norms, seven classes: torchvision's `fasterrcnn_resnet50_fpn`.
    pub fn resnet50() -> Self {
        Self {
            num_classes: 7,
            backbone: ResNetConfig::resnet50().with_norm(NormMode::Frozen),
            finest_level: 2,
            fpn_channels: 256,
            extra_levels: ExtraLevels::MaxPool,
            rpn: RpnConfig::published(),
            roi: RoiConfig::published(),
        }
    }

    /// A small network for films of about 384×256 px in one channel, trained from nothing in minutes on a CPU:
    /// P3–P5, live norms, anchors of 16–128 px for findings of 14–160 px, few proposals.
    pub fn mini() -> Self {
        let published = Self::resnet50();
        let proposals = |count| ProposalConfig { top_k_per_level: count, nms_iou: 0.7, max_proposals: count };
        Self {
            backbone: ResNetConfig::mini(),
            finest_level: 3,
            fpn_channels: 48,
            extra_levels: ExtraLevels::None,
            rpn: RpnConfig {
                anchors: AnchorConfig {
                    sizes_px: vec![vec![18.0, 27.0], vec![38.0, 54.0], vec![76.0, 108.0]],
                    aspect_ratios: vec![0.45, 1.0, 2.0],
                },
                matcher: MatcherConfig { foreground_iou: 0.6, ..published.rpn.matcher },
                sampler: SamplerConfig { per_image: 128, ..published.rpn.sampler },
                training: proposals(300),
                inference: proposals(150),
                ..published.rpn
            },
            roi: RoiConfig {
                pooled_levels: 3,
                hidden: 128,
                sampler: SamplerConfig { per_image: 64, ..published.roi.sampler },
                ..published.roi
            },
            ..published
        }
    }

    /// With another number of classes.
    pub fn with_num_classes(self, num_classes: usize) -> Self {
        Self { num_classes, ..self }
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

    /// The network with weights drawn from seed 0; see [`FasterRcnnConfig::init_seeded`].
    pub fn init(&self, device: &Device) -> FasterRcnn {
        self.init_seeded(0, device)
    }

    /// The network with weights drawn by torchvision's scheme as a pure function of `seed`.
    ///
    /// # Panics
    /// When the levels, the anchors' size lists, the pooled levels or `finest_level` do not agree.
    pub fn init_seeded(&self, seed: u64, device: &Device) -> FasterRcnn {
        let pooled = self.fpn_channels * self.roi.bins * self.roi.bins;
        initialise(self.build(device), seed, |name, shape| {
            if name.starts_with("backbone.body.") {
                resnet::scheme(name, shape)
            } else if name.starts_with("backbone.fpn.") {
                fpn::scheme(name, shape)
            } else if name.contains(".box_head.fc6.") {
                Draw::torch_linear(pooled)
            } else if name.starts_with("roi_heads.") {
                Draw::torch_linear(self.roi.hidden)
            } else if name.ends_with("weight") {
                Draw::Normal { std: 0.01 }
            } else {
                Draw::Constant(0.0)
            }
        })
    }

    fn build(&self, device: &Device) -> FasterRcnn {
        let fpn = self.fpn();
        let (levels, anchors) = (fpn.levels(), &self.rpn.anchors);
        assert!(
            anchors.is_consistent() && anchors.sizes_px.len() == levels,
            "the pyramid has {levels} levels, which need as many lists of as many anchor sizes, found {:?}",
            anchors.sizes_px
        );
        let pooled = self.roi.pooled_levels;
        assert!((1..=levels).contains(&pooled), "{pooled} levels to pool from, the pyramid has {levels}");
        FasterRcnn {
            backbone: Backbone { body: self.backbone.build(device), fpn: fpn.build(device) },
            rpn: self.rpn.build(self.fpn_channels, device),
            roi_heads: self.roi.build(self.fpn_channels, self.num_classes, device),
            config: self.clone(),
        }
    }
}

/// A Faster R-CNN.
#[derive(Module, Debug)]
pub struct FasterRcnn {
    /// From the image to the pyramid.
    pub backbone: Backbone,
    /// From the pyramid to proposals.
    pub rpn: Rpn,
    /// From proposals to classes and boxes.
    pub roi_heads: RoiHeads,
    /// What it was built from.
    #[module(skip)]
    pub config: FasterRcnnConfig,
}

impl FasterRcnn {
    /// The maps of the pyramid, finest first.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]`, H and W multiples of 32 → `[N, fpn_channels, H/2^level, W/2^level]` for each level
    pub fn pyramid(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let maps = self.backbone.body.features(x, |_, _| {});
        self.backbone.fpn.forward(maps.into_iter().skip(self.config.finest_level - 2).collect())
    }

    /// The first stage.
    ///
    /// # Shapes
    /// `maps`: the pyramid of images of `image_size` (height, width, px), padding included
    pub fn propose(&self, maps: &[Tensor<4>], image_size: (usize, usize)) -> RpnOutput {
        self.rpn.forward(maps, image_size, &self.config.rpn.anchors)
    }

    /// Index of the map that a box (`x1, y1, x2, y2`, input pixels) is pooled from.
    pub(crate) fn pooled_level(&self, xyxy: [f32; 4]) -> usize {
        let RoiConfig { pooled_levels, .. } = self.config.roi;
        self.config.roi.pooler(self.config.finest_level).level(xyxy, pooled_levels)
    }

    /// The features of boxes that the second stage takes.
    ///
    /// # Shapes
    /// - `maps`: the pyramid
    /// - `boxes`: one list for each of N images, input pixels
    /// - result: `[R, fpn_channels, bins, bins]` for R boxes in all
    pub fn pool(&self, maps: &[Tensor<4>], boxes: &[Vec<[f32; 4]>]) -> Tensor<4> {
        let RoiConfig { pooled_levels, .. } = self.config.roi;
        self.config.roi.pooler(self.config.finest_level).forward(&maps[..pooled_levels], boxes)
    }
}
