//! `bundle.toml`: what a bundle says of itself.

use crate::InferError;
use serde::{Deserialize, Serialize};
use spinexr_core::{BoxFusion, ClassList, Gate, Method, Tta};
use spinexr_data::{HoldOut, InputSize};
use spinexr_dicom::Policy;
use spinexr_models::{Architecture, DenseNetConfig, DetectConfig, DetectorConfig, Normalisation, Task};
use std::collections::BTreeSet;

/// Version of the bundle format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The one class of a classifier that is a member of the ensemble.
pub const ABNORMAL: &str = "abnormal";

/// The contents of `bundle.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleManifest {
    /// SHA-256 over `bundle.toml` without the line of this key, followed by `weights.safetensors`; it names the
    /// bundle in every prediction.
    pub bundle_hash: String,
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// What the bundle is called.
    pub name: String,
    /// Program and version that made it.
    pub created_by: String,
    /// Licence of the weights.
    pub licence: String,
    /// What the bundle is meant for, and what not.
    pub intended_use: String,
    /// Made for showing how the program works, not from patients' films; every output says so.
    pub demonstration: bool,
    /// SHA-256 of `weights.safetensors`.
    pub weights_sha256: String,
    /// Thresholds; absent before they were chosen on validation films.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// The models, classifiers and detectors.
    #[serde(rename = "model")]
    pub models: Vec<ModelSpec>,
}

/// One model of a bundle, with all that turns a film into its input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Letters, digits, `-` and `_`; its tensors are `<name>.<tensor>` in `weights.safetensors`.
    pub name: String,
    /// Which network.
    pub architecture: Architecture,
    /// What the network does; must be the architecture's task.
    pub task: Task,
    /// Class names by index: `["abnormal"]`, or the labels of a detector's boxes. A classifier of other classes gives its
    /// logits and has no part in the ensemble.
    pub classes: Vec<String>,
    /// Input channels; a film is repeated over them.
    pub in_channels: usize,
    /// A ReLU between the last norm and the head of a DenseNet, when it differs from the architecture's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_relu: Option<bool>,
    /// SHA-256 of the manifest of the run that trained it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_manifest_sha256: Option<String>,
    /// How stored values become display pixels.
    pub policy: Policy,
    /// The validation studies that were held out of its training; absent where not known, and then no threshold
    /// can be chosen for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<HoldOut>,
    /// Input shape.
    pub input: InputSize,
    /// Mean and standard deviation a channel, of display values in `[0, 1]`.
    pub normalisation: Normalisation,
    /// Post-processing; detectors only. The first detector's IoU and number of boxes also serve to put the
    /// boxes of several detectors together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detect: Option<DetectConfig>,
}

/// The split that thresholds may come from. There is one value: a bundle whose thresholds were chosen on
/// other films does not load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChosenOn {
    /// Validation films.
    Validation,
}

/// Thresholds of the whole bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// c*: a film whose probability of being abnormal is at least this keeps every box.
    pub c_star: f64,
    /// On other films a box stays when its score is at least this.
    pub keep_score: f64,
    /// Boxes below this score are not drawn; they stay in the results files.
    pub display_score: f64,
    /// Which films gave the thresholds.
    pub chosen_on: ChosenOn,
    /// How many films gave them.
    pub films: usize,
    /// Views and fusion of the predictions that gave them, and so of those they hold for; absent where each model
    /// ran once and there was one detector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
}

impl Decision {
    /// The decision rule of these thresholds.
    pub const fn gate(&self) -> Gate {
        Gate { c_star: self.c_star, keep_score: self.keep_score }
    }
}

impl ModelSpec {
    /// The classes, in index order.
    ///
    /// # Errors
    /// [`InferError::ManifestValue`] for names that are no list of classes.
    pub fn class_list(&self) -> Result<ClassList, InferError> {
        ClassList::from_names(&self.classes).map_err(|e| InferError::ManifestValue {
            place: format!("model {:?}", self.name),
            key: "classes".to_owned(),
            expected: "different names of classes".to_owned(),
            got: e.to_string(),
        })
    }

