//! How large the cases are. Both sides read them from `sizes.json`.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

const FILE: &str = "sizes.json";

/// Sizes of all cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Height and width of the classifier's input.
    pub classifier_px: usize,
    /// Images of a batch, where a case says `b8`.
    pub batch: usize,
    /// Height of the detector's input.
    pub detector_height_px: usize,
    /// Width of it.
    pub detector_width_px: usize,
    /// Stages of Sparse R-CNN; six as published.
    pub sparse_rcnn_stages: usize,
    /// True boxes in the image of a detector's step.
    pub boxes: usize,
    /// Most films that are prepared.
    pub films: usize,
    /// Height of the films.
    pub film_height_px: u32,
    /// Height of a prepared film.
    pub prepared_height_px: u32,
    /// Width of it.
    pub prepared_width_px: u32,
    /// Films that are evaluated.
    pub evaluated_films: usize,
    /// Detections of each.
    pub detections_per_film: usize,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Resamples that the loop over scikit-learn makes; its time is scaled to `resamples`.
    pub peer_resamples: usize,
}

impl Sizes {
    /// The sizes that figures are quoted at: the paper's classifier, its test set, its films and its bootstrap.
    pub const FULL: Self = Self {
        classifier_px: 224,
        batch: 8,
        detector_height_px: 800,
        detector_width_px: 1216,
        sparse_rcnn_stages: 6,
        boxes: 6,
        films: 24,
        film_height_px: 2455,
        prepared_height_px: 1344,
        prepared_width_px: 896,
        evaluated_films: 2077,
        detections_per_film: 100,
        resamples: 10_000,
        peer_resamples: 500,
    };

    /// Sizes that run in seconds. A batch norm over two or three values would be all rounding error, so the classifier's
    /// last map keeps 16 of them.
    pub const TINY: Self = Self {
        classifier_px: 64,
        batch: 4,
        detector_height_px: 64,
        detector_width_px: 96,
        sparse_rcnn_stages: 1,
        boxes: 2,
        films: 3,
        film_height_px: 96,
        prepared_height_px: 48,
        prepared_width_px: 32,
        evaluated_films: 20,
        detections_per_film: 10,
        resamples: 100,
        peer_resamples: 20,
    };

    /// Reads the sizes of a folder of inputs.
    pub fn read(inputs: &Path) -> Result<Self> {
        let path = inputs.join(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{}: not the sizes of this version", path.display()))
    }

    /// Writes them into a folder of inputs.
    pub fn write(&self, inputs: &Path) -> Result<()> {
        let path = inputs.join(FILE);
        let text = serde_json::to_string_pretty(self).expect("sizes are plain numbers");
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}
