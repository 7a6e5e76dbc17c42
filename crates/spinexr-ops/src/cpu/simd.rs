//! The vector operations the convolution kernels are written in, for AVX-512, AVX2 and any other CPU.

use std::sync::OnceLock;

/// Instruction sets there is a kernel for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The widest this CPU has.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| *Self::available().last().expect("the portable kernel is always there"))
    }

    /// All that this CPU can run, narrowest first.
    pub(crate) fn available() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
        let mut found = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f") {
                    found.push(Self::Avx512);
                }
            }
        }
        found
    }
}

/// A vector register of `LANES` f32.
///
/// # Safety
/// The methods may only run on a CPU that has the instructions (see [`Isa::available`]); `load` and
/// `store` need `LANES` values behind the pointer, at any alignment.
pub(crate) trait Vector: Copy {
    const LANES: usize;
    /// Output channels a convolution micro-kernel holds in registers (two vectors each).
    const MAX_ROWS: usize;
    /// Taps a weight-gradient micro-kernel holds in registers (for four output channels).
    const MAX_TAPS: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self + a * b`
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// `max(self, 0)`; a NaN stays one.
    unsafe fn positive(self) -> Self;
    /// Sum of the lanes, always in the same order.
    unsafe fn sum(self) -> f32;
}

/// Code that is compiled once for each instruction set; [`Isa::run`] picks the one to run. Whoever builds a
/// kernel has checked every bound it relies on.
pub(crate) trait Kernel {
    /// Must be `#[inline(always)]`, so that it is compiled with the instructions of `V`.
    ///
    /// # Safety
    /// The CPU has the instructions of `V`.
    unsafe fn run<V: Vector>(self);
}

impl Isa {
    /// Run `kernel` on this instruction set.
    #[inline]
    pub(crate) fn run(self, kernel: impl Kernel) {
        // SAFETY: an `Isa` other than `Portable` is only handed out where the CPU has it
        // (`Isa::available`), and `Portable` needs nothing.
        unsafe {
            match self {
                Isa::Portable => kernel.run::<Portable>(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => run_avx2(kernel),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => run_avx512(kernel),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(kernel: impl Kernel) {
    // SAFETY: the caller's contract is this function's.
    unsafe { kernel.run::<Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn run_avx512(kernel: impl Kernel) {
    // SAFETY: the caller's contract is this function's.
    unsafe { kernel.run::<Avx512>() }
}

#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

impl Vector for Portable {
    const LANES: usize = 8;
    const MAX_ROWS: usize = 4;
    const MAX_TAPS: usize = 3;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller gives 8 readable values.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller gives 8 writable values.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
        for i in 0..8 {
            // Not `mul_add`: without FMA in the baseline it is a library call.
            self.0[i] += a.0[i] * b.0[i];
        }
        self
    }

    #[inline(always)]
    unsafe fn positive(self) -> Self {
        Self(self.0.map(|x| if x <= 0.0 { 0.0 } else { x }))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_set1_ps, _mm256_storeu_ps,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_max_ps, _mm512_reduce_add_ps, _mm512_set1_ps,
        _mm512_storeu_ps,
    };

    use super::{Portable, Vector};

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256);

    // 6 rows x 2 vectors of sums, 2 of input and 1 weight: 15 of 16 registers.
    impl Vector for Avx2 {
        const LANES: usize = 8;
        const MAX_ROWS: usize = 6;
        const MAX_TAPS: usize = 3;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the trait's contract: the CPU has AVX2.
            Self(unsafe { _mm256_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the trait's contract: AVX2, and 8 readable values.
            Self(unsafe { _mm256_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the trait's contract: AVX2, and 8 writable values.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the trait's contract: AVX2 and FMA (detected together).
            Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn positive(self) -> Self {
            // SAFETY: the trait's contract: AVX2. Of a NaN and a number the second operand is returned.
            Self(unsafe { _mm256_max_ps(_mm256_set1_ps(0.0), self.0) })
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            let mut lanes = [0.0; 8];
            // SAFETY: 8 writable values; `Portable` needs no special instructions.
            unsafe {
                self.store(lanes.as_mut_ptr());
                Portable(lanes).sum()
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // 12 rows x 2 vectors of sums, 2 of input and 1 weight: 27 of 32 registers.
    impl Vector for Avx512 {
        const LANES: usize = 16;
        const MAX_ROWS: usize = 12;
        const MAX_TAPS: usize = 6;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the trait's contract: the CPU has AVX-512F.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the trait's contract: AVX-512F, and 16 readable values.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the trait's contract: AVX-512F, and 16 writable values.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the trait's contract: AVX-512F.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn positive(self) -> Self {
            // SAFETY: the trait's contract: AVX-512F. Of a NaN and a number the second operand is returned.
            Self(unsafe { _mm512_max_ps(_mm512_set1_ps(0.0), self.0) })
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: the trait's contract: AVX-512F.
            unsafe { _mm512_reduce_add_ps(self.0) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};
