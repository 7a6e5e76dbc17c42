//! Norm, ReLU and convolution in a row, with or without keeping what lies between them for the backward step.
//!
//! A training step keeps the input of every operation. Of `conv(relu(norm(x)))` that is `x` and, of the same size,
//! the normalised map. The latter is one multiplication and addition a value away from the former: with [`on`] it
//! is dropped and made again in the backward step, which computes the same bits. Pleiss et al., "Memory-Efficient
//! Implementation of DenseNets" (arXiv 1707.06990), do so for DenseNets.
//!
//! The engine's own gradient checkpointing does not reach these maps: a convolution here holds its input itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Tensor;

use crate::{BatchNorm2d, Conv2d};

/// Guards that are held.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// While it lives, normalised maps are made again in the backward step, in the whole program.
#[derive(Debug)]
#[must_use = "maps are kept again when this is dropped"]
pub struct Recomputing(());

impl Drop for Recomputing {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes normalised maps again in the backward step, until the guard is dropped.
pub fn on() -> Recomputing {
    HELD.fetch_add(1, Ordering::Relaxed);
    Recomputing(())
}

/// `conv(relu(norm(x)))`.
///
/// # Shapes
/// - `x`: `[N, C, H, W]` -> `[N, O, H', W']`
///
/// # Panics
/// When the input does not fit the layers.
pub fn norm_relu_conv(norm: &BatchNorm2d, conv: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    let recompute = HELD.load(Ordering::Relaxed) > 0 && x.device().is_autodiff() && conv.bias.is_none();
    if recompute { norm.relu_conv_recomputed(x, conv) } else { conv.forward(norm.forward_relu(x)) }
}
