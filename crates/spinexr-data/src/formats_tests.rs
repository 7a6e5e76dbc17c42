//! Broken and odd inputs of COCO, YOLO and VOC; what each format holds is tested with `convert`.

use super::*;
use crate::test_films::write_film;
use std::fs;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder with text files and films of 60 x 40 px (height, width).
fn folder(files: &[(&str, &str)], films: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    for name in films {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_film(&path, 60, 40, 1);
    }
    dir
}

/// The broken rows and the ids of the sound films.
fn collected(dir: &TempDir) -> (Vec<String>, Vec<String>) {
    let (dataset, errors) = read_and_collect(dir.path(), None, &VindrOptions::new()).unwrap();
    let root = format!("{}/", dir.path().display());
    (
        errors.iter().map(|e| e.to_string().replace(&root, "")).collect(),
        dataset.films.iter().map(|f| f.annotation.image_id.clone()).collect(),
    )
}

fn sides(dataset: &Dataset) -> Vec<[f32; 4]> {
    dataset.films.iter().flat_map(|f| &f.annotation.boxes).map(|b| b.xyxy.into()).collect()
}

#[test]
fn a_folder_tells_its_format() {
    let coco = folder(&[("annotations/instances_val2017.json", "{}")], &[]);
    let yolo = folder(&[("data.yaml", "")], &[]);
    let voc = folder(&[("Annotations/a.xml", "")], &[]);
    let vindr = folder(&[("annotations/test.csv", "")], &[]);
    for (dir, format) in
        [(&coco, Format::Coco), (&yolo, Format::Yolo), (&voc, Format::Voc), (&vindr, Format::Vindr)]
    {
        assert_eq!(Format::detect(dir.path()).unwrap(), format);
    }
    let both = folder(&[("data.yaml", ""), ("Annotations/a.xml", "")], &[]);
    let error = Format::detect(both.path()).unwrap_err().to_string();
    assert!(error.contains("found yolo and voc"), "{error}");
    let none = folder(&[("annotations/captions_train.json", "{}")], &[]);
    assert!(Format::detect(none.path()).unwrap_err().to_string().contains("found none of them"));
    assert!(matches!(Format::detect(Path::new("/no/such/place")), Err(DataError::Read { .. })));
}

/// A COCO folder with films a and b, 60 x 40 px; entries replaced by the caller.
fn coco(images: &str, annotations: &str, categories: &str) -> TempDir {
    let text = format!(
        "{{\n\"images\": [\n{images}\n],\n\"annotations\": [\n{annotations}\n],\n\"categories\": [\n{categories}\n]}}"
    );
    folder(&[("annotations/instances_train.json", &text)], &["train/a.png", "images/b.png"])
}

const IMAGES: &str = r#"{"id": 1, "file_name": "a.png", "width": 40, "height": 60},
{"id": "x", "file_name": "b.png", "width": 40, "height": 60, "study_id": "s", "abnormal": true}"#;
const CATEGORIES: &str = r#"{"id": 7, "name": "WBC"}, {"id": 3, "name": "RBC"}"#;

