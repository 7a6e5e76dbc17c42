//! Every operation and its gradient over a backend's own tensors.
//!
//! The `engine_*` functions compose the engine's ops; they are the default bodies of [`Kernels`] and what
//! an implementation of it falls back to.

use burn::backend::ops::ConvOptions;
use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Backend, IntDType, TensorMetadata, get_device_settings};
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{DType, FloatDType, Shape, Slice};

use super::joint_norm;
use super::roi_align::{engine_roi_align, engine_roi_align_backward};
use crate::conv2d::Conv2dOptions;
use crate::pool::MaxPool2dOptions;
use crate::ranks;
use crate::roi_align::{Roi, RoiAlignOptions};

/// Operations with their gradients. The default bodies work on any backend; the one without has a few lines on each.
pub trait Kernels: Backend {
    /// Convolution.
    fn conv2d_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self> {
        engine_conv2d::<Self>(x, weight, bias, options)
    }

    /// Gradient of a convolution for its input, of the shape of `x`.
    fn conv2d_input_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self> {
        engine_conv2d_input_grad::<Self>(x, weight, grad, options)
    }

    /// Gradient of a convolution for its weight.
    fn conv2d_weight_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self> {
        engine_conv2d_weight_grad::<Self>(x, weight, grad, options)
    }

    /// Gradient of a convolution for its bias: `[N, O, H, W]` -> `[O]`.
    fn conv2d_bias_grad(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        channel_sum::<Self>(grad)
    }

    /// Batch norm with batch statistics, then ReLU if asked for: output, mean, biased variance.
    fn norm_train(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        engine_norm_train::<Self>(x, weight, bias, eps, relu)
    }

    /// The output of [`Kernels::norm_train`] once more, from its statistics: the same bits.
    fn norm_train_again(state: NormState<Self>) -> FloatTensor<Self> {
        engine_norm_train_again::<Self>(state)
    }

    /// Gradients of [`Kernels::norm_train`] for `x`, `weight` and `bias`.
    fn norm_train_backward(
        state: NormState<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        engine_norm_train_backward::<Self>(state, grad)
    }

    /// `x * scale + shift` by channel, then ReLU if asked for.
    fn channel_affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self> {
        engine_channel_affine::<Self>(x, scale, shift, relu)
    }

    /// Gradients of [`Kernels::channel_affine`] for `x`, `scale` and `shift`.
    fn channel_affine_backward(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        engine_channel_affine_backward::<Self>(x, scale, shift, relu, grad)
    }

    /// `max(x, 0)`.
    fn relu_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        engine_relu::<Self>(x)
    }

    /// `grad` where `output` is positive, 0 elsewhere.
    fn relu_grad(output: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        engine_relu_grad::<Self>(output, grad)
    }

    /// Where `output` is not positive.
    fn not_positive(output: FloatTensor<Self>) -> BoolTensor<Self> {
        let store = get_device_settings::<Self>(&output.device()).bool_dtype;
        Self::bool_not(Self::float_greater_elem(output, 0f32.into(), store))
    }

    /// `max(a + b, 0)`.
    fn add_relu(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        engine_relu::<Self>(Self::float_add(a, b))
    }

    /// `x * sigmoid(x)`.
    fn silu_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        engine_silu::<Self>(x)
    }

    /// Gradient of [`Kernels::silu_forward`] for `x`.
    fn silu_grad(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        engine_silu_grad::<Self>(x, grad)
    }

    /// Each plane times its factor.
    fn channel_gate(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_mul(x, gate)
    }

    /// Gradients of [`Kernels::channel_gate`] for `x` and `gate`.
    fn channel_gate_backward(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        engine_channel_gate_backward::<Self>(x, gate, grad)
    }

    /// Max pooling: output, and for each output value the flat index of its source in the input plane.
    fn max_pool(x: FloatTensor<Self>, options: MaxPool2dOptions) -> (FloatTensor<Self>, IntTensor<Self>) {
        engine_max_pool::<Self>(x, options)
    }

    /// Gradient of [`Kernels::max_pool`] for `x`.
    fn max_pool_backward(
        x: FloatTensor<Self>,
        indices: IntTensor<Self>,
        options: MaxPool2dOptions,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        engine_max_pool_backward::<Self>(x, indices, options, grad)
    }

    /// Nearest resize to `[height, width]`.
    fn upsample_nearest(x: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self> {
        engine_upsample::<Self>(x, size)
    }

    /// Gradient of [`Kernels::upsample_nearest`] for `x`.
    fn upsample_nearest_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        engine_upsample_backward::<Self>(x, grad)
    }

    /// Mean over pixels, `[N, C, H, W]` -> `[N, C, 1, 1]`.
    fn global_avg_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        engine_global_avg_pool::<Self>(x)
    }

    /// Gradient of [`Kernels::global_avg_pool`]: `[N, C, 1, 1]` -> `shape`.
    fn global_avg_pool_backward(grad: FloatTensor<Self>, shape: Shape) -> FloatTensor<Self> {
        let count = (shape[2] * shape[3]) as f64;
        Self::float_expand(Self::float_div_scalar(grad, count.into()), shape)
    }

    /// A grid of features for each box, `[N, C, H, W]` -> `[R, C, bins, bins]`.
    fn roi_align(x: FloatTensor<Self>, rois: &[Roi], options: RoiAlignOptions) -> FloatTensor<Self> {
        engine_roi_align::<Self>(x, rois, options)
    }

    /// Gradient of [`Kernels::roi_align`] for `x`.
    fn roi_align_backward(
        x: FloatTensor<Self>,
        rois: &[Roi],
        options: RoiAlignOptions,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        engine_roi_align_backward::<Self>(x, rois, options, grad)
    }

    /// Which boxes overlap a better one of their class, see [`super::FilmOps::op_overlaps`].
    fn overlaps(boxes: FloatTensor<Self>, first: usize, rows: usize, iou_threshold: f32)
    -> FloatTensor<Self>;
}

