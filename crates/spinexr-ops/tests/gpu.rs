//! Every operation on the GPU of this build, forward and backward, against this crate's CPU kernels. Run with
//! `--nocapture` to see every difference. A sum on a GPU has another order than on the CPU, hence a tolerance; what is
//! only chosen or copied must be equal.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;
#[path = "support/gpu.rs"]
mod the_gpu;

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use spinexr_ops::{
    BatchNorm2d, BatchNorm2dConfig, Conv2dOptions, Precision, Roi, RoiAlignOptions, add_relu, conv2d,
    global_avg_pool, matmul, max_pool2d, norm_relu_conv, relu, roi_align, suppress, upsample_nearest,
};
use support::{signed, tensor, unit, values};
use the_gpu::gpu;

/// Largest difference allowed, as a share of the largest value of the tensor.
const SUMMED: f64 = 2e-5;
/// Of products in bf16: where sums of another order lie on two sides of a tie they are rounded apart, by bf16's step.
const IN_BF16: f64 = 1.0 / 128.0;
/// For operations that choose or copy.
const CHOSEN: f64 = 0.0;

/// Values to compare, by name.
type Results = Vec<(&'static str, Vec<f32>)>;

/// Holds what `run` gives on the GPU to what it gives on the CPU, both with autodiff.
fn hold(case: &str, tolerance: f64, run: impl Fn(&Device) -> Results) {
    let Some(gpu) = gpu() else { return };
    let (found, expected) = (run(&gpu.autodiff()), run(&Device::flex().autodiff()));
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        assert_eq!(found.len(), expected.len(), "{case}, {name}: length");
        let largest = expected.iter().filter(|v| v.is_finite()).fold(0.0f32, |a, v| a.max(v.abs()));
        assert!(largest > 1e-3, "{case}, {name}: nothing to compare");
        let mut worst = 0.0f64;
        for (at, (a, b)) in found.iter().zip(expected).enumerate() {
            assert_eq!(a.is_nan(), b.is_nan(), "{case}, {name}[{at}] = {a}, expected {b}");
            worst = worst.max(if a.is_nan() { 0.0 } else { f64::from((a - b).abs()) });
        }
        let share = worst / f64::from(largest);
        println!("| {case} | {name} | {share:.1e} | {tolerance:.0e} |");
        assert!(share <= tolerance, "{case}, {name}: {share:e} of {largest} > {tolerance:e}");
    }
    assert_eq!(found.len(), expected.len(), "{case}");
}

fn leaf<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    tensor(&signed(seed, shape.iter().product()), shape, device).require_grad()
}

/// The gradients of `sum(y * g)` for the leaves, with a fixed `g`.
fn backward<const D: usize>(y: Tensor<D>) -> burn::tensor::Gradients {
    let g = tensor(&signed(99, y.dims().iter().product()), y.dims(), &y.device());
    (y * g).sum().backward()
}

