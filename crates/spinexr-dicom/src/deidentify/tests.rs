use super::*;
use crate::{DxFilm, DxSyntax, ReadOptions, Stage, StageData, encode_dx, read_stage_from};
use dicom_core::dictionary::VirtualVr;

/// What must not be found in any output.
const PLANT: &[u8] = b"PLANTED";
const PLANTED_UID: &str = "1.2.826.0.1.999999.77";

const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
const EXPLICIT_BE: &str = "1.2.840.10008.1.2.2";
const DX: &str = "1.2.840.10008.5.1.4.1.1.1.1";

fn key() -> Key {
    Key::new(&[7; 32]).unwrap()
}

fn new(tag: Tag, vr: VR, bytes: &[u8]) -> Element {
    Element { tag, vr, value: Value::New(bytes.to_vec()) }
}

fn text(tag: Tag, vr: VR, text: &str) -> Element {
    new(tag, vr, text.as_bytes())
}

fn sequence(tag: Tag, items: Vec<Elements>) -> Element {
    Element { tag, vr: VR::SQ, value: Value::Items(items) }
}

fn vr_of(tag: Tag) -> VR {
    match StandardDataDictionary.by_tag(tag).map(|entry| entry.vr()) {
        Some(VirtualVr::Exact(vr)) => vr,
        Some(other) => other.relaxed(),
        None => VR::LO,
    }
}

/// The planted string under any VR, true to it or not: what stands in a file is not always what should.
fn planted(tag: Tag, n: usize) -> Element {
    let vr = vr_of(tag);
    match vr {
        VR::SQ => sequence(tag, vec![vec![text(Tag(0x0008, 0x0080), VR::LO, &format!("PLANTED{n}"))]]),
        VR::UI => text(tag, vr, &format!("{PLANTED_UID}.{n}")),
        _ => text(tag, vr, &format!("PLANTED{n}")),
    }
}

/// Every attribute of the table, private blocks, unknown attributes, curves and overlays.
fn full_of_plants() -> Elements {
    let mut elements: Elements = profile::rows()
        .filter(|(tag, _)| tag.group() >= 8)
        .zip(0..)
        .map(|((tag, _), n)| planted(tag, n))
        .collect();
    for group in [0x0009, 0x0011, 0x0019, 0x7001] {
        elements.push(text(Tag(group, 0x0010), VR::LO, "PLANTED CREATOR"));
        elements.push(text(Tag(group, 0x1001), VR::UN, "PLANTED private"));
        let nested = vec![text(Tag(0x0010, 0x0010), VR::PN, "PLANTED^NESTED")];
        elements.push(sequence(Tag(group, 0x1002), vec![nested]));
    }
    for group in [0x5000, 0x5002, 0x6000, 0x601E] {
        elements.push(text(Tag(group, 0x3000), VR::OW, "PLANTED!"));
        elements.push(text(Tag(group, 0x4000), VR::LT, "PLANTED comment"));
        elements.push(text(Tag(group, 0x0022), VR::LO, "PLANTED label"));
    }
    elements.push(text(Tag(0x0018, 0xFFF0), VR::LO, "PLANTED in an attribute nobody knows"));
    elements.push(text(Tag(0x7F00, 0x0010), VR::OW, "PLANTED!"));
    // A sequence whose VR was lost on the way: opaque bytes with a name in them.
    let item = b"\xfe\xff\x00\xe0\x10\0\0\0\x10\0\x10\0\x08\0\0\0PLANTED^";
    elements.push(new(Tag(0x0008, 0x2228), VR::UN, item));
    // Attributes that the profile leaves alone, with the patient's name and id in them.
    elements.push(text(Tag(0x0028, 0x1055), VR::LO, "window for Hansen"));
    elements.push(text(Tag(0x0008, 0x2111), VR::ST, "id 1047110 (PLANTED)"));
    elements
}

