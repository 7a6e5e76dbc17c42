//! The experiment: a TOML file, checked and resolved.
//!
//! Nothing has a hidden default: what changes numbers is written in the file, and the resolved copy goes
//! into the run's folder. Relative paths are relative to the working directory.

use crate::clip::Clip;
use crate::config_error::{ConfigError, line_of, nearest_key, unknown_field_hint};
use crate::ema::EmaConfig;
use crate::optim::{OptimiserConfig, Rule};
use crate::schedule::{Decay, Schedule};
use serde::{Deserialize, Serialize};
use spinexr_data::{AugmentConfig, Format, InputSize, SamplerConfig};
use spinexr_dicom::Policy;
use spinexr_models::resnet::NormMode;
use spinexr_models::weights::sources::Source;
use spinexr_models::{Architecture, DenseNetConfig, DetectorConfig, Normalisation, Task};
use spinexr_ops::Precision;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An experiment as configured: one model on one data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Name of the run and of the model in predictions.
    pub name: String,
    /// Which protocol the numbers belong to.
    pub protocol: Protocol,
    /// Seed of weights, order of films and augmentation.
    pub seed: u64,
    /// Films.
    pub data: DataConfig,
    /// Network and its input.
    pub model: ModelConfig,
    /// Update rule and its groups.
    pub optimiser: OptimiserConfig,
    /// Learning rate over time.
    pub schedule: Schedule,
    /// Batches, evaluation, checkpoints.
    pub training: TrainingConfig,
    /// How films are drawn.
    #[serde(default = "SamplerConfig::shuffled")]
    pub sampler: SamplerConfig,
    /// Random changes of training films; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<AugmentConfig>,
}

/// Which of the two protocols an experiment follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// As the official code, so that numbers can be compared.
    Paper,
    /// Repaired.
    Improved,
}

/// Where films come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Data set: VinDr-SpineXR, COCO, YOLO or Pascal VOC.
    pub dir: PathBuf,
    /// Which of them; absent for the one that the folder is laid out in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Folder of the prepared films.
    pub cache_dir: PathBuf,
    /// Share of the training studies held out for validation, in (0, 1). A data set that has a validation part of its
    /// own keeps it.
    pub validation_fraction: f64,
    /// Seed of that hold-out. Apart from `seed`, so that the members of an ensemble differ in that one and share
    /// this: thresholds for them together are chosen on films that none of them was trained on.
    pub split_seed: u64,
    /// How stored values become display pixels.
    pub policy: Policy,
    /// Which training films the model sees.
    pub train_on: TrainOn,
}

/// Which films of the training split are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainOn {
    /// All of them.
    All,
    /// Those with a box, as the paper trained its detectors: normal films never reach them.
    WithBoxes,
}

/// The network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Which one.
    pub architecture: Architecture,
    /// Channels of its input; the film's one channel is repeated.
    pub in_channels: usize,
    /// A ReLU after a DenseNet's last norm; absent for the architecture's own habit (torchvision has it,
    /// the paper's head has not).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_relu: Option<bool>,
    /// Whether the norms of a detector's backbone take part in training; absent for the architecture's own habit
    /// (the published ones are frozen, which needs pretrained weights).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norms: Option<NormMode>,
    /// Weight in a classifier's loss of one more output a class that say, for each place of the last map, which
    /// findings are there. They teach the features what to look for and are left out of the weights that are
    /// kept. Absent for none, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding_loss: Option<f64>,
    /// Size of its input.
    pub input: InputSize,
    /// Mean and standard deviation a channel, in units of the display range 0..=1.
    pub normalisation: Normalisation,
    /// Weights to begin with; absent for seeded random ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<InitialWeights>,
    /// Starts of parameter names that are not trained.
    #[serde(default)]
    pub frozen: Vec<String>,
}

/// Weights to begin with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitialWeights {
    /// A safetensors, PyTorch (`.pth`, `.pt`) or detectron2 (`.pkl`) file.
    pub weights: PathBuf,
    /// Whose names the file has; torchvision's, which are this program's too, where nothing is said.
    #[serde(default, skip_serializing_if = "is_torchvision")]
    pub source: Source,
    /// Starts of names that keep their random weights (a head for other classes); all others must be there
    /// and fit.
    #[serde(default)]
    pub leave_out: Vec<String>,
}

