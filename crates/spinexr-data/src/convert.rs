//! A data set written in another format.
//!
//! Every box, label and split goes over; what a format has no place for is said in [`Converted::notes`]. COCO and
//! VinDr-SpineXR hold corners to the last bit of their `f32`, YOLO too, VOC to half a pixel. The folder appears whole
//! or not at all.

use crate::cache::FilmFailure;
use crate::error::{reading, writing};
use crate::formats::{Format, coco, short_name, voc, yolo};
use crate::parallel::in_parallel;
use crate::vindr::{self, NO_FINDING};
use crate::vindr_rows::is_file_stem;
use crate::{DataError, Dataset, Film};
use serde::Serialize;
use spinexr_core::progress::{OnProgress, Progress};
use spinexr_core::whole_file::WholeFolder;
use spinexr_core::{Annotation, BoxXyxy, FilmAnnotation, Label, Split};
use spinexr_dicom::{Limits, read_size};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// A box with a side of no more than this is degenerate, px: in VOC, where corners are pixels, a point.
pub const DEGENERATE_PX: f32 = 1.0;

/// How the films come along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilmFiles {
    /// Copied.
    Copy,
    /// As symbolic links to where they are.
    Link,
    /// As second names of the same files, on the same disk.
    HardLink,
    /// Not at all: the annotations name them where they are. COCO alone can.
    Reference,
}

/// What becomes of degenerate boxes; they are listed either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Degenerate {
    /// They are written like the others.
    Keep,
    /// They are left out; their film stays abnormal.
    LeaveOut,
}

/// How [`convert`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvertOptions {
    /// The format.
    pub format: Format,
    /// The films' files.
    pub films: FilmFiles,
    /// Boxes of a pixel or less.
    pub degenerate: Degenerate,
}

/// A box of a pixel or less.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DegenerateBox {
    /// Its film.
    pub image_id: String,
    /// Its class.
    pub label: Label,
    /// Its corners, film px.
    pub xyxy: BoxXyxy,
}

/// What [`convert`] did.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Converted {
    /// Films written.
    pub films: usize,
    /// Boxes written.
    pub boxes: usize,
    /// Boxes of a pixel or less, kept or not.
    pub degenerate: Vec<DegenerateBox>,
    /// Boxes whose corners were rounded to pixels.
    pub rounded: usize,
    /// What the format has no place for.
    pub notes: Vec<String>,
    /// Films that were left out, and why.
    pub failures: Vec<FilmFailure>,
}

/// A film with its size and the name its file gets, relative to the new folder.
struct Sized<'a> {
    film: &'a Film,
    boxes: Vec<Annotation>,
    height_px: u32,
    width_px: u32,
    file: String,
}

/// Writes `dataset` into the new folder `out`. Films whose size cannot be read, or that the format cannot hold, are left
/// out and listed.
///
/// # Errors
/// [`DataError::Layout`] for a class that the format cannot name, or films to be referenced by a format that cannot;
/// [`DataError::ImageTwice`]; [`DataError::UnknownLabel`]; [`DataError::Read`]; [`DataError::Write`], also for a folder
/// that is there and not empty.
pub fn convert(
    dataset: &Dataset,
    out: &Path,
    options: &ConvertOptions,
    threads: usize,
    on_progress: OnProgress<'_>,
) -> Result<Converted, DataError> {
    convert_with(dataset, out, options, &[], threads, on_progress)
}

