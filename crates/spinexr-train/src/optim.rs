//! SGD and AdamW with PyTorch's arithmetic, over named parameters in groups.
//!
//! The engine's optimisers differ from PyTorch in defaults (AdamW's epsilon is 1e-5 there) and key their state
//! by ids that do not survive a restart, hence these. Every number is explicit in [`OptimiserConfig`].
//!
//! Reference: `torch.optim.SGD` and `torch.optim.AdamW` (2.x, single-tensor path).

use crate::layer_decay;
use crate::params::{has_prefix, named_tensors, update_tensors};
use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The optimiser of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimiserConfig {
    /// Base learning rate; the schedule and the group multiply it.
    pub lr: f64,
    /// Weight decay of convolution and linear weights.
    pub weight_decay: f64,
    /// Weight decay of normalisation scales and shifts; 0 in the usual recipes.
    pub weight_decay_norms: f64,
    /// Weight decay of the other biases.
    pub weight_decay_biases: f64,
    /// Which rule, with its constants.
    pub rule: Rule,
    /// Learning rates by part of the model; the first entry that fits a parameter counts.
    #[serde(default)]
    pub groups: Vec<LrGroup>,
    /// Factor on the learning rate from each stage of the backbone to the one before it, in (0, 1]; the groups'
    /// factors come on top. Absent for none. See [`crate::layer_decay`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_decay: Option<f64>,
}

/// Update rule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// Stochastic gradient descent; weight decay is added to the gradient.
    Sgd {
        /// Momentum, dampening 0.
        momentum: f64,
        /// Nesterov's variant.
        nesterov: bool,
    },
    /// Adam with decoupled weight decay.
    #[serde(rename = "adamw")]
    AdamW {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        epsilon: f64,
    },
}

/// A learning-rate multiplier for one part of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LrGroup {
    /// Start of the dotted parameter names it holds for, up to a dot: `backbone.layer1`.
    pub prefix: String,
    /// Factor on the learning rate.
    pub lr_multiplier: f64,
}

/// What the optimiser keeps for one parameter.
#[derive(Debug, Clone)]
pub struct ParamState {
    /// Updates made.
    pub steps: u32,
    /// SGD: momentum buffer. AdamW: first moment. `[numel]`
    pub first: Tensor<1>,
    /// AdamW: second moment, `[numel]`.
    pub second: Option<Tensor<1>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Setting {
    lr_multiplier: f64,
    weight_decay: f64,
}

/// An optimiser with its state.
#[derive(Debug, Clone)]
pub struct Optimiser {
    config: OptimiserConfig,
    settings: BTreeMap<String, Setting>,
    /// State by parameter name; a parameter enters at its first gradient.
    pub state: BTreeMap<String, ParamState>,
}

/// A group whose prefix fits no trainable parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "optimiser group {prefix:?}: expected the start of a trainable parameter's name, found none; names look like {example:?}"
)]
pub struct UnusedGroup {
    /// The prefix as configured.
    pub prefix: String,
    /// Name of some parameter of the model.
    pub example: String,
}

