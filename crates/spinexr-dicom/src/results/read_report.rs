//! A structured report back as boxes: one of [`super::structured_report`], or the same after a reader corrected it.
//!
//! What is asked of a report is what the boxes need, no more: a TID 1500 report whose Imaging Measurements hold
//! measurement groups, each with a tracking identifier and a unique tracking UID, a finding, and one SCOORD polyline that
//! is selected from an image. Polylines of any shape are read as the box around them. Our film-level numbers stand beside
//! the groups, each inferred from an image. Everything else in the report is passed over.

use super::codes::{self, Code};
use super::item_tree::{Item, ItemTree, parse_items};
use super::source::is_uid;
use crate::attributes::number;
use crate::error::ReadError;
use crate::options::Limits;
use crate::read::read_bytes;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};
use serde::Serialize;
use spinexr_core::BoxXyxy;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

/// A structured report, as far as boxes go.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// SOP Instance UID (0008,0018) of the report.
    pub sop_instance_uid: String,
    /// Study Instance UID (0020,000D).
    pub study_uid: String,
    /// Verification Flag (0040,A493) is VERIFIED: a person vouches for the content.
    pub verified: bool,
    /// The films that something is said of, in the order of the report.
    pub films: Vec<ReportedFilm>,
}

/// What a report says of one film.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReportedFilm {
    /// SOP Instance UID of the film.
    pub sop_instance_uid: String,
    /// Frame, counted from 0.
    pub frame: u32,
    /// Probability of the film being abnormal.
    pub p_abnormal: Option<f64>,
    /// c*, the threshold on it.
    pub threshold: Option<f64>,
    /// Boxes below this confidence were left out.
    pub least_confidence: Option<f32>,
    /// The boxes.
    pub boxes: Vec<ReportedBox>,
}

/// A box of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReportedBox {
    /// Class name: of the data set where the code is in the vocabulary, else the meaning of the code.
    pub label: String,
    /// Code Value and Coding Scheme Designator of the finding.
    pub code: [String; 2],
    /// Detector's confidence, `[0, 1]`; `None` for a box that a reader added.
    pub confidence: Option<f32>,
    /// Tracking Identifier.
    pub tracking_identifier: String,
    /// Tracking Unique Identifier.
    pub tracking_uid: String,
    /// Place, film px.
    pub xyxy: BoxXyxy,
}

/// Reads the structured report at `path`.
///
/// # Errors
/// The file cannot be read or parsed, or a content item is missing or not what its template asks for
/// ([`ReadError::Report`]).
pub fn read_report(path: &Path, limits: &Limits) -> Result<Report, ReadError> {
    let (bytes, _) = read_bytes(path, u64::MAX, limits)?;
    read_report_from(path, bytes, limits)
}

/// As [`read_report`], of a file that is already in memory; `path` only names it in errors.
///
/// # Errors
/// As [`read_report`].
pub fn read_report_from(path: &Path, bytes: Vec<u8>, limits: &Limits) -> Result<Report, ReadError> {
    let found = bytes.len() as u64;
    if found > limits.max_file_bytes {
        let limit = limits.max_file_bytes;
        return Err(ReadError::TooLarge { path: path.into(), what: "the file in bytes", found, limit });
    }
    let tree = parse_items(path, bytes, limits)?;
    let charset = Reading::charset(&tree);
    Reading { path, tree: &tree, charset }.report()
}

/// SOP Instance UID of a film, and the frame, counted from 0.
type FilmKey = (String, u32);

/// What is known of a film so far.
fn film_of(films: &mut Vec<ReportedFilm>, (sop_instance_uid, frame): FilmKey) -> &mut ReportedFilm {
    let known = films.iter().position(|f| f.sop_instance_uid == sop_instance_uid && f.frame == frame);
    let at = known.unwrap_or_else(|| {
        films.push(ReportedFilm {
            sop_instance_uid,
            frame,
            p_abnormal: None,
            threshold: None,
            least_confidence: None,
            boxes: vec![],
        });
        films.len() - 1
    });
    &mut films[at]
}

struct Reading<'a> {
    path: &'a Path,
    tree: &'a ItemTree,
    charset: Option<SpecificCharacterSet>,
}

/// A content item and its place in the tree.
#[derive(Clone)]
struct Placed<'a> {
    item: &'a Item,
    place: String,
}

impl<'a> Placed<'a> {
    fn children(&self) -> impl Iterator<Item = Placed<'a>> + use<'a> {
        let place = self.place.clone();
        self.item
            .items(tags::CONTENT_SEQUENCE)
            .iter()
            .enumerate()
            .map(move |(n, item)| Self { item, place: format!("{place}.{}", n + 1) })
    }
}

