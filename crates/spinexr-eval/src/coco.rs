//! Average precision of boxes by the COCO protocol.
//!
//! Reference: `pycocotools.cocoeval` 2.0.11, bounding boxes: greedy matching best score first, 101 recall
//! points, at most `max_detections` a class and image, truth outside the area range or marked `crowd`
//! neither rewarded nor punished. Of two truths with equal IoU the later wins; equal scores keep the order
//! of images, then of detections.
//!
//! Deviation: pycocotools takes an annotation with id 0 for "not matched"; here ids play no part.

mod thresholds;

pub use thresholds::{iou_coco, iou_paper, linspace, parse_iou_set};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Number of recall points at which precision is read: 0, 0.01 … 1.
pub const RECALL_POINTS: usize = 101;

/// Area ranges of COCO in px², both ends included: all, small, medium, large.
pub const AREA_ALL: [f64; 2] = [0.0, 1e10];
/// Up to 32² px².
pub const AREA_SMALL: [f64; 2] = [0.0, 1024.0];
/// 32² to 96² px².
pub const AREA_MEDIUM: [f64; 2] = [1024.0, 9216.0];
/// From 96² px².
pub const AREA_LARGE: [f64; 2] = [9216.0, 1e10];

/// A true box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TruthBox {
    /// Image number, `0..images`; ties of score are broken by it.
    pub image: usize,
    /// Class number, `0..classes`.
    pub class: usize,
    /// Left, top, width, height in px.
    pub xywh: [f64; 4],
    /// Area in px² for the area ranges (a mask's area where there is one).
    pub area: f64,
    /// A region of many objects: detections in it are not counted.
    pub crowd: bool,
}

/// A proposed box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectedBox {
    /// Image number, `0..images`.
    pub image: usize,
    /// Class number, `0..classes`.
    pub class: usize,
    /// Left, top, width, height in px.
    pub xywh: [f64; 4],
    /// Any finite number; larger is surer.
    pub score: f64,
}

/// Boxes of a whole data set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BoxSet {
    /// Number of images, those without a box included.
    pub images: usize,
    /// Number of classes.
    pub classes: usize,
    /// True boxes.
    pub truth: Vec<TruthBox>,
    /// Proposed boxes.
    pub detections: Vec<DetectedBox>,
}

impl BoxSet {
    /// The boxes of some images, which are numbered anew in the same order.
    ///
    /// # Panics
    /// When there is not one entry an image.
    pub fn of_images(&self, wanted: &[bool]) -> Self {
        assert_eq!(wanted.len(), self.images, "one entry an image");
        let mut images = 0;
        let number: Vec<Option<usize>> = wanted
            .iter()
            .map(|&wanted| {
                images += usize::from(wanted);
                wanted.then(|| images - 1)
            })
            .collect();
        let truth = self.truth.iter().filter_map(|t| Some(TruthBox { image: number[t.image]?, ..*t }));
        let detections =
            self.detections.iter().filter_map(|d| Some(DetectedBox { image: number[d.image]?, ..*d }));
        Self { images, classes: self.classes, truth: truth.collect(), detections: detections.collect() }
    }

    /// Positions in `truth` of each image's boxes, crowds left out.
    pub(crate) fn truth_by_image(&self) -> Vec<Vec<usize>> {
        let mut of_image = vec![Vec::new(); self.images];
        for (i, truth) in self.truth.iter().enumerate().filter(|(_, truth)| !truth.crowd) {
            of_image[truth.image].push(i);
        }
        of_image
    }
}

/// What counts as found.
#[derive(Debug, Clone, PartialEq)]
pub struct Protocol {
    /// A detection matches at an IoU of at least this; one evaluation each.
    pub iou_thresholds: Vec<f64>,
    /// Area range in px².
    pub area: [f64; 2],
    /// Best detections kept of each class and image.
    pub max_detections: usize,
}

impl Protocol {
    /// All areas and 100 detections, as in the paper and COCO's main figure.
    pub fn all_areas(iou_thresholds: Vec<f64>) -> Self {
        Self { iou_thresholds, area: AREA_ALL, max_detections: 100 }
    }
}

/// Result of one class at one IoU threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IouResult {
    /// Precision at the 101 recall points, made monotone; `None` for a class without truth.
    pub precision: Option<Vec<f64>>,
    /// Share of the true boxes found; `None` for a class without truth.
    pub recall: Option<f64>,
}

