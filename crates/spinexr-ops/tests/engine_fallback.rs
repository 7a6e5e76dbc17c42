//! Types the kernels do not handle go to the engine's ops, as another backend would: f64 must give what
//! the kernels give in f32.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use spinexr_ops::{
    BatchNorm2d, BatchNorm2dConfig, Conv2dOptions, Roi, RoiAlignOptions, add_relu, conv2d, global_avg_pool,
    max_pool2d, relu, roi_align, upsample_nearest,
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

/// RoIAlign forward and backward: boxes of two films in turns, more than the engine takes at a time, some of them
/// outside, empty or inverted.
fn boxes(dtype: FloatDType, aligned: bool, sampling_ratio: usize) -> Vec<(&'static str, Vec<f64>)> {
    let x = leaf(1, [3, 5, 9, 14], dtype);
    let corners = signed(2, 70 * 4);
    let rois: Vec<Roi> = corners
        .as_chunks::<4>()
        .0
        .iter()
        .enumerate()
        .map(|(i, c)| Roi { film: 2 * (i % 2), xyxy: c.map(|c| 20.0 + 50.0 * c) })
        .collect();
    let options = RoiAlignOptions { output_size: [3, 4], spatial_scale: 0.25, sampling_ratio, aligned };
    let y = roi_align(x.clone(), &rois, options);
    let grads = (y.clone() * y.clone()).sum().backward();
    vec![("y", f64s(y)), ("dx", f64s(x.grad(&grads).unwrap()))]
}

#[test]
fn boxes_in_f64_on_the_engine_give_what_f32_gives_here() {
    for (aligned, sampling_ratio) in [(false, 0), (false, 2), (true, 0), (true, 3)] {
        let (own, engine) = (
            boxes(FloatDType::F32, aligned, sampling_ratio),
            boxes(FloatDType::F64, aligned, sampling_ratio),
        );
        for ((name, own), (_, engine)) in own.into_iter().zip(engine) {
            assert!(engine.iter().any(|v| v.abs() > 1e-2), "{name} is nothing to compare");
            let own: Vec<f32> = own.iter().map(|&v| v as f32).collect();
            assert_close(name, &own, &engine, 1e-5);
        }
    }
}

#[test]
fn a_batch_without_boxes_has_no_features_on_the_engine() {
    let x = leaf(1, [2, 3, 4, 4], FloatDType::F64);
    let options =
        RoiAlignOptions { output_size: [7, 7], spatial_scale: 1.0, sampling_ratio: 2, aligned: true };
    let y = roi_align(x.clone(), &[], options);
    assert_eq!(y.dims(), [0, 3, 7, 7]);
    let grads = (y.sum() + x.clone().sum()).backward();
    assert!(f64s(x.grad(&grads).unwrap()).iter().all(|&g| g == 1.0));
}

#[test]
fn f64_on_the_engine_gives_what_f32_gives_here() {
    for ((name, own), (_, engine)) in step(FloatDType::F32).into_iter().zip(step(FloatDType::F64)) {
        assert!(name == "db" || engine.iter().any(|v| v.abs() > 1e-3), "{name} is nothing to compare");
        let own: Vec<f32> = own.iter().map(|&v| v as f32).collect();
        assert_close(name, &own, &engine, 2e-5);
    }
}
