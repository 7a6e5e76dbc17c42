//! `cargo xtask sbom`: what goes into the program, as a CycloneDX document.
//!
//! The crates and who needs whom come from `cargo tree`, which resolves features as the build does; `cargo metadata`
//! unites them over the whole workspace and its tests, and would name crates that the program does not have. Crates
//! that only run while it is built (build scripts, derive macros) are left out. Licences and folders come from `cargo
//! metadata`, checksums from Cargo.lock. There is no time and no random number in it: the same tree gives the same bytes.
//!
//! Format: CycloneDX 1.5, <https://cyclonedx.org/docs/1.5/json/>; names of packages: <https://github.com/package-url/purl-spec>.

use crate::process::cargo_says;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const USAGE: &str = "\
Usage: cargo xtask sbom [OPTIONS]

Options:
  --out FILE         Where to write it [target/sbom.cdx.json]
  --features LIST    Features of the program, as in its build
  --target TRIPLE    The platform that it is built for [this one]
";

const PROGRAM: &str = "spinexr";

#[derive(Debug, Default)]
struct Options {
    out: Option<PathBuf>,
    /// Of cargo, for both of its commands.
    features: Vec<String>,
    target: Option<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().cloned().with_context(|| format!("{arg} needs a value\n{USAGE}"));
            match arg.as_str() {
                "--out" => options.out = Some(value()?.into()),
                "--features" => options.features = vec!["--features".to_owned(), value()?],
                "--target" => options.target = Some(value()?),
                other => bail!("unknown option {other:?}\n{USAGE}"),
            }
        }
        Ok(options)
    }
}

pub fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        eprint!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(args)?;
    let target = match options.target {
        Some(target) => target,
        None => host()?,
    };
    let features = options.features.iter().map(String::as_str);
    let tree = ["tree", "--locked", "--package", PROGRAM, "--edges", "normal,no-proc-macro"]
        .into_iter()
        .chain(["--target", &target, "--prefix", "depth", "--format", "{p}", "--charset", "ascii"])
        .chain(features.clone());
    let tree = cargo_says(&tree.collect::<Vec<_>>())?;
    // By the program's own manifest, so that features have the names that they have in its build.
    let manifest = format!("crates/{PROGRAM}/Cargo.toml");
    let metadata = ["metadata", "--locked", "--format-version", "1", "--filter-platform", &target]
        .into_iter()
        .chain(["--manifest-path", &manifest])
        .chain(features);
    let metadata = cargo_says(&metadata.collect::<Vec<_>>())?;
    let lock =
        std::fs::read_to_string("Cargo.lock").context("reading Cargo.lock (run from the repository root)")?;

    let graph = Graph::parse(&tree)?;
    let facts = facts(&metadata, &lock)?;
    let document = document(&graph, &facts, &carried(&graph, &facts)?)?;

    let out = options.out.unwrap_or_else(|| PathBuf::from("target/sbom.cdx.json"));
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(&document).expect("a JSON value has a text") + "\n";
    std::fs::write(&out, text).with_context(|| format!("writing {}", out.display()))?;
    eprintln!("xtask: {}: {} crates of {PROGRAM} for {target}", out.display(), graph.needs.len());
    Ok(())
}

/// The platform that cargo builds for by itself.
fn host() -> Result<String> {
    let version = cargo_says(&["version", "--verbose"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.with_context(|| format!("no host in {version:?}"))?.to_owned())
}

/// A crate at a version. Two sources of one name and version would be one here; `Facts` refuses them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
}

/// Which crate needs which.
#[derive(Debug)]
struct Graph {
    program: Package,
    needs: BTreeMap<Package, BTreeSet<Package>>,
}

