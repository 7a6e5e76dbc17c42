//! A data set in the layout of the VinDr-SpineXR release.
//!
//! ```text
//! OUT/annotations/train.csv, test.csv      study_id,series_id,image_id,rad_id,lesion_type,xmin,ymin,xmax,ymax
//! OUT/annotations/categories.csv           the same boxes with the paper's 13 categories, which the release folds
//! OUT/train_images/<image_id>.dicom, test_images/…
//! OUT/SHA256SUMS.txt
//! ```
//!
//! Everything is written into a folder beside `OUT` that is renamed when it is complete.

use crate::film::{FULL_HEIGHT_PX, Film, render_film};
use crate::patient::{Patient, Region, Sex, View};
use crate::plan::Study;
use crate::random::Stream;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use spinexr_core::progress::{OnProgress, Progress};
use spinexr_core::{Category, Finding, Split, hex};
use spinexr_dicom::{DxFilm, DxSyntax, derived_uid, encode_dx};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynthConfig {
    /// Studies of the training part.
    pub studies: usize,
    /// Studies of the test part.
    pub test_studies: usize,
    /// The same seed gives the same bytes.
    pub seed: u64,
    /// Height of the films, px, 64 to 8192; the width follows.
    #[serde(default = "full_height_px")]
    pub height_px: u32,
    /// Every class about equally often, and mostly clear, instead of as in the release.
    #[serde(default)]
    pub balanced: bool,
}

fn full_height_px() -> u32 {
    FULL_HEIGHT_PX
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SynthSummary {
    /// Studies, training and test.
    pub studies: usize,
    /// Studies without a finding.
    pub normal_studies: usize,
    /// Films, training and test.
    pub films: usize,
    /// Films of the test part.
    pub test_films: usize,
    /// Films without a box.
    pub normal_films: usize,
    /// Boxes by class, in the order of [`Finding::ALL`].
    pub boxes_per_finding: [usize; Finding::COUNT],
    /// Boxes by category, in the order of [`Category::ALL`].
    pub boxes_per_category: [usize; 13],
}

/// Why no data set was made.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// The folder holds something already.
    #[error("{path}: the folder is not empty; expected a new or an empty folder", path = path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The path is no folder.
    #[error("{path}: a file is in the way; expected a new or an empty folder", path = path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// A setting out of range.
    #[error("{field}: expected {expected}, got {got}")]
    Config {
        /// Name of the setting.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: u64,
    },
    /// The file system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
}

impl SynthConfig {
    /// Whether the settings are within range.
    ///
    /// # Errors
    /// [`SynthError::Config`] names the first that is not.
    pub fn check(&self) -> Result<(), SynthError> {
        if self.studies + self.test_studies == 0 {
            return Err(SynthError::Config { field: "studies", expected: "at least 1", got: 0 });
        }
        if !(64..=8192).contains(&self.height_px) {
            let got = u64::from(self.height_px);
            return Err(SynthError::Config { field: "height_px", expected: "64 to 8192", got });
        }
        Ok(())
    }
}

/// Makes a data set at `out`, on as many threads as the current rayon pool has.
///
/// # Errors
/// [`SynthError`]; nothing stands at `out` then that did not before.
pub fn generate(
    out: &Path,
    config: &SynthConfig,
    on_progress: OnProgress,
) -> Result<SynthSummary, SynthError> {
    config.check()?;
    refuse_occupied(out)?;
    let absolute = std::path::absolute(out).map_err(|source| io(out, source))?;
    let name = absolute.file_name().map_or_else(|| "dataset".into(), |n| n.to_string_lossy().into_owned());
    let parent = absolute.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(|source| io(parent, source))?;
    let partial = parent.join(format!(".{name}.partial-{}", std::process::id()));
    let made = write_all(&partial, config, on_progress).and_then(|summary| {
        if absolute.exists() {
            // Empty, as checked; a rename over it is refused by some systems.
            fs::remove_dir(&absolute).map_err(|source| io(&absolute, source))?;
        }
        fs::rename(&partial, &absolute).map_err(|source| io(&absolute, source))?;
        Ok(summary)
    });
    if made.is_err() {
        // Best effort: the error that led here is the one to report.
        let _ = fs::remove_dir_all(&partial);
    }
    made
}

