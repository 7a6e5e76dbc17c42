//! Films with what the reader marked and what the framework said, drawn over small pictures.

use super::{escape, number};
use crate::run::{Case, CaseKind, RunReport};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spinexr_core::{BoxXyxy, Finding};
use std::fmt::Write;

/// A small picture of a film.
#[derive(Debug, Clone, PartialEq)]
pub struct Thumbnail {
    /// An encoded image.
    pub bytes: Vec<u8>,
    /// Its type: `image/png` or `image/jpeg`.
    pub mime: String,
    /// Width in its own pixels.
    pub width_px: u32,
    /// Height in its own pixels.
    pub height_px: u32,
    /// Thumbnail px a film px, horizontally and vertically.
    pub scale: [f32; 2],
}

/// A word for the boxes' labels; the full name stands in the caption.
const fn short(finding: Finding) -> &'static str {
    match finding {
        Finding::DiscSpaceNarrowing => "disc",
        Finding::ForaminalStenosis => "foramen",
        Finding::Osteophytes => "osteophyte",
        Finding::Spondylolysthesis => "slip",
        Finding::SurgicalImplant => "implant",
        Finding::VertebralCollapse => "collapse",
        Finding::OtherLesions => "other",
    }
}

const KINDS: [(CaseKind, &str, &str); 4] = [
    (CaseKind::MissedFilm, "Missed films", "Abnormal films called normal, the surest mistakes first."),
    (CaseKind::FalseAlarm, "False alarms", "Normal films called abnormal, the surest mistakes first."),
    (
        CaseKind::MissedBoxes,
        "Missed findings",
        "Films with marked findings that no shown box lies on, the most mistakes first.",
    ),
    (CaseKind::Right, "Right", "Rightly called, every marked finding found and no false box shown."),
];

/// All cases by kind, worst kind first.
pub(super) fn gallery(report: &RunReport, thumbnail: &dyn Fn(&str) -> Option<Thumbnail>) -> String {
    let mut out = String::new();
    for (kind, title, explanation) in KINDS {
        let cases: Vec<&Case> = report.cases.iter().filter(|c| c.kind == kind).collect();
        let _ = write!(out, r#"<h3>{title}</h3><p class="muted">{explanation}"#);
        if cases.is_empty() {
            out.push_str(" <b>None.</b></p>");
            continue;
        }
        out.push_str(r#"</p><div class="films">"#);
        for case in cases {
            out.push_str(&card(case, report, thumbnail(&case.image)));
        }
        out.push_str("</div>");
    }
    out
}

fn card(case: &Case, report: &RunReport, thumbnail: Option<Thumbnail>) -> String {
    let (width, height, scale) = match &thumbnail {
        Some(t) => (t.width_px as f32, t.height_px as f32, t.scale),
        None => (case.width_px as f32, case.height_px as f32, [1.0, 1.0]),
    };
    // The card is about 270 CSS px wide; text and lines keep their size whatever the picture's.
    let unit = width.max(0.75 * height).max(1.0) / 270.0;
    let mut out = format!(
        r#"<figure class="film"><svg viewBox="0 0 {width} {height}" role="img" aria-label="Film {} with marked and proposed boxes"><rect class="ground" width="{width}" height="{height}"/>"#,
        escape(&case.image)
    );
    if let Some(t) = &thumbnail {
        let _ = write!(
            out,
            r#"<image width="{width}" height="{height}" href="data:{};base64,{}"/>"#,
            escape(&t.mime),
            STANDARD.encode(&t.bytes)
        );
    }
    let mut labels = String::new();
    let mut draw = |b: BoxXyxy, class: &str, text: String, above: bool| {
        let b = b.scale(scale[0], scale[1]).clip(width, height);
        let _ = write!(
            out,
            r#"<rect class="{class}" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" stroke-width="{:.2}"{}/>"#,
            b.x1,
            b.y1,
            b.width().max(0.0),
            b.height().max(0.0),
            unit * if class == "missed" { 2.6 } else { 1.7 },
            if above {
                String::new()
            } else {
                format!(r#" stroke-dasharray="{:.2} {:.2}""#, 5.0 * unit, 3.0 * unit)
            }
        );
        let y = if above {
            (b.y1 - 3.0 * unit).max(10.0 * unit)
        } else {
            (b.y2 + 11.0 * unit).min(height - 3.0 * unit)
        };
        let text_width = 5.8 * unit * text.chars().count() as f32;
        let x = b.x1.min(width - text_width).max(2.0 * unit);
        let _ = write!(
            labels,
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" font-size="{:.2}" stroke-width="{:.2}">{}</text>"#,
            10.5 * unit,
            3.0 * unit,
            escape(&text)
        );
    };
    for marked in &case.marked {
        draw(marked.xyxy, if marked.found { "found" } else { "missed" }, short(marked.label).into(), true);
    }
    for b in &case.boxes {
        let class = if b.right { "hit" } else { "false" };
        draw(b.xyxy, class, format!("{} {:.2}", short(b.label), b.score), false);
    }
    out.push_str(&labels);
    out.push_str("</svg>");
    out.push_str(&caption(case, report));
    out.push_str("</figure>");
    out
}

fn caption(case: &Case, report: &RunReport) -> String {
    let truth = if case.abnormal { "abnormal" } else { "normal" };
    let said = match (case.p_abnormal, &report.gate) {
        (Some(p), Some(gate)) => {
            let verdict = if p >= gate.c_star { "abnormal" } else { "normal" };
            format!("called <b>{verdict}</b>, p = {p:.3}")
        }
        (p, _) => format!("p = {}", number(p, 3)),
    };
    let mut marked: Vec<(Finding, usize, usize)> = Vec::new();
    for b in &case.marked {
        match marked.iter_mut().find(|m| m.0 == b.label) {
            Some(m) => {
                m.1 += 1;
                m.2 += usize::from(b.found);
            }
            None => marked.push((b.label, 1, usize::from(b.found))),
        }
    }
    let list: Vec<String> =
        marked.iter().map(|(label, all, found)| format!("{label} {found}/{all} found")).collect();
    let mut out = format!(r#"<figcaption><b>{truth}</b>, {said}"#);
    if !list.is_empty() {
        let _ = write!(out, "<br>{}", list.join(", "));
    }
    if case.false_boxes() > 0 {
        let plural = if case.false_boxes() == 1 { "box" } else { "boxes" };
        let _ = write!(out, "<br>{} false {plural}", case.false_boxes());
    }
    let _ = write!(out, r#"<br><span class="id">{}</span></figcaption>"#, escape(&case.image));
    out
}

/// What the four kinds of line mean.
pub(super) fn key() -> String {
    let mut out = String::from(r#"<p class="keys boxkeys">"#);
    for (class, dash, meaning) in [
        ("found", "", "marked, found"),
        ("missed", "", "marked, missed"),
        ("hit", r#" stroke-dasharray="5 3""#, "proposed, right"),
        ("false", r#" stroke-dasharray="5 3""#, "proposed, false"),
    ] {
        let width = if class == "missed" { 2.6 } else { 1.7 };
        let _ = write!(
            out,
            r#"<span><svg class="swatch dark" viewBox="0 0 28 18" aria-hidden="true"><rect class="ground" width="28" height="18" rx="2"/><rect class="{class}" x="5" y="4" width="18" height="10" stroke-width="{width}"{dash}/></svg>{meaning}</span>"#
        );
    }
    out.push_str("</p>");
    out
}
