//! `spinexr data prepare`: every film decoded and resized once.

use crate::Global;
use crate::commands::data::FormatArg;
use crate::commands::image::PolicyArg;
use crate::console::{Bar, list_failures};
use crate::exit::{CommandResult, Done, usage};
use anyhow::{Context, anyhow};
use spinexr_data::cache::{self, PixelDepth};
use spinexr_data::{Fit, InputSize, formats};
use spinexr_dicom::ReadOptions;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  spinexr data prepare /data/vindr-spinexr --cache prepared --input 512x384 --input 1024x672\n\n\
    May be interrupted at any moment and started again: finished films are kept."
)]
pub struct Args {
    /// Data set: VinDr-SpineXR, COCO, YOLO or Pascal VOC
    dir: PathBuf,
    /// Its format; by default the one it is laid out in
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
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
    /// Bits in which a grey value is kept; by default those of the films that are there, else 16
    #[arg(long, value_enum)]
    bits: Option<BitsArg>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum BitsArg {
    /// Half the disk
    #[value(name = "8")]
    Eight,
    /// All that the films have
    #[value(name = "16")]
    Sixteen,
}

pub fn run(args: &Args, global: &Global) -> CommandResult {
    let fit = if args.stretch { Fit::Stretch } else { Fit::Letterbox };
    let inputs = args
        .inputs
        .iter()
        .map(|text| input_size(text, fit))
        .collect::<anyhow::Result<Vec<_>>>()
        .map_err(usage)?;
    let dataset = formats::read(&args.dir, args.format.map(Into::into)).map_err(anyhow::Error::from)?;
    let read = ReadOptions { policy: args.policy.into(), ..ReadOptions::default() };
    let bar = Bar::new("preparing films", global.quiet);
    let depth = args.bits.map(|bits| match bits {
        BitsArg::Eight => PixelDepth::U8,
        BitsArg::Sixteen => PixelDepth::U16,
    });
    let (threads, progress) = (global.thread_count(), |p| bar.update(p));
    let outcome = cache::prepare_as(&dataset, &args.cache, &inputs, &read, depth, threads, &progress)
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
