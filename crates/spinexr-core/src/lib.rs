//! What every part of spinexr agrees on: classes and the paper's findings, boxes in film pixels, suppression, the paper's
//! decision rule and the records that are written for a film. No tensors, and no input or output but
//! [`whole_file`], the one way in which files are written.
//!
//! Source: VinDr-SpineXR, arXiv 2106.12930 (MICCAI 2021).

pub mod annotation;
pub mod box_fusion;
pub mod boxes;
pub mod calendar;
pub mod classes;
pub mod film_facts;
pub mod findings;
pub mod fusion;
mod hex;
pub mod method;
pub mod nms;
pub mod prediction;
pub mod progress;
pub mod split;
pub mod whole_file;

pub use annotation::{Annotation, FilmAnnotation};
pub use box_fusion::WeightedBoxFusion;
pub use boxes::BoxXyxy;
pub use classes::{ClassList, Label, UnknownLabel};
pub use film_facts::FilmFacts;
pub use findings::{Category, Finding};
pub use fusion::Gate;
pub use hex::hex;
pub use method::{BoxFusion, Method, Tta};
pub use prediction::{Detection, FilmPrediction, Logits};
pub use split::Split;
