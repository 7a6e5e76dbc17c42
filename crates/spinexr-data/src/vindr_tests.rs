use super::*;
use crate::test_films::write_film;
use spinexr_core::{BoxXyxy, Finding};
use std::fs;

const HEADER: &str = "study_id,series_id,image_id,rad_id,lesion_type,xmin,ymin,xmax,ymax\n";

/// A release with one CSV of the given text (header included) and empty files for `images`.
fn release(split: &str, csv: &str, images: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    add_part(dir.path(), split, csv, images);
    dir
}

fn add_part(dir: &Path, split: &str, csv: &str, images: &[&str]) {
    fs::create_dir_all(dir.join("annotations")).unwrap();
    fs::create_dir_all(dir.join(format!("{split}_images"))).unwrap();
    fs::write(dir.join("annotations").join(format!("{split}.csv")), csv).unwrap();
    for image in images {
        fs::write(dir.join(format!("{split}_images")).join(image), "").unwrap();
    }
}

fn rows(text: &str) -> String {
    format!("{HEADER}{text}")
}

/// The one broken row of a file.
fn row_error(csv: &str) -> RowError {
    let dir = release("train", csv, &["a.dicom"]);
    match read(dir.path()) {
        Err(DataError::Rows { mut errors, total: 1 }) => errors.remove(0),
        other => panic!("expected one broken row, found {other:?}"),
    }
}

#[test]
fn both_parts_are_read() {
    let dir = release(
        "train",
        &rows(
            "s1,e1,a,rad1,Osteophytes,1,2,30.5,40\ns1,e1,a,rad1,Surgical implant,5,5,9,9\ns2,e2,b,rad2,No finding,,,,\n",
        ),
        &["a.dicom", "b.dcm", "notes.txt", ".a.dicom"],
    );
    add_part(dir.path(), "test", &rows("s3,e3,c,rad3,Fracture,1,2,3,4\n"), &["c.dicom"]);
    let dataset = read(dir.path()).unwrap();
    let ids: Vec<_> = dataset.films.iter().map(|f| (f.annotation.image_id.as_str(), f.split)).collect();
    assert_eq!(ids, [("a", Split::Train), ("b", Split::Train), ("c", Split::Test)]);
    let a = &dataset.films[0].annotation;
    assert!(a.abnormal && a.study_id == "s1" && a.series_id == "e1");
    assert_eq!(a.boxes.len(), 2);
    assert_eq!(a.boxes[0].label, Finding::Osteophytes.label());
    assert_eq!(a.boxes[0].xyxy, BoxXyxy::new(1.0, 2.0, 30.5, 40.0));
    assert!(!dataset.films[1].annotation.abnormal);
    assert_eq!(dataset.films[1].path, dir.path().join("train_images/b.dcm"));
    assert_eq!(dataset.films[2].annotation.boxes[0].label, Finding::OtherLesions.label());
    let mut expected = crate::ReadCounts { rows: 4, no_finding_rows: 1, ..Default::default() };
    assert!(!dataset.read.is_clean());
    expected.folded_labels = 1;
    assert_eq!(dataset.read, expected);
}

#[test]
fn known_irregularities_are_repaired_and_counted() {
    let text = "\u{feff}study_id,series_id,image_id,rad_id,lesion_type,xmin,ymin,xmax,ymax\r\n\
        s1,,a, rad1 ,Spondylolisthesis,10,20,30,40\r\n\
        s1,e1,a,rad1,Spondylolysthesis,10,20,30,40\r\n\
        s1,e1,a,rad1,Osteophytes,-5,20,30,40\r\n\
        s1,e1,a,rad1,Osteophytes,50,20,50.0001,40\r\n\
        \r\n\
        s2,e2,b,,No finding,,,,\r\n\
        s2,e2,b,rad1,No finding,,,,\r\n\
        s3,e3,thin,rad1,Osteophytes,-9,2,-5,4\r\n\
        s4,e4,gone,rad1,No finding,,,,\r\n";
    let dir = release("train", text, &["a.dicom", "b.dicom", "thin.dicom", "stray.dicom"]);
    let dataset = read(dir.path()).unwrap();
    let expected = crate::ReadCounts {
        rows: 8,
        no_finding_rows: 3,
        clipped_boxes: 2,
        thin_boxes: 2,
        duplicate_rows: 2,
        other_spelling: 1,
        folded_labels: 0,
        blank_cells: 2,
        byte_order_marks: 1,
        crlf_files: 1,
        crowd_regions: 0,
        polygons: 0,
        without_split: vec![],
        without_file: vec!["gone".to_owned()],
        without_annotation: vec![dir.path().join("train_images/stray.dicom")],
    };
    assert_eq!(dataset.read, expected);
    let a = &dataset.films[0].annotation.boxes;
    assert_eq!(a.len(), 2);
    assert_eq!(a[0].label, Finding::Spondylolysthesis.label());
    assert_eq!(a[1].xyxy, BoxXyxy::new(0.0, 20.0, 30.0, 40.0));
    let thin = &dataset.films[2].annotation;
    assert!(thin.abnormal && thin.boxes.is_empty(), "a film whose boxes were dropped stays abnormal");
}

