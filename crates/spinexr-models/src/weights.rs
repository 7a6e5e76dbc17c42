//! State dicts: the parameters and running statistics of a module by their PyTorch names, and safetensors
//! bytes of them.
//!
//! The module trees of this crate are laid out so that Burn's paths are PyTorch's. Three rules bridge the
//! rest: `denselayer.0` is `denselayer1`; a name ending in `num_batches_tracked` is PyTorch bookkeeping that
//! nothing here needs; a frozen norm's weight and bias are still entries.
//!
//! [`mod@file`] reads the files of other programs, [`sources`] brings their names to ours, and [`import`] holds the
//! result against a network.

mod archive;
pub mod file;
pub mod import;
mod pickle;
pub mod sources;
mod strided;

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// One entry of a state dict: f32 values in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// As many values as the shape says.
    pub values: Vec<f32>,
}

/// Entries by name, in the order of their names.
pub type StateDict = BTreeMap<String, Entry>;

/// Why weights could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The names or shapes are not the module's.
    #[error("the weights do not fit the network: {0}")]
    Mismatch(Mismatch),
    /// A head for another number of classes.
    #[error(
        "{name} has {found} outputs in the file, expected {expected}: name the classes of the file, or leave this head out (it begins with random values and is to be trained)"
    )]
    Head {
        /// Name in the network.
        name: String,
        /// Outputs of the network.
        expected: usize,
        /// Outputs in the file.
        found: usize,
    },
    /// The bytes are of no known form, cut short or contradict themselves.
    #[error("{0}")]
    Format(String),
    /// The file cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A pickle is cut short, contradicts itself or has what no file of weights has.
    #[error("the pickle is broken at byte {at}: {message}")]
    Pickle {
        /// Where the faulty instruction lies.
        at: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A pickle asks for something that is not a part of weights. Nothing of it was run.
    #[error(
        "the file asks to run {name}: refused. Only tensors, numbers and containers are read; of a file that holds more, save the model's state_dict() alone"
    )]
    Refused {
        /// Module and name of what it asks for.
        name: String,
    },
    /// A tensor of a kind that holds no weights.
    #[error("tensor {name:?} has the element type {found}, expected one of F32, F64, F16, BF16")]
    ElementType {
        /// Its name.
        name: String,
        /// Its element type.
        found: String,
    },
    /// A value that is not finite: a broken or diverged file.
    #[error("tensor {name:?} holds the value {value} at index {index}")]
    NotFinite {
        /// Its name.
        name: String,
        /// Where, in row-major order.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
}

/// How a state dict differs from a module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Names the module has and the state dict lacks.
    pub missing: Vec<String>,
    /// Names the state dict has and the module lacks.
    pub unexpected: Vec<String>,
    /// `(name, shape in the module, shape in the state dict)`.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.shapes.is_empty()
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 5;
        let mut parts = Vec::new();
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                let more = names.len().saturating_sub(SHOWN);
                let listed = names[..names.len() - more].join(", ");
                let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
                parts.push(format!("{} {what} ({listed}{tail})", names.len()));
            }
        }
        for (name, expected, found) in self.shapes.iter().take(SHOWN) {
            parts.push(format!("{name} has shape {found:?}, expected {expected:?}"));
        }
        if self.shapes.len() > SHOWN {
            parts.push(format!("{} more shapes differ", self.shapes.len() - SHOWN));
        }
        f.write_str(&parts.join("; "))
    }
}

/// How strictly names must agree. Shapes must always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Exactly the module's names.
    Exact,
    /// Names the module lacks are left out; nothing may be missing. For a file that holds more than one module.
    IgnoreUnexpected,
    /// Names may lack on both sides; what is missing keeps its value. For a backbone's weights.
    Partial,
}

/// A parameter or running statistic of a module.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// PyTorch-style name.
    pub name: String,
    /// Burn's identity of it, as optimisers and gradients know it.
    pub id: ParamId,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Whether it is a running statistic, which no optimiser touches.
    pub is_statistic: bool,
}

/// The parameters and running statistics of `module`, in module order.
pub fn named_tensors<M: Module>(module: &M) -> Vec<NamedTensor> {
    struct Names(Path, Vec<NamedTensor>);
    impl ModuleVisitor for Names {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.0.pytorch_name();
            self.1.push(NamedTensor {
                is_statistic: is_statistic(&name),
                name,
                id: param.id,
                shape: param.lazy_shape().as_slice().to_vec(),
            });
        }
    }
    let mut names = Names(Path::default(), Vec::new());
    module.visit(&mut names);
    names.1
}

