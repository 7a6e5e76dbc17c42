//! Flex: the CPU kernels of [`crate::cpu`] over the tensors' own storage.
//!
//! Only f32 is handled here, and convolutions of bf16 by way of it; other types go to the engine's ops.

use core::mem::MaybeUninit;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, FloatDType, Shape, TensorData};

use super::kernels::{self, Kernels, NormState, in_type, wide};
use super::roi_align::{engine_roi_align, engine_roi_align_backward};
use crate::conv2d::Conv2dOptions;
use crate::cpu::conv::{self, Films};
use crate::cpu::elementwise;
use crate::cpu::gate;
use crate::cpu::geometry::ConvShape;
use crate::cpu::norm::{self, Planes};
use crate::cpu::overlaps;
use crate::cpu::planes::written;
use crate::cpu::pool::{self, Windows};
use crate::cpu::roi_align::{self, Grid, Region};
use crate::cpu::silu;
use crate::cpu::simd::Isa;
use crate::pool::MaxPool2dOptions;
use crate::roi_align::{Roi, RoiAlignOptions};
use crate::suppression::BITS;

type FlexTensor = FloatTensor<Flex>;

/// Whether the kernels here can take these tensors.
fn f32_and_not_empty(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32 && t.layout().num_elements() > 0)
}

/// The type of these tensors, where the convolutions here can take them.
fn product_type(tensors: &[&FlexTensor]) -> Option<DType> {
    let dtype = tensors[0].dtype();
    let fits = |t: &&FlexTensor| t.dtype() == dtype && t.layout().num_elements() > 0;
    (matches!(dtype, DType::F32 | DType::BF16) && tensors.iter().all(fits)).then_some(dtype)
}

/// `[N, C, H, W]`
fn dims(x: &FlexTensor) -> [usize; 4] {
    let shape = x.shape();
    [shape[0], shape[1], shape[2], shape[3]]
}

fn planes(x: &FlexTensor) -> Planes {
    let [n, c, h, w] = dims(x);
    Planes { n, c, pixels: h * w }
}

/// The tensor, copied only if the values of a film do not lie one after the other (a slice of channels
/// does not need a copy).
fn by_film(x: FlexTensor) -> FlexTensor {
    let layout = x.layout();
    let (shape, strides) = (layout.shape(), layout.strides());
    let mut expected = 1isize;
    let dense = (1..4).rev().all(|d| {
        let fits = shape[d] == 1 || strides[d] == expected;
        expected *= shape[d] as isize;
        fits
    });
    if dense && (shape[0] == 1 || strides[0] >= 0) { x } else { x.to_contiguous() }
}

/// Films of a tensor that went through [`by_film`].
fn films(x: &FlexTensor) -> Films<'_> {
    let layout = x.layout();
    let stride = if layout.shape()[0] == 1 { 0 } else { layout.strides()[0] as usize };
    Films { data: &x.storage::<f32>()[layout.start_offset()..], stride }
}

/// All values in order, copied only if they do not lie so.
fn dense(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// Values of a tensor that went through [`dense`].
fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice::<f32>().expect("the tensor was made contiguous and is f32")
}

