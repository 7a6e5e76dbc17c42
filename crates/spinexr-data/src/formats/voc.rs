//! Pascal VOC (Everingham et al. 2010), one XML file a film.
//!
//! ```text
//! DIR/Annotations/<image_id>.xml   DIR/JPEGImages/<image_id>.jpg   DIR/ImageSets/Main/{train,val,test}.txt
//! ```
//! Corners are the numbers of pixels counted from 1, the last one included, as in the VOC development kit: a box over
//! all of a film of 640 × 480 px is `1, 1, 640, 480`, and a box of `xmin = xmax` is one pixel wide. In film px that is
//! `[xmin − 1, ymin − 1, xmax, ymax]`. Decimals are read; integers are written, so that a corner moves by half a pixel at
//! most.
//!
//! `trainval.txt` counts as training where there is no `train.txt`. Without any list all films are for training; with
//! lists, films of none of them are left out and counted. Classes are those of `DIR/classes.txt`, one a line, else all
//! names in alphabetical order. `pose`, `truncated` and `difficult` are passed over. `study_id`, `series_id` and `abnormal`
//! of the annotation are this program's own.
//!
//! A document type is refused, and with it every entity but XML's own five: nothing can be expanded.

use super::{PlacedBoxes, in_order, read_text};
use crate::error::reading;
use crate::vindr::{VindrOptions, film_files};
use crate::{DataError, Dataset, Film, ReadCounts, RowError, class_file};
use roxmltree::{Document, Node, ParsingOptions};
use spinexr_core::{ClassList, FilmAnnotation, Label, Split};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Largest annotation file and list of films, bytes: thousands of boxes.
const MAX_BYTES: u64 = 4 << 20;
/// Faults of one file that are looked for: each counts lines anew.
const MAX_FAULTS: usize = 100;
/// Most elements and texts of a file.
const MAX_NODES: u32 = 1 << 20;

/// Text with the characters replaced that mean something in XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Folder of the annotation files.
pub(crate) const ANNOTATIONS: &str = "Annotations";
/// Folder of the films.
pub(crate) const FILMS: &str = "JPEGImages";
/// Names of the classes, which the format itself does not list.
pub(crate) const CLASSES_FILE: &str = "classes.txt";

/// The folder has annotation files of this format.
pub(crate) fn is_in(dir: &Path) -> bool {
    xml_files(&dir.join(ANNOTATIONS)).is_ok_and(|files| !files.is_empty())
}

/// The list of a split's films.
pub(crate) fn list_of(name: &str) -> String {
    format!("ImageSets/Main/{name}.txt")
}

fn xml_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(reading(folder))? {
        let path = entry.map_err(reading(folder))?.path();
        let is_xml = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("xml"));
        if let (Some(stem), true) = (path.file_stem().and_then(|s| s.to_str()), is_xml)
            && !stem.starts_with('.')
        {
            files.insert(stem.to_owned(), path);
        }
    }
    Ok(files)
}

/// Reads `dir` and gives every broken element beside the sound films.
///
/// # Errors
/// [`DataError::Layout`] for a folder without annotation files, [`DataError::Read`].
pub fn read_and_collect(dir: &Path, options: &VindrOptions) -> Result<(Dataset, Vec<RowError>), DataError> {
    let annotations = xml_files(&dir.join(ANNOTATIONS))?;
    if annotations.is_empty() {
        return Err(DataError::Layout {
            path: dir.join(ANNOTATIONS),
            expected: "one XML file a film".to_owned(),
            found: "none".to_owned(),
        });
    }
    let classes_file = dir.join(CLASSES_FILE);
    let listed = if classes_file.is_file() { Some(class_file::read(&classes_file, &[])?) } else { None };
    let mut files = film_files(&dir.join(FILMS))?;
    let (splits, mut errors) = read_splits(dir, &annotations)?;
    let mut dataset = Dataset::default();
    let mut names: BTreeSet<Label> = BTreeSet::new();
    for (image_id, path) in annotations {
        let split = match &splits {
            None => Split::Train,
            Some(splits) => match splits.get(&image_id) {
                Some(split) => *split,
                None => {
                    dataset.read.without_split.push(image_id.clone());
                    files.remove(&image_id);
                    continue;
                }
            },
        };
        let text = read_text(&path, MAX_BYTES)?;
        let film = files.remove(&image_id);
        match annotation(&path, &text, &image_id, listed.as_ref(), options, &mut dataset.read) {
            Err(mut of_film) => errors.append(&mut of_film),
            Ok(annotation) => {
                names.extend(annotation.boxes.iter().map(|b| b.label.clone()));
                match film {
                    Some(path) => dataset.films.push(Film { path, annotation, split }),
                    None => dataset.read.without_file.push(image_id),
                }
            }
        }
    }
    dataset.read.without_annotation.extend(files.into_values());
    dataset.classes = match listed {
        Some(classes) => classes,
        None => ClassList::new(names).map_err(|e| DataError::Layout {
            path: dir.join(ANNOTATIONS),
            expected: "objects of at most 10000 classes".to_owned(),
            found: e.to_string(),
        })?,
    };
    in_order(&mut dataset, &mut errors);
    Ok((dataset, errors))
}

