//! The transforms of Winograd's method, many tiles at a time: a tile's values lie `positions` or a stride apart, so
//! that a vector holds one value of as many tiles as it has lanes.

use super::super::product::POSITION_STEP;
use super::super::simd::{Kernel, Vector};
use super::{A, B, IN, OUT, PRODUCTS};

/// `Bᵀ d B` of many tiles: `from` holds 36 rows of `positions`, and so will `to`, `stride` apart.
pub(super) struct InputTransform<'a> {
    from: &'a [f32],
    to: Rows,
    positions: usize,
}

/// Rows that a transform writes, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    start: *mut f32,
    stride: usize,
}

impl Rows {
    /// 36 rows of `positions` from `at`.
    ///
    /// # Panics
    /// When they leave `len` values.
    ///
    /// # Safety
    /// `values` points to `len` values that are borrowed for as long as the rows are written, and nobody else touches
    /// the rows.
    pub(super) unsafe fn of(
        values: *mut f32,
        len: usize,
        at: usize,
        stride: usize,
        positions: usize,
    ) -> Self {
        assert!(at + (PRODUCTS - 1) * stride + positions <= len);
        // SAFETY: inside the values, as just checked.
        Self { start: unsafe { values.add(at) }, stride }
    }
}

impl<'a> InputTransform<'a> {
    pub(super) fn new(from: &'a [f32], to: &'a mut [f32], stride: usize, positions: usize) -> Self {
        // SAFETY: `to` is borrowed for the transform's life.
        let to = unsafe { Rows::of(to.as_mut_ptr(), to.len(), 0, stride, positions) };
        Self::into_rows(from, to, positions)
    }

    pub(super) fn into_rows(from: &'a [f32], to: Rows, positions: usize) -> Self {
        assert!(positions.is_multiple_of(POSITION_STEP) && from.len() >= PRODUCTS * positions);
        Self { from, to, positions }
    }
}

impl Kernel for InputTransform<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (from, Rows { start: to, stride }) = (self.from.as_ptr(), self.to);
        let mut v = 0;
        while v < self.positions {
            // SAFETY: it was checked that all 36 rows hold `positions` values, a multiple of the lanes.
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
                        value.store(to.add((i * IN + j) * stride + v));
                    }
                    i += 1;
                }
            }
            v += V::LANES;
        }
    }
}

/// `Aᵀ m A + bias` of many tiles: `from` holds 36 rows of `positions`, `stride` apart, `to` will hold 16.
pub(super) struct OutputTransform<'a> {
    from: &'a [f32],
    stride: usize,
    to: &'a mut [f32],
    positions: usize,
    bias: f32,
}

impl<'a> OutputTransform<'a> {
    pub(super) fn new(
        from: &'a [f32],
        stride: usize,
        to: &'a mut [f32],
        positions: usize,
        bias: f32,
    ) -> Self {
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

/// `A dY Aᵀ` of many tiles, the adjoint of [`OutputTransform`]: `from` holds 16 rows of `positions`, `to` will hold 36.
pub(super) struct OutputAdjoint<'a> {
    from: &'a [f32],
    to: Rows,
    positions: usize,
}

impl<'a> OutputAdjoint<'a> {
    pub(super) fn into_rows(from: &'a [f32], to: Rows, positions: usize) -> Self {
        assert!(positions.is_multiple_of(POSITION_STEP) && from.len() >= OUT * OUT * positions);
        Self { from, to, positions }
    }
}

impl Kernel for OutputAdjoint<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (from, Rows { start: to, stride }) = (self.from.as_ptr(), self.to);
        let mut v = 0;
        while v < self.positions {
            // SAFETY: it was checked that all rows hold `positions` values, a multiple of the lanes.
            unsafe {
                let mut columns = [[V::splat(0.0); IN]; OUT];
                for (j, column) in columns.iter_mut().enumerate() {
                    let mut d = [V::splat(0.0); OUT];
                    for (i, value) in d.iter_mut().enumerate() {
                        *value = V::load(from.add((i * OUT + j) * self.positions + v));
                    }
                    *column = output_adjoint(d);
                }
                let mut i = 0;
                while i < IN {
                    let [a, b, c, d] = &columns;
                    let row = output_adjoint([a[i], b[i], c[i], d[i]]);
                    for (j, value) in row.iter().enumerate() {
                        value.store(to.add((i * IN + j) * stride + v));
                    }
                    i += 1;
                }
            }
            v += V::LANES;
        }
    }
}

