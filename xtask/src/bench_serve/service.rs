//! A service under test: its process, where it listens, and what the system says of it.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest that a service may take to end once it is told to.
const END: Duration = Duration::from_secs(60);

/// Ticks a second in `/proc/PID/stat`: the same on every architecture that Linux shows them on.
const TICKS_PER_S: f64 = 100.0;

/// A running service; killed when dropped.
pub struct Service {
    child: Child,
    log: PathBuf,
    /// `http://HOST:PORT`
    pub base: String,
}

/// What the system says of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Processor time so far, user and system, all threads.
    pub cpu_s: f64,
    /// Resident memory now.
    pub resident_mb: f64,
    /// Most resident memory so far.
    pub peak_mb: f64,
}

impl Service {
    /// Starts a command that prints a JSON document with `http`, its address, as soon as it listens. What it says on
    /// stderr goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let program = Path::new(command.get_program()).display().to_string();
        let messages = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(messages)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let mut service = Self { child, log: log.to_owned(), base: String::new() };
        let address = service.address().with_context(|| format!("{program}: {}", service.messages()))?;
        service.base = format!("http://{address}");
        Ok(service)
    }

    /// The address in the first JSON document on stdout, which may have several lines.
    fn address(&mut self) -> Result<String> {
        let stdout = self.child.stdout.as_mut().context("stdout is a pipe")?;
        let mut text = vec![];
        let mut byte = [0];
        while stdout.read(&mut byte)? == 1 {
            text.push(byte[0]);
            if byte[0] == b'\n'
                && let Ok(document) = serde_json::from_slice::<Value>(&text)
            {
                let address = document["http"].as_str().context("no address in what it printed")?;
                return Ok(address.to_owned());
            }
        }
        bail!("it ended before it listened")
    }

    /// The end of what it said on stderr.
    pub fn messages(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Of the service.
    pub fn usage(&self) -> Result<Usage> {
        usage(&self.child.id().to_string())
    }

    /// Ends it with SIGTERM, and says how it ended.
    pub fn end(mut self) -> Result<ExitStatus> {
        let id = self.child.id().to_string();
        crate::process::visible(Command::new("kill").args(["-s", "TERM", &id]))?;
        let told = Instant::now();
        while told.elapsed() < END {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the service does not end on SIGTERM: {}", self.messages())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Nothing to do where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of a process by its number, or `self`.
pub fn usage(process: &str) -> Result<Usage> {
    let read = |name: &str| {
        let path = format!("/proc/{process}/{name}");
        std::fs::read_to_string(&path).with_context(|| format!("reading {path} (Linux only)"))
    };
    parse_usage(&read("stat")?, &read("status")?).with_context(|| format!("process {process}"))
}

fn parse_usage(stat: &str, status: &str) -> Result<Usage> {
    // The name, in brackets, may have blanks; utime and stime are the 14th and 15th field.
    let (_, after_name) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks: Vec<f64> =
        after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = ticks[..] else { bail!("no processor time in stat") };
    let memory_mb = |key: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kb = line.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        Ok(kb.with_context(|| format!("no {key} in status"))? / 1024.0)
    };
    Ok(Usage {
        cpu_s: (user + system) / TICKS_PER_S,
        resident_mb: memory_mb("VmRSS")?,
        peak_mb: memory_mb("VmHWM")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\ta b) c\nVmPeak:\t  9000 kB\nVmHWM:\t  4096 kB\nVmRSS:\t  2048 kB\n";

    #[test]
    fn usage_is_read() {
        let stat = "123 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        let expected = Usage { cpu_s: 3.0, resident_mb: 2.0, peak_mb: 4.0 };
        assert_eq!(parse_usage(stat, STATUS).unwrap(), expected);
        assert!(usage("self").unwrap().peak_mb > 0.0);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = parse_usage("1 (a) S 1 2 3", STATUS).unwrap_err().to_string();
        assert_eq!(error, "no processor time in stat");
        let stat = "1 (a) S 1 2 3 4 5 6 7 8 9 10 250 50";
        let error = parse_usage(stat, "VmRSS:\t1 kB\n").unwrap_err().to_string();
        assert_eq!(error, "no VmHWM in status");
    }

    #[test]
    fn a_service_says_where_it_listens() {
        let dir = std::env::temp_dir().join(format!("bench-serve-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let start = |script: &str| Service::start(Command::new("sh").args(["-c", script]), &dir.join("log"));
        let service = start("echo '{'; echo '\"http\": \"127.0.0.1:7\"}'; exec sleep 60").unwrap();
        assert_eq!(service.base, "http://127.0.0.1:7");
        assert!(!service.end().unwrap().success(), "sleep dies of SIGTERM");
        let error = format!("{:#}", start("echo broken >&2").err().unwrap());
        assert_eq!(error, "sh: broken: it ended before it listened");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
