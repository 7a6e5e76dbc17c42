//! What the fuzz targets share: a DICOM file around a coded stream, and how it is read.

use spinexr_dicom::{Limits, ReadOptions, Stage, read_stage_from};
use std::path::Path;

/// Bytes of a fuzz input before its stream: rows, columns, depth, form.
pub const HEAD: usize = 4;

/// A DICOM file whose pixels are `input[HEAD..]` in the transfer syntax `uid`. The head chooses rows and columns
/// (1 to 256), bits stored (1 to 16), and by its bits signed values, colour, and YBR_RCT.
pub fn film(uid: &str, input: &[u8]) -> Option<Vec<u8>> {
    let (&[rows, columns, depth, form], stream) = input.split_first_chunk::<HEAD>()?;
    let bits = u16::from(depth % 16) + 1;
    let (signed, colour) = (u16::from(form & 1), form & 2 != 0);
    let photometric = match (colour, form & 4 != 0) {
        (true, true) => "YBR_RCT ",
        (true, false) => "RGB ",
        (false, _) => "MONOCHROME2 ",
    };
    let mut file = vec![0; 128];
    file.extend_from_slice(b"DICM");
    element(&mut file, 0x0002_0010, b"UI", uid.as_bytes());
    element(&mut file, 0x0008_0060, b"CS", b"DX");
    let words = [
        (0x0028_0002, if colour { 3 } else { 1 }),
        (0x0028_0010, u16::from(rows) + 1),
        (0x0028_0011, u16::from(columns) + 1),
        (0x0028_0100, if bits > 8 { 16 } else { 8 }),
        (0x0028_0101, bits),
        (0x0028_0102, bits - 1),
        (0x0028_0103, signed),
    ];
    for (tag, value) in words {
        if tag == 0x0028_0010 {
            element(&mut file, 0x0028_0004, b"CS", photometric.as_bytes());
        }
        element(&mut file, tag, b"US", &value.to_le_bytes());
    }
    file.extend_from_slice(b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\0\0\0\0\xFE\xFF\x00\xE0");
    let padded = stream.len().next_multiple_of(2);
    file.extend_from_slice(&(padded as u32).to_le_bytes());
    file.extend_from_slice(stream);
    file.resize(file.len() + padded - stream.len(), 0);
    file.extend_from_slice(b"\xFE\xFF\xDD\xE0\0\0\0\0");
    Some(file)
}

fn element(file: &mut Vec<u8>, tag: u32, vr: &[u8; 2], value: &[u8]) {
    file.extend_from_slice(&((tag >> 16) as u16).to_le_bytes());
    file.extend_from_slice(&(tag as u16).to_le_bytes());
    file.extend_from_slice(vr);
    file.extend_from_slice(&(value.len().next_multiple_of(2) as u16).to_le_bytes());
    file.extend_from_slice(value);
    if !value.len().is_multiple_of(2) {
        file.push(0);
    }
}

/// Small limits, so that a run is short.
pub fn limits() -> Limits {
    Limits { max_file_bytes: 1 << 20, max_pixels: 1 << 18, ..Limits::default() }
}

/// Reads a file to its display pixels under small limits; the outcome does not matter, only that there is one.
pub fn read(file: Vec<u8>) {
    let options = ReadOptions { limits: limits(), ..ReadOptions::default() };
    let _ = read_stage_from(Path::new("fuzz.dcm"), file, Stage::Display, &options);
}

/// Reads `input` as a stream in each of the transfer syntaxes with these ends.
pub fn read_stream(input: &[u8], syntaxes: &[&str]) {
    for syntax in syntaxes {
        if let Some(file) = film(&format!("1.2.840.10008.1.2.{syntax}"), input) {
            read(file);
        }
    }
}

/// Decoders of other crates may panic, which the reader turns into an error; libFuzzer would stop at it. A panic of
/// our own crate is a finding.
pub fn allow_panics_of_other_crates() {
    std::panic::set_hook(Box::new(|panic| {
        let file = panic.location().map_or("", |location| location.file());
        if file.contains("spinexr") || !file.contains(".cargo/registry") {
            eprintln!("{panic}");
            std::process::abort();
        }
    }));
}
