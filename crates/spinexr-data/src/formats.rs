//! The annotation formats that data sets come in, read into one [`Dataset`] and written from it.
//!
//! Each reader says in its own file which layout it takes. All hold boxes to one rule (`PlacedBoxes`): corners are
//! brought to film px and clipped to the film; a box with nothing on its film, or with corners that are no box, is an
//! error that names file, line and field. Films may be DICOM, PNG or JPEG files in every format.

pub mod coco;
pub mod voc;
pub mod yolo;

mod yaml;

use crate::error::reading;
use crate::vindr::{self, VindrOptions};
use crate::{DataError, Dataset, ReadCounts, RowError};
use serde::{Deserialize, Serialize};
use spinexr_core::{Annotation, BoxXyxy, Label, Split};
use std::fmt;
use std::path::Path;

/// How a data set is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// VinDr-SpineXR as released: see [`vindr`].
    Vindr,
    /// COCO instances: see [`coco`].
    Coco,
    /// YOLO label files: see [`yolo`].
    Yolo,
    /// Pascal VOC: see [`voc`].
    Voc,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Vindr, Self::Coco, Self::Yolo, Self::Voc];

    /// `vindr`, `coco`, `yolo`, `voc`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vindr => "vindr",
            Self::Coco => "coco",
            Self::Yolo => "yolo",
            Self::Voc => "voc",
        }
    }

    fn is_in(self, dir: &Path) -> bool {
        match self {
            Self::Vindr => vindr::is_in(dir),
            Self::Coco => !coco::files(dir).is_empty(),
            Self::Yolo => yolo::is_in(dir),
            Self::Voc => voc::is_in(dir),
        }
    }

    /// The one format that `dir` is laid out in.
    ///
    /// # Errors
    /// [`DataError::Layout`] when it is none or several, [`DataError::Read`] for a folder that cannot be read.
    pub fn detect(dir: &Path) -> Result<Self, DataError> {
        // Says "no such folder" of the folder itself, not of a file in it.
        std::fs::read_dir(dir).map_err(reading(dir))?;
        let found: Vec<Self> = Self::ALL.into_iter().filter(|format| format.is_in(dir)).collect();
        match found[..] {
            [format] => Ok(format),
            [] => Err(DataError::Layout {
                path: dir.to_owned(),
                expected:
                    "a data set: annotations/train.csv (vindr), annotations/instances_train.json (coco), \
                           data.yaml (yolo) or Annotations/*.xml (voc)"
                        .to_owned(),
                found: "none of them".to_owned(),
            }),
            _ => Err(DataError::Layout {
                path: dir.to_owned(),
                expected: "one format; name it where there are several".to_owned(),
                found: found.iter().map(|f| f.name()).collect::<Vec<_>>().join(" and "),
            }),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Reads `dir` in the format named, or the one it is laid out in; any broken row is an error.
///
/// # Errors
/// [`DataError::Rows`] listing broken rows, [`DataError::Layout`], [`DataError::Read`].
pub fn read(dir: &Path, format: Option<Format>) -> Result<Dataset, DataError> {
    let options = VindrOptions::new();
    strict(dir, &options, read_and_collect(dir, format, &options)?)
}

/// [`read`], with boxes of any size: for a data set that is to be written again.
///
/// # Errors
/// As [`read`].
pub fn read_every_box(dir: &Path, format: Format) -> Result<Dataset, DataError> {
    let options = VindrOptions { min_box_px: 0.0, ..VindrOptions::new() };
    strict(dir, &options, read_and_collect(dir, Some(format), &options)?)
}

/// Reads `dir` and gives every broken row beside the sound films. A film with a broken row is left out as a whole:
/// with a box missing it would teach a falsehood.
///
/// # Errors
/// As [`read`], but for [`DataError::Rows`] and a data set without films.
pub fn read_and_collect(
    dir: &Path,
    format: Option<Format>,
    options: &VindrOptions,
) -> Result<(Dataset, Vec<RowError>), DataError> {
    let format = match format {
        Some(format) => format,
        None => Format::detect(dir)?,
    };
    match format {
        Format::Vindr => vindr::read_and_collect(dir, options),
        Format::Coco => coco::read_and_collect(dir, options),
        Format::Yolo => yolo::read_and_collect(dir, options),
        Format::Voc => voc::read_and_collect(dir, options),
    }
}

/// The data set, if no row of it is broken and it has a film.
pub(crate) fn strict(
    dir: &Path,
    options: &VindrOptions,
    (dataset, mut errors): (Dataset, Vec<RowError>),
) -> Result<Dataset, DataError> {
    if !errors.is_empty() {
        let total = errors.len();
        errors.truncate(options.listed_errors.max(1));
        return Err(DataError::Rows { errors, total });
    }
    if dataset.films.is_empty() {
        return Err(DataError::Layout {
            path: dir.to_owned(),
            expected: "annotated films with their files".to_owned(),
            found: format!("{} annotated films, none with a file", dataset.read.without_file.len()),
        });
    }
    Ok(dataset)
}

/// The split that a file or folder is named after.
pub(crate) fn split_named(name: &str) -> Option<Split> {
    match name {
        "train" => Some(Split::Train),
        "val" | "valid" | "validation" => Some(Split::Validation),
        "test" => Some(Split::Test),
        _ => None,
    }
}

/// What COCO, YOLO and VOC call a split.
pub(crate) const fn short_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Validation => "val",
        Split::Test => "test",
    }
}

