//! The tables as CSV, for programs, and as LaTeX in the paper's form, for papers.
//!
//! CSV holds shares in `[0, 1]` with all digits and an empty cell for what is not defined; LaTeX holds percent with two
//! decimals and `n/a`, and needs the package `booktabs`.

use super::{ReportFile, number, percent, tables};
use crate::compare::{CompareReport, Summary};
use crate::intervals::Interval;
use crate::run::RunReport;
use spinexr_core::Label;
use std::collections::BTreeMap;

/// Tables of one run: the paper's two, and the subgroups.
pub fn table_files(report: &RunReport) -> Vec<ReportFile> {
    let mut files = Vec::new();
    if !report.classification.is_empty() {
        files.extend(classification(report));
        files.extend(operating_points(report));
    }
    if !report.detection.is_empty() {
        files.extend(detection(report));
    }
    if !report.subgroups.is_empty() {
        files.extend(subgroups(report));
    }
    files
}

/// Tables of a comparison: methods, and paired tests.
pub fn comparison_table_files(report: &CompareReport) -> Vec<ReportFile> {
    let mut files: Vec<ReportFile> = methods(report).into();
    if !report.tests.is_empty() {
        files.extend(tests(report));
    }
    files
}

fn classification(report: &RunReport) -> [ReportFile; 2] {
    let names = report.classifier_names();
    let rows = names.iter().map(|name| {
        let row = &report.classification[*name];
        let [low, high] = ends(row.auroc_ci);
        let [sensitivity_low, sensitivity_high] = ends(row.sensitivity_ci);
        let [specificity_low, specificity_high] = ends(row.specificity_ci);
        vec![
            (*name).to_owned(),
            share(row.auroc),
            low,
            high,
            share(row.f1),
            share(row.sensitivity),
            sensitivity_low,
            sensitivity_high,
            share(row.specificity),
            specificity_low,
            specificity_high,
            share(row.threshold),
            row.threshold_chosen_on.map_or("", |c| c.name()).to_owned(),
        ]
    });
    let header = [
        "classifier",
        "auroc",
        "auroc_low",
        "auroc_high",
        "f1",
        "sensitivity",
        "sensitivity_low",
        "sensitivity_high",
        "specificity",
        "specificity_low",
        "specificity_high",
        "threshold",
        "threshold_chosen_on",
    ];
    let csv = csv("classification", &header, rows);
    let rows = names.iter().map(|name| {
        let row = &report.classification[*name];
        let cells = vec![
            tex(name),
            format!("{} {}", percent(row.auroc), tex_interval(row.auroc_ci)),
            percent(row.f1),
            percent(row.sensitivity),
            percent(row.specificity),
        ];
        (cells, *name == "ensemble")
    });
    let caption = format!(
        "Film-level classification of {} test films of {} studies, in percent. Intervals: 95\\,\\% bootstrap.{}",
        report.counts.test.films,
        report.counts.test.studies,
        synthetic(report)
    );
    let header = ["Classifier", "AUROC (95\\,\\% CI)", "F1", "Sensitivity", "Specificity"].map(str::to_owned);
    [csv, latex("classification", &caption, &header, rows)]
}

fn operating_points(report: &RunReport) -> [ReportFile; 2] {
    let all = || {
        report.classifier_names().into_iter().flat_map(|name| {
            report.classification[name].operating_points.iter().map(move |point| (name, point))
        })
    };
    let rows = all().map(|(name, point)| {
        let [sensitivity_low, sensitivity_high] = ends(point.sensitivity_ci);
        let [specificity_low, specificity_high] = ends(point.specificity_ci);
        vec![
            name.to_owned(),
            tables::target(point.target),
            share(point.threshold),
            share(point.sensitivity),
            sensitivity_low,
            sensitivity_high,
            share(point.specificity),
            specificity_low,
            specificity_high,
            share(point.f1),
        ]
    });
    let header = [
        "classifier",
        "target",
        "threshold",
        "sensitivity",
        "sensitivity_low",
        "sensitivity_high",
        "specificity",
        "specificity_low",
        "specificity_high",
        "f1",
    ];
    let csv = csv("operating_points", &header, rows);
    let rows = all().map(|(name, point)| {
        let cells = vec![
            tex(name),
            tex(&tables::target(point.target)),
            number(point.threshold, 3),
            format!("{} {}", percent(point.sensitivity), tex_interval(point.sensitivity_ci)),
            format!("{} {}", percent(point.specificity), tex_interval(point.specificity_ci)),
        ];
        (cells, false)
    });
    let header = ["Classifier", "Chosen for", "Threshold", "Sensitivity", "Specificity"].map(str::to_owned);
    let caption = "Operating points chosen on validation films, on the test films, in percent. Intervals: 95\\,\\% Wilson.";
    [csv, latex("operating_points", caption, &header, rows)]
}

