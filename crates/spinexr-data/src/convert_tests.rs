use super::*;
use crate::formats::read_and_collect;
use crate::test_films::write_film;
use crate::vindr::VindrOptions;
use proptest::prelude::*;
use spinexr_core::ClassList;
use spinexr_core::progress::silent;
use std::fs;

const OPTIONS: ConvertOptions =
    ConvertOptions { format: Format::Coco, films: FilmFiles::Copy, degenerate: Degenerate::Keep };

/// Film sizes, height and width, px: none divides well.
const SIZES: [(usize, usize); 4] = [(61, 37), (60, 40), (113, 97), (59, 41)];

fn classes() -> ClassList {
    ClassList::from_names(["b, \"quoted\"", "a & <b>", "it's: {c}"]).unwrap()
}

/// Four films of all splits, with boxes drawn by the caller as shares of the film.
fn dataset(dir: &Path, boxes: &[Vec<(usize, [f32; 4])>; 4]) -> Dataset {
    let splits = [Split::Train, Split::Train, Split::Validation, Split::Test];
    let classes = classes();
    let films = (0..4)
        .map(|i| {
            let image_id = format!("film-{i}");
            let (height, width) = SIZES[i];
            let path = dir.join(format!("{image_id}.PNG"));
            write_film(&path, height, width, i as u64);
            let (w, h) = (width as f32, height as f32);
            let boxes: Vec<Annotation> = boxes[i]
                .iter()
                .map(|(class, [x1, y1, x2, y2])| Annotation {
                    label: classes.get(*class).unwrap().clone(),
                    xyxy: BoxXyxy::new(x1 * w, y1 * h, (x2 * w).min(w), (y2 * h).min(h)),
                })
                .collect();
            let annotation = FilmAnnotation {
                image_id,
                study_id: format!("study{}", i / 2),
                series_id: if i == 1 { "series".to_owned() } else { String::new() },
                abnormal: !boxes.is_empty(),
                boxes,
            };
            Film { path, annotation, split: splits[i] }
        })
        .collect();
    Dataset { classes, films, ..Dataset::default() }
}

fn read_back(dir: &Path) -> Dataset {
    let options = VindrOptions { min_box_px: 0.0, ..VindrOptions::new() };
    let (dataset, errors) = read_and_collect(dir, None, &options).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    dataset
}

/// The second holds what the first does; corners differ by at most `px`.
fn assert_same(before: &Dataset, after: &Dataset, px: f32, studies: bool) {
    assert_eq!(before.classes, after.classes);
    assert_eq!(before.films.len(), after.films.len());
    for (a, b) in before.films.iter().zip(&after.films) {
        let (x, y) = (&a.annotation, &b.annotation);
        assert_eq!((&x.image_id, a.split, x.abnormal), (&y.image_id, b.split, y.abnormal));
        if studies {
            assert_eq!((&x.study_id, &x.series_id), (&y.study_id, &y.series_id));
        }
        assert_eq!(fs::read(&a.path).unwrap(), fs::read(&b.path).unwrap());
        let labels = |f: &FilmAnnotation| f.boxes.iter().map(|b| b.label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(x), labels(y));
        for (p, q) in x.boxes.iter().zip(&y.boxes) {
            let differences = <[f32; 4]>::from(p.xyxy).into_iter().zip(<[f32; 4]>::from(q.xyxy));
            let largest = differences.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(largest <= px, "{:?} {:?}", p.xyxy, q.xyxy);
        }
    }
}

fn some_boxes() -> [Vec<(usize, [f32; 4])>; 4] {
    [
        vec![(2, [0.0, 0.0, 1.0, 1.0]), (0, [0.123, 0.3, 0.777, 0.9])],
        vec![],
        vec![(1, [0.5, 0.5, 0.5, 0.5]), (1, [1.0 / 3.0, 0.1, 2.0 / 3.0, 0.7])],
        vec![(0, [0.9, 0.01, 1.0, 0.02])],
    ]
}

#[test]
fn every_format_gives_back_what_every_other_held() {
    let dir = tempfile::tempdir().unwrap();
    let original = dataset(dir.path(), &some_boxes());
    for from in Format::ALL {
        let first = dir.path().join(from.name());
        convert(&original, &first, &ConvertOptions { format: from, ..OPTIONS }, 2, &silent).unwrap();
        let held = read_back(&first);
        let (px, studies) = match from {
            Format::Voc => (1.0, true), // a thin box became a pixel
            Format::Yolo => (0.0, false),
            _ => (0.0, true),
        };
        assert_same(&original, &held, px, studies);
        for to in Format::ALL {
            let second = first.with_extension(to.name());
            let done =
                convert(&held, &second, &ConvertOptions { format: to, ..OPTIONS }, 2, &silent).unwrap();
            assert_eq!((done.films, done.boxes, done.failures.len()), (4, 5, 0), "{from} to {to}");
            // VOC's own corners are whole pixels, so that nothing is rounded a second time.
            let px = if to == Format::Voc && from != Format::Voc { 1.0 } else { 0.0 };
            assert_same(&held, &read_back(&second), px, studies && to != Format::Yolo);
        }
    }
}

