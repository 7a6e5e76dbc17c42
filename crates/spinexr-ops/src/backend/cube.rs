//! GPUs: the engine's ops by the default bodies, and kernels of our own where the engine has none.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;

use super::kernels::Kernels;
use super::roi_align::{engine_roi_align, engine_roi_align_backward};
use crate::gpu::roi_align;
use crate::roi_align::{Roi, RoiAlignOptions};

type GpuTensor = FloatTensor<CubeBackend>;

/// Whether the kernels here can take the tensor.
fn f32_and_not_empty(x: &GpuTensor) -> bool {
    x.dtype() == DType::F32 && x.shape().num_elements() > 0
}

impl Kernels for CubeBackend {
    fn roi_align(x: GpuTensor, rois: &[Roi], options: RoiAlignOptions) -> GpuTensor {
        match f32_and_not_empty(&x) && !rois.is_empty() {
            true => roi_align::forward(x, rois, &options),
            false => engine_roi_align::<Self>(x, rois, options),
        }
    }

    fn roi_align_backward(
        x: GpuTensor,
        rois: &[Roi],
        options: RoiAlignOptions,
        grad: GpuTensor,
    ) -> GpuTensor {
        match f32_and_not_empty(&x) && f32_and_not_empty(&grad) {
            true => roi_align::map_grad(x, rois, &options, grad),
            false => engine_roi_align_backward::<Self>(x, rois, options, grad),
        }
    }
}
