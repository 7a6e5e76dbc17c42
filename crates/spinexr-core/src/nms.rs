//! Non-maximum suppression on plain boxes.
//!
//! Reference: `torchvision.ops.nms` and `batched_nms`: a box is dropped when its IoU with a kept, better
//! one is **greater than** the threshold; of equal scores the lower index goes first.

use crate::BoxXyxy;

/// Indices of the kept boxes, best score first.
///
/// A score that is NaN sorts last. Boxes without area suppress nothing.
pub fn nms(boxes: &[BoxXyxy], scores: &[f32], iou_threshold: f32) -> Vec<usize> {
    class_wise_nms(boxes, scores, &vec![0; boxes.len()], iou_threshold)
}

/// As [`nms`], but boxes of different classes do not suppress each other.
///
/// # Panics
/// When the three slices differ in length.
pub fn class_wise_nms(
    boxes: &[BoxXyxy],
    scores: &[f32],
    classes: &[usize],
    iou_threshold: f32,
) -> Vec<usize> {
    assert_eq!(boxes.len(), scores.len(), "one score a box");
    assert_eq!(boxes.len(), classes.len(), "one class a box");
    let key = |i: usize| if scores[i].is_nan() { f32::NEG_INFINITY } else { scores[i] };
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));

    let mut kept: Vec<usize> = Vec::new();
    for candidate in order {
        let suppressed = kept
            .iter()
            .any(|&k| classes[k] == classes[candidate] && boxes[k].iou(&boxes[candidate]) > iou_threshold);
        if !suppressed {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn drops_the_weaker_of_two_like_boxes_of_a_class() {
        let b = BoxXyxy::new(0.0, 0.0, 10.0, 10.0);
        let near = b.translate(1.0, 0.0);
        let far = b.translate(50.0, 0.0);
        assert_eq!(nms(&[b, near, far], &[0.5, 0.9, 0.1], 0.5), [1, 2]);
        assert_eq!(class_wise_nms(&[b, near, far], &[0.5, 0.9, 0.1], &[0, 1, 0], 0.5), [1, 0, 2]);
    }

    #[test]
    fn equal_scores_keep_the_lower_index() {
        let b = BoxXyxy::new(0.0, 0.0, 10.0, 10.0);
        assert_eq!(nms(&[b, b, b], &[0.5, 0.5, 0.5], 0.5), [0]);
    }

    #[test]
    fn iou_equal_to_the_threshold_is_kept() {
        let a = BoxXyxy::new(0.0, 0.0, 2.0, 1.0);
        let b = BoxXyxy::new(0.0, 0.0, 1.0, 1.0);
        assert_eq!(nms(&[a, b], &[0.9, 0.8], 0.5).len(), 2);
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert!(nms(&[], &[], 0.5).is_empty());
    }

    proptest! {
        #[test]
        fn idempotent(raw in prop::collection::vec((0.0f32..50.0, 0.0f32..50.0, 1.0f32..30.0, 1.0f32..30.0, 0.0f32..1.0, 0usize..3), 0..40)) {
            let boxes: Vec<_> = raw.iter().map(|r| BoxXyxy::new(r.0, r.1, r.0 + r.2, r.1 + r.3)).collect();
            let scores: Vec<_> = raw.iter().map(|r| r.4).collect();
            let classes: Vec<_> = raw.iter().map(|r| r.5).collect();
            let kept = class_wise_nms(&boxes, &scores, &classes, 0.5);
            let b2: Vec<_> = kept.iter().map(|&i| boxes[i]).collect();
            let s2: Vec<_> = kept.iter().map(|&i| scores[i]).collect();
            let c2: Vec<_> = kept.iter().map(|&i| classes[i]).collect();
            let again = class_wise_nms(&b2, &s2, &c2, 0.5);
            prop_assert_eq!(again, (0..kept.len()).collect::<Vec<_>>());
        }
    }
}
