//! Every file of the shared DICOM collection, compared stage by stage with the values its index lists.
#![allow(clippy::unwrap_used)] // in a helper, as in a test, it fails the test

use serde_json::Value;
use sha2::{Digest, Sha256};
use spinexr_core::hex;
use spinexr_dicom::{Policy, ReadError, ReadOptions, Stage, StageData, StageImage, read_header, read_stage};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Transfer syntaxes that are decoded. Everything else has to fail by its name.
const DECODED: [&str; 18] = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.53",
    "1.2.840.10008.1.2.4.55",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
];

fn shared_folder() -> Option<PathBuf> {
    let folder = match std::env::var_os("SPINEXR_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    }
    .join("data/dicom");
    folder.join("index.json").is_file().then_some(folder)
}

/// How one file came out.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Verdict {
    /// All listed values met.
    Exact,
    /// Colour or float pixels read; the index lists no grey values for them.
    Read,
    /// Refused, as the index allows.
    Refused,
    /// Not decoded by this crate, refused by the transfer syntax's name.
    Unsupported,
    /// Neither.
    Wrong,
}

#[test]
fn every_file_of_the_collection_reads_as_listed() {
    let Some(folder) = shared_folder() else {
        println!("skipped: no shared DICOM collection (set SPINEXR_SHARED)");
        return;
    };
    let index: Value = serde_json::from_slice(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let mut counts: BTreeMap<(String, Verdict), usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for record in index["files"].as_array().unwrap() {
        let name = record["path"].as_str().unwrap();
        let path = folder.join(name);
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| judge(&path, record)));
        let (verdict, reason) = match result {
            Ok(Ok(verdict)) => (verdict, String::new()),
            Ok(Err(reason)) => (Verdict::Wrong, reason),
            Err(_) => (Verdict::Wrong, "panicked".into()),
        };
        if began.elapsed() > Duration::from_secs(20) {
            wrong.push(format!("{name}: took {:?}", began.elapsed()));
        }
        if verdict == Verdict::Wrong {
            wrong.push(format!("{name}: {reason}"));
        }
        let syntax = record["transfer_syntax"].as_str().unwrap_or("none").to_string();
        *counts.entry((syntax, verdict)).or_default() += 1;
    }
    println!(
        "{:26} {:>7} {:>7} {:>7} {:>11} {:>7}",
        "transfer syntax", "exact", "read", "refused", "unsupported", "wrong"
    );
    let syntaxes: std::collections::BTreeSet<_> = counts.keys().map(|(syntax, _)| syntax.clone()).collect();
    let all = [Verdict::Exact, Verdict::Read, Verdict::Refused, Verdict::Unsupported, Verdict::Wrong];
    for syntax in &syntaxes {
        let n = all.map(|v| counts.get(&(syntax.clone(), v)).copied().unwrap_or(0));
        println!("{syntax:26} {:>7} {:>7} {:>7} {:>11} {:>7}", n[0], n[1], n[2], n[3], n[4]);
    }
    let n = all.map(|v| counts.iter().filter(|((_, w), _)| *w == v).map(|(_, n)| n).sum::<usize>());
    println!("{:26} {:>7} {:>7} {:>7} {:>11} {:>7}", "all", n[0], n[1], n[2], n[3], n[4]);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(n[0] > 100, "only {} files exact", n[0]);
}