/// A 12 × 10 film of the given elements and the image's own; tags in order, the first of each counts.
fn file_of(uid: &str, mut elements: Elements) -> Vec<u8> {
    let word = |tag, value: u16| {
        let bytes = if uid == EXPLICIT_BE { value.to_be_bytes() } else { value.to_le_bytes() };
        new(tag, VR::US, &bytes)
    };
    let pixels: Vec<u8> = (0..120u16)
        .flat_map(|v| if uid == EXPLICIT_BE { (v * 30).to_be_bytes() } else { (v * 30).to_le_bytes() })
        .collect();
    let mut file = Elements::from([
        text(tags::SOP_CLASS_UID, VR::UI, DX),
        text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100"),
        text(tags::MODALITY, VR::CS, "DX"),
        word(tags::SAMPLES_PER_PIXEL, 1),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        word(tags::ROWS, 10),
        word(tags::COLUMNS, 12),
        word(tags::BITS_ALLOCATED, 16),
        word(tags::BITS_STORED, 12),
        word(tags::HIGH_BIT, 11),
        word(tags::PIXEL_REPRESENTATION, 0),
        new(tags::PIXEL_DATA, VR::OW, &pixels),
        text(Tag(0x0010, 0x0010), VR::PN, "Hansen^PLANTED"),
        text(Tag(0x0010, 0x0020), VR::LO, "1047110"),
    ]);
    file.append(&mut elements);
    file.sort_by_key(|element| element.tag);
    file.dedup_by_key(|element| element.tag);
    let mut meta = Vec::new();
    let explicit = Encoder { bytes: &[], explicit: true, big_endian: false };
    explicit.elements(
        &vec![
            text(Tag(2, 0x0003), VR::UI, &format!("{PLANTED_UID}.9999")),
            text(Tag(2, 0x0010), VR::UI, uid),
            text(Tag(2, 0x0016), VR::AE, "PLANTED AE"),
            text(Tag(2, 0x0100), VR::UI, PLANTED_UID),
            new(Tag(2, 0x0102), VR::OB, b"PLANTED!"),
        ],
        &mut meta,
    );
    let mut out = b"PLANTED in the preamble ".to_vec();
    out.resize(128, b'!');
    out.extend_from_slice(b"DICM");
    out.extend(meta);
    let encoder = Encoder { bytes: &[], explicit: uid != IMPLICIT_LE, big_endian: uid == EXPLICIT_BE };
    encoder.elements(&file, &mut out);
    out
}

fn run(file: Vec<u8>, options: &DeidentifyOptions) -> Deidentified {
    deidentify(Path::new("a.dcm"), file, options, &key()).unwrap()
}

fn parse(bytes: &[u8]) -> Tree {
    Tree::parse(Path::new("out.dcm"), bytes.to_vec(), &Limits::default()).unwrap()
}

fn stored(bytes: Vec<u8>) -> Vec<i32> {
    match read_stage_from(Path::new("a.dcm"), bytes, Stage::Stored, &ReadOptions::default()).unwrap().data {
        StageData::I32(values) => values,
        other => panic!("{other:?}"),
    }
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window.eq_ignore_ascii_case(what))
}

