//! Films with their annotations, and what was met while reading them.

use crate::DataError;
use serde::{Deserialize, Serialize};
use spinexr_core::{ClassList, FilmAnnotation, Split};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// One annotated film.
#[derive(Debug, Clone, PartialEq)]
pub struct Film {
    /// Its file.
    pub path: PathBuf,
    /// What a reader marked, film px.
    pub annotation: FilmAnnotation,
    /// Its part of the data set: `Train` or `Test` as released, until a validation split is held out.
    pub split: Split,
}

/// Irregularities that were met and repaired or passed over, each counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadCounts {
    /// Annotation rows understood.
    pub rows: usize,
    /// Rows of the verdict `No finding`.
    pub no_finding_rows: usize,
    /// Boxes that reach past the film's border, clipped to it. The right and lower border are known only
    /// after [`crate::vindr::clip_to_films`].
    pub clipped_boxes: usize,
    /// Boxes dropped because nothing, or less than the smallest side, is left of them; the film stays
    /// abnormal.
    pub thin_boxes: usize,
    /// Exact repetitions of a row, dropped.
    pub duplicate_rows: usize,
    /// Rows with the dictionary's spelling `Spondylolisthesis`.
    pub other_spelling: usize,
    /// Boxes of the six rarest categories, folded into `Other lesions`.
    pub folded_labels: usize,
    /// Blank cells where the release has a value (series or reader).
    pub blank_cells: usize,
    /// Annotation files that begin with a byte-order mark.
    pub byte_order_marks: usize,
    /// Annotation files with CR LF line ends.
    pub crlf_files: usize,
    /// COCO's regions of many objects, left out.
    pub crowd_regions: usize,
    /// YOLO's polygons, of which the boxes around them were taken.
    pub polygons: usize,
    /// Films that no list of VOC's puts into a split; these films are left out.
    pub without_split: Vec<String>,
    /// Image ids that are annotated but have no file; these films are left out.
    pub without_file: Vec<String>,
    /// Files that no row mentions; these films are left out.
    pub without_annotation: Vec<PathBuf>,
}

impl ReadCounts {
    /// Adds the numbers of one film's file.
    pub(crate) fn add(&mut self, of_film: &Self) {
        self.rows += of_film.rows;
        self.clipped_boxes += of_film.clipped_boxes;
        self.thin_boxes += of_film.thin_boxes;
        self.polygons += of_film.polygons;
    }

    /// Nothing irregular was met.
    pub fn is_clean(&self) -> bool {
        *self == Self { rows: self.rows, no_finding_rows: self.no_finding_rows, ..Self::default() }
    }
}

/// A row that was repaired or passed over, and counted in [`ReadCounts`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OddRow {
    /// The annotation file.
    pub path: PathBuf,
    /// Line of the row, counted from 1.
    pub line: u64,
    /// Its film.
    pub image_id: String,
    /// What is odd about it.
    pub kind: OddRowKind,
}

/// What is odd about a row that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OddRowKind {
    /// It repeats another row of its film.
    Repeated,
    /// Its box reaches past the left or upper border.
    PastBorder,
    /// Nothing, or less than the smallest side, is left of its box.
    Thin,
}

/// A data set in memory: paths and annotations, no pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The classes of its boxes, in index order.
    pub classes: ClassList,
    /// All films, ordered by split and image id.
    pub films: Vec<Film>,
    /// What was met while reading.
    pub read: ReadCounts,
    /// The rows that were repaired or passed over, in file order.
    pub odd_rows: Vec<OddRow>,
}

/// No film, and the classes of VinDr-SpineXR.
impl Default for Dataset {
    fn default() -> Self {
        Self { classes: ClassList::vindr(), films: vec![], read: ReadCounts::default(), odd_rows: vec![] }
    }
}

impl Dataset {
    /// The films of one split, in order.
    pub fn of(&self, split: Split) -> impl Iterator<Item = &Film> {
        self.films.iter().filter(move |f| f.split == split)
    }

    /// Refuses two films of one image id, by which caches and the files of a data set are named.
    pub(crate) fn refuse_same_ids(&self) -> Result<(), DataError> {
        let mut paths: HashMap<&str, &Path> = HashMap::new();
        for film in &self.films {
            if let Some(first) = paths.insert(&film.annotation.image_id, &film.path) {
                return Err(DataError::ImageTwice {
                    image_id: film.annotation.image_id.clone(),
                    first: first.to_owned(),
                    second: film.path.clone(),
                });
            }
        }
        Ok(())
    }

    /// The annotations of one split, in order; what a [`crate::Loader`] takes.
    pub fn annotations(&self, split: Split) -> Vec<FilmAnnotation> {
        self.of(split).map(|f| f.annotation.clone()).collect()
    }

    /// Clips every box to its film and drops what is left with a side under `min_side_px`, counting both
    /// in `read`. `size_of` gives a film's height and width in px, or `None` where it is not known; such
    /// a film's boxes stay as they are.
    pub fn clip_boxes(&mut self, min_side_px: f32, mut size_of: impl FnMut(&Film) -> Option<(u32, u32)>) {
        for film in &mut self.films {
            let Some((height_px, width_px)) = size_of(film) else { continue };
            let read = &mut self.read;
            film.annotation.boxes.retain_mut(|b| {
                let clipped = b.xyxy.clip(width_px as f32, height_px as f32);
                if clipped != b.xyxy {
                    read.clipped_boxes += 1;
                    b.xyxy = clipped;
                }
                let keep = clipped.width() >= min_side_px && clipped.height() >= min_side_px;
                read.thin_boxes += usize::from(!keep);
                keep
            });
        }
    }
}
