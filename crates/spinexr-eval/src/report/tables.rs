//! The paper's two tables, with the published figures beside them as context only.

use super::{code, count, escape, number, percent};
use crate::box_metrics::HitsInBox;
use crate::error_kinds::ErrorKind;
use crate::run::{DetectionRow, PREVALENCES, RunReport};
use crate::threshold::Target;
use spinexr_core::{ClassList, Label};
use std::fmt::Write;

/// Rows of the paper's classification table that were checked against it: name, AUROC with interval, F1,
/// sensitivity, specificity, in percent.
const PUBLISHED_CLASSIFIERS: [(&str, &str, &str, &str, &str); 2] = [
    ("DenseNet-121", "86.93", "79.55", "80.39", "79.32"),
    ("Ensemble of three", "88.61 (87.19–90.02)", "81.06", "83.07", "79.32"),
];

/// Rows of the paper's detection table that were checked against it: name, AP by class, mAP@0.5.
const PUBLISHED_DETECTORS: [(&str, [&str; 7], &str); 2] = [
    ("Sparse R-CNN", ["20.09", "32.67", "48.16", "45.32", "72.20", "49.30", "5.41"], "33.15"),
    ("Framework", ["21.43", "27.36", "34.78", "41.29", "62.53", "43.39", "4.16"], "33.56"),
];

fn published_heading(report: &RunReport, columns: usize) -> String {
    let comparable = if report.synthetic {
        "VinDr-SpineXR test set, not comparable with synthetic films"
    } else {
        "VinDr-SpineXR test set; model and c* were chosen on it"
    };
    format!(
        r#"<tbody class="published"><tr><th colspan="{columns}" scope="rowgroup"><span>Published in the paper, for context only: {comparable}</span></th></tr>"#
    )
}

pub(super) fn interval(ci: Option<[f64; 2]>) -> String {
    ci.map_or_else(|| "n/a".into(), |[low, high]| format!("{:.2}–{:.2}", 100.0 * low, 100.0 * high))
}

