//! The region proposal network: from the pyramid to boxes that may show something, whatever it is.
//!
//! Reference: `torchvision.models.detection.rpn`. Proposals are chosen on the host, one film a thread. Left out: a
//! least objectness, which the reference has at 0.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use spinexr_core::BoxXyxy;
use spinexr_core::nms::nms;
use spinexr_ops::{Conv2d, Conv2dConfig, relu};

use super::sampler::SamplerConfig;
use crate::anchors::{AnchorConfig, Anchors, by_anchor};
use crate::box_coder::BoxCoder;
use crate::detector::NotFinite;
use crate::matcher::MatcherConfig;
use crate::retinanet_detect::finite;

/// The measures of a region proposal network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpnConfig {
    /// Anchors, one list of sizes for each level of the pyramid.
    pub anchors: AnchorConfig,
    /// 3×3 convolutions before the two 1×1 ones.
    pub convs: usize,
    /// Which anchors answer for a true box.
    pub matcher: MatcherConfig,
    /// Which of them take part in the loss.
    pub sampler: SamplerConfig,
    /// Proposals of an image in training.
    pub training: ProposalConfig,
    /// Proposals of an image otherwise.
    pub inference: ProposalConfig,
}

/// How many boxes become proposals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalConfig {
    /// Best boxes of each level that go into suppression.
    pub top_k_per_level: usize,
    /// Of two boxes of a level that overlap by more than this, the weaker goes.
    pub nms_iou: f32,
    /// Best proposals kept of an image.
    pub max_proposals: usize,
}

/// A proposal must be as wide and as high as this, px.
const MIN_SIZE_PX: f32 = 1e-3;

impl RpnConfig {
    /// torchvision's.
    pub fn published() -> Self {
        let proposals = |count| ProposalConfig { top_k_per_level: count, nms_iou: 0.7, max_proposals: count };
        Self {
            anchors: AnchorConfig::faster_rcnn(),
            convs: 1,
            matcher: MatcherConfig { foreground_iou: 0.7, background_iou: 0.3, low_quality_matches: true },
            sampler: SamplerConfig { per_image: 256, foreground_share: 0.5 },
            training: proposals(2000),
            inference: proposals(1000),
        }
    }

    pub(super) fn build(&self, channels: usize, device: &Device) -> Rpn {
        let anchors = self.anchors.per_location();
        let last = |outputs| Conv2dConfig::new(channels, outputs, 1).init(device);
        let head = RpnHead {
            conv: (0..self.convs)
                .map(|_| [Conv2dConfig::new(channels, channels, 3).with_padding(1).init(device)])
                .collect(),
            cls_logits: last(anchors),
            bbox_pred: last(4 * anchors),
        };
        Rpn { head }
    }
}

/// A region proposal network.
#[derive(Module, Debug)]
pub struct Rpn {
    /// From the pyramid to objectness and offsets.
    pub head: RpnHead,
}

/// Convolutions over every level of the pyramid, with the same weights.
#[derive(Module, Debug)]
pub struct RpnHead {
    /// 3×3, each before a ReLU; arrays of one, for the path `conv.0.0` of torchvision.
    pub conv: Vec<[Conv2d; 1]>,
    /// 1×1 to A channels: is there something?
    pub cls_logits: Conv2d,
    /// 1×1 to A·4 channels: where?
    pub bbox_pred: Conv2d,
}

impl RpnHead {
    /// Objectness logits and box offsets of one level with A anchors at a place.
    ///
    /// # Shapes
    /// `map`: `[N, C, H, W]` → `[N, A, H, W]`, `[N, A * 4, H, W]`
    pub fn forward(&self, map: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let x = self.conv.iter().fold(map, |x, [conv]| relu(conv.forward(x)));
        (self.cls_logits.forward(x.clone()), self.bbox_pred.forward(x))
    }
}

/// What the network says about a batch of images: N images, A anchors over all levels.
#[derive(Debug, Clone)]
pub struct RpnOutput {
    /// `[N, A]`, logits.
    pub objectness: Tensor<2>,
    /// `[N, A, 4]`, offsets `dx, dy, dw, dh` from the anchors.
    pub box_deltas: Tensor<3>,
    /// The anchors in input pixels, the same for every image.
    pub anchors: Anchors,
}

