//! Grayscale Softcopy Presentation State of a film (PS3.3 A.33.1): how it was shown, and its boxes as graphics that a
//! viewer can hide.
//!
//! The state carries the steps that made the display pixels of the standard policy: Modality LUT or rescale, VOI LUT or
//! window, polarity. A film without a window of its own gets the window of its least and greatest value, as it was shown.
//! Boxes and labels lie in one graphic layer.

use super::object::{
    Algorithm, DicomObject, Finding, KindOfObject, ResultOptions, content_time, findings, finish,
    image_reference,
};
use super::source::Presentation;
use super::uids::Kind;
use super::{DEMONSTRATION_NOTICE, NOTICE, SourceFilm};
use crate::error::WriteError;
use crate::film::{ModalityApplied, PolarityApplied, Provenance, VoiApplied, VoiFunction};
use crate::lut::Lut;
use crate::options::{Policy, Stage};
use crate::write::element::{Element, Value, decimal_string};
use spinexr_core::{BoxXyxy, FilmPrediction};

const NAME: &str = "presentation state";

/// The one graphic layer.
const LAYER: &str = "AI FINDINGS";

/// Height of a label, as a share of the film's longer side.
const LABEL_HEIGHT: f32 = 0.022;

/// Width of a letter as a share of a label's height; generous, for viewers cut what does not fit.
const LETTER_WIDTH: f32 = 0.55;

/// The presentation state of a prediction. `shown` is the provenance of the film's display pixels under
/// [`Policy::Standard`].
///
/// # Errors
/// [`WriteError::Result`]: the film is not grey, `shown` is of another policy or stage, the prediction is of another film
/// size or frame, or a box or score is none.
pub fn presentation_state(
    film: &SourceFilm,
    prediction: &FilmPrediction,
    shown: &Provenance,
    by: &Algorithm,
    options: &ResultOptions,
) -> Result<DicomObject, WriteError> {
    let photometric = &film.presentation.photometric;
    if !photometric.starts_with("MONOCHROME") {
        return fail("photometric interpretation", "MONOCHROME1 or MONOCHROME2", photometric.clone());
    }
    if shown.policy != Policy::Standard || shown.stage != Stage::Display {
        let found = format!("{:?}, {:?}", shown.policy, shown.stage);
        return fail("provenance", "that of display pixels under the standard policy", found);
    }
    let findings = findings(NAME, film, prediction, options)?;
    let (date, time) = content_time(film, options);
    let words = &film.words;
    let mut own = vec![
        Element::sequence(0x0008_1115, vec![referenced_series(film, options)]),
        Element::text(0x0020_0060, "CS", ""), // laterality: type 2C
        Element::sequence(0x0070_0001, vec![annotation(film, prediction, &findings, options)]),
        Element::sequence(0x0070_005A, vec![displayed_area(film)]),
        Element::sequence(0x0070_0060, vec![layer(film)]),
        Element::text(0x0070_0080, "CS", "AI_RESULT"),
        words.line(0x0070_0081, "LO", NOTICE, 64),
        Element::text(0x0070_0082, "DA", date),
        Element::text(0x0070_0083, "TM", time),
        words.line(0x0070_0084, "PN", "spinexr^AI", 64),
        Element::text(0x2050_0020, "CS", shape(shown.polarity)),
    ];
    own.extend(modality(&film.presentation, &shown.modality)?);
    own.push(Element::sequence(0x0028_3110, vec![voi(&film.presentation, &shown.voi)?]));
    let object = KindOfObject {
        kind: Kind::PresentationState,
        sop_class: "1.2.840.10008.5.1.4.1.1.11.1",
        modality: "PR",
        series_number: 9902,
        series_description: "AI result (research): boxes",
    };
    Ok(finish(&object, film, by, options, own))
}

fn fail<T>(field: &'static str, expected: &str, found: String) -> Result<T, WriteError> {
    Err(WriteError::Result { object: NAME, field, expected: expected.to_owned(), found })
}

/// Item of Referenced Series Sequence (0008,1115).
fn referenced_series(film: &SourceFilm, options: &ResultOptions) -> Vec<Element> {
    vec![
        Element::uid(0x0020_000E, film.series_uid.as_str()),
        Element::sequence(0x0008_1140, vec![image_reference(film, options)]),
    ]
}

/// Presentation LUT Shape (2050,0020). It takes the place of the image's polarity, so that one inversion is one.
const fn shape(polarity: PolarityApplied) -> &'static str {
    match polarity {
        PolarityApplied::Unchanged => "IDENTITY",
        PolarityApplied::Inverted => "INVERSE",
    }
}

