//! What the families' tests share: the slope of a logit in the activations of one place, by differences.

use burn::tensor::{Device, Tensor, TensorData};

use super::{EvidenceMap, ExplainBoxes, for_explaining};
use crate::detector::{Detect, DetectConfig, RawDetection};

/// Scores of untrained networks are near their prior of 0.01.
pub(super) const LOW: DetectConfig =
    DetectConfig { score_threshold: 0.002, top_k_per_level: 40, nms_iou: 0.5, max_detections: 30 };

/// A change of a place's activations, as a share of them.
const CHANGE: f32 = 1e-2;

/// A film of noise, `[1, 1, height, width]`.
pub(super) fn noise([height, width]: [usize; 2], device: &Device) -> Tensor<4> {
    let values: Vec<f32> = (0..height * width).map(|i| ((i * 37 % 101) as f32 / 50.0) - 1.0).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, height, width]), device)
}

/// The explained boxes of a film of noise, which are those of prediction; `init` gives the same network on any device.
pub(super) fn explained<D: ExplainBoxes + Detect + burn::module::Module>(
    init: impl Fn(&Device) -> D,
    size: [usize; 2],
    content_px: (f32, f32),
    config: &DetectConfig,
    most: usize,
) -> Vec<(RawDetection, EvidenceMap)> {
    let (plain, autodiff) = (Device::flex(), Device::flex().autodiff());
    let network = for_explaining(init(&autodiff));
    let explained = network.box_evidence(noise(size, &autodiff), content_px, config, most).unwrap();
    let found = init(&plain).detect(noise(size, &plain), &[content_px], config).pop().unwrap().unwrap();
    assert_eq!(explained.len(), found.len().min(most));
    for ((own, _), found) in explained.iter().zip(&found) {
        // Some operators round otherwise where a gradient may be asked for.
        let near = own.xyxy.iou(&found.xyxy) > 0.9999 && (own.logit - found.logit).abs() < 1e-4;
        assert!(own.class == found.class && near, "explained {own:?}, predicted {found:?}");
    }
    explained
}

/// `logit` with the activations of place `(y, x)` of `maps[level]` a little larger and a little smaller.
fn slope(
    maps: &[Tensor<4>],
    level: usize,
    (y, x): (usize, usize),
    logit: &dyn Fn(&[Tensor<4>]) -> f32,
) -> f32 {
    let [_, _, h, w] = maps[level].dims();
    let scaled = |by: f32| {
        let mut factors = vec![1.0f32; h * w];
        factors[y * w + x] += by;
        let factors = TensorData::new(factors, [1, 1, h, w]);
        let mut maps = maps.to_vec();
        maps[level] = maps[level].clone() * Tensor::from_data(factors, &maps[level].device());
        logit(&maps)
    };
    (scaled(CHANGE) - scaled(-CHANGE)) / (2.0 * CHANGE)
}

/// `logit` is the detection's, and the evidence is what the activations of each place of `maps[level]` add to it, where
/// that is more than nothing. Gives at how many places it is.
pub(super) fn check_places(
    detection: &RawDetection,
    evidence: &EvidenceMap,
    maps: &[Tensor<4>],
    level: usize,
    logit: &dyn Fn(&[Tensor<4>]) -> f32,
) -> usize {
    let [_, _, h, w] = maps[level].dims();
    assert_eq!((evidence.height, evidence.width), (h, w));
    assert!((logit(maps) - detection.logit).abs() < 1e-3, "{} for {detection:?}", logit(maps));
    for y in 0..h {
        for x in 0..w {
            let slope = slope(maps, level, (y, x), logit);
            let value = evidence.values[y * w + x];
            // A kink of a ReLU between the two is worth more than rounding.
            let near = (value - slope.max(0.0)).abs() < 5e-3 * (1.0 + slope.abs());
            assert!(near, "level {level} at {x}, {y}: {value} for {slope}");
        }
    }
    evidence.values.iter().filter(|value| **value > 1e-3).count()
}

/// The first value of a tensor.
pub(super) fn first<const D: usize>(tensor: Tensor<D>) -> f32 {
    tensor.into_data().iter::<f32>().next().unwrap()
}
