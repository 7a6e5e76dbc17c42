//! What can be wrong with the inputs of an evaluation. An undefined metric is not an error.

use spinexr_core::{BoxXyxy, Split, UnknownLabel};
use std::path::PathBuf;

/// An input that cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of a JSON Lines or CSV file is broken.
    #[error("{file}, line {line}: {problem}")]
    Line {
        /// The file as it was named.
        file: String,
        /// Line number, from 1.
        line: usize,
        /// What is wrong there.
        problem: Problem,
    },
    /// An entry of a JSON list is broken.
    #[error("{file}: {list}[{index}]: {problem}")]
    Entry {
        /// The file as it was named.
        file: String,
        /// The list inside the file.
        list: &'static str,
        /// Position in the list, from 0.
        index: usize,
        /// What is wrong there.
        problem: Problem,
    },
    /// The file as a whole is broken.
    #[error("{file}: {problem}")]
    File {
        /// The file as it was named.
        file: String,
        /// What is wrong.
        problem: Problem,
    },
    /// A film's record or annotation is broken.
    #[error("film {image}: {problem}")]
    Film {
        /// Image id.
        image: String,
        /// What is wrong.
        problem: Problem,
    },
    /// Scores handed over in memory are broken.
    #[error("score {index}: {problem}")]
    Score {
        /// Position, from 0.
        index: usize,
        /// What is wrong.
        problem: Problem,
    },
    /// A study has films in two splits, so the test films are not new to the run.
    #[error(
        "study {study} has films in {first} and in {second} (for example {example}): splits are by study"
    )]
    Leak {
        /// The study.
        study: String,
        /// One split.
        first: Split,
        /// The other split.
        second: Split,
        /// A film of the study in the second split.
        example: String,
    },
    /// Not one film in a split.
    #[error("no {0} prediction to evaluate")]
    NoFilms(Split),
    /// The records hold no c*, or several, where a frozen one was asked for.
    #[error("expected one frozen threshold in all records, found {found:?} (film {image})")]
    NoFrozenThreshold {
        /// The thresholds found, at most two.
        found: Vec<Option<f64>>,
        /// The film where the second was found.
        image: String,
    },
    /// Nothing to compare.
    #[error("no run to compare; expected at least one")]
    NoRuns,
    /// Runs of a comparison predicted other test films.
    #[error(
        "{first} and {second} predicted other test films, so nothing of them can be compared: {} only in the first{}, {} only \
         in the second{}",
        only_first.len(), examples(only_first), only_second.len(), examples(only_second)
    )]
    OtherFilms {
        /// A run.
        first: String,
        /// The run that differs.
        second: String,
        /// Films of the first alone.
        only_first: Vec<String>,
        /// Films of the second alone.
        only_second: Vec<String>,
    },
    /// Runs of a comparison have other classes.
    #[error("{first} and {second} are of other classes, so their boxes cannot be compared")]
    OtherClasses {
        /// A run.
        first: String,
        /// The run that differs.
        second: String,
    },
    /// A figure that cannot be drawn.
    #[error("plot {name}: {message}")]
    Plot {
        /// The figure.
        name: String,
        /// What the drawing program said.
        message: String,
    },
    /// An IoU set that cannot be read.
    #[error(
        "{text:?} is no IoU set; expected one value such as 0.5, or first:step:last such as 0.2:0.05:0.5, in (0, 1]"
    )]
    IouSet {
        /// As found.
        text: String,
    },
}

/// The first films of a list, in brackets.
fn examples(films: &[String]) -> String {
    const SHOWN: usize = 5;
    if films.is_empty() {
        return String::new();
    }
    let dots = if films.len() > SHOWN { ", …" } else { "" };
    format!(" ({}{dots})", films[..films.len().min(SHOWN)].join(", "))
}

/// What is wrong with one line, entry or film.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Problem {
    /// Not of the expected form.
    #[error("{0}")]
    Malformed(String),
    /// An id that was there before.
    #[error("{id:?} was there before ({first})")]
    Duplicate {
        /// The id.
        id: String,
        /// Where it was first.
        first: String,
    },
    /// An empty id.
    #[error("empty {0}")]
    EmptyId(&'static str),
    /// A number that is NaN or infinite.
    #[error("{what} is {value}; expected a finite number")]
    NotFinite {
        /// Which number.
        what: String,
        /// As found.
        value: f64,
    },
    /// A number outside its range.
    #[error("{what} is {value}; expected a number in [0, 1]")]
    OutOfRange {
        /// Which number.
        what: String,
        /// As found.
        value: f64,
    },
    /// A box whose right edge lies left of its left edge, or bottom above top.
    #[error("inverted box {:?}; expected x1 <= x2 and y1 <= y2", <[f32; 4]>::from(*.0))]
    InvertedBox(BoxXyxy),
    /// A box of a class that the evaluation's list does not have.
    #[error(transparent)]
    UnknownLabel(#[from] UnknownLabel),
    /// A box with negative width or height.
    #[error("box with size {width} x {height}; expected no negative size")]
    NegativeSize {
        /// As found.
        width: f64,
        /// As found.
        height: f64,
    },
    /// The record belongs to another split, or to none.
    #[error("split is {}, expected {expected}", .got.map_or("missing", Split::name))]
    WrongSplit {
        /// The split asked for.
        expected: Split,
        /// The record's.
        got: Option<Split>,
    },
    /// The record's classifiers are not those of the first record.
    #[error("logits of {got:?}, expected {expected:?} as in film {first}")]
    OtherModels {
        /// Models of the first record.
        expected: Vec<String>,
        /// Models here.
        got: Vec<String>,
        /// The first record's film.
        first: String,
    },
    /// Annotated, but not predicted.
    #[error("annotated for {0}, but no prediction is there")]
    NoPrediction(Split),
    /// Predicted, but not annotated.
    #[error("predicted for {0}, but no annotation is there")]
    NoAnnotation(Split),
    /// An id that the other file does not know.
    #[error("unknown {what} {id:?}")]
    Unknown {
        /// Which id.
        what: &'static str,
        /// As found.
        id: String,
    },
    /// Two columns of different length.
    #[error("{got} scores for {expected} labels")]
    Length {
        /// Labels.
        expected: usize,
        /// Scores.
        got: usize,
    },
}
