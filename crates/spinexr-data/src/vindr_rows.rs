//! The rows of a VinDr-SpineXR annotation file.

use crate::dataset::{OddRow, OddRowKind};
use crate::vindr::{COLUMNS, NO_FINDING, VindrOptions};
use crate::{DataError, ReadCounts, RowError};
use csv::ByteRecord;
use spinexr_core::{Annotation, BoxXyxy, Category, ClassList, FilmAnnotation, Label};
use std::collections::HashMap;
use std::path::Path;

/// Coordinates beyond this are no film's, px.
const MAX_COORDINATE_PX: f64 = 1e6;

/// All rows of one film.
pub(crate) struct FilmRows {
    pub(crate) annotation: FilmAnnotation,
    /// A row of this film could not be understood.
    pub(crate) broken: bool,
    /// Line of its first row.
    first_line: u64,
    /// Line of the first row with a box, dropped ones included.
    box_line: Option<u64>,
    no_finding_line: Option<u64>,
}

/// What is wrong with a row: column, expected, found.
type Fault = (&'static str, String, String);

/// Reads the rows of one file; broken ones go to `errors`, irregular ones are counted, and listed in `odd_rows`
/// where they lose something.
pub(crate) fn parse(
    path: &Path,
    bytes: &[u8],
    classes: &ClassList,
    options: &VindrOptions,
    counts: &mut ReadCounts,
    odd_rows: &mut Vec<OddRow>,
    errors: &mut Vec<RowError>,
) -> Result<Vec<FilmRows>, DataError> {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    counts.byte_order_marks += usize::from(text.len() != bytes.len());
    counts.crlf_files += usize::from(text.windows(2).any(|w| w == b"\r\n"));

    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text);
    let header = reader.byte_headers().map_err(|e| csv_failure(path, &e))?.clone();
    let columns = find_columns(path, &header)?;
    let mut films: Vec<FilmRows> = Vec::new();
    let mut by_id: HashMap<String, usize> = HashMap::new();
    let mut lines = LineCounter { text, at: 0, line: 1 };
    for record in reader.into_byte_records() {
        let record = record.map_err(|e| csv_failure(path, &e))?;
        let line = lines.line_of(record.position().map_or(0, |p| p.byte()) as usize);
        let mut film = None;
        let before = odd_so_far(counts);
        let read = Row::split(&record, &columns, header.len()).and_then(|row| {
            let i = *by_id.entry(row.image_id.to_owned()).or_insert_with(|| {
                films.push(FilmRows::new(&row, line));
                films.len() - 1
            });
            film = Some(i);
            films[i].add(&row, line, classes, options, counts)
        });
        match read {
            Ok(()) => {
                counts.rows += 1;
                let image_id = film.map_or("", |i: usize| films[i].annotation.image_id.as_str());
                for ((_, before), (kind, now)) in before.into_iter().zip(odd_so_far(counts)) {
                    if now > before {
                        odd_rows.push(OddRow {
                            path: path.to_owned(),
                            line,
                            image_id: image_id.to_owned(),
                            kind,
                        });
                    }
                }
            }
            Err((column, expected, found)) => {
                if let Some(i) = film {
                    films[i].broken = true;
                }
                errors.push(RowError {
                    path: path.to_owned(),
                    line,
                    column: column.to_owned(),
                    expected,
                    found,
                });
            }
        }
    }
    Ok(films)
}

/// The cells of every row, in the order of [`COLUMNS`], whatever stands in them.
pub(crate) fn cells(path: &Path, bytes: &[u8]) -> Result<Vec<Vec<String>>, DataError> {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text);
    let columns = find_columns(path, &reader.byte_headers().map_err(|e| csv_failure(path, &e))?.clone())?;
    let cell = |record: &ByteRecord, at: usize| {
        String::from_utf8_lossy(record.get(at).unwrap_or_default()).into_owned()
    };
    reader
        .into_byte_records()
        .map(|record| {
            let record = record.map_err(|e| csv_failure(path, &e))?;
            Ok(columns.iter().map(|&at| cell(&record, at)).collect())
        })
        .collect()
}

fn odd_so_far(counts: &ReadCounts) -> [(OddRowKind, usize); 3] {
    [
        (OddRowKind::Repeated, counts.duplicate_rows),
        (OddRowKind::PastBorder, counts.clipped_boxes),
        (OddRowKind::Thin, counts.thin_boxes),
    ]
}

