//! `spinexr demo`: the whole paper on synthetic films, with the code that trains on real ones.
//!
//! Data, study-level split, preparation, two classifiers, a detector, c* from validation films, the decision
//! rule, both tables on test films that nothing was chosen on, report.

use crate::commands::model::{card_facts, decision};
use crate::console::Bar;
use crate::exit::{CommandResult, Done, usage};
use crate::{Global, evaluation, training};
use anyhow::{Context, Result, anyhow, bail};
use spinexr_core::{FilmPrediction, Split};
use spinexr_data::{Dataset, ReadyDataset, SplitDataset};
use spinexr_dicom::Limits;
use spinexr_eval::run::{LossCurve, Protocol, RunOptions, RunReport};
use spinexr_infer::card::card;
use spinexr_infer::pipeline::{FilmResult, Pipeline, PipelineOptions};
use spinexr_infer::weights_file::Storage;
use spinexr_infer::{Bundle, BundleInfo, Explainer, combine};
use spinexr_synth::SynthConfig;
use spinexr_train::{Experiment, Ranks, TrainData, TrainOutcome};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The experiments, as in `configs/demo`.
const EXPERIMENTS: [(&str, &str); 3] = [
    ("configs/demo/densenet_mini_a.toml", include_str!("../../../../configs/demo/densenet_mini_a.toml")),
    ("configs/demo/densenet_mini_b.toml", include_str!("../../../../configs/demo/densenet_mini_b.toml")),
    ("configs/demo/retinanet_mini.toml", include_str!("../../../../configs/demo/retinanet_mini.toml")),
];
/// Says that a folder was made here and may be replaced.
const MARKER: &str = "demo.json";

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr demo                                   about eight minutes on two cores\n  \
    spinexr demo --out tiny --studies 40 --test-studies 20 --steps 30    a quick look at the parts\n\n\
    Writes films, runs, the bundle framework.spinexr, predictions.jsonl, report.json, report.html, tables and plots.\n\
    The films are synthetic: the figures say that the code works, not how well it reads patients' films.")]
pub struct Args {
    /// Folder to write; an earlier demo there is replaced
    #[arg(long, default_value = "demo", value_name = "DIR")]
    out: PathBuf,
    /// Seed of films and training
    #[arg(long, default_value_t = 2021)]
    seed: u64,
    /// Synthetic studies to train and validate on
    #[arg(long, default_value_t = 800, value_name = "N")]
    studies: usize,
    /// Synthetic studies to test on
    #[arg(long, default_value_t = 150, value_name = "N")]
    test_studies: usize,
    /// Height of a film, px
    #[arg(long, default_value_t = 640, value_name = "PX", value_parser = clap::value_parser!(u32).range(256..=4096))]
    size: u32,
    /// Training steps of every model, in place of the configurations'
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    let start = Instant::now();
    let experiments = experiments(&args).map_err(usage)?;
    claim(&args.out, &args).map_err(usage)?;

    let say = |text: &str| eprintln!("[{:>4.0} s] {text}", start.elapsed().as_secs_f64());
    say("1/6 synthesising spine radiographs");
    synthesise(&args, global)?;

    say("2/6 reading, splitting by study, preparing");
    let ready = prepare(&experiments, global)?;
    let dataset = &ready.dataset;
    for split in Split::ALL {
        eprintln!("         {split}: {} films", dataset.of(split).count());
    }

    let mut bundles = vec![];
    let mut outcomes = vec![];
    for (i, experiment) in experiments.iter().enumerate() {
        say(&format!(
            "3/6 training model {} of {}: {} ({})",
            i + 1,
            experiments.len(),
            experiment.name,
            experiment.model.architecture
        ));
        let data = TrainData::open(experiment, &ready).map_err(anyhow::Error::from)?;
        let outcome = training::run(&training::Session {
            experiment,
            data: &data,
            out: &args.out.join("runs").join(&experiment.name),
            resume: false,
            stop_after: None,
            ranks: &Ranks::alone(),
            device: "cpu",
            threads: global.thread_count(),
            quiet: global.quiet,
        })?;
        bundles.push(training::bundle(experiment, &outcome, true)?);
        outcomes.push(outcome);
    }

