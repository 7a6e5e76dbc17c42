//! `cargo xtask bench-peers`: our benchmark and the Python stack in turn, A B A B …, and their ratios.
//!
//! Each case runs in processes of its own, on inputs that are made anew; both sides say what they computed, and a
//! case whose two sides computed different things is an error, not a figure. A ratio of medians from one run holds
//! better than the times do, since both sides meet the same machine.

pub mod python;
pub mod ratios;

use anyhow::{Context, Result, bail};
use ratios::{CaseResult, Run, markdown, parse_run, seconds_text, table};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

const USAGE: &str = "\
Usage: cargo xtask bench-peers [OPTIONS]

Options:
  --rounds N     Pairs of processes a case [5]
  --cases A,B    Only these cases
  --threads N    Threads on both sides [2]
  --python EXE   An interpreter that has the packages of benches/peers/requirements.txt, in place of the
                 environment under target/bench-peers
  --markdown     Print the table as docs/benchmarks.md has it
  --tiny         Sizes that run in seconds, to try the command out; the ratios mean nothing
";

/// Most processes that may have run in the last minute for a machine to count as quiet.
const QUIET_LOAD: f64 = 0.5;

/// How a case is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `spinexr-bench run` and `peers.py run`: a warm-up, then so many iterations in one process.
    InProcess,
    /// `spinexr predict` and `cold_start.py`, whole processes timed from outside, both by `peers.py meter`.
    ColdStart,
}

/// A case of the table.
#[derive(Debug)]
struct Case {
    name: &'static str,
    what: &'static str,
    kind: Kind,
    iterations: usize,
    /// How far the two sides' results may lie apart, relative.
    tolerance: f64,
}

const fn case(name: &'static str, what: &'static str, iterations: usize, tolerance: f64) -> Case {
    Case { name, what, kind: Kind::InProcess, iterations, tolerance }
}

/// Single precision on both sides: the same network differs by its order of summing. Resizes differ by Pillow's
/// rounding between its passes, resampling by the random numbers.
const CASES: &[Case] = &[
    case("densenet121-infer-b1", "DenseNet-121, 224²: inference, one image", 10, 1e-3),
    case("densenet121-infer-b8", "DenseNet-121, 224²: inference, batch of 8", 5, 1e-3),
    case("densenet121-step-b8", "DenseNet-121, 224²: forward + backward, batch of 8", 3, 1e-3),
    case("retinanet-r50-infer", "RetinaNet-R50-FPN, 800×1216: inference to boxes", 2, 1e-2),
    case("retinanet-r50-step", "RetinaNet-R50-FPN, 800×1216: forward + backward", 1, 1e-3),
    case("sparse-rcnn-r50-infer", "Sparse R-CNN-R50-FPN, 800×1216: inference to boxes", 2, 1e-2),
    case("sparse-rcnn-r50-step", "Sparse R-CNN-R50-FPN, 800×1216: forward + backward", 1, 1e-3),
    case("prepare", "24 DICOM films of full size to 1344×896 on the disk", 3, 1e-2),
    case("coco-eval", "COCO AP at seven IoUs: 2,077 films, 100 boxes each", 3, 1e-9),
    case(
        "bootstrap",
        "bootstrap of the AUROC: 2,077 films, 10,000 resamples (scikit-learn: 500, scaled)",
        3,
        1e-2,
    ),
    Case {
        name: "cold-start",
        what: "one film with DenseNet-121, whole process",
        kind: Kind::ColdStart,
        iterations: 3,
        tolerance: 0.0, // whole programs tell no number to compare
    },
];

#[derive(Debug)]
struct Options {
    rounds: usize,
    cases: Vec<&'static Case>,
    threads: usize,
    python: Option<PathBuf>,
    markdown: bool,
    tiny: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self {
            rounds: 5,
            cases: CASES.iter().collect(),
            threads: 2,
            python: None,
            markdown: false,
            tiny: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
            match arg.as_str() {
                "--rounds" => options.rounds = count(arg, value()?)?,
                "--threads" => options.threads = count(arg, value()?)?,
                "--cases" => options.cases = value()?.split(',').map(named).collect::<Result<_>>()?,
                "--python" => options.python = Some(value()?.into()),
                "--markdown" => options.markdown = true,
                "--tiny" => options.tiny = true,
                other => bail!("unknown option {other:?}\n{USAGE}"),
            }
        }
        if options.markdown && options.tiny {
            bail!("--markdown names the cases by their full sizes; leave out --tiny");
        }
        Ok(options)
    }
}