/// The Modality LUT module (PS3.3 C.11.1).
fn modality(film: &Presentation, applied: &ModalityApplied) -> Result<Vec<Element>, WriteError> {
    match *applied {
        ModalityApplied::None => Ok(vec![]),
        ModalityApplied::Rescale { slope, intercept } => Ok(vec![
            Element::text(0x0028_1052, "DS", decimal_string(intercept)),
            Element::text(0x0028_1053, "DS", decimal_string(slope)),
            Element::text(0x0028_1054, "LO", film.rescale_type.as_deref().unwrap_or("US")),
        ]),
        ModalityApplied::Lut { .. } => {
            let Some((lut, lut_type)) = &film.modality_lut else {
                return fail("modality step", "the LUT of the film", "no usable one".to_owned());
            };
            let mut item = lut_elements(lut);
            item.push(Element::text(0x0028_3004, "LO", lut_type.as_str()));
            Ok(vec![Element::sequence(0x0028_3000, vec![item])])
        }
    }
}

/// Item of Softcopy VOI LUT Sequence (0028,3110).
fn voi(film: &Presentation, applied: &VoiApplied) -> Result<Vec<Element>, WriteError> {
    let window = |center: f64, width: f64| {
        vec![
            Element::text(0x0028_1050, "DS", decimal_string(center)),
            Element::text(0x0028_1051, "DS", decimal_string(width)),
        ]
    };
    match *applied {
        VoiApplied::Window { center, width, function } => {
            let mut item = window(center, width);
            let name = match function {
                VoiFunction::Linear => None, // the default
                VoiFunction::LinearExact => Some("LINEAR_EXACT"),
                VoiFunction::Sigmoid => Some("SIGMOID"),
            };
            item.extend(name.map(|name| Element::text(0x0028_1056, "CS", name)));
            Ok(item)
        }
        // LINEAR maps center - 0.5 - (width - 1) / 2 to black and center - 0.5 + (width - 1) / 2 to white.
        VoiApplied::MinMax { min, max } => Ok(window((min + max + 1.0) / 2.0, max - min + 1.0)),
        VoiApplied::Lut { .. } => match &film.voi_lut {
            Some(lut) => Ok(vec![Element::sequence(0x0028_3010, vec![lut_elements(&of_8_or_16_bits(lut))])]),
            None => fail("VOI step", "the LUT of the film", "no usable one".to_owned()),
        },
        VoiApplied::None => fail("VOI step", "a window or LUT of a grey film", "none".to_owned()),
    }
}

/// The VOI LUT with entries of 8 or 16 bits, which is what a presentation state may have; others are spread over 16.
fn of_8_or_16_bits(lut: &Lut) -> Lut {
    if matches!(lut.bits, 8 | 16) {
        return lut.clone();
    }
    let full_scale = lut.full_scale();
    let spread = |&v: &u16| (f64::from(v) / full_scale * 65_535.0).round() as u16; // saturates
    Lut { first: lut.first, bits: 16, entries: lut.entries.iter().map(spread).collect() }
}

/// LUT Descriptor (0028,3002) and LUT Data (0028,3006). A negative first value makes the descriptor signed.
fn lut_elements(lut: &Lut) -> Vec<Element> {
    let count = (lut.entries.len() % 65_536) as u16; // 0 stands for 65,536
    let descriptor = match u16::try_from(lut.first) {
        Ok(first) => Value::Us(vec![count, first, lut.bits]),
        Err(_) => Value::Ss(vec![count as i16, lut.first as i16, lut.bits as i16]),
    };
    vec![
        Element { tag: 0x0028_3002, value: descriptor },
        Element { tag: 0x0028_3006, value: Value::Words(lut.entries.clone()) },
    ]
}

/// Item of Displayed Area Selection Sequence (0070,005A): the whole film, fitted to the screen.
fn displayed_area(film: &SourceFilm) -> Vec<Element> {
    let shape = &film.presentation;
    let pixel = match (&shape.spacing, &shape.aspect_ratio) {
        (Some(spacing), _) => Element::text(0x0070_0101, "DS", spacing.as_str()),
        (None, Some(ratio)) if ratio.bytes().all(|b| b.is_ascii_digit() || b == b'\\') => {
            Element::text(0x0070_0102, "IS", ratio.as_str())
        }
        (None, _) => Element::text(0x0070_0102, "IS", "1\\1"),
    };
    let (columns, rows) = (i32::from(film.columns), i32::from(film.rows));
    vec![
        Element { tag: 0x0070_0052, value: Value::Sl(vec![1, 1]) },
        Element { tag: 0x0070_0053, value: Value::Sl(vec![columns, rows]) },
        Element::text(0x0070_0100, "CS", "SCALE TO FIT"),
        pixel,
    ]
}

