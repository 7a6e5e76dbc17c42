//! From what was sent to the table.

use super::senders::{Sending, Sent};
use super::service::Usage;
use crate::bench_peers::ratios::{median, ratio, seconds_text};
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use std::fmt::Write;

/// Least distance between the least and the greatest probability: a comparison of equal ones would show nothing.
const SPREAD: f64 = 0.2;

/// One side in one round.
#[derive(Debug)]
pub struct Side {
    pub sending: Sending,
    /// Of the service, before the films and after.
    pub before: Usage,
    pub after: Usage,
    /// Processor time of all senders, s.
    pub senders_cpu_s: f64,
}

impl Side {
    fn done_s(&self) -> Vec<f64> {
        self.sending.films.iter().map(|sent| sent.done_s).collect()
    }

    fn acknowledged_s(&self) -> Option<Vec<f64>> {
        self.sending.films.iter().map(|sent| sent.acknowledged_s).collect()
    }

    fn films(&self) -> f64 {
        self.sending.films.len() as f64
    }

    /// A line for people who wait.
    pub fn line(&self) -> String {
        format!(
            "{:.2} films/s, p50 {}, p99 {}, peak memory {:.0} MB",
            self.films() / self.sending.wall_s,
            seconds_text(quantile(&self.done_s(), 0.5)),
            seconds_text(quantile(&self.done_s(), 0.99)),
            self.after.peak_mb
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "wall_s": self.sending.wall_s,
            "done_s": self.done_s(),
            "acknowledged_s": self.acknowledged_s(),
            "polls": self.sending.films.iter().map(|sent| sent.polls).sum::<u32>(),
            "cpu_s": self.after.cpu_s - self.before.cpu_s,
            "memory_before_mb": self.before.resident_mb,
            "peak_memory_mb": self.after.peak_mb,
            "senders_cpu_s": self.senders_cpu_s,
        })
    }
}

/// Both sides in one round.
#[derive(Debug)]
pub struct Round {
    pub ours: Side,
    pub theirs: Side,
}

impl Round {
    /// For the file of results.
    pub fn to_json(&self) -> Value {
        json!({"ours": self.ours.to_json(), "theirs": self.theirs.to_json()})
    }
}

