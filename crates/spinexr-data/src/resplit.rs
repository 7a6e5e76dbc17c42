//! A data set shared out anew: training, validation and test parts, or folds, by study or by patient and even in
//! every finding, written as data-set folders that the reader understands.
//!
//! Rows of VinDr-SpineXR are copied as they stand, other formats are written anew; films are linked, or copied. Nothing
//! is written over.

use crate::cache::FilmFailure;
use crate::convert::{ConvertOptions, Degenerate, FilmFiles, convert_with};
use crate::error::{reading, writing};
use crate::headers::placeholder_patients;
use crate::stratify::{Group, stratify};
use crate::vindr::{CLASSES_FILE, COLUMNS, annotation_file};
use crate::{DataError, Dataset, Film, Format};
use serde::Serialize;
use spinexr_core::Split;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// What must stay on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// Films of a study.
    Study,
    /// Studies of a patient as well, told by Patient ID; a study whose patient is not known stands for itself.
    Patient,
}

/// How a film gets into its new folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// A symbolic link to the film where it lies.
    Link,
    /// A second name of the same file, on the same disk.
    HardLink,
    /// A copy.
    Copy,
}

/// Groups the `films` and shares the groups out. Gives the part of every film, as an index into `shares`.
/// `patient_of` is asked when `by` is [`GroupBy::Patient`].
///
/// # Errors
/// [`DataError::Setting`] for a share that is no positive number, [`DataError::TooFewGroups`] when a part would be
/// empty.
pub fn share_out(
    films: &[&Film],
    by: GroupBy,
    patient_of: impl Fn(&Film) -> Option<String>,
    shares: &[f64],
    seed: u64,
) -> Result<Vec<usize>, DataError> {
    if let Some(share) = shares.iter().find(|share| !(**share > 0.0 && share.is_finite())) {
        let (expected, found) = ("a positive number", share.to_string());
        return Err(DataError::Setting { name: "share", expected, found });
    }
    let group_of = match by {
        GroupBy::Study => films.iter().map(|film| film.annotation.study_id.clone()).collect(),
        GroupBy::Patient => patient_groups(films, patient_of),
    };
    let (names, groups) = groups(films, &group_of);
    let parts = stratify(&groups, shares, seed);
    for part in 0..shares.len() {
        if !parts.contains(&part) {
            return Err(DataError::TooFewGroups { groups: groups.len(), parts: shares.len() });
        }
    }
    Ok(group_of.iter().map(|name| parts[names[name.as_str()]]).collect())
}

/// The group of every film when studies of one patient go together: the first, by name, of the studies that hang
/// together through patients.
fn patient_groups(films: &[&Film], patient_of: impl Fn(&Film) -> Option<String>) -> Vec<String> {
    let patients: Vec<Option<String>> = films.iter().map(|film| patient_of(film)).collect();
    let studies = || films.iter().map(|film| film.annotation.study_id.as_str());
    let placeholders = placeholder_patients(studies().zip(patients.iter().map(Option::as_deref)));
    // Union–find over studies; the least name of a set is its root.
    let mut parent: BTreeMap<&str, &str> = studies().map(|study| (study, study)).collect();
    fn root<'a>(parent: &BTreeMap<&'a str, &'a str>, mut study: &'a str) -> &'a str {
        while parent[study] != study {
            study = parent[study];
        }
        study
    }
    let mut first_study: HashMap<&str, &str> = HashMap::new();
    for (study, patient) in studies().zip(&patients) {
        let Some(patient) = patient.as_deref().filter(|p| !placeholders.contains(*p)) else { continue };
        let first = *first_study.entry(patient).or_insert(study);
        let (a, b) = (root(&parent, first), root(&parent, study));
        parent.insert(a.max(b), a.min(b));
    }
    studies().map(|study| root(&parent, study).to_owned()).collect()
}

/// Groups with their labels: each finding, and "normal" and "abnormal", which every film has one of.
fn groups<'a>(films: &[&Film], group_of: &'a [String]) -> (BTreeMap<&'a str, usize>, Vec<Group>) {
    let labels: BTreeSet<String> =
        films.iter().flat_map(|film| film.annotation.boxes.iter().map(|b| b.label.to_string())).collect();
    let index: BTreeMap<&String, usize> = labels.iter().zip(0..).collect();
    let count = labels.len() + 2;
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for (film, name) in films.iter().zip(group_of) {
        let i = *names.entry(name).or_insert_with(|| {
            groups.push(Group { name: name.clone(), films: 0, with_label: vec![0; count] });
            groups.len() - 1
        });
        let group = &mut groups[i];
        group.films += 1;
        let found: BTreeSet<usize> =
            film.annotation.boxes.iter().map(|b| index[&b.label.to_string()]).collect();
        for label in found {
            group.with_label[label] += 1;
        }
        group.with_label[labels.len() + usize::from(film.annotation.abnormal)] += 1;
    }
    (names, groups)
}

