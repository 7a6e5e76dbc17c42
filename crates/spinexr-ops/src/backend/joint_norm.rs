//! Batch norm over all processes that train together, composed from the engine's ops: for backends without a
//! kernel of their own. The sums go through the host; they are a few values a channel.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, TensorData, read_sync};

use super::kernels::{NormState, channel_sum, per_channel};
use crate::ranks;

/// Output, mean and biased variance; the statistics are those of all processes.
pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    eps: f64,
    relu: bool,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let count = values_a_channel::<B>(&x);
    let mean = B::float_div_scalar(channel_sum::<B>(x.clone()), (count as f64).into());
    let centered = B::float_sub(x.clone(), per_channel::<B>(mean.clone()));
    let squares = channel_sum::<B>(B::float_mul(centered.clone(), centered));
    let moments = read::<B>(mean).into_iter().zip(read::<B>(squares)).collect();
    let (mean, variance): (Vec<f64>, Vec<f64>) = ranks::join_moments(count, moments).into_iter().unzip();
    let (mean, variance) = (like::<B>(mean, &x), like::<B>(variance, &x));
    let output = B::batch_norm(x, weight, bias, mean.clone(), variance.clone(), eps);
    (if relu { B::relu(output) } else { output }, mean, variance)
}

/// Gradients for `x`, `weight` and `bias`; the latter two are this process's own.
///
/// dx = weight / std * (g - mean(g) - x^ mean(g x^)) with x^ = (x - mean) / std and means over all processes.
pub(super) fn backward<B: Backend>(
    state: NormState<B>,
    grad: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let NormState { x, weight, bias, mean, variance, eps, relu } = state;
    let grad = if relu {
        let output = B::batch_norm(x.clone(), weight.clone(), bias, mean.clone(), variance.clone(), eps);
        B::relu_backward(B::relu(output), grad)
    } else {
        grad
    };
    let inverse = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, eps.into()))); // [C]
    let centered = B::float_sub(x.clone(), per_channel::<B>(mean));
    let normalised = B::float_mul(centered, per_channel::<B>(inverse.clone()));
    let bias_grad = channel_sum::<B>(grad.clone());
    let weight_grad = channel_sum::<B>(B::float_mul(grad.clone(), normalised.clone()));

    let mut joint = read::<B>(bias_grad.clone());
    let channels = joint.len();
    joint.extend(read::<B>(weight_grad.clone()));
    ranks::sum(&mut joint);
    let count = (values_a_channel::<B>(&x) * ranks::size()) as f64;
    let mut mean_grad: Vec<f64> = joint.into_iter().map(|total| total / count).collect();
    let mean_product = per_channel::<B>(like::<B>(mean_grad.split_off(channels), &x));
    let mean_grad = per_channel::<B>(like::<B>(mean_grad, &x));
    let dx = B::float_sub(B::float_sub(grad, mean_grad), B::float_mul(normalised, mean_product));
    (B::float_mul(dx, per_channel::<B>(B::float_mul(weight, inverse))), weight_grad, bias_grad)
}

fn values_a_channel<B: Backend>(x: &FloatTensor<B>) -> usize {
    let shape = x.shape();
    shape[0] * shape[2] * shape[3]
}

fn read<B: Backend>(values: FloatTensor<B>) -> Vec<f64> {
    let data = read_sync(B::float_into_data(values)).expect("a tensor that was computed can be read back");
    data.iter::<f64>().collect()
}

/// A vector with the device and type of `x`.
fn like<B: Backend>(values: Vec<f64>, x: &FloatTensor<B>) -> FloatTensor<B> {
    let shape = Shape::from([values.len()]);
    B::float_from_data(TensorData::new(values, shape).convert_dtype(x.dtype()), &x.device())
}
