//! Convolution and its gradients on the CPU.
//!
//! Work is cut into (film, group, tile) tasks. Each packs the source planes of its tile, zero-padded,
//! into a buffer of the thread that stays in the second-level cache, and forms its sums there.

use core::mem::MaybeUninit;
use std::cell::RefCell;

use rayon::prelude::*;

use super::depthwise;
use super::gemm::{Matrix, add_product};
use super::geometry::{ConvShape, Layout, Shifts, Tile};
use super::planes::{Finish, SharedOut, pack_source, pack_target, unpack_target};
use super::product::{POSITION_STEP, PackedWeight, accumulate, accumulate_weight_grad};
use super::row::Activation;
use super::simd::Isa;
use super::winograd::{self, Taps, WinogradWeight};

/// Packed source values of a tile (192 KiB), and its sums or output gradients (128 KiB): both fit a
/// 512 KiB second-level cache beside the weights.
const SOURCE_BUDGET: usize = 48 << 10;
const TARGET_BUDGET: usize = 32 << 10;

/// A batch of films whose channels are contiguous; the films may lie apart, as in a slice of channels.
#[derive(Clone, Copy)]
pub(crate) struct Films<'a> {
    pub data: &'a [f32],
    /// Values from one film to the next.
    pub stride: usize,
}

impl<'a> Films<'a> {
    /// `count` values of film `n` from `at`.
    pub(crate) fn part(&self, n: usize, at: usize, count: usize) -> &'a [f32] {
        &self.data[n * self.stride + at..][..count]
    }

    /// Planes `first..first + planes` of film `n`, a row each.
    fn matrix(&self, n: usize, first: usize, planes: usize, pixels: usize) -> Matrix<'a> {
        let values = self.part(n, first * pixels, planes * pixels);
        Matrix { values, rows: planes, columns: pixels, stride: pixels }
    }
}

#[derive(Default)]
struct Scratch {
    source: Vec<f32>,
    target: Vec<f32>,
    offsets: Vec<usize>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// `out[n] = conv(x[n], weight) + bias`.
///
/// `weight` is `[groups * o, i, kh, kw]`, `bias` `[groups * o]`, `out` `[n, groups * o, oh, ow]`.
pub(crate) fn forward(
    isa: Isa,
    shape: &ConvShape,
    x: Films<'_>,
    weight: &[f32],
    bias: Option<&[f32]>,
    out: &mut [MaybeUninit<f32>],
) {
    let after = After { bias, ..After::default() };
    if shape.is_depthwise() {
        let stride = shape.groups * shape.output[0] * shape.output[1];
        return depthwise::forward(isa, shape, x, weight, &after, SharedOut::new(out), stride);
    }
    if let Some(frame) = shape.winograd_forward() {
        let weight = WinogradWeight::new(isa, shape.o, shape.i, weight, Taps::Forward);
        let stride = shape.o * shape.output[0] * shape.output[1];
        return winograd::forward(&weight, &frame, x, None, &after, SharedOut::new(out), stride);
    }
    let shape = shape.flattened();
    let (i, o, taps) = (shape.i, shape.o, shape.kernel_taps());
    let shifts = shape.forward();
    let packed: Vec<_> = weight
        .chunks_exact(o * i * taps)
        .map(|w| PackedWeight::new(isa, o, i * taps, |row, k| w[row * i * taps + k]))
        .collect();
    ShiftedSum { isa, shifts: &shifts, weights: &packed, n: shape.n, channels: i, before: None, after }.run(
        x,
        SharedOut::new(out),
        shape.groups * o * shape.output[0] * shape.output[1],
    );
}

/// Gradient for the input: `out` is `[n, groups * i, h, w]`, `dy` `[n, groups * o, oh, ow]`.
pub(crate) fn input_grad(
    isa: Isa,
    shape: &ConvShape,
    dy: Films<'_>,
    weight: &[f32],
    out: &mut [MaybeUninit<f32>],
) {
    if shape.is_depthwise() {
        return depthwise::input_grad(isa, shape, dy, weight, out);
    }
    if let Some(frame) = shape.winograd_input_grad() {
        let weight = WinogradWeight::new(isa, shape.o, shape.i, weight, Taps::InputGrad);
        let stride = shape.i * shape.input[0] * shape.input[1];
        return winograd::forward(&weight, &frame, dy, None, &After::default(), SharedOut::new(out), stride);
    }
    let shape = shape.flattened();
    let (i, o, kernel) = (shape.i, shape.o, shape.kernel_taps());
    let phases = shape.input_grad();
    let written: usize = phases.iter().map(|shifts| shifts.rows * shifts.cols).sum();
    if written < shape.input[0] * shape.input[1] {
        out.fill(MaybeUninit::new(0.0)); // pixels that no output sees
    }
    for shifts in phases {
        let taps = shifts.taps.len();
        let packed: Vec<_> = weight
            .chunks_exact(o * i * kernel)
            .map(|w| {
                PackedWeight::new(isa, i, o * taps, |row, k| {
                    let (channel, tap) = (k / taps, k % taps);
                    w[(channel * i + row) * kernel + shifts.taps[tap].kernel_index]
                })
            })
            .collect();
        let after = After::default();
        ShiftedSum { isa, shifts: &shifts, weights: &packed, n: shape.n, channels: o, before: None, after }
            .run(dy, SharedOut::new(out), shape.groups * i * shape.input[0] * shape.input[1]);
    }
}

/// What is done to source values before they are used: `max(x * scale + shift, 0)` by channel. Zeros of the
/// padding stay zeros.
#[derive(Clone, Copy)]
pub(crate) struct Before<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
}

