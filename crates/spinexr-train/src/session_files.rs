//! How a session begins, is kept on the disk and taken up again.

use crate::checkpoint::CheckpointFault;
use crate::checkpoint::{Checkpoint, Evaluation, Meta, pack_optimiser, unpack_optimiser};
use crate::config::Experiment;
use crate::data::TrainData;
use crate::ema::Ema;
use crate::engine::{Event, Task, TrainOptions};
use crate::error::TrainError;
use crate::initial;
use crate::logs::Log;
use crate::optim::Optimiser;
use crate::params::{freeze, named_tensors};
use crate::run_dir::{LeftOut, Manifest, RunDir, RunState};
use crate::session::{Journal, Session, wall_time_s};
use crate::state::{read_back, upload, weights_hash};
use crate::tensorboard::EventFile;
use spinexr_core::whole_file;
use spinexr_models::weights::{self, StateDict, Strictness};
use std::path::Path;
use std::time::Instant;

impl<'a, 'e, T: Task> Session<'a, 'e, T> {
    /// A new session: from nothing, or from the last checkpoint.
    pub(crate) fn start(
        experiment: &'a Experiment,
        data: &'a TrainData,
        options: TrainOptions<'e>,
    ) -> Result<Self, TrainError> {
        let run = RunDir::new(&options.out);
        let ranks = options.ranks.clone();
        ranks.check_same("experiment", &experiment.to_toml())?;
        ranks.check_same("films", &data.hash)?;
        let checkpoint = if options.resume {
            let checkpoint = read_matching(&run, experiment, data, ranks.size())?;
            ranks.check_same("checkpoint", &weights_hash(&checkpoint.model))?;
            Some(checkpoint)
        } else {
            if ranks.is_first() {
                run.create()?;
            }
            None
        };
        let device = options.device;
        let model =
            T::init(&experiment.model, data.classes.len(), experiment.seed, &device.clone().autodiff())
                .expect("the architecture's own task was chosen");
        let model = match (&checkpoint, &experiment.model.initial) {
            (None, Some(initial)) => initial::load(model, initial)?,
            _ => model,
        };
        let model = freeze(model, &experiment.model.frozen);
        initial::check_prefixes(&model, "model.frozen", &experiment.model.frozen)?;
        let optimiser = Optimiser::new(&experiment.optimiser, &model)?;
        let ema = experiment.training.ema.map(|config| Ema::new(config, &model));
        let journal = match &checkpoint {
            _ if !ranks.is_first() => None,
            None => Some(Journal {
                log: Log::create(&run.log())?,
                events: EventFile::create(&run.events(), wall_time_s())?,
            }),
            Some(c) => Some(Journal {
                log: Log::resume(&run.log(), c.meta.log_bytes)?,
                events: EventFile::resume(&run.events(), c.meta.events_bytes)?,
            }),
        };
        let trainable = named_tensors(&model)
            .into_iter()
            .filter(|(_, tensor)| tensor.trainable)
            .map(|(name, tensor)| (name, tensor.shape.iter().product()))
            .collect();
        let joined = spinexr_ops::ranks::join(ranks.size(), ranks.sum_within_step());
        let mut session = Self {
            experiment,
            data,
            device,
            ranks,
            _joined: joined,
            _recomputing: experiment.training.checkpointing.then(spinexr_ops::recompute::on),
            trainable,
            threads: options.threads,
            run,
            on_event: options.on_event,
            model,
            optimiser,
            ema,
            step: 0,
            history: Vec::new(),
            best: None,
            journal,
            began: Instant::now(),
            earlier_s: 0.0,
        };
        match checkpoint {
            Some(checkpoint) => session.restore(checkpoint)?,
            // From here on the run exists and can be resumed.
            None => session.write_checkpoint()?,
        }
        if session.ranks.is_first() {
            let config = session.run.config();
            whole_file::write(&config, experiment.to_toml().as_bytes())
                .map_err(TrainError::io(&config, "write"))?;
        }
        Ok(session)
    }

