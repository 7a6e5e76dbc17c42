//! Reports that are broken, by accident or on purpose: each gives its own error, none a panic.

use super::tests::{boxes, film, report_of};
use super::*;
use crate::write::element::{Element, Encoding};
use crate::write::header::preamble_and_meta;
use crate::{Limits, ReadError};
use proptest::prelude::*;
use std::path::Path;

fn read(bytes: Vec<u8>) -> Result<Report, ReadError> {
    read_report_from(Path::new("report.dcm"), bytes, &Limits::default())
}

fn good() -> Vec<u8> {
    report_of(&film(), boxes(), &ResultOptions::default()).into_file()
}

/// The report with the first `from` in it made `to`, of the same length.
fn with(from: &[u8], to: &[u8]) -> Vec<u8> {
    with_nth(0, from, to)
}

/// The report with the `from` after `n` others made `to`.
fn with_nth(n: usize, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = good();
    let mut places = bytes.windows(from.len()).enumerate().filter(|(_, w)| *w == from);
    let (at, _) = places.nth(n).expect("there to be changed");
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn what_is_missing_or_wrong_is_said_with_its_place() {
    let first_box = "1.10.4";
    let cases: [(&str, Vec<u8>, &str, &str); 12] = [
        ("another report", with(b"126000", b"126001"), "1", "126000"),
        ("no tracking identifier", with(b"112039", b"112038"), first_box, "Tracking Identifier"),
        ("no tracking UID", with(b"112040", b"112041"), first_box, "Tracking Unique Identifier"),
        ("no finding", with(b"121071", b"121072"), first_box, "Finding"),
        ("no region", with(b"SCOORD", b"TCOORD"), first_box, "one SCOORD"),
        ("a circle", with(b"POLYLINE", b"CIRCLE  "), "1.10.4.4", "POLYLINE"),
        ("points of another VR", with(b"\x70\x00\x22\x00FL", b"\x70\x00\x22\x00UL"), "1.10.4.4", "VR FL"),
        (
            "a UID of another VR",
            with_nth(1, b"\x40\x00\x24\xA1UI", b"\x40\x00\x24\xA1LO"),
            "1.10.4.2",
            "a UID",
        ),
        (
            "no image",
            with(
                b"SELECTED FROM \x40\x00\x40\xA0CS\x06\x00IMAGE ",
                b"SELECTED FROM \x40\x00\x40\xA0CS\x06\x00IMAGO ",
            ),
            "1.10.4.4",
            "one IMAGE",
        ),
        ("a confidence above 1", with(b"DS\x04\x000.9 ", b"DS\x04\x003.9 "), first_box, "0 to 1"),
        ("no number", with(b"DS\x04\x000.9 ", b"DS\x04\x00none"), "1.10.4.6", "finite number"),
        ("a box with no corner", with(&7.7f32.to_le_bytes(), &f32::NAN.to_le_bytes()), "1.10.4.4", "finite"),
    ];
    for (name, bytes, place, words) in cases {
        match read(bytes) {
            Err(ReadError::Report { item, expected, .. }) => {
                assert_eq!(item, place, "{name}: {expected}");
                assert!(expected.contains(words), "{name}: {expected}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_tracking_uid_is_a_uid_and_may_be_there_once() {
    let report = read(good()).unwrap();
    let uids: Vec<&str> = report.films[0].boxes.iter().map(|b| b.tracking_uid.as_str()).collect();
    let path_trick = "../".repeat(uids[0].len()).into_bytes();
    let error = read(with(uids[0].as_bytes(), &path_trick[..uids[0].len()]));
    assert!(matches!(error, Err(ReadError::Report { item, .. }) if item == "1.10.4.2"));
    let pairs = uids.iter().enumerate().flat_map(|(n, a)| uids[n + 1..].iter().map(move |b| (a, b)));
    let (first, second) = pairs.into_iter().find(|(a, b)| a.len() == b.len()).expect("two of one length");
    match read(with(second.as_bytes(), first.as_bytes())) {
        Err(ReadError::Report { expected, .. }) => assert!(expected.contains("of its own"), "{expected}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_corrected_report_is_read() {
    // A reader moves a corner, renames the class and verifies; the confidence is gone.
    let mut bytes = with(b"UNVERIFIED", b"VERIFIED  ");
    let mut replace = |from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|w| w == from).expect("there to be changed");
        bytes[at..at + to.len()].copy_from_slice(to);
    };
    replace(b"42942008", b"88998003");
    replace(b"CONFIDENCE", b"CONFIDENZ ");
    replace(&9.9f32.to_le_bytes(), &19.5f32.to_le_bytes());
    let report = read(bytes).unwrap();
    assert!(report.verified);
    let corrected = &report.films[0].boxes[0];
    assert_eq!((corrected.label.as_str(), corrected.confidence), ("Osteophytes", None));
    assert_eq!(corrected.xyxy.x2, 19.5);
}

#[test]
fn nesting_is_bounded() {
    let mut nested = vec![Element::text(0x0040_A040, "CS", "TEXT")];
    for _ in 0..200 {
        nested = vec![Element::sequence(0x0040_A730, vec![nested])];
    }
    let mut file = preamble_and_meta("1.2", "1.3", DicomObject::TRANSFER_SYNTAX);
    nested[0].write(Encoding::Explicit, &mut file);
    assert!(matches!(read(file), Err(ReadError::TooLarge { what: "the nesting of sequences", .. })));
    // Two hundred thousand open sequences of undefined length in a file of a few megabytes.
    let mut file = preamble_and_meta("1.2", "1.3", DicomObject::TRANSFER_SYNTAX);
    for _ in 0..200_000 {
        file.extend_from_slice(b"\x40\x00\x30\xA7SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF");
    }
    assert!(matches!(read(file), Err(ReadError::TooLarge { .. })));
}

#[test]
fn the_number_of_elements_is_bounded() {
    let mut file = preamble_and_meta("1.2", "1.3", DicomObject::TRANSFER_SYNTAX);
    file.extend_from_slice(b"\x40\x00\x30\xA7SQ\0\0\xFF\xFF\xFF\xFF");
    for _ in 0..600_000 {
        file.extend_from_slice(b"\xFE\xFF\x00\xE0\0\0\0\0");
    }
    assert!(matches!(read(file), Err(ReadError::TooLarge { what: "the number of elements", .. })));
}

#[test]
fn films_and_other_files_are_no_reports() {
    let film = crate::encode_dx(&crate::DxFilm::new(2, 2, vec![0; 4]));
    assert!(matches!(read(film), Err(ReadError::Report { .. })));
    assert!(read(b"\x89PNG\r\n\x1a\n....".to_vec()).is_err());
    assert!(read(vec![]).is_err());
    let small = Limits { max_file_bytes: 100, ..Limits::default() };
    let error = read_report_from(Path::new("a"), good(), &small);
    assert!(matches!(error, Err(ReadError::TooLarge { what: "the file in bytes", .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Cut anywhere, or with some bytes changed, a report is read or refused.
    #[test]
    fn damage_never_panics(cut in 0usize..20_000, places in prop::collection::vec((0usize..20_000, any::<u8>()), 0..6)) {
        let mut bytes = good();
        for (place, byte) in places {
            let at = place % bytes.len();
            bytes[at] = byte;
        }
        if cut < bytes.len() {
            bytes.truncate(cut);
        }
        let _ = read(bytes);
    }
}
