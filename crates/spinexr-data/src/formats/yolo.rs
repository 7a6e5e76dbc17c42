//! YOLO label files with a `data.yaml`, as Ultralytics and Roboflow write them (docs.ultralytics.com, "Detect").
//!
//! ```text
//! DIR/data.yaml                    path, train, val, test: folders of films (or lists of them); names: the classes
//! DIR/images/train/<image_id>.jpg  DIR/labels/train/<image_id>.txt   (or DIR/train/images/…, DIR/train/labels/…)
//! ```
//! A label file lies where its film lies, with `labels` for the last `images` of the path. A line is a class number
//! and a box: centre, width and height as shares of the film's sides. Of a polygon (a class number and three or more points)
//! the box around it is taken, and counted. A film without a label file has no box.
//!
//! The shares need the film's size, so every film's header is read. The format has no place for studies: every film is
//! one of its own, and abnormal when it has a box.

use super::yaml::{self, Node};
use super::{PlacedBoxes, in_order, read_text, short_name, split_named};
use crate::parallel::in_parallel;
use crate::vindr::{FILM_EXTENSIONS, VindrOptions, film_files};
use crate::{DataError, Dataset, Film, ReadCounts, RowError};
use spinexr_core::{Annotation, ClassList, FilmAnnotation, Label, Split};
use spinexr_dicom::{Limits, read_size};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

/// Largest `data.yaml`, label file and list of films, bytes.
const MAX_BYTES: u64 = 8 << 20;
/// Coordinates within this of a side are on it: what the division by the film's size leaves, px.
const ZERO_PX: f64 = 1e-9;

/// The file that names folders and classes.
pub(crate) const DATA_FILE: &str = "data.yaml";

/// The folder is laid out in this format.
pub(crate) fn is_in(dir: &Path) -> bool {
    dir.join(DATA_FILE).is_file()
}

/// What `data.yaml` says.
struct Data {
    classes: ClassList,
    /// Folders and lists of films by split.
    films: Vec<(Split, PathBuf)>,
}

fn read_data(dir: &Path) -> Result<Data, DataError> {
    let path = dir.join(DATA_FILE);
    let text = read_text(&path, MAX_BYTES)?;
    let fault = |line: u64, field: &str, expected: &str, found: String| DataError::Rows {
        errors: vec![RowError {
            path: path.clone(),
            line,
            column: field.to_owned(),
            expected: expected.to_owned(),
            found,
        }],
        total: 1,
    };
    let root = yaml::parse(&text).map_err(|(line, found)| fault(line, "", "plain YAML", found))?;
    let Node::Map(entries) = root else {
        return Err(fault(1, "", "a map with `train` and `names`", "another value".to_owned()));
    };
    let entry = |key: &str| entries.iter().find(|entry| entry.key == key);
    let base = match entry("path").map(|entry| &entry.value) {
        // Often the place on the author's machine: taken only where it is a folder here.
        Some(Node::Scalar(text)) if dir.join(text).is_dir() => dir.join(text),
        _ => dir.to_owned(),
    };
    let mut films = vec![];
    for entry in &entries {
        let Some(split) = split_named(&entry.key) else { continue };
        let places: Vec<&Node> = match &entry.value {
            Node::List(items) => items.iter().collect(),
            value => vec![value],
        };
        for place in places {
            match place {
                Node::Scalar(text) if text.is_empty() || text == "~" || text == "null" => {}
                Node::Scalar(text) => match place_of(&base, text) {
                    Some(place) => films.push((split, place)),
                    None => {
                        let expected = format!("a folder of films under {}", base.display());
                        return Err(fault(entry.line, &entry.key, &expected, format!("{text:?}")));
                    }
                },
                _ => {
                    return Err(fault(entry.line, &entry.key, "a folder, or a list of them", "a map".into()));
                }
            }
        }
    }
    films.sort();
    let names = entry("names").ok_or_else(|| fault(1, "names", "the classes", "no such key".to_owned()))?;
    let classes = class_names(&names.value)
        .and_then(|names| ClassList::from_names(names).map_err(|e| e.to_string()))
        .map_err(|found| fault(names.line, "names", "the classes by number from 0", found))?;
    if let Some(entry) = entry("nc")
        && entry.value != Node::Scalar(classes.len().to_string())
    {
        let expected = format!("{}, the number of names", classes.len());
        return Err(fault(entry.line, "nc", &expected, format!("{:?}", entry.value)));
    }
    Ok(Data { classes, films })
}

/// A folder or list under `base`. Roboflow writes `../train/images` for what lies beside the file.
fn place_of(base: &Path, text: &str) -> Option<PathBuf> {
    [text, text.trim_start_matches("../")].iter().map(|text| base.join(text)).find(|place| place.exists())
}

