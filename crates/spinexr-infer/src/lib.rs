//! Bundles and the prediction pipeline