/// The parameters and running statistics of `module` by name.
pub fn state_dict<M: Module>(module: &M) -> StateDict {
    struct Collect(Path, StateDict);
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let shape = tensor.dims().to_vec();
            let values =
                tensor.try_into_vec_as::<f32>().expect("a parameter is a float tensor that can be read back");
            self.1.insert(self.0.pytorch_name(), Entry { shape, values });
        }
    }
    let mut collect = Collect(Path::default(), StateDict::new());
    // A validation copy: running statistics keep their latest update in a side table until it is made.
    module.valid().visit(&mut collect);
    collect.1
}

/// `module` with the values of `state`.
///
/// Parameters keep their identity, their device and whether they are trained.
///
/// # Errors
/// [`WeightsError::Mismatch`] with every name that is missing, unexpected or of another shape; the module is
/// given up then.
pub fn load_state_dict<M: Module>(
    module: M,
    state: &StateDict,
    strictness: Strictness,
) -> Result<M, WeightsError> {
    let mismatch = compare(&named_tensors(&module), state, strictness);
    if !mismatch.is_empty() {
        return Err(WeightsError::Mismatch(mismatch));
    }
    Ok(map_values(module, |name, _shape| state.get(name).map(|entry| entry.values.clone())))
}

fn compare(names: &[NamedTensor], state: &StateDict, strictness: Strictness) -> Mismatch {
    let mut mismatch = Mismatch::default();
    for tensor in names {
        match state.get(&tensor.name) {
            None if strictness != Strictness::Partial => mismatch.missing.push(tensor.name.clone()),
            Some(entry) if entry.shape != tensor.shape => {
                mismatch.shapes.push((tensor.name.clone(), tensor.shape.clone(), entry.shape.clone()));
            }
            _ => {}
        }
    }
    if strictness == Strictness::Exact {
        let known: std::collections::BTreeSet<&str> = names.iter().map(|t| t.name.as_str()).collect();
        mismatch.unexpected = state
            .keys()
            .filter(|name| !known.contains(name.as_str()) && !name.ends_with("num_batches_tracked"))
            .cloned()
            .collect();
    }
    mismatch
}

/// `module` with new values wherever `values(name, shape)` gives some.
pub(crate) fn map_values<M: Module>(module: M, values: impl Fn(&str, &[usize]) -> Option<Vec<f32>>) -> M {
    struct Assign<F>(Path, F);
    impl<F: Fn(&str, &[usize]) -> Option<Vec<f32>>> ModuleMapper for Assign<F> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let shape = param.lazy_shape();
            let Some(values) = (self.1)(&self.0.pytorch_name(), shape.as_slice()) else {
                return param;
            };
            let (id, old, mapper) = param.consume();
            let new = Tensor::<D>::from_data(TensorData::new(values, shape), &old.device())
                .set_require_grad(old.is_require_grad());
            Param::from_mapped_value(id, new, mapper)
        }
    }
    module.map(&mut Assign(Path::default(), values))
}

/// The state dict as safetensors bytes (F32), with `metadata` in the header. The same entries give the same
/// bytes.
pub fn to_safetensors(state: &StateDict, metadata: BTreeMap<String, String>) -> Vec<u8> {
    let bytes: Vec<(&String, &Entry, Vec<u8>)> = state
        .iter()
        .map(|(name, entry)| (name, entry, entry.values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, entry, data)| {
        let view = TensorView::new(Dtype::F32, entry.shape.clone(), data)
            .expect("an entry has as many values as its shape says");
        (name.as_str(), view)
    });
    let metadata = (!metadata.is_empty()).then(|| metadata.into_iter().collect());
    safetensors::serialize(views, metadata).expect("the header of a state dict is small")
}

/// A state dict from safetensors bytes; F64, F16 and BF16 become f32, `num_batches_tracked` is left out.
///
/// # Errors
/// [`WeightsError::Format`] when the bytes are garbage or cut short, [`WeightsError::ElementType`] for
/// integers and the like, [`WeightsError::NotFinite`] for NaN or infinite values.
pub fn from_safetensors(bytes: &[u8]) -> Result<StateDict, WeightsError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| WeightsError::Format(format!("not a whole safetensors file: {e}")))?;
    let mut state = StateDict::new();
    for (name, view) in file.iter().filter(|(name, _)| !name.ends_with("num_batches_tracked")) {
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                let (name, found) = (name.to_owned(), format!("{other:?}"));
                return Err(WeightsError::ElementType { name, found });
            }
        };
        let values = floats(view.data(), dtype);
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(WeightsError::NotFinite { name: name.to_owned(), index, value: values[index] });
        }
        state.insert(name.to_owned(), Entry { shape: view.shape().to_vec(), values });
    }
    Ok(state)
}

