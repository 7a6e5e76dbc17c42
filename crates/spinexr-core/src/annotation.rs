//! What a reader marked on a film.

use crate::{BoxXyxy, Label};
use serde::{Deserialize, Serialize};

/// One marked finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Annotation {
    /// Class.
    pub label: Label,
    /// Place, film px.
    pub xyxy: BoxXyxy,
}

/// All that was marked on one film.
///
/// A film is abnormal when it has no `No finding` row (paper, section 2.1), which is not the same as
/// having a box: a box may have been dropped as empty, and the film stays abnormal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilmAnnotation {
    /// File stem of the film.
    pub image_id: String,
    /// Study the film belongs to; splits never cut through a study.
    pub study_id: String,
    /// Series the film belongs to; empty where unknown.
    #[serde(default)]
    pub series_id: String,
    /// Reader's verdict on the whole film.
    pub abnormal: bool,
    /// Boxes of the findings, film px.
    pub boxes: Vec<Annotation>,
}
