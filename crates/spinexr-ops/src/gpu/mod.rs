//! Kernels for GPUs, in the engine's kernel language, over its tensors.

pub(crate) mod overlaps;
pub(crate) mod roi_align;

use burn::tensor::Shape;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// A tensor for a kernel to fill, of the type and on the device of `x`.
fn empty_like(x: &CubeTensor, shape: Shape) -> CubeTensor {
    empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape, x.dtype)
}
