//! UIDs of results: under 2.25, from SHA-256 of all that decides what an object holds.
//!
//! | UID | from |
//! |---|---|
//! | SOP Instance | kind, film, frame, model, configuration, options, vocabulary and program versions |
//! | Series | kind, study, model, configuration: one series a kind and study |
//! | tracking of a box | film, frame, model, configuration, class and place of the box |
//! | device | model |
//!
//! A second run over the same film with the same model and configuration thus replaces its results and duplicates
//! nothing, and an object with another content has another UID: a new threshold, a new version of the program or
//! another content time is a new object. The attributes of patient and study are not among the parts: an archive may
//! correct them, as it may in every object it holds.

use super::object::{Algorithm, ResultOptions};
use super::{SourceFilm, codes};
use crate::write::derived_uid;

/// Kind of an object: the first part of its UIDs, and what its series is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Report,
    PresentationState,
    Capture,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::PresentationState => "presentation state",
            Self::Capture => "secondary capture",
        }
    }
}

/// A UID from parts; each is preceded by its length, so that no two lists of parts read the same.
fn uid(parts: &[&[u8]]) -> String {
    let mut seed = b"spinexr result".to_vec();
    for part in parts {
        seed.extend_from_slice(&(part.len() as u64).to_le_bytes());
        seed.extend_from_slice(part);
    }
    derived_uid(&seed)
}

pub(super) fn instance_uid(kind: Kind, film: &SourceFilm, by: &Algorithm, options: &ResultOptions) -> String {
    let time = options.content_time.as_ref().map(ToString::to_string).unwrap_or_default();
    let class = if kind == Kind::Report { options.report_class.uid() } else { "" };
    uid(&[
        b"instance",
        kind.name().as_bytes(),
        film.sop_instance_uid.as_bytes(),
        &options.frame.to_le_bytes(),
        by.model_hash.as_bytes(),
        by.config_hash.as_bytes(),
        &options.min_score.to_le_bytes(),
        class.as_bytes(),
        time.as_bytes(),
        codes::VERSION.as_bytes(),
        by.software_version.as_bytes(),
    ])
}

pub(super) fn series_uid(kind: Kind, film: &SourceFilm, by: &Algorithm) -> String {
    let study = film.study_uid.as_bytes();
    uid(&[b"series", kind.name().as_bytes(), study, by.model_hash.as_bytes(), by.config_hash.as_bytes()])
}

pub(super) fn device_uid(by: &Algorithm) -> String {
    uid(&[b"device", by.model_hash.as_bytes()])
}

/// Of the `occurrence`-th finding called `class` at `place`.
pub(super) fn tracking_uid(
    film: &SourceFilm,
    by: &Algorithm,
    options: &ResultOptions,
    class: &str,
    place: &[f32],
    occurrence: u32,
) -> String {
    let place: Vec<u8> = place.iter().flat_map(|v| v.to_le_bytes()).collect();
    uid(&[
        b"tracking",
        film.sop_instance_uid.as_bytes(),
        &options.frame.to_le_bytes(),
        by.model_hash.as_bytes(),
        by.config_hash.as_bytes(),
        class.as_bytes(),
        &place,
        &occurrence.to_le_bytes(),
    ])
}
