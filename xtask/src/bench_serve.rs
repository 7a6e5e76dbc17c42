//! `cargo xtask bench-serve`: many senders at once, to `spinexr serve` and to a service of FastAPI and PyTorch in turn.
//!
//! Both serve one network, to the same senders, on the same films, A B A B …, each time in a process of its own. Both must
//! find the same in the films, or there is an error and no figure. At the end our service gets more than it has room for.

mod figures;
mod senders;
mod service;

use crate::bench_peers::{count, output, processor, python, warn_unless_quiet};
use anyhow::{Context, Result, bail, ensure};
use figures::{Overload, Round, Side, compare, table};
use senders::{Api, Sending, gauge, send_all};
use serde_json::json;
use service::{Service, usage};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const USAGE: &str = "\
Usage: cargo xtask bench-serve [OPTIONS]

Options:
  --films N        Films that are sent [300]
  --senders N      Senders at a time [50]
  --rounds N       Pairs of runs [2]
  --size PX        Height of the films [2455]
  --threads N      Threads of both services [2]
  --workers N      Films that our service reads at a time [as many as threads]
  --batch N        Most films that the peer's network gets at once [8]
  --max-waiting N  Films that may wait in the phase of overload [8]
  --spinexr PATH   A program that is built already
  --python EXE     An interpreter that has the packages of benches/peers/requirements.txt and requirements_serve.txt, in
                   place of the environment under target/bench-peers
  --quick          Few small films, one round, to try the command out; the figures mean nothing
";

/// Films before those that count: they wake both sides up, and show that both compute the same.
const WARM_UP: usize = 4;
/// Films that the norms and the scale of the network are taken from.
const SEEN: usize = 16;
/// How far probabilities may lie apart: with the same resize, and with the peer's rounding to 8 bits.
const SAME: f64 = 1e-3;
const ROUNDED: f64 = 0.05;

#[derive(Debug, Clone, PartialEq)]
struct Options {
    films: usize,
    senders: usize,
    rounds: usize,
    size_px: usize,
    threads: usize,
    workers: usize,
    batch: usize,
    max_waiting: usize,
    spinexr: Option<PathBuf>,
    python: Option<PathBuf>,
    quick: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let quick = args.iter().any(|arg| arg == "--quick");
        let (films, senders, rounds, size_px, max_waiting) =
            if quick { (16, 8, 1, 768, 2) } else { (300, 50, 2, 2455, 8) };
        let (threads, batch) = (2, 8);
        let (spinexr, python) = (None, None);
        let mut options = Self {
            films,
            senders,
            rounds,
            size_px,
            threads,
            workers: 0,
            batch,
            max_waiting,
            spinexr,
            python,
            quick,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
            match arg.as_str() {
                "--films" => options.films = count(arg, value()?)?,
                "--senders" => options.senders = count(arg, value()?)?,
                "--rounds" => options.rounds = count(arg, value()?)?,
                "--size" => options.size_px = count(arg, value()?)?,
                "--threads" => options.threads = count(arg, value()?)?,
                "--workers" => options.workers = count(arg, value()?)?,
                "--batch" => options.batch = count(arg, value()?)?,
                "--max-waiting" => options.max_waiting = count(arg, value()?)?,
                "--spinexr" => options.spinexr = Some(value()?.into()),
                "--python" => options.python = Some(value()?.into()),
                "--quick" => {}
                other => bail!("unknown option {other:?}\n{USAGE}"),
            }
        }
        if options.workers == 0 {
            options.workers = options.threads;
        }
        let room = options.max_waiting + options.workers;
        ensure!(
            options.senders > room && options.films >= options.senders,
            "expected more senders than the {room} films that may wait and be read, and at least as many films as \
             senders; got {} senders and {} films",
            options.senders,
            options.films
        );
        Ok(options)
    }
}

