//! From the lines of both sides to the table.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fmt::Write;

/// What one process said of one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Of each iteration.
    pub seconds: Vec<f64>,
    /// What was computed, as one number.
    pub check: Option<f64>,
    /// Peak resident memory.
    pub max_rss_kb: Option<f64>,
}

/// The line of a process that ran `case`.
pub fn parse_run(text: &str, case: &str) -> Result<Run> {
    let line: Value =
        serde_json::from_str(text.trim()).with_context(|| format!("not one JSON line: {text:?}"))?;
    if line["case"] != case {
        bail!("expected the case {case:?}, got {}", line["case"]);
    }
    let seconds = line["seconds"].as_array().with_context(|| format!("no list of seconds in {line}"))?;
    let seconds: Vec<f64> = seconds.iter().filter_map(Value::as_f64).filter(|s| *s > 0.0).collect();
    if seconds.is_empty() || seconds.len() != line["seconds"].as_array().map_or(0, Vec::len) {
        bail!("expected positive numbers of seconds, got {}", line["seconds"]);
    }
    Ok(Run { seconds, check: line["check"].as_f64(), max_rss_kb: line["max_rss_kb"].as_f64() })
}

impl Run {
    /// Of the seconds.
    pub fn median(&self) -> f64 {
        median(&self.seconds)
    }

    /// Both sides computed the same, as far as they tell.
    pub fn agrees_with(&self, theirs: &Self, tolerance: f64) -> Result<()> {
        if let (Some(a), Some(b)) = (self.check, theirs.check)
            && (a - b).abs() > tolerance * a.abs().max(b.abs())
        {
            bail!("the two sides computed different things: ours {a}, theirs {b}, tolerance {tolerance}");
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        json!({"seconds": self.seconds, "check": self.check, "max_rss_kb": self.max_rss_kb})
    }
}

/// Ours ÷ theirs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Of the medians over all rounds.
    pub of_medians: f64,
    /// Least of a round.
    pub min: f64,
    /// Greatest of a round.
    pub max: f64,
}

/// A case with what both sides said in every round, ours first. There is at least one round.
#[derive(Debug)]
pub struct CaseResult {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is, for the table.
    pub what: &'static str,
    /// Peak memory counts too.
    pub memory: bool,
    /// In order.
    pub rounds: Vec<(Run, Run)>,
}

impl CaseResult {
    /// Of the seconds.
    pub fn time(&self) -> Ratio {
        ratio(self.rounds.iter().map(|(ours, theirs)| (&ours.seconds[..], &theirs.seconds[..])))
    }

    /// Of the peak memory, where it counts and the system says it.
    pub fn peak_memory(&self) -> Option<Ratio> {
        if !self.memory {
            return None;
        }
        let peaks: Option<Vec<_>> = self
            .rounds
            .iter()
            .map(|(ours, theirs)| Some(([ours.max_rss_kb?], [theirs.max_rss_kb?])))
            .collect();
        Some(ratio(peaks?.iter().map(|(ours, theirs)| (&ours[..], &theirs[..]))))
    }

    /// Rows of the table: what, its median on either side for people, the ratio.
    fn rows(&self, label: &str) -> Vec<(String, String, String, Ratio)> {
        let (ours, theirs): (Vec<&Run>, Vec<&Run>) = self.rounds.iter().map(|(a, b)| (a, b)).unzip();
        let seconds = |side: &[&Run]| {
            seconds_text(median(&side.iter().flat_map(|run| run.seconds.clone()).collect::<Vec<_>>()))
        };
        let mut rows = vec![(label.to_owned(), seconds(&ours), seconds(&theirs), self.time())];
        if let Some(memory) = self.peak_memory() {
            let peak = |side: &[&Run]| {
                let peaks: Vec<f64> = side.iter().filter_map(|run| run.max_rss_kb).collect();
                format!("{:.0} MB", median(&peaks) / 1024.0)
            };
            rows.push((format!("{label}, peak memory"), peak(&ours), peak(&theirs), memory));
        }
        rows
    }

    /// All that was measured.
    pub fn to_json(&self) -> Value {
        let as_json = |r: Ratio| json!({"of_medians": r.of_medians, "min": r.min, "max": r.max});
        json!({
            "case": self.name,
            "what": self.what,
            "time_ratio": as_json(self.time()),
            "peak_memory_ratio": self.peak_memory().map(as_json),
            "ours": self.rounds.iter().map(|(ours, _)| ours.to_json()).collect::<Vec<_>>(),
            "theirs": self.rounds.iter().map(|(_, theirs)| theirs.to_json()).collect::<Vec<_>>(),
        })
    }
}

/// Of the medians of both sides of each round.
pub fn ratio<'a>(rounds: impl Iterator<Item = (&'a [f64], &'a [f64])>) -> Ratio {
    let (mut ours, mut theirs, mut of_rounds) = (vec![], vec![], vec![]);
    for (a, b) in rounds {
        of_rounds.push(median(a) / median(b));
        ours.extend_from_slice(a);
        theirs.extend_from_slice(b);
    }
    Ratio {
        of_medians: median(&ours) / median(&theirs),
        min: of_rounds.iter().copied().fold(f64::INFINITY, f64::min),
        max: of_rounds.iter().copied().fold(0.0, f64::max),
    }
}

/// The middle value, or the mean of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { 0.5 * (sorted[middle - 1] + sorted[middle]) }
}

