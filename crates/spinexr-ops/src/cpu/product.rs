//! The two inner products every convolution pass comes down to, over padded planes.
//!
//! The planes lie in one buffer; each (channel, tap) pair is an offset into it, and position `v` of that
//! pair is `x[offset + v]`. Then
//! - [`accumulate`]: `acc[o][v] += sum_k weight[o][k] * x[offset[k] + v]` (forward, input gradient),
//! - [`accumulate_weight_grad`]: `dw[o][k] += sum_v dy[o][v] * x[offset[k] + v]`.
//!
//! Neither copies the input for each tap, which is what makes im2col with a matrix product slow for the
//! narrow layers of small networks.

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Isa, Kernel, Portable, Vector};

/// Positions are processed in multiples of this (a vector of the widest instruction set).
pub(crate) const POSITION_STEP: usize = 16;

/// Output channels of weight-gradient register blocks.
const DOT_ROWS: usize = 4;

/// Cut `n` into the fewest blocks of at most `max`, sizes differing by one at most: `(start, length)`.
#[inline(always)]
fn even_blocks(n: usize, max: usize) -> impl Iterator<Item = (usize, usize)> {
    let blocks = n.div_ceil(max).max(1);
    (0..blocks).map(move |b| {
        let (start, end) = (b * n / blocks, (b + 1) * n / blocks);
        (start, end - start)
    })
}

fn max_rows(isa: Isa) -> usize {
    match isa {
        Isa::Portable => Portable::MAX_ROWS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Avx2::MAX_ROWS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Avx512::MAX_ROWS,
    }
}

/// Weights in the order [`accumulate`] reads them: by block of output channels, then by tap.
pub(crate) struct PackedWeight {
    isa: Isa,
    values: Vec<f32>,
    rows: usize,
    taps: usize,
}

impl PackedWeight {
    /// Pack a `rows x taps` matrix given by its entries.
    pub(crate) fn new(isa: Isa, rows: usize, taps: usize, entry: impl Fn(usize, usize) -> f32) -> Self {
        let mut values = Vec::with_capacity(rows * taps);
        for (start, len) in even_blocks(rows, max_rows(isa)) {
            for k in 0..taps {
                values.extend((start..start + len).map(|o| entry(o, k)));
            }
        }
        Self { isa, values, rows, taps }
    }

    /// Pack by block: `fill(first row, rows, values)` sets `values[tap * rows + row]`. Blocks are filled in parallel.
    pub(crate) fn by_block(
        isa: Isa,
        rows: usize,
        taps: usize,
        fill: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) -> Self {
        let mut values = vec![0.0; rows * taps];
        let mut blocks = Vec::new();
        let mut rest = values.as_mut_slice();
        for (start, len) in even_blocks(rows, max_rows(isa)) {
            let (block, after) = rest.split_at_mut(len * taps);
            blocks.push((start, len, block));
            rest = after;
        }
        blocks.into_par_iter().for_each(|(start, len, block)| fill(start, len, block));
        Self { isa, values, rows, taps }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }
}

/// `acc[o][v] = start + sum over taps first_tap.. of weight[o][k] * x[offsets[k - first_tap] + v]`.
///
/// `start` is what `acc` holds, or, on the first call for a tile, the bias (0 without one).
/// `positions` is a multiple of [`POSITION_STEP`]; `acc` has `weight.rows()` rows of `positions`.
pub(crate) fn accumulate(
    weight: &PackedWeight,
    first_tap: usize,
    x: &[f32],
    offsets: &[usize],
    acc: &mut [f32],
    positions: usize,
    first: Option<Option<&[f32]>>,
) {
    assert_eq!(positions % POSITION_STEP, 0);
    assert!(first_tap + offsets.len() <= weight.taps);
    assert!(acc.len() >= weight.rows * positions);
    assert!(offsets.iter().all(|&offset| offset + positions <= x.len()));
    assert!(first.flatten().is_none_or(|bias| bias.len() == weight.rows));
    let acc = acc.as_mut_ptr();
    weight.isa.run(Accumulate { weight, first_tap, x, offsets, acc, positions, first });
}

/// The arguments of [`accumulate`], checked; `acc` is borrowed by its frame.
#[derive(Clone, Copy)]
struct Accumulate<'a> {
    weight: &'a PackedWeight,
    first_tap: usize,
    x: &'a [f32],
    offsets: &'a [usize],
    acc: *mut f32,
    positions: usize,
    first: Option<Option<&'a [f32]>>,
}

impl Kernel for Accumulate<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let positions = self.positions;
        let mut v = 0;
        while v + 2 * V::LANES <= positions {
            // SAFETY: `accumulate` checked the bounds of `positions`; `v + 2 * LANES` is inside them.
            unsafe { self.column::<V, 2>(v) };
            v += 2 * V::LANES;
        }
        if v < positions {
            // SAFETY: as above; `POSITION_STEP` is a multiple of `LANES`, so one vector is left.
            unsafe { self.column::<V, 1>(v) };
        }
    }
}

