//! From a trained model to a finding on a film: bundles, the prediction pipeline, and what is written.
//!
//! ```text
//! film ──read──▶ Radiograph ──prepare_film──▶ input ──▶ classifiers ─▶ mean logit ─▶ p(abnormal) ─┐
//!                                                  └──▶ detectors ──▶ boxes in film px ──────────┴▶ gate ─▶ FilmPrediction
//! ```
//!
//! Logits are stored; the sigmoid is taken once, when a record is made. Boxes are film px everywhere outside
//! [`pipeline`].

pub mod bundle;
pub mod card;
pub mod device;
pub mod dicom_results;
pub mod engine;
pub mod error;
pub mod evidence_picture;
pub mod explain;
pub mod export;
pub mod import;
mod in_order;
mod joint;
mod label_layout;
mod lettering;
pub mod manifest;
pub mod model;
#[cfg(feature = "ort")]
mod ort_engine;
pub mod outputs;
pub mod overlay;
pub mod pipeline;
pub mod weights_file;

pub use bundle::{Bundle, BundleInfo, combine};
pub use card::{CardFacts, CardMetric, card};
pub use device::{DeviceChoice, DeviceError, parse_device};
pub use engine::{Engine, EngineError};
pub use error::InferError;
pub use explain::{Explainer, Explanation};
pub use joint::joint_hash;
pub use manifest::{BundleManifest, ChosenOn, Decision, ModelSpec};
pub use outputs::{ResultsFormat, ResultsWriter};
pub use overlay::OverlayOptions;
pub use pipeline::{FilmResult, Pipeline, PipelineOptions, PredictSummary};
pub use weights_file::Storage;