fn detection(report: &RunReport) -> [ReportFile; 2] {
    let names = report.detector_names();
    let classes = report.classes.labels();
    let mut header = vec!["detector".to_owned(), "class".to_owned()];
    header.extend(["ap50", "ap50_low", "ap50_high", "ap_20_50", "recall50", "voc_ap50"].map(str::to_owned));
    let rows = names.iter().flat_map(|name| {
        let row = &report.detection[*name];
        let of_class = classes.iter().map(move |class| {
            let [low, high] = ends(row.ap50_ci.get(class).copied().flatten());
            let of = |values: &BTreeMap<Label, Option<f64>>| share(values.get(class).copied().flatten());
            let values = [of(&row.ap50), low, high, of(&row.ap_20_50), of(&row.recall50), of(&row.voc_ap50)];
            [vec![(*name).to_owned(), class.to_string()], values.to_vec()].concat()
        });
        let [low, high] = ends(row.map50_ci);
        let recall = share(crate::coco::mean(row.recall50.values().copied()));
        let voc = share(crate::coco::mean(row.voc_ap50.values().copied()));
        let means = [share(row.map50), low, high, share(row.map_20_50), recall, voc];
        of_class.chain([[vec![(*name).to_owned(), "mean".to_owned()], means.to_vec()].concat()])
    });
    let header_names: Vec<&str> = header.iter().map(String::as_str).collect();
    let csv = csv("detection", &header_names, rows);

    let mut header = vec!["Detector".to_owned()];
    header.extend(classes.iter().map(|class| tex(report.classes.heading(class))));
    header.push("mAP@0.5".to_owned());
    let rows = names.iter().map(|name| {
        let row = &report.detection[*name];
        let mut cells = vec![tex(name)];
        cells.extend(classes.iter().map(|class| percent(row.ap50.get(class).copied().flatten())));
        cells.push(format!("{} {}", percent(row.map50), tex_interval(row.map50_ci)));
        (cells, *name == "framework")
    });
    // Headings that are codes are explained.
    let codes = classes.iter().map(|class| (report.classes.heading(class), class.name()));
    let key: Vec<String> = codes
        .filter(|(heading, name)| heading != name)
        .map(|(heading, name)| format!("{} {}", tex(heading), tex(name)))
        .collect();
    let key = if key.is_empty() { String::new() } else { format!(" ({})", key.join(", ")) };
    let caption = format!(
        "Average precision at IoU 0.5 on {} test films of {} studies, in percent{key}. Interval of the mean: 95\\,\\% \
         bootstrap of studies.{}",
        report.counts.test.films,
        report.counts.test.studies,
        synthetic(report)
    );
    [csv, latex("detection", &caption, &header, rows)]
}

