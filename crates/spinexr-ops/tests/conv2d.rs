//! Convolution through the tensor API: forward pass and all gradients against direct sums in f64, finite
//! differences, views as inputs, and parameters without gradient.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use proptest::prelude::*;
use spinexr_ops::{Conv2dConfig, Conv2dOptions, conv2d};
use support::{assert_close, leaf, signed, tensor, values};

#[derive(Debug, Clone)]
struct Case {
    n: usize,
    i: usize, // a group
    o: usize, // a group
    input: [usize; 2],
    kernel: [usize; 2],
    options: Conv2dOptions,
    bias: bool,
    seed: u64,
}

fn pair(range: core::ops::Range<usize>) -> impl Strategy<Value = [usize; 2]> {
    [range.clone(), range]
}

fn cases() -> impl Strategy<Value = Case> {
    let geometry = (pair(1..4), pair(1..4), pair(0..4), pair(1..3), pair(0..2));
    (
        (1..4usize, 1..4usize, 1..8usize, 1..9usize),
        [1..18usize, 1..22usize],
        geometry,
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(|((n, groups, i, o), input, (kernel, stride, padding, dilation, extra_end), bias, seed)| {
            Case {
                n,
                i,
                o,
                input,
                kernel,
                options: Conv2dOptions { stride, padding, extra_end, dilation, groups },
                bias,
                seed,
            }
        })
        .prop_filter("the kernel fits", |c| {
            (0..2).all(|d| {
                let padded = c.input[d] + 2 * c.options.padding[d] + c.options.extra_end[d];
                padded > c.options.dilation[d] * (c.kernel[d] - 1)
            })
        })
}

struct Expected {
    y: Vec<f64>,
    dx: Vec<f64>,
    dw: Vec<f64>,
    db: Vec<f64>,
}

/// `y = conv(x)` and the gradients of `sum(y * g)`, in f64.
fn direct(case: &Case, x: &[f32], w: &[f32], b: &[f32], g: &[f32], [oh, ow]: [usize; 2]) -> Expected {
    let Case { n, i, o, input: [h, width], kernel: [kh, kw], options, .. } = *case;
    let Conv2dOptions { stride, padding, dilation, groups, .. } = options;
    let outputs = groups * o;
    let mut e = Expected {
        y: vec![0.0; g.len()],
        dx: vec![0.0; x.len()],
        dw: vec![0.0; w.len()],
        db: vec![0.0; outputs],
    };
    for film in 0..n {
        for out in 0..outputs {
            for (r, c) in (0..oh).flat_map(|r| (0..ow).map(move |c| (r, c))) {
                let at = ((film * outputs + out) * oh + r) * ow + c;
                let grad = f64::from(g[at]);
                e.y[at] = b.get(out).map_or(0.0, |&b| f64::from(b));
                e.db[out] += grad;
                for inp in 0..i {
                    for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                        let row = (r * stride[0] + ky * dilation[0]).wrapping_sub(padding[0]);
                        let col = (c * stride[1] + kx * dilation[1]).wrapping_sub(padding[1]);
                        if row < h && col < width {
                            let channel = film * groups * i + out / o * i + inp;
                            let xi = (channel * h + row) * width + col;
                            let wi = ((out * i + inp) * kh + ky) * kw + kx;
                            e.y[at] += f64::from(x[xi]) * f64::from(w[wi]);
                            e.dx[xi] += grad * f64::from(w[wi]);
                            e.dw[wi] += grad * f64::from(x[xi]);
                        }
                    }
                }
            }
        }
    }
    e
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn forward_and_gradients_agree_with_direct_sums(case in cases()) {
        let Case { n, i, o, input: [h, w], kernel: [kh, kw], options, .. } = case.clone();
        let x = signed(case.seed, n * options.groups * i * h * w);
        let weight = signed(case.seed ^ 1, options.groups * o * i * kh * kw);
        let bias = if case.bias { signed(case.seed ^ 2, options.groups * o) } else { Vec::new() };
        let tx = leaf(&x, [n, options.groups * i, h, w]);
        let tw = leaf(&weight, [options.groups * o, i, kh, kw]);
        let tb = case.bias.then(|| leaf(&bias, [options.groups * o]));
        let y = conv2d(tx.clone(), tw.clone(), tb.clone(), options);
        let [_, _, oh, ow] = y.dims();
        prop_assert_eq!([oh, ow], options.output_size([h, w], [kh, kw]));

        let g = signed(case.seed ^ 3, y.dims().iter().product());
        let tg = tensor(&g, y.dims(), &Device::flex().autodiff());
        let grads = (y.clone() * tg).sum().backward();
        let e = direct(&case, &x, &weight, &bias, &g, [oh, ow]);
        assert_close("y", &values(y), &e.y, 1e-5);
        assert_close("dx", &values(tx.grad(&grads).unwrap()), &e.dx, 1e-5);
        assert_close("dw", &values(tw.grad(&grads).unwrap()), &e.dw, 3e-5);
        if let Some(tb) = tb {
            assert_close("db", &values(tb.grad(&grads).unwrap()), &e.db, 1e-5);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let options = Conv2dOptions { stride: [2, 1], padding: [1, 2], ..Default::default() };
    let x = signed(1, 2 * 3 * 7 * 6);
    let w = signed(2, 4 * 3 * 3 * 3);
    // A smooth function of everything: sum(y^2) / 2.
    let loss = |x: &[f32], w: &[f32]| {
        let device = Device::flex();
        let y = conv2d(tensor(x, [2, 3, 7, 6], &device), tensor(w, [4, 3, 3, 3], &device), None, options);
        values(y).iter().map(|&y| f64::from(y) * f64::from(y) / 2.0).sum::<f64>()
    };
    let (tx, tw) = (leaf(&x, [2, 3, 7, 6]), leaf(&w, [4, 3, 3, 3]));
    let y = conv2d(tx.clone(), tw.clone(), None, options);
    let grads = ((y.clone() * y).sum() / 2.0).backward();
    let (dx, dw) = (values(tx.grad(&grads).unwrap()), values(tw.grad(&grads).unwrap()));
    let step = 1e-2f32;
    let nudged = |values: &[f32], at: usize, by: f32| {
        let mut values = values.to_vec();
        values[at] += by;
        values
    };
    for at in (0..x.len()).step_by(17) {
        let slope =
            (loss(&nudged(&x, at, step), &w) - loss(&nudged(&x, at, -step), &w)) / f64::from(2.0 * step);
        assert!(
            (slope - f64::from(dx[at])).abs() < 2e-2 * slope.abs().max(1.0),
            "dx[{at}]: {slope} {}",
            dx[at]
        );
    }
    for at in (0..w.len()).step_by(7) {
        let slope =
            (loss(&x, &nudged(&w, at, step)) - loss(&x, &nudged(&w, at, -step))) / f64::from(2.0 * step);
        assert!(
            (slope - f64::from(dw[at])).abs() < 2e-2 * slope.abs().max(1.0),
            "dw[{at}]: {slope} {}",
            dw[at]
        );
    }
}

/// Slices of channels, transposed and flipped tensors are inputs like any other.
#[test]
fn views_give_what_their_copies_give() {
    let device = Device::flex();
    let wide = tensor(&signed(1, 2 * 9 * 8 * 8), [2, 9, 8, 8], &device);
    let weight = tensor(&signed(2, 5 * 4 * 9), [5, 4, 3, 3], &device);
    let options = Conv2dOptions { padding: [1, 1], ..Default::default() };
    let copy = |x: Tensor<4>| Tensor::from_data(x.into_data(), &device);
    for view in [
        wide.clone().slice([0..2, 3..7, 0..8, 0..8]),
        wide.clone().slice([1..2, 0..4, 2..7, 1..8]),
        wide.clone().slice([0..2, 0..4, 0..8, 0..8]).swap_dims(2, 3),
        wide.clone().slice([0..2, 0..4, 0..8, 0..8]).flip([3]),
        wide.slice([0..1, 0..4, 0..8, 0..8]).expand([3, 4, 8, 8]),
    ] {
        let got = values(conv2d(view.clone(), weight.clone(), None, options));
        let expected = values(conv2d(copy(view), weight.clone(), None, options));
        assert_eq!(got, expected);
    }
}

#[test]
fn a_frozen_layer_passes_the_gradient_on_and_gets_none() {
    let device = Device::flex().autodiff();
    let layer = Conv2dConfig::new(3, 4, 3).with_padding(1).init(&device).no_grad();
    let x = leaf(&signed(1, 3 * 6 * 5), [1, 3, 6, 5]);
    let grads = layer.forward(x.clone()).sum().backward();
    assert!(layer.weight.val().grad(&grads).is_none());
    assert!(values(x.grad(&grads).unwrap()).iter().any(|&g| g != 0.0));
}

#[test]
fn the_first_layer_trains_on_an_input_without_gradient() {
    let device = Device::flex().autodiff();
    let layer = Conv2dConfig::new(1, 2, 3).with_stride(2).init(&device);
    let grads = layer.forward(tensor(&signed(1, 49), [1, 1, 7, 7], &device)).sum().backward();
    assert!(layer.weight.val().grad(&grads).is_some());
    let bias = layer.bias.as_ref().unwrap().val().grad(&grads).unwrap();
    assert_eq!(values(bias), [9.0, 9.0]); // 3 x 3 outputs
}

#[test]
fn the_module_starts_within_the_bound_and_keeps_pytorch_names() {
    struct Names(Vec<String>, Vec<String>);
    impl burn::module::ModuleVisitor for Names {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_string());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, _: &burn::module::Param<Tensor<D>>) {
            self.1.push(self.0.join("."));
        }
    }
    let layer = Conv2dConfig::new(8, 6, 3).with_groups(2).init(&Device::flex());
    assert_eq!(layer.weight.val().dims(), [6, 4, 3, 3]);
    let bound = 1.0 / 6.0; // 1 / sqrt(4 * 9)
    assert!(values(layer.weight.val()).iter().all(|w| w.abs() <= bound));
    let mut names = Names(Vec::new(), Vec::new());
    layer.visit(&mut names);
    assert_eq!(names.1, ["weight", "bias"]);
}

