//! Batch norm against the formula in f64, its gradients, its modes, and its place in a module.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use proptest::prelude::*;
use spinexr_ops::{BatchNorm2d, BatchNorm2dConfig};
use support::{assert_close, leaf, signed, tensor, values};

fn with_state(layer: BatchNorm2d, weight: &[f32], bias: &[f32]) -> BatchNorm2d {
    let device = layer.weight.val().device();
    let c = weight.len();
    let BatchNorm2d { weight: w, bias: b, .. } = layer.clone();
    BatchNorm2d {
        weight: w.map(|_| tensor(weight, [c], &device).require_grad()),
        bias: b.map(|_| tensor(bias, [c], &device).require_grad()),
        ..layer
    }
}

/// Mean and biased variance of each channel, f64.
fn statistics(x: &[f32], [n, c, h, w]: [usize; 4]) -> (Vec<f64>, Vec<f64>) {
    let count = (n * h * w) as f64;
    (0..c)
        .map(|channel| {
            let values: Vec<f64> = (0..n)
                .flat_map(|film| &x[(film * c + channel) * h * w..][..h * w])
                .map(|&v| f64::from(v))
                .collect();
            let mean = values.iter().sum::<f64>() / count;
            (mean, values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count)
        })
        .unzip()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn training_agrees_with_the_formula(
        dims in [1..4usize, 1..6usize, 1..9usize, 2..40usize],
        offset in -50.0..50.0f32,
        relu in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let [n, c, h, w] = dims;
        let x: Vec<f32> = signed(seed, dims.iter().product()).iter().map(|v| v + offset).collect();
        let (weight, bias) = (signed(seed ^ 1, c), signed(seed ^ 2, c));
        let device = Device::flex().autodiff();
        let layer = with_state(BatchNorm2dConfig::new(c).init(&device), &weight, &bias);
        let tx = leaf(&x, dims);
        let y = if relu { layer.forward_relu(tx.clone()) } else { layer.forward(tx.clone()) };
        let g = signed(seed ^ 3, x.len());
        let grads = (y.clone() * tensor(&g, dims, &device)).sum().backward();

        let (mean, variance) = statistics(&x, dims);
        let (mut ey, mut edx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let (mut edw, mut edb) = (vec![0.0; c], vec![0.0; c]);
        let count = (n * h * w) as f64;
        for channel in 0..c {
            let inverse = 1.0 / (variance[channel] + 1e-5).sqrt();
            let (scale, shift) = (f64::from(weight[channel]), f64::from(bias[channel]));
            let at: Vec<usize> =
                (0..n).flat_map(|f| (f * c + channel) * h * w..(f * c + channel + 1) * h * w).collect();
            let hat = |i: usize| (f64::from(x[i]) - mean[channel]) * inverse;
            let out = |i: usize| hat(i) * scale + shift;
            // Too close to 0 to know which side f32 falls on.
            prop_assume!(!relu || at.iter().all(|&i| out(i).abs() > 1e-4));
            let grad = |i: usize| if relu && out(i) <= 0.0 { 0.0 } else { f64::from(g[i]) };
            let total: f64 = at.iter().map(|&i| grad(i)).sum();
            let total_hat: f64 = at.iter().map(|&i| grad(i) * hat(i)).sum();
            edw[channel] = total_hat;
            edb[channel] = total;
            for &i in &at {
                ey[i] = if relu { out(i).max(0.0) } else { out(i) };
                edx[i] = scale * inverse * (grad(i) - total / count - hat(i) * total_hat / count);
            }
        }
        // The input's own rounding at offset 50 (4e-6) over a small standard deviation.
        let spread = variance.iter().map(|v| (v + 1e-5).sqrt()).fold(f64::MAX, f64::min);
        let tolerance = 3e-5 + 2e-5 * f64::from(offset.abs()) / spread;
        assert_close("y", &values(y), &ey, tolerance);
        assert_close("dx", &values(tx.grad(&grads).unwrap()), &edx, tolerance / spread.min(1.0));
        assert_close("dw", &values(layer.weight.val().grad(&grads).unwrap()), &edw, tolerance * count.sqrt());
        assert_close("db", &values(layer.bias.val().grad(&grads).unwrap()), &edb, 1e-5 * count.sqrt());

        let unbiased = count / (count - 1.0);
        let running_mean: Vec<f64> = mean.iter().map(|m| 0.1 * m).collect();
        let running_var: Vec<f64> = variance.iter().map(|v| 0.9 + 0.1 * unbiased * v).collect();
        assert_close("running_mean", &values(layer.running_mean.value()), &running_mean, 1e-5);
        assert_close("running_var", &values(layer.running_var.value()), &running_var, 1e-5);
    }

    #[test]
    fn evaluation_and_frozen_mode_use_the_running_statistics(
        dims in [1..3usize, 1..6usize, 1..6usize, 1..20usize],
        relu in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let [_, c, h, w] = dims;
        let x = signed(seed, dims.iter().product());
        let (weight, bias, mean) = (signed(seed ^ 1, c), signed(seed ^ 2, c), signed(seed ^ 3, c));
        let var: Vec<f32> = signed(seed ^ 4, c).iter().map(|v| 1.5 + v).collect();
        let device = Device::flex().autodiff();
        let layer = with_state(BatchNorm2dConfig::new(c).init(&device), &weight, &bias);
        layer.running_mean.set(tensor(&mean, [c], &device));
        layer.running_var.set(tensor(&var, [c], &device));
        let out = |i: usize| {
            let channel = i / (h * w) % c;
            let [weight, bias, mean, var] =
                [&weight, &bias, &mean, &var].map(|values| f64::from(values[channel]));
            (f64::from(x[i]) - mean) / (var + 1e-5).sqrt() * weight + bias
        };
        prop_assume!(!relu || (0..x.len()).all(|i| out(i).abs() > 1e-5));
        let expected: Vec<f64> = (0..x.len()).map(|i| if relu { out(i).max(0.0) } else { out(i) }).collect();
        let run = |layer: &BatchNorm2d, x: Tensor<4>| {
            if relu { layer.forward_relu(x) } else { layer.forward(x) }
        };

        let valid = layer.valid();
        assert_close("valid", &values(run(&valid, tensor(&x, dims, &Device::flex()))), &expected, 1e-5);

        let frozen = layer.frozen();
        let tx = leaf(&x, dims);
        let y = run(&frozen, tx.clone());
        let g = signed(seed ^ 5, x.len());
        let grads = (y.clone() * tensor(&g, dims, &device)).sum().backward();
        assert_close("frozen", &values(y), &expected, 1e-5);
        let edx: Vec<f64> = (0..x.len())
            .map(|i| {
                let channel = i / (h * w) % c;
                let scale = f64::from(weight[channel]) / (f64::from(var[channel]) + 1e-5).sqrt();
                if relu && out(i) <= 0.0 { 0.0 } else { f64::from(g[i]) * scale }
            })
            .collect();
        assert_close("frozen dx", &values(tx.grad(&grads).unwrap()), &edx, 1e-5);
        prop_assert!(frozen.weight.val().grad(&grads).is_none());
        prop_assert!(frozen.bias.val().grad(&grads).is_none());
        prop_assert_eq!(values(frozen.running_mean.value()), mean);
        prop_assert_eq!(values(frozen.running_var.value()), var);
    }
}

#[test]
fn a_layer_configured_frozen_never_trains() {
    let device = Device::flex().autodiff();
    let layer = BatchNorm2dConfig::new(2).with_frozen(true).init(&device);
    let layer = layer.valid().train(); // a round trip through evaluation must not thaw it
    let grads = layer.forward(leaf(&signed(1, 24), [2, 2, 2, 3])).sum().backward();
    assert!(layer.weight.val().grad(&grads).is_none());
    assert_eq!(values(layer.running_mean.value()), [0.0, 0.0]);
    assert_eq!(values(layer.running_var.value()), [1.0, 1.0]);
}

#[test]
fn running_statistics_of_a_clone_are_its_own() {
    let device = Device::flex().autodiff();
    let layer = BatchNorm2dConfig::new(1).init(&device);
    let copy = layer.clone();
    layer.forward(tensor(&[1.0, 2.0, 3.0, 6.0], [1, 1, 2, 2], &device));
    assert_eq!(values(copy.running_mean.value()), [0.0]);
    let mean = values(layer.running_mean.value())[0];
    let var = values(layer.running_var.value())[0];
    assert!((mean - 0.3).abs() < 1e-6, "{mean}");
    assert!((var - (0.9 + 0.1 * 14.0 / 3.0)).abs() < 1e-6, "{var}"); // squares 14 over 4 - 1
}

struct States(Vec<String>, Vec<(String, Vec<f32>)>);

impl ModuleVisitor for States {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.0.push(name.to_string());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1.push((self.0.join("."), values(param.val())));
    }
}

