//! Text for people: progress bars and tables on stderr.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use spinexr_core::progress::Progress;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A progress bar that draws itself on a terminal and prints a line now and then elsewhere.
pub struct Bar {
    label: &'static str,
    quiet: bool,
    bar: OnceLock<ProgressBar>,
    last_line: std::sync::Mutex<Instant>,
}

/// Between two progress lines where stderr is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

impl Bar {
    /// A bar that appears with its first update.
    pub fn new(label: &'static str, quiet: bool) -> Self {
        Self { label, quiet, bar: OnceLock::new(), last_line: std::sync::Mutex::new(Instant::now()) }
    }

    /// Shows how far the task is.
    pub fn update(&self, progress: Progress) {
        self.update_with(progress, "");
    }

    /// Shows how far the task is, and a few words more.
    pub fn update_with(&self, progress: Progress, message: &str) {
        if self.quiet {
            return;
        }
        let bar = self.bar.get_or_init(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8));
            let style = ProgressStyle::with_template("{msg:>24} {wide_bar} {pos}/{len} {eta}")
                .expect("the template is a constant of ours");
            bar.set_style(style);
            bar
        });
        if bar.is_hidden() {
            self.print_line(progress, message);
            return;
        }
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(if message.is_empty() {
            self.label.to_owned()
        } else {
            format!("{} {message}", self.label)
        });
    }

    /// A line of text that stays, above the bar.
    pub fn println(&self, line: &str) {
        match self.bar.get() {
            _ if self.quiet => {}
            Some(bar) if !bar.is_hidden() => bar.suspend(|| eprintln!("{line}")),
            _ => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }

    fn print_line(&self, progress: Progress, message: &str) {
        let Ok(mut last) = self.last_line.lock() else { return };
        if last.elapsed() >= LINE_INTERVAL {
            *last = Instant::now();
            eprintln!("{}: {}/{} {message}", self.label, progress.done, progress.total);
        }
    }
}

/// Lists what failed, the first twenty of it.
pub fn list_failures<T: std::fmt::Display>(failures: impl ExactSizeIterator<Item = T>) {
    const SHOWN: usize = 20;
    let more = failures.len().saturating_sub(SHOWN);
    for failure in failures.take(SHOWN) {
        eprintln!("  {failure}");
    }
    if more > 0 {
        eprintln!("  … and {more} more");
    }
}

/// Lines up columns: the first to the left, the others to the right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = header.len();
    let width = |c: usize| {
        let cells = rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count());
        cells.chain([header[c].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &[String]| {
        let mut text = String::new();
        for (c, width) in widths.iter().enumerate() {
            let cell = cells.get(c).map_or("", String::as_str);
            let pad = " ".repeat(width - cell.chars().count());
            if c == 0 {
                text.push_str(&format!("{cell}{pad}"));
            } else {
                text.push_str(&format!("  {pad}{cell}"));
            }
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    };
    let head: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    let rule = "─".repeat(widths.iter().sum::<usize>() + 2 * (columns - 1));
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{rule}\n{body}", line(&head))
}

/// A fraction as the paper prints it, in hundredths; `n/a` where undefined.
pub fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "n/a".to_owned(), |v| format!("{:.2}", 100.0 * v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = table(
            &["model", "AUROC"],
            &[vec!["a".into(), "9.1".into()], vec!["bcdefg".into(), "88.61".into()]],
        );
        assert_eq!(text, "model   AUROC\n─────────────\na         9.1\nbcdefg  88.61\n");
    }

    #[test]
    fn an_undefined_figure_is_not_a_number() {
        assert_eq!(percent(None), "n/a");
        assert_eq!(percent(Some(0.8861)), "88.61");
    }
}
