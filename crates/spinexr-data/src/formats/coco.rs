//! COCO instances (cocodataset.org, "Data format"), one file a split.
//!
//! ```text
//! DIR/annotations/instances_train.json   instances_val.json   instances_test.json   (a year may follow: train2017)
//! DIR/train/_annotations.coco.json       valid/…              test/…                (as Roboflow exports)
//! ```
//! A film is looked for by its `file_name` under `DIR/images/<split>`, `DIR/<split>`, `DIR/images`, `DIR` and beside the
//! annotation file; a name may also be an absolute path. Its image id is the file stem. Boxes are
//! `[x, y, width, height]`, px from the upper left corner, in decimals. Classes are the categories, ordered by id.
//!
//! Three fields are this program's own, and other readers pass over them: `study_id`, `series_id` and `abnormal` of an
//! image. Without `study_id` every image is a study of its own; without `abnormal` a film is abnormal when it has a
//! box. Regions of many objects (`iscrowd`) are left out and counted.

use super::{PlacedBoxes, in_order, read_text, short_name, split_named};
use crate::vindr::VindrOptions;
use crate::{DataError, Dataset, Film, RowError};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use spinexr_core::{ClassList, FilmAnnotation, Label, Split};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Largest annotation file, bytes.
const MAX_BYTES: u64 = 1 << 30;

/// The annotation files of a folder with their splits, training first.
pub(crate) fn files(dir: &Path) -> Vec<(Split, PathBuf)> {
    let mut files = vec![];
    for entry in std::fs::read_dir(dir.join("annotations")).into_iter().flatten().flatten() {
        let path = entry.path();
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("");
        let name = stem.strip_prefix("instances_").unwrap_or(stem);
        let split = split_named(name.trim_end_matches(|c: char| c.is_ascii_digit()));
        if let (Some(split), Some("json")) = (split, path.extension().and_then(|e| e.to_str())) {
            files.push((split, path));
        }
    }
    for name in ["train", "val", "valid", "test"] {
        let path = dir.join(name).join("_annotations.coco.json");
        if let (Some(split), true) = (split_named(name), path.is_file()) {
            files.push((split, path));
        }
    }
    files.sort();
    files
}

/// The entries of a document's lists, as the text they are written in: so that each can name its line.
struct Document<'a> {
    images: Vec<&'a str>,
    annotations: Vec<&'a str>,
    categories: Vec<&'a str>,
}

impl<'a> Document<'a> {
    /// Of a text that must be JSON; else what is wrong with it.
    fn parse(text: &'a str) -> Result<Self, String> {
        serde_json::from_str::<IgnoredAny>(text).map_err(|e| e.to_string())?;
        let members = inside(text, '{', '}').ok_or("a value that is no object, line 1")?;
        let mut lists = BTreeMap::new();
        for member in split(members) {
            let mut reader = serde_json::Deserializer::from_str(member).into_iter::<String>();
            let Some(Ok(key)) = reader.next() else { continue };
            let value = member[reader.byte_offset()..].trim_start().trim_start_matches(':');
            lists.insert(key, value);
        }
        let list = |name: &str| -> Result<Vec<&'a str>, String> {
            let list = lists.get(name).ok_or_else(|| format!("no list `{name}`, line 1"))?;
            inside(list, '[', ']').map(split).ok_or_else(|| format!("`{name}` that is no list, line 1"))
        };
        Ok(Self {
            images: list("images")?,
            annotations: list("annotations")?,
            categories: list("categories")?,
        })
    }
}

/// What stands between the brackets of a value.
fn inside(text: &str, open: char, close: char) -> Option<&str> {
    text.trim().strip_prefix(open)?.strip_suffix(close)
}

/// The values between the commas of valid JSON, without blanks around them.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut in_string, mut escaped) = (vec![], 0, 0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    // Between the brackets of an empty list there is one part without anything.
    parts.retain(|part| !part.is_empty());
    parts
}

/// Whole numbers or text: both are found in files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
enum Id {
    Number(i64),
    Text(String),
}

#[derive(Serialize, Deserialize)]
struct Image {
    id: Id,
    file_name: String,
    width: u32,
    height: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    study_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    series_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    abnormal: Option<bool>,
}