#[test]
fn a_broken_row_is_named_by_line_and_column() {
    let cases = [
        ("s,e,a,r,Osteophytes,1,x,3,4", "ymin", "a coordinate", "\"x\""),
        ("s,e,a,r,Osteophytes,1,2,NaN,4", "xmax", "a coordinate", "\"NaN\""),
        ("s,e,a,r,Osteophytes,1,2,inf,4", "xmax", "a coordinate", "\"inf\""),
        ("s,e,a,r,Osteophytes,1,2,3e30,4", "xmax", "a coordinate", "3e30"),
        ("s,e,a,r,Osteophytes,1,,3,4", "ymin", "a coordinate", "blank"),
        ("s,e,a,r,Osteophytes,9,2,3,4", "xmax", "at least xmin = 9", "3"),
        ("s,e,a,r,Osteophytes,1,9,3,4", "ymax", "at least ymin = 9", "4"),
        ("s,e,a,r,Scoliosis,1,2,3,4", "lesion_type", "Vertebral collapse", "\"Scoliosis\""),
        ("s,e,a,r,,1,2,3,4", "lesion_type", "No finding", "\"\""),
        ("s,e,../a,r,Osteophytes,1,2,3,4", "image_id", "file stem", "../a"),
        ("s,e,a/b,r,No finding,,,,", "image_id", "file stem", "a/b"),
        ("s,e,..,r,No finding,,,,", "image_id", "file stem", ".."),
        ("s,e,,r,No finding,,,,", "image_id", "file stem", "\"\""),
        (",e,a,r,No finding,,,,", "study_id", "identifier", "blank"),
        ("s,e,a,r,No finding,1,2,3,4", "xmin", "blank cell", "\"1\""),
        ("s,e,a,r,Osteophytes,1,2,3", "", "9 cells", "8"),
    ];
    for (row, column, expected, found) in cases {
        // A blank line and CR LF before it must not shift the count.
        for (before, line) in [("", 2), ("s0,e,z,r,No finding,,,,\r\n\r\n", 4)] {
            let error = row_error(&rows(&format!("{before}{row}\n")));
            assert_eq!(error.line, line, "{row}");
            assert_eq!(error.column, column, "{row}");
            assert!(error.expected.contains(expected), "{row}: {}", error.expected);
            assert!(error.found.contains(found), "{row}: {}", error.found);
            assert!(error.to_string().contains(&format!("train.csv:{line}: ")), "{error}");
        }
    }
}

#[test]
fn rows_that_contradict_each_other_name_both_lines() {
    let error = row_error(&rows("s,e,a,r,Osteophytes,1,2,3,4\ns,e,a,r,No finding,,,,\n"));
    assert_eq!((error.line, error.column.as_str()), (3, "lesion_type"));
    assert!(error.expected.contains("line 2"), "{error}");
    let error = row_error(&rows("s,e,a,r,No finding,,,,\ns,e,a,r,Osteophytes,1,2,3,4\n"));
    assert_eq!(error.line, 3);
    assert!(error.expected.contains("line 2"), "{error}");
    let error = row_error(&rows("s,e,a,r,No finding,,,,\ns9,e,a,r,No finding,,,,\n"));
    assert_eq!((error.line, error.column.as_str()), (3, "study_id"));
    assert!(error.expected.contains("\"s\"") && error.found.contains("s9"), "{error}");
}

