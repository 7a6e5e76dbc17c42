//! `spinexr data`: data sets checked, counted and prepared.

use crate::Global;
use crate::commands::image::PolicyArg;
use crate::console::{Bar, list_failures, table};
use crate::exit::{CommandResult, Done, usage};
use anyhow::{Context, anyhow};
use clap::Subcommand;
use spinexr_core::{Label, Split};
use spinexr_data::{Dataset, Fit, InputSize, cache, split, vindr};
use spinexr_dicom::{Limits, ReadOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Read all annotations and film headers; list what is broken, count what is odd
    Check(CheckArgs),
    /// Count studies, films and boxes by split
    Stats(StatsArgs),
    /// Decode and resize every film once, for training
    Prepare(PrepareArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  spinexr data check /data/vindr-spinexr")]
struct CheckArgs {
    /// Data set in the VinDr-SpineXR layout
    dir: PathBuf,
    /// Read annotations only, not the films' headers
    #[arg(long)]
    no_films: bool,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  spinexr data stats /data/vindr-spinexr --validation-fraction 0.15 --seed 7"
)]
struct StatsArgs {
    /// Data set in the VinDr-SpineXR layout
    dir: PathBuf,
    /// Hold this share of the training studies out first, as training does
    #[arg(long, value_name = "SHARE")]
    validation_fraction: Option<f64>,
    /// Seed of the hold-out, data.split_seed of a configuration
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  spinexr data prepare /data/vindr-spinexr --cache prepared --input 512x384 --input 1024x672\n\n\
    May be interrupted at any moment and started again: finished films are kept."
)]
struct PrepareArgs {
    /// Data set in the VinDr-SpineXR layout
    dir: PathBuf,
    /// Folder of the prepared films
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// Input size, HEIGHTxWIDTH in px; several are prepared from one decoding
    #[arg(long = "input", value_name = "HxW", required = true)]
    inputs: Vec<String>,
    /// Stretch films to the input; by default the aspect is kept and the rest is black
    #[arg(long)]
    stretch: bool,
    /// How stored values become display pixels
    #[arg(long, value_enum, default_value_t = PolicyArg::Standard)]
    policy: PolicyArg,
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    match args.what {
        What::Check(args) => check(&args, global),
        What::Stats(args) => stats(&args, global),
        What::Prepare(args) => prepare(&args, global),
    }
}

fn check(args: &CheckArgs, global: &Global) -> CommandResult {
    let options = vindr::VindrOptions::new();
    let (mut dataset, row_errors) =
        vindr::read_and_collect(&args.dir, &options).map_err(anyhow::Error::from)?;
    let mut unread = vec![];
    if !args.no_films {
        unread = vindr::clip_to_films(&mut dataset, &options, &Limits::default(), global.thread_count());
    }
    let leak = split::check_leakage(&dataset).err();

    let read = &dataset.read;
    let rows = [
        ("annotation rows", read.rows),
        ("rows `No finding`", read.no_finding_rows),
        ("broken rows", row_errors.len()),
        ("exact duplicate rows, dropped", read.duplicate_rows),
        ("boxes past the border, clipped", read.clipped_boxes),
        ("boxes without extent, dropped", read.thin_boxes),
        ("rows spelt `Spondylolisthesis`", read.other_spelling),
        ("rare categories folded into `Other lesions`", read.folded_labels),
        ("blank cells", read.blank_cells),
        ("annotated films without a file", read.without_file.len()),
        ("files without annotation", read.without_annotation.len()),
        ("films whose header cannot be read", unread.len()),
    ];
    let rows: Vec<Vec<String>> =
        rows.iter().map(|(what, n)| vec![(*what).to_owned(), n.to_string()]).collect();
    eprint!("{}", table(&["what", "count"], &rows));
    list_failures(row_errors.iter());
    list_failures(unread.iter().map(|film| &film.error));
    match &leak {
        Some(leak) => eprintln!("LEAK: {leak}"),
        None => eprintln!("no study is in two splits"),
    }
    global.print_json(&serde_json::json!({
        "films": dataset.films.len(),
        "read": read,
        "broken_rows": row_errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "unreadable": unread,
        "leak": leak.as_ref().map(ToString::to_string),
    }))?;
    let sound = row_errors.is_empty() && unread.is_empty() && leak.is_none() && read.without_file.is_empty();
    Ok(if sound { Done::All } else { Done::SomeFailed })
}