fn csv_failure(path: &Path, error: &csv::Error) -> DataError {
    DataError::Layout {
        path: path.to_owned(),
        expected: "comma-separated values".to_owned(),
        found: error.to_string(),
    }
}

/// Where each of [`COLUMNS`] stands; further columns are passed over.
fn find_columns(path: &Path, header: &ByteRecord) -> Result<[usize; 9], DataError> {
    let mut places = [0; 9];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        let mut found = (0..header.len()).filter(|&i| &header[i] == name.as_bytes());
        *place = match (found.next(), found.next()) {
            (Some(i), None) => i,
            _ => {
                let names: Vec<_> = header.iter().map(String::from_utf8_lossy).collect();
                return Err(DataError::MissingColumn {
                    path: path.to_owned(),
                    column: name.to_owned(),
                    found: if names.is_empty() { "(none)".to_owned() } else { names.join(",") },
                });
            }
        };
    }
    Ok(places)
}

/// Counts lines up to a place in the text. (The CSV reader's own count is one short after CR LF and blank
/// lines.)
struct LineCounter<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl LineCounter<'_> {
    /// Line of the row that begins at `start` or after the line ends there; `start` never goes back.
    fn line_of(&mut self, start: usize) -> u64 {
        while let Some(&byte) = self.text.get(self.at)
            && (self.at < start || byte == b'\n' || byte == b'\r')
        {
            let lone_cr = byte == b'\r' && self.text.get(self.at + 1) != Some(&b'\n');
            self.line += u64::from(byte == b'\n' || lone_cr);
            self.at += 1;
        }
        self.line
    }
}

/// The cells of a row that matter.
struct Row<'a> {
    study_id: &'a str,
    series_id: &'a str,
    image_id: &'a str,
    rad_id: &'a str,
    lesion_type: &'a str,
    coordinates: [&'a str; 4],
}

impl<'a> Row<'a> {
    fn split(record: &'a ByteRecord, columns: &[usize; 9], width: usize) -> Result<Self, Fault> {
        if record.len() != width {
            return Err(("", format!("{width} cells"), format!("{}", record.len())));
        }
        let mut cells = [""; 9];
        for ((cell, &place), name) in cells.iter_mut().zip(columns).zip(COLUMNS) {
            *cell = std::str::from_utf8(&record[place]).map_err(|_| {
                (name, "UTF-8 text".to_owned(), quote(&String::from_utf8_lossy(&record[place])))
            })?;
        }
        let [study_id, series_id, image_id, rad_id, lesion_type, coordinates @ ..] = cells;
        if !is_file_stem(image_id) {
            let expected = "a file stem of letters, digits, `.`, `_` and `-`, up to 200";
            return Err(("image_id", expected.to_owned(), quote(image_id)));
        }
        if study_id.is_empty() {
            let expected = "an identifier, because data are split by study";
            return Err(("study_id", expected.to_owned(), "a blank cell".to_owned()));
        }
        Ok(Self { study_id, series_id, image_id, rad_id, lesion_type, coordinates })
    }

    fn says_no_finding(&self) -> bool {
        self.lesion_type.replace(['_', '-'], " ").eq_ignore_ascii_case(NO_FINDING)
    }

    /// The class of the box: in the vocabulary of VinDr-SpineXR any of the 13 categories, folded.
    fn label(&self, classes: &ClassList, counts: &mut ReadCounts) -> Result<Label, Fault> {
        let unknown = |known: String| {
            let expected = format!("`{NO_FINDING}` or one of: {known}");
            ("lesion_type", expected, quote(self.lesion_type))
        };
        if !classes.is_vindr() {
            return classes.find(self.lesion_type).cloned().map_err(|e| unknown(e.known.to_string()));
        }
        let category: Category =
            self.lesion_type.parse().map_err(|_| unknown(Category::ALL.map(Category::name).join(", ")))?;
        let label = category.finding().label();
        counts.other_spelling += usize::from(self.lesion_type.eq_ignore_ascii_case("Spondylolisthesis"));
        counts.folded_labels += usize::from(label.name() != category.name());
        Ok(label)
    }

