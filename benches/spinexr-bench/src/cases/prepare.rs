//! Film preparation: from DICOM files to what training reads, on the disk.

use crate::inputs;
use crate::measure::{Plan, timed};
use crate::sizes::Sizes;
use anyhow::{Context, Result, bail};
use spinexr_core::progress::silent;
use spinexr_core::{FilmAnnotation, Split};
use spinexr_data::{Cache, Dataset, Film, Fit, InputSize, cache};
use spinexr_dicom::{Policy, ReadOptions};
use std::path::{Path, PathBuf};

/// Every film read by the published recipe, resized and written to a fresh cache, with its checksums and syncs. The
/// mean of the prepared pixels, on a scale of 0 to 1, is what was computed.
pub fn prepare(dir: &Path, sizes: &Sizes, plan: &Plan) -> Result<(Vec<f64>, f64)> {
    let input = InputSize {
        height_px: sizes.prepared_height_px,
        width_px: sizes.prepared_width_px,
        fit: Fit::Stretch,
    };
    let options = ReadOptions { policy: Policy::Vindr, ..ReadOptions::default() };
    let films = inputs::read_films(dir)?.into_iter().map(film).collect();
    let data = Dataset { films, ..Dataset::default() };
    plan.measure(|| {
        let made = tempfile::tempdir_in(dir).context("making a folder for the prepared films")?;
        let (seconds, outcome) =
            timed(|| cache::prepare(&data, made.path(), &[input], &options, plan.threads, &silent));
        if let Some(failure) = outcome?.failures.first() {
            bail!("{}", failure.error);
        }
        let prepared = Cache::open(made.path(), &input, Policy::Vindr)?.with_memory_limit(0);
        let mut sum = 0.0;
        for film in &data.films {
            let pixels = prepared.get(&film.annotation.image_id)?.pixels;
            sum += pixels.iter().map(|&v| f64::from(v) / 65535.0).sum::<f64>() / pixels.len() as f64;
        }
        Ok((seconds, sum / data.films.len() as f64))
    })
}

/// A film without boxes: the cache looks at nothing but its file and its name.
fn film(path: PathBuf) -> Film {
    let image_id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let annotation = FilmAnnotation {
        study_id: image_id.clone(),
        image_id,
        series_id: String::new(),
        abnormal: false,
        boxes: vec![],
    };
    Film { path, annotation, split: Split::Train }
}
