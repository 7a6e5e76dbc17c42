use super::*;
use crate::{SplitDataset, formats, split, test_films, vindr};
use spinexr_core::Finding;

/// 60 training studies of two films and 10 test studies of one, on disk; a row has a reader of its own.
fn data_set() -> (tempfile::TempDir, Dataset) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("annotations")).unwrap();
    for (split, studies, views) in [(Split::Train, 60, 2), (Split::Test, 10, 1)] {
        let images = dir.path().join(format!("{split}_images"));
        fs::create_dir(&images).unwrap();
        let mut text = COLUMNS.join(",") + "\n";
        for study in 0..studies {
            for view in 0..views {
                let image = format!("{split}{study:02}{view}");
                test_films::write_film(&images.join(format!("{image}.png")), 48, 40, 0);
                let finding = match study {
                    0..6 => "Vertebral collapse,1,2,30,40",
                    6..30 => "Osteophytes,1.50,2,30,40",
                    _ => "No finding,,,,",
                };
                text.push_str(&format!("{split}-s{study},e{study},{image},rad{view},{finding}\n"));
            }
        }
        fs::write(annotation_file(dir.path(), split), text).unwrap();
    }
    // A list of its own, in an order of its own.
    fs::write(dir.path().join(CLASSES_FILE), "Vertebral collapse\nOsteophytes\n").unwrap();
    let dataset = vindr::read(dir.path()).unwrap();
    (dir, dataset)
}

fn share_train(dataset: &Dataset, shares: &[f64], seed: u64) -> Vec<usize> {
    let films: Vec<&Film> = dataset.of(Split::Train).collect();
    share_out(&films, GroupBy::Study, |_| None, shares, seed).unwrap()
}

#[test]
fn studies_stay_together_and_findings_are_even() {
    let (_dir, dataset) = data_set();
    let parts = share_train(&dataset, &[2.0, 1.0], 3);
    let films: Vec<&Film> = dataset.of(Split::Train).collect();
    let counts =
        |part| PartCounts::of(films.iter().zip(&parts).filter(|(_, p)| **p == part).map(|(film, _)| *film));
    let (large, small) = (counts(0), counts(1));
    assert_eq!((large.studies, small.studies), (40, 20));
    assert_eq!((large.films, small.films), (80, 40));
    for (name, n) in [(Finding::VertebralCollapse, 4), (Finding::Osteophytes, 16)] {
        let name = name.to_string();
        assert_eq!((large.films_with[&name], small.films_with[&name]), (2 * n, n), "{name}");
    }
    let mut of_study: BTreeMap<&str, usize> = BTreeMap::new();
    for (film, part) in films.iter().zip(&parts) {
        assert_eq!(of_study.entry(&film.annotation.study_id).or_insert(*part), part);
    }
}

#[test]
fn the_order_of_films_does_not_matter_and_the_seed_does() {
    let (_dir, dataset) = data_set();
    let films: Vec<&Film> = dataset.of(Split::Train).collect();
    let share = |films: &[&Film], seed| -> BTreeMap<String, usize> {
        let parts = share_out(films, GroupBy::Study, |_| None, &[1.0; 4], seed).unwrap();
        films.iter().map(|f| f.annotation.image_id.clone()).zip(parts).collect()
    };
    let mut backwards = films.clone();
    backwards.reverse();
    assert_eq!(share(&films, 1), share(&backwards, 1));
    assert_ne!(share(&films, 1), share(&films, 2));
}

#[test]
fn studies_of_a_patient_go_together_even_by_way_of_a_third() {
    let (_dir, dataset) = data_set();
    let films: Vec<&Film> = dataset.of(Split::Train).collect();
    // Studies 30 to 39 are of five patients; 40 and 41 hang together through the second film of 41.
    let patient = |film: &Film| {
        let study: usize = film.annotation.study_id.strip_prefix("train-s")?.parse().ok()?;
        let second_view = film.annotation.image_id.ends_with('1');
        match study {
            30..40 => Some(format!("P{}", study % 5)),
            40 => Some("Q".to_owned()),
            41 => Some(if second_view { "Q" } else { "R" }.to_owned()),
            42 => Some("R".to_owned()),
            43..60 => None,
            _ => Some(format!("own{study}")),
        }
    };
    let parts = share_out(&films, GroupBy::Patient, patient, &[1.0, 1.0, 1.0], 0).unwrap();
    let part = |study: usize| {
        let at = films.iter().position(|f| f.annotation.study_id == format!("train-s{study}")).unwrap();
        parts[at]
    };
    assert!((30..35).all(|study| part(study) == part(study + 5)));
    assert!(part(40) == part(41) && part(41) == part(42));
    let same: Vec<usize> = (43..60).map(part).collect();
    assert!(same.iter().any(|p| *p != same[0]), "studies without a patient stand for themselves");
}

