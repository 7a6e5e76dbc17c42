//! Reader of the VinDr-SpineXR layout, as released on PhysioNet (doi 10.13026/q45h-5h59).
//!
//! ```text
//! DIR/annotations/train.csv   DIR/train_images/<image_id>.dicom
//! DIR/annotations/test.csv    DIR/test_images/<image_id>.dicom
//! DIR/annotations/classes.txt                                    other classes than the release's, one a line
//! ```
//! Parts may be missing, and there may be a `validation` part beside them, as `spinexr data split` writes it. Without
//! `classes.txt`, which the release does not have, labels are those of the release, the 13 categories folded into
//! seven classes. What is broken is an error with file, line and column; what the release is known
//! to contain (repeated rows, boxes without extent or past the border, another spelling) is repaired and
//! counted in [`crate::ReadCounts`]. Films may also be `.dcm`, `.png`, `.jpg` or `.jpeg` files.

use crate::cache::FilmFailure;
use crate::class_file;
use crate::error::reading;
use crate::formats;
use crate::parallel::in_parallel;
use crate::vindr_rows::{FilmRows, parse};
use crate::{DataError, Dataset, Film, RowError};
use spinexr_core::{ClassList, Split};
use spinexr_dicom::{Limits, read_size};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Extensions of film files, lower case.
pub(crate) const FILM_EXTENSIONS: [&str; 5] = ["dicom", "dcm", "png", "jpg", "jpeg"];

/// Largest annotation file, bytes; the release's are under 4 MB.
const MAX_ANNOTATION_BYTES: u64 = 1 << 30;

/// How [`read_with`] reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VindrOptions {
    /// Broken rows listed in [`DataError::Rows`].
    pub listed_errors: usize,
    /// Smallest side of a box, film px; thinner boxes are dropped and counted.
    pub min_box_px: f32,
}

impl VindrOptions {
    /// The first 20 broken rows are listed; boxes thinner than 0.001 px are dropped.
    pub const fn new() -> Self {
        Self { listed_errors: 20, min_box_px: 1e-3 }
    }
}

impl Default for VindrOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads `dir` with [`VindrOptions::new`].
///
/// # Errors
/// [`DataError::Rows`] listing broken rows, [`DataError::MissingColumn`], [`DataError::Layout`],
/// [`DataError::ImageTwice`], [`DataError::Read`].
pub fn read(dir: &Path) -> Result<Dataset, DataError> {
    read_with(dir, &VindrOptions::new())
}

/// Reads `dir`; any broken row is an error.
///
/// # Errors
/// As [`read`].
pub fn read_with(dir: &Path, options: &VindrOptions) -> Result<Dataset, DataError> {
    formats::strict(dir, options, read_and_collect(dir, options)?)
}

/// Reads `dir` and gives every broken row beside the sound films. A film with a broken row is left out as a
/// whole: with a box missing it would teach a falsehood.
///
/// # Errors
/// As [`read`], but for [`DataError::Rows`] and a data set without films.
pub fn read_and_collect(dir: &Path, options: &VindrOptions) -> Result<(Dataset, Vec<RowError>), DataError> {
    // Says "no such folder" of the folder itself, not of a file in it.
    std::fs::read_dir(dir).map_err(reading(dir))?;
    let mut dataset = Dataset { classes: read_classes(dir)?, ..Dataset::default() };
    let mut errors = Vec::new();
    let mut parts = 0;
    for split in Split::ALL {
        let csv = annotation_file(dir, split);
        let images = dir.join(format!("{split}_images"));
        if !csv.exists() {
            // Films without any annotation file are counted like films without a row.
            dataset.read.without_annotation.extend(film_files(&images)?.into_values());
            continue;
        }
        parts += 1;
        let bytes = read_annotation_file(&csv)?;
        let (read, odd_rows) = (&mut dataset.read, &mut dataset.odd_rows);
        let films = parse(&csv, &bytes, &dataset.classes, options, read, odd_rows, &mut errors)?;
        join_files(&mut dataset, films, film_files(&images)?, split);
    }
    if parts == 0 {
        return Err(DataError::Layout {
            path: dir.join("annotations"),
            expected: "train.csv or test.csv".to_owned(),
            found: "neither".to_owned(),
        });
    }
    errors.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok((dataset, errors))
}

/// Where the rows of a part are.
pub(crate) fn annotation_file(dir: &Path, split: Split) -> PathBuf {
    dir.join("annotations").join(format!("{split}.csv"))
}