/// [`convert`], with `others` in the folder, files by name.
pub(crate) fn convert_with(
    dataset: &Dataset,
    out: &Path,
    options: &ConvertOptions,
    others: &[(&str, &[u8])],
    threads: usize,
    on_progress: OnProgress<'_>,
) -> Result<Converted, DataError> {
    check(dataset, out, options)?;
    let mut converted = Converted::default();
    let films = sized_films(dataset, options, threads, &mut converted, on_progress);
    converted.films = films.len();
    converted.boxes = films.iter().map(|film| film.boxes.len()).sum();

    let fresh = WholeFolder::create(out).map_err(writing(out))?;
    let texts = match options.format {
        Format::Vindr => vindr_files(dataset, &films),
        Format::Coco => coco_files(dataset, &films, options)?,
        Format::Yolo => yolo_files(dataset, &films)?,
        Format::Voc => voc_files(dataset, &films, &mut converted.rounded),
    };
    for (name, text) in texts {
        place(fresh.path(), &name, |path| std::fs::write(path, &text))?;
    }
    for (name, bytes) in others {
        place(fresh.path(), name, |path| std::fs::write(path, bytes))?;
    }
    let total = films.len();
    for (done, film) in films.iter().enumerate() {
        let source = &film.film.path;
        match options.films {
            FilmFiles::Copy => {
                place(fresh.path(), &film.file, |path| std::fs::copy(source, path).map(|_| ()))?
            }
            FilmFiles::Link => {
                let source = std::path::absolute(source).map_err(reading(source))?;
                place(fresh.path(), &film.file, |path| link(&source, path))?;
            }
            FilmFiles::HardLink => {
                let source = source.canonicalize().map_err(reading(source))?;
                place(fresh.path(), &film.file, |path| std::fs::hard_link(&source, path))?;
            }
            FilmFiles::Reference => {}
        }
        on_progress(Progress { done: done + 1, total });
    }
    converted.notes.extend(notes(&films, options.format));
    fresh.finish().map_err(writing(out))?;
    Ok(converted)
}

fn check(dataset: &Dataset, out: &Path, options: &ConvertOptions) -> Result<(), DataError> {
    let refuse = |expected: &str, found: String| {
        Err(DataError::Layout { path: out.to_owned(), expected: expected.to_owned(), found })
    };
    if options.films == FilmFiles::Reference && options.format != Format::Coco {
        let found = format!("{}, whose annotations lie beside their films", options.format);
        return refuse("the format coco, the only one that names films elsewhere", found);
    }
    let reserved =
        dataset.classes.labels().iter().find(|label| label.name().eq_ignore_ascii_case(NO_FINDING));
    if let (Format::Vindr, Some(label)) = (options.format, reserved) {
        return refuse(
            "classes of other names, for this one says that a film has none",
            format!("{label:?}"),
        );
    }
    dataset.refuse_same_ids()
}

/// The films that can be written, in order, with degenerate boxes listed.
fn sized_films<'a>(
    dataset: &'a Dataset,
    options: &ConvertOptions,
    threads: usize,
    converted: &mut Converted,
    on_progress: OnProgress<'_>,
) -> Vec<Sized<'a>> {
    let films = &dataset.films;
    let mut sizes: Vec<Option<Result<(u32, u32), String>>> = vec![None; films.len()];
    let (total, mut done) = (films.len(), 0);
    let job = |i: usize| read_size(&films[i].path, &Limits::default()).map_err(|e| e.to_string());
    let Ok(()) = in_parallel(films.len(), threads, job, |i, size| {
        sizes[i] = Some(size);
        done += 1;
        on_progress(Progress { done, total });
        Ok::<(), std::convert::Infallible>(())
    });
    let mut sized = vec![];
    for (film, size) in films.iter().zip(sizes) {
        let annotation = &film.annotation;
        let is_thin = |b: &Annotation| b.xyxy.width() <= DEGENERATE_PX || b.xyxy.height() <= DEGENERATE_PX;
        let of_box = |b: &Annotation| DegenerateBox {
            image_id: annotation.image_id.clone(),
            label: b.label.clone(),
            xyxy: b.xyxy,
        };
        converted.degenerate.extend(annotation.boxes.iter().filter(|b| is_thin(b)).map(of_box));
        let keep = |b: &&Annotation| options.degenerate == Degenerate::Keep || !is_thin(b);
        let boxes: Vec<Annotation> = annotation.boxes.iter().filter(keep).cloned().collect();
        let holds = holds(options.format, film, &boxes);
        match size.expect("every film's size was asked for").and_then(|size| holds.map(|()| size)) {
            Ok((height_px, width_px)) => {
                let file = file_name(options.format, film);
                sized.push(Sized { film, boxes, height_px, width_px, file });
            }
            Err(error) => converted.failures.push(FilmFailure {
                image_id: annotation.image_id.clone(),
                path: film.path.clone(),
                error,
            }),
        }
    }
    sized
}