/// The value of an option that counts something.
pub fn count(option: &str, value: &str) -> Result<usize> {
    match value.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => bail!("{option}: expected a whole number from 1, got {value:?}"),
    }
}

fn named(name: &str) -> Result<&'static Case> {
    CASES.iter().find(|case| case.name == name).with_context(|| {
        let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        format!("unknown case {name:?}, expected some of {}", known.join(", "))
    })
}

/// Runs the cases and prints the table; all times go to `target/bench-peers/results.json`.
pub fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        eprint!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(args)?;
    // Looked at before the build, which is load itself.
    let load = warn_unless_quiet();
    let target = crate::process::target_folder();
    let work = target.join("bench-peers");
    std::fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    let python = match &options.python {
        Some(python) => python.clone(),
        None => python::environment(&work)?,
    };
    // The whole workspace, so that a contributor's build serves.
    crate::cargo(&["build", "--release", "--workspace", "--bins", "--locked"], &[])?;
    let sides = Sides {
        programs: target.join("release"),
        inputs: work.join("inputs"),
        python,
        threads: options.threads.to_string(),
    };
    sides.make_inputs(options.tiny)?;

    let mut results = vec![];
    for case in &options.cases {
        let mut rounds = vec![];
        for round in 1..=options.rounds {
            let ours = sides.ours(case).with_context(|| format!("{}, our side", case.name))?;
            let theirs = sides.theirs(case).with_context(|| format!("{}, the peer", case.name))?;
            ours.agrees_with(&theirs, case.tolerance).with_context(|| case.name.to_owned())?;
            eprintln!(
                "xtask: {}, round {round} of {}: ours {}, theirs {}",
                case.name,
                options.rounds,
                seconds_text(ours.median()),
                seconds_text(theirs.median())
            );
            rounds.push((ours, theirs));
        }
        let memory = case.kind == Kind::ColdStart;
        results.push(CaseResult { name: case.name, what: case.what, memory, rounds });
    }

    let command = [&["cargo xtask bench-peers".to_owned()], args].concat().join(" ");
    let versions = python::versions(&sides.python)?;
    let file = work.join("results.json");
    let document = json!({
        "command": command,
        "processor": processor(),
        "load_before": load,
        "threads": options.threads,
        "tiny": options.tiny,
        "peers": versions,
        "cases": results.iter().map(CaseResult::to_json).collect::<Vec<_>>(),
    });
    std::fs::write(&file, format!("{document:#}")).with_context(|| format!("writing {}", file.display()))?;
    eprintln!("xtask: all times are in {}", file.display());
    if options.markdown {
        let threads = options.threads;
        println!("`{command}`: {}, {threads} threads on both sides; {versions}.\n", processor());
        print!("{}", markdown(&results));
    } else {
        print!("{}", table(&results));
    }
    Ok(())
}

/// The programs of both sides and what they read.
struct Sides {
    /// Folder of our binaries.
    programs: PathBuf,
    inputs: PathBuf,
    python: PathBuf,
    threads: String,
}

impl Sides {
    /// Made anew each time: it takes seconds, and nothing is measured on what an older version made.
    fn make_inputs(&self, tiny: bool) -> Result<()> {
        eprintln!("xtask: making inputs in {}", self.inputs.display());
        if self.inputs.exists() {
            std::fs::remove_dir_all(&self.inputs)
                .with_context(|| format!("removing {}", self.inputs.display()))?;
        }
        let mut ours = Command::new(self.programs.join("spinexr-bench"));
        ours.arg("inputs").arg(&self.inputs).args(tiny.then_some("--tiny"));
        output(&mut ours)?;
        output(self.peers().arg("inputs").arg(&self.inputs))?;
        Ok(())
    }

