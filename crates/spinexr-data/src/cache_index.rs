//! The two files of a prepared cache: `films.u16` or `films.u8`, pixels one film after another, and `index.log`, one
//! line a film.
//!
//! Both are only ever appended to while films are prepared, pixels before their line, so that a kill at any
//! moment leaves at worst a torn tail. A line is its own CRC-32 and a JSON record that carries the pixels'
//! CRC-32: what a kill or a power cut tore is recognised and made again. Of two lines of one film the later
//! counts.

use crate::error::{reading, writing};
use crate::resize::RESIZE_VERSION;
use crate::{DataError, InputSize};
use serde::{Deserialize, Serialize};
use spinexr_core::{FilmFacts, whole_file};
use spinexr_dicom::Policy;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const FORMAT: &str = "spinexr prepared films";
pub(crate) const VERSION: u32 = 2;

/// Films between two flushes to the disk.
const SYNC_EVERY: usize = 128;

/// How many bits of a grey value are kept. Half the disk and half the reading for 8; the films that models see then
/// have 256 grey values, as those of the paper's own recipe have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelDepth {
    /// 16 bits, little endian.
    #[default]
    U16,
    /// 8 bits, rounded.
    U8,
}

impl PixelDepth {
    /// Name of the pixel file.
    const fn file_name(self) -> &'static str {
        match self {
            Self::U16 => "films.u16",
            Self::U8 => "films.u8",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::U16 => Self::U8,
            Self::U8 => Self::U16,
        }
    }

    /// Bytes of one film's pixels.
    pub(crate) fn film_bytes(self, input: &InputSize) -> u64 {
        let bytes = match self {
            Self::U16 => 2,
            Self::U8 => 1,
        };
        u64::from(input.height_px) * u64::from(input.width_px) * bytes
    }

    /// The pixels of a film as the file's bytes.
    pub(crate) fn to_bytes(self, pixels: &[u16]) -> Vec<u8> {
        match self {
            Self::U16 => pixels.iter().flat_map(|v| v.to_le_bytes()).collect(),
            // 257 · 255 = 65535: a value of 8 bits comes back as itself.
            Self::U8 => pixels.iter().map(|&v| ((u32::from(v) + 128) / 257) as u8).collect(),
        }
    }

    /// The pixels of a film from the file's bytes, on the scale of 16 bits.
    pub(crate) fn pixels(self, bytes: &[u8]) -> Vec<u16> {
        match self {
            Self::U16 => bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect(),
            Self::U8 => bytes.iter().map(|&b| u16::from(b) * 257).collect(),
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// First line of an index: films made under another header are of no use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) format: String,
    pub(crate) version: u32,
    pub(crate) resize_version: u32,
    pub(crate) policy: Policy,
    pub(crate) frame: u32,
    pub(crate) input: InputSize,
    // Absent where it is 16 bits: caches from before there was a choice.
    #[serde(default, skip_serializing_if = "PixelDepth::is_default")]
    pub(crate) depth: PixelDepth,
}

impl Header {
    pub(crate) fn new(policy: Policy, frame: u32, input: InputSize, depth: PixelDepth) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            resize_version: RESIZE_VERSION,
            policy,
            frame,
            input,
            depth,
        }
    }
}

/// Size and time of a film's file when it was read: a film whose file has changed is prepared again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceStamp {
    pub(crate) bytes: u64,
    pub(crate) modified_ns: u64,
}

impl SourceStamp {
    pub(crate) fn of(path: &Path) -> Result<Self, DataError> {
        let metadata = path.metadata().map_err(reading(path))?;
        // A file system without times gives 0 for all, and the size alone decides.
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(Self { bytes: metadata.len(), modified_ns: modified.map_or(0, |t| t.as_nanos() as u64) })
    }
}

/// One prepared film.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) image_id: String,
    /// Place of the pixels in the pixel file, bytes.
    pub(crate) offset: u64,
    /// CRC-32 of the pixels' bytes.
    pub(crate) crc32: u32,
    /// SHA-256 of the pixels' bytes, for the data hash of a run.
    pub(crate) sha256: String,
    pub(crate) film_height_px: u32,
    pub(crate) film_width_px: u32,
    pub(crate) source: SourceStamp,
    pub(crate) provenance: serde_json::Value,
    pub(crate) facts: FilmFacts,
}

/// The folder of one policy and input size.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

impl Folder {
    pub(crate) fn new(dir: &Path, policy: Policy, input: &InputSize) -> Self {
        let name = format!("{}-{}x{}-{}", policy.name(), input.height_px, input.width_px, input.fit.name());
        Self { path: dir.join(name) }
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.path.join("index.log")
    }

