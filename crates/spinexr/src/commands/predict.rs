//! `spinexr predict`: films in, findings out.

mod dicom;

use crate::console::{Bar, list_failures, percent};
use crate::exit::{CommandError, CommandResult, Done, usage};
use crate::{Global, demo_bundle};
use anyhow::{Context, anyhow};
use clap::ValueEnum;
use dicom::{DicomResults, ReportClassArg, write_object};
use spinexr_core::{BoxFusion, FilmPrediction, Method, Split, Tta, WeightedBoxFusion};
use spinexr_data::{ReadyDataset, SplitDataset};
use spinexr_dicom::results::ContentTime;
use spinexr_dicom::{Limits, find_films};
use spinexr_infer::dicom_results::DicomKind;
use spinexr_infer::outputs::{ResultsFormat, ResultsWriter};
use spinexr_infer::pipeline::{FilmResult, Pipeline, PipelineOptions};
use spinexr_infer::{Bundle, Engine, Explainer, evidence_picture, overlay};
use spinexr_train::Experiment;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr predict film.dcm                                     findings in words, with the demonstration bundle\n  \
    spinexr predict films/ -o out --format jsonl,csv,png         a folder, results and overlays\n  \
    spinexr predict films/ -o out --format sr,gsps,sc            DICOM objects for a PACS, three a film\n  \
    spinexr predict films/ --model framework.spinexr -o out\n  \
    spinexr predict films/ --model framework.spinexr --tta flip -o out    each film mirrored as well\n  \
    spinexr predict film.dcm --explain -o out                    where on the film the evidence lies\n  \
    spinexr predict --config runs/densenet121/config.toml --splits validation,test \\\n          \
    --model runs/densenet121/densenet121.spinexr --model runs/retinanet_r50/retinanet_r50.spinexr -o out\n\n\
    Without --model a small bundle trained on synthetic films is used. It shows how the program works and\n\
    says nothing about patients.")]
pub struct Args {
    /// DICOM, PNG or JPEG files, and folders of them
    #[arg(required_unless_present = "config")]
    inputs: Vec<PathBuf>,
    /// Bundle to use; several are put together
    #[arg(long = "model", value_name = "BUNDLE")]
    models: Vec<PathBuf>,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Forms of the results
    #[arg(long, value_enum, value_delimiter = ',', default_value = "jsonl")]
    format: Vec<Format>,
    /// SOP class of --format sr
    #[arg(long, value_name = "CLASS", value_enum, default_value = "comprehensive-3d")]
    sr_class: ReportClassArg,
    /// Content date and time of DICOM results, as 2026-01-31T14:05:00; the film's own where not given, so that a second
    /// run writes the same bytes
    #[arg(long, value_name = "TIME")]
    content_time: Option<ContentTime>,
    /// Also write a picture of where on each film the evidence lies: Grad-CAM of the classifiers, and for each box what
    /// spoke for it; takes several times as long
    #[arg(long, requires = "output", conflicts_with = "config")]
    explain: bool,
    /// With --explain, also write the film's map of numbers as .npy
    #[arg(long, requires = "explain")]
    explain_npy: bool,
    /// Predict the data set of this experiment, prepared as for training, in place of files
    #[arg(long, value_name = "CONFIG", conflicts_with = "inputs")]
    config: Option<PathBuf>,
    /// Parts of that data set
    #[arg(long, value_enum, value_delimiter = ',', default_value = "validation,test", requires = "config")]
    splits: Vec<SplitArg>,
    /// Where the models run: cpu, or a GPU backend this build has
    #[arg(long, default_value = "cpu")]
    device: String,
    /// What computes the networks: native, or ort (ONNX Runtime, in builds with that feature; its shared library is
    /// named by ORT_DYLIB_PATH)
    #[arg(long, value_name = "NAME", default_value = "native")]
    engine: Engine,
    /// Frame of a multi-frame file, counted from 0
    #[arg(long, default_value_t = 0)]
    frame: u32,
    /// Test-time augmentation: `flip`, and further sizes as shares of the models' input (`flip,0.8,1.2`); the bundle's
    /// own where not given, `none` for none
    #[arg(long, value_name = "VIEWS", value_delimiter = ',', value_parser = parse_view)]
    tta: Vec<TtaArg>,
    /// How boxes of several detectors and views are put together; the bundle's own where not given
    #[arg(long, value_enum)]
    box_fusion: Option<FusionArg>,
    /// Most films a model sees at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// JSON Lines, one film a line
    Jsonl,
    /// One row a film, one row a box
    Csv,
    /// COCO results
    Coco,
    /// Film with boxes drawn
    Png,
    /// DICOM structured report, one a film
    Sr,
    /// DICOM presentation state (GSPS): the film's window, boxes and labels
    Gsps,
    /// DICOM secondary capture: the film with boxes burnt in
    Sc,
}

