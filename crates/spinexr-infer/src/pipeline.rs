//! From film files, or prepared films, to predictions.
//!
//! Films are read and resized in background threads while the models run. Each model sees films in batches;
//! a film's prediction does not depend on the films beside it. Results come in the order of the films given,
//! and a film that cannot be predicted gives an error in its place while the others go on.
//!
//! **Several classifiers** are an ensemble: p(abnormal) is the sigmoid of their mean logit. A classifier for other
//! classes than "abnormal" gives its logits and has no part in it. The boxes of **several detectors** are put together
//! by weighted box fusion, or by class-wise suppression with the first detector's IoU; its number of boxes holds for
//! both.
//!
//! **Several views** of a film ([`spinexr_core::Tta`]): a classifier's logit is the mean over them, taken before the
//! sigmoid; a detector's boxes are brought back to the film, and each view counts as a detector of its own. Further
//! sizes are made from the prepared film, so that files and prepared films give the same.
//!
//! **Several policies.** Each policy that some model asks for is read once. `pixels` of a record is the
//! provenance of the film; when models differ in policy, it is an object with one provenance a policy.

use crate::InferError;
use crate::bundle::Bundle;
use crate::engine::Engine;
use crate::in_order::map_in_order;
use crate::joint::{decision_of, join_boxes, joint_classes, joint_hash, joint_pixels};
use crate::manifest::{Decision, check_method};
use crate::model::{LoadedModel, ModelOutput, load_models_for};
use burn::tensor::Device;
use sha2::{Digest, Sha256};
use spinexr_core::prediction::Timings;
use spinexr_core::progress::{OnProgress, Progress};
use spinexr_core::{ClassList, Detection, FilmFacts, FilmPrediction, Logits, Method, Split, fusion, hex};
use spinexr_data::{Cache, Film, InputSize, PreparedFilm, prepare_film};
use spinexr_dicom::{Limits, Policy, Radiograph, ReadOptions, read_film};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How a pipeline runs.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Where the models run.
    pub device: Device,
    /// What computes them.
    pub engine: Engine,
    /// Threads that read films, besides those of the device.
    pub threads: usize,
    /// Most films a model sees at once.
    pub batch: usize,
    /// Frame of a multi-frame file, counted from 0.
    pub frame: u32,
    /// What a film may cost to read.
    pub limits: Limits,
    /// Thresholds to use in place of the bundles'.
    pub decision: Option<Decision>,
    /// Views and fusion to use in place of those the bundles' thresholds were chosen with.
    pub method: Option<Method>,
}

impl Default for PipelineOptions {
    /// The CPU, two reading threads, batches of four, the first frame, the bundle's thresholds and their method.
    fn default() -> Self {
        Self {
            device: Device::flex(),
            engine: Engine::Native,
            threads: 2,
            batch: 4,
            frame: 0,
            limits: Limits::default(),
            decision: None,
            method: None,
        }
    }
}

/// Models on a device, and the rule that joins them.
#[derive(Debug)]
pub struct Pipeline {
    models: Vec<LoadedModel>,
    /// For each model, its place in `inputs`.
    input_of: Vec<usize>,
    /// Every distinct policy and input size.
    inputs: Vec<(Policy, InputSize)>,
    classes: ClassList,
    decision: Option<Decision>,
    method: Method,
    hash: String,
    demonstration: bool,
    options: PipelineOptions,
}

/// One film's way through the pipeline.
#[derive(Debug)]
pub struct FilmResult {
    /// The film's file.
    pub path: PathBuf,
    /// The film as read, for pictures; `None` for prepared films and for films that could not be read.
    pub radiograph: Option<Radiograph>,
    /// The prediction, or why there is none.
    pub outcome: Result<FilmPrediction, InferError>,
}

/// How many films went which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PredictSummary {
    /// Films with a prediction.
    pub predicted: usize,
    /// Films with an error.
    pub failed: usize,
}

/// Takes each film's result, in order. `Break` ends the run early.
pub type OnFilm<'a> = &'a mut dyn FnMut(FilmResult) -> ControlFlow<()>;

/// A film at every input size the models ask for.
struct ReadyFilm {
    image: String,
    study: String,
    split: Option<Split>,
    facts: FilmFacts,
    pixels: serde_json::Value,
    inputs: Vec<PreparedFilm>,
    read_ms: f64,
    radiograph: Option<Radiograph>,
}

