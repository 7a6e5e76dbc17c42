//! Networks. Inference runs prepared networks as `spinexr predict` does, a step on a worker of the pool as
//! `spinexr train` does. Gradients are computed and dropped: there is no optimiser on either side.

use crate::inputs::{self, Images};
use crate::measure::{Plan, timed};
use anyhow::Result;
use burn::tensor::{Device, Tensor, TensorData};
use spinexr_models::losses::bce_with_logits;
use spinexr_models::weights::{Entry, Strictness, load_state_dict};
use spinexr_models::{
    DenseNet, DenseNetConfig, DenseNetInference, Detect, DetectConfig, Normalisation, RetinaNet,
    RetinaNetInference,
};
use std::path::Path;

fn tensor<const D: usize>(entry: &Entry, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(entry.values.clone(), entry.shape.clone()), device)
}

fn densenet121(dir: &Path, device: &Device) -> Result<DenseNet> {
    let state = inputs::read_tensors(dir, inputs::DENSENET)?;
    Ok(load_state_dict(DenseNetConfig::densenet121().init(device), &state, Strictness::Exact)?)
}

fn retinanet(dir: &Path, device: &Device) -> Result<RetinaNet> {
    let state = inputs::read_tensors(dir, inputs::RETINANET)?;
    Ok(load_state_dict(inputs::retinanet_config().init(device), &state, Strictness::Exact)?)
}

/// Logits of the first `batch` images; their mean is what was computed.
pub fn densenet121_infer(dir: &Path, batch: usize, plan: &Plan) -> Result<(Vec<f64>, f64)> {
    let device = Device::flex();
    let model = DenseNetInference::new(&densenet121(dir, &device)?);
    let all: Tensor<4> = tensor(&Images::read(dir)?.classifier, &device);
    let images = all.narrow(0, 0, batch);
    plan.measure(|| {
        let (seconds, logits) = timed(|| values(model.forward(images.clone())));
        Ok((seconds, mean(&logits)))
    })
}

/// Forward in training mode, binary cross-entropy, backward; the loss is what was computed.
pub fn densenet121_step(dir: &Path, plan: &Plan) -> Result<(Vec<f64>, f64)> {
    let device = Device::flex().autodiff();
    let model = densenet121(dir, &device)?;
    let images = Images::read(dir)?;
    let (x, y) = (tensor::<4>(&images.classifier, &device), tensor::<2>(&images.labels, &device));
    plan.measure(|| {
        let (seconds, loss) = rayon::scope(|_| {
            timed(|| {
                let loss = bce_with_logits(model.forward(x.clone()), y.clone(), None).mean();
                let gradients = loss.backward();
                drop(gradients);
                loss
            })
        });
        Ok((seconds, mean(&values(loss))))
    })
}

/// From display pixels to boxes, normalisation and suppression among it; the sum of their scores is what was
/// computed.
pub fn retinanet_infer(dir: &Path, plan: &Plan) -> Result<(Vec<f64>, f64)> {
    let device = Device::flex();
    let model = RetinaNetInference::new(&retinanet(dir, &device)?);
    let image: Tensor<4> = tensor(&Images::read(dir)?.detector, &device);
    let [_, _, height, width] = image.dims();
    plan.measure(|| {
        let (seconds, boxes) = timed(|| {
            let input = Normalisation::imagenet().apply(image.clone());
            model.detect(input, &[(height as f32, width as f32)], &DetectConfig::RETINANET)
        });
        let boxes = boxes.into_iter().next().expect("one image")?;
        Ok((seconds, boxes.iter().map(|b| f64::from(b.score)).sum()))
    })
}

/// Forward in training mode, both losses, backward; the sum of the losses is what was computed.
pub fn retinanet_step(dir: &Path, plan: &Plan) -> Result<(Vec<f64>, f64)> {
    let device = Device::flex().autodiff();
    let model = retinanet(dir, &device)?;
    let image: Tensor<4> = tensor(&Images::read(dir)?.detector, &device);
    let targets = vec![inputs::read_targets(dir)?];
    plan.measure(|| {
        let (seconds, loss) = rayon::scope(|_| {
            timed(|| {
                let output = model.forward(Normalisation::imagenet().apply(image.clone()));
                let loss = model.loss(&output, &targets).total();
                let gradients = loss.backward();
                drop(gradients);
                loss
            })
        });
        Ok((seconds, mean(&values(loss))))
    })
}

// Sparse R-CNN: an `infer` and a `step` like RetinaNet's, with weights of its own among the inputs.

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.try_into_vec_as::<f32>().expect("a network gives float tensors that can be read back")
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64
}
