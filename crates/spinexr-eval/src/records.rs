//! Prediction records as JSON Lines: one [`FilmPrediction`] a line.

use crate::error::{EvalError, Problem};
use crate::files::read_text;
use spinexr_core::{ClassList, FilmPrediction, whole_file};
use std::collections::BTreeMap;
use std::path::Path;

/// Reads and checks a file of records; empty lines are passed over.
///
/// # Errors
/// An unreadable file; a line that is no record, repeats a film, or holds a number or box that cannot be:
/// the line is named.
pub fn read(path: &Path) -> Result<Vec<FilmPrediction>, EvalError> {
    parse(&read_text(path)?, &path.display().to_string())
}

/// As [`read`], with every box's label that of `classes` that its name stands for (see [`ClassList::find`]).
///
/// # Errors
/// As [`read`], and for a label that stands for no class of the list.
pub fn read_of_classes(path: &Path, classes: &ClassList) -> Result<Vec<FilmPrediction>, EvalError> {
    parse_of_classes(&read_text(path)?, &path.display().to_string(), Some(classes))
}

/// As [`read`], from text; `file` is the name that errors carry.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, file: &str) -> Result<Vec<FilmPrediction>, EvalError> {
    parse_of_classes(text, file, None)
}

fn parse_of_classes(
    text: &str,
    file: &str,
    classes: Option<&ClassList>,
) -> Result<Vec<FilmPrediction>, EvalError> {
    let mut records: Vec<FilmPrediction> = Vec::new();
    let mut first_line: BTreeMap<String, usize> = BTreeMap::new();
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim().is_empty() {
            continue;
        }
        let fail = |problem| EvalError::Line { file: file.to_owned(), line, problem };
        let mut record: FilmPrediction =
            serde_json::from_str(content).map_err(|e| fail(Problem::Malformed(column_only(&e))))?;
        check(&record).map_err(fail)?;
        if let Some(classes) = classes {
            for detection in record.boxes.iter_mut().chain(&mut record.boxes_before_gate) {
                let label = classes.find(detection.label.name()).map_err(|e| fail(e.into()))?;
                detection.label = label.clone();
            }
        }
        if let Some(first) = first_line.insert(record.image.clone(), line) {
            return Err(fail(Problem::Duplicate { id: record.image, first: format!("line {first}") }));
        }
        records.push(record);
    }
    Ok(records)
}

/// serde_json counts every record as line 1; only the column is of use.
fn column_only(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) => format!("{message} (column {})", error.column()),
        None => text,
    }
}

/// Writes the records, one a line, whole or not at all.
///
/// # Errors
/// [`EvalError::Io`], or [`EvalError::Film`] for a record that a reader would refuse.
pub fn write(path: &Path, records: &[FilmPrediction]) -> Result<(), EvalError> {
    let mut text = Vec::new();
    for record in records {
        let fail = |problem| EvalError::Film { image: record.image.clone(), problem };
        check(record).map_err(fail)?;
        serde_json::to_writer(&mut text, record).map_err(|e| fail(Problem::Malformed(e.to_string())))?;
        text.push(b'\n');
    }
    whole_file::write(path, &text).map_err(|source| EvalError::Io { path: path.to_owned(), source })
}

/// Checks what the type cannot: ids, finite numbers, scores in `[0, 1]`, boxes that are not inverted.
///
/// # Errors
/// The first problem.
pub fn check(record: &FilmPrediction) -> Result<(), Problem> {
    if record.image.is_empty() {
        return Err(Problem::EmptyId("image"));
    }
    if record.study.is_empty() {
        return Err(Problem::EmptyId("study"));
    }
    for (model, logits) in &record.logits {
        if let Some(&value) = logits.values().iter().find(|value| !value.is_finite()) {
            return Err(Problem::NotFinite { what: format!("logit of {model}"), value });
        }
    }
    for (what, value) in [("p_abnormal", record.p_abnormal), ("threshold", record.threshold)] {
        share(what, value.unwrap_or(0.0))?;
    }
    for detection in record.boxes.iter().chain(&record.boxes_before_gate) {
        share(&format!("score of {}", detection.label), f64::from(detection.score))?;
        let b = detection.xyxy;
        if let Some(&value) = <[f32; 4]>::from(b).iter().find(|v| !v.is_finite()) {
            return Err(Problem::NotFinite {
                what: format!("box of {}", detection.label),
                value: f64::from(value),
            });
        }
        if b.width() < 0.0 || b.height() < 0.0 {
            return Err(Problem::InvertedBox(b));
        }
    }
    Ok(())
}