/// A box that may show something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proposal {
    /// Objectness.
    pub logit: f32,
    /// Input pixels, inside the image.
    pub xyxy: BoxXyxy,
}

impl Rpn {
    /// Objectness and offsets for every anchor of images of `image_size` (height, width, px).
    ///
    /// # Shapes
    /// `maps`: `[N, C, H_l, W_l]` for each level, finest first
    ///
    /// # Panics
    /// When there is not one list of anchor sizes for each level.
    pub fn forward(
        &self,
        maps: &[Tensor<4>],
        image_size: (usize, usize),
        anchors: &AnchorConfig,
    ) -> RpnOutput {
        let at_a_place = anchors.per_location();
        let mut sizes = Vec::with_capacity(maps.len());
        let (mut objectness, mut deltas) = (Vec::with_capacity(maps.len()), Vec::with_capacity(maps.len()));
        for map in maps {
            let [_, _, height, width] = map.dims();
            sizes.push((height, width));
            let (logits, offsets) = self.head.forward(map.clone());
            objectness.push(by_anchor(logits, at_a_place));
            deltas.push(by_anchor(offsets, at_a_place));
        }
        let objectness = Tensor::cat(objectness, 1); // [N, A, 1]
        let [n, a, _] = objectness.dims();
        RpnOutput {
            objectness: objectness.reshape([n, a]),
            box_deltas: Tensor::cat(deltas, 1),
            anchors: anchors.generate(image_size, &sizes),
        }
    }
}

impl RpnOutput {
    /// The proposals of each image, best first; [`NotFinite`] for an image with a NaN or an infinity.
    ///
    /// `content_px`: height and width of each image in input pixels, without padding; boxes are clipped to it.
    ///
    /// # Panics
    /// When there is not one size for each image.
    pub fn proposals(
        &self,
        content_px: &[(f32, f32)],
        config: &ProposalConfig,
    ) -> Vec<Result<Vec<Proposal>, NotFinite>> {
        let [n, a] = self.objectness.dims();
        assert_eq!(content_px.len(), n, "one size for each of {n} images");
        if a == 0 {
            return vec![Ok(Vec::new()); n];
        }
        const READ: &str = "the network's output is a float tensor that can be read back";
        let logits = self.objectness.clone().try_into_vec_as::<f32>().expect(READ);
        let deltas = self.box_deltas.clone().try_into_vec_as::<f32>().expect(READ);
        logits
            .par_chunks(a)
            .zip(deltas.par_chunks(a * 4))
            .zip(content_px)
            .map(|((logits, deltas), &size)| propose(logits, deltas, &self.anchors, size, config))
            .collect()
    }
}

