//! `spinexr model import`: a bundle of another program's weights.

use crate::Global;
use crate::console::table;
use crate::exit::{CommandResult, Done, usage};
use crate::training::INTENDED_USE;
use anyhow::{Context, anyhow};
use spinexr_data::{Fit, InputSize};
use spinexr_dicom::Policy;
use spinexr_infer::import::{ImportRequest, Importing};
use spinexr_models::weights::import::{Fate, Row};
use spinexr_models::weights::sources::Source;
use spinexr_models::{Architecture, Task};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    after_help = "Nothing in the file is executed. A tensor that is missing, unexpected or of another shape is an\n\
    error, unless it is left out.\n\n\
    Examples:\n  \
    spinexr model import densenet121.pth --arch densenet121 --source torchvision -o d121.spinexr --classes a,b,c\n  \
    spinexr model import resnet50.pth --arch retinanet_resnet50 --leave-out head --leave-out backbone.fpn \\\n    \
    -o start.spinexr"
)]
pub struct ImportArgs {
    /// PyTorch (.pth, .pt), detectron2 (.pkl) or safetensors file
    weights: PathBuf,
    /// Network, as in training configurations
    #[arg(long, value_name = "NAME", value_parser = architecture)]
    arch: Architecture,
    /// Program that wrote the file: torchvision, timm, detectron2 or effdet
    #[arg(long, value_name = "NAME", default_value = "torchvision")]
    source: Source,
    /// Bundle to write
    #[arg(short, long, value_name = "BUNDLE")]
    output: PathBuf,
    /// Names of the file's classes, in order; `abnormal` for one class, the seven findings for seven
    #[arg(long, value_delimiter = ',', value_name = "A,B,…")]
    classes: Option<Vec<String>>,
    /// Start of names to pass over; the network keeps random values there. May be given again
    #[arg(long, value_name = "PREFIX")]
    leave_out: Vec<String>,
    /// Input height and width in px, for example 224x224; by default that of the source's recipe
    #[arg(long, value_name = "HxW", value_parser = size)]
    input: Option<(u32, u32)>,
    /// How films are brought to that size: stretch or letterbox; by default the one classifiers, the other detectors
    #[arg(long, value_name = "FIT", requires = "input", value_parser = fit)]
    fit: Option<Fit>,
    /// How films are read: standard or vindr
    #[arg(long, value_name = "POLICY", default_value = "standard", value_parser = policy)]
    policy: Policy,
    /// Licence of the weights
    #[arg(long, default_value = "that of the imported weights")]
    licence: String,
}

fn architecture(word: &str) -> Result<Architecture, String> {
    let known = || Architecture::ALL.map(Architecture::name).join(", ");
    Architecture::ALL
        .into_iter()
        .find(|a| a.name() == word)
        .ok_or_else(|| format!("unknown network, expected one of {}", known()))
}

fn policy(word: &str) -> Result<Policy, String> {
    [Policy::Standard, Policy::Vindr]
        .into_iter()
        .find(|p| p.name() == word)
        .ok_or_else(|| "expected standard or vindr".to_owned())
}

fn fit(word: &str) -> Result<Fit, String> {
    [Fit::Stretch, Fit::Letterbox]
        .into_iter()
        .find(|f| f.name() == word)
        .ok_or_else(|| "expected stretch or letterbox".to_owned())
}

fn size(word: &str) -> Result<(u32, u32), String> {
    let number = |digits: &str| digits.parse::<u32>().ok();
    word.split_once('x')
        .and_then(|(height, width)| Some((number(height)?, number(width)?)))
        .ok_or_else(|| "expected height and width such as 224x224".to_owned())
}

pub fn run(args: ImportArgs, global: &Global) -> CommandResult {
    let name = args.output.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy().into_owned());
    let fit = args.fit.unwrap_or(match args.arch.task() {
        Task::Classification => Fit::Stretch,
        Task::Detection => Fit::Letterbox,
    });
    let request = ImportRequest {
        weights: args.weights.clone(),
        architecture: args.arch,
        source: args.source,
        classes: args.classes,
        leave_out: args.leave_out,
        input: args.input.map(|(height_px, width_px)| InputSize { height_px, width_px, fit }),
        policy: args.policy,
        name,
        licence: args.licence,
        intended_use: INTENDED_USE.to_owned(),
    };
    let importing = Importing::read(request).map_err(usage)?;
    let rows = importing.rows().to_vec();
    if !global.quiet {
        eprint!("{}", tensors(&rows));
    }
    let counts = counts(&rows);
    let told: Vec<String> = counts.iter().map(|(fate, n)| format!("{n} {}", words(*fate))).collect();
    eprintln!("{}: {}", args.weights.display(), told.join(", "));
    let bundle = match importing.into_bundle() {
        Ok(bundle) => bundle,
        Err(error) => {
            global.print_json(&serde_json::json!({ "error": error.to_string(), "tensors": rows }))?;
            return Err(already_told(error, global));
        }
    };
    bundle.save(&args.output).with_context(|| format!("writing {}", args.output.display()))?;
    eprintln!("{}: {}", args.output.display(), bundle.hash());
    let counts: serde_json::Map<String, serde_json::Value> =
        counts.into_iter().map(|(fate, n)| (words(fate).replace(' ', "_"), n.into())).collect();
    global.print_json(&serde_json::json!({
        "bundle": args.output,
        "hash": bundle.hash(),
        "counts": counts,
        "tensors": rows,
        "manifest": bundle.manifest(),
    }))?;
    Ok(Done::All)
}

/// With `--json` the document with the table was printed; the error must not print a second one.
fn already_told(error: spinexr_infer::InferError, global: &Global) -> crate::exit::CommandError {
    let error = anyhow!(error);
    match global.json {
        true => crate::exit::CommandError::Told(error),
        false => usage(error),
    }
}

fn words(fate: Fate) -> &'static str {
    match fate {
        Fate::Matched => "matched",
        Fate::Reshaped => "reshaped",
        Fate::LeftOut => "left out",
        Fate::Unused => "unused",
        Fate::Missing => "missing",
        Fate::Unexpected => "unexpected",
        Fate::WrongShape => "of another shape",
    }
}

fn counts(rows: &[Row]) -> Vec<(Fate, usize)> {
    const ALL: [Fate; 7] = [
        Fate::Matched,
        Fate::Reshaped,
        Fate::LeftOut,
        Fate::Unused,
        Fate::Missing,
        Fate::Unexpected,
        Fate::WrongShape,
    ];
    ALL.into_iter()
        .map(|fate| (fate, rows.iter().filter(|row| row.fate == fate).count()))
        .filter(|(_, n)| *n > 0)
        .collect()
}

fn tensors(rows: &[Row]) -> String {
    let shape = |shape: &Option<Vec<usize>>| {
        shape
            .as_ref()
            .map_or_else(String::new, |s| s.iter().map(usize::to_string).collect::<Vec<_>>().join("×"))
    };
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let theirs = match (&row.name, &row.file_name) {
                (Some(ours), Some(theirs)) if ours == theirs => "same".to_owned(),
                (_, theirs) => theirs.clone().unwrap_or_default(),
            };
            let fate = match row.note {
                "" => words(row.fate).to_owned(),
                note => format!("{}, {note}", words(row.fate)),
            };
            let ours = row.name.clone().unwrap_or_default();
            vec![ours, theirs, shape(&row.shape), shape(&row.file_shape), fate]
        })
        .collect();
    table(&["tensor", "in the file", "shape", "shape there", "outcome"], &cells)
}
