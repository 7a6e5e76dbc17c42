//! 3×3 convolutions at stride 1 by Winograd's method, F(4×4, 3×3): 36 products in place of 144 for a tile of
//! 4×4 outputs (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308).
//!
//! The points of interpolation are 0, ±11/16, ±11/8 and infinity: the error is then about twice that of the
//! direct sum, where the usual ±1, ±2 give five times (Barabasz et al., arXiv 1803.10986, on the choice of
//! points). Every sum has a fixed order, whatever tiles are taken together.

use std::cell::RefCell;

use rayon::prelude::*;

use super::conv::{After, Before, Films};
use super::planes::{Finish, SharedOut};
use super::product::{POSITION_STEP, PackedWeight, accumulate};
use super::row;
use super::simd::{Isa, Kernel, Vector};

/// The two pairs of points, ±A and ±B.
const A: f64 = 0.6875;
const B: f64 = 1.375;

/// Side of a tile of outputs, of the input it sees, and the products of a tile.
const OUT: usize = 4;
const IN: usize = 6;
const PRODUCTS: usize = IN * IN;

/// Transformed inputs and products that a task holds at once (values, 2 MiB).
const TASK_BUDGET: usize = 512 << 10;

/// Weights of one group, transformed: for each of the 36 products an `o x i` matrix.
pub(crate) struct WinogradWeight {
    isa: Isa,
    matrices: Vec<PackedWeight>,
    inputs: usize,
    outputs: usize,
}

impl WinogradWeight {
    /// `weight` is `[outputs, inputs, 3, 3]`.
    pub(crate) fn new(isa: Isa, outputs: usize, inputs: usize, weight: &[f32]) -> Self {
        let g = weight_transform();
        // [o, i, 3, 3] -> [o, i, 36], in f64: rounded once
        let transformed: Vec<[f32; PRODUCTS]> = weight
            .as_chunks::<9>()
            .0
            .iter()
            .map(|w| {
                core::array::from_fn(|product| {
                    let (y, x) = (&g[product / IN], &g[product % IN]);
                    let term = |k: usize| y[k / 3] * f64::from(w[k]) * x[k % 3];
                    (0..9).map(term).sum::<f64>() as f32
                })
            })
            .collect();
        let matrices = (0..PRODUCTS)
            .map(|product| {
                PackedWeight::new(isa, outputs, inputs, |o, i| transformed[o * inputs + i][product])
            })
            .collect();
        Self { isa, matrices, inputs, outputs }
    }
}

/// G of `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`: a row for each point.
fn weight_transform() -> [[f64; 3]; IN] {
    let pair = |p: f64, q: f64| {
        let scale = 1.0 / (2.0 * p * p * (p * p - q * q));
        ([scale, scale * p, scale * p * p], [scale, -scale * p, scale * p * p])
    };
    let ((a, minus_a), (b, minus_b)) = (pair(A, B), pair(B, A));
    [[1.0 / (A * A * B * B), 0.0, 0.0], a, minus_a, b, minus_b, [0.0, 0.0, 1.0]]
}

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
    let [height, width] = frame.input;
    let stride = matrix_stride(weight.inputs, positions);
    let inputs = at_least(&mut scratch.inputs, PRODUCTS * stride);
    let gathered = at_least(&mut scratch.gathered, PRODUCTS * positions);
    gathered.fill(0.0); // positions behind the last tile stay zero
    for channel in 0..weight.inputs {
        let affine = before.map(|before| (before.scale[channel], before.shift[channel]));
        for run in runs() {
            let plane = source.part(run.film, channel * height * width, height * width);
            // Columns of the run's input, of which `zeros` lie left of the image.
            let columns = run.count * OUT + IN - OUT;
            let first = (run.col * OUT) as isize - frame.padding[1] as isize;
            let zeros = (-first).clamp(0, columns as isize) as usize;
            let from = first.max(0) as usize;
            let count = width.saturating_sub(from).min(columns - zeros);
            for i in 0..IN {
                let targets = &mut gathered[i * IN * positions..][..IN * positions];
                let y = (run.row * OUT + i) as isize - frame.padding[0] as isize;
                if y < 0 || y as usize >= height {
                    for target in targets.chunks_exact_mut(positions) {
                        target[run.at..][..run.count].fill(0.0);
                    }
                    continue;
                }
                let line = at_least(&mut scratch.line, columns);
                line[..zeros].fill(0.0);
                line[zeros + count..].fill(0.0);
                let (pixels, inside) =
                    (&plane[y as usize * width + from..][..count], &mut line[zeros..][..count]);
                match affine {
                    Some((scale, shift)) => row::affine_relu(weight.isa, pixels, scale, shift, inside),
                    None => inside.copy_from_slice(pixels),
                }
                spread(line, targets, positions, run.at, run.count);
            }
        }
        let out = &mut inputs[channel * positions..];
        weight.isa.run(InputTransform::new(gathered, out, stride, positions));
    }
}