/// A time with three digits or so.
pub fn seconds_text(seconds: f64) -> String {
    match seconds {
        s if s >= 10.0 => format!("{s:.1} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.1 => format!("{:.0} ms", s * 1e3),
        s if s >= 0.01 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.2} ms", s * 1e3),
    }
}

/// A ratio with two significant digits, without point from 10.
fn ratio_text(ratio: f64) -> String {
    let before_point = ratio.log10().floor() as i32 + 1;
    format!("{ratio:.*}", (2 - before_point).max(0) as usize)
}

impl std::fmt::Display for Ratio {
    /// The ratio of medians alone, or with `{:#}` the range.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if f.alternate() {
            return write!(f, "{}–{}", ratio_text(self.min), ratio_text(self.max));
        }
        f.pad(&ratio_text(self.of_medians))
    }
}

/// The table for a terminal.
pub fn table(results: &[CaseResult]) -> String {
    let mut text =
        format!("{:<34} {:>9} {:>9} {:>7}   min–max of a round\n", "case", "ours", "theirs", "ratio");
    for (label, ours, theirs, ratio) in results.iter().flat_map(|case| case.rows(case.name)) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<34} {ours:>9} {theirs:>9} {ratio:>7}   {ratio:#}");
    }
    text
}

/// The table as docs/benchmarks.md has it.
pub fn markdown(results: &[CaseResult]) -> String {
    let mut text = "| case | ours ÷ theirs | min–max of a round |\n|---|---|---|\n".to_owned();
    for (label, _, _, ratio) in results.iter().flat_map(|case| case.rows(case.what)) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {label} | {ratio} | {ratio:#} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: &[f64], max_rss_kb: f64) -> Run {
        Run { seconds: seconds.to_vec(), check: None, max_rss_kb: Some(max_rss_kb) }
    }

    fn two_rounds(memory: bool) -> CaseResult {
        let rounds = vec![
            (run(&[1.0, 3.0, 2.0], 100.0), run(&[4.0, 4.0], 200.0)),
            (run(&[6.0, 6.0, 6.0], 300.0), run(&[2.0, 12.0], 200.0)),
        ];
        CaseResult { name: "cold-start", what: "One film", memory, rounds }
    }

    #[test]
    fn a_line_is_read() {
        let line = "{\"case\": \"a\", \"seconds\": [0.5, 1], \"check\": null, \"max_rss_kb\": 7}\n";
        let expected = Run { seconds: vec![0.5, 1.0], check: None, max_rss_kb: Some(7.0) };
        assert_eq!(parse_run(line, "a").unwrap(), expected);
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        for (line, expected) in [
            ("", "not one JSON line"),
            ("{}\n{}", "not one JSON line"),
            ("{\"case\": \"b\", \"seconds\": [1]}", "expected the case \"a\", got \"b\""),
            ("{\"case\": \"a\"}", "no list of seconds"),
            ("{\"case\": \"a\", \"seconds\": []}", "expected positive numbers of seconds, got []"),
            ("{\"case\": \"a\", \"seconds\": [1, 0]}", "expected positive numbers of seconds, got [1,0]"),
            ("{\"case\": \"a\", \"seconds\": [1, \"x\"]}", "expected positive numbers of seconds"),
        ] {
            let error = parse_run(line, "a").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{line}: {error}");
        }
    }

    #[test]
    fn ratios_are_of_medians_with_the_rounds_as_range() {
        // Ours 1 2 3 6 6 6 → 4.5, theirs 2 4 4 12 → 4; rounds 2/4 and 6/7.
        let result = two_rounds(true);
        assert_eq!(result.time(), Ratio { of_medians: 4.5 / 4.0, min: 0.5, max: 6.0 / 7.0 });
        assert_eq!(result.peak_memory(), Some(Ratio { of_medians: 1.0, min: 0.5, max: 1.5 }));
        assert_eq!(two_rounds(false).peak_memory(), None);
    }

    #[test]
    fn different_results_are_an_error() {
        let with = |check| Run { check, ..run(&[1.0], 1.0) };
        assert!(with(Some(1.0)).agrees_with(&with(Some(1.0005)), 1e-3).is_ok());
        assert!(with(None).agrees_with(&with(Some(2.0)), 1e-3).is_ok());
        let error = with(Some(1.0)).agrees_with(&with(Some(2.0)), 1e-3).unwrap_err().to_string();
        assert_eq!(error, "the two sides computed different things: ours 1, theirs 2, tolerance 0.001");
    }

    #[test]
    fn tables() {
        let results = [two_rounds(true)];
        assert_eq!(
            markdown(&results),
            "| case | ours ÷ theirs | min–max of a round |\n|---|---|---|\n\
             | One film | 1.1 | 0.50–0.86 |\n| One film, peak memory | 1.0 | 0.50–1.5 |\n"
        );
        let text = table(&results);
        assert!(
            text.contains("cold-start                            4.50 s    4.00 s     1.1   0.50–0.86"),
            "{text}"
        );
    }

    #[test]
    fn figures_have_about_three_digits() {
        let texts = [123.4, 1.234, 0.1234, 0.01234, 0.0001234].map(seconds_text);
        assert_eq!(texts, ["123.4 s", "1.23 s", "123 ms", "12.3 ms", "0.12 ms"]);
        let texts = [125.4, 25.4, 10.0, 9.94, 1.0, 0.123, 0.0123, 0.00123].map(ratio_text);
        assert_eq!(texts, ["125", "25", "10", "9.9", "1.0", "0.12", "0.012", "0.0012"]);
    }
}