    pub(crate) fn pixels(&self, depth: PixelDepth) -> PathBuf {
        self.path.join(depth.file_name())
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }
}

/// What an index holds.
pub(crate) struct Index {
    /// `None` when the first line is unreadable.
    pub(crate) header: Option<Header>,
    /// Records whose line and place are sound, in file order; an id may come twice.
    pub(crate) records: Vec<Record>,
    /// Lines that are torn or point outside the pixel file.
    pub(crate) unsound: usize,
}

/// Reads an index; `None` when there is none.
pub(crate) fn read_index(folder: &Folder, input: &InputSize) -> Result<Option<Index>, DataError> {
    let path = folder.index();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataError::Read { path, source }),
    };
    let mut lines = bytes.split_inclusive(|&b| b == b'\n');
    let header = lines.next().and_then(parse_line::<Header>);
    let depth = header.as_ref().map_or_else(PixelDepth::default, |header| header.depth);
    // A pixel file that is not there holds nothing.
    let pixels_len = folder.pixels(depth).metadata().map_or(0, |m| m.len());
    let mut index = Index { header, records: Vec::new(), unsound: 0 };
    for line in lines {
        match parse_line::<Record>(line) {
            Some(r) if r.offset.checked_add(depth.film_bytes(input)).is_some_and(|end| end <= pixels_len) => {
                index.records.push(r);
            }
            _ => index.unsound += 1,
        }
    }
    Ok(Some(index))
}

fn parse_line<T: serde::de::DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line = line.strip_suffix(b"\n")?;
    let (crc, json) = line.split_at_checked(9)?;
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?.strip_suffix(' ')?, 16).ok()?;
    if crc32fast::hash(json) != crc {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn format_line<T: Serialize>(value: &T) -> Vec<u8> {
    let json = serde_json::to_vec(value).expect("headers and records have string keys only");
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

/// A film's bytes from an open pixel file, not yet checked.
pub(crate) fn read_bytes(file: &mut File, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

/// Appends films to a cache folder.
pub(crate) struct Appender {
    folder: Folder,
    depth: PixelDepth,
    pixels: File,
    index: File,
    end: u64,
    unsynced: usize,
}

impl Appender {
    /// Makes the folder's files hold exactly `kept` (the pixels stay where they are), ready for more.
    /// `rewrite` tells that the index on disk holds anything else.
    pub(crate) fn open(
        folder: &Folder,
        header: &Header,
        kept: &[Record],
        rewrite: bool,
    ) -> Result<Self, DataError> {
        let depth = header.depth;
        let (index_path, pixels_path) = (folder.index(), folder.pixels(depth));
        if rewrite {
            let mut text = format_line(header);
            for record in kept {
                text.extend(format_line(record));
            }
            whole_file::write(&index_path, &text).map_err(writing(&index_path))?;
        }
        // Pixels of the other depth are those of an index that is no more.
        let outdated = folder.pixels(depth.other());
        match std::fs::remove_file(&outdated) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(writing(&outdated)(e)),
            _ => {}
        }
        let pixels =
            OpenOptions::new().create(true).append(true).open(&pixels_path).map_err(writing(&pixels_path))?;
        let end = kept.iter().map(|r| r.offset + depth.film_bytes(&header.input)).max().unwrap_or(0);
        // Cuts off pixels whose line was never written.
        pixels.set_len(end).map_err(writing(&pixels_path))?;
        let index = OpenOptions::new().append(true).open(&index_path).map_err(writing(&index_path))?;
        Ok(Self { folder: folder.clone(), depth, pixels, index, end, unsynced: 0 })
    }

    /// Appends one film; `record.offset` is set here.
    pub(crate) fn append(&mut self, mut record: Record, bytes: &[u8]) -> Result<(), DataError> {
        record.offset = self.end;
        self.pixels.write_all(bytes).map_err(writing(&self.folder.pixels(self.depth)))?;
        self.end += bytes.len() as u64;
        self.index.write_all(&format_line(&record)).map_err(writing(&self.folder.index()))?;
        self.unsynced += 1;
        if self.unsynced >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    pub(crate) fn depth(&self) -> PixelDepth {
        self.depth
    }

    /// Brings everything to the disk, pixels first.
    pub(crate) fn sync(&mut self) -> Result<(), DataError> {
        self.pixels.sync_data().map_err(writing(&self.folder.pixels(self.depth)))?;
        self.index.sync_data().map_err(writing(&self.folder.index()))?;
        self.unsynced = 0;
        Ok(())
    }
}