/// The annotation files as they stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Rows by image id, in file order: the cells of [`COLUMNS`].
    by_film: HashMap<String, Vec<Vec<String>>>,
    /// Bytes of the list of classes ([`CLASSES_FILE`]), where the data set has one.
    pub classes: Option<Vec<u8>>,
}

impl Rows {
    /// Of the data set in `dir`, which was read without an error.
    ///
    /// # Errors
    /// [`DataError::Read`], [`DataError::Layout`], [`DataError::MissingColumn`].
    pub fn read(dir: &Path) -> Result<Self, DataError> {
        let mut rows: HashMap<String, Vec<Vec<String>>> = HashMap::new();
        for path in Split::ALL.map(|split| annotation_file(dir, split)) {
            if !path.exists() {
                continue;
            }
            let bytes = fs::read(&path).map_err(reading(&path))?;
            for cells in crate::vindr_rows::cells(&path, &bytes)? {
                rows.entry(cells[2].clone()).or_default().push(cells);
            }
        }
        let list = dir.join(CLASSES_FILE);
        let classes = list.exists().then(|| fs::read(&list).map_err(reading(&list))).transpose()?;
        Ok(Self { by_film: rows, classes })
    }

    /// The rows of a film.
    pub fn of(&self, image_id: &str) -> &[Vec<String>] {
        self.by_film.get(image_id).map_or(&[], Vec::as_slice)
    }
}

/// Where the annotations of the new folders come from.
#[derive(Debug)]
pub enum Source<'a> {
    /// VinDr-SpineXR's rows.
    Rows(Rows),
    /// What was read of another format, to be written in it again.
    Dataset(&'a Dataset, Format),
}

impl<'a> Source<'a> {
    /// Of the data set in `dir`, which was read as `dataset` without an error.
    ///
    /// # Errors
    /// As [`Rows::read`].
    pub fn of(dir: &Path, dataset: &'a Dataset, format: Format) -> Result<Self, DataError> {
        Ok(match format {
            Format::Vindr => Self::Rows(Rows::read(dir)?),
            _ => Self::Dataset(dataset, format),
        })
    }
}

/// Writes the parts as one data-set folder `out`, which must not be there yet: annotations in the source's format, films
/// by `placement`, and `notes` as `split.json`. Gives the films that had to be left out, because the format asks for
/// their size and it could not be read.
///
/// # Errors
/// [`DataError::Write`] when the place is taken or the disk refuses; nothing is left of the folder then.
pub fn write_folder(
    out: &Path,
    parts: &BTreeMap<Split, Vec<&Film>>,
    source: &Source<'_>,
    placement: Placement,
    notes: &serde_json::Value,
    threads: usize,
) -> Result<Vec<FilmFailure>, DataError> {
    refuse_taken(out)?;
    let notes = serde_json::to_vec_pretty(notes).expect("a JSON value has string keys");
    match source {
        Source::Rows(rows) => write_rows(out, parts, rows, placement, &notes).map(|()| vec![]),
        Source::Dataset(dataset, format) => {
            let of_part = |(&split, films): (&Split, &Vec<&Film>)| {
                films.iter().map(move |&film| Film { split, ..film.clone() }).collect::<Vec<_>>()
            };
            let films = parts.iter().flat_map(of_part).collect();
            let part = Dataset { films, classes: dataset.classes.clone(), ..Dataset::default() };
            let films = match placement {
                Placement::Link => FilmFiles::Link,
                Placement::HardLink => FilmFiles::HardLink,
                Placement::Copy => FilmFiles::Copy,
            };
            let options = ConvertOptions { format: *format, films, degenerate: Degenerate::Keep };
            let converted = convert_with(&part, out, &options, &[(NOTES_FILE, &notes)], threads, &|_| {})?;
            Ok(converted.failures)
        }
    }
}

/// What says how the folder was made.
const NOTES_FILE: &str = "split.json";

