//! The reference cases of `tests/golden` for this crate's unit tests.

use crate::LabelledScores;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden");

/// The results of a case.
pub(crate) fn results(case: &str) -> Value {
    let text = std::fs::read_to_string(format!("{ROOT}/{case}/manifest.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["results"].take()
}

/// A tensor of `metrics_binary`; f32 and small i64 are both exact in f64.
pub(crate) fn tensor(name: &str) -> Vec<f64> {
    let bytes = std::fs::read(format!("{ROOT}/metrics_binary/tensors.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::I64 => {
            data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
        }
        _ => data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
    }
}

/// The labels of a set of `metrics_binary`.
pub(crate) fn labels(set: &str) -> Vec<bool> {
    tensor(&format!("{set}/labels")).iter().map(|label| *label == 1.0).collect()
}

/// Labels and scores of a set of `metrics_binary`.
pub(crate) fn scores(set: &str) -> LabelledScores {
    LabelledScores::new(&labels(set), &tensor(&format!("{set}/scores"))).unwrap()
}