impl<'a> Before<'a> {
    /// Of `count` channels from `first`.
    pub(crate) fn channels(&self, first: usize, count: usize) -> Self {
        Self { scale: &self.scale[first..][..count], shift: &self.shift[first..][..count] }
    }
}

/// What is done to sums before they are written.
#[derive(Clone, Copy, Default)]
pub(crate) struct After<'a> {
    /// Added to each output channel.
    pub bias: Option<&'a [f32]>,
    /// Added to each value; of the output's shape.
    pub residual: Option<Films<'a>>,
    /// What comes last.
    pub activation: Activation,
}

/// A sum of shifted planes over a batch: `channels` source planes a group, weighted.
pub(crate) struct ShiftedSum<'a> {
    pub isa: Isa,
    pub shifts: &'a Shifts,
    /// One for each group.
    pub weights: &'a [PackedWeight],
    pub n: usize,
    pub channels: usize,
    pub before: Option<Before<'a>>,
    pub after: After<'a>,
}

/// What one task of a [`ShiftedSum`] computes.
#[derive(Clone, Copy)]
struct Part<'a> {
    film: usize,
    group: usize,
    tile: &'a Tile,
    layout: &'a Layout,
}

impl ShiftedSum<'_> {
    /// Writes every pixel of the shifts' rows and columns, in every plane of `out`, whose films lie
    /// `out_stride` apart.
    pub(crate) fn run(&self, source: Films<'_>, out: SharedOut, out_stride: usize) {
        let Self { shifts, weights, n, channels, after, .. } = *self;
        let groups = weights.len();
        let targets = weights.first().map_or(0, PackedWeight::rows);
        let tiling =
            shifts.tiling(channels, SOURCE_BUDGET, targets, TARGET_BUDGET, 2usize.div_ceil(n * groups));
        let tiles = shifts.tiles(&tiling);
        let target_plane = shifts.target[0] * shifts.target[1];
        (0..n * groups * tiles.len()).into_par_iter().for_each(|task| {
            let (film, rest) = (task / (groups * tiles.len()), task % (groups * tiles.len()));
            let (group, tile) = (rest / tiles.len(), &tiles[rest % tiles.len()]);
            let layout = shifts.layout(tile, POSITION_STEP);
            SCRATCH.with_borrow_mut(|scratch| {
                let part = Part { film, group, tile, layout: &layout };
                let sums = self.sum_tile(part, tiling.channel_block, source, scratch);
                let finish = Finish {
                    residual: after.residual.map(|films| &films.data[film * films.stride..]),
                    activation: after.activation,
                };
                let first = group * targets * target_plane;
                // SAFETY: `out` is borrowed by the caller's frame, which waits for all tasks; tasks write
                // different films, groups or tiles, and tiles do not overlap.
                unsafe {
                    unpack_target(
                        self.isa,
                        shifts,
                        tile,
                        &layout,
                        sums,
                        finish,
                        out,
                        film * out_stride,
                        first,
                    )
                };
            });
        });
    }

    /// The sums of a tile: a row of positions for each target channel of the group.
    fn sum_tile<'s>(
        &self,
        part: Part<'_>,
        channel_block: usize,
        source: Films<'_>,
        scratch: &'s mut Scratch,
    ) -> &'s [f32] {
        let Self { isa, shifts, channels, .. } = *self;
        let Part { film, group, tile, layout } = part;
        let weight = &self.weights[group];
        let targets = weight.rows();
        let bias = self.after.bias.map(|bias| &bias[group * targets..][..targets]);
        let source_plane = shifts.source[0] * shifts.source[1];
        let tap_offsets = shifts.tap_offsets(layout);
        let sums = targets * layout.positions;
        if scratch.target.len() < sums {
            scratch.target.resize(sums, 0.0);
        }
        for first in (0..channels).step_by(channel_block) {
            let count = channel_block.min(channels - first);
            let channel = group * channels + first;
            let planes = source.part(film, channel * source_plane, count * source_plane);
            let before = self.before.map(|before| before.channels(channel, count));
            pack_source(isa, shifts, tile, layout, planes, before, count, &mut scratch.source);
            channel_offsets(&mut scratch.offsets, &tap_offsets, shifts, layout.plane, count);
            accumulate(
                weight,
                first * tap_offsets.len(),
                &scratch.source,
                &scratch.offsets,
                &mut scratch.target[..sums],
                layout.positions,
                (first == 0).then_some(bias),
            );
        }
        &scratch.target[..sums]
    }
}

