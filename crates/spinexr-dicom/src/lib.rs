//! Reading and writing radiographs: stored values to display pixels, with provenance
