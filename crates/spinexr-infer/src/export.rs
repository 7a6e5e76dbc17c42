//! A bundle's models for other programs: weights as safetensors, networks as ONNX.

use crate::InferError;
use crate::bundle::Bundle;
use crate::manifest::ModelSpec;
use spinexr_models::weights::{Entry, StateDict, to_safetensors};
use spinexr_models::{DetectorConfig, onnx};
use std::collections::BTreeMap;

/// Version of the meaning of the properties in [`metadata`].
const PROPERTIES_VERSION: &str = "1";

/// What a program needs to feed the network and to read its outputs, as the properties of an ONNX file or the
/// metadata of a safetensors file. All values are text; lists are JSON.
pub fn metadata(bundle: &Bundle, spec: &ModelSpec) -> BTreeMap<String, String> {
    let mut properties: BTreeMap<String, String> = [
        ("spinexr.version", PROPERTIES_VERSION.to_owned()),
        ("spinexr.bundle", bundle.manifest().name.clone()),
        ("spinexr.bundle_hash", bundle.hash().to_owned()),
        ("spinexr.licence", bundle.manifest().licence.clone()),
        ("spinexr.intended_use", bundle.manifest().intended_use.clone()),
        ("spinexr.model", spec.name.clone()),
        ("spinexr.architecture", spec.architecture.to_string()),
        ("spinexr.classes", json(&spec.classes)),
        ("spinexr.policy", spec.policy.name().to_owned()),
        ("spinexr.input", spec.input.to_string()),
        ("spinexr.mean", json(&spec.normalisation.mean)),
        ("spinexr.std", json(&spec.normalisation.std)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    if let Some(DetectorConfig::RetinaNet(config)) = spec.architecture.detector_config() {
        properties.insert("spinexr.anchor_sizes_px".to_owned(), json(&config.anchors.sizes_px));
        properties.insert("spinexr.anchor_ratios".to_owned(), json(&config.anchors.aspect_ratios));
    }
    if let Some(detect) = &spec.detect {
        properties.insert("spinexr.detect".to_owned(), json(detect));
    }
    properties
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data with string keys")
}

/// The weights of one model as a safetensors file, under their state-dict names.
///
/// # Errors
/// As [`Bundle::state_dict`].
pub fn safetensors(bundle: &Bundle, spec: &ModelSpec) -> Result<Vec<u8>, InferError> {
    Ok(to_safetensors(&bundle.state_dict(&spec.name)?, metadata(bundle, spec)))
}

/// One model as an ONNX file; see [`onnx`] for its input and outputs.
///
/// # Errors
/// [`InferError::Export`] for a network that has no such form here (the detectors of two stages and of learned
/// proposals) or whose weights are not its own.
pub fn onnx_file(bundle: &Bundle, spec: &ModelSpec) -> Result<Vec<u8>, InferError> {
    onnx_of(spec, &bundle.state_dict(&spec.name)?, &metadata(bundle, spec))
}

pub(crate) fn onnx_of(
    spec: &ModelSpec,
    state: &StateDict,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, InferError> {
    let fault = |message: String| InferError::Export {
        model: spec.name.clone(),
        architecture: spec.architecture.to_string(),
        message,
    };
    match (spec.densenet(), spec.detector()) {
        (Some(config), _) => onnx::densenet(&config, state, metadata).map_err(|e| fault(e.to_string())),
        (_, Some(DetectorConfig::RetinaNet(config))) => {
            onnx::retinanet(&config, state, metadata).map_err(|e| fault(e.to_string()))
        }
        _ => Err(fault("only DenseNet and RetinaNet have this form".to_owned())),
    }
}

/// RetinaNet's anchors at the bundle's input size as a safetensors file: `anchors`, `[A, 4]`, x1, y1, x2, y2 in
/// input pixels, in the order of the outputs. `None` for other networks.
pub fn anchors(spec: &ModelSpec) -> Option<Vec<u8>> {
    let Some(DetectorConfig::RetinaNet(config)) = spec.detector() else { return None };
    let (height, width) = (spec.input.height_px as usize, spec.input.width_px as usize);
    let boxes = config.anchors_of(height, width).boxes;
    let values: Vec<f32> = boxes.iter().flat_map(|b| <[f32; 4]>::from(*b)).collect();
    let entry = Entry { shape: vec![boxes.len(), 4], values };
    Some(to_safetensors(&StateDict::from([("anchors".to_owned(), entry)]), BTreeMap::new()))
}