fn write_rows(
    out: &Path,
    parts: &BTreeMap<Split, Vec<&Film>>,
    rows: &Rows,
    placement: Placement,
    notes: &[u8],
) -> Result<(), DataError> {
    let beside = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(beside).map_err(writing(beside))?;
    let fresh = tempfile::Builder::new().prefix(".spinexr-").tempdir_in(beside).map_err(writing(beside))?;
    fs::create_dir(fresh.path().join("annotations")).map_err(writing(out))?;
    if let Some(classes) = &rows.classes {
        let list = fresh.path().join(CLASSES_FILE);
        fs::write(&list, classes).map_err(writing(&list))?;
    }
    for (&split, films) in parts {
        let csv = annotation_file(fresh.path(), split);
        let mut writer = csv::Writer::from_writer(Vec::new());
        let written = "a row of text goes into memory";
        writer.write_record(COLUMNS).expect(written);
        let images = fresh.path().join(format!("{split}_images"));
        fs::create_dir(&images).map_err(writing(&images))?;
        for film in films {
            for row in rows.of(&film.annotation.image_id) {
                writer.write_record(row).expect(written);
            }
            place(film, &images, placement)?;
        }
        fs::write(&csv, writer.into_inner().expect(written)).map_err(writing(&csv))?;
    }
    fs::write(fresh.path().join(NOTES_FILE), notes).map_err(writing(out))?;
    open_to_others(fresh.path()).map_err(writing(out))?;
    let fresh = fresh.keep();
    fs::rename(&fresh, out).map_err(|source| {
        // Best effort: the reason for the refusal matters more than a folder that stays.
        let _ = fs::remove_dir_all(&fresh);
        DataError::Write { path: out.to_owned(), source }
    })
}

/// Nothing is written over, not even an empty folder's name that somebody else may be using.
///
/// # Errors
/// [`DataError::Write`] when there is something of that name.
pub fn refuse_taken(out: &Path) -> Result<(), DataError> {
    if fs::symlink_metadata(out).is_ok() {
        let source =
            std::io::Error::new(std::io::ErrorKind::AlreadyExists, "there is something of that name");
        return Err(DataError::Write { path: out.to_owned(), source });
    }
    Ok(())
}

/// Temporary folders are private; a data set is as readable as any folder.
#[cfg(unix)]
fn open_to_others(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::metadata(folder.join("annotations"))?.permissions())?;
    debug_assert!(fs::metadata(folder)?.permissions().mode() & 0o700 == 0o700);
    Ok(())
}

#[cfg(not(unix))]
fn open_to_others(_: &Path) -> std::io::Result<()> {
    Ok(())
}

fn place(film: &Film, images: &Path, placement: Placement) -> Result<(), DataError> {
    let name = film.path.file_name().unwrap_or_default();
    let to: PathBuf = images.join(name);
    // Absolute and through links of its own, so that the new folder may be moved and split again.
    let from = film.path.canonicalize().map_err(reading(&film.path))?;
    let done = match placement {
        Placement::Link => symlink(&from, &to),
        Placement::HardLink => fs::hard_link(&from, &to),
        Placement::Copy => fs::copy(&from, &to).map(|_| ()),
    };
    done.map_err(writing(&to))
}

#[cfg(unix)]
fn symlink(from: &Path, to: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(from, to)
}

#[cfg(windows)]
fn symlink(from: &Path, to: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(from, to)
}

/// What a part has of each thing that is balanced: studies, films, abnormal films, films with each finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct PartCounts {
    /// Studies.
    pub studies: usize,
    /// Films.
    pub films: usize,
    /// Films with a finding.
    pub abnormal: usize,
    /// Films with at least one box, by finding.
    pub films_with: BTreeMap<String, usize>,
}

impl PartCounts {
    /// Of `films`.
    pub fn of<'a>(films: impl IntoIterator<Item = &'a Film>) -> Self {
        let mut counts = Self::default();
        let mut studies = BTreeSet::new();
        for film in films {
            counts.films += 1;
            counts.abnormal += usize::from(film.annotation.abnormal);
            studies.insert(film.annotation.study_id.as_str());
            let names: BTreeSet<String> = film.annotation.boxes.iter().map(|b| b.label.to_string()).collect();
            for name in names {
                *counts.films_with.entry(name).or_default() += 1;
            }
        }
        counts.studies = studies.len();
        counts
    }
}

impl Dataset {
    /// Its parts by split, where they have films.
    pub fn parts(&self) -> BTreeMap<Split, Vec<&Film>> {
        let mut parts: BTreeMap<Split, Vec<&Film>> = BTreeMap::new();
        for film in &self.films {
            parts.entry(film.split).or_default().push(film);
        }
        parts
    }
}

#[cfg(test)]
#[path = "resplit_tests.rs"]
mod tests;
