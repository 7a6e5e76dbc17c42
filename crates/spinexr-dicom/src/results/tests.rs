//! Results of made-up films, taken apart again.

use super::item_tree::{Item, ItemTree, parse_items};
use super::*;
use crate::error::{ReadError, WriteError};
use crate::write::element::{Element, Encoding, Value};
use crate::write::header::preamble_and_meta;
use crate::{DxFilm, Limits, Policy, ReadOptions, Stage, encode_dx, read_stage_from};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use spinexr_core::prediction::Timings;
use spinexr_core::{BoxXyxy, Detection, FilmPrediction, Finding};
use std::collections::BTreeMap;
use std::path::Path;

const HEIGHT: u32 = 60;
const WIDTH: u32 = 50;

fn detection(label: Finding, score: f32, xyxy: [f32; 4]) -> Detection {
    Detection { label: label.label(), score, xyxy: BoxXyxy::from(xyxy) }
}

/// Boxes whose numbers have no short decimal form.
pub(super) fn boxes() -> Vec<Detection> {
    let third = 1.0 / 3.0;
    vec![
        detection(Finding::Osteophytes, 0.123_456_79, [third, 2.0 * third, 20.1, 30.7]),
        detection(Finding::OtherLesions, 1e-7, [0.0, 0.0, 50.0, 60.0]),
        detection(Finding::VertebralCollapse, 0.9, [7.7, 8.8, 9.9, 10.1]),
        // The same place twice: two findings all the same.
        detection(Finding::DiscSpaceNarrowing, 0.5, [5.0, 5.0, 10.0, 10.0]),
        detection(Finding::DiscSpaceNarrowing, 0.4, [5.0, 5.0, 10.0, 10.0]),
    ]
}

fn prediction(boxes: Vec<Detection>) -> FilmPrediction {
    FilmPrediction {
        facts: Default::default(),
        image: "film".to_owned(),
        study: "study".to_owned(),
        split: None,
        height_px: HEIGHT,
        width_px: WIDTH,
        logits: BTreeMap::new(),
        p_abnormal: Some(2.0 / 3.0),
        threshold: Some(0.28),
        boxes_before_gate: boxes.clone(),
        boxes,
        method: None,
        pixels: serde_json::Value::Null,
        timings: Timings::default(),
        model: "hash".to_owned(),
        demonstration: false,
    }
}

fn algorithm() -> Algorithm {
    Algorithm {
        name: "test model".to_owned(),
        version: "1".to_owned(),
        model_hash: "model".to_owned(),
        weights_sha256: "ab".repeat(32),
        config_hash: "config".to_owned(),
        parameters: "c* 0.28".to_owned(),
        software_version: "0.1.0".to_owned(),
    }
}

fn dx(change: impl FnOnce(&mut DxFilm)) -> Vec<u8> {
    let pixels = (0..HEIGHT * WIDTH).map(|i| (i % 4096) as u16).collect();
    let mut film = DxFilm::new(HEIGHT, WIDTH, pixels);
    change(&mut film);
    encode_dx(&film)
}

fn source(bytes: Vec<u8>) -> SourceFilm {
    SourceFilm::from_bytes(Path::new("film.dcm"), bytes, &Limits::default()).unwrap()
}

pub(super) fn film() -> SourceFilm {
    source(dx(|_| {}))
}

/// A film of the least that results need, with these elements beside.
fn bare_film(more: Vec<Element>) -> Vec<u8> {
    let mut elements = vec![
        Element::uid(0x0008_0016, "1.2.840.10008.5.1.4.1.1.12.1"),
        Element::uid(0x0008_0018, "1.2.3"),
        Element::uid(0x0020_000D, "1.2.1"),
        Element::uid(0x0020_000E, "1.2.2"),
        Element::text(0x0028_0004, "CS", "MONOCHROME2"),
        Element::us(0x0028_0010, HEIGHT as u16),
        Element::us(0x0028_0011, WIDTH as u16),
        Element { tag: 0x7FE0_0010, value: Value::Words(vec![0; 3]) },
    ];
    elements.retain(|e| more.iter().all(|m| m.tag != e.tag));
    elements.extend(more);
    elements.sort_by_key(|e| e.tag);
    let mut file = preamble_and_meta("1.2.840.10008.5.1.4.1.1.12.1", "1.2.3", DicomObject::TRANSFER_SYNTAX);
    elements.iter().for_each(|e| e.write(Encoding::Explicit, &mut file));
    file
}

