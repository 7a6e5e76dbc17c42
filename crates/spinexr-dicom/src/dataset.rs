//! The data set of a DICOM file: where each wanted value lies, found without recursion and without copies.
//!
//! dicom-rs' token reader walks the elements. It is used in place of its object builder because that one
//! recurses into sequences, so that a small file of nested sequences overflows the stack, which no caller can
//! catch. Every length is checked against the bytes that are there before it is used.

use crate::error::ReadError;
use crate::options::Limits;
use crate::syntax::Syntax;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::Path;

/// Most fragments of encapsulated pixel data.
const MAX_FRAGMENTS: usize = 1 << 20;

/// How much of the data set is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything before Pixel Data (7FE0,0010), and whether that is there.
    Header,
    /// Pixel Data as well.
    Whole,
}

/// A value in the bytes of the data set.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    pub vr: VR,
    pub range: Range<usize>,
}

/// Where Pixel Data (7FE0,0010) lies.
#[derive(Debug, Clone)]
pub(crate) enum PixelLocation {
    /// There, but not looked into ([`Extent::Header`]).
    Present,
    /// One value.
    Native(Element),
    /// Fragments after a basic offset table (PS3.5 A.4).
    Encapsulated { offsets: Vec<u32>, fragments: Vec<Range<usize>> },
}

/// Elements by tag.
pub(crate) type Elements = BTreeMap<Tag, Element>;

/// A parsed data set over its bytes.
pub(crate) struct DataSet {
    /// The file, or the inflated data set.
    pub bytes: Vec<u8>,
    pub syntax: Syntax,
    /// Elements outside sequences.
    pub elements: Elements,
    /// First item of Modality LUT Sequence (0028,3000).
    pub modality_lut: Option<Elements>,
    /// First item of VOI LUT Sequence (0028,3010).
    pub voi_lut: Option<Elements>,
    pub pixels: Option<PixelLocation>,
    pub notes: Vec<String>,
}

impl DataSet {
    /// A data set without elements, for films of other formats.
    pub fn empty() -> Self {
        Self {
            bytes: Vec::new(),
            syntax: Syntax::explicit_le(),
            elements: Elements::new(),
            modality_lut: None,
            voi_lut: None,
            pixels: None,
            notes: Vec::new(),
        }
    }
}

/// Parses a DICOM file, or a bare data set. `complete` is false for the first part of a longer file.
pub(crate) fn parse(
    path: &Path,
    file: Vec<u8>,
    complete: bool,
    extent: Extent,
    limits: &Limits,
) -> Result<DataSet, ReadError> {
    let mut notes = Vec::new();
    let (syntax, start) = crate::syntax::detect(path, &file, &mut notes)?;
    let (bytes, start) = if syntax.deflated {
        let cap = if complete { limits.max_inflated_bytes } else { 1 << 18 };
        (inflate(path, &file[start..], cap, complete, limits)?, 0)
    } else {
        (file, start)
    };
    let mut walk = Walk { path, bytes: &bytes, start, limits, extent, found: Found::default() };
    walk.run(&syntax)?;
    let Found { elements, modality_lut, voi_lut, pixels, notes: found_notes, .. } = walk.found;
    notes.extend(found_notes);
    Ok(DataSet { bytes, syntax, elements, modality_lut, voi_lut, pixels, notes })
}

/// The inflated data set, cut at `cap` bytes when `complete` is false and refused above it otherwise.
pub(crate) fn inflate(
    path: &Path,
    bytes: &[u8],
    cap: u64,
    complete: bool,
    limits: &Limits,
) -> Result<Vec<u8>, ReadError> {
    let mut out = Vec::new();
    let mut source = flate2::read::DeflateDecoder::new(bytes).take(cap.saturating_add(1));
    if let Err(source) = source.read_to_end(&mut out)
        && complete
    {
        return Err(ReadError::Parse {
            path: path.into(),
            offset: out.len() as u64,
            reason: format!("expected a deflate stream: {source}"),
        });
    }
    if complete && out.len() as u64 > cap {
        return Err(ReadError::TooLarge {
            path: path.into(),
            what: "the inflated data set in bytes",
            found: out.len() as u64,
            limit: limits.max_inflated_bytes,
        });
    }
    Ok(out)
}

/// What the walk has found so far.
#[derive(Default)]
struct Found {
    elements: Elements,
    modality_lut: Option<Elements>,
    voi_lut: Option<Elements>,
    pixels: Option<PixelLocation>,
    notes: Vec<String>,
    /// Sequences that are open.
    depth: usize,
    /// The outermost open sequence, and how many of its items have begun.
    sequence: Option<Tag>,
    items: usize,
}

struct Walk<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    start: usize,
    limits: &'a Limits,
    extent: Extent,
    found: Found,
}

