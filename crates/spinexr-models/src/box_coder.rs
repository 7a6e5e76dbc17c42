//! Boxes as offsets from anchors: the regression targets of the detectors.
//!
//! Paper: Girshick et al., "Rich feature hierarchies" (arXiv 1311.2524), appendix C.
//! Reference: `torchvision.models.detection._utils.BoxCoder`.

use spinexr_core::BoxXyxy;

/// Largest log-scale a decoded width or height may grow by: a wild prediction must not overflow `exp`.
pub const MAX_LOG_SCALE: f32 = 4.135_166_6; // ln(1000 / 16)

/// Weights of `(dx, dy, dw, dh)`; RetinaNet uses ones, Faster R-CNN `(10, 10, 5, 5)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxCoder {
    /// Factors of `dx, dy, dw, dh`.
    pub weights: [f32; 4],
}

impl BoxCoder {
    /// Weights of one, as in RetinaNet.
    pub const UNIT: Self = Self { weights: [1.0; 4] };

    /// Offsets that lead from `anchor` to `target`, both in the same pixels.
    ///
    /// Both boxes must be proper (positive width and height): a box without width has no logarithm.
    pub fn encode(&self, target: &BoxXyxy, anchor: &BoxXyxy) -> [f32; 4] {
        let [wx, wy, ww, wh] = self.weights;
        let (anchor_w, anchor_h) = (anchor.width(), anchor.height());
        let (anchor_x, anchor_y) = (anchor.x1 + 0.5 * anchor_w, anchor.y1 + 0.5 * anchor_h);
        let (target_w, target_h) = (target.width(), target.height());
        let (target_x, target_y) = (target.x1 + 0.5 * target_w, target.y1 + 0.5 * target_h);
        [
            wx * (target_x - anchor_x) / anchor_w,
            wy * (target_y - anchor_y) / anchor_h,
            ww * (target_w / anchor_w).ln(),
            wh * (target_h / anchor_h).ln(),
        ]
    }

    /// The box `deltas` lead to from `anchor`; the inverse of [`BoxCoder::encode`] up to the clamp of
    /// [`MAX_LOG_SCALE`].
    pub fn decode(&self, deltas: [f32; 4], anchor: &BoxXyxy) -> BoxXyxy {
        let [wx, wy, ww, wh] = self.weights;
        let (anchor_w, anchor_h) = (anchor.width(), anchor.height());
        let (anchor_x, anchor_y) = (anchor.x1 + 0.5 * anchor_w, anchor.y1 + 0.5 * anchor_h);
        let x = deltas[0] / wx * anchor_w + anchor_x;
        let y = deltas[1] / wy * anchor_h + anchor_y;
        let half_w = 0.5 * ((deltas[2] / ww).min(MAX_LOG_SCALE).exp() * anchor_w);
        let half_h = 0.5 * ((deltas[3] / wh).min(MAX_LOG_SCALE).exp() * anchor_h);
        BoxXyxy::new(x - half_w, y - half_h, x + half_w, y + half_h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_anchor_is_its_own_zero() {
        let anchor = BoxXyxy::new(3.0, 4.0, 19.0, 12.0);
        assert_eq!(BoxCoder::UNIT.encode(&anchor, &anchor), [0.0; 4]);
        assert_eq!(BoxCoder::UNIT.decode([0.0; 4], &anchor), anchor);
    }

    #[test]
    fn offsets_are_relative_to_the_anchor() {
        let anchor = BoxXyxy::new(0.0, 0.0, 10.0, 20.0);
        let target = BoxXyxy::new(5.0, 0.0, 25.0, 20.0); // centre 10 px right, twice as wide
        let [dx, dy, dw, dh] = BoxCoder::UNIT.encode(&target, &anchor);
        assert_eq!((dx, dy, dh), (1.0, 0.0, 0.0));
        assert!((dw - 2.0f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_wild_scale_is_clamped() {
        let anchor = BoxXyxy::new(0.0, 0.0, 16.0, 16.0);
        let b = BoxCoder::UNIT.decode([0.0, 0.0, 80.0, 1e30], &anchor);
        assert!(b.is_finite());
        assert!((b.width() - 1000.0).abs() < 1e-2 && (b.height() - 1000.0).abs() < 1e-2);
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(
            a in (0.0f32..400.0, 0.0f32..400.0, 4.0f32..200.0, 4.0f32..200.0),
            t in (0.0f32..400.0, 0.0f32..400.0, 4.0f32..200.0, 4.0f32..200.0),
        ) {
            let anchor = BoxXyxy::new(a.0, a.1, a.0 + a.2, a.1 + a.3);
            let target = BoxXyxy::new(t.0, t.1, t.0 + t.2, t.1 + t.3);
            for coder in [BoxCoder::UNIT, BoxCoder { weights: [10.0, 10.0, 5.0, 5.0] }] {
                let back = coder.decode(coder.encode(&target, &anchor), &anchor);
                for (x, y) in <[f32; 4]>::from(back).iter().zip(<[f32; 4]>::from(target)) {
                    prop_assert!((x - y).abs() < 1e-2, "{back:?} {target:?}");
                }
            }
        }
    }
}
