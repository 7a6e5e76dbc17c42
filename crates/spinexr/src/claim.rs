//! A model card under the headings of CLAIM 2024 and a data sheet, filled from a bundle's manifest and a report.
//!
//! Headings: Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 update, Radiology: Artificial
//! Intelligence 2024;6(4):e240300. Data sheet: Gebru et al., Datasheets for Datasets, arXiv 1803.09010.
//!
//! What neither file says is "not known", never guessed; whoever knows it can say it in a file of statements, which stand beside
//! the facts and are marked as theirs.

use crate::console::percent;
use anyhow::{Result, bail};
use spinexr_eval::run::{NOT_KNOWN, NoteKind, RunReport};
use spinexr_infer::{BundleManifest, ModelSpec};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Statements of whoever knows, by key.
pub type Statements = BTreeMap<String, String>;

/// One entry of a document.
struct Item {
    section: &'static str,
    key: &'static str,
    title: &'static str,
    /// What the manifest and the report say of it.
    fact: Option<String>,
}

/// The model card.
pub fn model_card(manifest: &BundleManifest, report: &RunReport, statements: &Statements) -> String {
    let head = format!(
        "# Model card: {}\n\n**{}**{}\n\nHeadings of CLAIM 2024. Facts are of bundle `{}` and its report; what is marked ✎ was \
         stated by whoever made this card.\n",
        manifest.name,
        RunReport::NOTICE,
        if manifest.demonstration {
            " A demonstration: it has learnt nothing from patients' films."
        } else {
            ""
        },
        manifest.bundle_hash
    );
    document(head, &claim_items(manifest, report), statements)
}

/// The data sheet of the films that the report is about.
pub fn data_sheet(report: &RunReport, statements: &Statements) -> String {
    let head = format!(
        "# Data sheet\n\n**{}**\n\nOf the films that the report \"{}\" was made on. What is marked ✎ was stated by whoever made this \
         sheet.\n",
        RunReport::NOTICE,
        report.title
    );
    document(head, &sheet_items(report), statements)
}

/// Refuses a statement that belongs to no entry, so that a misspelt key is not lost.
pub fn check_keys(manifest: &BundleManifest, report: &RunReport, statements: &Statements) -> Result<()> {
    let mut keys: Vec<&str> = claim_items(manifest, report).iter().map(|item| item.key).collect();
    keys.extend(sheet_items(report).iter().map(|item| item.key));
    match statements.keys().find(|key| !keys.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => bail!("unknown statement {key:?}; expected one of: {}", keys.join(", ")),
    }
}

fn document(mut text: String, items: &[Item], statements: &Statements) -> String {
    let mut section = "";
    for item in items {
        if item.section != section {
            section = item.section;
            let _ = write!(text, "\n## {section}\n");
        }
        let _ = write!(text, "\n**{}.** ", item.title);
        let stated = statements.get(item.key).map(|s| format!("✎ {}", s.trim()));
        let parts: Vec<String> = item.fact.iter().cloned().chain(stated).collect();
        match parts.is_empty() {
            true => {
                let _ = writeln!(text, "Not known (key `{}`).", item.key);
            }
            false => {
                let _ = writeln!(text, "{}", parts.join("\n\n"));
            }
        }
    }
    text
}

