//! `weights.safetensors`: the tensors of all models of a bundle in one file.

use crate::InferError;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use spinexr_models::weights::{self, StateDict};

/// How weights lie in the file. They are f32 whenever they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// Four bytes a weight, exact.
    #[default]
    F32,
    /// Two bytes a weight where a tensor has two dimensions or more (convolutions and linear layers),
    /// rounded to 11 significant bits; norms, biases and running statistics stay f32, since a variance can
    /// be beyond the reach of f16.
    F16,
}

/// The bytes of the file. The same states give the same bytes.
pub(crate) fn encode<'a>(
    models: impl Iterator<Item = (&'a str, &'a StateDict)>,
    storage: Storage,
    place: &str,
) -> Result<Vec<u8>, InferError> {
    let mut tensors: Vec<(String, Dtype, &[usize], Vec<u8>)> = vec![];
    for (model, state) in models {
        for (name, entry) in state {
            let full_name = format!("{model}.{name}");
            if let Some(value) = entry.values.iter().find(|v| !v.is_finite()) {
                let message =
                    format!("tensor {full_name:?} holds {value}; a bundle takes finite weights only");
                return Err(InferError::Weights { place: place.to_owned(), message });
            }
            let largest = entry.values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let halved =
                storage == Storage::F16 && entry.shape.len() >= 2 && largest <= half::f16::MAX.to_f32();
            let (dtype, bytes) = if halved {
                let bytes = entry.values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes());
                (Dtype::F16, bytes.collect())
            } else {
                (Dtype::F32, entry.values.iter().flat_map(|v| v.to_le_bytes()).collect())
            };
            tensors.push((full_name, dtype, &entry.shape, bytes));
        }
    }
    let broken = |e: safetensors::SafeTensorError| InferError::Weights {
        place: place.to_owned(),
        message: e.to_string(),
    };
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.to_vec(), bytes).map_err(broken)?;
            Ok((name.as_str(), view))
        })
        .collect::<Result<Vec<_>, InferError>>()?;
    safetensors::serialize(views, None).map_err(broken)
}

/// Every tensor belongs to one of the models.
pub(crate) fn check_owners(bytes: &[u8], models: &[&str], place: &str) -> Result<(), InferError> {
    let wrong = |message: String| InferError::Weights { place: place.to_owned(), message };
    let file = SafeTensors::deserialize(bytes).map_err(|e| wrong(e.to_string()))?;
    let mut names: Vec<&str> = file.names();
    names.sort_unstable();
    for name in names {
        let owner = name.split_once('.').map(|(owner, _)| owner);
        if !owner.is_some_and(|owner| models.contains(&owner)) {
            return Err(wrong(format!(
                "tensor {name:?} belongs to no model, expected a name that begins with one of {models:?} and a dot"
            )));
        }
    }
    Ok(())
}

/// The tensors of one model, without its prefix, as f32.
pub(crate) fn decode(bytes: &[u8], model: &str, place: &str) -> Result<StateDict, InferError> {
    let wrong = |message: String| InferError::Weights { place: place.to_owned(), message };
    let state = weights::from_safetensors(bytes).map_err(|e| wrong(e.to_string()))?;
    let prefix = format!("{model}.");
    let of_model = state
        .into_iter()
        .filter_map(|(name, entry)| name.strip_prefix(&prefix).map(|rest| (rest.to_owned(), entry)));
    Ok(of_model.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spinexr_models::weights::Entry;

    fn state(values: &[f32]) -> StateDict {
        StateDict::from([
            ("conv.weight".to_owned(), Entry { shape: vec![values.len(), 1], values: values.to_vec() }),
            ("norm.running_var".to_owned(), Entry { shape: vec![2], values: vec![1e-9, 7e8] }),
        ])
    }

    #[test]
    fn f32_is_exact_and_models_are_kept_apart() {
        let (a, b) = (state(&[0.1, -2.0]), state(&[1e-7, 3.0, 4.0]));
        let bytes = encode([("a", &a), ("b", &b)].into_iter(), Storage::F32, "x").unwrap();
        assert_eq!(decode(&bytes, "a", "x").unwrap(), a);
        assert_eq!(decode(&bytes, "b", "x").unwrap(), b);
        assert!(decode(&bytes, "c", "x").unwrap().is_empty());
    }

    #[test]
    fn f16_halves_matrices_and_leaves_statistics_alone() {
        let values: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) * 0.0137).collect();
        let a = state(&values);
        let full = encode([("a", &a)].into_iter(), Storage::F32, "x").unwrap();
        let half = encode([("a", &a)].into_iter(), Storage::F16, "x").unwrap();
        assert!(half.len() < full.len() - 1900);
        let back = decode(&half, "a", "x").unwrap();
        assert_eq!(back["norm.running_var"], a["norm.running_var"]);
        for (was, is) in values.iter().zip(&back["conv.weight"].values) {
            assert!((was - is).abs() <= was.abs() * 2f32.powi(-11), "{was} {is}");
        }
    }

    #[test]
    fn a_matrix_beyond_the_reach_of_f16_stays_exact() {
        let a = state(&[1e6, 1.0]);
        let bytes = encode([("a", &a)].into_iter(), Storage::F16, "x").unwrap();
        assert_eq!(decode(&bytes, "a", "x").unwrap(), a);
    }

    #[test]
    fn weights_that_are_not_finite_are_refused_by_name() {
        let error = encode([("a", &state(&[f32::NAN]))].into_iter(), Storage::F32, "x").unwrap_err();
        assert!(error.to_string().contains("a.conv.weight"), "{error}");
    }

    #[test]
    fn a_tensor_of_no_model_is_named() {
        let bytes = encode([("a", &state(&[1.0]))].into_iter(), Storage::F32, "x").unwrap();
        let error = check_owners(&bytes, &["ab"], "x").unwrap_err().to_string();
        assert!(error.contains("a.conv.weight") && error.contains("ab"), "{error}");
        check_owners(&bytes, &["a"], "x").unwrap();
    }
}