#[test]
fn degenerate_boxes_are_listed_kept_or_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let original = dataset(dir.path(), &some_boxes());
    let to = |name: &str, options| convert(&original, &dir.path().join(name), &options, 1, &silent).unwrap();
    let kept = to("kept", OPTIONS);
    assert_eq!((kept.boxes, kept.degenerate.len()), (5, 2));
    assert_eq!(
        (kept.degenerate[0].image_id.as_str(), kept.degenerate[0].label.name()),
        ("film-2", "a & <b>")
    );
    let left = to("left", ConvertOptions { degenerate: Degenerate::LeaveOut, ..OPTIONS });
    assert_eq!((left.boxes, left.degenerate.len(), left.films), (3, 2, 4));
    let held = read_back(&dir.path().join("left"));
    assert!(held.films[3].annotation.boxes.is_empty() && held.films[3].annotation.abnormal);
    // A format that cannot say "abnormal without a box" leaves such a film out and lists it.
    let yolo = ConvertOptions { format: Format::Yolo, degenerate: Degenerate::LeaveOut, ..OPTIONS };
    let left = to("yolo", yolo);
    assert_eq!((left.films, left.failures.len()), (3, 1));
    assert!(left.failures[0].error.contains("abnormal without a box"), "{:?}", left.failures);
    assert!(left.notes[0].contains("no place for studies: 3 films"), "{:?}", left.notes);
}

#[test]
fn films_are_copied_linked_or_referenced() {
    let dir = tempfile::tempdir().unwrap();
    let original = dataset(dir.path(), &some_boxes());
    let linked = dir.path().join("linked");
    convert(&original, &linked, &ConvertOptions { films: FilmFiles::Link, ..OPTIONS }, 1, &silent).unwrap();
    let film = linked.join("images/train/film-0.png");
    assert!(film.is_symlink());
    assert_same(&original, &read_back(&linked), 0.0, true);
    let referenced = dir.path().join("referenced");
    let by_name = ConvertOptions { films: FilmFiles::Reference, ..OPTIONS };
    convert(&original, &referenced, &by_name, 1, &silent).unwrap();
    assert!(!referenced.join("images").exists());
    assert_same(&original, &read_back(&referenced), 0.0, true);
    let error = convert(
        &original,
        &dir.path().join("v"),
        &ConvertOptions { format: Format::Voc, ..by_name },
        1,
        &silent,
    );
    assert!(error.unwrap_err().to_string().contains("the only one that names films elsewhere"));
}

#[test]
fn nothing_is_written_over_and_nothing_half() {
    let dir = tempfile::tempdir().unwrap();
    let mut original = dataset(dir.path(), &some_boxes());
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine.txt"), "mine").unwrap();
    assert!(convert(&original, &out, &OPTIONS, 1, &silent).unwrap_err().to_string().contains("out"));
    assert_eq!(fs::read_to_string(out.join("mine.txt")).unwrap(), "mine");
    // A film that cannot be read is left out and listed; the rest is written.
    fs::write(&original.films[1].path, "no film").unwrap();
    let done = convert(&original, &dir.path().join("rest"), &OPTIONS, 1, &silent).unwrap();
    assert_eq!((done.films, done.failures.len()), (3, 1));
    // A failure on the way leaves no folder behind.
    original.classes = ClassList::from_names(["other"]).unwrap();
    assert!(convert(&original, &dir.path().join("none"), &OPTIONS, 1, &silent).is_err());
    assert!(!dir.path().join("none").exists());
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
    original.films[1] = original.films[0].clone();
    assert!(matches!(
        convert(&original, &dir.path().join("x"), &OPTIONS, 1, &silent),
        Err(DataError::ImageTwice { .. })
    ));
}

#[test]
fn names_with_blanks_go_where_they_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut original = dataset(dir.path(), &some_boxes());
    original.films[0].annotation.image_id = "a film (1)".to_owned();
    original.films[1].annotation.image_id = "line\nend".to_owned();
    for format in [Format::Coco, Format::Yolo, Format::Voc] {
        let out = dir.path().join(format.name());
        let done = convert(&original, &out, &ConvertOptions { format, ..OPTIONS }, 1, &silent).unwrap();
        assert_eq!(done.failures.len(), 1);
        assert!(done.failures[0].error.contains("line\\nend"), "{:?}", done.failures);
        let held = read_back(&out);
        assert_eq!((held.films.len(), held.read.without_split.len()), (3, 0), "{format}");
        assert_eq!(held.films[0].annotation.image_id, "a film (1)");
    }
}

#[test]
fn vindr_refuses_names_that_mean_something_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut original = dataset(dir.path(), &[vec![], vec![], vec![], vec![]]);
    original.films[0].annotation.image_id = "a film (1)".to_owned();
    let options = ConvertOptions { format: Format::Vindr, ..OPTIONS };
    let done = convert(&original, &dir.path().join("v"), &options, 1, &silent).unwrap();
    assert!(done.failures[0].error.contains("a film (1)"), "{:?}", done.failures);
    original.classes = ClassList::from_names(["no Finding"]).unwrap();
    let error = convert(&original, &dir.path().join("w"), &options, 1, &silent).unwrap_err().to_string();
    assert!(error.contains("says that a film has none"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn corners_come_back(
        boxes in prop::collection::vec((0usize..3, 0f32..1.0, 0f32..1.0, 0f32..1.0, 0f32..1.0), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let shares = boxes.iter().map(|&(class, a, b, c, d)| (class, [a.min(b), c.min(d), a.max(b), c.max(d)]));
        let mut all = some_boxes();
        all[0] = shares.collect();
        let original = dataset(dir.path(), &all);
        for format in Format::ALL {
            let out = dir.path().join(format.name());
            convert(&original, &out, &ConvertOptions { format, ..OPTIONS }, 1, &silent).unwrap();
            assert_same(&original, &read_back(&out), if format == Format::Voc { 1.0 } else { 0.0 }, format != Format::Yolo);
        }
    }
}