impl Walk<'_> {
    fn error(&self, position: u64, reason: impl Into<String>) -> ReadError {
        ReadError::Parse {
            path: self.path.into(),
            offset: self.start as u64 + position,
            reason: reason.into(),
        }
    }

    /// The range of `length` bytes at `position`, if they are there.
    fn range(&self, position: u64, length: u32, what: &str) -> Result<Range<usize>, ReadError> {
        let left = (self.bytes.len() - self.start) as u64;
        if position + u64::from(length) > left {
            let reason = format!("{what} claims {length} bytes, {} are left", left.saturating_sub(position));
            return Err(self.error(position, reason));
        }
        let begin = self.start + position as usize;
        Ok(begin..begin + length as usize)
    }

    fn run(&mut self, syntax: &Syntax) -> Result<(), ReadError> {
        let source = Cursor::new(&self.bytes[self.start..]);
        let mut reader =
            LazyDataSetReader::new_with_ts(source, syntax.parsed_as).map_err(|e| self.error(0, chain(&e)))?;
        let mut position = 0; // start of the value read last, from the start of the data set
        while let Some(token) = reader.advance() {
            let token = match token {
                Ok(token) => token,
                Err(_) if self.pixels_end_with_the_file(position) => {
                    self.found.notes.push("Pixel Data ends without a sequence delimiter".into());
                    return Ok(());
                }
                Err(error) => return Err(self.error(position, chain(&error))),
            };
            match token {
                LazyDataToken::SequenceStart { tag, .. } => self.open(tag)?,
                LazyDataToken::PixelSequenceStart => {
                    self.open(tags::PIXEL_DATA)?;
                    if self.found.depth == 1 {
                        if self.extent == Extent::Header {
                            self.found.pixels = Some(PixelLocation::Present);
                            return Ok(());
                        }
                        self.found.pixels =
                            Some(PixelLocation::Encapsulated { offsets: vec![], fragments: vec![] });
                    }
                }
                LazyDataToken::ItemStart { .. } if self.found.depth == 1 => self.begin_item(),
                LazyDataToken::SequenceEnd => {
                    self.found.depth = self.found.depth.saturating_sub(1);
                    if self.found.depth == 0 && self.found.sequence == Some(tags::PIXEL_DATA) {
                        return Ok(());
                    }
                }
                LazyDataToken::LazyValue { header, decoder } => {
                    position = decoder.position();
                    let is_pixels = header.tag == tags::PIXEL_DATA && self.found.depth == 0;
                    if is_pixels && self.extent == Extent::Header {
                        self.found.pixels = Some(PixelLocation::Present);
                        return Ok(());
                    }
                    let length = header.len.get().unwrap_or(u32::MAX);
                    let range = self.range(position, length, &format!("{}", header.tag))?;
                    let element = Element { vr: header.vr, range };
                    if is_pixels {
                        self.found.pixels = Some(PixelLocation::Native(element));
                        return Ok(());
                    }
                    self.keep(header.tag, element);
                    decoder.skip_bytes(length).map_err(|e| self.error(position, chain(&e)))?;
                }
                LazyDataToken::LazyItemValue { len, decoder } => {
                    position = decoder.position();
                    let range = self.range(position, len, "a fragment of Pixel Data")?;
                    self.keep_fragment(position, range)?;
                    decoder.skip_bytes(len).map_err(|e| self.error(position, chain(&e)))?;
                }
                _ => {}
            }
        }
        if self.found.depth > 0 {
            return Err(self.error(position, "the file ends inside a sequence"));
        }
        Ok(())
    }

    /// A sequence begins.
    fn open(&mut self, tag: Tag) -> Result<(), ReadError> {
        if self.found.depth >= self.limits.max_depth {
            return Err(ReadError::TooLarge {
                path: self.path.into(),
                what: "the nesting of sequences",
                found: self.found.depth as u64 + 1,
                limit: self.limits.max_depth as u64,
            });
        }
        if self.found.depth == 0 {
            self.found.sequence = Some(tag);
            self.found.items = 0;
        }
        self.found.depth += 1;
        Ok(())
    }

    /// An item of an outermost sequence begins.
    fn begin_item(&mut self) {
        self.found.items += 1;
        if self.found.items == 1 {
            match self.found.sequence {
                Some(tags::MODALITY_LUT_SEQUENCE) => self.found.modality_lut = Some(Elements::new()),
                Some(tags::VOILUT_SEQUENCE) => self.found.voi_lut = Some(Elements::new()),
                _ => {}
            }
        }
    }

    /// Keeps a value if it is wanted. Groups are few, which bounds what a hostile file can make us keep.
    fn keep(&mut self, tag: Tag, element: Element) {
        let wanted = matches!(tag.0, 0x0008 | 0x0010 | 0x0012 | 0x0018 | 0x0020 | 0x0028 | 0x2050);
        if self.found.depth == 0 && wanted {
            self.found.elements.insert(tag, element);
        } else if self.found.depth == 1 && self.found.items == 1 && tag.0 == 0x0028 {
            match self.found.sequence {
                Some(tags::MODALITY_LUT_SEQUENCE) => self.found.modality_lut.as_mut(),
                Some(tags::VOILUT_SEQUENCE) => self.found.voi_lut.as_mut(),
                _ => None,
            }
            .map(|item| item.insert(tag, element));
        }
    }

    /// The first item of Pixel Data is the basic offset table, the others are fragments.
    fn keep_fragment(&mut self, position: u64, range: Range<usize>) -> Result<(), ReadError> {
        if self.found.depth != 1 {
            return Ok(());
        }
        let table = self.bytes.get(range.clone()).unwrap_or_default();
        let Some(PixelLocation::Encapsulated { offsets, fragments }) = &mut self.found.pixels else {
            return Ok(());
        };
        if self.found.items == 1 {
            if table.len() > 4 * MAX_FRAGMENTS {
                return Err(self.error(position, "the basic offset table has more than a million entries"));
            }
            let entry = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            *offsets = table.chunks_exact(4).map(entry).collect();
        } else if fragments.len() == MAX_FRAGMENTS {
            return Err(self.error(position, "Pixel Data has more than a million fragments"));
        } else {
            fragments.push(range);
        }
        Ok(())
    }

    /// Whether the file ends right after a fragment, without the delimiter that ought to follow.
    fn pixels_end_with_the_file(&self, position: u64) -> bool {
        match &self.found.pixels {
            Some(PixelLocation::Encapsulated { fragments, .. }) => fragments.last().is_some_and(|last| {
                last.start as u64 == self.start as u64 + position && last.end == self.bytes.len()
            }),
            _ => false,
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
