//! `spinexr data`: data sets checked, counted, split, converted, de-identified and prepared. One subcommand a file.

mod check;
mod convert;
mod deidentify;
mod prepare;
mod split;
mod stats;

use crate::Global;
use crate::exit::CommandResult;
use clap::{Subcommand, ValueEnum};
use spinexr_data::Format;

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
    /// Write a data set in another format: vindr, coco, yolo or voc
    Convert(convert::Args),
    /// Remove from DICOM films what names the patient (PS3.15 annex E)
    Deidentify(deidentify::Args),
    /// Decode and resize every film once, for training
    Prepare(prepare::Args),
}

/// A format of annotations.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FormatArg {
    /// VinDr-SpineXR as released
    Vindr,
    /// COCO instances
    Coco,
    /// YOLO label files with a data.yaml
    Yolo,
    /// Pascal VOC
    Voc,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Vindr => Self::Vindr,
            FormatArg::Coco => Self::Coco,
            FormatArg::Yolo => Self::Yolo,
            FormatArg::Voc => Self::Voc,
        }
    }
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    match args.what {
        What::Check(args) => check::run(&args, global),
        What::Stats(args) => stats::run(&args, global),
        What::Split(args) => split::run(&args, global),
        What::Convert(args) => convert::run(&args, global),
        What::Deidentify(args) => deidentify::run(&args, global),
        What::Prepare(args) => prepare::run(&args, global),
    }
}