#[test]
fn a_written_folder_is_read_again_as_it_was_shared_out() {
    let (dir, dataset) = data_set();
    let films: Vec<&Film> = dataset.of(Split::Train).collect();
    let mut parts: BTreeMap<Split, Vec<&Film>> =
        BTreeMap::from([(Split::Test, dataset.of(Split::Test).collect())]);
    for (film, part) in films.iter().zip(share_train(&dataset, &[3.0, 1.0], 5)) {
        parts.entry([Split::Train, Split::Validation][part]).or_default().push(film);
    }
    let source = Source::of(dir.path(), &dataset, Format::Vindr).unwrap();
    for placement in [Placement::Link, Placement::HardLink, Placement::Copy] {
        let out = dir.path().join(format!("new/{placement:?}"));
        let left_out = write_folder(&out, &parts, &source, placement, &serde_json::json!({"seed": 5}), 1);
        assert_eq!(left_out.unwrap(), []);
        let again = vindr::read(&out).unwrap();
        split::check_leakage(&again).unwrap();
        assert_eq!(again.classes, dataset.classes);
        for split in Split::ALL {
            let ids = |d: &Dataset| d.annotations(split);
            let mut wanted: Vec<_> = parts[&split].iter().map(|f| f.annotation.clone()).collect();
            wanted.sort_by(|a, b| a.image_id.cmp(&b.image_id));
            assert_eq!(ids(&again), wanted);
        }
        assert_eq!(again.read.rows, 130);
        assert!(again.read.is_clean());
        // Cells stand as they stood.
        let text = fs::read_to_string(annotation_file(&out, Split::Train)).unwrap();
        assert!(text.contains(",rad1,Osteophytes,1.50,2,30,40\n"), "{text}");
        assert!(matches!(
            write_folder(&out, &parts, &source, placement, &serde_json::json!({}), 1),
            Err(DataError::Write { .. })
        ));
        // The part of its own is what training validates on, whatever fraction it asks for.
        let ready = SplitDataset::read(&out, None, 0.5, 99).unwrap();
        assert_eq!(ready.dataset.annotations(Split::Validation), again.annotations(Split::Validation));
        assert!(ready.hold_out.same_studies(&crate::HoldOut::of_own_part(&again)));
        assert_eq!(ready.hold_out.validation_fraction, 0.25);
    }
    assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 3, "no temporary folder is left");
    // A split of a split: links do not pile up.
    let link = dir.path().join("new/Link/test_images/test000.png");
    assert_eq!(
        fs::read_link(link).unwrap(),
        dir.path().join("test_images/test000.png").canonicalize().unwrap()
    );
}

#[test]
fn a_part_that_would_be_empty_and_a_share_that_is_none_are_refused() {
    let films: Vec<Film> = (0..4)
        .map(|i| Film { path: "x".into(), annotation: test_films::annotation(i), split: Split::Train })
        .collect();
    let films: Vec<&Film> = films.iter().collect();
    let share = |shares: &[f64]| share_out(&films, GroupBy::Study, |_| None, shares, 0);
    assert!(matches!(share(&[1.0; 3]), Err(DataError::TooFewGroups { groups: 2, parts: 3 })));
    assert!(matches!(share(&[1.0, 0.0]), Err(DataError::Setting { .. })));
    assert!(matches!(share(&[1.0, f64::NAN]), Err(DataError::Setting { .. })));
}

/// Films, boxes and studies of every format that can say them come back in the parts they were given.
#[test]
fn a_data_set_of_another_format_is_shared_out_in_that_format() {
    let (dir, dataset) = data_set();
    for (format, keeps_studies) in [(Format::Coco, true), (Format::Voc, true), (Format::Yolo, false)] {
        let original = dir.path().join(format!("{format}"));
        let options = ConvertOptions { format, films: FilmFiles::Copy, degenerate: Degenerate::Keep };
        convert_with(&dataset, &original, &options, &[], 2, &|_| {}).unwrap();
        let read = formats::read_every_box(&original, format).unwrap();
        let train: Vec<&Film> = read.of(Split::Train).collect();
        let assigned = share_out(&train, GroupBy::Study, |_| None, &[3.0, 1.0], 5).unwrap();
        let mut parts: BTreeMap<Split, Vec<&Film>> =
            BTreeMap::from([(Split::Test, read.of(Split::Test).collect())]);
        for (film, part) in train.iter().zip(assigned) {
            parts.entry([Split::Train, Split::Validation][part]).or_default().push(film);
        }
        let source = Source::of(&original, &read, format).unwrap();
        for placement in [Placement::Link, Placement::HardLink, Placement::Copy] {
            let out = dir.path().join(format!("parts/{format}/{placement:?}"));
            let notes = serde_json::json!({"seed": 5});
            assert_eq!(write_folder(&out, &parts, &source, placement, &notes, 2).unwrap(), []);
            assert_eq!(Format::detect(&out).unwrap(), format);
            let again = formats::read_every_box(&out, format).unwrap();
            assert_eq!(again.classes, read.classes);
            for split in Split::ALL {
                let mut wanted: Vec<_> = parts[&split].iter().map(|f| f.annotation.clone()).collect();
                wanted.sort_by(|a, b| a.image_id.cmp(&b.image_id));
                assert_eq!(again.annotations(split), wanted, "{format} {split}");
            }
            let studies: BTreeSet<_> = again.films.iter().map(|f| &f.annotation.study_id).collect();
            assert_eq!(studies.len() < again.films.len(), keeps_studies, "{format}");
            let text = fs::read_to_string(out.join("split.json")).unwrap();
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), notes);
            assert!(
                write_folder(&out, &parts, &source, placement, &notes, 2).is_err(),
                "nothing is written over"
            );
        }
    }
}
