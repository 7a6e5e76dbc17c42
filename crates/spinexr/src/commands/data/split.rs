//! `spinexr data split`: parts or folds by study or patient, even in every finding.

use crate::Global;
use crate::commands::data::FormatArg;
use crate::console::{Bar, list_failures, table};
use crate::exit::{CommandError, CommandResult, Done, usage};
use anyhow::{Context, anyhow};
use clap::ValueEnum;
use serde_json::json;
use spinexr_core::Split;
use spinexr_data::resplit::{GroupBy, PartCounts, Placement, Source, refuse_taken, share_out, write_folder};
use spinexr_data::{Dataset, Film, FilmFailure, Format, formats, headers, vindr};
use spinexr_dicom::{Examined, Limits};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr data split /data/vindr-spinexr -o split --validation 0.15\n  \
    spinexr data split /data/own -o split --validation 0.15 --test 0.2 --by patient --seed 7\n  \
    spinexr data split /data/vindr-spinexr -o folds --folds 5       folds/fold1 … folds/fold5\n  \
    spinexr data split /data/coco-set -o split --validation 0.2 --by patient\n\n\
    Findings are shared out evenly by iterative stratification (Sechidis et al., 2011). The same films and seed \
    give the same parts. Each new folder is a data set; `train` takes its validation part as it is. A test part that is there already stays as it is, unless --pool is given.")]
pub struct Args {
    /// Data set: VinDr-SpineXR, COCO, YOLO or Pascal VOC; the new one is in the same format
    dir: PathBuf,
    /// Folder of the new data set, or of the folds; must not be there yet
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Format of the data set; by default the one the folder is laid out in
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// Share of the films for validation
    #[arg(long, value_name = "SHARE", conflicts_with = "folds")]
    validation: Option<f64>,
    /// Share of the films for a test part
    #[arg(long, value_name = "SHARE")]
    test: Option<f64>,
    /// Folds: each is the validation part of one data set, and trained on in all others
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(2..=100))]
    folds: Option<u32>,
    /// What must stay on one side
    #[arg(long, value_enum, default_value_t = ByArg::Study)]
    by: ByArg,
    /// Share all films out, those of a validation or test part too
    #[arg(long)]
    pool: bool,
    /// Seed of the draw
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How films get into the new folder
    #[arg(long, value_enum, default_value_t = FilmsArg::Link)]
    films: FilmsArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ByArg {
    /// Films of a study
    Study,
    /// Studies of a patient as well, told by Patient ID in the headers
    Patient,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FilmsArg {
    /// Symbolic links to the films where they lie
    Link,
    /// Second names of the same files, on the same disk
    Hardlink,
    /// Copies
    Copy,
}

/// Films of each new part, under a name for the table.
type Part<'a> = (String, Vec<&'a Film>);

pub fn run(args: &Args, global: &Global) -> CommandResult {
    let shares = shares(args)?;
    refuse_taken(&args.out).map_err(usage)?;
    let format = match args.format {
        Some(format) => format.into(),
        None => Format::detect(&args.dir).map_err(anyhow::Error::from)?,
    };
    // VinDr-SpineXR's rows are copied, whatever is made of them; other formats are written from what was read.
    let dataset = match format {
        Format::Vindr => vindr::read(&args.dir),
        _ => formats::read_every_box(&args.dir, format),
    };
    let dataset = dataset.map_err(anyhow::Error::from)?;
    let (pool, kept): (Vec<&Film>, Vec<&Film>) =
        dataset.films.iter().partition(|film| args.pool || film.split == Split::Train);
    for (part, asked) in [(Split::Test, args.test.is_some()), (Split::Validation, true)] {
        if asked && kept.iter().any(|film| film.split == part) {
            return Err(usage(anyhow!(
                "{} has a {part} part already; --pool shares its films out anew with all others",
                args.dir.display()
            )));
        }
    }
    let (headers, unread) = patients(args, &dataset, global);
    let by = match args.by {
        ByArg::Study => GroupBy::Study,
        ByArg::Patient => GroupBy::Patient,
    };
    let patient_of = |film: &Film| headers.get(&film.path)?.patient.clone();
    let values: Vec<f64> = shares.iter().map(|(_, share)| *share).collect();
    let assigned = share_out(&pool, by, patient_of, &values, args.seed).map_err(usage)?;
    let mut parts: Vec<Part<'_>> = shares.iter().map(|(name, _)| (name.clone(), vec![])).collect();
    for (film, part) in pool.iter().zip(assigned) {
        parts[part].1.push(film);
    }
    let kept_test: Vec<&Film> = kept.into_iter().filter(|film| film.split == Split::Test).collect();

    let source = Source::of(&args.dir, &dataset, format).map_err(anyhow::Error::from)?;
    let counts: BTreeMap<&str, PartCounts> =
        parts.iter().map(|(name, films)| (name.as_str(), PartCounts::of(films.iter().copied()))).collect();
    let document = json!({
        "format": "spinexr split",
        "method": "iterative stratification (Sechidis et al., 2011) over groups of films",
        "by": by,
        "seed": args.seed,
        "shares": shares.iter().cloned().collect::<BTreeMap<_, _>>(),
        "pool": args.pool,
        "source": args.dir,
        "source_format": format,
        "parts": counts,
        "kept_test": (!kept_test.is_empty()).then(|| PartCounts::of(kept_test.iter().copied())),
    });
    let left_out = write(args, parts.as_slice(), &kept_test, &source, &document, global.thread_count())?;

    print_balance(&parts, &values, &kept_test);
    eprintln!("written to {}", args.out.display());
    if !unread.is_empty() {
        eprintln!("films whose patient could not be read ({}):", unread.len());
        list_failures(unread.iter());
    }
    list_failures(left_out.iter().map(|film| &film.error));
    global.print_json(&document)?;
    Ok(if unread.is_empty() && left_out.is_empty() { Done::All } else { Done::SomeFailed })
}

