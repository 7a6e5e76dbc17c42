//! Where on a film the evidence for a prediction lies: Grad-CAM of the classifiers, gradients of single boxes.
//!
//! The method is in [`spinexr_models::explain`]. Here its maps are brought onto the film: a grid of at most
//! [`GRID_SIDE`] cells that covers the film and nothing else, whatever the inputs of the models are. An explanation
//! runs the engine's modules, with gradients, and takes several times as long as a prediction.

use crate::InferError;
use crate::bundle::Bundle;
use crate::manifest::ModelSpec;
use crate::model::{box_on_film, wrong_weights};
use burn::tensor::{Device, Tensor, TensorData};
use spinexr_core::{BoxXyxy, ClassList, Detection, whole_file};
use spinexr_data::{PreparedFilm, prepare_film};
use spinexr_dicom::{Limits, Policy, Radiograph, ReadOptions, npy, read_film};
use spinexr_models::explain::{EvidenceMap, ExplainBoxes, for_explaining, grad_cam};
use spinexr_models::weights::{self, StateDict, Strictness};
use spinexr_models::{DenseNet, NotFinite};
use std::path::Path;

/// Cells along the longer side of a film's map.
pub const GRID_SIDE: usize = 256;

/// Boxes explained of each detector, best first.
pub const MOST_BOXES: usize = 12;

