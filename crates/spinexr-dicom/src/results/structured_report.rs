//! Structured report of a film: TID 1500 Measurement Report with a TID 1410 group a box (PS3.16).
//!
//! ```text
//! CONTAINER Imaging Measurement Report                             TID 1500
//!   language, device observer, procedure reported                  TID 1204, 1002, 1004
//!   CONTAINER Image Library                                        TID 1600: the film
//!   CONTAINER Imaging Measurements
//!     algorithm name, version, parameters                          TID 4019
//!     CONTAINER Measurement Group, one a box                       TID 1410
//!       tracking identifier and UID, finding, finding site
//!       NUM detector confidence, with the algorithm
//!       SCOORD outline of the box ── SELECTED FROM ── the film
//!     NUM p(abnormal), c*, number of findings, least confidence    added: TID 1500 is extensible
//!       INFERRED FROM the film
//!   CONTAINER Qualitative Evaluations
//!     CODE called abnormal, not called abnormal or not decided
//!     TEXT research only
//! ```
//!
//! What is said of the film as a whole stands beside the groups. A TID 1501 group would hold it as well, but PixelMed's
//! template check, which tells 1410 from 1501 by counting the regions of all groups, then finds fault with every report of
//! one box.

use super::codes::{self, Code};
use super::content::{ContentItem, ItemValue, Relationship};
use super::object::{
    Algorithm, DicomObject, Finding, KindOfObject, ResultOptions, content_time, equipment, findings, finish,
    image_reference, notices,
};
use super::uids::{Kind, device_uid, tracking_uid};
use super::{SourceFilm, words::Words};
use crate::error::WriteError;
use crate::write::element::Element;
use Relationship::{Contains, HasAcqContext, HasConceptMod, HasObsContext, InferredFrom, SelectedFrom};
use spinexr_core::FilmPrediction;

const NAME: &str = "structured report";

/// The structured report of a prediction.
///
/// # Errors
/// [`WriteError::Result`]: the prediction is of another film size or frame, or a box, score or probability is none.
pub fn structured_report(
    film: &SourceFilm,
    prediction: &FilmPrediction,
    by: &Algorithm,
    options: &ResultOptions,
) -> Result<DicomObject, WriteError> {
    let findings = findings(NAME, film, prediction, options)?;
    for (field, value) in [("p(abnormal)", prediction.p_abnormal), ("threshold c*", prediction.threshold)] {
        if let Some(value) = value.filter(|v| !v.is_finite()) {
            let (expected, found) = ("a finite number".to_owned(), value.to_string());
            return Err(WriteError::Result { object: NAME, field, expected, found });
        }
    }
    let tree = report(film, prediction, &findings, by, options);
    let words = &film.words;
    let mut own = tree.elements(words);
    let (date, time) = content_time(film, options);
    own.extend([
        Element::text(0x0008_0023, "DA", date),
        Element::text(0x0008_0033, "TM", time),
        Element::sequence(0x0008_1111, vec![]), // performed procedure step: type 2
        Element::sequence(0x0040_A078, vec![author(film, by)]),
        Element::sequence(0x0040_A372, vec![]), // performed procedure code: type 2
        Element::sequence(0x0040_A375, vec![evidence(film)]),
        Element::text(0x0040_A491, "CS", "COMPLETE"),
        Element::text(0x0040_A493, "CS", "UNVERIFIED"),
    ]);
    let object = KindOfObject {
        kind: Kind::Report,
        sop_class: options.report_class.uid(),
        modality: "SR",
        series_number: 9901,
        series_description: "AI result (research): report",
    };
    Ok(finish(&object, film, by, options, own))
}

fn text(relationship: Relationship, name: Code, text: impl Into<String>) -> ContentItem {
    ContentItem::new(relationship, name, ItemValue::Text(text.into()))
}

fn code(relationship: Relationship, name: Code, value: Code) -> ContentItem {
    ContentItem::new(relationship, name, ItemValue::Code(value))
}