/// The folder has an annotation file of this format.
pub(crate) fn is_in(dir: &Path) -> bool {
    Split::ALL.into_iter().any(|split| annotation_file(dir, split).is_file())
}

/// The classes of `annotations/classes.txt`; those of the release where there is no such file.
fn read_classes(dir: &Path) -> Result<ClassList, DataError> {
    let path = dir.join(CLASSES_FILE);
    if !path.exists() {
        return Ok(ClassList::vindr());
    }
    class_file::read(&path, &[NO_FINDING])
}

fn read_annotation_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let size = path.metadata().map_err(reading(path))?.len();
    if size > MAX_ANNOTATION_BYTES {
        return Err(DataError::Layout {
            path: path.to_owned(),
            expected: format!("at most {MAX_ANNOTATION_BYTES} bytes"),
            found: format!("{size} bytes"),
        });
    }
    std::fs::read(path).map_err(reading(path))
}

/// Film files of a folder by image id; a missing folder has none.
pub(crate) fn film_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(source) => return Err(DataError::Read { path: folder.to_owned(), source }),
    };
    for entry in entries {
        let entry = entry.map_err(reading(folder))?;
        let path = entry.path();
        let is_folder = entry.file_type().map_err(reading(&path))?.is_dir();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("").to_owned();
        // A leading dot marks the shadow files that some systems leave beside each file.
        if is_folder || stem.is_empty() || stem.starts_with('.') || !FILM_EXTENSIONS.contains(&&*extension) {
            continue;
        }
        if let Some(other) = files.insert(stem.clone(), path.clone()) {
            // Directory order is arbitrary: name the two in a fixed one.
            let (first, second) = if other < path { (other, path) } else { (path, other) };
            return Err(DataError::ImageTwice { image_id: stem, first, second });
        }
    }
    Ok(files)
}

fn join_files(
    dataset: &mut Dataset,
    rows: Vec<FilmRows>,
    mut files: BTreeMap<String, PathBuf>,
    split: Split,
) {
    let mut films = Vec::new();
    for row in rows {
        let path = files.remove(&row.annotation.image_id);
        if row.broken {
            continue;
        }
        match path {
            Some(path) => films.push(Film { path, annotation: row.annotation, split }),
            None => dataset.read.without_file.push(row.annotation.image_id),
        }
    }
    films.sort_by(|a, b| a.annotation.image_id.cmp(&b.annotation.image_id));
    dataset.films.append(&mut films);
    dataset.read.without_annotation.extend(files.into_values());
}

/// Reads every film's size from its header and clips the boxes to it, counting in `dataset.read`: boxes past
/// the right or lower border cannot be told otherwise, since the annotation files do not have the sizes.
///
/// Gives the films whose size could not be read; their boxes stay as they are. `threads` at least one.
pub fn clip_to_films(
    dataset: &mut Dataset,
    options: &VindrOptions,
    limits: &Limits,
    threads: usize,
) -> Vec<FilmFailure> {
    let mut sizes = vec![None; dataset.films.len()];
    let mut failures: BTreeMap<usize, FilmFailure> = BTreeMap::new();
    let films = &dataset.films;
    let Ok(()) = in_parallel(
        films.len(),
        threads,
        |i| read_size(&films[i].path, limits).map_err(|e| e.to_string()),
        |i, size| {
            match size {
                Ok(size) => sizes[i] = Some(size),
                Err(error) => {
                    let image_id = films[i].annotation.image_id.clone();
                    failures.insert(i, FilmFailure { image_id, path: films[i].path.clone(), error });
                }
            }
            Ok::<(), std::convert::Infallible>(())
        },
    );
    let mut sizes = sizes.into_iter();
    dataset.clip_boxes(options.min_box_px, |_| sizes.next().flatten());
    failures.into_values().collect()
}

/// Where other classes than the release's are listed.
pub const CLASSES_FILE: &str = "annotations/classes.txt";

/// The header of an annotation file, in the release's order.
pub const COLUMNS: [&str; 9] =
    ["study_id", "series_id", "image_id", "rad_id", "lesion_type", "xmin", "ymin", "xmax", "ymax"];

/// The verdict on a film without findings, as the release writes it.
pub const NO_FINDING: &str = "No finding";

#[cfg(test)]
#[path = "vindr_tests.rs"]
mod tests;
