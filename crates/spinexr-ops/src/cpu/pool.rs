//! Max pooling, global average pooling and nearest upsampling of planes.

use core::mem::MaybeUninit;

use rayon::prelude::*;

use super::conv::Films;
use super::elementwise::sum;
use super::norm::Planes;

/// Windows of a max pooling, `[height, width]` each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
}

impl Windows {
    /// First pixel of window `index` along dimension `d` that lies in the image.
    fn start(&self, d: usize, index: usize) -> usize {
        (index * self.stride[d]).saturating_sub(self.padding[d])
    }

    /// Windows along dimension `d` whose tap `k` lies in the image.
    fn inside(&self, d: usize, k: usize) -> core::ops::Range<usize> {
        let first = self.padding[d].saturating_sub(k).div_ceil(self.stride[d]);
        let end = (self.input[d] + self.padding[d]).saturating_sub(k).div_ceil(self.stride[d]);
        first.min(self.output[d])..end.min(self.output[d])
    }
}

/// Largest value of every window and its index in the input plane; the first of equals, and a NaN wins.
pub(crate) fn max_pool(
    planes: Planes,
    windows: &Windows,
    x: Films<'_>,
    out: &mut [MaybeUninit<f32>],
    from: &mut [i32],
) {
    let [oh, ow] = windows.output;
    let width = windows.input[1];
    let columns: Vec<_> = (0..windows.kernel[1]).map(|k| windows.inside(1, k)).collect();
    out.par_chunks_mut(oh * ow).zip(from.par_chunks_mut(oh * ow)).enumerate().for_each(
        |(plane, (out, from))| {
            let (film, channel) = (plane / planes.c, plane % planes.c);
            let x = x.part(film, channel * planes.pixels, planes.pixels);
            let mut best = vec![0.0f32; ow];
            for (r, (out, at)) in out.chunks_exact_mut(ow).zip(from.chunks_exact_mut(ow)).enumerate() {
                best.fill(f32::NEG_INFINITY);
                let top = windows.start(0, r) * width;
                for (c, at) in at.iter_mut().enumerate() {
                    *at = (top + windows.start(1, c)) as i32;
                }
                // Tap by tap over a whole row of windows, which needs no branch inside.
                for ky in 0..windows.kernel[0] {
                    let Some(y) = (r * windows.stride[0] + ky).checked_sub(windows.padding[0]) else {
                        continue;
                    };
                    if y >= windows.input[0] {
                        break;
                    }
                    for (kx, inside) in columns.iter().enumerate() {
                        if inside.is_empty() {
                            continue;
                        }
                        let first = y * width + inside.start * windows.stride[1] + kx - windows.padding[1];
                        let pixels = x[first..].iter().step_by(windows.stride[1]);
                        let cells = best[inside.clone()].iter_mut().zip(&mut at[inside.clone()]);
                        let mut index = first as i32;
                        for ((best, at), &value) in cells.zip(pixels) {
                            // Greater, or a NaN where there was none.
                            let better = (value > *best) | (value.is_nan() & !best.is_nan());
                            *best = if better { value } else { *best };
                            *at = if better { index } else { *at };
                            index += windows.stride[1] as i32;
                        }
                    }
                }
                for (out, &best) in out.iter_mut().zip(&best) {
                    out.write(best);
                }
            }
        },
    );
}

/// Gradient of [`max_pool`]: every output's goes to the pixel it came from. `dx` is overwritten.
pub(crate) fn max_pool_grad(planes: Planes, outputs: usize, dy: Films<'_>, from: &[i32], dx: &mut [f32]) {
    dx.par_chunks_mut(planes.pixels).enumerate().for_each(|(plane, dx)| {
        let (film, channel) = (plane / planes.c, plane % planes.c);
        dx.fill(0.0);
        let from = &from[plane * outputs..][..outputs];
        for (&grad, &at) in dy.part(film, channel * outputs, outputs).iter().zip(from) {
            dx[at as usize] += grad;
        }
    });
}

/// Mean of every plane.
pub(crate) fn global_average(planes: Planes, x: Films<'_>, out: &mut [MaybeUninit<f32>]) {
    out.par_iter_mut().with_min_len(16).enumerate().for_each(|(plane, out)| {
        let (film, channel) = (plane / planes.c, plane % planes.c);
        let total = sum(x.part(film, channel * planes.pixels, planes.pixels));
        out.write((total / planes.pixels as f64) as f32);
    });
}

/// Source index of every output index along one dimension, with the ratio in f32 as PyTorch has it.
pub(crate) fn nearest_sources(input: usize, output: usize) -> Vec<usize> {
    let ratio = input as f32 / output as f32;
    (0..output).map(|i| ((i as f32 * ratio) as usize).min(input - 1)).collect()
}

/// Nearest resize of every plane.
pub(crate) fn upsample(
    planes: Planes,
    width: usize,
    rows: &[usize],
    cols: &[usize],
    x: Films<'_>,
    out: &mut [MaybeUninit<f32>],
) {
    out.par_chunks_mut(rows.len() * cols.len()).enumerate().for_each(|(plane, out)| {
        let (film, channel) = (plane / planes.c, plane % planes.c);
        let x = x.part(film, channel * planes.pixels, planes.pixels);
        for (line, &row) in out.chunks_exact_mut(cols.len()).zip(rows) {
            let source = &x[row * width..][..width];
            for (value, &col) in line.iter_mut().zip(cols) {
                value.write(source[col]);
            }
        }
    });
}

/// Gradient of [`upsample`]: `dx` is overwritten.
pub(crate) fn upsample_grad(
    planes: Planes,
    width: usize,
    rows: &[usize],
    cols: &[usize],
    dy: Films<'_>,
    dx: &mut [f32],
) {
    let outputs = rows.len() * cols.len();
    dx.par_chunks_mut(planes.pixels).enumerate().for_each(|(plane, dx)| {
        let (film, channel) = (plane / planes.c, plane % planes.c);
        dx.fill(0.0);
        let dy = dy.part(film, channel * outputs, outputs);
        for (line, &row) in dy.chunks_exact(cols.len()).zip(rows) {
            let target = &mut dx[row * width..][..width];
            for (&grad, &col) in line.iter().zip(cols) {
                target[col] += grad;
            }
        }
    });
}
