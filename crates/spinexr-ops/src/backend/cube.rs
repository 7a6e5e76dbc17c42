//! GPUs: the engine's ops by the default bodies, and kernels of our own where the engine has none.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, FloatDType};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::conv::{ConvStrategy, conv_data_backward, conv_forward, conv_weight_backward};

use super::kernels::{
    Kernels, engine_conv2d, engine_conv2d_input_grad, engine_conv2d_weight_grad, engine_options, in_type,
    whole, wide, with_extra_end,
};
use super::roi_align::{engine_roi_align, engine_roi_align_backward};
use crate::conv2d::Conv2dOptions;
use crate::gpu::{overlaps, roi_align};
use crate::roi_align::{Roi, RoiAlignOptions};

type GpuTensor = FloatTensor<CubeBackend>;

/// Whether the kernels here can take the tensor.
fn f32_and_not_empty(x: &GpuTensor) -> bool {
    x.dtype() == DType::F32 && x.shape().num_elements() > 0
}

/// A product of operands in bf16, from the device's matrix units where those can have it. They add up in f32; the engine's
/// other kernels add up in the type of their operands, so that what is left to them is widened first. `E` is the
/// engine's way to say that the units cannot.
fn product<E>(
    fits_units: bool,
    on_units: impl FnOnce() -> Result<GpuTensor, E>,
    in_f32: impl FnOnce() -> GpuTensor,
) -> GpuTensor {
    match fits_units.then(on_units) {
        Some(Ok(product)) => product,
        Some(Err(_)) | None => in_type::<CubeBackend>(in_f32(), DType::BF16),
    }
}

impl Kernels for CubeBackend {
    fn conv2d_forward(
        x: GpuTensor,
        weight: GpuTensor,
        bias: Option<GpuTensor>,
        options: Conv2dOptions,
    ) -> GpuTensor {
        if x.dtype() != DType::BF16 {
            return engine_conv2d::<Self>(x, weight, bias, options);
        }
        let on_units = || {
            let (x, engine) = (with_extra_end::<Self>(x.clone(), options.extra_end), engine_options(options));
            conv_forward::<2>(x, weight.clone(), bias.clone(), engine, ConvStrategy::ImplicitGemm)
        };
        product(options.groups == 1, on_units, || {
            let [x, weight] = [&x, &weight].map(|t| wide::<Self>(t.clone()));
            engine_conv2d::<Self>(x, weight, bias.clone().map(wide::<Self>), options)
        })
    }

    fn conv2d_input_grad(
        x: GpuTensor,
        weight: GpuTensor,
        grad: GpuTensor,
        options: Conv2dOptions,
    ) -> GpuTensor {
        if x.dtype() != DType::BF16 {
            return engine_conv2d_input_grad::<Self>(x, weight, grad, options);
        }
        let shape = x.shape();
        let on_units = || {
            let ([down, right], engine) = (options.extra_end, engine_options(options));
            let padded = [shape[0], shape[1], shape[2] + down, shape[3] + right];
            let (weight, grad) = (weight.clone(), grad.clone());
            let dx = conv_data_backward::<2>(grad, weight, padded.into(), engine, ConvStrategy::ImplicitGemm);
            dx.map(|dx| if [down, right] == [0, 0] { dx } else { Self::float_slice(dx, &whole(&shape)) })
        };
        product(options.groups == 1 && options.stride == [1, 1], on_units, || {
            let [x, weight, grad] = [&x, &weight, &grad].map(|t| wide::<Self>(t.clone()));
            engine_conv2d_input_grad::<Self>(x, weight, grad, options)
        })
    }

    fn conv2d_weight_grad(
        x: GpuTensor,
        weight: GpuTensor,
        grad: GpuTensor,
        options: Conv2dOptions,
    ) -> GpuTensor {
        if x.dtype() != DType::BF16 {
            return engine_conv2d_weight_grad::<Self>(x, weight, grad, options);
        }
        let on_units = || {
            let (x, engine) = (with_extra_end::<Self>(x.clone(), options.extra_end), engine_options(options));
            conv_weight_backward::<2>(x, grad.clone(), weight.shape(), engine, ConvStrategy::ImplicitGemm)
        };
        product(options.groups == 1, on_units, || {
            let [x, weight, grad] = [&x, &weight, &grad].map(|t| wide::<Self>(t.clone()));
            engine_conv2d_weight_grad::<Self>(x, weight, grad, options)
        })
    }

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

    fn overlaps(boxes: GpuTensor, first: usize, rows: usize, iou_threshold: f32) -> GpuTensor {
        overlaps::overlaps(Self::float_cast(boxes, FloatDType::F32), first, rows, iou_threshold)
    }
}
