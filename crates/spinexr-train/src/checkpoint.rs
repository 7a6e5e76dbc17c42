//! Checkpoints: one file with everything an exact resume needs, guarded by a checksum.
//!
//! Layout: three lines of text, then a safetensors file.
//! ```text
//! spinexr checkpoint 1
//! <SHA-256 of all bytes after the third line, hexadecimal>
//! <number of those bytes, decimal>
//! <safetensors: model/…, ema/…, optim/…, best/…; the metadata as JSON under `spinexr`>
//! ```
//! The loader's batch at a step is a pure function of the seed and the step, and no model draws random
//! numbers in training, so no generator state is kept.

use crate::TrainError;
use crate::optim::ParamState;
use crate::state::{read_back, to_le_bytes, upload};
use burn::tensor::Device;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use spinexr_core::{hex, whole_file};
use spinexr_models::weights::{Entry, StateDict};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

const MAGIC: &str = "spinexr checkpoint 1";

/// One evaluation on the validation films.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Updates made before it.
    pub step: u64,
    /// Name of the deciding metric: `auroc` or `map50`.
    pub metric_name: String,
    /// The deciding metric; `None` where it is undefined (one class only among the films, no box).
    pub metric: Option<f64>,
    /// Further figures by name.
    #[serde(default)]
    pub others: BTreeMap<String, Option<f64>>,
}

/// What a checkpoint says about the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Optimiser updates made.
    pub step: u64,
    /// The resolved experiment, as TOML.
    pub experiment: String,
    /// Hash of the films and their annotations.
    pub data_hash: String,
    /// Evaluations so far.
    pub history: Vec<Evaluation>,
    /// The best of them.
    pub best: Option<Evaluation>,
    /// Seconds spent training so far, over all sessions.
    pub elapsed_s: f64,
    /// Processes that train together.
    #[serde(default = "one")]
    pub ranks: usize,
    /// Length of `log.jsonl` at this step, bytes.
    pub log_bytes: u64,
    /// Length of the events file at this step, bytes.
    pub events_bytes: u64,
}

// Checkpoints from before there could be more.
fn one() -> usize {
    1
}

/// A checkpoint in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Position and history.
    pub meta: Meta,
    /// Weights and running statistics.
    pub model: StateDict,
    /// Their moving average, when there is one.
    pub ema: Option<StateDict>,
    /// Optimiser state: `<parameter>/first`, `<parameter>/second`, `<parameter>/steps` (one value).
    pub optimiser: StateDict,
    /// Weights of the best evaluation so far. They are here so that one rename moves a run from one state
    /// to the next; `best.ckpt` is a copy.
    pub best: StateDict,
}