/// The split of each film that a list names; `None` without any list.
type Splits = Option<BTreeMap<String, Split>>;

fn read_splits(
    dir: &Path,
    annotations: &BTreeMap<String, PathBuf>,
) -> Result<(Splits, Vec<RowError>), DataError> {
    let list = |name: &str| dir.join(list_of(name));
    let train = if list("train").is_file() { "train" } else { "trainval" };
    let (mut splits, mut errors, mut any) = (BTreeMap::new(), vec![], false);
    for (name, split) in [(train, Split::Train), ("val", Split::Validation), ("test", Split::Test)] {
        let path = list(name);
        if !path.is_file() {
            continue;
        }
        any = true;
        for (line, text) in (1..).zip(read_text(&path, MAX_BYTES)?.lines()) {
            // Lists of one class have -1, 0 or 1 in a second column; names of films may have blanks.
            let image_id = match text.trim() {
                whole if annotations.contains_key(whole) => whole,
                line => line.split_whitespace().next().unwrap_or_default(),
            };
            if image_id.is_empty() {
                continue;
            }
            match splits.insert(image_id.to_owned(), split) {
                Some(first) if first != split => errors.push(RowError {
                    path: path.clone(),
                    line,
                    column: String::new(),
                    expected: "every film in one list".to_owned(),
                    found: format!("{image_id:?}, which is in {first} as well"),
                }),
                _ => {}
            }
        }
    }
    Ok((any.then_some(splits), errors))
}

/// The child element of a name.
fn child<'a, 'i>(element: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    element.children().find(|child| child.has_tag_name(name))
}

/// The text of a child, without blanks at its ends; empty where there is none.
fn text_of<'a>(element: Node<'a, '_>, name: &str) -> &'a str {
    child(element, name).and_then(|child| child.text()).map_or("", str::trim)
}

/// The document, or the line and what is wrong there.
fn parse(text: &str) -> Result<Document<'_>, (u64, String)> {
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|e| (u64::from(e.pos().row), e.to_string()))
}

/// The line that an element begins on.
fn line_of(element: Node<'_, '_>) -> u64 {
    u64::from(element.document().text_pos_at(element.range().start).row)
}