/// Offsets of every (channel, tap) pair, channel first.
fn channel_offsets(
    offsets: &mut Vec<usize>,
    tap_offsets: &[usize],
    shifts: &Shifts,
    plane: usize,
    channels: usize,
) {
    let channel = shifts.phases.len() * plane;
    offsets.clear();
    offsets.extend((0..channels).flat_map(|c| tap_offsets.iter().map(move |offset| c * channel + offset)));
}

/// Gradient for the weight: `dw` is `[groups * o, i, kh, kw]` and is overwritten.
pub(crate) fn weight_grad(isa: Isa, shape: &ConvShape, x: Films<'_>, dy: Films<'_>, dw: &mut [f32]) {
    if shape.is_depthwise() {
        return depthwise::weight_grad(isa, shape, x, dy, dw);
    }
    if let Some(frame) = shape.winograd_forward() {
        return winograd::weight_grad(isa, &frame, x, shape.i, dy, shape.o, dw);
    }
    let shape = shape.flattened();
    if shape.is_product() {
        return weight_grad_of_product(&shape, x, dy, dw);
    }
    weight_grad_by_shifts(isa, &shape, x, dy, dw);
}

/// Side of the blocks that a product's weight gradient is cut into, and the number of jobs aimed at.
const BLOCK: usize = 128;
const JOBS: usize = 8;

/// Of a 1x1 convolution: `dw = Σ over films of dy xᵀ`, one matrix product for each film, group and block of `dw`.
///
/// Where there are few blocks the films are cut into runs, whose sums are added in order.
fn weight_grad_of_product(shape: &ConvShape, x: Films<'_>, dy: Films<'_>, dw: &mut [f32]) {
    let (i, o, pixels) = (shape.i, shape.o, shape.output[1]);
    let (row_blocks, column_blocks) = (o.div_ceil(BLOCK), i.div_ceil(BLOCK));
    let blocks = shape.groups * row_blocks * column_blocks;
    let runs = JOBS.div_ceil(blocks.max(1)).clamp(1, shape.n.max(1));
    let cut = |size: usize, parts: usize, part: usize| part * size / parts..(part + 1) * size / parts;
    let job_sum = |job: usize| {
        let (run, block) = (job / blocks, job % blocks);
        let (group, block) = (block / (row_blocks * column_blocks), block % (row_blocks * column_blocks));
        let rows = cut(o, row_blocks, block / column_blocks);
        let columns = cut(i, column_blocks, block % column_blocks);
        let mut sum = vec![0.0; rows.len() * columns.len()];
        for film in cut(shape.n, runs, run) {
            let of_dy = dy.matrix(film, group * o + rows.start, rows.len(), pixels);
            let of_x = x.matrix(film, group * i + columns.start, columns.len(), pixels);
            add_product(of_dy, of_x, &mut sum, columns.len());
        }
        (group * o + rows.start, columns, sum)
    };
    let sums: Vec<_> = (0..runs * blocks).into_par_iter().map(job_sum).collect();
    dw.fill(0.0);
    for (first_row, columns, sum) in sums {
        for (r, row) in sum.chunks_exact(columns.len()).enumerate() {
            let to = &mut dw[(first_row + r) * i..][columns.clone()];
            to.iter_mut().zip(row).for_each(|(to, value)| *to += value);
        }
    }
}

