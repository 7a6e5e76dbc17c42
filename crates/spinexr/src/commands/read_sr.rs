//! `spinexr read-sr`: the boxes of DICOM structured reports.

use crate::Global;
use crate::console::list_failures;
use crate::exit::{CommandResult, Done};
use spinexr_dicom::Limits;
use spinexr_dicom::results::{Report, read_report};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr read-sr out/film.sr.dcm               the boxes of a report in words\n  \
    spinexr read-sr --json corrected/*.dcm        as JSON: films, classes, confidences, tracking UIDs, boxes in film px\n\n\
    Reads what `spinexr predict --format sr` writes, and the same reports after a reader corrected them: TID 1500 with\n\
    planar regions (TID 1410), each with a finding and a tracking UID of its own.")]
pub struct Args {
    /// Structured reports
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// A report and its file.
#[derive(serde::Serialize)]
struct Read {
    path: PathBuf,
    #[serde(flatten)]
    report: Report,
}

/// A struct, not a JSON value: that would write each `f32` with the digits of an `f64`.
#[derive(serde::Serialize)]
struct Document {
    reports: Vec<Read>,
    failed: Vec<String>,
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    let (mut reports, mut errors) = (vec![], vec![]);
    for path in args.files {
        match read_report(&path, &Limits::default()) {
            Ok(report) => reports.push(Read { path, report }),
            Err(error) => errors.push(error.to_string()),
        }
    }
    for read in &reports {
        eprintln!("{}", in_words(read));
    }
    eprintln!("{} reports read, {} failed", reports.len(), errors.len());
    list_failures(errors.iter());
    let document = Document { reports, failed: errors };
    global.print_json(&document)?;
    Ok(if document.failed.is_empty() { Done::All } else { Done::SomeFailed })
}

fn in_words(read: &Read) -> String {
    let verified = if read.report.verified { "verified" } else { "unverified" };
    let mut text = format!("{} ({verified})", read.path.display());
    for film in &read.report.films {
        text.push_str(&format!("\n  film {}, frame {}", film.sop_instance_uid, film.frame));
        if let Some(p) = film.p_abnormal {
            text.push_str(&format!(", p(abnormal) {p:.3}"));
        }
        if let Some(c_star) = film.threshold {
            text.push_str(&format!(", c* {c_star:.3}"));
        }
        for b in &film.boxes {
            let [x1, y1, x2, y2] = <[f32; 4]>::from(b.xyxy);
            let confidence = b.confidence.map_or_else(|| "   –".to_owned(), |c| format!("{c:.2}"));
            text.push_str(&format!(
                "\n    {:<22} {confidence}  at {x1:.0},{y1:.0} – {x2:.0},{y2:.0} px",
                b.label
            ));
        }
    }
    text
}