type ConvCase = (&'static str, [usize; 4], [usize; 4], Conv2dOptions);

fn conv_cases() -> [ConvCase; 9] {
    {
        let options = |stride, padding, dilation, groups| Conv2dOptions {
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [dilation; 2],
            groups,
            ..Default::default()
        };
        [
            ("1×1", [2, 8, 7, 9], [16, 8, 1, 1], options(1, 0, 1, 1)),
            ("1×1, stride 2", [2, 8, 7, 9], [4, 8, 1, 1], options(2, 0, 1, 1)),
            ("3×3", [2, 5, 11, 13], [7, 5, 3, 3], options(1, 1, 1, 1)),
            ("3×3, Winograd's sizes", [1, 32, 24, 20], [32, 32, 3, 3], options(1, 1, 1, 1)),
            ("3×3, stride 2", [2, 6, 11, 14], [8, 6, 3, 3], options(2, 1, 1, 1)),
            ("7×7, stride 2", [1, 3, 33, 30], [8, 3, 7, 7], options(2, 3, 1, 1)),
            ("3×3, dilation 2", [1, 4, 12, 10], [6, 4, 3, 3], options(1, 2, 2, 1)),
            ("3×3, two groups", [2, 8, 9, 10], [6, 4, 3, 3], options(1, 1, 1, 2)),
            ("3×3, depthwise, stride 2", [2, 8, 9, 10], [8, 1, 3, 3], options(2, 1, 1, 8)),
        ]
    }
}

#[test]
fn convolutions() {
    for (case, x, weight, options) in conv_cases() {
        hold(&format!("convolution {case}"), SUMMED, |device| {
            let (x, w, b) = (leaf(1, x, device), leaf(2, weight, device), leaf(3, [weight[0]], device));
            let y = conv2d(x.clone(), w.clone(), Some(b.clone()), options);
            let grads = backward(y.clone());
            vec![
                ("output", values(y)),
                ("input gradient", values(x.grad(&grads).unwrap())),
                ("weight gradient", values(w.grad(&grads).unwrap())),
                ("bias gradient", values(b.grad(&grads).unwrap())),
            ]
        });
    }
}

/// Whether the GPU computes in bf16; where it does not, says so.
fn has_bf16() -> bool {
    let Some(gpu) = gpu() else { return false };
    let has = Precision::Bf16.runs_on(&gpu);
    if !has {
        eprintln!("skipped: device has no bf16");
    }
    has
}

#[test]
fn products_in_bf16() {
    if !has_bf16() {
        return;
    }
    for (case, x, weight, options) in conv_cases() {
        hold(&format!("convolution in bf16 {case}"), IN_BF16, |device| {
            let (x, w, b) = (leaf(1, x, device), leaf(2, weight, device), leaf(3, [weight[0]], device));
            let y = Precision::Bf16.within(|| conv2d(x.clone(), w.clone(), Some(b.clone()), options));
            let grads = backward(y.clone());
            vec![
                ("output", values(y)),
                ("input gradient", values(x.grad(&grads).unwrap())),
                ("weight gradient", values(w.grad(&grads).unwrap())),
                ("bias gradient", values(b.grad(&grads).unwrap())),
            ]
        });
    }
    for (case, a, b) in
        [("matrix product in bf16", [1, 33, 65], [1, 65, 17]), ("batched", [3, 16, 32], [3, 32, 8])]
    {
        hold(case, IN_BF16, |device| {
            let (a, b) = (leaf(1, a, device), leaf(2, b, device));
            let y = Precision::Bf16.within(|| matmul(a.clone(), b.clone()));
            let grads = backward(y.clone());
            vec![
                ("output", values(y)),
                ("first gradient", values(a.grad(&grads).unwrap())),
                ("second gradient", values(b.grad(&grads).unwrap())),
            ]
        });
    }
}

#[test]
fn a_block_in_bf16() {
    if !has_bf16() {
        return;
    }
    // A gradient that the norm makes from differences of rounded sums: a few steps of bf16.
    hold("norm, ReLU and convolution in bf16", 4.0 * IN_BF16, |device| {
        let layer = norm(6, false, device);
        let conv = spinexr_ops::Conv2dConfig::new(6, 8, 3).with_padding(1).with_bias(false).init(device);
        let conv = spinexr_ops::Conv2d { weight: Param::from_tensor(leaf(2, [8, 6, 3, 3], device)), ..conv };
        let x = leaf(1, [3, 6, 7, 5], device);
        let y = Precision::Bf16.within(|| relu(norm_relu_conv(&layer, &conv, x.clone())));
        let grads = backward(y.clone());
        vec![
            ("output", values(y)),
            ("input gradient", values(x.grad(&grads).unwrap())),
            ("weight gradient", values(conv.weight.val().grad(&grads).unwrap())),
            ("norm's weight gradient", values(layer.weight.val().grad(&grads).unwrap())),
        ]
    });
}

#[test]
fn a_rectangular_convolution_without_bias() {
    hold("convolution 1×5", SUMMED, |device| {
        let (x, w) = (leaf(1, [2, 4, 6, 15], device), leaf(2, [6, 4, 1, 5], device));
        let options = Conv2dOptions { stride: [1, 2], padding: [0, 2], ..Conv2dOptions::default() };
        let y = conv2d(x.clone(), w.clone(), None, options);
        let grads = backward(y.clone());
        vec![
            ("output", values(y)),
            ("input gradient", values(x.grad(&grads).unwrap())),
            ("weight gradient", values(w.grad(&grads).unwrap())),
        ]
    });
}

/// A norm with drawn parameters and statistics.
fn norm(channels: usize, frozen: bool, device: &Device) -> BatchNorm2d {
    let layer = BatchNorm2dConfig::new(channels).init(device);
    let drawn = |seed: u64, least: f32| -> Tensor<1> {
        let values: Vec<f32> = unit(seed, channels).into_iter().map(|u| least + u).collect();
        tensor(&values, [channels], device)
    };
    layer.running_mean.set(drawn(11, -0.5));
    layer.running_var.set(drawn(12, 0.5));
    let layer = BatchNorm2d {
        weight: Param::from_tensor(drawn(13, 0.5)),
        bias: Param::from_tensor(drawn(14, -0.5)),
        ..layer
    };
    match frozen {
        // Its statistics are fixed, its parameters are still trained.
        true => BatchNorm2d { training: layer.training.clone().with_value(false), ..layer },
        false => layer,
    }
}

#[test]
fn batch_norms() {
    for (case, frozen, with_relu) in [
        ("batch norm, batch statistics", false, false),
        ("batch norm and ReLU, batch statistics", false, true),
        ("batch norm, running statistics", true, false),
        ("batch norm and ReLU, running statistics", true, true),
    ] {
        hold(case, SUMMED, |device| {
            let layer = norm(6, frozen, device);
            let x = leaf(1, [3, 6, 7, 5], device);
            let y = match with_relu {
                true => layer.forward_relu(x.clone()),
                false => layer.forward(x.clone()),
            };
            let grads = backward(y.clone());
            vec![
                ("output", values(y)),
                ("input gradient", values(x.grad(&grads).unwrap())),
                ("weight gradient", values(layer.weight.val().grad(&grads).unwrap())),
                ("bias gradient", values(layer.bias.val().grad(&grads).unwrap())),
                ("running mean", values(layer.running_mean.value())),
                ("running variance", values(layer.running_var.value())),
            ]
        });
    }
}

#[test]
fn max_pools() {
    for (case, x, kernel, stride, padding) in [
        ("max pool 3×3, stride 2, padding 1", [2, 3, 11, 14], [3, 3], [2, 2], [1, 1]),
        ("max pool 2×2, stride 2", [2, 3, 9, 8], [2, 2], [2, 2], [0, 0]),
        ("max pool 2×3, stride 1×2", [1, 2, 7, 9], [2, 3], [1, 2], [1, 0]),
    ] {
        hold(case, 1e-6, |device| {
            let x = leaf(1, x, device);
            let y = max_pool2d(x.clone(), kernel, stride, padding);
            let grads = backward(y.clone());
            vec![("output", values(y)), ("input gradient", values(x.grad(&grads).unwrap()))]
        });
    }
    // Ties go to the first, on the CPU and on the GPU: a map of ReLU's zeros has many.
    hold("max pool of ties", CHOSEN, |device| {
        let x = relu(leaf(1, [1, 2, 8, 8], device) - 0.5).detach().require_grad();
        let y = max_pool2d(x.clone(), [2, 2], [2, 2], [0, 0]);
        let grads = backward(y.clone());
        vec![("output", values(y)), ("input gradient", values(x.grad(&grads).unwrap()))]
    });
}

#[test]
fn global_average_pool() {
    hold("global average pool", SUMMED, |device| {
        let x = leaf(1, [3, 5, 7, 9], device);
        let y = global_avg_pool(x.clone());
        let grads = backward(y.clone());
        vec![("output", values(y)), ("input gradient", values(x.grad(&grads).unwrap()))]
    });
}

#[test]
fn nearest_upsampling() {
    for (case, from, to) in [
        ("upsampling by 2", [4, 5], [8, 10]),
        ("upsampling to odd sizes", [4, 5], [7, 9]),
        ("upsampling of one pixel", [1, 1], [3, 2]),
    ] {
        let options = |device: &Device| leaf(1, [2, 3, from[0], from[1]], device);
        hold(case, 1e-6, |device| {
            let x = options(device);
            let y = upsample_nearest(x.clone(), to);
            let grads = backward(y.clone());
            vec![("output", values(y)), ("input gradient", values(x.grad(&grads).unwrap()))]
        });
    }
}

#[test]
fn activations() {
    hold("ReLU", CHOSEN, |device| {
        let x = leaf(1, [2, 3, 5, 7], device);
        let y = relu(x.clone());
        let grads = backward(y.clone());
        vec![("output", values(y)), ("input gradient", values(x.grad(&grads).unwrap()))]
    });
    hold("sum and ReLU", CHOSEN, |device| {
        let (a, b) = (leaf(1, [2, 3, 5, 7], device), leaf(2, [2, 3, 5, 7], device));
        let y = add_relu(a.clone(), b.clone());
        let grads = backward(y.clone());
        vec![
            ("output", values(y)),
            ("first gradient", values(a.grad(&grads).unwrap())),
            ("second gradient", values(b.grad(&grads).unwrap())),
        ]
    });
}

#[test]
fn roi_aligns() {
    let roi = |film, xyxy| Roi { film, xyxy };
    // Inside, over an edge, outside, empty, inverted, of the whole map, and not finite; films out of order.
    let rois = [
        roi(1, [4.0, 6.0, 40.0, 52.0]),
        roi(0, [-20.0, -8.0, 30.0, 25.0]),
        roi(1, [300.0, 300.0, 400.0, 340.0]),
        roi(0, [20.0, 20.0, 20.0, 20.0]),
        roi(0, [50.0, 60.0, 30.0, 20.0]),
        roi(1, [0.0, 0.0, 88.0, 72.0]),
        roi(0, [8.5, f32::NAN, 20.0, 30.0]),
        roi(0, [8.5, 9.25, 12.0, 10.0]),
    ];
    for aligned in [false, true] {
        for sampling_ratio in [0, 2] {
            let options =
                RoiAlignOptions { output_size: [7, 5], spatial_scale: 0.25, sampling_ratio, aligned };
            let case = format!("RoIAlign, aligned {aligned}, sampling {sampling_ratio}");
            hold(&case, SUMMED, |device| {
                let x = leaf(1, [3, 4, 18, 22], device); // the last film has no box
                let y = roi_align(x.clone(), &rois, options);
                // A NaN of the output times anything would be one in the sum, not in the gradient.
                let g = tensor(&signed(99, y.dims().iter().product()), y.dims(), device);
                let grads = (y.clone() * g).sum().backward();
                vec![("output", values(y)), ("input gradient", values(x.grad(&grads).unwrap()))]
            });
        }
    }
}

#[test]
fn a_slice_of_channels_is_pooled_like_a_copy() {
    hold("RoIAlign of a view", SUMMED, |device| {
        let x = leaf(1, [2, 6, 12, 10], device);
        let rois =
            [Roi { film: 1, xyxy: [1.0, 2.0, 9.0, 8.0] }, Roi { film: 0, xyxy: [0.0, 0.0, 4.0, 11.0] }];
        let options =
            RoiAlignOptions { output_size: [3, 3], spatial_scale: 1.0, sampling_ratio: 2, aligned: true };
        let view = x.clone().slice([0..2, 2..5, 0..12, 0..10]).swap_dims(2, 3);
        let y = roi_align(view, &rois, options).swap_dims(2, 3);
        let grads = backward(y.clone());
        vec![("output", values(y)), ("input gradient", values(x.grad(&grads).unwrap()))]
    });
}

#[test]
fn suppression() {
    let Some(gpu) = gpu() else { return };
    // Whole numbers and eighths: every area and product is exact, so a box on the threshold is decided alike.
    for (count, threshold) in [(0, 0.5), (1, 0.5), (17, 0.5), (700, 0.25), (700, 0.625)] {
        let boxes: Vec<[f32; 4]> = unit(5, 4 * count)
            .as_chunks::<4>()
            .0
            .iter()
            .map(|corner| {
                let [x, y, w, h] = corner.map(|u| (u * 60.0).floor());
                [x, y, x + w, y + h]
            })
            .collect();
        let classes: Vec<usize> = (0..count).map(|index| index % 3).collect();
        let found = suppress(&boxes, &classes, threshold, &gpu);
        assert_eq!(found, suppress(&boxes, &classes, threshold, &Device::flex()), "{count} boxes");
        assert!(count < 100 || (found.len() > 20 && found.len() < count), "{} of {count} kept", found.len());
    }
}
