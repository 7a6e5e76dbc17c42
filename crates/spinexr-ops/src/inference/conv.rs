//! A convolution with the batch norms around it, ready to run.

use std::fmt;

use super::{Affine, Maps, MapsMut, MapsRef, read};
use crate::batch_norm::BatchNorm2d;
use crate::conv2d::{Conv2d, Conv2dOptions};
use crate::cpu::conv::{After, Before, ShiftedSum};
use crate::cpu::depthwise;
use crate::cpu::geometry::ConvShape;
use crate::cpu::product::PackedWeight;
use crate::cpu::row::Activation;
use crate::cpu::simd::Isa;
use crate::cpu::winograd::{self, Taps, WinogradWeight};

/// The norms that become part of a convolution.
#[derive(Debug, Clone, Copy, Default)]
pub struct Norms<'a> {
    /// A norm of the input, followed by a ReLU (DenseNet's order).
    pub before: Option<&'a BatchNorm2d>,
    /// A norm of the output (ResNet's order), folded into weights and bias.
    pub after: Option<&'a BatchNorm2d>,
}

impl<'a> Norms<'a> {
    /// None at all.
    pub const NONE: Norms<'static> = Norms { before: None, after: None };

    /// A norm of the output alone.
    pub fn after(norm: &'a BatchNorm2d) -> Self {
        Self { before: None, after: Some(norm) }
    }
}

/// What follows the convolution, before its values are written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Finish<'a> {
    /// Added; of the output's shape.
    pub residual: Option<MapsRef<'a>>,
    /// What comes last.
    pub activation: Activation,
}

impl Finish<'_> {
    /// Nothing.
    pub const NONE: Finish<'static> = Finish { residual: None, activation: Activation::Identity };
    /// A ReLU.
    pub const RELU: Finish<'static> = Finish { residual: None, activation: Activation::Relu };
    /// A SiLU.
    pub const SILU: Finish<'static> = Finish { residual: None, activation: Activation::Silu };
}

/// A convolution with packed weights.
///
/// 3×3 convolutions at stride 1 run by Winograd's method where a map has tiles enough, and depthwise ones by a kernel of
/// their own; see [`PreparedConv::run`].
pub struct PreparedConv {
    isa: Isa,
    options: Conv2dOptions,
    /// Whether the padding depends on the input; see [`PreparedConv::same`].
    same: bool,
    /// `[O, I / groups, KH, KW]`
    weight_shape: [usize; 4],
    weight: Weight,
    before: Option<Affine>,
    bias: Option<Vec<f32>>,
}

impl PreparedConv {
    /// `conv` with the norms before and after it, whose running statistics are taken as they are now.
    ///
    /// # Panics
    /// When a norm's features are not the channels it stands at.
    pub fn new(conv: &Conv2d, norms: Norms<'_>) -> Self {
        Self::on(Isa::best(), conv, norms)
    }

    /// With a ReLU of the input alone.
    pub fn after_relu(conv: &Conv2d) -> Self {
        let mut prepared = Self::new(conv, Norms::NONE);
        prepared.before = Some(Affine::identity(prepared.in_channels()));
        prepared
    }

    /// With TensorFlow's `SAME` padding in place of the layer's own, as [`Conv2d::forward_same`].
    pub fn same(conv: &Conv2d, norms: Norms<'_>) -> Self {
        Self { same: true, ..Self::new(conv, norms) }
    }

    pub(crate) fn on(isa: Isa, conv: &Conv2d, norms: Norms<'_>) -> Self {
        let weight_shape @ [o, i, kh, kw] = conv.weight.val().dims();
        let options = conv.options;
        let mut weight = read(conv.weight.val());
        let mut bias = conv.bias.as_ref().map(|bias| read(bias.val()));
        if let Some(norm) = norms.after {
            let Affine { scale, shift } = Affine::of(norm);
            assert_eq!(scale.len(), o, "the norm after a convolution of {o} output channels");
            for (channel, scale) in weight.chunks_exact_mut(i * kh * kw).zip(&scale) {
                channel.iter_mut().for_each(|value| *value *= scale);
            }
            let before = bias.unwrap_or_else(|| vec![0.0; o]);
            bias = Some(before.iter().zip(scale.iter().zip(&shift)).map(|(b, (k, s))| b * k + s).collect());
        }
        let before = norms.before.map(Affine::of);
        if let Some(before) = &before {
            let channels = i * options.groups;
            assert_eq!(before.scale.len(), channels, "the norm before a convolution of {channels} channels");
        }
        let weight = Weight::new(isa, &options, weight_shape, weight, before.is_some());
        Self { isa, options, same: false, weight_shape, weight, before, bias }
    }

    /// Channels of the input.
    pub fn in_channels(&self) -> usize {
        self.weight_shape[1] * self.options.groups
    }

    /// Channels of the output.
    pub fn out_channels(&self) -> usize {
        self.weight_shape[0]
    }