/// `A d`, the adjoint of [`output_transform`].
///
/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
unsafe fn output_adjoint<V: Vector>(d: [V; OUT]) -> [V; IN] {
    // SAFETY: the caller's contract; nothing is loaded or stored.
    unsafe {
        let zero = V::splat(0.0);
        let even = |p: f64| d[0].add_product(d[2], V::splat((p * p) as f32));
        let odd = |p: f64| {
            zero.add_product(d[1], V::splat(p as f32)).add_product(d[3], V::splat((p * p * p) as f32))
        };
        let (one, minus) = (V::splat(1.0), V::splat(-1.0));
        let (even_a, odd_a, even_b, odd_b) = (even(A), odd(A), even(B), odd(B));
        [
            d[0],
            even_a.add_product(odd_a, one),
            even_a.add_product(odd_a, minus),
            even_b.add_product(odd_b, one),
            even_b.add_product(odd_b, minus),
            d[3],
        ]
    }
}

/// `Gᵀ dU G` for one output channel and many input channels: `from` holds 36 rows, `stride` apart, one value for each
/// input channel, `to` will hold nine taps for each.
pub(super) struct WeightAdjoint<'a> {
    from: &'a [f32],
    stride: usize,
    to: &'a mut [[f32; 9]],
}

/// Most lanes of a vector.
const MAX_LANES: usize = 16;

impl<'a> WeightAdjoint<'a> {
    pub(super) fn new(from: &'a [f32], stride: usize, to: &'a mut [[f32; 9]]) -> Self {
        assert!(from.len() >= (PRODUCTS - 1) * stride + to.len().next_multiple_of(MAX_LANES));
        Self { from, stride, to }
    }
}

impl Kernel for WeightAdjoint<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let from = self.from.as_ptr();
        for (v, taps) in self.to.chunks_mut(V::LANES).enumerate() {
            let mut lanes = [[0.0f32; MAX_LANES]; 9];
            // SAFETY: `new` checked that all rows hold values for whole vectors.
            unsafe {
                let mut columns = [[V::splat(0.0); 3]; IN];
                for (j, column) in columns.iter_mut().enumerate() {
                    let mut u = [V::splat(0.0); IN];
                    for (i, value) in u.iter_mut().enumerate() {
                        *value = V::load(from.add((i * IN + j) * self.stride + v * V::LANES));
                    }
                    *column = weight_adjoint(u);
                }
                let mut i = 0;
                while i < 3 {
                    let [a, b, c, d, e, f] = &columns;
                    let row = weight_adjoint([a[i], b[i], c[i], d[i], e[i], f[i]]);
                    for (j, value) in row.iter().enumerate() {
                        value.store(lanes[i * 3 + j].as_mut_ptr());
                    }
                    i += 1;
                }
            }
            for (lane, taps) in taps.iter_mut().enumerate() {
                *taps = core::array::from_fn(|tap| lanes[tap][lane]);
            }
        }
    }
}

/// `Gᵀ u`.
///
/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
unsafe fn weight_adjoint<V: Vector>(u: [V; IN]) -> [V; 3] {
    const SCALE_A: f64 = 1.0 / (2.0 * A * A * (A * A - B * B));
    const SCALE_B: f64 = 1.0 / (2.0 * B * B * (B * B - A * A));
    // SAFETY: the caller's contract; nothing is loaded or stored.
    unsafe {
        let (zero, one, minus) = (V::splat(0.0), V::splat(1.0), V::splat(-1.0));
        let (sum_a, difference_a) = (u[1].add_product(u[2], one), u[1].add_product(u[2], minus));
        let (sum_b, difference_b) = (u[3].add_product(u[4], one), u[3].add_product(u[4], minus));
        let combine = |start: V, of_a: V, of_b: V, power: i32| {
            let (a, b) = (SCALE_A * A.powi(power), SCALE_B * B.powi(power));
            start.add_product(of_a, V::splat(a as f32)).add_product(of_b, V::splat(b as f32))
        };
        let outer = zero.add_product(u[0], V::splat((1.0 / (A * A * B * B)) as f32));
        [
            combine(outer, sum_a, sum_b, 0),
            combine(zero, difference_a, difference_b, 1),
            combine(u[5], sum_a, sum_b, 2),
        ]
    }
}
