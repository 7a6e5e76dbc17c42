//! Depthwise convolution and its gradients on the CPU: each channel has a kernel of its own, so that there is no matrix
//! product to make of it.
//!
//! Both passes are one thing, a [`Gather`]: every target pixel sums weighted source pixels at fixed shifts. A strip of
//! source rows is copied into a zero-padded buffer, its columns split by their remainder of the stride, so that each tap
//! reads consecutive values whatever the stride; then rows are summed a few vectors at a time, all taps while the sums are
//! in registers. A plane is one task, and its weights' gradient adds up films in order: the thread count changes no bit.

use core::mem::MaybeUninit;
use std::cell::RefCell;

use rayon::prelude::*;

use super::conv::{After, Films};
use super::geometry::ConvShape;
use super::planes::SharedOut;
use super::row;
use super::simd::{Isa, Kernel, Vector};

/// Lanes of the widest vector; packed rows are rounded up to it.
const STEP: usize = 16;

/// Packed values of a strip (128 KiB).
const STRIP_BUDGET: usize = 32 << 10;

/// Values a task should write at least, so that small planes are not a task each.
const TASK: usize = 8 << 10;

thread_local! {
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

impl ConvShape {
    /// Whether every channel has its own kernel.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.i == 1 && self.o == 1 && self.groups > 1
    }
}

/// Target pixel `(r, c)` is the sum over taps `(y, x)` of the weighted pixel `(r, c) * step + (y, x) - before` of the
/// source, 0 outside of it.
struct Gather {
    source: [usize; 2],
    target: [usize; 2],
    step: [usize; 2],
    before: [usize; 2],
    taps: Vec<Tap>,
}

#[derive(Clone, Copy)]
struct Tap {
    at: [usize; 2],
    /// Place of its weight in the kernel.
    weight: usize,
}

/// How a strip lies in its buffer.
#[derive(Clone, Copy)]
struct Packed {
    pitch: usize,
    /// Values from one remainder of the columns to the next.
    phase: usize,
}

impl Gather {
    fn forward(shape: &ConvShape) -> Self {
        let [kh, kw] = shape.kernel;
        let taps = (0..kh * kw)
            .map(|weight| Tap {
                at: [weight / kw * shape.dilation[0], weight % kw * shape.dilation[1]],
                weight,
            })
            .collect();
        let (source, target, step) = (shape.input, shape.output, shape.stride);
        Self { source, target, step, before: shape.padding, taps }
    }

    /// The gradient of the input pixels whose row and column have remainder `phase` of the stride: input row
    /// `m * s + t` is seen by output row `m - q` through each tap with `k * d - p = q * s + t`.
    fn input_grad(shape: &ConvShape, phase: [usize; 2]) -> Self {
        let [kh, kw] = shape.kernel;
        let shift = |d: usize, k: usize| {
            let t = (k * shape.dilation[d]) as isize - shape.padding[d] as isize;
            let s = shape.stride[d] as isize;
            (t.rem_euclid(s) as usize == phase[d]).then_some(t.div_euclid(s))
        };
        let shifts: Vec<([isize; 2], usize)> = (0..kh * kw)
            .filter_map(|weight| Some(([shift(0, weight / kw)?, shift(1, weight % kw)?], weight)))
            .collect();
        let before =
            [0, 1].map(|d| shifts.iter().map(|(q, _)| q[d]).max().unwrap_or(0).max(0).cast_unsigned());
        let taps = shifts
            .iter()
            .map(|&(q, weight)| Tap {
                at: [0, 1].map(|d| (before[d].cast_signed() - q[d]).cast_unsigned()),
                weight,
            })
            .collect();
        let target = [0, 1].map(|d| (shape.input[d] - phase[d]).div_ceil(shape.stride[d]));
        Self { source: shape.output, target, step: [1, 1], before, taps }
    }

    /// Furthest row and column of a tap.
    fn reach(&self) -> [usize; 2] {
        [0, 1].map(|d| self.taps.iter().map(|tap| tap.at[d]).max().unwrap_or(0))
    }

    fn packed_rows(&self, rows: usize) -> usize {
        (rows - 1) * self.step[0] + self.reach()[0] + 1
    }

    fn pitch(&self) -> usize {
        self.target[1].next_multiple_of(STEP) + self.reach()[1] / self.step[1]
    }

    /// Target rows whose source fits the budget.
    fn strip_rows(&self) -> usize {
        let rows = STRIP_BUDGET / (self.pitch() * self.step[1]);
        (rows.saturating_sub(self.reach()[0] + 1) / self.step[0] + 1).min(self.target[0]).max(1)
    }