#[test]
fn nothing_that_was_planted_is_left_in_any_encoding_or_depth() {
    for uid in [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE] {
        let mut elements = full_of_plants();
        // The same once more inside sequences that stay.
        let inner = vec![sequence(Tag(0x0008, 0x2229), vec![full_of_plants(), full_of_plants()])];
        elements.push(sequence(Tag(0x0008, 0x2218), vec![inner]));
        let file = file_of(uid, elements);
        assert!(holds(&file, PLANT) && file.len() > 30_000);
        let out = run(file, &DeidentifyOptions::default());
        for what in [PLANT, PLANTED_UID.as_bytes(), b"Hansen", b"1047110"] {
            let at = out.bytes.windows(what.len()).position(|window| window == what);
            let around = at.map(|at| String::from_utf8_lossy(&out.bytes[at.saturating_sub(12)..at + 12]));
            assert!(!holds(&out.bytes, what), "{uid}: {}: {around:?}", String::from_utf8_lossy(what));
        }
        let expected: Vec<i32> = (0..120).map(|v| v * 30).collect();
        assert_eq!(stored(out.bytes.clone()), expected, "{uid}");
        let tree = parse(&out.bytes);
        assert_eq!(tree.syntax.uid, uid);
        // The kept sequence is still there, with its two items.
        assert!(
            matches!(&tree.find(Tag(0x0008, 0x2218)).unwrap().value, Value::Items(items) if items.len() == 1)
        );
        let report = out.report;
        assert!(report.removed > 300 && report.replaced > 150 && report.uids > 50 && report.private >= 12);
        assert!(report.leftovers.contains("(0028,1055)") && report.leftovers.contains("(0018,FFF0)"));
        // Without VRs in the file, the dictionary's is right.
        assert_eq!(report.leftovers.contains("(0008,2228)"), uid != IMPLICIT_LE);
    }
}

#[test]
fn with_every_option_names_ids_and_private_attributes_still_go() {
    let retain =
        Retain { uids: true, device: true, institution: true, characteristics: true, dates: Dates::Keep };
    let out =
        run(file_of(EXPLICIT_LE, full_of_plants()), &DeidentifyOptions { retain, ..Default::default() });
    let tree = parse(&out.bytes);
    assert!(tree.elements.iter().all(|element| element.tag.group() % 2 == 0));
    for tag in [Tag(0x0008, 0x0050), Tag(0x0008, 0x0090), Tag(0x0010, 0x0030)] {
        assert_eq!(tree.text(tag), None, "{tag}");
    }
    assert!(tree.text(Tag(0x0010, 0x0010)).unwrap().starts_with("SX"));
    assert!(tree.text(Tag(0x0020, 0x000D)).unwrap().starts_with(PLANTED_UID));
    assert!(tree.find(Tag(0x0010, 0x1040)).is_none(), "an address is kept by no option");
}

#[test]
fn what_was_done_stands_in_the_file() {
    let codes = |retain: Retain, mask: Vec<MaskRect>| {
        let out =
            run(file_of(EXPLICIT_LE, vec![]), &DeidentifyOptions { retain, mask, ..Default::default() });
        let tree = parse(&out.bytes);
        let Value::Items(items) = &tree.find(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE).unwrap().value
        else {
            panic!("no sequence")
        };
        let codes: Vec<String> = items
            .iter()
            .map(|item| String::from_utf8_lossy(tree.value(&item[0])).trim().to_owned())
            .collect();
        assert_eq!(tree.text(tags::PATIENT_IDENTITY_REMOVED).as_deref(), Some("YES"));
        assert!(tree.text(tags::DEIDENTIFICATION_METHOD).unwrap().contains("PS3.15 2024b"));
        (
            codes,
            tree.text(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED).unwrap(),
            tree.text(tags::BURNED_IN_ANNOTATION),
        )
    };
    let basic = Retain::default();
    assert_eq!(codes(basic, vec![]), (vec!["113100".into()], "REMOVED".into(), None));
    let (list, temporal, _) = codes(Retain { dates: Dates::Keep, uids: true, ..basic }, vec![]);
    assert_eq!((list, &*temporal), (vec!["113100".into(), "113106".into(), "113110".into()], "UNMODIFIED"));
    let all =
        Retain { uids: false, device: true, institution: true, characteristics: true, dates: Dates::Shift };
    let (list, temporal, burned) = codes(all, vec![MaskRect { x0: 0, y0: 0, x1: 1, y1: 1 }]);
    assert_eq!(list, ["113100", "113101", "113107", "113108", "113109", "113112"]);
    assert_eq!((&*temporal, burned.as_deref()), ("MODIFIED", Some("NO")));
}

