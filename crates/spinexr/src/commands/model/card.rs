//! `spinexr model card`: a model card and a data sheet from a bundle and its report.

use crate::Global;
use crate::claim::{self, Statements};
use crate::evaluation;
use crate::exit::{CommandResult, Done, usage};
use anyhow::{Context, Result, anyhow};
use spinexr_eval::report::ReportFile;
use spinexr_eval::run::RunReport;
use spinexr_infer::Bundle;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    spinexr model card framework.spinexr --report report/report.json --statements statements.toml -o cards\n\n\
    Writes model_card.md, under the headings of CLAIM 2024, and data_sheet.md. What bundle and report do not say is \"not known\"\n\
    with a key; a line `key = \"text\"` in the file of statements says it.")]
pub struct CardArgs {
    /// Bundle folder
    bundle: PathBuf,
    /// report.json of `spinexr evaluate run` on this bundle's predictions
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// TOML file of statements by key
    #[arg(long, value_name = "FILE")]
    statements: Option<PathBuf>,
    /// Folder for both documents
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

pub fn run(args: &CardArgs, global: &Global) -> CommandResult {
    let bundle = Bundle::load(&args.bundle).map_err(usage)?;
    let report = read_report(&args.report).map_err(usage)?;
    let of_report = report.provenance.bundle_hash.as_deref();
    if of_report != Some(bundle.hash()) {
        return Err(usage(anyhow!(
            "{} is of bundle {}, expected {}, the hash of {}",
            args.report.display(),
            of_report.unwrap_or("unknown"),
            bundle.hash(),
            args.bundle.display()
        )));
    }
    let statements = match &args.statements {
        Some(path) => read_statements(path).map_err(usage)?,
        None => Statements::new(),
    };
    let manifest = bundle.manifest();
    claim::check_keys(manifest, &report, &statements).map_err(usage)?;
    let file = |name: &str, text: String| ReportFile { name: name.to_owned(), bytes: text.into_bytes() };
    let files = [
        file("model_card.md", claim::model_card(manifest, &report, &statements)),
        file("data_sheet.md", claim::data_sheet(&report, &statements)),
    ];
    evaluation::write_files(&args.output, &files)?;
    let paths: Vec<PathBuf> = files.iter().map(|f| args.output.join(&f.name)).collect();
    for path in &paths {
        eprintln!("{}", path.display());
    }
    global.print_json(&serde_json::json!({ "bundle": bundle.hash(), "files": paths }))?;
    Ok(Done::All)
}

fn read_report(path: &Path) -> Result<RunReport> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is no report.json of this version", path.display()))
}

fn read_statements(path: &Path) -> Result<Statements> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{}: expected lines of key = \"text\"", path.display()))
}
