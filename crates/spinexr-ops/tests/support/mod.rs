//! Numbers for tests, and tensors from and to vectors.

#![allow(dead_code, reason = "each test file uses a part")]

use burn::tensor::{Device, Tensor, TensorData};

/// The splitmix64 stream from `seed` as values in -1..1.
pub fn signed(seed: u64, count: usize) -> Vec<f32> {
    unit(seed, count).into_iter().map(|u| 2.0 * u - 1.0).collect()
}

/// The splitmix64 stream from `seed` as values in 0..1.
pub fn unit(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / 16_777_216.0
        })
        .collect()
}

pub fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// A leaf that keeps its gradient.
pub fn leaf<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    tensor(values, shape, &Device::flex().autodiff()).require_grad()
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().unwrap()
}

/// Every value within `tolerance * max(1, |expected|)`.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - expected).abs();
        assert!(error <= tolerance * expected.abs().max(1.0), "{what}[{i}] = {got}, expected {expected}");
    }
}
