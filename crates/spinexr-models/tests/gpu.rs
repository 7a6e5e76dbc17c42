//! Every network on the GPU of this build against the CPU, with the same weights: outputs, losses, gradients, boxes.
//! Run with `--nocapture` to see every difference.
//!
//! A difference is ‖gpu − cpu‖ / ‖cpu‖ of a tensor. The CPU runs the modules that train, not the prepared networks,
//! which have tests of their own.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but does not see their helpers

#[allow(dead_code, reason = "the golden cases use more of it")]
#[path = "parity/case.rs"]
mod case;
#[allow(dead_code, reason = "the golden cases use more of it")]
#[path = "parity/formula.rs"]
mod formula;
#[path = "../../spinexr-ops/tests/support/gpu.rs"]
mod the_gpu;

use burn::module::Module;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use spinexr_models::densenet::DenseNetConfig;
use spinexr_models::fpn::{ExtraLevels, FpnConfig};
use spinexr_models::losses::{bce_with_logits, sigmoid_focal_loss, smooth_l1_loss};
use spinexr_models::resnet::ResNetConfig;
use spinexr_models::{
    DetectConfig, Detector, EfficientDet, EfficientDetConfig, FasterRcnn, FasterRcnnConfig, RetinaNetConfig,
    SparseRcnn, SparseRcnnConfig, Target,
};

use case::gradients;
use the_gpu::gpu;

/// Of what a network gives, and of its loss.
const OUTPUT: f64 = 1e-4;
/// Of each parameter's gradient. Batch statistics of few values make a gradient a small difference of large sums.
const GRADIENT: f64 = 2e-3;

/// What a network gave, by kind and name.
#[derive(Default)]
struct Results {
    outputs: Vec<(String, Vec<f32>)>,
    gradients: Vec<(String, Vec<f32>)>,
}

impl Results {
    fn output<const D: usize>(&mut self, name: &str, tensor: Tensor<D>) {
        self.outputs.push((name.to_owned(), tensor.try_into_vec_as::<f32>().unwrap()));
    }

    fn gradients<M: Module>(&mut self, module: &M, grads: &Gradients) {
        self.gradients.extend(gradients(module, grads));
    }
}

/// Holds what `run` gives on the GPU to what it gives on the CPU, both with autodiff.
fn hold(case: &str, run: impl Fn(&Device, &mut Results)) {
    let Some(gpu) = gpu() else { return };
    let [found, expected] = [gpu.autodiff(), Device::flex().autodiff()].map(|device| {
        let mut results = Results::default();
        run(&device, &mut results);
        results
    });
    let kinds = [
        ("outputs", OUTPUT, &found.outputs, &expected.outputs),
        ("gradients", GRADIENT, &found.gradients, &expected.gradients),
    ];
    for (kind, tolerance, found, expected) in kinds {
        assert_eq!(found.len(), expected.len(), "{case}: number of {kind}");
        // A gradient that is zero but for rounding, as of a scale that batch norms undo, is held to the others' size.
        let floor = 1e-3 * expected.iter().map(|(_, values)| norm(values)).fold(1e-4, f64::max);
        let mut worst = (0.0f64, "");
        for ((name, found), (wanted, expected)) in found.iter().zip(expected) {
            assert_eq!((name, found.len()), (wanted, expected.len()), "{case}: {kind}");
            let difference = relative(found, expected, floor);
            assert!(difference <= tolerance, "{case}, {kind}, {name}: {difference:e} > {tolerance:e}");
            if difference >= worst.0 {
                worst = (difference, name);
            }
        }
        if !found.is_empty() {
            println!("| {case} | {kind}, worst {} | {:.1e} | {tolerance:.0e} |", worst.1, worst.0);
        }
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// Norm of the difference over the norm of what is expected, which counts as `floor` at least.
fn relative(found: &[f32], expected: &[f32], floor: f64) -> f64 {
    assert!(found.iter().chain(expected).all(|v| v.is_finite()), "not finite");
    let difference: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(expected).max(floor)
}

/// Values in -1..1 that follow from the name.
fn drawn<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = formula::input(name, shape.iter().product(), -1.0, 1.0);
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A training step of a classifier.
fn classifier(case: &str, config: &DenseNetConfig, input: [usize; 4]) {
    hold(case, |device, results| {
        let model = config.init_seeded(3, device);
        let logits = model.forward(drawn("film", input, device));
        let [n, k] = logits.dims();
        let targets: Vec<f32> = (0..n * k).map(|i| (i % 2) as f32).collect();
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [n, k]), device);
        let loss = bce_with_logits(logits.clone(), targets, None).mean();
        let grads = loss.backward();
        results.output("logits", logits);
        results.output("loss", loss);
        results.output("running variance", model.features.norm5.running_var.value());
        results.gradients(&model, &grads);
    });
    hold(&format!("{case}, evaluation"), |device, results| {
        let model = config.init_seeded(3, device).valid();
        results.output("logits", model.forward(drawn("film", input, device).without_autodiff()));
    });
}

