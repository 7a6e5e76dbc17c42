use super::*;
use crate::vindr;
use spinexr_core::hex;
use spinexr_core::progress::silent;
use spinexr_dicom::{DxFilm, write_dx};
use std::fs;

const HEADER: &str = "study_id,series_id,image_id,rad_id,lesion_type,xmin,ymin,xmax,ymax\n";

/// A data set of 40 × 30 px films, each with pixels of its own, that `change` may alter before it is written.
fn data_set(rows: [(&str, &str); 2], change: impl Fn(&str, &mut DxFilm)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (split, rows) in rows {
        fs::create_dir_all(dir.path().join("annotations")).unwrap();
        fs::write(dir.path().join(format!("annotations/{split}.csv")), format!("{HEADER}{rows}")).unwrap();
        for (i, row) in rows.lines().enumerate() {
            let cells: Vec<&str> = row.split(',').collect();
            let seed = split.len() * 1000 + i * 7;
            let mut film = DxFilm::new(30, 40, (0..1200).map(|p| ((p * 3 + seed) % 4096) as u16).collect());
            film.patient_id = format!("patient of {}", cells[0]);
            change(cells[2], &mut film);
            write_dx(&dir.path().join(format!("{split}_images/{}.dicom", cells[2])), &film).unwrap();
        }
    }
    dir
}

const SOUND: [(&str, &str); 2] = [
    ("train", "s1,e,a,r,Osteophytes,1,2,20,25\ns2,e,b,r,No finding,,,,\ns3,e,c,r,No finding,,,,\n"),
    ("test", "s4,e,d,r,Surgical implant,3,3,9,9\ns5,e,f,r,No finding,,,,\n"),
];

fn report_at(dir: &Path, depth: Depth) -> CheckReport {
    let (mut dataset, broken) = vindr::read_and_collect(dir, &VindrOptions::new()).unwrap();
    check(dir, &mut dataset, &broken, depth, &ReadOptions::default(), 2, &silent).unwrap()
}

fn report(dir: &Path) -> CheckReport {
    report_at(dir, Depth::Pixels)
}

/// The places of one kind of issue, and nothing else is a fault.
fn only_fault(report: &CheckReport, kind: IssueKind) -> Vec<String> {
    let others: Vec<_> = report.issues.iter().filter(|i| i.kind.is_fault() && i.kind != kind).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(!report.is_sound());
    report.of(kind).map(|issue| format!("{}: {}", issue.place, issue.detail)).collect()
}

#[test]
fn a_sound_data_set_has_no_issue() {
    let dir = data_set(SOUND, |_, _| {});
    let report = report(dir.path());
    assert_eq!(report.issues, []);
    assert_eq!((report.films, report.headers_read, report.decoded, report.patients), (5, 5, 5, 5));
    assert!(report.is_sound() && report.checksum_list.is_none());
}

#[test]
fn kinds_are_listed_in_the_order_that_parts_faults_from_the_rest() {
    assert!(IssueKind::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    let faults = IssueKind::ALL.iter().take_while(|kind| kind.is_fault()).count();
    assert_eq!(faults, IssueKind::ALL.iter().filter(|kind| kind.is_fault()).count());
}

#[test]
fn the_same_pixels_in_two_splits_are_leakage_and_in_one_are_told() {
    let constant = |image: &str, film: &mut DxFilm| {
        if matches!(image, "a" | "b" | "d") {
            film.pixels = (0..1200).collect();
        }
    };
    let across = report(data_set(SOUND, constant).path());
    let found = only_fault(&across, IssueKind::PixelsInTwoSplits);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("film `a` (train): has the pixels of `b` (train), `d` (test)"), "{found:?}");

    let within = report(
        data_set(SOUND, |image, film| {
            if matches!(image, "a" | "b") {
                film.pixels = (0..1200).collect();
            }
        })
        .path(),
    );
    assert!(within.is_sound());
    assert_eq!(within.of(IssueKind::PixelsTwice).len(), 1);
}

#[test]
fn a_study_and_a_patient_in_two_splits_are_named_without_the_patient() {
    let rows = [SOUND[0], ("test", "s1,e,d,r,No finding,,,,\ns5,e,f,r,No finding,,,,\n")];
    let dir = data_set(rows, |image, film| film.patient_id = format!("SECRET{image}"));
    let found = only_fault(&report(dir.path()), IssueKind::StudyInTwoSplits);
    assert_eq!(found, ["study `s1`: in train (film `a`) and in test (film `d`)"]);

    let dir = data_set(SOUND, |image, film| {
        if matches!(image, "b" | "f") {
            film.patient_id = "SECRET".into();
        }
    });
    let found = only_fault(&report_at(dir.path(), Depth::Headers), IssueKind::PatientInTwoSplits);
    assert_eq!(found, ["the patient of film `b`: in train (film `b`) and in test (film `f`)"]);

    // Another study id in the annotations, the same UID in the headers.
    let dir = data_set(SOUND, |image, film| {
        if matches!(image, "b" | "f") {
            film.study_uid = "1.2.3".into();
        }
    });
    assert_eq!(only_fault(&report(dir.path()), IssueKind::StudyUidInTwoSplits).len(), 1);
}

