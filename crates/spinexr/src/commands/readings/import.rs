//! `spinexr readings import`: structured reports that were corrected elsewhere, as readings.

use super::Source;
use crate::Global;
use crate::console::list_failures;
use crate::exit::{CommandResult, Done, usage};
use anyhow::{Context, anyhow, bail};
use spinexr_core::Category;
use spinexr_dicom::Limits;
use spinexr_dicom::results::{ReportedFilm, read_report};
use spinexr_serve::annotation::{AnnotatedBox, Annotation, AnnotationState, Origin, is_reader_name};
use spinexr_serve::store::{Level, Query, Store};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  spinexr readings import --data spinexr-serve --reader dr-a corrected/*.dcm\n\n\
    Reads reports of the form that `predict --format sr` writes. Each film of a report must be in the data folder. A\n\
    report of a film that this reader has read already takes the place of that reading only with --replace."
)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Whose readings these are
    #[arg(long, value_name = "NAME")]
    reader: String,
    /// Take the place of readings that are there
    #[arg(long)]
    replace: bool,
    /// Structured reports
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

pub fn run(args: &Args, global: &Global) -> CommandResult {
    if !is_reader_name(&args.reader) {
        return Err(usage(anyhow!("--reader {:?}: expected 1 to 64 letters, digits, . _ -", args.reader)));
    }
    let store = args.source.store()?;
    let (mut taken, mut errors) = (0, vec![]);
    for path in &args.files {
        match read_report(path, &Limits::default()) {
            Ok(report) => {
                for film in &report.films {
                    match take(&store, args, film) {
                        Ok(()) => taken += 1,
                        Err(error) => errors.push(format!("{}: {error:#}", path.display())),
                    }
                }
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    eprintln!("{taken} films taken over, {} failed", errors.len());
    list_failures(errors.iter());
    global.print_json(&serde_json::json!({ "taken": taken, "failed": errors }))?;
    Ok(if errors.is_empty() { Done::All } else { Done::SomeFailed })
}

/// Saves what a report says of one film.
fn take(store: &Store, args: &Args, reported: &ReportedFilm) -> anyhow::Result<()> {
    let uid = &reported.sop_instance_uid;
    let query = Query { sop_instance_uid: Some(uid.clone()), limit: 1, ..Query::default() };
    let row = store.find_instances(Level::Instance, &query)?.into_iter().next();
    let row = row.with_context(|| format!("film {uid}: it is not in the data folder"))?;
    let (height_px, width_px) = spinexr_dicom::read_size(&args.source.file(&row.path), &Limits::default())?;
    let boxes: Vec<AnnotatedBox> = reported
        .boxes
        .iter()
        .enumerate()
        .map(|(i, found)| AnnotatedBox {
            id: format!("b{}", i + 1),
            // The vocabulary spells as the readers' list does.
            label: found.label.parse::<Category>().map_or(found.label.clone(), |c| c.name().to_owned()),
            xyxy: found.xyxy,
            origin: if found.confidence.is_some() { Origin::Model } else { Origin::Reader },
            score: found.confidence,
            from: None,
        })
        .collect();
    let annotation = Annotation {
        state: AnnotationState::Complete,
        no_finding: boxes.is_empty(),
        boxes,
        rejected: vec![],
    };
    let labels: Vec<String> = annotation.boxes.iter().map(|b| b.label.clone()).collect();
    annotation.check(&labels, width_px, height_px).map_err(|why| anyhow!("film {uid}: {why}"))?;
    let over = store.annotation(&row.id, &args.reader)?.map_or(0, |saved| saved.version);
    if over > 0 && !args.replace {
        bail!("film {uid}: {} has read it already; --replace takes the place of that", args.reader);
    }
    let saved = store.save_annotation(&row.id, &args.reader, over, &annotation)?;
    saved.with_context(|| format!("film {uid}: its reading was changed at the same moment; try again"))?;
    Ok(())
}
