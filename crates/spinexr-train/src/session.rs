//! The training loop: one update after the other, with evaluation, checkpoints, log and events.

use crate::checkpoint::Evaluation;
use crate::clip;
use crate::config::Experiment;
use crate::data::TrainData;
use crate::ema::Ema;
use crate::engine::{Event, Task, TrainOptions, TrainOutcome, images};
use crate::error::TrainError;
use crate::logs::{Log, Record, StepRecord};
use crate::optim::Optimiser;
use crate::params::take_gradients;
use crate::ranks::Ranks;
use crate::run_dir::{RunDir, RunState};
use crate::state::weights_hash;
use crate::tensorboard::EventFile;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use spinexr_data::{FixedBatches, Loader, LoaderConfig, Sampler};
use spinexr_models::weights::{self, StateDict};
use spinexr_ops::ranks::Joined;
use spinexr_ops::recompute::Recomputing;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Batches kept ready.
const PREFETCH: usize = 4;

/// Everything that changes during a run.
pub(crate) struct Session<'a, 'e, T: Task> {
    pub(crate) experiment: &'a Experiment,
    pub(crate) data: &'a TrainData,
    pub(crate) device: Device,
    pub(crate) ranks: Ranks,
    /// Holds for as long as the session.
    pub(crate) _joined: Joined,
    /// Likewise, where the experiment asks for it.
    pub(crate) _recomputing: Option<Recomputing>,
    /// Name and length of every parameter that is trained.
    pub(crate) trainable: Vec<(String, usize)>,
    pub(crate) threads: usize,
    pub(crate) run: RunDir,
    pub(crate) on_event: &'e mut (dyn FnMut(Event) + Send),
    pub(crate) model: T::Model,
    pub(crate) optimiser: Optimiser,
    pub(crate) ema: Option<Ema>,
    pub(crate) step: u64,
    pub(crate) history: Vec<Evaluation>,
    pub(crate) best: Option<(Evaluation, StateDict)>,
    /// In the first process.
    pub(crate) journal: Option<Journal>,
    pub(crate) began: Instant,
    /// Seconds of earlier sessions.
    pub(crate) earlier_s: f64,
}

/// The files that grow with the run.
pub(crate) struct Journal {
    pub(crate) log: Log,
    pub(crate) events: EventFile,
}

impl Journal {
    fn append(&mut self, record: &Record, step: u64, scalars: &[(&str, f64)]) -> Result<(), TrainError> {
        self.events.scalars(step, wall_time_s(), scalars)?;
        self.log.append(record)
    }
}

impl<'a, 'e, T: Task> Session<'a, 'e, T> {
    /// Trains from the start, or from the last checkpoint, to the end.
    pub(crate) fn run(
        experiment: &'a Experiment,
        data: &'a TrainData,
        options: TrainOptions<'e>,
    ) -> Result<TrainOutcome, TrainError> {
        let stop_after = options.stop_after;
        let mut session = Self::start(experiment, data, options)?;
        session.write_manifest(RunState::Running)?;
        let state = session.train(stop_after)?;
        session.finish(state)
    }

    /// The loop.
    fn train(&mut self, stop_after: Option<u64>) -> Result<RunState, TrainError> {
        let total = self.experiment.schedule.total_steps;
        let training = &self.experiment.training;
        let mut loader = self.loader()?;
        let mut pace = Pace::new();
        let mut over = self.step == total || self.time_is_up();
        while !over {
            if stop_after.is_some_and(|stop| self.step >= stop) {
                self.write_checkpoint()?;
                return Ok(RunState::Stopped);
            }
            let record = self.update(&mut loader, &mut pace)?;
            self.report(record)?;
            over = self.step == total || self.time_is_up();
            if over || self.step.is_multiple_of(training.eval_every) {
                self.evaluate()?;
                pace.skip();
            }
            if over || self.step.is_multiple_of(training.checkpoint_every) {
                self.write_checkpoint()?;
                pace.skip();
            }
        }
        Ok(RunState::Finished)
    }