impl Accumulate<'_> {
    /// All output channels at `VECTORS` vectors of positions from `v`.
    ///
    /// # Safety
    /// The checks of [`accumulate`] hold, `v + VECTORS * LANES <= positions`, and the CPU has the
    /// instructions of `V`.
    #[inline(always)]
    unsafe fn column<V: Vector, const VECTORS: usize>(self, v: usize) {
        let Self { weight, first_tap, x, offsets, acc, positions, first } = self;
        let blocks = weight.rows.div_ceil(V::MAX_ROWS).max(1);
        let mut b = 0;
        while b < blocks {
            let (row, next) = (b * weight.rows / blocks, (b + 1) * weight.rows / blocks);
            let rows = next - row;
            // SAFETY: a block's weights start at `row * taps` and hold `rows` for each tap; `acc` holds
            // `positions` for each row; `offset + positions` is inside `x`; the positions are the caller's.
            unsafe {
                let w = weight.values.as_ptr().add(row * weight.taps + first_tap * rows);
                let x = x.as_ptr().add(v);
                let out = acc.add(row * positions + v);
                let start = match first {
                    None => Start::Continue,
                    Some(None) => Start::Zero,
                    Some(Some(bias)) => Start::Bias(bias.as_ptr().add(row)),
                };
                match rows {
                    0 => {}
                    1 => micro::<V, 1, VECTORS>(w, x, offsets, out, positions, start),
                    2 => micro::<V, 2, VECTORS>(w, x, offsets, out, positions, start),
                    3 => micro::<V, 3, VECTORS>(w, x, offsets, out, positions, start),
                    4 => micro::<V, 4, VECTORS>(w, x, offsets, out, positions, start),
                    5 => micro::<V, 5, VECTORS>(w, x, offsets, out, positions, start),
                    6 => micro::<V, 6, VECTORS>(w, x, offsets, out, positions, start),
                    7 => micro::<V, 7, VECTORS>(w, x, offsets, out, positions, start),
                    8 => micro::<V, 8, VECTORS>(w, x, offsets, out, positions, start),
                    9 => micro::<V, 9, VECTORS>(w, x, offsets, out, positions, start),
                    10 => micro::<V, 10, VECTORS>(w, x, offsets, out, positions, start),
                    11 => micro::<V, 11, VECTORS>(w, x, offsets, out, positions, start),
                    _ => micro::<V, 12, VECTORS>(w, x, offsets, out, positions, start),
                }
            }
            b += 1;
        }
    }
}

#[derive(Clone, Copy)]
enum Start {
    Continue,
    Zero,
    Bias(*const f32),
}

/// `ROWS` output channels at `VECTORS` vectors of positions.
///
/// # Safety
/// As [`Accumulate::column`]: `w` holds `ROWS` weights for each offset, `x + offset` the vectors, `out` the
/// vectors in each of `ROWS` rows of stride `positions`, a bias pointer `ROWS` values.
#[inline(always)]
unsafe fn micro<V: Vector, const ROWS: usize, const VECTORS: usize>(
    w: *const f32,
    x: *const f32,
    offsets: &[usize],
    out: *mut f32,
    positions: usize,
    start: Start,
) {
    // SAFETY: see above; every pointer stays inside what the caller vouches for.
    unsafe {
        let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
        match start {
            Start::Zero => {}
            Start::Bias(bias) => {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = [V::splat(*bias.add(j)); VECTORS];
                }
            }
            Start::Continue => {
                for (j, row) in sums.iter_mut().enumerate() {
                    for (i, sum) in row.iter_mut().enumerate() {
                        *sum = V::load(out.add(j * positions + i * V::LANES));
                    }
                }
            }
        }
        let mut w = w;
        for &offset in offsets {
            let mut values = [V::splat(0.0); VECTORS];
            for (i, value) in values.iter_mut().enumerate() {
                *value = V::load(x.add(offset + i * V::LANES));
            }
            for (j, row) in sums.iter_mut().enumerate() {
                let factor = V::splat(*w.add(j));
                for (sum, value) in row.iter_mut().zip(&values) {
                    *sum = sum.add_product(*value, factor);
                }
            }
            w = w.add(ROWS);
        }
        for (j, row) in sums.iter().enumerate() {
            for (i, sum) in row.iter().enumerate() {
                sum.store(out.add(j * positions + i * V::LANES));
            }
        }
    }
}

/// `dw[o * taps + first_tap + k] += sum_v dy[o * positions + v] * x[offsets[k] + v]`.
///
/// `dy` has `rows` rows of `positions` (a multiple of [`POSITION_STEP`]), 0 where a position is not an
/// output pixel; `dw` is `rows x taps`.
#[expect(clippy::too_many_arguments, reason = "one flat call for each instruction set")]
pub(crate) fn accumulate_weight_grad(
    isa: Isa,
    x: &[f32],
    offsets: &[usize],
    dy: &[f32],
    rows: usize,
    positions: usize,
    dw: &mut [f32],
    taps: usize,
    first_tap: usize,
) {
    assert_eq!(positions % POSITION_STEP, 0);
    assert!(dy.len() >= rows * positions && dw.len() >= rows * taps);
    assert!(first_tap + offsets.len() <= taps);
    assert!(offsets.iter().all(|&offset| offset + positions <= x.len()));
    isa.run(WeightGrad { x, offsets, dy, rows, positions, dw, taps, first_tap });
}

