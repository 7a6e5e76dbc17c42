//! `spinexr readings agreement`: every two readers compared.

use super::Source;
use crate::Global;
use crate::console::table;
use crate::exit::{CommandResult, Done, usage};
use anyhow::anyhow;
use spinexr_eval::agreement::{Agreement, YesNo};
use spinexr_serve::annotation::compare;

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  spinexr readings agreement --data spinexr-serve --iou 0.5 --json > agreement.json"
)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Least overlap of two boxes that are the same
    #[arg(long, default_value_t = 0.5)]
    iou: f64,
}

pub fn run(args: &Args, global: &Global) -> CommandResult {
    if !(args.iou > 0.0 && args.iou <= 1.0) {
        return Err(usage(anyhow!("--iou: expected above 0 to 1, got {}", args.iou)));
    }
    let config = args.source.config()?;
    let saved = args.source.store(&config)?.annotations(None).map_err(anyhow::Error::from)?;
    let pairs = compare(&saved, args.iou);
    for pair in &pairs {
        eprintln!("{} and {}: {} films", pair.first, pair.second, pair.agreement.films);
        eprint!("{}", in_words(&pair.agreement));
    }
    if pairs.is_empty() {
        eprintln!("no two readers have completed a film in common");
    }
    global.print_json(&serde_json::json!({ "pairs": pairs }))?;
    Ok(Done::All)
}

fn in_words(agreement: &Agreement) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "n/a".to_owned(), |v| format!("{v:.2}"));
    let kappa = |films: &YesNo| match films.kappa_interval {
        Some([low, high]) => format!("{} ({low:.2}–{high:.2})", number(films.kappa)),
        None => number(films.kappa),
    };
    let mut rows = vec![vec![
        "abnormal".to_owned(),
        kappa(&agreement.abnormal),
        number(agreement.abnormal.observed),
        agreement.boxes.matched.to_string(),
        agreement.boxes.only_first.to_string(),
        agreement.boxes.only_second.to_string(),
        number(agreement.boxes.mean_iou),
    ]];
    for (label, found) in &agreement.findings {
        rows.push(vec![
            label.clone(),
            kappa(&found.films),
            number(found.films.observed),
            found.matched.to_string(),
            found.only_first.to_string(),
            found.only_second.to_string(),
            number(found.mean_iou),
        ]);
    }
    table(
        &["", "kappa of films (95 %)", "agree", "boxes of both", "only first", "only second", "mean IoU"],
        &rows,
    )
}