    fn ours(&self, case: &Case) -> Result<Run> {
        match case.kind {
            Kind::InProcess => self.in_process(case, &mut Command::new(self.programs.join("spinexr-bench"))),
            Kind::ColdStart => self.metered(case, |meter| {
                meter
                    .arg(self.programs.join("spinexr"))
                    .arg("predict")
                    .arg(self.inputs.join("film.dicom"))
                    .arg("--model")
                    .arg(self.inputs.join("densenet121.spinexr"))
                    .args(["--quiet", "--threads", &self.threads]);
            }),
        }
    }

    fn theirs(&self, case: &Case) -> Result<Run> {
        match case.kind {
            Kind::InProcess => self.in_process(case, &mut self.peers()),
            Kind::ColdStart => self.metered(case, |meter| {
                meter
                    .arg(&self.python)
                    .arg(python::COLD_START)
                    .arg(self.inputs.join("film.dicom"))
                    .arg(self.inputs.join("densenet121.pt"))
                    .arg(self.inputs.join("sizes.json"))
                    .arg(&self.threads);
            }),
        }
    }

    fn in_process(&self, case: &Case, program: &mut Command) -> Result<Run> {
        program
            .args([
                "run",
                case.name,
                "--threads",
                &self.threads,
                "--iterations",
                &case.iterations.to_string(),
            ])
            .arg("--inputs")
            .arg(&self.inputs);
        parse_run(&output(program)?, case.name)
    }

    /// Both sides' whole programs are timed by the same small process.
    fn metered(&self, case: &Case, add_command: impl FnOnce(&mut Command)) -> Result<Run> {
        let mut meter = self.peers();
        meter.args(["meter", case.name, "--iterations", &case.iterations.to_string(), "--"]);
        add_command(&mut meter);
        parse_run(&output(&mut meter)?, case.name)
    }

    fn peers(&self) -> Command {
        python::peers(&self.python, &self.threads)
    }
}

/// What a command prints; what it says on stderr is shown only when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.output().with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!("{program} failed ({})\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed bytes that are not UTF-8"))
}

/// The load of the last minute, where the system tells it; says so where the machine has other work.
pub fn warn_unless_quiet() -> Option<f64> {
    let load = load_average(&std::fs::read_to_string("/proc/loadavg").unwrap_or_default());
    if let Some(load) = load.filter(|load| *load > QUIET_LOAD) {
        eprintln!(
            "xtask: the machine is not quiet (load {load}), which PyTorch's threads were seen to suffer from more than \
             ours: these figures are not for quoting"
        );
    }
    load
}

/// The first figure of `/proc/loadavg`: the mean number of running processes over a minute.
fn load_average(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Its name, and how many cores there are.
pub fn processor() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores", name.map_or(std::env::consts::ARCH, str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options() {
        let options = parse(&["--rounds", "3", "--cases", "prepare,cold-start", "--markdown"]).unwrap();
        let names: Vec<_> = options.cases.iter().map(|case| case.name).collect();
        assert_eq!((options.rounds, options.threads, names), (3, 2, vec!["prepare", "cold-start"]));
        assert!(options.markdown && !options.tiny);
        assert_eq!(parse(&[]).unwrap().cases.len(), CASES.len());
    }

    #[test]
    fn the_load_is_read() {
        assert_eq!(load_average("2.42 3.37 3.13 3/179 4711\n"), Some(2.42));
        assert_eq!(load_average(""), None);
    }

    #[test]
    fn wrong_options_are_named() {
        for (args, expected) in [
            (&["--rounds", "0"][..], "--rounds: expected a whole number from 1, got \"0\""),
            (&["--threads"], "--threads needs a value"),
            (&["--cases", "prepare,x"], "unknown case \"x\""),
            (&["--tiny", "--markdown"], "--markdown names the cases by their full sizes"),
            (&["--round", "2"], "unknown option \"--round\""),
        ] {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