#[test]
fn films_of_a_study_and_a_patient_stay_together_under_one_key() {
    let film = |image: &str| {
        file_of(
            EXPLICIT_LE,
            vec![
                text(tags::SOP_INSTANCE_UID, VR::UI, image),
                text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3"),
                text(Tag(0x0008, 0x1155), VR::UI, "1.2.3.9"),
                text(tags::STUDY_DATE, VR::DA, "20200301"),
                text(tags::STUDY_TIME, VR::TM, "101112"),
                text(Tag(0x0008, 0x002A), VR::DT, "20200302101112"),
                text(Tag(0x0008, 0x0022), VR::DA, "Hansen"),
            ],
        )
    };
    let options = DeidentifyOptions {
        retain: Retain { dates: Dates::Shift, ..Retain::default() },
        ..DeidentifyOptions::default()
    };
    let (a, b) = (run(film("1.2.3.4"), &options), run(film("1.2.3.5"), &options));
    assert!(a.bytes == run(film("1.2.3.4"), &options).bytes);
    assert_ne!(a.image_id, b.image_id);
    assert_eq!(a.study_uid, b.study_uid);
    let (ta, tb) = (parse(&a.bytes), parse(&b.bytes));
    assert_eq!(ta.text(tags::STUDY_INSTANCE_UID).as_ref(), Some(&a.study_uid));
    for tag in [tags::PATIENT_ID, tags::PATIENT_NAME, tags::STUDY_INSTANCE_UID, tags::STUDY_DATE] {
        assert!(ta.text(tag).is_some() && ta.text(tag) == tb.text(tag), "{tag}");
    }
    let date: i64 = ta.text(tags::STUDY_DATE).unwrap().parse().unwrap();
    assert!((20_090_101..20_200_301).contains(&date), "{date}");
    assert_eq!(ta.text(tags::STUDY_TIME).as_deref(), Some("101112"));
    let next: i64 = ta.text(Tag(0x0008, 0x002A)).unwrap()[..8].parse().unwrap();
    assert!(next > date, "one day later than {date}: {next}");
    // What is no date goes, as without the option.
    assert_eq!(ta.text(Tag(0x0008, 0x0022)), None);

    let other = deidentify(Path::new("a"), film("1.2.3.4"), &options, &Key::new(&[8; 32]).unwrap()).unwrap();
    assert_ne!(other.study_uid, a.study_uid);
    // The file meta information names the same instance.
    let meta = String::from_utf8_lossy(&a.bytes[..400]).into_owned();
    assert!(meta.contains(&ta.text(tags::SOP_INSTANCE_UID).unwrap()));
}

#[test]
fn pixels_stay_bit_for_bit_in_every_coding() {
    for syntax in DxSyntax::ALL {
        let film = DxFilm { transfer_syntax: syntax, ..DxFilm::new(9, 8, (0..72).map(|v| v * 50).collect()) };
        let file = encode_dx(&film);
        let out = run(file.clone(), &DeidentifyOptions::default());
        assert_eq!(stored(out.bytes.clone()), stored(file.clone()), "{syntax:?}");
        let (before, after) = (parse(&file), parse(&out.bytes));
        let pixels = |tree: &Tree| match &tree.find(tags::PIXEL_DATA).unwrap().value {
            Value::Kept(range) => tree.bytes[range.clone()].to_vec(),
            Value::Fragments(ranges) => ranges.iter().flat_map(|r| tree.bytes[r.clone()].to_vec()).collect(),
            _ => panic!("no pixels"),
        };
        assert_eq!(pixels(&before), pixels(&after), "{syntax:?}");
        assert_eq!(after.syntax.uid, syntax.uid());
    }
}

