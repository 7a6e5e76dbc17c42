//! Backward steps: what each operation keeps from its forward pass and how it passes a gradient on.
//!
//! What comes in bf16 ([`crate::precision`]) is kept in bf16. Products are computed in it, all else is widened first; what
//! goes on is f32, and the gradient for an input has the input's type.

use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::{DType, FloatDType, Shape};

use super::FilmOps;
use super::kernels::{Kernels, NormState, in_type, wide};
use crate::conv2d::Conv2dOptions;
use crate::pool::MaxPool2dOptions;
use crate::roi_align::{Roi, RoiAlignOptions};

#[derive(Debug)]
struct Conv2dBackward;

type ConvState<B> = (FloatTensor<B>, FloatTensor<B>, Conv2dOptions);

/// Gradients for input and weight; the bias, when there is one, is the third parent.
fn conv2d_backward<B: Kernels, const N: usize>(ops: Ops<ConvState<B>, N>, grads: &mut Gradients) {
    let grad = grads.consume::<B>(&ops.node);
    let (x, weight, options) = ops.state;
    let mut parents = ops.parents.into_iter();
    let [weight, of_product] = [weight, grad.clone()].map(|t| in_type::<B>(t, x.dtype()));
    if let Some(node) = parents.next().flatten() {
        let dx = B::conv2d_input_grad(x.clone(), weight.clone(), of_product.clone(), options);
        grads.register::<B>(node.id, dx);
    }
    if let Some(node) = parents.next().flatten() {
        let dw = B::conv2d_weight_grad(x, weight, of_product, options);
        grads.register::<B>(node.id, wide::<B>(dw));
    }
    if let Some(node) = parents.next().flatten() {
        grads.register::<B>(node.id, B::conv2d_bias_grad(grad));
    }
}

impl<B: Kernels> Backward<B, 2> for Conv2dBackward {
    type State = ConvState<B>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        conv2d_backward::<B, 2>(ops, grads);
    }
}

impl<B: Kernels> Backward<B, 3> for Conv2dBackward {
    type State = ConvState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        conv2d_backward::<B, 3>(ops, grads);
    }
}

#[derive(Debug)]
struct NormTrainBackward;

impl<B: Kernels> Backward<B, 3> for NormTrainBackward {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let dtype = ops.state.x.dtype();
        let (dx, dweight, dbias) = B::norm_train_backward(ops.state.wide(), grad);
        let result = (in_type::<B>(dx, dtype), dweight, dbias);
        register3::<B>(ops.parents.map(|p| p.map(|n| n.id)), result, grads);
    }
}

#[derive(Debug)]
struct ChannelAffineBackward;

impl<B: Kernels> Backward<B, 3> for ChannelAffineBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, bool);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, scale, shift, relu) = ops.state;
        let dtype = x.dtype();
        let (dx, dscale, dshift) = B::channel_affine_backward(wide::<B>(x), scale, shift, relu, grad);
        let result = (in_type::<B>(dx, dtype), dscale, dshift);
        register3::<B>(ops.parents.map(|p| p.map(|n| n.id)), result, grads);
    }
}

#[derive(Debug)]
struct NormTrainConvBackward;

impl<B: Kernels> Backward<B, 4> for NormTrainConvBackward {
    type State = (NormState<B>, FloatTensor<B>, Conv2dOptions);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (norm, conv_weight, options) = ops.state;
        let [x, weight, bias, conv] = ops.parents.map(|p| p.map(|n| n.id));
        let (dtype, norm) = (norm.x.dtype(), norm.wide());
        let between = in_type::<B>(B::norm_train_again(norm.clone()), dtype);
        let grad = conv_behind::<B>(between, conv_weight, options, grad, conv, grads);
        let (dx, dweight, dbias) = B::norm_train_backward(norm, grad);
        register3::<B>([x, weight, bias], (in_type::<B>(dx, dtype), dweight, dbias), grads);
    }
}

#[derive(Debug)]
struct ChannelAffineConvBackward;

