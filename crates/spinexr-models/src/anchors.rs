//! Anchor boxes of a feature pyramid.
//!
//! Reference: `torchvision.models.detection.anchor_utils.AnchorGenerator`: base boxes are rounded to whole
//! pixels, the stride of a level is the whole-number quotient of the image's and the map's size, and the
//! order is row, column, aspect ratio, size.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use spinexr_core::BoxXyxy;

/// Sizes and shapes of the anchors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorConfig {
    /// Side lengths (square root of the area) in input pixels, one list a level, finest level first.
    pub sizes_px: Vec<Vec<f32>>,
    /// Height over width, the same at every level.
    pub aspect_ratios: Vec<f32>,
}

impl AnchorConfig {
    /// RetinaNet's: P3–P7 with 32…512 px, three sizes a level (×1, ×2^⅓, ×2^⅔, cut to whole pixels) and
    /// ratios ½, 1, 2.
    pub fn retinanet() -> Self {
        let sizes = |base: f64| {
            [0.0, 1.0, 2.0].iter().map(|third| (base * 2f64.powf(third / 3.0)).trunc() as f32).collect()
        };
        Self {
            sizes_px: [32.0, 64.0, 128.0, 256.0, 512.0].into_iter().map(sizes).collect(),
            aspect_ratios: vec![0.5, 1.0, 2.0],
        }
    }

    /// Faster R-CNN's on a pyramid: P2–P6 with 32…512 px, one size a level, and ratios ½, 1, 2.
    pub fn faster_rcnn() -> Self {
        Self {
            sizes_px: [32.0, 64.0, 128.0, 256.0, 512.0].into_iter().map(|size| vec![size]).collect(),
            aspect_ratios: vec![0.5, 1.0, 2.0],
        }
    }

    /// Anchors at one place of a level. The same number is needed at every level, since the heads are shared.
    pub fn per_location(&self) -> usize {
        self.sizes_px.first().map_or(0, Vec::len) * self.aspect_ratios.len()
    }

    /// Whether every level has the same, non-zero number of anchors.
    pub fn is_consistent(&self) -> bool {
        self.per_location() > 0 && self.sizes_px.iter().all(|s| s.len() == self.sizes_px[0].len())
    }

    /// The anchors around the origin for one level's sizes, ratios outermost.
    fn base_boxes(&self, sizes_px: &[f32]) -> Vec<BoxXyxy> {
        let mut boxes = Vec::with_capacity(sizes_px.len() * self.aspect_ratios.len());
        for ratio in &self.aspect_ratios {
            let h_ratio = ratio.sqrt();
            let w_ratio = 1.0 / h_ratio;
            for size in sizes_px {
                let (w, h) = (w_ratio * size, h_ratio * size);
                let half = |v: f32| (v / 2.0).round_ties_even();
                boxes.push(BoxXyxy::new(half(-w), half(-h), half(w), half(h)));
            }
        }
        boxes
    }

    /// All anchors of an image of `image_size` (height, width, px) whose levels have the given map sizes
    /// (height, width), finest first.
    ///
    /// # Panics
    /// When the number of levels differs from the number of size lists.
    pub fn generate(&self, image_size: (usize, usize), map_sizes: &[(usize, usize)]) -> Anchors {
        assert_eq!(map_sizes.len(), self.sizes_px.len(), "one list of anchor sizes a level");
        let mut boxes = Vec::new();
        let mut per_level = Vec::with_capacity(map_sizes.len());
        for (sizes, &(map_h, map_w)) in self.sizes_px.iter().zip(map_sizes) {
            let base = self.base_boxes(sizes);
            let (stride_y, stride_x) = (image_size.0 / map_h.max(1), image_size.1 / map_w.max(1));
            per_level.push(map_h * map_w * base.len());
            boxes.reserve(map_h * map_w * base.len());
            for row in 0..map_h {
                for column in 0..map_w {
                    let (dx, dy) = ((column * stride_x) as f32, (row * stride_y) as f32);
                    boxes.extend(base.iter().map(|b| b.translate(dx, dy)));
                }
            }
        }
        Anchors { boxes, per_level }
    }
}

/// The anchors of an image, input pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Anchors {
    /// All levels, finest first: `A` boxes.
    pub boxes: Vec<BoxXyxy>,
    /// How many of them each level has; adds up to `A`.
    pub per_level: Vec<usize>,
}

// A head's map by place, with the anchors of a place one after the other: the order of `Anchors`.
// x: [N, A*K, H, W] -> [N, H*W*A, K]   A anchors at one place
pub(crate) fn by_anchor(x: Tensor<4>, anchors: usize) -> Tensor<3> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c, h * w]).swap_dims(1, 2).reshape([n, h * w * anchors, c / anchors])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retinanet_sizes_are_whole_pixels() {
        let config = AnchorConfig::retinanet();
        assert_eq!(config.sizes_px[0], [32.0, 40.0, 50.0]);
        assert_eq!(config.sizes_px[4], [512.0, 645.0, 812.0]);
        assert_eq!(config.per_location(), 9);
        assert!(config.is_consistent());
    }

    #[test]
    fn order_is_row_column_ratio_size() {
        let config = AnchorConfig { sizes_px: vec![vec![8.0, 16.0]], aspect_ratios: vec![1.0, 4.0] };
        let anchors = config.generate((20, 30), &[(2, 3)]);
        assert_eq!(anchors.per_level, [2 * 3 * 4]);
        assert_eq!(anchors.boxes[0], BoxXyxy::new(-4.0, -4.0, 4.0, 4.0));
        assert_eq!(anchors.boxes[1], BoxXyxy::new(-8.0, -8.0, 8.0, 8.0));
        assert_eq!(anchors.boxes[2], BoxXyxy::new(-2.0, -8.0, 2.0, 8.0)); // twice as high, half as wide
        assert_eq!(anchors.boxes[4], anchors.boxes[0].translate(10.0, 0.0)); // the next column
        assert_eq!(anchors.boxes[12], anchors.boxes[0].translate(0.0, 10.0)); // the next row
    }

    #[test]
    fn uneven_levels_are_inconsistent() {
        let config = AnchorConfig { sizes_px: vec![vec![8.0], vec![8.0, 16.0]], aspect_ratios: vec![1.0] };
        assert!(!config.is_consistent());
    }
}
