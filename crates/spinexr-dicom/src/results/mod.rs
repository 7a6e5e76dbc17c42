//! Results of a model as DICOM objects, and a structured report back as boxes.
//!
//! | object | function | for |
//! |---|---|---|
//! | Structured Report, TID 1500 | [`structured_report`] | machines, and viewers that show measurements |
//! | Grayscale Softcopy Presentation State | [`presentation_state`] | viewers: the film with boxes that can be hidden |
//! | Secondary Capture, RGB | [`secondary_capture`] | everything else: a picture with the boxes burnt in |
//!
//! All are pure functions of a film's header ([`SourceFilm`]), a prediction, the [`Algorithm`] that made it and
//! [`ResultOptions`]: no clock, no random number, no disk. The same arguments give the same bytes, and what differs in
//! content differs in its SOP Instance UID (`uids`). A film without findings has its objects too: "ran and found
//! nothing" is not "did not run".
//!
//! One object a film and kind, not one a study: a film's result is complete when the film is, needs no other film to be
//! repeated, and replaces itself when the film is sent again. All films of a study share one new series a kind.
//!
//! [`read_report`] reads the boxes of a structured report back, ours or one that a reader corrected.

pub mod codes;
mod content;
#[cfg(test)]
mod hostile_tests;
mod item_tree;
mod object;
mod presentation_state;
mod read_report;
mod secondary_capture;
mod source;
mod structured_report;
#[cfg(test)]
mod tests;
mod uids;
mod words;

pub use object::{Algorithm, ContentTime, DicomObject, NotAContentTime, ReportClass, ResultOptions};
pub use presentation_state::presentation_state;
pub use read_report::{Report, ReportedBox, ReportedFilm, read_report, read_report_from};
pub use secondary_capture::secondary_capture;
pub use source::SourceFilm;
pub use structured_report::structured_report;

/// Stands in every result.
pub const NOTICE: &str = "AI result - research only - not for clinical use";

/// Stands in every result that a demonstration bundle made.
pub const DEMONSTRATION_NOTICE: &str = "DEMONSTRATION - model trained on synthetic films";
