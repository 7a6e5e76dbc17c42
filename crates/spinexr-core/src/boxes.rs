//! Boxes in absolute pixels of the original film.
//!
//! A box is the half-open rectangle `[x1, x2) × [y1, y2)`: a box over one pixel has width 1, and nothing
//! here adds one to a width.

use serde::{Deserialize, Serialize};

/// A box as `x1, y1, x2, y2` in film pixels; `x` runs right, `y` runs down.
///
/// Serialised as the array `[x1, y1, x2, y2]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
pub struct BoxXyxy {
    /// Left edge, px.
    pub x1: f32,
    /// Top edge, px.
    pub y1: f32,
    /// Right edge, px.
    pub x2: f32,
    /// Bottom edge, px.
    pub y2: f32,
}

impl From<[f32; 4]> for BoxXyxy {
    fn from([x1, y1, x2, y2]: [f32; 4]) -> Self {
        Self { x1, y1, x2, y2 }
    }
}

impl From<BoxXyxy> for [f32; 4] {
    fn from(b: BoxXyxy) -> Self {
        [b.x1, b.y1, b.x2, b.y2]
    }
}

impl BoxXyxy {
    /// A box from its corners, px.
    pub const fn new(x1: f32, y1: f32, x2: f32, y2: f32) -> Self {
        Self { x1, y1, x2, y2 }
    }

    /// Width in px; negative for an inverted box.
    pub fn width(&self) -> f32 {
        self.x2 - self.x1
    }

    /// Height in px; negative for an inverted box.
    pub fn height(&self) -> f32 {
        self.y2 - self.y1
    }

    /// Area in px²; zero for an inverted box.
    pub fn area(&self) -> f32 {
        self.width().max(0.0) * self.height().max(0.0)
    }

    /// Centre `(x, y)` in px.
    pub fn center(&self) -> (f32, f32) {
        (0.5 * (self.x1 + self.x2), 0.5 * (self.y1 + self.y2))
    }

    /// All four coordinates are finite.
    pub fn is_finite(&self) -> bool {
        [self.x1, self.y1, self.x2, self.y2].iter().all(|v| v.is_finite())
    }

    /// Finite, with positive width and height.
    pub fn is_proper(&self) -> bool {
        self.is_finite() && self.width() > 0.0 && self.height() > 0.0
    }

    /// Area shared with `other`, px².
    pub fn intersection(&self, other: &Self) -> f32 {
        let w = self.x2.min(other.x2) - self.x1.max(other.x1);
        let h = self.y2.min(other.y2) - self.y1.max(other.y1);
        w.max(0.0) * h.max(0.0)
    }

    /// Intersection over union, in `[0, 1]`. Two boxes without area share nothing: 0.
    pub fn iou(&self, other: &Self) -> f32 {
        let inter = self.intersection(other);
        let union = self.area() + other.area() - inter;
        if union > 0.0 { inter / union } else { 0.0 }
    }

    /// The part of the box inside a film of `width_px` × `height_px`.
    pub fn clip(&self, width_px: f32, height_px: f32) -> Self {
        Self {
            x1: self.x1.clamp(0.0, width_px),
            y1: self.y1.clamp(0.0, height_px),
            x2: self.x2.clamp(0.0, width_px),
            y2: self.y2.clamp(0.0, height_px),
        }
    }

    /// The box with `x` coordinates times `sx` and `y` coordinates times `sy`.
    pub fn scale(&self, sx: f32, sy: f32) -> Self {
        Self { x1: self.x1 * sx, y1: self.y1 * sy, x2: self.x2 * sx, y2: self.y2 * sy }
    }

    /// The box moved by `(dx, dy)` px.
    pub fn translate(&self, dx: f32, dy: f32) -> Self {
        Self { x1: self.x1 + dx, y1: self.y1 + dy, x2: self.x2 + dx, y2: self.y2 + dy }
    }

    /// The box in a film of `width_px` mirrored left to right.
    pub fn flip_horizontal(&self, width_px: f32) -> Self {
        Self { x1: width_px - self.x2, x2: width_px - self.x1, ..*self }
    }

    /// The smallest box around both.
    pub fn union(&self, other: &Self) -> Self {
        Self {
            x1: self.x1.min(other.x1),
            y1: self.y1.min(other.y1),
            x2: self.x2.max(other.x2),
            y2: self.y2.max(other.y2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_box() -> impl Strategy<Value = BoxXyxy> {
        (0.0f32..2000.0, 0.0f32..2000.0, 0.5f32..900.0, 0.5f32..900.0)
            .prop_map(|(x, y, w, h)| BoxXyxy::new(x, y, x + w, y + h))
    }

    #[test]
    fn iou_of_half_overlapping_boxes_is_a_third() {
        let a = BoxXyxy::new(0.0, 0.0, 2.0, 1.0);
        let b = BoxXyxy::new(1.0, 0.0, 3.0, 1.0);
        assert_eq!(a.iou(&b), 1.0 / 3.0);
    }

    #[test]
    fn touching_and_empty_boxes_share_nothing() {
        let a = BoxXyxy::new(0.0, 0.0, 1.0, 1.0);
        assert_eq!(a.iou(&BoxXyxy::new(1.0, 0.0, 2.0, 1.0)), 0.0);
        let empty = BoxXyxy::new(0.5, 0.5, 0.5, 0.5);
        assert_eq!(empty.iou(&empty), 0.0);
    }

    #[test]
    fn serialised_as_an_array() {
        let b = BoxXyxy::new(1.0, 2.5, 3.0, 4.0);
        let json = serde_json::to_string(&b).unwrap();
        assert_eq!(json, "[1.0,2.5,3.0,4.0]");
        assert_eq!(serde_json::from_str::<BoxXyxy>(&json).unwrap(), b);
    }

    proptest! {
        #[test]
        fn iou_is_symmetric_and_bounded(a in any_box(), b in any_box()) {
            prop_assert_eq!(a.iou(&b), b.iou(&a));
            prop_assert!((0.0..=1.0).contains(&a.iou(&b)));
            prop_assert!((a.iou(&a) - 1.0).abs() < 1e-6);
        }

        #[test]
        fn flipping_twice_returns(a in any_box()) {
            let back = a.flip_horizontal(4096.0).flip_horizontal(4096.0);
            prop_assert!((back.x1 - a.x1).abs() < 1e-3 && (back.x2 - a.x2).abs() < 1e-3);
        }
    }
}
