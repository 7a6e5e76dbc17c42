//! `spinexr data check`: what is broken, odd or leaking in a data set.

use crate::Global;
use crate::commands::data::FormatArg;
use crate::console::{Bar, table};
use crate::exit::{CommandResult, Done};
use anyhow::Context;
use spinexr_data::check::{CheckReport, Depth, Issue, IssueKind, check};
use spinexr_data::{formats, vindr};
use spinexr_dicom::ReadOptions;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr data check /data/vindr-spinexr\n  \
    spinexr data check /data/vindr-spinexr --no-pixels    headers only: no checksums, no films found twice\n\n\
    Exit code 1 when something needs a hand: broken rows, missing or broken films, wrong checksums, leakage. \
    What reading repairs is listed and is no fault.")]
pub struct Args {
    /// Data set: VinDr-SpineXR, COCO, YOLO or Pascal VOC
    dir: PathBuf,
    /// Its format; by default the one it is laid out in
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// Read annotations only, no film
    #[arg(long, conflicts_with = "no_pixels")]
    no_films: bool,
    /// Read films' headers only: neither pixels nor checksums
    #[arg(long)]
    no_pixels: bool,
    /// Issues of each kind that are listed; --json has them all
    #[arg(long, default_value_t = 10, value_name = "N")]
    list: usize,
}

pub fn run(args: &Args, global: &Global) -> CommandResult {
    let depth = match (args.no_films, args.no_pixels) {
        (true, _) => Depth::Annotations,
        (false, true) => Depth::Headers,
        (false, false) => Depth::Pixels,
    };
    let (mut dataset, broken_rows) =
        formats::read_and_collect(&args.dir, args.format.map(Into::into), &vindr::VindrOptions::new())
            .map_err(anyhow::Error::from)?;
    let bar = Bar::new("checking films", global.quiet);
    let options = ReadOptions::default();
    let report = check(&args.dir, &mut dataset, &broken_rows, depth, &options, global.thread_count(), &|p| {
        bar.update(p);
    })
    .with_context(|| format!("checking {}", args.dir.display()))?;
    bar.finish();

    print_report(&report, args.list);
    let unreadable: Vec<&Issue> = report.of(IssueKind::FilmUnreadable).collect();
    let told = |issue: &Issue| format!("{}: {}", issue.place, issue.detail);
    let leak = report.issues.iter().find(|issue| is_leak(issue.kind)).map(told);
    let counts: BTreeMap<_, usize> = IssueKind::ALL
        .into_iter()
        .filter(|&kind| report.of(kind).len() > 0)
        .map(|kind| (serde_json::json!(kind).as_str().unwrap_or_default().to_owned(), report.of(kind).len()))
        .collect();
    global.print_json(&serde_json::json!({
        "sound": report.is_sound(),
        "films": report.films,
        "headers_read": report.headers_read,
        "decoded": report.decoded,
        "patients": report.patients,
        "films_without_patient": report.films_without_patient,
        "checksum_list": report.checksum_list,
        "checksums_right": report.checksums_right,
        "read": dataset.read,
        "counts": counts,
        "issues": report.issues,
        "broken_rows": broken_rows.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "unreadable": unreadable,
        "leak": leak,
    }))?;
    Ok(if report.is_sound() { Done::All } else { Done::SomeFailed })
}

fn is_leak(kind: IssueKind) -> bool {
    matches!(
        kind,
        IssueKind::StudyInTwoSplits
            | IssueKind::StudyUidInTwoSplits
            | IssueKind::PatientInTwoSplits
            | IssueKind::PixelsInTwoSplits
            | IssueKind::ImageIdTwice
    )
}

fn print_report(report: &CheckReport, listed: usize) {
    let CheckReport { films, headers_read, decoded, patients, films_without_patient, .. } = report;
    eprintln!("{films} films: {headers_read} headers read, {decoded} decoded");
    if *headers_read > 0 {
        eprintln!(
            "{patients} patients by Patient ID; of {films_without_patient} films the patient is not known"
        );
    }
    match &report.checksum_list {
        Some(list) => {
            eprintln!("{}: {} files have the checksum listed", list.display(), report.checksums_right)
        }
        None if *decoded > 0 => eprintln!("no SHA256SUMS.txt or SHA256SUMS: checksums were not compared"),
        None => {}
    }
    let row = |kind: IssueKind| {
        let verdict = if kind.is_fault() { "fault" } else { "noted" };
        vec![kind.description().to_owned(), report.of(kind).len().to_string(), verdict.to_owned()]
    };
    let found: Vec<_> = IssueKind::ALL.into_iter().filter(|&kind| report.of(kind).len() > 0).collect();
    if found.is_empty() {
        eprintln!("nothing is the matter");
        return;
    }
    eprint!("{}", table(&["what", "count", ""], &found.iter().map(|&kind| row(kind)).collect::<Vec<_>>()));
    for kind in found {
        eprintln!("{}:", kind.description());
        if matches!(kind, IssueKind::HeaderFault | IssueKind::PixelsExcused) {
            list_by_text(report.of(kind), listed);
        } else {
            list(report.of(kind), listed);
        }
    }
}

fn list<'a>(issues: impl ExactSizeIterator<Item = &'a Issue>, listed: usize) {
    let more = issues.len().saturating_sub(listed);
    for issue in issues.take(listed) {
        eprintln!("  {}: {}", issue.place, issue.detail);
    }
    if more > 0 {
        eprintln!("  … and {more} more");
    }
}

/// One line a text, however many films it is said of: most faults are those of a whole machine.
fn list_by_text<'a>(issues: impl Iterator<Item = &'a Issue>, listed: usize) {
    let mut by_text: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for issue in issues {
        by_text.entry(&issue.detail).or_default().push(&issue.place);
    }
    let mut texts: Vec<_> = by_text.into_iter().collect();
    texts.sort_by_key(|(text, places)| (std::cmp::Reverse(places.len()), *text));
    let more = texts.len().saturating_sub(listed);
    for (text, places) in texts.into_iter().take(listed) {
        eprintln!("  {} × {text} ({}{})", places.len(), places[0], if places.len() > 1 { ", …" } else { "" });
    }
    if more > 0 {
        eprintln!("  … and {more} texts more");
    }
}
