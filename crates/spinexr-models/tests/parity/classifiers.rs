//! DenseNet and ResNet: stages, logits, training steps.

use burn::module::{Flag, Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use spinexr_models::DenseNetInference;
use spinexr_models::densenet::{DenseNet, DenseNetConfig, Pooling};
use spinexr_models::losses::bce_with_logits;
use spinexr_models::resnet::ResNetConfig;
use spinexr_models::weights::state_dict;

use crate::case::{Case, Gradient};

pub fn tiny() -> DenseNetConfig {
    DenseNetConfig {
        in_channels: 3,
        num_classes: 7,
        growth_rate: 8,
        block_config: [2, 2, 2, 2],
        num_init_features: 16,
        bn_size: 2,
        final_relu: true,
        pooling: Pooling::Average,
    }
}

fn forward(case: &Case, config: &DenseNetConfig, inputs: &[&str]) {
    let device = Device::flex();
    let model = case.filled(config.init(&device));
    for tag in inputs {
        let x: Tensor<4> = case.input(&format!("input_{tag}"), &device);
        let last = model.features.forward(x.clone(), |stage, map| {
            case.check(&format!("{tag}/features.{stage}"), map);
        });
        case.check(&format!("{tag}/features.norm5"), &model.features.norm5.forward(last));
        case.check(&format!("{tag}/logits"), &model.forward(x.clone()));
        case.check(&format!("{tag}/logits"), &DenseNetInference::new(&model).forward(x));
    }
}

/// Turns the norms' batch statistics off and leaves their parameters trained.
pub fn with_evaluation_norms(model: DenseNet) -> DenseNet {
    struct Off;
    impl ModuleMapper for Off {
        fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
            flag.with_value(false)
        }
    }
    model.map(&mut Off)
}

/// The images and labels of the case's training step, `[2, 3, 64, 64]` and `[2, 7]`.
pub fn training_batch(case: &Case, device: &Device) -> (Tensor<4>, Tensor<2>) {
    let input = case.manifest["train"]["input"].as_str().unwrap();
    let labels: Vec<f32> = case.manifest["inputs"]["targets"]["value"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|v| v.as_f64().unwrap() as f32)
        .collect();
    (case.input(input, device), Tensor::from_data(TensorData::new(labels, [2, 7]), device))
}

fn training_step(case: &Case, config: &DenseNetConfig, statistics: &[&str], rule: Gradient) {
    let device = Device::flex().autodiff();
    let (x, y) = training_batch(case, &device);
    for (tag, rule) in [("frozen_bn", Gradient::Exact), ("train", rule)] {
        let mut model = case.filled(config.init(&device));
        if tag == "frozen_bn" {
            model = with_evaluation_norms(model);
        }
        let logits = model.forward(x.clone());
        case.check(&format!("{tag}/logits"), &logits);
        let loss = bce_with_logits(logits, y.clone(), None).mean();
        let grads = loss.backward();
        case.check_scalar(&format!("{tag}/loss_bce"), loss.into_scalar());
        if tag == "train" {
            let state = state_dict(&model);
            for norm in statistics {
                for part in ["running_mean", "running_var"] {
                    let entry = &state[&format!("features.{norm}.{part}")];
                    case.check_values(&format!("train/features.{norm}.{part}"), &entry.shape, &entry.values);
                }
            }
        }
        case.check_gradients(&format!("{tag}/grads"), &model, &grads, rule);
    }
}

#[test]
fn densenet_tiny() {
    let case = Case::open("densenet_tiny");
    forward(&case, &tiny(), &["64"]);
    training_step(&case, &tiny(), &["norm0", "denseblock2.denselayer2.norm1", "norm5"], Gradient::Exact);
}

#[test]
fn densenet121() {
    let case = Case::open("densenet121");
    let config = DenseNetConfig::densenet121().with_num_classes(7);
    forward(&case, &config, &["64", "224"]);
    training_step(&case, &config, &["norm0", "denseblock2.denselayer3.norm1", "norm5"], Gradient::Chaotic);
}

#[test]
fn densenet169() {
    let config = DenseNetConfig::densenet169().with_num_classes(7);
    forward(&Case::open("densenet169"), &config, &["64", "224"]);
}

#[test]
fn densenet201() {
    let config = DenseNetConfig::densenet201().with_num_classes(7);
    forward(&Case::open("densenet201"), &config, &["64", "224"]);
}

fn resnet(name: &str, config: ResNetConfig) {
    let case = Case::open(name);
    let device = Device::flex();
    let model = case.filled(config.with_num_classes(7).init(&device));
    for tag in ["64", "224"] {
        let x: Tensor<4> = case.input(&format!("input_{tag}"), &device);
        let maps = model.features(x.clone(), |stage, map| case.check(&format!("{tag}/{stage}"), map));
        for (index, map) in maps.iter().enumerate() {
            case.check(&format!("{tag}/layer{}", index + 1), map);
        }
        case.check(&format!("{tag}/logits"), &model.classify(x).expect("it has a classifier"));
    }
}

#[test]
fn resnet18() {
    resnet("resnet18", ResNetConfig::resnet18());
}

#[test]
fn resnet50() {
    resnet("resnet50", ResNetConfig::resnet50());
}
