//! Measures of boxes beside COCO's: VOC's AP, confusion with the background, localisation by a hit in the box.
//!
//! Crowds play no part in them.

use crate::coco::{self, BoxSet};
use serde::{Deserialize, Serialize};

/// AP as Pascal VOC has had it since 2010: the whole area under the monotone precision–recall curve, by class; `None`
/// for a class without truth (Everingham et al., IJCV 2010;88:303–338, and the 2012 development kit).
pub fn voc_ap(boxes: &BoxSet, iou: f64) -> Vec<Option<f64>> {
    let hits = coco::hits(boxes, iou, usize::MAX);
    let mut truth = vec![0usize; boxes.classes];
    boxes.truth.iter().filter(|t| !t.crowd).for_each(|t| truth[t.class] += 1);
    truth
        .iter()
        .enumerate()
        .map(|(class, &truth)| {
            let mut precision = Vec::new();
            for (rank, hit) in hits.iter().filter(|hit| hit.class == class).enumerate() {
                if hit.found.is_some() {
                    precision.push((precision.len() + 1) as f64 / (rank + 1) as f64);
                }
            }
            for i in (1..precision.len()).rev() {
                precision[i - 1] = f64::max(precision[i - 1], precision[i]);
            }
            // Each truth that is found adds one step of recall.
            (truth > 0).then(|| precision.iter().sum::<f64>() / truth as f64)
        })
        .collect()
}

/// Which class is taken for which, at one score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxConfusion {
    /// `counts[truth][proposed]`, the last of each the background: a truth that nothing was proposed for, a proposal
    /// where nothing is.
    pub counts: Vec<Vec<usize>>,
}

/// Matches the detections of a score of at least `min_score` to the truth of their film whatever the class, best score
/// first, each to the free truth of largest overlap, at least `iou`.
pub fn confusion(boxes: &BoxSet, iou: f64, min_score: f64) -> BoxConfusion {
    let background = boxes.classes;
    let mut counts = vec![vec![0usize; boxes.classes + 1]; boxes.classes + 1];
    let of_image = boxes.truth_by_image();
    let mut taken = vec![false; boxes.truth.len()];
    let mut order: Vec<usize> =
        (0..boxes.detections.len()).filter(|&i| boxes.detections[i].score >= min_score).collect();
    order.sort_by(|&a, &b| boxes.detections[b].score.total_cmp(&boxes.detections[a].score));
    for detection in order.into_iter().map(|i| &boxes.detections[i]) {
        let best = of_image[detection.image]
            .iter()
            .filter(|truth| !taken[**truth])
            .map(|&truth| (truth, coco::iou(detection.xywh, &boxes.truth[truth])))
            .filter(|(_, overlap)| *overlap >= iou)
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        match best {
            Some((truth, _)) => {
                taken[truth] = true;
                counts[boxes.truth[truth].class][detection.class] += 1;
            }
            None => counts[background][detection.class] += 1,
        }
    }
    for truth in of_image.into_iter().flatten().filter(|&truth| !taken[truth]) {
        counts[boxes.truth[truth].class][background] += 1;
    }
    BoxConfusion { counts }
}

/// Localisation of one class by hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitsInBox {
    /// Marked boxes.
    pub truth: usize,
    /// Marked boxes that hold the middle of a detection of their class.
    pub hit: usize,
    /// Detections whose middle lies in no marked box of their class.
    pub misses: usize,
}

