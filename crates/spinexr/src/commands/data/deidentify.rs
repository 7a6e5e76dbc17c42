//! `spinexr data deidentify`: films that name nobody, under PS3.15 annex E.

use crate::Global;
use crate::console::{Bar, list_failures, table};
use crate::exit::{CommandError, CommandResult, Done, usage};
use anyhow::{Context, anyhow};
use clap::ValueEnum;
use rayon::prelude::*;
use serde_json::json;
use spinexr_core::progress::Progress;
use spinexr_core::{Split, whole_file};
use spinexr_data::resplit::Rows;
use spinexr_data::{Format, vindr};
use spinexr_dicom::{
    Dates, DeidentifyOptions, DeidentifyReport, Key, Limits, MaskRect, Retain, deidentify, find_films,
    read_header,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr data deidentify films -o out --key secret.key --make-key\n  \
    spinexr data deidentify /data/own -o out --key secret.key --retain characteristics,shifted-dates\n  \
    spinexr data deidentify films -o out --key secret.key --mask 0,0,400,120\n\n\
    Attributes go by PS3.15 table E.1-1 (Basic Application Level Confidentiality Profile), in sequences too; private \
    attributes, overlays and curves are removed; pixels stay as they are but for --mask.\n\
    UIDs, patients' pseudonyms and shifts of dates hang on the key: keep it secret, and keep it, so that later films of \
    a patient get the same.\n\
    A data set in the VinDr-SpineXR layout keeps its layout, with new ids in its annotations.\n\n\
    No program sees a name that is part of the picture: look at the films before you hand them on.")]
pub struct Args {
    /// DICOM films, folders of them, or one data set in the VinDr-SpineXR layout (`data convert --to vindr` makes it one)
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Folder of the new films; must be new or empty
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// File of 32 to 4096 secret bytes
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Write a random key first, where there is none
    #[arg(long)]
    make_key: bool,
    /// Options of the profile: what stays
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    retain: Vec<RetainArg>,
    /// Rectangle of every film that becomes black: columns X0 to X1, rows Y0 to Y1, px; may be given again
    #[arg(long = "mask", value_name = "X0,Y0,X1,Y1", value_parser = mask_rect)]
    masks: Vec<MaskRect>,
    /// Write which film became which; keep it as secret as the key
    #[arg(long, value_name = "FILE.csv")]
    map: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RetainArg {
    /// UIDs
    Uids,
    /// Device identity: serial numbers, station names
    Device,
    /// Institution: name, address, department
    Institution,
    /// Patient characteristics: sex, age, size, weight
    Characteristics,
    /// Dates and times as they are
    FullDates,
    /// Dates, all of a patient's earlier by the same number of days
    ShiftedDates,
}

fn mask_rect(text: &str) -> Result<MaskRect, String> {
    let wrong = || "expected four numbers of pixels, X0,Y0,X1,Y1, with X0 < X1 and Y0 < Y1".to_owned();
    let numbers: Result<Vec<u32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    match numbers.ok().as_deref() {
        Some(&[x0, y0, x1, y1]) if x0 < x1 && y0 < y1 => Ok(MaskRect { x0, y0, x1, y1 }),
        _ => Err(wrong()),
    }
}

/// A film and the folder it goes to, below the output.
struct Job {
    path: PathBuf,
    folder: String,
    extension: &'static str,
    /// Its name in the annotations, for a film of a data set.
    image_id: Option<String>,
}

struct Made {
    job: usize,
    image_id: String,
    report: DeidentifyReport,
}

pub fn run(args: &Args, global: &Global) -> CommandResult {
    let options = DeidentifyOptions {
        retain: retain(&args.retain)?,
        mask: args.masks.clone(),
        limits: Limits::default(),
    };
    refuse_occupied(&args.out)?;
    if let Some(map) = args.map.as_ref().filter(|map| map.exists()) {
        return Err(usage(anyhow!("{}: there is a file of that name", map.display())));
    }
    refuse_other_formats(&args.inputs)?;
    let key = read_key(args)?;
    let data_set = args.inputs.iter().find(|input| input.join("annotations").is_dir());
    let jobs = match data_set {
        Some(_) if args.inputs.len() > 1 => {
            return Err(usage(anyhow!("a data set is de-identified by itself, without other inputs")));
        }
        Some(dir) => data_set_jobs(dir)?,
        None => film_jobs(&args.inputs)?,
    };
    if jobs.is_empty() {
        return Err(CommandError::Failed(anyhow!("no film in the inputs")));
    }

    let twice = same_instance_twice(&jobs);
    let bar = Bar::new("de-identifying films", global.quiet);
    let (done, total) = (AtomicUsize::new(0), jobs.len());
    let one = |i: usize| -> Result<Made, String> {
        let made = if twice.contains(&i) {
            Err("another input is the same instance (SOP Instance UID)".to_owned())
        } else {
            write_one(&jobs[i], &args.out, &options, &key).map_err(|error| format!("{error:#}"))
        };
        bar.update(Progress { done: done.fetch_add(1, Ordering::Relaxed) + 1, total });
        made.map(|(image_id, report)| Made { job: i, image_id, report })
    };
    // At most one film a thread is in memory; what is kept of each is small.
    let results: Vec<Result<Made, String>> = (0..jobs.len()).into_par_iter().map(one).collect();
    bar.finish();
    let mut made = vec![];
    let mut failed: Vec<(usize, String)> = vec![];
    for (i, result) in results.into_iter().enumerate() {
        match result {
            Ok(film) => made.push(film),
            Err(error) => failed.push((i, error)),
        }
    }
    if let Some(dir) = data_set {
        write_annotations(dir, &jobs, &made, &args.out, &key)?;
    }
    if let Some(map) = &args.map {
        write_map(map, &jobs, &made)?;
    }
    tell(&made, &failed, &jobs, &args.out);
    let sum = |value: fn(&DeidentifyReport) -> usize| made.iter().map(|m| value(&m.report)).sum::<usize>();
    let of_films = |film: &Made| json!({ "image_id": film.image_id, "report": film.report });
    global.print_json(&json!({
        "films": made.len(),
        "removed": sum(|r| r.removed),
        "replaced": sum(|r| r.replaced),
        "uids": sum(|r| r.uids),
        "dates_shifted": sum(|r| r.dates_shifted),
        "private": sum(|r| r.private),
        "graphics": sum(|r| r.graphics),
        "warnings": DeidentifyReport::warnings_of(made.iter().map(|m| &m.report)),
        "made": made.iter().map(of_films).collect::<Vec<_>>(),
        "failed": failed.iter().map(|(i, error)| json!({ "path": jobs[*i].path, "error": error })).collect::<Vec<_>>(),
    }))?;
    Ok(if failed.is_empty() { Done::All } else { Done::SomeFailed })
}

fn retain(asked: &[RetainArg]) -> Result<Retain, CommandError> {
    let has = |what| asked.contains(&what);
    let dates = match (has(RetainArg::FullDates), has(RetainArg::ShiftedDates)) {
        (true, true) => {
            return Err(usage(anyhow!("--retain: full-dates and shifted-dates exclude each other")));
        }
        (true, false) => Dates::Keep,
        (false, true) => Dates::Shift,
        (false, false) => Dates::Remove,
    };
    Ok(Retain {
        uids: has(RetainArg::Uids),
        device: has(RetainArg::Device),
        institution: has(RetainArg::Institution),
        characteristics: has(RetainArg::Characteristics),
        dates,
    })
}

fn refuse_occupied(out: &Path) -> Result<(), CommandError> {
    let is_free = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if is_free { Ok(()) } else { Err(usage(anyhow!("{}: expected a new or empty folder", out.display()))) }
}

/// Their annotations would be left behind, with names of films that are there no more.
fn refuse_other_formats(inputs: &[PathBuf]) -> Result<(), CommandError> {
    for input in inputs {
        match Format::detect(input) {
            Ok(Format::Vindr) | Err(_) => {}
            Ok(format) => {
                let dir = input.display();
                return Err(usage(anyhow!(
                    "{dir} is a data set in the format {format}, whose annotations this command does not rewrite; \
                     `spinexr data convert {dir} --to vindr -o NEW` first, and de-identify NEW"
                )));
            }
        }
    }
    Ok(())
}

fn read_key(args: &Args) -> Result<Key, CommandError> {
    if args.make_key && !args.key.exists() {
        let mut secret = [0u8; 32];
        // The system's randomness: this is a secret, not a seed.
        getrandom::fill(&mut secret)
            .map_err(|e| CommandError::Failed(anyhow!("the system has no randomness: {e}")))?;
        write_secret(&args.key, spinexr_core::hex(&secret).as_bytes())?;
        eprintln!("a new key is in {}: keep it, and keep it secret", args.key.display());
    }
    if !args.key.exists() {
        return Err(usage(anyhow!("{}: there is no key; --make-key writes one", args.key.display())));
    }
    Key::read(&args.key).map_err(usage)
}

/// Writes a file that only its owner may read, in a place that is not taken.
fn write_secret(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let write = || -> std::io::Result<()> {
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| path.display().to_string())
}

fn film_jobs(inputs: &[PathBuf]) -> anyhow::Result<Vec<Job>> {
    let mut paths = BTreeSet::new();
    for input in inputs {
        paths.extend(find_films(input)?);
    }
    let job = |path| Job { path, folder: String::new(), extension: "dcm", image_id: None };
    Ok(paths.into_iter().map(job).collect())
}

fn data_set_jobs(dir: &Path) -> anyhow::Result<Vec<Job>> {
    let dataset = vindr::read(dir)?;
    let unmentioned = dataset.read.without_annotation.len();
    if unmentioned > 0 {
        eprintln!("{unmentioned} films without a row in the annotations are left out");
    }
    let job = |film: spinexr_data::Film| Job {
        folder: format!("{}_images", film.split),
        path: film.path,
        extension: "dicom",
        image_id: Some(film.annotation.image_id),
    };
    Ok(dataset.films.into_iter().map(job).collect())
}

/// Inputs whose SOP Instance UID an earlier input has: they would get its name.
fn same_instance_twice(jobs: &[Job]) -> BTreeSet<usize> {
    let limits = Limits::default();
    let uids: Vec<Option<String>> =
        jobs.par_iter().map(|job| read_header(&job.path, &limits).ok()?.sop_instance_uid).collect();
    let mut seen = BTreeSet::new();
    (0..jobs.len()).filter(|&i| uids[i].as_ref().is_some_and(|uid| !seen.insert(uid))).collect()
}

fn write_one(
    job: &Job,
    out: &Path,
    options: &DeidentifyOptions,
    key: &Key,
) -> anyhow::Result<(String, DeidentifyReport)> {
    let size = fs::metadata(&job.path)?.len();
    anyhow::ensure!(
        size <= options.limits.max_file_bytes,
        "the file has {size} bytes, more than the limit of {}",
        options.limits.max_file_bytes
    );
    let film = deidentify(&job.path, fs::read(&job.path)?, options, key)?;
    let path = out.join(&job.folder).join(format!("{}.{}", film.image_id, job.extension));
    whole_file::write(&path, &film.bytes).with_context(|| path.display().to_string())?;
    Ok((film.image_id, film.report))
}

/// The rows of the films that were made, with new ids in place of image, study and series.
fn write_annotations(dir: &Path, jobs: &[Job], made: &[Made], out: &Path, key: &Key) -> anyhow::Result<()> {
    let rows = Rows::read(dir)?;
    let mut texts: BTreeMap<&str, csv::Writer<Vec<u8>>> = BTreeMap::new();
    for film in made {
        let job = &jobs[film.job];
        let split = job.folder.trim_end_matches("_images");
        if !texts.contains_key(split) {
            texts.insert(split, csv_with(&vindr::COLUMNS)?);
        }
        let text = texts.get_mut(split).expect("it was put there just now");
        for cells in rows.of(job.image_id.as_deref().unwrap_or_default()) {
            let id = |role, cell: &String| if cell.is_empty() { String::new() } else { key.name(role, cell) };
            let mut cells = cells.clone();
            (cells[0], cells[1]) = (id("study id", &cells[0]), id("series id", &cells[1]));
            cells[2].clone_from(&film.image_id);
            text.write_record(&cells)?;
        }
    }
    if let Some(classes) = &rows.classes {
        let path = out.join(vindr::CLASSES_FILE);
        whole_file::write(&path, classes).with_context(|| path.display().to_string())?;
    }
    for split in Split::ALL {
        if let Some(text) = texts.remove(split.name()) {
            let path = out.join("annotations").join(format!("{split}.csv"));
            whole_file::write(&path, &text.into_inner()?).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn write_map(path: &Path, jobs: &[Job], made: &[Made]) -> anyhow::Result<()> {
    let mut text = csv_with(&["path", "image_id"])?;
    for film in made {
        text.write_record([&jobs[film.job].path.display().to_string(), &film.image_id])?;
    }
    write_secret(path, &text.into_inner()?)
}

fn csv_with(header: &[&str]) -> anyhow::Result<csv::Writer<Vec<u8>>> {
    let mut text = csv::Writer::from_writer(vec![]);
    text.write_record(header)?;
    Ok(text)
}

fn tell(made: &[Made], failed: &[(usize, String)], jobs: &[Job], out: &Path) {
    let reports = || made.iter().map(|film| &film.report);
    let sum = |value: fn(&DeidentifyReport) -> usize| reports().map(value).sum::<usize>().to_string();
    let rows = [
        ("attributes removed", sum(|r| r.removed)),
        ("attributes emptied or replaced", sum(|r| r.replaced)),
        ("UIDs replaced", sum(|r| r.uids)),
        ("dates shifted", sum(|r| r.dates_shifted)),
        ("private attributes removed", sum(|r| r.private)),
        ("attributes of overlays and curves removed", sum(|r| r.graphics)),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, n)| vec![what.to_owned(), n]).collect();
    eprintln!("{} films written to {}", made.len(), out.display());
    eprint!("{}", table(&["what", "count"], &rows));
    let mut tags: HashMap<&str, usize> = HashMap::new();
    reports().flat_map(|r| &r.leftovers).for_each(|tag| *tags.entry(tag).or_default() += 1);
    let tags: BTreeMap<_, _> = tags.into_iter().collect();
    if !tags.is_empty() {
        eprintln!(
            "outside the profile, but with a word of the patient's names or ids, or not understood: taken out"
        );
        tags.iter().for_each(|(tag, films)| eprintln!("  {tag} of {films} films"));
    }
    let mut notes: BTreeMap<&str, usize> = BTreeMap::new();
    reports().flat_map(|r| &r.notes).for_each(|note| *notes.entry(note).or_default() += 1);
    notes.iter().for_each(|(note, films)| eprintln!("{films} films: {note}"));
    for (warning, films) in DeidentifyReport::warnings_of(reports()) {
        eprintln!("WARNING, {films} films: {warning}");
    }
    if !failed.is_empty() {
        eprintln!("not de-identified ({}):", failed.len());
        list_failures(failed.iter().map(|(i, error)| {
            let path = jobs[*i].path.display().to_string();
            if error.starts_with(&path) { error.clone() } else { format!("{path}: {error}") }
        }));
    }
}
