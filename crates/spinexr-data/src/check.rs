//! What is wrong with a data set, or odd about it: checksums, films that cannot be read, films that are there
//! twice, boxes, and whatever is in two splits.
//!
//! Every film is read once. A broken film is listed and the rest goes on. What reading repairs by itself is no
//! fault: it is listed so that its extent is known.

use crate::checksums::{Checksums, below, sha256_of_file};
use crate::dataset::OddRowKind;
use crate::error::panic_message;
use crate::headers::placeholder_patients;
use crate::parallel::in_parallel;
use crate::split::{self, Leak};
use crate::vindr::VindrOptions;
use crate::{DataError, Dataset, Film, RowError};
use serde::Serialize;
use sha2::{Digest, Sha256};
use spinexr_core::progress::{OnProgress, Progress};
use spinexr_core::{Split, hex};
use spinexr_dicom::{Examined, ReadOptions, examine_film, examine_header};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// How deep a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Annotation files only: no film is opened.
    Annotations,
    /// Headers of films as well, which tells sizes, studies and patients.
    Headers,
    /// Every film decoded as well, and every checksum of the release compared.
    Pixels,
}

/// What can be the matter. Those for which [`IssueKind::is_fault`] need a hand; the others are repaired, or good to
/// know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "described in IssueKind::description")]
pub enum IssueKind {
    BrokenRow,
    FilmMissing,
    FilmUnreadable,
    ChecksumDiffers,
    ChecksumFileMissing,
    ChecksumLineBroken,
    ImageIdTwice,
    StudyInTwoSplits,
    StudyUidInTwoSplits,
    PatientInTwoSplits,
    PixelsInTwoSplits,
    PixelsTwice,
    FilmWithoutRow,
    NotInChecksums,
    RowRepeated,
    BoxPastBorder,
    BoxOutside,
    BoxThin,
    HeaderFault,
    PixelsExcused,
}

impl IssueKind {
    /// All kinds, faults first.
    pub const ALL: [Self; 20] = [
        Self::BrokenRow,
        Self::FilmMissing,
        Self::FilmUnreadable,
        Self::ChecksumDiffers,
        Self::ChecksumFileMissing,
        Self::ChecksumLineBroken,
        Self::ImageIdTwice,
        Self::StudyInTwoSplits,
        Self::StudyUidInTwoSplits,
        Self::PatientInTwoSplits,
        Self::PixelsInTwoSplits,
        Self::PixelsTwice,
        Self::FilmWithoutRow,
        Self::NotInChecksums,
        Self::RowRepeated,
        Self::BoxPastBorder,
        Self::BoxOutside,
        Self::BoxThin,
        Self::HeaderFault,
        Self::PixelsExcused,
    ];

    /// It needs a hand: training or evaluation on the data set as it is would miss films or deceive.
    pub const fn is_fault(self) -> bool {
        (self as u8) < (Self::PixelsTwice as u8)
    }

    /// A few words for a table.
    pub const fn description(self) -> &'static str {
        match self {
            Self::BrokenRow => "broken annotation rows, unknown labels among them",
            Self::FilmMissing => "annotated films without a file",
            Self::FilmUnreadable => "films that cannot be read",
            Self::ChecksumDiffers => "files whose checksum differs",
            Self::ChecksumFileMissing => "files with a checksum that are not there",
            Self::ChecksumLineBroken => "broken lines of the list of checksums",
            Self::ImageIdTwice => "image ids in two splits",
            Self::StudyInTwoSplits => "studies in two splits",
            Self::StudyUidInTwoSplits => "Study Instance UIDs in two splits",
            Self::PatientInTwoSplits => "patients in two splits",
            Self::PixelsInTwoSplits => "films in two splits by their pixels",
            Self::PixelsTwice => "films twice in one split by their pixels",
            Self::FilmWithoutRow => "films without a row, left out",
            Self::NotInChecksums => "films without a checksum",
            Self::RowRepeated => "rows repeated exactly, dropped",
            Self::BoxPastBorder => "boxes past the border, clipped",
            Self::BoxOutside => "boxes outside their film, dropped",
            Self::BoxThin => "boxes without extent, dropped",
            Self::HeaderFault => "headers with faults",
            Self::PixelsExcused => "films with departures from the standard, excused",
        }
    }
}