fn io(path: &Path, source: std::io::Error) -> SynthError {
    SynthError::Io { path: path.to_owned(), source }
}

fn refuse_occupied(out: &Path) -> Result<(), SynthError> {
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(SynthError::NotEmpty { path: out.to_owned() }),
            None => Ok(()),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            Err(SynthError::NotAFolder { path: out.to_owned() })
        }
        Err(source) => Err(io(out, source)),
    }
}

// What is left of a film when it is written.
struct Written {
    study: usize,
    rows: String,
    categories: String,
    sum: String,
    boxes: Vec<Category>,
}

fn write_all(dir: &Path, config: &SynthConfig, on_progress: OnProgress) -> Result<SynthSummary, SynthError> {
    // Left by a run with the same process id that was killed.
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(|source| io(dir, source))?;
    }
    for sub in ["annotations", "train_images", "test_images"] {
        let path = dir.join(sub);
        fs::create_dir_all(&path).map_err(|source| io(&path, source))?;
    }
    let count = config.studies + config.test_studies;
    let studies: Vec<Study> =
        (0..count).map(|i| Study::draw(config.seed, i as u64, config.balanced)).collect();
    let work: Vec<(usize, usize)> = studies
        .iter()
        .enumerate()
        .flat_map(|(s, study)| (0..study.views.len()).map(move |f| (s, f)))
        .collect();
    let done = AtomicUsize::new(0);
    let written: Vec<Written> = work
        .par_iter()
        .map(|&(s, f)| {
            let split = if s < config.studies { Split::Train } else { Split::Test };
            let film = write_film(dir, split, s, &studies[s], f, config.height_px)?;
            on_progress(Progress { done: done.fetch_add(1, Ordering::Relaxed) + 1, total: work.len() });
            Ok(film)
        })
        .collect::<Result<_, SynthError>>()?;

    let mut summary = SynthSummary {
        studies: count,
        normal_studies: studies.iter().filter(|s| !s.abnormal).count(),
        films: written.len(),
        ..SynthSummary::default()
    };
    let header = "study_id,series_id,image_id,rad_id,lesion_type,xmin,ymin,xmax,ymax\n";
    let (mut train, mut test) = (header.to_owned(), header.to_owned());
    let mut categories = "split,image_id,category,xmin,ymin,xmax,ymax\n".to_owned();
    let mut sums = String::new();
    for film in &written {
        let in_test = film.study >= config.studies;
        if in_test { &mut test } else { &mut train }.push_str(&film.rows);
        categories.push_str(&film.categories);
        sums.push_str(&film.sum);
        summary.test_films += usize::from(in_test);
        summary.normal_films += usize::from(film.boxes.is_empty());
        for category in &film.boxes {
            summary.boxes_per_finding[category.finding().index()] += 1;
            summary.boxes_per_category[*category as usize] += 1;
        }
    }
    for (name, text) in [("train.csv", train), ("test.csv", test), ("categories.csv", categories)] {
        let name = format!("annotations/{name}");
        let _ = writeln!(sums, "{}  {name}", hex(&Sha256::digest(text.as_bytes())));
        write_file(&dir.join(name), text.as_bytes())?;
    }
    write_file(&dir.join("SHA256SUMS.txt"), sums.as_bytes())?;
    Ok(summary)
}

fn write_film(
    dir: &Path,
    split: Split,
    study_index: usize,
    study: &Study,
    number: usize,
    height_px: u32,
) -> Result<Written, SynthError> {
    let id = |role: u64, number: u64| identifier(&[study.seed, role, number]);
    let study_id = id(1, 0);
    let (series_id, image_id) = (id(2, number as u64), id(3, number as u64));
    let mut stream = Stream::new(&[study.seed, 6, number as u64]);
    let film = render_film(&study.film(number, height_px));
    let reader = format!("rad{}", 1 + stream.below(3));

    let mut rows = String::new();
    let mut categories = String::new();
    // Writing to a string cannot fail.
    for mark in &film.boxes {
        let b = mark.xyxy;
        let place = format!("{},{},{},{}", b.x1, b.y1, b.x2, b.y2);
        let label = mark.category.finding().name();
        let _ = writeln!(rows, "{study_id},{series_id},{image_id},{reader},{label},{place}");
        let _ = writeln!(categories, "{split},{image_id},{},{place}", mark.category.name());
    }
    if film.boxes.is_empty() {
        let _ = writeln!(rows, "{study_id},{series_id},{image_id},{reader},No finding,,,,");
    }
    let boxes = film.boxes.iter().map(|m| m.category).collect();
    let header = Header { study_id: &study_id, series_id: &series_id, image_id: &image_id, number };
    let view = study.views[number];
    let bytes = encode_dx(&dicom(film, &header, &study.patient, study.region, view, &mut stream));
    let name = format!("{split}_images/{image_id}.dicom");
    write_file(&dir.join(&name), &bytes)?;
    let sum = format!("{}  {name}\n", hex(&Sha256::digest(&bytes)));
    Ok(Written { study: study_index, rows, categories, sum, boxes })
}

