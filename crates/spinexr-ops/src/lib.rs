//! Tensor operations the engine lacks or does slowly, each with its gradient.
//!
//! On the CPU (Burn's Flex backend, with or without autodiff) the operations run on this crate's own
//! kernels; on any other backend they fall back to the engine's ops where a GPU kernel is not ours. The kernels are deterministic:
//! results are the same bytes whatever the number of threads.
//!
//! # Code map
//! - [`conv2d`](mod@conv2d), [`batch_norm`], [`pool`], [`activation`], [`gate`], [`upsample`],
//!   [`roi_align`](mod@roi_align): what a model uses.
//! - [`matmul`](mod@matmul): matrix products of layers.
//! - [`precision`]: training with products in bf16.
//! - [`recompute`]: less memory in training for a little more work.
//! - [`ranks`]: sums over the processes that train together.
//! - [`inference`]: layers of a network that is only run, without tensors.
//! - [`allocation`]: one call at the start of a program that trains.
//! - [`suppression`]: overlapping boxes on the device where a network ran.
//! - `backend`: the operations as a backend extension, with the backward steps.
//! - `cpu`: the CPU kernels, over plain slices.
//! - `gpu`: kernels for GPUs, for what the engine has not (feature `gpu`).
#![warn(missing_docs)]

pub mod activation;
pub mod allocation;
mod backend;
pub mod batch_norm;
pub mod conv2d;
mod cpu;
pub mod gate;
#[cfg(feature = "gpu")]
mod gpu;
pub mod inference;
pub mod matmul;
pub mod pool;
pub mod precision;
pub mod ranks;
pub mod recompute;
pub mod roi_align;
mod running_stat;
pub mod suppression;
pub mod upsample;

pub use activation::{add_relu, relu, silu};
pub use batch_norm::{BatchNorm2d, BatchNorm2dConfig};
pub use conv2d::{Conv2d, Conv2dConfig, Conv2dOptions, conv2d};
pub use gate::channel_gate;
pub use matmul::matmul;
pub use pool::{MaxPool2dOptions, global_avg_pool, max_pool2d};
pub use precision::Precision;
pub use recompute::norm_relu_conv;
pub use roi_align::{Roi, RoiAlignOptions, roi_align};
pub use running_stat::RunningStat;
pub use suppression::suppress;
pub use upsample::upsample_nearest;
