//! No threshold is chosen on films that a model was trained on.

use crate::resume::train_arguments;
use crate::{films, spinexr};
use std::path::Path;
use std::process::Output;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn train(dir: &Path, out: &str, split_seed: &str) {
    spinexr(dir)
        .args(train_arguments(out))
        .args(["--set", "schedule.total_steps=1", "--set", "schedule.warmup_steps=0", "--set"])
        .arg(format!("data.split_seed={split_seed}"))
        .assert()
        .success();
}

#[test]
fn models_that_held_out_other_studies_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "a", "0");
    train(dir.path(), "b", "1");

    let predict = |model: Option<&str>, splits: &str, out: &str| {
        let mut command = spinexr(dir.path());
        command.args(["predict", "--config", "a/config.toml", "--splits", splits, "-o", out]);
        command.args(model.map(|model| ["--model", model]).iter().flatten());
        command.output().unwrap()
    };
    let (a, b) = ("a/densenet_mini_a.spinexr", "b/densenet_mini_a.spinexr");
    let fits = predict(Some(a), "validation,test", "out");
    assert_eq!(fits.status.code(), Some(0), "{}", text(&fits));
    let refused = predict(Some(b), "validation,test", "refused");
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    for part in ["densenet_mini_a", "split seed 1", "split seed 0", "may have been trained on them"] {
        assert!(text(&refused).contains(part), "{part:?} is missing: {}", text(&refused));
    }
    // The bundle inside the program held out studies of the demo's own films.
    let shipped = predict(None, "validation", "refused");
    assert_eq!(shipped.status.code(), Some(2), "{}", text(&shipped));
    assert!(
        text(&shipped).contains("was trained with other validation studies held out"),
        "{}",
        text(&shipped)
    );
    assert!(!dir.path().join("refused").exists(), "a refusal leaves nothing behind");
    // Test films were held out by everyone.
    let on_test = predict(Some(b), "test", "on_test");
    assert_eq!(on_test.status.code(), Some(0), "{}", text(&on_test));

    let combine = |model: &str| {
        spinexr(dir.path())
            .args(["model", "combine", model, "--predictions", "out/predictions.jsonl", "-o", "f.spinexr"])
            .arg("--annotations")
            .arg(films())
            .output()
            .unwrap()
    };
    let refused = combine(b);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("they may have been trained on it"), "{}", text(&refused));
    assert!(!dir.path().join("f.spinexr").exists());
    let fits = combine(a);
    assert_eq!(fits.status.code(), Some(0), "{}", text(&fits));
    let manifest = std::fs::read_to_string(dir.path().join("f.spinexr/bundle.toml")).unwrap();
    assert!(manifest.contains("split_seed = 0") && manifest.contains("c_star"), "{manifest}");
    figures_are_of_new_films(dir.path(), a, b);
    a_card_says_what_is_not_known(dir.path(), a);
}

/// `evaluate run --model` takes the records of that bundle, on films that it was not trained on.
fn figures_are_of_new_films(dir: &Path, own: &str, other: &str) {
    let evaluate = |predictions: &str, model: &str| {
        spinexr(dir)
            .args(["evaluate", "run", "--predictions", predictions, "--model", model, "-o", "report"])
            .arg("--annotations")
            .arg(films())
            .output()
            .unwrap()
    };
    let fits = evaluate("out/predictions.jsonl", own);
    assert_eq!(fits.status.code(), Some(0), "{}", text(&fits));
    let refused = evaluate("out/predictions.jsonl", other);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("was made by bundle"), "{}", text(&refused));

    // A film that the model was trained on, called a test film.
    let records = std::fs::read_to_string(dir.join("out/predictions.jsonl")).unwrap();
    let annotations = std::fs::read_to_string(films().join("annotations/train.csv")).unwrap();
    let column = annotations.lines().next().unwrap().split(',').position(|name| name == "image_id").unwrap();
    let trained = annotations
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(column).unwrap())
        .find(|image| !records.contains(image))
        .unwrap();
    let mut planted: serde_json::Value = serde_json::from_str(records.lines().next().unwrap()).unwrap();
    planted["image"] = trained.into();
    planted["split"] = "test".into();
    std::fs::write(dir.join("planted.jsonl"), format!("{records}{planted}\n")).unwrap();
    let refused = evaluate("planted.jsonl", own);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    for part in [trained, "the models were trained on that study"] {
        assert!(text(&refused).contains(part), "{part:?} is missing: {}", text(&refused));
    }
}

/// The card holds the bundle's and the report's facts, and guesses nothing.
fn a_card_says_what_is_not_known(dir: &Path, bundle: &str) {
    std::fs::write(dir.join("said.toml"), "funding = \"A grant.\"\n").unwrap();
    std::fs::write(dir.join("misspelt.toml"), "fundings = \"A grant.\"\n").unwrap();
    let card = |statements: &str| {
        spinexr(dir)
            .args(["model", "card", bundle, "--report", "report/report.json", "-o", "cards", "--statements"])
            .arg(statements)
            .output()
            .unwrap()
    };
    let refused = card("misspelt.toml");
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("\"fundings\"") && !dir.join("cards").exists(), "{}", text(&refused));
    let written = card("said.toml");
    assert_eq!(written.status.code(), Some(0), "{}", text(&written));
    let read = |name: &str| std::fs::read_to_string(dir.join("cards").join(name)).unwrap();
    let (card, sheet) = (read("model_card.md"), read("data_sheet.md"));
    for part in [
        "## Reference standard",
        "## Data partitions",
        "Who marked the films.** Not known (key `annotators`)",
        "Funding.** ✎ A grant.",
        "| AUROC, densenet_mini_a |",
        "split seed 0",
    ] {
        assert!(card.contains(part), "{part:?} is missing:\n{card}");
    }
    assert!(
        sheet.contains("Consent and ethical review.** Not known") && sheet.contains("| view |"),
        "{sheet}"
    );
}