    /// The source of target rows `first..first + rows`.
    fn pack(&self, plane: &[f32], first: usize, rows: usize, buffer: &mut Vec<f32>) -> Packed {
        let [height, width] = self.source;
        let [step_y, step_x] = self.step;
        let [before_y, before_x] = self.before;
        let packed_rows = self.packed_rows(rows);
        let packed = Packed { pitch: self.pitch(), phase: packed_rows * self.pitch() };
        buffer.resize(step_x * packed.phase, 0.0);
        for (t, phase) in buffer.chunks_exact_mut(packed.phase).enumerate() {
            // Value `m` of a row is source column `m * step_x + t - before_x`.
            let zeros = before_x.saturating_sub(t).div_ceil(step_x);
            let from = zeros * step_x + t - before_x;
            let count = width.saturating_sub(from).div_ceil(step_x).min(packed.pitch.saturating_sub(zeros));
            let zeros = zeros.min(packed.pitch);
            for (r, row) in phase.chunks_exact_mut(packed.pitch).enumerate() {
                let y = first * step_y + r;
                if y < before_y || y - before_y >= height || count == 0 {
                    row.fill(0.0);
                    continue;
                }
                let line = &plane[(y - before_y) * width..][..width][from..];
                row[..zeros].fill(0.0);
                let (values, after) = row[zeros..].split_at_mut(count);
                match step_x {
                    1 => values.copy_from_slice(&line[..count]),
                    2 => {
                        let (pairs, last) = line.as_chunks::<2>();
                        values.iter_mut().zip(pairs).for_each(|(value, pair)| *value = pair[0]);
                        if let ([last], true) = (last, count > pairs.len()) {
                            values[count - 1] = *last;
                        }
                    }
                    _ => values.iter_mut().zip(line.iter().step_by(step_x)).for_each(|(v, x)| *v = *x),
                }
                after.fill(0.0);
            }
        }
        packed
    }

    /// Where each tap starts in a packed strip.
    fn offsets(&self, packed: Packed) -> Vec<usize> {
        let step_x = self.step[1];
        let place = |[y, x]: [usize; 2]| x % step_x * packed.phase + y * packed.pitch + x / step_x;
        self.taps.iter().map(|tap| place(tap.at)).collect()
    }

