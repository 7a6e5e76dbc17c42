//! A RetinaNet prepared for the CPU: what [`RetinaNet::forward`] computes, without tensors in between.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use spinexr_ops::inference::{Finish, Maps, Norms, PreparedConv};
use spinexr_ops::{BatchNorm2d, Conv2d};

use crate::resnet_inference::{FpnBuffers, FpnInference, ResNetBuffers, ResNetInference};
use crate::retinanet::{RetinaNet, RetinaNetConfig, RetinaNetOutput, padded_input};

/// A RetinaNet that is only run.
#[derive(Debug)]
pub struct RetinaNetInference {
    body: ResNetInference,
    fpn: FpnInference,
    classification: Tower,
    regression: Tower,
    config: RetinaNetConfig,
    /// Buffers of calls that have ended; a call takes one, or makes its own.
    spare: Mutex<Vec<Buffers>>,
}

/// One head.
#[derive(Debug)]
struct Tower {
    /// For each level its convolutions; one list for all levels where the norms do not differ.
    convs: Vec<Vec<PreparedConv>>,
    last: PreparedConv,
}

#[derive(Debug, Default)]
struct Buffers {
    body: ResNetBuffers,
    fpn: FpnBuffers,
    tower: [Maps; 2],
}

impl RetinaNetInference {
    /// The network with the weights and running statistics it has now.
    pub fn new(network: &RetinaNet) -> Self {
        let (what, place) = (&network.head.classification_head, &network.head.regression_head);
        Self {
            body: ResNetInference::new(&network.backbone.body),
            fpn: FpnInference::new(&network.backbone.fpn),
            classification: Tower::new(&what.conv, &what.norms, &what.cls_logits),
            regression: Tower::new(&place.conv, &place.norms, &place.bbox_reg),
            config: network.config.clone(),
            spare: Mutex::new(Vec::new()),
        }
    }

    /// Logits and offsets for every anchor.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]`, normalised, any H and W from 1 (zeros are added up to a multiple of 32)
    pub fn forward(&self, x: Tensor<4>) -> RetinaNetOutput {
        let device = x.device();
        let x = padded_input(x);
        let shape @ [n, _, height, width] = x.dims();
        let x = x.try_into_vec_as::<f32>().expect("images are float tensors that can be read back");
        let x = Maps::new(x, shape);

        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = spare().pop().unwrap_or_default();
        // On a thread of the pool the many small tasks need no waking of another.
        let (logits, deltas) = rayon::scope(|_| self.run(&x, &mut buffers));
        let level_size = |map: &Maps| {
            let [_, _, h, w] = map.shape();
            (h, w)
        };
        let sizes: Vec<_> = buffers.fpn.levels.iter().map(level_size).collect();
        spare().push(buffers);

        let anchors = self.config.anchors.generate((height, width), &sizes);
        let a = anchors.boxes.len();
        let tensor = |values, last| Tensor::from_data(TensorData::new(values, [n, a, last]), &device);
        RetinaNetOutput {
            class_logits: tensor(logits, self.config.num_classes),
            box_deltas: tensor(deltas, 4),
            anchors,
        }
    }

    /// `[N, A, K]` logits and `[N, A, 4]` offsets.
    fn run(&self, x: &Maps, buffers: &mut Buffers) -> (Vec<f32>, Vec<f32>) {
        let Buffers { body, fpn, tower } = buffers;
        self.body.run(x, body);
        self.fpn.run(&body.stages[self.config.finest_level - 2..], fpn);
        (self.classification.run(&fpn.levels, tower), self.regression.run(&fpn.levels, tower))
    }
}

impl Tower {
    fn new(convs: &[[Conv2d; 1]], norms: &[Vec<BatchNorm2d>], last: &Conv2d) -> Self {
        let plain = || convs.iter().map(|[conv]| PreparedConv::new(conv, Norms::NONE)).collect();
        let normed = |norms: &Vec<BatchNorm2d>| {
            convs
                .iter()
                .zip(norms)
                .map(|([conv], norm)| PreparedConv::new(conv, Norms::after(norm)))
                .collect()
        };
        let convs = if norms.is_empty() { vec![plain()] } else { norms.iter().map(normed).collect() };
        Self { convs, last: PreparedConv::new(last, Norms::NONE) }
    }

    // maps: L × [N, C, H, W] -> [N, all places * out], the anchors of a place one after the other
    fn run(&self, maps: &[Maps], [from, to]: &mut [Maps; 2]) -> Vec<f32> {
        let n = maps.first().map_or(0, |map| map.shape()[0]);
        let places: usize = maps.iter().map(|map| map.shape()[2] * map.shape()[3]).sum();
        let outputs = self.last.out_channels();
        let mut values = vec![0.0; n * places * outputs];
        let (mut from, mut to) = (from, to);
        let mut start = 0;
        for (level, map) in maps.iter().enumerate() {
            let convs = self.convs.get(level).unwrap_or(&self.convs[0]);
            for (i, conv) in convs.iter().enumerate() {
                let source = if i == 0 { map } else { &*from };
                conv.run_into(source, Finish::RELU, to);
                std::mem::swap(&mut from, &mut to);
            }
            let source = if convs.is_empty() { map } else { &*from };
            self.last.run_into(source, Finish::NONE, to);
            let here = map.shape()[2] * map.shape()[3];
            for film in 0..n {
                let at = (film * places + start) * outputs;
                by_place(to, film, &mut values[at..][..here * outputs]);
            }
            start += here;
        }
        values
    }
}

/// `[C, H * W]` of one film to `[H * W, C]`.
pub(crate) fn by_place(maps: &Maps, film: usize, out: &mut [f32]) {
    let channels = maps.shape()[1];
    for channel in 0..channels {
        let plane = maps.view().plane(film, channel);
        for (place, value) in out.chunks_exact_mut(channels).zip(plane) {
            place[channel] = *value;
        }
    }
}