#[test]
fn an_id_that_most_studies_share_is_no_patient() {
    let dir = data_set(SOUND, |image, film| {
        film.patient_id = if image == "a" { "P1".into() } else { "ANONYMOUS".into() };
    });
    let report = report(dir.path());
    assert!(report.is_sound(), "{:?}", report.issues);
    assert_eq!((report.patients, report.films_without_patient), (1, 4));
}

#[test]
fn checksums_are_compared_and_what_the_list_lacks_is_told() {
    let dir = data_set(SOUND, |_, _| {});
    let sum = |name: &str| hex(&Sha256::digest(fs::read(dir.path().join(name)).unwrap()));
    let names =
        ["annotations/train.csv", "train_images/a.dicom", "train_images/b.dicom", "test_images/d.dicom"];
    let mut list: String = names.iter().map(|name| format!("{}  {name}\n", sum(name))).collect();
    list.push_str(&format!(
        "{}  test_images/f.dicom\n{}  LICENSE.txt\nnonsense\n",
        "00".repeat(32),
        "11".repeat(32)
    ));
    fs::write(dir.path().join("SHA256SUMS.txt"), list).unwrap();
    let report = report(dir.path());
    assert_eq!(report.checksums_right, 4);
    let one = |kind: IssueKind, part: &str| {
        assert_eq!(report.of(kind).len(), 1, "{kind:?}");
        let issue = report.of(kind).next().unwrap();
        assert!(issue.place.contains(part), "{issue:?}");
    };
    one(IssueKind::ChecksumDiffers, "f.dicom");
    one(IssueKind::ChecksumFileMissing, "LICENSE.txt");
    one(IssueKind::ChecksumLineBroken, "SHA256SUMS.txt:7");
    one(IssueKind::NotInChecksums, "c.dicom");
    assert!(!report.is_sound());
    assert_eq!(report_at(dir.path(), Depth::Headers).checksum_list, None);
}

#[test]
fn broken_films_are_listed_and_the_rest_goes_on() {
    let dir = data_set(SOUND, |_, _| {});
    let a = dir.path().join("train_images/a.dicom");
    let bytes = fs::read(&a).unwrap();
    fs::write(&a, &bytes[..bytes.len() - 700]).unwrap();
    fs::write(dir.path().join("test_images/d.dicom"), "no film").unwrap();
    let report = report(dir.path());
    let found = only_fault(&report, IssueKind::FilmUnreadable);
    assert_eq!(found.len(), 2);
    assert!(found[1].contains("a.dicom") && found[0].contains("d.dicom"), "{found:?}");
    // The header of the torn film still tells study and patient.
    assert_eq!((report.headers_read, report.decoded), (4, 3));
}

#[test]
fn boxes_rows_and_headers_are_listed_with_their_place() {
    let rows = [
        (
            "train",
            "s1,e,a,r,Osteophytes,-1,2,20,25\ns1,e,a,r,Osteophytes,5,5,60,25\ns1,e,a,r,Osteophytes,50,5,60,25\n\
             s1,e,a,r,Osteophytes,5,5,60,25\ns1,e,a,r,Osteophytes,5,5,5,25\ns2,e,b,r,Nonsense,1,2,3,4\n",
        ),
        ("test", "s4,e,d,r,No finding,,,,\n"),
    ];
    let dir = data_set(rows, |image, film| {
        if image == "d" {
            film.pixel_spacing_mm = [0.0, 0.1];
        }
    });
    fs::remove_file(dir.path().join("test_images/d.dicom")).unwrap();
    fs::write(dir.path().join("test_images/stray.png"), "x").unwrap();
    let report = report(dir.path());
    let places = |kind| report.of(kind).map(|i| i.place.clone()).collect::<Vec<_>>();
    let csv = dir.path().join("annotations/train.csv");
    assert_eq!(places(IssueKind::BrokenRow), [format!("{}:7", csv.display())]);
    assert_eq!(places(IssueKind::RowRepeated), [format!("{}:5", csv.display())]);
    assert_eq!(places(IssueKind::BoxThin), [format!("{}:6", csv.display())]);
    assert_eq!(places(IssueKind::BoxPastBorder), [format!("{}:2", csv.display()), "film `a`".to_owned()]);
    assert_eq!(places(IssueKind::BoxOutside), ["film `a`"]);
    assert_eq!(places(IssueKind::FilmMissing), ["film `d`"]);
    assert_eq!(places(IssueKind::FilmWithoutRow).len(), 1);
    assert!(report.of(IssueKind::BoxOutside).next().unwrap().detail.contains("40 × 30 px"));

    let dir = data_set(SOUND, |image, film| {
        if image == "d" {
            film.pixel_spacing_mm = [0.0, 0.1];
            film.window_center_raw = Some("32688,".into());
        }
    });
    let report = self::report(dir.path());
    assert!(report.is_sound());
    assert_eq!(report.of(IssueKind::HeaderFault).len(), 2, "{:?}", report.issues);
    assert!(report.of(IssueKind::PixelsExcused).len() >= 1, "{:?}", report.issues);
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let dir = data_set(SOUND, |_, film| film.pixels = (0..1200).collect());
    let run = |threads| {
        let (mut dataset, broken) = vindr::read_and_collect(dir.path(), &VindrOptions::new()).unwrap();
        check(dir.path(), &mut dataset, &broken, Depth::Pixels, &ReadOptions::default(), threads, &silent)
            .unwrap()
    };
    assert_eq!(run(1), run(4));
}