impl Format {
    /// The DICOM object it is, if it is one.
    const fn dicom(self) -> Option<DicomKind> {
        match self {
            Self::Sr => Some(DicomKind::Report),
            Self::Gsps => Some(DicomKind::PresentationState),
            Self::Sc => Some(DicomKind::Capture),
            Self::Jsonl | Self::Csv | Self::Coco | Self::Png => None,
        }
    }
}

/// One word of `--tta`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum TtaArg {
    None,
    Flip,
    Scale(f32),
}

fn parse_view(word: &str) -> Result<TtaArg, String> {
    match word {
        "none" => Ok(TtaArg::None),
        "flip" => Ok(TtaArg::Flip),
        number => match number.parse::<f32>() {
            Ok(scale) if Tta::SCALES.contains(&scale) => Ok(TtaArg::Scale(scale)),
            _ => Err("expected `flip`, `none` or a share of the input size from 0.25 to 4".to_owned()),
        },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FusionArg {
    /// Weighted box fusion at IoU 0.55
    Wbf,
    /// Class-wise suppression
    Nms,
}

/// The views and fusion asked for; `None` for the bundle's own. What is not said of a method that is asked for is
/// plain.
fn method(args: &Args) -> Option<Method> {
    if args.tta.is_empty() && args.box_fusion.is_none() {
        return None;
    }
    let scale = |word: &TtaArg| if let TtaArg::Scale(scale) = word { Some(*scale) } else { None };
    Some(Method {
        tta: Tta {
            flip: args.tta.contains(&TtaArg::Flip),
            // The film as it is comes anyway.
            scales: args.tta.iter().filter_map(scale).filter(|scale| *scale != 1.0).collect(),
        },
        box_fusion: match args.box_fusion {
            Some(FusionArg::Nms) => BoxFusion::Nms,
            Some(FusionArg::Wbf) | None => BoxFusion::Wbf(WeightedBoxFusion::PUBLISHED),
        },
    })
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SplitArg {
    Train,
    Validation,
    Test,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Train => Self::Train,
            SplitArg::Validation => Self::Validation,
            SplitArg::Test => Self::Test,
        }
    }
}

/// A film, or a file given as one, that gave no result.
#[derive(serde::Serialize)]
struct Failure {
    path: PathBuf,
    error: String,
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    let wants = |format: Format| args.format.contains(&format);
    let of_a_film = |format: &&Format| **format == Format::Png || format.dicom().is_some();
    if let (Some(format), true) = (args.format.iter().find(of_a_film), args.config.is_some()) {
        let name = format.to_possible_value().expect("every format has a name");
        return Err(usage(anyhow!(
            "--format {} needs film files; a data set given by --config is read prepared",
            name.get_name()
        )));
    }
    if args.output.is_none() && args.format.iter().any(|format| format.dicom().is_some()) {
        return Err(usage(anyhow!("--format sr, gsps and sc need --output, the folder for the objects")));
    }
    let options = PipelineOptions {
        device: spinexr_infer::parse_device(&args.device).map_err(usage)?,
        engine: args.engine,
        threads: global.thread_count(),
        batch: args.batch.into(),
        frame: args.frame,
        limits: Limits::default(),
        decision: None,
        method: method(&args),
    };
    let bundles = load_bundles(&args.models)?;
    let pipeline = Pipeline::load(&bundles, options).map_err(usage)?;
    if args.models.is_empty() {
        eprintln!("no --model given: the bundle inside this program is used");
    }
    if pipeline.is_method_foreign() {
        eprintln!(
            "the bundle's thresholds were not chosen with {}: choose them anew with `spinexr model combine`",
            pipeline.method()
        );
    }
    if pipeline.is_demonstration() {
        eprintln!("{}", demo_bundle::WARNING);
    }

    // Before any file is begun: films that may not be used leave no empty results behind.
    let prepared = match &args.config {
        Some(config) => {
            let experiment = Experiment::load(config, &[]).map_err(usage)?;
            let ready = ready_films(&experiment, &args.splits, &pipeline, global)?;
            Some((experiment, ready))
        }
        None => None,
    };

    let mut writers = vec![];
    if let Some(dir) = &args.output {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let files = [
            (Format::Jsonl, ResultsFormat::Jsonl),
            (Format::Csv, ResultsFormat::Csv),
            (Format::Coco, ResultsFormat::Coco),
        ];
        for (format, file) in files {
            if wants(format) {
                let writer = ResultsWriter::create(&dir.join(file.file_name()), file, pipeline.classes())
                    .map_err(anyhow::Error::from)?;
                writers.push(writer);
            }
        }
    }
    let overlays = args.output.clone().filter(|_| wants(Format::Png));
    let dicom = DicomResults::asked_for(&args, &bundles, &pipeline);
    let explainer = match args.explain {
        true => Some(explainer(&bundles, &args)?),
        false => None,
    };

    let mut films: Vec<FilmPrediction> = vec![];
    let mut failures: Vec<Failure> = vec![];
    let mut drawn = BTreeSet::new();
    let mut fatal: Option<anyhow::Error> = None;
    let bar = Bar::new("predicting", global.quiet);
    let mut on_film = |result: FilmResult| {
        let FilmResult { path, radiograph, outcome } = result;
        let film = match outcome {
            Ok(film) => film,
            Err(error) => {
                bar.println(&format!("failed: {error}"));
                failures.push(Failure { path, error: error.to_string() });
                return ControlFlow::Continue(());
            }
        };
        let mut write = || -> anyhow::Result<()> {
            for writer in &mut writers {
                writer.add(&film)?;
            }
            let Some(radiograph) = &radiograph else { return Ok(()) };
            let options = overlay_options(&pipeline);
            let name = film_name(&film.image, &mut drawn);
            if let Some(dir) = &overlays {
                let picture = overlay::render(radiograph, &film, &options);
                overlay::write_png(&dir.join(format!("{name}.png")), &picture)?;
            }
            if let (Some(dicom), Some(dir)) = (&dicom, &args.output) {
                for object in dicom.objects(&path, radiograph, &film, &options) {
                    match object {
                        Ok((kind, object)) => write_object(dir, &name, kind, &object)?,
                        Err(error) => {
                            let error = format!("no DICOM result: {error}");
                            bar.println(&format!("failed: {error}"));
                            failures.push(Failure { path: path.clone(), error });
                        }
                    }
                }
            }
            if let (Some(explainer), Some(dir)) = (&explainer, &args.output) {
                let explanation = explainer.explain(&path)?;
                let picture = evidence_picture::render(radiograph, &film, &explanation, &options);
                overlay::write_png(&dir.join(format!("{name}.explain.png")), &picture)?;
                if let (true, Some(map)) = (args.explain_npy, &explanation.abnormal) {
                    map.write_npy(&dir.join(format!("{name}.explain.npy")))?;
                }
            }
            Ok(())
        };
        if let Err(error) = write() {
            fatal = Some(error);
            return ControlFlow::Break(());
        }
        if args.output.is_none() && !global.json {
            bar.println(&in_words(&film, &pipeline));
        }
        if args.output.is_none() {
            films.push(film);
        }
        ControlFlow::Continue(())
    };

    let summary = match prepared {
        Some((experiment, ready)) => {
            let summary = pipeline
                .predict_prepared(&experiment.data.cache_dir, &ready.dataset.films, &mut on_film, &|p| {
                    bar.update(p)
                })
                .map_err(anyhow::Error::from)?;
            let unread = ready.left_out.into_iter();
            failures.extend(unread.map(|film| Failure { path: film.path, error: film.error }));
            summary
        }
        None => {
            let (paths, missing) = film_paths(&args.inputs);
            let summary = pipeline.predict(&paths, &mut on_film, &|p| bar.update(p));
            failures.extend(missing);
            summary
        }
    };
    bar.finish();
    if let Some(error) = fatal {
        return Err(error.context("writing results").into());
    }
    let mut written = vec![];
    for writer in writers {
        written.push(writer.finish().map_err(anyhow::Error::from)?);
    }

    eprintln!("{} films predicted, {} failed", summary.predicted, failures.len());
    list_failures(failures.iter().map(|failure| &failure.error));
    for path in &written {
        eprintln!("{}", path.display());
    }
    eprintln!("{}", crate::NOTICE);
    global.print_json(&serde_json::json!({
        "predicted": summary.predicted,
        "failed": failures,
        "model": pipeline.hash(),
        "demonstration": pipeline.is_demonstration(),
        "files": written,
        "films": films,
    }))?;
    if summary.predicted == 0 && failures.is_empty() {
        return Err(anyhow!("no DICOM, PNG or JPEG film found in the inputs").into());
    }
    Ok(if failures.is_empty() { Done::All } else { Done::SomeFailed })
}

fn load_bundles(paths: &[PathBuf]) -> Result<Vec<Bundle>, CommandError> {
    if paths.is_empty() {
        return Ok(vec![demo_bundle::load()?]);
    }
    paths.iter().map(|path| Bundle::load(path).map_err(usage)).collect()
}

/// Films of the inputs in order, each once, and the inputs that are none.
fn film_paths(inputs: &[PathBuf]) -> (Vec<PathBuf>, Vec<Failure>) {
    let mut seen = BTreeSet::new();
    let (mut paths, mut failures) = (vec![], vec![]);
    for input in inputs {
        match find_films(input) {
            Ok(found) => paths.extend(found.into_iter().filter(|p| seen.insert(p.clone()))),
            Err(error) => failures.push(Failure { path: input.clone(), error: error.to_string() }),
        }
    }
    (paths, failures)
}

/// The films of an experiment's data set in the asked splits, prepared for the pipeline's inputs.
fn ready_films(
    experiment: &Experiment,
    splits: &[SplitArg],
    pipeline: &Pipeline,
    global: &Global,
) -> Result<ReadyDataset, CommandError> {
    let data = &experiment.data;
    let split = SplitDataset::read(&data.dir, data.format, data.validation_fraction, data.split_seed)
        .map_err(anyhow::Error::from)?;
    let splits: Vec<Split> = splits.iter().map(|&s| s.into()).collect();
    if splits.contains(&Split::Validation) {
        for model in pipeline.models() {
            model.spec().check_hold_out(&split.hold_out).map_err(usage)?;
        }
    }
    let bar = Bar::new("preparing films", global.quiet);
    let threads = global.thread_count();
    let ready = split.prepare(&splits, &data.cache_dir, pipeline.inputs(), threads, &|p| bar.update(p));
    bar.finish();
    Ok(ready.map_err(anyhow::Error::from)?)
}

fn overlay_options(pipeline: &Pipeline) -> overlay::OverlayOptions {
    let mut options = overlay::OverlayOptions::default();
    if let Some(decision) = pipeline.decision() {
        options.min_score = decision.display_score as f32;
    }
    options
}

/// Name of a film's own files; films of one name in several folders get a number.
fn film_name(image: &str, drawn: &mut BTreeSet<String>) -> String {
    let mut name = image.to_owned();
    let mut n = 2;
    while !drawn.insert(name.clone()) {
        name = format!("{image}_{n}");
        n += 1;
    }
    name
}

/// The models as explanations need them.
fn explainer(bundles: &[Bundle], args: &Args) -> Result<Explainer, CommandError> {
    let device = spinexr_infer::parse_device(&args.device).map_err(usage)?;
    Explainer::load(bundles, &device, Limits::default(), args.frame).map_err(usage)
}

/// A film's result for people.
fn in_words(film: &FilmPrediction, pipeline: &Pipeline) -> String {
    let verdict = match (film.p_abnormal, film.threshold) {
        (Some(p), Some(c)) if p >= c => {
            format!("abnormal ({} %, threshold {} %)", percent(Some(p)), percent(Some(c)))
        }
        (Some(p), Some(c)) => format!("normal ({} %, threshold {} %)", percent(Some(p)), percent(Some(c))),
        (p, _) => format!("probability of being abnormal {} %", percent(p)),
    };
    let least = overlay_options(pipeline).min_score;
    let mut text = format!("{}: {verdict}", film.image);
    for b in film.boxes.iter().filter(|b| b.score >= least) {
        let [x1, y1, x2, y2] = <[f32; 4]>::from(b.xyxy);
        text.push_str(&format!(
            "\n  {:<22} {:.2}  at {x1:.0},{y1:.0} – {x2:.0},{y2:.0} px",
            b.label, b.score
        ));
    }
    text
}
