//! Layers of a network that is only run, on the CPU: weights prepared once, no tensors in between.
//!
//! A [`PreparedConv`] holds a convolution together with the batch norms around it, its weights packed in the
//! order the kernels read them. It reads channels of one buffer ([`MapsRef`]) and writes channels of another
//! ([`MapsMut`]), so that a dense block needs no concatenation and a network no allocation. Results are held
//! to the modules' own `forward` by tests; they do not depend on the number of threads, nor on the films
//! beside a film, to the last bit.

mod combine;
mod conv;
mod gate;
mod maps;
mod pool;

pub use crate::cpu::row::Activation;
pub use combine::{Term, weighted_sum};
pub use conv::{Finish, Norms, PreparedConv};
pub use gate::{gate, means};
pub use maps::{Maps, MapsMut, MapsRef};
pub use pool::{add_upsampled, avg_pool_2x2, global_pools, max_pool, max_pool_same};

use burn::tensor::Tensor;

use crate::batch_norm::BatchNorm2d;
use crate::cpu::norm::fold;

/// What a batch norm with running statistics does to a channel: `x * scale + shift`.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

impl Affine {
    /// Of a norm's running statistics, rounded once.
    pub fn of(norm: &BatchNorm2d) -> Self {
        let [weight, bias] = [&norm.weight, &norm.bias].map(|param| read(param.val()));
        let [mean, variance] = [&norm.running_mean, &norm.running_var].map(|stat| read(stat.value()));
        let (scale, shift) = fold(&weight, &bias, &mean, &variance, norm.eps);
        Self { scale, shift }
    }

    /// One that changes nothing.
    pub fn identity(channels: usize) -> Self {
        Self { scale: vec![1.0; channels], shift: vec![0.0; channels] }
    }
}

fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("a parameter is a float tensor that can be read back")
}
