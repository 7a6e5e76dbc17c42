//! `spinexr serve`: a DICOM node and an HTTP service around the pipeline.

use crate::exit::{CommandError, CommandResult, Done, usage};
use crate::{Global, demo_bundle};
use anyhow::Context;
use clap::ValueEnum;
use image::DynamicImage;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use sha2::{Digest, Sha256};
use spinexr_core::{FilmPrediction, hex};
use spinexr_dicom::results::{Algorithm, ReportClass, ResultOptions, SourceFilm};
use spinexr_dicom::{Limits, ReadOptions, read_film};
use spinexr_infer::dicom_results::{DicomKind, algorithm, dicom_object};
use spinexr_infer::evidence_picture::{BoxEvidence, veil};
use spinexr_infer::explain::Explainer;
use spinexr_infer::overlay::{self, OverlayOptions, display_picture};
use spinexr_infer::pipeline::{Pipeline, PipelineOptions};
use spinexr_infer::{Bundle, Engine, InferError};
use spinexr_serve::config::ResultKind;
use spinexr_serve::reader::{Model, ReadFailure, Reading, ResultObject};
use spinexr_serve::{Config, Log, Program, Server, Severity, clock, token, verify_audit, wait_for_end};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr serve                                        on this machine only, with the demonstration bundle\n  \
    spinexr serve --print-config > serve.toml            every key with its default, to be changed\n  \
    spinexr serve --new-token pacs                       a token, and the lines of the configuration for it\n  \
    spinexr serve --config serve.toml --model framework.spinexr\n  \
    spinexr serve --config serve.toml --verify-audit     whether the audit log is whole\n\n\
    HTTP on 127.0.0.1:8080, DICOM on 127.0.0.1:11112 as SPINEXR, data in ./spinexr-serve. On other addresses it\n\
    starts only with tokens and a list of peers.")]
pub struct Args {
    /// Configuration; see --print-config
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Bundle to use; several are put together
    #[arg(long = "model", value_name = "BUNDLE")]
    models: Vec<PathBuf>,
    /// Where the models run: cpu, or a GPU backend this build has
    #[arg(long, default_value = "cpu")]
    device: String,
    /// SOP class of structured reports
    #[arg(long, value_name = "CLASS", value_enum, default_value = "comprehensive-3d")]
    sr_class: SrClass,
    /// Also keep where the evidence lies, for the web reader; reading a film takes several times as long
    #[arg(long)]
    explain: bool,
    /// Data folder, in place of the configuration's
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// HTTP address, in place of the configuration's; port 0 for any
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// DICOM address, in place of the configuration's; port 0 for any
    #[arg(long, value_name = "ADDRESS")]
    dicom: Option<SocketAddr>,
    /// Print the configuration in use, or without --config the reference with every key, and end
    #[arg(long, conflicts_with_all = ["verify_audit", "new_token"])]
    print_config: bool,
    /// Check the audit log of the data folder, and end
    #[arg(long, conflicts_with = "new_token")]
    verify_audit: bool,
    /// Make a token of that name, and end
    #[arg(long, value_name = "NAME")]
    new_token: Option<String>,
}

/// SOP class of structured reports on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SrClass {
    /// Comprehensive 3D SR, which IHE AI Results asks for
    #[value(name = "comprehensive-3d")]
    Comprehensive3d,
    /// Comprehensive SR, for viewers that read no other
    Comprehensive,
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    if let Some(name) = &args.new_token {
        return new_token(name, global);
    }
    let mut config = match &args.config {
        Some(path) => Config::load(path).with_context(|| path.display().to_string()).map_err(usage)?,
        None => Config::default(),
    };
    config.data_dir = args.data_dir.clone().unwrap_or(config.data_dir);
    config.http.listen = args.http.unwrap_or(config.http.listen);
    config.dicom.listen = args.dicom.unwrap_or(config.dicom.listen);
    config.check().map_err(usage)?;
    if args.print_config {
        return print_config(&args, &config, global);
    }
    if args.verify_audit {
        let head = verify_audit(&config).map_err(anyhow::Error::from)?;
        eprintln!("the audit log holds: {} lines, the last with hash {}", head.seq, head.hash);
        global.print_json(&head)?;
        return Ok(Done::All);
    }

    crate::allocator::share_arenas();
    let bundles = match &args.models[..] {
        [] => vec![demo_bundle::load()?],
        paths => paths.iter().map(|path| Bundle::load(path).map_err(usage)).collect::<Result<_, _>>()?,
    };
    let reader = FilmReader::load(&bundles, &args, &config, global)?;
    if reader.pipeline.is_demonstration() {
        eprintln!("{}", demo_bundle::WARNING);
    }
    let server = Server::start(config, program(reader, &bundles)).map_err(anyhow::Error::from)?;
    eprintln!("HTTP   http://{}/ (API, its description, DICOMweb under /dicom-web)", server.http_address());
    eprintln!("READER http://{}/reader/ (films, findings, readings by people)", server.http_address());
    if let Some(address) = server.dicom_address() {
        eprintln!("DICOM  {address} (C-ECHO, C-STORE)");
    }
    eprintln!("{}", crate::NOTICE);
    global.print_json(&serde_json::json!({
        "http": server.http_address(),
        "dicom": server.dicom_address(),
    }))?;
    wait_for_end().context("waiting for the end")?;
    eprintln!("ending: what is under way is finished, what waits is there at the next start");
    server.stop();
    Ok(Done::All)
}

