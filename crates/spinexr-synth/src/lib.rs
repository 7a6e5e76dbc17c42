//! Synthetic spine radiographs with true boxes.

pub mod dataset;
pub mod detector;
pub mod exposure;
pub mod film;
pub mod lesion;
pub mod outline;
pub mod patient;
pub mod plan;
pub mod random;
pub mod raster;
pub mod scene;
pub mod soft;
pub mod solid;
pub mod space;
pub mod spine;
pub mod surroundings;
pub mod vertebra;

pub use dataset::{SynthConfig, SynthError, SynthSummary, generate};
pub use film::{Film, FilmSpec, MarkedBox, render_film};
