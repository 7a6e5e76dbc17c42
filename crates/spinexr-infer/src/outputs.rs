//! Predictions as files: JSON Lines, CSV and COCO results.
//!
//! - **JSON Lines**: one [`FilmPrediction`] a line, the record that every table is computed from.
//! - **CSV**: for a film one row of kind `film`, then one row of kind `box` for each box before the decision
//!   rule, with `kept` telling whether the rule keeps it. Columns: see [`CSV_COLUMNS`]. Boxes are `xmin, ymin,
//!   xmax, ymax` in film px, as in the data set's annotation files.
//! - **COCO results**: a JSON array of `{"image_id", "category_id", "bbox": [x, y, width, height], "score"}`
//!   with the boxes after the decision rule. `image_id` is the film's file stem, a string, because that is
//!   the image id of VinDr-SpineXR; `category_id` is the index in the list of classes plus one: 1 (disc space
//!   narrowing) to 7 (other lesions) in that of VinDr-SpineXR.
//!
//! A file appears when it is finished, whole.

use crate::InferError;
use serde::{Deserialize, Serialize};
use spinexr_core::whole_file::WholeFile;
use spinexr_core::{ClassList, Detection, FilmPrediction, UnknownLabel};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A form of results file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultsFormat {
    /// JSON Lines of [`FilmPrediction`].
    Jsonl,
    /// Comma separated values, one row a film and one a box.
    Csv,
    /// COCO results JSON.
    Coco,
}

impl ResultsFormat {
    /// The usual file name: `predictions.jsonl`, `predictions.csv`, `coco_results.json`.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Jsonl => "predictions.jsonl",
            Self::Csv => "predictions.csv",
            Self::Coco => "coco_results.json",
        }
    }
}

/// Columns of the CSV form, in order. Cells that do not apply to a row's kind are empty.
pub const CSV_COLUMNS: [&str; 18] = [
    "kind", // film | box
    "image",
    "study",
    "p_abnormal",
    "threshold",
    "abnormal", // film: p_abnormal >= threshold
    "label",
    "score",
    "xmin",
    "ymin",
    "xmax",
    "ymax",
    "kept", // box: after the decision rule
    "height_px",
    "width_px",
    "split",
    "model",
    "demonstration",
];

/// One entry of a COCO results file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CocoResult {
    /// File stem of the film.
    pub image_id: String,
    /// Class index plus one.
    pub category_id: u32,
    /// `[x, y, width, height]`, film px.
    pub bbox: [f32; 4],
    /// `[0, 1]`.
    pub score: f32,
}

/// A results file in the making; films are added as they come.
#[derive(Debug)]
pub struct ResultsWriter {
    format: ResultsFormat,
    classes: ClassList,
    path: PathBuf,
    file: WholeFile,
    entries: usize,
}

impl ResultsWriter {
    /// Begins the file `path`. Nothing is seen there until [`ResultsWriter::finish`]. The place of a label in
    /// `classes` gives its number in the COCO form.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written to.
    pub fn create(path: &Path, format: ResultsFormat, classes: &ClassList) -> Result<Self, InferError> {
        let file = WholeFile::create(path).map_err(InferError::io(path, "create a file here"))?;
        let (path, classes) = (path.to_owned(), classes.clone());
        let mut writer = Self { format, classes, path, file, entries: 0 };
        match format {
            ResultsFormat::Jsonl => {}
            ResultsFormat::Csv => writer.put(&csv_row(&CSV_COLUMNS.map(str::to_owned)))?,
            ResultsFormat::Coco => writer.put(b"[")?,
        }
        Ok(writer)
    }

