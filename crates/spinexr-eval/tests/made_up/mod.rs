//! Made-up but plausible records and annotations, a pure function of the seed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use spinexr_core::prediction::Timings;
use spinexr_core::{
    Annotation, BoxXyxy, Detection, FilmAnnotation, FilmFacts, FilmPrediction, Finding, Split, fusion,
};
use std::collections::BTreeMap;

/// Records and annotations of both splits.
pub struct MadeUp {
    pub validation: Vec<FilmPrediction>,
    pub test: Vec<FilmPrediction>,
    pub validation_truth: Vec<FilmAnnotation>,
    pub test_truth: Vec<FilmAnnotation>,
}

pub const HEIGHT_PX: u32 = 1228;
pub const WIDTH_PX: u32 = 803;

/// How often each class is marked on an abnormal film, in the order of [`Finding::ALL`].
const FREQUENCY: [f64; 7] = [0.25, 0.15, 0.95, 0.12, 0.14, 0.12, 0.04];

pub fn make(validation: usize, test: usize, boxes_per_film: usize, seed: u64) -> MadeUp {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut split =
        |count: usize, split: Split| (0..count).map(|i| film(&mut rng, i, split, boxes_per_film)).unzip();
    let (validation, validation_truth) = split(validation, Split::Validation);
    let (test, test_truth) = split(test, Split::Test);
    MadeUp { validation, test, validation_truth, test_truth }
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

fn any_box(rng: &mut ChaCha8Rng) -> BoxXyxy {
    let (w, h) = (rng.random_range(50.0..160.0), rng.random_range(40.0..140.0));
    let x = 0.5 * WIDTH_PX as f32 + rng.random_range(-160.0..100.0);
    let y = rng.random_range(80.0..HEIGHT_PX as f32 - 240.0);
    BoxXyxy::new(x, y, x + w, y + h)
}

/// Header facts by position, so that the random numbers of a seed stay what they were.
fn facts(index: usize) -> FilmFacts {
    let of =
        |values: &[&str], step: usize| values.get(index / step % (values.len() + 1)).map(|v| (*v).to_owned());
    FilmFacts {
        sex: of(&["F", "M", "F"], 2),
        age: of(&["40-59", "60-79", "18-39", "60-79", "40-59", "80 and over"], 2),
        view: of(&["AP", "LL"], 1).or_else(|| Some("LL".into())),
        body_part: of(&["LSPINE", "LSPINE", "CSPINE"], 2),
        manufacturer: of(&["MAKER A", "MAKER B", "MAKER A", "MAKER A"], 2),
        film_size: of(&["350-449 mm", "250-349 mm"], 2),
        exposure: of(&["on target", "on target", "under target"], 3),
        compression: Some(if index % 40 == 7 { "lossy" } else { "lossless" }.into()),
        depth: None,
    }
}

fn film(
    rng: &mut ChaCha8Rng,
    index: usize,
    split: Split,
    boxes_per_film: usize,
) -> (FilmPrediction, FilmAnnotation) {
    let image = format!("{split}{index:05}{:016x}", rng.random::<u64>());
    let study = format!("{split}-study-{}", index / 2);
    let abnormal = rng.random_bool(0.48);
    let mut marked = Vec::new();
    if abnormal {
        for (finding, frequency) in Finding::ALL.into_iter().zip(FREQUENCY) {
            while rng.random_bool(frequency * 0.75) {
                marked.push(Annotation { label: finding.label(), xyxy: any_box(rng) });
            }
        }
    }
    let mean = if abnormal { 1.1 } else { -1.3 };
    let shared = normal(rng);
    let logits: BTreeMap<String, f64> = [("densenet121_mini_a", 0.9), ("densenet121_mini_b", 1.1)]
        .map(|(name, noise)| (name.to_owned(), mean + shared + noise * normal(rng)))
        .into();
    let mut proposed: Vec<Detection> = Vec::new();
    for b in &marked {
        if rng.random_bool(0.75) {
            let mut shift = |limit: f32| rng.random_range(-limit..limit);
            let xyxy = BoxXyxy::new(
                b.xyxy.x1 + shift(14.0),
                b.xyxy.y1 + shift(14.0),
                b.xyxy.x2 + shift(14.0),
                b.xyxy.y2 + shift(14.0),
            );
            proposed.push(Detection { label: b.label.clone(), score: rng.random_range(0.25..0.98), xyxy });
        }
    }
    while proposed.len() < boxes_per_film {
        let label = Finding::ALL[rng.random_range(0..7)].label();
        let score = rng.random::<f32>().powi(3) * 0.75;
        proposed.push(Detection { label, score, xyxy: any_box(rng) });
    }
    let mean_logit = logits.values().sum::<f64>() / logits.len() as f64;
    let record = FilmPrediction {
        image: image.clone(),
        study: study.clone(),
        split: Some(split),
        height_px: HEIGHT_PX,
        width_px: WIDTH_PX,
        facts: facts(index),
        logits: logits.into_iter().map(|(model, logit)| (model, logit.into())).collect(),
        p_abnormal: Some(fusion::sigmoid(mean_logit)),
        threshold: None,
        boxes: vec![],
        boxes_before_gate: proposed,
        method: None,
        pixels: json!({"policy": "standard"}),
        timings: Timings::default(),
        model: "3f9a1c0e5d7b".into(),
        demonstration: false,
    };
    let annotation = FilmAnnotation {
        image_id: image,
        study_id: study,
        series_id: String::new(),
        abnormal,
        boxes: marked,
    };
    (record, annotation)
}