    /// One update of the weights, from `accumulation` batches in each process.
    fn update(&mut self, loader: &mut Loader, pace: &mut Pace) -> Result<StepRecord, TrainError> {
        let training = &self.experiment.training;
        let number = self.step + 1;
        let mut image_ids = Vec::new();
        let mut parts = BTreeMap::new();
        let mut gradients: BTreeMap<String, Tensor<1>> = BTreeMap::new();
        for _ in 0..training.accumulation {
            let batch = loader.next()?;
            image_ids.extend(batch.image_ids.iter().cloned());
            let images = images(&batch, &self.device.clone().autodiff());
            let config = &self.experiment.model;
            let losses = training
                .precision
                .within(|| T::loss(&self.model, config, config.normalisation.apply(images), &batch));
            for (name, value) in read_losses(&losses) {
                if !value.is_finite() {
                    return Err(not_finite(number, format!("loss {name}"), value.to_string(), image_ids));
                }
                *parts.entry(name.to_owned()).or_insert(0.0) +=
                    f64::from(value) / training.accumulation as f64;
            }
            // The graph is gone after one backward pass: the parts are summed before it.
            let total = losses.into_iter().map(|(_, loss)| loss).reduce(|a, b| a + b);
            let mut from_batch = total.expect("a task has a loss").backward();
            for (name, gradient) in take_gradients(&self.model, &mut from_batch) {
                let sum = match gradients.remove(&name) {
                    Some(before) => before + gradient,
                    None => gradient,
                };
                gradients.insert(name, sum);
            }
        }
        self.ranks.mean_of_parts(&mut parts);
        self.ranks.sum_gradients(&self.trainable, &mut gradients, &self.device);
        let passes = training.accumulation * self.ranks.size();
        if passes > 1 {
            clip::for_each(&mut gradients, |g| g.div_scalar(passes as f32));
        }
        let grad_norm = clip::global_norm(&gradients).map_err(|name| {
            not_finite(number, format!("gradient of {name}"), "not finite".into(), image_ids)
        })?;
        clip::clip(&mut gradients, grad_norm, training.clip);

        let lr = self.experiment.optimiser.lr * self.experiment.schedule.factor(self.step);
        // A clone shares its parameters and has running statistics of its own.
        self.model = self.optimiser.step(self.model.clone(), gradients, lr);
        self.step = number;
        if let Some(ema) = &mut self.ema {
            ema.update(&self.model, self.step);
        }
        let total = self.experiment.schedule.total_steps;
        let step_s = pace.step_s();
        Ok(StepRecord {
            step: self.step,
            total,
            loss: parts.values().sum(),
            parts,
            lr,
            grad_norm,
            films_per_s: (training.batch_size * passes) as f64 / step_s,
            eta_s: step_s * (total - self.step) as f64,
        })
    }