#[test]
fn coco_is_read_with_its_own_fields() {
    let dir = coco(
        IMAGES,
        r#"{"id": 1, "image_id": 1, "category_id": 7, "bbox": [1.5, 2, 10, 20.25], "segmentation": [[1, 2, 3]]},
{"id": 2, "image_id": 1, "category_id": 3, "bbox": [30, 50, 20, 20], "iscrowd": 0},
{"id": 3, "image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1}"#,
        CATEGORIES,
    );
    let dataset = read(dir.path(), None).unwrap();
    assert_eq!(dataset.classes.labels().iter().map(Label::name).collect::<Vec<_>>(), ["RBC", "WBC"]);
    let [a, b] = &dataset.films[..] else { panic!("two films") };
    assert_eq!((a.annotation.study_id.as_str(), a.annotation.abnormal), ("a", true));
    assert_eq!((b.annotation.study_id.as_str(), b.annotation.abnormal), ("s", true));
    assert!(b.annotation.boxes.is_empty());
    assert_eq!(a.annotation.boxes[0].label.name(), "WBC");
    assert_eq!(sides(&dataset), [[1.5, 2.0, 11.5, 22.25], [30.0, 50.0, 40.0, 60.0]]);
    assert_eq!((dataset.read.crowd_regions, dataset.read.clipped_boxes), (1, 1));
}

#[test]
fn broken_coco_names_line_and_entry() {
    let file = "annotations/instances_train.json";
    let one = |entry: &str| format!(r#"{{"id": 1, "image_id": 1, "category_id": 7, {entry}}}"#);
    let sound = one(r#""bbox": [1, 2, 3, 4]"#);
    let dangling = sound.replace(r#""image_id": 1"#, r#""image_id": 9"#);
    let stranger = sound.replace(r#""category_id": 7"#, r#""category_id": 8"#);
    for (annotations, line, field, found) in [
        (format!("{sound},\n{dangling}"), 8, "annotations[1].image_id", "expected the id of an image"),
        (format!("{sound},\n{sound}"), 8, "annotations[1].id", "as in annotations[0]"),
        (stranger, 7, "annotations[0].category_id", "one of the categories 3, 7, found 8"),
        (one(r#""bbox": [1, 2, 3]"#), 7, "annotations[0]`", "invalid length 3"),
        (one(r#""bbox": [1, 2, -3, 4]"#), 7, "annotations[0].bbox", "corners in order"),
        (one(r#""bbox": [41, 2, 3, 4]"#), 7, "annotations[0].bbox", "a box on the film of 40 x 60 px"),
        (one(r#""bbox": [1e300, 2, 3, 4]"#), 7, "annotations[0].bbox", "numbers of pixels"),
        (one(r#""bbox": ["1", 2, 3, 4]"#), 7, "annotations[0]`", "invalid type"),
    ] {
        let (errors, films) = collected(&coco(IMAGES, &annotations, CATEGORIES));
        assert_eq!(errors.len(), 1, "{errors:?}");
        let start = format!("{file}:{line}: field `{field}");
        assert!(
            errors[0].starts_with(&start) && errors[0].contains(found),
            "{}\n{start} … {found}",
            errors[0]
        );
        // The film with the broken entry is left out; an entry of no film leaves all.
        assert_eq!(films.len(), if field.ends_with("image_id") { 2 } else { 1 });
    }
    let twice = IMAGES.replace(r#""id": "x""#, r#""id": 1"#);
    let (errors, _) = collected(&coco(&twice, "", CATEGORIES));
    assert!(errors[0].contains(":4: field `images[1].id`"), "{errors:?}");
    let (errors, _) = collected(&coco(IMAGES, "", &CATEGORIES.replace("RBC", "WBC")));
    assert!(errors[0].contains("categories[1].name") && errors[0].contains("twice"), "{errors:?}");
    for text in ["", "[]", "{\"images\": []}", "{\"images\": [NaN], \"annotations\": [], \"categories\": []}"]
    {
        let dir = folder(&[(file, text)], &[]);
        let error = read(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("expected a COCO document") && error.contains("line "), "{error}");
    }
    let deep = folder(&[(file, &"[".repeat(1_000_000))], &[]);
    assert!(read(deep.path(), None).is_err());
}

/// A YOLO folder with one label file of film a, 60 x 40 px.
fn yolo(labels: &str) -> TempDir {
    let data = "train: images/train\nval: images/val\nnames: [RBC, WBC]\n";
    folder(
        &[("data.yaml", data), ("labels/train/a.txt", labels), ("labels/train/gone.txt", "")],
        &["images/train/a.png", "images/val/b.png"],
    )
}

#[test]
fn yolo_is_read_with_films_sizes() {
    let dir = yolo("1 0.5 0.5 0.5 0.1\n\n0 0.1 0.2 0.3 0.2 0.3 0.4 0.2 0.5 0.1 0.3\n0.0 1 1 0.5 0.5\n");
    let dataset = read(dir.path(), None).unwrap();
    assert_eq!(
        sides(&dataset),
        [[10.0, 27.0, 30.0, 33.0], [4.0, 12.0, 12.0, 30.0], [30.0, 45.0, 40.0, 60.0]]
    );
    let [a, b] = &dataset.films[..] else { panic!("two films") };
    assert_eq!((a.split, a.annotation.abnormal), (Split::Train, true));
    assert_eq!((b.split, b.annotation.abnormal), (Split::Validation, false));
    assert_eq!((dataset.read.polygons, dataset.read.clipped_boxes, dataset.read.rows), (1, 1, 3));
    assert_eq!(dataset.read.without_file, ["gone"]);
    assert_eq!(a.annotation.boxes[0].label.name(), "WBC");
}

#[test]
fn broken_yolo_names_its_line() {
    for (labels, line, why) in [
        ("0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1\n", 2, "expected a class and a box (5 columns), or a polygon"),
        ("0 NaN 0.5 0.1 0.1\n", 1, "field `box`: expected a share of the film's side, found \"NaN\""),
        ("0 0.5 0.5 inf 0.1\n", 1, "found \"inf\""),
        ("2 0.5 0.5 0.1 0.1\n", 1, "field `class`: expected a number from 0 to 1, the names in data.yaml"),
        ("-1 0.5 0.5 0.1 0.1\n", 1, "field `class`"),
        ("0.5 0.5 0.5 0.1 0.1\n", 1, "field `class`"),
        ("0 0.5 0.5 -0.1 0.1\n", 1, "a width and a height of 0 or more"),
        ("0 1.5 0.5 0.1 0.1\n", 1, "a box on the film of 40 x 60 px"),
        ("0 1e9 0.5 0.1 0.1\n", 1, "numbers of pixels"),
    ] {
        let (errors, films) = collected(&yolo(labels));
        assert_eq!(errors.len(), 1, "{errors:?}");
        let start = format!("labels/train/a.txt:{line}: ");
        assert!(errors[0].starts_with(&start) && errors[0].contains(why), "{}", errors[0]);
        assert_eq!(films, ["b"]);
    }
    let unread = yolo("");
    fs::write(unread.path().join("images/val/b.png"), "no image").unwrap();
    let (errors, films) = collected(&unread);
    assert!(
        errors[0].starts_with("images/val/b.png:1: expected a film whose size can be read"),
        "{errors:?}"
    );
    assert_eq!(films, ["a"]);
    for (data, line, why) in [
        ("train: images/train\n", 1, "field `names`"),
        ("names: [a]\ntrain: nowhere\n", 2, "expected a folder of films under"),
        ("nc: 3\nnames: [a]\n", 1, "field `nc`: expected 1, the number of names"),
        ("names: {0: a, 2: b}\n", 1, "numbers with gaps"),
        ("names: [a, a]\n", 1, "class \"a\" twice"),
        ("a: &x [1]\nnames: *x\n", 1, "expected plain YAML, found an anchor"),
        ("[1", 2, "expected plain YAML"),
    ] {
        let dir = folder(&[("data.yaml", data)], &["images/train/a.png"]);
        let error = read(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains(&format!("data.yaml:{line}: ")) && error.contains(why), "{error}");
    }
}

#[test]
fn yolo_folders_are_found_as_exporters_write_them() {
    // Roboflow: `../train/images` beside the file; one class; a folder of films that ends in `images`.
    let data = "train: ../train/images\nval: ../valid/images\n\nnc: 1\nnames: ['Vertebrae']";
    let dir = folder(
        &[("data.yaml", data), ("train/labels/a.txt", "0 .5 .5 .5 .5"), ("valid/labels/b.txt", "")],
        &["train/images/a.png", "valid/images/b.png"],
    );
    assert_eq!(sides(&read(dir.path(), None).unwrap()), [[10.0, 15.0, 30.0, 45.0]]);
    // Ultralytics: a path of the author's, names by number, a list of films.
    let data = "path: ../datasets/cells\ntrain: train.txt\nval:\nnames:\n  0: RBC\n  1: WBC\n";
    let dir = folder(
        &[("data.yaml", data), ("train.txt", "./images/a.png\n"), ("labels/a.txt", "1 .5 .5 .5 .5")],
        &["images/a.png"],
    );
    let dataset = read(dir.path(), None).unwrap();
    assert_eq!(dataset.films[0].annotation.boxes[0].label.name(), "WBC");
    fs::write(dir.path().join("train.txt"), "images/a.png\n../../etc/passwd\n").unwrap();
    assert!(
        read(dir.path(), None).unwrap_err().to_string().contains("train.txt:2: expected the path of a film")
    );
}

fn object(name: &str, corners: [&str; 4]) -> String {
    let [a, b, c, d] = corners;
    format!(
        "<object><name>{name}</name><bndbox>\n<xmin>{a}</xmin>\n<ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
    )
}

fn voc_xml(objects: &str) -> String {
    format!("<annotation>\n<size><width>40</width><height>60</height></size>\n{objects}\n</annotation>")
}

fn voc(xml: &str) -> TempDir {
    folder(&[("Annotations/a.xml", xml)], &["JPEGImages/a.png"])
}

#[test]
fn voc_corners_are_pixels_counted_from_one() {
    let xml = voc_xml(&format!(
        "{}\n{}\n{}",
        object("a &amp; b &#x3bc;", ["1", "1", "40", "60"]),
        object("<![CDATA[x<y]]>", ["7", "8", "7", "8"]),
        object(" RBC ", ["0", "1.5", "2", "3"]),
    ));
    let dir = voc(&format!("<?xml version=\"1.0\"?>\n<!-- {} -->\n{xml}", "of a tool"));
    let dataset = read(dir.path(), None).unwrap();
    let all = [[0.0, 0.0, 40.0, 60.0], [6.0, 7.0, 7.0, 8.0], [0.0, 0.5, 2.0, 3.0]];
    assert_eq!(sides(&dataset), all);
    let names: Vec<_> = dataset.classes.labels().iter().map(Label::name).collect();
    assert_eq!(names, ["RBC", "a & b \u{3bc}", "x<y"]);
    assert_eq!(dataset.read.clipped_boxes, 1);
    assert_eq!(dataset.films[0].split, Split::Train);
}

#[test]
fn voc_lists_give_splits_and_classes() {
    let sound = voc_xml(&object("b", ["1", "1", "9", "9"]));
    let files = [
        ("Annotations/a.xml", sound.as_str()),
        ("Annotations/b.xml", &sound),
        ("Annotations/c.xml", &sound),
        ("ImageSets/Main/trainval.txt", "a\n"),
        ("ImageSets/Main/test.txt", "b 1\n"),
        ("classes.txt", "z\nb\n"),
    ];
    let dir =
        folder(&files, &["JPEGImages/a.png", "JPEGImages/b.png", "JPEGImages/c.png", "JPEGImages/d.png"]);
    let dataset = read(dir.path(), None).unwrap();
    let films: Vec<_> = dataset.films.iter().map(|f| (f.annotation.image_id.as_str(), f.split)).collect();
    assert_eq!(films, [("a", Split::Train), ("b", Split::Test)]);
    assert_eq!(dataset.read.without_split, ["c"]);
    assert_eq!(dataset.read.without_annotation, [dir.path().join("JPEGImages/d.png")]);
    assert_eq!(dataset.classes.labels().iter().map(Label::name).collect::<Vec<_>>(), ["z", "b"]);
    fs::write(dir.path().join("ImageSets/Main/test.txt"), "b\na\n").unwrap();
    let error = read(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains("test.txt:2: expected every film in one list"), "{error}");
    fs::write(dir.path().join("classes.txt"), "z\n").unwrap();
    let (errors, _) = collected(&dir);
    assert!(
        errors.iter().any(|e| e.contains("field `object.name`: expected one of classes.txt: z")),
        "{errors:?}"
    );
}

#[test]
fn broken_voc_names_line_and_element() {
    let sound = ["1", "2", "3", "4"];
    for (xml, line, why) in [
        (
            voc_xml(&object("RBC", ["1", "x", "3", "4"])),
            5,
            "field `ymin`: expected a number of pixels, found \"x\"",
        ),
        (voc_xml(&object("RBC", ["NaN", "2", "3", "4"])), 4, "field `xmin`: expected a number of pixels"),
        (voc_xml(&object("RBC", ["5", "2", "3", "4"])), 3, "corners in order, xmin <= xmax"),
        (voc_xml(&object("RBC", ["50", "2", "60", "4"])), 3, "a box on the film of 40 x 60 px"),
        (voc_xml(&object("", sound)), 3, "field `object.name`: expected a class name"),
        (voc_xml("<object><name>RBC</name></object>"), 3, "field `bndbox`"),
        ("<annotation></annotation>".to_owned(), 1, "field `size`"),
        (voc_xml("").replace("40", "0"), 2, "field `width`: expected the film's size"),
        ("<annotation><size>".to_owned(), 1, "expected a VOC annotation in plain XML"),
        ("<a></b>".to_owned(), 1, "expected a VOC annotation in plain XML"),
        ("<html/>".to_owned(), 1, "the element `annotation`, found `html`"),
        (voc_xml(&object("&undefined;", sound)), 3, "unknown entity reference 'undefined'"),
        ("<a>".repeat(100_000), 1, "expected a VOC annotation in plain XML"),
    ] {
        let (errors, films) = collected(&voc(&xml));
        assert_eq!(errors.len(), 1, "{errors:?}");
        let start = format!("Annotations/a.xml:{line}: ");
        assert!(errors[0].starts_with(&start) && errors[0].contains(why), "{}\nline {line} {why}", errors[0]);
        assert!(films.is_empty());
    }
}

#[test]
fn an_entity_bomb_is_refused_unexpanded() {
    let mut bomb = "<!DOCTYPE annotation [<!ENTITY e0 \"x\">".to_owned();
    for i in 1..30 {
        let many = format!("&e{};", i - 1).repeat(10);
        bomb.push_str(&format!("<!ENTITY e{i} \"{many}\">"));
    }
    bomb.push_str(&format!("]>\n{}", voc_xml(&object("&e29;", ["1", "2", "3", "4"]))));
    let began = Instant::now();
    let (errors, _) = collected(&voc(&bomb));
    assert!(errors[0].contains("XML with DTD detected"), "{errors:?}");
    let outside = "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>";
    let (errors, _) =
        collected(&voc(&format!("{outside}\n{}", voc_xml(&object("&x;", ["1", "2", "3", "4"])))));
    assert!(errors[0].contains("XML with DTD detected"), "{errors:?}");
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[test]
fn files_that_are_too_large_are_not_read() {
    let dir = voc(&" ".repeat((4 << 20) + 1));
    assert!(read(dir.path(), None).unwrap_err().to_string().contains("at most 4194304 bytes"));
}
