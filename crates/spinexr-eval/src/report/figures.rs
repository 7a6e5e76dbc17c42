//! The report's figures: ROC, probabilities, precision–recall by class, FROC, training.

use super::plot::{Axis, Corner, Mark, Plot, Scale, Series};
use super::{code, escape, number, percent};
use crate::decision_curve::NetBenefit;
use crate::froc::FALSE_ALARMS_PER_FILM;
use crate::run::{LossCurve, RunReport, ScoreHistogram};
use spinexr_core::Label;
use std::fmt::Write;

/// ROC of every classifier, the ensemble thick.
pub(super) fn roc(report: &RunReport) -> String {
    let names = report.classifier_names();
    let series = names.iter().rev().enumerate().filter_map(|(style, &name)| {
        let points = report.curves.roc.get(name)?.clone();
        let auroc = report.classification[name].auroc;
        let name_and_area = format!("{name}  {}", number(auroc, 3));
        Some(Series { name: name_and_area, points, style, strong: name == "ensemble", mark: Mark::Line })
    });
    let series: Vec<Series> = series.collect();
    let empty = series.is_empty().then(|| "n/a: test films of one class".to_owned());
    Plot {
        description: "ROC curves of the classifiers on the test films".into(),
        size: [440.0, 380.0],
        x: Axis::share("1 − specificity", 4),
        y: Axis::share("Sensitivity", 4),
        series,
        diagonal: true,
        legend: Some(Corner::BottomRight),
        empty,
    }
    .svg()
}

/// Share of abnormal films against p(abnormal), the ensemble thick.
pub(super) fn reliability(report: &RunReport) -> String {
    let names = report.classifier_names();
    let series = names.iter().rev().enumerate().map(|(style, &name)| {
        let bins = &report.classification[name].calibration.reliability;
        let points = bins.iter().filter_map(|bin| Some([bin.mean_probability?, bin.share_positive?]));
        let mark = if name == "ensemble" { Mark::LineAndDots } else { Mark::Line };
        Series { name: name.into(), points: points.collect(), style, strong: name == "ensemble", mark }
    });
    Plot {
        description: "Share of abnormal films against the predicted probability".into(),
        size: [440.0, 380.0],
        x: Axis::share("p(abnormal), mean of a bin", 4),
        y: Axis::share("Share of abnormal films", 4),
        series: series.collect(),
        diagonal: true,
        legend: Some(Corner::TopLeft),
        empty: None,
    }
    .svg()
}

/// Net benefit of the ensemble and of calling every film abnormal.
pub(super) fn decision_curve(report: &RunReport) -> String {
    let curve = report.classification.get("ensemble").map(|row| row.worth.decision_curve.as_slice());
    let curve = curve.unwrap_or_default();
    // What costs more than it brings is not shown below a little under nothing.
    let floor = -0.05;
    let series = |name: &str, style: usize, of: &dyn Fn(&NetBenefit) -> f64| Series {
        name: name.into(),
        points: curve.iter().map(|p| [p.threshold, of(p)]).take_while(|p| p[1] >= floor).collect(),
        style,
        strong: style == 0,
        mark: Mark::Line,
    };
    let highest = curve.iter().map(|p| p.model.max(p.all)).fold(0.1, f64::max);
    Plot {
        description: "Net benefit against the threshold probability".into(),
        size: [440.0, 380.0],
        x: Axis::share("Threshold probability", 4),
        y: Axis::round("Net benefit, true positives a film", floor, highest),
        series: vec![
            series("ensemble", 0, &|p| p.model),
            series("call every film abnormal", 1, &|p| p.all),
            Series {
                name: "call none".into(),
                points: vec![[0.0, 0.0], [1.0, 0.0]],
                style: 2,
                strong: false,
                mark: Mark::Line,
            },
        ],
        diagonal: false,
        legend: Some(Corner::TopRight),
        empty: curve.is_empty().then(|| "n/a".to_owned()),
    }
    .svg()
}

