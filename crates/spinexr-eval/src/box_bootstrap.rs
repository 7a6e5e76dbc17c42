//! The bootstrap of average precision: how far AP would swing with other studies.
//!
//! Studies are drawn with all their films, as for the AUROC. Boxes are matched once: a resample weighs the matched boxes by
//! how often their study was drawn, which is what COCO's evaluation of the drawn films gives, copies of a film counting as
//! films of their own (but for boxes of one film, class and score, whose copies stand together). Sixteen resamples are
//! evaluated side by side, so that each box is read once for all of them.

use crate::coco::{self, BoxSet, RECALL_POINTS};
use crate::intervals::{BootstrapOptions, Bootstrapped, Stream, resample_units, summarise};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Resamples evaluated side by side.
const LANES: usize = 16;

/// Detections of each class matched at one IoU, best score first, with the study of each.
#[derive(Debug, Clone, PartialEq)]
pub struct RankedBoxes {
    classes: Vec<RankedClass>,
    studies: usize,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct RankedClass {
    /// Study of each true box.
    truth: Vec<u32>,
    /// Study of each detection down to the last that finds a box; those after it change nothing.
    study: Vec<u32>,
    /// Where in `study` the detections are that find a box.
    found: Vec<u32>,
}

impl RankedBoxes {
    /// Matches the detections at `iou`, at most 100 a class and film; `study_of_image` gives each image's study, `0..studies`.
    ///
    /// # Panics
    /// When an image has no study.
    pub fn new(boxes: &BoxSet, study_of_image: &[u32], studies: usize, iou: f64) -> Self {
        let mut classes = vec![RankedClass::default(); boxes.classes];
        for truth in boxes.truth.iter().filter(|t| !t.crowd) {
            classes[truth.class].truth.push(study_of_image[truth.image]);
        }
        for hit in coco::hits(boxes, iou, 100) {
            let class = &mut classes[hit.class];
            if hit.found.is_some() {
                class.found.push(class.study.len() as u32);
            }
            class.study.push(study_of_image[hit.image]);
        }
        for class in &mut classes {
            class.study.truncate(class.found.last().map_or(0, |&last| last as usize + 1));
        }
        Self { classes, studies }
    }

    /// AP of every class in resamples whose draws are in `weights[study]`, one lane each; NaN without a true box.
    fn ap(&self, weights: &[[u32; LANES]]) -> Vec<[f64; LANES]> {
        let mut points: Vec<([u32; LANES], [f64; LANES])> = Vec::new();
        self.classes.iter().map(|class| class.ap(weights, &mut points)).collect()
    }
}

impl RankedClass {
    fn ap(&self, weights: &[[u32; LANES]], points: &mut Vec<([u32; LANES], [f64; LANES])>) -> [f64; LANES] {
        let sum = |studies: &[u32]| {
            let mut sums = [0u32; LANES];
            for &study in studies {
                for (sum, weight) in sums.iter_mut().zip(&weights[study as usize]) {
                    *sum += weight;
                }
            }
            sums
        };
        let truth = sum(&self.truth);
        // True positives and precision after every detection that finds a box.
        points.clear();
        let (mut tp, mut fp, mut next) = ([0u32; LANES], [0u32; LANES], 0usize);
        for &found in &self.found {
            let alarms = sum(&self.study[next..found as usize]);
            let here = &weights[self.study[found as usize] as usize];
            let mut precision = [0.0; LANES];
            for lane in 0..LANES {
                fp[lane] += alarms[lane];
                tp[lane] += here[lane];
                precision[lane] =
                    f64::from(tp[lane]) / (f64::from(tp[lane]) + f64::from(fp[lane]) + f64::EPSILON);
            }
            points.push((tp, precision));
            next = found as usize + 1;
        }
        for i in (1..points.len()).rev() {
            let later = points[i].1;
            for (precision, later) in points[i - 1].1.iter_mut().zip(later) {
                *precision = precision.max(later);
            }
        }
        std::array::from_fn(|lane| match truth[lane] {
            0 => f64::NAN,
            truth => at_recall_points(points, lane, f64::from(truth)),
        })
    }
}

/// Mean of the monotone precision at the 101 recall points.
fn at_recall_points(points: &[([u32; LANES], [f64; LANES])], lane: usize, truth: f64) -> f64 {
    let (mut next, mut total) = (0, 0.0);
    for point in 0..RECALL_POINTS {
        let wanted = if point + 1 == RECALL_POINTS { 1.0 } else { point as f64 * 0.01 };
        while next < points.len() && f64::from(points[next].0[lane]) / truth < wanted {
            next += 1;
        }
        total += points.get(next).map_or(0.0, |p| p.1[lane]);
    }
    total / RECALL_POINTS as f64
}

/// AP of every class in every resample.
#[derive(Debug, Clone, PartialEq)]
pub struct ResampledAp {
    classes: usize,
    /// `[resample][class]`, NaN for a class without a true box.
    ap: Vec<f64>,
}

impl ResampledAp {
    /// AP of one class in every resample; NaN where not defined.
    pub fn class(&self, class: usize) -> impl Iterator<Item = f64> + '_ {
        self.ap.iter().skip(class).step_by(self.classes.max(1)).copied()
    }