impl<'a> Reading<'a> {
    fn charset(tree: &ItemTree) -> Option<SpecificCharacterSet> {
        let (_, range) = tree.root.value(tags::SPECIFIC_CHARACTER_SET)?;
        let declared = String::from_utf8_lossy(tree.bytes.get(range)?).into_owned();
        SpecificCharacterSet::from_code(declared.split('\\').next()?.trim_matches([' ', '\0']))
    }

    fn report(&self) -> Result<Report, ReadError> {
        let root = Placed { item: &self.tree.root, place: "1".to_owned() };
        let name = self.concept_name(&root)?;
        if !name.as_ref().is_some_and(|name| name.is(&codes::IMAGING_MEASUREMENT_REPORT)) {
            let found = name.map_or_else(|| "no concept name".to_owned(), |name| described(&name));
            return Err(self.error(&root, "(126000,DCM,\"Imaging Measurement Report\")", found));
        }
        let mut report = Report {
            sop_instance_uid: self.uid(&root, tags::SOP_INSTANCE_UID, "a SOP Instance UID (0008,0018)")?,
            study_uid: self.uid(&root, tags::STUDY_INSTANCE_UID, "a Study Instance UID (0020,000D)")?,
            verified: self.text(root.item, tags::VERIFICATION_FLAG).as_deref() == Some("VERIFIED"),
            films: vec![],
        };
        let mut tracked = BTreeSet::new();
        for measurements in self.named_children(&root, &codes::IMAGING_MEASUREMENTS)? {
            for group in self.named_children(&measurements, &codes::MEASUREMENT_GROUP)? {
                let (film, found) = self.group(&group, &mut tracked)?;
                film_of(&mut report.films, film).boxes.push(found);
            }
            let mut set = |name: &Code, set: fn(&mut ReportedFilm, f64)| -> Result<(), ReadError> {
                for item in self.named_children(&measurements, name)? {
                    let film = self.image(&self.only_image(&item, "one IMAGE that it is inferred from")?)?;
                    set(film_of(&mut report.films, film), self.number(&item)?);
                }
                Ok(())
            };
            set(&codes::P_ABNORMAL, |film, value| film.p_abnormal = Some(value))?;
            set(&codes::C_STAR, |film, value| film.threshold = Some(value))?;
            set(&codes::LEAST_CONFIDENCE, |film, value| film.least_confidence = Some(value as f32))?;
            // Names the film where nothing else does.
            set(&codes::FINDING_COUNT, |_, _| {})?;
        }
        Ok(report)
    }

    /// One box, and the film it is on.
    fn group(
        &self,
        group: &Placed<'a>,
        tracked: &mut BTreeSet<String>,
    ) -> Result<(FilmKey, ReportedBox), ReadError> {
        let identifier =
            self.only(group, &codes::TRACKING_IDENTIFIER, "one Tracking Identifier (112039,DCM)")?;
        let tracking_identifier = self.text(identifier.item, tags::TEXT_VALUE).unwrap_or_default();
        if tracking_identifier.is_empty() {
            return Err(self.error(&identifier, "a Text Value (0040,A160)", "nothing"));
        }
        let tracking =
            self.only(group, &codes::TRACKING_UID, "one Tracking Unique Identifier (112040,DCM)")?;
        let tracking_uid = self.uid(&tracking, tags::UID, "a UID (0040,A124)")?;
        if !tracked.insert(tracking_uid.clone()) {
            return Err(self.error(
                &tracking,
                "a Tracking Unique Identifier of its own",
                "one that is there twice",
            ));
        }
        let finding = self.only(group, &codes::FINDING, "one Finding (121071,DCM)")?;
        let code = self.code(&finding, tags::CONCEPT_CODE_SEQUENCE)?;
        let Some(code) = code else {
            return Err(self.error(&finding, "a coded finding (0040,A168)", "nothing"));
        };
        let (film, xyxy) = self.region(group)?;
        let confidence = self.number_named(group, &codes::CONFIDENCE)?;
        if let Some(value) = confidence.filter(|v| !(0.0..=1.0).contains(v)) {
            return Err(self.error(group, "a confidence of 0 to 1", value.to_string()));
        }
        let found = ReportedBox {
            label: codes::class_of_code(&code),
            code: [code.value.into_owned(), code.scheme.into_owned()],
            confidence: confidence.map(|value| value as f32),
            tracking_identifier,
            tracking_uid,
            xyxy,
        };
        Ok((film, found))
    }

