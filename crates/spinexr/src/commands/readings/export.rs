//! `spinexr readings export`: complete readings and their films as a data set.

use super::Source;
use crate::Global;
use crate::commands::data::FormatArg;
use crate::console::{Bar, list_failures, table};
use crate::exit::{CommandError, CommandResult, Done, usage};
use anyhow::{Context, anyhow};
use spinexr_core::{Annotation, Category, ClassList, FilmAnnotation, Label, Split};
use spinexr_data::convert::{ConvertOptions, Degenerate, FilmFiles, convert};
use spinexr_data::{Dataset, Film};
use spinexr_serve::annotation::AnnotationState;
use spinexr_serve::store::{SavedAnnotation, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr readings export --data spinexr-serve --reader dr-a -o readings\n  \
    spinexr readings export --data spinexr-serve --to coco --films link -o readings-coco\n\n\
    All films go into the training part; `spinexr data split` makes more. Where every finding is one of the 13 of\n\
    VinDr-SpineXR, the six rarest become \"Other lesions\", as in its release; --keep-categories keeps them apart.")]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Whose readings; needed where two readers have completed the same film
    #[arg(long, value_name = "NAME")]
    reader: Option<String>,
    /// New folder
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Format to write
    #[arg(long, value_enum, default_value = "vindr")]
    to: FormatArg,
    /// Symbolic links to the service's films in place of copies
    #[arg(long)]
    link: bool,
    /// Every category a class of its own
    #[arg(long)]
    keep_categories: bool,
}

pub fn run(args: &Args, global: &Global) -> CommandResult {
    let config = args.source.config()?;
    let store = args.source.store(&config)?;
    let readings = chosen(store.annotations(None).map_err(anyhow::Error::from)?, args.reader.as_deref())?;
    let classes = classes(&readings, args.keep_categories)?;
    let mut films = vec![];
    for reading in &readings {
        films.push(film(&store, &config.spool_dir(), reading, &classes)?);
    }
    films.sort_by(|a, b| a.annotation.image_id.cmp(&b.annotation.image_id));
    let dataset = Dataset { classes, films, ..Dataset::default() };
    let options = ConvertOptions {
        format: args.to.into(),
        films: if args.link { FilmFiles::Link } else { FilmFiles::Copy },
        degenerate: Degenerate::Keep,
    };
    let bar = Bar::new("writing films", global.quiet);
    let written = convert(&dataset, &args.output, &options, global.thread_count(), &|p| bar.update(p))
        .with_context(|| format!("writing {}", args.output.display()))?;
    bar.finish();
    let mut boxes: BTreeMap<&str, usize> = BTreeMap::new();
    for found in dataset.films.iter().flat_map(|film| &film.annotation.boxes) {
        *boxes.entry(found.label.name()).or_insert(0) += 1;
    }
    let rows: Vec<Vec<String>> =
        boxes.iter().map(|(label, count)| vec![(*label).to_owned(), count.to_string()]).collect();
    eprint!("{}", table(&["finding", "boxes"], &rows));
    let normal = dataset.films.iter().filter(|film| !film.annotation.abnormal).count();
    eprintln!("{}: {} films, {normal} without a finding", args.output.display(), written.films);
    list_failures(written.failures.iter().map(|failure| &failure.error));
    global.print_json(&serde_json::json!({ "films": written.films, "normal": normal, "boxes": boxes }))?;
    Ok(if written.failures.is_empty() { Done::All } else { Done::SomeFailed })
}

/// Complete readings, one a film.
fn chosen(saved: Vec<SavedAnnotation>, reader: Option<&str>) -> Result<Vec<SavedAnnotation>, CommandError> {
    let all: BTreeSet<String> = saved.iter().map(|reading| reading.reader.clone()).collect();
    let names = || all.iter().cloned().collect::<Vec<_>>().join(", ");
    if let Some(reader) = reader.filter(|reader| !all.contains(*reader)) {
        return Err(usage(anyhow!("--reader {reader}: expected one of: {}", names())));
    }
    let complete: Vec<SavedAnnotation> = saved
        .into_iter()
        .filter(|reading| reading.annotation.state == AnnotationState::Complete)
        .filter(|reading| reader.is_none_or(|reader| reading.reader == reader))
        .collect();
    // They are in order of the films.
    if let Some(pair) = complete.windows(2).find(|pair| pair[0].film == pair[1].film) {
        let (first, second) = (&pair[0].reader, &pair[1].reader);
        return Err(usage(anyhow!(
            "{first} and {second} have both completed film {}: say whose readings with --reader ({})",
            pair[0].film,
            names()
        )));
    }
    if complete.is_empty() {
        return Err(usage(anyhow!("there is no complete reading; readers: {}", names())));
    }
    Ok(complete)
}

/// The release's classes where its vocabulary is enough, else the labels in order of their names.
fn classes(readings: &[SavedAnnotation], keep_categories: bool) -> anyhow::Result<ClassList> {
    let labels: BTreeSet<&str> =
        readings.iter().flat_map(|r| &r.annotation.boxes).map(|b| b.label.as_str()).collect();
    let is_release = labels.iter().all(|label| label.parse::<Category>().is_ok());
    if is_release && !keep_categories {
        return Ok(ClassList::vindr());
    }
    if is_release {
        return Ok(ClassList::from_names(Category::ALL.map(Category::name))?);
    }
    Ok(ClassList::from_names(labels)?)
}

/// A film as its reader has it; `spool_dir` holds its file.
fn film(
    store: &Store,
    spool_dir: &Path,
    reading: &SavedAnnotation,
    classes: &ClassList,
) -> anyhow::Result<Film> {
    let row =
        store.instance(&reading.film)?.with_context(|| format!("film {}: it is not there", reading.film))?;
    let label = |name: &str| -> anyhow::Result<Label> {
        match name.parse::<Category>() {
            Ok(category) if classes.is_vindr() => Ok(category.finding().label()),
            _ => Ok(Label::new(name)?),
        }
    };
    let boxes = reading.annotation.boxes.iter();
    let boxes = boxes.map(|b| Ok(Annotation { label: label(&b.label)?, xyxy: b.xyxy }));
    Ok(Film {
        path: spool_dir.join(&row.path),
        annotation: FilmAnnotation {
            image_id: row.instance.sop_instance_uid.clone(),
            study_id: row.instance.study_uid.clone(),
            series_id: row.instance.series_uid.clone(),
            abnormal: !reading.annotation.no_finding,
            boxes: boxes.collect::<anyhow::Result<_>>()?,
        },
        split: Split::Train,
    })
}
