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

    /// First pixel behind window `index` along dimension `d`.
    fn end(&self, d: usize, index: usize) -> usize {
        (index * self.stride[d] + self.kernel[d] - self.padding[d]).min(self.input[d])
    }
}

/// Largest value of every window and its index in the input plane; the first of equals, and a NaN wins.
///
/// First the columns of a row of windows, whole rows at a time, then across columns.
pub(crate) fn max_pool(
    planes: Planes,
    windows: &Windows,
    x: Films<'_>,
    out: &mut [MaybeUninit<f32>],
    from: &mut [i32],
) {
    let [oh, ow] = windows.output;
    let width = windows.input[1];
    let better = |value: f32, best: f32| (value > best) | (value.is_nan() & !best.is_nan());
    out.par_chunks_mut(oh * ow).zip(from.par_chunks_mut(oh * ow)).enumerate().for_each(
        |(plane, (out, from))| {
            let (film, channel) = (plane / planes.c, plane % planes.c);
            let x = x.part(film, channel * planes.pixels, planes.pixels);
            let (mut largest, mut row_of) = (vec![0.0f32; width], vec![0i32; width]);
            for (r, (out, at)) in out.chunks_exact_mut(ow).zip(from.chunks_exact_mut(ow)).enumerate() {
                let (top, bottom) = (windows.start(0, r), windows.end(0, r));
                largest.copy_from_slice(&x[top * width..][..width]);
                row_of.fill(top as i32);
                for y in top + 1..bottom {
                    let line = &x[y * width..][..width];
                    for ((largest, row), &value) in largest.iter_mut().zip(&mut row_of).zip(line) {
                        let better = better(value, *largest);
                        *largest = if better { value } else { *largest };
                        *row = if better { y as i32 } else { *row };
                    }
                }
                for (c, (out, at)) in out.iter_mut().zip(at).enumerate() {
                    let columns = windows.start(1, c)..windows.end(1, c);
                    let (mut best, mut row, mut col) =
                        (largest[columns.start], row_of[columns.start], columns.start);
                    for next in columns.start + 1..columns.end {
                        let value = largest[next];
                        // Of equals, the one in the upper row comes first.
                        if better(value, best) || (value == best && row_of[next] < row) {
                            (best, row, col) = (value, row_of[next], next);
                        }
                    }
                    out.write(best);
                    *at = row * width as i32 + col as i32;
                }
            }
        },
    );
}

/// Largest value of every window of one plane, as [`max_pool`] without the indices.
pub(crate) fn largest(windows: &Windows, x: &[f32], out: &mut [f32]) {
    let [_, ow] = windows.output;
    let width = windows.input[1];
    let better = |value: f32, best: f32| (value > best) | (value.is_nan() & !best.is_nan());
    let mut columns = vec![0.0f32; width];
    for (r, out) in out.chunks_exact_mut(ow).enumerate() {
        let (top, bottom) = (windows.start(0, r), windows.end(0, r));
        columns.copy_from_slice(&x[top * width..][..width]);
        for y in top + 1..bottom {
            for (best, &value) in columns.iter_mut().zip(&x[y * width..][..width]) {
                *best = if better(value, *best) { value } else { *best };
            }
        }
        for (c, out) in out.iter_mut().enumerate() {
            let (start, end) = (windows.start(1, c), windows.end(1, c));
            let mut best = columns[start];
            for &value in &columns[start + 1..end] {
                best = if better(value, best) { value } else { best };
            }
            *out = best;
        }
    }
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
