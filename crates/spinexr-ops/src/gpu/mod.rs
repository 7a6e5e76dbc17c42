//! Kernels for GPUs, in the engine's kernel language, over its tensors.

pub(crate) mod roi_align;