/// One thing that is the matter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Issue {
    /// What kind of thing.
    pub kind: IssueKind,
    /// File, file and line, or film.
    pub place: String,
    /// What was expected and found, in words. Holds no value that names a patient.
    pub detail: String,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct CheckReport {
    /// Films that rows and files agree on.
    pub films: usize,
    /// Films whose header was read.
    pub headers_read: usize,
    /// Films that were decoded.
    pub decoded: usize,
    /// The release's list of checksums, where it has one and it was compared.
    pub checksum_list: Option<PathBuf>,
    /// Files that have the checksum listed.
    pub checksums_right: usize,
    /// Patients by Patient ID (0010,0020).
    pub patients: usize,
    /// Films whose patient is not known: no Patient ID, or one that more than half of the studies have.
    pub films_without_patient: usize,
    /// All that is the matter, ordered by kind and place.
    pub issues: Vec<Issue>,
}

impl CheckReport {
    /// No issue is a fault.
    pub fn is_sound(&self) -> bool {
        !self.issues.iter().any(|issue| issue.kind.is_fault())
    }

    /// Issues of a kind.
    pub fn of(&self, kind: IssueKind) -> impl ExactSizeIterator<Item = &Issue> {
        // Ordered by kind, so that those of one are a slice.
        let start = self.issues.partition_point(|issue| issue.kind < kind);
        let end = self.issues.partition_point(|issue| issue.kind <= kind);
        self.issues[start..end].iter()
    }

    fn add(&mut self, kind: IssueKind, place: impl Into<String>, detail: impl Into<String>) {
        self.issues.push(Issue { kind, place: place.into(), detail: detail.into() });
    }
}

/// Checks the data set that was read from the folder `dir`, with the rows of it that are broken. Boxes of `dataset`
/// are clipped to their films where those could be read, and counted in `dataset.read`.
///
/// `options` say how films are decoded. At most one film a thread is in memory. `on_progress` is called on the
/// calling thread.
///
/// # Errors
/// [`DataError::Read`] or [`DataError::Layout`] of the list of checksums; all else is in the report.
pub fn check(
    dir: &Path,
    dataset: &mut Dataset,
    broken_rows: &[RowError],
    depth: Depth,
    options: &ReadOptions,
    threads: usize,
    on_progress: OnProgress<'_>,
) -> Result<CheckReport, DataError> {
    let mut report = CheckReport { films: dataset.films.len(), ..CheckReport::default() };
    check_rows(dataset, broken_rows, &mut report);
    let list = match depth {
        Depth::Pixels => Checksums::of_folder(dir)?,
        Depth::Annotations | Depth::Headers => None,
    };
    let looks = if depth == Depth::Annotations {
        vec![None; dataset.films.len()]
    } else {
        look_at_films(dir, dataset, depth, list.as_ref(), options, threads, &mut report, on_progress)
    };
    if let Some(list) = list {
        for (line, reason) in &list.broken {
            report.add(IssueKind::ChecksumLineBroken, format!("{}:{line}", list.path.display()), reason);
        }
        report.checksum_list = Some(list.path);
    }
    check_boxes(dataset, &looks, &mut report);
    check_splits(dataset, &looks, &mut report);
    report.issues.sort();
    Ok(report)
}

/// What a look at one film leaves.
#[derive(Clone)]
struct Look {
    size_px: (u32, u32),
    study_uid: Option<String>,
    patient: Option<String>,
    pixels: Option<[u8; 32]>,
}

