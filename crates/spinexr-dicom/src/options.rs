//! What a caller chooses when reading a film.

use serde::{Deserialize, Serialize};

/// How stored values become display pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The published VinDr recipe: the VOI LUT applied to stored values, without the modality step, then
    /// stretched to 8 bits. Kept for comparison with the paper's numbers.
    Vindr,
    /// The DICOM standard: modality, VOI, polarity, on a scale of 0 to 1.
    #[default]
    Standard,
}

impl Policy {
    /// `vindr`, `standard`: as in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vindr => "vindr",
            Self::Standard => "standard",
        }
    }
}

/// A stage of the pixel pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The integers the file codes, `i32`.
    Stored,
    /// After the Modality LUT or rescale, `f64`.
    Modality,
    /// After the VOI LUT or window, in the output range of that step, `f64`.
    Voi,
    /// Ready to look at, bone bright: `u8` for [`Policy::Vindr`], `f32` in 0..=1 for [`Policy::Standard`].
    Display,
}

/// What a file may cost before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest file, bytes.
    pub max_file_bytes: u64,
    /// Most pixel samples in one file: rows × columns × samples per pixel × frames.
    pub max_pixels: u64,
    /// Largest data set after inflating a deflated file, bytes.
    pub max_inflated_bytes: u64,
    /// Deepest nesting of sequences.
    pub max_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: 1 << 30,
            max_pixels: 100_000_000,
            max_inflated_bytes: 256 << 20,
            max_depth: 64,
        }
    }
}

/// How to read a film.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// How stored values become display pixels.
    pub policy: Policy,
    /// Frame of a multi-frame file, counted from 0.
    pub frame: u32,
    /// What the file may cost.
    pub limits: Limits,
}