fn is_torchvision(source: &Source) -> bool {
    *source == Source::Torchvision
}

fn is_f32(precision: &Precision) -> bool {
    *precision == Precision::F32
}

/// Batches and rhythm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Films a forward pass.
    pub batch_size: usize,
    /// Forward passes an update; the gradient is their mean.
    pub accumulation: usize,
    /// Bound on gradients.
    pub clip: Clip,
    /// Moving average of weights; absent for none. With one, it is what is evaluated and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<EmaConfig>,
    /// Make normalised maps again in the backward step in place of keeping them: less memory, a little more work,
    /// the same gradients. Absent for no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpointing: bool,
    /// What products are computed in: absent for f32. With bf16 parameters, optimiser, norms and losses stay f32; see
    /// [`spinexr_ops::precision`].
    #[serde(default, skip_serializing_if = "is_f32")]
    pub precision: Precision,
    /// Updates between evaluations on the validation films; the last step is always evaluated.
    pub eval_every: u64,
    /// Updates between checkpoints; the last step always has one.
    pub checkpoint_every: u64,
    /// Stop (evaluated, with a checkpoint) after this time, over all sessions; absent for no limit. The
    /// schedule does not know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_minutes: Option<f64>,
}

impl ModelConfig {
    /// The classifier's measures in training: one logit a film, and one for each of `classes` where the loss has
    /// them; `None` for a detector.
    pub fn densenet(&self, classes: usize) -> Option<DenseNetConfig> {
        let net = self.architecture.classifier_config()?;
        let final_relu = self.final_relu.unwrap_or(net.final_relu);
        let outputs = 1 + if self.finding_loss.is_some() { classes } else { 0 };
        Some(net.with_num_classes(outputs).with_in_channels(self.in_channels).with_final_relu(final_relu))
    }

    /// The detector's measures for so many classes; `None` for a classifier.
    pub fn detector(&self, classes: usize) -> Option<DetectorConfig> {
        let net = self.architecture.detector_config()?;
        let net = net.with_num_classes(classes).with_in_channels(self.in_channels);
        Some(match self.norms {
            Some(norms) => net.with_norms(norms),
            None => net,
        })
    }
}

