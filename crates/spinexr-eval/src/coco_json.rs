//! COCO annotation and results files, and the figures that are usually printed for them.
//!
//! Format: cocodataset.org, "Data format" and "Results format", bounding boxes. Ids may be whole numbers or
//! text. `segmentation` is not read; `area` falls back on width times height, `iscrowd` on 0.

use crate::coco::{self, BoxSet, ClassResult, DetectedBox, Protocol, TruthBox};
use crate::error::{EvalError, Problem};
use crate::files::read_text;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// An image id: a number in COCO itself, often a file stem elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImageId {
    /// A whole number.
    Number(i64),
    /// Any text.
    Text(String),
}

impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Text(t) => f.write_str(t),
        }
    }
}

/// A category of the annotation file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Category {
    /// Id in the file.
    pub id: i64,
    /// Name in the file.
    pub name: String,
}

#[derive(Deserialize)]
struct RawTruthFile {
    images: Vec<RawImage>,
    annotations: Vec<RawAnnotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct RawImage {
    id: ImageId,
}

#[derive(Deserialize)]
struct RawAnnotation {
    image_id: ImageId,
    category_id: i64,
    bbox: [f64; 4],
    area: Option<f64>,
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct RawDetection {
    image_id: ImageId,
    category_id: i64,
    bbox: [f64; 4],
    score: f64,
}

/// A read annotation file; images and categories in the order of their ids.
#[derive(Debug, Clone, PartialEq)]
pub struct CocoTruth {
    images: BTreeMap<ImageId, usize>,
    /// Categories by id.
    pub categories: Vec<Category>,
    truth: Vec<TruthBox>,
}

/// Reads an annotation file.
///
/// # Errors
/// An unreadable or malformed file, a duplicate or unknown id, a box that is not finite or has a negative
/// size; the entry is named.
pub fn read_truth(path: &Path) -> Result<CocoTruth, EvalError> {
    parse_truth(&read_text(path)?, &path.display().to_string())
}

/// As [`read_truth`], from text; `file` is the name that errors carry.
///
/// # Errors
/// As [`read_truth`].
pub fn parse_truth(text: &str, file: &str) -> Result<CocoTruth, EvalError> {
    let mut raw: RawTruthFile = parse_json(text, file)?;
    let fail = |list, index, problem| EvalError::Entry { file: file.to_owned(), list, index, problem };

    let mut first_at: BTreeMap<ImageId, usize> = BTreeMap::new();
    for (index, image) in raw.images.into_iter().enumerate() {
        if let Some(first) = first_at.get(&image.id) {
            let problem = Problem::Duplicate { id: image.id.to_string(), first: format!("images[{first}]") };
            return Err(fail("images", index, problem));
        }
        first_at.insert(image.id, index);
    }
    let images: BTreeMap<ImageId, usize> = first_at.into_keys().zip(0..).collect();

    for (index, category) in raw.categories.iter().enumerate() {
        if let Some(first) = raw.categories[..index].iter().position(|c| c.id == category.id) {
            let first = format!("categories[{first}]");
            let problem = Problem::Duplicate { id: category.id.to_string(), first };
            return Err(fail("categories", index, problem));
        }
    }
    raw.categories.sort_by_key(|c| c.id);

    let mut truth = Vec::with_capacity(raw.annotations.len());
    for (index, a) in raw.annotations.iter().enumerate() {
        let fail = |problem| fail("annotations", index, problem);
        check_box(a.bbox).map_err(fail)?;
        let area = a.area.unwrap_or(a.bbox[2] * a.bbox[3]);
        if !area.is_finite() {
            return Err(fail(Problem::NotFinite { what: "area".into(), value: area }));
        }
        truth.push(TruthBox {
            image: image_number(&images, &a.image_id).map_err(fail)?,
            class: class_number(&raw.categories, a.category_id).map_err(fail)?,
            xywh: a.bbox,
            area,
            crowd: a.iscrowd != 0,
        });
    }
    Ok(CocoTruth { images, categories: raw.categories, truth })
}

/// Reads a results file (a list of detections) that belongs to `truth`.
///
/// # Errors
/// As [`read_truth`], and an image or category that the annotation file does not know.
pub fn read_detections(path: &Path, truth: &CocoTruth) -> Result<BoxSet, EvalError> {
    parse_detections(&read_text(path)?, &path.display().to_string(), truth)
}

/// As [`read_detections`], from text; `file` is the name that errors carry.
///
/// # Errors
/// As [`read_detections`].
pub fn parse_detections(text: &str, file: &str, truth: &CocoTruth) -> Result<BoxSet, EvalError> {
    let raw: Vec<RawDetection> = parse_json(text, file)?;
    let mut detections = Vec::with_capacity(raw.len());
    for (index, d) in raw.iter().enumerate() {
        let fail = |problem| EvalError::Entry { file: file.to_owned(), list: "detections", index, problem };
        check_box(d.bbox).map_err(fail)?;
        if !d.score.is_finite() {
            return Err(fail(Problem::NotFinite { what: "score".into(), value: d.score }));
        }
        detections.push(DetectedBox {
            image: image_number(&truth.images, &d.image_id).map_err(fail)?,
            class: class_number(&truth.categories, d.category_id).map_err(fail)?,
            xywh: d.bbox,
            score: d.score,
        });
    }
    Ok(BoxSet {
        images: truth.images.len(),
        classes: truth.categories.len(),
        truth: truth.truth.clone(),
        detections,
    })
}

fn parse_json<T: for<'a> Deserialize<'a>>(text: &str, file: &str) -> Result<T, EvalError> {
    serde_json::from_str(text).map_err(|error| EvalError::Line {
        file: file.to_owned(),
        line: error.line(),
        problem: Problem::Malformed(error.to_string()),
    })
}

fn check_box(bbox: [f64; 4]) -> Result<(), Problem> {
    if let Some(&value) = bbox.iter().find(|v| !v.is_finite()) {
        return Err(Problem::NotFinite { what: "bbox".into(), value });
    }
    let [_, _, width, height] = bbox;
    if width < 0.0 || height < 0.0 {
        return Err(Problem::NegativeSize { width, height });
    }
    Ok(())
}

fn image_number(images: &BTreeMap<ImageId, usize>, id: &ImageId) -> Result<usize, Problem> {
    images.get(id).copied().ok_or_else(|| Problem::Unknown { what: "image_id", id: id.to_string() })
}

fn class_number(categories: &[Category], id: i64) -> Result<usize, Problem> {
    categories
        .binary_search_by_key(&id, |c| c.id)
        .map_err(|_| Problem::Unknown { what: "category_id", id: id.to_string() })
}

/// Figures of one category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CategoryReport {
    /// Id in the file.
    pub id: i64,
    /// Name in the file.
    pub name: String,
    /// True boxes that count.
    pub ground_truth: usize,
    /// Proposed boxes.
    pub detections: usize,
    /// AP averaged over the asked IoU thresholds; `None` without truth.
    pub ap: Option<f64>,
    /// AP at IoU 0.5; `None` without truth.
    pub ap50: Option<f64>,
}

/// COCO's twelve figures, under COCO's names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(non_snake_case, missing_docs)]
pub struct CocoSummary {
    pub AP: Option<f64>,
    pub AP50: Option<f64>,
    pub AP75: Option<f64>,
    pub AP_small: Option<f64>,
    pub AP_medium: Option<f64>,
    pub AP_large: Option<f64>,
    pub AR_1: Option<f64>,
    pub AR_10: Option<f64>,
    pub AR_100: Option<f64>,
    pub AR_small: Option<f64>,
    pub AR_medium: Option<f64>,
    pub AR_large: Option<f64>,
}

/// What `evaluate detections` tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectionsReport {
    /// Images in the annotation file.
    pub images: usize,
    /// True boxes that count.
    pub ground_truth: usize,
    /// Proposed boxes.
    pub detections: usize,
    /// The asked IoU thresholds.
    pub iou_thresholds: Vec<f64>,
    /// Mean AP over them and over the categories with truth.
    pub ap: Option<f64>,
    /// The same at each threshold.
    pub ap_by_iou: Vec<Option<f64>>,
    /// Mean AP at IoU 0.5.
    pub map50: Option<f64>,
    /// By category, in the order of ids.
    pub per_category: Vec<CategoryReport>,
    /// The usual twelve figures at IoU 0.50:0.05:0.95.
    pub coco: CocoSummary,
}

