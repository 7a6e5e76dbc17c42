//! Sparse R-CNN: a fixed set of learned proposals, refined stage by stage; no anchors, no dense head.
//!
//! Paper: Sun et al., "Sparse R-CNN" (arXiv 2011.12450). Reference: the authors' network on detectron2, in the form that
//! VinDr-SpineXR uses: 100 proposals, seven classes, focal loss, suppression of doubles after all. Module paths are this
//! crate's; [`detectron2`] reads the reference's names. Deviations: any number of input channels.
//!
//! This file assembles the parts: a stage is in [`stage`], its attention in [`attention`], its dynamic interaction in
//! [`interaction`], matching and losses in [`criterion`], boxes from outputs in [`detect`].

pub mod attention;
pub mod criterion;
pub mod detect;
pub mod detectron2;
pub mod interaction;
pub mod stage;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

pub use self::criterion::{CriterionConfig, SparseRcnnLoss, StageLoss};
use self::stage::{Stage, StageConfig};
use crate::fpn::{self, ExtraLevels, FpnConfig};
use crate::init::{Draw, initialise};
use crate::resnet::{self, NormMode, ResNetConfig};
use crate::retinanet::{Backbone, padded_input};
use crate::roi_pooler::RoiPooler;
use crate::weights::map_values;

/// Level of the finest map that boxes are pooled from: a quarter of the input's size.
const FINEST_LEVEL: usize = 2;

/// The measures of a Sparse R-CNN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparseRcnnConfig {
    /// Classes, background not counted.
    pub num_classes: usize,
    /// The backbone; the pyramid has P2 to P5.
    pub backbone: ResNetConfig,
    /// Boxes that are refined on every image.
    pub num_proposals: usize,
    /// Features of a proposal, and channels of the pyramid.
    pub hidden_dim: usize,
    /// Heads of the attention between proposals.
    pub attention_heads: usize,
    /// Hidden features of the two linear layers behind the interaction.
    pub feedforward_dim: usize,
    /// Channels between the two products of the dynamic interaction.
    pub dynamic_dim: usize,
    /// Linear layers before the class logits.
    pub class_layers: usize,
    /// Linear layers before the box offsets.
    pub box_layers: usize,
    /// How often boxes are refined; every stage has weights of its own.
    pub stages: usize,
    /// Bins of a pooled box along each side.
    pub pooled_size: usize,
    /// Probability of a finding that the untrained network gives each proposal and class.
    pub prior_probability: f64,
    /// Matching and losses.
    pub criterion: CriterionConfig,
}

impl SparseRcnnConfig {
    /// VinDr-SpineXR's: ResNet-50 with frozen norms, 100 proposals, six stages, seven classes.
    pub fn resnet50() -> Self {
        Self {
            num_classes: 7,
            backbone: ResNetConfig::resnet50().with_norm(NormMode::Frozen),
            num_proposals: 100,
            hidden_dim: 256,
            attention_heads: 8,
            feedforward_dim: 2048,
            dynamic_dim: 64,
            class_layers: 1,
            box_layers: 3,
            stages: 6,
            pooled_size: 7,
            prior_probability: 0.01,
            criterion: CriterionConfig::PUBLISHED,
        }
    }

    /// A small network for films in one channel, trained from nothing on a CPU: live norms, 30 proposals, three stages.
    pub fn mini() -> Self {
        Self {
            backbone: ResNetConfig::mini(),
            num_proposals: 30,
            hidden_dim: 64,
            attention_heads: 4,
            feedforward_dim: 128,
            dynamic_dim: 16,
            box_layers: 2,
            stages: 3,
            ..Self::resnet50()
        }
    }

    /// With another number of classes.
    pub fn with_num_classes(self, num_classes: usize) -> Self {
        Self { num_classes, ..self }
    }

    fn fpn(&self) -> FpnConfig {
        FpnConfig {
            in_channels: self.backbone.out_channels().to_vec(),
            out_channels: self.hidden_dim,
            extra: ExtraLevels::None,
        }
    }

