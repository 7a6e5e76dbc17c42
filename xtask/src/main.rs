//! Developer commands: `cargo xtask check` is what CI runs and what a contributor runs before sending a change.

mod bench_peers;
mod bench_serve;
mod one_build;
mod paper_tables;
mod process;
mod sbom;
mod spine_films;

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Instant;

const USAGE: &str = "\
Developer commands of spinexr

Usage: cargo xtask <COMMAND>

Commands:
  check   Formatting, clippy with warnings denied, documentation, and the README's test command
  fmt     Only the formatting check
  lint    Only clippy
  doc     Only the documentation build
  test    Only the README's test command
  walls   Only the check that crates depend on nothing but what ARCHITECTURE.md allows
  one-build     Only the check that the program and its tests share one build of what they depend on
  sbom    What goes into the program, as CycloneDX, into target/sbom.cdx.json; --help tells its options
  demo-bundle   Run the demo and put its bundle into bundles/demo.spinexr, which the program carries
  bench-peers   Our benchmark and the Python stack in turn, and their ratios; --help tells its options
  bench-serve   Many senders to our service and to one of FastAPI and PyTorch in turn; --help tells its options
  paper-tables  Both tables of the paper on synthetic films, for every detector; --help tells its options
  spine-films   Detectors on a public set of real spine films beside torchvision's; --help tells its options

Examples:
  cargo xtask check
  cargo xtask lint
  cargo xtask bench-peers --rounds 3 --cases densenet121-infer-b1,prepare
";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("check") => {
            for step in [format, lint, walls, one_build::check, doc, test] {
                step()?;
            }
            eprintln!("xtask: all checks passed");
            Ok(())
        }
        Some("fmt") => format(),
        Some("lint") => lint(),
        Some("doc") => doc(),
        Some("test") => test(),
        Some("walls") => walls(),
        Some("one-build") => one_build::check(),
        Some("sbom") => sbom::run(&args[1..]),
        Some("demo-bundle") => demo_bundle(),
        Some("bench-peers") => bench_peers::run(&args[1..]),
        Some("bench-serve") => bench_serve::run(&args[1..]),
        Some("paper-tables") => paper_tables::run(&args[1..]),
        Some("spine-films") => spine_films::run(&args[1..]),
        Some("help" | "--help" | "-h") | None => {
            eprint!("{USAGE}");
            Ok(())
        }
        Some(other) => {
            eprint!("{USAGE}");
            bail!("unknown command {other:?}")
        }
    }
}

fn format() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])
}

fn lint() -> Result<()> {
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])
}

fn doc() -> Result<()> {
    cargo(&["doc", "--workspace", "--no-deps", "--locked"], &[("RUSTDOCFLAGS", "-D warnings")])
}

/// The README's test command, word for word.
fn test() -> Result<()> {
    cargo(&["test", "--release", "--workspace"], &[])
}

/// The bundle inside the program, made anew. It is the demo's own: the same seed gives the same weights.
fn demo_bundle() -> Result<()> {
    let target = Path::new("bundles/demo.spinexr");
    let parts = ["bundle.toml", "card.md", "weights.safetensors"];
    std::fs::create_dir_all(target).with_context(|| format!("creating {}", target.display()))?;
    for part in parts {
        // The program does not build without the files, and the demo does not look into them.
        let path = target.join(part);
        if !path.exists() {
            std::fs::write(&path, "").with_context(|| format!("writing {}", path.display()))?;
        }
    }
    // As the README runs it: naming the package would resolve other features and build the engine anew.
    cargo(&["run", "--release", "--", "demo", "--out", "target/demo-bundle"], &[])?;
    for part in parts {
        let made = Path::new("target/demo-bundle/framework.spinexr").join(part);
        std::fs::copy(&made, target.join(part)).with_context(|| format!("copying {}", made.display()))?;
    }
    eprintln!("xtask: {} is new; build again to carry it", target.display());
    Ok(())
}