fn share(what: &str, value: f64) -> Result<(), Problem> {
    if !value.is_finite() {
        return Err(Problem::NotFinite { what: what.to_owned(), value });
    }
    if !(0.0..=1.0).contains(&value) {
        return Err(Problem::OutOfRange { what: what.to_owned(), value });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"image":"a","study":"s","split":"test","height_px":100,"width_px":80,"logits":{"m":1.0},"p_abnormal":0.5,"threshold":null,"boxes":[],"boxes_before_gate":[{"label":"Osteophytes","score":0.25,"xyxy":[1,2,3,4]}],"pixels":{},"model":"h"}"#;

    #[test]
    fn records_survive_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("predictions.jsonl");
        let records = parse(&format!("{LINE}\n\n{}\n", LINE.replace("\"a\"", "\"b\"")), "x").unwrap();
        assert_eq!(records.len(), 2);
        write(&path, &records).unwrap();
        assert_eq!(read(&path).unwrap(), records);
    }

    #[test]
    fn a_broken_line_is_named() {
        let second = |line: String| {
            let text = format!("{LINE}\n{}", line.replace("\"a\"", "\"b\""));
            parse_of_classes(&text, "p.jsonl", Some(&ClassList::vindr())).unwrap_err().to_string()
        };
        for (from, to, expected) in [
            (
                "Osteophytes",
                "Scoliosis",
                "p.jsonl, line 2: unknown class \"Scoliosis\"; expected one of: Disc space narrowing, ",
            ),
            ("Osteophytes", "", "p.jsonl, line 2: class name \"\" of 0 bytes; expected 1 to 200 bytes"),
            ("0.25", "NaN", "p.jsonl, line 2: expected value"),
            ("0.25", "1e60", "p.jsonl, line 2: number out of range"),
            ("0.25", "1.25", "p.jsonl, line 2: score of Osteophytes is 1.25; expected a number in [0, 1]"),
            ("[1,2,3,4]", "[3,2,1,4]", "p.jsonl, line 2: inverted box [3.0, 2.0, 1.0, 4.0]"),
            ("[1,2,3,4]", "[1,2,3]", "p.jsonl, line 2: invalid length 3"),
            ("\"s\"", "\"\"", "p.jsonl, line 2: empty study"),
            ("\"model\"", "\"modle\"", "p.jsonl, line 2: missing field `model`"),
        ] {
            let got = second(LINE.replace(from, to));
            assert!(got.starts_with(expected), "{got}");
        }
        let twice = parse(&format!("{LINE}\n{LINE}"), "p.jsonl").unwrap_err().to_string();
        assert_eq!(twice, "p.jsonl, line 2: \"a\" was there before (line 1)");
    }

    #[test]
    fn labels_are_of_any_class_or_of_a_list() {
        let line = LINE.replace("Osteophytes", "Foreign body");
        let label = |records: Vec<FilmPrediction>| records[0].boxes_before_gate[0].label.name().to_owned();
        assert_eq!(label(parse(&line, "p").unwrap()), "Foreign body");
        let of = |classes: &ClassList| parse_of_classes(&line, "p", Some(classes));
        assert_eq!(label(of(&ClassList::vindr()).unwrap()), "Other lesions");
        let cells = ClassList::from_names(["RBC", "WBC"]).unwrap();
        let error = of(&cells).unwrap_err().to_string();
        assert_eq!(error, r#"p, line 1: unknown class "Foreign body"; expected one of: RBC, WBC"#);
    }

    #[test]
    fn nothing_is_written_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("predictions.jsonl");
        let mut record = parse(LINE, "x").unwrap().remove(0);
        record.logits.insert("m".into(), f64::NAN.into());
        let error = write(&path, &[record]).unwrap_err().to_string();
        assert_eq!(error, "film a: logit of m is NaN; expected a finite number");
        assert!(!path.exists());
    }
}