fn new_token(name: &str, global: &Global) -> CommandResult {
    let (token, sha256) = token::new_token().context("making a token")?;
    // As it would stand in the file, so that a name that cannot stand there shows now.
    let lines =
        format!("[[tokens]]\nname = {name:?}\nsha256 = \"{sha256}\"\nroles = [\"read\", \"submit\"]\n");
    Config::from_toml(&lines).map_err(usage)?;
    if global.json {
        global.print_json(&serde_json::json!({ "name": name, "token": token, "sha256": sha256 }))?;
    } else {
        println!("{token}");
    }
    // A comment, so that all of it may be appended to the configuration.
    eprintln!(
        "# The token is shown this once; whoever uses the service keeps it. For the configuration:\n\n{lines}"
    );
    Ok(Done::All)
}

fn print_config(args: &Args, config: &Config, global: &Global) -> CommandResult {
    if global.json {
        global.print_json(config)?;
    } else if args.config.is_none() {
        print!("{}", spinexr_serve::config::REFERENCE);
    } else {
        print!("{}", config.to_toml());
    }
    Ok(Done::All)
}

/// The pipeline as the service needs it.
struct FilmReader {
    pipeline: Pipeline,
    explainer: Option<Explainer>,
    by: Algorithm,
    objects: ResultOptions,
    overlay: OverlayOptions,
}

impl FilmReader {
    fn load(bundles: &[Bundle], args: &Args, config: &Config, global: &Global) -> Result<Self, CommandError> {
        let device = spinexr_infer::parse_device(&args.device).map_err(usage)?;
        let explainer = || Explainer::load(bundles, &device, Limits::default(), 0);
        let explainer = args.explain.then(explainer).transpose().map_err(usage)?;
        let options = PipelineOptions {
            device,
            engine: Engine::Native,
            // Films come one at a time; more are read at once by more workers.
            threads: (global.thread_count() / config.queue.workers).max(1),
            batch: 1,
            ..PipelineOptions::default()
        };
        let pipeline = Pipeline::load(bundles, options).map_err(usage)?;
        let min_score = pipeline.decision().map_or(0.0, |d| d.display_score as f32);
        let report_class = match args.sr_class {
            SrClass::Comprehensive3d => ReportClass::Comprehensive3d,
            SrClass::Comprehensive => ReportClass::Comprehensive,
        };
        Ok(Self {
            by: algorithm(bundles, &pipeline),
            objects: ResultOptions { min_score, report_class, ..ResultOptions::default() },
            overlay: OverlayOptions { min_score, ..OverlayOptions::default() },
            explainer,
            pipeline,
        })
    }

    /// What names models and all else that decides results: with the same name, the same film gives the same.
    fn hash(&self) -> String {
        let class = format!("{:?}", self.objects.report_class);
        let explain = if self.explainer.is_some() { " explained with boxes" } else { "" };
        let all = format!("{} {} {class}{explain}", self.pipeline.hash(), self.pipeline.config_hash());
        hex(&Sha256::digest(all))
    }