#[derive(Serialize, Deserialize)]
struct Instance {
    #[serde(default)]
    id: Option<Id>,
    image_id: Id,
    category_id: i64,
    bbox: [f64; 4],
    #[serde(default)]
    area: Option<f64>,
    #[serde(default)]
    iscrowd: u8,
}

/// As much of a broken [`Instance`] as says which film it breaks.
#[derive(Deserialize)]
struct OfImage {
    image_id: Id,
}

#[derive(Serialize, Deserialize)]
struct Category {
    id: i64,
    name: String,
}

/// Reads the entries of one file, each with its line and what is wrong with it.
struct Entries<'a> {
    path: &'a Path,
    text: &'a str,
    /// Offsets of line starts.
    lines: Vec<usize>,
    errors: Vec<RowError>,
}

impl<'a> Entries<'a> {
    fn new(path: &'a Path, text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { path, text, lines, errors: vec![] }
    }

    fn line_of(&self, raw: &str) -> u64 {
        // An entry is a slice of the text.
        let at = raw.as_ptr() as usize - self.text.as_ptr() as usize;
        self.lines.partition_point(|start| *start <= at) as u64
    }

    fn fault(&mut self, raw: &str, field: String, expected: &str, found: String) {
        let (path, line, expected) = (self.path.to_owned(), self.line_of(raw), expected.to_owned());
        self.errors.push(RowError { path, line, column: field, expected, found });
    }

    /// Every entry of a list that is of the form of `T`, with its place in the list; the others are faults.
    fn of<T: DeserializeOwned>(
        &mut self,
        list: &'static str,
        raw: &[&str],
        expected: &'static str,
    ) -> Vec<(usize, T)> {
        let mut read = Vec::with_capacity(raw.len());
        for (i, raw) in raw.iter().enumerate() {
            match serde_json::from_str(raw) {
                Ok(entry) => read.push((i, entry)),
                Err(e) => {
                    let message = e.to_string();
                    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
                    self.fault(raw, format!("{list}[{i}]"), expected, message);
                }
            }
        }
        read
    }
}

/// A film in the making.
struct Draft<'a> {
    image: Image,
    placed: PlacedBoxes<'a>,
    broken: bool,
}

/// Reads `dir` and gives every broken entry beside the sound films.
///
/// # Errors
/// [`DataError::Layout`] for a folder without annotation files, or a file that is no COCO document;
/// [`DataError::Read`].
pub fn read_and_collect(dir: &Path, options: &VindrOptions) -> Result<(Dataset, Vec<RowError>), DataError> {
    let files = files(dir);
    if files.is_empty() {
        return Err(DataError::Layout {
            path: dir.to_owned(),
            expected: "annotations/instances_train.json, …_val.json or …_test.json".to_owned(),
            found: "none of them".to_owned(),
        });
    }
    let (mut dataset, mut errors, mut labels) = (Dataset::default(), vec![], Labels::default());
    for (split, path) in files {
        let text = read_text(&path, MAX_BYTES)?;
        let mut entries = Entries::new(&path, &text);
        read_file(dir, split, &mut entries, options, &mut dataset, &mut labels)?;
        errors.append(&mut entries.errors);
    }
    dataset.classes = ClassList::new(labels.in_order).map_err(|e| DataError::Layout {
        path: dir.to_owned(),
        expected: "categories that are a list of classes".to_owned(),
        found: e.to_string(),
    })?;
    in_order(&mut dataset, &mut errors);
    Ok((dataset, errors))
}

/// The labels of all files in the order in which they come.
#[derive(Default)]
struct Labels {
    in_order: Vec<Label>,
    known: BTreeSet<Label>,
}

