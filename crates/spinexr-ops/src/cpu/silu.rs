//! `x · sigmoid(x)` and its gradient, with an exponential the compiler can put into vectors.

use core::mem::MaybeUninit;

use rayon::prelude::*;

use super::simd::{Isa, Kernel, Vector};

/// Values a task handles (64 KiB).
const CHUNK: usize = 16 << 10;

/// `out = x · sigmoid(x)`.
///
/// # Panics
/// When the lengths differ.
pub(crate) fn silu(isa: Isa, x: &[f32], out: &mut [MaybeUninit<f32>]) {
    assert_eq!(x.len(), out.len());
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| isa.run(Silu { x, out }));
}

/// `x = x · sigmoid(x)` in place.
pub(crate) fn silu_in_place(isa: Isa, x: &mut [f32]) {
    x.par_chunks_mut(CHUNK).for_each(|x| isa.run(SiluInPlace(x)));
}

/// `x = x · sigmoid(x)` in place, on this thread.
pub(crate) fn silu_row(isa: Isa, x: &mut [f32]) {
    isa.run(SiluInPlace(x));
}

/// `out = grad · d silu(x) / dx`.
///
/// # Panics
/// When the lengths differ.
pub(crate) fn silu_grad(isa: Isa, x: &[f32], grad: &[f32], out: &mut [MaybeUninit<f32>]) {
    assert!(x.len() == out.len() && grad.len() == out.len());
    out.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK).zip(grad.par_chunks(CHUNK)))
        .for_each(|(out, (x, grad))| isa.run(SiluGrad { x, grad, out }));
}

struct Silu<'a> {
    x: &'a [f32],
    out: &'a mut [MaybeUninit<f32>],
}

impl Kernel for Silu<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            out.write(x * sigmoid(x));
        }
    }
}

struct SiluInPlace<'a>(&'a mut [f32]);

impl Kernel for SiluInPlace<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for x in self.0 {
            *x *= sigmoid(*x);
        }
    }
}

struct SiluGrad<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    out: &'a mut [MaybeUninit<f32>],
}

impl Kernel for SiluGrad<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for ((out, &x), &grad) in self.out.iter_mut().zip(self.x).zip(self.grad) {
            let s = sigmoid(x);
            out.write(grad * (s + x * s * (1.0 - s)));
        }
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `e^x` within 3e-7 of its value, without a branch: `2^n · e^r` with `|r| <= ln 2 / 2`, the second factor by its
/// Taylor series. Arguments beyond those of finite, normal results are cut to them; a NaN stays one.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5 · 2^23: adding it leaves the nearest whole number in the last bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has few enough bits for an exact product with `n`.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * core::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut series = 1.0 / 720.0;
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * r + coefficient;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    series * f32::from_bits(exponent << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
        let mut out = vec![MaybeUninit::new(f32::NAN); len];
        write(&mut out);
        // SAFETY: every value was set to NaN first.
        out.into_iter().map(|value| unsafe { value.assume_init() }).collect()
    }

    #[test]
    fn the_exponential_is_that_of_the_library() {
        let mut worst = 0.0f64;
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            worst = worst.max((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs());
        }
        assert!(worst < 3e-7, "{worst:e}");
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-1e30) > 0.0 && exp(1e30).is_finite());
    }

    #[test]
    fn values_and_gradients_of_every_length_on_every_instruction_set() {
        for isa in Isa::available() {
            for len in [0, 1, 7, 16, 33, CHUNK + 5] {
                let x: Vec<f32> = (0..len).map(|i| (i * 37 % 401) as f32 / 10.0 - 20.0).collect();
                let grad: Vec<f32> = (0..len).map(|i| (i % 7) as f32 - 3.0).collect();
                let y = run(len, |out| silu(isa, &x, out));
                let mut same = x.clone();
                silu_in_place(isa, &mut same);
                assert_eq!(y, same);
                let dx = run(len, |out| silu_grad(isa, &x, &grad, out));
                for i in 0..len {
                    let (x, g) = (f64::from(x[i]), f64::from(grad[i]));
                    let s = 1.0 / (1.0 + (-x).exp());
                    assert!((f64::from(y[i]) - x * s).abs() <= 4e-7 * (x * s).abs(), "{x}");
                    let wanted = g * (s + x * s * (1.0 - s));
                    assert!((f64::from(dx[i]) - wanted).abs() <= 2e-6 * g.abs(), "{x}: {} {wanted}", dx[i]);
                }
            }
        }
    }

    #[test]
    fn a_nan_stays_one_and_large_values_are_finite() {
        let y = run(4, |out| silu(Isa::best(), &[f32::NAN, 200.0, -200.0, 3e38], out));
        assert!(y[0].is_nan());
        assert_eq!(y[1], 200.0);
        assert!(y[2] <= 0.0 && y[2] > -1e-30);
        assert_eq!(y[3], 3e38);
    }
}
