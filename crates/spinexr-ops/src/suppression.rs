//! Non-maximum suppression where a network ran: which boxes overlap is worked out on its device, which boxes stay is
//! decided on the host.
//!
//! Reference: `torchvision.ops.batched_nms`, as `spinexr_core::nms`, which is the one to use on a CPU. Deviation: IoU is
//! compared as `intersection > threshold * union`, without a division, so a box whose IoU is within a rounding of the
//! threshold may be decided otherwise.

use burn::backend::Dispatch;
use burn::tensor::{Device, Tensor, TensorData};

use crate::backend::FilmOps;

/// Overlaps in one value of a mask: bits of an integer that every float type of 32 bits holds exactly.
pub(crate) const BITS: usize = 16;

/// Boxes whose overlaps are worked out at a time: bounds the memory of a mask.
const BOXES_AT_ONCE: usize = 4096;

/// Indices of the boxes that no kept, better box of their class overlaps by more than `iou_threshold`, best first.
///
/// `boxes`: `x1, y1, x2, y2`, finite, best first. `classes`: of each box, below 2²⁴. The work is done on `device`,
/// which must be one without autodiff.
///
/// # Panics
/// When there is not one class a box.
pub fn suppress(boxes: &[[f32; 4]], classes: &[usize], iou_threshold: f32, device: &Device) -> Vec<usize> {
    assert_eq!(boxes.len(), classes.len(), "one class a box");
    let count = boxes.len();
    let with_class: Vec<f32> = boxes
        .iter()
        .zip(classes)
        .flat_map(|(&[x1, y1, x2, y2], &class)| [x1, y1, x2, y2, class as f32])
        .collect();
    let with_class = Tensor::<2>::from_data(TensorData::new(with_class, [count, 5]), device);
    let words = count.div_ceil(BITS);
    let mut kept = Vec::new();
    let mut suppressed = vec![0u32; words];
    for first in (0..count).step_by(BOXES_AT_ONCE) {
        let rows = BOXES_AT_ONCE.min(count - first);
        let mask: Tensor<2> = Tensor::from_dispatch(<Dispatch as FilmOps>::op_overlaps(
            with_class.clone().into_dispatch(),
            first,
            rows,
            iou_threshold,
        ));
        let mask: Vec<f32> = mask.try_into_vec_as().expect("a mask is a float tensor that can be read back");
        for (row, overlaps) in mask.chunks_exact(words).enumerate() {
            let candidate = first + row;
            if suppressed[candidate / BITS] >> (candidate % BITS) & 1 == 0 {
                kept.push(candidate);
                suppressed.iter_mut().zip(overlaps).for_each(|(all, &of_row)| *all |= of_row as u32);
            }
        }
    }
    kept
}
