//! What a training step computes in: f32 throughout, or its products in bf16.
//!
//! [`Precision::Bf16`] is mixed precision as in Micikevicius et al. (arXiv 1710.03740), divided as `torch.autocast` does.
//! The operands of convolutions, linear layers and matrix products are rounded to bf16, an f32 with 8 bits of
//! significand in place of 24; products are exact and summed in f32, and the sum is rounded to bf16 once. A backward
//! step does so with its gradients. A map that a norm, an activation or a gate keeps for its backward step is rounded
//! before the operation sees it, so that both steps compute with the same numbers.
//!
//! All else is f32: norms, activations, RoIAlign, biases, losses, and the parameters with their optimiser. A parameter is
//! rounded where a product takes it and nowhere else, so that updates smaller than bf16's step add up (the f32 "master
//! weights"). bf16 has the exponents of f32, which is why no loss is scaled.
//!
//! The CPU has no arithmetic in bf16 here: its kernels widen the operands and round the result. The numbers are those of
//! matrix units up to the order of sums; it takes less memory than f32 and more time.

use std::cell::Cell;
use std::fmt;

use burn::tensor::{Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

/// What the products of a training step are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32, like everything else.
    #[default]
    F32,
    /// bf16, summed in f32.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

thread_local! {
    /// What this thread's forward pass is made in.
    static PRESENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

impl Precision {
    /// Makes a forward pass in this precision: what it calls on this thread, on autodiff devices. The backward step of
    /// what it recorded follows, wherever and whenever it runs. Elsewhere networks run in f32.
    pub fn within<R>(self, forward: impl FnOnce() -> R) -> R {
        struct Before(Precision);
        impl Drop for Before {
            fn drop(&mut self) {
                PRESENT.set(self.0);
            }
        }
        let _before = Before(PRESENT.replace(self));
        forward()
    }

    /// Whether a device can hold it and calculate in it.
    pub fn runs_on(self, device: &Device) -> bool {
        match self {
            Self::F32 => true,
            Self::Bf16 => device.supports_dtype(FloatDType::BF16),
        }
    }
}

/// Whether what is called now on a device is to be in bf16.
pub(crate) fn is_bf16(device: &Device) -> bool {
    PRESENT.get() == Precision::Bf16 && device.is_autodiff()
}

/// As the products, and what keeps maps, are to take it: in bf16 where that is in force.
pub(crate) fn rounded<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_bf16(&x.device()) { x.cast(FloatDType::BF16) } else { x }
}