impl Checkpoint {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let empty = StateDict::new();
        let ema = self.ema.as_ref().unwrap_or(&empty);
        let parts = [("model", &self.model), ("ema", ema), ("optim", &self.optimiser), ("best", &self.best)];
        let stored: BTreeMap<String, (&[usize], Vec<u8>)> = parts
            .iter()
            .flat_map(|(part, state)| {
                state.iter().map(move |(name, tensor)| {
                    (format!("{part}/{name}"), (tensor.shape.as_slice(), to_le_bytes(&tensor.values)))
                })
            })
            .collect();
        let views: Vec<(&String, TensorView<'_>)> = stored
            .iter()
            .map(|(name, (shape, bytes))| {
                let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes)
                    .expect("a host tensor has as many values as its shape says");
                (name, view)
            })
            .collect();
        let header = Header { meta: self.meta.clone(), has_ema: self.ema.is_some() };
        let header = serde_json::to_string(&header).expect("the metadata are plain data");
        let body = safetensors::serialize(views, Some(HashMap::from([("spinexr".to_owned(), header)])))
            .expect("names are unique and sizes fit");
        let checksum = hex(&Sha256::digest(&body));
        let mut bytes = format!("{MAGIC}\n{checksum}\n{}\n", body.len()).into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When the folder does not take the file; an older checkpoint of that name is then still there.
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        whole_file::write(path, &self.to_bytes()).map_err(TrainError::io(path, "write"))
    }

    /// Reads and checks a checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] for a file that is cut short, altered or no checkpoint: nothing else is
    /// tried in its place.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(TrainError::io(path, "read"))?;
        Self::from_bytes(&bytes).map_err(|fault| TrainError::Checkpoint { path: path.to_owned(), fault })
    }

    /// Reads and checks a checkpoint's bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointFault> {
        let mut rest = bytes;
        let mut line = |expected: &'static str| -> Result<&str, CheckpointFault> {
            let end = rest.iter().take(80).position(|&b| b == b'\n');
            let end = end.ok_or(CheckpointFault::NotACheckpoint { expected })?;
            let text = std::str::from_utf8(&rest[..end]);
            rest = &rest[end + 1..];
            text.map_err(|_| CheckpointFault::NotACheckpoint { expected })
        };
        if line(MAGIC)? != MAGIC {
            return Err(CheckpointFault::NotACheckpoint { expected: MAGIC });
        }
        let expected_sum = line("a SHA-256 checksum")?.to_owned();
        let expected_len: u64 = line("a length")?
            .parse()
            .map_err(|_| CheckpointFault::NotACheckpoint { expected: "a length" })?;
        if rest.len() as u64 != expected_len {
            return Err(CheckpointFault::Length { expected: expected_len, got: rest.len() as u64 });
        }
        let got = hex(&Sha256::digest(rest));
        if got != expected_sum {
            return Err(CheckpointFault::Checksum { expected: expected_sum, got });
        }
        Self::from_body(rest).map_err(CheckpointFault::Content)
    }

    fn from_body(body: &[u8]) -> Result<Self, String> {
        let (_, metadata) = SafeTensors::read_metadata(body).map_err(|e| e.to_string())?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get("spinexr"));
        let header = header.ok_or("expected metadata under `spinexr`, found none")?;
        let header: Header = serde_json::from_str(header).map_err(|e| e.to_string())?;
        let [mut model, mut ema, mut optimiser, mut best] = [const { StateDict::new() }; 4];
        let tensors = SafeTensors::deserialize(body).map_err(|e| e.to_string())?;
        for (full_name, view) in tensors.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(format!("{full_name}: expected F32, found {:?}", view.dtype()));
            }
            let (chunks, _) = view.data().as_chunks::<4>();
            let values = chunks.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let tensor = Entry { shape: view.shape().to_vec(), values };
            match full_name.split_once('/') {
                Some(("model", name)) => model.insert(name.to_owned(), tensor),
                Some(("ema", name)) => ema.insert(name.to_owned(), tensor),
                Some(("optim", name)) => optimiser.insert(name.to_owned(), tensor),
                Some(("best", name)) => best.insert(name.to_owned(), tensor),
                _ => return Err(format!("{full_name}: expected a name under model/, ema/, optim/ or best/")),
            };
        }
        Ok(Self { meta: header.meta, model, ema: header.has_ema.then_some(ema), optimiser, best })
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(flatten)]
    meta: Meta,
    has_ema: bool,
}

/// Optimiser state as host tensors.
pub fn pack_optimiser(state: &BTreeMap<String, ParamState>) -> StateDict {
    let mut packed = StateDict::new();
    for (name, s) in state {
        let mut put = |slot: &str, tensor: Entry| packed.insert(format!("{name}/{slot}"), tensor);
        let flat = |t: &burn::tensor::Tensor<1>| read_back(t.clone(), t.dims().to_vec());
        put("first", flat(&s.first));
        if let Some(second) = &s.second {
            put("second", flat(second));
        }
        // Kept as a number, as PyTorch keeps it: exact up to 16 million updates.
        put("steps", Entry { shape: vec![1], values: vec![s.steps as f32] });
    }
    packed
}

/// The inverse of [`pack_optimiser`], on `device` (without autodiff).
///
/// # Errors
/// The name of an entry that is missing or not understood.
pub fn unpack_optimiser(packed: &StateDict, device: &Device) -> Result<BTreeMap<String, ParamState>, String> {
    let mut state = BTreeMap::new();
    for (key, first) in packed {
        let (name, slot) = key.rsplit_once('/').ok_or_else(|| format!("optim/{key}: expected a slot"))?;
        if slot != "first" {
            continue;
        }
        let steps = packed
            .get(&format!("{name}/steps"))
            .and_then(|t| t.values.first())
            .ok_or_else(|| format!("optim/{name}/steps is missing"))?;
        let second = packed.get(&format!("{name}/second")).map(|t| upload(t, device));
        state.insert(
            name.to_owned(),
            ParamState { steps: *steps as u32, first: upload(first, device), second },
        );
    }
    Ok(state)
}

