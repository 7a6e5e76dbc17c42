//! Features of boxes from a pyramid: each box from the level that suits its size, by RoIAlign.
//!
//! Paper: Lin et al., "Feature Pyramid Networks" (arXiv 1612.03144), equation 1. References:
//! `torchvision.ops.MultiScaleRoIAlign` and detectron2's `ROIPooler`, which differ in whether pixel centres lie at
//! halves and in how a size at the border of two levels is rounded.

use burn::tensor::{Int, Tensor, TensorData};
use spinexr_ops::{Roi, RoiAlignOptions, roi_align};

/// How boxes are pooled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiPooler {
    /// Bins of a box, `[height, width]`.
    pub output_size: [usize; 2],
    /// Samples along each axis of a bin, 0 for as many as the bin has pixels.
    pub sampling_ratio: usize,
    /// Whether pixel centres lie at halves, see [`RoiAlignOptions::aligned`].
    pub aligned: bool,
    /// Level of the first map: 2 for one of a quarter of the input's size.
    pub finest_level: u32,
    /// Added to a box's level, in octaves, before it is rounded down.
    pub level_margin: f32,
}

/// A box of this side, in input pixels, ...
const CANONICAL_SIZE_PX: f32 = 224.0;
/// ... belongs to this level; one of twice the side to the next.
const CANONICAL_LEVEL: f32 = 4.0;

/// A level without boxes pools this one, whose features are 0 and taken by nobody: its map then has a gradient of 0,
/// as in the references, and not none, which an optimiser would take for a parameter at rest.
const BESIDE_THE_FILM: Roi = Roi { film: 0, xyxy: [-2048.0, -2048.0, -1024.0, -1024.0] };

impl RoiPooler {
    /// torchvision's `MultiScaleRoIAlign`.
    pub fn torchvision(output_size: usize, sampling_ratio: usize, finest_level: u32) -> Self {
        Self {
            output_size: [output_size; 2],
            sampling_ratio,
            aligned: false,
            finest_level,
            level_margin: 1e-6,
        }
    }

    /// detectron2's `ROIPooler` with `ROIAlignV2`.
    pub fn detectron2(output_size: usize, sampling_ratio: usize, finest_level: u32) -> Self {
        Self { output_size: [output_size; 2], sampling_ratio, aligned: true, finest_level, level_margin: 0.0 }
    }

    /// The features of the boxes of each image, image after image.
    ///
    /// # Shapes
    /// - `maps`: `[N, C, H / 2^level, W / 2^level]` for each level from the finest
    /// - `boxes`: one list for each of N images, `x1, y1, x2, y2` in input pixels
    /// - result: `[R, C, output_size[0], output_size[1]]` for R boxes in all
    ///
    /// # Panics
    /// When there is no map, or not one list of boxes for each image.
    pub fn forward(&self, maps: &[Tensor<4>], boxes: &[Vec<[f32; 4]>]) -> Tensor<4> {
        let [n, _, _, _] = maps.first().expect("a pyramid has at least one map").dims();
        assert_eq!(boxes.len(), n, "one list of boxes for each of {n} images");
        let rois: Vec<Roi> = boxes
            .iter()
            .enumerate()
            .flat_map(|(film, boxes)| boxes.iter().map(move |&xyxy| Roi { film, xyxy }))
            .collect();
        if rois.is_empty() {
            return roi_align(maps[0].clone(), &[], self.options(0));
        }
        let levels: Vec<usize> = rois.iter().map(|roi| self.level(roi.xyxy, maps.len())).collect();
        let mut place = vec![0i64; rois.len()]; // of each box among the levels' results, one after the other
        let mut placed = 0;
        let pooled: Vec<Tensor<4>> = maps
            .iter()
            .enumerate()
            .map(|(index, map)| {
                let of_level: Vec<usize> = (0..rois.len()).filter(|&roi| levels[roi] == index).collect();
                for &roi in &of_level {
                    place[roi] = placed;
                    placed += 1;
                }
                let mut of_level: Vec<Roi> = of_level.into_iter().map(|roi| rois[roi]).collect();
                if of_level.is_empty() {
                    of_level.push(BESIDE_THE_FILM);
                    placed += 1;
                }
                roi_align(map.clone(), &of_level, self.options(index))
            })
            .collect();
        let device = pooled[0].device();
        let count = place.len();
        let place = Tensor::<1, Int>::from_data(TensorData::new(place, [count]), &device);
        Tensor::cat(pooled, 0).select(0, place)
    }

    /// Index of the map that a box is pooled from, of `maps` maps. A box that is inverted or not finite goes to the
    /// finest.
    pub fn level(&self, [x1, y1, x2, y2]: [f32; 4], maps: usize) -> usize {
        let size = ((x2 - x1) * (y2 - y1)).sqrt();
        let level = (CANONICAL_LEVEL + (size / CANONICAL_SIZE_PX).log2() + self.level_margin).floor();
        // The cast saturates, and NaN becomes 0.
        ((level - self.finest_level as f32) as usize).min(maps - 1)
    }

    fn options(&self, map: usize) -> RoiAlignOptions {
        RoiAlignOptions {
            output_size: self.output_size,
            spatial_scale: 0.5f32.powi((self.finest_level as usize + map) as i32),
            sampling_ratio: self.sampling_ratio,
            aligned: self.aligned,
        }
    }
}
