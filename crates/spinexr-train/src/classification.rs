//! Abnormal or not: binary cross-entropy on the film's logit, AUROC on the validation films.

use crate::config::ModelConfig;
use crate::engine::{Task, images};
use crate::error::TrainError;
use burn::tensor::{Device, Tensor, TensorData};
use spinexr_core::FilmAnnotation;
use spinexr_data::{Batch, FixedBatches};
use spinexr_eval::{LabelledScores, roc};
use spinexr_models::{DenseNet, Normalisation, losses};
use std::collections::BTreeMap;

/// Training a film classifier.
pub(crate) struct Classification;

impl Task for Classification {
    type Model = DenseNet;

    fn init(config: &ModelConfig, seed: u64, device: &Device) -> Option<DenseNet> {
        Some(config.densenet()?.init_seeded(seed, device))
    }

    fn loss(model: &DenseNet, images: Tensor<4>, batch: &Batch) -> Vec<(&'static str, Tensor<1>)> {
        let logits = model.forward(images); // [N, C, H, W] -> [N, 1]
        let targets: Vec<f32> = batch.abnormal.iter().map(|&a| f32::from(u8::from(a))).collect();
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [batch.n, 1]), &logits.device());
        vec![("bce", losses::bce_with_logits(logits, targets, None).mean())]
    }

    fn evaluate(
        model: &DenseNet,
        normalisation: &Normalisation,
        batches: FixedBatches,
        _films: &[FilmAnnotation],
        device: &Device,
    ) -> Result<BTreeMap<String, Option<f64>>, TrainError> {
        let (mut logits, mut abnormal) = (Vec::new(), Vec::new());
        for batch in batches {
            let batch = batch?;
            let out = model.forward(normalisation.apply(images(&batch, device))); // [N, 1]
            logits.extend(out.into_data().iter::<f32>().map(f64::from));
            abnormal.extend_from_slice(&batch.abnormal);
        }
        Ok(metrics(&logits, &abnormal))
    }

    const METRIC: &'static str = "auroc";
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

    #[test]
    fn metrics_of_four_films() {
        let found = metrics(&[2.0, -1.0, 0.0, 1.0], &[true, false, true, false]);
        assert_eq!(found["auroc"], Some(0.75));
        let by_hand = [(-2f64).exp().ln_1p(), (-1f64).exp().ln_1p(), 2f64.ln(), 1f64.exp().ln_1p()];
        assert!((found["bce"].unwrap() - by_hand.iter().sum::<f64>() / 4.0).abs() < 1e-12);
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
