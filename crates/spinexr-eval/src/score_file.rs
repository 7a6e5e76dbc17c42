//! `evaluate scores`: a CSV with the columns `id,label,score[,study]`.

use crate::binary::{self, Confusion};
use crate::error::{EvalError, Problem};
use crate::files::read_text;
use crate::intervals::{self, BinaryBootstrap, BootstrapOptions, DeLong, Interval, Unit};
use crate::{LabelledScores, roc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// A read score file.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreFile {
    /// Labels and scores, with studies where the file names them.
    pub data: LabelledScores,
    /// The file has a `study` column.
    pub has_studies: bool,
}

/// Reads a CSV with a header; columns in any order, others are not read. A label is 0 or 1.
///
/// # Errors
/// An unreadable file, a missing column, a broken row, a score that is no finite number, an id that
/// occurs twice: the line is named.
pub fn read(path: &Path) -> Result<ScoreFile, EvalError> {
    parse(&read_text(path)?, &path.display().to_string())
}

/// As [`read`], from text; `file` is the name that errors carry.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, file: &str) -> Result<ScoreFile, EvalError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let malformed = |error: csv::Error| EvalError::Line {
        file: file.to_owned(),
        line: error.position().map_or(1, |p| line_of(text, p)),
        problem: Problem::Malformed(match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} cells, expected {expected_len} as in the header")
            }
            _ => error.to_string(),
        }),
    };
    let header = reader.headers().map_err(malformed)?.clone();
    let column = |name: &str| header.iter().position(|h| h.eq_ignore_ascii_case(name));
    let needed = |name: &str| {
        column(name).ok_or_else(|| EvalError::Line {
            file: file.to_owned(),
            line: 1,
            problem: Problem::Malformed(format!(
                "no column {name:?}; expected id,label,score[,study], found {}",
                header.iter().collect::<Vec<_>>().join(",")
            )),
        })
    };
    let (id_column, label_column, score_column) = (needed("id")?, needed("label")?, needed("score")?);
    let study_column = column("study");

    let mut first_line: BTreeMap<String, usize> = BTreeMap::new();
    let mut films: Vec<(bool, f64, String)> = Vec::new();
    for row in reader.records() {
        let row = row.map_err(malformed)?;
        let line = row.position().map_or(1, |p| line_of(text, p));
        let fail = |problem| EvalError::Line { file: file.to_owned(), line, problem };
        let id = &row[id_column];
        if id.is_empty() {
            return Err(fail(Problem::EmptyId("id")));
        }
        let label = match &row[label_column] {
            "0" | "0.0" => false,
            "1" | "1.0" => true,
            other => return Err(fail(Problem::Malformed(format!("label is {other:?}, expected 0 or 1")))),
        };
        let score: f64 = row[score_column].parse().map_err(|_| {
            fail(Problem::Malformed(format!("score is {:?}, expected a number", &row[score_column])))
        })?;
        if !score.is_finite() {
            return Err(fail(Problem::NotFinite { what: "score".into(), value: score }));
        }
        let study = study_column.map_or(id, |c| &row[c]);
        if study.is_empty() {
            return Err(fail(Problem::EmptyId("study")));
        }
        if let Some(first) = first_line.insert(id.to_owned(), line) {
            return Err(fail(Problem::Duplicate { id: id.to_owned(), first: format!("line {first}") }));
        }
        films.push((label, score, study.to_owned()));
    }
    let data = LabelledScores::with_studies(films.iter().map(|f| (f.0, f.1, f.2.as_str())))?;
    Ok(ScoreFile { data, has_studies: study_column.is_some() })
}

/// The line a row stands on: the reader's position lies before the empty lines that it passes over.
fn line_of(text: &str, position: &csv::Position) -> usize {
    let rest = text.get(position.byte() as usize..).unwrap_or_default();
    let empty = rest.chars().take_while(|c| matches!(c, '\n' | '\r')).filter(|c| *c == '\n').count();
    position.line() as usize + empty
}