/// Evidence over a film.
#[derive(Debug, Clone, PartialEq)]
pub struct FilmMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[height, width]`, 0 or more, in units of the logit that is explained; the grid covers the film.
    pub values: Vec<f32>,
}

/// A box with its evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedBox {
    /// The box as its detector gave it, film px.
    pub found: Detection,
    /// What spoke for its class at its place.
    pub map: FilmMap,
}

/// What an [`Explainer`] says of a film.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Grad-CAM of the classifiers' mean logit of "abnormal"; `None` without a classifier.
    pub abnormal: Option<FilmMap>,
    /// Boxes of the detectors before the decision rule, best first within each detector.
    pub boxes: Vec<ExplainedBox>,
}

/// The models of bundles, ready to be asked for their reasons.
#[derive(Debug)]
pub struct Explainer {
    models: Vec<(ModelSpec, Network)>,
    /// With autodiff.
    device: Device,
    limits: Limits,
    frame: u32,
}

#[derive(Debug)]
enum Network {
    Classifier(Box<DenseNet>),
    Detector(Box<dyn ExplainBoxes + Send + Sync>, ClassList),
}

impl Network {
    fn load(spec: &ModelSpec, state: &StateDict, device: &Device) -> Result<Self, InferError> {
        let wrong = |error| wrong_weights(spec, &error);
        match (spec.densenet(), spec.detector()) {
            (Some(config), _) => {
                let network = weights::load_state_dict(config.init(device), state, Strictness::Exact);
                Ok(Self::Classifier(Box::new(for_explaining(network.map_err(wrong)?))))
            }
            (None, Some(config)) => {
                let network = config.load_to_explain(state, device).map_err(wrong)?;
                Ok(Self::Detector(network, spec.class_list()?))
            }
            (None, None) => unreachable!("an architecture is a classifier or a detector"),
        }
    }
}

impl Explainer {
    /// The models of the bundles on `device`, which is named without autodiff.
    ///
    /// # Errors
    /// Weights that do not fit their architecture; see [`crate::model::load_models`].
    pub fn load(bundles: &[Bundle], device: &Device, limits: Limits, frame: u32) -> Result<Self, InferError> {
        let device = device.clone().autodiff();
        let mut models = vec![];
        for bundle in bundles {
            for spec in &bundle.manifest().models {
                let network = Network::load(spec, &bundle.state_dict(&spec.name)?, &device)?;
                models.push((spec.clone(), network));
            }
        }
        Ok(Self { models, device, limits, frame })
    }

    /// Reads a film file and explains it.
    ///
    /// # Errors
    /// A file that is no film, or a model whose output is not finite.
    pub fn explain(&self, path: &Path) -> Result<Explanation, InferError> {
        let mut radiographs: Vec<(Policy, Radiograph)> = vec![];
        for (spec, _) in &self.models {
            if radiographs.iter().all(|(known, _)| *known != spec.policy) {
                let options = ReadOptions { policy: spec.policy, frame: self.frame, limits: self.limits };
                radiographs.push((spec.policy, read_film(path, &options)?));
            }
        }
        let mut of_classifiers: Vec<FilmMap> = vec![];
        let mut boxes = vec![];
        for (spec, network) in &self.models {
            let radiograph = radiographs.iter().find(|(policy, _)| *policy == spec.policy);
            let (_, radiograph) = radiograph.expect("every policy was read");
            let film = prepare_film(radiograph, &spec.input);
            let image = spec.normalisation.apply(self.image(&film)); // [1, C, H, W]
            match network {
                // What it is asked is not whether the film is abnormal.
                Network::Classifier(_) if !spec.is_of_ensemble() => {}
                Network::Classifier(network) => {
                    let map = grad_cam(network, image, 0).pop().expect("one film, one map");
                    of_classifiers.push(FilmMap::new(&map, &film));
                }
                Network::Detector(network, classes) => {
                    let (height, width) = film.content_px();
                    let detect = spec.detect.expect("checked with the manifest");
                    let content = (height as f32, width as f32);
                    let found = network.box_evidence(image, content, &detect, MOST_BOXES);
                    let found = found.map_err(|NotFinite(what)| InferError::NotFinite {
                        image: radiograph.header.image_id.clone(),
                        model: spec.name.clone(),
                        what,
                    })?;
                    boxes.extend(found.iter().filter_map(|(raw, map)| {
                        let xyxy = box_on_film(&raw.xyxy, &film)?;
                        let label = classes.get(raw.class)?.clone();
                        let found = Detection { label, score: raw.score, xyxy };
                        Some(ExplainedBox { found, map: FilmMap::new(map, &film) })
                    }));
                }
            }
        }
        Ok(Explanation { abnormal: FilmMap::mean(&of_classifiers), boxes })
    }

    /// `[1, 1, H, W]` in `[0, 1]`.
    fn image(&self, film: &PreparedFilm) -> Tensor<4> {
        let data = TensorData::new(film.to_unit(), [1, 1, film.height, film.width]);
        Tensor::from_data(data, &self.device)
    }
}

impl FilmMap {
    /// A map of a model's input, brought onto the film.
    fn new(map: &EvidenceMap, film: &PreparedFilm) -> Self {
        let (film_h, film_w) = (film.film_height_px as f32, film.film_width_px as f32);
        let cell_px = film_h.max(film_w) / GRID_SIDE as f32;
        let cells = |side_px: f32| ((side_px / cell_px).round() as usize).clamp(1, GRID_SIDE);
        let (height, width) = (cells(film_h), cells(film_w));
        let mut values = Vec::with_capacity(height * width);
        for row in 0..height {
            for column in 0..width {
                let x = (column as f32 + 0.5) * film_w / width as f32;
                let y = (row as f32 + 0.5) * film_h / height as f32;
                let place = film.map.to_input(&BoxXyxy::new(x, y, x, y));
                values.push(map.at(place.x1, place.y1));
            }
        }
        Self { height, width, values }
    }

    /// The mean of maps of one film; `None` of none.
    fn mean(maps: &[Self]) -> Option<Self> {
        let mut mean = maps.first()?.clone();
        for (i, value) in mean.values.iter_mut().enumerate() {
            *value = maps.iter().map(|m| m.values[i]).sum::<f32>() / maps.len() as f32;
        }
        Some(mean)
    }

    /// The largest value.
    pub fn peak(&self) -> f32 {
        self.values.iter().copied().fold(0.0, f32::max)
    }

    /// The value as a share of `peak` at a place of the film, `x` and `y` in `0..=1`; 0 where there is no peak.
    pub fn share_at(&self, x: f32, y: f32, peak: f32) -> f32 {
        let cell = |at: f32, cells: usize| ((at * cells as f32) as usize).min(cells - 1);
        let value = self.values[cell(y, self.height) * self.width + cell(x, self.width)];
        if peak > 0.0 { value / peak } else { 0.0 }
    }

    /// Writes the values as an array `[height, width]` of `f32` in NumPy's format.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write_npy(&self, path: &Path) -> Result<(), InferError> {
        let bytes = npy::encode_f32(&self.values, self.height, self.width);
        whole_file::write(path, &bytes).map_err(InferError::io(path, "write"))
    }
}

impl Explanation {
    /// The evidence of a box of the prediction: of the same class, lying where it lies.
    pub fn of_box(&self, shown: &Detection) -> Option<&FilmMap> {
        /// Boxes of several detectors or views are means of theirs.
        const SAME_IOU: f32 = 0.5;
        let overlap = |b: &&ExplainedBox| b.found.xyxy.iou(&shown.xyxy);
        self.boxes
            .iter()
            .filter(|b| b.found.label == shown.label && overlap(b) >= SAME_IOU)
            .max_by(|a, b| overlap(a).total_cmp(&overlap(b)))
            .map(|b| &b.map)
    }
}