/// Evaluates a data set at the asked IoU thresholds, all areas, at most 100 detections a category and image.
pub fn evaluate_detections(truth: &CocoTruth, boxes: &BoxSet, iou_thresholds: &[f64]) -> DetectionsReport {
    let classes = coco::evaluate(boxes, &Protocol::all_areas(iou_thresholds.to_vec()));
    let at_half = coco::evaluate(boxes, &Protocol::all_areas(vec![0.5]));
    let per_category =
        truth.categories.iter().zip(classes.iter().zip(&at_half)).map(|(category, (class, half))| {
            CategoryReport {
                id: category.id,
                name: category.name.clone(),
                ground_truth: class.truth,
                detections: class.detections,
                ap: class.ap(),
                ap50: half.ap(),
            }
        });
    DetectionsReport {
        images: boxes.images,
        ground_truth: classes.iter().map(|c| c.truth).sum(),
        detections: boxes.detections.len(),
        iou_thresholds: iou_thresholds.to_vec(),
        ap: coco::mean_ap(&classes),
        ap_by_iou: (0..iou_thresholds.len())
            .map(|t| coco::mean(classes.iter().map(|c| c.by_iou[t].ap())))
            .collect(),
        map50: coco::mean_ap(&at_half),
        per_category: per_category.collect(),
        coco: coco_summary(boxes),
    }
}