/// What the backward of a batch norm needs: what the forward was called with, and its statistics.
#[derive(Debug)]
pub struct NormState<B: Backend> {
    pub x: FloatTensor<B>,
    pub weight: FloatTensor<B>,
    pub bias: FloatTensor<B>,
    pub mean: FloatTensor<B>,
    pub variance: FloatTensor<B>,
    pub eps: f64,
    pub relu: bool,
}

// By hand: a derive would ask the backend itself to be `Clone`.
impl<B: Backend> Clone for NormState<B> {
    fn clone(&self) -> Self {
        Self {
            x: self.x.clone(),
            weight: self.weight.clone(),
            bias: self.bias.clone(),
            mean: self.mean.clone(),
            variance: self.variance.clone(),
            eps: self.eps,
            relu: self.relu,
        }
    }
}

impl<B: Backend> NormState<B> {
    /// With the input in f32.
    pub fn wide(self) -> Self {
        Self { x: wide::<B>(self.x), ..self }
    }
}

/// A tensor in bf16 as f32; another as it is.
pub(super) fn wide<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    match x.dtype() {
        DType::BF16 => B::float_cast(x, FloatDType::F32),
        _ => x,
    }
}

/// The tensor in the given type.
pub(super) fn in_type<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype { x } else { B::float_cast(x, FloatDType::from(dtype)) }
}

/// The input with the zeros that only the bottom and the right have, which the engine's convolution knows nothing of.
pub(super) fn with_extra_end<B: Backend>(x: FloatTensor<B>, extra: [usize; 2]) -> FloatTensor<B> {
    if extra == [0, 0] {
        return x;
    }
    let shape = x.shape();
    let wide = Shape::from([shape[0], shape[1], shape[2] + extra[0], shape[3] + extra[1]]);
    let zeros = B::float_zeros(wide, &x.device(), x.dtype().into());
    B::float_slice_assign(zeros, &whole(&shape), x)
}

/// All of a tensor of this shape.
pub(super) fn whole(shape: &Shape) -> Vec<Slice> {
    (0..shape.num_dims()).map(|d| (0..shape[d]).into()).collect()
}

pub(super) fn engine_options(options: Conv2dOptions) -> ConvOptions<2> {
    ConvOptions::new(options.stride, options.padding, options.dilation, options.groups)
}

pub(super) fn engine_conv2d<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    options: Conv2dOptions,
) -> FloatTensor<B> {
    B::conv2d(with_extra_end::<B>(x, options.extra_end), weight, bias, engine_options(options))
}

pub(super) fn engine_conv2d_input_grad<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    options: Conv2dOptions,
) -> FloatTensor<B> {
    let shape = x.shape();
    let x = with_extra_end::<B>(x, options.extra_end);
    let dx = B::conv2d_x_backward(x, weight, grad, engine_options(options));
    if options.extra_end == [0, 0] { dx } else { B::float_slice(dx, &whole(&shape)) }
}

pub(super) fn engine_conv2d_weight_grad<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    options: Conv2dOptions,
) -> FloatTensor<B> {
    let x = with_extra_end::<B>(x, options.extra_end);
    B::conv2d_weight_backward(x, weight, grad, engine_options(options))
}

/// `[N, C, H, W]` -> `[C]`
pub(super) fn channel_sum<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let c = x.shape()[1];
    let sum = B::float_sum_dim(B::float_sum_dim(B::float_sum_dim(x, 3), 2), 0);
    B::float_reshape(sum, Shape::from([c]))
}

