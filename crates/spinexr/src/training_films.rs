//! Which films a model may have been trained on: no threshold is chosen on them, and no figure is taken from them.

use crate::evaluation::AnnotationsArgs;
use crate::exit::{CommandError, usage};
use anyhow::{Context, anyhow};
use spinexr_core::{FilmPrediction, Split};
use spinexr_data::SplitDataset;
use spinexr_eval::threshold::by_split;
use spinexr_eval::{Predictions, Validation};
use spinexr_infer::{Bundle, joint_hash};
use std::collections::{BTreeSet, HashMap};

/// Refuses records that the bundles did not make, validation films that some model was not held out from, and test films of
/// studies that some model was trained on.
pub fn check(
    bundles: &[Bundle],
    films: &[FilmPrediction],
    annotations: &AnnotationsArgs,
) -> Result<(), CommandError> {
    let hash = joint_hash(bundles);
    if let Some(other) = films.iter().find(|film| film.model != hash) {
        return Err(usage(anyhow!(
            "the record of {} was made by bundle {}, expected {hash}, the hash of the bundles given",
            other.image,
            other.model
        )));
    }
    let validation = by_split(films.to_vec()).validation;
    let validation = Predictions::<Validation>::new(validation).map_err(anyhow::Error::from)?;
    let Some(drawn) = held_out(bundles, &validation, annotations)? else { return Ok(()) };
    let trained: BTreeSet<&str> =
        drawn.dataset.of(Split::Train).map(|film| film.annotation.study_id.as_str()).collect();
    let annotated = drawn.dataset.films.iter().map(|film| &film.annotation);
    let study_of: HashMap<&str, &str> =
        annotated.map(|film| (film.image_id.as_str(), film.study_id.as_str())).collect();
    let tested = films.iter().filter(|film| film.split == Some(Split::Test));
    let mut studies = tested.filter_map(|film| Some((film, *study_of.get(film.image.as_str())?)));
    match studies.find(|(_, study)| trained.contains(study)) {
        None => Ok(()),
        Some((film, study)) => Err(usage(anyhow!(
            "the predictions call {} (study {study}) a test film, but the models were trained on that study: figures on it say \
             nothing of new films",
            film.image
        ))),
    }
}

/// Refuses validation films that some model may have been trained on: all models must have held out the same
/// studies, and every film must be of one of these.
pub fn check_hold_outs(
    bundles: &[Bundle],
    validation: &Predictions<Validation>,
    annotations: &AnnotationsArgs,
) -> Result<(), CommandError> {
    held_out(bundles, validation, annotations).map(drop)
}

/// As [`check_hold_outs`], with the data set split as the models' training split it; `None` without a model.
fn held_out(
    bundles: &[Bundle],
    validation: &Predictions<Validation>,
    annotations: &AnnotationsArgs,
) -> Result<Option<SplitDataset>, CommandError> {
    let mut models = bundles.iter().flat_map(|b| &b.manifest().models);
    let Some(first) = models.next() else { return Ok(None) };
    let held = first.known_hold_out().map_err(usage)?;
    for model in models {
        model.check_hold_out(held).map_err(usage)?;
    }
    let drawn =
        SplitDataset::read(&annotations.dir, annotations.format(), held.validation_fraction, held.split_seed)
            .with_context(|| format!("reading the annotations in {}", annotations.dir.display()))?;
    first.check_hold_out(&drawn.hold_out).map_err(usage)?;
    let new: BTreeSet<&str> =
        drawn.dataset.of(Split::Validation).map(|film| film.annotation.image_id.as_str()).collect();
    match validation.films().find(|film| !new.contains(film.image.as_str())) {
        None => Ok(Some(drawn)),
        Some(film) => Err(usage(anyhow!(
            "the predictions call {} (study {}) a validation film, but the models held out {held}: they may have been \
             trained on it; predict with the configuration that they were trained with",
            film.image,
            film.study
        ))),
    }
}
