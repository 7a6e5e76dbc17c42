//! Batch norm, and scaling by channel, each with an optional ReLU in the same pass.
//!
//! Tasks are channels: each adds up its films in order.

use core::mem::MaybeUninit;

use rayon::prelude::*;

use super::conv::Films;
use super::elementwise::{LANES, sum, sum_squares};
use super::planes::SharedOut;
use crate::ranks;

/// Sizes of a batch of planes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planes {
    /// Films.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Pixels a plane.
    pub pixels: usize,
}

/// Mean and biased variance of each channel, over all processes that train together.
pub(crate) fn statistics(planes: Planes, x: Films<'_>) -> (Vec<f32>, Vec<f32>) {
    let joint = ranks::join_moments(planes.n * planes.pixels, moments(planes, x));
    joint.into_iter().map(|(mean, variance)| (mean as f32, variance as f32)).unzip()
}

/// Mean of each channel, and the sum of squared distances from it.
fn moments(planes: Planes, x: Films<'_>) -> Vec<(f64, f64)> {
    let Planes { n, c, pixels } = planes;
    (0..c)
        .into_par_iter()
        .map(|channel| {
            // Each plane around its own mean, while it is in the cache; then the pooled formula (Chan,
            // Golub, LeVeque). A plain sum of squares would cancel where the mean is large.
            let (mut count, mut mean, mut squares) = (0.0f64, 0.0f64, 0.0f64);
            for film in 0..n {
                let plane = x.part(film, channel * pixels, pixels);
                let own_mean = sum(plane) / pixels as f64;
                let center = own_mean as f32;
                // What rounding the center to f32 added is taken out again.
                let offset = own_mean - f64::from(center);
                let own_squares = sum_squares(plane, center) - pixels as f64 * offset * offset;
                let delta = own_mean - mean;
                let total = count + pixels as f64;
                mean += delta * pixels as f64 / total;
                squares += own_squares + delta * delta * count * pixels as f64 / total;
                count = total;
            }
            (mean, squares)
        })
        .collect()
}

/// `y = x * scale + shift` by channel, then ReLU if asked for.
pub(crate) fn affine(
    planes: Planes,
    x: Films<'_>,
    scale: &[f32],
    shift: &[f32],
    relu: bool,
    out: &mut [MaybeUninit<f32>],
) {
    let Planes { c, pixels, .. } = planes;
    out.par_chunks_mut(pixels).enumerate().for_each(|(plane, out)| {
        let (film, channel) = (plane / c, plane % c);
        let (scale, shift) = (scale[channel], shift[channel]);
        let x = x.part(film, channel * pixels, pixels);
        if relu {
            for (out, &x) in out.iter_mut().zip(x) {
                let y = x * scale + shift;
                out.write(if y <= 0.0 { 0.0 } else { y });
            }
        } else {
            for (out, &x) in out.iter_mut().zip(x) {
                out.write(x * scale + shift);
            }
        }
    });
}

/// Scale and shift that normalise with the given statistics.
pub(crate) fn fold(
    weight: &[f32],
    bias: &[f32],
    mean: &[f32],
    variance: &[f32],
    eps: f64,
) -> (Vec<f32>, Vec<f32>) {
    let rows = weight.iter().zip(bias).zip(mean.iter().zip(variance));
    rows.map(|((&weight, &bias), (&mean, &variance))| {
        let scale = f64::from(weight) / (f64::from(variance) + eps).sqrt();
        (scale as f32, (f64::from(bias) - f64::from(mean) * scale) as f32)
    })
    .unzip()
}