pub(super) fn engine_norm_train<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    eps: f64,
    relu: bool,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    if ranks::size() > 1 {
        return joint_norm::forward::<B>(x, weight, bias, eps, relu);
    }
    let result = B::batch_norm_train(x, weight, bias, eps);
    let output = if relu { B::relu(result.output) } else { result.output };
    (output, result.mean, result.variance)
}

pub(super) fn engine_norm_train_again<B: Backend>(state: NormState<B>) -> FloatTensor<B> {
    let NormState { x, weight, bias, mean, variance, eps, relu } = state;
    let output = B::batch_norm(x, weight, bias, mean, variance, eps);
    if relu { B::relu(output) } else { output }
}

pub(super) fn engine_norm_train_backward<B: Backend>(
    state: NormState<B>,
    grad: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    if ranks::size() > 1 {
        return joint_norm::backward::<B>(state, grad);
    }
    let NormState { x, weight, bias, mean, variance, eps, relu } = state;
    let grad = if relu {
        let output = B::batch_norm(x.clone(), weight.clone(), bias, mean.clone(), variance.clone(), eps);
        B::relu_backward(B::relu(output), grad)
    } else {
        grad
    };
    let result = B::batch_norm_train_backward(x, weight, mean, variance, eps, grad);
    (result.x_grad, result.gamma_grad, result.beta_grad)
}

pub(super) fn engine_channel_affine<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    shift: FloatTensor<B>,
    relu: bool,
) -> FloatTensor<B> {
    let output = B::float_add(B::float_mul(x, per_channel::<B>(scale)), per_channel::<B>(shift));
    if relu { B::relu(output) } else { output }
}

pub(super) fn engine_channel_affine_backward<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    shift: FloatTensor<B>,
    relu: bool,
    grad: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let grad = if relu {
        let output = engine_channel_affine::<B>(x.clone(), scale.clone(), shift, true);
        B::relu_backward(output, grad)
    } else {
        grad
    };
    let dx = B::float_mul(grad.clone(), per_channel::<B>(scale));
    let dscale = channel_sum::<B>(B::float_mul(grad.clone(), x));
    (dx, dscale, channel_sum::<B>(grad))
}

/// `[C]` -> `[1, C, 1, 1]`
pub(super) fn per_channel<B: Backend>(values: FloatTensor<B>) -> FloatTensor<B> {
    let c = values.shape()[0];
    B::float_reshape(values, Shape::from([1, c, 1, 1]))
}

pub(super) fn engine_relu<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::relu(x)
}

pub(super) fn engine_relu_grad<B: Backend>(output: FloatTensor<B>, grad: FloatTensor<B>) -> FloatTensor<B> {
    B::relu_backward(output, grad)
}

pub(super) fn engine_silu<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_mul(x.clone(), B::sigmoid(x))
}

pub(super) fn engine_silu_grad<B: Backend>(x: FloatTensor<B>, grad: FloatTensor<B>) -> FloatTensor<B> {
    // s + x s (1 - s) = s (1 + x - y)
    let s = B::sigmoid(x.clone());
    let y = B::float_mul(x.clone(), s.clone());
    let slope = B::float_mul(s, B::float_add_scalar(B::float_sub(x, y), 1.0.into()));
    B::float_mul(grad, slope)
}

pub(super) fn engine_channel_gate_backward<B: Backend>(
    x: FloatTensor<B>,
    gate: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dgate = B::float_sum_dim(B::float_sum_dim(B::float_mul(x, grad.clone()), 3), 2);
    (B::float_mul(grad, gate), dgate)
}

pub(super) fn engine_max_pool<B: Backend>(
    x: FloatTensor<B>,
    options: MaxPool2dOptions,
) -> (FloatTensor<B>, IntTensor<B>) {
    let MaxPool2dOptions { kernel, stride, padding } = options;
    let result = B::max_pool2d_with_indices(x, kernel, stride, padding, [1, 1], false, IntDType::I32);
    (result.output, result.indices)
}

pub(super) fn engine_max_pool_backward<B: Backend>(
    x: FloatTensor<B>,
    indices: IntTensor<B>,
    options: MaxPool2dOptions,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let MaxPool2dOptions { kernel, stride, padding } = options;
    B::max_pool2d_with_indices_backward(x, kernel, stride, padding, [1, 1], false, grad, indices).x_grad
}

pub(super) fn engine_upsample<B: Backend>(x: FloatTensor<B>, size: [usize; 2]) -> FloatTensor<B> {
    B::interpolate(x, size, InterpolateOptions::new(InterpolateMode::Nearest))
}

pub(super) fn engine_upsample_backward<B: Backend>(
    x: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let shape = grad.shape();
    let size = [shape[2], shape[3]];
    B::interpolate_backward(x, grad, size, InterpolateOptions::new(InterpolateMode::Nearest))
}

pub(super) fn engine_global_avg_pool<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_mean_dim(B::float_mean_dim(x, 3), 2)
}