    /// The sums for the target rows of a plane, strip by strip: `take(first row, rows, sums)`.
    fn sum(
        &self,
        isa: Isa,
        plane: &[f32],
        kernel: &[f32],
        bias: f32,
        mut take: impl FnMut(usize, usize, &RowSums<'_>),
    ) {
        let weights: Vec<f32> = self.taps.iter().map(|tap| kernel[tap.weight]).collect();
        let strip = self.strip_rows();
        SCRATCH.with_borrow_mut(|[buffer, _]| {
            for first in (0..self.target[0]).step_by(strip) {
                let rows = strip.min(self.target[0] - first);
                let packed = self.pack(plane, first, rows, buffer);
                let offsets = self.offsets(packed);
                let (row_step, columns) = (self.step[0] * packed.pitch, self.target[1]);
                let (offsets, weights) = (&offsets[..], &weights[..]);
                take(
                    first,
                    rows,
                    &RowSums { isa, source: buffer, offsets, weights, bias, row_step, rows, columns },
                );
            }
        });
    }
}

/// `out[n, c] = conv(x[n, c], weight[c]) + bias[c]` and what follows; the films of `out` lie `out_stride` apart, the
/// other slices are as in [`super::conv::forward`].
pub(crate) fn forward(
    isa: Isa,
    shape: &ConvShape,
    x: Films<'_>,
    weight: &[f32],
    after: &After<'_>,
    out: SharedOut,
    out_stride: usize,
) {
    let gather = Gather::forward(shape);
    let (channels, taps, source) = (shape.groups, shape.kernel_taps(), shape.input[0] * shape.input[1]);
    let [height, width] = shape.output;
    let pixels = height * width;
    (0..shape.n * channels).into_par_iter().with_min_len(TASK.div_ceil(pixels)).for_each(|plane| {
        let (film, c) = (plane / channels, plane % channels);
        let x = x.part(film, c * source, source);
        let bias = after.bias.map_or(0.0, |bias| bias[c]);
        gather.sum(isa, x, &weight[c * taps..][..taps], bias, |first, rows, sums| {
            let at = c * pixels + first * width;
            // SAFETY: `out` is borrowed by the caller's frame, which waits for all tasks; each has its own plane, and
            // strips do not overlap.
            let out = unsafe { out.part(film * out_stride + at, rows * width) };
            let out = sums.write(out);
            if let Some(residual) = after.residual {
                let residual = residual.part(film, at, rows * width);
                out.iter_mut().zip(residual).for_each(|(out, value)| *out += value);
            }
            row::activate(isa, out, after.activation);
        });
    });
}

/// Gradient for the input; the slices are as in [`super::conv::input_grad`].
pub(crate) fn input_grad(
    isa: Isa,
    shape: &ConvShape,
    dy: Films<'_>,
    weight: &[f32],
    out: &mut [MaybeUninit<f32>],
) {
    let (channels, taps, source) = (shape.groups, shape.kernel_taps(), shape.output[0] * shape.output[1]);
    let [height, width] = shape.input;
    let [step_y, step_x] = shape.stride;
    let phases: Vec<([usize; 2], Gather)> = (0..step_y.min(height))
        .flat_map(|y| (0..step_x.min(width)).map(move |x| [y, x]))
        .map(|phase| (phase, Gather::input_grad(shape, phase)))
        .collect();
    out.par_chunks_exact_mut(height * width)
        .with_min_len(TASK.div_ceil(height * width))
        .enumerate()
        .for_each(|(plane, out)| {
            let (film, c) = (plane / channels, plane % channels);
            let dy = dy.part(film, c * source, source);
            let mut spread = Vec::new();
            for ([y, x], gather) in &phases {
                gather.sum(isa, dy, &weight[c * taps..][..taps], 0.0, |first, rows, sums| {
                    if shape.stride == [1, 1] {
                        sums.write(&mut out[first * width..][..rows * width]);
                        return;
                    }
                    let columns = gather.target[1];
                    spread.resize(rows * columns, MaybeUninit::new(0.0));
                    sums.write(&mut spread);
                    for (r, row) in spread.chunks_exact(columns).enumerate() {
                        let to = &mut out[((first + r) * step_y + y) * width..][..width];
                        to[*x..].iter_mut().step_by(step_x).zip(row).for_each(|(to, value)| *to = *value);
                    }
                });
            }
        });
}

/// Gradient for the weight, overwritten; the slices are as in [`super::conv::weight_grad`].
pub(crate) fn weight_grad(isa: Isa, shape: &ConvShape, x: Films<'_>, dy: Films<'_>, dw: &mut [f32]) {
    let gather = Gather::forward(shape);
    let (source, target) = (shape.input[0] * shape.input[1], shape.output[0] * shape.output[1]);
    let width = shape.output[1];
    let padded = width.next_multiple_of(STEP);
    let strip = gather.strip_rows();
    dw.par_chunks_exact_mut(shape.kernel_taps()).enumerate().for_each(|(c, dw)| {
        let mut total = vec![0.0f64; dw.len()];
        for film in 0..shape.n {
            let (x, dy) = (x.part(film, c * source, source), dy.part(film, c * target, target));
            SCRATCH.with_borrow_mut(|[buffer, grads]| {
                for first in (0..shape.output[0]).step_by(strip) {
                    let rows = strip.min(shape.output[0] - first);
                    let packed = gather.pack(x, first, rows, buffer);
                    // Rows of the gradient end in zeros, so that whole vectors can be taken.
                    grads.clear();
                    for row in dy[first * width..][..rows * width].chunks_exact(width) {
                        grads.extend_from_slice(row);
                        grads.resize(grads.len().next_multiple_of(STEP), 0.0);
                    }
                    let offsets = gather.offsets(packed);
                    let row_step = gather.step[0] * packed.pitch;
                    for (offsets, totals) in offsets.chunks(MOST_TAPS).zip(total.chunks_mut(MOST_TAPS)) {
                        TapSums { source: buffer, grads, offsets, row_step, rows, padded, totals }.add(isa);
                    }
                }
            });
        }
        dw.iter_mut().zip(total).for_each(|(dw, total)| *dw = total as f32);
    });
}

/// Rows of sums of shifted, weighted rows.
struct RowSums<'a> {
    isa: Isa,
    source: &'a [f32],
    /// Of each tap from the start of the source.
    offsets: &'a [usize],
    /// One for each tap.
    weights: &'a [f32],
    bias: f32,
    /// From one row's source to the next's.
    row_step: usize,
    rows: usize,
    columns: usize,
}

impl RowSums<'_> {
    /// Writes `[rows, columns]`, and gives what it wrote.
    ///
    /// # Panics
    /// When the source ends before the last vector, or `out` has another size.
    fn write<'o>(&self, out: &'o mut [MaybeUninit<f32>]) -> &'o mut [f32] {
        let furthest = self.offsets.iter().max().map_or(0, |offset| {
            offset + (self.rows - 1) * self.row_step + self.columns.next_multiple_of(STEP)
        });
        assert!(furthest <= self.source.len() && self.offsets.len() == self.weights.len());
        assert_eq!(out.len(), self.rows * self.columns);
        self.isa.run(WriteRows { sums: self, to: out.as_mut_ptr().cast() });
        // SAFETY: the kernel sets every value of every row.
        unsafe { out.assume_init_mut() }
    }
}

/// [`RowSums::write`], which has checked the sizes.
struct WriteRows<'a> {
    sums: &'a RowSums<'a>,
    to: *mut f32,
}

