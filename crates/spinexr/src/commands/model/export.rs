//! `spinexr model export`: a bundle's weights or networks for other programs.

use crate::Global;
use crate::exit::{CommandResult, Done, usage};
use anyhow::Context;
use clap::ValueEnum;
use spinexr_core::whole_file;
use spinexr_infer::{Bundle, export};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr model export framework.spinexr --format onnx -o onnx\n  \
    spinexr model export framework.spinexr --format safetensors -o weights")]
pub struct ExportArgs {
    /// Bundle folder
    bundle: PathBuf,
    /// Form of the files, one for each model
    #[arg(long, value_enum)]
    format: Format,
    /// Folder for the files
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Weights under PyTorch-style names
    Safetensors,
    /// Networks of the DenseNet and RetinaNet families, opset 17
    Onnx,
}

pub fn run(args: &ExportArgs, global: &Global) -> CommandResult {
    let bundle = Bundle::load(&args.bundle).map_err(usage)?;
    // All of them before the first is written.
    let mut files: Vec<(PathBuf, Vec<u8>)> = vec![];
    for spec in &bundle.manifest().models {
        let path = |ending: &str| args.output.join(format!("{}.{ending}", spec.name));
        match args.format {
            Format::Safetensors => {
                let bytes = export::safetensors(&bundle, spec).map_err(anyhow::Error::from)?;
                files.push((path("safetensors"), bytes));
            }
            Format::Onnx => {
                files.push((path("onnx"), export::onnx_file(&bundle, spec).map_err(anyhow::Error::from)?));
                files.extend(export::anchors(spec).map(|bytes| (path("anchors.safetensors"), bytes)));
            }
        }
    }
    std::fs::create_dir_all(&args.output).with_context(|| format!("creating {}", args.output.display()))?;
    for (path, bytes) in &files {
        whole_file::write(path, bytes).with_context(|| format!("writing {}", path.display()))?;
        eprintln!("{}: {:.1} MB", path.display(), bytes.len() as f64 / 1e6);
    }
    let paths: Vec<&PathBuf> = files.iter().map(|(path, _)| path).collect();
    global.print_json(&serde_json::json!({ "bundle": bundle.hash(), "files": paths }))?;
    Ok(Done::All)
}
