//! Anchors that are not cut to whole pixels and lie around the middle of a place.
//!
//! Reference: `effdet.anchors.Anchors`. The order is level, row, column, octave, aspect; corners are computed in double
//! precision and rounded once.

use serde::{Deserialize, Serialize};
use spinexr_core::BoxXyxy;

use crate::anchors::Anchors;

/// Sizes and shapes of the anchors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaledAnchors {
    /// Side of a level's smallest square anchor, in places of that level.
    pub scale: f64,
    /// Sizes a level: the smallest times `2^(i / octaves)`.
    pub octaves: usize,
    /// Width and height as factors of the side.
    pub aspects: Vec<[f64; 2]>,
}

impl ScaledAnchors {
    /// The paper's: 4 places, three sizes, squares and two rectangles of about 1:2.
    pub fn published() -> Self {
        Self { scale: 4.0, octaves: 3, aspects: vec![[1.0, 1.0], [1.4, 0.7], [0.7, 1.4]] }
    }

    /// Anchors at one place.
    pub fn per_location(&self) -> usize {
        self.octaves * self.aspects.len()
    }

    /// All anchors of an image of `size` (height, width, px), which the coarsest of the levels' strides divides.
    pub fn generate(&self, size: [usize; 2], levels: std::ops::RangeInclusive<usize>) -> Anchors {
        let (mut boxes, mut per_level) = (Vec::new(), Vec::new());
        for level in levels {
            let stride = (1usize << level) as f64;
            let halves: Vec<[f64; 2]> = (0..self.octaves)
                .flat_map(|octave| {
                    let side = self.scale * stride * 2f64.powf(octave as f64 / self.octaves as f64);
                    self.aspects.iter().map(move |aspect| aspect.map(|factor| side * factor / 2.0))
                })
                .collect();
            let [rows, columns] = size.map(|px| px >> level);
            per_level.push(rows * columns * halves.len());
            for row in 0..rows {
                for column in 0..columns {
                    let [x, y] = [column, row].map(|place| (place as f64 + 0.5) * stride);
                    boxes.extend(halves.iter().map(|[w, h]| {
                        BoxXyxy::new((x - w) as f32, (y - h) as f32, (x + w) as f32, (y + h) as f32)
                    }));
                }
            }
        }
        Anchors { boxes, per_level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_row_column_octave_aspect() {
        let anchors = ScaledAnchors::published().generate([256, 128], 6..=7);
        assert_eq!(anchors.per_level, [4 * 2 * 9, 2 * 9]);
        assert_eq!(anchors.boxes.len(), 90);
        let square = BoxXyxy::new(-96.0, -96.0, 160.0, 160.0);
        assert_eq!(anchors.boxes[0], square);
        let wide = anchors.boxes[1];
        assert!((wide.width() - 1.4 * 256.0).abs() < 1e-3 && (wide.height() - 0.7 * 256.0).abs() < 1e-3);
        let next_octave = anchors.boxes[3];
        assert!((next_octave.width() - 256.0 * 2f32.cbrt()).abs() < 1e-3);
        assert_eq!(anchors.boxes[9], square.translate(64.0, 0.0));
        assert_eq!(anchors.boxes[18], square.translate(0.0, 64.0));
    }
}
