//! Planes times a factor each, and its gradients in one pass.

use core::mem::MaybeUninit;

use rayon::prelude::*;

use super::conv::Films;
use super::elementwise::LANES;
use super::norm::Planes;

/// Values a task should write at least, so that small planes are not a task each.
const TASK: usize = 8 << 10;

/// `out[n, c] = x[n, c] * gate[n, c]`.
pub(crate) fn gate(planes: Planes, x: Films<'_>, gate: &[f32], out: &mut [MaybeUninit<f32>]) {
    let Planes { c, pixels, .. } = planes;
    out.par_chunks_exact_mut(pixels).with_min_len(TASK.div_ceil(pixels)).enumerate().for_each(
        |(plane, out)| {
            let factor = gate[plane];
            let x = x.part(plane / c, plane % c * pixels, pixels);
            for (out, &x) in out.iter_mut().zip(x) {
                out.write(x * factor);
            }
        },
    );
}

/// Gradients of [`gate`]: `dx` into `out`, and for each plane the sum of `dy * x` into `dgate`.
pub(crate) fn gate_grad(
    planes: Planes,
    x: Films<'_>,
    gate: &[f32],
    dy: Films<'_>,
    out: &mut [MaybeUninit<f32>],
    dgate: &mut [f32],
) {
    let Planes { c, pixels, .. } = planes;
    out.par_chunks_exact_mut(pixels).zip(dgate).with_min_len(TASK.div_ceil(pixels)).enumerate().for_each(
        |(plane, (out, dgate))| {
            let factor = gate[plane];
            let (film, at) = (plane / c, plane % c * pixels);
            let (x, dy) = (x.part(film, at, pixels), dy.part(film, at, pixels));
            let mut total = 0.0f64;
            // Lanes in f32 over short runs, added up in f64, as sums are elsewhere.
            for ((out, x), dy) in out.chunks_mut(1024).zip(x.chunks(1024)).zip(dy.chunks(1024)) {
                for (out, &dy) in out.iter_mut().zip(dy) {
                    out.write(dy * factor);
                }
                let mut lanes = [0.0f32; LANES];
                let ((xs, x_rest), (dys, dy_rest)) = (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
                for (x, dy) in xs.iter().zip(dys) {
                    for lane in 0..LANES {
                        lanes[lane] += x[lane] * dy[lane];
                    }
                }
                for (lane, (x, dy)) in lanes.iter_mut().zip(x_rest.iter().zip(dy_rest)) {
                    *lane += x * dy;
                }
                total += f64::from(lanes.iter().sum::<f32>());
            }
            *dgate = total as f32;
        },
    );
}
