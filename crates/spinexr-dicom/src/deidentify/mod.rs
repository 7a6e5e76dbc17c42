//! De-identification after PS3.15 annex E: the Basic Application Level Confidentiality Profile with some of its
//! options.
//!
//! What goes: every attribute of Table E.1-1 by its action, in sequences at any depth; private attributes; overlays,
//! curves and their comments; attributes that the dictionary does not know; sequences hidden in values of VR UN; the
//! preamble and the file meta information, which is written anew; and, in what is left, any text that holds a word of
//! the patient's names and ids. What stays, stays byte for byte, pixels included, unless rectangles of them are
//! masked.
//!
//! UIDs, pseudonyms and shifts of dates hang on a [`Key`]: the same key gives the same, so that films of a study and of
//! a patient stay together.
//!
//! What no program sees is left to people: faces, text in the pixels, and words that only a reader understands.

mod key;
mod leftovers;
mod pixels;
mod profile;
mod tree;
mod values;

pub use key::Key;
pub use pixels::MaskRect;
pub use profile::{Dates, Retain};

use crate::error::ReadError;
use crate::options::Limits;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use leftovers::{Words, is_text};
use profile::{Action, EDITION, action};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tree::{Element, Elements, Encoder, Tree, Value};

/// What is to stay and what is to be masked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeidentifyOptions {
    /// Options of the profile.
    pub retain: Retain,
    /// Rectangles of every film that become black.
    pub mask: Vec<MaskRect>,
    /// What a file may cost.
    pub limits: Limits,
}

/// A film that names nobody.
#[derive(Clone, PartialEq)]
pub struct Deidentified {
    /// The DICOM file.
    pub bytes: Vec<u8>,
    /// 32 hexadecimal digits for its file name, from its SOP Instance UID and the key.
    pub image_id: String,
    /// New Study Instance UID; empty where the film has none.
    pub study_uid: String,
    /// What was done.
    pub report: DeidentifyReport,
}

/// What was done to a film; holds no value of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DeidentifyReport {
    /// Attributes removed, those of the private groups, overlays and curves not counted.
    pub removed: usize,
    /// Attributes emptied or given a dummy value.
    pub replaced: usize,
    /// UIDs replaced.
    pub uids: usize,
    /// Dates shifted.
    pub dates_shifted: usize,
    /// Private attributes removed.
    pub private: usize,
    /// Attributes of overlays and curves removed.
    pub graphics: usize,
    /// Attributes outside the profile that held a word of the patient's names or ids, or could not be understood.
    pub leftovers: BTreeSet<String>,
    /// What a person must look at, in words.
    pub warnings: Vec<String>,
    /// What was done beyond the header, in words.
    pub notes: Vec<String>,
}

/// Removes from a DICOM file what names the patient. `path` only names the file in errors.
///
/// # Errors
/// Any [`ReadError`] of parsing; [`ReadError::NoPixelData`] for what is no image: reports, documents and
/// presentation states are made of what would have to go; [`ReadError::Pixels`] when pixels cannot be masked.
pub fn deidentify(
    path: &Path,
    file: Vec<u8>,
    options: &DeidentifyOptions,
    key: &Key,
) -> Result<Deidentified, ReadError> {
    let masked_from = (!options.mask.is_empty()).then(|| file.clone());
    let mut tree = Tree::parse(path, file, &options.limits)?;
    if tree.find(tags::PIXEL_DATA).is_none() {
        return Err(ReadError::NoPixelData { path: path.into() });
    }
    let mut report = DeidentifyReport::default();
    if tree.cut {
        report.notes.push("what follows the pixels could not be understood and was left out".into());
    }
    warn_of_pixels(&tree, options, &mut report);
    if pixels::clear_embedded_overlays(&mut tree) > 0 {
        report.notes.push("overlays in unused bits of the pixels cleared".into());
    }
    if let Some(file) = masked_from {
        report.notes.extend(pixels::mask(path, &file, &mut tree, &options.mask, &options.limits)?);
    }

    let patient = patient_of(&tree);
    let instance = tree.text(tags::SOP_INSTANCE_UID).unwrap_or_else(|| {
        // A film without a UID gets one by its content, so that it gets the same the next time.
        spinexr_core::hex(&<sha2::Sha256 as sha2::Digest>::digest(&tree.bytes))
    });
    let study = tree.text(tags::STUDY_INSTANCE_UID);
    let words = Words::of(&tree.bytes, &tree.elements);
    let elements = std::mem::take(&mut tree.elements);
    let mut clean = Clean {
        bytes: &tree.bytes,
        retain: options.retain,
        key,
        days: key.days(&patient),
        words,
        report: &mut report,
    };
    let elements = clean.elements(elements);
    tree.elements = elements;

    let new_uid = |old: &str| if options.retain.uids { old.to_owned() } else { key.uid(old) };
    let instance_uid = match tree.text(tags::SOP_INSTANCE_UID) {
        Some(uid) => uid,
        None => key.uid(&instance),
    };
    tree.set(tags::SOP_INSTANCE_UID, VR::UI, Value::New(instance_uid.clone().into_bytes()));
    let pseudonym = key.patient(&patient);
    tree.set(tags::PATIENT_NAME, VR::PN, Value::New(pseudonym.clone().into_bytes()));
    tree.set(tags::PATIENT_ID, VR::LO, Value::New(pseudonym.into_bytes()));
    mark(&mut tree, options);

    let mut bytes = meta(path, &tree, &instance_uid)?;
    bytes.extend(tree.encode());
    Ok(Deidentified {
        bytes,
        image_id: key.name("image", &instance),
        study_uid: study.map(|uid| new_uid(&uid)).unwrap_or_default(),
        report,
    })
}

