//! A model of a bundle on a device: the network its specification names, with the bundle's weights.

use crate::InferError;
use crate::bundle::Bundle;
use crate::engine::{Engine, EngineError};
use crate::manifest::ModelSpec;
#[cfg(feature = "ort")]
use crate::ort_engine::{OrtNetwork, OrtRetinaNet};
use burn::tensor::{Device, Tensor, TensorData};
use spinexr_core::method::View;
use spinexr_core::{BoxXyxy, ClassList, Detection, Logits, Tta};
use spinexr_data::PreparedFilm;
#[cfg(feature = "ort")]
use spinexr_models::Task;
use spinexr_models::weights::{self, StateDict, Strictness};
use spinexr_models::{DenseNet, DenseNetInference, Detect, NotFinite};
use std::borrow::Cow;

/// A model, ready to run.
#[derive(Debug)]
pub struct LoadedModel {
    spec: ModelSpec,
    network: Network,
}

#[derive(Debug)]
enum Network {
    Classifier(Classifier),
    Detector { network: Box<dyn Detect + Send + Sync>, classes: ClassList },
}

/// A classifier where it runs: prepared on the CPU, as the engine's module elsewhere.
#[derive(Debug)]
enum Classifier {
    Prepared(Box<DenseNetInference>),
    Module(Box<DenseNet>),
    #[cfg(feature = "ort")]
    Ort {
        network: Box<OrtNetwork>,
        classes: usize,
    },
}

impl Classifier {
    fn new(network: DenseNet, device: &Device) -> Self {
        match *device == Device::flex() {
            true => Self::Prepared(Box::new(DenseNetInference::new(&network))),
            false => Self::Module(Box::new(network)),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Prepared(network) => network.forward(images),
            Self::Module(network) => network.forward(images),
            #[cfg(feature = "ort")]
            Self::Ort { network, classes } => network.logits(images, *classes),
        }
    }
}

/// What a model says of one film.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelOutput {
    /// Film-level logits of a classifier, the mean over the views.
    Logits(Logits),
    /// Boxes of a detector, one list a view, in film px, clipped to the film, best score first.
    Boxes(Vec<Vec<Detection>>),
}

/// All models of a bundle, in its order.
///
/// # Errors
/// [`InferError::ModelWeights`] when the weights are not exactly those of the architecture, naming the
/// tensors.
pub fn load_models(bundle: &Bundle, device: &Device) -> Result<Vec<LoadedModel>, InferError> {
    bundle
        .manifest()
        .models
        .iter()
        .map(|spec| LoadedModel::new(spec.clone(), &bundle.state_dict(&spec.name)?, device))
        .collect()
}

/// As [`load_models`], to be computed by this engine, on so many threads where it has threads of its own.
///
/// # Errors
/// As [`load_models`]; [`InferError::Engine`] when the engine is not to be had, [`InferError::Export`] for a network
/// that it cannot take.
pub fn load_models_for(
    bundle: &Bundle,
    device: &Device,
    engine: Engine,
    threads: usize,
) -> Result<Vec<LoadedModel>, InferError> {
    match engine {
        Engine::Native => load_models(bundle, device),
        Engine::Ort if *device != Device::flex() => Err(EngineError::OtherDevice.into()),
        Engine::Ort => {
            let load = |spec: &ModelSpec| {
                LoadedModel::in_ort(spec.clone(), &bundle.state_dict(&spec.name)?, threads)
            };
            bundle.manifest().models.iter().map(load).collect()
        }
    }
}

impl LoadedModel {
    /// A model that ONNX Runtime computes.
    #[cfg(feature = "ort")]
    fn in_ort(spec: ModelSpec, state: &StateDict, threads: usize) -> Result<Self, InferError> {
        let network = match spec.task {
            Task::Classification => {
                let network = Box::new(OrtNetwork::new(&spec, state, threads)?);
                Network::Classifier(Classifier::Ort { network, classes: spec.classes.len() })
            }
            Task::Detection => Network::Detector {
                classes: spec.class_list()?,
                network: Box::new(OrtRetinaNet::new(&spec, state, threads)?),
            },
        };
        Ok(Self { spec, network })
    }

    #[cfg(not(feature = "ort"))]
    fn in_ort(_spec: ModelSpec, _state: &StateDict, _threads: usize) -> Result<Self, InferError> {
        Err(EngineError::NotBuilt.into())
    }

