//! Parity with torchvision on formula-filled weights: see tests/golden/README.md for the fixtures and their
//! tolerances. Run with `--nocapture` to see every difference.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but does not see their helpers

mod case;
mod classifiers;
mod explain;
mod formula;
mod operators;
mod pyramid;
mod retinanet;
