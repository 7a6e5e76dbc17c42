//! `spinexr doctor`: what this build and this machine can do, each part tried out.

use crate::Global;
use crate::console::table;
use crate::demo_bundle;
use crate::exit::{CommandResult, Done};
use anyhow::{Context, Result, bail};
use spinexr_core::FilmPrediction;
use spinexr_dicom::samples::{SAMPLES, Sample};
use spinexr_dicom::{DxFilm, DxSyntax, ReadOptions, Stage, StageData, read_stage, write_dx};
use spinexr_infer::device;
use spinexr_infer::pipeline::{FilmResult, Pipeline, PipelineOptions};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  spinexr doctor --json\n\nExit code 1 when a part fails its test.")]
pub struct Args {}

/// One line of the table.
#[derive(serde::Serialize)]
struct Check {
    part: String,
    ok: bool,
    detail: String,
}

pub fn run(_: Args, global: &Global) -> CommandResult {
    let mut checks = vec![];
    let mut check = |part: &str, outcome: Result<String>| {
        let (ok, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(error) => (false, format!("{error:#}")),
        };
        checks.push(Check { part: part.to_owned(), ok, detail });
    };
    check("program", Ok(format!("spinexr {}, {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)));
    check("processor", Ok(format!("{} threads, {}", global.thread_count(), processor_features())));
    check("devices", Ok(device::available().join(", ")));
    for &name in &device::available()[1..] {
        let choice = name.parse().context("a device's name is the word for it");
        check(&format!("device {name}"), choice.and_then(|choice| Ok(device::try_out(choice)?)));
    }

    let folder = tempfile::tempdir().context("making a temporary folder")?;
    for (name, syntax) in [
        ("DICOM explicit little endian", DxSyntax::ExplicitLe),
        ("DICOM implicit little endian", DxSyntax::ImplicitLe),
        ("DICOM deflated", DxSyntax::Deflated),
        ("DICOM RLE lossless", DxSyntax::RleLossless),
        ("DICOM JPEG lossless", DxSyntax::JpegLossless),
    ] {
        check(name, decode(&folder.path().join("film.dcm"), syntax));
    }
    for sample in SAMPLES {
        check(&format!("DICOM {}", sample.name), decode_sample(&folder.path().join("film.dcm"), sample));
    }
    check("demonstration bundle", predict(&folder.path().join("film.dcm")));

    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|c| vec![c.part.clone(), if c.ok { "ok" } else { "FAILED" }.to_owned(), c.detail.clone()])
        .collect();
    eprint!("{}", table(&["part", "", "detail"], &rows));
    global.print_json(&serde_json::json!({ "checks": checks }))?;
    Ok(if checks.iter().all(|c| c.ok) { Done::All } else { Done::SomeFailed })
}

fn processor_features() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let features = [
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ];
        let found: Vec<&str> = features.iter().filter(|f| f.1).map(|f| f.0).collect();
        if found.is_empty() { "no vector extensions beyond SSE2: slow".to_owned() } else { found.join(" ") }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        "vector extensions of this architecture".to_owned()
    }
}

/// Writes a film in a transfer syntax and reads it back: every stored value must return.
fn decode(path: &Path, syntax: DxSyntax) -> Result<String> {
    let film = sample(syntax);
    write_dx(path, &film)?;
    let start = Instant::now();
    let image = read_stage(path, Stage::Stored, &ReadOptions::default())?;
    let StageData::I32(values) = image.data else { bail!("stored values came back in another type") };
    let differing =
        values.iter().zip(&film.pixels).filter(|&(&got, &expected)| got != i32::from(expected)).count();
    if values.len() != film.pixels.len() || differing > 0 {
        bail!("{differing} of {} stored values differ", film.pixels.len());
    }
    Ok(format!("{} values exact in {:.1} ms", values.len(), 1e3 * start.elapsed().as_secs_f64()))
}

/// Reads a film that is built in: every stored value must be as listed.
fn decode_sample(path: &Path, sample: &Sample) -> Result<String> {
    std::fs::write(path, sample.file)?;
    let start = Instant::now();
    let image = read_stage(path, Stage::Stored, &ReadOptions::default())?;
    let StageData::I32(values) = image.data else { bail!("stored values came back in another type") };
    let count = values.len();
    let ms = 1e3 * start.elapsed().as_secs_f64();
    match sample.largest_difference(&values) {
        Some(0) => Ok(format!("{count} values exact in {ms:.1} ms")),
        Some(by) if by <= sample.tolerance => {
            Ok(format!("{count} values within {by} of the reference decoder in {ms:.1} ms"))
        }
        Some(by) => bail!("stored values differ by up to {by}, {} allowed", sample.tolerance),
        None => bail!("{count} stored values, {} expected", sample.stored().len()),
    }
}

/// Runs the bundle inside this program on a film and looks at the record.
fn predict(path: &Path) -> Result<String> {
    let film = sample(DxSyntax::ExplicitLe);
    write_dx(path, &film)?;
    let pipeline = Pipeline::load(&[demo_bundle::load()?], PipelineOptions::default())?;
    let mut outcome: Option<Result<FilmPrediction, _>> = None;
    let start = Instant::now();
    let mut on_film = |result: FilmResult| {
        outcome = Some(result.outcome);
        ControlFlow::Continue(())
    };
    pipeline.predict(&[path.to_owned()], &mut on_film, &spinexr_core::progress::silent);
    let film = outcome.context("the pipeline gave nothing")??;
    let p = film.p_abnormal.context("no probability")?;
    Ok(format!(
        "{} models, p(abnormal) {p:.3} in {:.0} ms",
        pipeline.models().len(),
        1e3 * start.elapsed().as_secs_f64()
    ))
}

/// A small synthetic spine film.
fn sample(syntax: DxSyntax) -> DxFilm {
    let study = spinexr_synth::plan::Study::draw(7, 0, false);
    let film = spinexr_synth::render_film(&study.film(0, 512));
    DxFilm { transfer_syntax: syntax, ..DxFilm::new(film.height_px, film.width_px, film.pixels) }
}