    /// A model of its specification and weights.
    ///
    /// # Errors
    /// As [`load_models`].
    pub fn new(spec: ModelSpec, state: &StateDict, device: &Device) -> Result<Self, InferError> {
        let network = match (spec.densenet(), spec.detector()) {
            (Some(config), _) => {
                let network = weights::load_state_dict(config.init(device), state, Strictness::Exact)
                    .map_err(|e| wrong_weights(&spec, &e))?;
                Network::Classifier(Classifier::new(network, device))
            }
            (None, Some(config)) => {
                let classes = spec.class_list()?;
                let network = config.load(state, device).map_err(|e| wrong_weights(&spec, &e))?;
                Network::Detector { network, classes }
            }
            (None, None) => unreachable!("a network is a classifier or a detector"),
        };
        Ok(Self { spec, network })
    }

    /// What the bundle says of the model.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// True for a detector, false for a classifier.
    pub fn is_detector(&self) -> bool {
        matches!(self.network, Network::Detector { .. })
    }

    /// The model takes every view of a film.
    ///
    /// # Errors
    /// [`InferError::ManifestValue`] for a size that is too small for the network.
    pub(crate) fn check_views(&self, tta: &Tta) -> Result<(), InferError> {
        for view in tta.views() {
            let input = self.spec.input.scaled(view.scale);
            let (height, width) = (input.height_px as usize, input.width_px as usize);
            self.spec.architecture.check_input(height, width).map_err(|e| InferError::ManifestValue {
                place: format!("model {:?}", self.spec.name),
                key: "test-time scale".to_owned(),
                expected: "a size that the network can take".to_owned(),
                got: format!("{}: {e}", view.scale),
            })?;
        }
        Ok(())
    }

    /// The model's output for each film: the mean logit over the views, or the boxes of each view. All films must
    /// have the model's input size.
    ///
    /// A film whose raw output has a NaN or an infinity gets [`NotFinite`]; the others are not touched by
    /// it, since no operation of an evaluated network mixes films.
    pub(crate) fn run(
        &self,
        films: &[&PreparedFilm],
        tta: &Tta,
        device: &Device,
    ) -> Vec<Result<ModelOutput, NotFinite>> {
        let views = tta.views();
        let mut by_film: Vec<Vec<Result<ModelOutput, NotFinite>>> = films.iter().map(|_| vec![]).collect();
        for view in &views {
            let seen: Vec<Cow<'_, PreparedFilm>> = films.iter().map(|film| self.view(film, view)).collect();
            for (outputs, output) in by_film.iter_mut().zip(self.run_view(&seen, view.flip, device)) {
                outputs.push(output);
            }
        }
        by_film.into_iter().map(joined).collect()
    }

    /// The film as a view shows it.
    fn view<'f>(&self, film: &'f PreparedFilm, view: &View) -> Cow<'f, PreparedFilm> {
        let scaled = film.at(&self.spec.input.scaled(view.scale));
        if view.flip { Cow::Owned(scaled.mirrored()) } else { scaled }
    }

    /// The output for each film, all of one size; boxes are on the film itself, not on its mirror image.
    fn run_view(
        &self,
        films: &[Cow<'_, PreparedFilm>],
        flip: bool,
        device: &Device,
    ) -> Vec<Result<ModelOutput, NotFinite>> {
        let images = self.spec.normalisation.apply(images(films, device)); // [N, C, H, W]
        match &self.network {
            Network::Classifier(network) => {
                let logits = network.forward(images); // [N, K]
                let classes = self.spec.classes.len();
                values(logits)
                    .chunks_exact(classes)
                    .map(|logits| match logits.iter().all(|logit| logit.is_finite()) {
                        false => Err(NotFinite("logits")),
                        true => Ok(ModelOutput::Logits(self.logits(logits))),
                    })
                    .collect()
            }
            Network::Detector { network, classes } => {
                let detect = self.spec.detect.expect("checked with the manifest");
                let sizes: Vec<(f32, f32)> = films
                    .iter()
                    .map(|film| film.content_px())
                    .map(|(height, width)| (height as f32, width as f32))
                    .collect();
                let found = network.detect(images, &sizes, &detect).into_iter().zip(films);
                found
                    .map(|(raw, film)| {
                        let content_width = film.content_px().1 as f32;
                        let boxes = raw?.into_iter().filter_map(|r| {
                            let seen = if flip { r.xyxy.flip_horizontal(content_width) } else { r.xyxy };
                            let xyxy = box_on_film(&seen, film)?;
                            Some(Detection { label: classes.get(r.class)?.clone(), score: r.score, xyxy })
                        });
                        Ok(ModelOutput::Boxes(vec![boxes.collect()]))
                    })
                    .collect()
            }
        }
    }
}

