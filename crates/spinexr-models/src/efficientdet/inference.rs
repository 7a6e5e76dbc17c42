//! An EfficientDet prepared for the CPU: what [`EfficientDet::forward`] computes, without tensors in between.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use spinexr_ops::inference::{
    Activation, Finish, Maps, Norms, PreparedConv, Term, max_pool, max_pool_same, weighted_sum,
};
use spinexr_ops::{BatchNorm2d, MaxPool2dOptions};

use super::bifpn::{BiFpn, Node, Resample, SeparableConv};
use super::head::HeadNet;
use super::{EfficientDet, EfficientDetConfig, EfficientDetOutput, FINEST_LEVEL, padded};
use crate::detector::{Detect, DetectConfig, NotFinite, RawDetection};
use crate::efficientnet::Padding;
use crate::efficientnet_inference::{EfficientNetBuffers, EfficientNetInference};
use crate::retinanet_inference::by_place;

/// An EfficientDet that is only run.
#[derive(Debug)]
pub struct EfficientDetInference {
    backbone: EfficientNetInference,
    fpn: BiFpnInference,
    class_net: HeadInference,
    box_net: HeadInference,
    config: EfficientDetConfig,
    /// Buffers of calls that have ended; a call takes one, or makes its own.
    spare: Mutex<Vec<Buffers>>,
}

#[derive(Debug, Default)]
struct Buffers {
    backbone: EfficientNetBuffers,
    fpn: FpnBuffers,
    head: [Maps; 2],
}

impl EfficientDetInference {
    /// The network with the weights and running statistics it has now.
    pub fn new(network: &EfficientDet) -> Self {
        Self {
            backbone: EfficientNetInference::new(&network.backbone),
            fpn: BiFpnInference::new(&network.fpn),
            class_net: HeadInference::new(&network.class_net),
            box_net: HeadInference::new(&network.box_net),
            config: network.config.clone(),
            spare: Mutex::new(Vec::new()),
        }
    }

    /// Logits and offsets for every anchor.
    ///
    /// # Shapes
    /// `x`: as in [`EfficientDet::forward`]
    pub fn forward(&self, x: Tensor<4>) -> EfficientDetOutput {
        let device = x.device();
        let x = padded(x, 1 << self.config.coarsest_level);
        let shape @ [n, _, height, width] = x.dims();
        let x = x.try_into_vec_as::<f32>().expect("images are float tensors that can be read back");
        let x = Maps::new(x, shape);

        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = spare().pop().unwrap_or_default();
        // On a thread of the pool the many small tasks need no waking of another.
        let (logits, offsets) = rayon::scope(|_| self.run(&x, &mut buffers));
        spare().push(buffers);

        let levels = FINEST_LEVEL..=self.config.coarsest_level;
        let anchors = self.config.anchors.generate([height, width], levels);
        let a = anchors.boxes.len();
        let tensor = |values, last| Tensor::from_data(TensorData::new(values, [n, a, last]), &device);
        EfficientDetOutput {
            class_logits: tensor(logits, self.config.num_classes),
            box_offsets: tensor(offsets, 4),
            anchors,
        }
    }

    /// `[N, A, K]` logits and `[N, A, 4]` offsets.
    fn run(&self, x: &Maps, buffers: &mut Buffers) -> (Vec<f32>, Vec<f32>) {
        let Buffers { backbone, fpn, head } = buffers;
        self.backbone.run(x, backbone);
        self.fpn.run(&mut backbone.features, fpn);
        let maps = &fpn.maps[..self.fpn.resample.len()];
        (self.class_net.run(maps, head), self.box_net.run(maps, head))
    }
}

impl Detect for EfficientDetInference {
    fn detect(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        self.forward(images).detect(content_px, config)
    }
}

/// The pyramid.
#[derive(Debug)]
struct BiFpnInference {
    /// By level, as in [`BiFpn`].
    resample: Vec<Option<PreparedConv>>,
    cells: Vec<Vec<NodeInference>>,
    padding: Padding,
}

#[derive(Debug)]
struct NodeInference {
    level: usize,
    inputs: Vec<NodeInput>,
    depthwise: PreparedConv,
    pointwise: PreparedConv,
}

#[derive(Debug)]
struct NodeInput {
    /// Number of the map.
    map: usize,
    weight: f32,
    resample: Option<PreparedConv>,
}

#[derive(Debug, Default)]
struct FpnBuffers {
    /// A cell's inputs, finest first, then its nodes; after a run the pyramid's maps come first.
    maps: Vec<Maps>,
    /// By a node's input: brought to the pyramid's channels, then to the node's size.
    inputs: Vec<[Maps; 2]>,
    sum: Maps,
    depthwise: Maps,
}

impl BiFpnInference {
    fn new(network: &BiFpn) -> Self {
        let cells = network.cell.iter().map(|cell| cell.fnode.iter().map(NodeInference::new).collect());
        Self {
            resample: network.resample.iter().map(|r| r.as_ref().map(changed_channels)).collect(),
            cells: cells.collect(),
            padding: network.padding,
        }
    }

