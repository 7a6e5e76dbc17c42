//! The two inner products every convolution pass comes down to, over padded planes.
//!
//! The planes lie in one buffer; each (channel, tap) pair is an offset into it, and position `v` of that
//! pair is `x[offset + v]`. Then
//! - [`accumulate`]: `acc[o][v] += sum_k weight[o][k] * x[offset[k] + v]` (forward, input gradient),
//! - [`accumulate_weight_grad`]: `dw[o][k] += sum_v dy[o][v] * x[offset[k] + v]`.
//!
//! Neither copies the input for each tap, which is what makes im2col with a matrix product slow for the
//! narrow layers of small networks.

#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Isa, Portable, Vector};

/// Positions are processed in multiples of this (two vectors of the widest instruction set).
pub(crate) const POSITION_STEP: usize = 32;

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
    // SAFETY: the bounds the kernels rely on were just checked, and a `PackedWeight` is made for an
    // instruction set found on this CPU.
    unsafe {
        match weight.isa {
            Isa::Portable => accumulate_on::<Portable>(weight, first_tap, x, offsets, acc, positions, first),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => accumulate_avx2(weight, first_tap, x, offsets, acc, positions, first),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => accumulate_avx512(weight, first_tap, x, offsets, acc, positions, first),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate_avx2(
    weight: &PackedWeight,
    first_tap: usize,
    x: &[f32],
    offsets: &[usize],
    acc: &mut [f32],
    positions: usize,
    first: Option<Option<&[f32]>>,
) {
    // SAFETY: the caller's contract is this function's.
    unsafe { accumulate_on::<Avx2>(weight, first_tap, x, offsets, acc, positions, first) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn accumulate_avx512(
    weight: &PackedWeight,
    first_tap: usize,
    x: &[f32],
    offsets: &[usize],
    acc: &mut [f32],
    positions: usize,
    first: Option<Option<&[f32]>>,
) {
    // SAFETY: the caller's contract is this function's.
    unsafe { accumulate_on::<Avx512>(weight, first_tap, x, offsets, acc, positions, first) }
}

/// # Safety
/// The checks of [`accumulate`] hold and the CPU has the instructions of `V`.
#[inline(always)]
unsafe fn accumulate_on<V: Vector>(
    weight: &PackedWeight,
    first_tap: usize,
    x: &[f32],
    offsets: &[usize],
    acc: &mut [f32],
    positions: usize,
    first: Option<Option<&[f32]>>,
) {
    let blocks = weight.rows.div_ceil(V::MAX_ROWS).max(1);
    let mut v = 0;
    while v < positions {
        let mut b = 0;
        while b < blocks {
            let (row, next) = (b * weight.rows / blocks, (b + 1) * weight.rows / blocks);
            let rows = next - row;
            // SAFETY: a block's weights start at `row * taps` and hold `rows` for each tap; `acc` holds
            // `positions` for each row; `offset + positions` is inside `x`; `v + 2 * LANES <= positions`
            // because `POSITION_STEP` is a multiple of `2 * LANES`.
            unsafe {
                let w = weight.values.as_ptr().add(row * weight.taps + first_tap * rows);
                let x = x.as_ptr().add(v);
                let out = acc.as_mut_ptr().add(row * positions + v);
                let start = match first {
                    None => Start::Continue,
                    Some(None) => Start::Zero,
                    Some(Some(bias)) => Start::Bias(bias.as_ptr().add(row)),
                };
                match rows {
                    0 => {}
                    1 => micro::<V, 1>(w, x, offsets, out, positions, start),
                    2 => micro::<V, 2>(w, x, offsets, out, positions, start),
                    3 => micro::<V, 3>(w, x, offsets, out, positions, start),
                    4 => micro::<V, 4>(w, x, offsets, out, positions, start),
                    5 => micro::<V, 5>(w, x, offsets, out, positions, start),
                    6 => micro::<V, 6>(w, x, offsets, out, positions, start),
                    7 => micro::<V, 7>(w, x, offsets, out, positions, start),
                    8 => micro::<V, 8>(w, x, offsets, out, positions, start),
                    9 => micro::<V, 9>(w, x, offsets, out, positions, start),
                    10 => micro::<V, 10>(w, x, offsets, out, positions, start),
                    11 => micro::<V, 11>(w, x, offsets, out, positions, start),
                    _ => micro::<V, 12>(w, x, offsets, out, positions, start),
                }
            }
            b += 1;
        }
        v += 2 * V::LANES;
    }
}

#[derive(Clone, Copy)]
enum Start {
    Continue,
    Zero,
    Bias(*const f32),
}

/// `ROWS` output channels at two vectors of positions.
///
/// # Safety
/// As [`accumulate_on`]: `w` holds `ROWS` weights for each offset, `x + offset` two vectors, `out` two
/// vectors in each of `ROWS` rows of stride `positions`, a bias pointer `ROWS` values.
#[inline(always)]
unsafe fn micro<V: Vector, const ROWS: usize>(
    w: *const f32,
    x: *const f32,
    offsets: &[usize],
    out: *mut f32,
    positions: usize,
    start: Start,
) {
    // SAFETY: see above; every pointer stays inside what the caller vouches for.
    unsafe {
        let mut sums = [[V::splat(0.0); 2]; ROWS];
        match start {
            Start::Zero => {}
            Start::Bias(bias) => {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = [V::splat(*bias.add(j)); 2];
                }
            }
            Start::Continue => {
                for (j, sum) in sums.iter_mut().enumerate() {
                    let row = out.add(j * positions);
                    *sum = [V::load(row), V::load(row.add(V::LANES))];
                }
            }
        }
        let mut w = w;
        for &offset in offsets {
            let x = x.add(offset);
            let (x0, x1) = (V::load(x), V::load(x.add(V::LANES)));
            for (j, sum) in sums.iter_mut().enumerate() {
                let factor = V::splat(*w.add(j));
                sum[0] = sum[0].add_product(x0, factor);
                sum[1] = sum[1].add_product(x1, factor);
            }
            w = w.add(ROWS);
        }
        for (j, sum) in sums.iter().enumerate() {
            let row = out.add(j * positions);
            sum[0].store(row);
            sum[1].store(row.add(V::LANES));
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
    let args = DotArgs { x, offsets, dy, rows, positions, taps, first_tap };
    // SAFETY: the bounds were just checked; `isa` comes from `Isa::available`.
    unsafe {
        match isa {
            Isa::Portable => weight_grad_on::<Portable>(&args, dw),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => weight_grad_avx2(&args, dw),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => weight_grad_avx512(&args, dw),
        }
    }
}

struct DotArgs<'a> {
    x: &'a [f32],
    offsets: &'a [usize],
    dy: &'a [f32],
    rows: usize,
    positions: usize,
    taps: usize,
    first_tap: usize,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn weight_grad_avx2(args: &DotArgs<'_>, dw: &mut [f32]) {
    // SAFETY: the caller's contract is this function's.
    unsafe { weight_grad_on::<Avx2>(args, dw) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn weight_grad_avx512(args: &DotArgs<'_>, dw: &mut [f32]) {
    // SAFETY: the caller's contract is this function's.
    unsafe { weight_grad_on::<Avx512>(args, dw) }
}

/// Positions whose four rows of `dy` and three taps of `x` stay in a 32 KiB first-level cache.
const DOT_POSITIONS: usize = 1024;

/// # Safety
/// The checks of [`accumulate_weight_grad`] hold and the CPU has the instructions of `V`.
#[inline(always)]
unsafe fn weight_grad_on<V: Vector>(args: &DotArgs<'_>, dw: &mut [f32]) {
    let row_blocks = args.rows.div_ceil(DOT_ROWS).max(1);
    let tap_count = args.offsets.len();
    let tap_blocks = tap_count.div_ceil(V::MAX_TAPS).max(1);
    let mut v = 0;
    while v < args.positions {
        let len = DOT_POSITIONS.min(args.positions - v);
        let mut rb = 0;
        while rb < row_blocks {
            let (row, next_row) = (rb * args.rows / row_blocks, (rb + 1) * args.rows / row_blocks);
            let mut tb = 0;
            while tb < tap_blocks {
                let (tap, next_tap) = (tb * tap_count / tap_blocks, (tb + 1) * tap_count / tap_blocks);
                // SAFETY: rows and taps are inside the checked bounds, and so are `v..v + len`.
                unsafe {
                    let x = args.x.as_ptr().add(v);
                    let dy = args.dy.as_ptr().add(row * args.positions + v);
                    let out = dw.as_mut_ptr().add(row * args.taps + args.first_tap + tap);
                    let offsets = args.offsets.get_unchecked(tap..next_tap);
                    let strides = (args.positions, args.taps);
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
