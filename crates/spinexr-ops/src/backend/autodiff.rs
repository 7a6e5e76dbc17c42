//! Backward steps: what each operation keeps from its forward pass and how it passes a gradient on.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::Shape;

use super::FilmOps;
use super::kernels::{Kernels, NormState};
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
    if let Some(node) = parents.next().flatten() {
        let dx = B::conv2d_input_grad(x.clone(), weight.clone(), grad.clone(), options);
        grads.register::<B>(node.id, dx);
    }
    if let Some(node) = parents.next().flatten() {
        grads.register::<B>(node.id, B::conv2d_weight_grad(x, weight, grad.clone(), options));
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
        register3::<B>(ops.parents.map(|p| p.map(|n| n.id)), B::norm_train_backward(ops.state, grad), grads);
    }
}

#[derive(Debug)]
struct ChannelAffineBackward;

impl<B: Kernels> Backward<B, 3> for ChannelAffineBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, bool);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, scale, shift, relu) = ops.state;
        let result = B::channel_affine_backward(x, scale, shift, relu, grad);
        register3::<B>(ops.parents.map(|p| p.map(|n| n.id)), result, grads);
    }
}

fn register3<B: Backend>(
    parents: [Option<burn::backend::autodiff::NodeId>; 3],
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
        let output = B::conv2d_forward(x.clone(), weight.clone(), None, options);
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
        let output = B::conv2d_forward(x.clone(), weight.clone(), Some(bias), options);
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
        let (output, mean, variance) = B::norm_train(x.clone(), weight.clone(), bias.clone(), eps, relu);
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
        let output = B::channel_affine(x.clone(), scale.clone(), shift.clone(), relu);
        match ChannelAffineBackward.prepare::<C>([node_x, node_scale, node_shift]).compute_bound().stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x, scale, shift, relu), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_relu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = B::relu_forward(x);
        match ReluBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(output.clone(), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn op_add_relu(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let (a, node_a) = a.into_parts();
        let (b, node_b) = b.into_parts();
        let output = <B as Kernels>::add_relu(a, b);
        match AddReluBackward.prepare::<C>([node_a, node_b]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(output.clone(), output),
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
}
