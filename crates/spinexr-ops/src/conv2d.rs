//! Two-dimensional convolution: module, configuration and function.
//!
//! Semantics and names are `torch.nn.Conv2d`'s (cross-correlation, zero padding).

use burn::backend::Dispatch;
use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

use crate::backend::FilmOps;
use crate::precision;

/// Geometry of a convolution; pairs are `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Step between output positions, in input pixels.
    pub stride: [usize; 2],
    /// Zeros added on each side.
    pub padding: [usize; 2],
    /// Zeros added besides at the bottom and the right, as TensorFlow's `SAME` padding needs for an odd sum.
    pub extra_end: [usize; 2],
    /// Step between kernel taps, in input pixels.
    pub dilation: [usize; 2],
    /// Number of channel groups.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0, 0], extra_end: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

impl Conv2dOptions {
    /// Output `[height, width]` for an input and a kernel of the given sizes.
    ///
    /// # Panics
    /// When a stride, dilation or kernel size is zero, or the kernel does not fit the padded input.
    pub fn output_size(&self, input: [usize; 2], kernel: [usize; 2]) -> [usize; 2] {
        core::array::from_fn(|d| {
            assert!(
                self.stride[d] > 0 && self.dilation[d] > 0 && kernel[d] > 0,
                "conv2d: stride, dilation and kernel must not be zero, got {self:?}, kernel {kernel:?}"
            );
            let extent = self.dilation[d] * (kernel[d] - 1) + 1;
            let padded = input[d] + 2 * self.padding[d] + self.extra_end[d];
            assert!(
                padded >= extent,
                "conv2d: kernel {kernel:?} with {self:?} does not fit an input of {input:?}"
            );
            (padded - extent) / self.stride[d] + 1
        })
    }

    /// With TensorFlow's `SAME` padding for an input: the output has `ceil(input / stride)` pixels, and of an odd
    /// number of zeros the bottom and the right get one more.
    ///
    /// # Panics
    /// When a stride is zero.
    pub fn with_same_padding(mut self, input: [usize; 2], kernel: [usize; 2]) -> Self {
        for d in 0..2 {
            let reach = self.dilation[d] * kernel[d].saturating_sub(1) + 1;
            let output = input[d].div_ceil(self.stride[d]);
            let total = (output.saturating_sub(1) * self.stride[d] + reach).saturating_sub(input[d]);
            (self.padding[d], self.extra_end[d]) = (total / 2, total % 2);
        }
        self
    }

    /// Output shape of a convolution, after a check of every argument.
    ///
    /// # Panics
    /// When channels, groups, bias and sizes do not agree; the message carries the shapes.
    pub(crate) fn output_shape(&self, x: [usize; 4], weight: [usize; 4], bias: Option<usize>) -> [usize; 4] {
        let [n, i, h, w] = x;
        let [o, i_per_group, kh, kw] = weight;
        assert!(
            self.groups > 0 && i == i_per_group * self.groups && o % self.groups == 0,
            "conv2d: input {x:?} and weight {weight:?} do not agree for {} groups",
            self.groups
        );
        if let Some(bias) = bias {
            assert_eq!(bias, o, "conv2d: bias has {bias} values, weight {weight:?} has {o} output channels");
        }
        let [oh, ow] = self.output_size([h, w], [kh, kw]);
        [n, o, oh, ow]
    }
}

/// Convolution of `x` with `weight`, in the [`precision`] of the training step.
///
/// # Shapes
/// - `x`: `[N, I, H, W]`
/// - `weight`: `[O, I / groups, KH, KW]`
/// - `bias`: `[O]`
/// - output: `[N, O, H', W']`, see [`Conv2dOptions::output_size`]
///
/// # Panics
/// When the shapes do not agree; the message carries them.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: Conv2dOptions) -> Tensor<4> {
    options.output_shape(x.dims(), weight.dims(), bias.as_ref().map(|b| b.dims()[0]));
    let (x, weight) = (precision::rounded(x).into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => <Dispatch as FilmOps>::op_conv2d_bias(x, weight, bias.into_dispatch(), options),
        None => <Dispatch as FilmOps>::op_conv2d(x, weight, options),
    })
}

/// Configuration of a [`Conv2d`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Kernel `[height, width]`.
    pub kernel: [usize; 2],
    /// Step between output positions (default 1).
    pub stride: [usize; 2],
    /// Zeros added on each side (default 0).
    pub padding: [usize; 2],
    /// Step between kernel taps (default 1).
    pub dilation: [usize; 2],
    /// Channel groups (default 1).
    pub groups: usize,
    /// Whether a bias is added (default true).
    pub bias: bool,
}

impl Conv2dConfig {
    /// Square kernel of `kernel` pixels, stride 1, no padding, one group, with bias.
    pub fn new(in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel: [kernel, kernel],
            stride: [1, 1],
            padding: [0, 0],
            dilation: [1, 1],
            groups: 1,
            bias: true,
        }
    }

    /// Same stride in both directions.
    pub fn with_stride(mut self, stride: usize) -> Self {
        self.stride = [stride, stride];
        self
    }

    /// Same padding on all sides.
    pub fn with_padding(mut self, padding: usize) -> Self {
        self.padding = [padding, padding];
        self
    }

    /// Same dilation in both directions.
    pub fn with_dilation(mut self, dilation: usize) -> Self {
        self.dilation = [dilation, dilation];
        self
    }

    /// Number of channel groups.
    pub fn with_groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// With or without bias.
    pub fn with_bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Build the module with PyTorch's default initialisation: uniform in `±1/sqrt(fan_in)`.
    ///
    /// # Panics
    /// When the channels are not divisible by the groups.
    pub fn init(&self, device: &Device) -> Conv2d {
        let Self { in_channels, out_channels, kernel: [kh, kw], groups, .. } = *self;
        assert!(
            groups > 0 && in_channels % groups == 0 && out_channels % groups == 0,
            "conv2d: {in_channels} -> {out_channels} channels are not divisible by {groups} groups"
        );
        let fan_in = in_channels / groups * kh * kw;
        let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
        let initializer = Initializer::Uniform { min: -bound, max: bound };
        Conv2d {
            weight: initializer.init([out_channels, in_channels / groups, kh, kw], device),
            bias: self.bias.then(|| initializer.init([out_channels], device)),
            options: Conv2dOptions {
                stride: self.stride,
                padding: self.padding,
                extra_end: [0, 0],
                dilation: self.dilation,
                groups,
            },
        }
    }
}

/// Convolution layer with the parameter names of `torch.nn.Conv2d`.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[O, I / groups, KH, KW]`
    pub weight: Param<Tensor<4>>,
    /// `[O]`
    pub bias: Option<Param<Tensor<1>>>,
    /// Geometry.
    #[module(skip)]
    pub options: Conv2dOptions,
}

impl Conv2d {
    /// # Shapes
    /// - `x`: `[N, I, H, W]` -> `[N, O, H', W']`
    ///
    /// # Panics
    /// When the input does not fit the layer.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        conv2d(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.options)
    }

    /// [`Conv2d::forward`] with TensorFlow's `SAME` padding in place of the layer's own.
    ///
    /// # Shapes
    /// - `x`: `[N, I, H, W]` -> `[N, O, ceil(H / stride), ceil(W / stride)]`
    ///
    /// # Panics
    /// When the input does not fit the layer.
    pub fn forward_same(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        let weight = self.weight.val();
        let [_, _, kh, kw] = weight.dims();
        let options = self.options.with_same_padding([height, width], [kh, kw]);
        conv2d(x, weight, self.bias.as_ref().map(Param::val), options)
    }
}