#[test]
fn text_that_is_not_utf8_is_named() {
    let mut bytes = rows("s,e,a,r,").into_bytes();
    bytes.extend_from_slice(b"Ost\xE9ophytes,1,2,3,4\n");
    let dir = release("train", "", &["a.dicom"]);
    fs::write(dir.path().join("annotations/train.csv"), bytes).unwrap();
    let error = read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("train.csv:2: column `lesion_type`: expected UTF-8"), "{error}");
}

#[test]
fn the_first_twenty_broken_rows_are_listed() {
    let text: String = (0..30).map(|i| format!("s,e,a{i},r,Osteophytes,1,2,x,4\n")).collect();
    let dir = release("train", &rows(&text), &["a.dicom"]);
    let error = read(dir.path()).unwrap_err();
    let DataError::Rows { errors, total } = &error else { panic!("{error}") };
    assert_eq!((errors.len(), *total), (20, 30));
    assert_eq!((errors[0].line, errors[19].line), (2, 21));
    assert!(error.to_string().starts_with("30 broken annotation rows, the first 20:\n"), "{error}");
}

#[test]
fn all_broken_rows_can_be_collected_beside_the_sound_films() {
    let text = "s,e,a,r,Osteophytes,1,2,3,4\ns,e,a,r,Osteophytes,1,2,x,4\ns,e,b,r,No finding,,,,\n";
    let dir = release("test", &rows(text), &["a.dicom", "b.dicom"]);
    let (dataset, errors) = read_and_collect(dir.path(), &VindrOptions::new()).unwrap();
    assert_eq!(errors.len(), 1);
    assert_eq!(dataset.films.len(), 1, "a film with a broken row is left out as a whole");
    assert_eq!(dataset.films[0].annotation.image_id, "b");
    assert!(dataset.read.without_annotation.is_empty(), "its file is not a stray one");
}

#[test]
fn a_missing_or_repeated_column_is_named() {
    let dir = release("train", "study_id,series_id,image_id,rad_id,lesion_type,xmin,ymin,xmax\n", &[]);
    let error = read(dir.path()).unwrap_err();
    assert!(matches!(&error, DataError::MissingColumn { column, .. } if column == "ymax"), "{error}");
    assert!(
        error.to_string().contains("train.csv:1") && error.to_string().contains("xmin,ymin,xmax"),
        "{error}"
    );
    let dir = release("train", &HEADER.replace("series_id", "image_id"), &[]);
    let error = read(dir.path()).unwrap_err();
    assert!(matches!(&error, DataError::MissingColumn { column, .. } if column == "series_id"), "{error}");
    let dir = release("train", "", &[]);
    assert!(matches!(read(dir.path()), Err(DataError::MissingColumn { .. })));
}

#[test]
fn columns_may_stand_in_any_order_with_others_between() {
    let text = "ymax,xmax,ymin,xmin,extra,lesion_type,rad_id,image_id,series_id,study_id\n4,3,2,1,?,Osteophytes,r,a,e,s\n";
    let dir = release("train", text, &["a.dicom"]);
    let dataset = read(dir.path()).unwrap();
    assert_eq!(dataset.films[0].annotation.boxes[0].xyxy, BoxXyxy::new(1.0, 2.0, 3.0, 4.0));
}

#[test]
fn folders_that_are_no_release_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = read(&dir.path().join("nowhere")).unwrap_err();
    assert!(matches!(&error, DataError::Read { path, .. } if path.ends_with("nowhere")), "{error}");
    let error = read(dir.path()).unwrap_err();
    assert!(error.to_string().contains("expected train.csv or test.csv, found neither"), "{error}");
    let dir = release("train", &rows("s,e,a,r,No finding,,,,\n"), &[]);
    let error = read(dir.path()).unwrap_err();
    assert!(error.to_string().contains("1 annotated films, none with a file"), "{error}");
}

