//! Counters, and their text for Prometheus (exposition format 0.0.4). Labels are names from the configuration and fixed
//! words, never something of a film.

use crate::error::ServeError;
use crate::node::Node;
use crate::store::{Finished, JobState, Sent};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram of reading times, s.
const BUCKETS_S: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// All counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    received: BTreeMap<&'static str, u64>,
    read: BTreeMap<&'static str, u64>,
    read_buckets: [u64; BUCKETS_S.len()],
    read_sum_s: f64,
    sent: BTreeMap<(String, &'static str), u64>,
    requests: BTreeMap<u16, u64>,
    associations: BTreeMap<&'static str, u64>,
}

impl Metrics {
    fn with(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn received(&self, outcome: &'static str) {
        self.with(|c| *c.received.entry(outcome).or_default() += 1);
    }

    pub(crate) fn read(&self, finished: &Finished, took: Duration) {
        let outcome = match finished {
            Finished::Done { .. } => "done",
            Finished::Again { .. } => "again",
            Finished::Failed { .. } => "failed",
        };
        self.with(|c| {
            *c.read.entry(outcome).or_default() += 1;
            c.read_sum_s += took.as_secs_f64();
            for (bucket, bound) in c.read_buckets.iter_mut().zip(BUCKETS_S) {
                *bucket += u64::from(took.as_secs_f64() <= bound);
            }
        });
    }

    pub(crate) fn sent(&self, destination: &str, sent: &Sent) {
        let outcome = match sent {
            Sent::Delivered => "delivered",
            Sent::Again { .. } => "again",
            Sent::Failed { .. } => "failed",
        };
        self.with(|c| *c.sent.entry((destination.to_owned(), outcome)).or_default() += 1);
    }

    pub(crate) fn request(&self, status: u16) {
        self.with(|c| *c.requests.entry(status).or_default() += 1);
    }

    pub(crate) fn association(&self, outcome: &'static str) {
        self.with(|c| *c.associations.entry(outcome).or_default() += 1);
    }
}

/// The text that Prometheus reads.
pub(crate) fn exposition(node: &Node) -> Result<String, ServeError> {
    let mut out = String::new();
    let waiting =
        JobState::ALL.map(|state| Ok::<_, ServeError>((state.name(), node.store.count_jobs(state)?)));
    head(&mut out, "spinexr_jobs", "gauge", "Jobs in the store by state.");
    for entry in waiting {
        let (state, count) = entry?;
        line(&mut out, "spinexr_jobs", &[("state", state)], count);
    }
    head(&mut out, "spinexr_deliveries", "gauge", "Deliveries in the store by destination and state.");
    for (destination, state, count) in node.store.count_deliveries()? {
        line(
            &mut out,
            "spinexr_deliveries",
            &[("destination", &destination), ("state", state.name())],
            count,
        );
    }
    head(&mut out, "spinexr_spool_bytes", "gauge", "Bytes of films and results in the spool.");
    line(&mut out, "spinexr_spool_bytes", &[], node.store.spool_bytes()?);

    let counts = node.metrics.counts.lock().unwrap_or_else(PoisonError::into_inner);
    head(&mut out, "spinexr_films_received_total", "counter", "Films handed in, by outcome.");
    for (outcome, count) in &counts.received {
        line(&mut out, "spinexr_films_received_total", &[("outcome", outcome)], *count);
    }
    head(&mut out, "spinexr_films_read_total", "counter", "Runs of the reader, by outcome.");
    for (outcome, count) in &counts.read {
        line(&mut out, "spinexr_films_read_total", &[("outcome", outcome)], *count);
    }
    let name = "spinexr_film_read_seconds";
    head(&mut out, name, "histogram", "Time to read a film and keep its results.");
    for (bound, count) in BUCKETS_S.iter().zip(counts.read_buckets) {
        line(&mut out, "spinexr_film_read_seconds_bucket", &[("le", &bound.to_string())], count);
    }
    let total: u64 = counts.read.values().sum();
    line(&mut out, "spinexr_film_read_seconds_bucket", &[("le", "+Inf")], total);
    line(&mut out, "spinexr_film_read_seconds_sum", &[], counts.read_sum_s);
    line(&mut out, "spinexr_film_read_seconds_count", &[], total);
    head(
        &mut out,
        "spinexr_results_sent_total",
        "counter",
        "Attempts to send an object, by destination and outcome.",
    );
    for ((destination, outcome), count) in &counts.sent {
        line(
            &mut out,
            "spinexr_results_sent_total",
            &[("destination", destination), ("outcome", outcome)],
            *count,
        );
    }
    head(&mut out, "spinexr_http_requests_total", "counter", "HTTP requests by status.");
    for (status, count) in &counts.requests {
        line(&mut out, "spinexr_http_requests_total", &[("status", &status.to_string())], *count);
    }
    head(&mut out, "spinexr_associations_total", "counter", "DICOM associations by outcome.");
    for (outcome, count) in &counts.associations {
        line(&mut out, "spinexr_associations_total", &[("outcome", outcome)], *count);
    }
    Ok(out)
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    out.push_str(name);
    for (i, (label, text)) in labels.iter().enumerate() {
        let _ = write!(out, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
    }
    let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
}