impl Graph {
    /// Reads `cargo tree --prefix depth`: `2rustix v1.1.6`, with ` (*)` where a crate's own needs were listed above.
    fn parse(tree: &str) -> Result<Self> {
        let mut needs: BTreeMap<Package, BTreeSet<Package>> = BTreeMap::new();
        let mut above: Vec<Package> = Vec::new();
        for line in tree.lines().filter(|line| !line.is_empty()) {
            let start =
                line.find(|c: char| !c.is_ascii_digit()).context("a line of cargo tree without a crate")?;
            let depth: usize = line[..start].parse().with_context(|| format!("no depth in {line:?}"))?;
            let mut words = line[start..].split(' ');
            let (name, version) = (words.next(), words.next().and_then(|word| word.strip_prefix('v')));
            let (Some(name), Some(version)) = (name, version) else { bail!("no crate in {line:?}") };
            let package = Package { name: name.to_owned(), version: version.to_owned() };
            ensure!(depth <= above.len(), "{line:?} is deeper than the line before it allows");
            above.truncate(depth);
            needs.entry(package.clone()).or_default();
            if let Some(user) = above.last() {
                needs.entry(user.clone()).or_default().insert(package.clone());
            }
            above.push(package);
        }
        ensure!(above.first().is_some_and(|p| p.name == PROGRAM), "cargo tree does not begin with {PROGRAM}");
        Ok(Self { program: above.swap_remove(0), needs })
    }
}