#[test]
fn two_files_of_one_film_are_refused() {
    let dir = release("train", &rows("s,e,a,r,No finding,,,,\n"), &["a.dicom", "a.dcm"]);
    let error = read(dir.path()).unwrap_err();
    assert!(matches!(&error, DataError::ImageTwice { image_id, .. } if image_id == "a"), "{error}");
}

#[test]
fn boxes_are_clipped_to_films_of_known_size() {
    let text =
        "s,e,a,r,Osteophytes,10,10,500,500\ns,e,a,r,Osteophytes,40,10,60,20\ns,e,b,r,Osteophytes,1,2,900,4\n";
    let dir = release("train", &rows(text), &["b.dicom"]);
    write_film(&dir.path().join("train_images/a.png"), 60, 40, 1);
    let mut dataset = read(dir.path()).unwrap();
    let unreadable = clip_to_films(&mut dataset, &VindrOptions::new(), &spinexr_dicom::Limits::default(), 2);
    assert_eq!(dataset.films[0].annotation.boxes.len(), 1, "the second box has nothing left");
    assert_eq!(dataset.films[0].annotation.boxes[0].xyxy, BoxXyxy::new(10.0, 10.0, 40.0, 60.0));
    assert!(dataset.films[0].annotation.abnormal);
    assert_eq!((dataset.read.clipped_boxes, dataset.read.thin_boxes), (2, 1));
    assert_eq!(unreadable.len(), 1);
    assert_eq!(unreadable[0].image_id, "b");
    assert_eq!(dataset.films[1].annotation.boxes[0].xyxy.x2, 900.0);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), header: bool) {
        let mut text = if header { HEADER.as_bytes().to_vec() } else { Vec::new() };
        text.extend(bytes);
        let (mut counts, mut errors) = (crate::ReadCounts::default(), Vec::new());
        drop(parse(Path::new("x.csv"), &text, &ClassList::vindr(), &VindrOptions::new(), &mut counts, &mut vec![], &mut errors));
    }
}

/// A release of other classes: one film, `csv` after the header.
fn with_classes(classes: &str, csv: &str) -> Result<Dataset, DataError> {
    let dir = release("train", &rows(csv), &["a.png"]);
    fs::write(dir.path().join(CLASSES_FILE), classes).unwrap();
    read(dir.path())
}

#[test]
fn a_list_of_classes_takes_the_place_of_the_release_s() {
    let row = "s,,a,,Platelets,1,2,3,4\n";
    let dataset = with_classes("RBC\r\nWBC\nPlatelets\n\n", row).unwrap();
    assert_eq!(dataset.classes, ClassList::from_names(["RBC", "WBC", "Platelets"]).unwrap());
    assert_eq!(dataset.films[0].annotation.boxes[0].label.name(), "Platelets");
    assert_eq!(dataset.classes.index(&dataset.films[0].annotation.boxes[0].label), Ok(2));

    let unknown = with_classes("RBC\nWBC\n", row).unwrap_err().to_string();
    assert!(unknown.contains("train.csv:2: column `lesion_type`: expected `No finding` or one of: RBC, WBC"));
    assert!(unknown.contains("found \"Platelets\""), "{unknown}");
    // Of the release's vocabulary no name is known, and none is folded.
    let folded = with_classes("Osteophytes\n", "s,,a,,Fracture,1,2,3,4\n").unwrap_err().to_string();
    assert!(folded.contains("one of: Osteophytes, found \"Fracture\""), "{folded}");
}

#[test]
fn a_broken_list_of_classes_names_its_line() {
    for (classes, place, why) in [
        ("RBC\nWBC\nRBC\n", "classes.txt:3:", "\"RBC\" as on line 1"),
        ("RBC\n\nWBC\n", "classes.txt:2:", "expected 1 to 200 bytes"),
        ("RBC\nno finding\n", "classes.txt:2:", "another meaning"),
        (&"x".repeat(300), "classes.txt:1:", "300 bytes"),
    ] {
        let error = with_classes(classes, "s,,a,,RBC,1,2,3,4\n").unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(why), "{error}");
    }
    let huge = with_classes(&"x\n".repeat(2_000_000), "").unwrap_err().to_string();
    assert!(huge.contains("at most 2020000 bytes"), "{huge}");
}
