//! NumPy's `.npy` format, version 1.0: a header of text, then the values in little endian and C order.

use crate::error::WriteError;
use crate::film::{StageData, StageImage};
use spinexr_core::whole_file;
use std::path::Path;

/// Writes a stage as an array of shape `[H, W]` in the stage's own type, whole or not at all.
///
/// # Errors
/// [`WriteError::Io`] when the file system refuses.
pub fn write(path: &Path, image: &StageImage) -> Result<(), WriteError> {
    whole_file::write(path, &encode(image)).map_err(|source| WriteError::Io { path: path.into(), source })
}

/// The bytes of the file.
pub fn encode(image: &StageImage) -> Vec<u8> {
    let kind = match image.data {
        StageData::I32(_) => "<i4",
        StageData::F64(_) => "<f8",
        StageData::U8(_) => "|u1",
        StageData::F32(_) => "<f4",
    };
    let mut out = head(kind, image.height, image.width);
    match &image.data {
        StageData::I32(values) => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        StageData::F64(values) => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        StageData::U8(values) => out.extend_from_slice(values),
        StageData::F32(values) => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
    }
    out
}

/// The bytes of a file with an array of shape `[height, width]`; `values` in rows.
pub fn encode_f32(values: &[f32], height: usize, width: usize) -> Vec<u8> {
    let mut out = head("<f4", height, width);
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    out
}

/// All that comes before the values.
fn head(kind: &str, height: usize, width: usize) -> Vec<u8> {
    let dictionary = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({height}, {width}), }}");
    // Magic, version and length take 10 bytes; the values start at a multiple of 64, after a line feed.
    let head = (10 + dictionary.len() + 1).next_multiple_of(64);
    let mut out = Vec::with_capacity(head + height * width * 8);
    out.extend_from_slice(b"\x93NUMPY\x01\x00");
    out.extend_from_slice(&((head - 10) as u16).to_le_bytes());
    out.extend_from_slice(dictionary.as_bytes());
    out.resize(head - 1, b' ');
    out.push(b'\n');
    out
}
