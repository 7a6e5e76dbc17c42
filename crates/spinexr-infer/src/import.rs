//! A bundle of another program's weights.
//!
//! The file says how many classes and input channels the network has; the source says what its weights expect of an
//! image. What the file cannot say, the size of the input, is that of the reference's recipe.

use crate::InferError;
use crate::bundle::{Bundle, BundleInfo};
use crate::card::{CardFacts, card};
use crate::manifest::{ABNORMAL, BundleManifest, ModelSpec};
use crate::weights_file::Storage;
use burn::tensor::Device;
use spinexr_core::ClassList;
use spinexr_data::{Fit, InputSize};
use spinexr_dicom::Policy;
use spinexr_models::weights::import::{Fate, Import, Row, named_as};
use spinexr_models::weights::sources::Source;
use spinexr_models::weights::{self, StateDict, file};
use spinexr_models::{Architecture, Task};
use std::path::PathBuf;

/// What to make a bundle of.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The file.
    pub weights: PathBuf,
    /// What the file's network is.
    pub architecture: Architecture,
    /// Whose names it has.
    pub source: Source,
    /// Names of its classes in order; `None` where their number tells: one is `abnormal`, seven are those of VinDr-SpineXR.
    pub classes: Option<Vec<String>>,
    /// Starts of names, on either side, that are passed over; the network keeps random values there.
    pub leave_out: Vec<String>,
    /// Input size; `None` for the recipe's.
    pub input: Option<InputSize>,
    /// How films are read.
    pub policy: Policy,
    /// Name of bundle and model.
    pub name: String,
    /// Licence of the weights.
    pub licence: String,
    /// What the bundle is for.
    pub intended_use: String,
}

/// A file held against the network that it should be of.
#[derive(Debug)]
pub struct Importing {
    request: ImportRequest,
    spec: ModelSpec,
    import: Import,
}

/// Input sizes of the recipes: ImageNet's for classifiers, torchvision's longer and shorter side for detectors (a
/// spine stands upright), those of the demonstration for small networks.
fn recipe_input(architecture: Architecture, in_channels: usize) -> InputSize {
    let size = |height_px, width_px, fit| InputSize { height_px, width_px, fit };
    match (architecture.task(), in_channels) {
        (Task::Classification, 1) => size(256, 176, Fit::Letterbox),
        (Task::Detection, 1) => size(384, 256, Fit::Letterbox),
        (Task::Classification, _) => size(224, 224, Fit::Stretch),
        (Task::Detection, _) => size(1333, 800, Fit::Letterbox),
    }
}

impl Importing {
    /// Reads the file and finds its tensors in the network.
    ///
    /// # Errors
    /// [`InferError::Import`] for a file that cannot be used at all, [`InferError::ManifestValue`] for class names
    /// that are lacking or too many. Tensors that do not fit are in [`Importing::rows`]; see
    /// [`Importing::into_bundle`].
    pub fn read(request: ImportRequest) -> Result<Self, InferError> {
        let place = request.weights.display().to_string();
        let fault = |source| InferError::Import { place: place.clone(), source };
        let found = file::read_file(&request.weights).map_err(fault)?;
        let Measures { in_channels, classes } = measures(&request, &found).map_err(fault)?;
        let classes = class_names(&request, classes)?;
        let network = network(request.architecture, classes.len(), in_channels);
        let import = Import::new(network, found, request.source, &request.leave_out).map_err(fault)?;
        let architecture = request.architecture;
        let spec = ModelSpec {
            name: request.name.clone(),
            architecture,
            task: architecture.task(),
            classes,
            in_channels,
            final_relu: None,
            training_manifest_sha256: None,
            policy: request.policy,
            hold_out: None,
            input: request.input.unwrap_or_else(|| recipe_input(architecture, in_channels)),
            normalisation: request.source.normalisation(in_channels),
            detect: architecture.detector_config().map(|config| config.detect_config()),
        };
        Ok(Self { request, spec, import })
    }

    /// Every tensor of the network and the file, and what became of it.
    pub fn rows(&self) -> &[Row] {
        &self.import.rows
    }