/// Who the patient is, for pseudonym and dates: id and issuer, else the study, which keeps its films together.
fn patient_of(tree: &Tree) -> String {
    let issuer = tree.text(tags::ISSUER_OF_PATIENT_ID).unwrap_or_default();
    match (tree.text(tags::PATIENT_ID), tree.text(tags::STUDY_INSTANCE_UID)) {
        (Some(id), _) => format!("{issuer}\0{id}"),
        (None, Some(study)) => format!("\0\0study {study}"),
        (None, None) => tree.text(tags::SOP_INSTANCE_UID).unwrap_or_default(),
    }
}

/// What the header says about text in the pixels.
fn warn_of_pixels(tree: &Tree, options: &DeidentifyOptions, report: &mut DeidentifyReport) {
    const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
    let is_capture = tree.text(tags::SOP_CLASS_UID).is_some_and(|uid| uid.starts_with(SECONDARY_CAPTURE))
        || tree.text(tags::CONVERSION_TYPE).is_some();
    let masked = !options.mask.is_empty();
    match tree.text(tags::BURNED_IN_ANNOTATION).as_deref() {
        _ if masked => {}
        Some("NO") => {}
        Some("YES") => report.warnings.push(
            "Burned In Annotation (0028,0301) is YES: text in the pixels names the patient until it is masked".into(),
        ),
        _ => report.warnings.push(
            "Burned In Annotation (0028,0301) does not say whether text is in the pixels: look at the film".into(),
        ),
    }
    if is_capture && !masked {
        report.warnings.push("a scan or a picture of a screen: text in the pixels is likely".into());
    }
    if options.retain.characteristics
        && tree.text(tags::PATIENT_AGE).is_some_and(|age| age.ends_with('Y') && *age > *"089Y")
    {
        report.warnings.push("Patient's Age (0010,1010) above 89 years is kept: few are that old".into());
    }
}

/// The walk over a data set.
struct Clean<'a> {
    bytes: &'a [u8],
    retain: Retain,
    key: &'a Key,
    days: i64,
    words: Words,
    report: &'a mut DeidentifyReport,
}

