//! `spinexr data check`: what is broken, odd or leaking in a data set.

use crate::Global;
use crate::console::{list_failures, table};
use crate::exit::{CommandResult, Done};
use spinexr_data::{split, vindr};
use spinexr_dicom::Limits;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  spinexr data check /data/vindr-spinexr")]
pub struct Args {
    /// Data set in the VinDr-SpineXR layout
    dir: PathBuf,
    /// Read annotations only, not the films' headers
    #[arg(long)]
    no_films: bool,
}

pub fn run(args: &Args, global: &Global) -> CommandResult {
    let options = vindr::VindrOptions::new();
    let (mut dataset, row_errors) =
        vindr::read_and_collect(&args.dir, &options).map_err(anyhow::Error::from)?;
    let mut unread = vec![];
    if !args.no_films {
        unread = vindr::clip_to_films(&mut dataset, &options, &Limits::default(), global.thread_count());
    }
    let leak = split::check_leakage(&dataset).err();

    let read = &dataset.read;
    let rows = [
        ("annotation rows", read.rows),
        ("rows `No finding`", read.no_finding_rows),
        ("broken rows", row_errors.len()),
        ("exact duplicate rows, dropped", read.duplicate_rows),
        ("boxes past the border, clipped", read.clipped_boxes),
        ("boxes without extent, dropped", read.thin_boxes),
        ("rows spelt `Spondylolisthesis`", read.other_spelling),
        ("rare categories folded into `Other lesions`", read.folded_labels),
        ("blank cells", read.blank_cells),
        ("annotated films without a file", read.without_file.len()),
        ("files without annotation", read.without_annotation.len()),
        ("films whose header cannot be read", unread.len()),
    ];
    let rows: Vec<Vec<String>> =
        rows.iter().map(|(what, n)| vec![(*what).to_owned(), n.to_string()]).collect();
    eprint!("{}", table(&["what", "count"], &rows));
    list_failures(row_errors.iter());
    list_failures(unread.iter().map(|film| &film.error));
    match &leak {
        Some(leak) => eprintln!("LEAK: {leak}"),
        None => eprintln!("no study is in two splits"),
    }
    global.print_json(&serde_json::json!({
        "films": dataset.films.len(),
        "read": read,
        "broken_rows": row_errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "unreadable": unread,
        "leak": leak.as_ref().map(ToString::to_string),
    }))?;
    let sound = row_errors.is_empty() && unread.is_empty() && leak.is_none() && read.without_file.is_empty();
    Ok(if sound { Done::All } else { Done::SomeFailed })
}
