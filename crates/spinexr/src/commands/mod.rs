//! The subcommands, one a file.

pub mod data;
pub mod demo;
pub mod doctor;
pub mod evaluate;
pub mod image;
pub mod model;
pub mod predict;
pub mod read_sr;
pub mod readings;
pub mod serve;
pub mod synth;
pub mod train;