    /// The network with weights drawn from seed 0; see [`SparseRcnnConfig::init_seeded`].
    pub fn init(&self, device: &Device) -> SparseRcnn {
        self.init_seeded(0, device)
    }

    /// The network with weights drawn by the reference's scheme as a pure function of `seed`. Every proposal begins as
    /// the whole image.
    ///
    /// # Panics
    /// When there is no proposal or no stage, or the heads do not share the features equally.
    pub fn init_seeded(&self, seed: u64, device: &Device) -> SparseRcnn {
        let prior_bias = -((1.0 - self.prior_probability) / self.prior_probability).ln() as f32;
        let model = initialise(self.build(device), seed, |name, shape| {
            if name.starts_with("backbone.body.") {
                resnet::scheme(name, shape)
            } else if name.starts_with("backbone.fpn.") {
                fpn::scheme(name, shape)
            } else if name.starts_with("init_proposal_features") {
                Draw::Normal { std: 1.0 }
            } else if name.ends_with("class_logits.bias") {
                Draw::Constant(prior_bias)
            } else if shape.len() > 1 {
                Draw::xavier_uniform(shape)
            } else if name.contains("norm") {
                Draw::Constant(if name.ends_with("weight") { 1.0 } else { 0.0 })
            } else {
                self.bias_scheme(name)
            }
        });
        let whole_image = [0.5, 0.5, 1.0, 1.0].repeat(self.num_proposals);
        map_values(model, |name, _| (name == "init_proposal_boxes.weight").then(|| whole_image.clone()))
    }

    fn bias_scheme(&self, name: &str) -> Draw {
        let inputs = match name {
            _ if name.contains("self_attn") => return Draw::Constant(0.0),
            _ if name.ends_with("out_layer.bias") => self.hidden_dim * self.pooled_size * self.pooled_size,
            _ if name.ends_with("linear2.bias") => self.feedforward_dim,
            _ => self.hidden_dim,
        };
        Draw::torch_linear(inputs)
    }

    fn build(&self, device: &Device) -> SparseRcnn {
        assert!(
            self.num_proposals > 0 && self.stages > 0,
            "a Sparse R-CNN has proposals and stages, found {} and {}",
            self.num_proposals,
            self.stages
        );
        let stage = StageConfig {
            num_classes: self.num_classes,
            hidden_dim: self.hidden_dim,
            attention_heads: self.attention_heads,
            feedforward_dim: self.feedforward_dim,
            dynamic_dim: self.dynamic_dim,
            class_layers: self.class_layers,
            box_layers: self.box_layers,
            bins: self.pooled_size * self.pooled_size,
        };
        let table = |width: usize| Table {
            weight: Param::from_tensor(Tensor::zeros([self.num_proposals, width], device)),
        };
        SparseRcnn {
            backbone: Backbone { body: self.backbone.build(device), fpn: self.fpn().build(device) },
            init_proposal_features: table(self.hidden_dim),
            init_proposal_boxes: table(4),
            head: DynamicHead { head_series: (0..self.stages).map(|_| stage.init(device)).collect() },
            config: self.clone(),
        }
    }
}

/// A Sparse R-CNN.
#[derive(Module, Debug)]
pub struct SparseRcnn {
    /// From the image to P2–P5.
    pub backbone: Backbone,
    /// Features that the proposals of every image begin with, `[P, hidden]`.
    pub init_proposal_features: Table,
    /// Boxes that they begin with, `[P, 4]`: centre, width and height in shares of the image.
    pub init_proposal_boxes: Table,
    /// The stages.
    pub head: DynamicHead,
    /// What it was built from.
    #[module(skip)]
    pub config: SparseRcnnConfig,
}

/// Learned rows that belong to no input.
#[derive(Module, Debug)]
pub struct Table {
    /// `[rows, width]`.
    pub weight: Param<Tensor<2>>,
}

/// The stages, under the reference's name.
#[derive(Module, Debug)]
pub struct DynamicHead {
    /// First to last.
    pub head_series: Vec<Stage>,
}