fn subgroups(report: &RunReport) -> [ReportFile; 2] {
    let all = || report.subgroups.iter().flat_map(|s| s.groups.iter().map(move |group| (s, group)));
    let rows = all().map(|(subgroups, group)| {
        let [auroc_low, auroc_high] = ends(group.auroc_ci);
        let [sensitivity_low, sensitivity_high] = ends(group.sensitivity_ci);
        let [specificity_low, specificity_high] = ends(group.specificity_ci);
        let [map_low, map_high] = ends(group.map50_ci);
        vec![
            subgroups.fact.clone(),
            group.name.clone(),
            group.films.to_string(),
            group.studies.to_string(),
            group.abnormal.to_string(),
            group.boxes.to_string(),
            share(group.auroc),
            auroc_low,
            auroc_high,
            share(group.sensitivity),
            sensitivity_low,
            sensitivity_high,
            share(group.specificity),
            specificity_low,
            specificity_high,
            share(group.map50),
            map_low,
            map_high,
            group.warning.clone(),
        ]
    });
    let header = [
        "fact",
        "group",
        "films",
        "studies",
        "abnormal",
        "boxes",
        "auroc",
        "auroc_low",
        "auroc_high",
        "sensitivity",
        "sensitivity_low",
        "sensitivity_high",
        "specificity",
        "specificity_low",
        "specificity_high",
        "map50",
        "map50_low",
        "map50_high",
        "warning",
    ];
    let csv = csv("subgroups", &header, rows);
    let rows = all().map(|(subgroups, group)| {
        let mark = if group.warning.is_empty() { "" } else { "$^\\dagger$" };
        let cells = vec![
            format!("{}: {}{mark}", tex(&subgroups.fact), tex(&group.name)),
            format!("{} ({})", group.films, group.abnormal),
            format!("{} {}", percent(group.auroc), tex_interval(group.auroc_ci)),
            percent(group.sensitivity),
            percent(group.specificity),
            format!("{} {}", percent(group.map50), tex_interval(group.map50_ci)),
        ];
        (cells, false)
    });
    let header =
        ["Films", "Number (abnormal)", "AUROC", "Sensitivity", "Specificity", "mAP@0.5"].map(str::to_owned);
    let caption = format!(
        "Figures of the ensemble and of the framework's boxes by what the headers of the films say, in percent, with 95\\,\\% \
         intervals. $^\\dagger$ too few films or boxes for the figures to say much.{}",
        synthetic(report)
    );
    [csv, latex("subgroups", &caption, &header, rows)]
}

fn methods(report: &CompareReport) -> [ReportFile; 2] {
    let header = [
        "method",
        "runs",
        "figure",
        "mean",
        "sd_of_runs",
        "low_of_runs",
        "high_of_runs",
        "low_of_studies",
        "high_of_studies",
    ];
    let rows = report.methods.iter().flat_map(|method| {
        let figures = [
            ("auroc", &method.auroc),
            ("f1", &method.f1),
            ("sensitivity", &method.sensitivity),
            ("specificity", &method.specificity),
            ("map50_detector", &method.map50_detector),
            ("map50", &method.map50),
        ];
        let by_class =
            report.classes.iter().filter_map(|class| Some((class.as_str(), method.ap50.get(class)?)));
        let figures = figures.into_iter().map(|(name, summary)| (name.to_owned(), summary));
        figures.chain(by_class.map(|(class, summary)| (format!("ap50 {class}"), summary))).map(
            move |(figure, summary)| {
                let [low_runs, high_runs] = ends(summary.interval_of_runs);
                let [low, high] = ends(summary.interval_of_studies);
                vec![
                    method.name.clone(),
                    method.sources.len().to_string(),
                    figure,
                    share(summary.mean),
                    share(summary.sd),
                    low_runs,
                    high_runs,
                    low,
                    high,
                ]
            },
        )
    });
    let csv = csv("methods", &header, rows);
    let cell = |summary: &Summary| {
        let sd = summary.sd.map_or_else(String::new, |sd| format!(" $\\pm$ {:.2}", 100.0 * sd));
        format!("{}{sd} {}", percent(summary.mean), tex_interval(summary.interval_of_studies))
    };
    let rows = report.methods.iter().map(|method| {
        let cells = vec![
            tex(&method.name),
            method.sources.len().to_string(),
            cell(&method.auroc),
            cell(&method.f1),
            cell(&method.sensitivity),
            cell(&method.specificity),
            cell(&method.map50),
        ];
        (cells, false)
    });
    let caption = format!(
        "Methods on the same {} test films of {} studies, in percent: mean over runs, $\\pm$ standard deviation over runs where \
         there are several, 95\\,\\% interval by the bootstrap of studies.",
        report.films, report.studies
    );
    let header =
        ["Method", "Runs", "AUROC", "F1", "Sensitivity", "Specificity", "mAP@0.5"].map(str::to_owned);
    [csv, latex("methods", &caption, &header, rows)]
}

