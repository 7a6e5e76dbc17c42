//! `spinexr evaluate`: tables and curves from files; a model only where a report is to show its evidence.

mod compare;
mod drift;

use crate::Global;
use crate::console::{percent, table};
use crate::evaluation::{self, AnnotationsArgs};
use crate::exit::{CommandResult, Done, usage};
use crate::training_films;
use clap::{Subcommand, ValueEnum};
use spinexr_dicom::Limits;
use spinexr_eval::intervals::BootstrapOptions;
use spinexr_eval::run::{Protocol, RunOptions};
use spinexr_eval::{coco, coco_json, score_file};
use spinexr_infer::{Bundle, Explainer};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// AUROC, F1, sensitivity and specificity with intervals, from a CSV of scores
    Scores(ScoresArgs),
    /// Average precision by the COCO protocol, from two JSON files
    Detections(DetectionsArgs),
    /// Both tables of the paper and the report, from predictions and annotations
    Run(RunArgs),
    /// Any number of runs on the same test films, side by side, with paired tests
    Compare(compare::CompareArgs),
    /// A new batch of predictions beside a reference: have films or answers changed?
    Drift(drift::DriftArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  spinexr evaluate scores scores.csv --threshold 0.28\n\n\
    Columns: id,label,score[,study]; label 0 or 1, score a probability. With a study column the intervals\n\
    resample studies, since films of one study are not independent.")]
struct ScoresArgs {
    /// CSV file
    file: PathBuf,
    /// Score from which a film counts as abnormal; by default the best on these very scores, labelled so
    #[arg(long)]
    threshold: Option<f64>,
    /// Bootstrap resamples
    #[arg(long, default_value_t = 10_000)]
    resamples: usize,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  spinexr evaluate detections --gt instances.json --dt results.json --iou 0.2:0.05:0.5"
)]
struct DetectionsArgs {
    /// Ground truth, COCO instances JSON
    #[arg(long, value_name = "FILE")]
    gt: PathBuf,
    /// Detections, COCO results JSON
    #[arg(long, value_name = "FILE")]
    dt: PathBuf,
    /// IoU thresholds: one, a list, or first:step:last
    #[arg(long, default_value = "0.5:0.05:0.95")]
    iou: String,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    spinexr evaluate run --predictions out/predictions.jsonl --annotations /data/vindr-spinexr -o report\n\n\
    The predictions must name their split: c* is chosen on the validation films and used on the test films.\n\
    Writes report.json, report.html, tables/ (CSV, LaTeX) and plots/ (SVG, PNG).")]
struct RunArgs {
    /// Records of `spinexr predict`
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    #[command(flatten)]
    annotations: AnnotationsArgs,
    /// Folder for the report
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Where c* is chosen: on validation films, or on the test films as the paper did, labelled so
    #[arg(long, value_enum, default_value = "improved")]
    protocol: ProtocolArg,
    /// Headline of the report
    #[arg(long, default_value = "VinDr-SpineXR framework")]
    title: String,
    /// Name of the detector's row; `detector` by default, and no row when no film has a box
    #[arg(long, value_name = "NAME")]
    detector: Option<String>,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Bundle that made the predictions: no film that it was trained on may be among them; may be given several times
    #[arg(long, value_name = "BUNDLE")]
    model: Vec<PathBuf>,
    /// Bundle whose evidence is shown on a few films of the report, for "abnormal" and for the boxes; may be given several
    /// times
    #[arg(long, value_name = "BUNDLE", requires = "output")]
    explain: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProtocolArg {
    Improved,
    Paper,
}

impl From<ProtocolArg> for Protocol {
    fn from(arg: ProtocolArg) -> Self {
        match arg {
            ProtocolArg::Improved => Self::Improved,
            ProtocolArg::Paper => Self::Paper,
        }
    }
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    match args.what {
        What::Scores(args) => scores(&args, global),
        What::Detections(args) => detections(&args, global),
        What::Run(args) => whole_run(args, global),
        What::Compare(args) => compare::run(&args, global),
        What::Drift(args) => drift::run(&args, global),
    }
}

fn scores(args: &ScoresArgs, global: &Global) -> CommandResult {
    let file = score_file::read(&args.file).map_err(anyhow::Error::from)?;
    let options = BootstrapOptions { resamples: args.resamples, seed: args.seed };
    let report = score_file::evaluate(&file, args.threshold, &options);
    let interval = |i: Option<[f64; 2]>| match i {
        Some([low, high]) => format!("{} – {}", percent(Some(low)), percent(Some(high))),
        None => "n/a".to_owned(),
    };
    let none = || String::new();
    let rows = vec![
        vec!["AUROC".into(), percent(report.auroc), interval(report.auroc_ci)],
        vec![
            "AUROC (DeLong)".into(),
            percent(report.auroc),
            interval(report.delong.as_ref().map(|d| d.interval)),
        ],
        vec!["average precision".into(), percent(report.average_precision), none()],
        vec!["F1".into(), percent(report.f1), none()],
        vec!["sensitivity".into(), percent(report.sensitivity), interval(report.sensitivity_ci)],
        vec!["specificity".into(), percent(report.specificity), interval(report.specificity_ci)],
    ];
    eprint!("{}", table(&["× 100", "value", "95 % interval"], &rows));
    eprintln!("{} films, {} abnormal, {} studies", report.films, report.positives, report.studies);
    let threshold = report.threshold.map_or_else(|| "n/a".to_owned(), |t| format!("{t:.6}"));
    eprintln!("threshold {threshold}: {}", report.threshold_from);
    global.print_json(&report)?;
    Ok(Done::All)
}

fn detections(args: &DetectionsArgs, global: &Global) -> CommandResult {
    let thresholds = coco::parse_iou_set(&args.iou).map_err(usage)?;
    let truth = coco_json::read_truth(&args.gt).map_err(anyhow::Error::from)?;
    let boxes = coco_json::read_detections(&args.dt, &truth).map_err(anyhow::Error::from)?;
    let report = coco_json::evaluate_detections(&truth, &boxes, &thresholds);
    let mut rows: Vec<Vec<String>> = report
        .per_category
        .iter()
        .map(|c| {
            vec![
                c.name.clone(),
                c.ground_truth.to_string(),
                c.detections.to_string(),
                percent(c.ap),
                percent(c.ap50),
            ]
        })
        .collect();
    rows.push(vec![
        "mean".into(),
        report.ground_truth.to_string(),
        report.detections.to_string(),
        percent(report.ap),
        percent(report.map50),
    ]);
    eprint!("{}", table(&["category", "boxes", "detections", "AP", "AP@0.5"], &rows));
    eprintln!(
        "AP × 100 over IoU {}, {} images, at most 100 detections an image and category",
        args.iou, report.images
    );
    global.print_json(&report)?;
    Ok(Done::All)
}

fn whole_run(args: RunArgs, global: &Global) -> CommandResult {
    let (films, dataset) = evaluation::read(&args.predictions, &args.annotations)?;
    let hash = films.first().map(|f| f.model.clone());
    let models =
        args.model.iter().map(|path| Bundle::load(path)).collect::<Result<Vec<_>, _>>().map_err(usage)?;
    if !models.is_empty() {
        training_films::check(&models, &films, &args.annotations)?;
    }
    let mut options = RunOptions::new(&args.title, args.protocol.into(), args.seed);
    options.detector = args.detector;
    options.provenance.bundle_hash = hash;
    options.provenance.seed = Some(args.seed);
    options.provenance.command = Some(std::env::args().collect::<Vec<_>>().join(" "));
    options.provenance.versions.insert("spinexr".into(), env!("CARGO_PKG_VERSION").into());
    let (_, report) = evaluation::evaluate(films, &dataset, &options)?;
    eprint!("{}", evaluation::tables(&report));
    if let Some(dir) = &args.output {
        let bundles = args.explain.iter().map(|path| Bundle::load(path)).collect::<Result<Vec<_>, _>>();
        let explainer = match bundles.map_err(usage)?.as_slice() {
            [] => None,
            bundles => {
                let device = spinexr_infer::parse_device("cpu").map_err(usage)?;
                Some(Explainer::load(bundles, &device, Limits::default(), 0).map_err(usage)?)
            }
        };
        let thumbnails = evaluation::thumbnails(&report, &dataset, explainer.as_ref());
        evaluation::write_report(dir, &report, &thumbnails)?;
        eprintln!("{}", dir.join("report.html").display());
    }
    global.print_json(&report)?;
    Ok(Done::All)
}