fn claim_items(manifest: &BundleManifest, report: &RunReport) -> Vec<Item> {
    let item = |section, key, title, fact| Item { section, key, title, fact };
    let known = |text: String| Some(text);
    let notes = |kind: NoteKind| -> Vec<&str> {
        report.notes.iter().filter(|n| n.kind == kind).map(|n| n.text.as_str()).collect()
    };
    let models: Vec<String> = manifest.models.iter().map(model_words).collect();
    let classifiers = manifest.models.iter().filter(|m| m.is_of_ensemble()).count();
    let decision = manifest.decision.as_ref();
    vec![
        item(
            "Title",
            "title",
            "What this is",
            known(format!("Deep learning on spine radiographs: {}.", models.join("; "))),
        ),
        item("Introduction", "background", "Background, intended use and role", known(manifest.intended_use.clone())),
        item("Introduction", "aims", "Aims and hypotheses", None),
        item("Study design", "design", "Prospective or retrospective", None),
        item("Study design", "goal", "Goal of the study", None),
        item("Data", "data_source", "Sources of the data", synthetic_words(report)),
        item("Data", "eligibility", "Which films were eligible", None),
        item("Data", "preprocessing", "Preprocessing", known(preprocessing(manifest))),
        item(
            "Data",
            "subsets",
            "Selection of subsets",
            known("Every film that the annotations name for testing was predicted and evaluated; the evaluation refuses less.".into()),
        ),
        item(
            "Data",
            "deidentification",
            "De-identification",
            known("Prediction records carry bands and coded values of the headers only. How the films themselves were de-identified is not known.".into()),
        ),
        item("Data", "missing_data", "Missing data", missing_headers(report)),
        item("Data", "acquisition", "Image acquisition", facts_table(report, &["manufacturer", "view", "body part", "film size", "exposure", "compression", "depth", "longer side"])),
        item(
            "Reference standard",
            "reference_standard",
            "Definition",
            known("A film is abnormal when its annotations mark anything on it; a finding is a marked box with its class.".into()),
        ),
        item("Reference standard", "reference_rationale", "Why this one", None),
        item("Reference standard", "annotators", "Who marked the films", None),
        item("Reference standard", "test_annotation", "How the test films were marked", None),
        item("Reference standard", "reader_variability", "Variability within and between readers", None),
        item("Data partitions", "partitions", "How films were assigned", partitions(manifest, report)),
        item(
            "Data partitions",
            "disjoint",
            "Level at which the parts are disjoint",
            known("Studies: the evaluation refuses a study with films in two parts. Whether patients have several studies is not known.".into()),
        ),
        item("Testing data", "sample_size", "Intended size of the sample", None),
        item("Model", "model", "Description", known(format!("{}.\n\n{}", models.join(".\n\n"), outputs(manifest)))),
        item("Model", "software", "Software", known(software(manifest, report))),
        item("Model", "initialisation", "Initial parameters", None),
        item("Training", "training", "Training", training(manifest, report)),
        item("Training", "final_model", "Selection of the final model", None),
        item(
            "Training",
            "ensembling",
            "Ensembling",
            known(match classifiers {
                0 => "No classifier, so no ensemble.".to_owned(),
                1 => "One classifier.".to_owned(),
                n => format!("p(abnormal) is the sigmoid of the mean logit of {n} classifiers."),
            } + &decision.and_then(|d| d.method.as_ref()).map_or_else(String::new, |m| format!(" Views and fusion: {m}."))),
        ),
        item("Evaluation", "metrics", "Metrics", known("AUROC, F1, sensitivity and specificity at c* by film and by study, calibration; average precision by the COCO protocol at IoU 0.5 and 0.2–0.5, FROC, kinds of mistakes.".into())),
        item("Evaluation", "uncertainty", "Significance and uncertainty", known(format!("95 % intervals: bootstrap of studies with {} resamples, seed {}; DeLong; Wilson.", report.bootstrap.resamples, report.bootstrap.seed))),
        item("Evaluation", "robustness", "Robustness", (!report.subgroups.is_empty()).then(|| format!("Figures by subgroup: {}. No other test of robustness is known.", report.subgroups.iter().map(|s| s.fact.as_str()).collect::<Vec<_>>().join(", ")))),
        item("Evaluation", "explainability", "Explainability", known("Grad-CAM of the classifiers, gradient times activation for each box of the detectors (`spinexr predict --explain`). Whether its maps are right was not measured.".into())),
        item("Evaluation", "internal_testing", "Testing on internal data", None),
        item("Evaluation", "external_testing", "Testing on external data", None),
        item("Evaluation", "registration", "Registration of a clinical trial", None),
        item("Results: data", "flow", "Films included", known(counts(report))),
        item("Results: data", "demographics", "Who the films are of (test films)", facts_table(report, &["sex", "age, years"])),
        item("Results: model performance", "performance", "Performance", known(performance(report))),
        item("Results: model performance", "accuracy", "Diagnostic accuracy and its precision", accuracy(report)),
        item("Results: model performance", "failures", "Failures", failures(report)),
        item(
            "Discussion",
            "limitations",
            "Limitations",
            known(
                notes(NoteKind::Warning)
                    .into_iter()
                    .map(str::to_owned)
                    .chain(["Figures hold for films like those they were measured on. A film without a box is not a healthy film.".to_owned()])
                    .map(|note| format!("- {note}"))
                    .fold(String::from("\n"), |all, note| all + "\n" + &note),
            ),
        ),
        item("Discussion", "implications", "Implications for practice", known("None: research only, not for clinical use.".into())),
        item("Other information", "protocol", "Study protocol and further details", None),
        item("Other information", "availability", "Availability of software, model and data", known(format!("Model: bundle `{}`, licence: {}.", manifest.bundle_hash, manifest.licence))),
        item("Other information", "funding", "Funding", None),
    ]
}

