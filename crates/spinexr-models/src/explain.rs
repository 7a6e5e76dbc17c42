//! Where on a film the evidence for a network's answer lies.
//!
//! - [`grad_cam`], for classifiers: Grad-CAM of the last map, Selvaraju et al. (arXiv 1610.02391), equation 2. A channel
//!   weighs by the mean over all places of the logit's gradient; the map is the positive part of the weighted sum. With
//!   average pooling the sum over all places before the positive part is taken is the logit without its bias.
//! - [`box_evidence`], for RetinaNet: gradient times activation at each place of the pyramid map that the box was read
//!   from, of the box's class logit: Grad-CAM without the mean over places, as ODAM, Zhao and Chan (arXiv 2304.06354),
//!   explains single detections. With the mean, every box of a class would get the same map. Deviation from ODAM: the
//!   gradient is not smoothed.
//!
//! Both need gradients of maps and none of parameters, so the network is run once up to the map, on the device's
//! autodiff twin, with the statistics of evaluation ([`for_explaining`]).

use burn::module::{Flag, Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use crate::densenet::DenseNet;
use crate::detector::{DetectConfig, NotFinite, RawDetection};
use crate::retinanet::{RetinaNet, RetinaNetOutput, padded_input};

/// A map of evidence over an image.
#[derive(Debug, Clone, PartialEq)]
pub struct EvidenceMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[height, width]`, 0 or more.
    pub values: Vec<f32>,
    /// Height and width, in input px, of what the map covers: the image, or the image with its padding.
    pub covers_px: (f32, f32),
}

/// The module on an autodiff device as its explanations need it: no parameter asks for a gradient, and norms use
/// their running statistics.
pub fn for_explaining<M: Module>(module: M) -> M {
    struct Evaluate;
    impl ModuleMapper for Evaluate {
        fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
            flag.with_value(false)
        }
    }
    module.no_grad().map(&mut Evaluate)
}

/// Grad-CAM of the logit `class` for each image, at the resolution of the last map (a thirty-second of the image).
///
/// # Shapes
/// `images`: `[N, C, H, W]`, normalised, on an autodiff device as the network is ([`for_explaining`])
///
/// # Panics
/// When the network or the images are not on an autodiff device, or `class` is not one of its outputs.
pub fn grad_cam(network: &DenseNet, images: Tensor<4>, class: usize) -> Vec<EvidenceMap> {
    let [n, _, height, width] = images.dims();
    let map = network.features(images).detach().require_grad(); // [N, F, h, w]
    let logits = network.classify(map.clone()); // [N, K]
    // Films do not mix in evaluation: the gradient of the sum is each film's own.
    let gradients = logits.narrow(1, class, 1).sum().backward();
    let gradient = map.grad(&gradients).expect("the logits depend on the map");
    let weights = gradient.mean_dim(3).mean_dim(2); // [N, F, 1, 1]
    let evidence = (map.inner() * weights).sum_dim(1).clamp_min(0.0); // [N, 1, h, w]
    let [_, _, h, w] = evidence.dims();
    let covers_px = (height as f32, width as f32);
    let values = read(evidence);
    values
        .chunks(h * w)
        .take(n)
        .map(|v| EvidenceMap { height: h, width: w, values: v.to_vec(), covers_px })
        .collect()
}

/// The `most` best detections of one image, each with its evidence.
///
/// # Shapes
/// `image`: `[1, C, H, W]`, normalised, on an autodiff device as the network is ([`for_explaining`]). `content_px` and
/// `config` as in [`crate::Detect::detect`].
///
/// # Errors
/// [`NotFinite`] when an output of the network is not.
///
/// # Panics
/// When the network or the image is not on an autodiff device, or there is more than one image.
pub fn box_evidence(
    network: &RetinaNet,
    image: Tensor<4>,
    content_px: (f32, f32),
    config: &DetectConfig,
    most: usize,
) -> Result<Vec<(RawDetection, EvidenceMap)>, NotFinite> {
    assert_eq!(image.dims()[0], 1, "one image is explained at a time");
    let image = padded_input(image);
    let [_, _, height, width] = image.dims();
    let maps: Vec<Tensor<4>> = network.pyramid(image).into_iter().map(|m| m.detach()).collect();
    let sizes: Vec<(usize, usize)> = maps.iter().map(|m| (m.dims()[2], m.dims()[3])).collect();
    let (class_logits, box_deltas) = network.head.forward(&maps);
    let anchors = network.config.anchors.generate((height, width), &sizes);
    let output =
        RetinaNetOutput { class_logits: class_logits.inner(), box_deltas: box_deltas.inner(), anchors };
    let found = output.detect(&[content_px], config).pop().expect("one image, one list")?;
    let covers_px = (height as f32, width as f32);
    let explained = found.into_iter().take(most).filter_map(|detection| {
        let anchor = output.anchor_of(&detection, content_px)?;
        let (level, place) = output.anchors.level_of(anchor);
        let map = maps[level].clone().require_grad();
        let logits = network.head.class_logits(level, map.clone()); // [1, A of the level, K]
        let logit = logits.narrow(1, place, 1).narrow(2, detection.class, 1).sum();
        let gradient = map.grad(&logit.backward()).expect("the logit depends on the map");
        let evidence = (map.inner() * gradient).sum_dim(1).clamp_min(0.0); // [1, 1, h, w]
        let (h, w) = sizes[level];
        Some((detection, EvidenceMap { height: h, width: w, values: read(evidence), covers_px }))
    });
    Ok(explained.collect())
}

fn read(tensor: Tensor<4>) -> Vec<f32> {
    let data: TensorData = tensor.into_data();
    data.iter::<f32>().collect()
}

impl EvidenceMap {
    /// The largest value; 0 where there is no evidence at all.
    pub fn peak(&self) -> f32 {
        self.values.iter().copied().fold(0.0, f32::max)
    }

    /// The middle of the cell with the largest value as `(x, y)` in input px.
    pub fn peak_px(&self) -> (f32, f32) {
        let mut best = 0;
        for (i, value) in self.values.iter().enumerate() {
            if *value > self.values[best] {
                best = i;
            }
        }
        let (cell_h, cell_w) = (self.covers_px.0 / self.height as f32, self.covers_px.1 / self.width as f32);
        (((best % self.width) as f32 + 0.5) * cell_w, ((best / self.width) as f32 + 0.5) * cell_h)
    }

    /// The value at `(x, y)` input px: bilinear between the cells' middles, the outermost values beyond them.
    pub fn at(&self, x: f32, y: f32) -> f32 {
        let along = |position: f32, covers: f32, cells: usize| {
            let cell = (position / covers * cells as f32 - 0.5).clamp(0.0, (cells - 1) as f32);
            let low = cell.floor();
            (low as usize, (low as usize + 1).min(cells - 1), cell - low)
        };
        let (x0, x1, fx) = along(x, self.covers_px.1, self.width);
        let (y0, y1, fy) = along(y, self.covers_px.0, self.height);
        let value = |x: usize, y: usize| self.values[y * self.width + x];
        let row = |y: usize| value(x0, y) + fx * (value(x1, y) - value(x0, y));
        row(y0) + fy * (row(y1) - row(y0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Detect, RetinaNetConfig};
    use burn::tensor::Device;

    #[test]
    fn box_evidence_is_what_each_place_adds_to_the_logit() {
        let device = Device::flex();
        let config = RetinaNetConfig::mini();
        let image = |device: &Device| {
            let values: Vec<f32> = (0..96 * 64).map(|i| ((i * 37 % 101) as f32 / 50.0) - 1.0).collect();
            Tensor::<4>::from_data(TensorData::new(values, [1, 1, 96, 64]), device)
        };
        let detect =
            DetectConfig { score_threshold: 0.002, top_k_per_level: 40, nms_iou: 0.5, max_detections: 30 };
        let network = for_explaining(config.init_seeded(3, &device.clone().autodiff()));
        let content = (96.0, 60.0);
        let explained =
            box_evidence(&network, image(&device.clone().autodiff()), content, &detect, 4).unwrap();
        let plain = config.init_seeded(3, &device);
        let found = plain.detect(image(&device), &[content], &detect).pop().unwrap().unwrap();
        assert_eq!(explained.len(), 4);
        let mut positive = 0;
        for ((detection, map), expected) in explained.iter().zip(&found) {
            assert_eq!(detection, expected, "the boxes are those of prediction");
            let output = plain.forward(image(&device));
            let anchor = output.anchor_of(detection, content).unwrap();
            let (level, place) = output.anchors.level_of(anchor);
            let maps = plain.pyramid(image(&device));
            let [_, _, h, w] = maps[level].dims();
            assert_eq!((map.height, map.width, map.covers_px), (h, w, (96.0, 64.0)));
            let logit = |map: Tensor<4>| {
                let logits = plain.head.class_logits(level, map);
                let one = logits.narrow(1, place, 1).narrow(2, detection.class, 1);
                one.into_data().iter::<f32>().next().unwrap()
            };
            let change = 1e-2f32;
            for y in 0..h {
                for x in 0..w {
                    // The activations of one place a little larger and a little smaller.
                    let scaled = |by: f32| {
                        let mut factors = vec![1.0f32; h * w];
                        factors[y * w + x] += by;
                        let factors = TensorData::new(factors, [1, 1, h, w]);
                        logit(maps[level].clone() * Tensor::<4>::from_data(factors, &device))
                    };
                    let slope = (scaled(change) - scaled(-change)) / (2.0 * change);
                    let evidence = map.values[y * w + x];
                    // A kink of a ReLU between the two is worth more than rounding.
                    let near = (evidence - slope.max(0.0)).abs() < 5e-3 * (1.0 + slope.abs());
                    assert!(near, "level {level} at {x}, {y}: {evidence} for {slope}");
                    positive += usize::from(evidence > 1e-3);
                }
            }
        }
        assert!(positive > 4, "{positive} places speak for their boxes");
    }

    #[test]
    fn a_map_is_read_between_its_cells() {
        let map = EvidenceMap { height: 1, width: 2, values: vec![1.0, 3.0], covers_px: (32.0, 64.0) };
        let read = [0.0, 16.0, 32.0, 48.0, 64.0].map(|x| map.at(x, 5.0));
        assert_eq!(read, [1.0, 1.0, 2.0, 3.0, 3.0]);
        assert_eq!((map.peak(), map.peak_px()), (3.0, (48.0, 16.0)));
    }
}