impl Clean<'_> {
    fn elements(&mut self, elements: Elements) -> Elements {
        elements.into_iter().filter_map(|element| self.element(element)).collect()
    }

    /// What becomes of an element; `None` when it goes.
    fn element(&mut self, element: Element) -> Option<Element> {
        let tag = element.tag;
        let group = tag.group();
        if group % 2 == 1 {
            self.report.private += 1;
            return None;
        }
        // Curves and overlays go as a whole: without data their sizes and labels are of no use. So do the retired
        // second images of groups 7Fxx.
        if matches!(group, 0x5000..=0x50FF | 0x6000..=0x60FF | 0x7F00..=0x7FDE) {
            self.report.graphics += 1;
            return None;
        }
        // Group lengths would be wrong now; commands and file meta information do not belong in a data set.
        if tag.element() == 0 || group < 0x0008 {
            return None;
        }
        match action(tag, &self.retain) {
            Some(Action::Remove) => {
                self.report.removed += 1;
                None
            }
            Some(Action::Empty) => Some(self.replace(element, |_, _| Vec::new())),
            Some(Action::Dummy) if self.vr(&element) == VR::UI => Some(self.new_uids(element)),
            Some(Action::Dummy) => Some(self.replace(element, values::dummy)),
            Some(Action::NewUid) => Some(self.new_uids(element)),
            Some(Action::ShiftDate) => self.shift(element),
            // What is kept by an option, or not in the table at all, is looked through like all else.
            Some(Action::CleanItems | Action::Keep) | None => self.keep(element),
        }
    }

    /// The VR to go by: that of the file, but of the dictionary where the file does not know.
    fn vr(&self, element: &Element) -> VR {
        match (element.vr, StandardDataDictionary.by_tag(element.tag)) {
            (VR::UN, Some(entry)) => entry.vr().relaxed(),
            (vr, _) => vr,
        }
    }

    fn keep(&mut self, element: Element) -> Option<Element> {
        let Some(entry) = StandardDataDictionary.by_tag(element.tag) else {
            // Neither private nor of the standard: nobody knows what it holds.
            return self.leftover(&element);
        };
        match element.value {
            Value::Items(items) => {
                let items = items.into_iter().map(|item| self.elements(item)).collect();
                Some(Element { value: Value::Items(items), ..element })
            }
            Value::Kept(_) if entry.vr().relaxed() == VR::SQ => {
                // A sequence that was not parsed, because its VR was lost.
                self.leftover(&element)
            }
            Value::Kept(_) if is_text(element.vr) && self.words.are_in(tree::value(self.bytes, &element)) => {
                self.report.leftovers.insert(crate::attributes::tag_text(element.tag));
                Some(Element { value: Value::New(Vec::new()), ..element })
            }
            Value::Kept(_) | Value::New(_) | Value::Fragments(_) => Some(element),
        }
    }

    fn leftover(&mut self, element: &Element) -> Option<Element> {
        self.report.leftovers.insert(crate::attributes::tag_text(element.tag));
        None
    }

    fn replace(&mut self, element: Element, with: impl Fn(VR, usize) -> Vec<u8>) -> Element {
        self.report.replaced += 1;
        let vr = self.vr(&element);
        let old_length = tree::value(self.bytes, &element).len();
        let value = match element.value {
            Value::Items(_) => Value::Items(vec![]),
            _ if vr == VR::SQ => Value::Items(vec![]),
            _ => Value::New(with(vr, old_length)),
        };
        Element { tag: element.tag, vr, value }
    }

    fn new_uids(&mut self, element: Element) -> Element {
        if let Value::Items(_) = element.value {
            return self.replace(element, |_, _| Vec::new());
        }
        let old = String::from_utf8_lossy(tree::value(self.bytes, &element)).into_owned();
        let new: Vec<String> = old
            .split('\\')
            .map(|uid| uid.trim_matches([' ', '\0']))
            .map(|uid| if uid.is_empty() { String::new() } else { self.key.uid(uid) })
            .collect();
        self.report.uids += new.iter().filter(|uid| !uid.is_empty()).count();
        Element { tag: element.tag, vr: VR::UI, value: Value::New(new.join("\\").into_bytes()) }
    }

    /// A date that is shifted, or treated as the Basic Profile treats it where it is none.
    fn shift(&mut self, element: Element) -> Option<Element> {
        let vr = self.vr(&element);
        if let Some(value) = values::shifted(vr, tree::value(self.bytes, &element), self.days) {
            self.report.dates_shifted += usize::from(vr != VR::TM);
            return Some(Element { tag: element.tag, vr, value: Value::New(value) });
        }
        let retain = Retain { dates: Dates::Remove, ..self.retain };
        match action(element.tag, &retain) {
            Some(Action::Remove) | None => {
                self.report.removed += 1;
                None
            }
            Some(Action::Dummy) => Some(self.replace(element, values::dummy)),
            Some(_) => Some(self.replace(element, |_, _| Vec::new())),
        }
    }
}

