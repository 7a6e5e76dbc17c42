//! `spinexr data stats`: the paper's data table.

use crate::Global;
use crate::console::table;
use crate::exit::{CommandResult, Done, usage};
use spinexr_core::{Finding, Split};
use spinexr_data::{Dataset, split, vindr};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  spinexr data stats /data/vindr-spinexr --validation-fraction 0.15 --seed 7"
)]
pub struct Args {
    /// Data set in the VinDr-SpineXR layout
    dir: PathBuf,
    /// Hold this share of the training studies out first, as training does
    #[arg(long, value_name = "SHARE")]
    validation_fraction: Option<f64>,
    /// Seed of the hold-out, data.split_seed of a configuration
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub fn run(args: &Args, global: &Global) -> CommandResult {
    let mut dataset = vindr::read(&args.dir).map_err(anyhow::Error::from)?;
    if let Some(fraction) = args.validation_fraction {
        split::hold_out_validation(&mut dataset, fraction, args.seed).map_err(usage)?;
    }
    let counts: BTreeMap<Split, Counts> =
        Split::ALL.into_iter().map(|s| (s, Counts::of(&dataset, s))).filter(|(_, c)| c.films > 0).collect();
    let mut header = vec![""];
    header.extend(counts.keys().map(|s| s.name()));
    let row = |name: &str, value: &dyn Fn(&Counts) -> usize| {
        let mut cells = vec![name.to_owned()];
        cells.extend(counts.values().map(|c| value(c).to_string()));
        cells
    };
    let mut rows = vec![
        row("studies", &|c| c.studies),
        row("films", &|c| c.films),
        row("normal films", &|c| c.normal),
        row("abnormal films", &|c| c.films - c.normal),
    ];
    for finding in Finding::ALL {
        rows.push(row(finding.name(), &|c| c.boxes.get(&finding).copied().unwrap_or(0)));
    }
    eprint!("{}", table(&header, &rows));
    global.print_json(&counts)?;
    Ok(Done::All)
}

/// One column of the paper's table 1.
#[derive(serde::Serialize)]
struct Counts {
    studies: usize,
    films: usize,
    normal: usize,
    boxes: BTreeMap<Finding, usize>,
}

impl Counts {
    fn of(dataset: &Dataset, split: Split) -> Self {
        let mut boxes = BTreeMap::new();
        for annotation in dataset.of(split).flat_map(|f| &f.annotation.boxes) {
            *boxes.entry(annotation.label).or_insert(0) += 1;
        }
        Self {
            studies: dataset.of(split).map(|f| &f.annotation.study_id).collect::<BTreeSet<_>>().len(),
            films: dataset.of(split).count(),
            normal: dataset.of(split).filter(|f| !f.annotation.abnormal).count(),
            boxes,
        }
    }
}
