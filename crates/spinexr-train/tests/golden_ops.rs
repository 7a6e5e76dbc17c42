//! Optimiser steps, clipping and averages against PyTorch: the `ops` case of the golden data.

#![allow(clippy::unwrap_used, reason = "a test ends where its setting fails")]

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use spinexr_train::clip::{self, Clip};
use spinexr_train::ema::{Ema, EmaConfig};
use spinexr_train::optim::{LrGroup, Optimiser, OptimiserConfig, Rule};
use spinexr_train::params::{freeze, named_tensors};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Module, Debug)]
struct Three {
    w: Param<Tensor<2>>,
    b: Param<Tensor<1>>,
    conv: Param<Tensor<4>>,
}

const SHAPES: [(&str, &[usize]); 3] = [("w", &[7, 5]), ("b", &[11]), ("conv", &[2, 3, 3, 3])];

/// The fill formula of the golden data: values in [-1, 1) from a name.
fn formula(name: &str, numel: usize) -> Vec<f32> {
    let mut state =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (0..numel)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            2.0 * ((z >> 40) as f32 / 16_777_216.0) - 1.0
        })
        .collect()
}

fn golden(bytes: &[u8], name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let (chunks, _) = file.tensor(name).unwrap().data().as_chunks::<4>();
    chunks.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn golden_bytes() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ops/tensors.safetensors");
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= 1e-5 * scale, "{what}[{i}]: expected {e}, got {g}");
    }
}

fn three(device: &Device) -> Three {
    fn tensor<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
        let values = formula(name, shape.iter().product());
        Param::from_data(TensorData::new(values, shape), device)
    }
    Three {
        w: tensor("opt_w", [7, 5], device),
        b: tensor("opt_b", [11], device),
        conv: tensor("opt_conv", [2, 3, 3, 3], device),
    }
}

fn config(rule: Rule, lr: f64, weight_decay: f64) -> OptimiserConfig {
    OptimiserConfig {
        lr,
        weight_decay,
        weight_decay_norms: weight_decay,
        weight_decay_biases: weight_decay,
        rule,
        groups: vec![],
        layer_decay: None,
    }
}

fn gradients(step: usize, device: &Device) -> BTreeMap<String, Tensor<1>> {
    SHAPES
        .iter()
        .map(|(name, shape)| {
            let values = formula(&format!("opt_{name}_grad{step}"), shape.iter().product());
            ((*name).to_owned(), Tensor::from_data(values.as_slice(), device))
        })
        .collect()
}

fn three_steps(case: &str, rule: Rule, lr: f64, weight_decay: f64, slots: [&str; 2]) {
    let bytes = golden_bytes();
    let device = Device::flex();
    let mut model = three(&device.clone().autodiff());
    let mut optimiser = Optimiser::new(&config(rule, lr, weight_decay), &model).unwrap();
    for step in 1..=3 {
        let mut gradients = gradients(step, &device);
        let norm = clip::global_norm(&gradients).unwrap();
        let expected = golden(&bytes, &format!("{case}/step{step}/grad_norm_before_clip"))[0];
        assert!((norm - f64::from(expected)).abs() <= 1e-5 * f64::from(expected), "{norm} is not {expected}");
        clip::clip(&mut gradients, norm, Clip::GlobalNorm(1.0));
        model = optimiser.step(model, gradients, lr);
        for (name, tensor) in named_tensors(&model) {
            assert!(tensor.trainable, "{name} keeps its gradient requirement");
            let got: Vec<f32> = tensor.flat.into_data().iter().collect();
            let key = format!("{case}/step{step}/{name}");
            assert_close(&key, &got, &golden(&bytes, &key));
        }
    }
    for (name, _) in SHAPES {
        let state = &optimiser.state[name];
        assert_eq!(state.steps, 3);
        let tensors = [Some(&state.first), state.second.as_ref()];
        for (slot, tensor) in slots.iter().zip(tensors).filter(|(slot, _)| !slot.is_empty()) {
            let got: Vec<f32> = tensor.unwrap().to_data().iter().collect();
            let key = format!("{case}/step3/{name}/{slot}");
            assert_close(&key, &got, &golden(&bytes, &key));
        }
    }
}

