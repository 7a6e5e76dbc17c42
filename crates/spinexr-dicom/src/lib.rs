//! Radiographs in and out: stored values to display pixels, with a record of what was done.
//!
//! Reading goes in four stages, after PS3.3 C.11 and C.7.6.3:
//!
//! ```text
//! stored ── Modality LUT or rescale ──▶ modality ── VOI LUT, window or min–max ──▶ voi ── polarity ──▶ display
//! (i32)                                 (f64)                                      (f64)                (f32 or u8)
//! ```
//!
//! dicom-rs supplies the data element parser, the dictionary and the codecs of 8-bit and lossless colour JPEG; 12-bit JPEG,
//! lossless grey JPEG, JPEG-LS, JPEG 2000, HTJ2K and RLE are decoded here. So is every step from stored values to display, because the convenience functions leave some of them out (an array is never
//! inverted for MONOCHROME1, a VOI LUT Sequence is ignored, padding enters min–max).
//!
//! Input may be hostile. Lengths are checked against the file before anything is allocated, sequences are
//! walked without recursion, and a panic inside a codec becomes a [`ReadError`].
//!
//! Writing makes DX images ([`write_dx`]) for synthetic films and for tests. [`deidentify`] takes out of a film what
//! names the patient.

mod attributes;
mod codec;
mod colour;
mod dataset;
mod deidentify;
mod error;
mod examine;
mod film;
mod find;
mod instance;
mod lut;
mod modality;
pub mod npy;
mod options;
mod pixel_format;
mod raster;
mod read;
pub mod results;
pub mod samples;
mod standard;
mod stored;
mod syntax;
mod viewer;
mod vindr;
mod window;
mod write;

pub use deidentify::{
    Dates, Deidentified, DeidentifyOptions, DeidentifyReport, Key, MaskRect, Retain, deidentify,
};
pub use error::{ReadError, WriteError};
pub use examine::{Examined, ExaminedPixels, examine_film, examine_header};
pub use film::{
    Display, FilmHeader, Format, ModalityApplied, PolarityApplied, Provenance, Radiograph, StageData,
    StageImage, VoiApplied, VoiFunction,
};
pub use find::find_films;
pub use instance::{Instance, is_uid, read_instance};
pub use options::{Limits, Policy, ReadOptions, Stage};
pub use read::{read_film, read_header, read_size, read_stage, read_stage_from, read_viewer_pixels};
pub use viewer::ViewerPixels;
pub use write::{DxFilm, DxSyntax, derived_uid, encode_dx, write_dx};