/// What is known of a crate.
#[derive(Debug)]
struct Facts {
    /// An SPDX expression; `None` where the crate has only a file.
    license: Option<String>,
    folder: PathBuf,
    /// SHA-256 of the crate's archive; `None` for a crate of this workspace.
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

fn facts(metadata: &str, lock: &str) -> Result<BTreeMap<Package, Facts>> {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let lock: Lock = toml::from_str(lock).context("Cargo.lock")?;
    let mut checksums = BTreeMap::new();
    for locked in lock.package {
        let package = Package { name: locked.name, version: locked.version };
        ensure!(
            locked.source.as_deref().is_none_or(|source| source == REGISTRY),
            "{} {} is not from crates.io but from {:?}: its purl would be wrong",
            package.name,
            package.version,
            locked.source
        );
        ensure!(
            locked.source.is_some() == locked.checksum.is_some(),
            "Cargo.lock: {} {}: a checksum is what a crate from a registry has",
            package.name,
            package.version
        );
        ensure!(
            checksums.insert(package.clone(), locked.checksum).is_none(),
            "Cargo.lock has {package:?} twice"
        );
    }
    let metadata: Value = serde_json::from_str(metadata).context("cargo metadata")?;
    let mut facts = BTreeMap::new();
    for package in metadata["packages"].as_array().context("cargo metadata: no packages")? {
        let text = |key: &str| package[key].as_str().map(str::to_owned);
        let (Some(name), Some(version), Some(manifest)) =
            (text("name"), text("version"), text("manifest_path"))
        else {
            bail!("cargo metadata: a package without name, version or manifest");
        };
        let folder = Path::new(&manifest).parent().context("a manifest lies in no folder")?.to_owned();
        let package = Package { name, version };
        let Some(checksum) = checksums.remove(&package) else {
            bail!("{} {} is not in Cargo.lock", package.name, package.version);
        };
        facts.insert(package, Facts { license: text("license").as_deref().map(spdx), folder, checksum });
    }
    Ok(facts)
}

/// Cargo's old form `MIT/Apache-2.0` means `OR`.
fn spdx(license: &str) -> String {
    license.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// What a crate carries that is no crate itself, and has its own name, licence and flaws.
#[derive(Debug)]
struct Carried {
    user: Package,
    component: Value,
}

/// SQLite, whose weaknesses are published under its own name, and the font of the plots, which has another licence.
fn carried(graph: &Graph, facts: &BTreeMap<Package, Facts>) -> Result<Vec<Carried>> {
    let mut carried = Vec::new();
    for user in graph.needs.keys() {
        if user.name == "libsqlite3-sys" {
            let header =
                facts.get(user).context("libsqlite3-sys is unknown")?.folder.join("sqlite3/sqlite3.h");
            let text =
                std::fs::read_to_string(&header).with_context(|| format!("reading {}", header.display()))?;
            let version =
                sqlite_version(&text).with_context(|| format!("no version in {}", header.display()))?;
            carried.push(Carried {
                user: user.clone(),
                component: json!({
                    "type": "library", "bom-ref": format!("pkg:generic/sqlite@{version}"), "name": "sqlite",
                    "version": version, "purl": format!("pkg:generic/sqlite@{version}"),
                    "cpe": format!("cpe:2.3:a:sqlite:sqlite:{version}:*:*:*:*:*:*:*"),
                    "licenses": [{"expression": "blessing"}],
                }),
            });
        }
        if user.name == "spinexr-eval" {
            carried.push(Carried {
                user: user.clone(),
                component: json!({
                    "type": "file", "bom-ref": "plot_font.ttf", "name": "plot_font.ttf",
                    "description": "Subset of DejaVu Sans", "licenses": [{"expression": "Bitstream-Vera"}],
                }),
            });
        }
    }
    Ok(carried)
}

fn sqlite_version(header: &str) -> Option<&str> {
    let line = header.lines().find_map(|line| line.strip_prefix("#define SQLITE_VERSION "))?;
    line.trim().strip_prefix('"')?.strip_suffix('"')
}

/// The name under which scanners know a crate. Those of this workspace are not on crates.io, where somebody else's
/// crate may have their name.
fn purl(package: &Package, facts: &Facts) -> String {
    let kind = if facts.checksum.is_some() { "cargo" } else { "generic" };
    // `+` of a version's build part is the one character of crates.io's names and versions that a purl encodes.
    format!("pkg:{kind}/{}@{}", package.name, package.version.replace('+', "%2B"))
}

fn document(graph: &Graph, facts: &BTreeMap<Package, Facts>, carried: &[Carried]) -> Result<Value> {
    let known = |package: &Package| {
        facts
            .get(package)
            .with_context(|| format!("cargo metadata does not know {} {}", package.name, package.version))
    };
    let reference = |package: &Package| Ok::<_, anyhow::Error>(purl(package, known(package)?));
    let component = |package: &Package| {
        let facts = known(package)?;
        let kind = if *package == graph.program { "application" } else { "library" };
        let mut component = json!({
            "type": kind, "bom-ref": purl(package, facts), "name": package.name, "version": package.version,
            "purl": purl(package, facts),
        });
        let license = facts
            .license
            .as_deref()
            .with_context(|| format!("{} {} names no licence", package.name, package.version))?;
        component["licenses"] = json!([{ "expression": license }]);
        if let Some(checksum) = &facts.checksum {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        let parts: Vec<&Value> =
            carried.iter().filter(|c| c.user == *package).map(|c| &c.component).collect();
        if !parts.is_empty() {
            component["components"] = json!(parts);
        }
        Ok::<_, anyhow::Error>(component)
    };
    let components =
        graph.needs.keys().filter(|p| **p != graph.program).map(component).collect::<Result<Vec<_>>>()?;
    let dependencies = graph
        .needs
        .iter()
        .map(|(package, needs)| {
            let mut needs = needs.iter().map(reference).collect::<Result<Vec<_>>>()?;
            for part in carried.iter().filter(|c| c.user == *package) {
                needs.push(part.component["bom-ref"].as_str().context("a part without a name")?.to_owned());
            }
            Ok(json!({ "ref": reference(package)?, "dependsOn": needs }))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "lifecycles": [{ "phase": "build" }],
            "tools": { "components": [{ "type": "application", "name": "cargo xtask sbom", "version": env!("CARGO_PKG_VERSION") }] },
            "component": component(&graph.program)?,
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "\
0spinexr v0.1.0 (/src/crates/spinexr)
1libsqlite3-sys v0.38.1+x
2bits v2.0.0
1spinexr-core v0.1.0 (/src/crates/spinexr-core)
2bits v1.0.0
1bits v2.0.0 (*)
";

    const LOCK: &str = r#"
version = 4
[[package]]
name = "bits"
version = "1.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "11"
[[package]]
name = "bits"
version = "2.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "22"
[[package]]
name = "libsqlite3-sys"
version = "0.38.1+x"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "33"
[[package]]
name = "spinexr"
version = "0.1.0"
[[package]]
name = "spinexr-core"
version = "0.1.0"
[[package]]
name = "only-for-tests"
version = "9.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "99"
"#;

    fn metadata() -> String {
        let package = |name: &str, version: &str, license: &str| json!({ "name": name, "version": version, "license": license, "manifest_path": format!("/src/{name}/Cargo.toml") });
        let packages = [
            package("bits", "1.0.0", "MIT/Apache-2.0"),
            package("bits", "2.0.0", "MIT"),
            package("libsqlite3-sys", "0.38.1+x", "MIT"),
            package("spinexr", "0.1.0", "Apache-2.0"),
            package("spinexr-core", "0.1.0", "Apache-2.0"),
            package("only-for-tests", "9.0.0", "MIT"),
        ];
        json!({ "packages": packages }).to_string()
    }

    fn made(tree: &str, carried: &[Carried]) -> Result<Value> {
        document(&Graph::parse(tree)?, &facts(&metadata(), LOCK)?, carried)
    }

    #[test]
    fn the_tree_and_nothing_else_is_listed() {
        let made = made(TREE, &[]).expect("a document");
        let names: Vec<&str> = made["components"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|c| c["bom-ref"].as_str().expect("text"))
            .collect();
        let wanted = [
            "pkg:cargo/bits@1.0.0",
            "pkg:cargo/bits@2.0.0",
            "pkg:cargo/libsqlite3-sys@0.38.1%2Bx",
            "pkg:generic/spinexr-core@0.1.0",
        ];
        assert_eq!(names, wanted);
        assert_eq!(
            made["components"][0],
            json!({
                "type": "library", "bom-ref": wanted[0], "name": "bits", "version": "1.0.0", "purl": wanted[0],
                "licenses": [{"expression": "MIT OR Apache-2.0"}], "hashes": [{"alg": "SHA-256", "content": "11"}],
            })
        );
        let program = &made["metadata"]["component"];
        assert_eq!(
            (&program["type"], &program["purl"]),
            (&json!("application"), &json!("pkg:generic/spinexr@0.1.0"))
        );
        assert!(made["components"][3].get("hashes").is_none(), "a crate of this workspace has no archive");
        let needs: BTreeMap<&str, &Value> = made["dependencies"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|d| (d["ref"].as_str().expect("text"), &d["dependsOn"]))
            .collect();
        assert_eq!(needs.len(), 5);
        assert_eq!(*needs["pkg:generic/spinexr@0.1.0"], json!([wanted[1], wanted[2], wanted[3]]));
        assert_eq!(*needs[wanted[2]], json!([wanted[1]]));
        assert_eq!(*needs[wanted[3]], json!([wanted[0]]));
        assert_eq!(*needs[wanted[1]], json!([]));
    }

    #[test]
    fn what_a_crate_carries_is_part_of_it() {
        let user = Package { name: "libsqlite3-sys".to_owned(), version: "0.38.1+x".to_owned() };
        let part = json!({ "type": "library", "bom-ref": "pkg:generic/sqlite@3.1", "name": "sqlite" });
        let made = made(TREE, &[Carried { user, component: part.clone() }]).expect("a document");
        assert_eq!(made["components"][2]["components"], json!([part]));
        assert_eq!(
            made["dependencies"][2]["dependsOn"],
            json!(["pkg:cargo/bits@2.0.0", "pkg:generic/sqlite@3.1"])
        );
        assert_eq!(
            sqlite_version("#define SQLITE_VERSION        \"3.54.1\"\n#define SQLITE_VERSION_NUMBER 3"),
            Some("3.54.1")
        );
        assert_eq!(sqlite_version("#define SQLITE_VERSION_NUMBER 3"), None);
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        let fails = |tree: &str| format!("{:#}", made(tree, &[]).expect_err("an error"));
        assert!(fails("0spinexr v0.1.0\n1stranger v1.0.0\n").contains("does not know stranger 1.0.0"));
        assert!(fails("0other v0.1.0\n").contains("does not begin with spinexr"));
        assert!(fails("0spinexr v0.1.0\n2bits v2.0.0\n").contains("deeper"));
        let git = LOCK
            .replace("registry+https://github.com/rust-lang/crates.io-index", "git+https://example.org/x");
        assert!(facts(&metadata(), &git).expect_err("an error").to_string().contains("not from crates.io"));
        let bare = LOCK.replace("checksum = \"22\"\n", "");
        assert!(facts(&metadata(), &bare).expect_err("an error").to_string().contains("bits 2.0.0"));
    }
}
