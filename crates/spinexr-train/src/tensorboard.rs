//! TensorBoard event files with scalars, written without TensorBoard.
//!
//! A file is a sequence of TFRecords: length (u64), masked CRC-32C of the length, the record, masked CRC-32C
//! of the record, all little-endian. A record is a protobuf `Event`; the few fields needed are encoded by
//! hand: `wall_time` (1, double), `step` (2, int64), `file_version` (3, string), `summary` (5) with values (1)
//! of `tag` (1, string) and `simple_value` (2, float).
//!
//! Source: tensorflow/core/util/event.proto, framework/summary.proto, lib/io/record_writer.h.

use crate::TrainError;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Name of the events file in a run. TensorBoard wants `tfevents` in it; a suffix of ours would let a glob for
/// bundles, `*.spinexr`, catch it too.
pub const FILE_NAME: &str = "events.out.tfevents.0.run";

/// An events file open for appending.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl EventFile {
    /// Begins a new file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path, wall_time_s: f64) -> Result<Self, TrainError> {
        let file = File::create(path).map_err(TrainError::io(path, "create"))?;
        let mut events = Self { path: path.to_owned(), file, bytes: 0 };
        events.append(&version_event(wall_time_s))?;
        Ok(events)
    }

    /// Continues a file from its first `bytes` bytes; what follows them is dropped.
    ///
    /// # Errors
    /// When the file is shorter than that, or cannot be written.
    pub fn resume(path: &Path, bytes: u64) -> Result<Self, TrainError> {
        let file = open_at(path, bytes)?;
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    /// Appends scalars of one step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn scalars(&mut self, step: u64, wall_time_s: f64, values: &[(&str, f64)]) -> Result<(), TrainError> {
        self.append(&scalar_event(step, wall_time_s, values))
    }

    /// Bytes written so far, after making them durable.
    ///
    /// # Errors
    /// When the file cannot be synced.
    pub fn sync(&mut self) -> Result<u64, TrainError> {
        self.file.sync_data().map_err(TrainError::io(&self.path, "sync"))?;
        Ok(self.bytes)
    }

    fn append(&mut self, event: &[u8]) -> Result<(), TrainError> {
        let record = frame(event);
        self.file.write_all(&record).map_err(TrainError::io(&self.path, "write"))?;
        self.bytes += record.len() as u64;
        Ok(())
    }
}

/// Opens `path` for writing behind its first `bytes` bytes and drops the rest.
pub(crate) fn open_at(path: &Path, bytes: u64) -> Result<File, TrainError> {
    let mut file = OpenOptions::new().write(true).open(path).map_err(TrainError::io(path, "open"))?;
    let got = file.metadata().map_err(TrainError::io(path, "read the length"))?.len();
    if got < bytes {
        return Err(TrainError::LogTooShort { path: path.to_owned(), expected: bytes, got });
    }
    file.set_len(bytes).map_err(TrainError::io(path, "truncate"))?;
    file.seek(SeekFrom::Start(bytes)).map_err(TrainError::io(path, "seek"))?;
    Ok(file)
}

fn version_event(wall_time_s: f64) -> Vec<u8> {
    let mut event = Vec::new();
    put_fixed64(&mut event, 1, wall_time_s);
    put_bytes(&mut event, 3, b"brain.Event:2");
    event
}

fn scalar_event(step: u64, wall_time_s: f64, values: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, tag.as_bytes());
        put_key(&mut entry, 2, 5);
        entry.extend_from_slice(&(*value as f32).to_le_bytes());
        put_bytes(&mut summary, 1, &entry);
    }
    let mut event = Vec::new();
    put_fixed64(&mut event, 1, wall_time_s);
    put_key(&mut event, 2, 0);
    put_varint(&mut event, step);
    put_bytes(&mut event, 5, &summary);
    event
}

fn put_key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(out, field << 3 | wire_type);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_fixed64(out: &mut Vec<u8>, field: u64, value: f64) {
    put_key(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_crc(data).to_le_bytes());
    record
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with Castagnoli's polynomial, bit by bit: records are a hundred bytes.
fn crc32c(data: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78; // 0x1edc6f41 reflected
    !data.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ POLYNOMIAL } else { c >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_published_vectors() {
        // RFC 3720, appendix B.4, and the usual check value.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn tensorboard_takes_the_name_and_a_glob_for_bundles_does_not() {
        assert!(FILE_NAME.contains("tfevents"));
        assert_ne!(Path::new(FILE_NAME).extension().and_then(|e| e.to_str()), Some("spinexr"));
    }

    #[test]
    fn an_event_is_the_protobuf_it_should_be() {
        let event = scalar_event(300, 1.5, &[("loss", 0.25)]);
        let mut expected = vec![0x09];
        expected.extend_from_slice(&1.5f64.to_le_bytes());
        expected.extend_from_slice(&[0x10, 0xac, 0x02]); // step 300
        expected.extend_from_slice(&[0x2a, 13, 0x0a, 11, 0x0a, 4]);
        expected.extend_from_slice(b"loss");
        expected.push(0x15);
        expected.extend_from_slice(&0.25f32.to_le_bytes());
        assert_eq!(event, expected);
    }

    #[test]
    fn a_resumed_file_drops_what_came_after_the_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let mut events = EventFile::create(&path, 0.0).unwrap();
        events.scalars(1, 0.0, &[("loss", 1.0)]).unwrap();
        let at = events.sync().unwrap();
        events.scalars(2, 0.0, &[("loss", 0.5)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut again = EventFile::resume(&path, at).unwrap();
        again.scalars(2, 0.0, &[("loss", 0.5)]).unwrap();
        drop(again);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert!(matches!(EventFile::resume(&path, 1 << 20), Err(TrainError::LogTooShort { .. })));
    }
}