/// Sums over one plane of the gradient behind the ReLU, and of its product with `x - center`.
fn gradient_sums(x: &[f32], dy: &[f32], scale: f32, shift: f32, relu: bool, center: f32) -> (f64, f64) {
    let (mut total, mut total_x) = (0.0f64, 0.0f64);
    for (x, dy) in x.chunks(1024).zip(dy.chunks(1024)) {
        let (mut lanes, mut lanes_x) = ([0.0f32; LANES], [0.0f32; LANES]);
        let pass = |x: f32, dy: f32| if relu && x * scale + shift <= 0.0 { 0.0 } else { dy };
        let ((xs, x_rest), (dys, dy_rest)) = (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
        for (x, dy) in xs.iter().zip(dys) {
            for lane in 0..LANES {
                let g = pass(x[lane], dy[lane]);
                lanes[lane] += g;
                lanes_x[lane] += g * (x[lane] - center);
            }
        }
        for (&x, &dy) in x_rest.iter().zip(dy_rest) {
            let g = pass(x, dy);
            lanes[0] += g;
            lanes_x[0] += g * (x - center);
        }
        total += f64::from(lanes.iter().sum::<f32>());
        total_x += f64::from(lanes_x.iter().sum::<f32>());
    }
    (total, total_x)
}

/// Gradients of `weight * (x - mean) / sqrt(variance + eps) + bias`, then ReLU if asked for, with batch
/// statistics: `(d weight, d bias)`, and `dx` into `out`.
#[expect(clippy::too_many_arguments, reason = "the forward pass's arguments, its results and a gradient")]
pub(crate) fn norm_grad(
    planes: Planes,
    x: Films<'_>,
    weight: &[f32],
    bias: &[f32],
    mean: &[f32],
    variance: &[f32],
    eps: f64,
    relu: bool,
    dy: Films<'_>,
    out: &mut [MaybeUninit<f32>],
) -> (Vec<f32>, Vec<f32>) {
    let Planes { n, c, pixels } = planes;
    // The forward pass's own numbers, so that the ReLU opens and closes at the same values.
    let (scale, shift) = fold(weight, bias, mean, variance, eps);
    let out = SharedOut::new(out);
    // Sums over the channel of the gradient g behind the ReLU, and of g (x - mean).
    let sums = |channel: usize| {
        let at = channel * pixels;
        let (scale, shift, center) = (scale[channel], shift[channel], mean[channel]);
        let (mut total, mut total_x) = (0.0f64, 0.0f64);
        for film in 0..n {
            let (x, dy) = (x.part(film, at, pixels), dy.part(film, at, pixels));
            let (g, gx) = gradient_sums(x, dy, scale, shift, relu, center);
            total += g;
            total_x += gx;
        }
        (total, total_x)
    };
    let inverse = |channel: usize| 1.0 / (f64::from(variance[channel]) + eps).sqrt();
    // dx = scale * (g - mean(g) - x^ * mean(g x^)),  x^ = (x - mean) * inverse, with means over `count` values
    let write_dx = |channel: usize, (total, total_x): (f64, f64), count: f64| {
        let at = channel * pixels;
        let inverse = inverse(channel);
        let (scale, shift, center) = (scale[channel], shift[channel], mean[channel]);
        let slope = -(f64::from(scale) * inverse * inverse * total_x / count) as f32;
        let offset = (-f64::from(scale) * total / count) as f32 - slope * center;
        for film in 0..n {
            let (x, dy) = (x.part(film, at, pixels), dy.part(film, at, pixels));
            // SAFETY: `out` is borrowed by the caller's frame, which waits for all tasks; each task
            // has its own channel.
            let dx = unsafe { out.part((film * c + channel) * pixels, pixels) };
            if relu {
                for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                    let g = if x * scale + shift <= 0.0 { 0.0 } else { dy };
                    dx.write(g * scale + (x * slope + offset));
                }
            } else {
                for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                    dx.write(dy * scale + (x * slope + offset));
                }
            }
        }
    };
    let count = (n * pixels) as f64;
    let own: Vec<(f64, f64)> = if ranks::size() == 1 {
        // One task a channel: its planes are still in the cache for the second pass.
        let both = |channel| {
            let own = sums(channel);
            write_dx(channel, own, count);
            own
        };
        (0..c).into_par_iter().map(both).collect()
    } else {
        let own: Vec<(f64, f64)> = (0..c).into_par_iter().map(sums).collect();
        let mut joint: Vec<f64> = own.iter().flat_map(|&(total, total_x)| [total, total_x]).collect();
        ranks::sum(&mut joint);
        let count = count * ranks::size() as f64;
        (0..c).into_par_iter().for_each(|i| write_dx(i, (joint[2 * i], joint[2 * i + 1]), count));
        own
    };
    // The parameters' gradients stay this process's: the trainer takes their mean with all others.
    own.iter().enumerate().map(|(i, (total, total_x))| ((total_x * inverse(i)) as f32, *total as f32)).unzip()
}

/// Gradients of [`affine`]: `(d scale, d shift)`, and `dx` into `out`.
pub(crate) fn affine_grad(
    planes: Planes,
    x: Films<'_>,
    scale: &[f32],
    shift: &[f32],
    relu: bool,
    dy: Films<'_>,
    out: &mut [MaybeUninit<f32>],
) -> (Vec<f32>, Vec<f32>) {
    let Planes { n, c, pixels } = planes;
    let out = SharedOut::new(out);
    (0..c)
        .into_par_iter()
        .map(|channel| {
            let at = channel * pixels;
            let (scale, shift) = (scale[channel], shift[channel]);
            let (mut total, mut total_x) = (0.0f64, 0.0f64);
            for film in 0..n {
                let (x, dy) = (x.part(film, at, pixels), dy.part(film, at, pixels));
                let (g, gx) = gradient_sums(x, dy, scale, shift, relu, 0.0);
                total += g;
                total_x += gx;
                // SAFETY: as in `norm_grad`.
                let dx = unsafe { out.part((film * c + channel) * pixels, pixels) };
                for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                    let closed = relu && x * scale + shift <= 0.0;
                    dx.write(if closed { 0.0 } else { dy * scale });
                }
            }
            (total_x as f32, total as f32)
        })
        .unzip()
}
