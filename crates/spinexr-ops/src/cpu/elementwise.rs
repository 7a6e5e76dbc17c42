//! Element-by-element operations and sums, in fixed-size chunks.

use core::mem::MaybeUninit;

use rayon::prelude::*;

/// Values a task handles: 64 KiB, so that a small tensor is not spread over threads.
const CHUNK: usize = 16 << 10;

/// Partial sums kept side by side, for the compiler to put into vectors.
pub(crate) const LANES: usize = 16;

/// Sum in f32 lanes over short runs, added up in f64: the error does not grow with the length.
pub(crate) fn sum(values: &[f32]) -> f64 {
    values
        .chunks(1024)
        .map(|run| {
            let mut lanes = [0.0f32; LANES];
            let (blocks, rest) = run.as_chunks::<LANES>();
            for block in blocks {
                for (lane, value) in lanes.iter_mut().zip(block) {
                    *lane += value;
                }
            }
            f64::from(lanes.iter().sum::<f32>() + rest.iter().sum::<f32>())
        })
        .sum()
}

/// `sum((x - center)^2)`, as [`sum`].
pub(crate) fn sum_squares(values: &[f32], center: f32) -> f64 {
    values
        .chunks(1024)
        .map(|run| {
            let mut lanes = [0.0f32; LANES];
            let (blocks, rest) = run.as_chunks::<LANES>();
            for block in blocks {
                for (lane, value) in lanes.iter_mut().zip(block) {
                    let d = value - center;
                    *lane += d * d;
                }
            }
            let rest: f32 = rest.iter().map(|value| (value - center) * (value - center)).sum();
            f64::from(lanes.iter().sum::<f32>() + rest)
        })
        .sum()
}

/// `out = max(x, 0)`. A NaN stays one.
pub(crate) fn relu(x: &[f32], out: &mut [MaybeUninit<f32>]) {
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| {
        for (out, &x) in out.iter_mut().zip(x) {
            out.write(if x <= 0.0 { 0.0 } else { x });
        }
    });
}

/// `x = max(x, 0)` in place.
pub(crate) fn relu_in_place(x: &mut [f32]) {
    x.par_chunks_mut(CHUNK).for_each(|x| {
        for x in x {
            *x = if *x <= 0.0 { 0.0 } else { *x };
        }
    });
}

/// `out = grad` where `output` is positive, 0 elsewhere.
pub(crate) fn relu_grad(output: &[f32], grad: &[f32], out: &mut [MaybeUninit<f32>]) {
    out.par_chunks_mut(CHUNK).zip(output.par_chunks(CHUNK).zip(grad.par_chunks(CHUNK))).for_each(
        |(out, (output, grad))| {
            for ((out, &output), &grad) in out.iter_mut().zip(output).zip(grad) {
                out.write(if output <= 0.0 { 0.0 } else { grad });
            }
        },
    );
}

/// `grad = 0` where `output` is not positive, in place.
pub(crate) fn relu_grad_in_place(output: &[f32], grad: &mut [f32]) {
    grad.par_chunks_mut(CHUNK).zip(output.par_chunks(CHUNK)).for_each(|(grad, output)| {
        for (grad, &output) in grad.iter_mut().zip(output) {
            *grad = if output <= 0.0 { 0.0 } else { *grad };
        }
    });
}

/// `out = max(a + b, 0)`.
pub(crate) fn add_relu(a: &[f32], b: &[f32], out: &mut [MaybeUninit<f32>]) {
    out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK))).for_each(|(out, (a, b))| {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            let sum = a + b;
            out.write(if sum <= 0.0 { 0.0 } else { sum });
        }
    });
}

/// `a = max(a + b, 0)` in place.
pub(crate) fn add_relu_in_place(a: &mut [f32], b: &[f32]) {
    a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).for_each(|(a, b)| {
        for (a, &b) in a.iter_mut().zip(b) {
            let sum = *a + b;
            *a = if sum <= 0.0 { 0.0 } else { sum };
        }
    });
}
