//! Secondary Capture of a film (PS3.3 A.8.1): a colour picture with the boxes burnt in, for every viewer there is.

use super::codes::SOURCE_IMAGE;
use super::object::{
    Algorithm, DicomObject, KindOfObject, ResultOptions, content_time, finish, image_reference, notices,
};
use super::uids::Kind;
use super::{NOTICE, SourceFilm};
use crate::error::WriteError;
use crate::write::element::{Element, Value};
use image::RgbImage;
use spinexr_core::FilmPrediction;

const NAME: &str = "secondary capture";

/// The secondary capture of a prediction. `picture` is the film with its boxes and the notice drawn in, of any size up to
/// 65535 px.
///
/// # Errors
/// [`WriteError::Result`]: the picture is empty or too large.
pub fn secondary_capture(
    film: &SourceFilm,
    prediction: &FilmPrediction,
    picture: &RgbImage,
    by: &Algorithm,
    options: &ResultOptions,
) -> Result<DicomObject, WriteError> {
    let size = (u16::try_from(picture.width()), u16::try_from(picture.height()));
    let (Ok(columns @ 1..), Ok(rows @ 1..)) = size else {
        return Err(WriteError::Result {
            object: NAME,
            field: "size of the picture",
            expected: "1 to 65535 px a side".to_owned(),
            found: format!("{} x {} px", picture.width(), picture.height()),
        });
    };
    let (date, time) = content_time(film, options);
    let words = &film.words;
    let mut source = image_reference(film, options);
    source.push(Element::sequence(0x0040_A170, vec![SOURCE_IMAGE.item(words)]));
    let mut own = vec![
        Element::text(0x0008_0008, "CS", "DERIVED\\SECONDARY"),
        Element::text(0x0008_0023, "DA", date),
        Element::text(0x0008_0033, "TM", time),
        Element::text(0x0008_0064, "CS", "WSD"),
        words.text(
            0x0008_2111,
            "ST",
            &format!("{} {}: boxes drawn into the film; {NOTICE}", by.name, by.version),
        ),
        Element::sequence(0x0008_2112, vec![source]),
        Element::text(0x0020_0020, "CS", ""), // patient orientation: type 2C
        Element::text(0x0020_0060, "CS", ""), // laterality: type 2C
        words.text(0x0020_4000, "LT", &notices(prediction)),
        Element::us(0x0028_0002, 3),
        Element::text(0x0028_0004, "CS", "RGB"),
        Element::us(0x0028_0006, 0),
        Element::us(0x0028_0010, rows),
        Element::us(0x0028_0011, columns),
        Element::us(0x0028_0100, 8),
        Element::us(0x0028_0101, 8),
        Element::us(0x0028_0102, 7),
        Element::us(0x0028_0103, 0),
        Element::text(0x0028_0301, "CS", "YES"),
        Element { tag: 0x7FE0_0010, value: Value::Bytes(picture.as_raw().clone()) },
    ];
    own.extend(lossy(film));
    let object = KindOfObject {
        kind: Kind::Capture,
        sop_class: "1.2.840.10008.5.1.4.1.1.7",
        modality: "OT",
        series_number: 9903,
        series_description: "AI result (research): picture",
    };
    Ok(finish(&object, film, by, options, own))
}

/// Lossy Image Compression (0028,2110): once lossy, always lossy (PS3.3 C.7.6.1.1.5).
fn lossy(film: &SourceFilm) -> Vec<Element> {
    let Some([ratio, method]) = &film.lossy else { return vec![Element::text(0x0028_2110, "CS", "00")] };
    let mut elements = vec![Element::text(0x0028_2110, "CS", "01")];
    if !ratio.is_empty() {
        elements.push(Element::text(0x0028_2112, "DS", ratio.as_str()));
    }
    if !method.is_empty() {
        elements.push(Element::text(0x0028_2114, "CS", method.as_str()));
    }
    elements
}
