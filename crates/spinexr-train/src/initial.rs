//! Weights that training begins with, from a file.

use crate::config::InitialWeights;
use crate::error::TrainError;
use crate::params::has_prefix;
use burn::module::Module;
use spinexr_models::weights::import::Import;
use spinexr_models::weights::{self, Strictness, file};

/// `model` with the file's weights, of any form that [`file::read_file`] knows; names under `leave_out` keep what
/// they have, all others must be in the file and fit. What the file has beyond that is passed over.
///
/// # Errors
/// An unreadable file, names or shapes that do not fit, or a `leave_out` that fits no name.
pub(crate) fn load<M: Module>(model: M, initial: &InitialWeights) -> Result<M, TrainError> {
    let path = &initial.weights;
    let fault = |source| TrainError::Weights { path: path.clone(), source };
    check_prefixes(&model, "model.initial.leave_out", &initial.leave_out)?;
    let found = file::read_file(path).map_err(fault)?;
    let import = Import::new(weights::state_dict(&model), found, initial.source, &initial.leave_out);
    let state = import.and_then(|import| import.ignore_unexpected().into_state()).map_err(fault)?;
    weights::load_state_dict(model, &state, Strictness::Exact).map_err(fault)
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