    say("4/6 predicting validation and test films");
    let films = predict(&bundles, &experiments[0], dataset, global)?;

    say("5/6 choosing c* on validation films, computing both tables on test films");
    let report = evaluate(&args, films.clone(), dataset, &experiments, &outcomes)?;
    let bundle = freeze(&args, &bundles, &report, &films)?;
    write_predictions(&args.out, films, &bundle)?;

    say("6/6 writing the report");
    let device = PipelineOptions::default().device;
    let explainer = Explainer::load(&bundles, &device, Limits::default(), 0).map_err(anyhow::Error::from)?;
    let thumbnails = evaluation::thumbnails(&report, dataset, Some(&explainer));
    evaluation::write_report(&args.out, &report, &thumbnails)?;

    eprint!("{}", evaluation::tables(&report));
    eprintln!(
        "Synthetic films: these figures say that the code works, not how well it reads patients' films."
    );
    eprintln!("Bundle  {}", args.out.join("framework.spinexr").display());
    eprintln!("Report  {}", args.out.join("report.html").display());
    say(&format!("done{}", peak_memory().map_or_else(String::new, |mb| format!(", peak memory {mb:.0} MB"))));
    eprintln!("{}", crate::NOTICE);
    global.print_json(&report)?;
    Ok(Done::All)
}

/// The three experiments, with paths, seed and steps set.
fn experiments(args: &Args) -> Result<Vec<Experiment>> {
    let mut sets = vec![format!("seed={}", args.seed), format!("data.split_seed={}", args.seed)];
    sets.extend(args.steps.map(|n| format!("schedule.total_steps={n}")));
    sets.extend(args.steps.map(|n| format!("schedule.warmup_steps={}", n / 10)));
    EXPERIMENTS
        .iter()
        .map(|(path, text)| {
            let mut experiment = Experiment::parse(text, Path::new(path), &sets)?;
            experiment.data.dir = args.out.join("films");
            experiment.data.cache_dir = args.out.join("prepared");
            Ok(experiment)
        })
        .collect()
}

/// Makes the output folder, replacing an earlier demo but nothing else.
fn claim(out: &Path, args: &Args) -> Result<()> {
    let marker = out.join(MARKER);
    if out.exists() {
        let occupied =
            std::fs::read_dir(out).with_context(|| format!("reading {}", out.display()))?.next().is_some();
        if occupied && !marker.is_file() {
            bail!("{} is not empty and was not made by a demo; choose another --out", out.display());
        }
        std::fs::remove_dir_all(out)
            .with_context(|| format!("removing the earlier demo {}", out.display()))?;
    }
    std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let text = serde_json::json!({
        "made_by": concat!("spinexr ", env!("CARGO_PKG_VERSION"), " demo"),
        "seed": args.seed, "studies": args.studies, "test_studies": args.test_studies, "height_px": args.size,
    });
    std::fs::write(&marker, format!("{text}\n")).with_context(|| format!("writing {}", marker.display()))
}

fn synthesise(args: &Args, global: &Global) -> Result<()> {
    let config = SynthConfig {
        studies: args.studies,
        test_studies: args.test_studies,
        seed: args.seed,
        height_px: args.size,
        balanced: true,
    };
    let bar = Bar::new("synthesising films", global.quiet);
    spinexr_synth::generate(&args.out.join("films"), &config, &|p| bar.update(p))?;
    bar.finish();
    Ok(())
}

/// Films of all splits, prepared for every model.
fn prepare(experiments: &[Experiment], global: &Global) -> Result<ReadyDataset> {
    let first = &experiments[0];
    let split = SplitDataset::read(
        &first.data.dir,
        first.data.format,
        first.data.validation_fraction,
        first.data.split_seed,
    )?;
    let inputs: Vec<_> = experiments.iter().map(|e| (e.data.policy, e.model.input)).collect();
    let bar = Bar::new("preparing films", global.quiet);
    let (cache_dir, threads) = (&first.data.cache_dir, global.thread_count());
    let ready = split.prepare(&Split::ALL, cache_dir, &inputs, threads, &|p| bar.update(p))?;
    bar.finish();
    match ready.left_out.first() {
        Some(failure) => bail!("a synthetic film cannot be read: {}", failure.error),
        None => Ok(ready),
    }
}

