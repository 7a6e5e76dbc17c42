//! Reference numbers of PyTorch: a ResNet stem, a feature pyramid at odd sizes, and running statistics
//! after a training step.
//!
//! The numbers lie outside the repository (`SPINEXR_SHARED`, or `shared` beside the workspace); without
//! them the tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use std::path::PathBuf;

use burn::tensor::{Device, Tensor};
use safetensors::SafeTensors;
use serde_json::Value;
use spinexr_ops::{BatchNorm2d, BatchNorm2dConfig, Conv2dOptions, conv2d, max_pool2d, upsample_nearest};
use support::{tensor, unit, values};

struct Golden {
    case: String,
    manifest: Value,
    tensors: Vec<u8>,
}

fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The `count` first raw outputs of the stream named `name`.
fn raw(name: &str, count: usize) -> Vec<u64> {
    let mut state = fnv1a64(name);
    (0..count)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
        .collect()
}

impl Golden {
    fn open(case: &str) -> Option<Self> {
        let shared = std::env::var_os("SPINEXR_SHARED")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
        let dir = shared.join("golden").join(case);
        if !dir.exists() {
            println!("skipped: no reference numbers at {}", dir.display());
            return None;
        }
        let manifest = std::fs::read(dir.join("manifest.json")).unwrap();
        Some(Self {
            case: case.to_string(),
            manifest: serde_json::from_slice(&manifest).unwrap(),
            tensors: std::fs::read(dir.join("tensors.safetensors")).unwrap(),
        })
    }

    /// A network input, from its name, shape and range.
    fn input(&self, name: &str) -> Tensor<4> {
        let entry = &self.manifest["inputs"][name];
        let shape: [usize; 4] = serde_json::from_value(entry["shape"].clone()).unwrap();
        let [lo, hi]: [f32; 2] = serde_json::from_value(entry["range"].clone()).unwrap();
        let values: Vec<f32> =
            unit(fnv1a64(name), shape.iter().product()).iter().map(|u| lo + (hi - lo) * u).collect();
        tensor(&values, shape, &Device::flex())
    }

    /// Compare with the stored (perhaps sampled) values.
    fn check<const D: usize>(&self, name: &str, got: Tensor<D>) {
        let entry = &self.manifest["tensors"][name];
        let shape: Vec<usize> = serde_json::from_value(entry["shape"].clone()).unwrap();
        assert_eq!(got.dims().to_vec(), shape, "{name}");
        let got = values(got);
        let file = SafeTensors::deserialize(&self.tensors).unwrap();
        let expected: Vec<f32> = file
            .tensor(name)
            .unwrap()
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let indices: Vec<usize> = if entry["storage"] == "full" {
            (0..got.len()).collect()
        } else {
            let stream = raw(&format!("sample:{}/{name}", self.case), expected.len());
            stream.iter().map(|&next| (next % got.len() as u64) as usize).collect()
        };
        assert_eq!(indices.len(), expected.len(), "{name}");
        let bound = |key: &str| entry[key].as_f64().unwrap().abs();
        let tolerance = (20.0 * bound("abs_noise")).max(4e-6 * bound("min").max(bound("max")));
        for (&at, &expected) in indices.iter().zip(&expected) {
            let error = f64::from((got[at] - expected).abs());
            assert!(error <= tolerance, "{name}[{at}] = {}, expected {expected} ± {tolerance:e}", got[at]);
        }
    }
}

/// A weight by its state-dict name, and its bias when `name` carries one.
fn weight(name: &str, shape: [usize; 4], gain: f64, device: &Device) -> Tensor<4> {
    let fan_in = (shape[1] * shape[2] * shape[3]) as f64;
    let scale = (gain * (3.0 / fan_in).sqrt()) as f32;
    let count = shape.iter().product();
    let values: Vec<f32> =
        unit(fnv1a64(&format!("{name}.weight")), count).iter().map(|u| (2.0 * u - 1.0) * scale).collect();
    tensor(&values, shape, device)
}

fn vector(name: &str, count: usize, value: impl Fn(f32) -> f32, device: &Device) -> Tensor<1> {
    let values: Vec<f32> = unit(fnv1a64(name), count).into_iter().map(value).collect();
    tensor(&values, [count], device)
}