#[test]
fn densenet_mini_a() {
    let config = DenseNetConfig::mini_a().with_num_classes(3);
    classifier("DenseNet mini A, 4×64×48", &config, [4, config.in_channels, 64, 48]);
}

#[test]
fn densenet_mini_b() {
    let config = DenseNetConfig::mini_b().with_num_classes(3);
    classifier("DenseNet mini B, 4×64×48", &config, [4, config.in_channels, 64, 48]);
}

#[test]
fn densenet121() {
    let config = DenseNetConfig::densenet121().with_num_classes(3);
    classifier("DenseNet-121, 2×64×64", &config, [2, 3, 64, 64]);
}

#[test]
fn resnets() {
    for (case, config, input) in [
        ("ResNet mini, 2×64×48", ResNetConfig::mini(), [2, 1, 64, 48]),
        ("ResNet-18, 2×64×64", ResNetConfig::resnet18(), [2, 3, 64, 64]),
    ] {
        hold(case, |device, results| {
            let model = config.clone().with_num_classes(3).init_seeded(5, device);
            let x = drawn("film", input, device);
            for (index, map) in model.features(x.clone(), |_, _| {}).into_iter().enumerate() {
                results.output(&format!("layer{}", index + 1), map);
            }
            let logits = model.classify(x).unwrap();
            let grads = (logits.clone() * logits.clone()).sum().backward();
            results.output("logits", logits);
            results.gradients(&model, &grads);
        });
    }
}

#[test]
fn pyramids_of_odd_sizes() {
    for (case, extra) in [
        ("FPN, P6 and P7 on P5", ExtraLevels::P6P7OnP5),
        ("FPN, P6 and P7 on C5", ExtraLevels::P6P7OnC5),
        ("FPN, max pool", ExtraLevels::MaxPool),
    ] {
        hold(case, |device, results| {
            let config = FpnConfig { in_channels: vec![8, 16, 24], out_channels: 12, extra };
            let model = config.init_seeded(7, device);
            let maps = [("c3", 8, 25, 19), ("c4", 16, 13, 10), ("c5", 24, 7, 5)]
                .map(|(name, c, h, w)| drawn(name, [2, c, h, w], device));
            let outputs = model.forward(maps.to_vec());
            let sum =
                outputs.iter().map(|map| (map.clone() * map.clone()).sum()).reduce(|a, b| a + b).unwrap();
            let grads = sum.backward();
            for (index, map) in outputs.into_iter().enumerate() {
                results.output(&format!("level {index}"), map);
            }
            results.gradients(&model, &grads);
        });
    }
}

fn two_films() -> Vec<Vec<Target>> {
    let target = |class, xyxy| Target { class, xyxy };
    vec![vec![target(1, [8.0, 10.0, 40.0, 44.0]), target(0, [30.0, 60.0, 62.0, 90.0])], vec![]]
}