/// What `evaluate scores` tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoresReport {
    /// Films.
    pub films: usize,
    /// Films with label 1.
    pub positives: usize,
    /// Studies; as many as films where the file names none.
    pub studies: usize,
    /// Area under the ROC curve.
    pub auroc: Option<f64>,
    /// 95 % interval of it by the bootstrap: of studies where the file names them, else of films.
    pub auroc_ci: Option<Interval>,
    /// What that bootstrap drew.
    pub auroc_ci_unit: Unit,
    /// 95 % interval by DeLong, which takes films for independent.
    pub delong: Option<DeLong>,
    /// Average precision.
    pub average_precision: Option<f64>,
    /// Scores from here on are called positive.
    pub threshold: Option<f64>,
    /// Where the threshold comes from: `given`, or `youden on these scores (optimistic)`.
    pub threshold_from: String,
    /// F1 at the threshold.
    pub f1: Option<f64>,
    /// Sensitivity at the threshold.
    pub sensitivity: Option<f64>,
    /// Its Wilson interval.
    pub sensitivity_ci: Option<Interval>,
    /// Specificity at the threshold.
    pub specificity: Option<f64>,
    /// Its Wilson interval.
    pub specificity_ci: Option<Interval>,
    /// Films by verdict at the threshold.
    pub confusion: Option<Confusion>,
    /// Brier score; `None` unless every score is a probability.
    pub brier: Option<f64>,
    /// Log-loss in nats; `None` unless every score is a probability.
    pub log_loss: Option<f64>,
    /// All bootstrapped metrics, threshold fixed.
    pub bootstrap: BinaryBootstrap,
}

/// Evaluates a score file at `threshold`, or, without one, at the Youden threshold of these very scores,
/// which flatters them and is labelled so.
pub fn evaluate(file: &ScoreFile, threshold: Option<f64>, options: &BootstrapOptions) -> ScoresReport {
    let data = &file.data;
    let unit = if file.has_studies { Unit::Study } else { Unit::Film };
    let threshold_from = if threshold.is_some() { "given" } else { "youden on these scores (optimistic)" };
    let threshold = threshold.or_else(|| binary::youden(data).map(|p| p.threshold));
    let confusion = threshold.map(|t| Confusion::at(data, t));
    let bootstrap = intervals::bootstrap(data, threshold, unit, options);
    ScoresReport {
        films: data.len(),
        positives: data.positives(),
        studies: data.studies(),
        auroc: roc::auroc(data),
        auroc_ci: bootstrap.auroc.map(|b| b.interval),
        auroc_ci_unit: unit,
        delong: intervals::delong(data),
        average_precision: roc::average_precision(data),
        threshold,
        threshold_from: threshold_from.into(),
        f1: confusion.and_then(|c| c.f1()),
        sensitivity: confusion.and_then(|c| c.sensitivity()),
        sensitivity_ci: confusion.and_then(|c| intervals::wilson(c.true_positives, data.positives())),
        specificity: confusion.and_then(|c| c.specificity()),
        specificity_ci: confusion.and_then(|c| intervals::wilson(c.true_negatives, data.negatives())),
        confusion,
        brier: binary::brier(data),
        log_loss: binary::log_loss(data),
        bootstrap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_in_any_order() {
        let file = parse("score, study,label,note,id\n0.9,s,1,x,a\n0.1,s,0,,b\n", "s.csv").unwrap();
        assert!(file.has_studies);
        assert_eq!((file.data.len(), file.data.studies()), (2, 1));
        let report = evaluate(&file, None, &BootstrapOptions { resamples: 10, seed: 0 });
        assert_eq!((report.auroc, report.threshold, report.f1), (Some(1.0), Some(0.9), Some(1.0)));
        assert!(report.threshold_from.contains("optimistic"));
        let given = evaluate(&file, Some(0.05), &BootstrapOptions { resamples: 10, seed: 0 });
        assert_eq!((given.specificity, given.threshold_from.as_str()), (Some(0.0), "given"));
    }

    #[test]
    fn a_broken_row_is_named() {
        for (text, expected) in [
            ("id,label\na,1\n", "s.csv, line 1: no column \"score\""),
            ("id,label,score\na,1,0.5\nb,2,0.5\n", "s.csv, line 3: label is \"2\", expected 0 or 1"),
            ("id,label,score\na,1,NaN\n", "s.csv, line 2: score is NaN; expected a finite number"),
            ("id,label,score\na,1,\n", "s.csv, line 2: score is \"\", expected a number"),
            ("id,label,score\na,1\n", "s.csv, line 2: 2 cells, expected 3 as in the header"),
            ("id,label,score\na,1,0.5\n\na,0,0.5\n", "s.csv, line 4: \"a\" was there before (line 2)"),
            ("id,label,score\n,1,0.5\n", "s.csv, line 2: empty id"),
        ] {
            let got = parse(text, "s.csv").unwrap_err().to_string();
            assert!(got.starts_with(expected), "{got}");
        }
    }

    #[test]
    fn one_class_alone_is_undefined_and_no_error() {
        let file = parse("id,label,score\na,1,3\nb,1,4\n", "s.csv").unwrap();
        let report = evaluate(&file, None, &BootstrapOptions { resamples: 10, seed: 0 });
        assert_eq!((report.auroc, report.threshold, report.f1, report.brier), (None, None, None, None));
        assert!(serde_json::to_string(&report).unwrap().contains("\"auroc\":null"));
    }
}