#[test]
fn adamw_is_pytorchs() {
    let rule = Rule::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    three_steps("adamw", rule, 1e-3, 0.05, ["exp_avg", "exp_avg_sq"]);
}

#[test]
fn sgd_is_pytorchs() {
    let rule = Rule::Sgd { momentum: 0.9, nesterov: false };
    three_steps("sgd", rule, 0.02, 1e-4, ["momentum_buffer", ""]);
}

#[test]
fn nesterov_is_pytorchs() {
    let rule = Rule::Sgd { momentum: 0.9, nesterov: true };
    three_steps("sgd_nesterov", rule, 0.02, 1e-4, ["momentum_buffer", ""]);
}

#[derive(Module, Debug)]
struct One {
    x: Param<Tensor<1>>,
}

#[test]
fn the_average_is_as_computed_by_pytorch() {
    let bytes = golden_bytes();
    let device = Device::flex();
    let one =
        |name: &str| One { x: Param::from_data(formula(name, 33).as_slice(), &device.clone().autodiff()) };
    for (case, config) in [
        ("ema_constant", EmaConfig { decay: 0.999, ramp_steps: 0.0 }),
        ("ema_ramped", EmaConfig { decay: 0.9998, ramp_steps: 2000.0 }),
    ] {
        let expected = golden(&bytes, case);
        let mut ema = Ema::new(config, &one("ema_init"));
        for step in 1..=3u64 {
            ema.update(&one(&format!("ema_model_{step}")), step);
            let got: Vec<f32> = ema.average["x"].to_data().iter().collect();
            let from = 33 * (step as usize - 1);
            assert_close(case, &got, &expected[from..from + 33]);
        }
        let averaged = ema.averaged(&one("ema_init"));
        assert_eq!(averaged.x.val().to_data(), ema.average["x"].to_data());
        assert!(!averaged.x.is_require_grad());
    }
}

#[test]
fn frozen_parameters_and_those_without_a_gradient_stay() {
    let device = Device::flex();
    let model = freeze(three(&device.clone().autodiff()), &["conv".to_owned()]);
    let rule = Rule::Sgd { momentum: 0.9, nesterov: false };
    let mut optimiser = Optimiser::new(&config(rule, 0.1, 0.1), &model).unwrap();
    let mut gradients = gradients(1, &device);
    gradients.remove("b");
    let after = named_tensors(&optimiser.step(model.clone(), gradients, 0.1));
    let before = named_tensors(&model);
    let same = |name: &str| before[name].flat.to_data() == after[name].flat.to_data();
    assert!(same("conv") && same("b") && !same("w"));
    assert!(!after["conv"].trainable);
    assert_eq!(optimiser.state.keys().collect::<Vec<_>>(), ["w"]);
}

#[test]
fn groups_scale_the_rate_and_must_fit_something() {
    let device = Device::flex();
    let model = three(&device.clone().autodiff());
    let rule = Rule::Sgd { momentum: 0.0, nesterov: false };
    let group = |prefix: &str| LrGroup { prefix: prefix.to_owned(), lr_multiplier: 0.0 };
    let with = |prefix: &str| OptimiserConfig { groups: vec![group(prefix)], ..config(rule, 0.1, 0.0) };
    let mut optimiser = Optimiser::new(&with("w"), &model).unwrap();
    let after = named_tensors(&optimiser.step(model.clone(), gradients(1, &device), 0.1));
    let before = named_tensors(&model);
    assert_eq!(before["w"].flat.to_data(), after["w"].flat.to_data());
    assert_ne!(before["b"].flat.to_data(), after["b"].flat.to_data());
    let message = Optimiser::new(&with("head"), &model).unwrap_err().to_string();
    assert!(message.contains("\"head\"") && message.contains("\"b\""), "{message}");
}
