//! `spinexr`: from a folder of spine radiographs to findings, and from annotations to the models that find them.
//!
//! One subcommand a file in [`commands`]. This is the only place that prints: documents for programs go to
//! stdout (`--json`), text for people, progress and warnings to stderr.

mod allocator;
mod claim;
mod commands;
mod console;
mod demo_bundle;
mod evaluation;
mod exit;
mod processes;
mod training;
mod training_films;

use clap::{Parser, Subcommand};
use exit::{CommandError, CommandResult};
use std::process::ExitCode;

/// Research use only; not a medical device.
const NOTICE: &str = "Research use only; not a medical device.";

#[derive(Parser)]
#[command(
    name = "spinexr",
    version,
    about = "Finds abnormal spine radiographs and marks what is abnormal: the VinDr-SpineXR framework",
    after_help = "Exit codes: 0 done, 1 some inputs failed (listed), 2 wrong usage or configuration.\n\
                  Research use only; not a medical device.\n\n\
                  Examples:\n  \
                  spinexr demo                              the whole paper on synthetic films, with a report\n  \
                  spinexr predict film.dcm -o out           findings on a film, with the demonstration bundle\n  \
                  spinexr train configs/improved/densenet121.toml --set data.dir=/data/vindr-spinexr\n  \
                  spinexr doctor                            what this build and this machine can do"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command understands.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Print one JSON document on stdout; text for people goes to stderr
    #[arg(long, global = true)]
    json: bool,
    /// Worker threads; all cores by default
    #[arg(long, global = true, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// No progress bars
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// The whole paper on synthetic films: data, training, tables, report
    Demo(commands::demo::Args),
    /// Write a synthetic data set in the VinDr-SpineXR layout
    Synth(commands::synth::Args),
    /// Check, count and prepare data sets
    Data(commands::data::Args),
    /// Show a film, or any stage of its pixels, as PNG or NumPy array
    Image(commands::image::Args),
    /// Train a model from a configuration file
    Train(commands::train::Args),
    /// Find abnormal films and mark what is abnormal
    Predict(commands::predict::Args),
    /// Read the boxes of DICOM structured reports
    ReadSr(commands::read_sr::Args),
    /// Compute tables and curves from predictions
    Evaluate(commands::evaluate::Args),
    /// Look at, verify, combine, import and export bundles
    Model(commands::model::Args),
    /// Serve: films in over DICOM and HTTP, results out to archives
    Serve(commands::serve::Args),
    /// What people marked in the web reader: compare, write as a data set, take in
    Readings(commands::readings::Args),
    /// Say what this build and this machine can do, with a self-test of each part
    Doctor(commands::doctor::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    spinexr_ops::allocation::keep_freed_memory();
    let threads = cli.global.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        std::num::NonZeroUsize::get,
    );
    if let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        eprintln!("spinexr: the thread pool could not be started: {error}");
        return ExitCode::from(exit::FAILED);
    }
    exit::report(run(cli.command, &cli.global), cli.global.json)
}

fn run(command: Command, global: &Global) -> CommandResult {
    match command {
        Command::Demo(args) => commands::demo::run(args, global),
        Command::Synth(args) => commands::synth::run(args, global),
        Command::Data(args) => commands::data::run(args, global),
        Command::Image(args) => commands::image::run(args, global),
        Command::Train(args) => commands::train::run(args, global),
        Command::Predict(args) => commands::predict::run(args, global),
        Command::ReadSr(args) => commands::read_sr::run(args, global),
        Command::Evaluate(args) => commands::evaluate::run(args, global),
        Command::Model(args) => commands::model::run(args, global),
        Command::Serve(args) => commands::serve::run(args, global),
        Command::Readings(args) => commands::readings::run(args, global),
        Command::Doctor(args) => commands::doctor::run(args, global),
    }
}

impl Global {
    /// Worker threads to use.
    fn thread_count(&self) -> usize {
        self.threads.map_or_else(rayon::current_num_threads, std::num::NonZeroUsize::get)
    }

    /// Prints the document on stdout when `--json` was given.
    fn print_json<T: serde::Serialize>(&self, document: &T) -> Result<(), CommandError> {
        if self.json {
            let text = serde_json::to_string_pretty(document).map_err(|e| {
                CommandError::Failed(anyhow::Error::new(e).context("writing the JSON document"))
            })?;
            println!("{text}");
        }
        Ok(())
    }
}
