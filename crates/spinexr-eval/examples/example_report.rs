//! Renders a report of made-up records to look at, with its tables and plots, a comparison of two runs and a comparison of
//! batches: `cargo run --release -p spinexr-eval --example example_report [TEST FILMS]`.

#[path = "../tests/made_up/mod.rs"]
mod made_up;

use image::{GrayImage, ImageEncoder, Luma, codecs::png::PngEncoder};
use spinexr_core::{FilmPrediction, fusion, whole_file};
use spinexr_eval::compare::{CompareOptions, ComparedRun, Correction, compare};
use spinexr_eval::report::{self, ReportFile, Thumbnail};
use spinexr_eval::run::{LossCurve, Protocol, RunOptions, ThresholdSource, evaluate_run};
use spinexr_eval::threshold::{Predictions, Test, Validation};
use spinexr_eval::{EvalError, drift};
use std::path::PathBuf;

/// A pale column of blocks on dark ground: enough to judge the look of boxes on it.
fn thumbnail(_: &str) -> Option<Thumbnail> {
    let (width, height) = (262u32, 400u32);
    let picture = GrayImage::from_fn(width, height, |x, y| {
        let (fx, fy) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
        let bend = 0.5 + 0.03 * (fy * 5.0).sin();
        let body = (-((fx - bend) / 0.14).powi(4)).exp() * (0.72 + 0.28 * (fy * 34.0).sin().abs().sqrt());
        let tissue = 0.35 * (-((fx - 0.5) / 0.42).powi(6)).exp();
        Luma([(255.0 * (0.05 + 0.6 * body + tissue).min(1.0)) as u8])
    });
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(&picture, width, height, image::ExtendedColorType::L8).ok()?;
    let scale = [width as f32 / made_up::WIDTH_PX as f32, height as f32 / made_up::HEIGHT_PX as f32];
    Some(Thumbnail {
        bytes,
        mime: "image/png".into(),
        width_px: width,
        height_px: height,
        scale,
        evidence: None,
        box_evidence: None,
    })
}

fn main() -> Result<(), spinexr_eval::EvalError> {
    let films = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(260);
    let data = made_up::make(180, films, 14, 20);
    let mut options = RunOptions::new("spinexr demo", Protocol::Improved, 42);
    options.detector = Some("retinanet_mini".into());
    options.synthetic = true;
    let course = |start: f64, end: f64, noise: f64, steps: u32| -> Vec<[f64; 2]> {
        let point = |i: u32| {
            let t = f64::from(i) / f64::from(steps);
            let wave = noise * (f64::from(i) * 12.9898).sin() * (f64::from(i) * 0.37).cos();
            [f64::from(i * 10), end + (start - end) * (-4.0 * t).exp() + wave * (1.2 - t)]
        };
        (1..=steps).map(point).collect()
    };
    options.losses = vec![
        LossCurve { name: "densenet121_mini_a/training loss".into(), points: course(0.72, 0.18, 0.05, 90) },
        LossCurve { name: "densenet121_mini_a/validation loss".into(), points: course(0.70, 0.34, 0.01, 90) },
        LossCurve { name: "densenet121_mini_b/training loss".into(), points: course(0.75, 0.2, 0.05, 90) },
        LossCurve { name: "densenet121_mini_b/validation loss".into(), points: course(0.72, 0.33, 0.01, 90) },
        LossCurve { name: "retinanet_mini/classification".into(), points: course(1.15, 0.25, 0.04, 120) },
        LossCurve { name: "retinanet_mini/regression".into(), points: course(0.9, 0.35, 0.03, 120) },
    ];
    options.provenance.seed = Some(42);
    options.provenance.command = Some("spinexr demo --seed 42".into());
    options.provenance.data_hash = Some("9b1e4f7702c85d0a".into());
    options.provenance.config = Some("seed = 42\n\n[classifier]\narchitecture = \"densenet_mini\"\n".into());
    options.provenance.versions.insert("spinexr".into(), env!("CARGO_PKG_VERSION").into());

    let validation = Predictions::<Validation>::new(data.validation)?;
    let source = ThresholdSource::Validation { films: &validation, annotations: &data.validation_truth };
    let test = Predictions::<Test>::new(data.test)?;
    let report = evaluate_run(&test, &data.test_truth, source, &options)?;
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/example-report");
    let refused = |source| EvalError::Io { path: dir.clone(), source };
    std::fs::create_dir_all(&dir).map_err(refused)?;
    let mut files = report::table_files(&report);
    files.extend(report::plot_files(&report)?);
    let html = report::html(&report, &thumbnail);
    files.push(ReportFile { name: "report.html".into(), bytes: html.into_bytes() });

    let other = made_up::make(180, films, 14, 20);
    let blurred = |films: Vec<FilmPrediction>| -> Vec<FilmPrediction> {
        let blur = |(i, mut film): (usize, FilmPrediction)| {
            for logit in film.logits.values_mut() {
                *logit = (0.6 * logit.values()[0] + 2.0 * ((i * 37 % 101) as f64 / 101.0 - 0.5)).into();
            }
            film.p_abnormal = film.ensemble_logit().map(fusion::sigmoid);
            film
        };
        films.into_iter().enumerate().map(blur).collect()
    };
    let blurred_validation = Predictions::<Validation>::new(blurred(other.validation))?;
    let blurred_test = Predictions::<Test>::new(blurred(other.test))?;
    let source =
        ThresholdSource::Validation { films: &blurred_validation, annotations: &other.validation_truth };
    let blurred_report = evaluate_run(&blurred_test, &other.test_truth, source, &options)?;
    let runs = [
        ComparedRun { method: "sharp", source: "sharp.jsonl", test: &test, report: &report },
        ComparedRun {
            method: "blurred",
            source: "blurred.jsonl",
            test: &blurred_test,
            report: &blurred_report,
        },
    ];
    let compared = compare(
        &runs,
        &data.test_truth,
        &CompareOptions {
            title: "Two methods".into(),
            correction: Correction::Holm,
            bootstrap: options.bootstrap,
        },
    )?;
    let html = report::comparison_html(&compared);
    files.push(ReportFile { name: "comparison.html".into(), bytes: html.into_bytes() });
    for file in files {
        let path = dir.join(&file.name);
        std::fs::create_dir_all(path.parent().unwrap_or(&dir)).map_err(refused)?;
        whole_file::write(&path, &file.bytes).map_err(refused)?;
    }
    let reference: Vec<FilmPrediction> = test.films().cloned().collect();
    let drift = drift::drift(&reference, &made_up::make(0, 60, 14, 99).test, &drift::DriftOptions::default());
    println!("{}", drift.statement.join("\n"));
    println!("{}", dir.join("report.html").display());
    Ok(())
}