/// `targets[j][at + t] = line[4 t + j]` for the six columns j of each tile t.
fn spread(line: &[f32], targets: &mut [f32], positions: usize, at: usize, count: usize) {
    let mut parts = targets.chunks_exact_mut(positions).map(|column| &mut column[at..][..count]);
    let mut columns: [&mut [f32]; IN] =
        core::array::from_fn(|_| parts.next().expect("a column for each position of a tile"));
    for (t, window) in line.windows(IN).step_by(OUT).take(count).enumerate() {
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
    for (matrix, (input, product)) in weight.matrices.iter().zip(pairs) {
        accumulate(matrix, 0, input, offsets, product, positions, Some(None));
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
                relu: after.relu,
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

/// `Bᵀ d B` of many tiles: `from` holds 36 rows of `positions`, and so will `to`, `stride` apart.
struct InputTransform<'a> {
    from: &'a [f32],
    to: &'a mut [f32],
    stride: usize,
    positions: usize,
}

impl<'a> InputTransform<'a> {
    fn new(from: &'a [f32], to: &'a mut [f32], stride: usize, positions: usize) -> Self {
        assert!(positions.is_multiple_of(POSITION_STEP) && from.len() >= PRODUCTS * positions);
        assert!(to.len() >= (PRODUCTS - 1) * stride + positions);
        Self { from, to, stride, positions }
    }
}

impl Kernel for InputTransform<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (from, to) = (self.from.as_ptr(), self.to.as_mut_ptr());
        let mut v = 0;
        while v < self.positions {
            // SAFETY: `new` checked that all 36 rows hold `positions` values, a multiple of the lanes.
            unsafe {
                let mut columns = [[V::splat(0.0); IN]; IN];
                for (j, column) in columns.iter_mut().enumerate() {
                    let mut d = [V::splat(0.0); IN];
                    for (i, value) in d.iter_mut().enumerate() {
                        *value = V::load(from.add((i * IN + j) * self.positions + v));
                    }
                    *column = input_transform(d);
                }
                let mut i = 0;
                while i < IN {
                    let [a, b, c, d, e, f] = &columns;
                    let row = input_transform([a[i], b[i], c[i], d[i], e[i], f[i]]);
                    for (j, value) in row.iter().enumerate() {
                        value.store(to.add((i * IN + j) * self.stride + v));
                    }
                    i += 1;
                }
            }
            v += V::LANES;
        }
    }
}

/// `Aᵀ m A + bias` of many tiles: `from` holds 36 rows of `positions`, `stride` apart, `to` will hold 16.
struct OutputTransform<'a> {
    from: &'a [f32],
    stride: usize,
    to: &'a mut [f32],
    positions: usize,
    bias: f32,
}

impl<'a> OutputTransform<'a> {
    fn new(from: &'a [f32], stride: usize, to: &'a mut [f32], positions: usize, bias: f32) -> Self {
        assert!(positions.is_multiple_of(POSITION_STEP) && to.len() >= OUT * OUT * positions);
        assert!(from.len() >= (PRODUCTS - 1) * stride + positions);
        Self { from, stride, to, positions, bias }
    }
}

impl Kernel for OutputTransform<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (from, to) = (self.from.as_ptr(), self.to.as_mut_ptr());
        let mut v = 0;
        while v < self.positions {
            // SAFETY: `new` checked that all rows hold `positions` values, a multiple of the lanes.
            unsafe {
                let (zero, bias) = (V::splat(0.0), V::splat(self.bias));
                let mut columns = [[zero; OUT]; IN];
                for (j, column) in columns.iter_mut().enumerate() {
                    let mut m = [zero; IN];
                    for (i, value) in m.iter_mut().enumerate() {
                        *value = V::load(from.add((i * IN + j) * self.stride + v));
                    }
                    *column = output_transform(m, zero);
                }
                let mut i = 0;
                while i < OUT {
                    let [a, b, c, d, e, f] = &columns;
                    let row = output_transform([a[i], b[i], c[i], d[i], e[i], f[i]], bias);
                    for (j, value) in row.iter().enumerate() {
                        value.store(to.add((i * OUT + j) * self.positions + v));
                    }
                    i += 1;
                }
            }
            v += V::LANES;
        }
    }
}

/// `Bᵀ d`: rows of the pairs ±p are an even part plus and minus an odd one.
///
/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
unsafe fn input_transform<V: Vector>(d: [V; IN]) -> [V; IN] {
    const AA: f64 = A * A;
    const BB: f64 = B * B;
    // SAFETY: the caller's contract; nothing is loaded or stored.
    unsafe {
        let [minus_aa, minus_bb] = [V::splat(-AA as f32), V::splat(-BB as f32)];
        let (outer, inner) = (V::splat((AA * BB) as f32), V::splat(-(AA + BB) as f32));
        let even_a = d[4].add_product(d[2], minus_bb);
        let odd_a = d[3].add_product(d[1], minus_bb);
        let even_b = d[4].add_product(d[2], minus_aa);
        let odd_b = d[3].add_product(d[1], minus_aa);
        [
            d[4].add_product(d[2], inner).add_product(d[0], outer),
            even_a.add_product(odd_a, V::splat(A as f32)),
            even_a.add_product(odd_a, V::splat(-A as f32)),
            even_b.add_product(odd_b, V::splat(B as f32)),
            even_b.add_product(odd_b, V::splat(-B as f32)),
            d[5].add_product(d[3], inner).add_product(d[1], outer),
        ]
    }
}

/// `Aᵀ m + start`.
///
/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
unsafe fn output_transform<V: Vector>(m: [V; IN], start: V) -> [V; OUT] {
    // SAFETY: the caller's contract; nothing is loaded or stored.
    unsafe {
        let (one, minus) = (V::splat(1.0), V::splat(-1.0));
        let (sum_a, difference_a) = (m[1].add_product(m[2], one), m[1].add_product(m[2], minus));
        let (sum_b, difference_b) = (m[3].add_product(m[4], one), m[3].add_product(m[4], minus));
        [
            start.add_product(m[0], one).add_product(sum_a, one).add_product(sum_b, one),
            start.add_product(difference_a, V::splat(A as f32)).add_product(difference_b, V::splat(B as f32)),
            start.add_product(sum_a, V::splat((A * A) as f32)).add_product(sum_b, V::splat((B * B) as f32)),
            start
                .add_product(m[5], one)
                .add_product(difference_a, V::splat((A * A * A) as f32))
                .add_product(difference_b, V::splat((B * B * B) as f32)),
        ]
    }
}