    /// Writes an update to the log, the events and the caller.
    fn report(&mut self, record: StepRecord) -> Result<(), TrainError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let mut scalars = vec![
            ("train/loss", record.loss),
            ("train/lr", record.lr),
            ("train/grad_norm", record.grad_norm),
            ("train/films_per_s", record.films_per_s),
        ];
        let parts: Vec<(String, f64)> =
            record.parts.iter().map(|(name, value)| (format!("train/loss_{name}"), *value)).collect();
        scalars.extend(parts.iter().map(|(name, value)| (name.as_str(), *value)));
        journal.append(&Record::Step(record.clone()), record.step, &scalars)?;
        (self.on_event)(Event::Step(record));
        Ok(())
    }

    /// Evaluates the validation films, in the first process; keeps the weights when they are the best so far. The
    /// other processes go on to the next update and wait there.
    fn evaluate(&mut self) -> Result<(), TrainError> {
        if !self.ranks.is_first() {
            return Ok(());
        }
        let films = &self.data.validation;
        let batch_size = self.experiment.training.batch_size;
        let batches = FixedBatches::new(
            Arc::clone(&self.data.cache),
            films.clone(),
            &self.data.classes,
            batch_size,
            self.threads,
            PREFETCH,
        )?;
        let model = self.evaluated_model();
        let mut others =
            T::evaluate(&model, &self.experiment.model, batches, films, &self.data.classes, &self.device)?;
        let metric = others.remove(T::METRIC).flatten();
        let evaluation = Evaluation { step: self.step, metric_name: T::METRIC.to_owned(), metric, others };

        // An undefined metric is never better than a defined one; of equals the first stays.
        let best = match &self.best {
            None => true,
            Some((before, _)) => metric > before.metric,
        };
        if best {
            self.best = Some((evaluation.clone(), T::kept(weights::state_dict(&model))));
            self.write_best()?;
        }
        let name = format!("validation/{}", T::METRIC);
        let defined = evaluation.others.iter().filter_map(|(n, v)| Some((format!("validation/{n}"), (*v)?)));
        let scalars: Vec<(String, f64)> = metric.map(|m| (name, m)).into_iter().chain(defined).collect();
        let scalars: Vec<(&str, f64)> = scalars.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        if let Some(journal) = &mut self.journal {
            journal.append(&Record::Evaluation(evaluation.clone()), self.step, &scalars)?;
        }
        self.history.push(evaluation.clone());
        (self.on_event)(Event::Evaluated { evaluation, best });
        Ok(())
    }

    /// A validation copy of the model, averaged where the experiment has an average.
    pub(crate) fn evaluated_model(&self) -> T::Model {
        match &self.ema {
            Some(ema) => ema.averaged(&self.model),
            None => self.model.valid(),
        }
    }

    fn loader(&self) -> Result<Loader, TrainError> {
        let experiment = self.experiment;
        let sampler = Sampler::new(&experiment.sampler, &self.data.train)?;
        Ok(Loader::new(LoaderConfig {
            cache: Arc::clone(&self.data.cache),
            films: self.data.train.clone(),
            classes: self.data.classes.clone(),
            sampler,
            augment: experiment.augment.clone(),
            batch_size: experiment.training.batch_size,
            seed: experiment.seed,
            first_step: self.step * experiment.training.accumulation as u64,
            share: self.ranks.share(),
            threads: self.threads,
            prefetch: PREFETCH,
        })?)
    }

    fn finish(mut self, state: RunState) -> Result<TrainOutcome, TrainError> {
        self.write_manifest(state)?;
        let present = T::kept(weights::state_dict(&self.evaluated_model()));
        let final_weights_hash = weights_hash(&present);
        let (best, weights) = match self.best.take() {
            Some((best, weights)) => (Some(best), weights),
            None => (None, present),
        };
        Ok(TrainOutcome {
            weights_hash: weights_hash(&weights),
            weights,
            metric: best.as_ref().and_then(|b| b.metric),
            best,
            final_weights_hash,
            history: self.history,
            steps: self.step,
            state,
            data_hash: self.data.hash.clone(),
            classes: self.data.classes.clone(),
            hold_out: self.data.hold_out.clone(),
            run: self.run,
        })
    }

    /// Seconds spent on the run, earlier sessions included.
    pub(crate) fn elapsed_s(&self) -> f64 {
        self.earlier_s + self.began.elapsed().as_secs_f64()
    }

    fn time_is_up(&self) -> bool {
        let limit = self.experiment.training.max_minutes;
        limit.is_some_and(|minutes| self.ranks.decided_by_first(self.elapsed_s() >= 60.0 * minutes))
    }
}

// One read-back for all parts.
fn read_losses<'n>(losses: &[(&'n str, Tensor<1>)]) -> Vec<(&'n str, f32)> {
    let values = Tensor::cat(losses.iter().map(|(_, loss)| loss.clone().inner()).collect(), 0);
    let values: Vec<f32> = values.into_data().iter::<f32>().collect();
    losses.iter().map(|(name, _)| *name).zip(values).collect()
}

fn not_finite(step: u64, part: String, value: String, image_ids: Vec<String>) -> TrainError {
    TrainError::NotFinite { step, part, value, image_ids }
}

/// Seconds since 1970.
pub(crate) fn wall_time_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Seconds an update, smoothed, evaluations and checkpoints left out.
struct Pace {
    since: Instant,
    smoothed_s: Option<f64>,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), smoothed_s: None }
    }

    /// What happened since the last update is not part of one.
    fn skip(&mut self) {
        self.since = Instant::now();
    }

    /// Ends an update and gives the time of one.
    fn step_s(&mut self) -> f64 {
        let now = Instant::now();
        let step_s = (now - self.since).as_secs_f64().max(1e-9);
        self.since = now;
        let smoothed = self.smoothed_s.map_or(step_s, |before| 0.9 * before + 0.1 * step_s);
        self.smoothed_s = Some(smoothed);
        smoothed
    }
}
