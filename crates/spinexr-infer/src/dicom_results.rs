//! Predictions as DICOM objects: `spinexr_dicom::results` given what it needs of a pipeline, a film and its picture.

use crate::InferError;
use crate::bundle::Bundle;
use crate::pipeline::Pipeline;
use image::RgbImage;
use sha2::{Digest, Sha256};
use spinexr_core::{FilmPrediction, hex};
use spinexr_dicom::results::{
    Algorithm, DicomObject, ResultOptions, SourceFilm, presentation_state, secondary_capture,
    structured_report,
};
use spinexr_dicom::{Limits, Policy, Provenance, Radiograph, ReadOptions, Stage, read_film};

/// Kind of a DICOM result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DicomKind {
    /// Structured report.
    Report,
    /// Grayscale softcopy presentation state.
    PresentationState,
    /// RGB secondary capture: the overlay.
    Capture,
}

impl DicomKind {
    /// End of a file's name: `sr.dcm`, `gsps.dcm`, `sc.dcm`.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Report => "sr.dcm",
            Self::PresentationState => "gsps.dcm",
            Self::Capture => "sc.dcm",
        }
    }
}

/// What names the models of a pipeline, and everything else that decides its predictions, in results. `bundles` are those
/// that the pipeline was loaded from.
pub fn algorithm(bundles: &[Bundle], pipeline: &Pipeline) -> Algorithm {
    let names: Vec<&str> = bundles.iter().map(|b| b.manifest().name.as_str()).collect();
    let weights_sha256 = match bundles {
        [only] => only.manifest().weights_sha256.clone(),
        several => {
            let mut hash = Sha256::new();
            several.iter().for_each(|b| hash.update(b.manifest().weights_sha256.as_bytes()));
            hex(&hash.finalize())
        }
    };
    let config_hash = pipeline.config_hash();
    let thresholds = match pipeline.decision() {
        Some(d) => format!("c* {}, keep score {}, display score {}", d.c_star, d.keep_score, d.display_score),
        None => "no thresholds".to_owned(),
    };
    Algorithm {
        name: names.join(" + "),
        version: format!("sha256:{}", pipeline.hash().get(..16).unwrap_or_default()),
        model_hash: pipeline.hash().to_owned(),
        weights_sha256,
        parameters: format!("{thresholds}; {}; configuration SHA-256 {config_hash}", pipeline.method()),
        config_hash,
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// One DICOM object of a prediction. `radiograph` is the film as the pipeline read it; `picture` gives what a capture shows, such as
/// [`crate::overlay::render`], and is not called for the others.
///
/// # Errors
/// The result cannot be expressed as the object, see the functions of `spinexr_dicom::results`; or the film, which a
/// presentation state needs under the standard policy, cannot be read again.
pub fn dicom_object(
    kind: DicomKind,
    source: &SourceFilm,
    radiograph: &Radiograph,
    prediction: &FilmPrediction,
    by: &Algorithm,
    options: &ResultOptions,
    picture: impl FnOnce() -> RgbImage,
) -> Result<DicomObject, InferError> {
    let object = match kind {
        DicomKind::Report => structured_report(source, prediction, by, options),
        DicomKind::PresentationState => {
            let shown = standard_provenance(source, radiograph, options.frame)?;
            presentation_state(source, prediction, &shown, by, options)
        }
        DicomKind::Capture => secondary_capture(source, prediction, &picture(), by, options),
    };
    object.map_err(|error| InferError::Result { path: source.path().to_owned(), source: Box::new(error) })
}

/// How the film is displayed under the standard policy: as it was read, or read again where the models want another.
fn standard_provenance(
    source: &SourceFilm,
    radiograph: &Radiograph,
    frame: u32,
) -> Result<Provenance, InferError> {
    let known = &radiograph.provenance;
    if known.policy == Policy::Standard && known.stage == Stage::Display {
        return Ok(known.clone());
    }
    let options = ReadOptions { policy: Policy::Standard, frame, limits: Limits::default() };
    Ok(read_film(source.path(), &options)?.provenance)
}