fn check_rows(dataset: &Dataset, broken_rows: &[RowError], report: &mut CheckReport) {
    for error in broken_rows {
        let column =
            if error.column.is_empty() { String::new() } else { format!("column `{}`: ", error.column) };
        let detail = format!("{column}expected {}, found {}", error.expected, error.found);
        report.add(IssueKind::BrokenRow, format!("{}:{}", error.path.display(), error.line), detail);
    }
    for odd in &dataset.odd_rows {
        let kind = match odd.kind {
            OddRowKind::Repeated => IssueKind::RowRepeated,
            OddRowKind::PastBorder => IssueKind::BoxPastBorder,
            OddRowKind::Thin => IssueKind::BoxThin,
        };
        report.add(kind, format!("{}:{}", odd.path.display(), odd.line), format!("film `{}`", odd.image_id));
    }
    for image_id in &dataset.read.without_file {
        report.add(IssueKind::FilmMissing, format!("film `{image_id}`"), "has rows and no file");
    }
    for image_id in &dataset.read.without_split {
        report.add(IssueKind::FilmWithoutRow, format!("film `{image_id}`"), "no list puts it into a split");
    }
    for path in &dataset.read.without_annotation {
        report.add(IssueKind::FilmWithoutRow, path.display().to_string(), "no row mentions it");
    }
}

/// Something to read: a film, or another file of the list of checksums.
enum Job<'a> {
    Film { film: &'a Film, expected: Option<[u8; 32]> },
    File { path: PathBuf, expected: [u8; 32] },
}

/// What reading gave.
#[derive(Default)]
struct Read {
    look: Option<Look>,
    /// Whether the file has the checksum listed; `None` without one.
    checksum: Option<bool>,
    error: Option<String>,
    header_faults: Vec<String>,
    excused: Vec<String>,
}

#[allow(clippy::too_many_arguments, reason = "the parts of `check`, each of which the films need")]
fn look_at_films(
    dir: &Path,
    dataset: &Dataset,
    depth: Depth,
    list: Option<&Checksums>,
    options: &ReadOptions,
    threads: usize,
    report: &mut CheckReport,
    on_progress: OnProgress<'_>,
) -> Vec<Option<Look>> {
    let mut jobs: Vec<Job<'_>> = dataset
        .films
        .iter()
        .map(|film| Job::Film { film, expected: list.and_then(|list| list.of(dir, &film.path)) })
        .collect();
    if let Some(list) = list {
        let films: BTreeSet<String> = dataset.films.iter().filter_map(|f| below(dir, &f.path)).collect();
        let others = list.sums.iter().filter(|(name, _)| !films.contains(*name));
        jobs.extend(others.map(|(name, &expected)| Job::File { path: dir.join(name), expected }));
    }
    let total = jobs.len();
    let mut reads: Vec<Option<Read>> = (0..total).map(|_| None).collect();
    let mut done = 0;
    on_progress(Progress { done, total });
    let Ok(()) = in_parallel(
        total,
        threads,
        |i| {
            catch_unwind(AssertUnwindSafe(|| read(&jobs[i], depth, options))).unwrap_or_else(|panic| Read {
                error: Some(format!("the reader panicked: {}", panic_message(panic.as_ref()))),
                ..Read::default()
            })
        },
        |i, read| {
            reads[i] = Some(read);
            done += 1;
            on_progress(Progress { done, total });
            Ok::<(), Infallible>(())
        },
    );
    let mut looks = Vec::with_capacity(dataset.films.len());
    for (job, read) in jobs.iter().zip(reads) {
        let read = read.expect("every job has been done");
        let (place, is_listed) = match job {
            Job::Film { film, expected } => (film.path.display().to_string(), expected.is_some()),
            Job::File { path, .. } => (path.display().to_string(), true),
        };
        match (read.checksum, &read.error) {
            (Some(true), _) => report.checksums_right += 1,
            (Some(false), _) => {
                report.add(IssueKind::ChecksumDiffers, &*place, "the file is not the one that was released");
            }
            (None, Some(error)) if matches!(job, Job::File { .. }) => {
                report.add(IssueKind::ChecksumFileMissing, &*place, error);
            }
            (None, _) if list.is_some() && !is_listed => {
                report.add(IssueKind::NotInChecksums, &*place, "the list of checksums does not name it");
            }
            (None, _) => {}
        }
        if matches!(job, Job::File { .. }) {
            continue;
        }
        if let Some(error) = read.error {
            report.add(IssueKind::FilmUnreadable, &*place, error);
        }
        for fault in read.header_faults {
            report.add(IssueKind::HeaderFault, &*place, fault);
        }
        for note in read.excused {
            report.add(IssueKind::PixelsExcused, &*place, note);
        }
        report.headers_read += usize::from(read.look.is_some());
        report.decoded += usize::from(read.look.as_ref().is_some_and(|look| look.pixels.is_some()));
        looks.push(read.look);
    }
    looks
}

