//! Weighted box fusion: one list of boxes out of several detectors, folds or views of a film.
//!
//! Paper: Solovyev, Wang, Gabruseva, "Weighted boxes fusion: Ensembling boxes from different object detection models"
//! (arXiv 1910.13302). Reference: `weighted_boxes_fusion` of the PyPI package `ensemble-boxes` with `conf_type='avg'`
//! and `allows_overflow=False`. Unlike suppression it uses every box: those of a class that overlap become their
//! mean, weighted by score, and a finding that only some of the lists have loses score in proportion.
//!
//! Deviations: boxes stay in film pixels (an IoU does not know the unit), sums are taken in `f64`, and of equal scores
//! the box of the earlier list goes first.

use crate::{BoxXyxy, Detection, Label};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Which boxes are one finding.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedBoxFusion {
    /// A box joins the fused box of its class that it overlaps most, by more than this.
    pub iou_threshold: f64,
    /// Boxes with a score below this are left out.
    pub skip_score: f64,
}

impl WeightedBoxFusion {
    /// The package's defaults: 0.55 and 0.
    pub const PUBLISHED: Self = Self { iou_threshold: 0.55, skip_score: 0.0 };

    /// The fused boxes, best score first, with scores of `0..=1` where those of the lists are.
    ///
    /// `weights`: how much each list counts against the others; all the same for equals.
    ///
    /// # Panics
    /// When there is not one weight for each list.
    pub fn fuse(&self, lists: &[Vec<Detection>], weights: &[f64]) -> Vec<Detection> {
        assert_eq!(lists.len(), weights.len(), "one weight a list");
        let total_weight: f64 = weights.iter().sum();
        let mut fused = vec![];
        let labels: BTreeSet<&Label> = lists.iter().flatten().map(|found| &found.label).collect();
        for label in labels {
            let mut members: Vec<Member> = lists
                .iter()
                .zip(weights)
                .flat_map(|(list, weight)| list.iter().map(move |found| (found, *weight)))
                .filter(|(found, _)| {
                    found.label == *label
                        && f64::from(found.score) >= self.skip_score
                        && found.xyxy.is_proper()
                })
                .map(|(found, weight)| Member {
                    score: f64::from(found.score) * weight,
                    sides: <[f32; 4]>::from(found.xyxy).map(f64::from),
                })
                .collect();
            members.sort_by(|a, b| b.score.total_cmp(&a.score));
            fused.extend(self.clusters(members).iter().map(|cluster| {
                let share = cluster.members.min(lists.len()) as f64 / total_weight;
                Detection {
                    label: label.clone(),
                    score: (cluster.score_sum / cluster.members as f64 * share) as f32,
                    xyxy: BoxXyxy::from(cluster.sides.map(|v| v as f32)),
                }
            }));
        }
        fused.sort_by(|a, b| b.score.total_cmp(&a.score));
        fused
    }

    /// Boxes of one class, best first, put together.
    fn clusters(&self, members: Vec<Member>) -> Vec<Cluster> {
        let mut clusters: Vec<Cluster> = vec![];
        for member in members {
            let mut best = (self.iou_threshold, None);
            for (index, cluster) in clusters.iter().enumerate() {
                let overlap = iou(&cluster.sides, &member.sides);
                if overlap > best.0 {
                    best = (overlap, Some(index));
                }
            }
            match best.1 {
                Some(index) => clusters[index].add(&member),
                None => clusters.push(Cluster::new(&member)),
            }
        }
        clusters
    }
}

/// A box of one list; its score times the list's weight.
struct Member {
    score: f64,
    sides: [f64; 4],
}

/// Boxes that are one finding.
struct Cluster {
    /// Mean of the members' sides, weighted by score.
    sides: [f64; 4],
    weighted: [f64; 4],
    score_sum: f64,
    members: usize,
}

impl Cluster {
    fn new(first: &Member) -> Self {
        let weighted = first.sides.map(|v| v * first.score);
        Self { sides: first.sides, weighted, score_sum: first.score, members: 1 }
    }

    fn add(&mut self, member: &Member) {
        self.members += 1;
        self.score_sum += member.score;
        for i in 0..4 {
            self.weighted[i] += member.sides[i] * member.score;
            // Members without any score leave the box where it is.
            if self.score_sum > 0.0 {
                self.sides[i] = self.weighted[i] / self.score_sum;
            }
        }
    }
}

