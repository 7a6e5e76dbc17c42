//! What `evaluate run`, `model combine` and `demo` share: annotations for a set of predictions, the tables, and
//! the report on disk.

use crate::commands::data::FormatArg;
use crate::console::{percent, table};
use anyhow::{Context, Result, bail};
use spinexr_core::{Detection, FilmPrediction, Split, whole_file};
use spinexr_data::{Dataset, Format, formats, vindr};
use spinexr_dicom::{ReadOptions, read_film};
use spinexr_eval::report::{self, ReportFile, Thumbnail};
use spinexr_eval::run::{Case, Protocol, RunOptions, RunReport, ShownBox, ThresholdSource};
use spinexr_eval::threshold::by_split;
use spinexr_eval::{Predictions, Test, Validation, evaluate_run, records};
use spinexr_infer::Explainer;
use spinexr_infer::evidence_picture::{self, BoxEvidence};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Longer side of a film in the report's gallery, px.
const THUMBNAIL_SIDE_PX: u32 = 520;

/// The data set that predictions are held to.
#[derive(clap::Args)]
pub struct AnnotationsArgs {
    /// Data set: VinDr-SpineXR, COCO, YOLO or Pascal VOC; only its annotations are read
    #[arg(long = "annotations", value_name = "DIR")]
    pub dir: PathBuf,
    /// Format of the annotations; by default the one the folder is laid out in
    #[arg(long = "annotations-format", value_enum)]
    format: Option<FormatArg>,
}

impl AnnotationsArgs {
    /// The format named, if one is.
    pub fn format(&self) -> Option<Format> {
        self.format.map(Into::into)
    }
}

/// Predictions, and the annotated films that they are of, each in the split its record names, boxes clipped to the
/// film. Labels of the predictions are of the annotations' classes.
///
/// All test films of the data set are there, predicted or not, so that a film left out is noticed.
pub fn read(predictions: &Path, annotations: &AnnotationsArgs) -> Result<(Vec<FilmPrediction>, Dataset)> {
    let mut dataset = formats::read(&annotations.dir, annotations.format())
        .with_context(|| format!("reading the annotations in {}", annotations.dir.display()))?;
    let films = records::read_of_classes(predictions, &dataset.classes)?;
    let predicted: HashMap<&str, &FilmPrediction> = films.iter().map(|f| (f.image.as_str(), f)).collect();
    refuse_leak(&dataset, &predicted)?;
    dataset.films.retain_mut(|film| match predicted.get(film.annotation.image_id.as_str()) {
        Some(prediction) => {
            film.split = prediction.split.unwrap_or(film.split);
            true
        }
        None => film.split == Split::Test,
    });
    let min_side_px = vindr::VindrOptions::new().min_box_px;
    dataset.clip_boxes(min_side_px, |film| {
        let prediction = predicted.get(film.annotation.image_id.as_str())?;
        Some((prediction.height_px, prediction.width_px))
    });
    Ok((films, dataset))
}

/// No study that the data set tests on has films in its training part too.
fn refuse_leak(dataset: &Dataset, predicted: &HashMap<&str, &FilmPrediction>) -> Result<()> {
    let tested = |film: &&spinexr_data::Film| {
        predicted.get(film.annotation.image_id.as_str()).is_some_and(|p| p.split == Some(Split::Test))
    };
    let trained: HashMap<&str, &str> = dataset
        .of(Split::Train)
        .filter(|film| !tested(film))
        .map(|film| (film.annotation.study_id.as_str(), film.annotation.image_id.as_str()))
        .collect();
    let leak = dataset
        .of(Split::Test)
        .filter(tested)
        .find_map(|film| Some((&film.annotation, *trained.get(film.annotation.study_id.as_str())?)));
    match leak {
        None => Ok(()),
        Some((test, train)) => bail!(
            "study {} has films in the data set's training part ({train}) and in its test part ({}): splits are by study",
            test.study_id,
            test.image_id
        ),
    }
}

/// The test predictions and both tables, with thresholds from the validation films or by the paper's protocol.
pub fn evaluate(
    films: Vec<FilmPrediction>,
    dataset: &Dataset,
    options: &RunOptions,
) -> Result<(Predictions<Test>, RunReport)> {
    let parts = by_split(films);
    parts.check_leak()?;
    if !parts.without.is_empty() {
        bail!(
            "{} predictions name no split (first: {}); predict with --config and --splits, so that thresholds are \
             chosen on validation films only",
            parts.without.len(),
            parts.without[0].image
        );
    }
    let options = &RunOptions { classes: dataset.classes.clone(), ..options.clone() };
    let annotations = dataset.annotations(Split::Validation);
    let validation = Predictions::<Validation>::new(parts.validation)?;
    let source = match options.protocol {
        Protocol::Improved => ThresholdSource::Validation { films: &validation, annotations: &annotations },
        Protocol::Paper => ThresholdSource::TestAsInThePaper,
    };
    let test = Predictions::<Test>::new(parts.test)?;
    let report = evaluate_run(&test, &dataset.annotations(Split::Test), source, options)?;
    Ok((test, report))
}