impl IouResult {
    /// Mean of the 101 precisions.
    pub fn ap(&self) -> Option<f64> {
        self.precision.as_ref().map(|p| p.iter().sum::<f64>() / p.len() as f64)
    }
}

/// Result of one class.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassResult {
    /// True boxes that count (in the area range, no crowd).
    pub truth: usize,
    /// Detections, before the limit a class and image.
    pub detections: usize,
    /// One result an IoU threshold, in their order.
    pub by_iou: Vec<IouResult>,
}

impl ClassResult {
    /// AP averaged over the IoU thresholds.
    pub fn ap(&self) -> Option<f64> {
        mean(self.by_iou.iter().map(IouResult::ap))
    }

    /// Recall averaged over the IoU thresholds.
    pub fn average_recall(&self) -> Option<f64> {
        mean(self.by_iou.iter().map(|r| r.recall))
    }
}

/// Mean of the defined values; `None` if none is.
pub fn mean(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values.into_iter().flatten() {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

/// Mean AP over the classes that have truth and over the IoU thresholds.
pub fn mean_ap(classes: &[ClassResult]) -> Option<f64> {
    mean(classes.iter().map(ClassResult::ap))
}

/// Evaluates every class; the result is in class order.
///
/// # Panics
/// When a box names an image or class past the ends, or a score is NaN: the readers refuse both.
pub fn evaluate(boxes: &BoxSet, protocol: &Protocol) -> Vec<ClassResult> {
    let by_class = Grouped::new(boxes);
    (0..boxes.classes)
        .into_par_iter()
        .map(|class| {
            let (truth, detections) = (by_class.truth(class), by_class.detections(class));
            let outcomes = match_class(boxes, truth, detections, protocol);
            accumulate(&outcomes, detections.len(), protocol.iou_thresholds.len())
        })
        .collect()
}

/// A kept detection and what became of it at one IoU threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Class number.
    pub class: usize,
    /// Image number.
    pub image: usize,
    /// Position in [`BoxSet::detections`].
    pub detection: usize,
    /// Its score.
    pub score: f64,
    /// Position in [`BoxSet::truth`] of the box it found, or `None` for a false alarm.
    pub found: Option<usize>,
}

/// Matches at one IoU threshold, all areas, best score first; detections in crowd regions are left out.
pub fn hits(boxes: &BoxSet, iou_threshold: f64, max_detections: usize) -> Vec<Hit> {
    let protocol = Protocol { iou_thresholds: vec![iou_threshold], area: AREA_ALL, max_detections };
    let by_class = Grouped::new(boxes);
    let mut hits: Vec<Hit> = (0..boxes.classes)
        .into_par_iter()
        .flat_map_iter(|class| {
            let outcomes = match_class(boxes, by_class.truth(class), by_class.detections(class), &protocol);
            outcomes.kept.into_iter().filter_map(move |kept| {
                let found = match outcomes.verdicts[kept.first_verdict] {
                    Verdict::Ignored => return None,
                    Verdict::False => None,
                    Verdict::Found(truth) => Some(truth as usize),
                };
                Some(Hit { class, image: kept.image, detection: kept.detection, score: kept.score, found })
            })
        })
        .collect();
    hits.sort_by(|a, b| b.score.total_cmp(&a.score));
    hits
}

/// Positions of boxes, by class, then image, then input order.
struct Grouped {
    truth: Vec<usize>,
    truth_ends: Vec<usize>,
    detections: Vec<usize>,
    detection_ends: Vec<usize>,
}

impl Grouped {
    fn new(boxes: &BoxSet) -> Self {
        // Counting sort by (class, image); equal keys keep their input order.
        let group = |keys: Vec<(usize, usize)>| -> (Vec<usize>, Vec<usize>) {
            assert!(
                keys.iter().all(|k| k.0 < boxes.classes && k.1 < boxes.images),
                "a box of an unknown class or image"
            );
            let bucket = |k: &(usize, usize)| k.0 * boxes.images + k.1;
            let mut next = vec![0usize; boxes.classes * boxes.images + 1];
            for key in &keys {
                next[bucket(key) + 1] += 1;
            }
            for i in 1..next.len() {
                next[i] += next[i - 1];
            }
            let ends = (1..=boxes.classes).map(|c| next[c * boxes.images]).collect();
            let mut order = vec![0; keys.len()];
            for (i, key) in keys.iter().enumerate() {
                let place = &mut next[bucket(key)];
                order[*place] = i;
                *place += 1;
            }
            (order, ends)
        };
        let (truth, truth_ends) = group(boxes.truth.iter().map(|b| (b.class, b.image)).collect());
        let (detections, detection_ends) =
            group(boxes.detections.iter().map(|b| (b.class, b.image)).collect());
        assert!(boxes.detections.iter().all(|d| !d.score.is_nan()), "a score that is no number");
        Self { truth, truth_ends, detections, detection_ends }
    }

    fn truth(&self, class: usize) -> &[usize] {
        let start = if class == 0 { 0 } else { self.truth_ends[class - 1] };
        &self.truth[start..self.truth_ends[class]]
    }

    fn detections(&self, class: usize) -> &[usize] {
        let start = if class == 0 { 0 } else { self.detection_ends[class - 1] };
        &self.detections[start..self.detection_ends[class]]
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    False,
    Found(u32),
    Ignored,
}

struct Kept {
    score: f64,
    image: usize,
    detection: usize,
    /// Verdicts at the T thresholds start here.
    first_verdict: usize,
}

struct Outcomes {
    counted_truth: usize,
    kept: Vec<Kept>,
    verdicts: Vec<Verdict>,
}

fn match_class(boxes: &BoxSet, truth: &[usize], detections: &[usize], protocol: &Protocol) -> Outcomes {
    let mut outcomes = Outcomes { counted_truth: 0, kept: Vec::new(), verdicts: Vec::new() };
    let (mut t, mut d) = (0, 0);
    while t < truth.len() || d < detections.len() {
        let image_t = truth.get(t).map(|&i| boxes.truth[i].image);
        let image_d = detections.get(d).map(|&i| boxes.detections[i].image);
        let image = [image_t, image_d].into_iter().flatten().min().expect("one of the two is left");
        let t_end = t + truth[t..].partition_point(|&i| boxes.truth[i].image == image);
        let d_end = d + detections[d..].partition_point(|&i| boxes.detections[i].image == image);
        match_image(boxes, &truth[t..t_end], &detections[d..d_end], protocol, &mut outcomes);
        (t, d) = (t_end, d_end);
    }
    outcomes
}

fn outside(area: f64, range: [f64; 2]) -> bool {
    area < range[0] || area > range[1]
}

fn match_image(
    boxes: &BoxSet,
    truth: &[usize],
    detections: &[usize],
    protocol: &Protocol,
    outcomes: &mut Outcomes,
) {
    // Truth that counts goes first; sorting is stable.
    let ignored = |i: usize| {
        let t = &boxes.truth[i];
        t.crowd || outside(t.area, protocol.area)
    };
    let mut truth = truth.to_vec();
    truth.sort_by_key(|&i| ignored(i));
    let counted = truth.partition_point(|&i| !ignored(i));
    outcomes.counted_truth += counted;

    let mut detections = detections.to_vec();
    detections.sort_by(|&a, &b| boxes.detections[b].score.total_cmp(&boxes.detections[a].score));
    detections.truncate(protocol.max_detections);

    let thresholds = protocol.iou_thresholds.len();
    let first = outcomes.verdicts.len();
    outcomes.verdicts.resize(first + detections.len() * thresholds, Verdict::False);
    if truth.is_empty() && protocol.area == AREA_ALL {
        // Nothing to find: the common case of a class that a film does not show.
        outcomes.kept.extend(detections.iter().enumerate().map(|(rank, &d)| Kept {
            score: boxes.detections[d].score,
            image: boxes.detections[d].image,
            detection: d,
            first_verdict: first + rank * thresholds,
        }));
        return;
    }
    let mut ious = Vec::with_capacity(detections.len() * truth.len());
    for (rank, &d) in detections.iter().enumerate() {
        let detected = &boxes.detections[d];
        let first_verdict = first + rank * thresholds;
        outcomes.kept.push(Kept {
            score: detected.score,
            image: detected.image,
            detection: d,
            first_verdict,
        });
        ious.extend(truth.iter().map(|&t| iou(detected.xywh, &boxes.truth[t])));
    }

    let mut taken = vec![false; truth.len()];
    for (threshold, &at_least) in protocol.iou_thresholds.iter().enumerate() {
        taken.fill(false);
        for (rank, &d) in detections.iter().enumerate() {
            let mut best_iou = at_least.min(1.0 - 1e-10);
            let mut best: Option<usize> = None;
            for (g, &t) in truth.iter().enumerate() {
                if taken[g] && !boxes.truth[t].crowd {
                    continue;
                }
                if g >= counted && best.is_some_and(|b| b < counted) {
                    break; // a truth that counts is not given up for one that does not
                }
                let overlap = ious[rank * truth.len() + g];
                if overlap >= best_iou {
                    best_iou = overlap;
                    best = Some(g);
                }
            }
            let area = boxes.detections[d].xywh[2] * boxes.detections[d].xywh[3];
            outcomes.verdicts[first + rank * thresholds + threshold] = match best {
                Some(g) => {
                    taken[g] = true;
                    if g < counted { Verdict::Found(truth[g] as u32) } else { Verdict::Ignored }
                }
                None if outside(area, protocol.area) => Verdict::Ignored,
                None => Verdict::False,
            };
        }
    }
}

/// Intersection over union; over the detection's own area for a crowd.
pub(crate) fn iou(d: [f64; 4], truth: &TruthBox) -> f64 {
    let t = truth.xywh;
    let width = (d[0] + d[2]).min(t[0] + t[2]) - d[0].max(t[0]);
    let height = (d[1] + d[3]).min(t[1] + t[3]) - d[1].max(t[1]);
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let shared = width * height;
    let own = d[2] * d[3];
    shared / if truth.crowd { own } else { own + t[2] * t[3] - shared }
}

fn accumulate(outcomes: &Outcomes, detections: usize, thresholds: usize) -> ClassResult {
    let truth = outcomes.counted_truth;
    if truth == 0 {
        let by_iou = vec![IouResult { precision: None, recall: None }; thresholds];
        return ClassResult { truth, detections, by_iou };
    }
    // Images are in order already, so ties go by position, as in pycocotools.
    let mut order: Vec<(f64, u32)> = (0..).zip(&outcomes.kept).map(|(i, k)| (k.score, i)).collect();
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    // Precision rises only where a truth is found, so the monotone curve is known from its values there.
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); thresholds];
    let mut false_alarms = vec![0u32; thresholds];
    for &(_, position) in &order {
        let first = outcomes.kept[position as usize].first_verdict;
        for (t, verdict) in outcomes.verdicts[first..first + thresholds].iter().enumerate() {
            match verdict {
                Verdict::Found(_) => {
                    let tp = (found[t].len() + 1) as f64;
                    found[t].push(tp / (tp + f64::from(false_alarms[t]) + f64::EPSILON));
                }
                Verdict::False => false_alarms[t] += 1,
                Verdict::Ignored => {}
            }
        }
    }
    let by_iou = found
        .into_iter()
        .map(|precision| {
            let recall = precision.len() as f64 / truth as f64;
            IouResult { precision: Some(at_recall_points(precision, truth)), recall: Some(recall) }
        })
        .collect();
    ClassResult { truth, detections, by_iou }
}

