//! 3×3 convolutions at stride 1 by Winograd's method, F(4×4, 3×3): 36 products in place of 144 for a tile of
//! 4×4 outputs (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308).
//!
//! The points of interpolation are 0, ±11/16, ±11/8 and infinity: the error is then about twice that of the
//! direct sum, where the usual ±1, ±2 give five times (Barabasz et al., arXiv 1803.10986, on the choice of
//! points). Every sum has a fixed order, whatever tiles are taken together.
//!
//! With g the weights, d a tile of the input and ⊙ the product element by element, the outputs of a tile are
//! `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`, summed over channels before the last step. The input gradient is such a
//! convolution too, of the output's gradient; the weight gradient is the adjoint in g ([`weight_grad`]).

use std::cell::RefCell;

use rayon::prelude::*;

use super::conv::{After, Before, Films};
use super::planes::{Finish, SharedOut};
use super::product::{POSITION_STEP, accumulate};
use super::row;
use super::simd::Isa;

mod transform;
mod weight;
mod weight_grad;

use transform::{InputTransform, OutputTransform};
pub(crate) use weight::{Taps, WinogradWeight};
pub(crate) use weight_grad::weight_grad;

/// The two pairs of points, ±A and ±B.
const A: f64 = 0.6875;
const B: f64 = 1.375;

/// Side of a tile of outputs, of the input it sees, and the products of a tile.
const OUT: usize = 4;
const IN: usize = 6;
const PRODUCTS: usize = IN * IN;

/// Transformed inputs and products that a task holds at once (values, 2 MiB).
const TASK_BUDGET: usize = 512 << 10;

/// A batch of maps and the frame of zeros around them.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub n: usize,
    /// `[height, width]`
    pub input: [usize; 2],
    pub padding: [usize; 2],
}

impl Frame {
    pub(crate) fn output(&self) -> [usize; 2] {
        core::array::from_fn(|d| self.input[d] + 2 * self.padding[d] - 2)
    }

    /// Rows and columns of tiles of one film.
    pub(crate) fn tiles(&self) -> [usize; 2] {
        self.output().map(|size| size.div_ceil(OUT))
    }

    /// Whether a film has tiles enough to fill the vectors. Looks at one film, so that a film alone and in a
    /// batch go the same way.
    pub(crate) fn pays(&self) -> bool {
        let [rows, cols] = self.tiles();
        rows * cols >= 6
    }

    /// Tiles `from..to` of the batch, cut where a row of tiles ends.
    fn runs(&self, from: usize, to: usize) -> impl Iterator<Item = Run> {
        let [rows, cols] = self.tiles();
        let mut at = from;
        core::iter::from_fn(move || {
            let (film, row, col) = (at / (rows * cols), at / cols % rows, at % cols);
            let count = (cols - col).min(to - at);
            let run = Run { at: at - from, film, row, col, count };
            at += count;
            (count > 0).then_some(run)
        })
    }
}

/// Neighbouring tiles in one row of tiles of one film.
#[derive(Clone, Copy)]
struct Run {
    /// Place of the first in the task.
    at: usize,
    film: usize,
    row: usize,
    col: usize,
    count: usize,
}