impl<B: Kernels> Backward<B, 4> for ChannelAffineConvBackward {
    type State = ([FloatTensor<B>; 3], FloatTensor<B>, Conv2dOptions);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let ([x, scale, shift], conv_weight, options) = ops.state;
        let parents = ops.parents.map(|p| p.map(|n| n.id));
        let (dtype, x) = (x.dtype(), wide::<B>(x));
        let between = B::channel_affine(x.clone(), scale.clone(), shift.clone(), true);
        let between = in_type::<B>(between, dtype);
        let grad = conv_behind::<B>(between, conv_weight, options, grad, parents[3], grads);
        let (dx, dscale, dshift) = B::channel_affine_backward(x, scale, shift, true, grad);
        let result = (in_type::<B>(dx, dtype), dscale, dshift);
        register3::<B>([parents[0], parents[1], parents[2]], result, grads);
    }
}

/// The gradient of a convolution for its input, as f32 where that is in bf16, after that for its weight went to the node
/// `conv`.
fn conv_behind<B: Kernels>(
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    options: Conv2dOptions,
    grad: FloatTensor<B>,
    conv: Option<NodeId>,
    grads: &mut Gradients,
) -> FloatTensor<B> {
    let [weight, grad] = [weight, grad].map(|t| in_type::<B>(t, input.dtype()));
    if let Some(id) = conv {
        let dw = B::conv2d_weight_grad(input.clone(), weight.clone(), grad.clone(), options);
        grads.register::<B>(id, wide::<B>(dw));
    }
    wide::<B>(B::conv2d_input_grad(input, weight, grad, options))
}

/// The convolution of an input in f32, or of one in bf16 with the weight rounded to it; f32 either way.
fn product<B: Kernels>(x: FloatTensor<B>, weight: FloatTensor<B>, options: Conv2dOptions) -> FloatTensor<B> {
    let weight = in_type::<B>(weight, x.dtype());
    wide::<B>(B::conv2d_forward(x, weight, None, options))
}

fn register3<B: Backend>(
    parents: [Option<NodeId>; 3],
    (a, b, c): (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
    grads: &mut Gradients,
) {
    for (node, grad) in parents.into_iter().zip([a, b, c]) {
        if let Some(id) = node {
            grads.register::<B>(id, grad);
        }
    }
}

#[derive(Debug)]
struct ReluBackward;

impl<B: Kernels> Backward<B, 1> for ReluBackward {
    type State = FloatTensor<B>; // the output

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::relu_grad(ops.state, grad));
        }
    }
}

#[derive(Debug)]
struct AddReluBackward;

impl<B: Kernels> Backward<B, 2> for AddReluBackward {
    type State = FloatTensor<B>; // the output

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let grad = B::relu_grad(ops.state, grad);
        for node in ops.parents.into_iter().flatten() {
            grads.register::<B>(node.id, grad.clone());
        }
    }
}

/// Of a ReLU, alone or after a sum.
#[derive(Debug)]
struct MaskBackward;

impl<B: Kernels, const N: usize> Backward<B, N> for MaskBackward {
    type State = BoolTensor<B>; // where the output is not positive

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let grad = B::float_mask_fill(grad, ops.state, 0f32.into());
        for node in ops.parents.into_iter().flatten() {
            grads.register::<B>(node.id, grad.clone());
        }
    }
}

#[derive(Debug)]
struct SiluBackward;

impl<B: Kernels> Backward<B, 1> for SiluBackward {
    type State = FloatTensor<B>; // the input

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            let dtype = ops.state.dtype();
            let dx = B::silu_grad(wide::<B>(ops.state), grad);
            grads.register::<B>(node.id, in_type::<B>(dx, dtype));
        }
    }
}

#[derive(Debug)]
struct ChannelGateBackward;

