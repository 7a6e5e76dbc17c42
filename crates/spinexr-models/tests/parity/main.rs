//! Parity with torchvision on formula-filled weights: see tests/golden/README.md for the fixtures and their
//! tolerances. Run with `--nocapture` to see every difference.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but does not see their helpers

mod case;
mod classifiers;
mod faster_rcnn;
mod formula;
mod operators;
mod optimiser_step;
mod pyramid;
mod retinanet;
mod roi_pooling;
mod sparse_rcnn;
mod torchvision_detectors;