fn stats(args: &StatsArgs, global: &Global) -> CommandResult {
    let mut dataset = vindr::read(&args.dir).map_err(anyhow::Error::from)?;
    if let Some(fraction) = args.validation_fraction {
        split::hold_out_validation(&mut dataset, fraction, args.seed).map_err(usage)?;
    }
    let counts: BTreeMap<Split, Counts> =
        Split::ALL.into_iter().map(|s| (s, Counts::of(&dataset, s))).filter(|(_, c)| c.films > 0).collect();
    let mut header = vec![""];
    header.extend(counts.keys().map(|s| s.name()));
    let row = |name: &str, value: &dyn Fn(&Counts) -> usize| {
        let mut cells = vec![name.to_owned()];
        cells.extend(counts.values().map(|c| value(c).to_string()));
        cells
    };
    let mut rows = vec![
        row("studies", &|c| c.studies),
        row("films", &|c| c.films),
        row("normal films", &|c| c.normal),
        row("abnormal films", &|c| c.films - c.normal),
    ];
    for label in dataset.classes.labels() {
        rows.push(row(label.name(), &|c| c.boxes.get(label).copied().unwrap_or(0)));
    }
    eprint!("{}", table(&header, &rows));
    global.print_json(&counts)?;
    Ok(Done::All)
}

/// One column of the paper's table 1.
#[derive(serde::Serialize)]
struct Counts {
    studies: usize,
    films: usize,
    normal: usize,
    boxes: BTreeMap<Label, usize>,
}

impl Counts {
    fn of(dataset: &Dataset, split: Split) -> Self {
        let mut boxes = BTreeMap::new();
        for annotation in dataset.of(split).flat_map(|f| &f.annotation.boxes) {
            *boxes.entry(annotation.label.clone()).or_insert(0) += 1;
        }
        Self {
            studies: dataset.of(split).map(|f| &f.annotation.study_id).collect::<BTreeSet<_>>().len(),
            films: dataset.of(split).count(),
            normal: dataset.of(split).filter(|f| !f.annotation.abnormal).count(),
            boxes,
        }
    }
}

fn prepare(args: &PrepareArgs, global: &Global) -> CommandResult {
    let fit = if args.stretch { Fit::Stretch } else { Fit::Letterbox };
    let inputs = args
        .inputs
        .iter()
        .map(|text| input_size(text, fit))
        .collect::<anyhow::Result<Vec<_>>>()
        .map_err(usage)?;
    let dataset = vindr::read(&args.dir).map_err(anyhow::Error::from)?;
    let read = ReadOptions { policy: args.policy.into(), ..ReadOptions::default() };
    let bar = Bar::new("preparing films", global.quiet);
    let outcome =
        cache::prepare(&dataset, &args.cache, &inputs, &read, global.thread_count(), &|p| bar.update(p))
            .with_context(|| format!("preparing {} into {}", args.dir.display(), args.cache.display()))?;
    bar.finish();
    eprintln!(
        "{} films prepared, {} already there, {} made again, {} failed",
        outcome.prepared,
        outcome.reused,
        outcome.dropped,
        outcome.failures.len()
    );
    list_failures(outcome.failures.iter().map(|film| &film.error));
    global.print_json(&serde_json::json!({
        "prepared": outcome.prepared,
        "reused": outcome.reused,
        "dropped": outcome.dropped,
        "failed": outcome.failures,
    }))?;
    Ok(if outcome.failures.is_empty() { Done::All } else { Done::SomeFailed })
}

fn input_size(text: &str, fit: Fit) -> anyhow::Result<InputSize> {
    let wrong = || anyhow!("--input {text}: expected HEIGHTxWIDTH, for example 512x384");
    let (height, width) = text.split_once('x').ok_or_else(wrong)?;
    let size = InputSize {
        height_px: height.trim().parse().map_err(|_| wrong())?,
        width_px: width.trim().parse().map_err(|_| wrong())?,
        fit,
    };
    size.check()?;
    Ok(size)
}