/// Names and shares of the new parts.
fn shares(args: &Args) -> Result<Vec<(String, f64)>, CommandError> {
    let taken = args.validation.unwrap_or(0.0) + args.test.unwrap_or(0.0);
    for (name, share) in [("--validation", args.validation), ("--test", args.test)] {
        if share.is_some_and(|share| !(share > 0.0 && share < 1.0)) || taken >= 1.0 {
            return Err(usage(anyhow!("{name}: expected shares inside 0 to 1 that leave films to train on")));
        }
    }
    let mut shares = vec![];
    match args.folds {
        Some(folds) => {
            let share = (1.0 - taken) / f64::from(folds);
            shares.extend((1..=folds).map(|fold| (format!("fold{fold}"), share)));
        }
        None if taken == 0.0 => return Err(usage(anyhow!("expected --validation, --test or --folds"))),
        None => {
            shares.push((Split::Train.name().to_owned(), 1.0 - taken));
            shares.extend(args.validation.map(|share| (Split::Validation.name().to_owned(), share)));
        }
    }
    shares.extend(args.test.map(|share| (Split::Test.name().to_owned(), share)));
    Ok(shares)
}

/// Headers by film, where patients are asked for, and what could not be read.
fn patients(args: &Args, dataset: &Dataset, global: &Global) -> (BTreeMap<PathBuf, Examined>, Vec<String>) {
    if matches!(args.by, ByArg::Study) {
        return (BTreeMap::new(), vec![]);
    }
    let bar = Bar::new("reading headers", global.quiet);
    let (headers, failures) =
        headers::read_all(dataset, &Limits::default(), global.thread_count(), &|p| bar.update(p));
    bar.finish();
    (headers, failures.into_iter().map(|film| film.error).collect())
}

fn write(
    args: &Args,
    parts: &[Part<'_>],
    kept_test: &[&Film],
    source: &Source<'_>,
    document: &serde_json::Value,
    threads: usize,
) -> anyhow::Result<Vec<FilmFailure>> {
    let placement = match args.films {
        FilmsArg::Link => Placement::Link,
        FilmsArg::Hardlink => Placement::HardLink,
        FilmsArg::Copy => Placement::Copy,
    };
    let named = |name: &str| -> Vec<&Film> {
        parts.iter().filter(|(part, _)| part == name).flat_map(|(_, films)| films).copied().collect()
    };
    let test = [named(Split::Test.name()), kept_test.to_vec()].concat();
    let test_part = (!test.is_empty()).then_some((Split::Test, test));
    let Some(folds) = args.folds else {
        let mut by_split: BTreeMap<Split, Vec<&Film>> = test_part.into_iter().collect();
        for split in [Split::Train, Split::Validation] {
            let films = named(split.name());
            if !films.is_empty() {
                by_split.insert(split, films);
            }
        }
        return Ok(write_folder(&args.out, &by_split, source, placement, document, threads)?);
    };
    let mut left_out = vec![];
    for fold in 1..=folds {
        let name = format!("fold{fold}");
        let mut by_split: BTreeMap<Split, Vec<&Film>> = test_part.clone().into_iter().collect();
        by_split.insert(Split::Validation, named(&name));
        let others = parts.iter().filter(|(part, _)| *part != name && part.starts_with("fold"));
        by_split.insert(Split::Train, others.flat_map(|(_, films)| films).copied().collect());
        let of_fold = write_folder(&args.out.join(&name), &by_split, source, placement, document, threads)
            .with_context(|| format!("writing {name}"))?;
        left_out = of_fold; // every fold has the same films
    }
    Ok(left_out)
}

/// Counts of each part, and the share each has of what was shared out.
fn print_balance(parts: &[Part<'_>], shares: &[f64], kept_test: &[&Film]) {
    let mut columns: Vec<(String, PartCounts)> =
        parts.iter().map(|(name, films)| (name.clone(), PartCounts::of(films.iter().copied()))).collect();
    let whole = PartCounts::of(parts.iter().flat_map(|(_, films)| films.iter().copied()));
    let shared = columns.len();
    if !kept_test.is_empty() {
        columns.push(("test, as it was".to_owned(), PartCounts::of(kept_test.iter().copied())));
    }
    let mut header = vec![""];
    header.extend(columns.iter().map(|(name, _)| name.as_str()));
    let row = |name: &str, value: &dyn Fn(&PartCounts) -> usize| {
        let all = value(&whole);
        let mut cells = vec![name.to_owned()];
        cells.extend(columns.iter().enumerate().map(|(i, (_, counts))| {
            let n = value(counts);
            let has_share = i < shared && all > 0;
            if has_share { format!("{n} ({:.1} %)", 100.0 * n as f64 / all as f64) } else { n.to_string() }
        }));
        cells
    };
    let mut wanted = vec!["share asked for".to_owned()];
    wanted.extend(shares.iter().map(|share| format!("{:.1} %", 100.0 * share)));
    let mut rows = vec![
        wanted,
        row("studies", &|c| c.studies),
        row("films", &|c| c.films),
        row("abnormal films", &|c| c.abnormal),
    ];
    let names: BTreeSet<&String> = columns.iter().flat_map(|(_, counts)| counts.films_with.keys()).collect();
    rows.extend(
        names.iter().map(|name| {
            row(&format!("films with {name}"), &|c| c.films_with.get(*name).copied().unwrap_or(0))
        }),
    );
    eprint!("{}", table(&header, &rows));
}
