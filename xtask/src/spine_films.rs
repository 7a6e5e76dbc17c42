//! `cargo xtask spine-films`: detectors on real spine films, beside torchvision's.
//!
//! The films are a public set of AP radiographs with vertebra boxes. They are not in the repository, and neither they nor
//! weights trained on them may be: all of it stays under `target/spine-films`. The list of films matters, since half
//! of the set's files are mirrored copies that lie across its folders.

use crate::bench_peers::python;
use crate::process::{build_release, schedule, spinexr, train, visible};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const USAGE: &str = "\
Usage: cargo xtask spine-films --films DIR --list FILE.tsv [OPTIONS]

  --films DIR    Folder that holds the set's `Dataset`
  --list FILE    Tab-separated: split (train or val), group (the exam), path_in_repo

Options:
  --steps N      Training steps of every model, in place of the configurations'
  --seed S       Order of films and changes to them [1]
  --threads N    Threads on both sides [2]
  --python EXE   An interpreter that has the packages of benches/peers/requirements.txt
  --resume       Keep the finished runs that are there; go on with the one that was broken off
  --ours-only    Without torchvision's side
";

const SCRIPT: &str = "benches/peers/spine_films.py";
const CONFIGS: &str = "configs/spine_films";
const WORK: &str = "target/spine-films";
/// The one that torchvision's side shares its recipe and its first weights with.
const SHARED: &str = "retinanet_r18";

/// What torchvision's side found.
const TORCHVISION: &str = "torchvision.coco.json";

struct Options {
    films: PathBuf,
    list: PathBuf,
    steps: Option<u64>,
    seed: u64,
    threads: u64,
    python: Option<PathBuf>,
    resume: bool,
    ours_only: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let (mut films, mut list, mut python) = (None, None, None);
        let (mut steps, mut seed, mut threads, mut resume, mut ours_only) = (None, 1, 2, false, false);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
            let number = |text: &String| {
                text.parse().with_context(|| format!("{arg}: expected a whole number, got {text:?}"))
            };
            match arg.as_str() {
                "--films" => films = Some(value()?.into()),
                "--list" => list = Some(value()?.into()),
                "--python" => python = Some(value()?.into()),
                "--steps" => steps = Some(number(value()?)?),
                "--seed" => seed = number(value()?)?,
                "--threads" => threads = number(value()?)?,
                "--resume" => resume = true,
                "--ours-only" => ours_only = true,
                other => bail!("unknown option {other:?}\n{USAGE}"),
            }
        }
        let films = films.with_context(|| format!("--films is missing\n{USAGE}"))?;
        let list = list.with_context(|| format!("--list is missing\n{USAGE}"))?;
        Ok(Self { films, list, steps, seed, threads, python, resume, ours_only })
    }
}

/// Prepares the set, trains all sides and prints AP@0.5 on the held-out films.
pub fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        eprint!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(args)?;
    let work = Path::new(WORK);
    let python = match &options.python {
        Some(python) => python.clone(),
        None => python::environment(Path::new("target/bench-peers"))?,
    };
    let script = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.arg(SCRIPT).args(arguments);
        command
    };
    let at = |name: &str| work.join(name).display().to_string();
    let (set, initial, shared) =
        (at("set"), at(&format!("{SHARED}.safetensors")), format!("{CONFIGS}/{SHARED}.toml"));
    let (films, list) = (options.films.display().to_string(), options.list.display().to_string());
    if !(options.resume && Path::new(&initial).exists()) {
        let _ = std::fs::remove_dir_all(work.join("set"));
        visible(&mut script(&["prepare", "--films", &films, "--list", &list, "--out", &set]))?;
        visible(&mut script(&["initial", "--config", &shared, "--out", &initial]))?;
    }
    build_release()?;

    let threads = options.threads.to_string();
    let seed = options.seed.to_string();
    let runs = work.join(format!("seed{seed}"));
    if !options.resume {
        let _ = std::fs::remove_dir_all(&runs);
    }
    let mut records = Vec::new();
    for name in configurations()? {
        let run = runs.join(&name);
        let mut own = schedule(options.steps);
        own.extend(["--seed".to_owned(), seed.clone()]);
        train(&format!("{CONFIGS}/{name}.toml"), &run, &own, options.threads, options.resume)?;
        let mut predict = spinexr(options.threads);
        let bundle = run.join(format!("{name}.spinexr"));
        let out = run.join("predictions").join(&name);
        predict.arg("predict").arg("--config").arg(run.join("config.toml")).args(["--splits", "test"]);
        visible(predict.arg("--model").arg(bundle).arg("-o").arg(&out))?;
        records.push(out.join("predictions.jsonl"));
    }
    let runs_text = runs.display().to_string();
    let is_done = options.resume && runs.join(TORCHVISION).exists();
    if !options.ours_only && !is_done {
        let mut train = script(&["train", "--config", &shared, "--set", &set, "--initial", &initial]);
        train.args(["--out", &runs_text, "--threads", &threads, "--seed", &seed]);
        if let Some(steps) = options.steps {
            train.args(["--steps", &steps.to_string()]);
        }
        visible(&mut train)?;
    }
    let mut coco = script(&["coco", "--set", &set, "--out", &runs_text]);
    visible(coco.args(&records))?;
    report(&runs, &records)
}

/// The committed experiments by name, the shared one first.
fn configurations() -> Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(CONFIGS)
        .with_context(|| format!("reading {CONFIGS} (run from the repository root)"))?
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort_by_key(|name| (name != SHARED, name.clone()));
    Ok(names)
}

/// AP@0.5 of each side by the same evaluator, as a Markdown table.
fn report(runs: &Path, records: &[PathBuf]) -> Result<()> {
    let mut sides: Vec<String> =
        records.iter().filter_map(|path| path.parent()?.file_name()?.to_str().map(str::to_owned)).collect();
    if runs.join(TORCHVISION).exists() {
        sides.push("torchvision".to_owned());
    }
    println!("| detector | AP@0.5 on the held-out films |\n|---|---|");
    for side in sides {
        let mut evaluate = Command::new("target/release/spinexr");
        evaluate.args(["--json", "evaluate", "detections", "--iou", "0.5", "--gt"]);
        evaluate.arg(runs.join("truth.json")).arg("--dt").arg(runs.join(format!("{side}.coco.json")));
        let output = evaluate.stderr(Stdio::inherit()).output().context("starting spinexr")?;
        let json: Value = serde_json::from_slice(&output.stdout).context("reading the evaluation")?;
        let ap = json["map50"].as_f64().map_or_else(|| "n/a".to_owned(), |ap| format!("{:.1}", 100.0 * ap));
        println!("| {side} | {ap} |");
    }
    Ok(())
}