fn read_file(
    dir: &Path,
    split: Split,
    entries: &mut Entries<'_>,
    options: &VindrOptions,
    dataset: &mut Dataset,
    labels: &mut Labels,
) -> Result<(), DataError> {
    let document = Document::parse(entries.text).map_err(|found| DataError::Layout {
        path: entries.path.to_owned(),
        expected: "a COCO document with lists `images`, `annotations` and `categories`".to_owned(),
        found,
    })?;
    let categories = read_categories(entries, &document);
    let mut in_order: Vec<(&i64, &Label)> = categories.iter().collect();
    in_order.sort();
    for (_, label) in in_order {
        if labels.known.insert(label.clone()) {
            labels.in_order.push(label.clone());
        }
    }
    let mut films: BTreeMap<Id, Draft<'_>> = BTreeMap::new();
    for (i, image) in entries.of::<Image>("images", &document.images, "an image with id, file_name and size")
    {
        let raw = document.images[i];
        let field = |name: &str| format!("images[{i}].{name}");
        if image_id(&image).is_none() {
            let found = format!("{:?}", image.file_name);
            entries.fault(raw, field("file_name"), "the name of a file", found);
        } else if image.width == 0 || image.height == 0 {
            let found = format!("{} x {}", image.width, image.height);
            entries.fault(raw, field("width"), "the film's size, px", found);
        } else if films.contains_key(&image.id) {
            let found = format!("{:?} twice", image.id);
            entries.fault(raw, field("id"), "an id of its own for every image", found);
        } else {
            let placed = PlacedBoxes::new(image.height, image.width, options);
            films.insert(image.id.clone(), Draft { image, placed, broken: false });
        }
    }
    let known_categories = || categories.keys().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let mut ids: HashMap<Id, usize> = HashMap::new();
    let expected = "an annotation with image_id, category_id and a bbox of four numbers";
    let instances = entries.of::<Instance>("annotations", &document.annotations, expected);
    // An entry that cannot be understood breaks the film it belongs to, as far as that can be told.
    let mut understood = instances.iter().map(|(i, _)| *i).peekable();
    for (i, raw) in document.annotations.iter().enumerate() {
        if understood.next_if_eq(&i).is_none()
            && let Ok(entry) = serde_json::from_str::<OfImage>(raw)
            && let Some(film) = films.get_mut(&entry.image_id)
        {
            film.broken = true;
        }
    }
    for (i, instance) in instances {
        let raw = document.annotations[i];
        let field = |name: &str| format!("annotations[{i}].{name}");
        let Some(film) = films.get_mut(&instance.image_id) else {
            let found = format!("{:?}", instance.image_id);
            entries.fault(raw, field("image_id"), "the id of an image in this file", found);
            continue;
        };
        if instance.iscrowd != 0 {
            dataset.read.crowd_regions += 1;
            continue;
        }
        if let Some(id) = instance.id
            && let Some(first) = ids.insert(id.clone(), i)
        {
            film.broken = true;
            let found = format!("{id:?} as in annotations[{first}]");
            entries.fault(raw, field("id"), "an id of its own for every annotation", found);
            continue;
        }
        let Some(label) = categories.get(&instance.category_id) else {
            film.broken = true;
            let expected = format!("one of the categories {}", known_categories());
            entries.fault(raw, field("category_id"), &expected, instance.category_id.to_string());
            continue;
        };
        let [x, y, w, h] = instance.bbox;
        if let Err((expected, found)) = film.placed.add(label, [x, y, x + w, y + h], &mut dataset.read) {
            film.broken = true;
            entries.fault(raw, field("bbox"), &expected, found);
        }
    }
    for film in films.into_values().filter(|film| !film.broken) {
        let Draft { image, placed, .. } = film;
        let id = image_id(&image).expect("checked when the image was read").to_owned();
        match find_film(dir, split, entries.path, &image.file_name) {
            Some(path) => {
                let abnormal = image.abnormal.unwrap_or(placed.any) || placed.any;
                let annotation = FilmAnnotation {
                    study_id: image.study_id.filter(|s| !s.is_empty()).unwrap_or_else(|| id.clone()),
                    image_id: id,
                    series_id: image.series_id.unwrap_or_default(),
                    abnormal,
                    boxes: placed.boxes,
                };
                dataset.films.push(Film { path, annotation, split });
            }
            None => dataset.read.without_file.push(id),
        }
    }
    Ok(())
}