    /// Puts the state of a checkpoint in place of the fresh one.
    fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), TrainError> {
        let path = self.run.last();
        let Checkpoint { meta, model, ema, optimiser, best } = checkpoint;
        self.model = weights::load_state_dict(self.model.clone(), &model, Strictness::Exact)
            .map_err(|source| TrainError::Weights { path: path.clone(), source })?;
        self.optimiser.state = unpack_optimiser(&optimiser, &self.device)
            .map_err(|message| TrainError::Checkpoint { path, fault: CheckpointFault::Content(message) })?;
        if let (Some(config), Some(average)) = (self.experiment.training.ema, ema) {
            let average = average.iter().map(|(n, e)| (n.clone(), upload(e, &self.device))).collect();
            self.ema = Some(Ema::from_average(config, average));
        }
        self.step = meta.step;
        self.history = meta.history;
        self.earlier_s = meta.elapsed_s;
        self.best = meta.best.map(|evaluation| (evaluation, best));
        // A kill between the two files may have left a best checkpoint that this one does not know.
        if self.best.is_some() { self.write_best() } else { Ok(()) }
    }

    /// Writes `last.ckpt`: from here the run can be taken up again. All processes must have come to the same
    /// weights.
    pub(crate) fn write_checkpoint(&mut self) -> Result<(), TrainError> {
        let model = weights::state_dict(&self.model);
        if self.ranks.size() > 1 {
            self.ranks.check_same("weights", &weights_hash(&model))?;
        }
        let Some(meta) = self.meta()? else { return Ok(()) };
        let checkpoint = Checkpoint {
            meta,
            model,
            ema: self.ema.as_ref().map(|ema| {
                let average = |(n, t): (&String, &burn::tensor::Tensor<1>)| {
                    (n.clone(), read_back(t.clone(), t.dims().to_vec()))
                };
                ema.average.iter().map(average).collect()
            }),
            optimiser: pack_optimiser(&self.optimiser.state),
            best: self.best.as_ref().map(|(_, state)| state.clone()).unwrap_or_default(),
        };
        let path = self.run.last();
        checkpoint.write(&path)?;
        (self.on_event)(Event::Checkpoint { step: self.step, path });
        Ok(())
    }

    /// Writes `best.ckpt`: the best weights, for reading only.
    pub(crate) fn write_best(&mut self) -> Result<(), TrainError> {
        let Some((evaluation, state)) = &self.best else { return Ok(()) };
        let (step, model) = (evaluation.step, state.clone());
        let Some(meta) = self.meta()? else { return Ok(()) };
        let meta = Meta { step, ..meta };
        let nothing = StateDict::new();
        Checkpoint { meta, model, ema: None, optimiser: nothing.clone(), best: nothing }
            .write(&self.run.best())
    }

    /// Where the run stands; `None` in a process that writes no files. The logs are made durable first, so that a
    /// checkpoint never points past them.
    fn meta(&mut self) -> Result<Option<Meta>, TrainError> {
        let elapsed_s = self.elapsed_s();
        let Some(journal) = &mut self.journal else { return Ok(None) };
        Ok(Some(Meta {
            step: self.step,
            experiment: self.experiment.to_toml(),
            data_hash: self.data.hash.clone(),
            history: self.history.clone(),
            best: self.best.as_ref().map(|(evaluation, _)| evaluation.clone()),
            elapsed_s,
            ranks: self.ranks.size(),
            log_bytes: journal.log.sync()?,
            events_bytes: journal.events.sync()?,
        }))
    }

    /// Writes what made the weights, in the first process.
    pub(crate) fn write_manifest(&self, state: RunState) -> Result<(), TrainError> {
        if !self.ranks.is_first() {
            return Ok(());
        }
        let best: Option<&(Evaluation, StateDict)> = self.best.as_ref();
        let over = state != RunState::Running;
        let manifest = Manifest {
            experiment: self.experiment.clone(),
            seed: self.experiment.seed,
            data_hash: self.data.hash.clone(),
            left_out: LeftOut::of(&self.data.left_out),
            hold_out: self.data.hold_out.clone(),
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            device: format!("{:?}", self.device),
            ranks: self.ranks.size(),
            state,
            steps: self.step,
            best: best.map(|(evaluation, _)| evaluation.clone()),
            weights_hash: best.filter(|_| over).map(|(_, weights)| weights_hash(weights)),
            final_weights_hash: over
                .then(|| weights_hash(&T::kept(weights::state_dict(&self.evaluated_model())))),
        };
        manifest.write(&self.run)
    }
}

/// The last checkpoint of `run`, made by this experiment on these films in so many processes.
fn read_matching(
    run: &RunDir,
    experiment: &Experiment,
    data: &TrainData,
    ranks: usize,
) -> Result<Checkpoint, TrainError> {
    let path = run.last();
    if !path.exists() {
        return Err(TrainError::NothingToResume { path });
    }
    let checkpoint = Checkpoint::read(&path)?;
    let before = Experiment::parse(&checkpoint.meta.experiment, Path::new("checkpoint"), &[])?;
    if let Some((key, was, now)) = experiment.first_difference(&before) {
        return Err(TrainError::ExperimentDiffers { path, key, was, now });
    }
    if checkpoint.meta.data_hash != data.hash {
        let (was, now) = (checkpoint.meta.data_hash, data.hash.clone());
        return Err(TrainError::DataDiffers { path, was, now });
    }
    if checkpoint.meta.ranks != ranks {
        return Err(TrainError::RankCountDiffers { path, was: checkpoint.meta.ranks, now: ranks });
    }
    Ok(checkpoint)
}
