//! Exponential moving average of a model's weights and running statistics.
//!
//! Reference: timm's `ModelEmaV2` (float buffers are averaged as weights are), with YOLOX's ramp.

use crate::params::{named_tensors, update_tensors};
use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The average of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// Share of the old average kept at each step, in (0, 1).
    pub decay: f64,
    /// Length of the ramp in steps: the share is `decay · (1 − exp(−step / ramp_steps))`, which lets the
    /// average leave the initial weights soon. 0 for a constant share.
    pub ramp_steps: f64,
}

impl EmaConfig {
    /// Share of the old average kept after the update number `step`, counted from 1.
    pub fn decay_at(&self, step: u64) -> f64 {
        if self.ramp_steps > 0.0 {
            self.decay * (1.0 - (-(step as f64) / self.ramp_steps).exp())
        } else {
            self.decay
        }
    }
}

/// The running average.
#[derive(Debug, Clone)]
pub struct Ema {
    config: EmaConfig,
    /// Averages by tensor name, `[numel]`.
    pub average: BTreeMap<String, Tensor<1>>,
}

impl Ema {
    /// Starts from the present weights and statistics of `model`.
    pub fn new<M: Module>(config: EmaConfig, model: &M) -> Self {
        Self { config, average: current(model) }
    }

    /// Continues from stored averages.
    pub fn from_average(config: EmaConfig, average: BTreeMap<String, Tensor<1>>) -> Self {
        Self { config, average }
    }

    /// Takes `model` into the average after update number `step`, counted from 1.
    pub fn update<M: Module>(&mut self, model: &M, step: u64) {
        let decay = self.config.decay_at(step);
        for (name, value) in current(model) {
            let Some(old) = self.average.remove(&name) else { continue };
            let new = old.mul_scalar(decay as f32).add(value.mul_scalar((1.0 - decay) as f32));
            self.average.insert(name, new);
        }
    }

    /// A validation copy of `model` with the averaged weights and statistics.
    pub fn averaged<M: Module>(&self, model: &M) -> M {
        update_tensors(model.valid(), |name, value, _| self.average.get(name).cloned().unwrap_or(value))
    }
}

// A clone of a model shares its running statistics with the original and may lag one step behind;
// `valid()` brings them up to date and copies them.
fn current<M: Module>(model: &M) -> BTreeMap<String, Tensor<1>> {
    named_tensors(&model.valid()).into_iter().map(|(name, tensor)| (name, tensor.flat)).collect()
}