/// COCO's twelve figures.
pub fn coco_summary(boxes: &BoxSet) -> CocoSummary {
    let run = |area: [f64; 2], max_detections: usize| {
        coco::evaluate(boxes, &Protocol { iou_thresholds: coco::iou_coco(), area, max_detections })
    };
    let average_recall =
        |classes: &[ClassResult]| coco::mean(classes.iter().map(ClassResult::average_recall));
    let all = run(coco::AREA_ALL, 100);
    let [small, medium, large] =
        [coco::AREA_SMALL, coco::AREA_MEDIUM, coco::AREA_LARGE].map(|area| run(area, 100));
    let at = |t: usize| coco::mean(all.iter().map(|c| c.by_iou[t].ap()));
    CocoSummary {
        AP: coco::mean_ap(&all),
        AP50: at(0),
        AP75: at(5),
        AP_small: coco::mean_ap(&small),
        AP_medium: coco::mean_ap(&medium),
        AP_large: coco::mean_ap(&large),
        AR_1: average_recall(&run(coco::AREA_ALL, 1)),
        AR_10: average_recall(&run(coco::AREA_ALL, 10)),
        AR_100: average_recall(&all),
        AR_small: average_recall(&small),
        AR_medium: average_recall(&medium),
        AR_large: average_recall(&large),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTH: &str = r#"{"images": [{"id": 7}, {"id": "b"}], "categories": [{"id": 3, "name": "x"}],
        "annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10]}]}"#;

    #[test]
    fn broken_entries_are_named() {
        let truth = parse_truth(TRUTH, "gt.json").unwrap();
        let good = r#"{"image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.5}"#;
        let detect = |entry: &str| parse_detections(&format!("[{good}, {entry}]"), "dt.json", &truth);
        assert_eq!(detect(good).unwrap().detections.len(), 2);
        for (entry, expected) in [
            (good.replace("7", "8"), "dt.json: detections[1]: unknown image_id \"8\""),
            (good.replace("3", "4"), "dt.json: detections[1]: unknown category_id \"4\""),
            (
                good.replace("10, 10", "10, -10"),
                "dt.json: detections[1]: box with size 10 x -10; expected no negative size",
            ),
        ] {
            assert_eq!(detect(&entry).unwrap_err().to_string(), expected);
        }
        let nan = detect(&good.replace("0.5", "NaN")).unwrap_err().to_string();
        assert!(nan.starts_with("dt.json, line 1: "), "{nan}");
        let twice = parse_truth(&TRUTH.replace("\"b\"", "7"), "gt.json").unwrap_err().to_string();
        assert_eq!(twice, "gt.json: images[1]: \"7\" was there before (images[0])");
        assert!(parse_truth("{", "gt.json").unwrap_err().to_string().starts_with("gt.json, line 1"));
    }
}