/// What one stage says: N images, P proposals, K classes.
#[derive(Debug, Clone)]
pub struct StageOutput {
    /// `[N, P, K]`, independent logits.
    pub class_logits: Tensor<3>,
    /// `[N, P, 4]`, `x1, y1, x2, y2` in input pixels, not clipped.
    pub boxes: Tensor<3>,
    /// `[N * P, hidden]`, what the next stage begins with.
    pub features: Tensor<2>,
}

/// What all stages say about a batch of images; the last is the result.
#[derive(Debug, Clone)]
pub struct SparseRcnnOutput {
    /// First to last.
    pub stages: Vec<StageOutput>,
    /// Height and width of each image in input pixels, without padding.
    pub content_px: Vec<(f32, f32)>,
}

impl SparseRcnn {
    /// Logits and boxes of every stage.
    ///
    /// `content_px`: height and width of each image without padding, in which the proposals begin.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]`, normalised, any H and W from 1 (zeros are added up to a multiple of 32)
    ///
    /// # Panics
    /// When there is not one size for each image.
    pub fn forward(&self, x: Tensor<4>, content_px: &[(f32, f32)]) -> SparseRcnnOutput {
        let [n, _, _, _] = x.dims();
        assert_eq!(content_px.len(), n, "one size for each of {n} images");
        let maps = self.pyramid(padded_input(x));
        let pooler = self.pooler();
        let mut boxes = self.first_boxes(content_px); // [N, P, 4]
        let mut features = self.init_proposal_features.weight.val().repeat(&[n, 1]); // [N * P, hidden]
        let mut stages = Vec::with_capacity(self.head.head_series.len());
        for stage in &self.head.head_series {
            let pooled = pooler.forward(&maps, &boxes_by_image(&boxes));
            let output = stage.forward(pooled, boxes, features);
            // A stage learns from its own boxes alone.
            boxes = output.boxes.clone().detach();
            features = output.features.clone();
            stages.push(output);
        }
        SparseRcnnOutput { stages, content_px: content_px.to_vec() }
    }

    /// P2 to P5.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]` → `[N, hidden, H/2^level, W/2^level]` for each level
    pub fn pyramid(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        self.backbone.fpn.forward(self.backbone.body.features(x, |_, _| {}).to_vec())
    }

    /// The boxes that the first stage begins with, in input pixels, `[N, P, 4]`.
    pub fn first_boxes(&self, content_px: &[(f32, f32)]) -> Tensor<3> {
        let shares = self.init_proposal_boxes.weight.val(); // [P, 4]
        let (centre, half) = (shares.clone().narrow(1, 0, 2), shares.narrow(1, 2, 2).mul_scalar(0.5));
        let corners = Tensor::cat(vec![centre.clone() - half.clone(), centre + half], 1); // [P, 4]
        let sizes: Vec<f32> = content_px.iter().flat_map(|&(h, w)| [w, h, w, h]).collect();
        let sizes = TensorData::new(sizes, [content_px.len(), 1, 4]);
        corners.unsqueeze_dim::<3>(0) * Tensor::from_data(sizes, &self.init_proposal_boxes.weight.device())
    }

    /// How boxes are pooled: 2 × 2 samples a bin, pixel centres at halves.
    pub fn pooler(&self) -> RoiPooler {
        RoiPooler::detectron2(self.config.pooled_size, 2, FINEST_LEVEL as u32)
    }
}

/// The boxes of each image on the host.
// boxes: [N, P, 4] -> N × P
pub fn boxes_by_image(boxes: &Tensor<3>) -> Vec<Vec<[f32; 4]>> {
    let [_, p, _] = boxes.dims();
    let values = boxes
        .clone()
        .try_into_vec_as::<f32>()
        .expect("the network's boxes are a float tensor that can be read back");
    values.chunks_exact(p * 4).map(|image| image.as_chunks::<4>().0.to_vec()).collect()
}
