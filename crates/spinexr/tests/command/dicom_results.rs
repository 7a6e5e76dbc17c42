//! DICOM results of `predict`, and `read-sr`.

use crate::{a_film, json, spinexr};
use std::fs;

#[test]
fn films_get_three_objects_and_pictures_are_told_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    fs::create_dir(&input).unwrap();
    fs::copy(a_film(), input.join("film.dcm")).unwrap();
    image::GrayImage::from_pixel(64, 96, image::Luma([90])).save(input.join("picture.png")).unwrap();
    let predict = |folder: &str| {
        let mut command = spinexr(dir.path());
        command.args(["predict", "in", "-o", folder, "--format", "jsonl,sr,gsps,sc", "--json"]);
        command.output().unwrap()
    };
    let output = predict("out");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let document = json(&output);
    assert_eq!(document["predicted"], 2, "the picture is predicted, it only has no DICOM results");
    let failed = document["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["error"].as_str().unwrap().contains("a PNG file has no DICOM header"), "{failed:?}");
    let names = |folder: &str| {
        let entries = fs::read_dir(dir.path().join(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("out"), ["film.gsps.dcm", "film.sc.dcm", "film.sr.dcm", "predictions.jsonl"]);

    predict("again");
    for name in names("out").iter().filter(|name| name.ends_with(".dcm")) {
        let of = |folder: &str| fs::read(dir.path().join(folder).join(name)).unwrap();
        assert!(of("out") == of("again"), "{name} differs in a second run");
    }

    let output = spinexr(dir.path()).args(["read-sr", "out/film.sr.dcm", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report = &json(&output)["reports"][0];
    let lines = fs::read_to_string(dir.path().join("out/predictions.jsonl")).unwrap();
    let record: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let read = &report["films"][0];
    assert_eq!(read["p_abnormal"], record["p_abnormal"]);
    let least = read["least_confidence"].as_f64().unwrap();
    let score = |b: &serde_json::Value| b["score"].as_f64().unwrap();
    let mut boxes = record["boxes"].as_array().unwrap().clone();
    boxes.retain(|b| score(b) >= least);
    boxes.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let found = read["boxes"].as_array().unwrap();
    assert_eq!(found.len(), boxes.len());
    // One prints an f32 as the f64 that it is, the other in as few digits as it needs.
    let single = |value: &serde_json::Value| value.as_f64().unwrap() as f32;
    let corners =
        |b: &serde_json::Value| -> Vec<f32> { b["xyxy"].as_array().unwrap().iter().map(single).collect() };
    for (found, b) in found.iter().zip(&boxes) {
        assert_eq!(found["label"], b["label"]);
        assert_eq!(single(&found["confidence"]), single(&b["score"]));
        assert_eq!(corners(found), corners(b));
    }
}

#[test]
fn dicom_results_need_a_folder_and_reports_are_reports() {
    let dir = tempfile::tempdir().unwrap();
    spinexr(dir.path()).arg("predict").arg(a_film()).args(["--format", "sr"]).assert().code(2);
    spinexr(dir.path()).arg("predict").arg(a_film()).args(["--content-time", "today"]).assert().code(2);
    let output = spinexr(dir.path()).arg("read-sr").arg(a_film()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("expected (126000,DCM"), "{text}");
}