fn sheet_items(report: &RunReport) -> Vec<Item> {
    let item = |section, key, title, fact| Item { section, key, title, fact };
    let shown = [
        "sex",
        "age, years",
        "view",
        "body part",
        "manufacturer",
        "film size",
        "exposure",
        "compression",
        "depth",
        "longer side",
    ];
    vec![
        item("Motivation", "purpose", "For what the data set was made", None),
        item("Motivation", "makers", "Who made and paid for it", None),
        item("Composition", "instances", "What it consists of", Some(counts(report))),
        item(
            "Composition",
            "instance_facts",
            "What the headers of the test films say",
            facts_table(report, &shown),
        ),
        item("Composition", "header_gaps", "What is missing", missing_headers(report)),
        item(
            "Composition",
            "splits",
            "Parts",
            Some("By study; see the numbers above. No study has films in two parts.".into()),
        ),
        item("Composition", "errors_and_noise", "Errors and noise", None),
        item("Composition", "people", "Whether persons can be identified", None),
        item("Collection", "collection", "How and when films were collected", synthetic_words(report)),
        item("Collection", "consent", "Consent and ethical review", None),
        item("Labelling", "labelling", "Who marked the films, and how", None),
        item("Uses", "uses", "What it is fit for, and what not", None),
        item(
            "Distribution",
            "distribution",
            "Licence and access",
            report.provenance.data_hash.as_ref().map(|hash| {
                format!(
                    "SHA-256 of the films and annotations used: `{hash}`. Licence and access are not known."
                )
            }),
        ),
        item("Maintenance", "maintenance", "Who keeps it", None),
    ]
}

fn synthetic_words(report: &RunReport) -> Option<String> {
    report
        .synthetic
        .then(|| "All films are synthetic, drawn by `spinexr synth`; none is of a patient.".to_owned())
}

fn model_words(model: &ModelSpec) -> String {
    let what = if model.detect.is_some() { "detects" } else { "tells" };
    format!(
        "{}: {} of {} × {} px that {what} {}",
        model.name,
        model.architecture,
        model.input.height_px,
        model.input.width_px,
        model.classes.join(", ")
    )
}

fn preprocessing(manifest: &BundleManifest) -> String {
    let words = |m: &ModelSpec| {
        format!(
            "{}: display values of policy `{}`, resized to {}, less {:?} over {:?} a channel",
            m.name,
            m.policy.name(),
            m.input,
            m.normalisation.mean,
            m.normalisation.std
        )
    };
    let all: Vec<String> = manifest.models.iter().map(words).collect();
    format!("{}. What was done to each film travels with its record.", all.join("; "))
}

fn outputs(manifest: &BundleManifest) -> String {
    match &manifest.decision {
        None => "It gives probabilities and scores; no threshold was chosen.".to_owned(),
        Some(d) => format!(
            "A film is called abnormal from p(abnormal) ≥ c* = {:.4}, chosen on {} validation films; below it only boxes with a \
             score of at least {:.2} stay.",
            d.c_star, d.films, d.keep_score
        ),
    }
}

fn software(manifest: &BundleManifest, report: &RunReport) -> String {
    let versions: Vec<String> =
        report.provenance.versions.iter().map(|(name, v)| format!("{name} {v}")).collect();
    let evaluated = match versions.is_empty() {
        true => "the versions that evaluated it are not known".to_owned(),
        false => format!("evaluated with {}", versions.join(", ")),
    };
    format!("Made by {}; {evaluated}.", manifest.created_by)
}

fn training(manifest: &BundleManifest, report: &RunReport) -> Option<String> {
    let hashes: Vec<String> = manifest
        .models
        .iter()
        .filter_map(|m| {
            let hash = m.training_manifest_sha256.as_ref()?;
            Some(format!("{}: SHA-256 of the run's manifest `{hash}`", m.name))
        })
        .collect();
    let mut parts = Vec::new();
    if !hashes.is_empty() {
        parts.push(format!("{}. The manifest holds the configuration, seeds and data.", hashes.join("; ")));
    }
    if let Some(config) = &report.provenance.config {
        parts.push(format!("Configuration:\n\n```toml\n{}\n```", config.trim_end()));
    }
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

fn partitions(manifest: &BundleManifest, report: &RunReport) -> Option<String> {
    let held = manifest.models.iter().find_map(|m| m.hold_out.as_ref());
    let held = held.map(|h| format!("Validation studies were drawn from the training part: {h}."));
    let chosen = report.gate.as_ref().map(|g| format!("c* of the report was chosen on: {}.", g.chosen_on));
    let parts: Vec<String> = held.into_iter().chain(chosen).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

fn counts(report: &RunReport) -> String {
    let mut text = String::from(
        "\n\n| part | films | studies | abnormal | normal | marked boxes |\n|---|---|---|---|---|---|\n",
    );
    let parts = [("validation", report.counts.validation.as_ref()), ("test", Some(&report.counts.test))];
    for (name, part) in parts {
        let Some(part) = part else { continue };
        let boxes: Vec<String> = part.boxes.iter().map(|(label, n)| format!("{label} {n}")).collect();
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} |",
            part.films,
            part.studies,
            part.abnormal,
            part.normal,
            boxes.join(", ")
        );
    }
    text.trim_end().to_owned() + "\n\nThe training films are not counted in the report."
}