fn read(job: &Job<'_>, depth: Depth, options: &ReadOptions) -> Read {
    let mut read = Read::default();
    let (film, expected) = match job {
        Job::Film { film, expected } => (film, *expected),
        Job::File { path, expected } => {
            match sha256_of_file(path) {
                Ok(found) => read.checksum = Some(found == *expected),
                Err(error) => read.error = Some(error.to_string()),
            }
            return read;
        }
    };
    let path = film.path.as_path();
    // The path stands before the message already.
    let without_path = |error: String| {
        let place = format!("{}: ", path.display());
        error.strip_prefix(&place).map_or(error.clone(), str::to_owned)
    };
    let look = |examined: &Examined, pixels| Look {
        size_px: (examined.height_px, examined.width_px),
        study_uid: examined.header.study_uid.clone(),
        patient: examined.patient.clone(),
        pixels,
    };
    if depth == Depth::Headers {
        match examine_header(path, &options.limits) {
            Ok(examined) => {
                read.look = Some(look(&examined, None));
                read.header_faults = examined.faults;
            }
            Err(error) => read.error = Some(without_path(error.to_string())),
        }
        return read;
    }
    // Read once for checksum, header and pixels. What is too large to be a film is not taken into memory.
    let size = path.metadata().map_or(0, |metadata| metadata.len());
    if size > options.limits.max_file_bytes {
        let limit = options.limits.max_file_bytes;
        read.error = Some(format!("the file has {size} bytes, more than the limit of {limit}"));
        read.checksum = expected.and_then(|expected| Some(sha256_of_file(path).ok()? == expected));
        return read;
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            read.error = Some(error.to_string());
            return read;
        }
    };
    read.checksum = expected.map(|expected| <[u8; 32]>::from(Sha256::digest(&bytes)) == expected);
    match examine_film(path, bytes, options) {
        Ok((examined, pixels)) => {
            read.look = Some(look(&examined, Some(pixels.sha256)));
            read.header_faults = examined.faults;
            read.excused = pixels.provenance.notes;
            read.excused.extend(pixels.provenance.fallback);
        }
        Err(error) => {
            read.error = Some(without_path(error.to_string()));
            // Sizes, studies and patients are of use even where the pixels are not.
            if let Ok(examined) = examine_header(path, &options.limits) {
                read.look = Some(look(&examined, None));
                read.header_faults = examined.faults;
            }
        }
    }
    read
}

/// Boxes against the sizes of their films, as [`Dataset::clip_boxes`] then repairs them.
fn check_boxes(dataset: &mut Dataset, looks: &[Option<Look>], report: &mut CheckReport) {
    let min_side_px = VindrOptions::new().min_box_px;
    for (film, look) in dataset.films.iter().zip(looks) {
        let Some((height_px, width_px)) = look.as_ref().map(|look| look.size_px) else { continue };
        for marked in &film.annotation.boxes {
            let clipped = marked.xyxy.clip(width_px as f32, height_px as f32);
            let place = format!("film `{}`", film.annotation.image_id);
            let what = format!(
                "{} at {:?} on a film of {width_px} × {height_px} px",
                marked.label,
                <[f32; 4]>::from(marked.xyxy)
            );
            if clipped.width() < min_side_px || clipped.height() < min_side_px {
                report.add(IssueKind::BoxOutside, place, what);
            } else if clipped != marked.xyxy {
                report.add(IssueKind::BoxPastBorder, place, what);
            }
        }
    }
    let mut sizes = looks.iter().map(|look| look.as_ref().map(|look| look.size_px));
    dataset.clip_boxes(min_side_px, |_| sizes.next().flatten());
}