    /// The measures of a classifier as specified; `None` for a detector.
    pub fn densenet(&self) -> Option<DenseNetConfig> {
        let config = self.architecture.classifier_config()?;
        let final_relu = self.final_relu.unwrap_or(config.final_relu);
        let config = config.with_num_classes(self.classes.len()).with_in_channels(self.in_channels);
        Some(config.with_final_relu(final_relu))
    }

    /// The measures of a detector as specified; `None` for a classifier.
    pub fn detector(&self) -> Option<DetectorConfig> {
        let config = self.architecture.detector_config()?;
        Some(config.with_num_classes(self.classes.len()).with_in_channels(self.in_channels))
    }

    /// Whether the model is a classifier that the ensemble's p(abnormal) is made of.
    pub fn is_of_ensemble(&self) -> bool {
        self.task == Task::Classification && matches!(&self.classes[..], [class] if class == ABNORMAL)
    }

    /// The validation studies that were held out of the model's training.
    ///
    /// # Errors
    /// [`InferError::HoldOutUnknown`].
    pub fn known_hold_out(&self) -> Result<&HoldOut, InferError> {
        self.hold_out.as_ref().ok_or_else(|| InferError::HoldOutUnknown { model: self.name.clone() })
    }

    /// The validation films of `used` are new to the model: its training held out the very same studies.
    ///
    /// # Errors
    /// [`InferError::HoldOutUnknown`], [`InferError::HoldOutDiffers`].
    pub fn check_hold_out(&self, used: &HoldOut) -> Result<(), InferError> {
        let own = self.known_hold_out()?;
        if own.same_studies(used) {
            return Ok(());
        }
        let (model, own, used) = (self.name.clone(), own.to_string(), used.to_string());
        Err(InferError::HoldOutDiffers { model, own, used })
    }
}

impl BundleManifest {
    /// Reads `bundle.toml`; `place` names it in errors.
    ///
    /// # Errors
    /// [`InferError::Manifest`] with line and column for broken syntax, unknown, missing or mistyped keys;
    /// [`InferError::ManifestValue`] for values that do not fit together.
    pub fn parse(text: &str, place: &str) -> Result<Self, InferError> {
        let manifest: Self = toml::from_str(text)
            .map_err(|e| InferError::Manifest { place: place.to_owned(), message: e.to_string() })?;
        manifest.check(place)?;
        Ok(manifest)
    }