/// Films are ordered by split and image id, rows by file and line.
pub(crate) fn in_order(dataset: &mut Dataset, errors: &mut [RowError]) {
    dataset.films.sort_by(|a, b| (a.split, &a.annotation.image_id).cmp(&(b.split, &b.annotation.image_id)));
    dataset.read.without_file.sort();
    dataset.read.without_annotation.sort();
    errors.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
}

/// Reads a text file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, DataError> {
    let size = path.metadata().map_err(reading(path))?.len();
    if size > limit {
        return Err(DataError::Layout {
            path: path.to_owned(),
            expected: format!("at most {limit} bytes"),
            found: format!("{size} bytes"),
        });
    }
    let text = std::fs::read_to_string(path).map_err(reading(path))?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Corners beyond this are no film's, px.
const MAX_COORDINATE_PX: f64 = 1e6;

/// Corners that reach past the border by no more than this are there by rounding, px.
const ROUNDING_PX: f64 = 1e-3;

/// The boxes of one film as they are met.
pub(crate) struct PlacedBoxes<'a> {
    pub(crate) height_px: u32,
    pub(crate) width_px: u32,
    pub(crate) options: &'a VindrOptions,
    pub(crate) boxes: Vec<Annotation>,
    /// A box was met, kept or not.
    pub(crate) any: bool,
}

impl<'a> PlacedBoxes<'a> {
    pub(crate) fn new(height_px: u32, width_px: u32, options: &'a VindrOptions) -> Self {
        Self { height_px, width_px, options, boxes: vec![], any: false }
    }

    /// Adds a box of these corners, film px, clipped to the film and counted; too thin a one is left out and
    /// counted. Else what was expected and found.
    pub(crate) fn add(
        &mut self,
        label: &Label,
        corners: [f64; 4],
        counts: &mut ReadCounts,
    ) -> Result<(), (String, String)> {
        let found = || format!("{corners:?}");
        if corners.iter().any(|v| v.is_nan() || v.abs() > MAX_COORDINATE_PX) {
            return Err(("numbers of pixels".to_owned(), found()));
        }
        let [x1, y1, x2, y2] = corners;
        if x2 < x1 || y2 < y1 {
            return Err(("corners in order, left before right and top before bottom".to_owned(), found()));
        }
        let (width, height) = (f64::from(self.width_px), f64::from(self.height_px));
        if x2 < 0.0 || y2 < 0.0 || x1 > width || y1 > height {
            let expected = format!("a box on the film of {} x {} px", self.width_px, self.height_px);
            return Err((expected, found()));
        }
        let clipped =
            [x1.clamp(0.0, width), y1.clamp(0.0, height), x2.clamp(0.0, width), y2.clamp(0.0, height)];
        let moved = clipped.iter().zip(corners).any(|(a, b)| (a - b).abs() > ROUNDING_PX);
        counts.clipped_boxes += usize::from(moved);
        let xyxy = BoxXyxy::from(clipped.map(|v| v as f32));
        self.any = true;
        counts.rows += 1;
        if xyxy.width() < self.options.min_box_px || xyxy.height() < self.options.min_box_px {
            counts.thin_boxes += 1;
        } else {
            self.boxes.push(Annotation { label: label.clone(), xyxy });
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "formats_tests.rs"]
mod tests;
