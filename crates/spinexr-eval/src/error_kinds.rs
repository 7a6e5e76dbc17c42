//! What kind of mistakes a detector makes, and what each kind costs in AP.
//!
//! Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors" (arXiv 2008.08115). Reference: `tidecv`
//! 1.0.1. A false alarm has one kind, by its overlap with the truth of its film; the cost of a kind is what AP@0.5 would gain
//! if all mistakes of that kind alone were mended. Deviations: the mean is over the classes that have truth, and crowds play
//! no part.

use crate::coco::{self, BoxSet};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// From this IoU on a box is found.
pub const FOUND_IOU: f64 = 0.5;
/// Up to this IoU a box is nowhere near.
pub const BACKGROUND_IOU: f64 = 0.1;

/// A kind of mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Right place, wrong class.
    Class,
    /// Right class, near, but not well enough placed.
    Place,
    /// Wrong class, and near only.
    Both,
    /// A box that was found already.
    Duplicate,
    /// Nothing is there.
    Background,
    /// A marked box that no detection comes near, or that only the kinds `both` come near.
    Missed,
}

impl ErrorKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Class, Self::Place, Self::Both, Self::Duplicate, Self::Background, Self::Missed];
}

/// What one kind of mistake amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorCost {
    /// The kind.
    pub kind: ErrorKind,
    /// How many there are.
    pub count: usize,
    /// What mean AP@0.5 would gain without them, in `[0, 1]`; `None` without truth.
    pub ap_gain: Option<f64>,
}

/// A detection that found nothing.
struct FalseAlarm {
    detection: usize,
    kind: ErrorKind,
    /// The truth it would have found, for class and place.
    meant: Option<usize>,
}

/// Counts and costs of all kinds, in the order of [`ErrorKind::ALL`]; at most `max_detections` detections of a class and
/// image count.
pub fn error_costs(boxes: &BoxSet, max_detections: usize) -> Vec<ErrorCost> {
    let hits = coco::hits(boxes, FOUND_IOU, max_detections);
    let mut found_by: Vec<bool> = vec![false; boxes.truth.len()];
    hits.iter().filter_map(|hit| hit.found).for_each(|truth| found_by[truth] = true);
    let of_image = boxes.truth_by_image();
    let alarms: Vec<FalseAlarm> = hits
        .iter()
        .filter(|hit| hit.found.is_none())
        .map(|hit| false_alarm(boxes, hit.detection, &of_image[hit.image], &found_by))
        .collect();
    // Of several alarms that mean one truth, the best scored one is mended and the others go.
    let mut best: HashMap<usize, usize> = HashMap::new();
    for alarm in &alarms {
        if let Some(truth) = alarm.meant.filter(|truth| !found_by[*truth]) {
            let score = |detection: usize| boxes.detections[detection].score;
            let chosen = best.entry(truth).or_insert(alarm.detection);
            if score(alarm.detection) > score(*chosen) {
                *chosen = alarm.detection;
            }
        }
    }
    let missed: Vec<usize> = (0..boxes.truth.len())
        .filter(|&i| !boxes.truth[i].crowd && !found_by[i] && !best.contains_key(&i))
        .collect();
    let kinds: HashMap<usize, &FalseAlarm> = alarms.iter().map(|alarm| (alarm.detection, alarm)).collect();
    let ap = |mended: Option<ErrorKind>| {
        let mut rankings: Vec<Vec<(f64, bool)>> = vec![Vec::new(); boxes.classes];
        for hit in &hits {
            let alarm = kinds.get(&hit.detection);
            match alarm.filter(|alarm| Some(alarm.kind) == mended) {
                None => rankings[hit.class].push((hit.score, hit.found.is_some())),
                Some(alarm) => {
                    let truth = alarm.meant.filter(|truth| best.get(truth) == Some(&hit.detection));
                    if let Some(truth) = truth {
                        rankings[boxes.truth[truth].class].push((hit.score, true));
                    }
                }
            }
        }
        let mut truth = vec![0usize; boxes.classes];
        for (i, t) in boxes.truth.iter().enumerate().filter(|(_, t)| !t.crowd) {
            let gone = mended == Some(ErrorKind::Missed) && missed.binary_search(&i).is_ok();
            truth[t.class] += usize::from(!gone);
        }
        coco::mean(
            rankings.into_iter().zip(truth).map(|(ranking, truth)| coco::ap_of_ranking(ranking, truth)),
        )
    };
    let before = ap(None);
    ErrorKind::ALL
        .into_iter()
        .map(|kind| {
            let count = match kind {
                ErrorKind::Missed => missed.len(),
                _ => alarms.iter().filter(|alarm| alarm.kind == kind).count(),
            };
            let ap_gain = before.and_then(|before| Some(ap(Some(kind))? - before));
            ErrorCost { kind, count, ap_gain }
        })
        .collect()
}

