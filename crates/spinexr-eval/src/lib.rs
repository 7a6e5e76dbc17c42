//! Evaluation over prediction records, and the report. No model, no GPU: everything here is computed from
//! the JSON Lines records that a run leaves behind and from the annotations, so it can be repeated by
//! anyone who has the two.
//!
//! - [`scores`], [`roc`], [`binary`], [`intervals`], [`ties`]: one score a film; equal to scikit-learn.
//! - [`box_metrics`], [`error_kinds`], [`box_bootstrap`]: boxes beyond AP.
//! - [`agreement`]: two readers on the same films.
//! - [`calibration`], [`decision_curve`]: what probabilities are worth. [`paired`]: two models on the same films.
//! - [`coco`], [`coco_json`], [`froc`]: boxes; equal to pycocotools.
//! - [`records`], [`score_file`]: the files that are read and written.
//! - [`threshold`]: thresholds that only validation predictions can make, held by the type system.
//! - [`run`]: both tables of the paper for one run, as [`RunReport`].
//! - [`compare`]: any number of runs side by side. [`drift`]: a new batch of records beside a reference.
//! - [`report`]: the same as one HTML file.
//!
//! A metric that is not defined (an AUROC without a positive film, the AP of a class without a box) is
//! `None`, never 0 or 0.5. No result depends on the order of films or on the number of threads.

pub mod agreement;
pub mod binary;
pub mod box_bootstrap;
pub mod box_metrics;
pub mod calibration;
pub mod coco;
pub mod coco_json;
pub mod compare;
pub mod decision_curve;
pub mod drift;
pub mod error;
pub mod error_kinds;
mod files;
pub mod froc;
#[cfg(test)]
mod golden_sets;
pub mod intervals;
pub mod paired;
pub mod records;
pub mod report;
pub mod roc;
pub mod run;
pub mod score_file;
pub mod scores;
pub mod threshold;
pub mod ties;

pub use error::EvalError;
pub use run::{RunOptions, RunReport, ThresholdSource, evaluate_run};
pub use scores::LabelledScores;
pub use threshold::{Predictions, Test, Threshold, Validation};
