//! Timing of a case, and the line that says how long it took.

use anyhow::Result;
use serde::Serialize;
use std::time::Instant;

/// How often a case runs, and on how many threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Threads of the pool.
    pub threads: usize,
    /// Runs before the first that counts.
    pub warmup: usize,
    /// Runs that count.
    pub iterations: usize,
}

impl Plan {
    /// Runs `once` as often as planned; it gives the seconds that count and what was computed.
    ///
    /// The result is the seconds of each run that counts, and what the first run of all computed: the other side
    /// must have computed the same.
    pub fn measure(&self, mut once: impl FnMut() -> Result<(f64, f64)>) -> Result<(Vec<f64>, f64)> {
        let mut first = None;
        let mut seconds = Vec::with_capacity(self.iterations);
        for run in 0..self.warmup + self.iterations {
            let (taken, computed) = once()?;
            first.get_or_insert(computed);
            if run >= self.warmup {
                seconds.push(taken);
            }
        }
        Ok((seconds, first.unwrap_or(f64::NAN)))
    }
}

/// Seconds that `work` takes, and its result.
pub fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64(), result)
}

/// The line of a case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    case: String,
    seconds: Vec<f64>,
    /// What was computed, as one number.
    check: f64,
    /// Peak resident memory of this process; `None` where the system does not say.
    max_rss_kb: Option<u64>,
}

impl Outcome {
    /// The outcome of a case that has just run in this process.
    pub fn new(case: String, seconds: Vec<f64>, check: f64) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self { case, seconds, check, max_rss_kb: peak_kb(&status) }
    }

    /// One line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an outcome is plain data")
    }
}

/// `VmHWM` of `/proc/self/status`, which Linux gives in kB.
fn peak_kb(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_does_not_count_but_is_checked() {
        let mut run = 0.0;
        let plan = Plan { threads: 1, warmup: 2, iterations: 3 };
        let result = plan.measure(|| {
            run += 1.0;
            Ok((run, 10.0 * run))
        });
        assert_eq!(result.unwrap(), (vec![3.0, 4.0, 5.0], 10.0));
    }

    #[test]
    fn the_peak_is_read_from_the_status() {
        assert_eq!(peak_kb("VmPeak:\t  9 kB\nVmHWM:\t   1234 kB\n"), Some(1234));
        assert_eq!(peak_kb(""), None);
    }
}
