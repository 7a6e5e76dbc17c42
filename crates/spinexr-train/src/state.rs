//! State dicts on the host: upload, read-back and the hash that names a model.

use burn::tensor::{Device, Tensor};
use sha2::{Digest, Sha256};
use spinexr_core::hex;
use spinexr_models::weights::{Entry, StateDict};

/// Reads a flat tensor `[numel]` back from its device.
pub(crate) fn read_back(flat: Tensor<1>, shape: Vec<usize>) -> Entry {
    Entry { shape, values: flat.into_data().iter::<f32>().collect() }
}

/// Uploads an entry as a flat tensor `[numel]`.
pub(crate) fn upload(entry: &Entry, device: &Device) -> Tensor<1> {
    Tensor::from_data(entry.values.as_slice(), device)
}

/// SHA-256, in hexadecimal, over names, shapes and little-endian values in the order of the names.
///
/// Two models hash alike exactly when every tensor has the same bits.
pub fn weights_hash(state: &StateDict) -> String {
    let mut hasher = Sha256::new();
    for (name, tensor) in state {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update((tensor.shape.len() as u64).to_le_bytes());
        for &dim in &tensor.shape {
            hasher.update((dim as u64).to_le_bytes());
        }
        hasher.update(to_le_bytes(&tensor.values));
    }
    hex(&hasher.finalize())
}

/// SHA-256, in hexadecimal, over lines of text.
pub(crate) fn sha256_hex(lines: &[&str]) -> String {
    hex(&Sha256::digest(lines.join("\n")))
}

/// f32 values as little-endian bytes.
pub(crate) fn to_le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(shape: &[usize], values: &[f32]) -> Entry {
        Entry { shape: shape.to_vec(), values: values.to_vec() }
    }

    #[test]
    fn the_hash_sees_names_shapes_and_every_bit() {
        let base = StateDict::from([("a".into(), entry(&[2], &[0.0, 1.0]))]);
        let others = [
            StateDict::from([("b".into(), entry(&[2], &[0.0, 1.0]))]),
            StateDict::from([("a".into(), entry(&[1, 2], &[0.0, 1.0]))]),
            StateDict::from([("a".into(), entry(&[2], &[-0.0, 1.0]))]),
            StateDict::new(),
        ];
        let hashes: std::collections::BTreeSet<_> = others.iter().chain([&base]).map(weights_hash).collect();
        assert_eq!(hashes.len(), 5);
        assert_eq!(weights_hash(&base), weights_hash(&base.clone()));
    }

    #[test]
    fn the_hash_of_no_tensor_is_that_of_no_bytes() {
        assert!(weights_hash(&StateDict::new()).starts_with("e3b0c44298fc1c149afbf4c8996fb924"));
    }
}