    /// The maps of all levels, into the first of `buffers.maps`. Those of the backbone are taken.
    fn run(&self, features: &mut [Maps], buffers: &mut FpnBuffers) {
        let FpnBuffers { maps, inputs, sum, depthwise } = buffers;
        let levels = self.resample.len();
        maps.resize_with(levels + 2 * (levels - 1), Maps::default);
        inputs.resize_with(3, Default::default);
        for (map, feature) in maps.iter_mut().zip(features.iter_mut()) {
            std::mem::swap(map, feature);
        }
        for level in features.len()..levels {
            let (below, here) = maps.split_at_mut(level);
            let [changed, _] = &mut inputs[0];
            let below = resampled(self.resample[level].as_ref(), &below[level - 1], changed);
            self.halve(below, &mut here[0]);
        }
        for nodes in &self.cells {
            for (place, node) in nodes.iter().enumerate() {
                let (known, out) = maps.split_at_mut(levels + place);
                let size = known[node.level].shape();
                let larger = |map: &Maps| map.shape()[2] > size[2] || map.shape()[3] > size[3];
                for (input, [changed, fitted]) in node.inputs.iter().zip(inputs.iter_mut()) {
                    let map = resampled(input.resample.as_ref(), &known[input.map], changed);
                    if larger(map) {
                        self.halve(map, fitted);
                    }
                }
                let terms: Vec<Term<'_>> = node
                    .inputs
                    .iter()
                    .zip(&*inputs)
                    .map(|(input, [changed, fitted])| {
                        let map = input.resample.as_ref().map_or(&known[input.map], |_| changed);
                        let map = if larger(map) { fitted } else { map };
                        Term { map: map.view(), weight: input.weight }
                    })
                    .collect();
                let [n, _, h, w] = size;
                sum.reshape([n, node.depthwise.in_channels(), h, w]);
                weighted_sum(&terms, Activation::Silu, sum.view_mut());
                node.depthwise.run_into(sum, Finish::NONE, depthwise);
                node.pointwise.run_into(depthwise, Finish::NONE, &mut out[0]);
            }
            // The last nodes are the levels, finest first; the next cell writes over the others.
            maps.rotate_right(levels);
        }
    }

    /// As `bifpn::halved`.
    fn halve(&self, x: &Maps, out: &mut Maps) {
        let [n, c, h, w] = x.shape();
        out.reshape([n, c, h.div_ceil(2), w.div_ceil(2)]);
        match self.padding {
            Padding::Same => max_pool_same(x.view(), 3, 2, out.view_mut()),
            Padding::Symmetric => {
                let options = MaxPool2dOptions { kernel: [3, 3], stride: [2, 2], padding: [1, 1] };
                max_pool(x.view(), options, out.view_mut());
            }
        }
    }
}

/// A change of channels with its norm.
fn changed_channels(resample: &Resample) -> PreparedConv {
    PreparedConv::new(&resample.conv.conv, Norms::after(&resample.conv.bn))
}

/// `map` with other channels, in `buffer`, where that is asked for.
fn resampled<'a>(conv: Option<&PreparedConv>, map: &'a Maps, buffer: &'a mut Maps) -> &'a Maps {
    match conv {
        Some(conv) => {
            conv.run_into(map, Finish::NONE, buffer);
            buffer
        }
        None => map,
    }
}

impl NodeInference {
    fn new(node: &Node) -> Self {
        let combine = &node.combine;
        let conv = &node.after_combine.conv;
        let weights = combine.weights().try_into_vec_as::<f32>().expect("weights can be read back");
        let inputs = combine.inputs.iter().zip(weights).map(|(&map, weight)| NodeInput {
            map,
            weight,
            resample: combine.resample[map].as_ref().map(changed_channels),
        });
        let (depthwise, pointwise) = separable(conv, conv.bn.as_ref());
        Self { level: combine.level, inputs: inputs.collect(), depthwise, pointwise }
    }
}

/// A depthwise and a 1×1 convolution with the norm after both.
fn separable(conv: &SeparableConv, norm: Option<&BatchNorm2d>) -> (PreparedConv, PreparedConv) {
    let after = Norms { before: None, after: norm };
    (PreparedConv::new(&conv.conv_dw, Norms::NONE), PreparedConv::new(&conv.conv_pw, after))
}

/// A class or box net.
#[derive(Debug)]
struct HeadInference {
    /// By level: depthwise and 1×1 in turn, the latter with the level's norm.
    levels: Vec<Vec<(PreparedConv, PreparedConv)>>,
    predict: (PreparedConv, PreparedConv),
}

impl HeadInference {
    fn new(net: &HeadNet) -> Self {
        let levels = net.bn_rep.first().map_or(0, Vec::len);
        let of_level = |level: usize| {
            let convs = net.conv_rep.iter().zip(&net.bn_rep);
            convs.map(|(conv, norms)| separable(conv, Some(&norms[level].bn))).collect()
        };
        Self { levels: (0..levels).map(of_level).collect(), predict: separable(&net.predict, None) }
    }

    // maps: L × [N, C, H, W] -> [N, all places * out], the anchors of a place one after the other
    fn run(&self, maps: &[Maps], [from, to]: &mut [Maps; 2]) -> Vec<f32> {
        let n = maps.first().map_or(0, |map| map.shape()[0]);
        let places: usize = maps.iter().map(|map| map.shape()[2] * map.shape()[3]).sum();
        let outputs = self.predict.1.out_channels();
        let mut values = vec![0.0; n * places * outputs];
        let mut start = 0;
        for (level, map) in maps.iter().enumerate() {
            let convs = self.levels.get(level).map_or(&[][..], Vec::as_slice);
            let mut source = map;
            for (depthwise, pointwise) in convs {
                depthwise.run_into(source, Finish::NONE, to);
                pointwise.run_into(to, Finish::SILU, from);
                source = &*from;
            }
            let (depthwise, pointwise) = &self.predict;
            depthwise.run_into(source, Finish::NONE, to);
            pointwise.run_into(to, Finish::NONE, from);
            let here = map.shape()[2] * map.shape()[3];
            for film in 0..n {
                let at = (film * places + start) * outputs;
                by_place(from, film, &mut values[at..][..here * outputs]);
            }
            start += here;
        }
        values
    }
}