struct Fill(f32);

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            self.0 += 1.0;
            tensor.full_like(self.0).set_require_grad(true)
        })
    }
}

#[test]
fn a_state_dict_holds_the_latest_statistics_and_can_be_written_back() {
    let device = Device::flex().autodiff();
    let layer = BatchNorm2dConfig::new(1).with_momentum(1.0).init(&device);
    layer.forward(tensor(&[1.0, 3.0], [1, 1, 1, 2], &device));
    let mut states = States(Vec::new(), Vec::new());
    layer.visit(&mut states);
    let found: Vec<(&str, f32)> = states.1.iter().map(|(name, values)| (name.as_str(), values[0])).collect();
    assert_eq!(found, [("weight", 1.0), ("bias", 0.0), ("running_mean", 2.0), ("running_var", 2.0)]);

    let layer = layer.map(&mut Fill(0.0));
    assert_eq!(values(layer.running_mean.value()), [3.0]);
    assert_eq!(values(layer.running_var.value()), [4.0]);
    assert!(layer.weight.val().is_require_grad());
    assert!(!layer.running_mean.value().is_require_grad());
}

#[test]
#[should_panic(expected = "for 3 features")]
fn channels_that_do_not_fit_are_named() {
    let device = Device::flex();
    BatchNorm2dConfig::new(3).init(&device).forward(Tensor::zeros([1, 4, 2, 2], &device));
}