    /// Mean AP over the classes with a true box in every resample; NaN where there is none.
    pub fn mean(&self) -> impl Iterator<Item = f64> + '_ {
        self.ap.chunks_exact(self.classes.max(1)).map(|resample| {
            coco::mean(resample.iter().map(|ap| (!ap.is_nan()).then_some(*ap))).unwrap_or(f64::NAN)
        })
    }

    /// What the resamples say of each class and of the mean.
    pub fn summary(&self) -> ApBootstrap {
        ApBootstrap {
            by_class: (0..self.classes).map(|class| summarise(self.class(class))).collect(),
            mean: summarise(self.mean()),
        }
    }
}

/// Intervals of AP by class and of their mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApBootstrap {
    /// In class order; `None` for a class without a true box in any resample.
    pub by_class: Vec<Option<Bootstrapped>>,
    /// Of the mean AP.
    pub mean: Option<Bootstrapped>,
}

/// AP in `options.resamples` resamples of the studies. Resample `i` draws the same studies as resample `i` of every other
/// bootstrap of as many studies with that seed, so differences between models of the same films are paired.
pub fn resampled_ap(boxes: &RankedBoxes, options: &BootstrapOptions) -> ResampledAp {
    let classes = boxes.classes.len();
    if boxes.studies == 0 {
        return ResampledAp { classes, ap: Vec::new() };
    }
    let blocks: Vec<Vec<f64>> = (0..options.resamples.div_ceil(LANES))
        .into_par_iter()
        .map_init(
            || (vec![0u32; boxes.studies], vec![[0u32; LANES]; boxes.studies]),
            |(counts, weights), block| {
                let first = block * LANES;
                let lanes = LANES.min(options.resamples - first);
                for lane in 0..lanes {
                    counts.fill(0);
                    resample_units(counts, &mut Stream::new(options.seed, (first + lane) as u64));
                    weights.iter_mut().zip(&*counts).for_each(|(weights, count)| weights[lane] = *count);
                }
                let ap = boxes.ap(weights);
                (0..lanes).flat_map(|lane| ap.iter().map(move |class| class[lane])).collect()
            },
        )
        .collect();
    ResampledAp { classes, ap: blocks.concat() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coco::{DetectedBox, Protocol, TruthBox};
    use proptest::prelude::*;

    /// Boxes of a set from small numbers: image, class, place.
    fn set(images: usize, truth: &[(usize, usize, u8)], detections: &[(usize, usize, u8)]) -> BoxSet {
        let xywh = |place: u8| [f64::from(place), 10.0, 20.0, 20.0];
        let mut of_image = vec![0usize; images];
        // Scores that are equal between films, but not within one.
        let mut score = |image: usize| {
            let k = of_image[image];
            of_image[image] += 1;
            ((k * 5) % 7) as f64 / 8.0 + (k / 7) as f64 * 0.01
        };
        BoxSet {
            images,
            classes: 2,
            truth: truth
                .iter()
                .map(|&(image, class, at)| TruthBox {
                    image,
                    class,
                    xywh: xywh(at),
                    area: 400.0,
                    crowd: false,
                })
                .collect(),
            detections: detections
                .iter()
                .map(|&(image, class, at)| DetectedBox { image, class, xywh: xywh(at), score: score(image) })
                .collect(),
        }
    }

    /// The films of the drawn studies, each copy an image of its own beside the others of its film.
    fn drawn(boxes: &BoxSet, study_of_image: &[u32], counts: &[u32]) -> BoxSet {
        let mut out = BoxSet { images: 0, classes: boxes.classes, ..BoxSet::default() };
        for image in 0..boxes.images {
            for _ in 0..counts[study_of_image[image] as usize] {
                let copy = out.images;
                out.images += 1;
                let truth = boxes.truth.iter().filter(|t| t.image == image);
                out.truth.extend(truth.map(|t| TruthBox { image: copy, ..*t }));
                let detections = boxes.detections.iter().filter(|d| d.image == image);
                out.detections.extend(detections.map(|d| DetectedBox { image: copy, ..*d }));
            }
        }
        out
    }

    fn places() -> impl Strategy<Value = Vec<(usize, usize, u8)>> {
        prop::collection::vec((0usize..6, 0usize..2, 0u8..60), 0..24)
    }

    proptest! {
        #[test]
        fn weights_say_what_drawn_films_say(truth in places(), detections in places(), seed in any::<u64>()) {
            let boxes = set(6, &truth, &detections);
            let study_of_image = [0, 0, 1, 2, 2, 3];
            let ranked = RankedBoxes::new(&boxes, &study_of_image, 4, 0.5);
            let options = BootstrapOptions { resamples: 20, seed };
            let resampled = resampled_ap(&ranked, &options);
            for resample in 0..options.resamples {
                let mut counts = vec![0u32; 4];
                resample_units(&mut counts, &mut Stream::new(seed, resample as u64));
                let plain = coco::evaluate(&drawn(&boxes, &study_of_image, &counts), &Protocol::all_areas(vec![0.5]));
                for (class, plain) in plain.iter().enumerate() {
                    let got = resampled.class(class).nth(resample).unwrap();
                    match plain.ap() {
                        Some(expected) => prop_assert!((got - expected).abs() < 1e-12, "{got} {expected}"),
                        None => prop_assert!(got.is_nan()),
                    }
                }
            }
        }
    }

    #[test]
    fn the_interval_surrounds_the_estimate_and_one_study_has_none_to_swing() {
        let truth: Vec<_> = (0..60).map(|i| (i, i % 2, 10)).collect();
        let detections: Vec<_> = (0..60).map(|i| (i, i % 2, if i % 3 == 0 { 45 } else { 12 })).collect();
        let boxes = set(60, &truth, &detections);
        let options = BootstrapOptions { resamples: 500, seed: 3 };
        let each: Vec<u32> = (0..60).collect();
        let summary = resampled_ap(&RankedBoxes::new(&boxes, &each, 60, 0.5), &options).summary();
        let mean = coco::mean_ap(&coco::evaluate(&boxes, &Protocol::all_areas(vec![0.5]))).unwrap();
        let [low, high] = summary.mean.unwrap().interval;
        assert!(low < mean && mean < high && high - low < 0.5, "{low} {mean} {high}");
        let one = resampled_ap(&RankedBoxes::new(&boxes, &[0; 60], 1, 0.5), &options).summary();
        let [low, high] = one.mean.unwrap().interval;
        assert!((low - mean).abs() < 1e-12 && (high - mean).abs() < 1e-12);
        assert_eq!(one.by_class.len(), 2);
    }
}
