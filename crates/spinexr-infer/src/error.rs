//! What can go wrong between a bundle, a film and a results file.

use crate::device::DeviceError;
use crate::engine::EngineError;
use spinexr_core::UnknownLabel;
use spinexr_models::weights::WeightsError;
use std::path::{Path, PathBuf};

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// A file or folder could not be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: `read`, `write`, …
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A film's box is of a class that the results file has no number for.
    #[error("film {image}: {source}")]
    UnknownLabel {
        /// The film.
        image: String,
        /// The label and the list.
        source: UnknownLabel,
    },
    /// A folder lacks one of the three files of a bundle.
    #[error("{}: not a bundle: {file} is missing (a bundle is a folder with bundle.toml, weights.safetensors and card.md)", path.display())]
    NotABundle {
        /// The folder.
        path: PathBuf,
        /// The missing file.
        file: &'static str,
    },
    /// A part of a bundle is too large to be one.
    #[error("{place}: {got} bytes, expected at most {limit}")]
    TooLarge {
        /// File, or `<embedded>` for a bundle made from bytes.
        place: String,
        /// Size found, bytes.
        got: u64,
        /// Largest size allowed, bytes.
        limit: u64,
    },
    /// `bundle.toml` does not parse: syntax, an unknown key, a missing key, a value of another type.
    #[error("{place}: {message}")]
    Manifest {
        /// File, or `<embedded>`.
        place: String,
        /// The parser's message, with line and column.
        message: String,
    },
    /// `bundle.toml` parses but contradicts itself.
    #[error("{place}: {key}: expected {expected}, got {got}")]
    ManifestValue {
        /// File, or `<embedded>`.
        place: String,
        /// The key.
        key: String,
        /// What would be right.
        expected: String,
        /// What is there.
        got: String,
    },
    /// The bytes are not those that were saved: the bundle is cut short, damaged or edited.
    #[error("{place}: the checksum of {what} does not match: expected {expected}, got {got}")]
    Checksum {
        /// File, or `<embedded>`.
        place: String,
        /// `weights.safetensors`, or `bundle.toml + weights.safetensors`.
        what: &'static str,
        /// SHA-256 in `bundle.toml`.
        expected: String,
        /// SHA-256 of what is there.
        got: String,
    },
    /// `weights.safetensors` is no safetensors file or holds a tensor that cannot be used.
    #[error("{place}: weights.safetensors: {message}")]
    Weights {
        /// Bundle.
        place: String,
        /// Reason, naming the tensor where there is one.
        message: String,
    },
    /// The weights are not those of the named architecture.
    #[error("model {model:?} ({architecture}): {message}")]
    ModelWeights {
        /// Model name.
        model: String,
        /// Architecture named by the bundle.
        architecture: String,
        /// Which tensor is missing, unexpected or of another shape.
        message: String,
    },
    /// Weights of another program that cannot be taken.
    #[error("{place}: {source}")]
    Import {
        /// The file.
        place: String,
        /// Why not.
        source: WeightsError,
    },
    /// A network that cannot be written in this form.
    #[error("model {model:?} ({architecture}) cannot be written as ONNX: {message}")]
    Export {
        /// Model name.
        model: String,
        /// Its architecture.
        architecture: String,
        /// Why not.
        message: String,
    },
    /// Two models of one framework have the same name.
    #[error("two models are named {name:?}: {first} and {second}; rename one")]
    NameClash {
        /// The name.
        name: String,
        /// Bundle of the first.
        first: String,
        /// Bundle of the second.
        second: String,
    },
    /// A model does not say which studies it was not trained on.
    #[error(
        "model {model:?} does not say which validation studies were held out of its training; no threshold can be chosen for it: train it anew"
    )]
    HoldOutUnknown {
        /// Model name.
        model: String,
    },
    /// Validation films may be films that a model was trained on.
    #[error(
        "model {model:?} was trained with other validation studies held out: {own}; the films here are of {used}; it may have been trained on them, and no threshold can be chosen there"
    )]
    HoldOutDiffers {
        /// Model name.
        model: String,
        /// The hold-out of its training.
        own: String,
        /// The hold-out that the films belong to.
        used: String,
    },
    /// Several bundles were given and it is not clear which threshold holds for them together.
    #[error(
        "{bundles} bundles are used together, but the decision threshold of {holder:?} was chosen for its own models; combine them into one bundle with a threshold chosen on validation films, or give a threshold"
    )]
    AmbiguousDecision {
        /// Number of bundles.
        bundles: usize,
        /// The bundle that has a threshold.
        holder: String,
    },
    /// There is nothing to predict with.
    #[error("no model: at least one bundle with at least one model is needed")]
    NoModel,
    /// A film could not be read; the rest of a batch goes on.
    #[error(transparent)]
    Read(Box<spinexr_dicom::ReadError>),
    /// A prepared film, or a prepared set as a whole, could not be read.
    #[error(transparent)]
    Data(Box<spinexr_data::DataError>),
    /// A model gave NaN or infinity for a film; the rest of a batch goes on.
    #[error("{image}: model {model:?} gave {what} that are not finite; the film gets no prediction")]
    NotFinite {
        /// Image id.
        image: String,
        /// Model name.
        model: String,
        /// `logits` or `box deltas`.
        what: &'static str,
    },
    /// Reading a film ended in a bug of ours; the rest of a batch goes on.
    #[error("{place}: internal error: {message}")]
    Panicked {
        /// Film.
        place: String,
        /// The panic's message.
        message: String,
    },
    /// The engine asked for cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No such device in this build.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A picture could not be encoded.
    #[error("{}: cannot encode the picture: {message}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Reason.
        message: String,
    },
}

impl InferError {
    /// Makes an [`InferError::Io`] of a system error.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}

// The two are boxed so that a result is not made large by its rarest error.
impl From<spinexr_data::DataError> for InferError {
    fn from(error: spinexr_data::DataError) -> Self {
        Self::Data(Box::new(error))
    }
}

impl From<spinexr_dicom::ReadError> for InferError {
    fn from(error: spinexr_dicom::ReadError) -> Self {
        Self::Read(Box::new(error))
    }
}
