//! The report of a run, or of several, as one HTML file (no network, no script, light and dark, fit to print), and its tables
//! and figures as files.

mod comparison;
mod exports;
mod figures;
mod gallery;
mod page;
mod plot;
mod plot_files;
mod tables;

pub use exports::{comparison_table_files, table_files};
pub use gallery::Thumbnail;
pub use plot::{Axis, Corner, Mark, Plot, Scale, Series};
pub use plot_files::{comparison_plot_files, plot_files};

use crate::compare::CompareReport;
use crate::run::RunReport;
use spinexr_core::{ClassList, Label};

/// A file that goes beside the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFile {
    /// Path below the report's folder, such as `tables/detection.csv`.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The whole page. `thumbnail` gives the picture of a film by image id; where it gives none, the boxes are
/// drawn on an empty ground.
pub fn html(report: &RunReport, thumbnail: &dyn Fn(&str) -> Option<Thumbnail>) -> String {
    page::page(report, thumbnail)
}

/// The page of a comparison.
pub fn comparison_html(report: &CompareReport) -> String {
    comparison::page(report)
}

/// A p value with as many digits as say something; `n/a` where there is none.
fn p_value(p: Option<f64>) -> String {
    match p {
        None => "n/a".into(),
        Some(p) if p < 0.0001 => "< 0.0001".into(),
        Some(p) if p < 0.01 => format!("{p:.4}"),
        Some(p) => format!("{p:.3}"),
    }
}

/// The column of the paper's table, for the classes of VinDr-SpineXR.
fn code<'a>(classes: &ClassList, label: &'a Label) -> Option<&'a str> {
    classes.is_vindr().then(|| classes.heading(label))
}

/// Text with the five characters replaced that mean something in HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A share in percent with two decimals, as the paper prints it; `n/a` for an undefined one.
fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "n/a".into(), |v| format!("{:.2}", 100.0 * v))
}

/// A number with `decimals`; `n/a` for an undefined one.
fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "n/a".into(), |v| format!("{v:.decimals$}"))
}

/// A whole number with thin gaps between thousands.
fn count(value: usize) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_in_the_paper() {
        assert_eq!(percent(Some(0.88611)), "88.61");
        assert_eq!((percent(None), number(None, 3)), ("n/a".into(), "n/a".into()));
        assert_eq!((count(12_562), count(924)), ("12\u{202f}562".into(), "924".into()));
        assert_eq!(escape("<a href='x'>&</a>"), "&lt;a href=&#39;x&#39;&gt;&amp;&lt;/a&gt;");
    }
}
