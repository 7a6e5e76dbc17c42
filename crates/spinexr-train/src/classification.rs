//! Abnormal or not: binary cross-entropy on the film's logit, AUROC on the validation films.
//!
//! Where the experiment asks for it, one more output a class learns, for every place of the last map, which findings
//! are there. "Abnormal" alone says little about what to look for; the boxes say it, at no cost in use (as in
//! Li et al., arXiv 1711.06373).

use crate::config::ModelConfig;
use crate::engine::{Task, images};
use crate::error::TrainError;
use burn::tensor::{Device, Tensor, TensorData};
use spinexr_core::{ClassList, FilmAnnotation};
use spinexr_data::{Batch, FixedBatches};
use spinexr_eval::{LabelledScores, roc};
use spinexr_models::weights::{self, StateDict, Strictness};
use spinexr_models::{DenseNet, losses};
use spinexr_ops::ranks::count_to_divide_by;
use std::collections::BTreeMap;

/// Of the findings' focal loss, as RetinaNet has them (arXiv 1708.02002): most places show nothing.
const FOCAL_ALPHA: f64 = 0.25;
const FOCAL_GAMMA: f64 = 2.0;
/// Probability of a finding that the untrained network gives each place.
const PRIOR: f32 = 0.01;

/// Training a film classifier.
pub(crate) struct Classification;

impl Task for Classification {
    type Model = DenseNet;

    fn init(config: &ModelConfig, classes: usize, seed: u64, device: &Device) -> Option<DenseNet> {
        let model = config.densenet(classes)?.init_seeded(seed, device);
        if config.finding_loss.is_none() {
            return Some(model);
        }
        let mut state = weights::state_dict(&model);
        let bias = state.get_mut("classifier.bias").expect("a DenseNet has a classifier");
        bias.values[1..].fill(-((1.0 - PRIOR) / PRIOR).ln());
        let model = weights::load_state_dict(model, &state, Strictness::Exact);
        Some(model.expect("the state is the model's own"))
    }

    fn loss(
        model: &DenseNet,
        config: &ModelConfig,
        images: Tensor<4>,
        batch: &Batch,
    ) -> Vec<(&'static str, Tensor<1>)> {
        let features = model.features(images); // [N, C, H, W] -> [N, F, h, w]
        let logits = model.classify(features.clone()); // [N, 1], or [N, 1 + K] with K findings
        let device = logits.device();
        let abnormal: Vec<f32> = batch.abnormal.iter().map(|&a| f32::from(u8::from(a))).collect();
        let abnormal = Tensor::from_data(TensorData::new(abnormal, [batch.n, 1]), &device);
        let bce = losses::bce_with_logits(logits.slice([0..batch.n, 0..1]), abnormal, None).mean();
        let mut parts = vec![("bce", bce)];
        if let Some(weight) = config.finding_loss {
            let [_, _, h, w] = features.dims();
            let places = model.classify_places(features); // [N, h * w, 1 + K]
            let [_, _, outputs] = places.dims();
            let targets = findings_by_place(batch, outputs - 1, h, w);
            let positive = count_to_divide_by(targets.iter().map(|&t| f64::from(t)).sum());
            let shape = [batch.n, h * w, outputs - 1];
            let targets = Tensor::from_data(TensorData::new(targets, shape), &device);
            let places = places.slice([0..batch.n, 0..h * w, 1..outputs]);
            let focal = losses::sigmoid_focal_loss(places, targets, FOCAL_ALPHA, FOCAL_GAMMA).sum();
            parts.push(("findings", focal.mul_scalar(weight / positive)));
        }
        parts
    }

    fn kept(mut state: StateDict) -> StateDict {
        for name in ["classifier.weight", "classifier.bias"] {
            let entry = state.get_mut(name).expect("a DenseNet has a classifier");
            entry.values.truncate(entry.values.len() / entry.shape[0]); // the first row
            entry.shape[0] = 1;
        }
        state
    }

