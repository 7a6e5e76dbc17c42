//! `card.md`: a bundle described for people.

use crate::manifest::{BundleManifest, ModelSpec};
use std::fmt::Write;

/// What a card tells beyond the manifest.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CardFacts {
    /// What it was trained and tested on: source, number of films and studies, splits.
    pub data: String,
    /// Figures, in the order they are to stand.
    pub metrics: Vec<CardMetric>,
    /// Limits of this very bundle, one a paragraph; the general ones are always there.
    pub limits: Vec<String>,
}

/// One figure of a card.
#[derive(Debug, Clone, PartialEq)]
pub struct CardMetric {
    /// What was measured, for example `AUROC, ensemble`.
    pub name: String,
    /// The value; `None` is printed `n/a`.
    pub value: Option<f64>,
    /// 95 % interval.
    pub interval: Option<(f64, f64)>,
    /// On which films, for example `120 synthetic test films`.
    pub films: String,
}

/// The text of `card.md`.
pub fn card(manifest: &BundleManifest, facts: &CardFacts) -> String {
    let mut text = String::new();
    let mut line = |s: std::fmt::Arguments<'_>| {
        writeln!(text, "{s}").expect("a string takes every line");
    };
    line(format_args!("# {}\n", manifest.name));
    if manifest.demonstration {
        line(format_args!(
            "**Demonstration.** This bundle shows how the program works. It has learnt nothing from patients' \
             films and says nothing about them.\n"
        ));
    }
    line(format_args!("**Research only.** Not a medical device; not for clinical use.\n"));
    line(format_args!("{}\n", manifest.intended_use));

    line(format_args!("## Models\n"));
    line(format_args!("| name | network | task | input (height × width) | pixels |"));
    line(format_args!("|---|---|---|---|---|"));
    for model in &manifest.models {
        line(format_args!("{}", model_row(model)));
    }
    for model in manifest.models.iter().filter(|m| m.detect.is_some()) {
        line(format_args!("\nClasses of {}: {}.", model.name, model.classes.join(", ")));
    }

    line(format_args!("\n## Thresholds\n"));
    match &manifest.decision {
        None => line(format_args!("None chosen: the bundle gives probabilities and scores.")),
        Some(d) => {
            line(format_args!(
                "A film is called abnormal from a probability of c* = {:.4}; below it only boxes with a score of at \
             least {:.2} are kept. Boxes are drawn from a score of {:.2}. Chosen on {} validation films.",
                d.c_star, d.keep_score, d.display_score, d.films
            ));
            if let Some(method) = &d.method {
                line(format_args!("\nThey hold for {method}, which `predict` does with this bundle."));
            }
        }
    }

    line(format_args!("\n## Data\n"));
    line(format_args!("{}", if facts.data.is_empty() { "Not stated." } else { &facts.data }));

    line(format_args!("\n## Figures\n"));
    if facts.metrics.is_empty() {
        line(format_args!("None given."));
    } else {
        line(format_args!("| measure | value | 95 % interval | films |\n|---|---|---|---|"));
        for metric in &facts.metrics {
            let number = |v: f64| format!("{v:.4}");
            let value = metric.value.map_or("n/a".to_owned(), number);
            let interval =
                metric.interval.map_or("n/a".to_owned(), |(a, b)| format!("{} – {}", number(a), number(b)));
            line(format_args!("| {} | {value} | {interval} | {} |", metric.name, metric.films));
        }
    }

    line(format_args!("\n## Limits\n"));
    for limit in &facts.limits {
        line(format_args!("- {limit}"));
    }
    line(format_args!(
        "- Figures hold for films like those they were measured on; other devices, views, ages and frequencies \
         of findings give others.\n\
         - A film without a box is not a healthy film: findings are missed, and only the listed classes are \
         looked for.\n\
         - Thresholds were not chosen for any clinical purpose."
    ));

    line(format_args!("\n## Licence\n\n{}\n", manifest.licence));
    line(format_args!("Made by {}. Bundle hash `{}`.", manifest.created_by, manifest.bundle_hash));
    text
}

fn model_row(model: &ModelSpec) -> String {
    format!(
        "| {} | {} | {} | {} × {} px | {} |",
        model.name,
        model.architecture,
        if model.detect.is_some() { "detection" } else { "classification" },
        model.input.height_px,
        model.input.width_px,
        model.policy.name()
    )
}
