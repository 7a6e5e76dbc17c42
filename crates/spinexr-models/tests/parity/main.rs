//! Parity with torchvision on formula-filled weights: see tests/golden/README.md for the fixtures and their
//! tolerances. Run with `--nocapture` to see every difference.

mod case;
mod classifiers;
mod formula;
mod operators;
mod pyramid;
mod retinanet;
