//! What reads a film. The service takes it as a function, so that it knows nothing of models and the tensor engine.

use crate::config::ResultKind;
use spinexr_core::FilmPrediction;
use std::path::Path;
use std::sync::Arc;

/// The models in use.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What names them in every record, and in every job: the same film and hash are read once.
    pub hash: String,
    /// Name for people.
    pub name: String,
    /// Score from which boxes are shown at first, chosen on validation; none where it was not.
    pub display_score: Option<f64>,
    /// Trained on synthetic films, for showing how the program works.
    pub demonstration: bool,
    /// What the API says of them.
    pub description: serde_json::Value,
}

/// A result object.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultObject {
    /// Its form.
    pub kind: ResultKind,
    /// A DICOM file. The same film and model must give the same SOP Instance UID.
    pub file: Vec<u8>,
}

/// What a picture of evidence is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// What spoke for "abnormal".
    Film,
    /// What spoke for each of the boxes.
    Boxes,
}

impl Evidence {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Film, Self::Boxes];

    /// `film`, `boxes`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Film => "film",
            Self::Boxes => "boxes",
        }
    }

    /// What a picture of that name is about.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|evidence| evidence.name() == name)
    }

    /// Of the picture among a job's results.
    pub(crate) const fn file_name(self) -> &'static str {
        match self {
            Self::Film => "evidence.png",
            Self::Boxes => "box_evidence.png",
        }
    }
}

/// What was found on a film.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The record.
    pub record: FilmPrediction,
    /// The film with its boxes, as PNG.
    pub overlay_png: Option<Vec<u8>>,
    /// Where the evidence for "abnormal" lies, as a PNG with transparency that covers the film.
    pub evidence_png: Option<Vec<u8>>,
    /// Where the evidence for each box lies, as such a PNG.
    pub box_evidence_png: Option<Vec<u8>>,
    /// Objects for other systems, one of a kind at most.
    pub objects: Vec<ResultObject>,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFailure {
    /// The film cannot be read, now or ever.
    Film(String),
    /// Reading failed for a reason that may pass, as memory.
    ForNow(String),
}

/// From a film's file to what was found on it.
pub type ReadFilm = Arc<dyn Fn(&Path) -> Result<Reading, ReadFailure> + Send + Sync>;

/// A film as an 8-bit PNG, as a viewer shows it; the frame counts from 0.
pub type RenderFilm = Arc<dyn Fn(&Path, u32) -> Result<Vec<u8>, ReadFailure> + Send + Sync>;