/// The format can hold the film, or why not.
fn holds(format: Format, film: &Film, boxes: &[Annotation]) -> Result<(), String> {
    let id = &film.annotation.image_id;
    let place = film.path.display();
    if id.trim() != id || id.chars().any(char::is_control) {
        let expected = "a name without control characters or blanks at its ends";
        return Err(format!("{place}: image id {id:?}; expected {expected}"));
    }
    if format == Format::Vindr && !is_file_stem(id) {
        return Err(format!(
            "{place}: image id {id:?}; expected letters, digits, `.`, `_` and `-`, which is what vindr takes"
        ));
    }
    if matches!(format, Format::Vindr | Format::Yolo) && film.annotation.abnormal && boxes.is_empty() {
        return Err(format!("{place}: abnormal without a box, which {format} cannot say; expected a box"));
    }
    Ok(())
}

/// Where the film's file goes, relative to the new folder.
fn file_name(format: Format, film: &Film) -> String {
    let extension = film.path.extension().and_then(|e| e.to_str()).unwrap_or("dcm").to_ascii_lowercase();
    let folder = match format {
        Format::Vindr => format!("{}_images", film.split),
        Format::Coco => coco::film_folder(film.split),
        Format::Yolo => format!("images/{}", short_name(film.split)),
        Format::Voc => voc::FILMS.to_owned(),
    };
    format!("{folder}/{}.{extension}", film.annotation.image_id)
}

/// Makes a file of the new folder, with the folders it is in.
fn place(root: &Path, name: &str, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), DataError> {
    let path = root.join(name);
    let folder = path.parent().unwrap_or(root);
    std::fs::create_dir_all(folder).map_err(writing(folder))?;
    make(&path).map_err(writing(&path))
}

#[cfg(unix)]
fn link(source: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(source, path)
}

#[cfg(windows)]
fn link(source: &Path, path: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(source, path)
}

/// Files of text by name.
type Texts = Vec<(String, Vec<u8>)>;

/// Splits that have films, in order.
fn splits(films: &[Sized<'_>]) -> Vec<Split> {
    Split::ALL.into_iter().filter(|split| films.iter().any(|film| film.film.split == *split)).collect()
}

fn of_split<'f, 'a>(films: &'f [Sized<'a>], split: Split) -> impl Iterator<Item = &'f Sized<'a>> {
    films.iter().filter(move |film| film.film.split == split)
}