    /// Adds a film.
    ///
    /// # Errors
    /// The file cannot be written, or the COCO form has no number for a label.
    pub fn add(&mut self, film: &FilmPrediction) -> Result<(), InferError> {
        match self.format {
            ResultsFormat::Jsonl => {
                let mut line = to_json(film);
                line.push(b'\n');
                self.put(&line)
            }
            ResultsFormat::Csv => csv_rows(film).iter().try_for_each(|row| self.put(&csv_row(row))),
            ResultsFormat::Coco => {
                let entries = coco_results(film, &self.classes)
                    .map_err(|source| InferError::UnknownLabel { image: film.image.clone(), source })?;
                for entry in entries {
                    self.put(if self.entries == 0 { b"\n" } else { b",\n" })?;
                    self.put(&to_json(&entry))?;
                    self.entries += 1;
                }
                Ok(())
            }
        }
    }

    /// The file appears under its name, which is returned.
    ///
    /// # Errors
    /// The file cannot be written, synced or renamed.
    pub fn finish(mut self) -> Result<PathBuf, InferError> {
        if self.format == ResultsFormat::Coco {
            self.put(b"\n]\n")?;
        }
        self.file.finish().map_err(InferError::io(&self.path, "write"))?;
        Ok(self.path)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), InferError> {
        self.file.write_all(bytes).map_err(InferError::io(&self.path, "write"))
    }
}

/// Writes all films at once.
///
/// # Errors
/// As [`ResultsWriter`].
pub fn write_results(
    path: &Path,
    format: ResultsFormat,
    classes: &ClassList,
    films: &[FilmPrediction],
) -> Result<(), InferError> {
    let mut writer = ResultsWriter::create(path, format, classes)?;
    for film in films {
        writer.add(film)?;
    }
    writer.finish().map(|_| ())
}

/// The COCO results of a film: its boxes after the decision rule.
///
/// # Errors
/// [`UnknownLabel`] for a box of a class that is not of `classes`.
pub fn coco_results(film: &FilmPrediction, classes: &ClassList) -> Result<Vec<CocoResult>, UnknownLabel> {
    film.boxes
        .iter()
        .map(|b| {
            Ok(CocoResult {
                image_id: film.image.clone(),
                category_id: classes.index(&b.label)? as u32 + 1,
                bbox: [b.xyxy.x1, b.xyxy.y1, b.xyxy.width(), b.xyxy.height()],
                score: b.score,
            })
        })
        .collect()
}

/// For each box before the decision rule, whether the rule kept it. The kept boxes are a part of the
/// others in the same order, so one walk along both finds them.
pub fn kept_boxes(film: &FilmPrediction) -> Vec<(Detection, bool)> {
    let mut after = film.boxes.iter().peekable();
    film.boxes_before_gate.iter().map(|b| (b.clone(), after.next_if(|kept| *kept == b).is_some())).collect()
}

fn csv_rows(film: &FilmPrediction) -> Vec<[String; CSV_COLUMNS.len()]> {
    let optional = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
    let row = |kind: &str, abnormal: String, found: Option<(&Detection, bool)>| {
        let cell = |value: fn(&Detection) -> String| found.map(|(b, _)| value(b)).unwrap_or_default();
        [
            kind.to_owned(),
            film.image.clone(),
            film.study.clone(),
            optional(film.p_abnormal),
            optional(film.threshold),
            abnormal,
            cell(|b| b.label.name().to_owned()),
            cell(|b| b.score.to_string()),
            cell(|b| b.xyxy.x1.to_string()),
            cell(|b| b.xyxy.y1.to_string()),
            cell(|b| b.xyxy.x2.to_string()),
            cell(|b| b.xyxy.y2.to_string()),
            found.map(|(_, kept)| kept.to_string()).unwrap_or_default(),
            film.height_px.to_string(),
            film.width_px.to_string(),
            film.split.map(|s| s.name().to_owned()).unwrap_or_default(),
            film.model.clone(),
            film.demonstration.to_string(),
        ]
    };
    let abnormal = match (film.p_abnormal, film.threshold) {
        (Some(p), Some(c_star)) => (p >= c_star).to_string(),
        _ => String::new(),
    };
    let mut rows = vec![row("film", abnormal, None)];
    rows.extend(kept_boxes(film).iter().map(|(b, kept)| row("box", String::new(), Some((b, *kept)))));
    rows
}