fn iou(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let side = |low: usize| (a[low + 2].min(b[low + 2]) - a[low].max(b[low])).max(0.0);
    let area = |v: &[f64; 4]| (v[2] - v[0]) * (v[3] - v[1]);
    let shared = side(0) * side(1);
    shared / (area(a) + area(b) - shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Finding;
    use proptest::prelude::*;

    #[derive(Deserialize)]
    struct Cases {
        /// Height and width, px.
        film_px: [f64; 2],
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        weights: Vec<f64>,
        iou_threshold: f64,
        skip_score: f64,
        lists: Vec<Vec<Boxed>>,
        fused: Vec<Boxed>,
    }

    #[derive(Deserialize)]
    struct Boxed {
        xyxy: [f64; 4],
        score: f64,
        label: usize,
    }

    /// Fused boxes of the package `ensemble-boxes`.
    const REFERENCE: &str = include_str!("../../../tests/golden/wbf.json");

    #[test]
    fn boxes_are_those_of_ensemble_boxes() {
        let reference: Cases = serde_json::from_str(REFERENCE).unwrap();
        let [height, width] = reference.film_px;
        let mut largest = 0f64;
        for case in &reference.cases {
            let detection = |b: &Boxed| Detection {
                label: Finding::ALL[b.label].label(),
                score: b.score as f32,
                xyxy: BoxXyxy::from(b.xyxy.map(|v| v as f32)),
            };
            let lists: Vec<Vec<Detection>> =
                case.lists.iter().map(|list| list.iter().map(detection).collect()).collect();
            let fusion = WeightedBoxFusion { iou_threshold: case.iou_threshold, skip_score: case.skip_score };
            let fused = fusion.fuse(&lists, &case.weights);
            assert_eq!(fused.len(), case.fused.len());
            for (ours, theirs) in fused.iter().zip(&case.fused) {
                assert_eq!(ours.label, Finding::ALL[theirs.label].label());
                largest = largest.max((f64::from(ours.score) - theirs.score).abs());
                for (i, side) in <[f32; 4]>::from(ours.xyxy).into_iter().enumerate() {
                    let share = f64::from(side) / if i % 2 == 0 { width } else { height };
                    largest = largest.max((share - theirs.xyxy[i]).abs());
                }
            }
        }
        println!("weighted box fusion: largest difference {largest:.1e}");
        assert!(largest < 1e-6, "{largest}");
    }

    fn found(label: Finding, score: f32, xyxy: [f32; 4]) -> Detection {
        Detection { label: label.label(), score, xyxy: xyxy.into() }
    }

    #[test]
    fn a_finding_of_one_list_of_two_has_half_its_score() {
        let alone = vec![found(Finding::Osteophytes, 0.8, [0.0, 0.0, 10.0, 10.0])];
        let fused = WeightedBoxFusion::PUBLISHED.fuse(&[alone.clone(), vec![]], &[1.0, 1.0]);
        assert_eq!(fused, [Detection { score: 0.4, ..alone[0].clone() }]);
        assert_eq!(WeightedBoxFusion::PUBLISHED.fuse(&[alone.clone(), alone.clone()], &[1.0, 1.0]), alone);
        assert!(WeightedBoxFusion::PUBLISHED.fuse(&[], &[]).is_empty());
    }

    fn list() -> impl Strategy<Value = Vec<Detection>> {
        let one = (0usize..3, 0.0f32..1.0, 0.0f32..80.0, 0.0f32..80.0, 1.0f32..40.0, 1.0f32..40.0);
        prop::collection::vec(one, 0..12).prop_map(|raw| {
            raw.into_iter()
                .map(|(c, score, x, y, w, h)| found(Finding::ALL[c], score, [x, y, x + w, y + h]))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn fused_boxes_lie_among_those_of_their_class(lists in prop::collection::vec(list(), 1..4)) {
            let weights = vec![1.0; lists.len()];
            let fused = WeightedBoxFusion::PUBLISHED.fuse(&lists, &weights);
            prop_assert!(fused.windows(2).all(|w| w[0].score >= w[1].score));
            prop_assert!(fused.len() <= lists.iter().map(Vec::len).sum());
            for b in &fused {
                let same: Vec<&Detection> = lists.iter().flatten().filter(|d| d.label == b.label).collect();
                let best = same.iter().map(|d| d.score).fold(0.0, f32::max);
                prop_assert!((0.0..=best + 1e-6).contains(&b.score));
                let around = same.iter().fold(same[0].xyxy, |all, d| all.union(&d.xyxy));
                let within = around.union(&b.xyxy);
                prop_assert!((within.x1 - around.x1).abs() < 1e-3 && (within.y2 - around.y2).abs() < 1e-3);
            }
        }

        #[test]
        fn the_order_and_common_weight_of_lists_do_not_matter(a in list(), b in list()) {
            let fusion = WeightedBoxFusion::PUBLISHED;
            let one = fusion.fuse(&[a.clone(), b.clone()], &[1.0, 1.0]);
            let other = fusion.fuse(&[b.clone(), a.clone()], &[1.0, 1.0]);
            let tripled = fusion.fuse(&[a, b], &[3.0, 3.0]);
            prop_assert_eq!(one.len(), other.len());
            for ((x, y), z) in one.iter().zip(&other).zip(&tripled) {
                prop_assert!((x.score - y.score).abs() < 1e-5 && (x.score - z.score).abs() < 1e-5);
            }
        }

        #[test]
        fn a_list_of_boxes_apart_stays_as_it_is(scores in prop::collection::vec(0.0f32..1.0, 0..10)) {
            let boxes: Vec<Detection> = scores
                .iter()
                .enumerate()
                .map(|(i, s)| found(Finding::Osteophytes, *s, [40.0 * i as f32, 0.0, 40.0 * i as f32 + 9.0, 9.0]))
                .collect();
            let fused = WeightedBoxFusion::PUBLISHED.fuse(std::slice::from_ref(&boxes), &[1.0]);
            let mut sorted = boxes;
            sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
            prop_assert_eq!(fused, sorted);
        }
    }
}
