//! Reading and writing a film of full size, 2455 × 1606, by transfer syntax: `cargo bench -p spinexr-dicom`.

use divan::{Bencher, counter::BytesCount};
use spinexr_dicom::{DxFilm, DxSyntax, Policy, ReadOptions, encode_dx, read_film, read_header, write_dx};

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