/// The names by number, of a list or a map with numbers as keys.
fn class_names(node: &Node) -> Result<Vec<String>, String> {
    let scalar = |node: &Node| match node {
        Node::Scalar(text) => Ok(text.trim().to_owned()),
        _ => Err("a name that is no text".to_owned()),
    };
    match node {
        Node::List(items) => items.iter().map(scalar).collect(),
        Node::Map(entries) => {
            let mut by_number = BTreeMap::new();
            for entry in entries {
                let number: usize = entry.key.parse().map_err(|_| format!("the number {:?}", entry.key))?;
                by_number.insert(number, scalar(&entry.value)?);
            }
            match by_number.keys().copied().eq(0..by_number.len()) {
                true => Ok(by_number.into_values().collect()),
                false => Err("numbers with gaps".to_owned()),
            }
        }
        Node::Scalar(text) => Err(format!("{text:?}")),
    }
}

/// Reads `dir` and gives every broken line beside the sound films. A film whose size cannot be read is one.
///
/// # Errors
/// [`DataError::Rows`] for a broken `data.yaml`, [`DataError::ImageTwice`], [`DataError::Read`].
pub fn read_and_collect(dir: &Path, options: &VindrOptions) -> Result<(Dataset, Vec<RowError>), DataError> {
    let data = read_data(dir)?;
    let mut dataset = Dataset { classes: data.classes, ..Dataset::default() };
    let mut films: Vec<(Split, String, PathBuf)> = vec![];
    for (split, place) in &data.films {
        let found = if place.is_dir() { film_files(place)? } else { listed_films(place)? };
        if place.is_dir() {
            dataset.read.without_file.extend(labels_without_film(place, &found)?);
        }
        films.extend(found.into_iter().map(|(id, path)| (*split, id, path)));
    }
    let classes = &dataset.classes;
    let mut read: Vec<Option<FilmOrFaults>> = vec![None; films.len()];
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let job = |i: usize| annotation(&films[i].1, &films[i].2, classes, options);
    in_parallel(films.len(), threads, job, |i, outcome| {
        read[i] = Some(outcome?);
        Ok::<(), DataError>(())
    })?;
    let mut errors = vec![];
    for ((split, _, path), outcome) in films.into_iter().zip(read) {
        match outcome.expect("every film was read") {
            Ok((annotation, counts)) => {
                dataset.read.add(&counts);
                dataset.films.push(Film { path, annotation, split });
            }
            Err(mut of_film) => errors.append(&mut of_film),
        }
    }
    in_order(&mut dataset, &mut errors);
    Ok((dataset, errors))
}

/// The films that a text file lists, one a line, relative to it.
fn listed_films(list: &Path) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let folder = list.parent().unwrap_or(Path::new("."));
    let mut films = BTreeMap::new();
    for (line, text) in
        (1..).zip(read_text(list, MAX_BYTES)?.lines()).filter(|(_, text)| !text.trim().is_empty())
    {
        let path = folder.join(text.trim());
        let stem = path.file_stem().and_then(|s| s.to_str());
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
        match stem {
            Some(stem) if FILM_EXTENSIONS.contains(&&*extension) => films.insert(stem.to_owned(), path),
            _ => {
                return Err(DataError::Rows {
                    errors: vec![RowError {
                        path: list.to_owned(),
                        line,
                        column: String::new(),
                        expected: "the path of a film".to_owned(),
                        found: format!("{:?}", text.chars().take(60).collect::<String>()),
                    }],
                    total: 1,
                });
            }
        };
    }
    Ok(films)
}

/// Where the label file of a film or the label folder of a film folder is.
fn labels_of(film: &Path) -> PathBuf {
    let parts: Vec<Component<'_>> = film.components().collect();
    let last = parts.iter().rposition(|part| part.as_os_str() == "images");
    let renamed = parts.iter().enumerate().map(|(i, part)| match Some(i) == last {
        true => Component::Normal("labels".as_ref()),
        false => *part,
    });
    renamed.collect()
}

fn labels_without_film(films: &Path, known: &BTreeMap<String, PathBuf>) -> Result<Vec<String>, DataError> {
    let folder = labels_of(films);
    let mut without = vec![];
    // A part without any box may have no folder of labels.
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("");
        let is_label = path.extension().is_some_and(|e| e == "txt") && stem != "classes";
        if is_label && !known.contains_key(stem) {
            without.push(stem.to_owned());
        }
    }
    Ok(without)
}

type FilmOrFaults = Result<(FilmAnnotation, ReadCounts), Vec<RowError>>;

