//! Types the kernels do not handle go to the engine's ops, as another backend would: f64 must give what
//! the kernels give in f32.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use spinexr_ops::{
    BatchNorm2d, BatchNorm2dConfig, Conv2dOptions, add_relu, conv2d, global_avg_pool, max_pool2d, relu,
    upsample_nearest,
};
use support::{assert_close, signed, tensor};

struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.without_autodiff().cast(self.0).autodiff().require_grad())
    }
}

fn leaf<const D: usize>(seed: u64, shape: [usize; D], dtype: FloatDType) -> Tensor<D> {
    let values = signed(seed, shape.iter().product());
    tensor(&values, shape, &Device::flex()).cast(dtype).autodiff().require_grad()
}

fn f64s<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// Every operation once, forward and backward.
fn step(dtype: FloatDType) -> Vec<(&'static str, Vec<f64>)> {
    let device = Device::flex().autodiff();
    let norm = |seed: u64, frozen: bool| -> BatchNorm2d {
        let layer = BatchNorm2dConfig::new(6).init(&device);
        layer.running_mean.set(tensor(&signed(seed, 6), [6], &device));
        let layer = layer.map(&mut Cast(dtype));
        if frozen {
            BatchNorm2d { training: layer.training.clone().with_value(false), ..layer }
        } else {
            layer
        }
    };
    let (x, w, b) = (leaf(1, [2, 4, 11, 9], dtype), leaf(2, [6, 2, 3, 3], dtype), leaf(3, [6], dtype));
    let options = Conv2dOptions { stride: [1, 2], padding: [1, 1], dilation: [1, 1], groups: 2 };
    let (first, second, third) = (norm(4, false), norm(5, true), norm(6, false));
    let y = first.forward_relu(conv2d(x.clone(), w.clone(), Some(b.clone()), options));
    let [_, _, height, width] = y.dims();
    let small = second.forward_relu(max_pool2d(y.clone(), [3, 3], [2, 2], [1, 1]));
    let z = add_relu(y, upsample_nearest(small, [height, width]) - 0.3);
    let z = third.forward(relu(z - 0.2));
    let pooled = global_avg_pool(z.clone() * z);
    let grads = (pooled.clone() * pooled.clone()).sum().backward();
    vec![
        ("pooled", f64s(pooled)),
        ("dx", f64s(x.grad(&grads).unwrap())),
        ("dw", f64s(w.grad(&grads).unwrap())),
        ("db", f64s(b.grad(&grads).unwrap())),
        ("first weight", f64s(first.weight.val().grad(&grads).unwrap())),
        ("second weight", f64s(second.weight.val().grad(&grads).unwrap())),
        ("second bias", f64s(second.bias.val().grad(&grads).unwrap())),
        ("third weight", f64s(third.weight.val().grad(&grads).unwrap())),
        ("running_var", f64s(first.running_var.value())),
    ]
}

#[test]
fn f64_on_the_engine_gives_what_f32_gives_here() {
    for ((name, own), (_, engine)) in step(FloatDType::F32).into_iter().zip(step(FloatDType::F64)) {
        assert!(name == "db" || engine.iter().any(|v| v.abs() > 1e-3), "{name} is nothing to compare");
        let own: Vec<f32> = own.iter().map(|&v| v as f32).collect();
        assert_close(name, &own, &engine, 2e-5);
    }
}