/// The arguments of [`accumulate_weight_grad`], checked.
struct WeightGrad<'a> {
    x: &'a [f32],
    offsets: &'a [usize],
    dy: &'a [f32],
    rows: usize,
    positions: usize,
    dw: &'a mut [f32],
    taps: usize,
    first_tap: usize,
}

/// Positions whose four rows of `dy` and three taps of `x` stay in a 32 KiB first-level cache.
const DOT_POSITIONS: usize = 1024;

impl Kernel for WeightGrad<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let row_blocks = self.rows.div_ceil(DOT_ROWS).max(1);
        let tap_count = self.offsets.len();
        let tap_blocks = tap_count.div_ceil(V::MAX_TAPS).max(1);
        let mut v = 0;
        while v < self.positions {
            let len = DOT_POSITIONS.min(self.positions - v);
            let mut rb = 0;
            while rb < row_blocks {
                let (row, next_row) = (rb * self.rows / row_blocks, (rb + 1) * self.rows / row_blocks);
                let mut tb = 0;
                while tb < tap_blocks {
                    let (tap, next_tap) = (tb * tap_count / tap_blocks, (tb + 1) * tap_count / tap_blocks);
                    // SAFETY: rows and taps are inside the checked bounds, and so are `v..v + len`.
                    unsafe {
                        let x = self.x.as_ptr().add(v);
                        let dy = self.dy.as_ptr().add(row * self.positions + v);
                        let out = self.dw.as_mut_ptr().add(row * self.taps + self.first_tap + tap);
                        let offsets = self.offsets.get_unchecked(tap..next_tap);
                        let strides = (self.positions, self.taps);
                        match next_row - row {
                            1 => dot_taps::<V, 1>(x, offsets, dy, out, strides, len),
                            2 => dot_taps::<V, 2>(x, offsets, dy, out, strides, len),
                            3 => dot_taps::<V, 3>(x, offsets, dy, out, strides, len),
                            4 => dot_taps::<V, 4>(x, offsets, dy, out, strides, len),
                            _ => {}
                        }
                    }
                    tb += 1;
                }
                rb += 1;
            }
            v += len;
        }
    }
}

/// # Safety
/// As [`dot`].
#[inline(always)]
unsafe fn dot_taps<V: Vector, const ROWS: usize>(
    x: *const f32,
    offsets: &[usize],
    dy: *const f32,
    out: *mut f32,
    strides: (usize, usize),
    len: usize,
) {
    // SAFETY: the caller's contract is `dot`'s; the match fixes `TAPS` to `offsets.len()`.
    unsafe {
        match offsets.len() {
            1 => dot::<V, ROWS, 1>(x, offsets, dy, out, strides, len),
            2 => dot::<V, ROWS, 2>(x, offsets, dy, out, strides, len),
            3 => dot::<V, ROWS, 3>(x, offsets, dy, out, strides, len),
            4 => dot::<V, ROWS, 4>(x, offsets, dy, out, strides, len),
            5 => dot::<V, ROWS, 5>(x, offsets, dy, out, strides, len),
            6 => dot::<V, ROWS, 6>(x, offsets, dy, out, strides, len),
            _ => {}
        }
    }
}

/// `ROWS x TAPS` dot products of `len` positions, added to `out`.
///
/// # Safety
/// `offsets` has `TAPS` entries; `x + offset` and the `ROWS` rows of `dy` (stride `strides.0`) hold `len`
/// values, a multiple of the lanes; `out` has `ROWS` rows (stride `strides.1`) of `TAPS` values.
#[inline(always)]
unsafe fn dot<V: Vector, const ROWS: usize, const TAPS: usize>(
    x: *const f32,
    offsets: &[usize],
    dy: *const f32,
    out: *mut f32,
    (dy_stride, out_stride): (usize, usize),
    len: usize,
) {
    // SAFETY: see above.
    unsafe {
        let mut taps = [x; TAPS];
        for (tap, &offset) in taps.iter_mut().zip(offsets) {
            *tap = x.add(offset);
        }
        let mut sums = [[V::splat(0.0); TAPS]; ROWS];
        let mut v = 0;
        while v < len {
            let mut values = [V::splat(0.0); TAPS];
            for (value, tap) in values.iter_mut().zip(&taps) {
                *value = V::load(tap.add(v));
            }
            for (j, row) in sums.iter_mut().enumerate() {
                let g = V::load(dy.add(j * dy_stride + v));
                for (sum, value) in row.iter_mut().zip(&values) {
                    *sum = sum.add_product(g, *value);
                }
            }
            v += V::LANES;
        }
        for (j, row) in sums.iter().enumerate() {
            for (k, sum) in row.iter().enumerate() {
                *out.add(j * out_stride + k) += sum.sum();
            }
        }
    }
}