pub(super) fn report_of(film: &SourceFilm, boxes: Vec<Detection>, options: &ResultOptions) -> DicomObject {
    structured_report(film, &prediction(boxes), &algorithm(), options).unwrap()
}

fn tree(object: &DicomObject) -> ItemTree {
    parse_items(Path::new("result.dcm"), object.file().to_vec(), &Limits::default()).unwrap()
}

fn bytes(tree: &ItemTree, item: &Item, tag: Tag) -> Vec<u8> {
    let (_, range) = item.value(tag).unwrap_or_else(|| panic!("{tag} is missing"));
    tree.bytes[range].to_vec()
}

fn text(tree: &ItemTree, item: &Item, tag: Tag) -> String {
    String::from_utf8_lossy(&bytes(tree, item, tag)).trim_end_matches([' ', '\0']).to_owned()
}

/// `relationship type value-type code`, indented by depth, of a content tree.
fn outline(tree: &ItemTree, item: &Item, depth: usize, lines: &mut Vec<String>) {
    let word = |tag| item.value(tag).map(|_| text(tree, item, tag)).unwrap_or_default();
    let names = item.items(tags::CONCEPT_NAME_CODE_SEQUENCE);
    let name = names.first().map(|name| text(tree, name, tags::CODE_VALUE)).unwrap_or_default();
    let line =
        format!("{}{} {} {name}", " ".repeat(depth), word(tags::RELATIONSHIP_TYPE), word(tags::VALUE_TYPE));
    lines.push(line.trim_end().to_owned());
    item.items(tags::CONTENT_SEQUENCE).iter().for_each(|child| outline(tree, child, depth + 1, lines));
}

#[test]
fn a_report_is_a_tree_of_its_template() {
    let report = tree(&report_of(&film(), boxes()[..1].to_vec(), &ResultOptions::default()));
    let mut lines = vec![];
    outline(&report, &report.root, 0, &mut lines);
    let expected = "CONTAINER 126000
 HAS CONCEPT MOD CODE 121049
 HAS OBS CONTEXT CODE 121005
 HAS OBS CONTEXT UIDREF 121012
 HAS OBS CONTEXT TEXT 121013
 HAS OBS CONTEXT TEXT 121014
 HAS OBS CONTEXT TEXT 121015
 HAS OBS CONTEXT TEXT 121016
 HAS CONCEPT MOD CODE 121058
 CONTAINS CONTAINER 111028
  CONTAINS CONTAINER 126200
   CONTAINS IMAGE
    HAS ACQ CONTEXT CODE 121139
    HAS ACQ CONTEXT CODE 123014
    HAS ACQ CONTEXT NUM 110910
    HAS ACQ CONTEXT NUM 110911
 CONTAINS CONTAINER 126010
  HAS CONCEPT MOD TEXT 111001
  HAS CONCEPT MOD TEXT 111003
  HAS CONCEPT MOD TEXT 111002
  CONTAINS CONTAINER 125007
   HAS OBS CONTEXT TEXT 112039
   HAS OBS CONTEXT UIDREF 112040
   CONTAINS CODE 121071
   CONTAINS SCOORD 111030
    SELECTED FROM IMAGE 260753009
   HAS CONCEPT MOD CODE 363698007
   CONTAINS NUM CONFIDENCE
    HAS CONCEPT MOD TEXT 111001
    HAS CONCEPT MOD TEXT 111003
  CONTAINS NUM P_ABNORMAL
   INFERRED FROM IMAGE 121112
  CONTAINS NUM C_STAR
   INFERRED FROM IMAGE 121112
  CONTAINS NUM FINDING_COUNT
   INFERRED FROM IMAGE 121112
  CONTAINS NUM LEAST_CONFIDENCE
   INFERRED FROM IMAGE 121112
 CONTAINS CONTAINER C0034375
  CONTAINS CODE VERDICT
  CONTAINS TEXT 121106
  CONTAINS TEXT 121106";
    assert_eq!(lines.join("\n").trim_start(), expected);
    assert_eq!(text(&report, &report.root, tags::COMPLETION_FLAG), "COMPLETE");
    assert_eq!(text(&report, &report.root, tags::VERIFICATION_FLAG), "UNVERIFIED");
    let template = &report.root.items(tags::CONTENT_TEMPLATE_SEQUENCE)[0];
    assert_eq!(text(&report, template, tags::TEMPLATE_IDENTIFIER), "1500");
    let evidence = &report.root.items(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE)[0];
    let series = &evidence.items(tags::REFERENCED_SERIES_SEQUENCE)[0];
    let instance = &series.items(tags::REFERENCED_SOP_SEQUENCE)[0];
    assert_eq!(text(&report, instance, tags::REFERENCED_SOP_INSTANCE_UID), film().sop_instance_uid());
    let equipment = &report.root.items(tags::CONTRIBUTING_EQUIPMENT_SEQUENCE)[0];
    assert_eq!(text(&report, equipment, tags::DEVICE_SERIAL_NUMBER), "ab".repeat(32));
    let scheme = &report.root.items(tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE)[0];
    assert_eq!(text(&report, scheme, tags::CODING_SCHEME_DESIGNATOR), codes::PRIVATE_SCHEME);
}

