//! Free-response ROC: how many of the marked findings are found for how many false alarms a film.
//!
//! A detection finds a box of its own class at an IoU of at least 0.5 (the paper's table uses the same);
//! a second detection of a box that was found already is a false alarm, as in COCO. Films without a
//! finding count among the films. Detections of equal score enter together.

use crate::coco::{self, BoxSet, Hit};
use serde::{Deserialize, Serialize};

/// False alarms a film at which sensitivity is read.
pub const FALSE_ALARMS_PER_FILM: [f64; 7] = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];

/// A point of the curve: detections with a score of at least `score` count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FrocPoint {
    /// Score.
    pub score: f64,
    /// False alarms a film.
    pub false_positives_per_film: f64,
    /// Share of the marked boxes that are found.
    pub sensitivity: f64,
}

/// The curve and its readings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Froc {
    /// IoU from which a box is found.
    pub iou: f64,
    /// Points, highest score first, with those left out that do not change the sensitivity.
    pub curve: Vec<FrocPoint>,
    /// `(false alarms a film, sensitivity)` at 1/8, 1/4, 1/2, 1, 2, 4 and 8: the best reached without
    /// exceeding them.
    pub sensitivity_at: Vec<[f64; 2]>,
}

/// The curve over all classes together; `None` without a film or without a marked box.
pub fn froc(boxes: &BoxSet, iou: f64) -> Option<Froc> {
    let truth = boxes.truth.iter().filter(|t| !t.crowd).count();
    if boxes.images == 0 || truth == 0 {
        return None;
    }
    let steps = cumulative(&coco::hits(boxes, iou, usize::MAX));
    let point = |&(score, found, false_alarms): &(f64, usize, usize)| FrocPoint {
        score,
        false_positives_per_film: false_alarms as f64 / boxes.images as f64,
        sensitivity: found as f64 / truth as f64,
    };
    let all: Vec<FrocPoint> = steps.iter().map(point).collect();
    let sensitivity_at = FALSE_ALARMS_PER_FILM
        .iter()
        .map(|&limit| {
            let within = all.partition_point(|p| p.false_positives_per_film <= limit);
            [limit, if within == 0 { 0.0 } else { all[within - 1].sensitivity }]
        })
        .collect();
    let last = all.len().saturating_sub(1);
    let mut curve: Vec<FrocPoint> = Vec::new();
    for (i, p) in all.iter().enumerate() {
        let rises = all.get(i + 1).is_some_and(|next| next.sensitivity > p.sensitivity);
        let rose = curve.last().is_none_or(|before| p.sensitivity > before.sensitivity);
        if rises || rose || i == last {
            curve.push(*p);
        }
    }
    Some(Froc { iou, curve, sensitivity_at })
}

/// The score at which boxes are shown: the one with the largest F1 over all boxes; of several, the highest.
/// `None` when nothing is found at any.
pub fn best_f1_score(boxes: &BoxSet, iou: f64) -> Option<f64> {
    let truth = boxes.truth.iter().filter(|t| !t.crowd).count();
    let mut best: Option<(f64, f64)> = None;
    for (score, found, false_alarms) in cumulative(&coco::hits(boxes, iou, usize::MAX)) {
        let f1 = (2 * found) as f64 / (found + false_alarms + truth) as f64;
        if f1 > 0.0 && best.is_none_or(|b| f1 > b.1) {
            best = Some((score, f1));
        }
    }
    best.map(|b| b.0)
}

/// `(score, found, false alarms)` at every distinct score, highest first.
fn cumulative(hits: &[Hit]) -> Vec<(f64, usize, usize)> {
    let mut steps = Vec::new();
    let (mut found, mut false_alarms) = (0, 0);
    for (i, hit) in hits.iter().enumerate() {
        match hit.found {
            Some(_) => found += 1,
            None => false_alarms += 1,
        }
        if hits.get(i + 1).map(|next| next.score) != Some(hit.score) {
            steps.push((hit.score, found, false_alarms));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coco::{DetectedBox, TruthBox};

    fn set() -> BoxSet {
        let place = |i: usize| [40.0 * i as f64, 0.0, 20.0, 20.0];
        let truth = |image, i| TruthBox { image, class: 0, xywh: place(i), area: 400.0, crowd: false };
        let hit = |image, i, score| DetectedBox { image, class: 0, xywh: place(i), score };
        BoxSet {
            images: 4,
            classes: 1,
            truth: vec![truth(0, 0), truth(0, 1), truth(1, 0), truth(2, 0)],
            detections: vec![
                hit(0, 0, 0.9),
                hit(3, 0, 0.8), // a film without a finding
                hit(0, 1, 0.7),
                hit(0, 2, 0.6),
                hit(1, 0, 0.6), // tied with the false alarm before it
                hit(0, 0, 0.5), // second detection of a found box
            ],
        }
    }

    #[test]
    fn sensitivity_at_false_alarms_a_film() {
        let froc = froc(&set(), 0.5).unwrap();
        let expected = [0.25, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75];
        assert_eq!(froc.sensitivity_at.iter().map(|p| p[1]).collect::<Vec<_>>(), expected);
        assert_eq!(froc.curve.first().unwrap().sensitivity, 0.25);
        assert_eq!(froc.curve.last().unwrap().false_positives_per_film, 0.75);
    }

    #[test]
    fn the_shown_score_balances_found_and_false() {
        assert_eq!(best_f1_score(&set(), 0.5), Some(0.6)); // 3 of 4 found, 2 false alarms
        assert_eq!(best_f1_score(&BoxSet { detections: vec![], ..set() }, 0.5), None);
    }

    #[test]
    fn without_findings_there_is_no_curve() {
        assert_eq!(froc(&BoxSet { truth: vec![], ..set() }, 0.5), None);
    }
}
