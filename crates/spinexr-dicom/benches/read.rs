//! Reading and writing a film of full size, 2455 × 1606, by transfer syntax: `cargo bench -p spinexr-dicom`.
//!
//! The codings that are only read need files: `python samples/make_samples.py --films FOLDER` writes them, and
//! `SPINEXR_BENCH_FILMS=FOLDER` shows them to `read_stored`. Without it only the sample of 45 × 37 px is read.

use divan::{Bencher, counter::BytesCount};
use spinexr_dicom::{
    DxFilm, DxSyntax, Policy, ReadOptions, Stage, encode_dx, read_film, read_header, read_stage, write_dx,
};
use std::path::{Path, PathBuf};

const SYNTAXES: [DxSyntax; 4] =
    [DxSyntax::ExplicitLe, DxSyntax::Deflated, DxSyntax::RleLossless, DxSyntax::JpegLossless];

fn main() {
    divan::main();
}

/// A smooth picture with a few bits of noise, which compresses about as well as a radiograph.
fn film(transfer_syntax: DxSyntax) -> DxFilm {
    let (height, width) = (2455u32, 1606u32);
    let mut noise = 1u32;
    let pixels = (0..height * width)
        .map(|i| {
            let (y, x) = ((i / width) as f32 / height as f32, (i % width) as f32 / width as f32);
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let smooth = 1800.0 + 900.0 * (9.0 * y).sin() + 900.0 * (5.0 * x).cos();
            smooth as u16 + (noise >> 28) as u16
        })
        .collect();
    DxFilm { transfer_syntax, ..DxFilm::new(height, width, pixels) }
}

#[divan::bench(args = SYNTAXES, sample_count = 20)]
fn read_standard(bencher: Bencher, transfer_syntax: DxSyntax) {
    read(bencher, transfer_syntax, Policy::Standard);
}

#[divan::bench(args = SYNTAXES, sample_count = 20)]
fn read_vindr(bencher: Bencher, transfer_syntax: DxSyntax) {
    read(bencher, transfer_syntax, Policy::Vindr);
}

fn read(bencher: Bencher, transfer_syntax: DxSyntax, policy: Policy) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("film.dcm");
    let film = film(transfer_syntax);
    write_dx(&path, &film).expect("a valid film");
    let options = ReadOptions { policy, ..ReadOptions::default() };
    bencher
        .counter(BytesCount::of_slice(&film.pixels))
        .bench(|| read_film(&path, &options).expect("a valid file"));
}

#[divan::bench(args = SYNTAXES, sample_count = 20)]
fn header(bencher: Bencher, transfer_syntax: DxSyntax) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("film.dcm");
    write_dx(&path, &film(transfer_syntax)).expect("a valid film");
    let limits = ReadOptions::default().limits;
    bencher.bench(|| read_header(&path, &limits).expect("a valid file"));
}

#[divan::bench(args = SYNTAXES, sample_count = 20)]
fn encode(bencher: Bencher, transfer_syntax: DxSyntax) {
    let film = film(transfer_syntax);
    bencher.counter(BytesCount::of_slice(&film.pixels)).bench(|| encode_dx(&film));
}

/// Codings that are read and not written.
const READ_ONLY: [&str; 9] = [
    "baseline",
    "extended_12_bit",
    "lossless",
    "jpeg_ls",
    "jpeg_ls_near",
    "jpeg_2000",
    "jpeg_2000_lossy",
    "htj2k",
    "htj2k_lossy",
];

#[divan::bench(args = READ_ONLY, sample_count = 5, sample_size = 1)]
fn read_stored(bencher: Bencher, name: &str) {
    let folder = match std::env::var_os("SPINEXR_BENCH_FILMS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("samples"),
    };
    let path = folder.join(name).with_extension("dcm");
    let options = ReadOptions::default();
    bencher.bench(|| read_stage(&path, Stage::Stored, &options).expect("a valid file"));
}