/// Makes films and network, measures, and prints the tables; all times go to `target/bench-serve/results.json`.
pub fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        eprint!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(args)?;
    let load = warn_unless_quiet();
    let target = crate::process::target_folder();
    let work = target.join("bench-serve");
    std::fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    let python = match &options.python {
        Some(python) => python.clone(),
        None => python::serve_environment(&target.join("bench-peers"))?,
    };
    let spinexr = match &options.spinexr {
        Some(program) => program.clone(),
        None => {
            crate::cargo(&["build", "--release", "--workspace", "--bins", "--locked"], &[])?;
            target.join("release/spinexr")
        }
    };
    let bench = Bench::prepare(options, work, spinexr, python)?;
    let bytes = bench.films.iter().map(|film| Ok(film.metadata()?.len())).collect::<Result<Vec<u64>>>()?;

    let (mut rounds, mut greatest) = (vec![], 0.0_f64);
    for number in 1..=bench.options.rounds {
        let (ours, warm) = bench.ours()?;
        eprintln!("xtask: round {number} of {}: ours {}", bench.options.rounds, ours.line());
        let (theirs, their_warm) = bench.theirs()?;
        eprintln!("xtask: round {number} of {}: theirs {}", bench.options.rounds, theirs.line());
        compare(&warm.films, &their_warm.films, SAME).context("without the peer's rounding")?;
        greatest = greatest.max(compare(&ours.sending.films, &theirs.sending.films, ROUNDED)?);
        rounds.push(Round { ours, theirs });
    }
    let overload = bench.overload()?;

    let command = [&["cargo xtask bench-serve".to_owned()], args].concat().join(" ");
    let versions = python::serve_versions(&bench.python)?;
    let file = bench.work.join("results.json");
    let document = json!({
        "command": command,
        "processor": processor(),
        "load_before": load,
        "quick": bench.options.quick,
        "film_bytes": bytes,
        "peers": versions,
        "greatest_difference": greatest,
        "rounds": rounds.iter().map(Round::to_json).collect::<Vec<_>>(),
        "overload": overload.to_json(),
    });
    std::fs::write(&file, format!("{document:#}")).with_context(|| format!("writing {}", file.display()))?;
    eprintln!("xtask: all times are in {}", file.display());

    let Options { films, senders, size_px, threads, workers, batch, .. } = &bench.options;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!("`{command}`: {}; {versions}.\n", processor());
    println!(
        "{films} synthetic films of {size_px} px height, {:.1} to {:.1} MB, {:.0} MB in all, by {senders} senders; \
         {threads} threads on both sides, ours {workers} films at a time, theirs batches of up to {batch}. No errors; \
         probabilities at most {greatest:.4} apart.\n",
        megabytes(bytes.iter().copied().min().unwrap_or_default()),
        megabytes(bytes.iter().copied().max().unwrap_or_default()),
        megabytes(bytes.iter().sum()),
    );
    println!("{}\n{}", table(&rounds), overload.table());
    Ok(())
}

/// What both sides need.
struct Bench {
    options: Options,
    work: PathBuf,
    spinexr: PathBuf,
    python: PathBuf,
    warm_up: Vec<PathBuf>,
    films: Vec<PathBuf>,
    weights: PathBuf,
    bundle: PathBuf,
}

impl Bench {
    /// Makes films and network anew: nothing is measured on what an older version made.
    fn prepare(options: Options, work: PathBuf, spinexr: PathBuf, python: PathBuf) -> Result<Self> {
        let synthetic = work.join("films");
        let wanted = WARM_UP.max(SEEN) + options.films;
        eprintln!("xtask: making films in {}", synthetic.display());
        clear(&synthetic)?;
        // A study has two films in the mean; few of them have a window that pydicom cannot read.
        let studies = wanted * 3 / 5 + 10;
        output(
            Command::new(&spinexr)
                .arg("synth")
                .arg(&synthetic)
                .args(["--studies", &studies.to_string(), "--test-studies", "0"])
                .args(["--size", &options.size_px.to_string(), "--quiet"]),
        )?;
        let listed = output(python::serve(&python, "1").arg("films").arg(synthetic.join("train_images")))?;
        let mut films: Vec<PathBuf> = serde_json::from_str(&listed).context("the list of films")?;
        ensure!(films.len() >= wanted, "{studies} studies gave {} films, expected {wanted}", films.len());
        films.truncate(wanted);
        let sent = films.split_off(wanted - options.films);

        eprintln!("xtask: making the network");
        let weights = work.join("densenet121.pth");
        let threads = options.threads.to_string();
        output(python::serve(&python, &threads).arg("weights").arg(&weights).args(&films))?;
        let bundle = work.join("densenet121.spinexr");
        clear(&bundle)?;
        output(
            Command::new(&spinexr)
                .args(["model", "import"])
                .arg(&weights)
                .args([
                    "--arch",
                    "densenet121",
                    "--source",
                    "torchvision",
                    "--input",
                    "224x224",
                    "--fit",
                    "stretch",
                ])
                .args(["--policy", "vindr", "--quiet", "-o"])
                .arg(&bundle),
        )?;
        films.truncate(WARM_UP);
        Ok(Self { options, work, spinexr, python, warm_up: films, films: sent, weights, bundle })
    }

    fn ours(&self) -> Result<(Side, Sending)> {
        // Room for all: whatever the default may be.
        let service = self.start_ours(self.options.films)?;
        let api = Api::Jobs { refusals: false };
        let measured = self.measure(&service, api, api).with_context(|| service.messages());
        let measured = measured.context("our side")?;
        self.end_ours(service)?;
        Ok(measured)
    }