#[test]
fn rectangles_become_black_and_nothing_else_changes() {
    let rect = MaskRect { x0: 2, y0: 1, x1: 5, y1: 99 };
    for (syntax, monochrome1) in DxSyntax::ALL.into_iter().flat_map(|s| [(s, false), (s, true)]) {
        let pixels: Vec<u16> = (0..72).map(|v| v * 50 + 1).collect();
        let film = DxFilm { transfer_syntax: syntax, monochrome1, ..DxFilm::new(9, 8, pixels.clone()) };
        let options = DeidentifyOptions { mask: vec![rect], ..DeidentifyOptions::default() };
        let out = run(encode_dx(&film), &options);
        let black = if monochrome1 { 4095 } else { 0 };
        let expected: Vec<i32> = pixels
            .iter()
            .enumerate()
            .map(|(i, &v)| if (2..5).contains(&(i % 8)) && i / 8 >= 1 { black } else { i32::from(v) })
            .collect();
        assert_eq!(stored(out.bytes.clone()), expected, "{syntax:?} {monochrome1}");
        let is_compressed = matches!(syntax, DxSyntax::RleLossless | DxSyntax::JpegLossless);
        assert_eq!(out.report.notes.len(), usize::from(is_compressed), "{:?}", out.report.notes);
        let uid = parse(&out.bytes).syntax.uid;
        assert_eq!(uid, if is_compressed { EXPLICIT_LE } else { syntax.uid() });
    }
}

#[test]
fn overlays_in_unused_bits_of_the_pixels_are_cleared() {
    let word = |tag, value: u16| new(tag, VR::US, &value.to_le_bytes());
    let pixels: Vec<u8> = (0..120u16).flat_map(|v| ((v * 30) | 0x8000 | 0x4000).to_le_bytes()).collect();
    let file = file_of(
        EXPLICIT_LE,
        vec![word(Tag(0x6000, 0x0100), 16), word(Tag(0x6000, 0x0102), 15), word(Tag(0x6002, 0x0102), 3)],
    );
    // The pixels of `file_of` with bits 14 and 15 set.
    let at = file.len() - 240;
    let file = [&file[..at], &pixels].concat();
    let out = run(file, &DeidentifyOptions::default());
    assert_eq!(out.report.notes.len(), 1);
    let expected: Vec<u8> = (0..120u16).flat_map(|v| ((v * 30) | 0x4000).to_le_bytes()).collect();
    assert!(out.bytes.ends_with(&expected), "only the overlay's own bit goes");
}

#[test]
fn text_in_the_pixels_is_warned_about() {
    let with = |value: &str, mask: Vec<MaskRect>| {
        let file = file_of(EXPLICIT_LE, vec![text(tags::BURNED_IN_ANNOTATION, VR::CS, value)]);
        run(file, &DeidentifyOptions { mask, ..DeidentifyOptions::default() }).report.warnings
    };
    assert!(with("YES", vec![])[0].contains("is YES"));
    assert!(with("", vec![])[0].contains("does not say"));
    assert!(with("NO", vec![]).is_empty());
    assert!(with("YES", vec![MaskRect { x0: 0, y0: 0, x1: 3, y1: 3 }]).is_empty());
}

#[test]
fn what_is_no_image_is_refused() {
    let file = file_of(EXPLICIT_LE, vec![]);
    let mut tree = parse(&file);
    tree.elements.retain(|element| element.tag != tags::PIXEL_DATA);
    let report = [&file[..132], &tree.encode()].concat();
    let refused = deidentify(Path::new("sr.dcm"), report, &DeidentifyOptions::default(), &key());
    assert!(matches!(refused, Err(ReadError::NoPixelData { .. })));
    let cut = deidentify(
        Path::new("cut.dcm"),
        file[..file.len() - 9].to_vec(),
        &DeidentifyOptions::default(),
        &key(),
    );
    assert!(matches!(cut, Err(ReadError::Parse { .. })));
}

#[test]
fn garbage_after_the_pixels_is_left_out() {
    let file =
        [file_of(EXPLICIT_LE, vec![]), b"\xfc\xff\xfc\xffOB\0\0\xff\xff\xff\x7fPLANTED".to_vec()].concat();
    let out = run(file, &DeidentifyOptions::default());
    assert!(!holds(&out.bytes, PLANT));
    assert!(out.report.notes[0].contains("left out"));
    assert_eq!(stored(out.bytes).len(), 120);
}
