//! `spinexr evaluate drift`: a new batch of predictions beside a reference.

use super::compare::CorrectionArg;
use crate::Global;
use crate::console::table;
use crate::exit::{CommandResult, Done, usage};
use anyhow::{Context, anyhow};
use clap::ValueEnum;
use spinexr_core::{FilmPrediction, Split, whole_file};
use spinexr_eval::drift::{Distribution, DriftOptions, DriftReport, drift};
use spinexr_eval::records;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    spinexr evaluate drift --reference test/predictions.jsonl --reference-split test --batch october/predictions.jsonl\n\n\
    No annotation is needed, and none is judged: drift says that films or answers have changed, not that answers are wrong.\n\
    Studies are dealt out anew at random to see what chance alone gives; p values are corrected together.")]
pub struct DriftArgs {
    /// Records to compare with, such as those of the test films
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    /// Records of the new films
    #[arg(long, value_name = "FILE")]
    batch: PathBuf,
    /// Only the reference's films of this part
    #[arg(long, value_enum, value_name = "SPLIT")]
    reference_split: Option<SplitArg>,
    /// File for the comparison as JSON
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Random deals of the studies
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(19..=1_000_000))]
    permutations: u32,
    /// Correction of all p values together
    #[arg(long, value_enum, default_value = "holm")]
    correction: CorrectionArg,
    /// Seed of the deals
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SplitArg {
    Train,
    Validation,
    Test,
}

pub fn run(args: &DriftArgs, global: &Global) -> CommandResult {
    let wanted = args.reference_split.map(|split| match split {
        SplitArg::Train => Split::Train,
        SplitArg::Validation => Split::Validation,
        SplitArg::Test => Split::Test,
    });
    let mut reference = read(&args.reference)?;
    if let Some(wanted) = wanted {
        reference.retain(|film| film.split == Some(wanted));
    }
    let batch = read(&args.batch)?;
    for (films, path) in [(&reference, &args.reference), (&batch, &args.batch)] {
        if films.is_empty() {
            let part = wanted.filter(|_| path == &args.reference).map_or("", Split::name);
            return Err(usage(anyhow!("{}: no {part} prediction to compare", path.display())));
        }
    }
    let options = DriftOptions {
        permutations: args.permutations as usize,
        seed: args.seed,
        correction: args.correction.into(),
    };
    let report = drift(&reference, &batch, &options);
    eprint!("{}", text(&report));
    if let Some(path) = &args.output {
        let json = serde_json::to_vec_pretty(&report).context("writing the comparison")?;
        whole_file::write(path, &json).with_context(|| format!("writing {}", path.display()))?;
    }
    global.print_json(&report)?;
    Ok(Done::All)
}

fn read(path: &Path) -> anyhow::Result<Vec<FilmPrediction>> {
    Ok(records::read(path)?)
}

fn text(report: &DriftReport) -> String {
    let words = |distribution: &Distribution| match distribution {
        Distribution::Quartiles([_, median, _]) => format!("{median:.3}"),
        // The commonest code is enough for a line; the rest is in the JSON document.
        Distribution::Shares(shares) => shares
            .iter()
            .max_by(|a, b| a.1.total_cmp(b.1))
            .map_or_else(String::new, |(code, share)| format!("{code} {:.0} %", 100.0 * share)),
    };
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            vec![
                row.quantity.clone(),
                words(&row.reference),
                words(&row.batch),
                format!("{:.2}", row.distance),
                format!("{:.2}", row.psi),
                format!("{:.2}", row.psi_by_chance),
                format!("{:.4}", row.p_adjusted),
                if row.differs { "differs" } else { "" }.to_owned(),
            ]
        })
        .collect();
    let header = ["quantity", "reference", "batch", "distance", "PSI", "by chance", "p corrected", ""];
    let counts = format!(
        "{} films of {} studies beside {} films of {} studies; median, or commonest code\n",
        report.batch.films, report.batch.studies, report.reference.films, report.reference.studies
    );
    let mut text = format!("\n{}{counts}\n", table(&header, &rows));
    if !report.not_compared.is_empty() {
        text.push_str(&format!("Only one side has: {}.\n", report.not_compared.join(", ")));
    }
    text + &report.statement.join("\n") + "\n"
}
