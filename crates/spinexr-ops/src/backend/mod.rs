//! The operations as an extension of Burn's backends.
//!
//! [`kernels::Kernels`] holds each operation and its gradient over a backend's own tensors; its default
//! bodies compose the engine's ops, so that a new backend needs one empty `impl` and its name in the
//! list of [`FilmOps`]. Flex has kernels of its own; `Cube`, every GPU of the engine, has some. [`FilmOps`] is
//! what tensors are sent through: the engine picks the backend at run time, and on an autodiff device the
//! `Autodiff` implementation records a backward step.

mod autodiff;
#[cfg(feature = "gpu")]
mod cube;
mod flex;
mod joint_norm;
pub(crate) mod kernels;
mod roi_align;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, backend_extension};

use crate::conv2d::Conv2dOptions;
use crate::pool::MaxPool2dOptions;
use crate::roi_align::{Roi, RoiAlignOptions};
use kernels::Kernels;

/// Operations on a backend; see the functions of the same names in the public modules.
#[backend_extension(Flex, Cube: cfg(feature = "gpu"), Autodiff)]
pub trait FilmOps: Backend {
    /// Convolution without bias, `[N, I, H, W]` -> `[N, O, H', W']`. Where `x` is in bf16 the product is, and goes on as f32;
    /// the weight is f32 all the same, and rounded for each product, so that nothing keeps a second copy of it.
    fn op_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self>;

    /// Convolution with bias (the extension macro has no optional inputs), which is added in f32.
    fn op_conv2d_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self>;

    /// Batch norm with batch statistics: output, mean `[C]`, biased variance `[C]`. Here and in the other operations on
    /// maps that are no products, `x` may be in bf16; what is computed is f32.
    fn op_norm_train(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// `x * scale + shift` by channel, then ReLU if asked for.
    fn op_channel_affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self>;

    /// [`FilmOps::op_norm_train`] with ReLU, then a convolution without bias; the backward step makes the map
    /// between them again.
    fn op_norm_train_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
        conv_weight: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// [`FilmOps::op_channel_affine`] with ReLU, then a convolution without bias; the backward step makes the map
    /// between them again.
    fn op_channel_affine_conv2d(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        conv_weight: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self>;

    /// `max(x, 0)`. With `mask` the backward step is left a byte a value in place of the output: in f32 the next
    /// convolution keeps that anyway, in bf16 it keeps a copy.
    fn op_relu(x: FloatTensor<Self>, mask: bool) -> FloatTensor<Self>;

    /// `max(a + b, 0)`; `mask` as above.
    fn op_add_relu(a: FloatTensor<Self>, b: FloatTensor<Self>, mask: bool) -> FloatTensor<Self>;

    /// Max pooling.
    fn op_max_pool2d(x: FloatTensor<Self>, options: MaxPool2dOptions) -> FloatTensor<Self>;

    /// Nearest resize to `[height, width]`.
    fn op_upsample_nearest(x: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self>;

    /// Mean over pixels, `[N, C, H, W]` -> `[N, C, 1, 1]`.
    fn op_global_avg_pool(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `x * sigmoid(x)`.
    fn op_silu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Each plane times its factor, `[N, C, H, W]` and `[N, C, 1, 1]`.
    fn op_channel_gate(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self>;

    /// A grid of features for each box, `[N, C, H, W]` -> `[R, C, bins, bins]`.
    fn op_roi_align(x: FloatTensor<Self>, rois: Arc<[Roi]>, options: RoiAlignOptions) -> FloatTensor<Self>;

    /// Which boxes overlap a better one of their class: for `rows` boxes from `first`, bits of the later boxes whose IoU
    /// with it is greater than the threshold, [`BITS`](crate::suppression::BITS) in a value from the lowest. `boxes`:
    /// `[K, 5]`, corners and class, best first; gives `[rows, ⌈K / BITS⌉]`. Has no gradient.
    fn op_overlaps(
        boxes: FloatTensor<Self>,
        first: usize,
        rows: usize,
        iou_threshold: f32,
    ) -> FloatTensor<Self>;
}

/// [`FilmOps`] of a backend without autodiff: its [`Kernels`].
macro_rules! film_ops_by_kernels {
    ($backend:ty) => {
        impl FilmOps for $backend {
            fn op_conv2d(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                options: Conv2dOptions,
            ) -> FloatTensor<Self> {
                Self::conv2d_forward(x, weight, None, options)
            }

            fn op_conv2d_bias(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                options: Conv2dOptions,
            ) -> FloatTensor<Self> {
                Self::conv2d_forward(x, weight, Some(bias), options)
            }

            fn op_norm_train(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                eps: f64,
                relu: bool,
            ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
                Self::norm_train(x, weight, bias, eps, relu)
            }

            fn op_channel_affine(
                x: FloatTensor<Self>,
                scale: FloatTensor<Self>,
                shift: FloatTensor<Self>,
                relu: bool,
            ) -> FloatTensor<Self> {
                Self::channel_affine(x, scale, shift, relu)
            }

            fn op_norm_train_conv2d(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                eps: f64,
                conv_weight: FloatTensor<Self>,
                options: Conv2dOptions,
            ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
                let (between, mean, variance) = Self::norm_train(x, weight, bias, eps, true);
                (Self::conv2d_forward(between, conv_weight, None, options), mean, variance)
            }

            fn op_channel_affine_conv2d(
                x: FloatTensor<Self>,
                scale: FloatTensor<Self>,
                shift: FloatTensor<Self>,
                conv_weight: FloatTensor<Self>,
                options: Conv2dOptions,
            ) -> FloatTensor<Self> {
                Self::conv2d_forward(Self::channel_affine(x, scale, shift, true), conv_weight, None, options)
            }

            fn op_relu(x: FloatTensor<Self>, _mask: bool) -> FloatTensor<Self> {
                Self::relu_forward(x)
            }

            fn op_add_relu(a: FloatTensor<Self>, b: FloatTensor<Self>, _mask: bool) -> FloatTensor<Self> {
                Self::add_relu(a, b)
            }

            fn op_max_pool2d(x: FloatTensor<Self>, options: MaxPool2dOptions) -> FloatTensor<Self> {
                Self::max_pool(x, options).0
            }

            fn op_upsample_nearest(x: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self> {
                Self::upsample_nearest(x, size)
            }

            fn op_global_avg_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::global_avg_pool(x)
            }

            fn op_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::silu_forward(x)
            }

            fn op_channel_gate(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::channel_gate(x, gate)
            }

            fn op_roi_align(
                x: FloatTensor<Self>,
                rois: Arc<[Roi]>,
                options: RoiAlignOptions,
            ) -> FloatTensor<Self> {
                Self::roi_align(x, &rois, options)
            }

            fn op_overlaps(
                boxes: FloatTensor<Self>,
                first: usize,
                rows: usize,
                iou_threshold: f32,
            ) -> FloatTensor<Self> {
                Self::overlaps(boxes, first, rows, iou_threshold)
            }
        }
    };
}

film_ops_by_kernels!(Flex);
// The backend without the engine's fusion, which is not among our features: it has given wrong results.
#[cfg(feature = "gpu")]
film_ops_by_kernels!(burn_cubecl::CubeBackend);
