//! `--format sr,gsps,sc`: the DICOM objects of each film.

use super::{Args, overlay_options};
use anyhow::Context;
use clap::ValueEnum;
use spinexr_core::{FilmPrediction, whole_file};
use spinexr_dicom::results::{Algorithm, DicomObject, ReportClass, ResultOptions, SourceFilm};
use spinexr_dicom::{Limits, Radiograph};
use spinexr_infer::dicom_results::{DicomKind, algorithm, dicom_object};
use spinexr_infer::overlay::render;
use spinexr_infer::{Bundle, InferError, OverlayOptions, Pipeline};
use std::path::Path;

/// SOP class of structured reports on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportClassArg {
    /// Comprehensive 3D SR, which IHE AI Results asks for
    #[value(name = "comprehensive-3d")]
    Comprehensive3d,
    /// Comprehensive SR, for viewers that read no other
    Comprehensive,
}

impl From<ReportClassArg> for ReportClass {
    fn from(class: ReportClassArg) -> Self {
        match class {
            ReportClassArg::Comprehensive3d => Self::Comprehensive3d,
            ReportClassArg::Comprehensive => Self::Comprehensive,
        }
    }
}

/// The DICOM objects that are asked for, with what all of them share.
pub struct DicomResults {
    kinds: Vec<DicomKind>,
    by: Algorithm,
    options: ResultOptions,
}

impl DicomResults {
    /// `None` where no DICOM format is asked for.
    pub fn asked_for(args: &Args, bundles: &[Bundle], pipeline: &Pipeline) -> Option<Self> {
        let kinds: Vec<DicomKind> = args.format.iter().filter_map(|format| format.dicom()).collect();
        let options = ResultOptions {
            frame: args.frame,
            min_score: overlay_options(pipeline).min_score,
            report_class: args.sr_class.into(),
            content_time: args.content_time.clone(),
        };
        (!kinds.is_empty()).then(|| Self { kinds, by: algorithm(bundles, pipeline), options })
    }

    /// The objects of the film at `path`. One that cannot be made, such as a presentation state of a colour film, does not
    /// keep the others from being.
    pub fn objects(
        &self,
        path: &Path,
        radiograph: &Radiograph,
        film: &FilmPrediction,
        overlay: &OverlayOptions,
    ) -> Vec<Result<(DicomKind, DicomObject), InferError>> {
        let source = match SourceFilm::read(path, &Limits::default()) {
            Ok(source) => source,
            Err(error) => return vec![Err(error.into())],
        };
        let object = |&kind: &DicomKind| {
            let picture = || render(radiograph, film, overlay);
            dicom_object(kind, &source, radiograph, film, &self.by, &self.options, picture).map(|o| (kind, o))
        };
        self.kinds.iter().map(object).collect()
    }
}

/// Writes an object beside the other results.
pub fn write_object(dir: &Path, name: &str, kind: DicomKind, object: &DicomObject) -> anyhow::Result<()> {
    let path = dir.join(format!("{name}.{}", kind.suffix()));
    whole_file::write(&path, object.file()).with_context(|| format!("writing {}", path.display()))
}