#[test]
fn what_is_read_back_is_what_was_predicted() {
    let options = ResultOptions::default();
    let object = report_of(&film(), boxes(), &options);
    let report = read_report_from(Path::new("a.dcm"), object.file().to_vec(), &Limits::default()).unwrap();
    assert_eq!(
        (report.sop_instance_uid.as_str(), report.verified),
        (object.sop_instance_uid.as_str(), false)
    );
    let [read] = report.films.as_slice() else { panic!("{report:?}") };
    assert_eq!((read.sop_instance_uid.as_str(), read.frame), (film().sop_instance_uid(), 0));
    assert_eq!((read.p_abnormal, read.threshold), (Some(2.0 / 3.0), Some(0.28)));
    let mut expected = boxes();
    expected.sort_by(|a, b| b.score.total_cmp(&a.score));
    assert_eq!(read.boxes.len(), expected.len());
    for (read, b) in read.boxes.iter().zip(&expected) {
        assert_eq!(read.label, b.label.name());
        assert_eq!((read.confidence, read.xyxy), (Some(b.score), b.xyxy), "bit for bit");
    }
    let mut uids: Vec<_> = read.boxes.iter().map(|b| &b.tracking_uid).collect();
    uids.sort();
    uids.dedup();
    assert_eq!(uids.len(), expected.len(), "two boxes at one place are two findings");
}

#[test]
fn nothing_found_is_a_report_too() {
    let object = report_of(&film(), vec![], &ResultOptions::default());
    let report = read_report_from(Path::new("a.dcm"), object.file().to_vec(), &Limits::default()).unwrap();
    let [film] = report.films.as_slice() else { panic!("{report:?}") };
    assert!(film.boxes.is_empty() && film.p_abnormal.is_some());
    let text = String::from_utf8_lossy(object.file()).into_owned();
    assert!(text.contains("no finding of confidence") && text.contains(NOTICE));
    let plain = FilmPrediction { p_abnormal: None, threshold: None, ..prediction(vec![]) };
    let without = structured_report(&super::tests::film(), &plain, &algorithm(), &ResultOptions::default());
    assert!(String::from_utf8_lossy(without.unwrap().file()).contains("NOT_DECIDED"));
}

#[test]
fn boxes_below_the_least_score_are_left_out() {
    let options = ResultOptions { min_score: 0.45, ..ResultOptions::default() };
    let object = report_of(&film(), boxes(), &options);
    let report = read_report_from(Path::new("a.dcm"), object.file().to_vec(), &Limits::default()).unwrap();
    assert_eq!(report.films[0].boxes.len(), 2);
}