/// The crates that each crate may name, as in the table of ARCHITECTURE.md; dev-dependencies are free.
const WALLS: &[(&str, &[&str])] = &[
    ("spinexr-core", &[]),
    ("spinexr-dicom", &["spinexr-core"]),
    ("spinexr-synth", &["spinexr-core", "spinexr-dicom"]),
    ("spinexr-data", &["spinexr-core", "spinexr-dicom"]),
    ("spinexr-ops", &[]),
    ("spinexr-models", &["spinexr-core", "spinexr-ops"]),
    ("spinexr-eval", &["spinexr-core"]),
    (
        "spinexr-train",
        &["spinexr-core", "spinexr-data", "spinexr-dicom", "spinexr-eval", "spinexr-models", "spinexr-ops"],
    ),
    ("spinexr-infer", &["spinexr-core", "spinexr-data", "spinexr-dicom", "spinexr-models", "spinexr-ops"]),
    ("spinexr-serve", &["spinexr-core", "spinexr-dicom", "spinexr-eval"]),
];

/// Only these may name the tensor engine.
const ENGINE_USERS: &[&str] = &["spinexr-ops", "spinexr-models", "spinexr-train", "spinexr-infer"];

/// Only this may name dicom-rs, but for its network protocol, which [`DICOM_NETWORK`]'s user speaks.
const DICOM_USER: &str = "spinexr-dicom";

/// The crate of the DICOM upper layer protocol, and the only crate that may name it.
const DICOM_NETWORK: (&str, &str) = ("dicom-ul", "spinexr-serve");

fn walls() -> Result<()> {
    eprintln!("xtask: crate walls");
    for entry in std::fs::read_dir("crates").context("reading crates/ (run from the repository root)")? {
        let manifest = entry?.path().join("Cargo.toml");
        let text =
            std::fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
        let name = field(&text, "name").with_context(|| format!("no name in {}", manifest.display()))?;
        let allowed = WALLS.iter().find(|(n, _)| *n == name).map(|(_, allowed)| *allowed);
        for dependency in dependencies(&text) {
            if let Some(allowed) = allowed
                && dependency.starts_with("spinexr-")
                && !allowed.contains(&dependency.as_str())
            {
                bail!("{name} depends on {dependency}; ARCHITECTURE.md allows {allowed:?}");
            }
            if dependency == "burn" && !ENGINE_USERS.contains(&name.as_str()) {
                bail!("{name} depends on the tensor engine; only {ENGINE_USERS:?} may");
            }
            let user = if dependency == DICOM_NETWORK.0 { DICOM_NETWORK.1 } else { DICOM_USER };
            if dependency.starts_with("dicom-") && name != user {
                bail!("{name} depends on {dependency}; only {user} may");
            }
        }
    }
    Ok(())
}

fn field(manifest: &str, key: &str) -> Option<String> {
    let line = manifest.lines().find(|l| l.starts_with(&format!("{key} =")))?;
    Some(line.split('"').nth(1)?.to_owned())
}

/// Names in `[dependencies]`, not those in `[dev-dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    manifest
        .lines()
        .skip_while(|l| l.trim() != "[dependencies]")
        .skip(1)
        .take_while(|l| !l.starts_with('['))
        .filter_map(|l| {
            let name = l.split(['=', '.']).next()?.trim();
            (!name.is_empty() && !name.starts_with('#')).then(|| name.to_owned())
        })
        .collect()
}

fn cargo(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    eprintln!("xtask: cargo {}", args.join(" "));
    let start = Instant::now();
    let status = process::cargo()
        .args(args)
        .envs(env.iter().copied())
        .status()
        .with_context(|| format!("starting cargo {}", args[0]))?;
    if !status.success() {
        bail!("cargo {} failed ({status})", args.join(" "));
    }
    eprintln!("xtask: cargo {} took {:.0} s", args[0], start.elapsed().as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_stop_at_the_next_table() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\nserde.workspace = true\n\
                        burn = { version = \"1\" }\n# note\n[dev-dependencies]\nproptest = \"1\"\n";
        assert_eq!(dependencies(manifest), ["serde", "burn"]);
        assert_eq!(field(manifest, "name").as_deref(), Some("a"));
    }
}
