//! A Faster R-CNN prepared for the CPU: what [`FasterRcnn::forward`] computes, with backbone, pyramid and first stage
//! run without tensors in between. The second stage, of which nearly all is one matrix product, is the module's own.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use spinexr_ops::inference::{Finish, Maps, Norms, PreparedConv};

use super::detect::{ImageOutput, detect};
use super::rpn::{Proposal, propose};
use super::{FasterRcnn, FasterRcnnConfig, ProposalConfig, RoiHeads, Rpn};
use crate::detector::{Detect, DetectConfig, NotFinite, RawDetection};
use crate::resnet_inference::{FpnBuffers, FpnInference, ResNetBuffers, ResNetInference};
use crate::retinanet::padded_input;
use crate::retinanet_inference::by_place;

/// A Faster R-CNN that is only run.
#[derive(Debug)]
pub struct FasterRcnnInference {
    body: ResNetInference,
    fpn: FpnInference,
    rpn: RpnInference,
    roi_heads: RoiHeads,
    config: FasterRcnnConfig,
    device: Device,
    /// Buffers of calls that have ended; a call takes one, or makes its own.
    spare: Mutex<Vec<Buffers>>,
}

/// The first stage.
#[derive(Debug)]
struct RpnInference {
    convs: Vec<PreparedConv>,
    objectness: PreparedConv,
    boxes: PreparedConv,
}

#[derive(Debug, Default)]
struct Buffers {
    body: ResNetBuffers,
    fpn: FpnBuffers,
    rpn: [Maps; 2],
}

impl FasterRcnnInference {
    /// The network with the weights and running statistics it has now.
    pub fn new(network: &FasterRcnn) -> Self {
        Self {
            body: ResNetInference::new(&network.backbone.body),
            fpn: FpnInference::new(&network.backbone.fpn),
            rpn: RpnInference::new(&network.rpn),
            device: network.roi_heads.box_predictor.cls_score.bias.val().device(),
            roi_heads: network.roi_heads.clone(),
            config: network.config.clone(),
            spare: Mutex::new(Vec::new()),
        }
    }

    /// Both stages. `config.top_k_per_level` is that of the first.
    ///
    /// # Shapes
    /// `images`: `[N, C, H, W]`, normalised, any H and W from 1; `content_px`: height and width of each without
    /// padding
    ///
    /// # Panics
    /// When there is not one size for each image.
    pub fn forward(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<ImageOutput, NotFinite>> {
        let x = padded_input(images);
        let shape @ [n, _, height, width] = x.dims();
        assert_eq!(content_px.len(), n, "one size for each of {n} images");
        let x = x.try_into_vec_as::<f32>().expect("images are float tensors that can be read back");
        let x = Maps::new(x, shape);

        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = spare().pop().unwrap_or_default();
        // On a thread of the pool the many small tasks need no waking of another.
        let (logits, deltas) = rayon::scope(|_| self.first_stage(&x, &mut buffers));
        let sizes: Vec<_> = buffers.fpn.levels.iter().map(|map| (map.shape()[2], map.shape()[3])).collect();
        let anchors = self.config.rpn.anchors.generate((height, width), &sizes);
        let limits = ProposalConfig { top_k_per_level: config.top_k_per_level, ..self.config.rpn.inference };
        let a = anchors.boxes.len();
        let proposals: Vec<Result<Vec<Proposal>, NotFinite>> = (0..n)
            .into_par_iter()
            .map(|i| {
                let (logits, deltas) = (&logits[i * a..][..a], &deltas[i * a * 4..][..a * 4]);
                propose(logits, deltas, &anchors, content_px[i], &limits)
            })
            .collect();
        let outputs = proposals.into_iter().enumerate().map(|(image, proposals)| {
            let proposals = proposals?;
            let rois = (!proposals.is_empty()).then(|| {
                let maps = self.pooled_maps(&buffers.fpn.levels, image);
                let boxes = proposals.iter().map(|p| p.xyxy.into()).collect();
                let pooler = self.config.roi.pooler(self.config.finest_level);
                self.roi_heads.forward(pooler.forward(&maps, &[boxes]))
            });
            Ok(ImageOutput { proposals, rois })
        });
        let outputs = outputs.collect();
        spare().push(buffers);
        outputs
    }

    /// `[N, A]` objectness logits and `[N, A, 4]` offsets.
    fn first_stage(&self, x: &Maps, buffers: &mut Buffers) -> (Vec<f32>, Vec<f32>) {
        let Buffers { body, fpn, rpn } = buffers;
        self.body.run(x, body);
        self.fpn.run(&body.stages[self.config.finest_level - 2..], fpn);
        self.rpn.run(&fpn.levels, rpn)
    }

    /// The maps of one image that boxes are pooled from, each `[1, C, H_l, W_l]`.
    fn pooled_maps(&self, levels: &[Maps], image: usize) -> Vec<Tensor<4>> {
        let of_image = |map: &Maps| {
            let [_, c, h, w] = map.shape();
            let values = map.values()[image * c * h * w..][..c * h * w].to_vec();
            Tensor::from_data(TensorData::new(values, [1, c, h, w]), &self.device)
        };
        levels[..self.config.roi.pooled_levels].iter().map(of_image).collect()
    }
}

impl Detect for FasterRcnnInference {
    /// `config.top_k_per_level` is that of the first stage.
    fn detect(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        detect(self.forward(images, content_px, config), content_px, config)
    }
}

impl RpnInference {
    fn new(rpn: &Rpn) -> Self {
        let plain = |conv| PreparedConv::new(conv, Norms::NONE);
        Self {
            convs: rpn.head.conv.iter().map(|[conv]| plain(conv)).collect(),
            objectness: plain(&rpn.head.cls_logits),
            boxes: plain(&rpn.head.bbox_pred),
        }
    }

    // maps: L × [N, C, H, W] -> [N, all places * A], [N, all places * A * 4]
    fn run(&self, maps: &[Maps], [from, to]: &mut [Maps; 2]) -> (Vec<f32>, Vec<f32>) {
        let n = maps.first().map_or(0, |map| map.shape()[0]);
        let places: usize = maps.iter().map(|map| map.shape()[2] * map.shape()[3]).sum();
        let mut results =
            [&self.objectness, &self.boxes].map(|conv| vec![0.0; n * places * conv.out_channels()]);
        let (mut from, mut to) = (from, to);
        let mut start = 0;
        for map in maps {
            for (i, conv) in self.convs.iter().enumerate() {
                let source = if i == 0 { map } else { &*from };
                conv.run_into(source, Finish::RELU, to);
                std::mem::swap(&mut from, &mut to);
            }
            let source = if self.convs.is_empty() { map } else { &*from };
            let here = map.shape()[2] * map.shape()[3];
            for (conv, values) in [&self.objectness, &self.boxes].into_iter().zip(&mut results) {
                let outputs = conv.out_channels();
                conv.run_into(source, Finish::NONE, to);
                for film in 0..n {
                    let at = (film * places + start) * outputs;
                    by_place(to, film, &mut values[at..][..here * outputs]);
                }
            }
            start += here;
        }
        let [objectness, boxes] = results;
        (objectness, boxes)
    }
}
