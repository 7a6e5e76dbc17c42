//! `spinexr data`: data sets checked, counted and prepared. One subcommand a file.

mod check;
mod prepare;
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
    /// Read all annotations and film headers; list what is broken, count what is odd
    Check(check::Args),
    /// Count studies, films and boxes by split
    Stats(stats::Args),
    /// Decode and resize every film once, for training
    Prepare(prepare::Args),
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    match args.what {
        What::Check(args) => check::run(&args, global),
        What::Stats(args) => stats::run(&args, global),
        What::Prepare(args) => prepare::run(&args, global),
    }
}