/// Little-endian floats of `dtype` as f32.
fn floats(bytes: &[u8], dtype: DType) -> Vec<f32> {
    match dtype {
        DType::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        DType::BF16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
            .collect(),
        DType::F16 => bytes.as_chunks::<2>().0.iter().map(|b| half_to_f32(u16::from_le_bytes(*b))).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}

/// IEEE 754 binary16 to binary32, exact.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0f32 } else { -1.0 };
    let (exponent, fraction) = ((bits >> 10) & 0x1f, f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        e => (1.0 + fraction / 1024.0) * 2f32.powi(i32::from(e) - 15),
    }
}

/// Whether a name is that of a running statistic.
pub fn is_statistic(name: &str) -> bool {
    name.ends_with("running_mean") || name.ends_with("running_var")
}

/// Where a traversal stands in the module tree.
#[derive(Default)]
pub(crate) struct Path(Vec<String>);

impl Path {
    pub(crate) fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    /// The path as PyTorch writes it: `features.denseblock1.denselayer.0.norm1.weight` is
    /// `features.denseblock1.denselayer1.norm1.weight`.
    pub(crate) fn pytorch_name(&self) -> String {
        let mut name = String::new();
        let mut numbered_from_one = false;
        for segment in &self.0 {
            match segment.parse::<usize>() {
                Ok(index) if numbered_from_one => name.push_str(&(index + 1).to_string()),
                _ => {
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(segment);
                }
            }
            numbered_from_one = segment == "denselayer";
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(segments: &[&str]) -> String {
        let mut path = Path::default();
        segments.iter().for_each(|s| path.enter(s));
        path.pytorch_name()
    }

    #[test]
    fn dense_layers_are_numbered_from_one_and_sequences_from_zero() {
        assert_eq!(path(&["denseblock1", "denselayer", "0", "norm1"]), "denseblock1.denselayer1.norm1");
        assert_eq!(path(&["inner_blocks", "0", "0", "weight"]), "inner_blocks.0.0.weight");
    }

    #[test]
    fn half_precision_is_exact() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 2f32.powi(-24)),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(half_to_f32(bits), value, "{bits:#06x}");
        }
        assert!(half_to_f32(0x7e00).is_nan());
        assert_eq!(half_to_f32(0xfc00), f32::NEG_INFINITY);
    }

    #[test]
    fn bytes_come_back() {
        let entry = Entry { shape: vec![2, 3], values: vec![1.0, -2.5, 3.0, 0.0, 1e-20, 7.0] };
        let state = StateDict::from([("a.weight".to_owned(), entry)]);
        let bytes = to_safetensors(&state, BTreeMap::from([("made".to_owned(), "here".to_owned())]));
        assert_eq!(from_safetensors(&bytes).unwrap(), state);
        assert_eq!(bytes, to_safetensors(&state, BTreeMap::from([("made".to_owned(), "here".to_owned())])));
    }

    #[test]
    fn garbage_cut_and_non_finite_bytes_are_errors() {
        let state = StateDict::from([("w".to_owned(), Entry { shape: vec![4], values: vec![1.0; 4] })]);
        let bytes = to_safetensors(&state, BTreeMap::new());
        for cut in 0..bytes.len() {
            assert!(matches!(from_safetensors(&bytes[..cut]), Err(WeightsError::Format(_))), "{cut}");
        }
        assert!(matches!(from_safetensors(&[0xff; 300]), Err(WeightsError::Format(_))));
        let broken =
            StateDict::from([("w".to_owned(), Entry { shape: vec![2], values: vec![0.0, f32::NAN] })]);
        let error = from_safetensors(&to_safetensors(&broken, BTreeMap::new())).unwrap_err();
        assert!(matches!(error, WeightsError::NotFinite { index: 1, .. }), "{error}");
    }

    #[test]
    fn a_mismatch_names_what_differs() {
        let mismatch = Mismatch {
            missing: (0..7).map(|i| format!("m{i}")).collect(),
            unexpected: vec!["u".to_owned()],
            shapes: vec![("s".to_owned(), vec![1, 2], vec![2])],
        };
        assert_eq!(
            WeightsError::Mismatch(mismatch).to_string(),
            "the weights do not fit the network: 7 missing (m0, m1, m2, m3, m4 and 2 more); \
             1 unexpected (u); s has shape [2], expected [1, 2]"
        );
    }
}
