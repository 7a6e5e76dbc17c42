//! `spinexr readings import`: structured reports that were corrected elsewhere, as readings.

use super::Source;
use crate::Global;
use crate::console::list_failures;
use crate::exit::{CommandResult, Done, usage};
use anyhow::anyhow;
use spinexr_dicom::Limits;
use spinexr_dicom::results::read_report;
use spinexr_serve::annotation::is_reader_name;
use spinexr_serve::correction::{self, Correction, CorrectionError};
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
    let config = args.source.config()?;
    let store = args.source.store(&config)?;
    let correction = Correction { reader: &args.reader, labels: None, replace: args.replace };
    let (mut taken, mut errors) = (0, vec![]);
    for path in &args.files {
        match read_report(path, &Limits::default()) {
            Ok(report) => {
                for film in &report.films {
                    match correction::take(&store, &config.spool_dir(), film, &correction) {
                        Ok(_) => taken += 1,
                        Err(CorrectionError::ReadAlready { .. }) => {
                            let uid = &film.sop_instance_uid;
                            let reader = &args.reader;
                            errors.push(format!(
                                "{}: film {uid}: {reader} has read it already; --replace takes the place of that",
                                path.display()
                            ));
                        }
                        Err(error) => errors.push(format!("{}: {error}", path.display())),
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
