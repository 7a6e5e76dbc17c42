//! What `train` and `demo` share: a run with its progress shown, and the bundle of its weights.

use crate::console::Bar;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use spinexr_core::hex;
use spinexr_core::progress::Progress;
use spinexr_infer::card::{CardFacts, CardMetric, card};
use spinexr_infer::weights_file::Storage;
use spinexr_infer::{Bundle, BundleInfo, BundleManifest, ModelSpec};
use spinexr_models::Task;
use spinexr_train::{Event, Experiment, Ranks, TrainData, TrainOptions, TrainOutcome, train};
use std::path::Path;

/// Licence that bundles made by this program name unless told otherwise.
pub const UNKNOWN_LICENCE: &str = "as the data set it was trained on";
/// What bundles are for.
pub const INTENDED_USE: &str = "Research on spine radiographs. Not a medical device; not for clinical use.";

/// A training session.
pub struct Session<'a> {
    /// What is trained.
    pub experiment: &'a Experiment,
    /// On what.
    pub data: &'a TrainData,
    /// Folder of the run.
    pub out: &'a Path,
    /// Go on from the last checkpoint.
    pub resume: bool,
    /// Stop after this many updates of the whole run.
    pub stop_after: Option<u64>,
    /// The device as on the command line.
    pub device: &'a str,
    /// The processes that train together.
    pub ranks: &'a Ranks,
    /// Threads that prepare batches.
    pub threads: usize,
    /// No progress bars.
    pub quiet: bool,
}

/// Trains, showing progress and every evaluation.
pub fn run(session: &Session<'_>) -> Result<TrainOutcome> {
    let bar = Bar::new("training", session.quiet);
    let name = &session.experiment.name;
    let mut on_event = |event: Event| match event {
        Event::Step(step) => bar.update_with(
            Progress { done: step.step as usize, total: step.total as usize },
            &format!(
                "{name}: loss {:.3}, {:.1} films/s, {} left",
                step.loss,
                step.films_per_s,
                minutes(step.eta_s)
            ),
        ),
        Event::Evaluated { evaluation, best } => {
            let mark = if best { ", best so far" } else { "" };
            let value = evaluation.metric.map_or_else(|| "n/a".to_owned(), |v| format!("{v:.4}"));
            bar.println(&format!(
                "{name}: step {}: {} {value}{mark}",
                evaluation.step, evaluation.metric_name
            ));
        }
        Event::Checkpoint { .. } => {}
    };
    let options = TrainOptions {
        out: session.out.to_owned(),
        resume: session.resume,
        device: spinexr_infer::parse_device(session.device)?,
        ranks: session.ranks,
        threads: session.threads,
        on_event: &mut on_event,
        stop_after: session.stop_after,
    };
    let outcome = train(session.experiment, session.data, options)
        .with_context(|| format!("training {name} into {}", session.out.display()));
    bar.finish();
    outcome
}

fn minutes(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "unknown".to_owned();
    }
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// The weights of a finished run with everything needed to use them.
pub fn bundle(experiment: &Experiment, outcome: &TrainOutcome, demonstration: bool) -> Result<Bundle> {
    let model = &experiment.model;
    let task = model.architecture.task();
    let manifest = std::fs::read(outcome.run.manifest()).context("reading the run's manifest")?;
    let spec = ModelSpec {
        name: experiment.name.clone(),
        architecture: model.architecture,
        task,
        classes: match task {
            Task::Classification => vec!["abnormal".to_owned()],
            Task::Detection => outcome.classes.labels().iter().map(|label| label.name().to_owned()).collect(),
        },
        in_channels: model.in_channels,
        final_relu: model.final_relu,
        training_manifest_sha256: Some(hex(&Sha256::digest(&manifest))),
        policy: experiment.data.policy,
        hold_out: Some(outcome.hold_out.clone()),
        input: model.input,
        normalisation: model.normalisation.clone(),
        detect: model.detector(outcome.classes.len()).map(|config| config.detect_config()),
    };
    let info = BundleInfo {
        name: experiment.name.clone(),
        licence: UNKNOWN_LICENCE.to_owned(),
        intended_use: INTENDED_USE.to_owned(),
        demonstration,
    };
    let facts = CardFacts {
        data: format!(
            "Trained for {} steps, seed {}, protocol {:?}; hash of the films {}.",
            outcome.steps, experiment.seed, experiment.protocol, outcome.data_hash
        ),
        metrics: outcome.best.iter().map(validation_metric).collect(),
        limits: vec![],
    };
    let written = |m: &BundleManifest| card(m, &facts);
    Ok(Bundle::new(info, vec![(spec, outcome.weights.clone())], None, Storage::F32, written)?)
}

fn validation_metric(best: &spinexr_train::Evaluation) -> CardMetric {
    CardMetric {
        name: best.metric_name.clone(),
        value: best.metric,
        interval: None,
        films: "validation films, which also chose the weights".to_owned(),
    }
}