fn read_categories(entries: &mut Entries<'_>, document: &Document<'_>) -> BTreeMap<i64, Label> {
    let mut categories: BTreeMap<i64, Label> = BTreeMap::new();
    for (i, category) in
        entries.of::<Category>("categories", &document.categories, "a category with id and name")
    {
        let raw = document.categories[i];
        match Label::new(category.name.trim()) {
            Err(e) => entries.fault(raw, format!("categories[{i}].name"), "a class name", e.to_string()),
            Ok(label) if categories.values().any(|known| *known == label) => {
                let found = format!("{label:?} twice");
                entries.fault(raw, format!("categories[{i}].name"), "every name once", found);
            }
            Ok(label) => {
                if categories.insert(category.id, label).is_some() {
                    let found = format!("{} twice", category.id);
                    entries.fault(raw, format!("categories[{i}].id"), "every id once", found);
                }
            }
        }
    }
    categories
}

/// The file stem of an image's name.
fn image_id(image: &Image) -> Option<&str> {
    let stem = Path::new(&image.file_name).file_stem()?.to_str()?;
    (stem.len() <= 200 && !stem.chars().any(char::is_control)).then_some(stem)
}

fn find_film(dir: &Path, split: Split, annotations: &Path, file_name: &str) -> Option<PathBuf> {
    let names: &[&str] = match split {
        Split::Train => &["train"],
        Split::Validation => &["val", "valid", "validation"],
        Split::Test => &["test"],
    };
    let mut folders: Vec<PathBuf> = vec![];
    for name in names {
        folders.extend([dir.join("images").join(name), dir.join(name), dir.join(format!("{name}2017"))]);
    }
    folders.extend([dir.join("images"), dir.to_owned()]);
    folders.extend(annotations.parent().map(Path::to_owned));
    // An absolute name stands for itself wherever it is joined.
    folders.into_iter().map(|folder| folder.join(file_name)).find(|path| path.is_file())
}

/// One film of a split, ready to be written.
pub(crate) struct OutFilm {
    pub(crate) annotation: FilmAnnotation,
    pub(crate) file_name: String,
    pub(crate) height_px: u32,
    pub(crate) width_px: u32,
}

/// The document of one split.
pub(crate) fn document(films: &[OutFilm], classes: &ClassList) -> Result<Vec<u8>, DataError> {
    #[derive(Serialize)]
    struct Written {
        info: Info,
        images: Vec<Image>,
        annotations: Vec<Instance>,
        categories: Vec<Category>,
    }
    #[derive(Serialize)]
    struct Info {
        description: String,
    }
    let (mut images, mut annotations) = (vec![], vec![]);
    for (number, film) in (1..).zip(films) {
        let marked = &film.annotation;
        images.push(Image {
            id: Id::Number(number),
            file_name: film.file_name.clone(),
            width: film.width_px,
            height: film.height_px,
            study_id: (marked.study_id != marked.image_id).then(|| marked.study_id.clone()),
            series_id: (!marked.series_id.is_empty()).then(|| marked.series_id.clone()),
            abnormal: (marked.abnormal == marked.boxes.is_empty()).then_some(marked.abnormal),
        });
        for b in &marked.boxes {
            let index = classes
                .index(&b.label)
                .map_err(|source| DataError::UnknownLabel { image_id: marked.image_id.clone(), source })?;
            let [x1, y1, x2, y2] = <[f32; 4]>::from(b.xyxy).map(f64::from);
            annotations.push(Instance {
                id: Some(Id::Number(annotations.len() as i64 + 1)),
                image_id: Id::Number(number),
                category_id: index as i64 + 1,
                bbox: [x1, y1, x2 - x1, y2 - y1],
                area: Some((x2 - x1) * (y2 - y1)),
                iscrowd: 0,
            });
        }
    }
    let categories = (1..)
        .zip(classes.labels())
        .map(|(id, label)| Category { id, name: label.name().to_owned() })
        .collect();
    let info = Info { description: format!("Written by spinexr {}", env!("CARGO_PKG_VERSION")) };
    let written = Written { info, images, annotations, categories };
    Ok(serde_json::to_vec(&written).expect("numbers are finite and keys are strings"))
}

/// The annotation file of a split.
pub(crate) fn file_of(split: Split) -> String {
    format!("annotations/instances_{}.json", short_name(split))
}

/// The folder of a split's films.
pub(crate) fn film_folder(split: Split) -> String {
    format!("images/{}", short_name(split))
}