fn false_alarm(boxes: &BoxSet, detection: usize, truths: &[usize], found: &[bool]) -> FalseAlarm {
    let detected = &boxes.detections[detection];
    // The best overlap among the truths of the film that `fits`.
    let best = |fits: &dyn Fn(usize) -> bool| {
        truths
            .iter()
            .filter(|truth| fits(**truth))
            .map(|&truth| (truth, coco::iou(detected.xywh, &boxes.truth[truth])))
            .fold(None, |best: Option<(usize, f64)>, next| match best {
                Some(best) if best.1 >= next.1 => Some(best),
                _ => Some(next),
            })
    };
    let same_class = |truth: usize| boxes.truth[truth].class == detected.class;
    let alarm = |kind, meant| FalseAlarm { detection, kind, meant };
    if let Some((truth, iou)) = best(&same_class)
        && (BACKGROUND_IOU..=FOUND_IOU).contains(&iou)
    {
        return alarm(ErrorKind::Place, Some(truth));
    }
    if let Some((truth, iou)) = best(&|truth| !same_class(truth))
        && iou >= FOUND_IOU
    {
        return alarm(ErrorKind::Class, Some(truth));
    }
    if best(&|truth| same_class(truth) && found[truth]).is_some_and(|(_, iou)| iou >= FOUND_IOU) {
        return alarm(ErrorKind::Duplicate, None);
    }
    if best(&|_| true).is_none_or(|(_, iou)| iou <= BACKGROUND_IOU) {
        return alarm(ErrorKind::Background, None);
    }
    alarm(ErrorKind::Both, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coco::{DetectedBox, TruthBox};
    use serde_json::Value;

    #[test]
    fn equal_to_tidecv() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/metrics_errors/manifest.json");
        let manifest: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let numbers = |row: &Value| -> Vec<f64> {
            row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
        };
        let mut equal = 0;
        for case in manifest["results"].as_array().unwrap() {
            let boxes = BoxSet {
                images: manifest["images"].as_u64().unwrap() as usize,
                classes: manifest["classes"].as_u64().unwrap() as usize,
                truth: case["truth"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|row| {
                        let row = numbers(row);
                        let xywh = [row[2], row[3], row[4], row[5]];
                        let (image, class, area) = (row[0] as usize, row[1] as usize, xywh[2] * xywh[3]);
                        TruthBox { image, class, xywh, area, crowd: false }
                    })
                    .collect(),
                detections: case["detections"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|row| {
                        let row = numbers(row);
                        let xywh = [row[2], row[3], row[4], row[5]];
                        DetectedBox { image: row[0] as usize, class: row[1] as usize, xywh, score: row[6] }
                    })
                    .collect(),
            };
            let names = ["Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"];
            let point = 100.0 / (coco::RECALL_POINTS * boxes.classes) as f64;
            for (cost, name) in error_costs(&boxes, 100).iter().zip(names) {
                assert_eq!(cost.count as u64, case["count"][name].as_u64().unwrap(), "{name}");
                let (gain, expected) = (100.0 * cost.ap_gain.unwrap(), case["delta"][name].as_f64().unwrap());
                // tidecv reads precision at i/100, pycocotools and we at i · 0.01: where a recall is such a number, one
                // point of one class may differ.
                assert!((gain - expected).abs() < point, "{name}: {gain}, expected {expected}");
                equal += usize::from((gain - expected).abs() < 1e-9);
            }
        }
        assert!(equal >= 17, "{equal} of 18 to the last digits");
    }

    #[test]
    fn nothing_to_find_costs_nothing_that_is_known() {
        let xywh = [0.0, 0.0, 10.0, 10.0];
        let detections = vec![DetectedBox { image: 0, class: 0, xywh, score: 0.5 }];
        let costs = error_costs(&BoxSet { images: 1, classes: 1, truth: vec![], detections }, 100);
        let background = costs.iter().find(|cost| cost.kind == ErrorKind::Background).unwrap();
        assert_eq!((background.count, background.ap_gain), (1, None));
        assert!(error_costs(&BoxSet::default(), 100).iter().all(|cost| cost.count == 0));
    }
}