    fn evaluate(
        model: &DenseNet,
        config: &ModelConfig,
        batches: FixedBatches,
        _films: &[FilmAnnotation],
        _classes: &ClassList,
        device: &Device,
    ) -> Result<BTreeMap<String, Option<f64>>, TrainError> {
        let (mut logits, mut abnormal) = (Vec::new(), Vec::new());
        for batch in batches {
            let batch = batch?;
            let out = model.forward(config.normalisation.apply(images(&batch, device))); // [N, 1 + K]
            let outputs = out.dims()[1];
            logits.extend(out.into_data().iter::<f32>().step_by(outputs).map(f64::from));
            abnormal.extend_from_slice(&batch.abnormal);
        }
        Ok(metrics(&logits, &abnormal))
    }

    const METRIC: &'static str = "auroc";
}

// 1 where a finding is, for each place of an `h` × `w` map: its middle lies in the box, or the box's middle in it.
// [N, h * w, K], row-major.
fn findings_by_place(batch: &Batch, k: usize, h: usize, w: usize) -> Vec<f32> {
    let mut targets = vec![0.0; batch.n * h * w * k];
    let (step_y, step_x) = (batch.height as f32 / h as f32, batch.width as f32 / w as f32);
    for (film, boxes) in targets.chunks_exact_mut(h * w * k).zip(&batch.boxes) {
        for b in boxes {
            let (middle_x, middle_y) = (0.5 * (b.xyxy.x1 + b.xyxy.x2), 0.5 * (b.xyxy.y1 + b.xyxy.y2));
            for (place, findings) in film.chunks_exact_mut(k).enumerate() {
                let (x, y) = ((place % w) as f32 * step_x, (place / w) as f32 * step_y);
                let (cx, cy) = (x + 0.5 * step_x, y + 0.5 * step_y);
                let inside = b.xyxy.x1 <= cx && cx < b.xyxy.x2 && b.xyxy.y1 <= cy && cy < b.xyxy.y2;
                let holds = x <= middle_x && middle_x < x + step_x && y <= middle_y && middle_y < y + step_y;
                if inside || holds {
                    findings[b.class] = 1.0;
                }
            }
        }
    }
    targets
}