/// Precision at the 101 recall points, made monotone, from the precision at each truth that is found, in that order.
fn at_recall_points(mut precision: Vec<f64>, truth: usize) -> Vec<f64> {
    for i in (1..precision.len()).rev() {
        precision[i - 1] = precision[i - 1].max(precision[i]);
    }
    let mut next = 0;
    let at = |point: usize| {
        let wanted = if point + 1 == RECALL_POINTS { 1.0 } else { point as f64 * 0.01 };
        while next < precision.len() && ((next + 1) as f64 / truth as f64) < wanted {
            next += 1;
        }
        precision.get(next).copied().unwrap_or(0.0)
    };
    (0..RECALL_POINTS).map(at).collect()
}

/// AP from what became of the detections of one class, `(score, whether it found a truth)` in any order of scores but with
/// equal ones in theirs; `None` without truth.
pub(crate) fn ap_of_ranking(mut ranking: Vec<(f64, bool)>, truth: usize) -> Option<f64> {
    if truth == 0 {
        return None;
    }
    ranking.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut precision = Vec::new();
    for (rank, (_, found)) in ranking.iter().enumerate() {
        if *found {
            precision.push((precision.len() + 1) as f64 / ((rank + 1) as f64 + f64::EPSILON));
        }
    }
    let points = at_recall_points(precision, truth);
    Some(points.iter().sum::<f64>() / points.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn truth(image: usize, class: usize, xywh: [f64; 4]) -> TruthBox {
        TruthBox { image, class, xywh, area: xywh[2] * xywh[3], crowd: false }
    }

    fn detected(image: usize, class: usize, xywh: [f64; 4], score: f64) -> DetectedBox {
        DetectedBox { image, class, xywh, score }
    }

    const BOX: [f64; 4] = [10.0, 10.0, 20.0, 20.0];

    #[test]
    fn a_second_detection_of_one_box_is_a_false_alarm() {
        let boxes = BoxSet {
            images: 2,
            classes: 2,
            truth: vec![truth(0, 0, BOX)],
            detections: vec![detected(0, 0, BOX, 0.9), detected(0, 0, BOX, 0.8), detected(1, 1, BOX, 0.7)],
        };
        let found = hits(&boxes, 0.5, 100);
        assert_eq!(found.iter().map(|h| h.found).collect::<Vec<_>>(), [Some(0), None, None]);
        let result = evaluate(&boxes, &Protocol::all_areas(vec![0.5]));
        // Not quite 1: pycocotools adds an epsilon to the number of detections, and so do we.
        assert!((result[0].ap().unwrap() - 1.0).abs() < 1e-12);
        assert_eq!((result[1].ap(), result[1].by_iou[0].recall, result[1].truth), (None, None, 0));
        assert_eq!(mean_ap(&result), result[0].ap());
    }

    #[test]
    fn iou_at_the_threshold_counts_and_of_equal_truths_the_later_is_found() {
        let half = [10.0, 10.0, 20.0, 10.0]; // IoU with BOX is exactly 0.5
        let boxes = BoxSet {
            images: 1,
            classes: 1,
            truth: vec![truth(0, 0, BOX), truth(0, 0, BOX)],
            detections: vec![detected(0, 0, half, 0.9)],
        };
        assert_eq!(hits(&boxes, 0.5, 100)[0].found, Some(1));
        assert_eq!(hits(&boxes, 0.51, 100)[0].found, None);
    }

    #[test]
    fn a_detection_in_a_crowd_does_not_count() {
        let mut boxes = BoxSet {
            images: 1,
            classes: 1,
            truth: vec![truth(0, 0, BOX), truth(0, 0, [100.0, 0.0, 100.0, 100.0])],
            detections: vec![detected(0, 0, [110.0, 10.0, 5.0, 5.0], 0.9), detected(0, 0, BOX, 0.5)],
        };
        let ap = |boxes: &BoxSet| evaluate(boxes, &Protocol::all_areas(vec![0.5]))[0].ap().unwrap();
        assert!(ap(&boxes) < 0.3);
        boxes.truth[1].crowd = true;
        assert!(ap(&boxes) > 0.999);
    }

    fn any_set() -> impl Strategy<Value = BoxSet> {
        let side = |v: u8| f64::from(v);
        let xywh = (0u8..40, 0u8..40, 5u8..30, 5u8..30)
            .prop_map(move |b| [side(b.0), side(b.1), side(b.2), side(b.3)]);
        let t = prop::collection::vec((0usize..4, 0usize..2, xywh.clone()), 0..12);
        // Distinct scores: equal ones are broken by order, which is what the reference does.
        let d = prop::collection::vec((0usize..4, 0usize..2, xywh), 0..25);
        (t, d).prop_map(|(t, d)| BoxSet {
            images: 4,
            classes: 2,
            truth: t.into_iter().map(|(i, c, b)| truth(i, c, b)).collect(),
            detections: d
                .into_iter()
                .enumerate()
                .map(|(rank, (i, c, b))| detected(i, c, b, ((rank * 37) % 101) as f64 / 101.0))
                .collect(),
        })
    }

    proptest! {
        #[test]
        fn a_monotone_map_of_scores_leaves_ap(boxes in any_set()) {
            let mut mapped = boxes.clone();
            for d in &mut mapped.detections {
                d.score = (4.0 * d.score).exp();
            }
            let protocol = Protocol::all_areas(iou_paper());
            prop_assert_eq!(evaluate(&boxes, &protocol), evaluate(&mapped, &protocol));
        }

        #[test]
        fn the_order_of_boxes_leaves_ap(boxes in any_set()) {
            let mut other = boxes.clone();
            other.detections.reverse();
            let protocol = Protocol::all_areas(vec![0.5]);
            let ap = |b: &BoxSet| evaluate(b, &protocol).iter().map(ClassResult::ap).collect::<Vec<_>>();
            prop_assert_eq!(ap(&boxes), ap(&other));
        }

        #[test]
        fn ap_and_recall_are_shares(boxes in any_set()) {
            for class in evaluate(&boxes, &Protocol::all_areas(iou_coco())) {
                prop_assert_eq!(class.ap().is_some(), class.truth > 0);
                for value in [class.ap(), class.average_recall()].into_iter().flatten() {
                    prop_assert!((0.0..=1.0).contains(&value));
                }
            }
        }
    }
}
