//! Where on a film the evidence for a network's answer lies.
//!
//! - [`grad_cam()`], for classifiers: a map of the film's logit.
//! - [`ExplainBoxes`], for detectors: a map of each box's logit. Gradient times activation, summed over channels, at each
//!   place of the pyramid maps that the logit was read from: Grad-CAM without the mean over places, as ODAM, Zhao and
//!   Chan (arXiv 2304.06354), explains single detections. With the mean, every box of a class would get the same map.
//!   Deviation from ODAM: the gradient is not smoothed. A family a file: what is held fixed, and which maps a logit is
//!   read from, differs between them.
//!
//! A value is what the activations of its place add to the logit, to first order; only what speaks for the box is kept.
//!
//! Both need gradients of maps and none of parameters, so the network is run once up to the maps, on the device's
//! autodiff twin, with the statistics of evaluation ([`for_explaining`]).

mod efficientdet;
mod faster_rcnn;
mod grad_cam;
#[cfg(test)]
mod numeric;
mod retinanet;
mod sparse_rcnn;

use burn::module::{Flag, Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

pub use self::grad_cam::grad_cam;
use crate::detector::{DetectConfig, NotFinite, RawDetection};

/// A detector that says what spoke for its boxes.
pub trait ExplainBoxes: std::fmt::Debug {
    /// The `most` best detections of one image, each with its evidence.
    ///
    /// # Shapes
    /// `image`: `[1, C, H, W]`, normalised, on an autodiff device as the network is ([`for_explaining`]). `content_px`
    /// and `config` as in [`crate::Detect::detect`], which gives the same detections.
    ///
    /// # Errors
    /// [`NotFinite`] when an output of the network is not.
    ///
    /// # Panics
    /// When the network or the image is not on an autodiff device, or there is more than one image.
    fn box_evidence(
        &self,
        image: Tensor<4>,
        content_px: (f32, f32),
        config: &DetectConfig,
        most: usize,
    ) -> Result<Vec<(RawDetection, EvidenceMap)>, NotFinite>;
}

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

/// What each place of a map adds to a logit, of either sign.
#[derive(Debug, Clone, PartialEq)]
struct Contributions {
    height: usize,
    width: usize,
    /// `[height, width]`.
    values: Vec<f32>,
}

impl Contributions {
    /// Gradient times activation for each of `maps` (`[1, C, H_l, W_l]`); `logit` reads them and nothing else that
    /// depends on the image.
    fn of(maps: &[Tensor<4>], logit: impl FnOnce(&[Tensor<4>]) -> Tensor<1>) -> Vec<Self> {
        let maps: Vec<Tensor<4>> = maps.iter().map(|map| map.clone().detach().require_grad()).collect();
        let gradients = logit(&maps).backward();
        let of_map = |map: &Tensor<4>| {
            let gradient = map.grad(&gradients).expect("the logit depends on every map");
            let [_, _, height, width] = map.dims();
            let values = read((map.clone().inner() * gradient).sum_dim(1)); // [1, 1, h, w]
            Self { height, width, values }
        };
        maps.iter().map(of_map).collect()
    }

    /// Of one map.
    fn of_one(map: &Tensor<4>, logit: impl FnOnce(Tensor<4>) -> Tensor<1>) -> Self {
        let mut of_maps = Self::of(std::slice::from_ref(map), |maps| logit(maps[0].clone()));
        of_maps.pop().expect("one map, one result")
    }

    /// What speaks for the box.
    fn evidence(self, covers_px: (f32, f32)) -> EvidenceMap {
        let Self { height, width, mut values } = self;
        values.iter_mut().for_each(|value| *value = value.max(0.0));
        EvidenceMap { height, width, values, covers_px }
    }
}

/// Height and width of the one image that is explained, px.
fn size_of_one(image: &Tensor<4>) -> (usize, usize) {
    let [n, _, height, width] = image.dims();
    assert_eq!(n, 1, "one image is explained at a time");
    (height, width)
}

/// The `most` first detections with their evidence over a padded image of `size` (height, width, px).
fn explain_each(
    found: Vec<RawDetection>,
    most: usize,
    (height, width): (usize, usize),
    contributions: impl Fn(&RawDetection) -> Contributions,
) -> Vec<(RawDetection, EvidenceMap)> {
    let covers_px = (height as f32, width as f32);
    let explained = |detection: RawDetection| (detection, contributions(&detection).evidence(covers_px));
    found.into_iter().take(most).map(explained).collect()
}

/// Why a detection has an origin.
const READ_FROM: &str = "a detection was read from one of the outputs";

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

    #[test]
    fn a_map_is_read_between_its_cells() {
        let map = EvidenceMap { height: 1, width: 2, values: vec![1.0, 3.0], covers_px: (32.0, 64.0) };
        let read = [0.0, 16.0, 32.0, 48.0, 64.0].map(|x| map.at(x, 5.0));
        assert_eq!(read, [1.0, 1.0, 2.0, 3.0, 3.0]);
        assert_eq!((map.peak(), map.peak_px()), (3.0, (48.0, 16.0)));
    }
}