// Logits that are not finite leave both figures undefined.
fn metrics(logits: &[f64], abnormal: &[bool]) -> BTreeMap<String, Option<f64>> {
    let auroc = LabelledScores::new(abnormal, logits).ok().and_then(|scores| roc::auroc(&scores));
    let losses = logits.iter().zip(abnormal).map(|(&x, &y)| {
        let signed = if y { -x } else { x };
        signed.max(0.0) + (-signed.abs()).exp().ln_1p() // ln(1 + e^signed)
    });
    let bce = losses.sum::<f64>() / logits.len() as f64;
    BTreeMap::from([("auroc".to_owned(), auroc), ("bce".to_owned(), bce.is_finite().then_some(bce))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use spinexr_core::BoxXyxy;
    use spinexr_data::LabelledBox;
    use spinexr_models::DenseNetConfig;

    #[test]
    fn metrics_of_four_films() {
        let found = metrics(&[2.0, -1.0, 0.0, 1.0], &[true, false, true, false]);
        assert_eq!(found["auroc"], Some(0.75));
        let by_hand = [(-2f64).exp().ln_1p(), (-1f64).exp().ln_1p(), 2f64.ln(), 1f64.exp().ln_1p()];
        assert!((found["bce"].unwrap() - by_hand.iter().sum::<f64>() / 4.0).abs() < 1e-12);
    }

    fn batch(boxes: Vec<Vec<LabelledBox>>) -> Batch {
        let n = boxes.len();
        Batch {
            step: 0,
            images: vec![0.5; n * 96 * 64],
            n,
            height: 96,
            width: 64,
            image_ids: vec![String::new(); n],
            abnormal: boxes.iter().map(|b| !b.is_empty()).collect(),
            boxes,
            maps: vec![],
            film_sizes_px: vec![(96, 64); n],
            content_px: vec![(96, 64); n],
            draw: 0,
        }
    }

    #[test]
    fn a_finding_is_at_the_places_it_covers_or_lies_in() {
        // Places of 32 px; the first box is small and inside one, the second covers the middles of two.
        let small = LabelledBox { class: 3, xyxy: BoxXyxy::new(34.0, 2.0, 40.0, 8.0) };
        let tall = LabelledBox { class: 0, xyxy: BoxXyxy::new(5.0, 40.0, 25.0, 90.0) };
        let targets = findings_by_place(&batch(vec![vec![], vec![small, tall]]), 7, 3, 2);
        let ones: Vec<usize> = (0..targets.len()).filter(|&i| targets[i] == 1.0).collect();
        let at = |place: usize, class: usize| (6 + place) * 7 + class;
        assert_eq!(ones, [at(1, 3), at(2, 0), at(4, 0)]);
    }

    #[test]
    fn the_outputs_that_only_teach_are_not_kept() {
        let network = DenseNetConfig::mini_a().with_num_classes(1 + 7);
        let device = Device::flex();
        let teaching = network.init_seeded(3, &device);
        let kept = Classification::kept(weights::state_dict(&teaching));
        let alone = network.with_num_classes(1).init_seeded(0, &device);
        let alone = weights::load_state_dict(alone, &kept, Strictness::Exact).unwrap();
        let film = Tensor::<4>::ones([1, 1, 64, 64], &device);
        let logit = |model: &DenseNet| model.forward(film.clone()).into_data().iter::<f32>().next().unwrap();
        assert!((logit(&alone) - logit(&teaching)).abs() < 1e-6);
    }

    #[test]
    fn findings_add_a_part_to_the_loss() {
        let text = include_str!("../../../configs/demo/densenet_mini_a.toml");
        let experiment = crate::Experiment::parse(text, std::path::Path::new("a.toml"), &[]).unwrap();
        let device = Device::flex();
        let model = Classification::init(&experiment.model, 7, 1, &device).unwrap();
        let films =
            batch(vec![vec![], vec![LabelledBox { class: 6, xyxy: BoxXyxy::new(1.0, 1.0, 30.0, 30.0) }]]);
        let parts = |config: &ModelConfig, model: &DenseNet| -> Vec<(&str, f32)> {
            Classification::loss(model, config, images(&films, &device), &films)
                .into_iter()
                .map(|(name, loss)| (name, loss.into_scalar::<f32>()))
                .collect()
        };
        let with = parts(&experiment.model, &model);
        assert_eq!(with.iter().map(|p| p.0).collect::<Vec<_>>(), ["bce", "findings"]);
        // Untrained, every place says 0.01: of 2 films x 6 places x 7 findings one is a miss.
        let (p, alpha) = (f64::from(PRIOR), FOCAL_ALPHA);
        let miss = alpha * (1.0 - p).powi(2) * -p.ln();
        let rest = 83.0 * (1.0 - alpha) * p * p * -(1.0 - p).ln();
        let expected = 2.0 * (miss + rest);
        assert!((f64::from(with[1].1) - expected).abs() < 0.5 * expected, "{with:?}, about {expected}");
        let plain = ModelConfig { finding_loss: None, ..experiment.model.clone() };
        let without = parts(&plain, &Classification::init(&plain, 7, 1, &device).unwrap());
        assert_eq!(without.iter().map(|p| p.0).collect::<Vec<_>>(), ["bce"]);
    }

    #[test]
    fn one_class_alone_has_no_auroc() {
        assert_eq!(metrics(&[2.0, 1.0], &[true, true])["auroc"], None);
        assert_eq!(
            metrics(&[f64::NAN, 1.0], &[true, false]),
            BTreeMap::from([("auroc".into(), None), ("bce".into(), None)])
        );
    }
}