/// For each class, hits of the detections of a score of at least `min_score`: what a reader asks who only needs to be
/// pointed at the place.
pub fn hits_in_box(boxes: &BoxSet, min_score: f64) -> Vec<HitsInBox> {
    let mut of_class = vec![HitsInBox { truth: 0, hit: 0, misses: 0 }; boxes.classes];
    let mut is_hit = vec![false; boxes.truth.len()];
    let of_image = boxes.truth_by_image();
    for &i in of_image.iter().flatten() {
        of_class[boxes.truth[i].class].truth += 1;
    }
    for detection in boxes.detections.iter().filter(|d| d.score >= min_score) {
        let [x, y, w, h] = detection.xywh;
        let (middle_x, middle_y) = (x + 0.5 * w, y + 0.5 * h);
        let mut pointed = false;
        for &i in &of_image[detection.image] {
            let truth = &boxes.truth[i];
            let [left, top, width, height] = truth.xywh;
            if truth.class == detection.class
                && (left..=left + width).contains(&middle_x)
                && (top..=top + height).contains(&middle_y)
            {
                (is_hit[i], pointed) = (true, true);
            }
        }
        of_class[detection.class].misses += usize::from(!pointed);
    }
    for (truth, hit) in boxes.truth.iter().zip(is_hit) {
        of_class[truth.class].hit += usize::from(hit);
    }
    of_class
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coco::{DetectedBox, TruthBox};
    use proptest::prelude::*;

    fn truth(image: usize, class: usize, xywh: [f64; 4]) -> TruthBox {
        TruthBox { image, class, xywh, area: xywh[2] * xywh[3], crowd: false }
    }

    fn found(image: usize, class: usize, xywh: [f64; 4], score: f64) -> DetectedBox {
        DetectedBox { image, class, xywh, score }
    }

    const A: [f64; 4] = [0.0, 0.0, 10.0, 10.0];
    const B: [f64; 4] = [100.0, 0.0, 10.0, 10.0];
    const C: [f64; 4] = [200.0, 0.0, 10.0, 10.0];

    #[test]
    fn voc_by_hand() {
        // Found, false, found; one of three truths is never found: (1 + 2/3) / 3.
        let boxes = BoxSet {
            images: 1,
            classes: 2,
            truth: vec![truth(0, 0, A), truth(0, 0, B), truth(0, 0, C)],
            detections: vec![
                found(0, 0, A, 0.9),
                found(0, 0, [50.0, 50.0, 5.0, 5.0], 0.8),
                found(0, 0, B, 0.7),
            ],
        };
        let ap = voc_ap(&boxes, 0.5);
        assert!((ap[0].unwrap() - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!(ap[1], None);
    }

    #[test]
    fn a_wrong_class_a_miss_and_a_false_alarm_have_their_cells() {
        let boxes = BoxSet {
            images: 2,
            classes: 2,
            truth: vec![truth(0, 0, A), truth(0, 1, B), truth(1, 1, C)],
            detections: vec![
                found(0, 1, A, 0.9),
                found(0, 1, A, 0.8), // the place is taken
                found(0, 1, B, 0.7),
                found(1, 0, C, 0.2), // below the score
            ],
        };
        let counts = confusion(&boxes, 0.5, 0.5).counts;
        assert_eq!(counts, [[0, 1, 0], [0, 1, 1], [0, 1, 0]]);
    }

    #[test]
    fn a_hit_needs_the_class_and_the_middle() {
        let boxes = BoxSet {
            images: 1,
            classes: 2,
            truth: vec![truth(0, 0, A), truth(0, 1, B)],
            detections: vec![
                found(0, 0, [4.0, 4.0, 1.0, 1.0], 0.9),    // small, but inside
                found(0, 0, [-20.0, 0.0, 30.0, 9.0], 0.9), // overlaps, its middle is outside
                found(0, 0, B, 0.9),                       // another class
            ],
        };
        let hits = hits_in_box(&boxes, 0.5);
        assert_eq!(hits[0], HitsInBox { truth: 1, hit: 1, misses: 2 });
        assert_eq!(hits[1], HitsInBox { truth: 1, hit: 0, misses: 0 });
    }

    proptest! {
        #[test]
        fn every_truth_and_every_detection_is_in_one_cell(
            boxes in prop::collection::vec((0usize..3, 0usize..2, 0u8..4, any::<bool>()), 0..30),
        ) {
            let place = |at: u8| [f64::from(at) * 8.0, 0.0, 12.0, 10.0];
            let (t, d): (Vec<_>, Vec<_>) = boxes.into_iter().partition(|b| b.3);
            let set = BoxSet {
                images: 3,
                classes: 2,
                truth: t.iter().map(|b| truth(b.0, b.1, place(b.2))).collect(),
                detections: d.iter().map(|b| found(b.0, b.1, place(b.2), 0.5)).collect(),
            };
            let counts = confusion(&set, 0.5, 0.0).counts;
            let row = |class: usize| counts[class].iter().sum::<usize>();
            let column = |class: usize| counts.iter().map(|row| row[class]).sum::<usize>();
            for class in 0..2 {
                prop_assert_eq!(row(class), set.truth.iter().filter(|t| t.class == class).count());
                prop_assert_eq!(column(class), set.detections.iter().filter(|d| d.class == class).count());
            }
            prop_assert_eq!(counts[2][2], 0);
        }
    }
}