#[test]
fn the_same_arguments_give_the_same_bytes_and_others_other_uids() {
    let (film, by, options) = (film(), algorithm(), ResultOptions::default());
    let make = |film: &SourceFilm, by: &Algorithm, options: &ResultOptions| {
        structured_report(film, &prediction(boxes()), by, options).unwrap()
    };
    let first = make(&film, &by, &options);
    assert_eq!(first, make(&film, &by, &options));
    assert!(first.sop_instance_uid.starts_with("2.25.") && first.sop_instance_uid.len() <= 44);
    let others = [
        make(&film, &Algorithm { model_hash: "b".into(), ..by.clone() }, &options),
        make(&film, &Algorithm { config_hash: "b".into(), ..by.clone() }, &options),
        make(&film, &Algorithm { software_version: "b".into(), ..by.clone() }, &options),
        make(&film, &by, &ResultOptions { min_score: 0.2, ..options.clone() }),
        make(&film, &by, &ResultOptions { report_class: ReportClass::Comprehensive, ..options.clone() }),
        make(
            &film,
            &by,
            &ResultOptions { content_time: "2026-01-31T14:05:00".parse().ok(), ..options.clone() },
        ),
        make(&source(dx(|f| f.sop_instance_uid = "1.2.3".into())), &by, &options),
    ];
    let mut uids: Vec<_> = others.iter().chain([&first]).map(|o| &o.sop_instance_uid).collect();
    uids.sort();
    uids.dedup();
    assert_eq!(uids.len(), others.len() + 1);
    // Films of one study share a series, other models have their own.
    assert_eq!(others[6].series_uid, first.series_uid);
    assert_ne!(others[0].series_uid, first.series_uid);
    // A box keeps its tracking UID whatever the SOP class of the report.
    let tracking = |object: &DicomObject| {
        let file = object.file().to_vec();
        let report = read_report_from(Path::new("a"), file, &Limits::default()).unwrap();
        report.films[0].boxes.iter().map(|b| b.tracking_uid.clone()).collect::<Vec<_>>()
    };
    assert_eq!(tracking(&first), tracking(&others[4]));
}

#[test]
fn content_times_are_the_films_or_given_or_plainly_unknown() {
    let content = |film: &SourceFilm, options: &ResultOptions| {
        let report = tree(&report_of(film, vec![], options));
        let of = |tag| text(&report, &report.root, tag);
        (of(tags::CONTENT_DATE), of(tags::CONTENT_TIME))
    };
    let plain = ResultOptions::default();
    assert_eq!(content(&film(), &plain), ("19000101".into(), "000000".into()));
    let dated = source(dx(|f| f.study_date = "20240131".into()));
    assert_eq!(content(&dated, &plain), ("20240131".into(), "000000".into()));
    let given = ResultOptions { content_time: "2026-01-31T14:05:00".parse().ok(), ..plain };
    assert_eq!(content(&dated, &given), ("20260131".into(), "140500".into()));
}

#[test]
fn patient_and_study_are_the_films_byte_for_byte() {
    let cases: [(Option<&str>, &[u8], Option<&str>); 5] = [
        (Some("ISO_IR 100"), b"Buc^J\xE9r\xF4me", Some("ISO_IR 100")),
        (
            Some("\\ISO 2022 IR 87"),
            b"Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B",
            Some("\\ISO 2022 IR 87"),
        ),
        (Some("ISO_IR 192"), "Nguyễn^Văn A".as_bytes(), Some("ISO_IR 192")),
        (None, b"Doe^Jane", Some("ISO_IR 192")),
        (None, b"J\xE9r\xF4me", None),
    ];
    for (declared, name, expected) in cases {
        let mut more = vec![
            Element { tag: 0x0010_0010, value: Value::Coded("PN", name.to_vec()) },
            Element::text(0x0010_0020, "LO", "ID 7"),
            Element::text(0x0008_0050, "SH", "ACC"),
            Element::text(0x0010_0030, "DA", "1.1.1970"), // no date: empty in results
        ];
        more.extend(declared.map(|set| Element::text(0x0008_0005, "CS", set)));
        let film = source(bare_film(more));
        for object in [report_of(&film, boxes(), &ResultOptions::default()), capture(&film)] {
            let result = tree(&object);
            let root = &result.root;
            let stored = bytes(&result, root, tags::PATIENT_NAME);
            assert_eq!(stored.strip_suffix(b" ").unwrap_or(&stored), name);
            assert_eq!(text(&result, root, tags::PATIENT_ID), "ID 7");
            assert_eq!(text(&result, root, tags::ACCESSION_NUMBER), "ACC");
            assert!(bytes(&result, root, tags::PATIENT_BIRTH_DATE).is_empty());
            assert_eq!(text(&result, root, tags::STUDY_INSTANCE_UID), "1.2.1");
            let set = root.value(tags::SPECIFIC_CHARACTER_SET);
            let set = set.map(|_| text(&result, root, tags::SPECIFIC_CHARACTER_SET));
            assert_eq!(set.as_deref(), expected);
        }
    }
}