/// Probabilities of abnormal films upwards and of normal films downwards, with c*.
pub(super) fn histogram(h: &ScoreHistogram, c_star: Option<f64>) -> String {
    let (width, height, left, right, top, bottom) = (440.0, 380.0, 50.0, 12.0, 10.0, 42.0);
    let (w, h_px) = (width - left - right, height - top - bottom);
    let highest = h.normal.iter().chain(&h.abnormal).copied().max().unwrap_or(0).max(1);
    let axis = Axis::round("", 0.0, highest as f64);
    let limit = axis.range[1];
    let middle = top + h_px / 2.0;
    let length = |count: f64| h_px / 2.0 * count / limit;
    let mut out = format!(
        r#"<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="Histogram of p(abnormal) of abnormal and normal test films">"#
    );
    for (value, text) in &axis.ticks {
        if value.fract() != 0.0 {
            continue; // there is no half film
        }
        for y in [middle - length(*value), middle + length(*value)] {
            let _ = write!(
                out,
                r#"<line class="grid" x1="{left}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"#,
                left + w,
                left - 7.0,
                y + 4.0
            );
            if *value == 0.0 {
                break;
            }
        }
    }
    let bar = w / h.normal.len() as f64;
    for (i, (&normal, &abnormal)) in h.normal.iter().zip(&h.abnormal).enumerate() {
        let x = left + bar * i as f64 + 0.75;
        for (count, class, y) in [(abnormal, "f1", middle - length(abnormal as f64)), (normal, "f0", middle)]
        {
            if count > 0 {
                let _ = write!(
                    out,
                    r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}"/>"#,
                    bar - 1.5,
                    length(count as f64)
                );
            }
        }
    }
    for i in 0..=4 {
        let value = f64::from(i) / 4.0;
        let _ = write!(
            out,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="middle">{value}</text>"#,
            left + w * value,
            top + h_px + 16.0
        );
    }
    let _ = write!(
        out,
        r#"<path class="axis" d="M{left} {top}V{:.1}M{left} {middle:.1}H{:.1}"/>"#,
        top + h_px,
        left + w
    );
    if let Some(c) = c_star {
        let x = left + w * c;
        let (anchor, dx) = if c > 0.8 { ("end", -5.0) } else { ("start", 5.0) };
        let _ = write!(
            out,
            r#"<line class="cut" x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{:.1}"/><text class="name halo" x="{:.1}" y="{:.1}" text-anchor="{anchor}">c* = {c:.3}</text>"#,
            top + h_px,
            x + dx,
            top + 14.0
        );
    }
    // The names of the two sides stand where c* does not.
    let (x, anchor) =
        if c_star.is_some_and(|c| c < 0.4) { (left + w - 6.0, "end") } else { (left + 8.0, "start") };
    let _ = write!(
        out,
        r#"<text class="name halo" x="{x:.1}" y="{:.1}" text-anchor="{anchor}">abnormal films ↑</text><text class="name halo" x="{x:.1}" y="{:.1}" text-anchor="{anchor}">normal films ↓</text><text class="label" x="{:.1}" y="{:.1}" text-anchor="middle">p(abnormal), ensemble</text><text class="label" transform="translate(13 {middle:.1}) rotate(-90)" text-anchor="middle">Films</text></svg>"#,
        top + 14.0,
        top + h_px - 6.0,
        left + w / 2.0,
        height - 6.0
    );
    out
}

/// One small precision–recall plot a class, with the detector and the framework.
pub(super) fn precision_recall_plots(report: &RunReport) -> Vec<(&Label, Plot)> {
    let names = report.detector_names();
    let plot = |label: &Label| {
        let series = names.iter().rev().enumerate().filter_map(|(style, &name)| {
            let precision = report.curves.detection_pr.get(name)?.get(label)?.as_ref()?;
            let last = (precision.len() - 1) as f64;
            // Beyond the recall that is reached precision is 0; the line ends there.
            let reached = precision.iter().rposition(|&p| p > 0.0).map_or(0, |i| i + 1);
            let points = precision[..reached].iter().enumerate().map(|(i, &p)| [i as f64 / last, p]);
            Some(Series {
                name: name.into(),
                points: points.collect(),
                style,
                strong: name == "framework",
                mark: Mark::Line,
            })
        });
        let series: Vec<Series> = series.collect();
        let boxes = report.counts.test.boxes.get(label).copied().unwrap_or(0);
        let empty = if boxes == 0 {
            Some("n/a: no box to find".to_owned())
        } else if series.iter().all(|s| s.points.is_empty()) {
            Some("none found".to_owned())
        } else {
            None
        };
        Plot {
            description: format!("Precision–recall curve for {label}"),
            size: [300.0, 240.0],
            x: Axis::share("Recall", 2),
            y: Axis::share("Precision", 2),
            series,
            diagonal: false,
            legend: None,
            empty,
        }
    };
    report.classes.labels().iter().map(|label| (label, plot(label))).collect()
}

