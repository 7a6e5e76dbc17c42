//! Weights that training begins with, from a file.

use crate::config::InitialWeights;
use crate::error::TrainError;
use crate::params::has_prefix;
use burn::module::Module;
use spinexr_models::sparse_rcnn::detectron2::{from_detectron2, has_detectron2_names};
use spinexr_models::weights::{self, Mismatch, Strictness, WeightsError};

/// `model` with the file's weights; names under `leave_out` keep what they have, all others must be in the
/// file and fit. A file with detectron2's names is read as one with this program's.
///
/// # Errors
/// An unreadable file, names or shapes that do not fit, or a `leave_out` that fits no name.
pub(crate) fn load<M: Module>(model: M, initial: &InitialWeights) -> Result<M, TrainError> {
    let path = &initial.weights;
    let fault = |source| TrainError::Weights { path: path.clone(), source };
    check_prefixes(&model, "model.initial.leave_out", &initial.leave_out)?;
    let bytes = std::fs::read(path).map_err(TrainError::io(path, "read"))?;
    let mut state = weights::from_safetensors(&bytes).map_err(fault)?;
    if has_detectron2_names(&state) {
        state = from_detectron2(state);
    }
    let left_out = |name: &str| initial.leave_out.iter().any(|p| has_prefix(name, p));
    state.retain(|name, _| !left_out(name));
    let missing: Vec<String> = weights::named_tensors(&model)
        .into_iter()
        .map(|tensor| tensor.name)
        .filter(|name| !left_out(name) && !state.contains_key(name))
        .collect();
    if !missing.is_empty() {
        return Err(fault(WeightsError::Mismatch(Mismatch { missing, ..Mismatch::default() })));
    }
    weights::load_state_dict(model, &state, Strictness::Partial).map_err(fault)
}

/// Every prefix is the start of some name of `model`.
pub(crate) fn check_prefixes<M: Module>(
    model: &M,
    key: &'static str,
    prefixes: &[String],
) -> Result<(), TrainError> {
    let names = weights::named_tensors(model);
    match prefixes.iter().find(|prefix| !names.iter().any(|t| has_prefix(&t.name, prefix))) {
        None => Ok(()),
        Some(prefix) => Err(TrainError::UnusedPrefix { key, prefix: prefix.clone() }),
    }
}