fn tests(report: &CompareReport) -> [ReportFile; 2] {
    let header = ["first", "second", "test", "difference", "low", "high", "p", "p_adjusted"];
    let rows = report.tests.iter().map(|test| {
        let [low, high] = ends(test.interval);
        vec![
            test.first.clone(),
            test.second.clone(),
            test.kind.name().to_owned(),
            share(Some(test.difference)),
            low,
            high,
            share(test.p),
            share(test.p_adjusted),
        ]
    });
    let csv = csv("paired_tests", &header, rows);
    let rows = report.tests.iter().map(|test| {
        let cells = vec![
            format!("{} -- {}", tex(&test.first), tex(&test.second)),
            tex(test.kind.name()),
            format!("{} {}", percent(Some(test.difference)), tex_interval(test.interval)),
            super::p_value(test.p).replace('<', "$<$"),
            super::p_value(test.p_adjusted).replace('<', "$<$"),
        ];
        (cells, false)
    });
    let caption = format!(
        "Paired tests on the same {} films; differences in percent, $p$ corrected by {} over all tests.",
        report.films,
        tex(report.correction.name())
    );
    let header =
        ["Methods", "Figure and test", "Difference (95\\,\\% CI)", "$p$", "$p$ corrected"].map(str::to_owned);
    [csv, latex("paired_tests", &caption, &header, rows)]
}

fn synthetic(report: &RunReport) -> &'static str {
    if report.synthetic { " All films are synthetic." } else { "" }
}

/// All digits of a defined number.
fn share(value: Option<f64>) -> String {
    value.map_or_else(String::new, |v| v.to_string())
}

fn ends(interval: Option<Interval>) -> [String; 2] {
    interval.map_or_else(Default::default, |ends| ends.map(|end| end.to_string()))
}

fn tex_interval(interval: Option<Interval>) -> String {
    interval.map_or_else(
        || "(n/a)".to_owned(),
        |[low, high]| {
            format!("({:.2}--{:.2})", 100.0 * low, 100.0 * high).replace("(-", "($-$").replace("---", "--$-$")
        },
    )
}

/// Text with the characters replaced that mean something in LaTeX.
fn tex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '–' => out.push_str("--"),
            c => out.push(c),
        }
    }
    out
}

fn csv(name: &str, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> ReportFile {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header).expect("memory takes every row");
    for row in rows {
        writer.write_record(&row).expect("memory takes every row, all of one length");
    }
    let bytes = writer.into_inner().expect("memory can be flushed");
    ReportFile { name: format!("tables/{name}.csv"), bytes }
}

/// A table with the rows of `true` in bold.
fn latex(
    name: &str,
    caption: &str,
    header: &[String],
    rows: impl Iterator<Item = (Vec<String>, bool)>,
) -> ReportFile {
    let mut text = format!(
        "% Needs \\usepackage{{booktabs}}. {}\n\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n\\label{{tab:{name}}}\n\
         \\begin{{tabular}}{{l{}}}\n\\toprule\n{} \\\\\n\\midrule\n",
        RunReport::NOTICE,
        "c".repeat(header.len() - 1),
        header.join(" & ")
    );
    for (cells, bold) in rows {
        let cells: Vec<String> =
            if bold { cells.iter().map(|cell| format!("\\textbf{{{cell}}}")).collect() } else { cells };
        text.push_str(&cells.join(" & "));
        text.push_str(" \\\\\n");
    }
    text.push_str("\\bottomrule\n\\end{tabular}\n\\end{table}\n");
    ReportFile { name: format!("tables/{name}.tex"), bytes: text.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_no_harm_in_latex() {
        assert_eq!(tex("a_b & 5 % {x}"), "a\\_b \\& 5 \\% \\{x\\}");
        assert_eq!(tex("\\input"), "\\textbackslash{}input");
        assert_eq!(tex_interval(Some([-0.0123, 0.02])), "($-$1.23--2.00)");
        assert_eq!(tex_interval(Some([-0.02, -0.01])), "($-$2.00--$-$1.00)");
        assert_eq!(tex_interval(None), "(n/a)");
    }

    #[test]
    fn cells_that_need_it_are_quoted() {
        let file = csv("x", &["a", "b"], [vec!["one, two".to_owned(), String::new()]].into_iter());
        assert_eq!(String::from_utf8(file.bytes).unwrap(), "a,b\n\"one, two\",\n");
        assert_eq!(file.name, "tables/x.csv");
    }
}
