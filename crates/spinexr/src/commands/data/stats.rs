//! `spinexr data stats`: the paper's data table.

use crate::Global;
use crate::commands::data::FormatArg;
use crate::console::{Bar, list_failures, table};
use crate::exit::{CommandResult, Done, usage};
use anyhow::anyhow;
use spinexr_core::{ClassList, Split};
use spinexr_data::stats::{SplitStats, Summary, stats};
use spinexr_data::{cache::FilmFailure, formats, headers, split, vindr};
use spinexr_dicom::Limits;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  spinexr data stats /data/vindr-spinexr --validation-fraction 0.15 --seed 7\n\n\
    Age, sex and sizes come from the films' headers; PNG and JPEG films have a size only.\n\
    Exit code 1 when a header cannot be read; its film counts all the same."
)]
pub struct Args {
    /// Data set: VinDr-SpineXR, COCO, YOLO or Pascal VOC
    dir: PathBuf,
    /// Its format; by default the one it is laid out in
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// Hold this share of the training studies out first, as training does
    #[arg(long, value_name = "SHARE")]
    validation_fraction: Option<f64>,
    /// Seed of the hold-out, data.split_seed of a configuration
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Count annotations only; no film is opened
    #[arg(long)]
    no_films: bool,
}

pub fn run(args: &Args, global: &Global) -> CommandResult {
    let options = vindr::VindrOptions::new();
    let mut dataset = formats::read(&args.dir, args.format.map(Into::into)).map_err(anyhow::Error::from)?;
    if let Some(fraction) = args.validation_fraction {
        if dataset.of(Split::Validation).next().is_some() {
            return Err(usage(anyhow!("{} has a validation part of its own", args.dir.display())));
        }
        split::hold_out_validation(&mut dataset, fraction, args.seed).map_err(usage)?;
    }
    let mut failures: Vec<FilmFailure> = vec![];
    let mut headers = BTreeMap::new();
    if !args.no_films {
        let bar = Bar::new("reading headers", global.quiet);
        (headers, failures) =
            headers::read_all(&dataset, &Limits::default(), global.thread_count(), &|p| bar.update(p));
        bar.finish();
        dataset.clip_boxes(options.min_box_px, |film| {
            headers.get(&film.path).map(|header| (header.height_px, header.width_px))
        });
    }
    let stats = stats(&dataset, |film| headers.get(&film.path));
    print_tables(&stats, &dataset.classes);
    if !failures.is_empty() {
        eprintln!("headers that cannot be read ({}):", failures.len());
        list_failures(failures.iter().map(|film| &film.error));
    }
    global.print_json(&stats)?;
    Ok(if failures.is_empty() { Done::All } else { Done::SomeFailed })
}

fn print_tables(stats: &BTreeMap<Split, SplitStats>, classes: &ClassList) {
    let mut header = vec![""];
    header.extend(stats.keys().map(|split| split.name()));
    let row = |name: &str, value: &dyn Fn(&SplitStats) -> String| {
        let mut cells = vec![name.to_owned()];
        cells.extend(stats.values().map(value));
        cells
    };
    let of = |n: usize, all: usize| match all {
        0 => n.to_string(),
        _ => format!("{n} ({:.1} %)", 100.0 * n as f64 / all as f64),
    };
    let mut rows = vec![
        row("studies", &|s| s.studies.to_string()),
        row("  with an abnormal film", &|s| of(s.abnormal_studies, s.studies)),
        row("patients", &|s| s.patients.map_or_else(|| "n/a".to_owned(), |n| n.to_string())),
        row("films", &|s| s.films.to_string()),
        row("  normal", &|s| of(s.normal, s.films)),
        row("  abnormal", &|s| of(s.abnormal, s.films)),
        row("  with boxes", &|s| of(s.films_with_boxes, s.films)),
    ];
    for sex in ["F", "M", "O", "unknown"] {
        if stats.values().any(|s| s.sex.contains_key(sex) && s.headers_read > 0) {
            let name = format!("  sex {sex}");
            rows.push(row(&name, &|s| of(s.sex.get(sex).copied().unwrap_or(0), s.films)));
        }
    }
    rows.push(row("age, years", &|s| summary(s.age_years.as_ref(), 1)));
    rows.push(row("height, px", &|s| summary(s.height_px.as_ref(), 0)));
    rows.push(row("width, px", &|s| summary(s.width_px.as_ref(), 0)));
    rows.push(row("pixel spacing, mm", &|s| summary(s.pixel_spacing_mm.as_ref(), 3)));
    eprintln!("{}", table(&header, &rows));

    let boxes_and_films = |s: &SplitStats, name: &str| {
        let count = |of: &BTreeMap<String, usize>| of.get(name).copied().unwrap_or(0);
        format!("{} ({})", count(&s.boxes), count(&s.films_with))
    };
    let names = || classes.labels().iter().map(|label| label.name());
    let mut rows: Vec<_> = names().map(|name| row(name, &|s| boxes_and_films(s, name))).collect();
    rows.push(row("all", &|s| format!("{} ({})", s.boxes.values().sum::<usize>(), s.films_with_boxes)));
    header[0] = "boxes (films)";
    eprintln!("{}", table(&header, &rows));

    let share =
        |s: Option<&Summary>| s.map_or_else(|| "n/a".to_owned(), |s| format!("{:.2}", 100.0 * s.mean));
    let mut rows = vec![];
    for (split, stats) in stats {
        for (name, sizes) in names().filter_map(|name| Some((name, stats.box_sizes.get(name)?))) {
            rows.push(vec![
                format!("{name}, {split}"),
                summary(Some(&sizes.width_px), 0),
                summary(Some(&sizes.height_px), 0),
                share(sizes.share_of_film.as_ref()),
            ]);
        }
    }
    if !rows.is_empty() {
        eprint!("{}", table(&["boxes", "width, px", "height, px", "% of film"], &rows));
    }
}

/// `49.1 ± 12.0 [18–90]`: mean, standard deviation, least and greatest.
fn summary(summary: Option<&Summary>, digits: usize) -> String {
    let Some(Summary { mean, sd, min, max, .. }) = summary else { return "n/a".to_owned() };
    let sd = sd.map_or_else(String::new, |sd| format!(" ± {sd:.digits$}"));
    format!("{mean:.digits$}{sd} [{min:.digits$}–{max:.digits$}]")
}
