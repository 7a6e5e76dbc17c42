//! Time of one optimiser step, gradients at hand: `cargo bench -p spinexr-train`.

use burn::tensor::{Device, Tensor};
use spinexr_models::{DenseNet, DenseNetConfig};
use spinexr_train::clip::{self, Clip};
use spinexr_train::ema::{Ema, EmaConfig};
use spinexr_train::optim::{Optimiser, OptimiserConfig, Rule};
use spinexr_train::params::named_tensors;
use std::collections::BTreeMap;

fn main() {
    divan::main();
}

fn gradients(model: &DenseNet) -> BTreeMap<String, Tensor<1>> {
    let trainable = named_tensors(model).into_iter().filter(|(_, t)| t.trainable);
    trainable.map(|(name, t)| (name, t.flat.mul_scalar(0.01))).collect()
}

fn bench_rule(bencher: divan::Bencher<'_, '_>, net: &DenseNetConfig, rule: Rule) {
    let config = OptimiserConfig {
        lr: 1e-3,
        weight_decay: 0.01,
        weight_decay_norms: 0.0,
        weight_decay_biases: 0.0,
        rule,
        groups: vec![],
        layer_decay: None,
    };
    let mut model = net.init(&Device::flex().autodiff());
    let mut optimiser = Optimiser::new(&config, &model).expect("no group");
    bencher.bench_local(|| {
        let mut gradients = gradients(&model);
        let norm = clip::global_norm(&gradients).expect("finite");
        clip::clip(&mut gradients, norm, Clip::GlobalNorm(1.0));
        model = optimiser.step(model.clone(), gradients, 1e-3);
    });
}

#[divan::bench]
fn adamw_densenet121(bencher: divan::Bencher<'_, '_>) {
    let rule = Rule::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    bench_rule(bencher, &DenseNetConfig::densenet121(), rule);
}

#[divan::bench]
fn sgd_densenet121(bencher: divan::Bencher<'_, '_>) {
    bench_rule(bencher, &DenseNetConfig::densenet121(), Rule::Sgd { momentum: 0.9, nesterov: false });
}

#[divan::bench]
fn adamw_densenet_mini(bencher: divan::Bencher<'_, '_>) {
    let rule = Rule::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    bench_rule(bencher, &DenseNetConfig::mini(), rule);
}

#[divan::bench]
fn average_densenet121(bencher: divan::Bencher<'_, '_>) {
    let model = DenseNetConfig::densenet121().init(&Device::flex().autodiff());
    let mut ema = Ema::new(EmaConfig { decay: 0.999, ramp_steps: 0.0 }, &model);
    let mut step = 0;
    bencher.bench_local(|| {
        step += 1;
        ema.update(&model, step);
    });
}
