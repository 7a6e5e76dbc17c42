//! What is done to rows of values on their way into a buffer and out of it, in one pass, on one thread.

use core::mem::MaybeUninit;

use super::simd::{Isa, Kernel, Vector};

/// `to = max(from * scale + shift, 0)`.
///
/// # Panics
/// When the lengths differ.
pub(crate) fn affine_relu(isa: Isa, from: &[f32], scale: f32, shift: f32, to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    let to = to.as_mut_ptr();
    isa.run(Row { from, other: None, scale, shift, relu: true, to });
}

/// `to = from + other`, then ReLU if asked for.
///
/// # Panics
/// When the lengths differ.
pub(crate) fn finish(isa: Isa, from: &[f32], other: Option<&[f32]>, relu: bool, to: &mut [MaybeUninit<f32>]) {
    assert_eq!(from.len(), to.len());
    assert!(other.is_none_or(|other| other.len() == from.len()));
    let to = to.as_mut_ptr().cast();
    isa.run(Row { from, other, scale: 1.0, shift: 0.0, relu, to });
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
                for (other, relu) in
                    [(None, false), (None, true), (Some(&other), false), (Some(&other), true)]
                {
                    let mut to = vec![MaybeUninit::new(7.0f32); len + 1];
                    finish(isa, &from, other.map(Vec::as_slice), relu, &mut to[..len]);
                    // SAFETY: every value was set to 7 first.
                    let to: Vec<f32> = to.into_iter().map(|v| unsafe { v.assume_init() }).collect();
                    let expected = from.iter().enumerate().map(|(i, x)| {
                        let sum = x + other.map_or(0.0, |other| other[i]);
                        if relu { sum.max(0.0) } else { sum }
                    });
                    assert_eq!(to, expected.chain([7.0]).collect::<Vec<_>>(), "{len} on {isa:?}");
                }
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
