use super::*;
use spinexr_core::{Annotation, BoxXyxy, FilmAnnotation, Finding};
use std::path::PathBuf;

fn film(image: &str, study: &str, split: Split, labels: &[Finding]) -> Film {
    let xyxy = BoxXyxy::new(0.0, 0.0, 9.0, 9.0);
    let annotation = FilmAnnotation {
        image_id: image.to_owned(),
        study_id: study.to_owned(),
        series_id: String::new(),
        abnormal: !labels.is_empty(),
        boxes: labels.iter().map(|f| Annotation { label: f.label(), xyxy }).collect(),
    };
    Film { path: PathBuf::from(format!("{image}.dicom")), annotation, split }
}

/// 200 training studies of two films (100 normal, 90 with osteophytes, 10 of these with a collapse too) and
/// 20 test studies.
fn dataset() -> Dataset {
    let mut films = Vec::new();
    for study in 0..200 {
        let labels: &[Finding] = match study {
            0..10 => &[Finding::Osteophytes, Finding::VertebralCollapse],
            10..100 => &[Finding::Osteophytes],
            _ => &[],
        };
        for view in 0..2 {
            films.push(film(&format!("i{study:03}{view}"), &format!("s{study}"), Split::Train, labels));
        }
    }
    for study in 0..20 {
        films.push(film(&format!("t{study}"), &format!("ts{study}"), Split::Test, &[]));
    }
    Dataset { films, ..Dataset::default() }
}

fn validation_studies(dataset: &Dataset) -> HashSet<String> {
    dataset.of(Split::Validation).map(|f| f.annotation.study_id.clone()).collect()
}

#[test]
fn a_hold_out_is_known_by_its_studies() {
    let held = |fraction, seed| hold_out_validation(&mut dataset(), fraction, seed).unwrap();
    let one = held(0.2, 7);
    assert_eq!((one.validation_fraction, one.split_seed), (0.2, 7));
    assert_eq!(one, held(0.2, 7));
    assert!(!one.same_studies(&held(0.2, 8)) && !one.same_studies(&held(0.3, 7)));
    // What fraction and seed give hangs on the annotations too.
    let mut fewer = dataset();
    hold_out_validation(&mut fewer, 0.2, 7).unwrap();
    let study = fewer.of(Split::Validation).next().unwrap().annotation.study_id.clone();
    fewer.films.retain(|f| f.annotation.study_id != study);
    assert!(!one.same_studies(&HoldOut::of(&fewer, 0.2, 7)));
    assert!(one.to_string().starts_with("0.2 of the studies, split seed 7 (studies "), "{one}");
}

#[test]
fn whole_studies_are_held_out_in_the_right_proportions() {
    let mut dataset = dataset();
    hold_out_validation(&mut dataset, 0.2, 7).unwrap();
    check_leakage(&dataset).unwrap();
    let held = validation_studies(&dataset);
    assert_eq!(held.len(), 40);
    assert_eq!(dataset.of(Split::Validation).count(), 80);
    assert_eq!(dataset.of(Split::Test).count(), 20);
    assert!(dataset.of(Split::Test).all(|f| f.annotation.study_id.starts_with('t')));
    let with = |finding: Finding| {
        dataset
            .of(Split::Validation)
            .filter(|f| f.annotation.boxes.iter().any(|b| b.label == finding.label()))
            .count()
    };
    assert_eq!(with(Finding::VertebralCollapse), 2 * 2);
    assert_eq!(with(Finding::Osteophytes), 2 * 20);
}

#[test]
fn the_choice_hangs_on_the_seed_and_not_on_the_order() {
    let mut a = dataset();
    hold_out_validation(&mut a, 0.2, 7).unwrap();
    let mut b = dataset();
    b.films.reverse();
    hold_out_validation(&mut b, 0.2, 7).unwrap();
    assert_eq!(a, b);
    hold_out_validation(&mut b, 0.2, 7).unwrap(); // again, over its own result
    assert_eq!(a, b);
    hold_out_validation(&mut b, 0.2, 8).unwrap();
    assert_ne!(validation_studies(&a), validation_studies(&b));
}

#[test]
fn a_rare_finding_is_on_both_sides() {
    let mut dataset = dataset();
    for (i, f) in dataset.films.iter_mut().enumerate() {
        if i >= 4 {
            f.annotation.boxes.retain(|b| b.label != Finding::VertebralCollapse.label());
        }
    }
    hold_out_validation(&mut dataset, 0.05, 1).unwrap();
    for split in [Split::Train, Split::Validation] {
        let with = dataset.of(split).filter(|f| f.annotation.boxes.len() == 2).count();
        assert_eq!(with, 2, "{split}");
    }
}

#[test]
fn too_little_to_split_is_refused() {
    let mut one = Dataset { films: vec![film("a", "s", Split::Train, &[])], ..Dataset::default() };
    let error = hold_out_validation(&mut one, 0.5, 1).unwrap_err();
    assert!(matches!(error, DataError::TooFewStudies { studies: 1, .. }), "{error}");
    for fraction in [0.0, 1.0, -0.1, f64::NAN] {
        let error = hold_out_validation(&mut dataset(), fraction, 1).unwrap_err();
        assert!(matches!(error, DataError::Setting { .. }), "{error}");
    }
}

#[test]
fn a_study_on_two_sides_is_named() {
    let films = vec![
        film("a", "s1", Split::Train, &[]),
        film("b", "s2", Split::Train, &[]),
        film("c", "s2", Split::Test, &[]),
    ];
    let error = check_leakage(&Dataset { films, ..Dataset::default() }).unwrap_err();
    assert!(
        matches!(&error, DataError::StudyInTwoSplits { study_id, first: Split::Train, second: Split::Test, .. } if study_id == "s2"),
        "{error}"
    );
    assert!(error.to_string().contains("`s2`") && error.to_string().contains("`c`"), "{error}");
}

#[test]
fn an_image_id_used_twice_is_named() {
    let films = vec![film("a", "s1", Split::Train, &[]), film("a", "s1", Split::Train, &[])];
    let error = check_leakage(&Dataset { films, ..Dataset::default() }).unwrap_err();
    assert!(matches!(&error, DataError::ImageTwice { image_id, .. } if image_id == "a"), "{error}");
}

#[test]
fn a_patient_on_two_sides_is_found_but_not_named() {
    let films = vec![
        film("a", "s1", Split::Train, &[]),
        film("b", "s2", Split::Test, &[]),
        film("c", "s3", Split::Test, &[]),
    ];
    let dataset = Dataset { films, ..Dataset::default() };
    check_patient_leakage(&dataset, |_| None).unwrap();
    check_patient_leakage(&dataset, |_| Some(" ".to_owned())).unwrap();
    let patient = |f: &Film| Some(if f.annotation.study_id == "s3" { "Q" } else { "MILLER" }.to_owned());
    let error = check_patient_leakage(&dataset, patient).unwrap_err().to_string();
    assert!(error.contains("s1") && error.contains("s2") && !error.contains("MILLER"), "{error}");
}
