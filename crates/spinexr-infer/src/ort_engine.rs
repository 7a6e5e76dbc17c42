//! ONNX Runtime as the engine: a model is written as ONNX in memory and run by the shared library.

use crate::InferError;
use crate::engine::{EngineError, ORT_LIBRARY};
use crate::export;
use crate::manifest::ModelSpec;
use burn::tensor::{Device, Tensor, TensorData};
use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;
use spinexr_models::weights::StateDict;
use spinexr_models::{
    Detect, DetectConfig, DetectorConfig, NotFinite, RawDetection, RetinaNetConfig, RetinaNetOutput,
};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A network in ONNX Runtime.
#[derive(Debug)]
pub(crate) struct OrtNetwork(Mutex<Session>);

/// Shape and values, row-major.
type Output = (Vec<usize>, Vec<f32>);

/// What is said of a film for which the library gave nothing.
const FAILED: NotFinite = NotFinite("outputs (ONNX Runtime failed)");

/// The environment, one a process.
fn environment() -> Result<Environment, EngineError> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
    let mut made = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*made {
        return Ok(environment.clone());
    }
    let fault = |message: String| EngineError::Library { message };
    let path = std::env::var_os(ORT_LIBRARY).ok_or_else(|| fault(format!("{ORT_LIBRARY} is not set")))?;
    let builder = ort::init_from(&path).map_err(|e| fault(e.to_string()))?;
    let environment =
        builder.with_name("spinexr").with_telemetry(false).build().map_err(|e| fault(e.to_string()))?;
    Ok(made.insert(environment).clone())
}

impl OrtNetwork {
    /// The network of a specification with its weights.
    ///
    /// # Errors
    /// [`InferError::Engine`] without the library or when it refuses the network, [`InferError::Export`] for a
    /// network that has no ONNX form here.
    pub(crate) fn new(spec: &ModelSpec, state: &StateDict, threads: usize) -> Result<Self, InferError> {
        let environment = environment()?;
        let onnx = export::onnx_of(spec, state, &BTreeMap::new())?;
        let fault = |message: String| EngineError::Network { model: spec.name.clone(), message };
        let session = Session::builder(&environment)
            .map_err(|e| fault(e.to_string()))?
            .with_intra_threads(threads)
            .map_err(|e| fault(e.to_string()))?
            .commit_from_memory(&onnx)
            .map_err(|e| fault(e.to_string()))?;
        Ok(Self(Mutex::new(session)))
    }

    /// The outputs of these names, each with its shape. `images`: `[N, C, H, W]`, normalised.
    fn run<const OUTPUTS: usize>(
        &self,
        images: Tensor<4>,
        names: [&str; OUTPUTS],
    ) -> Result<[Output; OUTPUTS], ort::Error> {
        let shape = images.dims();
        let pixels =
            images.try_into_vec_as::<f32>().expect("images are a float tensor that can be read back");
        let mut session = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs =
            session.run(ort::inputs!["images" => TensorRef::from_array_view((shape, &pixels[..]))?])?;
        let mut found = Vec::with_capacity(OUTPUTS);
        for name in names {
            let (shape, values) = outputs[name].try_extract_tensor::<f32>()?;
            let shape: Vec<usize> = shape.iter().map(|size| *size as usize).collect();
            found.push((shape, values.to_vec()));
        }
        Ok(found.try_into().expect("one output for each name"))
    }

    /// A classifier's logits, `[N, K]`; NaN where the library fails.
    pub(crate) fn logits(&self, images: Tensor<4>, classes: usize) -> Tensor<2> {
        let (n, device) = (images.dims()[0], images.device());
        let values = match self.run(images, ["logits"]) {
            Ok([(_, values)]) if values.len() == n * classes => values,
            _ => vec![f32::NAN; n * classes],
        };
        Tensor::from_data(TensorData::new(values, [n, classes]), &device)
    }
}

/// A detector in ONNX Runtime: outputs by the library, boxes by our own code.
#[derive(Debug)]
pub(crate) struct OrtRetinaNet {
    network: OrtNetwork,
    config: RetinaNetConfig,
}

impl OrtRetinaNet {
    /// As [`OrtNetwork::new`].
    pub(crate) fn new(spec: &ModelSpec, state: &StateDict, threads: usize) -> Result<Self, InferError> {
        // First, since it says which networks have an ONNX form.
        let network = OrtNetwork::new(spec, state, threads)?;
        let Some(DetectorConfig::RetinaNet(config)) = spec.detector() else {
            unreachable!("no other detector has an ONNX form");
        };
        Ok(Self { network, config })
    }
}

impl Detect for OrtRetinaNet {
    fn detect(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        let [n, _, height, width] = images.dims();
        let Ok([logits, deltas]) = self.network.run(images, ["class_logits", "box_deltas"]) else {
            return vec![Err(FAILED); n];
        };
        let tensor = |(shape, values): Output| {
            let shape: [usize; 3] = shape.try_into().ok()?;
            Some(Tensor::<3>::from_data(TensorData::new(values, shape), &Device::flex()))
        };
        let anchors = self.config.anchors_of(height, width);
        match (tensor(logits), tensor(deltas)) {
            (Some(class_logits), Some(box_deltas)) if class_logits.dims()[1] == anchors.boxes.len() => {
                RetinaNetOutput { class_logits, box_deltas, anchors }.detect(content_px, config)
            }
            _ => vec![Err(FAILED); n],
        }
    }
}