#[test]
fn values_of_odd_length_are_padded() {
    // An odd length is a fault of the film that readers let pass.
    let mut file = bare_film(vec![Element::text(0x0010_0020, "LO", "abcd")]);
    let at = file.windows(8).position(|w| w == b"LO\x04\x00abcd").unwrap();
    file[at + 2] = 3;
    file.remove(at + 7);
    let object = report_of(&source(file), boxes(), &ResultOptions::default());
    let result = tree(&object);
    assert_eq!(bytes(&result, &result.root, tags::PATIENT_ID), b"abc ");
    dicom_object::from_reader(object.file()).unwrap();
}

#[test]
fn films_without_patient_data_give_empty_attributes() {
    let object = report_of(&source(bare_film(vec![])), boxes(), &ResultOptions::default());
    let result = tree(&object);
    for tag in
        [tags::PATIENT_NAME, tags::PATIENT_ID, tags::PATIENT_SEX, tags::STUDY_DATE, tags::ACCESSION_NUMBER]
    {
        assert!(bytes(&result, &result.root, tag).is_empty(), "{tag}");
    }
}

#[test]
fn films_that_results_cannot_refer_to_are_refused() {
    let read = |bytes| SourceFilm::from_bytes(Path::new("film"), bytes, &Limits::default());
    let bad_uid = bare_film(vec![Element::text(0x0008_0018, "UI", "../../x")]);
    assert!(matches!(read(bad_uid), Err(ReadError::Attribute { name: "SOP Instance UID", .. })));
    let without = bare_film(vec![Element::uid(0x0020_000E, "")]);
    assert!(matches!(read(without), Err(ReadError::Attribute { name: "Series Instance UID", .. })));
    let long = bare_film(vec![Element::text(0x0010_0020, "LO", "x".repeat(5000))]);
    assert!(matches!(read(long), Err(ReadError::Attribute { .. })));
    assert!(matches!(
        read(b"\x89PNG\r\n\x1a\n....".to_vec()),
        Err(ReadError::NoDicomHeader { format: "PNG", .. })
    ));
}

#[test]
fn a_frame_is_named_where_there_are_several() {
    let many = source(bare_film(vec![Element::text(0x0028_0008, "IS", "3")]));
    let frame = |film: &SourceFilm, frame| {
        let object = report_of(film, boxes(), &ResultOptions { frame, ..ResultOptions::default() });
        read_report_from(Path::new("a"), object.into_file(), &Limits::default()).unwrap().films[0].frame
    };
    assert_eq!((frame(&many, 0), frame(&many, 2)), (0, 2));
    assert_ne!(
        report_of(&many, vec![], &ResultOptions { frame: 1, ..ResultOptions::default() }).sop_instance_uid,
        report_of(&many, vec![], &ResultOptions::default()).sop_instance_uid
    );
    let beyond = ResultOptions { frame: 3, ..ResultOptions::default() };
    let error = structured_report(&many, &prediction(vec![]), &algorithm(), &beyond);
    assert!(matches!(error, Err(WriteError::Result { field: "frame", .. })));
}