impl Optimiser {
    /// An optimiser for the trainable parameters of `model`.
    ///
    /// Names decide about weight decay: where a `weight` has one dimension it is a normalisation's, and so
    /// is the bias beside it; any other `bias` is a bias.
    ///
    /// # Errors
    /// [`UnusedGroup`] when a group's prefix fits no trainable parameter, or rates are to fall by layer and no parameter
    /// lies in a stage of a backbone.
    pub fn new<M: Module>(config: &OptimiserConfig, model: &M) -> Result<Self, UnusedGroup> {
        let tensors = named_tensors(model);
        let trainable: Vec<&String> = tensors.iter().filter(|(_, t)| t.trainable).map(|(n, _)| n).collect();
        for group in &config.groups {
            if !trainable.iter().any(|name| has_prefix(name, &group.prefix)) {
                let example = trainable.first().map(|n| (*n).clone()).unwrap_or_default();
                return Err(UnusedGroup { prefix: group.prefix.clone(), example });
            }
        }
        let in_backbone = |name: &&String| layer_decay::depth(name) < layer_decay::DEPTHS;
        if config.layer_decay.is_some() && !trainable.iter().any(in_backbone) {
            let prefix = "layer1 (of optimiser.layer_decay)".to_owned();
            return Err(UnusedGroup {
                prefix,
                example: trainable.first().map(|n| (*n).clone()).unwrap_or_default(),
            });
        }
        let is_norm = |name: &str| {
            let sibling = match name.rsplit_once('.') {
                Some((parent, _)) => format!("{parent}.weight"),
                None => "weight".to_owned(),
            };
            tensors.get(&sibling).is_some_and(|t| t.shape.len() == 1)
        };
        let settings = trainable
            .iter()
            .map(|&name| {
                let weight_decay = if is_norm(name) {
                    config.weight_decay_norms
                } else if name.ends_with("bias") {
                    config.weight_decay_biases
                } else {
                    config.weight_decay
                };
                let group = config.groups.iter().find(|g| has_prefix(name, &g.prefix));
                let lr_multiplier = group.map_or(1.0, |g| g.lr_multiplier)
                    * config.layer_decay.map_or(1.0, |decay| layer_decay::factor(name, decay));
                (name.clone(), Setting { lr_multiplier, weight_decay })
            })
            .collect();
        Ok(Self { config: config.clone(), settings, state: BTreeMap::new() })
    }

    /// One update of `model` by `gradients` (flat, by name) with the learning rate `lr`.
    ///
    /// Parameters without a gradient stay as they are, weight decay included, as in PyTorch.
    pub fn step<M: Module>(&mut self, model: M, mut gradients: BTreeMap<String, Tensor<1>>, lr: f64) -> M {
        update_tensors(model, |name, value, trainable| {
            let (Some(gradient), Some(setting)) = (gradients.remove(name), self.settings.get(name)) else {
                return value;
            };
            if !trainable {
                return value;
            }
            let lr = lr * setting.lr_multiplier;
            let state = self.state.remove(name);
            let (value, state) = match self.config.rule {
                Rule::Sgd { momentum, nesterov } => {
                    sgd(value, gradient, state, lr, momentum, nesterov, setting.weight_decay)
                }
                Rule::AdamW { beta1, beta2, epsilon } => {
                    adamw(value, gradient, state, lr, [beta1, beta2], epsilon, setting.weight_decay)
                }
            };
            self.state.insert(name.to_owned(), state);
            value
        })
    }
}

fn sgd(
    value: Tensor<1>,
    gradient: Tensor<1>,
    state: Option<ParamState>,
    lr: f64,
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
) -> (Tensor<1>, ParamState) {
    let gradient = match weight_decay {
        0.0 => gradient,
        wd => gradient.add(value.clone().mul_scalar(wd as f32)),
    };
    let (steps, buffer) = match state {
        None => (0, gradient.clone()), // PyTorch's buffer starts as the first gradient, not as zero
        Some(s) => (s.steps, s.first.mul_scalar(momentum as f32).add(gradient.clone())),
    };
    let direction =
        if nesterov { gradient.add(buffer.clone().mul_scalar(momentum as f32)) } else { buffer.clone() };
    let value = value.sub(direction.mul_scalar(lr as f32));
    (value, ParamState { steps: steps + 1, first: buffer, second: None })
}