#[derive(Default)]
struct Scratch {
    line: Vec<f32>,
    gathered: Vec<f32>,
    inputs: Vec<f32>,
    products: Vec<f32>,
    offsets: Vec<usize>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// `out = conv(before(source)) + bias`, finished; films of `out` lie `out_stride` apart.
pub(crate) fn forward(
    weight: &WinogradWeight,
    frame: &Frame,
    source: Films<'_>,
    before: Option<Before<'_>>,
    after: &After<'_>,
    out: SharedOut,
    out_stride: usize,
) {
    let [rows, cols] = frame.tiles();
    let tiles = frame.n * rows * cols;
    let most = TASK_BUDGET / (PRODUCTS * (weight.inputs + weight.outputs));
    let most = most.clamp(32, 128) / POSITION_STEP * POSITION_STEP;
    // An even number of tasks of one size: two threads then end together.
    let tasks = tiles.div_ceil(most).next_multiple_of(2);
    let size = tiles.div_ceil(tasks).next_multiple_of(POSITION_STEP);
    (0..tiles.div_ceil(size)).into_par_iter().for_each(|task| {
        let (from, to) = (task * size, ((task + 1) * size).min(tiles));
        let positions = (to - from).next_multiple_of(POSITION_STEP);
        SCRATCH.with_borrow_mut(|scratch| {
            let runs = || frame.runs(from, to);
            transform_inputs(weight, frame, runs, source, before, positions, scratch);
            multiply(weight, positions, scratch);
            transform_outputs(weight, frame, runs, after, positions, scratch, out, out_stride);
        });
    });
}

/// From one product's matrix to the next: a cache line more than the values, so that the 36 do not compete for
/// one cache set.
fn matrix_stride(channels: usize, positions: usize) -> usize {
    channels * positions + POSITION_STEP
}

fn at_least(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

fn transform_inputs<R: Iterator<Item = Run>>(
    weight: &WinogradWeight,
    frame: &Frame,
    runs: impl Fn() -> R,
    source: Films<'_>,
    before: Option<Before<'_>>,
    positions: usize,
    scratch: &mut Scratch,
) {
    let stride = matrix_stride(weight.inputs, positions);
    let Scratch { line, gathered, inputs, .. } = scratch;
    let inputs = at_least(inputs, PRODUCTS * stride);
    let gathered = at_least(gathered, PRODUCTS * positions);
    gathered.fill(0.0); // positions behind the last tile stay zero
    let planes = Planes { isa: weight.isa, films: source, size: frame.input, padding: frame.padding };
    for channel in 0..weight.inputs {
        let affine = before.map(|before| (before.scale[channel], before.shift[channel]));
        planes.gather::<IN>(channel, runs(), affine, positions, line, gathered);
        let out = &mut inputs[channel * positions..];
        weight.isa.run(InputTransform::new(gathered, out, stride, positions));
    }
}

/// Planes that tiles are taken from, with zeros around them.
#[derive(Clone, Copy)]
struct Planes<'a> {
    isa: Isa,
    films: Films<'a>,
    /// `[height, width]`
    size: [usize; 2],
    padding: [usize; 2],
}

impl Planes<'_> {
    /// Value (i, j) of each tile of the runs, `SIDE` values wide and high and [`OUT`] apart, into
    /// `gathered[(i * SIDE + j) * positions + tile]`.
    fn gather<const SIDE: usize>(
        &self,
        channel: usize,
        runs: impl Iterator<Item = Run>,
        affine: Option<(f32, f32)>,
        positions: usize,
        line: &mut Vec<f32>,
        gathered: &mut [f32],
    ) {
        let [height, width] = self.size;
        for run in runs {
            let plane = self.films.part(run.film, channel * height * width, height * width);
            // Columns of the run's input, of which `zeros` lie left of the image.
            let columns = (run.count - 1) * OUT + SIDE;
            let first = (run.col * OUT) as isize - self.padding[1] as isize;
            let zeros = (-first).clamp(0, columns as isize) as usize;
            let from = first.max(0) as usize;
            let count = width.saturating_sub(from).min(columns - zeros);
            for i in 0..SIDE {
                let targets = &mut gathered[i * SIDE * positions..][..SIDE * positions];
                let y = (run.row * OUT + i) as isize - self.padding[0] as isize;
                if y < 0 || y as usize >= height {
                    for target in targets.chunks_exact_mut(positions) {
                        target[run.at..][..run.count].fill(0.0);
                    }
                    continue;
                }
                let line = at_least(line, columns);
                line[..zeros].fill(0.0);
                line[zeros + count..].fill(0.0);
                let pixels = &plane[(y as usize * width + from).min(plane.len())..][..count];
                let inside = &mut line[zeros..][..count];
                match affine {
                    Some((scale, shift)) => row::affine_relu(self.isa, pixels, scale, shift, inside),
                    None => inside.copy_from_slice(pixels),
                }
                spread::<SIDE>(line, targets, positions, run.at, run.count);
            }
        }
    }
}