fn num(relationship: Relationship, name: Code, value: f64, unit: Code) -> ContentItem {
    ContentItem::new(relationship, name, ItemValue::Num(value, unit))
}

fn report(
    film: &SourceFilm,
    prediction: &FilmPrediction,
    findings: &[Finding<'_>],
    by: &Algorithm,
    options: &ResultOptions,
) -> ContentItem {
    let mut children = vec![
        code(HasConceptMod, codes::LANGUAGE, codes::ENGLISH),
        code(HasObsContext, codes::OBSERVER_TYPE, codes::DEVICE),
        ContentItem::new(HasObsContext, codes::DEVICE_OBSERVER_UID, ItemValue::UidRef(device_uid(by))),
        text(HasObsContext, codes::DEVICE_OBSERVER_NAME, format!("spinexr {}", by.software_version)),
        text(HasObsContext, codes::DEVICE_OBSERVER_MANUFACTURER, "spinexr"),
        text(HasObsContext, codes::DEVICE_OBSERVER_MODEL, &by.name),
        text(HasObsContext, codes::DEVICE_OBSERVER_SERIAL, &by.weights_sha256),
        code(HasConceptMod, codes::PROCEDURE_REPORTED, codes::IMAGING_PROCEDURE),
        image_library(film, options),
    ];
    let mut measurements = algorithm(by);
    measurements.push(text(HasConceptMod, codes::ALGORITHM_PARAMETERS, &by.parameters));
    let mut seen: Vec<(&str, Vec<f32>)> = vec![];
    for (index, finding) in findings.iter().enumerate() {
        let place = (finding.class, finding.outline());
        let occurrence = seen.iter().filter(|known| **known == place).count();
        let uid = tracking_uid(film, by, options, finding.class, &place.1, occurrence as u32);
        seen.push(place);
        measurements.push(box_group(film, finding, index + 1, uid, by, options));
    }
    measurements.extend(film_numbers(film, prediction, findings.len(), options));
    children.push(ContentItem::container(codes::IMAGING_MEASUREMENTS, measurements));
    children.push(evaluations(prediction, findings.len(), options));
    ContentItem::root(codes::IMAGING_MEASUREMENT_REPORT, "1500", children)
}

/// TID 4019, rows 1 and 2.
fn algorithm(by: &Algorithm) -> Vec<ContentItem> {
    vec![
        text(HasConceptMod, codes::ALGORITHM_NAME, &by.name),
        text(HasConceptMod, codes::ALGORITHM_VERSION, &by.version),
    ]
}

/// TID 1600 with one entry, the film.
fn image_library(film: &SourceFilm, options: &ResultOptions) -> ContentItem {
    let mut descriptors = vec![];
    if let Some(modality) = film.modality.as_deref().and_then(codes::modality) {
        descriptors.push(code(HasAcqContext, codes::MODALITY, modality));
    }
    descriptors.extend([
        code(HasAcqContext, codes::TARGET_REGION, codes::region(film.body_part.as_deref())),
        num(HasAcqContext, codes::PIXEL_DATA_ROWS, f64::from(film.rows), codes::PIXELS),
        num(HasAcqContext, codes::PIXEL_DATA_COLUMNS, f64::from(film.columns), codes::PIXELS),
    ]);
    let entry = ContentItem::unnamed(Contains, ItemValue::Image(image_reference(film, options)));
    let group = ContentItem::container(codes::IMAGE_LIBRARY_GROUP, vec![entry.with(descriptors)]);
    ContentItem::container(codes::IMAGE_LIBRARY, vec![group])
}

/// TID 1410: one box.
fn box_group(
    film: &SourceFilm,
    finding: &Finding<'_>,
    number: usize,
    uid: String,
    by: &Algorithm,
    options: &ResultOptions,
) -> ContentItem {
    let source =
        ContentItem::new(SelectedFrom, codes::SOURCE, ItemValue::Image(image_reference(film, options)));
    // The number a reader meets is the shortest that names the f32.
    let score = finding.score.to_string().parse().unwrap_or(f64::from(finding.score));
    let items = vec![
        text(HasObsContext, codes::TRACKING_IDENTIFIER, format!("{} {number}", finding.class)),
        ContentItem::new(HasObsContext, codes::TRACKING_UID, ItemValue::UidRef(uid)),
        code(Contains, codes::FINDING, codes::finding_code(finding.class)),
        ContentItem::new(Contains, codes::IMAGE_REGION, ItemValue::Polyline(finding.outline()))
            .with(vec![source]),
        code(HasConceptMod, codes::FINDING_SITE, codes::region(film.body_part.as_deref())),
        num(Contains, codes::CONFIDENCE, score, codes::NO_UNITS).with(algorithm(by)),
    ];
    ContentItem::container(codes::MEASUREMENT_GROUP, items)
}

/// What is said of the film as a whole.
fn film_numbers(
    film: &SourceFilm,
    prediction: &FilmPrediction,
    count: usize,
    options: &ResultOptions,
) -> Vec<ContentItem> {
    let source = ItemValue::Image(image_reference(film, options));
    let source = ContentItem::new(InferredFrom, codes::SOURCE_OF_MEASUREMENT, source);
    let numbers = [
        (codes::P_ABNORMAL, prediction.p_abnormal),
        (codes::C_STAR, prediction.threshold),
        (codes::FINDING_COUNT, Some(count as f64)),
        (codes::LEAST_CONFIDENCE, options.min_score.to_string().parse().ok()),
    ];
    let item = |(name, value): (Code, Option<f64>)| {
        value.map(|value| num(Contains, name, value, codes::NO_UNITS).with(vec![source.clone()]))
    };
    numbers.into_iter().filter_map(item).collect()
}

fn evaluations(prediction: &FilmPrediction, count: usize, options: &ResultOptions) -> ContentItem {
    let verdict = match (prediction.p_abnormal, prediction.threshold) {
        (Some(p), Some(c_star)) if p >= c_star => codes::CALLED_ABNORMAL,
        (Some(_), Some(_)) => codes::NOT_CALLED_ABNORMAL,
        _ => codes::NOT_DECIDED,
    };
    let found = match count {
        0 => "no finding".to_owned(),
        1 => "1 finding".to_owned(),
        n => format!("{n} findings"),
    };
    let summary = format!("The film was analysed: {found} of confidence {} or more.", options.min_score);
    ContentItem::container(
        codes::QUALITATIVE_EVALUATIONS,
        vec![
            code(Contains, codes::FILM_VERDICT, verdict),
            text(Contains, codes::COMMENT, summary),
            text(Contains, codes::COMMENT, notices(prediction)),
        ],
    )
}

/// Item of Author Observer Sequence (0040,A078): the device.
fn author(film: &SourceFilm, by: &Algorithm) -> Vec<Element> {
    let words: &Words = &film.words;
    let mut item = equipment(film, by);
    item.retain(|element| matches!(element.tag, 0x0008_0070 | 0x0008_1090));
    item.extend([
        Element::text(0x0008_0080, "LO", ""),
        Element::sequence(0x0008_0082, vec![]),
        words.line(0x0008_1010, "SH", "spinexr", 16),
        Element::uid(0x0018_1002, device_uid(by)),
        Element::text(0x0040_A084, "CS", "DEV"),
    ]);
    item
}

/// Item of Current Requested Procedure Evidence Sequence (0040,A375): the film in its study.
fn evidence(film: &SourceFilm) -> Vec<Element> {
    let instance = vec![
        Element::uid(0x0008_1150, film.sop_class_uid.as_str()),
        Element::uid(0x0008_1155, film.sop_instance_uid.as_str()),
    ];
    let series = vec![
        Element::sequence(0x0008_1199, vec![instance]),
        Element::uid(0x0020_000E, film.series_uid.as_str()),
    ];
    vec![Element::sequence(0x0008_1115, vec![series]), Element::uid(0x0020_000D, film.study_uid.as_str())]
}
