//! What is done to rows of values on their way into a buffer and out of it, in one pass, on one thread.

use core::mem::MaybeUninit;

use super::silu;
use super::simd::{Isa, Kernel, Vector};

/// What a convolution ends with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `x · sigmoid(x)`
    Silu,
}

/// `to = max(from * scale + shift, 0)`.
///
/// # Panics
/// When the lengths differ.
pub(crate) fn affine_relu(isa: Isa, from: &[f32], scale: f32, shift: f32, to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    let to = to.as_mut_ptr();
    isa.run(Row { from, other: None, scale, shift, relu: true, to });
}

/// `to = activation(from + other)`.
///
/// # Panics
/// When the lengths differ.
pub(crate) fn finish(
    isa: Isa,
    from: &[f32],
    other: Option<&[f32]>,
    activation: Activation,
    to: &mut [MaybeUninit<f32>],
) {
    assert_eq!(from.len(), to.len());
    assert!(other.is_none_or(|other| other.len() == from.len()));
    let relu = activation == Activation::Relu;
    isa.run(Row { from, other, scale: 1.0, shift: 0.0, relu, to: to.as_mut_ptr().cast() });
    if activation == Activation::Silu {
        // SAFETY: the kernel above has set every value of the row.
        silu::silu_row(isa, unsafe { to.assume_init_mut() });
    }
}

/// `row = activation(row)`.
pub(crate) fn activate(isa: Isa, row: &mut [f32], activation: Activation) {
    match activation {
        Activation::Identity => {}
        // Not `max`: a NaN stays one.
        Activation::Relu => row.iter_mut().for_each(|x| *x = if *x <= 0.0 { 0.0 } else { *x }),
        Activation::Silu => silu::silu_row(isa, row),
    }
}

/// `to = from * scale + shift + other`, then ReLU if asked for. `other` has the length of `from`, and so has
/// the memory behind `to`, which is borrowed by the frame that made this.
struct Row<'a> {
    from: &'a [f32],
    other: Option<&'a [f32]>,
    scale: f32,
    shift: f32,
    relu: bool,
    to: *mut f32,
}

impl Kernel for Row<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the CPU has the instructions of `V`; the lengths were checked by whoever made this.
        unsafe {
            match (self.other, self.relu) {
                (None, false) => self.each::<V, false, false>(),
                (None, true) => self.each::<V, false, true>(),
                (Some(_), false) => self.each::<V, true, false>(),
                (Some(_), true) => self.each::<V, true, true>(),
            }
        }
    }
}

impl Row<'_> {
    /// # Safety
    /// As [`Row`] says; `ADD` only with `other`.
    #[inline(always)]
    unsafe fn each<V: Vector, const ADD: bool, const RELU: bool>(self) {
        let len = self.from.len();
        let (from, to) = (self.from.as_ptr(), self.to);
        let other = self.other.map_or(core::ptr::null(), <[f32]>::as_ptr);
        let mut at = 0;
        // SAFETY: all of `at..at + LANES`, and then of `at..len`, lies inside the rows.
        unsafe {
            let (scale, shift) = (V::splat(self.scale), V::splat(self.shift));
            while at + V::LANES <= len {
                let mut value = shift.add_product(V::load(from.add(at)), scale);
                if ADD {
                    value = value.add_product(V::load(other.add(at)), V::splat(1.0));
                }
                if RELU {
                    value = value.positive();
                }
                value.store(to.add(at));
                at += V::LANES;
            }
            if at < len {
                // The rest goes through a vector too: its values must be rounded as the others are, whatever
                // tile they fall into.
                let (mut padded, mut padded_other) = ([0.0f32; MOST_LANES], [0.0f32; MOST_LANES]);
                padded.as_mut_ptr().copy_from_nonoverlapping(from.add(at), len - at);
                let mut value = shift.add_product(V::load(padded.as_ptr()), scale);
                if ADD {
                    padded_other.as_mut_ptr().copy_from_nonoverlapping(other.add(at), len - at);
                    value = value.add_product(V::load(padded_other.as_ptr()), V::splat(1.0));
                }
                if RELU {
                    value = value.positive();
                }
                value.store(padded.as_mut_ptr());
                to.add(at).copy_from_nonoverlapping(padded.as_ptr(), len - at);
            }
        }
    }
}

/// Lanes of the widest vector.
const MOST_LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_on_every_instruction_set() {
        let value = |i: usize| ((i * 37 + 11) % 19) as f32 / 4.0 - 2.0;
        for isa in Isa::available() {
            for len in 0..70 {
                let from: Vec<f32> = (0..len).map(value).collect();
                let other: Vec<f32> = (0..len).map(|i| value(i + 5)).collect();
                // One value more than is written, to see that it stays.
                let mut to = vec![7.0; len + 1];
                affine_relu(isa, &from, 2.0, -0.5, &mut to[..len]);
                let expected = from.iter().map(|x| (x * 2.0 - 0.5).max(0.0)).chain([7.0]);
                assert_eq!(to, expected.collect::<Vec<_>>(), "{len} on {isa:?}");
                for (other, activation) in [None, Some(&other)].into_iter().flat_map(|other| {
                    [Activation::Identity, Activation::Relu, Activation::Silu].map(|a| (other, a))
                }) {
                    let mut to = vec![MaybeUninit::new(7.0f32); len + 1];
                    finish(isa, &from, other.map(Vec::as_slice), activation, &mut to[..len]);
                    // SAFETY: every value was set to 7 first.
                    let to: Vec<f32> = to.into_iter().map(|v| unsafe { v.assume_init() }).collect();
                    let mut expected: Vec<f32> =
                        (0..len).map(|i| from[i] + other.map_or(0.0, |other| other[i])).collect();
                    activate(isa, &mut expected, activation);
                    expected.push(7.0);
                    assert_eq!(to, expected, "{len} on {isa:?}");
                }
            }
        }
    }

    #[test]
    fn an_activation_is_its_formula() {
        for isa in Isa::available() {
            let x: Vec<f32> = (0..37).map(|i| i as f32 / 3.0 - 6.0).collect();
            let activated = |activation| {
                let mut row = x.clone();
                activate(isa, &mut row, activation);
                row
            };
            assert_eq!(activated(Activation::Identity), x);
            assert_eq!(activated(Activation::Relu), x.iter().map(|x| x.max(0.0)).collect::<Vec<_>>());
            for (y, x) in activated(Activation::Silu).iter().zip(&x) {
                assert!((y - x / (1.0 + (-x).exp())).abs() < 1e-6, "{x}: {y}");
            }
        }
    }

    #[test]
    fn a_nan_stays_one() {
        for isa in Isa::available() {
            let mut to = [0.0; 17];
            affine_relu(isa, &[f32::NAN; 17], 1.0, 0.0, &mut to);
            assert!(to.iter().all(|value| value.is_nan()), "{isa:?}");
        }
    }
}