fn check_splits(dataset: &Dataset, looks: &[Option<Look>], report: &mut CheckReport) {
    let look_of: HashMap<&Path, &Look> = dataset
        .films
        .iter()
        .zip(looks)
        .filter_map(|(film, look)| Some((film.path.as_path(), look.as_ref()?)))
        .collect();
    let look = |film: &Film| look_of.get(film.path.as_path()).copied();
    let placeholders = placeholder_patients(dataset.films.iter().zip(looks).map(|(film, look)| {
        let patient = look.as_ref().and_then(|look| look.patient.as_deref());
        (film.annotation.study_id.as_str(), patient)
    }));
    let patient =
        |film: &Film| look(film)?.patient.clone().filter(|patient| !placeholders.contains(patient.as_str()));
    report.patients = dataset.films.iter().filter_map(patient).collect::<BTreeSet<_>>().len();
    report.films_without_patient = dataset.films.iter().filter(|film| patient(film).is_none()).count();

    for leak in split::leaks(dataset, |film| Some(film.annotation.image_id.clone())) {
        report.add(IssueKind::ImageIdTwice, format!("film `{}`", leak.key), places(&leak));
    }
    let studies = split::leaks(dataset, |film| Some(film.annotation.study_id.clone()));
    for leak in &studies {
        report.add(IssueKind::StudyInTwoSplits, format!("study `{}`", leak.key), places(leak));
    }
    for leak in split::leaks(dataset, |film| look(film)?.study_uid.clone()) {
        // Where the annotations say it already, the header adds nothing.
        let study = |film: &Film| film.annotation.study_id.clone();
        let is_told = leak.films.windows(2).all(|pair| study(pair[0]) == study(pair[1]));
        if !is_told {
            let first = leak.films[0].annotation.image_id.as_str();
            report.add(IssueKind::StudyUidInTwoSplits, format!("film `{first}`"), places(&leak));
        }
    }
    for leak in split::leaks(dataset, patient) {
        let first = leak.films[0];
        // Named by a film: the patient's id stays in its file.
        let place = format!("the patient of film `{}`", first.annotation.image_id);
        report.add(IssueKind::PatientInTwoSplits, place, places(&leak));
    }
    check_pixels(dataset, looks, report);
}

/// `in train (film `a`) and in test (film `b`)`.
fn places(leak: &Leak<'_>) -> String {
    let place = |film: &&Film| format!("in {} (film `{}`)", film.split, film.annotation.image_id);
    leak.films.iter().map(place).collect::<Vec<_>>().join(" and ")
}

/// Films whose pixels are the same.
fn check_pixels(dataset: &Dataset, looks: &[Option<Look>], report: &mut CheckReport) {
    let mut same: BTreeMap<[u8; 32], Vec<&Film>> = BTreeMap::new();
    for (film, look) in dataset.films.iter().zip(looks) {
        if let Some(pixels) = look.as_ref().and_then(|look| look.pixels) {
            same.entry(pixels).or_default().push(film);
        }
    }
    for (hash, films) in same.into_iter().filter(|(_, films)| films.len() > 1) {
        let splits: BTreeSet<Split> = films.iter().map(|film| film.split).collect();
        let kind = if splits.len() > 1 { IssueKind::PixelsInTwoSplits } else { IssueKind::PixelsTwice };
        let (first, others) = (films[0], &films[1..]);
        let name = |film: &Film| format!("`{}` ({})", film.annotation.image_id, film.split);
        let others: Vec<String> = others.iter().map(|film| name(film)).collect();
        let detail = format!("has the pixels of {} ({})", others.join(", "), &hex(&hash)[..12]);
        report.add(kind, format!("film {}", name(first)), detail);
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
