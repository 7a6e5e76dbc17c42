//! Reports from records alone: comparisons, drift, and what must be refused.

use crate::{films, json, own_films, spinexr};
use serde_json::{Value, json as object};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One film of a data set's annotation files.
struct Annotated {
    image: String,
    study: String,
    abnormal: bool,
    split: &'static str,
}

/// The films of a data set; every other study of its training part is called validation.
fn annotated(dir: &Path) -> Vec<Annotated> {
    let mut films: BTreeMap<String, Annotated> = BTreeMap::new();
    for (part, split) in [("train", "validation"), ("test", "test")] {
        let text = fs::read_to_string(dir.join(format!("annotations/{part}.csv"))).unwrap();
        let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        let column = |name: &str| header.iter().position(|h| *h == name).unwrap();
        let (study, image, lesion) = (column("study_id"), column("image_id"), column("lesion_type"));
        for line in text.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            films.insert(
                cells[image].to_owned(),
                Annotated {
                    image: cells[image].to_owned(),
                    study: cells[study].to_owned(),
                    abnormal: cells[lesion] != "No finding",
                    split,
                },
            );
        }
    }
    let mut studies: Vec<String> =
        films.values().filter(|f| f.split == "validation").map(|f| f.study.clone()).collect();
    studies.sort();
    studies.dedup();
    let kept = |f: &Annotated| {
        f.split == "test" || studies.iter().position(|s| *s == f.study).is_some_and(|i| i % 2 == 0)
    };
    films.into_values().filter(kept).collect()
}

/// Records of a made-up classifier and detector, right more often the smaller `noise` is.
fn records(films: &[Annotated], noise: f64, seed: u32, maker: &str) -> Vec<Value> {
    let record = |(i, film): (usize, &Annotated)| {
        let random = f64::from((i as u32 + 1).wrapping_mul(2_654_435_761).wrapping_add(seed * 977) >> 8)
            / f64::from(1 << 24);
        let logit = if film.abnormal { 1.0 } else { -1.0 } + noise * (random - 0.5);
        object!({
            "image": film.image, "study": film.study, "split": film.split, "height_px": 256, "width_px": 170,
            "facts": {"sex": if i % 4 < 2 { "F" } else { "M" }, "manufacturer": maker},
            "logits": {"m": logit}, "p_abnormal": 1.0 / (1.0 + (-logit).exp()), "threshold": null, "boxes": [],
            "boxes_before_gate": [{"label": "Osteophytes", "score": random, "xyxy": [20.0, 30.0, 60.0, 70.0]}],
            "pixels": {}, "model": "a bundle"
        })
    };
    films.iter().enumerate().map(record).collect()
}

fn write(path: &Path, records: &[Value]) {
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_run_leaves_tables_and_plots_beside_its_report() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("p.jsonl"), &records(&annotated(films()), 3.0, 1, "MAKER"));
    let output = spinexr(dir.path())
        .args(["evaluate", "run", "--json", "-o", "r", "--predictions", "p.jsonl", "--annotations"])
        .arg(films())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output);
    let facts: Vec<&str> =
        report["subgroups"].as_array().unwrap().iter().map(|s| s["fact"].as_str().unwrap()).collect();
    assert_eq!(facts, ["sex", "manufacturer", "longer side"]);
    for name in [
        "report.html",
        "report.json",
        "tables/classification.csv",
        "tables/classification.tex",
        "tables/detection.csv",
        "tables/subgroups.tex",
        "plots/roc.svg",
        "plots/roc.png",
        "plots/froc.png",
    ] {
        assert!(dir.path().join("r").join(name).metadata().unwrap().len() > 100, "{name}");
    }
}