fn adamw(
    value: Tensor<1>,
    gradient: Tensor<1>,
    state: Option<ParamState>,
    lr: f64,
    [beta1, beta2]: [f64; 2],
    epsilon: f64,
    weight_decay: f64,
) -> (Tensor<1>, ParamState) {
    let value = match weight_decay {
        0.0 => value,
        wd => value.mul_scalar((1.0 - lr * wd) as f32),
    };
    let squared = gradient.clone().mul(gradient.clone());
    let (steps, first, second) = match state {
        None => (1, gradient.mul_scalar((1.0 - beta1) as f32), squared.mul_scalar((1.0 - beta2) as f32)),
        Some(ParamState { steps, first, second }) => {
            let second = second.unwrap_or_else(|| squared.zeros_like());
            (
                steps + 1,
                first.mul_scalar(beta1 as f32).add(gradient.mul_scalar((1.0 - beta1) as f32)),
                second.mul_scalar(beta2 as f32).add(squared.mul_scalar((1.0 - beta2) as f32)),
            )
        }
    };
    let bias1 = 1.0 - beta1.powi(steps as i32);
    let bias2 = 1.0 - beta2.powi(steps as i32);
    let denominator = second.clone().sqrt().div_scalar(bias2.sqrt() as f32).add_scalar(epsilon as f32);
    let value = value.sub(first.clone().div(denominator).mul_scalar((lr / bias1) as f32));
    (value, ParamState { steps, first, second: Some(second) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::NamedTensor;
    use burn::tensor::Device;
    use spinexr_models::DenseNetConfig;

    #[test]
    fn weight_decay_goes_by_the_kind_of_a_parameter() {
        let device = Device::flex();
        let model = DenseNetConfig::mini().init(&device.clone().autodiff());
        let config = OptimiserConfig {
            lr: 1.0,
            weight_decay: 0.5,
            weight_decay_norms: 0.25,
            weight_decay_biases: 0.75,
            rule: Rule::Sgd { momentum: 0.0, nesterov: false },
            groups: vec![],
            layer_decay: None,
        };
        let mut optimiser = Optimiser::new(&config, &model).unwrap();
        let before = named_tensors(&model);
        let trainable = || before.iter().filter(|(_, t)| t.trainable);
        let zeros = trainable().map(|(name, t)| (name.clone(), t.flat.zeros_like())).collect();
        // Biases begin at 0, where decay cannot be seen: shift everything by one first.
        let model = update_tensors(model, |_, value, _| value.add_scalar(1.0));
        let after = named_tensors(&optimiser.step(model, zeros, 1.0));
        for (name, tensor) in trainable() {
            let value = |t: &NamedTensor| t.flat.to_data().iter::<f32>().next().unwrap();
            let kept = value(&after[name]) / (value(tensor) + 1.0);
            let expected = match name.as_str() {
                "classifier.bias" => 0.25,
                name if name.contains("norm") => 0.75,
                _ => 0.5,
            };
            assert!((kept - expected).abs() < 1e-4, "{name}: kept {kept}, expected {expected}");
        }
        assert!(!after["features.norm0.running_var"].trainable);
    }

    #[test]
    fn layer_decay_and_groups_multiply() {
        let model = DenseNetConfig::mini().init(&Device::flex().autodiff());
        let config = OptimiserConfig {
            lr: 1.0,
            weight_decay: 0.0,
            weight_decay_norms: 0.0,
            weight_decay_biases: 0.0,
            rule: Rule::Sgd { momentum: 0.0, nesterov: false },
            groups: vec![LrGroup { prefix: "features.denseblock1".to_owned(), lr_multiplier: 3.0 }],
            layer_decay: Some(0.5),
        };
        let mut optimiser = Optimiser::new(&config, &model).unwrap();
        let before = named_tensors(&model);
        let ones = before
            .iter()
            .filter(|(_, t)| t.trainable)
            .map(|(name, t)| (name.clone(), t.flat.ones_like()))
            .collect();
        let after = named_tensors(&optimiser.step(model, ones, 1.0));
        let value = |t: &NamedTensor| t.flat.to_data().iter::<f32>().next().unwrap();
        for (name, expected) in [
            ("features.conv0.weight", 0.5f32.powi(5)),
            ("features.denseblock1.denselayer1.conv1.weight", 3.0 * 0.5f32.powi(4)),
            ("features.transition1.conv.weight", 0.5f32.powi(4)),
            ("features.norm5.weight", 0.5),
            ("classifier.weight", 1.0),
        ] {
            let step = value(&before[name]) - value(&after[name]);
            assert!((step - expected).abs() < 1e-6, "{name}: {step} for {expected}");
        }
    }
}