fn annotation(
    image_id: &str,
    film: &Path,
    classes: &ClassList,
    options: &VindrOptions,
) -> Result<FilmOrFaults, DataError> {
    let path = labels_of(film).with_extension("txt");
    let text = if path.is_file() { read_text(&path, MAX_BYTES)? } else { String::new() };
    let (height, width) = match read_size(film, &Limits::default()) {
        Ok(size) => size,
        Err(e) => {
            let expected = "a film whose size can be read".to_owned();
            let (path, column, found) = (film.to_owned(), String::new(), e.to_string());
            return Ok(Err(vec![RowError { path, line: 1, column, expected, found }]));
        }
    };
    let (mut counts, mut errors) = (ReadCounts::default(), vec![]);
    let mut placed = PlacedBoxes::new(height, width, options);
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let added = marked(text, classes, &mut counts).and_then(|(label, shares)| {
            let sides = [width, height, width, height].map(f64::from);
            let mut corners = [0.0; 4];
            for ((corner, share), side) in corners.iter_mut().zip(shares).zip(sides) {
                let px = share * side;
                *corner = if px.abs() < ZERO_PX { 0.0 } else { px };
            }
            placed.add(label, corners, &mut counts).map_err(|(expected, found)| ("box", expected, found))
        });
        if let Err((field, expected, found)) = added {
            errors.push(RowError { path: path.clone(), line, column: field.to_owned(), expected, found });
        }
    }
    if !errors.is_empty() {
        return Ok(Err(errors));
    }
    let annotation = FilmAnnotation {
        image_id: image_id.to_owned(),
        study_id: image_id.to_owned(),
        series_id: String::new(),
        abnormal: placed.any,
        boxes: placed.boxes,
    };
    Ok(Ok((annotation, counts)))
}

/// What is wrong with a line: field, expected, found.
type Fault = (&'static str, String, String);

/// A line's class and corners, as shares of the film's sides.
fn marked<'c>(
    text: &str,
    classes: &'c ClassList,
    counts: &mut ReadCounts,
) -> Result<(&'c Label, [f64; 4]), Fault> {
    let cells: Vec<&str> = text.split_whitespace().collect();
    let quoted = |cell: &str| format!("{:?}", cell.chars().take(40).collect::<String>());
    let is_polygon = cells.len() >= 7 && cells.len() % 2 == 1;
    if cells.len() != 5 && !is_polygon {
        let expected = "a class and a box (5 columns), or a polygon of three or more points".to_owned();
        return Err(("", expected, format!("{} columns", cells.len())));
    }
    // Some tools write class numbers as decimals.
    let number = cells[0].parse::<f64>().ok().filter(|n| n.fract() == 0.0 && *n >= 0.0);
    let label = number.and_then(|n| classes.get(n as usize)).ok_or_else(|| {
        let last = classes.len().saturating_sub(1);
        ("class", format!("a number from 0 to {last}, the names in {DATA_FILE}"), quoted(cells[0]))
    })?;
    let mut values = Vec::with_capacity(cells.len() - 1);
    for cell in &cells[1..] {
        match cell.parse::<f64>() {
            Ok(v) if v.is_finite() => values.push(v),
            _ => return Err(("box", "a share of the film's side".to_owned(), quoted(cell))),
        }
    }
    if is_polygon {
        counts.polygons += 1;
        let range = |axis: usize| {
            let along = values.iter().skip(axis).step_by(2).copied();
            (along.clone().fold(f64::INFINITY, f64::min), along.fold(f64::NEG_INFINITY, f64::max))
        };
        let ((x1, x2), (y1, y2)) = (range(0), range(1));
        return Ok((label, [x1, y1, x2, y2]));
    }
    let [x, y, w, h] = values[..] else { unreachable!("five columns are a class and four values") };
    if w < 0.0 || h < 0.0 {
        return Err(("box", "a width and a height of 0 or more".to_owned(), format!("{w} and {h}")));
    }
    Ok((label, [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]))
}

/// A film's label file. Shares are written with all digits of an `f64`, so that corners come back as they were.
pub(crate) fn labels(
    image_id: &str,
    boxes: &[Annotation],
    classes: &ClassList,
    height_px: u32,
    width_px: u32,
) -> Result<String, DataError> {
    let (width, height) = (f64::from(width_px), f64::from(height_px));
    let mut out = String::new();
    for b in boxes {
        let index = classes
            .index(&b.label)
            .map_err(|source| DataError::UnknownLabel { image_id: image_id.to_owned(), source })?;
        let [x1, y1, x2, y2] = <[f32; 4]>::from(b.xyxy).map(f64::from);
        let (x, y) = ((x1 + x2) / 2.0 / width, (y1 + y2) / 2.0 / height);
        let _ = writeln!(out, "{index} {x} {y} {} {}", (x2 - x1) / width, (y2 - y1) / height);
    }
    Ok(out)
}

/// The file that names folders and classes.
pub(crate) fn data_file(splits: &[Split], classes: &ClassList) -> String {
    let mut out = String::new();
    for split in splits {
        let name = short_name(*split);
        let _ = writeln!(out, "{name}: images/{name}");
    }
    let _ = writeln!(out, "nc: {}\nnames:", classes.len());
    for (i, label) in classes.labels().iter().enumerate() {
        // A JSON string is a YAML string in double quotes.
        let _ = writeln!(out, "  {i}: {}", serde_json::to_string(label).expect("a label is text"));
    }
    out
}