    /// The bundle, without thresholds.
    ///
    /// # Errors
    /// [`InferError::Import`] when a tensor is missing, unexpected or of another shape, else as [`Bundle::new`].
    pub fn into_bundle(self) -> Result<Bundle, InferError> {
        let Self { request, spec, import } = self;
        let place = request.weights.display().to_string();
        let random = import.count(Fate::LeftOut) > 0;
        let state =
            import.into_state().map_err(|source| InferError::Import { place: place.clone(), source })?;
        let mut limits =
            vec!["Imported: what it was trained on and how well it does is not known here.".to_owned()];
        if random {
            limits.push(format!(
                "Without the file's {}: there the network has random values and is to be trained before use.",
                request.leave_out.join(", ")
            ));
        }
        let facts = CardFacts {
            data: format!(
                "Weights of {} under the names of {}.",
                request.weights.file_name().unwrap_or_default().display(),
                request.source.name()
            ),
            metrics: vec![],
            limits,
        };
        let info = BundleInfo {
            name: request.name,
            licence: request.licence,
            intended_use: request.intended_use,
            demonstration: false,
        };
        let written = |m: &BundleManifest| card(m, &facts);
        Bundle::new(info, vec![(spec, state)], None, Storage::F32, written)
    }
}

/// The state dict of the network with random weights.
fn network(architecture: Architecture, num_classes: usize, in_channels: usize) -> StateDict {
    match (architecture.classifier_config(), architecture.detector_config()) {
        (Some(config), _) => {
            let config = config.with_num_classes(num_classes).with_in_channels(in_channels);
            weights::state_dict(&config.init(&Device::flex()))
        }
        (_, Some(config)) => {
            config.with_num_classes(num_classes).with_in_channels(in_channels).state_dict_seeded(0)
        }
        (None, None) => unreachable!("a network is a classifier or a detector"),
    }
}

struct Measures {
    in_channels: usize,
    /// `None` for a file without the last layer.
    classes: Option<usize>,
}

/// What the file says of its network.
fn measures(request: &ImportRequest, found: &StateDict) -> Result<Measures, weights::WeightsError> {
    // Names alone matter here, and they are the same for every number of classes.
    let own = network(request.architecture, 1, request.architecture.in_channels());
    let (named, _) = named_as(&own, found.clone(), request.source)?;
    let left_out = |name: &str| request.leave_out.iter().any(|p| weights::import::is_under(name, p));
    let state: StateDict = named
        .into_iter()
        .filter(|(ours, _)| !left_out(ours))
        .map(|(ours, (_, entry))| (ours, entry))
        .collect();
    let (stem, classes) = match request.architecture.detector_config() {
        Some(config) => (config.stem_weight(), config.classes_in(&state)),
        None => ("features.conv0.weight", state.get("classifier.bias").map(|entry| entry.values.len())),
    };
    let in_channels = match state.get(stem).map(|entry| &entry.shape[..]) {
        Some([_, channels @ 1..=16, _, _]) => *channels,
        _ => request.architecture.in_channels(),
    };
    Ok(Measures { in_channels, classes })
}

/// The names that were given, or those that the number of classes stands for.
fn class_names(request: &ImportRequest, in_file: Option<usize>) -> Result<Vec<String>, InferError> {
    if let Some(names) = &request.classes {
        return Ok(names.clone());
    }
    let detector = request.architecture.task() == Task::Detection;
    let vindr = ClassList::vindr();
    let findings = || vindr.labels().iter().map(|label| label.name().to_owned()).collect();
    // torchvision's detectors may have an output for the background, which is dropped.
    let background = request.source == Source::Torchvision && in_file == Some(vindr.len() + 1);
    match in_file {
        None if detector => Ok(findings()),
        None | Some(1) if !detector => Ok(vec![ABNORMAL.to_owned()]),
        Some(n) if detector && (n == vindr.len() || background) => Ok(findings()),
        n => Err(InferError::ManifestValue {
            place: request.weights.display().to_string(),
            key: "classes".to_owned(),
            expected: format!(
                "the names of the {} classes of this file, in order (--classes a,b,…), or its head left out \
                 (--leave-out)",
                n.unwrap_or(0)
            ),
            got: "none".to_owned(),
        }),
    }
}
