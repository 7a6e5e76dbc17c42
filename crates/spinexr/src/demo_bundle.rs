//! The demonstration bundle, part of the binary: two small classifiers and a small detector trained on
//! synthetic films. `cargo xtask demo-bundle` makes it.

use spinexr_infer::{Bundle, InferError};

/// Said on every use.
pub const WARNING: &str = "\
WARNING: this is a DEMONSTRATION bundle. It was trained on synthetic films only, shows how the
         program works, and says nothing about patients.";

const MANIFEST: &str = include_str!("../../../bundles/demo.spinexr/bundle.toml");
const CARD: &str = include_str!("../../../bundles/demo.spinexr/card.md");
static WEIGHTS: &[u8] = include_bytes!("../../../bundles/demo.spinexr/weights.safetensors");

/// The bundle, verified like any other.
pub fn load() -> Result<Bundle, anyhow::Error> {
    Bundle::from_parts(MANIFEST, WEIGHTS, CARD)
        .map_err(|e: InferError| anyhow::Error::new(e).context("the bundle inside this program"))
}