impl Pipeline {
    /// Loads the models of one or more bundles.
    ///
    /// # Errors
    /// No model, weights that do not fit, two models of one name, or several bundles without a threshold for
    /// them together ([`InferError::AmbiguousDecision`]).
    pub fn load(bundles: &[Bundle], options: PipelineOptions) -> Result<Self, InferError> {
        let mut owners: BTreeMap<&str, &Bundle> = BTreeMap::new();
        let mut models = vec![];
        for bundle in bundles {
            for model in &bundle.manifest().models {
                if let Some(first) = owners.insert(&model.name, bundle) {
                    return Err(InferError::NameClash {
                        name: model.name.clone(),
                        first: first.place().to_owned(),
                        second: bundle.place().to_owned(),
                    });
                }
            }
            let threads = options.threads.max(1);
            models.extend(load_models_for(bundle, &options.device, options.engine, threads)?);
        }
        if models.is_empty() {
            return Err(InferError::NoModel);
        }
        let mut inputs: Vec<(Policy, InputSize)> = vec![];
        let input_of = models
            .iter()
            .map(|model| {
                let input = (model.spec().policy, model.spec().input);
                inputs.iter().position(|known| *known == input).unwrap_or_else(|| {
                    inputs.push(input);
                    inputs.len() - 1
                })
            })
            .collect();
        let decision = decision_of(bundles, options.decision.clone())?;
        let of_decision = || decision.as_ref().and_then(|d| d.method.clone());
        let method = options.method.clone().or_else(of_decision).unwrap_or_else(Method::plain);
        check_method(&method).map_err(|(key, expected, got)| InferError::ManifestValue {
            place: "method of prediction".to_owned(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            got,
        })?;
        for model in &models {
            model.check_views(&method.tta)?;
        }
        Ok(Self {
            classes: joint_classes(models.iter().map(LoadedModel::spec))?,
            decision,
            method,
            hash: joint_hash(bundles),
            demonstration: bundles.iter().any(|b| b.manifest().demonstration),
            models,
            input_of,
            inputs,
            options,
        })
    }

    /// Loads the bundles in these folders; see [`Bundle::load`] and [`Pipeline::load`].
    ///
    /// # Errors
    /// As those two.
    pub fn load_paths(dirs: &[PathBuf], options: PipelineOptions) -> Result<Self, InferError> {
        let bundles = dirs.iter().map(|dir| Bundle::load(dir)).collect::<Result<Vec<_>, _>>()?;
        Self::load(&bundles, options)
    }

    /// The models, in the order of the bundles.
    pub fn models(&self) -> &[LoadedModel] {
        &self.models
    }

    /// The classes of the boxes, in the order of their numbers in results files: those of VinDr-SpineXR where the
    /// detectors know no other.
    pub fn classes(&self) -> &ClassList {
        &self.classes
    }

    /// The thresholds in use.
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// Views and fusion in use.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The thresholds in use were chosen on predictions of other views or another fusion.
    pub fn is_method_foreign(&self) -> bool {
        let chosen_with = |d: &Decision| self.noted(d.method.as_ref()) == self.noted(Some(&self.method));
        self.decision.as_ref().is_some_and(|d| !chosen_with(d))
    }

    /// A method where it does anything: with one detector and one view there is nothing to put together.
    fn noted(&self, method: Option<&Method>) -> Option<Method> {
        let method = method?;
        let detectors = self.models.iter().filter(|m| m.is_detector()).count();
        let plain = method.tta.views().len() == 1 && detectors <= 1;
        (!plain).then(|| method.clone())
    }

    /// What names the models in every record: the bundle's hash, or SHA-256 over the hashes of several.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// SHA-256 over what decides predictions besides the models: thresholds, method, engine and device. The same models
    /// with the same hash give the same predictions.
    pub fn config_hash(&self) -> String {
        let (device, engine) = (&self.options.device, self.options.engine);
        let parts = serde_json::json!({
            "decision": &self.decision,
            "method": &self.method,
            "engine": format!("{engine:?}"),
            "device": format!("{device:?}"),
        });
        hex(&Sha256::digest(parts.to_string().as_bytes()))
    }

    /// Some bundle is a demonstration.
    pub fn is_demonstration(&self) -> bool {
        self.demonstration
    }

    /// The policies and input sizes that prepared films are needed in.
    pub fn inputs(&self) -> &[(Policy, InputSize)] {
        &self.inputs
    }

    /// Predicts film files, DICOM, PNG or JPEG; see [`spinexr_dicom::find_films`] for folders.
    ///
    /// `on_film` gets every film, in order, predicted or not.
    pub fn predict(
        &self,
        paths: &[PathBuf],
        on_film: OnFilm<'_>,
        on_progress: OnProgress<'_>,
    ) -> PredictSummary {
        self.run(paths, |path| path.clone(), |path| self.read(path), on_film, on_progress)
    }

    /// Predicts prepared films of a data set, with the very code that predicts files; `split` and `study` of
    /// the records are the data set's.
    ///
    /// # Errors
    /// The cache folder `dir` lacks a policy and input size that a model needs. Single films that cannot be
    /// used are given to `on_film` as errors.
    pub fn predict_prepared(
        &self,
        dir: &Path,
        films: &[Film],
        on_film: OnFilm<'_>,
        on_progress: OnProgress<'_>,
    ) -> Result<PredictSummary, InferError> {
        let caches = self
            .inputs
            .iter()
            .map(|(policy, input)| Ok(Cache::open(dir, input, *policy)?))
            .collect::<Result<Vec<_>, InferError>>()?;
        let fetch = |film: &Film| self.fetch(&caches, film);
        Ok(self.run(films, |film| film.path.clone(), fetch, on_film, on_progress))
    }

    /// Reads a film file and brings it to every input size.
    fn read(&self, path: &Path) -> Result<ReadyFilm, InferError> {
        let start = Instant::now();
        let mut radiographs: Vec<(Policy, Radiograph)> = vec![];
        for (policy, _) in &self.inputs {
            if radiographs.iter().all(|(known, _)| known != policy) {
                let options =
                    ReadOptions { policy: *policy, frame: self.options.frame, limits: self.options.limits };
                radiographs.push((*policy, read_film(path, &options)?));
            }
        }
        let inputs = self
            .inputs
            .iter()
            .filter_map(|(policy, input)| {
                let (_, film) = radiographs.iter().find(|(known, _)| known == policy)?;
                Some(prepare_film(film, input))
            })
            .collect();
        let provenances = radiographs.iter().map(|(policy, film)| {
            let provenance = serde_json::to_value(&film.provenance);
            (*policy, provenance.expect("a provenance is plain data"))
        });
        let pixels = joint_pixels(provenances.collect());
        let (_, radiograph) = radiographs.swap_remove(0);
        let image = radiograph.header.image_id.clone();
        Ok(ReadyFilm {
            study: radiograph.header.study_uid.clone().unwrap_or_else(|| image.clone()),
            image,
            split: None,
            facts: radiograph.facts(),
            pixels,
            inputs,
            read_ms: ms(start),
            radiograph: Some(radiograph),
        })
    }

    /// Takes a film of a data set from the caches, which are in the order of `self.inputs`.
    fn fetch(&self, caches: &[Cache], film: &Film) -> Result<ReadyFilm, InferError> {
        let start = Instant::now();
        let image = &film.annotation.image_id;
        let inputs =
            caches.iter().map(|cache| Ok(cache.get(image)?)).collect::<Result<Vec<_>, InferError>>()?;
        let mut provenances: Vec<(Policy, serde_json::Value)> = vec![];
        for ((policy, _), cache) in self.inputs.iter().zip(caches) {
            if provenances.iter().all(|(known, _)| known != policy) {
                provenances.push((*policy, cache.provenance(image)?.clone()));
            }
        }
        let facts = match caches.first() {
            Some(cache) => cache.facts(image)?.clone(),
            None => FilmFacts::default(),
        };
        Ok(ReadyFilm {
            image: image.clone(),
            study: film.annotation.study_id.clone(),
            split: Some(film.split),
            facts,
            pixels: joint_pixels(provenances),
            inputs,
            read_ms: ms(start),
            radiograph: None,
        })
    }

    /// The common way: `ready` in background threads, models on this one.
    fn run<T: Sync>(
        &self,
        films: &[T],
        path_of: impl Fn(&T) -> PathBuf,
        ready: impl Fn(&T) -> Result<ReadyFilm, InferError> + Sync,
        on_film: OnFilm<'_>,
        on_progress: OnProgress<'_>,
    ) -> PredictSummary {
        let total = films.len();
        let mut summary = PredictSummary::default();
        let batch = self.options.batch.max(1);
        let mut waiting: Vec<(PathBuf, Result<ReadyFilm, InferError>)> = vec![];

        let mut flush = |waiting: &mut Vec<_>| {
            for result in self.predict_batch(std::mem::take(waiting)) {
                match result.outcome {
                    Ok(_) => summary.predicted += 1,
                    Err(_) => summary.failed += 1,
                }
                let flow = on_film(result);
                on_progress(Progress { done: summary.predicted + summary.failed, total });
                flow?;
            }
            ControlFlow::Continue(())
        };
        let window = batch + self.options.threads;
        map_in_order(films, self.options.threads, window, ready, |index, read| {
            let path = path_of(&films[index]);
            let read = read.unwrap_or_else(|message| {
                Err(InferError::Panicked { place: path.display().to_string(), message })
            });
            waiting.push((path, read));
            let good = waiting.iter().filter(|(_, read)| read.is_ok()).count();
            if good == batch || waiting.len() >= 4 * batch || index + 1 == total {
                flush(&mut waiting)
            } else {
                ControlFlow::Continue(())
            }
        });
        summary
    }

    /// Runs every model over the films that could be read, and makes the records.
    fn predict_batch(&self, films: Vec<(PathBuf, Result<ReadyFilm, InferError>)>) -> Vec<FilmResult> {
        let good: Vec<&ReadyFilm> = films.iter().filter_map(|(_, read)| read.as_ref().ok()).collect();
        let n = good.len();
        let mut found: Vec<Result<Found, InferError>> = (0..n).map(|_| Ok(Found::default())).collect();
        for (model, &input) in self.models.iter().zip(&self.input_of) {
            if n == 0 {
                break;
            }
            let start = Instant::now();
            let batch: Vec<&PreparedFilm> = good.iter().map(|film| &film.inputs[input]).collect();
            let outputs = model.run(&batch, &self.method.tta, &self.options.device);
            let share_ms = ms(start) / n as f64;
            for ((slot, output), film) in found.iter_mut().zip(outputs).zip(&good) {
                let Ok(so_far) = slot else { continue };
                match output {
                    Ok(ModelOutput::Logits(logits)) => {
                        so_far.logits.insert(model.spec().name.clone(), logits);
                        so_far.timings.classify_ms += share_ms;
                    }
                    Ok(ModelOutput::Boxes(lists)) => {
                        so_far.boxes.extend(lists);
                        so_far.timings.detect_ms += share_ms;
                    }
                    Err(not_finite) => {
                        *slot = Err(InferError::NotFinite {
                            image: film.image.clone(),
                            model: model.spec().name.clone(),
                            what: not_finite.0,
                        });
                    }
                }
            }
        }
        let mut found = found.into_iter();
        films
            .into_iter()
            .map(|(path, read)| match read {
                Err(error) => FilmResult { path, radiograph: None, outcome: Err(error) },
                Ok(mut film) => {
                    let radiograph = film.radiograph.take();
                    let found = found.next().expect("one result for each film that was read");
                    FilmResult { path, radiograph, outcome: found.map(|found| self.record(film, found)) }
                }
            })
            .collect()
    }

    fn record(&self, film: ReadyFilm, found: Found) -> FilmPrediction {
        let settings = self.models.iter().find_map(|m| m.spec().detect);
        let join = |s| join_boxes(found.boxes, &self.method.box_fusion, &s);
        let boxes_before_gate = settings.map(join).unwrap_or_default();
        let any_input = &film.inputs[0];
        let mut prediction = FilmPrediction {
            image: film.image,
            study: film.study,
            split: film.split,
            height_px: any_input.film_height_px,
            width_px: any_input.film_width_px,
            facts: film.facts,
            logits: found.logits,
            p_abnormal: None,
            threshold: None,
            boxes: vec![],
            boxes_before_gate,
            method: self.noted(Some(&self.method)),
            pixels: film.pixels,
            timings: Timings { read_ms: film.read_ms, ..found.timings },
            model: self.hash.clone(),
            demonstration: self.demonstration,
        };
        prediction.p_abnormal = prediction.ensemble_logit().map(fusion::sigmoid);
        match &self.decision {
            Some(decision) => prediction.apply_gate(&decision.gate()),
            None => prediction.boxes = prediction.boxes_before_gate.clone(),
        }
        prediction
    }
}

/// What the models have said of a film so far.
#[derive(Default)]
struct Found {
    logits: BTreeMap<String, Logits>,
    /// One list a detector and view.
    boxes: Vec<Vec<Detection>>,
    timings: Timings,
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