fn facts_table(report: &RunReport, facts: &[&str]) -> Option<String> {
    let shown: Vec<_> = report.subgroups.iter().filter(|s| facts.contains(&s.fact.as_str())).collect();
    if shown.is_empty() {
        return None;
    }
    let mut text = String::from("\n\n| header | test films |\n|---|---|\n");
    for subgroups in shown {
        let groups: Vec<String> =
            subgroups.groups.iter().map(|g| format!("{}: {}", g.name, g.films)).collect();
        let _ = writeln!(text, "| {} | {} |", subgroups.fact, groups.join("; "));
    }
    Some(text.trim_end().to_owned())
}

fn missing_headers(report: &RunReport) -> Option<String> {
    let gaps: Vec<String> = report
        .subgroups
        .iter()
        .filter_map(|s| Some((s, s.groups.iter().find(|g| g.name == NOT_KNOWN)?)))
        .map(|(s, group)| format!("{} of {} test films", s.fact, group.films))
        .collect();
    (!gaps.is_empty()).then(|| format!("Headers do not say: {}.", gaps.join(", ")))
}

fn interval(ends: Option<[f64; 2]>) -> String {
    ends.map_or_else(|| "n/a".to_owned(), |[low, high]| format!("{:.2}–{:.2}", 100.0 * low, 100.0 * high))
}

fn performance(report: &RunReport) -> String {
    let films = format!("{} test films of {} studies", report.counts.test.films, report.counts.test.studies);
    let mut text = format!("On {films}, in percent:\n\n| figure | value | 95 % interval |\n|---|---|---|\n");
    for name in report.classifier_names() {
        let row = &report.classification[name];
        let _ = writeln!(text, "| AUROC, {name} | {} | {} |", percent(row.auroc), interval(row.auroc_ci));
    }
    for name in report.detector_names() {
        let row = &report.detection[name];
        let _ = writeln!(text, "| mAP@0.5, {name} | {} | {} |", percent(row.map50), interval(row.map50_ci));
        for label in report.classes.labels() {
            let (ap, ci) =
                (row.ap50.get(label).copied().flatten(), row.ap50_ci.get(label).copied().flatten());
            let _ = writeln!(text, "| AP@0.5, {name}, {label} | {} | {} |", percent(ap), interval(ci));
        }
    }
    text.trim_end().to_owned()
}

fn accuracy(report: &RunReport) -> Option<String> {
    let row = report.classification.get("ensemble")?;
    let threshold = row.threshold?;
    let chosen = row.threshold_chosen_on.map_or("not known", |c| c.name());
    Some(format!(
        "At p(abnormal) ≥ {threshold:.4} (chosen on: {chosen}): sensitivity {} % ({}), specificity {} % ({}), F1 {} %.",
        percent(row.sensitivity),
        interval(row.sensitivity_ci),
        percent(row.specificity),
        interval(row.specificity_ci),
        percent(row.f1)
    ))
}

fn failures(report: &RunReport) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(c) = report.classification.get("ensemble").and_then(|row| row.confusion) {
        parts.push(format!(
            "{} abnormal films were called normal, {} normal films abnormal.",
            c.false_negatives, c.false_positives
        ));
    }
    if let Some((name, row)) = report.detector_names().last().map(|name| (*name, &report.detection[*name])) {
        let kinds: Vec<String> =
            row.errors.iter().map(|e| format!("{:?} {}", e.kind, e.count).to_lowercase()).collect();
        parts.push(format!(
            "Boxes of the {name} by kind of mistake: {}. The report shows the worst films.",
            kinds.join(", ")
        ));
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_said_and_statements_are_marked() {
        let items = [
            Item { section: "A", key: "one", title: "One", fact: Some("fact".into()) },
            Item { section: "A", key: "two", title: "Two", fact: None },
            Item { section: "B", key: "three", title: "Three", fact: None },
        ];
        let statements = Statements::from([("three".to_owned(), " said \n".to_owned())]);
        let text = document("# X\n".into(), &items, &statements);
        let expected =
            "# X\n\n## A\n\n**One.** fact\n\n**Two.** Not known (key `two`).\n\n## B\n\n**Three.** ✎ said\n";
        assert_eq!(text, expected);
    }
}