impl<B: Kernels> Backward<B, 2> for ChannelGateBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, gate) = ops.state;
        let dtype = x.dtype();
        let (dx, dgate) = B::channel_gate_backward(wide::<B>(x), gate, grad);
        let [of_x, of_gate] = ops.parents;
        for (node, grad) in [(of_x, in_type::<B>(dx, dtype)), (of_gate, dgate)] {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct MaxPoolBackward;

impl<B: Kernels> Backward<B, 1> for MaxPoolBackward {
    type State = (FloatTensor<B>, IntTensor<B>, MaxPool2dOptions);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, indices, options) = ops.state;
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::max_pool_backward(x, indices, options, grad));
        }
    }
}

#[derive(Debug)]
struct UpsampleBackward;

impl<B: Kernels> Backward<B, 1> for UpsampleBackward {
    type State = FloatTensor<B>; // the input, for its shape

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::upsample_nearest_backward(ops.state, grad));
        }
    }
}

#[derive(Debug)]
struct GlobalAvgPoolBackward;

impl<B: Kernels> Backward<B, 1> for GlobalAvgPoolBackward {
    type State = Shape; // the input's

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::global_avg_pool_backward(grad, ops.state));
        }
    }
}

#[derive(Debug)]
struct RoiAlignBackward;

impl<B: Kernels> Backward<B, 1> for RoiAlignBackward {
    type State = (FloatTensor<B>, Arc<[Roi]>, RoiAlignOptions); // the input, for its shape

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, rois, options) = ops.state;
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::roi_align_backward(x, &rois, options, grad));
        }
    }
}

impl<B: Kernels + FilmOps, C: CheckpointStrategy> FilmOps for Autodiff<B, C> {
    fn op_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self> {
        let (x, node_x) = x.into_parts();
        let (weight, node_weight) = weight.into_parts();
        let output = product::<B>(x.clone(), weight.clone(), options);
        match Backward::<B, 2>::prepare::<C>(Conv2dBackward, [node_x, node_weight]).compute_bound().stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x, weight, options), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_conv2d_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self> {
        let (x, node_x) = x.into_parts();
        let (weight, node_weight) = weight.into_parts();
        let (bias, node_bias) = bias.into_parts();
        let output = match x.dtype() {
            // The sum is rounded before the bias is added: one of many times its size would take its digits.
            DType::BF16 => {
                let product = product::<B>(x.clone(), weight.clone(), options);
                let ones = B::float_ones(bias.shape(), &bias.device(), FloatDType::F32);
                B::channel_affine(product, ones, bias, false)
            }
            _ => B::conv2d_forward(x.clone(), weight.clone(), Some(bias), options),
        };
        match Backward::<B, 3>::prepare::<C>(Conv2dBackward, [node_x, node_weight, node_bias])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x, weight, options), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_norm_train(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (x, node_x) = x.into_parts();
        let (weight, node_weight) = weight.into_parts();
        let (bias, node_bias) = bias.into_parts();
        let (output, mean, variance) =
            B::norm_train(wide::<B>(x.clone()), weight.clone(), bias.clone(), eps, relu);
        let output =
            match NormTrainBackward.prepare::<C>([node_x, node_weight, node_bias]).compute_bound().stateful()
            {
                OpsKind::Tracked(prep) => {
                    let (mean, variance) = (mean.clone(), variance.clone());
                    prep.finish(NormState { x, weight, bias, mean, variance, eps, relu }, output)
                }
                OpsKind::UnTracked(prep) => prep.finish(output),
            };
        (output, Self::from_inner(mean), Self::from_inner(variance))
    }

