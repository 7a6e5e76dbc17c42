//! What can be wrong with a data set or a prepared cache.

use spinexr_core::{Split, UnknownLabel};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// One broken row of an annotation file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The annotation file.
    pub path: PathBuf,
    /// Line of the row, counted from 1.
    pub line: u64,
    /// Column by its name in the header, or field; empty when the row as a whole is wrong.
    pub column: String,
    /// What should have been there.
    pub expected: String,
    /// What was there.
    pub found: String,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.path.display(), self.line)?;
        if !self.column.is_empty() {
            let is_table = self.path.extension().is_some_and(|e| e == "csv");
            write!(f, "{} `{}`: ", if is_table { "column" } else { "field" }, self.column)?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("{}: cannot write: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A folder or file is not laid out as it should be.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// What should have been there.
        expected: String,
        /// What was there.
        found: String,
    },
    /// An annotation file lacks a column, or names one twice.
    #[error("{}:1: expected one column `{column}`, found the columns {found}", path.display())]
    MissingColumn {
        /// The annotation file.
        path: PathBuf,
        /// The column's name.
        column: String,
        /// The header as found.
        found: String,
    },
    /// Annotation rows that cannot be understood; the first ones are listed.
    #[error("{}", list_rows(errors, *total))]
    Rows {
        /// The first broken rows, in file order.
        errors: Vec<RowError>,
        /// Number of broken rows in all.
        total: usize,
    },
    /// A study's films are spread over two splits.
    #[error(
        "leakage: study `{study_id}` is in {first} (film `{first_image}`) and in {second} (film `{second_image}`); expected every study in one split"
    )]
    StudyInTwoSplits {
        /// The study.
        study_id: String,
        /// Split of the first film.
        first: Split,
        /// Image id of the first film.
        first_image: String,
        /// Split of the second film.
        second: Split,
        /// Image id of the second film.
        second_image: String,
    },
    /// A patient's films are spread over two splits.
    #[error(
        "leakage: the patient of study `{first_study}` in {first} is also that of study `{second_study}` in {second}; expected every patient in one split"
    )]
    PatientInTwoSplits {
        /// Study of the first film.
        first_study: String,
        /// Split of the first film.
        first: Split,
        /// Study of the second film.
        second_study: String,
        /// Split of the second film.
        second: Split,
    },
    /// Two films have one image id.
    #[error("image id `{image_id}` is used twice: {} and {}", first.display(), second.display())]
    ImageTwice {
        /// The image id.
        image_id: String,
        /// File of the first film.
        first: PathBuf,
        /// File of the second film.
        second: PathBuf,
    },
    /// Too few studies to take a validation split from.
    #[error(
        "cannot hold out {fraction} of {studies} training studies: expected at least one study on each side"
    )]
    TooFewStudies {
        /// Fraction asked for.
        fraction: f64,
        /// Studies there are.
        studies: usize,
    },
    /// Too few groups of films that stay together to give each part one.
    #[error(
        "cannot share {groups} groups of films that stay together out among {parts} parts: a part would be empty"
    )]
    TooFewGroups {
        /// Studies, or patients.
        groups: usize,
        /// Parts asked for.
        parts: usize,
    },
    /// A film's box is of a class that the list does not have.
    #[error("film `{image_id}`: {source}")]
    UnknownLabel {
        /// The film.
        image_id: String,
        /// The label and the list.
        source: UnknownLabel,
    },
    /// A setting is out of its range.
    #[error("setting `{name}`: expected {expected}, found {found}")]
    Setting {
        /// The setting's name.
        name: &'static str,
        /// Its range.
        expected: &'static str,
        /// Its value.
        found: String,
    },
    /// There is no prepared cache of this policy and input size.
    #[error("{}: no prepared films of policy `{policy}` at {input}; prepare the data set first", path.display())]
    NoCache {
        /// The folder that was looked for.
        path: PathBuf,
        /// Preprocessing policy.
        policy: String,
        /// Input size.
        input: String,
    },
    /// A film is not in the prepared cache.
    #[error("film `{image_id}` is not prepared in {}; prepare the data set again", path.display())]
    NotPrepared {
        /// The film.
        image_id: String,
        /// Folder of the cache.
        path: PathBuf,
    },
    /// A prepared film does not have the checksum it was written with.
    #[error("{}: prepared film `{image_id}` is damaged: expected checksum {expected:08x}, found {found:08x}; prepare the data set again", path.display())]
    Damaged {
        /// The cache's pixel file.
        path: PathBuf,
        /// The film.
        image_id: String,
        /// Checksum at writing.
        expected: u32,
        /// Checksum now.
        found: u32,
    },
    /// Another process is preparing into the same cache.
    #[error("{}: another process is preparing films here; wait for it or choose another folder", path.display())]
    CacheBusy {
        /// The lock file.
        path: PathBuf,
    },
    /// A worker thread panicked.
    #[error("a worker panicked at film `{image_id}`: {message}")]
    Panicked {
        /// The film in hand; empty when none was.
        image_id: String,
        /// The panic's message.
        message: String,
    },
    /// All workers of a loader have gone.
    #[error("the loader's workers have stopped before step {step}")]
    LoaderStopped {
        /// The step that was waited for.
        step: u64,
    },
}

fn list_rows(errors: &[RowError], total: usize) -> String {
    let mut text = format!("{total} broken annotation row{}", if total == 1 { "" } else { "s" });
    if errors.len() < total {
        text.push_str(&format!(", the first {}", errors.len()));
    }
    text.push(':');
    for error in errors {
        text.push_str(&format!("\n  {error}"));
    }
    text
}

/// For `map_err` on reads of `path`.
pub(crate) fn reading(path: &std::path::Path) -> impl FnOnce(io::Error) -> DataError + '_ {
    move |source| DataError::Read { path: path.to_owned(), source }
}

/// For `map_err` on writes of `path`.
pub(crate) fn writing(path: &std::path::Path) -> impl FnOnce(io::Error) -> DataError + '_ {
    move |source| DataError::Write { path: path.to_owned(), source }
}

/// The text of a caught panic.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