fn vindr_files(dataset: &Dataset, films: &[Sized<'_>]) -> Texts {
    let mut texts = vec![];
    if !dataset.classes.is_vindr() {
        let names: String = dataset.classes.labels().iter().map(|label| format!("{label}\n")).collect();
        texts.push((vindr::CLASSES_FILE.to_owned(), names.into_bytes()));
    }
    for split in splits(films) {
        let mut writer = csv::Writer::from_writer(vec![]);
        writer.write_record(vindr::COLUMNS).expect("memory takes every row");
        for Sized { film, boxes, .. } in of_split(films, split) {
            let Film { annotation, .. } = film;
            let mut row = |label: &str, corners: [String; 4]| {
                let [x1, y1, x2, y2] = &corners;
                let ids =
                    [&annotation.study_id, &annotation.series_id, &annotation.image_id].map(String::as_str);
                let [study, series, image] = ids;
                let cells = [study, series, image, "", label, x1, y1, x2, y2];
                writer.write_record(cells).expect("memory takes every row");
            };
            if !annotation.abnormal {
                row(NO_FINDING, Default::default());
            }
            for b in boxes {
                row(b.label.name(), <[f32; 4]>::from(b.xyxy).map(|v| v.to_string()));
            }
        }
        let text = writer.into_inner().expect("memory does not fail to flush");
        texts.push((format!("annotations/{split}.csv"), text));
    }
    texts
}

fn coco_files(dataset: &Dataset, films: &[Sized<'_>], options: &ConvertOptions) -> Result<Texts, DataError> {
    let mut texts = vec![];
    for split in splits(films) {
        let mut of_this = vec![];
        for film in of_split(films, split) {
            let file_name = match options.films {
                FilmFiles::Reference => {
                    let path = &film.film.path;
                    std::path::absolute(path).map_err(reading(path))?.display().to_string()
                }
                _ => Path::new(&film.file)
                    .file_name()
                    .and_then(|n| n.to_str())
                    .unwrap_or(&film.file)
                    .to_owned(),
            };
            let annotation = FilmAnnotation { boxes: film.boxes.clone(), ..film.film.annotation.clone() };
            of_this.push(coco::OutFilm {
                annotation,
                file_name,
                height_px: film.height_px,
                width_px: film.width_px,
            });
        }
        texts.push((coco::file_of(split), coco::document(&of_this, &dataset.classes)?));
    }
    Ok(texts)
}

fn yolo_files(dataset: &Dataset, films: &[Sized<'_>]) -> Result<Texts, DataError> {
    let data = yolo::data_file(&splits(films), &dataset.classes);
    let mut texts = vec![(yolo::DATA_FILE.to_owned(), data.into_bytes())];
    for Sized { film, boxes, height_px, width_px, .. } in films {
        let image_id = &film.annotation.image_id;
        let text = yolo::labels(image_id, boxes, &dataset.classes, *height_px, *width_px)?;
        texts.push((format!("labels/{}/{image_id}.txt", short_name(film.split)), text.into_bytes()));
    }
    Ok(texts)
}

fn voc_files(dataset: &Dataset, films: &[Sized<'_>], rounded: &mut usize) -> Texts {
    let names: String = dataset.classes.labels().iter().map(|label| format!("{label}\n")).collect();
    let mut texts = vec![(voc::CLASSES_FILE.to_owned(), names.into_bytes())];
    let mut lists: BTreeMap<Split, String> = BTreeMap::new();
    for film in films {
        let annotation = FilmAnnotation { boxes: film.boxes.clone(), ..film.film.annotation.clone() };
        let name = Path::new(&film.file).file_name().and_then(|n| n.to_str()).unwrap_or(&film.file);
        let (text, of_film) = voc::document(&annotation, name, film.height_px, film.width_px);
        *rounded += of_film;
        texts.push((format!("{}/{}.xml", voc::ANNOTATIONS, annotation.image_id), text.into_bytes()));
        let _ = writeln!(lists.entry(film.film.split).or_default(), "{}", annotation.image_id);
    }
    texts.extend(lists.into_iter().map(|(split, list)| (voc::list_of(short_name(split)), list.into_bytes())));
    texts
}

/// What goes lost in the format.
fn notes(films: &[Sized<'_>], format: Format) -> Vec<String> {
    let count = |lost: fn(&Film) -> bool| films.iter().filter(|film| lost(film.film)).count();
    let mut notes = vec![];
    if format == Format::Yolo {
        let studies = count(|film| film.annotation.study_id != film.annotation.image_id);
        let normal = count(|film| !film.annotation.abnormal && !film.annotation.boxes.is_empty());
        if studies > 0 {
            notes.push(format!(
                "yolo has no place for studies: {studies} films lose theirs, each is one of its own"
            ));
        }
        if normal > 0 {
            notes.push(format!(
                "yolo calls every film with a box abnormal: {normal} films were called normal"
            ));
        }
    }
    notes
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