    /// The text of `bundle.toml`.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a manifest has only string keys and finite depth")
    }

    /// The values fit together.
    ///
    /// # Errors
    /// [`InferError::ManifestValue`] with the key, what was expected and what is there.
    pub fn check(&self, place: &str) -> Result<(), InferError> {
        let wrong = |key: &str, expected: &str, got: String| {
            Err(InferError::ManifestValue {
                place: place.to_owned(),
                key: key.to_owned(),
                expected: expected.to_owned(),
                got,
            })
        };
        if self.format != FORMAT_VERSION {
            return wrong("format", &FORMAT_VERSION.to_string(), self.format.to_string());
        }
        if self.models.is_empty() {
            return wrong("model", "at least one [[model]]", "none".to_owned());
        }
        if let Some(d) = &self.decision {
            for (key, value) in
                [("c_star", d.c_star), ("keep_score", d.keep_score), ("display_score", d.display_score)]
            {
                if !(0.0..=1.0).contains(&value) {
                    return wrong(&format!("decision.{key}"), "a number from 0 to 1", value.to_string());
                }
            }
            if let Some(method) = &d.method
                && let Err((key, expected, got)) = check_method(method)
            {
                return wrong(&format!("decision.method.{key}"), expected, got);
            }
        }
        // A threshold is chosen for all models together, on films that must be new to each of them.
        let studies = |m: &ModelSpec| m.hold_out.as_ref().map(|h| h.studies_sha256.clone());
        let first = &self.models[0];
        let other = self.models.iter().find(|m| studies(m) != studies(first));
        if let (Some(_), Some(other)) = (&self.decision, other) {
            let key = format!("model {:?}: hold_out", other.name);
            let expected = format!("the studies that {:?} held out, since one decision holds", first.name);
            let got = other.hold_out.as_ref().map_or_else(|| "none named".to_owned(), HoldOut::to_string);
            return wrong(&key, &expected, got);
        }
        let mut names = BTreeSet::new();
        for model in &self.models {
            let key = |name: &str| format!("model {:?}: {name}", model.name);
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if model.name.is_empty() || model.name.len() > 64 || !model.name.chars().all(legal) {
                return wrong("model.name", "1 to 64 letters, digits, `-`, `_`", format!("{:?}", model.name));
            }
            if !names.insert(&model.name) {
                return wrong(
                    "model.name",
                    "a name of its own for every model",
                    format!("{:?} twice", model.name),
                );
            }
            if model.task != model.architecture.task() {
                let expected = format!("{:?}, the task of {}", model.architecture.task(), model.architecture);
                return wrong(&key("task"), &expected, format!("{:?}", model.task));
            }
            if model.classes.is_empty() {
                return wrong(&key("classes"), "1 to 10000 classes", "0".to_owned());
            }
            if let Err(error) = ClassList::from_names(&model.classes) {
                return wrong(&key("classes"), "1 to 10000 classes of different names", error.to_string());
            }
            if let Err(error) = model.input.check() {
                return wrong(&key("input"), "an input size", error.to_string());
            }
            let (height, width) = (model.input.height_px as usize, model.input.width_px as usize);
            if let Err(error) = model.architecture.check_input(height, width) {
                return wrong(&key("input"), "an input that the network can take", error.to_string());
            }
            if let Err(error) = model.normalisation.validate() {
                return wrong(&key("normalisation"), "a usable normalisation", error.to_string());
            }
            if model.normalisation.channels() != model.in_channels {
                let expected = format!("{} channels, as in normalisation", model.normalisation.channels());
                return wrong(&key("in_channels"), &expected, model.in_channels.to_string());
            }
            match (model.task, &model.detect) {
                (Task::Classification, Some(_)) => {
                    return wrong(&key("detect"), "nothing, for a classifier", "settings".to_owned());
                }
                (Task::Detection, None) => {
                    return wrong(&key("detect"), "settings, for a detector", "nothing".to_owned());
                }
                (Task::Detection, Some(detect)) => {
                    if !(0.0..=1.0).contains(&detect.score_threshold) {
                        let got = detect.score_threshold.to_string();
                        return wrong(&key("detect.score_threshold"), "a number from 0 to 1", got);
                    }
                    if !(0.0..=1.0).contains(&detect.nms_iou) {
                        let got = detect.nms_iou.to_string();
                        return wrong(&key("detect.nms_iou"), "a number from 0 to 1", got);
                    }
                    if detect.top_k_per_level == 0 || detect.max_detections == 0 {
                        return wrong(&key("detect"), "at least one box", "0".to_owned());
                    }
                }
                (Task::Classification, None) => {}
            }
        }
        Ok(())
    }
}

/// The settings of a method are in range; else the key, what was expected and what is there.
pub(crate) fn check_method(method: &Method) -> Result<(), (&'static str, &'static str, String)> {
    if let Some(scale) = method.tta.scales.iter().find(|scale| !Tta::SCALES.contains(*scale)) {
        return Err(("tta.scales", "shares of the input size from 0.25 to 4", scale.to_string()));
    }
    if let BoxFusion::Wbf(fusion) = method.box_fusion {
        for (key, value) in [
            ("box_fusion.wbf.iou_threshold", fusion.iou_threshold),
            ("box_fusion.wbf.skip_score", fusion.skip_score),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err((key, "a number from 0 to 1", value.to_string()));
            }
        }
    }
    Ok(())
}