impl Kernel for WriteRows<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let columns = self.sums.columns;
        for row in 0..self.sums.rows {
            let mut at = 0;
            // SAFETY: the CPU has the instructions of `V`. Each `write` stays in its row of `to`, and reads as many
            // values behind each tap as lie before the row's end rounded up to `STEP`, a multiple of the lanes.
            unsafe {
                while at + 4 * V::LANES <= columns {
                    self.write::<V, 4>(row, at, columns);
                    at += 4 * V::LANES;
                }
                while at < columns {
                    self.write::<V, 1>(row, at, columns);
                    at += V::LANES;
                }
            }
        }
    }
}

impl WriteRows<'_> {
    /// `VECTORS` vectors of a row, cut at its end.
    ///
    /// # Safety
    /// The CPU has the instructions of `V`; `row` is below the rows, and `at` plus all vectors but the last lies
    /// before the row's end.
    #[inline(always)]
    unsafe fn write<V: Vector, const VECTORS: usize>(&self, row: usize, at: usize, columns: usize) {
        let RowSums { source, offsets, weights, bias, row_step, .. } = *self.sums;
        // SAFETY: `RowSums::write` has checked the furthest value read; the caller's contract for the rest.
        unsafe {
            let source = source.as_ptr().add(row * row_step + at);
            let to = self.to.add(row * columns + at);
            let mut sums = [V::splat(bias); VECTORS];
            for (&offset, &weight) in offsets.iter().zip(weights) {
                let weight = V::splat(weight);
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.add_product(V::load(source.add(offset + v * V::LANES)), weight);
                }
            }
            for (v, sum) in sums.into_iter().enumerate() {
                let left = columns - at - v * V::LANES;
                if left >= V::LANES {
                    sum.store(to.add(v * V::LANES));
                } else {
                    let mut lanes = [0.0f32; STEP];
                    sum.store(lanes.as_mut_ptr());
                    to.add(v * V::LANES).copy_from_nonoverlapping(lanes.as_ptr(), left);
                }
            }
        }
    }
}

/// Taps whose weight gradients are summed at once, in a register each.
const MOST_TAPS: usize = 5;

/// For each tap, the sum of products of the source's rows, shifted, and the gradient's.
struct TapSums<'a> {
    source: &'a [f32],
    /// Rows of `padded` values.
    grads: &'a [f32],
    /// Of each tap from the start of the source, at most [`MOST_TAPS`].
    offsets: &'a [usize],
    row_step: usize,
    rows: usize,
    /// A multiple of [`STEP`].
    padded: usize,
    /// Added to.
    totals: &'a mut [f64],
}

impl TapSums<'_> {
    /// # Panics
    /// When source or gradient is too short.
    fn add(self, isa: Isa) {
        let furthest = self
            .offsets
            .iter()
            .max()
            .map_or(0, |offset| offset + (self.rows - 1) * self.row_step + self.padded);
        assert!(furthest <= self.source.len() && self.padded.is_multiple_of(STEP));
        assert!(self.grads.len() == self.rows * self.padded && self.totals.len() == self.offsets.len());
        isa.run(self);
    }

    /// # Safety
    /// The CPU has the instructions of `V`; the sizes were checked by [`TapSums::add`], and there are `TAPS` taps.
    #[inline(always)]
    unsafe fn sum<V: Vector, const TAPS: usize>(self) {
        // SAFETY: every vector lies before the row's end, of which `add` has checked the last.
        unsafe {
            // A few rows at a time in f32, so that rounding does not grow with the plane.
            for first in (0..self.rows).step_by(8) {
                let mut sums = [V::splat(0.0); TAPS];
                for row in first..self.rows.min(first + 8) {
                    let source = self.source.as_ptr().add(row * self.row_step);
                    let grads = self.grads.as_ptr().add(row * self.padded);
                    for at in (0..self.padded).step_by(V::LANES) {
                        let grad = V::load(grads.add(at));
                        for (tap, sum) in sums.iter_mut().enumerate() {
                            *sum = sum.add_product(V::load(source.add(self.offsets[tap] + at)), grad);
                        }
                    }
                }
                for (total, sum) in self.totals.iter_mut().zip(sums) {
                    *total += f64::from(sum.sum());
                }
            }
        }
    }
}

impl Kernel for TapSums<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller's contract; the number of taps is matched.
        unsafe {
            match self.offsets.len() {
                1 => self.sum::<V, 1>(),
                2 => self.sum::<V, 2>(),
                3 => self.sum::<V, 3>(),
                4 => self.sum::<V, 4>(),
                MOST_TAPS => self.sum::<V, MOST_TAPS>(),
                _ => unreachable!("taps come in chunks of 1 to {MOST_TAPS}"),
            }
        }
    }
}