    /// The box as written, px.
    fn corners(&self) -> Result<[f32; 4], Fault> {
        let mut corners = [0f32; 4];
        for ((corner, cell), name) in corners.iter_mut().zip(self.coordinates).zip(&COLUMNS[5..]) {
            match cell.parse::<f64>() {
                Ok(v) if v.abs() <= MAX_COORDINATE_PX => *corner = v as f32,
                _ => {
                    let found = if cell.is_empty() { "a blank cell".to_owned() } else { quote(cell) };
                    return Err((name, "a coordinate in pixels".to_owned(), found));
                }
            }
        }
        let [x1, y1, x2, y2] = corners;
        if x2 < x1 {
            return Err(("xmax", format!("at least xmin = {x1}"), x2.to_string()));
        }
        if y2 < y1 {
            return Err(("ymax", format!("at least ymin = {y1}"), y2.to_string()));
        }
        Ok(corners)
    }
}

/// An image id becomes part of file names.
pub(crate) fn is_file_stem(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !id.is_empty() && id.len() <= 200 && !id.starts_with('.') && id.bytes().all(allowed)
}

/// A cell for a message: quoted, control characters escaped, cut at 60 characters.
fn quote(cell: &str) -> String {
    let mut short: String = cell.chars().take(60).collect();
    if short.len() < cell.len() {
        short.push('…');
    }
    format!("{short:?}")
}

impl FilmRows {
    fn new(row: &Row<'_>, line: u64) -> Self {
        let annotation = FilmAnnotation {
            image_id: row.image_id.to_owned(),
            study_id: row.study_id.to_owned(),
            series_id: row.series_id.to_owned(),
            abnormal: false,
            boxes: Vec::new(),
        };
        Self { annotation, broken: false, first_line: line, box_line: None, no_finding_line: None }
    }

    fn add(
        &mut self,
        row: &Row<'_>,
        line: u64,
        classes: &ClassList,
        options: &VindrOptions,
        counts: &mut ReadCounts,
    ) -> Result<(), Fault> {
        if row.study_id != self.annotation.study_id {
            let expected =
                format!("{} as on line {} of this film", quote(&self.annotation.study_id), self.first_line);
            return Err(("study_id", expected, quote(row.study_id)));
        }
        counts.blank_cells += usize::from(row.series_id.is_empty()) + usize::from(row.rad_id.is_empty());
        if row.says_no_finding() {
            return self.add_no_finding(row, line, counts);
        }
        let label = row.label(classes, counts)?;
        let [x1, y1, x2, y2] = row.corners()?;
        if let Some(no_finding) = self.no_finding_line {
            let expected = format!("no box on a film with `{NO_FINDING}` on line {no_finding}");
            return Err(("lesion_type", expected, quote(row.lesion_type)));
        }
        self.box_line.get_or_insert(line);
        self.annotation.abnormal = true;

        // The left and upper border are known without the film.
        let xyxy = BoxXyxy::new(x1.max(0.0), y1.max(0.0), x2.max(0.0), y2.max(0.0));
        let marked = Annotation { label, xyxy };
        if self.annotation.boxes.contains(&marked) {
            counts.duplicate_rows += 1;
            return Ok(());
        }
        counts.clipped_boxes += usize::from(x1 < 0.0 || y1 < 0.0);
        if xyxy.width() < options.min_box_px || xyxy.height() < options.min_box_px {
            counts.thin_boxes += 1;
        } else {
            self.annotation.boxes.push(marked);
        }
        Ok(())
    }

    fn add_no_finding(&mut self, row: &Row<'_>, line: u64, counts: &mut ReadCounts) -> Result<(), Fault> {
        if let Some(i) = row.coordinates.iter().position(|c| !c.is_empty()) {
            let expected = format!("a blank cell in a `{NO_FINDING}` row");
            return Err((COLUMNS[5 + i], expected, quote(row.coordinates[i])));
        }
        if let Some(with_box) = self.box_line {
            let expected = format!("a finding, since line {with_box} marks one on this film");
            return Err(("lesion_type", expected, quote(row.lesion_type)));
        }
        counts.no_finding_rows += 1;
        counts.duplicate_rows += usize::from(self.no_finding_line.is_some());
        self.no_finding_line.get_or_insert(line);
        Ok(())
    }
}