    fn op_channel_affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self> {
        let (x, node_x) = x.into_parts();
        let (scale, node_scale) = scale.into_parts();
        let (shift, node_shift) = shift.into_parts();
        let output = B::channel_affine(wide::<B>(x.clone()), scale.clone(), shift.clone(), relu);
        match ChannelAffineBackward.prepare::<C>([node_x, node_scale, node_shift]).compute_bound().stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x, scale, shift, relu), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_norm_train_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
        conv_weight: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (x, node_x) = x.into_parts();
        let (weight, node_weight) = weight.into_parts();
        let (bias, node_bias) = bias.into_parts();
        let (conv_weight, node_conv) = conv_weight.into_parts();
        let (between, mean, variance) =
            B::norm_train(wide::<B>(x.clone()), weight.clone(), bias.clone(), eps, true);
        let between = in_type::<B>(between, x.dtype());
        let output = product::<B>(between, conv_weight.clone(), options);
        let output = match NormTrainConvBackward
            .prepare::<C>([node_x, node_weight, node_bias, node_conv])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let (mean, variance) = (mean.clone(), variance.clone());
                let norm = NormState { x, weight, bias, mean, variance, eps, relu: true };
                prep.finish((norm, conv_weight, options), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        };
        (output, Self::from_inner(mean), Self::from_inner(variance))
    }

    fn op_channel_affine_conv2d(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        conv_weight: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self> {
        let (x, node_x) = x.into_parts();
        let (scale, node_scale) = scale.into_parts();
        let (shift, node_shift) = shift.into_parts();
        let (conv_weight, node_conv) = conv_weight.into_parts();
        let between = B::channel_affine(wide::<B>(x.clone()), scale.clone(), shift.clone(), true);
        let between = in_type::<B>(between, x.dtype());
        let output = product::<B>(between, conv_weight.clone(), options);
        match ChannelAffineConvBackward
            .prepare::<C>([node_x, node_scale, node_shift, node_conv])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(([x, scale, shift], conv_weight, options), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_relu(x: FloatTensor<Self>, mask: bool) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = B::relu_forward(x);
        if mask {
            return match MaskBackward.prepare::<C>([node]).compute_bound().stateful() {
                OpsKind::Tracked(prep) => prep.finish(B::not_positive(output.clone()), output),
                OpsKind::UnTracked(prep) => prep.finish(output),
            };
        }
        match ReluBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(output.clone(), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_add_relu(a: FloatTensor<Self>, b: FloatTensor<Self>, mask: bool) -> FloatTensor<Self> {
        let (a, node_a) = a.into_parts();
        let (b, node_b) = b.into_parts();
        let output = <B as Kernels>::add_relu(a, b);
        if mask {
            return match MaskBackward.prepare::<C>([node_a, node_b]).compute_bound().stateful() {
                OpsKind::Tracked(prep) => prep.finish(B::not_positive(output.clone()), output),
                OpsKind::UnTracked(prep) => prep.finish(output),
            };
        }
        match AddReluBackward.prepare::<C>([node_a, node_b]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(output.clone(), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match SiluBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x.clone(), B::silu_forward(wide::<B>(x))),
            OpsKind::UnTracked(prep) => prep.finish(B::silu_forward(wide::<B>(x))),
        }
    }

    fn op_channel_gate(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node_x) = x.into_parts();
        let (gate, node_gate) = gate.into_parts();
        let output = <B as Kernels>::channel_gate(wide::<B>(x.clone()), gate.clone());
        match ChannelGateBackward.prepare::<C>([node_x, node_gate]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, gate), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_max_pool2d(x: FloatTensor<Self>, options: MaxPool2dOptions) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let (output, indices) = B::max_pool(x.clone(), options);
        match MaxPoolBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, indices, options), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_upsample_nearest(x: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = B::upsample_nearest(x.clone(), size);
        match UpsampleBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_global_avg_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let shape = x.shape();
        let output = B::global_avg_pool(x);
        match GlobalAvgPoolBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(shape, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_roi_align(x: FloatTensor<Self>, rois: Arc<[Roi]>, options: RoiAlignOptions) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = B::roi_align(x.clone(), &rois, options);
        match RoiAlignBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, rois, options), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_overlaps(
        boxes: FloatTensor<Self>,
        first: usize,
        rows: usize,
        iou_threshold: f32,
    ) -> FloatTensor<Self> {
        Self::from_inner(B::overlaps(boxes.into_parts().0, first, rows, iou_threshold))
    }
}