/// Compares one file with its record; `Err` says what differs.
fn judge(path: &Path, record: &Value) -> Result<Verdict, String> {
    let expected = &record["expected"];
    let accept: Vec<&str> =
        expected["accept"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    let syntax = record["transfer_syntax"].as_str();
    let options = ReadOptions::default();
    // The header must never panic either, whatever it returns.
    let _ = read_header(path, &options.limits);
    let stored = match read_stage(path, Stage::Stored, &options) {
        Ok(stored) => stored,
        Err(error) => return refused(&error, &accept, syntax, path),
    };
    if !accept.contains(&"ok") {
        return Err(format!("read, but {accept:?} expected"));
    }
    if expected["outcome"] != "ok" {
        return Ok(Verdict::Read);
    }
    let size = (record["rows"].as_u64(), record["columns"].as_u64());
    if size != (Some(stored.height as u64), Some(stored.width as u64)) {
        return Err(format!("{} x {} pixels, {size:?} expected", stored.height, stored.width));
    }
    if expected["color"] == true || expected["stored"].is_null() {
        for policy in [Policy::Standard, Policy::Vindr] {
            read_stage(path, Stage::Display, &ReadOptions { policy, ..options })
                .map_err(|e| e.to_string())?;
        }
        return Ok(Verdict::Read);
    }
    compare(path, &stored, expected, &options)?;
    Ok(Verdict::Exact)
}

fn refused(error: &ReadError, accept: &[&str], syntax: Option<&str>, path: &Path) -> Result<Verdict, String> {
    let text = error.to_string();
    if !text.contains(path.file_name().unwrap().to_str().unwrap()) {
        return Err(format!("the error does not name the file: {text}"));
    }
    let outcome = if matches!(error, ReadError::NoPixelData { .. }) { "no_pixels" } else { "error" };
    if accept.contains(&outcome) {
        return Ok(Verdict::Refused);
    }
    match (error, syntax) {
        (ReadError::UnsupportedTransferSyntax { uid, .. }, Some(syntax)) if uid == syntax => {
            if DECODED.contains(&syntax) {
                return Err(format!("{syntax} is to be decoded"));
            }
            Ok(Verdict::Unsupported)
        }
        _ => Err(format!("{accept:?} expected, {outcome}: {text}")),
    }
}

fn floats(image: &StageImage) -> Vec<f64> {
    match &image.data {
        StageData::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        StageData::F64(v) => v.clone(),
        StageData::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
        StageData::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn compare(path: &Path, stored: &StageImage, expected: &Value, options: &ReadOptions) -> Result<(), String> {
    let lossy = expected["lossy"] == true;
    let StageData::I32(values) = &stored.data else { return Err("stored values are not i32".into()) };
    if !lossy {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        if expected["stored_sha256"] != sha256(&bytes) {
            summary("stored", &floats(stored), &expected["stored"], |a, b| a == b)?;
            return Err("stored values differ".into());
        }
    }
    let tolerance = expected["stored_tolerance"].as_f64().unwrap_or(0.0);
    summary("stored", &floats(stored), &expected["stored"], |a, b| (a - b).abs() <= tolerance + 1e-9)?;

    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) + 1e-12;
    if !lossy {
        let modality = read_stage(path, Stage::Modality, options).map_err(|e| e.to_string())?;
        summary("modality", &floats(&modality), &expected["modality"], near)?;
        let by_standard = &expected["voi_by_standard"];
        let voi_expected = if by_standard.is_null() { &expected["voi"] } else { by_standard };
        // Where pydicom failed or used what is no number, the index lists no comparable VOI values.
        if expected["voi_error"].is_null() && !voi_expected.is_null() {
            let voi = read_stage(path, Stage::Voi, options).map_err(|e| e.to_string())?;
            if !path.ends_with("window_center_inf.dcm") {
                summary("voi", &floats(&voi), voi_expected, near)?;
            }
        }
        let vindr = ReadOptions { policy: Policy::Vindr, ..*options };
        let display = read_stage(path, Stage::Display, &vindr).map_err(|e| e.to_string())?;
        let StageData::U8(pixels) = &display.data else { return Err("vindr is not u8".into()) };
        match expected["vindr8_sha256"].as_str() {
            Some(sha) if display.provenance.fallback.is_some() => {
                return Err(format!("vindr fell back although {sha} is expected"));
            }
            Some(sha) if sha != sha256(pixels) => return Err("vindr pixels differ".into()),
            None if display.provenance.fallback.is_none() => {
                return Err("vindr fallback is not marked".into());
            }
            _ => {}
        }
    }
    let display = read_stage(path, Stage::Display, options).map_err(|e| e.to_string())?;
    let tolerance = expected["standard_tolerance"].as_f64().unwrap_or(0.0) + 1e-5;
    let close = |a: f64, b: f64| (a - b).abs() <= tolerance;
    let shown = floats(&display);
    summary("standard", &shown, &expected["standard"], close).or_else(|error| {
        let alternative = &expected["standard_alternative"];
        if alternative.is_null() { Err(error) } else { summary("standard", &shown, alternative, close) }
    })
}

/// Compares least, greatest, mean and the samples.
fn summary(
    stage: &str,
    values: &[f64],
    expected: &Value,
    same: impl Fn(f64, f64) -> bool,
) -> Result<(), String> {
    let count = values.len() as f64;
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mean = values.iter().sum::<f64>() / count;
    for (name, found) in [("min", least), ("max", greatest), ("mean", mean)] {
        let Some(wanted) = expected[name].as_f64() else { return Err(format!("{stage}: no {name} listed")) };
        let close_mean = name == "mean" && (wanted - found).abs() <= 1e-9 * wanted.abs().max(1.0);
        if !close_mean && !same(found, wanted) {
            return Err(format!("{stage}: {name} is {found}, {wanted} expected"));
        }
    }
    for (k, wanted) in expected["samples"].as_array().into_iter().flatten().enumerate() {
        let at = ((k as u64 + 1) * 2_654_435_761 % values.len() as u64) as usize;
        let wanted = wanted.as_f64().unwrap();
        if !same(values[at], wanted) {
            return Err(format!("{stage}: value {at} is {}, {wanted} expected", values[at]));
        }
    }
    Ok(())
}