/// Says in the data set what was done (PS3.15 E.1.1, PS3.3 C.7.1.1 and C.12.1).
fn mark(tree: &mut Tree, options: &DeidentifyOptions) {
    let text = |text: &str| Value::New(text.as_bytes().to_vec());
    let retain = options.retain;
    // CID 7050.
    let mut codes = vec![("113100", "Basic Application Confidentiality Profile")];
    let mut add = |is_used: bool, code, meaning| {
        if is_used {
            codes.push((code, meaning));
        }
    };
    add(!options.mask.is_empty(), "113101", "Clean Pixel Data Option");
    let (keep, shift) = (retain.dates == Dates::Keep, retain.dates == Dates::Shift);
    add(keep, "113106", "Retain Longitudinal Temporal Information Full Dates Option");
    add(shift, "113107", "Retain Longitudinal Temporal Information Modified Dates Option");
    add(retain.characteristics, "113108", "Retain Patient Characteristics Option");
    add(retain.device, "113109", "Retain Device Identity Option");
    add(retain.uids, "113110", "Retain UIDs Option");
    add(retain.institution, "113112", "Retain Institution Identity Option");

    let item = |(code, meaning): &(&str, &str)| -> Elements {
        vec![
            Element { tag: tags::CODE_VALUE, vr: VR::SH, value: text(code) },
            Element { tag: tags::CODING_SCHEME_DESIGNATOR, vr: VR::SH, value: text("DCM") },
            Element { tag: tags::CODE_MEANING, vr: VR::LO, value: text(meaning) },
        ]
    };
    let items = codes.iter().map(item).collect();
    let method = format!("spinexr {}, PS3.15 {EDITION} table E.1-1", env!("CARGO_PKG_VERSION"));
    tree.set(tags::PATIENT_IDENTITY_REMOVED, VR::CS, text("YES"));
    tree.set(tags::DEIDENTIFICATION_METHOD, VR::LO, text(&method));
    tree.set(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, VR::SQ, Value::Items(items));
    let temporal = match retain.dates {
        Dates::Remove => "REMOVED",
        Dates::Keep => "UNMODIFIED",
        Dates::Shift => "MODIFIED",
    };
    tree.set(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, VR::CS, text(temporal));
    if !options.mask.is_empty() {
        tree.set(tags::BURNED_IN_ANNOTATION, VR::CS, text("NO"));
    }
}

/// Preamble, prefix and file meta information (PS3.10 7.1), with nothing of what was there.
fn meta(path: &Path, tree: &Tree, instance_uid: &str) -> Result<Vec<u8>, ReadError> {
    let class = tree.text(tags::SOP_CLASS_UID).ok_or_else(|| {
        let expected = "the UID of the kind of image";
        crate::attributes::unusable(path, tags::SOP_CLASS_UID, "SOP Class UID", expected, "nothing")
    })?;
    let element = |element, vr, bytes: &[u8]| Element {
        tag: Tag(0x0002, element),
        vr,
        value: Value::New(bytes.to_vec()),
    };
    let mut group = Vec::new();
    let encoder = Encoder { bytes: &[], explicit: true, big_endian: false };
    encoder.elements(
        &vec![
            element(0x0001, VR::OB, &[0, 1]),
            element(0x0002, VR::UI, class.as_bytes()),
            element(0x0003, VR::UI, instance_uid.as_bytes()),
            element(0x0010, VR::UI, tree.syntax.uid.as_bytes()),
            element(0x0012, VR::UI, crate::write::implementation_class_uid().as_bytes()),
            element(0x0013, VR::SH, b"SPINEXR"),
        ],
        &mut group,
    );
    let mut file = vec![0; 128];
    file.extend_from_slice(b"DICM");
    let length = u32::try_from(group.len()).expect("a few hundred bytes");
    encoder.elements(&vec![element(0x0000, VR::UL, &length.to_le_bytes())], &mut file);
    file.append(&mut group);
    Ok(file)
}

/// Counts of several reports.
impl DeidentifyReport {
    /// The words of all warnings, each with the number of films it was said of.
    pub fn warnings_of<'a>(reports: impl IntoIterator<Item = &'a Self>) -> BTreeMap<&'a str, usize> {
        let mut counts = BTreeMap::new();
        for warning in reports.into_iter().flat_map(|report| &report.warnings) {
            *counts.entry(warning.as_str()).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