fn predict(
    bundles: &[Bundle],
    first: &Experiment,
    dataset: &Dataset,
    global: &Global,
) -> Result<Vec<FilmPrediction>> {
    let options = PipelineOptions { threads: global.thread_count(), batch: 8, ..PipelineOptions::default() };
    let pipeline = Pipeline::load(bundles, options)?;
    let chosen: Vec<_> = dataset.films.iter().filter(|f| f.split != Split::Train).cloned().collect();
    let mut films = Vec::with_capacity(chosen.len());
    let mut failed = None;
    let bar = Bar::new("predicting", global.quiet);
    let mut on_film = |result: FilmResult| match result.outcome {
        Ok(film) => {
            films.push(film);
            ControlFlow::Continue(())
        }
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    };
    pipeline.predict_prepared(&first.data.cache_dir, &chosen, &mut on_film, &|p| bar.update(p))?;
    bar.finish();
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(films),
    }
}

fn evaluate(
    args: &Args,
    films: Vec<FilmPrediction>,
    dataset: &Dataset,
    experiments: &[Experiment],
    outcomes: &[TrainOutcome],
) -> Result<RunReport> {
    let mut options =
        RunOptions::new("The VinDr-SpineXR paper on synthetic films", Protocol::Improved, args.seed);
    options.synthetic = true;
    options.detector = Some(experiments[2].name.clone());
    options.provenance.command = Some(std::env::args().collect::<Vec<_>>().join(" "));
    options.provenance.seed = Some(args.seed);
    options.provenance.data_hash = Some(outcomes[0].data_hash.clone());
    options.provenance.versions.insert("spinexr".into(), env!("CARGO_PKG_VERSION").into());
    for (experiment, outcome) in experiments.iter().zip(outcomes) {
        options.losses.push(loss_curve(&experiment.name, outcome)?);
        options.provenance.other.insert(format!("{} weights", experiment.name), outcome.weights_hash.clone());
    }
    Ok(evaluation::evaluate(films, dataset, &options)?.1)
}

/// Loss by step from the run's log, thinned to about 200 points by averaging.
fn loss_curve(name: &str, outcome: &TrainOutcome) -> Result<LossCurve> {
    let steps = spinexr_train::read_log(&outcome.run.log())?;
    let chunk = steps.len().div_ceil(200).max(1);
    let points = steps
        .chunks(chunk)
        .map(|part| {
            let loss = part.iter().map(|s| s.loss).sum::<f64>() / part.len() as f64;
            [part[part.len() - 1].step as f64, loss]
        })
        .collect();
    Ok(LossCurve { name: name.to_owned(), points })
}

/// All models and the decision rule in one bundle.
fn freeze(args: &Args, bundles: &[Bundle], report: &RunReport, films: &[FilmPrediction]) -> Result<Bundle> {
    let validation = films.iter().filter(|f| f.split == Some(Split::Validation)).count();
    let decision =
        decision(report, validation, films.first().and_then(|f| f.method.clone())).ok_or_else(|| {
            anyhow!(
                "no threshold can be chosen: the validation films are of one kind only; use more --studies"
            )
        })?;
    let info = BundleInfo {
        name: "synthetic-demo".to_owned(),
        licence: "Apache-2.0".to_owned(),
        intended_use:
            "Shows how the program works. Trained on synthetic films only; says nothing about patients. \
                       Not a medical device."
                .to_owned(),
        demonstration: true,
    };
    let facts = card_facts(report);
    let bundle = combine(bundles, info, Some(decision), Storage::F16, |m| card(m, &facts))?;
    bundle.save(&args.out.join("framework.spinexr"))?;
    Ok(bundle)
}

/// The records with the decision rule of the bundle applied.
fn write_predictions(out: &Path, mut films: Vec<FilmPrediction>, bundle: &Bundle) -> Result<()> {
    if let Some(decision) = &bundle.manifest().decision {
        for film in &mut films {
            film.apply_gate(&decision.gate());
        }
    }
    spinexr_eval::records::write(&out.join("predictions.jsonl"), &films)?;
    Ok(())
}

/// Highest resident memory of this process so far, MB; `None` where the system does not tell.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kb: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kb / 1e3)
}
