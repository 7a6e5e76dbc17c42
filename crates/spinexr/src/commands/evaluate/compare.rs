//! `spinexr evaluate compare`: any number of runs on the same test films.

use super::ProtocolArg;
use crate::Global;
use crate::console::{percent, table};
use crate::evaluation::{self, AnnotationsArgs};
use crate::exit::{CommandResult, Done, usage};
use anyhow::{Context, anyhow};
use clap::ValueEnum;
use spinexr_eval::compare::{CompareOptions, CompareReport, ComparedRun, Correction, Summary, compare};
use spinexr_eval::report::{self, ReportFile};
use spinexr_eval::run::{RunOptions, RunReport};
use spinexr_eval::{Predictions, Test};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    spinexr evaluate compare --annotations /data/vindr-spinexr -o comparison \\\n    \
    retinanet=runs/r1/predictions.jsonl retinanet=runs/r2/predictions.jsonl sparse=runs/s/predictions.jsonl\n\n\
    Files of one name are runs (seeds) of one method: they are summarised, and their mean is compared. All runs must have\n\
    predicted the same test films. Writes comparison.json, comparison.html, tables/ and plots/.")]
pub struct CompareArgs {
    /// Records of a run, as NAME=FILE; a FILE alone is a method of its own
    #[arg(required = true, value_name = "[NAME=]FILE")]
    runs: Vec<String>,
    #[command(flatten)]
    annotations: AnnotationsArgs,
    /// Folder for the report
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Where c* of each run is chosen
    #[arg(long, value_enum, default_value = "improved")]
    protocol: ProtocolArg,
    /// Headline of the report
    #[arg(long, default_value = "Comparison of runs")]
    title: String,
    /// Correction of all p values together
    #[arg(long, value_enum, default_value = "holm")]
    correction: CorrectionArg,
    /// Bootstrap resamples
    #[arg(long, default_value_t = 10_000)]
    resamples: usize,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum CorrectionArg {
    /// No claim is false, at the level
    Holm,
    /// A share of the claims is false, on average
    BenjaminiHochberg,
}

impl From<CorrectionArg> for Correction {
    fn from(arg: CorrectionArg) -> Self {
        match arg {
            CorrectionArg::Holm => Self::Holm,
            CorrectionArg::BenjaminiHochberg => Self::BenjaminiHochberg,
        }
    }
}

/// A run as read and evaluated.
struct Evaluated {
    method: String,
    source: String,
    test: Predictions<Test>,
    report: RunReport,
}

pub fn run(args: &CompareArgs, global: &Global) -> CommandResult {
    let mut runs = Vec::with_capacity(args.runs.len());
    let mut annotations = Vec::new();
    for given in &args.runs {
        let (method, file) = given.split_once('=').unwrap_or((given, given));
        if method.is_empty() || file.is_empty() {
            return Err(usage(anyhow!("{given:?}: expected NAME=FILE, or FILE")));
        }
        let (films, dataset) = evaluation::read(Path::new(file), &args.annotations)?;
        let mut options = RunOptions::new(method, args.protocol.into(), args.seed);
        options.bootstrap.resamples = args.resamples;
        options.cases_per_kind = 0;
        options.subgroups = false;
        let (test, report) =
            evaluation::evaluate(films, &dataset, &options).with_context(|| format!("evaluating {file}"))?;
        annotations.extend(dataset.annotations(spinexr_core::Split::Test));
        runs.push(Evaluated { method: method.to_owned(), source: file.to_owned(), test, report });
    }
    // Every run brings the same annotations; one of each film is enough.
    annotations.sort_by(|a, b| a.image_id.cmp(&b.image_id));
    annotations.dedup_by(|a, b| a.image_id == b.image_id);
    let compared: Vec<ComparedRun<'_>> = runs
        .iter()
        .map(|run| ComparedRun {
            method: &run.method,
            source: &run.source,
            test: &run.test,
            report: &run.report,
        })
        .collect();
    let options = CompareOptions {
        title: args.title.clone(),
        correction: args.correction.into(),
        bootstrap: runs[0].report.bootstrap,
    };
    let report = compare(&compared, &annotations, &options).map_err(anyhow::Error::from)?;
    eprint!("{}", tables(&report));
    if let Some(dir) = &args.output {
        let mut files = report::comparison_table_files(&report);
        files.extend(report::comparison_plot_files(&report).map_err(anyhow::Error::from)?);
        let json = serde_json::to_vec_pretty(&report).context("writing comparison.json")?;
        files.push(ReportFile { name: "comparison.json".into(), bytes: json });
        let html = report::comparison_html(&report).into_bytes();
        files.push(ReportFile { name: "comparison.html".into(), bytes: html });
        evaluation::write_files(dir, &files)?;
        eprintln!("{}", dir.join("comparison.html").display());
    }
    global.print_json(&report)?;
    Ok(Done::All)
}

fn tables(report: &CompareReport) -> String {
    let cell = |summary: &Summary| {
        let sd = summary.sd.map_or_else(String::new, |sd| format!(" ± {:.2}", 100.0 * sd));
        let interval = summary
            .interval_of_studies
            .map_or_else(String::new, |[low, high]| format!(" ({:.2}–{:.2})", 100.0 * low, 100.0 * high));
        format!("{}{sd}{interval}", percent(summary.mean))
    };
    let methods: Vec<Vec<String>> = report
        .methods
        .iter()
        .map(|m| {
            let figures = [&m.auroc, &m.sensitivity, &m.specificity, &m.map50_detector, &m.map50];
            let mut cells = vec![m.name.clone(), m.sources.len().to_string()];
            cells.extend(figures.map(cell));
            cells
        })
        .collect();
    let header = ["method", "runs", "AUROC", "sens.", "spec.", "mAP before gate", "mAP after"];
    let mut text = format!("\n{}", table(&header, &methods));
    if !report.tests.is_empty() {
        let p = |p: Option<f64>| p.map_or_else(|| "n/a".to_owned(), |p| format!("{p:.4}"));
        let tests: Vec<Vec<String>> = report
            .tests
            .iter()
            .map(|t| {
                vec![
                    format!("{} – {}: {}", t.first, t.second, t.kind.name()),
                    format!("{:+.2}", 100.0 * t.difference),
                    p(t.p),
                    p(t.p_adjusted),
                ]
            })
            .collect();
        let corrected = format!("p ({})", report.correction.name());
        text.push_str(&format!("\n{}", table(&["paired test", "difference", "p", &corrected], &tests)));
    }
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}