struct Header<'a> {
    study_id: &'a str,
    series_id: &'a str,
    image_id: &'a str,
    number: usize,
}

// The film as a DX image, with the variety and the faults of the release.
fn dicom(
    film: Film,
    header: &Header,
    patient: &Patient,
    region: Region,
    view: View,
    stream: &mut Stream,
) -> DxFilm {
    let monochrome1 = stream.chance(0.4);
    let syntax = [
        DxSyntax::ExplicitLe,
        DxSyntax::ImplicitLe,
        DxSyntax::RleLossless,
        DxSyntax::JpegLossless,
        DxSyntax::Deflated,
    ][stream.weighted(&[0.42, 0.2, 0.15, 0.15, 0.08])];
    let mut pixels = film.pixels;
    if monochrome1 {
        pixels.iter_mut().for_each(|v| *v = crate::detector::MAX_VALUE - *v);
    }
    let center = f64::from(stream.range(1900.0, 2200.0).round());
    let width = f64::from(stream.range(3500.0, 4096.0).round());
    let mut windows = vec![(center, width)];
    if stream.chance(0.15) {
        windows.push((center, (0.7 * width).round()));
    }
    let trailing_comma = stream.chance(0.02);
    let nameless = stream.chance(0.04);
    let vendor =
        [("Synthetic Imaging", "Ray One"), ("Example Roentgen", "DR 3000"), ("Model Detectors", "Flat 43")]
            [stream.below(3)];
    let pixel_mm = f64::from((film.pixel_mm * 1e4).round()) / 1e4;
    DxFilm {
        height_px: film.height_px,
        width_px: film.width_px,
        pixels,
        monochrome1,
        window_center_raw: trailing_comma.then(|| format!("{center},")),
        windows: if trailing_comma { vec![(center, width)] } else { windows },
        transfer_syntax: syntax,
        sop_instance_uid: derived_uid(header.image_id.as_bytes()),
        study_uid: derived_uid(header.study_id.as_bytes()),
        series_uid: derived_uid(header.series_id.as_bytes()),
        instance_number: header.number as u32 + 1,
        patient_id: if nameless { String::new() } else { format!("SYN{}", &header.study_id[..10]) },
        sex: if patient.sex == Sex::Female { 'F' } else { 'M' },
        age_years: patient.age_years,
        view_position: match (view, film.front_left) {
            (View::Ap, _) => "AP",
            (View::Lateral, true) => "RL",
            (View::Lateral, false) => "LL",
            (View::Oblique, true) => "RPO",
            (View::Oblique, false) => "LPO",
        }
        .into(),
        body_part: if region == Region::Lumbar { "LSPINE" } else { "CSPINE" }.into(),
        pixel_spacing_mm: [pixel_mm; 2],
        manufacturer: vendor.0.into(),
        model_name: vendor.1.into(),
        // The fields that are left do not depend on the pixels.
        ..DxFilm::new(1, 1, vec![0])
    }
}

/// 32 hexadecimal digits named by `key`.
fn identifier(key: &[u64]) -> String {
    let mut stream = Stream::new(key);
    format!("{:016x}{:016x}", stream.bits(), stream.bits())
}

// The folder is renamed as a whole; here it is enough that the bytes reach the disk.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), SynthError> {
    let mut file = fs::File::create(path).map_err(|source| io(path, source))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|source| io(path, source))
}
