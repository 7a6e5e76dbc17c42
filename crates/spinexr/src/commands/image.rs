//! `spinexr image`: a film, or any stage of its pixels, as PNG or NumPy array.

use crate::Global;
use crate::exit::{CommandResult, Done, usage};
use anyhow::{Context, anyhow};
use clap::ValueEnum;
use spinexr_dicom::{Policy, ReadOptions, Stage, StageData, StageImage, npy, read_stage};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr image film.dcm -o film.png                          the film as a viewer shows it, bone bright\n  \
    spinexr image film.dcm -o film.npy --policy vindr           the published recipe, u8\n  \
    spinexr image film.dcm -o stored.npy --stage stored         stored values, i32\n\n\
    .npy keeps the stage's own type: stored i32; modality and voi f64; display u8 (vindr) or f32 in 0..=1\n\
    (standard). PNG is 8-bit for the display stage; other stages are stretched from least to greatest value.")]
pub struct Args {
    /// DICOM, PNG or JPEG file
    file: PathBuf,
    /// File to write: .png or .npy
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How stored values become display pixels
    #[arg(long, value_enum, default_value_t = PolicyArg::Standard)]
    policy: PolicyArg,
    /// Stage of the pixels
    #[arg(long, value_enum, default_value_t = StageArg::Display)]
    stage: StageArg,
    /// Frame of a multi-frame file, counted from 0
    #[arg(long, default_value_t = 0)]
    frame: u32,
}

/// Pixel policies on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyArg {
    /// The DICOM standard: modality, VOI, polarity
    Standard,
    /// The published VinDr recipe, for comparison with the paper
    Vindr,
}

impl From<PolicyArg> for Policy {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Standard => Self::Standard,
            PolicyArg::Vindr => Self::Vindr,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StageArg {
    Stored,
    Modality,
    Voi,
    Display,
}

impl From<StageArg> for Stage {
    fn from(stage: StageArg) -> Self {
        match stage {
            StageArg::Stored => Self::Stored,
            StageArg::Modality => Self::Modality,
            StageArg::Voi => Self::Voi,
            StageArg::Display => Self::Display,
        }
    }
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    let format = OutputFormat::of(&args.output).map_err(usage)?;
    let options = ReadOptions { policy: args.policy.into(), frame: args.frame, ..ReadOptions::default() };
    let image = read_stage(&args.file, args.stage.into(), &options).map_err(anyhow::Error::from)?;
    match format {
        OutputFormat::Npy => npy::write(&args.output, &image).map_err(anyhow::Error::from)?,
        OutputFormat::Png => write_png(&args.output, &image)?,
    }
    eprintln!("{}: {} × {} px", args.output.display(), image.width, image.height);
    for note in &image.provenance.notes {
        eprintln!("note: {note}");
    }
    if let Some(why) = &image.provenance.fallback {
        eprintln!("note: the policy's fallback made these pixels: {why}");
    }
    global.print_json(&serde_json::json!({
        "input": args.file,
        "output": args.output,
        "height": image.height,
        "width": image.width,
        "pixels": image.provenance,
    }))?;
    Ok(Done::All)
}

#[derive(Debug, Clone, Copy)]
enum OutputFormat {
    Png,
    Npy,
}

impl OutputFormat {
    fn of(path: &Path) -> anyhow::Result<Self> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("png") => Ok(Self::Png),
            Some("npy") => Ok(Self::Npy),
            _ => Err(anyhow!("{}: expected an output name ending in .png or .npy", path.display())),
        }
    }
}

fn write_png(path: &Path, image: &StageImage) -> anyhow::Result<()> {
    let bytes = match &image.data {
        StageData::U8(values) => values.clone(),
        StageData::F32(values) => values.iter().map(|v| (v * 255.0).round() as u8).collect(),
        StageData::I32(values) => stretch(values.iter().map(|&v| f64::from(v))),
        StageData::F64(values) => stretch(values.iter().copied()),
    };
    let (width, height) = (image.width as u32, image.height as u32);
    let grey =
        image::GrayImage::from_raw(width, height, bytes).context("a stage holds height × width values")?;
    let mut png = std::io::Cursor::new(Vec::new());
    grey.write_to(&mut png, image::ImageFormat::Png).context("encoding PNG")?;
    spinexr_core::whole_file::write(path, png.get_ref())
        .with_context(|| format!("writing {}", path.display()))
}

/// Values from least to greatest over 0 to 255; a constant image is black.
fn stretch(values: impl Iterator<Item = f64> + Clone) -> Vec<u8> {
    let (min, max) =
        values.clone().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
    let scale = if max > min { 255.0 / (max - min) } else { 0.0 };
    values.map(|v| ((v - min) * scale).round() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretching_spans_the_range_and_bears_constants() {
        assert_eq!(stretch([-5.0, 0.0, 5.0].into_iter()), [0, 128, 255]);
        assert_eq!(stretch([7.0, 7.0].into_iter()), [0, 0]);
    }
}
