//! What detectors have in common, whatever their paper: losses from images and true boxes, boxes from images.
//!
//! Each detector keeps its own `forward` and `loss` with outputs of its own kind. [`Detect`] is what evaluation and
//! prediction need of it, [`Detector`] what training needs, [`DetectorConfig`] its measures by family.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use spinexr_core::BoxXyxy;

use crate::efficientdet::EfficientDetConfig;
use crate::efficientdet::inference::EfficientDetInference;
use crate::explain::{ExplainBoxes, for_explaining};
use crate::faster_rcnn::{FasterRcnnConfig, FasterRcnnInference};
use crate::resnet::NormMode;
use crate::retinanet::RetinaNetConfig;
use crate::retinanet_inference::RetinaNetInference;
use crate::sparse_rcnn::SparseRcnnConfig;
use crate::sparse_rcnn::inference::SparseRcnnInference;
use crate::weights::{self, StateDict, Strictness, WeightsError};

/// A true box of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// From 0, background not counted.
    pub class: usize,
    /// `x1, y1, x2, y2` in input pixels.
    pub xyxy: [f32; 4],
}

/// A box the network proposes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawDetection {
    /// From 0.
    pub class: usize,
    /// Of the class against all else: the score is its sigmoid.
    pub logit: f32,
    /// Probability of the class.
    pub score: f32,
    /// Input pixels, inside the image.
    pub xyxy: BoxXyxy,
}

/// Which candidates become detections.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectConfig {
    /// A score must be greater than this.
    pub score_threshold: f32,
    /// Candidates (place and class) kept of each level of the pyramid; EfficientDet keeps as many of all together.
    pub top_k_per_level: usize,
    /// Of two boxes of a class that overlap by more than this, the weaker goes.
    pub nms_iou: f32,
    /// Detections kept of an image.
    pub max_detections: usize,
}

impl DetectConfig {
    /// torchvision's: 0.05, 1000, 0.5, 300.
    pub const RETINANET: Self =
        Self { score_threshold: 0.05, top_k_per_level: 1000, nms_iou: 0.5, max_detections: 300 };

    /// torchvision's: 0.05, 1000 boxes of each level into the first stage's suppression, 0.5, 100.
    pub const FASTER_RCNN: Self = Self { max_detections: 100, ..Self::RETINANET };
}

