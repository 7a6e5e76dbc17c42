//! Which boxes overlap, on a GPU: a unit compares one box with [`BITS`] others.

use burn::tensor::Shape;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::empty_like;
use crate::suppression::BITS;

#[cube(launch)]
fn overlaps_kernel(
    boxes: &[f32],   // [K, 5]
    out: &mut [f32], // [rows, words]
    first: usize,
    count: usize,
    words: usize,
    iou_threshold: f32,
    #[comptime] bits: usize,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let better = first + ABSOLUTE_POS / words;
    let (ax1, ay1) = (boxes[better * 5], boxes[better * 5 + 1]);
    let (ax2, ay2) = (boxes[better * 5 + 2], boxes[better * 5 + 3]);
    let class = boxes[better * 5 + 4];
    let area = max(ax2 - ax1, 0.0) * max(ay2 - ay1, 0.0);
    let mut mask = 0.0f32;
    let mut place = 1.0f32;
    for bit in 0..bits {
        let worse = ABSOLUTE_POS % words * bits + bit;
        if worse > better && worse < count && boxes[worse * 5 + 4] == class {
            let (bx1, by1) = (boxes[worse * 5], boxes[worse * 5 + 1]);
            let (bx2, by2) = (boxes[worse * 5 + 2], boxes[worse * 5 + 3]);
            let width = max(min(ax2, bx2) - max(ax1, bx1), 0.0);
            let height = max(min(ay2, by2) - max(ay1, by1), 0.0);
            let inside = width * height;
            let union = area + max(bx2 - bx1, 0.0) * max(by2 - by1, 0.0) - inside;
            if inside > iou_threshold * union {
                mask += place;
            }
        }
        place *= 2.0;
    }
    out[ABSOLUTE_POS] = mask;
}

/// See [`crate::backend::FilmOps::op_overlaps`]; `boxes` is f32, and there is at least one row.
pub(crate) fn overlaps(boxes: CubeTensor, first: usize, rows: usize, iou_threshold: f32) -> CubeTensor {
    let [count, _] = boxes.meta.shape().dims();
    let words = count.div_ceil(BITS);
    let boxes = into_contiguous(boxes);
    let out = empty_like(&boxes, Shape::from([rows, words]));
    let client = boxes.client.clone();
    let cube_dim = CubeDim::new(&client, rows * words);
    overlaps_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, rows * words, cube_dim),
        cube_dim,
        boxes.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        first,
        count,
        words,
        iou_threshold,
        BITS,
    );
    out
}
