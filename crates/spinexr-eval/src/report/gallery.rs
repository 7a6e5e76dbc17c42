//! Films with what the reader marked and what the framework said, drawn over small pictures.

use super::{escape, number};
use crate::run::{Case, CaseKind, RunReport};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spinexr_core::{BoxXyxy, Finding, Label};
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
    /// The same picture, of the same type and size, coloured where the evidence for "abnormal" lies.
    pub evidence: Option<Vec<u8>>,
    /// The same picture, of the same type and size, with the proposed boxes and what spoke for each of them, in the
    /// colours of their classes.
    pub box_evidence: Option<Vec<u8>>,
}

/// Characters of a name that the boxes' labels show.
const SHOWN_CHARACTERS: usize = 12;

/// A word for the boxes' labels, or how the name begins; the full name stands in the caption.
fn short(label: &Label) -> String {
    let word = match Finding::of_label(label) {
        Some(Finding::DiscSpaceNarrowing) => "disc",
        Some(Finding::ForaminalStenosis) => "foramen",
        Some(Finding::Osteophytes) => "osteophyte",
        Some(Finding::Spondylolysthesis) => "slip",
        Some(Finding::SurgicalImplant) => "implant",
        Some(Finding::VertebralCollapse) => "collapse",
        Some(Finding::OtherLesions) => "other",
        None => label.name(),
    };
    word.chars().take(SHOWN_CHARACTERS).collect()
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
    let mut labels = Labels { unit, width, height, taken: Vec::new(), svg: String::new() };
    let mut draw = |b: BoxXyxy, class: &str, text: Option<String>| {
        let b = b.scale(scale[0], scale[1]).clip(width, height);
        let dash = match class {
            "hit" | "false" => format!(r#" stroke-dasharray="{:.2} {:.2}""#, 5.0 * unit, 3.0 * unit),
            _ => String::new(),
        };
        let _ = write!(
            out,
            r#"<rect class="{class}" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" stroke-width="{:.2}"{dash}/>"#,
            b.x1,
            b.y1,
            b.width().max(0.0),
            b.height().max(0.0),
            unit * if class == "missed" { 2.6 } else { 1.7 },
        );
        if let Some(text) = text {
            labels.put(b, class, &text);
        }
    };
    // A found box needs no name: the box that found it has one.
    for marked in case.marked.iter().filter(|m| m.found) {
        draw(marked.xyxy, "found", None);
    }
    for marked in case.marked.iter().filter(|m| !m.found) {
        draw(marked.xyxy, "missed", Some(short(&marked.label)));
    }
    for b in &case.boxes {
        let score = format!("{:.2}", b.score);
        let text = format!("{} {}", short(&b.label), score.trim_start_matches('0'));
        draw(b.xyxy, if b.right { "hit" } else { "false" }, Some(text));
    }
    let labels = labels.svg;
    out.push_str(&labels);
    out.push_str("</svg>");
    let pictures = thumbnail.iter().flat_map(|t| {
        let film = t.evidence.iter().map(|bytes| ("the evidence for abnormal lies", bytes));
        let boxes = t.box_evidence.iter().map(|bytes| ("the evidence for each proposed box lies", bytes));
        film.chain(boxes).map(|(what, bytes)| (&t.mime, what, bytes))
    });
    for (mime, what, bytes) in pictures {
        let _ = write!(
            out,
            r#"<img class="evidence" width="{width}" height="{height}" alt="Film {} coloured where {what}" src="data:{};base64,{}">"#,
            escape(&case.image),
            escape(mime),
            STANDARD.encode(bytes)
        );
    }
    out.push_str(&caption(case, report));
    out.push_str("</figure>");
    out
}

/// Names of boxes, kept off each other as far as there is room.
struct Labels {
    unit: f32,
    width: f32,
    height: f32,
    taken: Vec<BoxXyxy>,
    svg: String,
}

impl Labels {
    fn put(&mut self, b: BoxXyxy, class: &str, text: &str) {
        let (w, h) = (6.3 * self.unit * text.chars().count() as f32, 11.0 * self.unit);
        let gap = 2.5 * self.unit;
        // Above, below, right, left, then further up and down.
        let places = [
            (b.x1, b.y1 - h - gap),
            (b.x1, b.y2 + gap),
            (b.x2 + gap, b.y1),
            (b.x1 - w - gap, b.y1),
            (b.x2 + gap, b.y2 - h),
            (b.x1 - w - gap, b.y2 - h),
            (b.x1, b.y1 - 2.0 * h - gap),
            (b.x1, b.y2 + h + gap),
        ];
        let inside = |(x, y): (f32, f32)| {
            let x = x.min(self.width - w - gap).max(gap);
            let y = y.min(self.height - h - gap).max(gap);
            BoxXyxy::new(x, y, x + w, y + h)
        };
        let overlap = |place: &BoxXyxy| self.taken.iter().map(|t| t.intersection(place)).sum::<f32>();
        let first_best = places.map(inside).into_iter().min_by(|a, b| overlap(a).total_cmp(&overlap(b)));
        let place = first_best.expect("there are eight places to choose from");
        let _ = write!(
            self.svg,
            r#"<text class="{class}" x="{:.1}" y="{:.1}" font-size="{:.2}" stroke-width="{:.2}">{}</text>"#,
            place.x1,
            place.y2 - 2.0 * self.unit,
            10.5 * self.unit,
            3.0 * self.unit,
            escape(text)
        );
        self.taken.push(place);
    }
}

fn caption(case: &Case, report: &RunReport) -> String {
    let truth = if case.abnormal { "abnormal" } else { "normal" };
    let said = match (case.p_abnormal, &report.gate) {
        (Some(p), Some(gate)) => {
            let verdict = if p >= gate.c_star { "abnormal" } else { "normal" };
            format!(r#"called <b>{verdict}</b>, <span class="nowrap">p = {p:.3}</span>"#)
        }
        (p, _) => format!("p = {}", number(p, 3)),
    };
    let mut marked: Vec<(&Label, usize, usize)> = Vec::new();
    for b in &case.marked {
        match marked.iter_mut().find(|m| *m.0 == b.label) {
            Some(m) => {
                m.1 += 1;
                m.2 += usize::from(b.found);
            }
            None => marked.push((&b.label, 1, usize::from(b.found))),
        }
    }
    let list: Vec<String> = marked
        .iter()
        .map(|(label, all, found)| format!("{} {found}/{all} found", escape(label.name())))
        .collect();
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
    out.push_str(
        "</p><p class=\"muted\">Further pictures, where there are any, are coloured where the evidence lies: for \u{201c}abnormal\u{201d}, \
         Grad-CAM of the classifiers, the lighter the stronger within the film; for each proposed box, gradient times activation, in the colour \
         of its class, the stronger the more of it.</p>",
    );
    out
}
