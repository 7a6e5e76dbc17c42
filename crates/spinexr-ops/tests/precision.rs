//! Operations in bf16: they give, with all gradients, what the f32 operations give on rounded operands, rounded once;
//! they are as far from f32 as two roundings allow; and none of it reaches what is not a training step.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use burn::tensor::{DType, Device, FloatDType, Tensor};
use proptest::prelude::*;
use spinexr_ops::{
    BatchNorm2d, BatchNorm2dConfig, Conv2d, Conv2dConfig, Conv2dOptions, Precision, add_relu, channel_gate,
    conv2d, matmul, norm_relu_conv, recompute, relu, silu,
};
use support::{leaf, signed, tensor, values};

/// Half the distance of two neighbours in bf16, as a share: the largest error of a rounding.
const UNIT: f64 = 1.0 / 256.0;

/// The nearest value of bf16, of two the even one; written here a second time, without the engine.
fn bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&value| bf16(value)).collect()
}

fn in_bf16<R>(forward: impl FnOnce() -> R) -> R {
    Precision::Bf16.within(forward)
}

#[derive(Debug, Clone)]
struct Case {
    x: [usize; 4],
    weight: [usize; 4],
    options: Conv2dOptions,
    bias: bool,
    seed: u64,
}

struct Results {
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    db: Vec<f32>,
}

/// A convolution, and the gradients of `sum(y * g)`.
fn convolve(case: &Case, x: &[f32], weight: &[f32], bias: &[f32], g: impl Fn(usize) -> Vec<f32>) -> Results {
    let (x, weight) = (leaf(x, case.x), leaf(weight, case.weight));
    let bias = case.bias.then(|| leaf(bias, [case.weight[0]]));
    let y = conv2d(x.clone(), weight.clone(), bias.clone(), case.options);
    assert_eq!(y.dtype(), DType::F32);
    let g = tensor(&g(y.dims().iter().product()), y.dims(), &y.device());
    let grads = (y.clone() * g).sum().backward();
    let (dx, dw) = (x.grad(&grads).unwrap(), weight.grad(&grads).unwrap());
    assert_eq!((dx.dtype(), dw.dtype()), (DType::F32, DType::F32), "gradients are added up in f32");
    let db = bias.map(|bias| values(bias.grad(&grads).unwrap())).unwrap_or_default();
    Results { y: values(y), dx: values(dx), dw: values(dw), db }
}

fn hold(case: &Case) {
    let drawn = |seed: u64, shape: [usize; 4]| signed(case.seed ^ seed, shape.iter().product());
    let (x, weight) = (drawn(1, case.x), drawn(2, case.weight));
    let bias = signed(case.seed ^ 3, case.weight[0]);
    let g = |count: usize| signed(case.seed ^ 4, count);
    let found = in_bf16(|| convolve(case, &x, &weight, &bias, g));

    let without_bias = Case { bias: false, ..case.clone() };
    let (xr, wr) = (rounded(&x), rounded(&weight));
    let expected = convolve(&without_bias, &xr, &wr, &[], |count| rounded(&g(count)));
    let mut y = rounded(&expected.y);
    if case.bias {
        let pixels = y.len() / (case.x[0] * case.weight[0]);
        y.iter_mut().enumerate().for_each(|(at, y)| *y += bias[at / pixels % case.weight[0]]);
        let in_f32 = convolve(case, &xr, &wr, &bias, g);
        assert_eq!(found.db, in_f32.db, "{case:?}: a bias has the gradient it has in f32");
    }
    assert_eq!(found.y, y, "{case:?}: y");
    assert_eq!(found.dx, rounded(&expected.dx), "{case:?}: dx");
    assert_eq!(found.dw, rounded(&expected.dw), "{case:?}: dw");
}

