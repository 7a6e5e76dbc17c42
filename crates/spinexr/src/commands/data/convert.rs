//! `spinexr data convert`: a data set in another format.

use crate::Global;
use crate::commands::data::FormatArg;
use crate::console::{Bar, list_failures, table};
use crate::exit::{CommandResult, Done, usage};
use anyhow::Context;
use clap::ValueEnum;
use spinexr_data::convert::{ConvertOptions, DEGENERATE_PX, Degenerate, FilmFiles, convert};
use spinexr_data::formats;
use spinexr_data::vindr::VindrOptions;
use std::path::PathBuf;

/// Degenerate boxes that are listed one by one.
const LISTED: usize = 20;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr data convert bccd --to coco -o bccd-coco\n  \
    spinexr data convert vindr-spinexr --to yolo -o vindr-yolo --films link\n\n\
    Boxes, labels and splits all go over; what a format has no place for is said at the end. Corners stay as they\n\
    are, but in Pascal VOC, which has whole pixels: there they move by half a pixel at most. Films whose size cannot\n\
    be read are left out and listed, with exit code 1.")]
pub struct Args {
    /// Data set: VinDr-SpineXR, COCO, YOLO or Pascal VOC
    dir: PathBuf,
    /// Format to write
    #[arg(long, value_enum)]
    to: FormatArg,
    /// New folder
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Format to read; by default the one the folder is laid out in
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// How the films come along
    #[arg(long, value_enum, default_value = "copy")]
    films: FilmsArg,
    /// What becomes of boxes with a side of a pixel or less; they are listed either way
    #[arg(long, value_enum, default_value = "keep")]
    degenerate: DegenerateArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FilmsArg {
    /// Copied
    Copy,
    /// Symbolic links to where they are
    Link,
    /// Not at all: the annotations name them where they are (coco only)
    Reference,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DegenerateArg {
    /// Written like the others
    Keep,
    /// Left out; their film stays abnormal
    LeaveOut,
}

pub fn run(args: &Args, global: &Global) -> CommandResult {
    // Every box is read, whatever its size: a conversion loses none without saying so.
    let reading = VindrOptions { min_box_px: 0.0, ..VindrOptions::new() };
    let format = args.format.map(Into::into);
    let (dataset, broken) =
        formats::read_and_collect(&args.dir, format, &reading).map_err(anyhow::Error::from)?;
    let options = ConvertOptions {
        format: args.to.into(),
        films: match args.films {
            FilmsArg::Copy => FilmFiles::Copy,
            FilmsArg::Link => FilmFiles::Link,
            FilmsArg::Reference => FilmFiles::Reference,
        },
        degenerate: match args.degenerate {
            DegenerateArg::Keep => Degenerate::Keep,
            DegenerateArg::LeaveOut => Degenerate::LeaveOut,
        },
    };
    if options.films == FilmFiles::Reference && options.format != formats::Format::Coco {
        return Err(usage(anyhow::anyhow!("--films reference: only --to coco names films elsewhere")));
    }
    let bar = Bar::new("converting", global.quiet);
    let converted = convert(&dataset, &args.output, &options, global.thread_count(), &|p| bar.update(p))
        .with_context(|| format!("writing {} as {}", args.output.display(), options.format))?;
    bar.finish();

    let read = &dataset.read;
    let rows = [
        ("films", converted.films),
        ("boxes", converted.boxes),
        ("degenerate boxes", converted.degenerate.len()),
        ("boxes rounded to pixels", converted.rounded),
        ("boxes past the border, clipped", read.clipped_boxes),
        ("boxes read without extent, dropped", read.thin_boxes),
        ("exact duplicate rows, dropped", read.duplicate_rows),
        ("polygons, taken as boxes", read.polygons),
        ("regions of many objects, left out", read.crowd_regions),
        ("broken entries, their films left out", broken.len()),
        ("annotated films without a file", read.without_file.len()),
        ("annotated films in no split", read.without_split.len()),
        ("files without annotation", read.without_annotation.len()),
        ("films left out", converted.failures.len()),
    ];
    let rows: Vec<Vec<String>> =
        rows.iter().map(|(what, n)| vec![(*what).to_owned(), n.to_string()]).collect();
    eprint!("{}", table(&["what", "count"], &rows));
    for b in converted.degenerate.iter().take(LISTED) {
        let [x1, y1, x2, y2] = <[f32; 4]>::from(b.xyxy);
        eprintln!(
            "degenerate (a side of {DEGENERATE_PX} px or less): {} {} [{x1}, {y1}, {x2}, {y2}]",
            b.image_id, b.label
        );
    }
    if converted.degenerate.len() > LISTED {
        eprintln!("… and {} more; --json lists all", converted.degenerate.len() - LISTED);
    }
    converted.notes.iter().for_each(|note| eprintln!("note: {note}"));
    list_failures(broken.iter());
    list_failures(converted.failures.iter().map(|film| &film.error));
    eprintln!("{}", args.output.display());
    global.print_json(&serde_json::json!({
        "out": args.output,
        "format": options.format,
        "classes": dataset.classes,
        "converted": converted,
        "read": read,
        "broken_rows": broken.iter().map(ToString::to_string).collect::<Vec<_>>(),
    }))?;
    let whole = broken.is_empty() && converted.failures.is_empty() && read.without_file.is_empty();
    Ok(if whole { Done::All } else { Done::SomeFailed })
}