    /// Shape of the output for an input of this shape.
    ///
    /// # Panics
    /// When the input does not fit.
    pub fn output_shape(&self, input: [usize; 4]) -> [usize; 4] {
        self.options_for(input).output_shape(input, self.weight_shape, None)
    }

    /// The geometry for an input of this shape.
    fn options_for(&self, [_, _, h, w]: [usize; 4]) -> Conv2dOptions {
        let [_, _, kh, kw] = self.weight_shape;
        if self.same { self.options.with_same_padding([h, w], [kh, kw]) } else { self.options }
    }

    /// Convolve into a buffer, which takes the output's shape.
    ///
    /// # Shapes
    /// - `x`: `[N, I, H, W]`
    /// - the residual of `finish`: [`PreparedConv::output_shape`]
    ///
    /// # Panics
    /// When the shapes do not agree.
    pub fn run_into(&self, x: &Maps, finish: Finish<'_>, out: &mut Maps) {
        out.reshape(self.output_shape(x.shape()));
        self.run(x.view(), out.view_mut(), finish);
    }

    /// Convolve.
    ///
    /// # Shapes
    /// - `x`: `[N, I, H, W]`
    /// - `out`, and the residual of `finish`: [`PreparedConv::output_shape`]
    ///
    /// # Panics
    /// When the shapes do not agree.
    pub fn run(&self, x: MapsRef<'_>, mut out: MapsMut<'_>, finish: Finish<'_>) {
        let [n, _, h, w] = x.shape();
        let shape @ [_, o, oh, ow] = self.output_shape(x.shape());
        assert_eq!(out.shape(), shape, "output of a convolution of {:?}", x.shape());
        if let Some(residual) = finish.residual {
            assert_eq!(residual.shape(), shape, "residual of a convolution of {:?}", x.shape());
        }
        if shape.contains(&0) {
            return;
        }
        let Conv2dOptions { stride, padding, dilation, groups, extra_end } = self.options_for(x.shape());
        let before = self.before.as_ref().map(|Affine { scale, shift }| Before { scale, shift });
        let after = After {
            bias: self.bias.as_deref(),
            residual: finish.residual.map(|residual| residual.films()),
            activation: finish.activation,
        };
        let (out, out_stride) = out.shared();
        let [_, i, kh, kw] = self.weight_shape;
        let shape = ConvShape {
            n,
            groups,
            i,
            o: o / groups,
            input: [h, w],
            output: [oh, ow],
            kernel: [kh, kw],
            stride,
            padding,
            dilation,
        };
        let (packed, winograd) = match &self.weight {
            Weight::Depthwise(weight) => {
                return depthwise::forward(self.isa, &shape, x.films(), weight, &after, out, out_stride);
            }
            Weight::Packed { groups, winograd } => (groups, winograd),
        };
        let frame = winograd::Frame { n, input: [h, w], padding };
        if let Some(weight) = winograd.as_ref().filter(|_| extra_end == [0, 0] && frame.pays()) {
            winograd::forward(weight, &frame, x.films(), before, &after, out, out_stride);
            return;
        }
        let shape = shape.flattened();
        let shifts = shape.forward();
        ShiftedSum { isa: self.isa, shifts: &shifts, weights: packed, n, channels: i, before, after }.run(
            x.films(),
            out,
            out_stride,
        );
    }
}

/// A weight in the order its kernel reads it.
enum Weight {
    /// `[channels, KH, KW]`
    Depthwise(Vec<f32>),
    Packed {
        /// One for each group.
        groups: Vec<PackedWeight>,
        winograd: Option<WinogradWeight>,
    },
}

impl Weight {
    // weight: [O, I / groups, KH, KW]
    fn new(
        isa: Isa,
        options: &Conv2dOptions,
        [o, i, kh, kw]: [usize; 4],
        weight: Vec<f32>,
        norm_before: bool,
    ) -> Self {
        // The depthwise kernel has no norm of its input.
        if i == 1 && o == options.groups && o > 1 && !norm_before {
            return Self::Depthwise(weight);
        }
        let (outputs, taps) = (o / options.groups, kh * kw);
        let groups = weight
            .chunks_exact(outputs * i * taps)
            .map(|w| PackedWeight::new(isa, outputs, i * taps, |row, k| w[row * i * taps + k]))
            .collect();
        // A single channel is cheaper to sum than to transform.
        let winograd = ([kh, kw] == [3, 3]
            && options.stride == [1, 1]
            && options.dilation == [1, 1]
            && options.groups == 1
            && i.min(o) >= 8)
            .then(|| WinogradWeight::new(isa, o, i, &weight, Taps::Forward));
        Self::Packed { groups, winograd }
    }
}

// By hand: millions of weights are not for reading.
impl fmt::Debug for PreparedConv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedConv")
            .field("weight_shape", &self.weight_shape)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
