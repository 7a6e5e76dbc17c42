//! Synthetic spine radiographs with true boxes