#[test]
fn runs_are_compared_and_other_films_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let all = annotated(films());
    for (name, noise, seed) in [("good", 1.0, 1), ("bad1", 9.0, 2), ("bad2", 9.0, 3)] {
        write(&dir.path().join(format!("{name}.jsonl")), &records(&all, noise, seed, "MAKER"));
    }
    let compare = |runs: &[&str]| {
        spinexr(dir.path())
            .args(["evaluate", "compare", "--json", "--resamples", "200", "-o", "c", "--annotations"])
            .arg(films())
            .args(runs)
            .output()
            .unwrap()
    };
    let output = compare(&["good=good.jsonl", "bad=bad1.jsonl", "bad=bad2.jsonl"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!(report["methods"][1]["sources"].as_array().unwrap().len(), 2);
    assert!(report["methods"][1]["auroc"]["sd"].is_number());
    assert!(report["tests"].as_array().unwrap().iter().all(|t| t["first"] == "good" && t["second"] == "bad"));
    for name in [
        "comparison.html",
        "comparison.json",
        "tables/methods.csv",
        "tables/paired_tests.tex",
        "plots/roc.png",
    ] {
        assert!(dir.path().join("c").join(name).is_file(), "{name}");
    }
    let lost = &all.iter().find(|film| film.split == "test").unwrap().image;
    let mut one_less = records(&all, 1.0, 1, "MAKER");
    one_less.retain(|record| record["image"] != lost.as_str());
    write(&dir.path().join("less.jsonl"), &one_less);
    let output = compare(&["good.jsonl", "less.jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(lost.as_str()), "{}", text(&output.stderr));
    assert_eq!(compare(&["=good.jsonl"]).status.code(), Some(2));
}

#[test]
fn drift_is_told_in_words_and_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let all = annotated(films());
    write(&dir.path().join("reference.jsonl"), &records(&all, 3.0, 1, "MAKER"));
    write(&dir.path().join("batch.jsonl"), &records(&all, 3.0, 1, "ANOTHER"));
    let drift = |split: &str| {
        spinexr(dir.path())
            .args(["evaluate", "drift", "--json", "--reference", "reference.jsonl", "--batch", "batch.jsonl"])
            .args(["--permutations", "999", "-o", "drift.json", "--reference-split", split])
            .output()
            .unwrap()
    };
    let output = drift("test");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output);
    let row = |name: &str| {
        report["rows"].as_array().unwrap().iter().find(|r| r["quantity"] == name).unwrap().clone()
    };
    assert_eq!(row("manufacturer")["differs"], true);
    assert_eq!(row("sex")["differs"], false);
    let said = text(&output.stderr);
    assert!(
        said.contains("Drift:") && said.contains("manufacturer") && said.contains("films are in both"),
        "{said}"
    );
    let written: Value = serde_json::from_slice(&fs::read(dir.path().join("drift.json")).unwrap()).unwrap();
    assert_eq!(written, report);
    assert_eq!(drift("train").status.code(), Some(2));
}

#[test]
fn a_study_in_two_parts_is_refused_wherever_it_hides() {
    let dir = tempfile::tempdir().unwrap();
    let all = annotated(films());
    let evaluate = |annotations: &Path| {
        spinexr(dir.path())
            .args(["evaluate", "run", "--predictions", "p.jsonl", "--annotations"])
            .arg(annotations)
            .output()
            .unwrap()
    };
    // A training record of a test film's study.
    let mut leaking = records(&all, 3.0, 1, "MAKER");
    let tested = leaking.iter().find(|r| r["split"] == "test").unwrap()["study"].clone();
    leaking.push({
        let mut record = leaking[0].clone();
        record["image"] = "of_the_training".into();
        record["study"] = tested.clone();
        record["split"] = "train".into();
        record
    });
    write(&dir.path().join("p.jsonl"), &leaking);
    let output = evaluate(films());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(tested.as_str().unwrap()) && said.contains("splits are by study"), "{said}");

    // A training film that the records do not hold, of a study that is tested.
    let own = dir.path().join("films");
    own_films(&own);
    write(&dir.path().join("p.jsonl"), &records(&all, 3.0, 1, "MAKER"));
    assert!(evaluate(&own).status.success());
    let csv = own.join("annotations/train.csv");
    let annotations = fs::read_to_string(&csv).unwrap();
    let predicted: Vec<&str> = all.iter().map(|f| f.study.as_str()).collect();
    let unused = annotations
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().unwrap())
        .find(|study| !predicted.contains(study))
        .unwrap();
    fs::write(&csv, annotations.replace(unused, tested.as_str().unwrap())).unwrap();
    let output = evaluate(&own);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("training part"), "{}", text(&output.stderr));
}
