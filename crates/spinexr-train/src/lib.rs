//! Training: experiments, optimisers, schedules, averages, checkpoints, logs and the loop.
//!
//! [`Experiment`] says everything that changes numbers; [`data::load`] or [`TrainData::open`] gives the films;
//! [`train`] runs, tells its caller of each [`Event`] and gives a [`TrainOutcome`]. A run is repeatable to the
//! bit on the CPU, and can be killed at any moment and resumed from its folder ([`RunDir`]). Several processes
//! can train together ([`Ranks`]).

pub mod checkpoint;
pub mod clip;
pub mod config;
pub mod config_error;
pub mod data;
pub mod ema;
pub mod engine;
pub mod error;
pub mod layer_decay;
pub mod logs;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod optim;
pub mod params;
pub mod ranks;
pub mod run_dir;
pub mod schedule;
pub mod state;
pub mod tensorboard;

mod classification;
mod detection;
mod initial;
mod session;
mod session_files;

pub use burn::tensor::Device;
pub use checkpoint::{Checkpoint, Evaluation};
pub use config::Experiment;
pub use config_error::ConfigError;
pub use data::{TrainData, load};
pub use engine::{Event, TrainOptions, TrainOutcome, check_device, train};
pub use error::TrainError;
pub use logs::{StepRecord, read_log};
pub use ranks::Ranks;
pub use run_dir::{LeftOut, Manifest, RunDir, RunState};
pub use spinexr_ops::Precision;