#[test]
fn what_is_no_box_on_the_film_is_refused() {
    let cases = [
        ("box", detection(Finding::Osteophytes, 0.5, [f32::NAN, 0.0, 1.0, 1.0])),
        ("box", detection(Finding::Osteophytes, 0.5, [60.0, 0.0, 70.0, 10.0])),
        ("score", detection(Finding::Osteophytes, f32::NAN, [0.0, 0.0, 1.0, 1.0])),
        ("score", detection(Finding::Osteophytes, 1.5, [0.0, 0.0, 1.0, 1.0])),
    ];
    for (expected, b) in cases {
        match structured_report(&film(), &prediction(vec![b]), &algorithm(), &ResultOptions::default()) {
            Err(WriteError::Result { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let other_size = FilmPrediction { width_px: WIDTH + 1, ..prediction(vec![]) };
    let error = structured_report(&film(), &other_size, &algorithm(), &ResultOptions::default());
    assert!(matches!(error, Err(WriteError::Result { field: "size of the prediction", .. })));
    let endless = FilmPrediction { p_abnormal: Some(f64::NAN), ..prediction(vec![]) };
    let error = structured_report(&film(), &endless, &algorithm(), &ResultOptions::default());
    assert!(matches!(error, Err(WriteError::Result { field: "p(abnormal)", .. })));
}

fn state(file: Vec<u8>, boxes: Vec<Detection>) -> Result<DicomObject, WriteError> {
    let options = ReadOptions { policy: Policy::Standard, ..ReadOptions::default() };
    let shown =
        read_stage_from(Path::new("film"), file.clone(), Stage::Display, &options).unwrap().provenance;
    presentation_state(&source(file), &prediction(boxes), &shown, &algorithm(), &ResultOptions::default())
}

#[test]
fn a_presentation_state_shows_the_film_as_it_was_shown() {
    let file = dx(|f| {
        f.windows = vec![(700.5, 900.0)];
        f.rescale = Some((0.5, -3.0));
        f.monochrome1 = true;
    });
    let object = state(file, boxes()).unwrap();
    let state = tree(&object);
    let root = &state.root;
    let voi = &root.items(tags::SOFTCOPY_VOILUT_SEQUENCE)[0];
    assert_eq!(text(&state, voi, tags::WINDOW_CENTER), "700.5");
    assert_eq!(text(&state, voi, tags::WINDOW_WIDTH), "900");
    assert_eq!(text(&state, root, tags::RESCALE_SLOPE), "0.5");
    assert_eq!(text(&state, root, tags::RESCALE_INTERCEPT), "-3");
    assert_eq!(text(&state, root, tags::PRESENTATION_LUT_SHAPE), "INVERSE");
    let annotations = root.items(tags::GRAPHIC_ANNOTATION_SEQUENCE);
    assert_eq!((annotations.len(), root.items(tags::GRAPHIC_LAYER_SEQUENCE).len()), (1, 1));
    assert_eq!(annotations[0].items(tags::GRAPHIC_OBJECT_SEQUENCE).len(), boxes().len());
    let texts = annotations[0].items(tags::TEXT_OBJECT_SEQUENCE);
    assert_eq!(texts.len(), boxes().len() + 1);
    assert_eq!(text(&state, &texts[0], tags::UNFORMATTED_TEXT_VALUE), NOTICE);
    assert_eq!(text(&state, &texts[1], tags::UNFORMATTED_TEXT_VALUE), "Vertebral collapse 0.90");
    let mut places: Vec<BoxXyxy> = vec![];
    for item in texts {
        let floats = |tag| {
            let read = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            bytes(&state, item, tag).chunks(4).map(read).collect::<Vec<_>>()
        };
        let (top_left, bottom_right) = (
            floats(tags::BOUNDING_BOX_TOP_LEFT_HAND_CORNER),
            floats(tags::BOUNDING_BOX_BOTTOM_RIGHT_HAND_CORNER),
        );
        assert!(top_left[0] >= 0.0 && top_left[1] >= 0.0);
        assert!(bottom_right[0] <= WIDTH as f32 && bottom_right[1] <= HEIGHT as f32);
        assert!(top_left[0] < bottom_right[0] && top_left[1] < bottom_right[1]);
        let place = BoxXyxy::new(top_left[0], top_left[1], bottom_right[0], bottom_right[1]);
        assert!(places.iter().all(|other| place.intersection(other) <= 0.0), "labels cover each other");
        places.push(place);
    }
    let area = &root.items(tags::DISPLAYED_AREA_SELECTION_SEQUENCE)[0];
    assert_eq!(
        bytes(&state, area, tags::DISPLAYED_AREA_BOTTOM_RIGHT_HAND_CORNER),
        [50, 0, 0, 0, 60, 0, 0, 0]
    );
    dicom_object::from_reader(object.file()).unwrap();
}

#[test]
fn a_film_without_a_window_gets_the_one_it_was_shown_with() {
    let file = dx(|f| f.window_center_raw = Some("none".into()));
    let state = tree(&state(file, vec![]).unwrap());
    let voi = &state.root.items(tags::SOFTCOPY_VOILUT_SEQUENCE)[0];
    // Values 0 to 2999.
    assert_eq!(text(&state, voi, tags::WINDOW_CENTER), "1500");
    assert_eq!(text(&state, voi, tags::WINDOW_WIDTH), "3000");
    let annotation = &state.root.items(tags::GRAPHIC_ANNOTATION_SEQUENCE)[0];
    assert!(annotation.items(tags::GRAPHIC_OBJECT_SEQUENCE).is_empty());
    let texts = annotation.items(tags::TEXT_OBJECT_SEQUENCE);
    let words: Vec<_> = texts.iter().map(|t| text(&state, t, tags::UNFORMATTED_TEXT_VALUE)).collect();
    assert_eq!(words, [NOTICE, "no finding"]);
}

#[test]
fn a_presentation_state_of_another_display_is_refused() {
    let file = dx(|_| {});
    let options = ReadOptions { policy: Policy::Vindr, ..ReadOptions::default() };
    let shown =
        read_stage_from(Path::new("film"), file.clone(), Stage::Display, &options).unwrap().provenance;
    let film = source(file);
    let error =
        presentation_state(&film, &prediction(vec![]), &shown, &algorithm(), &ResultOptions::default());
    assert!(matches!(error, Err(WriteError::Result { field: "provenance", .. })));
}

fn capture(film: &SourceFilm) -> DicomObject {
    let picture = image::RgbImage::from_fn(7, 5, |x, y| image::Rgb([x as u8, y as u8, 9]));
    secondary_capture(film, &prediction(boxes()), &picture, &algorithm(), &ResultOptions::default()).unwrap()
}

#[test]
fn a_secondary_capture_holds_the_picture() {
    let object = capture(&film());
    let capture = tree(&object);
    let root = &capture.root;
    assert_eq!(text(&capture, root, tags::PHOTOMETRIC_INTERPRETATION), "RGB");
    assert_eq!(text(&capture, root, tags::BURNED_IN_ANNOTATION), "YES");
    assert_eq!(text(&capture, root, tags::IMAGE_COMMENTS), NOTICE);
    let pixels = bytes(&capture, root, tags::PIXEL_DATA);
    assert_eq!(pixels.len(), 7 * 5 * 3 + 1, "padded to even length");
    assert_eq!(pixels[3 * (7 * 2 + 4)..][..3], [4, 2, 9]);
    let parsed = dicom_object::from_reader(object.file()).unwrap();
    assert_eq!(parsed.meta().media_storage_sop_instance_uid(), object.sop_instance_uid);
    assert!(object.file().ends_with(object.data_set()));
    assert_eq!(object.data_set()[..4], [8, 0, 5, 0], "the data set begins with its character set");
    let empty = image::RgbImage::new(0, 5);
    let error =
        secondary_capture(&film(), &prediction(vec![]), &empty, &algorithm(), &ResultOptions::default());
    assert!(matches!(error, Err(WriteError::Result { field: "size of the picture", .. })));
}
