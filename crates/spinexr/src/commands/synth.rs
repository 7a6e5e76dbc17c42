//! `spinexr synth`: a synthetic data set in the VinDr-SpineXR layout.

use crate::Global;
use crate::console::{self, Bar};
use crate::exit::{CommandResult, Done};
use anyhow::Context;
use spinexr_core::Finding;
use spinexr_synth::SynthConfig;
use std::path::PathBuf;
use std::time::Instant;

/// Height of a film in the data set's publication, px.
const FULL_HEIGHT_PX: u32 = 2455;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr synth films --studies 200 --size 768      200 training studies of smaller films\n  \
    spinexr synth films --studies 20 --balanced       every finding about equally often\n\n\
    Writes annotations/{train,test}.csv, {train,test}_images/*.dicom and SHA256SUMS.txt.\n\
    The same seed gives the same bytes.")]
pub struct Args {
    /// Folder to write; must not exist or be empty
    out: PathBuf,
    /// Studies of the training part, one to four films each
    #[arg(long, value_name = "N")]
    studies: usize,
    /// Studies of the test part; a quarter of --studies by default
    #[arg(long, value_name = "N")]
    test_studies: Option<usize>,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Height of a film, px; the width follows
    #[arg(long, value_name = "PX", default_value_t = FULL_HEIGHT_PX, value_parser = clap::value_parser!(u32).range(128..=8192))]
    size: u32,
    /// Every finding about equally often, for teaching; by default as rare as in the paper
    #[arg(long)]
    balanced: bool,
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    let config = SynthConfig {
        studies: args.studies,
        test_studies: args.test_studies.unwrap_or(args.studies / 4),
        seed: args.seed,
        height_px: args.size,
        balanced: args.balanced,
    };
    let start = Instant::now();
    let bar = Bar::new("synthesising films", global.quiet);
    let summary = spinexr_synth::generate(&args.out, &config, &|p| bar.update(p))
        .with_context(|| format!("writing the synthetic data set {}", args.out.display()))?;
    bar.finish();

    let seconds = start.elapsed().as_secs_f64();
    let rows: Vec<Vec<String>> = Finding::ALL
        .iter()
        .map(|f| vec![f.name().to_owned(), summary.boxes_per_finding[f.index()].to_string()])
        .collect();
    eprint!("{}", console::table(&["finding", "boxes"], &rows));
    eprintln!(
        "{}: {} films ({} normal) in {seconds:.1} s, {:.1} films/s",
        args.out.display(),
        summary.films,
        summary.normal_films,
        summary.films as f64 / seconds
    );
    global.print_json(&serde_json::json!({
        "out": args.out,
        "films": summary.films,
        "normal_films": summary.normal_films,
        "boxes": Finding::ALL.iter().map(|f| (f.name(), summary.boxes_per_finding[f.index()])).collect::<std::collections::BTreeMap<_, _>>(),
        "seconds": seconds,
    }))?;
    Ok(Done::All)
}
