//! Which boxes overlap, over plain slices.

use crate::suppression::BITS;

/// Overlaps of the boxes `first..first + rows` with later ones, as `op_overlaps` gives them. `boxes`: rows of corners
/// and class, best first.
pub(crate) fn overlaps(boxes: &[[f32; 5]], first: usize, rows: usize, iou_threshold: f32) -> Vec<f32> {
    let words = boxes.len().div_ceil(BITS);
    let mut masks = vec![0.0; rows * words];
    let area = |[x1, y1, x2, y2, _]: [f32; 5]| (x2 - x1).max(0.0) * (y2 - y1).max(0.0);
    for (better, mask) in (first..first + rows).zip(masks.chunks_exact_mut(words.max(1))) {
        let a = boxes[better];
        for (worse, &b) in boxes.iter().enumerate().skip(better + 1) {
            let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
            let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
            let inside = width * height;
            if a[4] == b[4] && inside > iou_threshold * (area(a) + area(b) - inside) {
                mask[worse / BITS] += (1u32 << (worse % BITS)) as f32;
            }
        }
    }
    masks
}