fn norm(name: &str, c: usize, device: &Device) -> BatchNorm2d {
    let small = |u: f32| 0.1 * (2.0 * u - 1.0);
    let layer = BatchNorm2dConfig::new(c).init(device);
    layer.running_mean.set(vector(&format!("{name}.running_mean"), c, small, device));
    layer.running_var.set(vector(&format!("{name}.running_var"), c, |u| 1.0 + 0.5 * u, device));
    BatchNorm2d {
        weight: layer
            .weight
            .clone()
            .map(|_| vector(&format!("{name}.weight"), c, |u| 1.0 + 0.1 * (2.0 * u - 1.0), device)),
        bias: layer.bias.clone().map(|_| vector(&format!("{name}.bias"), c, small, device)),
        ..layer
    }
}

#[test]
fn resnet_stem() {
    let Some(golden) = Golden::open("resnet18") else { return };
    let device = Device::flex();
    let stem = Conv2dOptions { stride: [2, 2], padding: [3, 3], ..Default::default() };
    let gain = golden.manifest["state"]["gain"].as_f64().unwrap();
    let conv1 = weight("conv1", [64, 3, 7, 7], gain, &device);
    for size in ["64", "224"] {
        let x = conv2d(golden.input(&format!("input_{size}")), conv1.clone(), None, stem);
        golden.check(&format!("{size}/conv1"), x.clone());
        let x = norm("bn1", 64, &device).forward_relu(x);
        golden.check(&format!("{size}/maxpool"), max_pool2d(x, [3, 3], [2, 2], [1, 1]));
    }
}

#[test]
fn feature_pyramid_of_odd_sizes() {
    let Some(golden) = Golden::open("fpn") else { return };
    let device = Device::flex();
    let state = &golden.manifest["state"]["p6p7_on_p5"];
    let gain = state["gain"].as_f64().unwrap();
    let conv = |x: Tensor<4>, name: &str, stride: usize| {
        let shape: [usize; 4] =
            serde_json::from_value(state["shapes"][format!("{name}.weight")].clone()).unwrap();
        let bias = vector(&format!("{name}.bias"), shape[0], |u| 0.1 * (2.0 * u - 1.0), &device);
        let padding = shape[2] / 2;
        let options = Conv2dOptions { stride: [stride; 2], padding: [padding; 2], ..Default::default() };
        conv2d(x, weight(name, shape, gain, &device), Some(bias), options)
    };
    let inputs = ["input_c3", "input_c4", "input_c5"].map(|name| golden.input(name));
    let mut above: Option<Tensor<4>> = None;
    let mut outputs = Vec::new();
    for (i, input) in inputs.into_iter().enumerate().rev() {
        let [_, _, h, w] = input.dims();
        let lateral = conv(input, &format!("inner_blocks.{i}.0"), 1);
        let inner = match above {
            Some(above) => lateral + upsample_nearest(above, [h, w]),
            None => lateral,
        };
        outputs
            .push((format!("p6p7_on_p5/c{}", i + 3), conv(inner.clone(), &format!("layer_blocks.{i}.0"), 1)));
        above = Some(inner);
    }
    let p6 = conv(outputs[0].1.clone(), "extra_blocks.p6", 2);
    let p7 = conv(spinexr_ops::relu(p6.clone()), "extra_blocks.p7", 2);
    outputs.extend([("p6p7_on_p5/p6".to_string(), p6), ("p6p7_on_p5/p7".to_string(), p7)]);
    for (name, output) in outputs {
        golden.check(&name, output);
    }
}

#[test]
fn running_statistics_after_a_training_step() {
    let Some(golden) = Golden::open("densenet_tiny") else { return };
    let device = Device::flex().autodiff();
    let gain = golden.manifest["state"]["gain"].as_f64().unwrap();
    let inputs = golden.manifest["inputs"].as_object().unwrap();
    let input = inputs.keys().find(|name| name.starts_with("input_train")).unwrap();
    let x = golden.input(input).autodiff();
    let conv0 = weight("features.conv0", [16, 3, 7, 7], gain, &device);
    let options = Conv2dOptions { stride: [2, 2], padding: [3, 3], ..Default::default() };
    let norm0 = norm("features.norm0", 16, &device);
    norm0.forward_relu(conv2d(x, conv0, None, options));
    golden.check("train/features.norm0.running_mean", norm0.running_mean.value());
    golden.check("train/features.norm0.running_var", norm0.running_var.value());
}