impl Experiment {
    /// Reads a file, applies `--set key=value` overrides in order, and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`] with file and line, or the key, what was expected and what was found.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path, sets)
    }

    /// As [`Experiment::load`], from text; `path` is for messages.
    ///
    /// # Errors
    /// As [`Experiment::load`].
    pub fn parse(text: &str, path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let mut experiment: Self = toml::from_str(text).map_err(|e| ConfigError::Toml {
            path: path.to_owned(),
            line: e.span().map_or(1, |span| line_of(text, span.start)),
            message: e.message().to_owned(),
            hint: unknown_field_hint(e.message()),
        })?;
        for set in sets {
            experiment = experiment.with(set)?;
        }
        experiment.validate()?;
        Ok(experiment)
    }

    /// The experiment with one `key=value` changed; keys are dotted, values are TOML (bare words are
    /// strings). Not validated.
    fn with(&self, set: &str) -> Result<Self, ConfigError> {
        let (key, value) =
            set.split_once('=').ok_or_else(|| ConfigError::SetSyntax { got: set.to_owned() })?;
        let (key, value) = (key.trim(), value.trim());
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| toml::Value::String(value.to_owned()));
        let fault = |message: String, hint: Option<String>| ConfigError::Set {
            key: key.to_owned(),
            value: value.to_owned(),
            message,
            hint,
        };
        let mut root = self.to_table();
        let known = flatten(&root);
        let mut table = &mut root;
        let (parents, last) = match key.rsplit_once('.') {
            Some((parents, last)) => (parents.split('.').collect(), last),
            None => (Vec::new(), key),
        };
        for parent in parents {
            let entry = table.entry(parent).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let found = entry.type_str();
            table = entry.as_table_mut().ok_or_else(|| {
                fault(
                    format!("expected a table at `{parent}`, found a {found}"),
                    nearest_key(key, known.keys()),
                )
            })?;
        }
        // A key that exists with a float takes an integer too, as in the file.
        table.insert(last.to_owned(), parsed);
        Self::deserialize(toml::Value::Table(root)).map_err(|e| {
            // A key that is absent may be right and its value wrong.
            let unknown = e.message().starts_with("unknown field");
            let hint = unknown.then(|| nearest_key(key, known.keys())).flatten();
            fault(e.message().to_owned(), hint)
        })
    }

    /// The resolved experiment as TOML; reading it back gives the same experiment.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("an experiment is plain data with string keys")
    }

    fn to_table(&self) -> toml::Table {
        toml::Table::try_from(self).expect("an experiment is plain data with string keys")
    }

    /// The first key that differs in a way that changes the run, with the other's and this value.
    ///
    /// Where the films lie and how long a session may take may differ: the films' hash guards the former.
    pub fn first_difference(&self, other: &Self) -> Option<(String, String, String)> {
        const FREE: [&str; 3] = ["data.dir", "data.cache_dir", "training.max_minutes"];
        let (mine, theirs) = (flatten(&self.to_table()), flatten(&other.to_table()));
        let absent = || "nothing".to_owned();
        mine.keys()
            .chain(theirs.keys())
            .filter(|key| !FREE.contains(&key.as_str()))
            .find(|key| mine.get(*key) != theirs.get(*key))
            .map(|key| {
                let show = |table: &BTreeMap<String, String>| table.get(key).cloned().unwrap_or_else(absent);
                (key.clone(), show(&theirs), show(&mine))
            })
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = |v: f64| v.is_finite() && v > 0.0;
        let at_least_0 = |v: f64| v.is_finite() && v >= 0.0;
        let share = |v: f64| v > 0.0 && v < 1.0;
        check(is_file_name(&self.name), "name", "a name fit for a folder", &self.name)?;
        let fraction = self.data.validation_fraction;
        check(share(fraction), "data.validation_fraction", "a share inside 0 to 1", fraction)?;

        let model = &self.model;
        let channels = model.in_channels;
        check(channels > 0, "model.in_channels", "1 or more", channels)?;
        model.input.check().map_err(|e| ConfigError::invalid("model.input", "a size", e))?;
        let (height, width) = (model.input.height_px as usize, model.input.width_px as usize);
        model
            .architecture
            .check_input(height, width)
            .map_err(|e| ConfigError::invalid("model.input", "a size the network can take", e))?;
        model
            .normalisation
            .validate()
            .map_err(|e| ConfigError::invalid("model.normalisation", "a mean and a std a channel", e))?;
        let pairs = model.normalisation.channels();
        check(pairs == channels, "model.normalisation", "as many channels as model.in_channels", pairs)?;

        let classifies = model.architecture.task() == Task::Classification;
        let applies = model.final_relu.is_none() || classifies;
        check(applies, "model.final_relu", "a DenseNet beside it", model.architecture)?;
        let applies = model.finding_loss.is_none() || classifies;
        check(applies, "model.finding_loss", "a DenseNet beside it", model.architecture)?;
        let applies = model.norms.is_none() || !classifies;
        check(applies, "model.norms", "a detector beside it", model.architecture)?;
        let weight = model.finding_loss.unwrap_or(1.0);
        check(weight > 0.0 && weight.is_finite(), "model.finding_loss", "a number above 0", weight)?;

        let optimiser = &self.optimiser;
        check(positive(optimiser.lr), "optimiser.lr", "a positive number", optimiser.lr)?;
        for (key, decay) in [
            ("optimiser.weight_decay", optimiser.weight_decay),
            ("optimiser.weight_decay_norms", optimiser.weight_decay_norms),
            ("optimiser.weight_decay_biases", optimiser.weight_decay_biases),
        ] {
            check(at_least_0(decay), key, "0 or more", decay)?;
        }
        let decay = optimiser.layer_decay.unwrap_or(1.0);
        check(decay > 0.0 && decay <= 1.0, "optimiser.layer_decay", "a number above 0, up to 1", decay)?;
        let below_1 = |v: f64| (0.0..1.0).contains(&v);
        match optimiser.rule {
            Rule::Sgd { momentum, nesterov } => {
                check(below_1(momentum), "optimiser.rule.sgd.momentum", "0 up to 1", momentum)?;
                let fits = !nesterov || momentum > 0.0;
                check(fits, "optimiser.rule.sgd.nesterov", "a momentum above 0 beside it", nesterov)?;
            }
            Rule::AdamW { beta1, beta2, epsilon } => {
                check(below_1(beta1), "optimiser.rule.adamw.beta1", "0 up to 1", beta1)?;
                check(below_1(beta2), "optimiser.rule.adamw.beta2", "0 up to 1", beta2)?;
                check(positive(epsilon), "optimiser.rule.adamw.epsilon", "a positive number", epsilon)?;
            }
        }
        for group in &optimiser.groups {
            let key = "optimiser.groups.lr_multiplier";
            check(at_least_0(group.lr_multiplier), key, "0 or more", group.lr_multiplier)?;
        }
        self.validate_rhythm()
    }

    fn validate_rhythm(&self) -> Result<(), ConfigError> {
        let schedule = &self.schedule;
        let total = schedule.total_steps;
        check(total > 0, "schedule.total_steps", "1 or more", total)?;
        check(
            schedule.warmup_steps <= total,
            "schedule.warmup_steps",
            "at most total_steps",
            schedule.warmup_steps,
        )?;
        let start = schedule.warmup_start;
        check((0.0..=1.0).contains(&start), "schedule.warmup_start", "0 to 1", start)?;
        match &schedule.decay {
            Decay::Constant => {}
            Decay::Steps { milestones, factor } => {
                let ascending = milestones.windows(2).all(|w| w[0] < w[1]);
                let key = "schedule.decay.steps.milestones";
                check(ascending, key, "ascending steps", format!("{milestones:?}"))?;
                let fits = *factor > 0.0 && factor.is_finite();
                check(fits, "schedule.decay.steps.factor", "a positive number", factor)?;
            }
            Decay::Cosine { final_factor } => {
                let key = "schedule.decay.cosine.final_factor";
                check((0.0..=1.0).contains(final_factor), key, "0 to 1", final_factor)?;
            }
        }
        let training = &self.training;
        let batch = training.batch_size;
        check((1..=65_536).contains(&batch), "training.batch_size", "1 to 65536", batch)?;
        check(training.accumulation > 0, "training.accumulation", "1 or more", training.accumulation)?;
        check(training.eval_every > 0, "training.eval_every", "1 or more", training.eval_every)?;
        let every = training.checkpoint_every;
        check(every > 0, "training.checkpoint_every", "1 or more", every)?;
        if let Clip::GlobalNorm(bound) | Clip::Value(bound) = training.clip {
            check(bound > 0.0 && bound.is_finite(), "training.clip", "a positive bound", bound)?;
        }
        if let Some(ema) = &training.ema {
            check(
                ema.decay > 0.0 && ema.decay < 1.0,
                "training.ema.decay",
                "a share inside 0 to 1",
                ema.decay,
            )?;
            let fits = ema.ramp_steps >= 0.0 && ema.ramp_steps.is_finite();
            check(fits, "training.ema.ramp_steps", "0 or more", ema.ramp_steps)?;
        }
        if let Some(minutes) = training.max_minutes {
            check(minutes > 0.0, "training.max_minutes", "a positive number", minutes)?;
        }
        if let Some(augment) = &self.augment {
            augment.check().map_err(|e| ConfigError::invalid("augment", "settings in range", e))?;
        }
        Ok(())
    }
}

fn check(
    fits: bool,
    key: &'static str,
    expected: &'static str,
    found: impl std::fmt::Display,
) -> Result<(), ConfigError> {
    if fits { Ok(()) } else { Err(ConfigError::invalid(key, expected, found)) }
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !name.starts_with('.')
}

/// Dotted keys and their values as text; arrays are one value.
fn flatten(table: &toml::Table) -> BTreeMap<String, String> {
    fn walk(prefix: &str, table: &toml::Table, out: &mut BTreeMap<String, String>) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                toml::Value::Table(inner) => walk(&key, inner, out),
                value => {
                    out.insert(key, value.to_string());
                }
            }
        }
    }
    let mut out = BTreeMap::new();
    walk("", table, &mut out);
    out
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