#[test]
#[should_panic(expected = "do not agree")]
fn channels_that_do_not_fit_are_named() {
    let device = Device::flex();
    let x = Tensor::<4>::zeros([1, 3, 8, 8], &device);
    conv2d(x, Tensor::zeros([4, 2, 3, 3], &device), None, Conv2dOptions::default());
}

#[test]
#[should_panic(expected = "does not fit an input of [2, 9]")]
fn a_kernel_larger_than_the_input_is_named() {
    let device = Device::flex();
    let x = Tensor::<4>::zeros([1, 1, 2, 9], &device);
    conv2d(x, Tensor::zeros([1, 1, 3, 3], &device), None, Conv2dOptions::default());
}

#[test]
fn same_padding_gives_tensorflows_sizes_and_zeros() {
    let options = Conv2dOptions { stride: [2, 2], ..Default::default() };
    // An even size: one zero, at the end. An odd size: one on each side. Kernel 5: 1 and 2, 2 and 2.
    for (size, kernel, padding, extra) in
        [(8, 3, 0, 1), (9, 3, 1, 0), (8, 5, 1, 1), (9, 5, 2, 0), (1, 1, 0, 0)]
    {
        let same = options.with_same_padding([size, size], [kernel, kernel]);
        assert_eq!((same.padding, same.extra_end), ([padding; 2], [extra; 2]), "{size} {kernel}");
        assert_eq!(same.output_size([size, size], [kernel, kernel]), [size.div_ceil(2); 2]);
    }
    let layer = Conv2dConfig::new(2, 3, 3).with_stride(2).with_bias(false).init(&Device::flex());
    let x = tensor(&signed(1, 2 * 6 * 7), [1, 2, 6, 7], &Device::flex());
    let padded =
        Tensor::<4>::zeros([1, 2, 7, 9], &Device::flex()).slice_assign([0..1, 0..2, 0..6, 1..8], x.clone());
    assert_eq!(values(layer.forward_same(x)), values(layer.forward(padded)));
}