/// The annotation of one film, or all that is wrong with it.
fn annotation(
    path: &Path,
    text: &str,
    image_id: &str,
    classes: Option<&ClassList>,
    options: &VindrOptions,
    counts: &mut ReadCounts,
) -> Result<FilmAnnotation, Vec<RowError>> {
    let fault = |line: u64, field: &str, expected: &str, found: String| RowError {
        path: path.to_owned(),
        line,
        column: field.to_owned(),
        expected: expected.to_owned(),
        found,
    };
    let document =
        parse(text).map_err(|(line, found)| vec![fault(line, "", "a VOC annotation in plain XML", found)])?;
    let root = document.root_element();
    if !root.has_tag_name("annotation") {
        let found = format!("`{}`", root.tag_name().name());
        return Err(vec![fault(line_of(root), "", "the element `annotation`", found)]);
    }
    let side = |name: &str| {
        let size = child(root, "size")
            .ok_or_else(|| fault(line_of(root), "size", "the film's size", "none".into()))?;
        let text = text_of(size, name);
        let px = text.parse::<u32>().ok().filter(|px| *px > 0);
        px.ok_or_else(|| fault(line_of(size), name, "the film's size, px", format!("{text:?}")))
    };
    let (height, width) = match (side("height"), side("width")) {
        (Ok(height), Ok(width)) => (height, width),
        (Err(e), _) | (_, Err(e)) => return Err(vec![e]),
    };
    let mut placed = PlacedBoxes::new(height, width, options);
    let mut errors = vec![];
    for object in root.children().filter(|child| child.has_tag_name("object")) {
        if errors.len() >= MAX_FAULTS {
            break;
        }
        let name = text_of(object, "name");
        let label = match (Label::new(name), classes) {
            (Err(e), _) => Err(("a class name".to_owned(), e.to_string())),
            (Ok(label), Some(classes)) if classes.index(&label).is_err() => {
                Err((format!("one of {CLASSES_FILE}: {classes}"), format!("{name:?}")))
            }
            (Ok(label), _) => Ok(label),
        };
        let label = match label {
            Ok(label) => label,
            Err((expected, found)) => {
                errors.push(fault(line_of(object), "object.name", &expected, found));
                continue;
            }
        };
        match corners(object) {
            Err((line, field, found)) => errors.push(fault(line, field, "a number of pixels", found)),
            Ok([xmin, ymin, xmax, ymax]) => {
                let first_to_last = [xmin - 1.0, ymin - 1.0, xmax, ymax];
                let in_order = if xmax < xmin || ymax < ymin {
                    let expected = "corners in order, xmin <= xmax and ymin <= ymax".to_owned();
                    Err((expected, format!("[{xmin}, {ymin}, {xmax}, {ymax}]")))
                } else {
                    placed.add(&label, first_to_last, counts)
                };
                if let Err((expected, found)) = in_order {
                    let line = line_of(child(object, "bndbox").unwrap_or(object));
                    errors.push(fault(line, "bndbox", &expected, found));
                }
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let study_id = text_of(root, "study_id");
    Ok(FilmAnnotation {
        image_id: image_id.to_owned(),
        study_id: if study_id.is_empty() { image_id } else { study_id }.to_owned(),
        series_id: text_of(root, "series_id").to_owned(),
        abnormal: placed.any || text_of(root, "abnormal") == "1",
        boxes: placed.boxes,
    })
}

/// The four numbers of an object's box, or line, field and what was found.
fn corners(object: Node<'_, '_>) -> Result<[f64; 4], (u64, &'static str, String)> {
    let bndbox = child(object, "bndbox").ok_or_else(|| (line_of(object), "bndbox", "none".to_owned()))?;
    let mut corners = [0.0; 4];
    for (corner, name) in corners.iter_mut().zip(["xmin", "ymin", "xmax", "ymax"]) {
        let text = text_of(bndbox, name);
        *corner = match text.parse::<f64>() {
            Ok(v) if v.is_finite() => v,
            _ => return Err((line_of(child(bndbox, name).unwrap_or(bndbox)), name, format!("{text:?}"))),
        };
    }
    Ok(corners)
}

/// The first and the last pixel, counted from 1, of what lies between two edges: rounded, and for less than a pixel the
/// one that its middle is in.
fn pixels(low: f64, high: f64, side_px: u32) -> [f64; 2] {
    let (first, end) = (low.round(), high.round());
    if first < end {
        return [first + 1.0, end];
    }
    let pixel = (0.5 * (low + high)).floor().min(f64::from(side_px) - 1.0) + 1.0;
    [pixel, pixel]
}

/// A film's annotation file, and how many boxes have corners that were rounded.
pub(crate) fn document(
    film: &FilmAnnotation,
    file_name: &str,
    height_px: u32,
    width_px: u32,
) -> (String, usize) {
    let mut rounded = 0;
    let mut out = format!(
        "<annotation>\n\t<folder>{FILMS}</folder>\n\t<filename>{}</filename>\n\t<size>\n\t\t<width>{width_px}</width>\n\
         \t\t<height>{height_px}</height>\n\t\t<depth>1</depth>\n\t</size>\n\t<segmented>0</segmented>\n",
        escape(file_name)
    );
    let mut own = |name: &str, value: &str| {
        let _ = writeln!(out, "\t<{name}>{}</{name}>", escape(value));
    };
    if film.study_id != film.image_id {
        own("study_id", &film.study_id);
    }
    if !film.series_id.is_empty() {
        own("series_id", &film.series_id);
    }
    if film.abnormal && film.boxes.is_empty() {
        own("abnormal", "1");
    }
    for b in &film.boxes {
        let sides = <[f32; 4]>::from(b.xyxy).map(f64::from);
        let ([xmin, xmax], [ymin, ymax]) =
            (pixels(sides[0], sides[2], width_px), pixels(sides[1], sides[3], height_px));
        rounded += usize::from([xmin - 1.0, ymin - 1.0, xmax, ymax] != sides);
        let _ = writeln!(
            out,
            "\t<object>\n\t\t<name>{}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n\
             \t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{}</xmin>\n\t\t\t<ymin>{}</ymin>\n\
             \t\t\t<xmax>{}</xmax>\n\t\t\t<ymax>{}</ymax>\n\t\t</bndbox>\n\t</object>",
            escape(b.label.name()),
            xmin,
            ymin,
            xmax,
            ymax,
        );
    }
    out.push_str("</annotation>\n");
    (out, rounded)
}
