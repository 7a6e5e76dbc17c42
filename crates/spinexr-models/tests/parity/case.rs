//! A golden case: its manifest, its results, and comparison within the stated tolerances.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use serde_json::Value;
use spinexr_models::weights::{Entry, StateDict, Strictness, load_state_dict, named_tensors};

use crate::formula::{self, Override, SplitMix64};

pub struct Case {
    pub name: String,
    pub manifest: Value,
    bytes: Vec<u8>,
}

/// How gradients are held to the reference.
#[derive(Clone, Copy, PartialEq)]
pub enum Gradient {
    /// Frozen or evaluation-mode norms, or no ReLU near zero: norms 1e-3 (median 1e-4), samples.
    Exact,
    /// Batch statistics over few values, where a ReLU may flip: norms 5e-2, median 2e-3.
    Chaotic,
    /// Several stages one behind the other: as `Exact`, but samples 1e-2 of the largest.
    Deep,
}

impl Case {
    pub fn open(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name);
        let manifest = std::fs::read_to_string(dir.join("manifest.json")).expect("golden manifest");
        let bytes = std::fs::read(dir.join("tensors.safetensors")).expect("golden tensors");
        Self { name: name.to_owned(), manifest: serde_json::from_str(&manifest).unwrap(), bytes }
    }

    /// The formula-filled state of `manifest.state` (or a part of it), checked against its sums.
    pub fn state(&self, pointer: &str) -> StateDict {
        let state = self.manifest.pointer(pointer).expect("state section");
        let gain = state["gain"].as_f64().unwrap();
        let overrides: Vec<Override> = state["overrides"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| Override {
                contains: o["contains"].as_str().unwrap().to_owned(),
                gain: o["gain"].as_f64(),
                abs: o["abs"].as_f64(),
                proposal_boxes: o["rule"] == "proposal_boxes",
            })
            .collect();
        let mut dict = StateDict::new();
        let mut sum = 0.0;
        for (name, shape) in state["shapes"].as_object().unwrap() {
            let shape: Vec<usize> =
                shape.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
            let values = formula::fill(name, &shape, gain, &overrides);
            sum += values.iter().map(|v| f64::from(v.abs())).sum::<f64>();
            dict.insert(name.clone(), Entry { shape, values });
        }
        let expected = state["abs_sum_f64"].as_f64().unwrap();
        assert!((sum / expected - 1.0).abs() < 1e-9, "{}: filled {sum}, expected {expected}", self.name);
        for (name, first) in state["first_values"].as_object().unwrap() {
            for (found, wanted) in dict[name].values.iter().zip(first.as_array().unwrap()) {
                assert_eq!(f64::from(*found), wanted.as_f64().unwrap(), "{name}");
            }
        }
        dict
    }

    /// `module` filled with the state; every name must agree.
    pub fn filled<M: Module>(&self, module: M) -> M {
        load_state_dict(module, &self.state("/state"), Strictness::Exact).unwrap()
    }

    /// An input of the manifest.
    pub fn input<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let entry = &self.manifest["inputs"][name];
        let shape: Vec<usize> =
            entry["shape"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
        let range: Vec<f64> =
            entry["range"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let values = formula::input(name, shape.iter().product(), range[0] as f32, range[1] as f32);
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// A stored tensor as f64 (integers too).
    pub fn stored(&self, name: &str) -> Vec<f64> {
        let file = safetensors::SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap_or_else(|_| panic!("{} has no {name}", self.name));
        match view.dtype() {
            safetensors::Dtype::F32 => {
                view.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
            }
            safetensors::Dtype::I64 => {
                view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect()
            }
            other => panic!("{name} holds {other:?}"),
        }
    }

    pub fn stored_f32(&self, name: &str) -> Vec<f32> {
        self.stored(name).into_iter().map(|v| v as f32).collect()
    }

    /// The golden rule for a tensor: every stored value, the mean and the deviation within
    /// `max(20 * abs_noise, 4e-6 * max(|min|, |max|))`.
    pub fn check<const D: usize>(&self, name: &str, tensor: &Tensor<D>) {
        self.check_values(name, &tensor.dims(), &tensor.clone().try_into_vec_as::<f32>().unwrap());
    }

    pub fn check_values(&self, name: &str, shape: &[usize], values: &[f32]) {
        let entry = &self.manifest["tensors"][name];
        let number = |key: &str| entry[key].as_f64().unwrap_or(0.0);
        let wanted_shape: Vec<usize> =
            entry["shape"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
        assert_eq!(shape, wanted_shape, "{}: shape of {name}", self.name);
        let tolerance = (20.0 * number("abs_noise")).max(4e-6 * number("min").abs().max(number("max").abs()));

        let stored = self.stored(name);
        let found: Vec<f64> = if entry["storage"] == "sampled" {
            let stream = SplitMix64::named(&format!("sample:{}/{name}", self.name));
            stream.take(stored.len()).map(|n| f64::from(values[(n % values.len() as u64) as usize])).collect()
        } else {
            values.iter().map(|v| f64::from(*v)).collect()
        };
        let worst = found.iter().zip(&stored).map(|(a, b)| (a - b).abs()).fold(0.0, nan_max);
        self.report(name, worst, tolerance);

        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let std = (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
        self.report(&format!("{name} mean"), (mean - number("mean")).abs(), tolerance);
        self.report(&format!("{name} std"), (std - number("std")).abs(), tolerance);
    }

    /// A scalar within a relative tolerance of 1e-5.
    pub fn check_scalar(&self, name: &str, value: f32) {
        let wanted = self.manifest["scalars"][name]["value"].as_f64().unwrap();
        self.report(&format!("{name} (relative)"), ((f64::from(value) - wanted) / wanted).abs(), 1e-5);
    }

    /// Prints a row for docs/parity.md and fails when it is out of tolerance.
    pub fn report(&self, what: &str, difference: f64, tolerance: f64) {
        println!("| {} | {what} | {difference:.2e} | {tolerance:.2e} |", self.name);
        assert!(difference <= tolerance, "{} {what}: {difference:e} > {tolerance:e}", self.name);
    }

    /// The gradients of every parameter named in `manifest.<section>`.
    pub fn check_gradients<M: Module>(&self, section: &str, module: &M, grads: &Gradients, rule: Gradient) {
        self.check_renamed_gradients(section, module, grads, rule, str::to_owned);
    }

    /// As [`Case::check_gradients`], where the module calls a parameter `own_name(name)`.
    pub fn check_renamed_gradients<M: Module>(
        &self,
        section: &str,
        module: &M,
        grads: &Gradients,
        rule: Gradient,
        own_name: impl Fn(&str) -> String,
    ) {
        let mut found = gradients(module, grads);
        let wanted = self.manifest[section].as_object().unwrap();
        let samples = self.stored(section);
        let mut errors = Vec::new();
        let mut worst_sample = 0.0f64;
        for (name, entry) in wanted {
            let number = |key: &str| entry[key].as_f64().unwrap();
            let gradient = found.remove(&own_name(name)).unwrap_or_else(|| panic!("{name} has no gradient"));
            let norm = gradient.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            if number("norm") == 0.0 {
                assert!(norm < 1e-12, "{name}: norm {norm}, expected none");
                continue;
            }
            errors.push((((norm - number("norm")) / number("norm")).abs(), name));
            let row = entry["row"].as_u64().unwrap() as usize;
            let stream = SplitMix64::named(&format!("sample:{}/{section}/{name}", self.name));
            let share = if rule == Gradient::Deep { 1e-2 } else { 1e-4 };
            let tolerance = (20.0 * number("abs_noise")).max(share * number("max_abs"));
            for (wanted, next) in samples[row * 16..(row + 1) * 16].iter().zip(stream) {
                let value = f64::from(gradient[(next % gradient.len() as u64) as usize]);
                worst_sample = nan_max(worst_sample, (value - wanted).abs() / tolerance);
            }
        }
        errors.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (median, (worst, name)) = (errors[errors.len() / 2].0, errors[errors.len() - 1]);
        let (norm_tolerance, median_tolerance) = match rule {
            Gradient::Exact | Gradient::Deep => (1e-3, 1e-4),
            Gradient::Chaotic => (5e-2, 2e-3),
        };
        self.report(&format!("{section} median norm (relative)"), median, median_tolerance);
        self.report(&format!("{section} norm of {name} (relative)"), worst, norm_tolerance);
        if rule != Gradient::Chaotic {
            self.report(&format!("{section} samples, share of their tolerance"), worst_sample, 1.0);
        }
        let trained: Vec<String> = found.into_keys().collect();
        assert!(trained.is_empty(), "gradients the reference has not: {trained:?}");
    }
}

/// As `f64::max`, but a NaN stays.
pub fn nan_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The gradients of a module's parameters by name.
pub fn gradients<M: Module>(module: &M, grads: &Gradients) -> BTreeMap<String, Vec<f32>> {
    struct Collect<'a>(&'a Gradients, BTreeMap<ParamId, Vec<f32>>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.0) {
                self.1.insert(param.id, gradient.try_into_vec_as::<f32>().unwrap());
            }
        }
    }
    let mut collect = Collect(grads, BTreeMap::new());
    module.visit(&mut collect);
    named_tensors(module)
        .into_iter()
        .filter_map(|tensor| collect.1.remove(&tensor.id).map(|gradient| (tensor.name, gradient)))
        .collect()
}
