//! The weight gradient by Winograd's method: `dg = Gᵀ [Σ (A dY Aᵀ) ⊙ (Bᵀ d B)] G`, the sum over all tiles.
//!
//! Tiles are taken a chunk at a time. A chunk's inputs and output gradients are transformed, channel by channel, then
//! each of the 36 products adds one matrix product to its sum: what a thread writes is its own, and the order of the
//! sum is that of the tiles.

use std::cell::Cell;

use rayon::prelude::*;

use super::super::conv::Films;
use super::super::gemm::{Matrix, add_product};
use super::super::product::POSITION_STEP;
use super::super::simd::Isa;
use super::transform::{InputTransform, OutputAdjoint, Rows, WeightAdjoint};
use super::{Frame, IN, OUT, PRODUCTS, Planes, Run, at_least, matrix_stride};

/// Transformed values of a chunk (8 MiB): they stay in a third-level cache.
const CHUNK_BUDGET: usize = 2 << 20;

#[derive(Default)]
struct Buffers {
    inputs: Vec<f32>,
    grads: Vec<f32>,
    sums: Vec<f32>,
}

#[derive(Default)]
struct Scratch {
    line: Vec<f32>,
    gathered: Vec<f32>,
}

thread_local! {
    /// Taken for the length of a call: a thread that waits for its tasks may begin another call.
    static BUFFERS: Cell<Buffers> = Cell::default();
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// Values of one chunk on Winograd's side: 36 matrices of `channels x positions`.
struct Chunk<'a> {
    values: &'a mut [f32],
    channels: usize,
    positions: usize,
}

impl<'a> Chunk<'a> {
    fn new(buffer: &'a mut Vec<f32>, channels: usize, positions: usize) -> Self {
        let values = at_least(buffer, PRODUCTS * matrix_stride(channels, positions));
        Self { values, channels, positions }
    }

    fn stride(&self) -> usize {
        matrix_stride(self.channels, self.positions)
    }

    /// Fills the chunk: each channel's tiles of `SIDE` x `SIDE` values are gathered, then `transform`ed into its rows.
    fn fill<const SIDE: usize, R: Iterator<Item = Run>>(
        &mut self,
        planes: Planes<'_>,
        runs: impl Fn() -> R + Sync,
        transform: impl Fn(&[f32], Rows) + Sync,
    ) {
        let (positions, stride, len) = (self.positions, self.stride(), self.values.len());
        let start = Start(self.values.as_mut_ptr());
        (0..self.channels).into_par_iter().with_min_len(4).for_each(|channel| {
            let mut scratch = SCRATCH.take();
            let gathered = at_least(&mut scratch.gathered, SIDE * SIDE * positions);
            gathered.fill(0.0); // positions behind the last tile stay zero
            planes.gather::<SIDE>(channel, runs(), None, positions, &mut scratch.line, gathered);
            // SAFETY: `self` is borrowed until all channels are done, and the rows of a channel are written by its
            // task alone.
            let rows = unsafe { Rows::of(start.get(), len, channel * positions, stride, positions) };
            transform(gathered, rows);
            SCRATCH.set(scratch);
        });
    }

    fn matrix(&self, product: usize) -> Matrix<'_> {
        Matrix {
            values: &self.values[product * self.stride()..],
            rows: self.channels,
            columns: self.positions,
            stride: self.positions,
        }
    }
}

/// Where the values of a chunk begin.
#[derive(Clone, Copy)]
struct Start(*mut f32);

// SAFETY: the pointer is only used by the tasks of `Chunk::fill`, which write disjoint rows.
unsafe impl Send for Start {}
// SAFETY: as above.
unsafe impl Sync for Start {}

impl Start {
    fn get(self) -> *mut f32 {
        self.0
    }
}

/// `dw` is `[outputs, inputs, 3, 3]` and is overwritten.
pub(crate) fn weight_grad(
    isa: Isa,
    frame: &Frame,
    x: Films<'_>,
    inputs: usize,
    dy: Films<'_>,
    outputs: usize,
    dw: &mut [f32],
) {
    let (dw, rest) = dw.as_chunks_mut::<9>();
    assert!(rest.is_empty() && dw.len() == outputs * inputs);
    let [rows, cols] = frame.tiles();
    let tiles = frame.n * rows * cols;
    let most = (CHUNK_BUDGET / (PRODUCTS * (inputs + outputs))).clamp(64, 512);
    let chunks = tiles.div_ceil(most).max(1);
    let size = tiles.div_ceil(chunks).next_multiple_of(POSITION_STEP);

    let mut buffers = BUFFERS.take();
    let columns = inputs.next_multiple_of(POSITION_STEP);
    let sums = at_least(&mut buffers.sums, PRODUCTS * outputs * columns);
    sums.fill(0.0);
    let sources = Planes { isa, films: x, size: frame.input, padding: frame.padding };
    let targets = Planes { isa, films: dy, size: frame.output(), padding: [0, 0] };
    for from in (0..tiles).step_by(size) {
        let to = (from + size).min(tiles);
        let positions = (to - from).next_multiple_of(POSITION_STEP);
        let runs = || frame.runs(from, to);
        let mut of_x = Chunk::new(&mut buffers.inputs, inputs, positions);
        of_x.fill::<IN, _>(sources, runs, |from, to| isa.run(InputTransform::into_rows(from, to, positions)));
        let mut of_dy = Chunk::new(&mut buffers.grads, outputs, positions);
        of_dy
            .fill::<OUT, _>(targets, runs, |from, to| isa.run(OutputAdjoint::into_rows(from, to, positions)));
        sums.par_chunks_exact_mut(outputs * columns).enumerate().for_each(|(product, sum)| {
            add_product(of_dy.matrix(product), of_x.matrix(product), sum, columns);
        });
    }
    let sums = &*sums;
    dw.par_chunks_exact_mut(inputs).enumerate().for_each(|(o, dw)| {
        isa.run(WeightAdjoint::new(&sums[o * columns..], outputs * columns, dw));
    });
    BUFFERS.set(buffers);
}