/// Most partial sums of a weight gradient, and the memory they may take together (values).
const MAX_PARTIALS: usize = 16;
const PARTIAL_BUDGET: usize = 4 << 20;

/// Of any convolution. The (film, tile) pairs are cut into a fixed number of runs; each run adds up its own partial sum, and
/// the partial sums are added in order.
fn weight_grad_by_shifts(isa: Isa, shape: &ConvShape, x: Films<'_>, dy: Films<'_>, dw: &mut [f32]) {
    let (i, o) = (shape.i, shape.o);
    let shifts = shape.forward();
    let taps = shifts.taps.len();
    let size = o * i * taps;
    dw.fill(0.0);
    if size == 0 {
        return;
    }
    // Output channels are cut too when there are too few partial sums to keep all cores busy.
    let runs_wanted = (PARTIAL_BUDGET / (size * shape.groups)).clamp(1, MAX_PARTIALS);
    let row_parts = (8 / runs_wanted).max(1).min(o.div_ceil(32));
    let rows_a_part = o.div_ceil(row_parts);
    let tiling = shifts.tiling(i, SOURCE_BUDGET, rows_a_part, TARGET_BUDGET, 1);
    let tiles = shifts.tiles(&tiling);
    let items: Vec<(usize, &Tile)> =
        (0..shape.n).flat_map(|film| tiles.iter().map(move |tile| (film, tile))).collect();
    let runs = runs_wanted.min(items.len()).max(1);
    let source_plane = shape.input[0] * shape.input[1];
    let target_plane = shape.output[0] * shape.output[1];

    let jobs = runs * shape.groups * row_parts;
    let job_sum = |job: usize| {
        let (run, rest) = (job / (shape.groups * row_parts), job % (shape.groups * row_parts));
        let (group, part) = (rest / row_parts, rest % row_parts);
        let first_row = (part * rows_a_part).min(o);
        let rows = rows_a_part.min(o - first_row);
        let mut partial = vec![0.0f32; rows * i * taps];
        let (begin, end) = (run * items.len() / runs, (run + 1) * items.len() / runs);
        for &(film, tile) in &items[begin..end] {
            let layout = shifts.layout(tile, POSITION_STEP);
            let tap_offsets = shifts.tap_offsets(&layout);
            SCRATCH.with_borrow_mut(|scratch| {
                let first_target = (group * o + first_row) * target_plane;
                let grads = dy.part(film, first_target, rows * target_plane);
                pack_target(&shifts, tile, &layout, grads, rows, &mut scratch.target);
                for first in (0..i).step_by(tiling.channel_block) {
                    let count = tiling.channel_block.min(i - first);
                    let planes = x.part(film, (group * i + first) * source_plane, count * source_plane);
                    pack_source(isa, &shifts, tile, &layout, planes, None, count, &mut scratch.source);
                    channel_offsets(&mut scratch.offsets, &tap_offsets, &shifts, layout.plane, count);
                    accumulate_weight_grad(
                        isa,
                        &scratch.source,
                        &scratch.offsets,
                        &scratch.target,
                        rows,
                        layout.positions,
                        &mut partial,
                        i * taps,
                        first * taps,
                    );
                }
            });
        }
        partial
    };
    let partials: Vec<Vec<f32>> = (0..jobs).into_par_iter().map(job_sum).collect();
    // Jobs are in order of run, then of rows: one run's partial sums, one after the other, are one `dw`.
    for run in partials.chunks_exact(shape.groups * row_parts) {
        let mut rest = &mut *dw;
        for partial in run {
            let (part, after) = rest.split_at_mut(partial.len());
            for (sum, value) in part.iter_mut().zip(partial) {
                *sum += value;
            }
            rest = after;
        }
    }
}

/// Gradient for the bias: `db[o] = sum over films and pixels of dy`.
pub(crate) fn bias_grad(n: usize, pixels: usize, dy: Films<'_>, db: &mut [f32]) {
    db.par_iter_mut().enumerate().for_each(|(o, sum)| {
        let total: f64 = (0..n).map(|film| super::elementwise::sum(dy.part(film, o * pixels, pixels))).sum();
        *sum = total as f32;
    });
}

#[cfg(test)]
mod tests;
