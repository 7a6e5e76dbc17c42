//! Structured reports that were corrected in another viewer, taken over as readings.
//!
//! A report of the form that [`spinexr_dicom::results`] writes names its films by SOP Instance UID, and a box that has lost
//! its confidence is one that a reader drew.

use crate::annotation::{AnnotatedBox, Annotation, AnnotationState, Origin};
use crate::error::ServeError;
use crate::spool::Spool;
use crate::store::{InstanceKind, Level, Query, Store};
use spinexr_core::Category;
use spinexr_dicom::results::ReportedFilm;
use spinexr_dicom::{Limits, read_size};
use std::path::Path;

/// Whose readings they become, and what they may say.
#[derive(Debug, Clone, Copy)]
pub struct Correction<'a> {
    /// Reader's name.
    pub reader: &'a str,
    /// Findings that can be marked; any where `None`.
    pub labels: Option<&'a [String]>,
    /// Whether one takes the place of a reading that is there.
    pub replace: bool,
}

/// Why what a report says of a film was not taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorrectionError {
    /// The film is not here.
    #[error("film {uid}: it is not in the data folder")]
    UnknownFilm {
        /// SOP Instance UID.
        uid: String,
    },
    /// It cannot be a reading.
    #[error("film {uid}: {reason}")]
    NotAReading {
        /// SOP Instance UID.
        uid: String,
        /// Why.
        reason: String,
    },
    /// The reader has a reading of the film.
    #[error("film {uid}: {reader} has read it already; replacing it must be asked for")]
    ReadAlready {
        /// SOP Instance UID.
        uid: String,
        /// Reader's name.
        reader: String,
    },
    /// The reading was changed at the same moment.
    #[error("film {uid}: its reading was changed at the same moment; try again")]
    Changed {
        /// SOP Instance UID.
        uid: String,
    },
    /// The store or the spool failed.
    #[error(transparent)]
    Failed(#[from] ServeError),
}

/// A reading that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Corrected {
    /// The film's content hash.
    pub film: String,
    /// Version of the reading.
    pub version: u64,
}

/// Saves what a report says of one film as a complete reading. `spool_dir` holds the films.
///
/// # Errors
/// Any [`CorrectionError`]; nothing is saved then.
pub fn take(
    store: &Store,
    spool_dir: &Path,
    reported: &ReportedFilm,
    correction: &Correction<'_>,
) -> Result<Corrected, CorrectionError> {
    let uid = || reported.sop_instance_uid.clone();
    let not_a_reading = |reason: String| CorrectionError::NotAReading { uid: uid(), reason };
    if reported.frame != 0 {
        return Err(not_a_reading(format!(
            "readings are of the first frame, got frame {}",
            reported.frame + 1
        )));
    }
    let query = Query { sop_instance_uid: Some(uid()), limit: 1, ..Query::default() };
    let found = store.find_instances(Level::Instance, &query)?.into_iter().next();
    let film = found
        .filter(|row| row.kind == InstanceKind::Film)
        .ok_or_else(|| CorrectionError::UnknownFilm { uid: uid() })?;
    let path = spool_dir.join(Spool::film_name(&film.id));
    let (height_px, width_px) = read_size(&path, &Limits::default()).map_err(|error| {
        // Where the film lies here is no business of who sent the report.
        not_a_reading(error.to_string().replace(&path.display().to_string(), "the film"))
    })?;
    let annotation = annotation(reported);
    let of_report: Vec<String>;
    let labels = match correction.labels {
        Some(labels) => labels,
        None => {
            of_report = annotation.boxes.iter().map(|b| b.label.clone()).collect();
            &of_report
        }
    };
    annotation.check(labels, width_px, height_px).map_err(not_a_reading)?;
    let over = store.annotation(&film.id, correction.reader)?.map_or(0, |saved| saved.version);
    if over > 0 && !correction.replace {
        return Err(CorrectionError::ReadAlready { uid: uid(), reader: correction.reader.into() });
    }
    let version = store.save_annotation(&film.id, correction.reader, over, &annotation)?;
    let version = version.ok_or_else(|| CorrectionError::Changed { uid: uid() })?;
    Ok(Corrected { film: film.id, version })
}

fn annotation(reported: &ReportedFilm) -> Annotation {
    let boxes: Vec<AnnotatedBox> = reported
        .boxes
        .iter()
        .enumerate()
        .map(|(i, found)| AnnotatedBox {
            id: format!("b{}", i + 1),
            // The vocabulary spells as the readers' list does.
            label: found.label.parse::<Category>().map_or(found.label.clone(), |c| c.name().to_owned()),
            xyxy: found.xyxy,
            origin: if found.confidence.is_some() { Origin::Model } else { Origin::Reader },
            score: found.confidence,
            from: None,
        })
        .collect();
    Annotation { state: AnnotationState::Complete, no_finding: boxes.is_empty(), boxes, rejected: vec![] }
}