    /// A service with an empty data folder.
    fn start_ours(&self, max_waiting: usize) -> Result<Service> {
        let data = self.data();
        clear(&data)?;
        let config = self.work.join("serve.toml");
        let text = format!("[queue]\nworkers = {}\nmax_waiting = {max_waiting}\n", self.options.workers);
        std::fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        Service::start(
            Command::new(&self.spinexr)
                .args(["serve", "--json", "--http", "127.0.0.1:0", "--dicom", "127.0.0.1:0", "--config"])
                .arg(&config)
                .arg("--data-dir")
                .arg(&data)
                .arg("--model")
                .arg(&self.bundle)
                .args(["--threads", &self.options.threads.to_string()]),
            &self.work.join("serve.log"),
        )
    }

    /// Ends it in good order, and has its audit log checked.
    fn end_ours(&self, service: Service) -> Result<()> {
        let status = service.end()?;
        ensure!(status.success(), "the service did not end in good order: {status}");
        let data = self.data();
        output(Command::new(&self.spinexr).args(["serve", "--verify-audit", "--data-dir"]).arg(&data))?;
        clear(&data)
    }

    fn data(&self) -> PathBuf {
        self.work.join("data")
    }

    fn theirs(&self) -> Result<(Side, Sending)> {
        let Options { threads, batch, .. } = &self.options;
        let mut command = python::serve(&self.python, &threads.to_string());
        command.arg("serve").arg(&self.weights);
        command.args(["--threads", &threads.to_string(), "--batch", &batch.to_string()]);
        let service = Service::start(&mut command, &self.work.join("peer.log"))?;
        let (warm_up, films) = (Api::Direct { rounded: false }, Api::Direct { rounded: true });
        let measured = self.measure(&service, warm_up, films).with_context(|| service.messages());
        let measured = measured.context("the peer")?;
        // uvicorn ends by the signal that it was told to end with.
        service.end()?;
        Ok(measured)
    }

    /// The films that count, and those before them.
    fn measure(&self, service: &Service, warm_up: Api, api: Api) -> Result<(Side, Sending)> {
        let warm = send_all(&service.base, warm_up, &self.warm_up, 1)?;
        let (before, own) = (service.usage()?, usage("self")?);
        let sending = send_all(&service.base, api, &self.films, self.options.senders)?;
        let after = service.usage()?;
        let senders_cpu_s = usage("self")?.cpu_s - own.cpu_s;
        Ok((Side { sending, before, after, senders_cpu_s }, warm))
    }

    /// All senders to a service that has room for few.
    fn overload(&self) -> Result<Overload> {
        let max_waiting = self.options.max_waiting;
        let service = self.start_ours(max_waiting)?;
        send_all(&service.base, Api::Jobs { refusals: false }, &self.warm_up, 1)?;
        let before = service.usage()?;
        let over = AtomicBool::new(false);
        let (sending, waiting) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| -> Result<usize> {
                let mut most = 0.0_f64;
                while !over.load(Ordering::Relaxed) {
                    most = most.max(gauge(&service.base, "spinexr_jobs{state=\"waiting\"}")?);
                    std::thread::sleep(Duration::from_millis(200));
                }
                Ok(most as usize)
            });
            let api = Api::Jobs { refusals: true };
            let sending = send_all(&service.base, api, &self.films, self.options.senders);
            over.store(true, Ordering::Relaxed);
            (sending, watcher.join().expect("the watcher does not panic"))
        });
        let sending = sending.with_context(|| service.messages()).context("overload")?;
        let after = service.usage()?;
        let done = gauge(&service.base, "spinexr_jobs{state=\"done\"}")? as usize;
        let expected = self.warm_up.len() + self.films.len();
        ensure!(done == expected, "the service has {done} films that are read, expected {expected}");
        self.end_ours(service)?;
        let overload = Overload { sending, max_waiting, waiting: waiting?, before, after };
        overload.check()?;
        Ok(overload)
    }
}

/// Takes a folder away, if it is there.
fn clear(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options() {
        let options = parse(&["--films", "60", "--threads", "4", "--spinexr", "p"]).unwrap();
        assert_eq!((options.films, options.senders, options.rounds, options.size_px), (60, 50, 2, 2455));
        assert_eq!((options.threads, options.workers, options.spinexr), (4, 4, Some("p".into())));
        let quick = parse(&["--films", "20", "--quick"]).unwrap();
        assert_eq!((quick.films, quick.senders, quick.rounds, quick.size_px), (20, 8, 1, 768));
        assert_eq!(parse(&["--quick", "--films", "20"]).unwrap(), quick);
    }

    #[test]
    fn wrong_options_are_named() {
        for (args, expected) in [
            (&["--films", "x"][..], "--films: expected a whole number from 1, got \"x\""),
            (&["--senders"], "--senders needs a value"),
            (&["--senders", "10"], "expected more senders than the 10 films that may wait and be read"),
            (&["--films", "49"], "expected more senders than the 10 films that may wait and be read"),
            (&["--round", "2"], "unknown option \"--round\""),
        ] {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