/// The plots of [`precision_recall_plots`] side by side.
pub(super) fn precision_recall(report: &RunReport) -> String {
    let mut out = String::from(r#"<div class="panels">"#);
    for (label, plot) in precision_recall_plots(report) {
        let boxes = report.counts.test.boxes.get(label).copied().unwrap_or(0);
        let aps: Vec<String> = report
            .detector_names()
            .iter()
            .map(|&n| percent(report.detection[n].ap50.get(label).copied().flatten()))
            .collect();
        let _ = write!(
            out,
            r#"<figure class="panel"><figcaption><b>{}</b> <span class="muted">{}<br>{boxes} box{} · AP {}</span></figcaption>{}</figure>"#,
            escape(label.name()),
            code(&report.classes, label).unwrap_or_default(),
            if boxes == 1 { "" } else { "es" },
            aps.join(" → "),
            plot.svg()
        );
    }
    out.push_str("</div>");
    out
}

/// Lines and their names, for figures that share one legend.
pub(super) fn detector_key(report: &RunReport) -> String {
    let names = report.detector_names();
    let mut out = String::from(r#"<p class="keys">"#);
    for (style, &name) in names.iter().rev().enumerate() {
        let strong = if name == "framework" { " strong" } else { "" };
        let meaning = if name == "framework" { "framework (after the gate)" } else { name };
        let _ = write!(
            out,
            r#"<span><svg class="swatch" viewBox="0 0 28 10" aria-hidden="true"><path class="line s{style}{strong}" d="M1 5h26"/></svg>{}</span>"#,
            escape(meaning)
        );
    }
    out.push_str("</p>");
    out
}

/// Sensitivity against false alarms a film.
pub(super) fn froc(report: &RunReport) -> String {
    let names = report.detector_names();
    let series = names.iter().rev().enumerate().filter_map(|(style, &name)| {
        let froc = report.detection[name].froc.as_ref()?;
        Some(Series {
            name: name.into(),
            points: froc.sensitivity_at.clone(),
            style,
            strong: name == "framework",
            mark: Mark::LineAndDots,
        })
    });
    let series: Vec<Series> = series.collect();
    let empty = series.is_empty().then(|| "n/a: no box to find".to_owned());
    Plot {
        description: "Share of findings found against false alarms a film".into(),
        size: [440.0, 340.0],
        x: false_alarms(),
        y: Axis::share("Share of findings found", 4),
        series,
        diagonal: false,
        legend: Some(Corner::TopLeft),
        empty,
    }
    .svg()
}

/// The axis of a FROC curve.
pub(super) fn false_alarms() -> Axis {
    let labels = ["⅛", "¼", "½", "1", "2", "4", "8"];
    Axis {
        label: "False alarms a film".into(),
        range: [FALSE_ALARMS_PER_FILM[0], FALSE_ALARMS_PER_FILM[6]],
        ticks: FALSE_ALARMS_PER_FILM.into_iter().zip(labels.map(str::to_owned)).collect(),
        scale: Scale::Log,
    }
}

/// One plot for each group of training curves: names up to the last `/` make a group.
pub(super) fn losses(curves: &[LossCurve]) -> String {
    let mut groups: Vec<(String, Vec<(String, &LossCurve)>)> = Vec::new();
    for curve in curves.iter().filter(|c| !c.points.is_empty()) {
        let (group, name) = curve.name.rsplit_once('/').unwrap_or(("", &curve.name));
        match groups.iter_mut().find(|g| g.0 == group) {
            Some(found) => found.1.push((name.into(), curve)),
            None => groups.push((group.into(), vec![(name.into(), curve)])),
        }
    }
    let mut out = String::from(r#"<div class="panels wide">"#);
    for (group, members) in &groups {
        let all = || members.iter().flat_map(|m| &m.1.points);
        let last_step = all().map(|p| p[0]).fold(1.0, f64::max);
        let values: Vec<f64> = all().map(|p| p[1]).collect();
        // A few first steps may tower over the rest; they are cut off at the top.
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let high = sorted[(sorted.len() - 1) * 99 / 100];
        let low = sorted[0].min(0.0);
        let series = members.iter().enumerate().map(|(style, (name, curve))| Series {
            name: name.clone(),
            points: curve.points.clone(),
            style,
            strong: false,
            mark: Mark::Line,
        });
        let plot = Plot {
            description: format!("Training curves {group}"),
            size: [440.0, 260.0],
            x: Axis::round("Step", 0.0, last_step),
            y: Axis::round("Value", low, high),
            series: series.collect(),
            diagonal: false,
            legend: Some(Corner::TopRight),
            empty: None,
        };
        let _ = write!(
            out,
            r#"<figure class="panel"><figcaption><b>{}</b></figcaption>{}</figure>"#,
            escape(if group.is_empty() { "Training" } else { group }),
            plot.svg()
        );
    }
    out.push_str("</div>");
    out
}