/// `targets[j][at + t] = line[4 t + j]` for the `SIDE` columns j of each tile t.
fn spread<const SIDE: usize>(line: &[f32], targets: &mut [f32], positions: usize, at: usize, count: usize) {
    let mut parts = targets.chunks_exact_mut(positions).map(|column| &mut column[at..][..count]);
    let mut columns: [&mut [f32]; SIDE] =
        core::array::from_fn(|_| parts.next().expect("a column for each position of a tile"));
    for (t, window) in line.windows(SIDE).step_by(OUT).take(count).enumerate() {
        for (column, value) in columns.iter_mut().zip(window) {
            column[t] = *value;
        }
    }
}

/// The 36 matrix products.
fn multiply(weight: &WinogradWeight, positions: usize, scratch: &mut Scratch) {
    let Scratch { inputs, products, offsets, .. } = scratch;
    let in_stride = matrix_stride(weight.inputs, positions);
    let out_stride = matrix_stride(weight.outputs, positions);
    let products = at_least(products, PRODUCTS * out_stride);
    offsets.clear();
    offsets.extend((0..weight.inputs).map(|channel| channel * positions));
    let pairs = inputs.chunks_exact(in_stride).zip(products.chunks_exact_mut(out_stride));
    for (matrix, (input, product)) in pairs.enumerate() {
        let first = matrix * weight.inputs;
        accumulate(&weight.packed, first, input, offsets, product, positions, Some(None));
    }
}

#[expect(clippy::too_many_arguments, reason = "the task, its values and where they go")]
fn transform_outputs<R: Iterator<Item = Run>>(
    weight: &WinogradWeight,
    frame: &Frame,
    runs: impl Fn() -> R,
    after: &After<'_>,
    positions: usize,
    scratch: &mut Scratch,
    out: SharedOut,
    out_stride: usize,
) {
    let [height, width] = frame.output();
    let stride = matrix_stride(weight.outputs, positions);
    let Scratch { line, gathered, products, .. } = scratch;
    for channel in 0..weight.outputs {
        let bias = after.bias.map_or(0.0, |bias| bias[channel]);
        let tiles = at_least(gathered, OUT * OUT * positions);
        let product = &products[channel * positions..];
        weight.isa.run(OutputTransform::new(product, stride, tiles, positions, bias));
        for run in runs() {
            let finish = Finish {
                residual: after.residual.map(|films| &films.data[run.film * films.stride..]),
                activation: after.activation,
            };
            let x = run.col * OUT;
            let count = (run.count * OUT).min(width - x);
            for i in 0..OUT.min(height - run.row * OUT) {
                let line = at_least(line, run.count * OUT);
                let rows = &tiles[i * OUT * positions..][..OUT * positions];
                collect(rows, line, positions, run.at);
                let at = (channel * height + run.row * OUT + i) * width + x;
                // SAFETY: `out` is borrowed by `forward`'s caller, which waits for all tasks; a tile is in
                // one task, and tiles do not overlap.
                let to = unsafe { out.part(run.film * out_stride + at, count) };
                finish.row(weight.isa, &line[..count], at, to);
            }
        }
    }
}

/// `line[4 t + j] = rows[j][at + t]` for the four columns j of each tile t.
fn collect(rows: &[f32], line: &mut [f32], positions: usize, at: usize) {
    let mut parts = rows.chunks_exact(positions).map(|column| &column[at..]);
    let columns: [&[f32]; OUT] =
        core::array::from_fn(|_| parts.next().expect("a column for each position of a tile"));
    for (t, four) in line.as_chunks_mut::<OUT>().0.iter_mut().enumerate() {
        *four = core::array::from_fn(|j| columns[j][t]);
    }
}