fn csv_row(cells: &[String]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells).expect("a row fits in memory");
    writer.into_inner().expect("memory does not fail to flush")
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have string keys and no map that could fail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use spinexr_core::prediction::Timings;
    use spinexr_core::{BoxXyxy, FilmFacts, Finding, Gate};
    use std::collections::BTreeMap;
    use std::fs;

    fn film(image: &str) -> FilmPrediction {
        let found = |f: Finding, score, x| Detection {
            label: f.label(),
            score,
            xyxy: BoxXyxy::new(x, 20.5, x + 30.0, 60.0),
        };
        let mut film = FilmPrediction {
            image: image.to_owned(),
            study: "a, \"study\"".to_owned(),
            split: None,
            height_px: 200,
            width_px: 100,
            facts: FilmFacts::default(),
            logits: BTreeMap::from([("m".to_owned(), (-3.0).into())]),
            p_abnormal: Some(0.05),
            threshold: None,
            boxes: vec![],
            boxes_before_gate: vec![
                found(Finding::SurgicalImplant, 0.75, 10.0),
                found(Finding::Osteophytes, 0.25, 15.0),
                found(Finding::OtherLesions, 0.5, 18.0),
            ],
            method: None,
            pixels: serde_json::Value::Null,
            timings: Timings::default(),
            model: "00ff".to_owned(),
            demonstration: true,
        };
        film.apply_gate(&Gate::with_c_star(0.3));
        film
    }

    #[test]
    fn json_lines_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let films = [film("a"), film("b")];
        write_results(&path, ResultsFormat::Jsonl, &ClassList::vindr(), &films).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<FilmPrediction> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, films);
    }

    #[test]
    fn csv_has_a_row_for_the_film_and_one_for_each_box() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.csv");
        write_results(&path, ResultsFormat::Csv, &ClassList::vindr(), &[film("a"), film("b")]).unwrap();
        let mut reader = csv::Reader::from_path(&path).unwrap();
        assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), CSV_COLUMNS);
        let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 8);
        let kinds: Vec<_> = rows.iter().map(|r| r["kind"].as_str()).collect();
        assert_eq!(kinds, ["film", "box", "box", "box", "film", "box", "box", "box"]);
        assert_eq!(rows[0]["abnormal"], "false");
        assert_eq!(rows[0]["study"], "a, \"study\"");
        assert_eq!(rows[1]["label"], "Surgical implant");
        assert_eq!(rows[1]["ymin"].parse::<f32>().unwrap(), 20.5);
        // p is below c*: the boxes of 0.75 and 0.5 stay, the one of 0.25 goes.
        let kept: Vec<_> = rows[1..4].iter().map(|r| r["kept"].as_str()).collect();
        assert_eq!(kept, ["true", "false", "true"]);
    }

    #[test]
    fn coco_results_have_gated_boxes_with_width_and_height() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coco.json");
        write_results(&path, ResultsFormat::Coco, &ClassList::vindr(), &[film("a"), film("b")]).unwrap();
        let results: Vec<CocoResult> = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(results.len(), 4);
        assert_eq!(results[0].bbox, [10.0, 20.5, 30.0, 39.5]);
        assert_eq!(results[0].category_id, 5);
        assert_eq!((results[1].category_id, results[1].score), (7, 0.5));
        assert_eq!(results[3].image_id, "b");
        let cells = ClassList::from_names(["RBC"]).unwrap();
        let error = write_results(&path, ResultsFormat::Coco, &cells, &[film("a")]).unwrap_err().to_string();
        assert_eq!(error, r#"film a: unknown class "Surgical implant"; expected one of: RBC"#);
    }

    #[test]
    fn no_film_is_still_a_file_that_parses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coco.json");
        write_results(&path, ResultsFormat::Coco, &ClassList::vindr(), &[]).unwrap();
        let results: Vec<CocoResult> = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert!(results.is_empty());
    }
}