#[test]
fn convolutions_are_those_of_rounded_operands() {
    let options = |stride, padding, dilation, groups| Conv2dOptions {
        stride: [stride; 2],
        padding: [padding; 2],
        dilation: [dilation; 2],
        groups,
        ..Default::default()
    };
    for (x, weight, options) in [
        ([2, 8, 7, 9], [16, 8, 1, 1], options(1, 0, 1, 1)),
        ([2, 8, 7, 9], [4, 8, 1, 1], options(2, 0, 1, 1)),
        ([2, 5, 11, 13], [7, 5, 3, 3], options(1, 1, 1, 1)),
        ([1, 32, 24, 20], [32, 32, 3, 3], options(1, 1, 1, 1)), // Winograd's sizes
        ([2, 6, 11, 14], [8, 6, 3, 3], options(2, 1, 1, 1)),
        ([1, 3, 33, 30], [8, 3, 7, 7], options(2, 3, 1, 1)),
        ([1, 4, 12, 10], [6, 4, 3, 3], options(1, 2, 2, 1)),
        ([2, 8, 9, 10], [6, 4, 3, 3], options(1, 1, 1, 2)),
        ([2, 8, 9, 10], [8, 1, 3, 3], options(2, 1, 1, 8)),
        ([2, 8, 9, 10], [8, 1, 5, 5], Conv2dOptions { extra_end: [1, 0], ..options(1, 1, 1, 8) }),
    ] {
        for bias in [false, true] {
            hold(&Case { x, weight, options, bias, seed: 5 });
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let pair = |range: core::ops::Range<usize>| [range.clone(), range];
    let geometry = (pair(1..4), pair(1..4), pair(0..4), pair(1..3), pair(0..2));
    let sizes = (1..4usize, 1..4usize, 1..8usize, 1..9usize);
    (sizes, [1..18usize, 1..22usize], geometry, any::<bool>(), any::<u64>())
        .prop_map(
            |((n, groups, i, o), [h, w], (kernel, stride, padding, dilation, extra_end), bias, seed)| Case {
                x: [n, groups * i, h, w],
                weight: [groups * o, i, kernel[0], kernel[1]],
                options: Conv2dOptions { stride, padding, extra_end, dilation, groups },
                bias,
                seed,
            },
        )
        .prop_filter("the kernel fits", |case| {
            (0..2).all(|d| {
                let padded = case.x[2 + d] + 2 * case.options.padding[d] + case.options.extra_end[d];
                padded > case.options.dilation[d] * (case.weight[2 + d] - 1)
            })
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn convolutions_of_any_shape_are_those_of_rounded_operands(case in cases()) {
        hold(&case);
    }

    /// A value is at most a unit from its rounding, so a product of two is at most 2 + u units off, and the sum is
    /// rounded once more.
    #[test]
    fn a_convolution_is_as_far_from_f32_as_its_roundings_allow(case in cases()) {
        let (x, weight) = (signed(case.seed, case.x.iter().product()), signed(!case.seed, case.weight.iter().product()));
        let case = Case { bias: false, ..case };
        let run = |x: &[f32], w: &[f32]| convolve(&case, x, w, &[], |count| vec![1.0; count]).y;
        let (found, expected) = (in_bf16(|| run(&x, &weight)), run(&x, &weight));
        let absolute = |values: &[f32]| values.iter().map(|v| v.abs()).collect::<Vec<f32>>();
        let sums = run(&absolute(&x), &absolute(&weight)); // of the products' sizes
        for ((found, expected), sum) in found.iter().zip(&expected).zip(&sums) {
            let bound = (2.0 + UNIT) * UNIT * f64::from(*sum) + UNIT * f64::from(found.abs());
            let slack = 1e-5 * f64::from(*sum);
            let error = f64::from((found - expected).abs());
            prop_assert!(error <= bound + slack, "{found} for {expected}, off by {error}, at most {bound}");
        }
    }
}

#[test]
fn rounding_is_in_force() {
    let case = Case {
        x: [2, 16, 9, 9],
        weight: [8, 16, 3, 3],
        options: Conv2dOptions { padding: [1, 1], ..Default::default() },
        bias: false,
        seed: 1,
    };
    let (x, weight) = (signed(1, 2 * 16 * 81), signed(2, 8 * 16 * 9));
    let run = || convolve(&case, &x, &weight, &[], |count| signed(3, count));
    let (found, expected) = (in_bf16(run), run());
    for (found, expected) in [(found.y, expected.y), (found.dx, expected.dx), (found.dw, expected.dw)] {
        let different = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert!(different > found.len() / 2, "{different} of {}", found.len());
        let square =
            |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let distance = square(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        let share = distance / square(&mut expected.iter().copied());
        assert!(share < UNIT, "the roundings' errors are not all of one sign: {share:e}");
    }
}

/// Every number of a forward and backward pass through two norms and convolutions.
fn blocks(dims: [usize; 4], kernel: usize, live: bool, x: &[f32]) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let layers = |seed: u64, from: usize, to: usize| -> (BatchNorm2d, Conv2d) {
        let norm = BatchNorm2dConfig::new(from).init(&device);
        norm.running_mean.set(tensor(&signed(seed, from), [from], &device));
        // Its statistics may be fixed; its parameters are trained.
        let norm = BatchNorm2d { training: norm.training.clone().with_value(live), ..norm };
        let conv =
            Conv2dConfig::new(from, to, kernel).with_padding(kernel / 2).with_bias(false).init(&device);
        let shape = conv.weight.val().dims();
        let weight = signed(seed ^ 7, shape.iter().product());
        let weight = conv.weight.clone().map(|_| tensor(&weight, shape, &device).require_grad());
        (norm, Conv2d { weight, ..conv })
    };
    let (first, second) = (layers(1, dims[1], 6), layers(2, 6, 4));
    let x = leaf(x, dims);
    let y = norm_relu_conv(&first.0, &first.1, x.clone());
    let y = norm_relu_conv(&second.0, &second.1, y);
    let grads = (y.clone() * y.clone()).sum().backward();
    let mut all = vec![values(y), values(x.grad(&grads).unwrap())];
    for (norm, conv) in [&first, &second] {
        all.push(values(conv.weight.val().grad(&grads).unwrap()));
        all.extend([&norm.weight, &norm.bias].map(|p| values(p.val().grad(&grads).unwrap())));
        all.extend([&norm.running_mean, &norm.running_var].map(|stat| values(stat.value())));
    }
    all
}

#[test]
fn maps_made_again_give_the_bits_of_maps_kept() {
    for live in [true, false] {
        for (dims, kernel) in [([2, 5, 7, 9], 3), ([1, 3, 1, 17], 1), ([3, 8, 16, 16], 1)] {
            let x = signed(3, dims.iter().product());
            let kept = in_bf16(|| blocks(dims, kernel, live, &x));
            let again = in_bf16(|| {
                let _guard = recompute::on();
                blocks(dims, kernel, live, &x)
            });
            assert_eq!(again, kept, "{dims:?}, live: {live}");
            // The kept input of the first norm is rounded before it is normalised.
            assert_eq!(in_bf16(|| blocks(dims, kernel, live, &rounded(&x))), kept);
            let in_f32 = blocks(dims, kernel, live, &x);
            assert_ne!(in_f32, kept);
            let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let y = kept[0].iter().zip(&in_f32[0]).map(|(a, b)| a - b).collect::<Vec<f32>>();
            assert!(norm(&y) < 4.0 * UNIT * norm(&in_f32[0]), "{dims:?}, live: {live}");
        }
    }
}

#[test]
fn matrix_products_are_those_of_rounded_operands() {
    for (a_shape, b_shape) in [([1, 9, 33], [1, 33, 7]), ([3, 5, 16], [3, 16, 4]), ([4, 6, 8], [1, 8, 5])] {
        let count = |shape: [usize; 3]| shape.iter().product();
        let (a, b) = (signed(1, count(a_shape)), signed(2, count(b_shape)));
        let run = |a: &[f32], b: &[f32], round_gradient: bool| {
            let (a, b) = (leaf(a, a_shape), leaf(b, b_shape));
            let y = matmul(a.clone(), b.clone());
            let g = signed(3, y.dims().iter().product());
            let g = tensor(&if round_gradient { rounded(&g) } else { g }, y.dims(), &y.device());
            let grads = (y.clone() * g).sum().backward();
            let all = [y, a.grad(&grads).unwrap(), b.grad(&grads).unwrap()];
            assert!(all.iter().all(|t| t.dtype() == DType::F32));
            all.map(values)
        };
        let found = in_bf16(|| run(&a, &b, false));
        let [y, da, db] = run(&rounded(&a), &rounded(&b), true);
        assert_eq!(found[0], rounded(&y), "{a_shape:?}");
        assert_eq!(found[1], rounded(&da), "{a_shape:?}");
        // Over a broadcast dimension the rounded products are summed up, which rounds once more.
        if b_shape[0] == a_shape[0] {
            assert_eq!(found[2], rounded(&db), "{a_shape:?}");
        } else {
            let largest = db.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let worst = found[2].iter().zip(&db).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(f64::from(worst) <= 4.0 * UNIT * f64::from(largest), "{worst} of {largest}");
        }
    }
}

/// Gradients of an operation on maps, for its first and perhaps a second input.
fn elementwise(
    x: &[f32],
    operation: impl Fn(Tensor<4>, Tensor<4>) -> Tensor<4>,
    second: [usize; 4],
) -> [Vec<f32>; 3] {
    let (x, other) = (leaf(x, [2, 3, 5, 7]), leaf(&signed(2, second.iter().product()), second));
    let y = operation(x.clone(), other.clone());
    let g = tensor(&signed(3, 2 * 3 * 5 * 7), [2, 3, 5, 7], &y.device());
    let grads = (y.clone() * g).sum().backward();
    let of = |t: &Tensor<4>| t.grad(&grads).map(values).unwrap_or_default();
    [values(y), of(&x), of(&other)]
}

#[test]
fn what_is_no_product_is_computed_in_f32() {
    let x = signed(1, 2 * 3 * 5 * 7);
    let map = [2, 3, 5, 7];
    // A ReLU keeps which values are positive, and nothing is rounded.
    for operation in [|x: Tensor<4>, _: Tensor<4>| relu(x - 0.1), |a, b| add_relu(a, b)] {
        assert_eq!(in_bf16(|| elementwise(&x, operation, map)), elementwise(&x, operation, map));
    }
    // What keeps its input rounds that, and its gradient as it leaves.
    let gate = |x: Tensor<4>, gate: Tensor<4>| channel_gate(x, gate);
    let swish = |x: Tensor<4>, _: Tensor<4>| silu(x);
    type Operation = fn(Tensor<4>, Tensor<4>) -> Tensor<4>;
    for (operation, second) in [(gate as Operation, [2, 3, 1, 1]), (swish as Operation, map)] {
        let found = in_bf16(|| elementwise(&x, operation, second));
        let [y, dx, dgate] = elementwise(&rounded(&x), operation, second);
        assert_eq!(found, [y, rounded(&dx), dgate]);
    }
    let norm = |x: &[f32]| {
        let norm = BatchNorm2dConfig::new(3).init(&Device::flex().autodiff());
        let [y, dx, _] = elementwise(x, |x, _| norm.forward_relu(x), map);
        [y, dx, values(norm.running_mean.value()), values(norm.running_var.value())]
    };
    let [y, dx, mean, variance] = norm(&rounded(&x));
    assert_eq!(in_bf16(|| norm(&x)), [y, rounded(&dx), mean, variance]);
}

#[test]
fn a_precision_ends_with_its_forward_pass_and_is_for_training_alone() {
    let (x, w) = (signed(1, 2 * 3 * 36), signed(2, 4 * 3 * 9));
    let run = |device: &Device| {
        let (x, w) = (tensor(&x, [2, 3, 6, 6], device), tensor(&w, [4, 3, 3, 3], device));
        values(conv2d(x, w, None, Conv2dOptions::default()))
    };
    let (plain, autodiff) = (Device::flex(), Device::flex().autodiff());
    let in_f32 = run(&plain);
    assert_eq!(run(&autodiff), in_f32);
    in_bf16(|| {
        assert_eq!(run(&plain), in_f32, "a network that is only run");
        assert_ne!(run(&autodiff), in_f32);
        Precision::F32.within(|| assert_eq!(run(&autodiff), in_f32));
        assert_ne!(run(&autodiff), in_f32, "the outer one is in force again");
        std::thread::scope(|s| {
            s.spawn(|| assert_eq!(run(&autodiff), in_f32, "another thread")).join().unwrap()
        });
    });
    let panicked = std::panic::catch_unwind(|| in_bf16(|| panic!("in a forward pass")));
    assert!(panicked.is_err());
    assert_eq!(run(&autodiff), in_f32);
}

#[test]
fn the_backward_step_follows_its_forward_pass() {
    let (x, w) = (leaf(&signed(1, 3 * 36), [1, 3, 6, 6]), leaf(&signed(2, 4 * 3 * 9), [4, 3, 3, 3]));
    let loss =
        |x: &Tensor<4>, w: &Tensor<4>| conv2d(x.clone(), w.clone(), None, Conv2dOptions::default()).sum();
    let outside = in_bf16(|| loss(&x, &w)).backward();
    let inside = in_bf16(|| loss(&x, &w).backward());
    let f32_inside = {
        let loss = loss(&x, &w);
        in_bf16(|| loss.backward())
    };
    let f32_outside = loss(&x, &w).backward();
    let [outside, inside, f32_inside, f32_outside] =
        [outside, inside, f32_inside, f32_outside].map(|grads| values(w.grad(&grads).unwrap()));
    assert_eq!(outside, inside);
    assert_eq!(f32_inside, f32_outside);
    assert_ne!(f32_inside, inside);
}

#[test]
fn the_cpu_runs_either_and_the_engine_rounds_to_even() {
    let device = Device::flex();
    assert!(Precision::F32.runs_on(&device) && Precision::Bf16.runs_on(&device));
    let ties = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -1.0 - 1.0 / 256.0, 3.0e38, 1e-40, 0.0];
    let cast = tensor(&ties, [6], &device).cast(FloatDType::BF16).cast(FloatDType::F32);
    assert_eq!(values(cast), rounded(&ties));
    assert_eq!(rounded(&ties)[..3], [1.0, 1.0 + 4.0 / 256.0, -1.0]);
}
