//! `spinexr model`: bundles looked at, verified, put together with their decision rule, made of other programs'
//! weights and written for other programs.

mod card;
mod export;
mod import;

use crate::Global;
use crate::console::table;
use crate::evaluation::{self, AnnotationsArgs};
use crate::exit::{CommandError, CommandResult, Done, usage};
use crate::training::{INTENDED_USE, UNKNOWN_LICENCE};
use crate::training_films;
use anyhow::anyhow;
use clap::Subcommand;
use spinexr_core::{FilmPrediction, Method, Split};
use spinexr_eval::run::{Protocol, RunOptions, RunReport};
use spinexr_eval::{Predictions, Validation};
use spinexr_infer::card::{CardFacts, CardMetric, card as bundle_card};
use spinexr_infer::manifest::ChosenOn;
use spinexr_infer::weights_file::Storage;
use spinexr_infer::{Bundle, BundleInfo, Decision, combine};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What a bundle holds: models, input, thresholds, origin
    Inspect {
        /// Bundle folder
        bundle: PathBuf,
    },
    /// Check a bundle's checksums and that its weights fit its models
    Verify {
        /// Bundle folder
        bundle: PathBuf,
    },
    /// Put classifiers and a detector together, with c* chosen on validation predictions
    Combine(CombineArgs),
    /// A model card under the headings of CLAIM 2024 and a data sheet, from a bundle and its report
    Card(card::CardArgs),
    /// Make a bundle of another program's weights
    Import(import::ImportArgs),
    /// Write a bundle's weights or networks for other programs
    Export(export::ExportArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    spinexr predict --config runs/a/config.toml --splits validation,test --model runs/a/a.spinexr \\\n    \
    --model runs/det/det.spinexr -o out\n  \
    spinexr model combine runs/a/a.spinexr runs/det/det.spinexr --predictions out/predictions.jsonl \\\n    \
    --annotations /data/vindr-spinexr -o framework.spinexr")]
struct CombineArgs {
    /// Bundles to put together
    #[arg(required = true)]
    bundles: Vec<PathBuf>,
    /// Records of these bundles on validation films (and test films, for the card)
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    #[command(flatten)]
    annotations: AnnotationsArgs,
    /// Bundle to write
    #[arg(short, long, value_name = "BUNDLE")]
    output: PathBuf,
    /// Licence of the weights
    #[arg(long, default_value = UNKNOWN_LICENCE)]
    licence: String,
    /// Store weights in half precision
    #[arg(long)]
    half: bool,
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    match args.what {
        What::Inspect { bundle } => inspect(&bundle, global),
        What::Verify { bundle } => verify(&bundle, global),
        What::Combine(args) => combine_bundles(args, global),
        What::Card(args) => card::run(&args, global),
        What::Import(args) => import::run(args, global),
        What::Export(args) => export::run(&args, global),
    }
}

fn inspect(path: &Path, global: &Global) -> CommandResult {
    let bundle = Bundle::load(path).map_err(anyhow::Error::from)?;
    let manifest = bundle.manifest();
    let rows: Vec<Vec<String>> = manifest
        .models
        .iter()
        .map(|m| {
            let size = format!("{} × {}", m.input.height_px, m.input.width_px);
            vec![m.name.clone(), m.architecture.name().to_owned(), size, m.classes.len().to_string()]
        })
        .collect();
    eprint!("{}", table(&["model", "architecture", "input, px", "classes"], &rows));
    match &manifest.decision {
        Some(d) => {
            eprintln!("c* = {:.4}, chosen on {} validation films", d.c_star, d.films);
            if let Some(method) = &d.method {
                eprintln!("with {method}");
            }
        }
        None => eprintln!("no decision rule yet; see `spinexr model combine`"),
    }
    eprintln!("{:.1} MB, hash {}", bundle.size_bytes() as f64 / 1e6, bundle.hash());
    eprintln!("{}", bundle.card());
    global.print_json(manifest)?;
    Ok(Done::All)
}

fn verify(path: &Path, global: &Global) -> CommandResult {
    let bundle = Bundle::load(path).map_err(anyhow::Error::from)?;
    let device = spinexr_infer::parse_device("cpu").map_err(usage)?;
    let models = spinexr_infer::model::load_models(&bundle, &device).map_err(anyhow::Error::from)?;
    eprintln!("{}: checksums match, all tensors of {} models fit", path.display(), models.len());
    global
        .print_json(&serde_json::json!({ "bundle": path, "models": models.len(), "hash": bundle.hash() }))?;
    Ok(Done::All)
}

fn combine_bundles(args: CombineArgs, global: &Global) -> CommandResult {
    let bundles =
        args.bundles.iter().map(|p| Bundle::load(p)).collect::<Result<Vec<_>, _>>().map_err(usage)?;
    let (films, dataset) = evaluation::read(&args.predictions, &args.annotations)?;
    let validation: Vec<_> = films.iter().filter(|f| f.split == Some(Split::Validation)).cloned().collect();
    let validation = Predictions::<Validation>::new(validation).map_err(anyhow::Error::from)?;
    let expected: Vec<&str> = bundles
        .iter()
        .flat_map(|b| &b.manifest().models)
        .filter(|m| m.is_of_ensemble())
        .map(|m| m.name.as_str())
        .collect();
    if validation.models().iter().any(|m| !expected.contains(&m.as_str()))
        || validation.models().len() != expected.len()
    {
        return Err(usage(anyhow!(
            "the predictions are of the classifiers {:?}; expected those of the bundles: {expected:?}",
            validation.models()
        )));
    }
    training_films::check_hold_outs(&bundles, &validation, &args.annotations)?;
    let method = common_method(&films)?;
    let (_, report) =
        evaluation::evaluate(films, &dataset, &RunOptions::new("validation", Protocol::Improved, 0))?;
    let decision = decision(&report, validation.len(), method)
        .ok_or_else(|| anyhow!("no threshold can be chosen: the validation films are of one kind only"))?;
    let name =
        args.output.file_stem().map_or_else(|| "framework".into(), |s| s.to_string_lossy().into_owned());
    let info = BundleInfo {
        name,
        licence: args.licence,
        intended_use: INTENDED_USE.to_owned(),
        demonstration: false,
    };
    let facts = card_facts(&report);
    let storage = if args.half { Storage::F16 } else { Storage::F32 };
    let bundle = combine(&bundles, info, Some(decision.clone()), storage, |m| bundle_card(m, &facts))
        .map_err(anyhow::Error::from)?;
    bundle.save(&args.output).map_err(anyhow::Error::from)?;
    eprintln!(
        "{}: c* = {:.4} from {} validation films",
        args.output.display(),
        decision.c_star,
        decision.films
    );
    global.print_json(bundle.manifest())?;
    Ok(Done::All)
}

/// The views and fusion that all records name; a threshold holds for one method.
fn common_method(films: &[FilmPrediction]) -> Result<Option<Method>, CommandError> {
    let first = films.first().and_then(|film| film.method.clone());
    match films.iter().find(|film| film.method != first) {
        None => Ok(first),
        Some(other) => {
            let words =
                |m: &Option<Method>| m.as_ref().map_or("one view a film".to_owned(), Method::to_string);
            Err(usage(anyhow!(
                "{} was predicted with {}, the first film with {}; predict all films in one way",
                other.image,
                words(&other.method),
                words(&first)
            )))
        }
    }
}

/// The decision rule that a report's validation films gave, for the method they were predicted with; `None` where
/// they could not give one.
pub fn decision(report: &RunReport, validation_films: usize, method: Option<Method>) -> Option<Decision> {
    let gate = report.gate.as_ref()?;
    Some(Decision {
        c_star: gate.c_star,
        keep_score: gate.keep_score,
        display_score: report.shown_score.score,
        chosen_on: ChosenOn::Validation,
        films: validation_films,
        method,
    })
}

/// A report's figures for a bundle's card.
pub fn card_facts(report: &RunReport) -> CardFacts {
    let test = &report.counts.test;
    let kind = if report.synthetic { "synthetic test films" } else { "test films" };
    let films = format!("{} {kind} of {} studies", test.films, test.studies);
    let mut metrics = vec![];
    for (name, row) in &report.classification {
        metrics.push(CardMetric {
            name: format!("AUROC, {name}"),
            value: row.auroc,
            interval: row.auroc_ci.map(|[low, high]| (low, high)),
            films: films.clone(),
        });
    }
    for (name, row) in &report.detection {
        metrics.push(CardMetric {
            name: format!("mAP@0.5, {name}"),
            value: row.map50,
            interval: None,
            films: films.clone(),
        });
    }
    let data = match &report.counts.validation {
        Some(v) => format!(
            "Thresholds chosen on {} validation films of {} studies; tested on {films}.",
            v.films, v.studies
        ),
        None => format!("Tested on {films}."),
    };
    CardFacts { data, metrics, limits: vec![] }
}