/// The proposals of one image, best first.
pub(super) fn propose(
    logits: &[f32],
    deltas: &[f32],
    anchors: &Anchors,
    (height, width): (f32, f32),
    config: &ProposalConfig,
) -> Result<Vec<Proposal>, NotFinite> {
    finite(logits, "objectness logits")?;
    finite(deltas, "proposal offsets")?;
    let mut proposals: Vec<Proposal> = Vec::new();
    let mut start = 0;
    for &count in &anchors.per_level {
        // Best first, of equals the first.
        let better = |x: &usize, y: &usize| logits[*y].total_cmp(&logits[*x]).then(x.cmp(y));
        let mut best: Vec<usize> = (start..start + count).collect();
        if config.top_k_per_level < count {
            best.select_nth_unstable_by(config.top_k_per_level, better);
            best.truncate(config.top_k_per_level);
        }
        best.sort_unstable_by(better);
        let mut level: Vec<Proposal> = best
            .into_iter()
            .map(|anchor| {
                let offsets = [0, 1, 2, 3].map(|i| deltas[anchor * 4 + i]);
                let decoded = BoxCoder::UNIT.decode(offsets, &anchors.boxes[anchor]);
                Proposal { logit: logits[anchor], xyxy: decoded.clip(width, height) }
            })
            .collect();
        // Offsets may be finite and yet lead to a box that is not; no comparison holds for it.
        level.retain(|p| p.xyxy.width() >= MIN_SIZE_PX && p.xyxy.height() >= MIN_SIZE_PX);
        let boxes: Vec<BoxXyxy> = level.iter().map(|p| p.xyxy).collect();
        let scores: Vec<f32> = level.iter().map(|p| p.logit).collect();
        proposals.extend(nms(&boxes, &scores, config.nms_iou).into_iter().map(|i| level[i]));
        start += count;
    }
    proposals.sort_by(|x, y| y.logit.total_cmp(&x.logit)); // stable: of equals the finer level
    proposals.truncate(config.max_proposals);
    Ok(proposals)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: ProposalConfig = ProposalConfig { top_k_per_level: 10, nms_iou: 0.7, max_proposals: 10 };

    /// Three anchors of a level, of which the first two overlap by 9/11, and one of another at the first's place.
    fn anchors() -> Anchors {
        let at = |x: f32| BoxXyxy::new(x, 0.0, x + 10.0, 10.0);
        Anchors { boxes: vec![at(0.0), at(1.0), at(50.0), at(0.0)], per_level: vec![3, 1] }
    }

    fn lefts(logits: [f32; 4], deltas: &[f32; 16], content: (f32, f32), config: &ProposalConfig) -> Vec<f32> {
        let found = propose(&logits, deltas, &anchors(), content, config).unwrap();
        assert!(found.windows(2).all(|pair| pair[0].logit >= pair[1].logit));
        found.iter().map(|p| p.xyxy.x1).collect()
    }

    #[test]
    fn suppresses_within_a_level_and_sorts_over_all() {
        assert_eq!(lefts([1.0, 2.0, 0.0, 3.0], &[0.0; 16], (20.0, 200.0), &ALL), [0.0, 1.0, 50.0]);
        let loose = ProposalConfig { nms_iou: 0.9, ..ALL };
        assert_eq!(lefts([1.0, 2.0, 0.0, 3.0], &[0.0; 16], (20.0, 200.0), &loose), [0.0, 1.0, 0.0, 50.0]);
    }

    #[test]
    fn limits_hold_by_level_and_by_image() {
        let one = ProposalConfig { top_k_per_level: 1, ..ALL };
        assert_eq!(lefts([1.0, 2.0, 4.0, 3.0], &[0.0; 16], (20.0, 200.0), &one), [50.0, 0.0]);
        let two = ProposalConfig { max_proposals: 2, ..ALL };
        assert_eq!(lefts([1.0, 2.0, 4.0, 3.0], &[0.0; 16], (20.0, 200.0), &two), [50.0, 0.0]);
    }

    #[test]
    fn what_lies_outside_the_film_is_no_proposal() {
        assert_eq!(lefts([1.0, 0.0, 4.0, -1.0], &[0.0; 16], (20.0, 40.0), &ALL), [0.0, 0.0]);
        assert!(lefts([0.0; 4], &[0.0; 16], (0.0, 0.0), &ALL).is_empty());
    }

    #[test]
    fn equal_scores_keep_the_order_of_the_anchors() {
        let loose = ProposalConfig { nms_iou: 1.0, ..ALL };
        assert_eq!(lefts([2.0; 4], &[0.0; 16], (20.0, 200.0), &loose), [0.0, 1.0, 50.0, 0.0]);
    }

    #[test]
    fn what_is_not_finite_is_said() {
        let mut deltas = [0.0; 16];
        let run =
            |logits: [f32; 4], deltas: &[f32; 16]| propose(&logits, deltas, &anchors(), (9.0, 9.0), &ALL);
        let error = run([0.0, f32::NAN, 0.0, 0.0], &deltas).unwrap_err();
        assert_eq!(error.to_string(), "the network's objectness logits are not finite");
        deltas[5] = f32::INFINITY;
        let error = run([0.0; 4], &deltas).unwrap_err();
        assert_eq!(error.to_string(), "the network's proposal offsets are not finite");
        deltas[5] = -3e38; // finite, and its box is not
        let found = run([0.0; 4], &deltas).unwrap();
        assert!(found.iter().all(|p| p.xyxy.is_finite()), "{found:?}");
    }
}
