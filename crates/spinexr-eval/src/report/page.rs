//! The page: what it says and in which order.

use super::{Thumbnail, count, escape, figures, gallery, number, percent, tables};
use crate::intervals::Unit;
use crate::run::{FEW_BOXES, FEW_FILMS, NoteKind, Protocol, RunReport};
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

pub(super) fn page(report: &RunReport, thumbnail: &dyn Fn(&str) -> Option<Thumbnail>) -> String {
    let mut out = head(&report.title);
    header(&mut out, report);
    out.push_str("<main>");
    film_level(&mut out, report);
    box_level(&mut out, report);
    subgroups(&mut out, report);
    films(&mut out, report, thumbnail);
    training(&mut out, report);
    what_was_run(&mut out, report);
    out.push_str("</main></body></html>\n");
    out
}

/// Everything before the first words of a page.
pub(super) fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{}</title><style>{STYLE}</style></head><body>",
        escape(title)
    )
}

fn header(out: &mut String, report: &RunReport) {
    let _ = write!(out, r#"<div class="banner"><b>{}</b>"#, escape(&report.notice));
    if report.synthetic {
        out.push_str(
            " All films in this report are synthetic: the figures say that the program works, not how well \
             it reads radiographs of patients.",
        );
    }
    let protocol = match report.protocol {
        Protocol::Paper => "protocol <b>paper</b> (as the official code, flaws included)",
        Protocol::Improved => "protocol <b>improved</b> (repaired recipe)",
    };
    let test = &report.counts.test;
    let _ = write!(
        out,
        r#"</div><header><h1>{}</h1><p class="lead">{protocol} · {} test films of {} studies, {} abnormal</p><div class="tiles">"#,
        escape(&report.title),
        count(test.films),
        count(test.studies),
        count(test.abnormal)
    );
    let mut tile = |value: String, name: &str, detail: String| {
        let _ = write!(
            out,
            r#"<div class="tile"><span class="value">{value}</span><span class="what">{name}</span><span class="muted">{detail}</span></div>"#
        );
    };
    if let Some(row) = report.classification.get("ensemble") {
        let ci =
            row.auroc_ci.map_or("n/a".into(), |[a, b]| format!("95 % CI {:.2}–{:.2}", 100.0 * a, 100.0 * b));
        tile(percent(row.auroc), "AUROC of the ensemble, %", ci);
        tile(
            format!("{} / {}", percent(row.sensitivity), percent(row.specificity)),
            "sensitivity / specificity, %",
            report.gate.as_ref().map_or("no threshold".into(), |g| {
                format!("at c* = {:.3}, chosen on: {}", g.c_star, escape(&g.chosen_on))
            }),
        );
    }
    if let Some((name, row)) = report.detector_names().last().map(|&name| (name, &report.detection[name])) {
        let before = report.detector.as_ref().filter(|d| *d != name).and_then(|d| report.detection.get(d));
        let detail = before.map_or(String::new(), |row| format!("{} before the gate", percent(row.map50)));
        tile(percent(row.map50), &format!("mAP@0.5 of the {}, %", escape(name)), detail);
    }
    out.push_str("</div>");
    if !report.notes.is_empty() {
        out.push_str(r#"<ul class="notes">"#);
        for note in &report.notes {
            let kind = match note.kind {
                NoteKind::Warning => "warning",
                NoteKind::Info => "info",
            };
            let _ = write!(out, r#"<li class="{kind}"><b>{kind}</b> {}</li>"#, escape(&note.text));
        }
        out.push_str("</ul>");
    }
    out.push_str("</header>");
}

fn film_level(out: &mut String, report: &RunReport) {
    if report.classification.is_empty() {
        return;
    }
    let drawn = report.classification.values().next().map_or("studies", |row| match row.auroc_ci_unit {
        Unit::Film => "films",
        Unit::Study => "studies",
    });
    let _ = write!(
        out,
        r#"<section><h2>Normal or abnormal</h2>{}<p class="caption"><b>Table 1.</b> Film-level classification of the test films, in percent. A film is abnormal when its reader marked anything. The ensemble is the sigmoid of the mean logit. Intervals: bootstrap of {drawn}, {} resamples, thresholds fixed. F1, sensitivity and specificity are taken at the threshold in the last column.</p><details><summary>Further film-level figures</summary>{}</details>"#,
        tables::classification(report),
        count(report.bootstrap.resamples),
        tables::classification_details(report)
    );
    let _ = write!(
        out,
        r#"<div class="pair"><figure>{}<figcaption class="caption"><b>Figure 1.</b> ROC of each classifier with its area. The dashed diagonal is chance.</figcaption></figure>"#,
        figures::roc(report)
    );
    if let Some(histogram) = &report.curves.scores {
        let _ = write!(
            out,
            r#"<figure>{}<figcaption class="caption"><b>Figure 2.</b> p(abnormal) of the ensemble. Upwards: abnormal films; downwards: normal films. Abnormal films left of c* are missed, normal films right of it are false alarms.</figcaption></figure>"#,
            figures::histogram(histogram, report.gate.as_ref().map(|g| g.c_star))
        );
    }
    let _ = write!(
        out,
        r#"</div><div class="pair"><figure>{}<figcaption class="caption"><b>Figure 3.</b> Calibration: share of abnormal films among those of about the same p(abnormal). On the diagonal a probability means what it says.</figcaption></figure><figure>{}<figcaption class="caption"><b>Figure 4.</b> Decision curve: true positives a film less false ones at the price that a threshold probability sets on them. A classifier is of use where its line is the highest.</figcaption></figure></div></section>"#,
        figures::reliability(report),
        figures::decision_curve(report)
    );
}

fn box_level(out: &mut String, report: &RunReport) {
    if report.detection.is_empty() {
        return;
    }
    let rule = report.gate.as_ref().map_or(String::new(), |g| {
        format!(
            " The framework keeps every box on a film with p(abnormal) ≥ c* = {:.3} and otherwise only boxes \
             with a score of at least {}.",
            g.c_star, g.keep_score
        )
    });
    let _ = write!(
        out,
        r#"<section><h2>Where each finding lies</h2>{}<p class="caption"><b>Table 2.</b> Average precision in percent at IoU 0.5, COCO protocol: 101 recall points, all areas, at most 100 boxes a class and film, normal films included; n/a for a class without a marked box. Interval of the mean: bootstrap of studies, {resamples} resamples.{rule}</p><details><summary>Lower IoU and recall</summary>{}</details>"#,
        tables::detection(report),
        tables::detection_details(report),
        resamples = count(report.bootstrap.resamples)
    );
    let _ = write!(
        out,
        r#"{}{}<p class="caption"><b>Figure 5.</b> Precision against recall at IoU 0.5 for each class, made monotone as in COCO, so that the area under a line is its AP. A line ends at the recall that is reached. The arrow leads from the detector's AP to the framework's.</p>"#,
        figures::detector_key(report),
        figures::precision_recall(report)
    );
    let _ = write!(
        out,
        r#"<div class="pair"><figure>{}<figcaption class="caption"><b>Figure 6.</b> FROC: share of all marked findings that are found at IoU 0.5 against false boxes a film, read at ⅛ to 8. A second box on the same finding is a false one.</figcaption></figure><div>{}<p class="caption"><b>Table 3.</b> Findings found, in percent, at the false alarms a film of Figure 6.</p></div></div>{}<p class="caption"><b>Table 4.</b> Mistakes by kind (TIDE): how many, and what mAP@0.5 would gain, in percent, if those of one kind alone were mended.</p><details><summary>Which class is taken for which</summary>{}<p class="caption">Boxes of the last row of Table 2 with a score of at least {}, matched to marked ones of any class at IoU 0.5.</p></details></section>"#,
        figures::froc(report),
        tables::froc(report),
        tables::errors(report),
        tables::confusion(report),
        number(Some(report.shown_score.score), 2)
    );
}

fn subgroups(out: &mut String, report: &RunReport) {
    if report.subgroups.is_empty() {
        return;
    }
    let _ = write!(
        out,
        r#"<section><h2>Who and what the films show</h2>{}<p class="caption"><b>Table 5.</b> The ensemble and the last row of Table 2 for films of each kind, by what their headers say, in percent. AUROC and mAP: bootstrap of the group's studies; sensitivity and specificity at the one threshold of all films, Wilson. Greyed rows have fewer than {FEW_FILMS} abnormal or normal films, or fewer than {FEW_BOXES} marked boxes. Each group is one of many: that some differ by chance is to be expected, and no difference is tested here.</p></section>"#,
        tables::subgroups(report)
    );
}

fn films(out: &mut String, report: &RunReport, thumbnail: &dyn Fn(&str) -> Option<Thumbnail>) {
    let _ = write!(
        out,
        r#"<section><h2>Films to look at</h2><p>Boxes after the gate with a score of at least {} are shown ({}). A proposed box is right when it lies on a marked one of its class at IoU 0.5 or more.</p>{}{}</section>"#,
        number(Some(report.shown_score.score), 2),
        escape(&report.shown_score.from),
        gallery::key(),
        gallery::gallery(report, thumbnail)
    );
}

fn training(out: &mut String, report: &RunReport) {
    if report.losses.iter().all(|c| c.points.is_empty()) {
        return;
    }
    let _ = write!(
        out,
        r#"<section><h2>Training</h2>{}<p class="caption"><b>Figure 7.</b> Course of training by optimiser step. Values above the 99th percentile are cut off at the top.</p></section>"#,
        figures::losses(&report.losses)
    );
}

fn what_was_run(out: &mut String, report: &RunReport) {
    let p = &report.provenance;
    let _ = write!(
        out,
        r#"<section><h2>What was run</h2>{}<p class="caption"><b>Table 6.</b> Films, studies and marked boxes. Splits are by study.</p><dl>"#,
        tables::counts(report)
    );
    let mut row = |name: &str, value: &str| {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
    };
    row("Protocol", report.protocol.name());
    if let Some(g) = &report.gate {
        row("c*", &format!("{}, chosen on: {}", g.c_star, g.chosen_on));
        row("Box score kept below c*", &g.keep_score.to_string());
    }
    row("Box score shown", &format!("{}, from: {}", report.shown_score.score, report.shown_score.from));
    row("Bootstrap", &format!("{} resamples, seed {}", report.bootstrap.resamples, report.bootstrap.seed));
    if let Some(seed) = p.seed {
        row("Seed", &seed.to_string());
    }
    for (name, value) in
        [("Command", &p.command), ("Bundle hash", &p.bundle_hash), ("Data hash", &p.data_hash)]
    {
        if let Some(value) = value {
            row(name, value);
        }
    }
    for (name, value) in p.other.iter().chain(&p.versions) {
        row(name, value);
    }
    out.push_str("</dl>");
    if let Some(config) = &p.config {
        let _ = write!(
            out,
            "<details><summary>Configuration as resolved</summary><pre>{}</pre></details>",
            escape(config)
        );
    }
    out.push_str("</section>");
}