/// A network gave a NaN or an infinity for an image: which of its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the network's {0} are not finite")]
pub struct NotFinite(pub &'static str);

/// Finds boxes in images.
pub trait Detect: std::fmt::Debug {
    /// The detections of each image, best first; [`NotFinite`] for an image whose raw output is not finite, which
    /// leaves the other images as they are.
    ///
    /// `images`: `[N, C, H, W]`, normalised. `content_px`: height and width of each image in input pixels, without
    /// padding; boxes are clipped to it.
    ///
    /// # Panics
    /// When there is not one size for each image.
    fn detect(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>>;
}

/// A detector that can be trained.
pub trait Detector: Module + Detect {
    /// Its measures.
    type Config;

    /// The measures of this family; `None` for another family's.
    fn config_of(config: &DetectorConfig) -> Option<&Self::Config>;

    /// The network with weights that are a pure function of `seed`.
    fn init_seeded(config: &Self::Config, seed: u64, device: &Device) -> Self;

    /// Parts of the loss of a batch by name, each `[1]` with its graph; they are to be summed.
    ///
    /// `images`, `content_px`: as in [`Detect::detect`]. `targets`: the true boxes of each image. `draw`: the seed of
    /// whatever is drawn at random; the same draw gives the same losses.
    ///
    /// # Panics
    /// When there is not one size and one list of targets for each image, or a class is not below the number of
    /// classes.
    fn losses(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        targets: &[Vec<Target>],
        draw: u64,
    ) -> Vec<(&'static str, Tensor<1>)>;
}

/// The measures of a detector.
#[derive(Debug, Clone, PartialEq)]
pub enum DetectorConfig {
    /// One stage, focal loss.
    RetinaNet(RetinaNetConfig),
    /// Learned proposals, refined in stages.
    SparseRcnn(SparseRcnnConfig),
    /// Two stages, the second with a softmax over classes and background.
    FasterRcnn(FasterRcnnConfig),
    /// One stage, focal loss, on a bidirectional pyramid.
    EfficientDet(EfficientDetConfig),
}

impl DetectorConfig {
    /// With another number of classes, background not counted.
    pub fn with_num_classes(self, num_classes: usize) -> Self {
        match self {
            Self::RetinaNet(config) => Self::RetinaNet(config.with_num_classes(num_classes)),
            Self::SparseRcnn(config) => Self::SparseRcnn(config.with_num_classes(num_classes)),
            Self::FasterRcnn(config) => Self::FasterRcnn(config.with_num_classes(num_classes)),
            Self::EfficientDet(config) => Self::EfficientDet(config.with_num_classes(num_classes)),
        }
    }

    /// Channels of the input image.
    pub fn in_channels(&self) -> usize {
        match self {
            Self::RetinaNet(config) => config.backbone.in_channels,
            Self::SparseRcnn(config) => config.backbone.in_channels,
            Self::FasterRcnn(config) => config.backbone.in_channels,
            Self::EfficientDet(config) => config.backbone.in_channels,
        }
    }

    /// With another number of input channels.
    pub fn with_in_channels(mut self, in_channels: usize) -> Self {
        match &mut self {
            Self::RetinaNet(config) => config.backbone.in_channels = in_channels,
            Self::SparseRcnn(config) => config.backbone.in_channels = in_channels,
            Self::FasterRcnn(config) => config.backbone.in_channels = in_channels,
            Self::EfficientDet(config) => config.backbone.in_channels = in_channels,
        }
        self
    }

    /// With the norms of its backbone live or frozen. Names and shapes of the weights stay the same.
    pub fn with_norms(mut self, norms: NormMode) -> Self {
        match &mut self {
            Self::RetinaNet(config) => config.backbone.norm = norms,
            Self::SparseRcnn(config) => config.backbone.norm = norms,
            Self::FasterRcnn(config) => config.backbone.norm = norms,
            Self::EfficientDet(config) => config.backbone.norm = norms,
        }
        self
    }

    /// The weight of the first convolution, which tells the channels of the input: `[out, in, kh, kw]`.
    pub fn stem_weight(&self) -> &'static str {
        match self {
            Self::RetinaNet(_) | Self::SparseRcnn(_) | Self::FasterRcnn(_) => "backbone.body.conv1.weight",
            Self::EfficientDet(_) => "backbone.conv_stem.weight",
        }
    }

    /// How many classes the weights in `state` are for, with whatever the reference counts as background; `None`
    /// without their last layer.
    pub fn classes_in(&self, state: &StateDict) -> Option<usize> {
        match self {
            Self::RetinaNet(config) => {
                let outputs = state.get("head.classification_head.cls_logits.bias")?.values.len();
                Some(outputs / config.anchors.per_location())
            }
            Self::SparseRcnn(_) => Some(state.get("head.head_series.0.class_logits.bias")?.values.len()),
            // The first of its classes is the background, which its own configuration does not count.
            Self::FasterRcnn(_) => {
                state.get("roi_heads.box_predictor.cls_score.bias")?.values.len().checked_sub(1)
            }
            Self::EfficientDet(config) => {
                let outputs = state.get("class_net.predict.conv_pw.bias")?.values.len();
                Some(outputs / config.anchors.per_location())
            }
        }
    }

    /// How its reference turns outputs into boxes.
    pub fn detect_config(&self) -> DetectConfig {
        match self {
            Self::RetinaNet(_) => DetectConfig::RETINANET,
            Self::SparseRcnn(_) => DetectConfig::SPARSE_RCNN,
            Self::FasterRcnn(_) => DetectConfig::FASTER_RCNN,
            Self::EfficientDet(_) => DetectConfig::EFFICIENTDET,
        }
    }

    /// The state dict of the network with weights drawn from `seed`.
    pub fn state_dict_seeded(&self, seed: u64) -> StateDict {
        let device = Device::flex();
        match self {
            Self::RetinaNet(config) => weights::state_dict(&config.init_seeded(seed, &device)),
            Self::SparseRcnn(config) => weights::state_dict(&config.init_seeded(seed, &device)),
            Self::FasterRcnn(config) => weights::state_dict(&config.init_seeded(seed, &device)),
            Self::EfficientDet(config) => weights::state_dict(&config.init_seeded(seed, &device)),
        }
    }

    /// The network with these weights, to be run only: on the CPU in its prepared form.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`] when the names or shapes are not exactly the network's.
    pub fn load(
        &self,
        state: &StateDict,
        device: &Device,
    ) -> Result<Box<dyn Detect + Send + Sync>, WeightsError> {
        let on_cpu = *device == Device::flex();
        match self {
            Self::RetinaNet(config) => {
                let network = weights::load_state_dict(config.init(device), state, Strictness::Exact)?;
                Ok(if on_cpu { Box::new(RetinaNetInference::new(&network)) } else { Box::new(network) })
            }
            Self::SparseRcnn(config) => {
                let network = weights::load_state_dict(config.init(device), state, Strictness::Exact)?;
                Ok(if on_cpu { Box::new(SparseRcnnInference::new(network)) } else { Box::new(network) })
            }
            Self::FasterRcnn(config) => {
                let network = weights::load_state_dict(config.init(device), state, Strictness::Exact)?;
                Ok(if on_cpu { Box::new(FasterRcnnInference::new(&network)) } else { Box::new(network) })
            }
            Self::EfficientDet(config) => {
                let network = weights::load_state_dict(config.init(device), state, Strictness::Exact)?;
                Ok(if on_cpu { Box::new(EfficientDetInference::new(&network)) } else { Box::new(network) })
            }
        }
    }

    /// The network with these weights, to be asked what spoke for its boxes, on a device with autodiff.
    ///
    /// # Errors
    /// As [`DetectorConfig::load`].
    pub fn load_to_explain(
        &self,
        state: &StateDict,
        device: &Device,
    ) -> Result<Box<dyn ExplainBoxes + Send + Sync>, WeightsError> {
        fn loaded<D: Module + ExplainBoxes + Send + Sync + 'static>(
            network: D,
            state: &StateDict,
        ) -> Result<Box<dyn ExplainBoxes + Send + Sync>, WeightsError> {
            Ok(Box::new(for_explaining(weights::load_state_dict(network, state, Strictness::Exact)?)))
        }
        match self {
            Self::RetinaNet(config) => loaded(config.init(device), state),
            Self::SparseRcnn(config) => loaded(config.init(device), state),
            Self::FasterRcnn(config) => loaded(config.init(device), state),
            Self::EfficientDet(config) => loaded(config.init(device), state),
        }
    }
}