#[test]
fn retinanet_mini() {
    let config = RetinaNetConfig::mini().with_num_classes(3);
    hold("RetinaNet mini, 2×96×64", |device, results| {
        let model = config.init_seeded(9, device);
        let output = model.forward(drawn("film", [2, 1, 96, 64], device));
        let loss = model.loss(&output, &two_films());
        let grads = loss.total().backward();
        results.output("class logits", output.class_logits);
        results.output("box offsets", output.box_deltas);
        results.output("classification loss", loss.classification);
        results.output("regression loss", loss.regression);
        results.gradients(&model, &grads);
    });
    hold("RetinaNet mini, boxes", |device, results| {
        let model = config.init_seeded(9, device).valid();
        let output = model.forward(drawn("film", [2, 1, 96, 64], device).without_autodiff());
        // Untrained scores lie about 0.01; the best are as far apart as drawn weights make them.
        let detect = DetectConfig { score_threshold: 0.0, max_detections: 5, ..DetectConfig::RETINANET };
        for (film, found) in output.detect(&[(96.0, 64.0); 2], &detect).into_iter().enumerate() {
            let found = found.unwrap();
            assert_eq!(found.len(), 5);
            let values: Vec<f32> = found
                .iter()
                .flat_map(|d| [d.class as f32, d.score, d.xyxy.x1, d.xyxy.y1, d.xyxy.x2, d.xyxy.y2])
                .collect();
            results.outputs.push((format!("boxes of film {film}"), values));
        }
    });
}

/// A training step of a detector, and what it finds. `threshold`: so low that untrained weights find boxes.
fn detector<M: Detector>(case: &str, config: &M::Config, input: [usize; 4]) {
    let content_px = [(input[2] as f32, input[3] as f32); 2];
    hold(case, |device, results| {
        let model = M::init_seeded(config, 9, device);
        let losses = model.losses(drawn("film", input, device), &content_px, &two_films(), 11);
        let total = losses.iter().map(|(_, loss)| loss.clone()).reduce(|a, b| a + b).unwrap();
        let grads = total.backward();
        losses.into_iter().for_each(|(name, loss)| results.output(name, loss));
        results.gradients(&model, &grads);
    });
    hold(&format!("{case}, boxes"), |device, results| {
        let model = M::init_seeded(config, 9, device).valid();
        let film = drawn("film", input, device).without_autodiff();
        // Untrained scores lie close together; the best are as far apart as drawn weights make them.
        let detect = DetectConfig { score_threshold: 0.0, max_detections: 5, ..DetectConfig::RETINANET };
        for (film, found) in model.detect(film, &content_px, &detect).into_iter().enumerate() {
            let found = found.unwrap();
            assert_eq!(found.len(), 5);
            let values: Vec<f32> = found
                .iter()
                .flat_map(|d| [d.class as f32, d.score, d.xyxy.x1, d.xyxy.y1, d.xyxy.x2, d.xyxy.y2])
                .collect();
            results.outputs.push((format!("boxes of film {film}"), values));
        }
    });
}

#[test]
fn faster_rcnn_mini() {
    let config = FasterRcnnConfig::mini().with_num_classes(3);
    detector::<FasterRcnn>("Faster R-CNN mini, 2×96×64", &config, [2, 1, 96, 64]);
}

#[test]
fn sparse_rcnn_mini() {
    let config = SparseRcnnConfig::mini().with_num_classes(3);
    detector::<SparseRcnn>("Sparse R-CNN mini, 2×96×64", &config, [2, 1, 96, 64]);
}

#[test]
fn efficientdet_mini() {
    let config = EfficientDetConfig::mini().with_num_classes(3);
    detector::<EfficientDet>("EfficientDet mini, 2×128×64", &config, [2, 1, 128, 64]);
}

#[test]
fn losses_at_extreme_logits() {
    hold("losses", |device, results| {
        let logits: Vec<f32> = vec![-90.0, -20.0, -3.0, -0.5, 0.0, 0.5, 3.0, 20.0, 90.0];
        let n = logits.len();
        for target in [0.0f32, 1.0] {
            let x = Tensor::<1>::from_data(TensorData::new(logits.clone(), [n]), device).require_grad();
            let targets = Tensor::<1>::ones([n], device) * target;
            let focal = sigmoid_focal_loss(x.clone(), targets.clone(), 0.25, 2.0);
            let cross = bce_with_logits(x.clone(), targets.clone(), None);
            let smooth = smooth_l1_loss(x.clone(), targets, 1.0 / 9.0);
            let grads = (focal.clone() + cross.clone() + smooth.clone()).sum().backward();
            results.output(&format!("focal, target {target}"), focal);
            results.output(&format!("cross-entropy, target {target}"), cross);
            results.output(&format!("smooth L1, target {target}"), smooth);
            results.output(&format!("gradient, target {target}"), x.grad(&grads).unwrap());
        }
    });
}
