//! `cargo xtask paper-tables`: both tables of the paper on synthetic films, for every detector there is a recipe for.
//!
//! The three classifiers are trained once and are the same in each framework; a framework is they, one detector and the
//! decision rule. Everything goes through the program's own commands, as a reader would call them.

use crate::process::{build_release, schedule, spinexr, train, visible};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const USAGE: &str = "\
Usage: cargo xtask paper-tables [OPTIONS]

Options:
  --studies N        Synthetic studies to train and validate on [500]
  --test-studies N   Synthetic studies to test on [150]
  --steps N          Training steps of every model, in place of the configurations'
  --threads N        Threads [2]
  --resume           Keep the films and the finished runs that are there; go on with the one that was broken off

Prints both tables as Markdown; films, runs, predictions and reports stay in target/paper-tables.
";

const CONFIGS: &str = "configs/synthetic";
const WORK: &str = "target/paper-tables";
/// Starts of the names of classifiers; all other recipes are detectors.
const CLASSIFIER: &str = "densenet";

struct Options {
    studies: u64,
    test_studies: u64,
    steps: Option<u64>,
    threads: u64,
    resume: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { studies: 500, test_studies: 150, steps: None, threads: 2, resume: false };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || -> Result<u64> {
                let value = args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"))?;
                value.parse().with_context(|| format!("{arg}: expected a whole number, got {value:?}"))
            };
            match arg.as_str() {
                "--studies" => options.studies = number()?,
                "--test-studies" => options.test_studies = number()?,
                "--steps" => options.steps = Some(number()?),
                "--threads" => options.threads = number()?,
                "--resume" => options.resume = true,
                other => bail!("unknown option {other:?}\n{USAGE}"),
            }
        }
        Ok(options)
    }
}

/// Makes the films, trains all models, predicts, evaluates and prints the tables.
pub fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        eprint!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(args)?;
    let (classifiers, detectors): (Vec<_>, Vec<_>) =
        recipes()?.into_iter().partition(|name| name.starts_with(CLASSIFIER));
    build_release()?;
    let work = Path::new(WORK);
    if work.exists() && !options.resume {
        std::fs::remove_dir_all(work).with_context(|| format!("removing {WORK}"))?;
    }
    let films = work.join("films");
    if !films.exists() {
        let mut synth = spinexr(options.threads);
        synth.arg("synth").arg(&films).args(["--balanced", "--size", "640", "--seed", "2021"]);
        synth.arg("--studies").arg(options.studies.to_string());
        visible(synth.arg("--test-studies").arg(options.test_studies.to_string()))?;
    }

    for name in classifiers.iter().chain(&detectors) {
        let config = format!("{CONFIGS}/{name}.toml");
        train(&config, &run_of(name), &schedule(options.steps), options.threads, options.resume)?;
    }

    let mut reports = Vec::new();
    for detector in &detectors {
        let (out, report) = (work.join("predictions").join(detector), work.join("reports").join(detector));
        let mut predict = spinexr(options.threads);
        let config = run_of(detector).join("config.toml");
        predict.arg("predict").arg("--config").arg(config).args(["--splits", "validation,test"]);
        for name in classifiers.iter().chain([detector]) {
            predict.arg("--model").arg(run_of(name).join(format!("{name}.spinexr")));
        }
        visible(predict.arg("-o").arg(&out))?;
        let mut evaluate = spinexr(options.threads);
        evaluate.args(["evaluate", "run", "--predictions"]).arg(out.join("predictions.jsonl"));
        evaluate.arg("--annotations").arg(&films).args(["--detector", detector]);
        visible(evaluate.arg("-o").arg(&report))?;
        let path = report.join("report.json");
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let json = serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
        reports.push((detector.clone(), json));
    }
    print!("{}", tables(&reports)?);
    Ok(())
}

fn run_of(name: &str) -> PathBuf {
    Path::new(WORK).join("runs").join(name)
}

/// The committed recipes by name.
fn recipes() -> Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(CONFIGS)
        .with_context(|| format!("reading {CONFIGS} (run from the repository root)"))?
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "n/a".to_owned(), |v| format!("{:.1}", 100.0 * v))
}

/// The paper's two tables, from one report for each detector.
fn tables(reports: &[(String, Value)]) -> Result<String> {
    let mut text = String::new();
    let (_, first) = reports.first().context("no detector has a recipe")?;
    let rows = first["classification"].as_object().context("a report without classification")?;
    writeln!(
        text,
        "| classifier | AUROC (95 % CI) | F1 | sensitivity | specificity |\n|---|---|---|---|---|"
    )?;
    for (name, row) in rows {
        let ci = &row["auroc_ci"];
        let interval = format!("{} ({}–{})", percent(&row["auroc"]), percent(&ci[0]), percent(&ci[1]));
        let [f1, sensitivity, specificity] =
            ["f1", "sensitivity", "specificity"].map(|key| percent(&row[key]));
        writeln!(text, "| {name} | {interval} | {f1} | {sensitivity} | {specificity} |")?;
    }
    let classes: Vec<&String> = first["detection"]["framework"]["ap50"]
        .as_object()
        .context("a report without detection")?
        .keys()
        .collect();
    write!(text, "\n| detector |")?;
    classes.iter().try_for_each(|class| write!(text, " {class} |"))?;
    writeln!(text, " mAP@0.5 (95 % CI) |\n|---|{}", "---|".repeat(classes.len() + 1))?;
    for (detector, report) in reports {
        for (row, title) in
            [(detector.as_str(), detector.clone()), ("framework", format!("framework of {detector}"))]
        {
            let row = &report["detection"][row];
            write!(text, "| {title} |")?;
            classes.iter().try_for_each(|class| write!(text, " {} |", percent(&row["ap50"][*class])))?;
            let ci = &row["map50_ci"];
            writeln!(text, " {} ({}–{}) |", percent(&row["map50"]), percent(&ci[0]), percent(&ci[1]))?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_detector_has_two_rows_and_what_is_undefined_says_so() {
        let report = serde_json::json!({
            "classification": {"ensemble": {
                "auroc": 0.9, "auroc_ci": [0.85, 0.94], "f1": 0.8, "sensitivity": 0.7, "specificity": null,
            }},
            "detection": {
                "small": {"ap50": {"Osteophytes": 0.25}, "map50": 0.25, "map50_ci": [0.2, 0.3]},
                "framework": {"ap50": {"Osteophytes": null}, "map50": 0.2},
            },
        });
        let text = tables(&[("small".to_owned(), report)]).unwrap();
        assert!(text.contains("| ensemble | 90.0 (85.0–94.0) | 80.0 | 70.0 | n/a |"), "{text}");
        assert!(
            text.contains(
                "| small | 25.0 | 25.0 (20.0–30.0) |\n| framework of small | n/a | 20.0 (n/a–n/a) |"
            ),
            "{text}"
        );
        assert!(tables(&[]).is_err());
    }
}
