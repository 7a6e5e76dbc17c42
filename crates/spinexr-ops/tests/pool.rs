//! Pooling, upsampling and rectified units against direct loops, with their gradients.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use burn::tensor::{Device, Tensor};
use proptest::prelude::*;
use spinexr_ops::{add_relu, global_avg_pool, max_pool2d, relu, upsample_nearest};
use support::{assert_close, leaf, signed, tensor, values};

fn f64s(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Gradient of `sum(y * g)` for the leaf `x`.
fn grad_of<const D: usize, const E: usize>(x: &Tensor<D>, y: Tensor<E>, g: &[f32]) -> Vec<f32> {
    let g = tensor(g, y.dims(), &Device::flex().autodiff());
    let grads = (y * g).sum().backward();
    values(x.grad(&grads).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn max_pool_takes_the_first_largest(
        dims in [1..3usize, 1..4usize, 1..14usize, 1..14usize],
        kernel in [1..4usize, 1..4usize],
        stride in [1..4usize, 1..4usize],
        pad in [any::<bool>(), any::<bool>()],
        seed in any::<u64>(),
    ) {
        let [n, c, h, w] = dims;
        let padding: [usize; 2] = core::array::from_fn(|d| if pad[d] { kernel[d] / 2 } else { 0 });
        prop_assume!((0..2).all(|d| [h, w][d] + 2 * padding[d] >= kernel[d]));
        // Few levels, so that windows have ties.
        let x: Vec<f32> = signed(seed, dims.iter().product()).iter().map(|v| (v * 3.0).round()).collect();
        let tx = leaf(&x, dims);
        let y = max_pool2d(tx.clone(), kernel, stride, padding);
        let [_, _, oh, ow] = y.dims();
        let g = signed(seed ^ 1, n * c * oh * ow);
        let (mut ey, mut edx) = (Vec::new(), vec![0.0f64; x.len()]);
        for plane in 0..n * c {
            for (r, q) in (0..oh).flat_map(|r| (0..ow).map(move |q| (r, q))) {
                let mut best: Option<usize> = None;
                for (ky, kx) in (0..kernel[0]).flat_map(|ky| (0..kernel[1]).map(move |kx| (ky, kx))) {
                    let row = (r * stride[0] + ky).wrapping_sub(padding[0]);
                    let col = (q * stride[1] + kx).wrapping_sub(padding[1]);
                    if row < h && col < w {
                        let at = (plane * h + row) * w + col;
                        if best.is_none_or(|best| x[at] > x[best]) {
                            best = Some(at);
                        }
                    }
                }
                let best = best.unwrap();
                edx[best] += f64::from(g[ey.len()]);
                ey.push(x[best]);
            }
        }
        prop_assert_eq!(values(y.clone()), ey);
        assert_close("dx", &grad_of(&tx, y, &g), &edx, 1e-6);
    }

    #[test]
    fn nearest_upsampling_repeats_pixels(
        dims in [1..3usize, 1..3usize, 1..9usize, 1..9usize],
        size in [1..25usize, 1..25usize],
        seed in any::<u64>(),
    ) {
        let [n, c, h, w] = dims;
        let x = signed(seed, dims.iter().product());
        let tx = leaf(&x, dims);
        let y = upsample_nearest(tx.clone(), size);
        prop_assert_eq!(y.dims(), [n, c, size[0], size[1]]);
        let g = signed(seed ^ 1, n * c * size[0] * size[1]);
        let (mut ey, mut edx) = (Vec::new(), vec![0.0f64; x.len()]);
        let source = |i: usize, input: usize, output: usize| {
            ((i as f32 * (input as f32 / output as f32)).floor() as usize).min(input - 1)
        };
        for plane in 0..n * c {
            for (r, q) in (0..size[0]).flat_map(|r| (0..size[1]).map(move |q| (r, q))) {
                let at = (plane * h + source(r, h, size[0])) * w + source(q, w, size[1]);
                edx[at] += f64::from(g[ey.len()]);
                ey.push(x[at]);
            }
        }
        prop_assert_eq!(values(y.clone()), ey);
        assert_close("dx", &grad_of(&tx, y, &g), &edx, 1e-5);
    }

    #[test]
    fn global_average_is_the_mean(dims in [1..4usize, 1..20usize, 1..9usize, 1..40usize], seed in any::<u64>()) {
        let [n, c, h, w] = dims;
        let x = signed(seed, dims.iter().product());
        let tx = leaf(&x, dims);
        let y = global_avg_pool(tx.clone());
        prop_assert_eq!(y.dims(), [n, c]);
        let expected: Vec<f64> =
            x.chunks(h * w).map(|plane| f64s(plane).iter().sum::<f64>() / (h * w) as f64).collect();
        let g = signed(seed ^ 1, n * c);
        let edx: Vec<f64> = (0..x.len()).map(|i| f64::from(g[i / (h * w)]) / (h * w) as f64).collect();
        assert_close("y", &values(y.clone()), &expected, 1e-6);
        assert_close("dx", &grad_of(&tx, y, &g), &edx, 1e-6);
    }

    #[test]
    fn rectified_units_open_above_zero(len in 1..50_000usize, seed in any::<u64>()) {
        // Whole numbers, so that some values and sums are exactly 0.
        let round = |v: &f32| (v * 3.0).round();
        let a: Vec<f32> = signed(seed, len).iter().map(round).collect();
        let b: Vec<f32> = signed(seed ^ 1, len).iter().map(round).collect();
        let g = signed(seed ^ 2, len);
        let (ta, tb) = (leaf(&a, [len]), leaf(&b, [len]));

        let y = relu(ta.clone());
        prop_assert_eq!(values(y.clone()), a.iter().map(|a| a.max(0.0)).collect::<Vec<_>>());
        let open: Vec<f32> = (0..len).map(|i| if a[i] > 0.0 { g[i] } else { 0.0 }).collect();
        prop_assert_eq!(grad_of(&ta, y, &g), open);

        let y = add_relu(ta.clone(), tb.clone());
        prop_assert_eq!(values(y.clone()), (0..len).map(|i| (a[i] + b[i]).max(0.0)).collect::<Vec<_>>());
        let open: Vec<f32> = (0..len).map(|i| if a[i] + b[i] > 0.0 { g[i] } else { 0.0 }).collect();
        let grads = (y * tensor(&g, [len], &Device::flex().autodiff())).sum().backward();
        prop_assert_eq!(values(ta.grad(&grads).unwrap()), open.clone());
        prop_assert_eq!(values(tb.grad(&grads).unwrap()), open);
    }
}

/// An operation may reuse its input's memory only when nobody else holds it.
#[test]
fn inputs_in_use_elsewhere_are_left_alone() {
    let device = Device::flex();
    let a = tensor(&[-1.0, 2.0, -3.0, 4.0], [2, 2], &device);
    let b = tensor(&[0.5, 0.5, 5.0, 0.5], [2, 2], &device);
    let row = a.clone().slice([0..1, 0..2]);
    assert_eq!(values(relu(a.clone())), [0.0, 2.0, 0.0, 4.0]);
    assert_eq!(values(relu(row.clone())), [0.0, 2.0]);
    assert_eq!(values(add_relu(a.clone(), b.clone())), [0.0, 2.5, 2.0, 4.5]);
    assert_eq!(values(add_relu(row, b.clone().slice([1..2, 0..2]))), [4.0, 2.5]);
    assert_eq!(values(a), [-1.0, 2.0, -3.0, 4.0]);
    assert_eq!(values(b), [0.5, 0.5, 5.0, 0.5]);
}

/// A sum used twice: the rectified output goes into two branches whose gradients add up.
#[test]
fn gradients_of_shared_outputs_add_up() {
    let x = leaf(&[-1.0, 2.0], [2]);
    let y = relu(x.clone());
    let z = add_relu(y.clone(), y.clone() * 3.0);
    let grads = (z + y).sum().backward();
    assert_eq!(values(x.grad(&grads).unwrap()), [0.0, 5.0]);
}

#[test]
fn a_nan_is_not_hidden() {
    let device = Device::flex();
    let x = tensor(&[f32::NAN, -1.0, 1.0, 0.0], [1, 1, 2, 2], &device);
    assert!(values(relu(x.clone()))[0].is_nan());
    assert!(values(max_pool2d(x, [2, 2], [2, 2], [0, 0]))[0].is_nan());
}
