//! `spinexr data`: data sets checked, counted, split, de-identified and prepared. One subcommand a file.

mod check;
mod deidentify;
mod prepare;
mod split;
mod stats;

use crate::Global;
use crate::exit::CommandResult;
use clap::Subcommand;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Read all annotations and films; list what is broken, odd, there twice or in two splits
    Check(check::Args),
    /// Count studies, films and boxes by split, with ages and sizes
    Stats(stats::Args),
    /// Share films out by study or patient, even in every finding: parts or folds
    Split(split::Args),
    /// Remove from DICOM films what names the patient (PS3.15 annex E)
    Deidentify(deidentify::Args),
    /// Decode and resize every film once, for training
    Prepare(prepare::Args),
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    match args.what {
        What::Check(args) => check::run(&args, global),
        What::Stats(args) => stats::run(&args, global),
        What::Split(args) => split::run(&args, global),
        What::Deidentify(args) => deidentify::run(&args, global),
        What::Prepare(args) => prepare::run(&args, global),
    }
}
