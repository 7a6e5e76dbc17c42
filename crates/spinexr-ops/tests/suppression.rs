//! Suppression on a device against a direct loop.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use burn::tensor::Device;
use proptest::prelude::*;
use spinexr_ops::suppress;
use support::unit;

/// The definition: best first, a box goes when a kept one of its class overlaps it by more than the threshold.
pub fn direct(boxes: &[[f32; 4]], classes: &[usize], threshold: f32) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    let area = |b: [f32; 4]| f64::from((b[2] - b[0]).max(0.0)) * f64::from((b[3] - b[1]).max(0.0));
    for (index, &b) in boxes.iter().enumerate() {
        let overlaps = |&k: &usize| {
            let a = boxes[k];
            let inside = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
            let union = area(a) + area(b) - inside;
            classes[k] == classes[index] && union > 0.0 && inside / union > f64::from(threshold)
        };
        if !kept.iter().any(overlaps) {
            kept.push(index);
        }
    }
    kept
}

/// Boxes at whole numbers, so that every area is exact.
pub fn whole_boxes(seed: u64, count: usize) -> Vec<[f32; 4]> {
    let at = |u: f32, range: f32| (u * range).floor();
    unit(seed, 4 * count)
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&[x, y, w, h]| {
            let (x, y) = (at(x, 60.0), at(y, 60.0));
            [x, y, x + at(w, 30.0), y + at(h, 30.0)]
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn as_the_direct_loop(seed: u64, count in 0usize..70, classes in 1usize..4, eighths in 0u8..8) {
        let boxes = whole_boxes(seed, count);
        let class: Vec<usize> = (0..count).map(|i| i * 7 % 5 % classes).collect();
        let threshold = f32::from(eighths) / 8.0;
        let found = suppress(&boxes, &class, threshold, &Device::flex());
        prop_assert_eq!(found, direct(&boxes, &class, threshold));
    }
}

#[test]
fn more_boxes_than_are_taken_at_a_time() {
    let boxes = whole_boxes(3, 4500);
    let classes = vec![0; boxes.len()];
    let found = suppress(&boxes, &classes, 0.5, &Device::flex());
    assert_eq!(found, direct(&boxes, &classes, 0.5));
    assert!(found.iter().any(|&kept| kept > 4096), "the second part keeps nothing: {}", found.len());
}