/// Item of Graphic Layer Sequence (0070,0060); amber where a viewer has colours.
fn layer(film: &SourceFilm) -> Vec<Element> {
    vec![
        Element::text(0x0070_0002, "CS", LAYER),
        Element::text(0x0070_0062, "IS", "1"),
        Element::us(0x0070_0066, 0xFFFF),
        film.words.line(0x0070_0068, "LO", NOTICE, 64),
        // CIELab of sRGB (255, 196, 61), scaled as PS3.3 C.10.7.1.1 says: L* by 65535 / 100, a* and b* by 257 from -128.
        Element { tag: 0x0070_0401, value: Value::Us(vec![53_883, 34_850, 50_500]) },
    ]
}

/// Item of Graphic Annotation Sequence (0070,0001): every box with its label, and the notices at the foot of the film.
fn annotation(
    film: &SourceFilm,
    prediction: &FilmPrediction,
    findings: &[Finding<'_>],
    options: &ResultOptions,
) -> Vec<Element> {
    let mut foot = vec![NOTICE];
    if prediction.demonstration {
        foot.push(DEMONSTRATION_NOTICE);
    }
    if findings.is_empty() {
        foot.push("no finding");
    }
    let mut places: Vec<BoxXyxy> = vec![];
    let mut texts = vec![];
    for line in foot {
        let (width, height) = label_size(film, line);
        let bottom = places.last().map_or(f32::from(film.rows), |below| below.y1);
        let place = BoxXyxy::new(0.0, (bottom - height).max(0.0), width, bottom.max(height));
        texts.push(label(film, line, &place));
        places.push(place);
    }
    let mut graphics = vec![];
    for finding in findings {
        let words = format!("{} {:.2}", finding.class, finding.score);
        let place = free_place(film, label_size(film, &words), &finding.xyxy, &places);
        texts.push(label(film, &words, &place));
        places.push(place);
        graphics.push(vec![
            Element::text(0x0070_0005, "CS", "PIXEL"),
            Element::us(0x0070_0020, 2),
            Element::us(0x0070_0021, 5),
            Element { tag: 0x0070_0022, value: Value::Fl(finding.outline()) },
            Element::text(0x0070_0023, "CS", "POLYLINE"),
            Element::text(0x0070_0024, "CS", "N"),
        ]);
    }
    let mut item = vec![
        Element::sequence(0x0008_1140, vec![image_reference(film, options)]),
        Element::text(0x0070_0002, "CS", LAYER),
        Element::sequence(0x0070_0008, texts),
    ];
    if !graphics.is_empty() {
        item.push(Element::sequence(0x0070_0009, graphics));
    }
    item
}

/// Width and height of a label, px; smaller where it would be wider than the film.
fn label_size(film: &SourceFilm, text: &str) -> (f32, f32) {
    let (columns, rows) = (f32::from(film.columns), f32::from(film.rows));
    let letters = text.chars().count().max(1) as f32 * LETTER_WIDTH;
    let height = (columns.max(rows) * LABEL_HEIGHT).min(rows).min(columns / letters);
    ((height * letters).min(columns), height)
}

/// A place for a label on the film that no other label covers: above the box, else below it or further down, else inside
/// it; above it where nothing is free.
fn free_place(film: &SourceFilm, (width, height): (f32, f32), xyxy: &BoxXyxy, taken: &[BoxXyxy]) -> BoxXyxy {
    let (columns, rows) = (f32::from(film.columns), f32::from(film.rows));
    let left = xyxy.x1.min(columns - width).max(0.0);
    let at = |top: f32| {
        let top = top.min(rows - height).max(0.0);
        BoxXyxy::new(left, top, left + width, top + height)
    };
    let is_free = |place: &BoxXyxy| taken.iter().all(|other| place.intersection(other) <= 0.0);
    let downwards = |from: f32| (0..64).map(move |step| from + step as f32 * height);
    let above = xyxy.y1 - height;
    std::iter::once(above)
        .chain(downwards(xyxy.y2))
        .chain(downwards(xyxy.y1))
        .map(at)
        .find(is_free)
        .unwrap_or_else(|| at(above))
}

/// Item of Text Object Sequence (0070,0008).
fn label(film: &SourceFilm, text: &str, place: &BoxXyxy) -> Vec<Element> {
    vec![
        Element::text(0x0070_0003, "CS", "PIXEL"),
        film.words.text(0x0070_0006, "ST", text),
        Element { tag: 0x0070_0010, value: Value::Fl(vec![place.x1, place.y1]) },
        Element { tag: 0x0070_0011, value: Value::Fl(vec![place.x2, place.y2]) },
        Element::text(0x0070_0012, "CS", "LEFT"),
    ]
}