    /// The box around the one region of a group, and the film it is on.
    fn region(&self, group: &Placed<'a>) -> Result<(FilmKey, BoxXyxy), ReadError> {
        let is_region = |child: &Placed<'_>| self.value_type(child).is_some_and(|t| t.starts_with("SCOORD"));
        let regions: Vec<_> = group.children().filter(is_region).collect();
        let [region] = regions.as_slice() else {
            return Err(self.error(
                group,
                "one SCOORD, the region of the finding",
                regions.len().to_string(),
            ));
        };
        let kind = self.value_type(region).unwrap_or_default();
        let graphic = self.text(region.item, tags::GRAPHIC_TYPE).unwrap_or_default();
        if (kind.as_str(), graphic.as_str()) != ("SCOORD", "POLYLINE") {
            return Err(self.error(region, "a SCOORD of Graphic Type POLYLINE", format!("{kind} {graphic}")));
        }
        let points = self.floats(region, tags::GRAPHIC_DATA)?;
        if points.len() < 6 || points.len() % 2 != 0 || points.iter().any(|v| !v.is_finite()) {
            let found = format!("{} numbers", points.len());
            return Err(self.error(region, "three or more points as pairs of finite numbers", found));
        }
        let bounds = |first: usize| {
            let values = || points.iter().skip(first).step_by(2).copied();
            (values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max))
        };
        let ((x1, x2), (y1, y2)) = (bounds(0), bounds(1));
        let xyxy = BoxXyxy::new(x1, y1, x2, y2);
        if !xyxy.is_proper() || x1 < 0.0 || y1 < 0.0 {
            return Err(self.error(region, "a region with an area, on the film", format!("{xyxy:?}")));
        }
        let image = self.only_image(region, "one IMAGE that it is selected from")?;
        Ok((self.image(&image)?, xyxy))
    }

    /// The only IMAGE below an item.
    fn only_image(&self, at: &Placed<'a>, expected: &'static str) -> Result<Placed<'a>, ReadError> {
        let is_image = |child: &Placed<'_>| self.value_type(child).as_deref() == Some("IMAGE");
        let mut images: Vec<_> = at.children().filter(is_image).collect();
        match (images.pop(), images.len()) {
            (Some(image), 0) => Ok(image),
            (image, more) => Err(self.error(at, expected, (more + usize::from(image.is_some())).to_string())),
        }
    }

    /// The film that an IMAGE item refers to, and the frame, counted from 0.
    fn image(&self, image: &Placed<'a>) -> Result<FilmKey, ReadError> {
        let references = image.item.items(tags::REFERENCED_SOP_SEQUENCE);
        let [reference] = references else {
            let found = references.len().to_string();
            return Err(self.error(image, "one item in Referenced SOP Sequence (0008,1199)", found));
        };
        let reference = Placed { item: reference, place: image.place.clone() };
        let expected = "a Referenced SOP Instance UID (0008,1155)";
        let uid = self.uid(&reference, tags::REFERENCED_SOP_INSTANCE_UID, expected)?;
        let frame = match self.text(reference.item, tags::REFERENCED_FRAME_NUMBER) {
            None => 0,
            Some(text) => match text.trim().parse::<u32>() {
                Ok(number @ 1..) => number - 1,
                _ => return Err(self.error(image, "one frame number from 1 (0008,1160)", text)),
            },
        };
        Ok((uid, frame))
    }

    fn error(&self, at: &Placed<'_>, expected: &'static str, found: impl Into<String>) -> ReadError {
        let found: String = found.into().chars().take(120).collect();
        ReadError::Report { path: self.path.into(), item: at.place.clone(), expected, found }
    }

    fn value_type(&self, at: &Placed<'_>) -> Option<String> {
        self.text(at.item, tags::VALUE_TYPE)
    }

    /// Children with this concept name.
    fn named_children(&self, at: &Placed<'a>, name: &Code) -> Result<Vec<Placed<'a>>, ReadError> {
        let mut named = vec![];
        for child in at.children() {
            if self.concept_name(&child)?.is_some_and(|found| found.is(name)) {
                named.push(child);
            }
        }
        Ok(named)
    }

    /// The only child with this concept name.
    fn only(&self, at: &Placed<'a>, name: &Code, expected: &'static str) -> Result<Placed<'a>, ReadError> {
        let mut named = self.named_children(at, name)?;
        match (named.pop(), named.len()) {
            (Some(only), 0) => Ok(only),
            (None, _) => Err(self.error(at, expected, "none")),
            (Some(_), more) => Err(self.error(at, expected, (more + 1).to_string())),
        }
    }

    fn concept_name(&self, at: &Placed<'_>) -> Result<Option<Code>, ReadError> {
        self.code(at, tags::CONCEPT_NAME_CODE_SEQUENCE)
    }

    /// The code in a sequence of one item; `None` where it is missing or empty.
    fn code(&self, at: &Placed<'_>, tag: Tag) -> Result<Option<Code>, ReadError> {
        if at.item.is_value(tag) {
            return Err(self.error(at, "a code sequence of VR SQ", "a value"));
        }
        let Some(item) = at.item.items(tag).first() else { return Ok(None) };
        let value =
            [tags::CODE_VALUE, tags::LONG_CODE_VALUE].into_iter().find_map(|tag| self.text(item, tag));
        let scheme = self.text(item, tags::CODING_SCHEME_DESIGNATOR);
        let meaning = self.text(item, tags::CODE_MEANING);
        match (value, scheme, meaning) {
            (Some(value), Some(scheme), Some(meaning)) => {
                Ok(Some(Code { value: value.into(), scheme: scheme.into(), meaning: meaning.into() }))
            }
            _ => Err(self.error(at, "a code with value, scheme and meaning", "one without")),
        }
    }

    /// The number of the first NUM with this name.
    fn number_named(&self, at: &Placed<'a>, name: &Code) -> Result<Option<f64>, ReadError> {
        let named = self.named_children(at, name)?;
        named.first().map(|item| self.number(item)).transpose()
    }

    /// The value of a NUM.
    fn number(&self, at: &Placed<'_>) -> Result<f64, ReadError> {
        let Some(measured) = at.item.items(tags::MEASURED_VALUE_SEQUENCE).first() else {
            return Err(self.error(at, "a Measured Value Sequence (0040,A300)", "none"));
        };
        let exact = match measured.value(tags::FLOATING_POINT_VALUE) {
            Some((VR::FD, range)) => self.words(range).first().copied().map(f64::from_le_bytes),
            Some((vr, _)) => return Err(self.error(at, "Floating Point Value of VR FD", vr.to_string())),
            None => None,
        };
        let text = self.text(measured, tags::NUMERIC_VALUE);
        let value = exact.or_else(|| text.as_deref().and_then(number)).filter(|v| v.is_finite());
        match value {
            Some(value) => Ok(value),
            None => Err(self.error(at, "a finite number", text.unwrap_or_else(|| "nothing".to_owned()))),
        }
    }

    fn floats(&self, at: &Placed<'_>, tag: Tag) -> Result<Vec<f32>, ReadError> {
        match at.item.value(tag) {
            Some((VR::FL, range)) if range.len() % 4 == 0 => {
                Ok(self.words(range).into_iter().map(f32::from_le_bytes).collect())
            }
            Some((vr, range)) => {
                let found = format!("{} bytes of VR {vr}", range.len());
                Err(self.error(at, "Graphic Data (0070,0022) of VR FL", found))
            }
            None => Err(self.error(at, "Graphic Data (0070,0022)", "none")),
        }
    }

    /// Binary values of `N` bytes as little endian.
    fn words<const N: usize>(&self, range: Range<usize>) -> Vec<[u8; N]> {
        let bytes = self.tree.bytes.get(range).unwrap_or_default();
        let swap = |chunk: &[u8]| {
            let mut word = [0; N];
            word.copy_from_slice(chunk);
            if self.tree.syntax.big_endian {
                word.reverse();
            }
            word
        };
        bytes.chunks_exact(N).map(swap).collect()
    }

    fn uid(&self, at: &Placed<'_>, tag: Tag, expected: &'static str) -> Result<String, ReadError> {
        match (at.item.value(tag), self.text(at.item, tag)) {
            (Some((VR::UI, _)), Some(uid)) if is_uid(&uid) => Ok(uid),
            (Some((vr, _)), found) => {
                let found = format!("{:?} of VR {vr}", found.unwrap_or_default());
                Err(self.error(at, expected, found))
            }
            (None, _) => Err(self.error(at, expected, "nothing")),
        }
    }

    /// A text without padding; `None` when absent or empty. Bytes that the character set does not explain are read as
    /// Latin-1.
    fn text(&self, item: &Item, tag: Tag) -> Option<String> {
        let (_, range) = item.value(tag)?;
        let bytes = self.tree.bytes.get(range)?;
        let decoded = self.charset.as_ref().and_then(|set| set.decode(bytes).ok());
        let text = decoded.unwrap_or_else(|| bytes.iter().map(|&b| char::from(b)).collect());
        let text = text.trim_matches([' ', '\0']);
        (!text.is_empty()).then(|| text.to_owned())
    }
}

fn described(code: &Code) -> String {
    format!("({},{},{:?})", code.value, code.scheme, code.meaning)
}