    fn read(&self, path: &Path) -> Result<Reading, ReadFailure> {
        let mut result = None;
        let on_film = &mut |film| {
            result = Some(film);
            ControlFlow::Continue(())
        };
        self.pipeline.predict(&[path.to_owned()], on_film, &|_| {});
        let result = result.ok_or_else(|| ReadFailure::ForNow("the pipeline gave no result".into()))?;
        let mut record = result.outcome.map_err(|error| match error {
            InferError::Panicked { .. } => ReadFailure::ForNow(of_film(path, &error)),
            _ => ReadFailure::Film(of_film(path, &error)),
        })?;
        let radiograph =
            result.radiograph.ok_or_else(|| ReadFailure::ForNow("the film was not kept".into()))?;

        // The file goes by its content's hash. The film's own name says more, and is the same in every coding of it.
        if let Some(uid) = &radiograph.header.sop_instance_uid {
            record.image.clone_from(uid);
        }

        let film = |error: &dyn std::error::Error| ReadFailure::Film(of_film(path, error));
        let picture = overlay::render(&radiograph, &record, &self.overlay);
        let source = SourceFilm::read(path, &Limits::default()).map_err(|e| film(&e))?;
        let mut objects = vec![];
        for (kind, form) in [
            (ResultKind::Sr, DicomKind::Report),
            (ResultKind::Gsps, DicomKind::PresentationState),
            (ResultKind::Sc, DicomKind::Capture),
        ] {
            let picture = || picture.clone();
            let made = dicom_object(form, &source, &radiograph, &record, &self.by, &self.objects, picture);
            match made {
                Ok(object) => objects.push(ResultObject { kind, file: object.file().to_vec() }),
                // A colour film has no presentation state; its report and picture say the same.
                Err(_) if kind == ResultKind::Gsps => {}
                Err(error) => return Err(film(&error)),
            }
        }
        let [evidence_png, box_evidence_png] = self.evidence(path, &record)?;
        Ok(Reading {
            record,
            overlay_png: Some(png(picture.into())?),
            evidence_png,
            box_evidence_png,
            objects,
        })
    }

    /// What spoke for "abnormal", and for each box that is shown at first, to be laid over the film; none of what there
    /// is not.
    fn evidence(&self, path: &Path, record: &FilmPrediction) -> Result<[Option<Vec<u8>>; 2], ReadFailure> {
        let Some(explainer) = &self.explainer else { return Ok([None, None]) };
        let explanation =
            explainer.explain(path).map_err(|error| ReadFailure::Film(of_film(path, &error)))?;
        let shown = record.boxes.iter().filter(|b| b.score >= self.overlay.min_score);
        let boxes = BoxEvidence::of(shown, &explanation).map(|evidence| evidence.veil());
        let film = explanation.abnormal.as_ref().map(veil);
        let [film, boxes] = [film, boxes].map(|picture| picture.map(|veil| png(veil.into())).transpose());
        Ok([film?, boxes?])
    }
}

/// What an error says, without the place of our file, which tells a sender nothing.
fn of_film(path: &Path, error: &dyn std::error::Error) -> String {
    error.to_string().replace(&path.display().to_string(), "the film")
}

/// A picture as PNG. One is written for every film and few are looked at, so time counts for more than bytes: one filter for all
/// rows, in place of the best for each, gives 5 to 7 % more films a second in the load test.
fn png(picture: DynamicImage) -> Result<Vec<u8>, ReadFailure> {
    let mut bytes = vec![];
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Up);
    picture.write_with_encoder(encoder).map_err(|error| ReadFailure::ForNow(error.to_string()))?;
    Ok(bytes)
}

/// A film as a viewer shows it first.
fn render(path: &Path, frame: u32) -> Result<Vec<u8>, ReadFailure> {
    let options = ReadOptions { frame, ..ReadOptions::default() };
    let film = read_film(path, &options).map_err(|error| ReadFailure::Film(of_film(path, &error)))?;
    png(display_picture(&film).into())
}

fn program(reader: FilmReader, bundles: &[Bundle]) -> Program {
    let models = bundles.iter().map(|bundle| {
        let manifest = bundle.manifest();
        let names: Vec<&str> = manifest.models.iter().map(|m| m.name.as_str()).collect();
        serde_json::json!({ "name": manifest.name, "hash": bundle.hash(), "models": names })
    });
    let names: Vec<&str> = bundles.iter().map(|bundle| bundle.manifest().name.as_str()).collect();
    let model = Model {
        name: names.join(" + "),
        display_score: reader.pipeline.decision().map(|decision| decision.display_score),
        hash: reader.hash(),
        demonstration: reader.pipeline.is_demonstration(),
        description: models.collect(),
    };
    let log: Log = Arc::new(|severity, message| {
        let word = match severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
        };
        eprintln!("{} {word}: {message}", clock::rfc3339(clock::now_ms()));
    });
    Program {
        read: Arc::new(move |path| reader.read(path)),
        render: Arc::new(render),
        model,
        log,
        version: env!("CARGO_PKG_VERSION"),
    }
}