/// What is wrong with a checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFault {
    /// It does not begin as one.
    #[error("no checkpoint: expected {expected}, found something else")]
    NotACheckpoint {
        /// What should stand there.
        expected: &'static str,
    },
    /// It is shorter or longer than it says.
    #[error("cut short or spliced: expected {expected} bytes after the header, found {got}")]
    Length {
        /// Bytes announced.
        expected: u64,
        /// Bytes present.
        got: u64,
    },
    /// It was altered.
    #[error("altered: expected SHA-256 {expected}, found {got}")]
    Checksum {
        /// Checksum in the header.
        expected: String,
        /// Checksum of the content.
        got: String,
    },
    /// The checksum is right and the content is not: written by another version.
    #[error("not readable by this version: {0}")]
    Content(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tensor(shape: &[usize], first: f32) -> Entry {
        let numel = shape.iter().product();
        Entry { shape: shape.to_vec(), values: (0..numel).map(|i| first + i as f32 * 0.1).collect() }
    }

    fn checkpoint() -> Checkpoint {
        let evaluation = Evaluation {
            step: 5,
            metric_name: "auroc".into(),
            metric: Some(0.1 + 0.2),
            others: BTreeMap::from([("loss".into(), None)]),
        };
        Checkpoint {
            meta: Meta {
                step: 7,
                experiment: "name = \"x\"\n".into(),
                data_hash: "abc".into(),
                history: vec![evaluation.clone()],
                best: Some(evaluation),
                elapsed_s: 1.0 / 3.0,
                ranks: 2,
                log_bytes: 1234,
                events_bytes: 99,
            },
            model: StateDict::from([
                ("a.weight".into(), tensor(&[2, 3], 0.5)),
                ("a.bias".into(), tensor(&[3], -1.0)),
            ]),
            ema: Some(StateDict::from([("a.weight".into(), tensor(&[2, 3], 0.25))])),
            optimiser: StateDict::from([
                ("a.weight/first".into(), tensor(&[6], 9.0)),
                ("a.weight/steps".into(), tensor(&[1], 7.0)),
            ]),
            best: StateDict::from([("a.bias".into(), tensor(&[3], 2.0))]),
        }
    }

    #[test]
    fn round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last.ckpt");
        let written = checkpoint();
        written.write(&path).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap(), written);
        assert_eq!(written.to_bytes(), written.to_bytes(), "same content, same bytes");
        let mut without = written;
        without.ema = None;
        without.write(&path).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap(), without);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn optimiser_state_round_trip() {
        let device = Device::flex();
        let packed = StateDict::from([
            ("a.w/first".into(), tensor(&[6], 9.0)),
            ("a.w/second".into(), tensor(&[6], 1.0)),
            ("a.w/steps".into(), tensor(&[1], 7.0)),
        ]);
        let state = unpack_optimiser(&packed, &device).unwrap();
        assert_eq!(state["a.w"].steps, 7);
        assert_eq!(pack_optimiser(&state), packed);
        let mut broken = packed;
        broken.remove("a.w/steps");
        assert!(unpack_optimiser(&broken, &device).unwrap_err().contains("a.w/steps"));
    }

    #[test]
    fn a_file_cut_short_says_how_much_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last.ckpt");
        let bytes = checkpoint().to_bytes();
        std::fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
        let message = Checkpoint::read(&path).unwrap_err().to_string();
        assert!(message.contains("last.ckpt") && message.contains("cut short"), "{message}");
    }

    proptest! {
        #[test]
        fn no_truncation_passes(cut in 0usize..2000) {
            let bytes = checkpoint().to_bytes();
            let cut = cut % bytes.len();
            prop_assert!(Checkpoint::from_bytes(&bytes[..cut]).is_err());
        }

        #[test]
        fn no_flipped_bit_passes(byte in 0usize..20_000, bit in 0u8..8) {
            let mut bytes = checkpoint().to_bytes();
            let at = byte % bytes.len();
            bytes[at] ^= 1 << bit;
            let fault = Checkpoint::from_bytes(&bytes).unwrap_err();
            if at > 100 {
                let says = matches!(&fault, CheckpointFault::Checksum { expected, got } if expected != got);
                prop_assert!(says, "byte {at}: {fault}");
            }
        }
    }
}