/// Classifier | AUROC (95 % CI) | F1 | sensitivity | specificity, and the threshold.
pub(super) fn classification(report: &RunReport) -> String {
    let mut out = String::from(
        r#"<div class="scroll"><table class="main"><thead><tr><th scope="col">Classifier</th><th scope="col">AUROC (95 % CI)</th><th scope="col">F1</th><th scope="col">Sensitivity</th><th scope="col">Specificity</th><th scope="col">Threshold</th></tr></thead><tbody>"#,
    );
    for name in report.classifier_names() {
        let row = &report.classification[name];
        let _ = write!(
            out,
            r#"<tr{}><th scope="row">{}</th><td>{} <span class="ci">({})</span></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"#,
            if name == "ensemble" { r#" class="chief""# } else { "" },
            escape(name),
            percent(row.auroc),
            interval(row.auroc_ci),
            percent(row.f1),
            percent(row.sensitivity),
            percent(row.specificity),
            number(row.threshold, 3),
        );
    }
    out.push_str("</tbody>");
    out.push_str(&published_heading(report, 6));
    for (name, auroc, f1, sensitivity, specificity) in PUBLISHED_CLASSIFIERS {
        let _ = write!(
            out,
            r#"<tr><th scope="row">{name}</th><td>{auroc}</td><td>{f1}</td><td>{sensitivity}</td><td>{specificity}</td><td></td></tr>"#
        );
    }
    out.push_str("</tbody></table></div>");
    out
}

/// Everything else that was computed for the classifiers.
pub(super) fn classification_details(report: &RunReport) -> String {
    let names = report.classifier_names();
    let mut out = String::from(r#"<div class="scroll"><table><thead><tr><th></th>"#);
    for name in &names {
        let _ = write!(out, r#"<th scope="col">{}</th>"#, escape(name));
    }
    out.push_str("</tr></thead><tbody>");
    let mut line = |title: &str, cell: &dyn Fn(&str) -> String| {
        let cells: String = names.iter().map(|name| format!("<td>{}</td>", cell(name))).collect();
        let _ = write!(out, r#"<tr><th scope="row">{title}</th>{cells}</tr>"#);
    };
    let row = |name: &str| &report.classification[name];
    line("AUROC 95 % CI, bootstrap of studies", &|n| {
        interval(row(n).bootstrap_by_study.auroc.map(|b| b.interval))
    });
    line("AUROC 95 % CI, bootstrap of films", &|n| {
        interval(row(n).bootstrap_by_film.auroc.map(|b| b.interval))
    });
    line("AUROC 95 % CI, DeLong", &|n| interval(row(n).delong.map(|d| d.interval)));
    line("F1 95 % CI, bootstrap of studies", &|n| interval(row(n).bootstrap_by_study.f1.map(|b| b.interval)));
    line("Sensitivity 95 % CI, Wilson", &|n| interval(row(n).sensitivity_ci));
    line("Specificity 95 % CI, Wilson", &|n| interval(row(n).specificity_ci));
    line("Average precision", &|n| percent(row(n).average_precision));
    line("Brier score", &|n| number(row(n).brier, 4));
    line("Log-loss (nats)", &|n| number(row(n).log_loss, 4));
    line("Films: right / missed / false alarm / rightly cleared", &|n| {
        row(n).confusion.map_or_else(
            || "n/a".into(),
            |c| {
                format!(
                    "{} / {} / {} / {}",
                    c.true_positives, c.false_negatives, c.false_positives, c.true_negatives
                )
            },
        )
    });
    line("Expected calibration error, 15 bins", &|n| number(row(n).calibration.expected_error, 4));
    line("Calibration intercept / slope / in the large", &|n| {
        row(n).calibration.line.map_or_else(
            || "n/a".into(),
            |l| format!("{:.2} / {:.2} / {:.2}", l.intercept, l.slope, l.in_the_large),
        )
    });
    line("Temperature from validation films; log-loss with it", &|n| {
        let c = &row(n).calibration;
        match c.temperature {
            Some(t) => format!("{:.2}; {}", t.temperature, number(c.log_loss_at_temperature, 4)),
            None => "n/a".into(),
        }
    });
    line("Likelihood ratio of a call / of none", &|n| {
        let w = &row(n).worth;
        format!("{} / {}", number(w.positive_likelihood_ratio, 2), number(w.negative_likelihood_ratio, 2))
    });
    for (i, prevalence) in PREVALENCES.into_iter().enumerate() {
        line(&format!("Predictive values + / − where {:.0} % are abnormal", 100.0 * prevalence), &|n| {
            row(n).worth.predictive.get(i).map_or_else(
                || "n/a".into(),
                |p| {
                    let [positive, negative] = [p.positive_predictive_value, p.negative_predictive_value];
                    format!("{} / {}", percent(positive), percent(negative))
                },
            )
        });
    }
    line("Studies (abnormal); AUROC by study, DeLong", &|n| {
        let s = &row(n).study_level;
        let auroc = s.auroc.map_or_else(
            || "n/a".into(),
            |d| format!("{} ({})", percent(Some(d.auroc)), interval(Some(d.interval))),
        );
        format!("{} ({}); {auroc}", count(s.studies), count(s.abnormal))
    });
    line("Sensitivity / specificity by study, the threshold of films", &|n| {
        let s = &row(n).study_level;
        format!("{} / {}", percent(s.sensitivity), percent(s.specificity))
    });
    line("Brier score / calibration error after the isotonic map of validation films", &|n| {
        let c = &row(n).calibration;
        format!("{} / {}", number(c.brier_isotonic, 4), number(c.expected_error_isotonic, 4))
    });
    line("Films of equal score; pairs of a normal and an abnormal one", &|n| {
        let ties = &row(n).ties;
        format!("{}; {}", count(ties.films), count(ties.pairs_between_classes as usize))
    });
    let points = names.iter().map(|n| row(n).operating_points.len()).max().unwrap_or(0);
    for i in 0..points {
        let title = names.iter().find_map(|n| row(n).operating_points.get(i)).map(|p| target(p.target));
        line(&format!("{}: threshold; sensitivity / specificity", title.unwrap_or_default()), &|n| {
            row(n).operating_points.get(i).map_or_else(
                || "n/a".into(),
                |p| {
                    let (sensitivity, specificity) = (percent(p.sensitivity), percent(p.specificity));
                    format!("{}; {sensitivity} / {specificity}", number(p.threshold, 3))
                },
            )
        });
    }
    line("Threshold chosen on", &|n| row(n).threshold_chosen_on.map_or("n/a", |c| c.name()).to_owned());
    out.push_str("</tbody></table></div>");
    out
}

/// What an operating point was chosen for.
pub(super) fn target(target: Target) -> String {
    match target {
        Target::Sensitivity(least) => format!("Sensitivity {:.0} % on validation films", 100.0 * least),
        Target::Specificity(least) => format!("Specificity {:.0} % on validation films", 100.0 * least),
    }
}

/// Figures of the films of each sex, age band, view …
pub(super) fn subgroups(report: &RunReport) -> String {
    let mut out = String::from(
        r#"<div class="scroll"><table class="stack"><thead><tr><th scope="col">Films</th><th scope="col">Number<span class="sub">abnormal · studies</span></th><th scope="col">AUROC (95 % CI)</th><th scope="col">Sensitivity (95 % CI)</th><th scope="col">Specificity (95 % CI)</th><th scope="col">Marked boxes</th><th scope="col">mAP@0.5 (95 % CI)</th></tr></thead>"#,
    );
    for subgroups in &report.subgroups {
        let _ = write!(
            out,
            r#"<tbody><tr class="fact"><th colspan="7" scope="rowgroup">{}</th></tr>"#,
            escape(&subgroups.fact)
        );
        for group in &subgroups.groups {
            let with =
                |value, ci| format!(r#"{} <span class="ci">({})</span>"#, percent(value), interval(ci));
            let few = if group.warning.is_empty() { "" } else { r#" class="few""# };
            let mark = match group.warning.is_empty() {
                true => String::new(),
                false => format!(r#" <span class="mark">{}</span>"#, escape(&group.warning)),
            };
            let _ = write!(
                out,
                r#"<tr{few}><th scope="row">{}{mark}</th><td>{} <span class="ci">{} · {}</span></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"#,
                escape(&group.name),
                count(group.films),
                count(group.abnormal),
                count(group.studies),
                with(group.auroc, group.auroc_ci),
                with(group.sensitivity, group.sensitivity_ci),
                with(group.specificity, group.specificity_ci),
                count(group.boxes),
                with(group.map50, group.map50_ci),
            );
        }
        out.push_str("</tbody>");
    }
    out.push_str("</table></div>");
    out
}

/// A column a class: the code of the paper's table over the name, or the name alone.
fn class_header(classes: &ClassList) -> String {
    let column = |label: &Label| {
        let name = escape(label.name());
        match code(classes, label) {
            Some(code) => format!(r#"<th scope="col">{code}<span class="sub">{name}</span></th>"#),
            None => format!(r#"<th scope="col">{name}</th>"#),
        }
    };
    classes.labels().iter().map(column).collect()
}

/// Detector | a column a class | mAP@0.5; beside the paper's rows where the classes are the paper's.
pub(super) fn detection(report: &RunReport) -> String {
    let mut out = format!(
        r#"<div class="scroll"><table class="main"><thead><tr><th scope="col">Detector</th>{}<th scope="col">mAP@0.5 (95 % CI)</th></tr></thead><tbody>"#,
        class_header(&report.classes)
    );
    let labels = report.classes.labels();
    for name in report.detector_names() {
        let row = &report.detection[name];
        let ap50 = |label: &Label| percent(row.ap50.get(label).copied().flatten());
        let cells: String = labels.iter().map(|label| format!("<td>{}</td>", ap50(label))).collect();
        let _ = write!(
            out,
            r#"<tr{}><th scope="row">{}</th>{cells}<td><b>{}</b> <span class="ci">({})</span></td></tr>"#,
            if name == "framework" { r#" class="chief""# } else { "" },
            escape(name),
            percent(row.map50),
            interval(row.map50_ci)
        );
    }
    let marked = |label: &Label| count(report.counts.test.boxes.get(label).copied().unwrap_or(0));
    let boxes: String = labels.iter().map(|label| format!("<td>{}</td>", marked(label))).collect();
    let all: usize = report.counts.test.boxes.values().sum();
    let _ = write!(
        out,
        r#"<tr class="counts"><th scope="row">boxes marked</th>{boxes}<td>{}</td></tr></tbody>"#,
        count(all)
    );
    if report.classes.is_vindr() {
        out.push_str(&published_heading(report, 9));
        for (name, classes, mean) in PUBLISHED_DETECTORS {
            let cells: String = classes.iter().map(|ap| format!("<td>{ap}</td>")).collect();
            let _ = write!(out, r#"<tr><th scope="row">{name}</th>{cells}<td>{mean}</td></tr>"#);
        }
        out.push_str("</tbody>");
    }
    out.push_str("</table></div>");
    out
}

/// AP over lower IoUs, recall and FROC readings.
pub(super) fn detection_details(report: &RunReport) -> String {
    let mut out = format!(
        r#"<div class="scroll"><table><thead><tr><th></th>{}<th scope="col">mean</th></tr></thead><tbody>"#,
        class_header(&report.classes)
    );
    for name in report.detector_names() {
        let row = &report.detection[name];
        let labels = || report.classes.labels().iter();
        let intervals: String = labels()
            .map(|l| format!("<td>{}</td>", interval(row.ap50_ci.get(l).copied().flatten())))
            .collect();
        let _ = write!(
            out,
            r#"<tr><th scope="row">{}, AP at IoU 0.5, 95 % CI</th>{intervals}<td>{}</td></tr>"#,
            escape(name),
            interval(row.map50_ci)
        );
        let mut line = |what: &str, of: &dyn Fn(&DetectionRow, &Label) -> Option<f64>, mean: Option<f64>| {
            let cells: String = labels().map(|l| format!("<td>{}</td>", percent(of(row, l)))).collect();
            let _ = write!(
                out,
                r#"<tr><th scope="row">{}, {what}</th>{cells}<td>{}</td></tr>"#,
                escape(name),
                percent(mean)
            );
        };
        line("AP at IoU 0.2–0.5", &|r, f| r.ap_20_50.get(f).copied().flatten(), row.map_20_50);
        let mean_recall = crate::coco::mean(row.recall50.values().copied());
        line("recall at IoU 0.5", &|r, f| r.recall50.get(f).copied().flatten(), mean_recall);
        let mean_voc = crate::coco::mean(row.voc_ap50.values().copied());
        line("AP at IoU 0.5 as Pascal VOC", &|r, f| r.voc_ap50.get(f).copied().flatten(), mean_voc);
        let hit = |h: &HitsInBox| (h.truth > 0).then(|| h.hit as f64 / h.truth as f64);
        let mean_hit = crate::coco::mean(row.hits_in_box.values().map(hit));
        line("marked boxes hit by the middle of a shown box", &|r, f| hit(r.hits_in_box.get(f)?), mean_hit);
    }
    out.push_str("</tbody></table></div>");
    out
}

/// Kinds of mistakes and what each costs, for every detection row.
pub(super) fn errors(report: &RunReport) -> String {
    let names = report.detector_names();
    let mut out = String::from(r#"<table><thead><tr><th scope="col">Kind of mistake</th>"#);
    for name in &names {
        let _ =
            write!(out, r#"<th scope="col">{}<span class="sub">number · AP lost</span></th>"#, escape(name));
    }
    out.push_str("</tr></thead><tbody>");
    for (i, kind) in ErrorKind::ALL.into_iter().enumerate() {
        let cells: String = names
            .iter()
            .map(|&name| {
                let cost = &report.detection[name].errors[i];
                format!("<td>{} · {}</td>", count(cost.count), percent(cost.ap_gain))
            })
            .collect();
        let title = match kind {
            ErrorKind::Class => "right place, wrong class",
            ErrorKind::Place => "right class, not well placed",
            ErrorKind::Both => "wrong class, not well placed",
            ErrorKind::Duplicate => "found already",
            ErrorKind::Background => "nothing there",
            ErrorKind::Missed => "missed",
        };
        let _ = write!(out, r#"<tr><th scope="row">{title}</th>{cells}</tr>"#);
    }
    out.push_str("</tbody></table>");
    out
}

/// Which class is taken for which by the last detection row.
pub(super) fn confusion(report: &RunReport) -> String {
    let Some(row) = report.detector_names().last().map(|name| &report.detection[*name]) else {
        return String::new();
    };
    let mut out = format!(
        r#"<div class="scroll"><table><thead><tr><th scope="col">Marked as</th>{}<th scope="col">nothing</th></tr></thead><tbody>"#,
        class_header(&report.classes)
    );
    for (truth, counts) in row.confusion.counts.iter().enumerate() {
        let name = report.classes.get(truth).map_or_else(|| "nothing".to_owned(), |l| escape(l.name()));
        let cells: String = counts
            .iter()
            .enumerate()
            .map(|(proposed, n)| match proposed == truth && *n > 0 {
                true => format!("<td><b>{}</b></td>", count(*n)),
                false => format!("<td>{}</td>", count(*n)),
            })
            .collect();
        let _ = write!(out, r#"<tr><th scope="row">{name}</th>{cells}</tr>"#);
    }
    out.push_str("</tbody></table></div>");
    out
}

/// Findings found at 1/8 … 8 false alarms a film.
pub(super) fn froc(report: &RunReport) -> String {
    let names = report.detector_names();
    let mut out = String::from(r#"<table><thead><tr><th scope="col">False alarms a film</th>"#);
    for name in &names {
        let _ = write!(out, r#"<th scope="col">{}</th>"#, escape(name));
    }
    out.push_str("</tr></thead><tbody>");
    for (i, limit) in ["⅛", "¼", "½", "1", "2", "4", "8"].into_iter().enumerate() {
        let cells: String = names
            .iter()
            .map(|&name| {
                let froc = report.detection[name].froc.as_ref();
                format!("<td>{}</td>", percent(froc.map(|f| f.sensitivity_at[i][1])))
            })
            .collect();
        let _ = write!(out, r#"<tr><th scope="row">{limit}</th>{cells}</tr>"#);
    }
    out.push_str("</tbody></table>");
    out
}

/// Films, studies and boxes of the splits.
pub(super) fn counts(report: &RunReport) -> String {
    let splits = [("Validation", report.counts.validation.as_ref()), ("Test", Some(&report.counts.test))];
    let mut out = String::from(
        r#"<div class="scroll"><table><thead><tr><th></th><th scope="col">Films</th><th scope="col">Studies</th><th scope="col">Abnormal</th><th scope="col">Normal</th>"#,
    );
    out.push_str(&class_header(&report.classes));
    out.push_str("</tr></thead><tbody>");
    for (name, split) in splits {
        let Some(split) = split else { continue };
        let cells: String = [split.films, split.studies, split.abnormal, split.normal]
            .into_iter()
            .chain(report.classes.labels().iter().map(|l| split.boxes.get(l).copied().unwrap_or(0)))
            .map(|n| format!("<td>{}</td>", count(n)))
            .collect();
        let _ = write!(out, r#"<tr><th scope="row">{name}</th>{cells}</tr>"#);
    }
    out.push_str("</tbody></table></div>");
    out
}