/// The values for writing, when nobody else holds them and they are all there is in the buffer.
fn owned_values(x: &mut FlexTensor) -> Option<&mut [f32]> {
    let whole = x.is_contiguous()
        && x.layout().start_offset() == 0
        && x.bytes().len() == x.layout().num_elements() * size_of::<f32>();
    if whole { x.try_storage_mut::<f32>() } else { None }
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// A tensor that `write` fills.
///
/// # Safety
/// `write` sets every value.
unsafe fn filled(shape: impl Into<Shape>, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> FlexTensor {
    let shape = shape.into();
    // SAFETY: the caller's contract.
    let values = unsafe { written(shape.num_elements(), write) };
    tensor(values, shape)
}

fn conv_shape(x: &FlexTensor, weight: &FlexTensor, options: Conv2dOptions) -> ConvShape {
    let (x, weight) = (dims(x), dims(weight));
    let [n, o, oh, ow] = options.output_shape(x, weight, None);
    ConvShape {
        n,
        groups: options.groups,
        i: weight[1],
        o: o / options.groups,
        input: [x[2], x[3]],
        output: [oh, ow],
        kernel: [weight[2], weight[3]],
        stride: options.stride,
        padding: options.padding,
        dilation: options.dilation,
    }
}

impl Kernels for Flex {
    fn conv2d_forward(
        x: FlexTensor,
        weight: FlexTensor,
        bias: Option<FlexTensor>,
        options: Conv2dOptions,
    ) -> FlexTensor {
        let dtype = product_type(&[&x, &weight])
            .filter(|_| bias.as_ref().is_none_or(|bias| f32_and_not_empty(&[bias])));
        let Some(dtype) = dtype else {
            return kernels::engine_conv2d::<Self>(x, weight, bias, options);
        };
        let shape = conv_shape(&x, &weight, options);
        let [x, weight] = [x, weight].map(wide::<Self>);
        let (x, weight, bias) = (by_film(x), dense(weight), bias.map(dense));
        let output = [shape.n, shape.groups * shape.o, shape.output[0], shape.output[1]];
        // SAFETY: a forward pass writes every output pixel.
        let y = unsafe {
            filled(output, |out| {
                conv::forward(
                    Isa::best(),
                    &shape,
                    films(&x),
                    values(&weight),
                    bias.as_ref().map(values),
                    out,
                );
            })
        };
        in_type::<Self>(y, dtype)
    }

    fn conv2d_input_grad(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        options: Conv2dOptions,
    ) -> FlexTensor {
        let Some(dtype) = product_type(&[&x, &weight, &grad]) else {
            return kernels::engine_conv2d_input_grad::<Self>(x, weight, grad, options);
        };
        let shape = conv_shape(&x, &weight, options);
        let [weight, grad] = [weight, grad].map(wide::<Self>);
        let (weight, grad) = (dense(weight), by_film(grad));
        // SAFETY: an input gradient writes every input pixel, with 0 where no output sees it.
        let dx = unsafe {
            filled(x.shape(), |out| {
                conv::input_grad(Isa::best(), &shape, films(&grad), values(&weight), out);
            })
        };
        in_type::<Self>(dx, dtype)
    }

    fn conv2d_weight_grad(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        options: Conv2dOptions,
    ) -> FlexTensor {
        let Some(dtype) = product_type(&[&x, &weight, &grad]) else {
            return kernels::engine_conv2d_weight_grad::<Self>(x, weight, grad, options);
        };
        let shape = conv_shape(&x, &weight, options);
        let [x, grad] = [x, grad].map(|t| by_film(wide::<Self>(t)));
        let mut dw = vec![0.0; weight.layout().num_elements()];
        conv::weight_grad(Isa::best(), &shape, films(&x), films(&grad), &mut dw);
        in_type::<Self>(tensor(dw, weight.shape()), dtype)
    }

    fn conv2d_bias_grad(grad: FlexTensor) -> FlexTensor {
        if !f32_and_not_empty(&[&grad]) {
            return kernels::channel_sum::<Self>(grad);
        }
        let Planes { n, c, pixels } = planes(&grad);
        let grad = by_film(grad);
        let mut db = vec![0.0; c];
        conv::bias_grad(n, pixels, films(&grad), &mut db);
        tensor(db, [c])
    }

    fn norm_train(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        eps: f64,
        relu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        if !f32_and_not_empty(&[&x, &weight, &bias]) {
            return kernels::engine_norm_train::<Self>(x, weight, bias, eps, relu);
        }
        let planes = planes(&x);
        let (x, weight, bias) = (by_film(x), dense(weight), dense(bias));
        let (mean, variance) = norm::statistics(planes, films(&x));
        let (scale, shift) = norm::fold(values(&weight), values(&bias), &mean, &variance, eps);
        // SAFETY: `affine` writes every plane.
        let y =
            unsafe { filled(x.shape(), |out| norm::affine(planes, films(&x), &scale, &shift, relu, out)) };
        (y, tensor(mean, [planes.c]), tensor(variance, [planes.c]))
    }

    fn norm_train_again(state: NormState<Self>) -> FlexTensor {
        let NormState { x, weight, bias, mean, variance, eps, relu } = state;
        if !f32_and_not_empty(&[&x, &weight, &bias, &mean, &variance]) {
            let state = NormState { x, weight, bias, mean, variance, eps, relu };
            return kernels::engine_norm_train_again::<Self>(state);
        }
        let planes = planes(&x);
        let x = by_film(x);
        let [weight, bias, mean, variance] = [weight, bias, mean, variance].map(dense);
        let (scale, shift) =
            norm::fold(values(&weight), values(&bias), values(&mean), values(&variance), eps);
        // SAFETY: `affine` writes every plane.
        unsafe { filled(x.shape(), |out| norm::affine(planes, films(&x), &scale, &shift, relu, out)) }
    }

    fn norm_train_backward(state: NormState<Self>, grad: FlexTensor) -> (FlexTensor, FlexTensor, FlexTensor) {
        let NormState { x, weight, bias, mean, variance, eps, relu } = state;
        if !f32_and_not_empty(&[&x, &weight, &bias, &mean, &variance, &grad]) {
            let state = NormState { x, weight, bias, mean, variance, eps, relu };
            return kernels::engine_norm_train_backward::<Self>(state, grad);
        }
        let planes = planes(&x);
        let (x, grad) = (by_film(x), by_film(grad));
        let [weight, bias, mean, variance] = [weight, bias, mean, variance].map(dense);
        let mut sums = (Vec::new(), Vec::new());
        // SAFETY: `norm_grad` writes every plane of every channel.
        let dx = unsafe {
            filled(x.shape(), |out| {
                sums = norm::norm_grad(
                    planes,
                    films(&x),
                    values(&weight),
                    values(&bias),
                    values(&mean),
                    values(&variance),
                    eps,
                    relu,
                    films(&grad),
                    out,
                );
            })
        };
        (dx, tensor(sums.0, [planes.c]), tensor(sums.1, [planes.c]))
    }

    fn channel_affine(x: FlexTensor, scale: FlexTensor, shift: FlexTensor, relu: bool) -> FlexTensor {
        if !f32_and_not_empty(&[&x, &scale, &shift]) {
            return kernels::engine_channel_affine::<Self>(x, scale, shift, relu);
        }
        let planes = planes(&x);
        let (x, scale, shift) = (by_film(x), dense(scale), dense(shift));
        // SAFETY: `affine` writes every plane.
        unsafe {
            filled(x.shape(), |out| {
                norm::affine(planes, films(&x), values(&scale), values(&shift), relu, out);
            })
        }
    }

    fn channel_affine_backward(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        relu: bool,
        grad: FlexTensor,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        if !f32_and_not_empty(&[&x, &scale, &shift, &grad]) {
            return kernels::engine_channel_affine_backward::<Self>(x, scale, shift, relu, grad);
        }
        let planes = planes(&x);
        let (x, grad) = (by_film(x), by_film(grad));
        let (scale, shift) = (dense(scale), dense(shift));
        let mut sums = (Vec::new(), Vec::new());
        // SAFETY: `affine_grad` writes every plane of every channel.
        let dx = unsafe {
            filled(x.shape(), |out| {
                let (scale, shift) = (values(&scale), values(&shift));
                sums = norm::affine_grad(planes, films(&x), scale, shift, relu, films(&grad), out);
            })
        };
        (dx, tensor(sums.0, [planes.c]), tensor(sums.1, [planes.c]))
    }

    fn relu_forward(mut x: FlexTensor) -> FlexTensor {
        if !f32_and_not_empty(&[&x]) {
            return kernels::engine_relu::<Self>(x);
        }
        if let Some(x) = owned_values(&mut x) {
            elementwise::relu_in_place(x);
        } else {
            let source = dense(x);
            // SAFETY: `relu` writes every value.
            x = unsafe { filled(source.shape(), |out| elementwise::relu(values(&source), out)) };
        }
        x
    }

    fn relu_grad(output: FlexTensor, mut grad: FlexTensor) -> FlexTensor {
        if !f32_and_not_empty(&[&output, &grad]) {
            return kernels::engine_relu_grad::<Self>(output, grad);
        }
        let output = dense(output);
        if let Some(grad) = owned_values(&mut grad) {
            elementwise::relu_grad_in_place(values(&output), grad);
        } else {
            let source = dense(grad);
            // SAFETY: `relu_grad` writes every value.
            grad = unsafe {
                filled(source.shape(), |out| elementwise::relu_grad(values(&output), values(&source), out))
            };
        }
        grad
    }

    fn add_relu(mut a: FlexTensor, b: FlexTensor) -> FlexTensor {
        if !f32_and_not_empty(&[&a, &b]) {
            return kernels::engine_relu::<Self>(Self::float_add(a, b));
        }
        let b = dense(b);
        if let Some(a) = owned_values(&mut a) {
            elementwise::add_relu_in_place(a, values(&b));
        } else {
            let source = dense(a);
            // SAFETY: `add_relu` writes every value.
            a = unsafe {
                filled(source.shape(), |out| elementwise::add_relu(values(&source), values(&b), out))
            };
        }
        a
    }

    fn silu_forward(mut x: FlexTensor) -> FlexTensor {
        if !f32_and_not_empty(&[&x]) {
            return kernels::engine_silu::<Self>(x);
        }
        if let Some(x) = owned_values(&mut x) {
            silu::silu_in_place(Isa::best(), x);
        } else {
            let source = dense(x);
            // SAFETY: `silu` writes every value.
            x = unsafe { filled(source.shape(), |out| silu::silu(Isa::best(), values(&source), out)) };
        }
        x
    }

    fn silu_grad(x: FlexTensor, grad: FlexTensor) -> FlexTensor {
        if !f32_and_not_empty(&[&x, &grad]) {
            return kernels::engine_silu_grad::<Self>(x, grad);
        }
        let (x, grad) = (dense(x), dense(grad));
        // SAFETY: `silu_grad` writes every value.
        unsafe { filled(x.shape(), |out| silu::silu_grad(Isa::best(), values(&x), values(&grad), out)) }
    }

    fn channel_gate(x: FlexTensor, gate: FlexTensor) -> FlexTensor {
        if !f32_and_not_empty(&[&x, &gate]) {
            return Self::float_mul(x, gate);
        }
        let planes = planes(&x);
        let (x, gate) = (by_film(x), dense(gate));
        // SAFETY: `gate` writes every plane.
        unsafe { filled(x.shape(), |out| gate::gate(planes, films(&x), values(&gate), out)) }
    }

    fn channel_gate_backward(x: FlexTensor, gate: FlexTensor, grad: FlexTensor) -> (FlexTensor, FlexTensor) {
        if !f32_and_not_empty(&[&x, &gate, &grad]) {
            return kernels::engine_channel_gate_backward::<Self>(x, gate, grad);
        }
        let planes = planes(&x);
        let (x, gate, grad) = (by_film(x), dense(gate), by_film(grad));
        let mut dgate = vec![0.0; planes.n * planes.c];
        // SAFETY: `gate_grad` writes every plane.
        let dx = unsafe {
            filled(x.shape(), |out| {
                gate::gate_grad(planes, films(&x), values(&gate), films(&grad), out, &mut dgate);
            })
        };
        (dx, tensor(dgate, [planes.n, planes.c, 1, 1]))
    }

    fn max_pool(x: FlexTensor, options: MaxPool2dOptions) -> (FlexTensor, IntTensor<Self>) {
        if !f32_and_not_empty(&[&x]) {
            return kernels::engine_max_pool::<Self>(x, options);
        }
        let planes = planes(&x);
        let windows = windows(&x, options);
        let x = by_film(x);
        let shape = [planes.n, planes.c, windows.output[0], windows.output[1]];
        let mut from = vec![0i32; shape.iter().product()];
        // SAFETY: `max_pool` writes every output of every plane.
        let y = unsafe { filled(shape, |out| pool::max_pool(planes, &windows, films(&x), out, &mut from)) };
        (y, FlexTensor::from_data(TensorData::new(from, shape)))
    }

    fn max_pool_backward(
        x: FlexTensor,
        indices: IntTensor<Self>,
        options: MaxPool2dOptions,
        grad: FlexTensor,
    ) -> FlexTensor {
        if !f32_and_not_empty(&[&x, &grad]) {
            return kernels::engine_max_pool_backward::<Self>(x, indices, options, grad);
        }
        let planes = planes(&x);
        let outputs: usize = windows(&x, options).output.iter().product();
        let grad = by_film(grad);
        let indices = dense(indices);
        let from = indices.as_slice::<i32>().expect("`max_pool` made these indices as i32");
        let mut dx = vec![0.0; x.layout().num_elements()];
        pool::max_pool_grad(planes, outputs, films(&grad), from, &mut dx);
        tensor(dx, x.shape())
    }

    fn upsample_nearest(x: FlexTensor, size: [usize; 2]) -> FlexTensor {
        if !f32_and_not_empty(&[&x]) {
            return kernels::engine_upsample::<Self>(x, size);
        }
        let [n, c, height, width] = dims(&x);
        let (rows, cols) = (pool::nearest_sources(height, size[0]), pool::nearest_sources(width, size[1]));
        let planes = planes(&x);
        let x = by_film(x);
        // SAFETY: `upsample` writes every output of every plane.
        unsafe {
            filled([n, c, size[0], size[1]], |out| {
                pool::upsample(planes, width, &rows, &cols, films(&x), out);
            })
        }
    }

    fn upsample_nearest_backward(x: FlexTensor, grad: FlexTensor) -> FlexTensor {
        if !f32_and_not_empty(&[&x, &grad]) {
            return kernels::engine_upsample_backward::<Self>(x, grad);
        }
        let ([_, _, height, width], [_, _, oh, ow]) = (dims(&x), dims(&grad));
        let (rows, cols) = (pool::nearest_sources(height, oh), pool::nearest_sources(width, ow));
        let grad = by_film(grad);
        let mut dx = vec![0.0; x.layout().num_elements()];
        pool::upsample_grad(planes(&x), width, &rows, &cols, films(&grad), &mut dx);
        tensor(dx, x.shape())
    }

    fn global_avg_pool(x: FlexTensor) -> FlexTensor {
        if !f32_and_not_empty(&[&x]) {
            return kernels::engine_global_avg_pool::<Self>(x);
        }
        let planes = planes(&x);
        let x = by_film(x);
        // SAFETY: `global_average` writes one value a plane.
        unsafe { filled([planes.n, planes.c, 1, 1], |out| pool::global_average(planes, films(&x), out)) }
    }

    fn roi_align(x: FlexTensor, rois: &[Roi], options: RoiAlignOptions) -> FlexTensor {
        if !f32_and_not_empty(&[&x]) {
            return engine_roi_align::<Self>(x, rois, options);
        }
        let grid = roi_grid(&x, &options);
        let regions = Region::all(rois, grid.map, &options);
        let x = by_film(x);
        let shape = [rois.len(), grid.channels, grid.bins[0], grid.bins[1]];
        let mut y = vec![0.0; shape.iter().product()];
        roi_align::forward(grid, &regions, films(&x), &mut y);
        tensor(y, shape)
    }

    fn roi_align_backward(
        x: FlexTensor,
        rois: &[Roi],
        options: RoiAlignOptions,
        grad: FlexTensor,
    ) -> FlexTensor {
        if !f32_and_not_empty(&[&x]) || grad.dtype() != DType::F32 {
            return engine_roi_align_backward::<Self>(x, rois, options, grad);
        }
        let grid = roi_grid(&x, &options);
        let regions = Region::all(rois, grid.map, &options);
        let grad = dense(grad);
        let mut dx = vec![0.0; x.layout().num_elements()];
        roi_align::map_grad(grid, dims(&x)[0], &regions, values(&grad), &mut dx);
        tensor(dx, x.shape())
    }

    fn overlaps(boxes: FlexTensor, first: usize, rows: usize, iou_threshold: f32) -> FlexTensor {
        let boxes = dense(Self::float_cast(boxes, FloatDType::F32));
        let (boxes, _) = values(&boxes).as_chunks::<5>();
        let words = boxes.len().div_ceil(BITS);
        tensor(overlaps::overlaps(boxes, first, rows, iou_threshold), [rows, words])
    }
}

fn roi_grid(x: &FlexTensor, options: &RoiAlignOptions) -> Grid {
    let [_, channels, height, width] = dims(x);
    Grid { channels, map: [height, width], bins: options.output_size }
}

fn windows(x: &FlexTensor, options: MaxPool2dOptions) -> Windows {
    let [_, _, height, width] = dims(x);
    let MaxPool2dOptions { kernel, stride, padding } = options;
    let output = options.output_size([height, width]);
    Windows { input: [height, width], output, kernel, stride, padding }
}