/// A row of the table: what, its figure on one side where it has one, and that as text.
type Row = (&'static str, fn(&Side) -> Option<f64>, fn(f64) -> String);

const ROWS: &[Row] = &[
    ("films a second (above 1 is better)", |s| Some(s.films() / s.sending.wall_s), |f| format!("{f:.2}")),
    ("POST to result, p50", |s| Some(quantile(&s.done_s(), 0.5)), seconds_text),
    ("POST to result, p99", |s| Some(quantile(&s.done_s(), 0.99)), seconds_text),
    ("POST to result, longest", |s| Some(quantile(&s.done_s(), 1.0)), seconds_text),
    ("POST to acknowledgement, p50", |s| Some(quantile(&s.acknowledged_s()?, 0.5)), seconds_text),
    ("POST to acknowledgement, p99", |s| Some(quantile(&s.acknowledged_s()?, 0.99)), seconds_text),
    ("memory of the service before the films", |s| Some(s.before.resident_mb), megabytes),
    ("peak memory of the service", |s| Some(s.after.peak_mb), megabytes),
    (
        "processor time of the service, a film",
        |s| Some((s.after.cpu_s - s.before.cpu_s) / s.films()),
        seconds_text,
    ),
    ("processor time of the sender, a film", |s| Some(s.senders_cpu_s / s.films()), seconds_text),
];

fn megabytes(mb: f64) -> String {
    format!("{mb:.0} MB")
}

/// The Markdown table: medians over the rounds, and their ratio with the range of the rounds.
pub fn table(rounds: &[Round]) -> String {
    let mut text =
        "| | ours | theirs | ours ÷ theirs | min–max of a round |\n|---|---|---|---|---|\n".to_owned();
    for (what, figure, as_text) in ROWS {
        let side =
            |of: fn(&Round) -> &Side| rounds.iter().map(|r| figure(of(r))).collect::<Option<Vec<f64>>>();
        let (ours, theirs) = (side(|r| &r.ours), side(|r| &r.theirs));
        let shown = |side: &Option<Vec<f64>>| side.as_ref().map_or("–".into(), |s| as_text(median(s)));
        let (ours_text, theirs_text) = (shown(&ours), shown(&theirs));
        let (middle, range) = match (&ours, &theirs) {
            // Ten milliseconds of processor time are the least that the system tells.
            (Some(ours), Some(theirs)) if ours.iter().chain(theirs).all(|figure| *figure > 0.0) => {
                let ratio = ratio(ours.chunks(1).zip(theirs.chunks(1)));
                (format!("{ratio}"), format!("{ratio:#}"))
            }
            _ => ("–".into(), "–".into()),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {what} | {ours_text} | {theirs_text} | {middle} | {range} |");
    }
    text
}

/// The greatest difference between both sides' probabilities of the same films.
///
/// # Errors
/// A film whose two differ by more than `tolerance`; films that all have nearly the same.
pub fn compare(ours: &[Sent], theirs: &[Sent], tolerance: f64) -> Result<f64> {
    ensure!(ours.len() == theirs.len(), "{} films on our side, {} on theirs", ours.len(), theirs.len());
    let mut greatest = 0.0_f64;
    for (a, b) in ours.iter().zip(theirs) {
        let difference = (a.probability - b.probability).abs();
        if a.film != b.film || difference.is_nan() || difference > tolerance {
            bail!(
                "the two sides read different things from film {}: ours {}, theirs {}, tolerance {tolerance}",
                a.film,
                a.probability,
                b.probability
            );
        }
        greatest = greatest.max(difference);
    }
    let all = ours.iter().map(|sent| sent.probability);
    let spread = all.clone().fold(f64::MIN, f64::max) - all.fold(f64::MAX, f64::min);
    ensure!(
        spread >= SPREAD,
        "all films have nearly the same probability: they are {spread:.3} apart at most"
    );
    Ok(greatest)
}

/// The least of the values that so much of them do not exceed.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((part * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1]
}

/// What came of more senders than the queue has room for.
#[derive(Debug)]
pub struct Overload {
    pub sending: Sending,
    pub max_waiting: usize,
    /// Most that were seen waiting.
    pub waiting: usize,
    pub before: Usage,
    pub after: Usage,
}

impl Overload {
    /// Times that films were refused, and the longest `Retry-After`.
    fn refusals(&self) -> (usize, f64) {
        let all = self.sending.films.iter().flat_map(|sent| &sent.refusals_s);
        (all.clone().count(), all.copied().fold(0.0, f64::max))
    }

    fn cut_off(&self) -> u32 {
        self.sending.films.iter().map(|sent| sent.cut_off).sum()
    }

    /// # Errors
    /// The service took more than it said, or refused nobody.
    pub fn check(&self) -> Result<()> {
        let (waiting, limit) = (self.waiting, self.max_waiting);
        ensure!(waiting <= limit, "{waiting} films were waiting, with room for {limit}");
        ensure!(self.refusals().0 > 0, "no film was refused: there was no overload");
        Ok(())
    }

    /// A Markdown table.
    pub fn table(&self) -> String {
        let films = self.sending.films.len();
        let (refusals, retry_after_s) = self.refusals();
        format!(
            "| overload: room for {} waiting films | |\n|---|---|\n\
             | films, all of them read | {films} |\n\
             | refused: 503 with `Retry-After` of {retry_after_s:.0} s | {refusals} |\n\
             | connections closed before the answer was read | {} |\n\
             | most that were seen waiting | {} |\n\
             | films a second | {:.2} |\n\
             | memory of the service before; at most | {:.0} MB; {:.0} MB |\n",
            self.max_waiting,
            self.cut_off(),
            self.waiting,
            films as f64 / self.sending.wall_s,
            self.before.resident_mb,
            self.after.peak_mb
        )
    }

    /// For the file of results.
    pub fn to_json(&self) -> Value {
        let (refusals, retry_after_s) = self.refusals();
        json!({
            "wall_s": self.sending.wall_s,
            "films": self.sending.films.len(),
            "done_s": self.sending.films.iter().map(|sent| sent.done_s).collect::<Vec<_>>(),
            "max_waiting": self.max_waiting,
            "waiting": self.waiting,
            "refusals": refusals,
            "retry_after_s": retry_after_s,
            "cut_off": self.cut_off(),
            "memory_before_mb": self.before.resident_mb,
            "peak_memory_mb": self.after.peak_mb,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(film: usize, probability: f64) -> Sent {
        let film_s = (film + 1) as f64;
        let acknowledged_s = Some(film_s / 10.0);
        Sent { film, probability, acknowledged_s, done_s: film_s, polls: 1, refusals_s: vec![], cut_off: 0 }
    }

    fn side(wall_s: f64, acknowledges: bool) -> Side {
        let mut films: Vec<Sent> = (0..4).map(|film| sent(film, 0.1 * film as f64)).collect();
        if !acknowledges {
            films.iter_mut().for_each(|sent| sent.acknowledged_s = None);
        }
        let usage = |cpu_s, peak_mb| Usage { cpu_s, resident_mb: 50.0, peak_mb };
        let sending = Sending { films, wall_s };
        Side { sending, before: usage(1.0, 60.0), after: usage(9.0, 25.0 * wall_s), senders_cpu_s: 0.4 }
    }

    #[test]
    fn quantiles_are_of_the_values() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|part| quantile(&hundred, part)), [50.0, 99.0, 100.0]);
        assert_eq!(quantile(&[7.0], 0.01), 7.0);
    }

    #[test]
    fn the_table_has_medians_and_the_range_of_the_rounds() {
        let rounds = [
            Round { ours: side(2.0, true), theirs: side(4.0, false) },
            Round { ours: side(4.0, true), theirs: side(4.0, false) },
        ];
        let table = table(&rounds);
        for line in [
            "| films a second (above 1 is better) | 1.50 | 1.00 | 1.5 | 1.0–2.0 |",
            "| POST to result, p50 | 2.00 s | 2.00 s | 1.0 | 1.0–1.0 |",
            "| POST to result, longest | 4.00 s | 4.00 s | 1.0 | 1.0–1.0 |",
            "| POST to acknowledgement, p99 | 400 ms | – | – | – |",
            "| peak memory of the service | 75 MB | 100 MB | 0.75 | 0.50–1.0 |",
            "| processor time of the service, a film | 2.00 s | 2.00 s | 1.0 | 1.0–1.0 |",
            "| processor time of the sender, a film | 100 ms | 100 ms | 1.0 | 1.0–1.0 |",
        ] {
            assert!(table.contains(line), "{line}\n{table}");
        }
        let idle = Round { ours: Side { senders_cpu_s: 0.0, ..side(2.0, true) }, theirs: side(4.0, false) };
        let line = "| processor time of the sender, a film | 0.00 ms | 100 ms | – | – |";
        assert!(super::table(&[idle]).contains(line));
    }

    #[test]
    fn probabilities_are_compared() {
        let ours = [sent(0, 0.2), sent(1, 0.8)];
        let theirs = [sent(0, 0.21), sent(1, 0.78)];
        assert!((compare(&ours, &theirs, 0.05).unwrap() - 0.02).abs() < 1e-12);
        for (ours, theirs, expected) in [
            (&ours[..], &theirs[..1], "2 films on our side, 1 on theirs"),
            (
                &ours,
                &theirs[..],
                "the two sides read different things from film 1: ours 0.8, theirs 0.78, tolerance 0.015",
            ),
            (
                &ours[..1],
                &ours[..1],
                "all films have nearly the same probability: they are 0.000 apart at most",
            ),
            (&[sent(0, f64::NAN)], &ours[..1], "the two sides read different things from film 0: ours NaN"),
        ] {
            let error = compare(ours, theirs, 0.015).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn an_overload_must_be_one() {
        let of = |waiting, refusals_s: Vec<f64>| {
            let Side { mut sending, before, after, .. } = side(8.0, true);
            sending.films[0].refusals_s = refusals_s;
            Overload { sending, max_waiting: 2, waiting, before, after }
        };
        let error = |overload: Overload| overload.check().unwrap_err().to_string();
        assert_eq!(error(of(3, vec![30.0])), "3 films were waiting, with room for 2");
        assert_eq!(error(of(2, vec![])), "no film was refused: there was no overload");
        let good = of(2, vec![30.0, 30.0]);
        good.check().unwrap();
        assert!(good.table().contains("| refused: 503 with `Retry-After` of 30 s | 2 |"), "{}", good.table());
        assert!(good.table().contains("| memory of the service before; at most | 50 MB; 200 MB |"));
    }
}