/// The paper's two tables as text.
pub fn tables(report: &RunReport) -> String {
    let classification: Vec<Vec<String>> = report
        .classification
        .iter()
        .map(|(name, row)| {
            let interval = row.auroc_ci.map_or_else(String::new, |[low, high]| {
                format!(" ({}–{})", percent(Some(low)), percent(Some(high)))
            });
            vec![
                name.clone(),
                format!("{}{interval}", percent(row.auroc)),
                percent(row.f1),
                percent(row.sensitivity),
                percent(row.specificity),
            ]
        })
        .collect();
    let mut header = vec!["detector"];
    let labels = report.classes.labels();
    header.extend(labels.iter().map(|label| report.classes.heading(label)));
    header.push("mAP@0.5");
    let detection: Vec<Vec<String>> = report
        .detection
        .iter()
        .map(|(name, row)| {
            let mut cells = vec![name.clone()];
            cells.extend(labels.iter().map(|label| percent(row.ap50.get(label).copied().flatten())));
            cells.push(percent(row.map50));
            cells
        })
        .collect();
    let first = table(&["classifier", "AUROC (95 % CI)", "F1", "sens.", "spec."], &classification);
    let second = table(&header, &detection);
    let c_star = report
        .gate
        .as_ref()
        .map_or_else(String::new, |gate| format!("c* = {:.4}, chosen on {}\n", gate.c_star, gate.chosen_on));
    format!("\n{first}\n{second}\n{c_star}")
}

/// Films of each kind in the gallery that are explained.
const EXPLAINED_OF_A_KIND: usize = 2;

/// Small pictures of the films in the report's gallery; with an explainer, also where the evidence lies on the first few
/// of each kind. A film whose file cannot be read is left without one.
pub fn thumbnails(
    report: &RunReport,
    dataset: &Dataset,
    explainer: Option<&Explainer>,
) -> BTreeMap<String, Thumbnail> {
    let paths: HashMap<&str, &Path> =
        dataset.films.iter().map(|f| (f.annotation.image_id.as_str(), f.path.as_path())).collect();
    let pictures = report.cases.iter().filter_map(|case| {
        let path = paths.get(case.image.as_str())?;
        let before = report.cases.iter().take_while(|c| c.image != case.image);
        let explained = before.filter(|c| c.kind == case.kind).count() < EXPLAINED_OF_A_KIND;
        Some((case.image.clone(), thumbnail(path, case, explainer.filter(|_| explained)).ok()?))
    });
    pictures.collect()
}

fn thumbnail(path: &Path, case: &Case, explainer: Option<&Explainer>) -> Result<Thumbnail> {
    let film = read_film(path, &ReadOptions::default())?;
    let picture = spinexr_infer::overlay::display_picture(&film);
    let longer = picture.width().max(picture.height()).max(1);
    let scale = (f64::from(THUMBNAIL_SIDE_PX) / f64::from(longer)).min(1.0);
    let side = |px: u32| ((f64::from(px) * scale).round() as u32).max(1);
    let (width, height) = (side(picture.width()), side(picture.height()));
    let small = image::imageops::resize(&picture, width, height, image::imageops::FilterType::Triangle);
    let ratio = |small: u32, film: u32| small as f32 / film.max(1) as f32;
    let scale = [ratio(width, film.width_px), ratio(height, film.height_px)];
    let (mut evidence, mut box_evidence) = (None, None);
    if let Some(explainer) = explainer {
        let explanation = explainer.explain(path)?;
        let film = explanation.abnormal.as_ref().map(|map| evidence_picture::tinted(&small, map));
        evidence = film.map(|picture| jpeg(&picture.into())).transpose()?;
        let shown: Vec<Detection> = case.boxes.iter().map(detection).collect();
        let boxes = BoxEvidence::of(&shown, &explanation).map(|boxes| boxes.tinted(&small, scale));
        box_evidence = boxes.map(|picture| jpeg(&picture.into())).transpose()?;
    }
    Ok(Thumbnail {
        bytes: jpeg(&small.into())?,
        evidence,
        box_evidence,
        mime: "image/jpeg".into(),
        width_px: width,
        height_px: height,
        scale,
    })
}

fn detection(shown: &ShownBox) -> Detection {
    Detection { label: shown.label.clone(), score: shown.score, xyxy: shown.xyxy }
}

fn jpeg(picture: &image::DynamicImage) -> Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 82);
    encoder.encode_image(picture).context("encoding a thumbnail")?;
    Ok(bytes.into_inner())
}

/// Writes `report.json`, `report.html`, the tables and the plots into `dir`.
pub fn write_report(dir: &Path, report: &RunReport, thumbnails: &BTreeMap<String, Thumbnail>) -> Result<()> {
    let json = serde_json::to_vec_pretty(report).context("writing report.json")?;
    let html = report::html(report, &|image: &str| thumbnails.get(image).cloned());
    let mut files = report::table_files(report);
    files.extend(report::plot_files(report)?);
    files.push(ReportFile { name: "report.json".into(), bytes: json });
    files.push(ReportFile { name: "report.html".into(), bytes: html.into_bytes() });
    write_files(dir, &files)
}

/// Writes files below `dir`, which is made where it is missing.
pub fn write_files(dir: &Path, files: &[ReportFile]) -> Result<()> {
    for file in files {
        let path = dir.join(&file.name);
        let parent = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        whole_file::write(&path, &file.bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
