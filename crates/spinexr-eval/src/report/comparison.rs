//! The page of a comparison: methods side by side, and which of them differ.

use super::figures::false_alarms;
use super::plot::{Axis, Corner, Mark, Plot, Series};
use super::tables::interval;
use super::{count, escape, p_value, page, percent};
use crate::compare::{CompareReport, Summary};
use std::fmt::Write;

pub(super) fn page(report: &CompareReport) -> String {
    let mut out = page::head(&report.title);
    let runs: usize = report.methods.iter().map(|m| m.sources.len()).sum();
    let _ = write!(
        out,
        r#"<div class="banner"><b>{}</b></div><header><h1>{}</h1><p class="lead">{} runs of {} methods · the same {} test films of {} studies</p>"#,
        escape(&report.notice),
        escape(&report.title),
        count(runs),
        count(report.methods.len()),
        count(report.films),
        count(report.studies)
    );
    if !report.notes.is_empty() {
        out.push_str(r#"<ul class="notes">"#);
        for note in &report.notes {
            let _ = write!(out, r#"<li class="warning"><b>note</b> {}</li>"#, escape(note));
        }
        out.push_str("</ul>");
    }
    out.push_str("</header><main>");
    let _ = write!(
        out,
        r#"<section><h2>Normal or abnormal</h2>{}<p class="caption"><b>Table 1.</b> Film-level figures of each method's ensemble, in percent, at each run's own c*. After ±: standard deviation over runs. In brackets: 95 % interval, bootstrap of studies, {} resamples — what these runs would give on other films. In square brackets: 95 % interval of the mean over runs — what other runs would give on these films.</p></section>"#,
        film_level(report),
        count(report.bootstrap.resamples)
    );
    let _ = write!(
        out,
        r#"<section><h2>Where each finding lies</h2>{}<p class="caption"><b>Table 2.</b> Average precision at IoU 0.5 in percent, after the decision rule where there is one; the last two columns are the means over classes before and after it. Brackets as in Table 1.</p></section>"#,
        box_level(report)
    );
    if !report.tests.is_empty() {
        let _ = write!(
            out,
            r#"<section><h2>Which differ</h2>{}<p class="caption"><b>Table 3.</b> Paired tests on the same films: the first method less the second, in percent, with the 95 % interval and two-sided p. All p of this table are corrected together ({}); bold where the corrected p is below 0.05. DeLong's and McNemar's tests take films for independent, which films of one study are not; the bootstrap draws studies.</p></section>"#,
            tests(report),
            report.correction.name()
        );
    }
    let plots = plots(report);
    if !plots.is_empty() {
        out.push_str(r#"<section><h2>Curves</h2><div class="pair">"#);
        for (i, (name, svg)) in plots.iter().enumerate() {
            let what =
                if *name == "roc" { "ROC of the ensembles." } else { "FROC: findings found at IoU 0.5." };
            let _ = write!(
                out,
                r#"<figure>{svg}<figcaption class="caption"><b>Figure {}.</b> {what} Of several runs of a method, the first.</figcaption></figure>"#,
                i + 1
            );
        }
        out.push_str("</div></section>");
    }
    out.push_str("<section><h2>What was compared</h2><dl>");
    for method in &report.methods {
        let _ =
            write!(out, "<dt>{}</dt><dd>{}</dd>", escape(&method.name), escape(&method.sources.join(", ")));
    }
    let _ = writeln!(
        out,
        "<dt>Bootstrap</dt><dd>{} resamples of studies, seed {}</dd></dl></section></main></body></html>",
        count(report.bootstrap.resamples),
        report.bootstrap.seed
    );
    out
}

/// Name and SVG of the figures that can be drawn.
pub(super) fn plots(report: &CompareReport) -> Vec<(&'static str, String)> {
    let series = |curves: &std::collections::BTreeMap<String, Vec<[f64; 2]>>, mark| -> Vec<Series> {
        let of_method = report.methods.iter().enumerate();
        let curve = of_method.filter_map(|(style, method)| {
            let points = curves.get(&method.name)?.clone();
            Some(Series { name: method.name.clone(), points, style, strong: false, mark })
        });
        curve.collect()
    };
    let mut plots = Vec::new();
    let roc = series(&report.roc, Mark::Line);
    if !roc.is_empty() {
        let plot = Plot {
            description: "ROC curves of the methods' ensembles".into(),
            size: [440.0, 380.0],
            x: Axis::share("1 − specificity", 4),
            y: Axis::share("Sensitivity", 4),
            series: roc,
            diagonal: true,
            legend: Some(Corner::BottomRight),
            empty: None,
        };
        plots.push(("roc", plot.svg()));
    }
    let froc = series(&report.froc, Mark::LineAndDots);
    if !froc.is_empty() {
        let plot = Plot {
            description: "Share of findings found against false alarms a film".into(),
            size: [440.0, 380.0],
            x: false_alarms(),
            y: Axis::share("Share of findings found", 4),
            series: froc,
            diagonal: false,
            legend: Some(Corner::TopLeft),
            empty: None,
        };
        plots.push(("froc", plot.svg()));
    }
    plots
}

fn cell(summary: &Summary) -> String {
    let sd = summary.sd.map_or_else(String::new, |sd| format!(" ± {:.2}", 100.0 * sd));
    let studies =
        summary.interval_of_studies.map_or_else(String::new, |ends| format!(" ({})", interval(Some(ends))));
    let runs =
        summary.interval_of_runs.map_or_else(String::new, |ends| format!(" [{}]", interval(Some(ends))));
    format!(r#"<td>{}{sd}<span class="ci">{studies}{runs}</span></td>"#, percent(summary.mean))
}

fn film_level(report: &CompareReport) -> String {
    let mut out = String::from(
        r#"<div class="scroll"><table><thead><tr><th scope="col">Method</th><th scope="col">Runs</th><th scope="col">AUROC</th><th scope="col">F1</th><th scope="col">Sensitivity</th><th scope="col">Specificity</th></tr></thead><tbody>"#,
    );
    for method in &report.methods {
        let cells: String =
            [&method.auroc, &method.f1, &method.sensitivity, &method.specificity].map(cell).concat();
        let _ = write!(
            out,
            r#"<tr><th scope="row">{}</th><td>{}</td>{cells}</tr>"#,
            escape(&method.name),
            count(method.sources.len())
        );
    }
    out.push_str("</tbody></table></div>");
    out
}

fn box_level(report: &CompareReport) -> String {
    let classes: String =
        report.classes.iter().map(|class| format!(r#"<th scope="col">{}</th>"#, escape(class))).collect();
    let mut out = format!(
        r#"<div class="scroll"><table class="stack"><thead><tr><th scope="col">Method</th>{classes}<th scope="col">mAP, before the gate</th><th scope="col">mAP, after</th></tr></thead><tbody>"#
    );
    for method in &report.methods {
        let by_class: String = report
            .classes
            .iter()
            .map(|class| method.ap50.get(class).map_or_else(|| "<td>n/a</td>".to_owned(), cell))
            .collect();
        let _ = write!(
            out,
            r#"<tr><th scope="row">{}</th>{by_class}{}{}</tr>"#,
            escape(&method.name),
            cell(&method.map50_detector),
            cell(&method.map50)
        );
    }
    out.push_str("</tbody></table></div>");
    out
}

fn tests(report: &CompareReport) -> String {
    let mut out = String::from(
        r#"<div class="scroll"><table><thead><tr><th scope="col">First</th><th scope="col">Second</th><th scope="col">Figure and test</th><th scope="col">Difference (95 % CI)</th><th scope="col">p</th><th scope="col">p corrected</th></tr></thead><tbody>"#,
    );
    for test in &report.tests {
        let ci = test.interval.map_or_else(String::new, |[low, high]| {
            format!(r#" <span class="ci">({:+.2} to {:+.2})</span>"#, 100.0 * low, 100.0 * high)
        });
        let adjusted = p_value(test.p_adjusted);
        let adjusted = match test.p_adjusted {
            Some(p) if p < 0.05 => format!("<b>{adjusted}</b>"),
            _ => adjusted,
        };
        let _ = write!(
            out,
            r#"<tr><th scope="row">{}</th><td>{}</td><td>{}</td><td>{:+.2}{ci}</td><td>{}</td><td>{adjusted}</td></tr>"#,
            escape(&test.first),
            escape(&test.second),
            test.kind.name(),
            100.0 * test.difference,
            p_value(test.p)
        );
    }
    out.push_str("</tbody></table></div>");
    out
}
