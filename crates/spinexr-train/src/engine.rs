//! Training: what goes in, what comes out, what is heard in between.
//!
//! A run is a pure function of experiment and films: batches follow from the seed and the step, weights are
//! drawn from the seed, and nothing depends on the clock or the number of threads, except where `max_minutes`
//! ends a run. A checkpoint holds the whole state, so a resumed run equals an uninterrupted one. The loop
//! itself is in `session.rs`. Several processes can share it ([`Ranks`]): `batch_size` is then that of each, and
//! the run is, up to rounding, the one of a single process with all their films in its batch.

use crate::checkpoint::Evaluation;
use crate::classification::Classification;
use crate::config::{Experiment, ModelConfig};
use crate::data::TrainData;
use crate::detection::Detection;
use crate::error::TrainError;
use crate::logs::StepRecord;
use crate::ranks::Ranks;
use crate::run_dir::{RunDir, RunState};
use crate::session::Session;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use spinexr_core::{ClassList, FilmAnnotation};
use spinexr_data::{Batch, FixedBatches, HoldOut};
use spinexr_models::weights::StateDict;
use spinexr_models::{DetectorConfig, EfficientDet, FasterRcnn, RetinaNet, SparseRcnn};
use spinexr_ops::Precision;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the caller hears while a run goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An update was made.
    Step(StepRecord),
    /// The validation films were evaluated.
    Evaluated {
        /// The figures.
        evaluation: Evaluation,
        /// No evaluation before was better.
        best: bool,
    },
    /// A checkpoint is on the disk.
    Checkpoint {
        /// Updates made.
        step: u64,
        /// Its file.
        path: PathBuf,
    },
}

/// How to run.
pub struct TrainOptions<'a> {
    /// Folder of the run.
    pub out: PathBuf,
    /// Go on from the folder's last checkpoint.
    pub resume: bool,
    /// The engine's device, without autodiff.
    pub device: Device,
    /// The processes that train together; [`Ranks::alone`] for one.
    pub ranks: &'a Ranks,
    /// Background threads that prepare batches.
    pub threads: usize,
    /// Hears of every update, evaluation and checkpoint, on the thread that trains; in the first process only.
    pub on_event: &'a mut (dyn FnMut(Event) + Send),
    /// Write a checkpoint and stop after this many updates of the whole run.
    pub stop_after: Option<u64>,
}

/// What a run gives. In another process than the first there is no evaluation, and the weights are the present ones.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOutcome {
    /// Weights of the best evaluation (averaged, where the experiment has an average); the present ones
    /// before the first evaluation.
    pub weights: StateDict,
    /// Their hash.
    pub weights_hash: String,
    /// That evaluation.
    pub best: Option<Evaluation>,
    /// Its deciding metric: AUROC or mAP@0.5 on the validation films.
    pub metric: Option<f64>,
    /// Hash of the weights (averaged, where there is an average) after the last update.
    pub final_weights_hash: String,
    /// All evaluations in order.
    pub history: Vec<Evaluation>,
    /// Updates made.
    pub steps: u64,
    /// `Finished`, or `Stopped` by `stop_after`.
    pub state: RunState,
    /// Hash of the films.
    pub data_hash: String,
    /// The classes of the films' boxes, in index order.
    pub classes: ClassList,
    /// The studies held out for validation.
    pub hold_out: HoldOut,
    /// The run's folder.
    pub run: RunDir,
}

/// A model with its loss and its metric.
pub(crate) trait Task {
    type Model: Module;

    /// Name of the deciding metric; larger is better.
    const METRIC: &'static str;

    /// The model for so many classes with weights drawn from `seed`; `None` when the architecture is for another
    /// task.
    fn init(config: &ModelConfig, classes: usize, seed: u64, device: &Device) -> Option<Self::Model>;

    /// Parts of the loss of a batch by name; they are summed. `images`: `[N, C, H, W]`, normalised.
    fn loss(
        model: &Self::Model,
        config: &ModelConfig,
        images: Tensor<4>,
        batch: &Batch,
    ) -> Vec<(&'static str, Tensor<1>)>;

    /// The weights that are kept for use: all of them, but for outputs that serve training alone.
    fn kept(state: StateDict) -> StateDict {
        state
    }

    /// Figures on the validation films, the deciding one among them.
    fn evaluate(
        model: &Self::Model,
        config: &ModelConfig,
        batches: FixedBatches,
        films: &[FilmAnnotation],
        classes: &ClassList,
        device: &Device,
    ) -> Result<BTreeMap<String, Option<f64>>, TrainError>;
}

/// Checks that a device computes in the experiment's precision.
///
/// # Errors
/// [`TrainError::Precision`] when it does not: another precision would be another experiment.
pub fn check_device(experiment: &Experiment, device: &Device) -> Result<(), TrainError> {
    let precision = experiment.training.precision;
    precision_of(precision, precision.runs_on(device), || format!("{device:?}"))
}

fn precision_of(precision: Precision, runs: bool, device: impl FnOnce() -> String) -> Result<(), TrainError> {
    if runs { Ok(()) } else { Err(TrainError::Precision { precision, device: device() }) }
}

/// Trains the experiment's model on `data`.
///
/// # Errors
/// [`TrainError`]: a device without the experiment's precision, a folder with a run in it, a checkpoint that is damaged or of another experiment, a film
/// that cannot be read, a loss or gradient that is not finite. Checkpoints written before remain.
pub fn train(
    experiment: &Experiment,
    data: &TrainData,
    options: TrainOptions<'_>,
) -> Result<TrainOutcome, TrainError> {
    experiment.validate()?;
    check_device(experiment, &options.device)?;
    // An update is hundreds of short parallel operations. The loop runs on a worker of the pool, which takes
    // its share of each; from outside, every operation would put this thread to sleep and wake it again.
    rayon::scope(|_| match experiment.model.architecture.detector_config() {
        None => Session::<Classification>::run(experiment, data, options),
        Some(DetectorConfig::RetinaNet(_)) => Session::<Detection<RetinaNet>>::run(experiment, data, options),
        Some(DetectorConfig::SparseRcnn(_)) => {
            Session::<Detection<SparseRcnn>>::run(experiment, data, options)
        }
        Some(DetectorConfig::FasterRcnn(_)) => {
            Session::<Detection<FasterRcnn>>::run(experiment, data, options)
        }
        Some(DetectorConfig::EfficientDet(_)) => {
            Session::<Detection<EfficientDet>>::run(experiment, data, options)
        }
    })
}

/// The images of a batch as a tensor on `device`, `[N, 1, H, W]` in 0..=1.
pub(crate) fn images(batch: &Batch, device: &Device) -> Tensor<4> {
    let data = TensorData::new(batch.images.clone(), [batch.n, 1, batch.height, batch.width]);
    Tensor::from_data(data, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_the_precision_is_an_error_that_says_what_to_do() {
        assert!(precision_of(Precision::Bf16, true, String::new).is_ok());
        let error = precision_of(Precision::Bf16, false, || "Wgpu(0)".to_owned()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "training.precision: expected one that the device computes in, found \"bf16\", which Wgpu(0) does not; \
             train with training.precision=f32, or on a device that has it"
        );
    }
}
