//! Suppression of a detector's boxes where its network ran.

use burn::tensor::Device;
use spinexr_core::BoxXyxy;
use spinexr_core::nms::class_wise_nms;
use spinexr_ops::suppress;

/// As [`class_wise_nms`], with the overlaps worked out on `device` when that is a GPU: thousands of candidates have
/// millions of pairs. Scores must not be NaN there, nor boxes infinite.
///
/// # Panics
/// When the three slices differ in length.
pub(crate) fn class_wise_nms_on(
    device: &Device,
    boxes: &[BoxXyxy],
    scores: &[f32],
    classes: &[usize],
    iou_threshold: f32,
) -> Vec<usize> {
    if device.clone().inner() == Device::flex() {
        return class_wise_nms(boxes, scores, classes, iou_threshold);
    }
    assert_eq!(boxes.len(), scores.len(), "one score a box");
    assert_eq!(boxes.len(), classes.len(), "one class a box");
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let sorted_boxes: Vec<[f32; 4]> = order.iter().map(|&index| boxes[index].into()).collect();
    let sorted_classes: Vec<usize> = order.iter().map(|&index| classes[index]).collect();
    let kept = suppress(&sorted_boxes, &sorted_classes, iou_threshold, &device.clone().inner());
    kept.into_iter().map(|place| order[place]).collect()
}
