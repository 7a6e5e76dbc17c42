//! The report's figures as files of their own: SVG that stands alone, and PNG drawn from it.
//!
//! PNG is drawn with a font that is part of the program (a subset of DejaVu Sans), so a plot is the same on every machine.

use super::figures;
use super::{ReportFile, comparison};
use crate::compare::CompareReport;
use crate::error::EvalError;
use crate::run::RunReport;
use rayon::prelude::*;
use resvg::{tiny_skia, usvg};
use std::sync::Arc;

const FONT: &[u8] = include_bytes!("../../assets/plot_font.ttf");
/// The page's rules for plots, with the colours of its light form.
const STYLE: &str = include_str!("plot.css");
/// Picture px a px of the drawing: 440 px become 1,320, enough for a column of print.
const SCALE: f32 = 3.0;

/// Every figure of a run, SVG and PNG.
///
/// # Errors
/// [`EvalError::Plot`] for a figure that cannot be drawn.
pub fn plot_files(report: &RunReport) -> Result<Vec<ReportFile>, EvalError> {
    let mut plots: Vec<(String, String)> = Vec::new();
    if !report.classification.is_empty() {
        plots.push(("roc".into(), figures::roc(report)));
        plots.push(("calibration".into(), figures::reliability(report)));
        plots.push(("decision_curve".into(), figures::decision_curve(report)));
    }
    if let Some(histogram) = &report.curves.scores {
        let c_star = report.gate.as_ref().map(|g| g.c_star);
        plots.push(("scores".into(), figures::histogram(histogram, c_star)));
    }
    if !report.detection.is_empty() {
        plots.push(("froc".into(), figures::froc(report)));
        plots.extend(figures::precision_recall_plots(report).into_iter().map(|(finding, plot)| {
            (format!("precision_recall_{}", file_name(&finding.to_string())), plot.svg())
        }));
    }
    files(plots)
}

/// Every figure of a comparison, SVG and PNG.
///
/// # Errors
/// [`EvalError::Plot`] for a figure that cannot be drawn.
pub fn comparison_plot_files(report: &CompareReport) -> Result<Vec<ReportFile>, EvalError> {
    files(comparison::plots(report).into_iter().map(|(name, svg)| (name.to_owned(), svg)).collect())
}

fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

fn files(plots: Vec<(String, String)>) -> Result<Vec<ReportFile>, EvalError> {
    let mut options = usvg::Options { font_family: "DejaVu Sans".into(), ..usvg::Options::default() };
    Arc::make_mut(&mut options.fontdb).load_font_data(FONT.to_vec());
    let pairs: Vec<[ReportFile; 2]> = plots
        .into_par_iter()
        .map(|(name, svg)| {
            let svg = standalone(&svg);
            let bytes =
                png(&svg, &options).map_err(|message| EvalError::Plot { name: name.clone(), message })?;
            Ok([
                ReportFile { name: format!("plots/{name}.svg"), bytes: svg.into_bytes() },
                ReportFile { name: format!("plots/{name}.png"), bytes },
            ])
        })
        .collect::<Result<_, EvalError>>()?;
    Ok(pairs.into_iter().flatten().collect())
}

/// A plot of the page with its own name space, style and ground.
fn standalone(svg: &str) -> String {
    let inside = svg.find('>').map_or(svg.len(), |end| end + 1);
    let (open, rest) = svg.split_at(inside);
    let open = open.replacen("<svg ", r#"<svg xmlns="http://www.w3.org/2000/svg" "#, 1);
    format!(r##"{open}<style>{STYLE}</style><rect width="100%" height="100%" fill="#ffffff"/>{rest}"##)
}

fn png(svg: &str, options: &usvg::Options<'_>) -> Result<Vec<u8>, String> {
    let tree = usvg::Tree::from_str(svg, options).map_err(|e| e.to_string())?;
    let size = tree.size();
    let px = |length: f32| (length * SCALE).round() as u32;
    let mut picture = tiny_skia::Pixmap::new(px(size.width()), px(size.height()))
        .ok_or_else(|| format!("a picture of {} × {}", size.width(), size.height()))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(SCALE, SCALE), &mut picture.as_mut());
    picture.encode_png().map_err(|e| e.to_string())
}
