//! One build serves the program and its tests: cargo unites the features of what it builds together, and the dependencies of
//! tests count only where tests are built. A feature that only tests ask for makes a second copy of its crate and of all
//! that depends on that, here the tensor engine: many minutes, of a user who tests and then runs the demo, and of CI.

use crate::process::cargo_says;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// The features that a crate is built with; several sets where it is built several times.
type Builds = BTreeMap<String, BTreeSet<String>>;

pub fn check() -> Result<()> {
    eprintln!("xtask: one build for the program and its tests");
    let tree = |edges: &str, packages: &[&str]| {
        let args = ["tree", "--locked", "--prefix", "none", "--format", "{p}\t{f}", "--edges", edges];
        Ok::<_, anyhow::Error>(builds(&cargo_says(&[&args, packages].concat())?))
    };
    let program = tree("normal,build", &[])?;
    let tests = tree("normal,build,dev", &["--workspace"])?;
    let twice = built_twice(&program, &tests);
    if !twice.is_empty() {
        bail!(
            "tests need other features than the program, so these are built twice:\n{}\n\
             name the features in crates/spinexr/Cargo.toml, too, beside those that are there for this reason",
            twice.join("\n")
        );
    }
    Ok(())
}

/// Reads `cargo tree --prefix none --format "{p}\t{f}"`; ` (*)` marks a crate that was listed above.
fn builds(tree: &str) -> Builds {
    let mut builds = Builds::new();
    for line in tree.lines() {
        if let Some((package, features)) = line.trim_end_matches(" (*)").split_once('\t') {
            builds.entry(package.to_owned()).or_default().insert(features.to_owned());
        }
    }
    builds
}

fn built_twice(program: &Builds, tests: &Builds) -> Vec<String> {
    let none = BTreeSet::new();
    let mut twice = Vec::new();
    for (package, wanted) in program {
        let there = tests.get(package).unwrap_or(&none);
        for features in wanted.difference(there) {
            let there = there.iter().map(|f| format!("[{f}]")).collect::<Vec<_>>().join(", ");
            twice.push(format!("  {package}: the program has [{features}], tests {there}"));
        }
    }
    twice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_only_tests_ask_for_is_found() {
        let program = builds(
            "spinexr v0.1.0 (/src)\t\nregex v1.0.0\tperf\nserde v1.0.0\tstd\nregex v1.0.0\tperf (*)\n",
        );
        let tests = "spinexr v0.1.0 (/src)\t\nregex v1.0.0\tperf\nserde v1.0.0\tstd\nserde v1.0.0\talloc\nproptest v1.0.0\t\n";
        assert_eq!(built_twice(&program, &builds(tests)), Vec::<String>::new());
        let other = tests.replace("perf", "perf,std");
        let twice = built_twice(&program, &builds(&other));
        assert_eq!(twice, ["  regex v1.0.0: the program has [perf], tests [perf,std]"]);
    }
}