impl LoadedModel {
    /// A classifier's values for one film: of being abnormal when that is its one class.
    fn logits(&self, values: &[f32]) -> Logits {
        match values {
            [logit] if self.spec.is_of_ensemble() => Logits::Abnormal(f64::from(*logit)),
            _ => Logits::Classes(values.iter().copied().map(f64::from).collect()),
        }
    }
}

/// What the views of one film say together; not finite as soon as one is.
fn joined(views: Vec<Result<ModelOutput, NotFinite>>) -> Result<ModelOutput, NotFinite> {
    let (mut logits, mut lists) = (vec![], vec![]);
    for view in views {
        match view? {
            ModelOutput::Logits(of_view) => logits.push(of_view),
            ModelOutput::Boxes(of_view) => lists.extend(of_view),
        }
    }
    Ok(match Logits::mean(&logits) {
        Some(mean) => ModelOutput::Logits(mean),
        None => ModelOutput::Boxes(lists),
    })
}

/// A box in input px as one in film px, clipped to the film; `None` when nothing of it is on the film.
pub(crate) fn box_on_film(input_box: &BoxXyxy, film: &PreparedFilm) -> Option<BoxXyxy> {
    let on_film = film.map.to_film(input_box).clip(film.film_width_px as f32, film.film_height_px as f32);
    on_film.is_proper().then_some(on_film)
}

/// `[N, 1, H, W]`, display values in `[0, 1]`.
fn images(films: &[Cow<'_, PreparedFilm>], device: &Device) -> Tensor<4> {
    let (height, width) = (films[0].height, films[0].width);
    let mut pixels = Vec::with_capacity(films.len() * height * width);
    for film in films {
        assert_eq!((film.height, film.width), (height, width), "films of a batch have one size");
        pixels.extend(film.to_unit());
    }
    Tensor::from_data(TensorData::new(pixels, [films.len(), 1, height, width]), device)
}

/// The values of `[N, K]`, row by row.
fn values(x: Tensor<2>) -> Vec<f32> {
    x.try_into_vec_as::<f32>().expect("a network gives float tensors that can be read back")
}

pub(crate) fn wrong_weights(spec: &ModelSpec, error: &weights::WeightsError) -> InferError {
    InferError::ModelWeights {
        model: spec.name.clone(),
        architecture: spec.architecture.to_string(),
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spinexr_data::{Fit, InputSize};

    fn prepared(fit: Fit) -> PreparedFilm {
        let input = InputSize { height_px: 200, width_px: 100, fit };
        let (film_height_px, film_width_px) = (1000, 800);
        PreparedFilm {
            height: 200,
            width: 100,
            pixels: vec![0; 200 * 100],
            map: input.map(film_height_px, film_width_px),
            film_height_px,
            film_width_px,
        }
    }

    #[test]
    fn boxes_go_back_to_film_px_and_are_clipped() {
        // Stretch: 1000 → 200 and 800 → 100, so × 5 along y and × 8 along x.
        let film = prepared(Fit::Stretch);
        let found = box_on_film(&BoxXyxy::new(10.0, 20.0, 50.0, 60.0), &film).unwrap();
        assert_eq!(found, BoxXyxy::new(80.0, 100.0, 400.0, 300.0));
        let found = box_on_film(&BoxXyxy::new(-3.0, 190.0, 50.0, 260.0), &film).unwrap();
        assert_eq!(found, BoxXyxy::new(0.0, 950.0, 400.0, 1000.0));

        // Letterbox: 800 → 100 and 1000 → 125; what lies in the padding below is not on the film.
        let film = prepared(Fit::Letterbox);
        let found = box_on_film(&BoxXyxy::new(10.0, 20.0, 50.0, 60.0), &film).unwrap();
        assert_eq!(found, BoxXyxy::new(80.0, 160.0, 400.0, 480.0));
        assert_eq!(box_on_film(&BoxXyxy::new(10.0, 130.0, 50.0, 160.0), &film), None);
        assert_eq!(box_on_film(&BoxXyxy::new(f32::NAN, 1.0, 50.0, 60.0), &film), None);
    }
}
