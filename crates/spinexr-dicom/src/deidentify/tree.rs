//! A whole data set as a tree, read from its bytes and written back in the same encoding.
//!
//! Values stay where they lie until they are replaced, so that what is kept is kept byte for byte. Sequences are
//! written with defined lengths. Nesting is bounded by [`Limits::max_depth`], which makes recursion safe.

use crate::dataset::{chain, inflate};
use crate::error::ReadError;
use crate::options::Limits;
use crate::syntax::Syntax;
use dicom_core::{Tag, VR};
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use std::io::{Cursor, Write};
use std::ops::Range;
use std::path::Path;

const PIXEL_DATA: Tag = Tag(0x7FE0, 0x0010);

/// Most elements of a file: far above any image's.
const MAX_ELEMENTS: usize = 1 << 20;

/// Elements of a data set or item, in file order.
pub(super) type Elements = Vec<Element>;

pub(super) struct Element {
    pub tag: Tag,
    pub vr: VR,
    pub value: Value,
}

pub(super) enum Value {
    /// Where it lies in the bytes of the data set.
    Kept(Range<usize>),
    /// What takes its place; padded when written.
    New(Vec<u8>),
    Items(Vec<Elements>),
    /// Encapsulated pixels: the basic offset table and the fragments.
    Fragments(Vec<Range<usize>>),
}

/// A data set, or a file that was inflated to one, and its tree.
pub(super) struct Tree {
    pub bytes: Vec<u8>,
    pub syntax: Syntax,
    pub elements: Elements,
    /// What follows the pixels could not be parsed and is left out.
    pub cut: bool,
}

impl Tree {
    pub fn parse(path: &Path, file: Vec<u8>, limits: &Limits) -> Result<Self, ReadError> {
        let (syntax, start) = crate::syntax::detect(path, &file, &mut Vec::new())?;
        let (bytes, start) = if syntax.deflated {
            (inflate(path, &file[start..], limits.max_inflated_bytes, true, limits)?, 0)
        } else {
            (file, start)
        };
        let mut elements = Elements::new();
        let parsed = Parse { path, bytes: &bytes, start, limits }.run(&syntax, &mut elements);
        // Garbage after the pixels does not keep a film from being read, nor from this.
        let cut = parsed.is_err() && elements.iter().any(|element| element.tag == PIXEL_DATA);
        if !cut {
            parsed?;
        }
        Ok(Self { bytes, syntax, elements, cut })
    }

    /// The bytes of a value; of a sequence or of fragments, none.
    pub fn value<'a>(&'a self, element: &'a Element) -> &'a [u8] {
        value(&self.bytes, element)
    }

    /// The first element of this tag outside sequences.
    pub fn find(&self, tag: Tag) -> Option<&Element> {
        self.elements.iter().find(|element| element.tag == tag)
    }

    /// A text of the default repertoire outside sequences, without padding; `None` when absent or empty.
    pub fn text(&self, tag: Tag) -> Option<String> {
        let text = String::from_utf8_lossy(self.value(self.find(tag)?)).into_owned();
        let text = text.trim_matches([' ', '\0']);
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The first 16-bit number of an element outside sequences.
    pub fn word(&self, tag: Tag) -> Option<u16> {
        let bytes = self.value(self.find(tag)?).get(..2)?;
        let pair = [bytes[0], bytes[1]];
        Some(if self.syntax.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    }

    /// 16 bits in this data set's byte order.
    pub fn word_bytes(&self, value: u16) -> [u8; 2] {
        if self.syntax.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// Puts an element outside sequences in the place of its tag, whatever was there.
    pub fn set(&mut self, tag: Tag, vr: VR, value: Value) {
        self.elements.retain(|element| element.tag != tag);
        let at = self.elements.partition_point(|element| element.tag < tag);
        self.elements.insert(at, Element { tag, vr, value });
    }

    /// The data set as bytes, in its own encoding, deflated where it was.
    pub fn encode(&self) -> Vec<u8> {
        let encoder = Encoder {
            bytes: &self.bytes,
            explicit: self.syntax.uid != "1.2.840.10008.1.2",
            big_endian: self.syntax.big_endian,
        };
        let mut out = Vec::with_capacity(self.bytes.len());
        encoder.elements(&self.elements, &mut out);
        if !self.syntax.deflated {
            return out;
        }
        let mut deflated = Vec::new();
        let mut deflater = flate2::write::DeflateEncoder::new(&mut deflated, flate2::Compression::default());
        deflater.write_all(&out).and_then(|()| deflater.try_finish()).expect("a vector takes every write");
        drop(deflater);
        if !deflated.len().is_multiple_of(2) {
            deflated.push(0);
        }
        deflated
    }
}

/// The bytes of a value in the bytes of its data set; of a sequence or of fragments, none.
pub(super) fn value<'a>(bytes: &'a [u8], element: &'a Element) -> &'a [u8] {
    match &element.value {
        Value::Kept(range) => bytes.get(range.clone()).unwrap_or_default(),
        Value::New(bytes) => bytes,
        Value::Items(_) | Value::Fragments(_) => &[],
    }
}

struct Parse<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    start: usize,
    limits: &'a Limits,
}

/// Something that is open while a data set is walked.
enum Open {
    Sequence { tag: Tag, items: Vec<Elements> },
    Item(Elements),
    Pixels(Vec<Range<usize>>),
    PixelItem { was_empty: bool },
}

impl Parse<'_> {
    fn error(&self, position: u64, reason: impl Into<String>) -> ReadError {
        ReadError::Parse {
            path: self.path.into(),
            offset: self.start as u64 + position,
            reason: reason.into(),
        }
    }

    fn range(&self, position: u64, length: u32) -> Result<Range<usize>, ReadError> {
        let left = (self.bytes.len() - self.start) as u64;
        if position + u64::from(length) > left {
            let left = left.saturating_sub(position);
            return Err(self.error(position, format!("a value claims {length} bytes, {left} are left")));
        }
        let begin = self.start + position as usize;
        Ok(begin..begin + length as usize)
    }

    fn run(&self, syntax: &Syntax, top: &mut Elements) -> Result<(), ReadError> {
        let source = Cursor::new(&self.bytes[self.start..]);
        let mut reader =
            LazyDataSetReader::new_with_ts(source, syntax.parsed_as).map_err(|e| self.error(0, chain(&e)))?;
        let mut open: Vec<Open> = Vec::new();
        let (mut position, mut count) = (0, 0);
        while let Some(token) = reader.advance() {
            let token = match token {
                Ok(token) => token,
                // As in reading: encapsulated pixels that end with the file, without their delimiter.
                Err(_) if matches!(open.last(), Some(Open::Pixels(ranges)) if ranges.last().is_some_and(|r| r.end == self.bytes.len())) =>
                {
                    break;
                }
                Err(error) => return Err(self.error(position, chain(&error))),
            };
            count += 1;
            if count > MAX_ELEMENTS {
                return Err(self.error(position, "more than a million elements, items and fragments"));
            }
            match token {
                LazyDataToken::SequenceStart { tag, .. } => {
                    let depth = open.iter().filter(|o| matches!(o, Open::Sequence { .. })).count();
                    if depth >= self.limits.max_depth {
                        return Err(ReadError::TooLarge {
                            path: self.path.into(),
                            what: "the nesting of sequences",
                            found: depth as u64 + 1,
                            limit: self.limits.max_depth as u64,
                        });
                    }
                    open.push(Open::Sequence { tag, items: vec![] });
                }
                LazyDataToken::PixelSequenceStart => open.push(Open::Pixels(vec![])),
                LazyDataToken::ItemStart { .. } => match open.last() {
                    Some(Open::Pixels(_)) => open.push(Open::PixelItem { was_empty: true }),
                    _ => open.push(Open::Item(vec![])),
                },
                LazyDataToken::ItemEnd => match open.pop() {
                    Some(Open::Item(elements)) => match open.last_mut() {
                        Some(Open::Sequence { items, .. }) => items.push(elements),
                        _ => return Err(self.error(position, "an item outside a sequence")),
                    },
                    Some(Open::PixelItem { was_empty }) => {
                        if let (true, Some(Open::Pixels(ranges))) = (was_empty, open.last_mut()) {
                            ranges.push(0..0);
                        }
                    }
                    _ => return Err(self.error(position, "the end of an item that was not begun")),
                },
                LazyDataToken::SequenceEnd => {
                    let element = match open.pop() {
                        Some(Open::Sequence { tag, items }) => {
                            Element { tag, vr: VR::SQ, value: Value::Items(items) }
                        }
                        Some(Open::Pixels(ranges)) => {
                            Element { tag: Tag(0x7FE0, 0x0010), vr: VR::OB, value: Value::Fragments(ranges) }
                        }
                        _ => return Err(self.error(position, "the end of a sequence that was not begun")),
                    };
                    self.keep(position, element, &mut open, top)?;
                }
                LazyDataToken::LazyValue { header, decoder } => {
                    position = decoder.position();
                    let length = header.len.get().unwrap_or(u32::MAX);
                    let range = self.range(position, length)?;
                    let element = Element { tag: header.tag, vr: header.vr, value: Value::Kept(range) };
                    self.keep(position, element, &mut open, top)?;
                    decoder.skip_bytes(length).map_err(|e| self.error(position, chain(&e)))?;
                }
                LazyDataToken::LazyItemValue { len, decoder } => {
                    position = decoder.position();
                    let range = self.range(position, len)?;
                    decoder.skip_bytes(len).map_err(|e| self.error(position, chain(&e)))?;
                    if let Some(Open::PixelItem { was_empty }) = open.last_mut() {
                        *was_empty = false;
                    }
                    match open.iter_mut().rev().find_map(|o| match o {
                        Open::Pixels(ranges) => Some(ranges),
                        _ => None,
                    }) {
                        Some(ranges) => ranges.push(range),
                        None => return Err(self.error(position, "a fragment outside Pixel Data")),
                    }
                }
                _ => {}
            }
        }
        // Pixels that end with the file.
        while let Some(last) = open.pop() {
            match last {
                Open::PixelItem { .. } => {}
                Open::Pixels(ranges) if open.is_empty() => {
                    top.push(Element { tag: PIXEL_DATA, vr: VR::OB, value: Value::Fragments(ranges) });
                }
                _ => return Err(self.error(position, "the file ends inside a sequence")),
            }
        }
        Ok(())
    }

    fn keep(
        &self,
        position: u64,
        element: Element,
        open: &mut [Open],
        top: &mut Elements,
    ) -> Result<(), ReadError> {
        match open.last_mut() {
            None => top.push(element),
            Some(Open::Item(elements)) => elements.push(element),
            Some(_) => return Err(self.error(position, "an element outside an item")),
        }
        Ok(())
    }
}

/// Writes elements in one of the encodings of PS3.5 7.1.
pub(super) struct Encoder<'a> {
    pub bytes: &'a [u8],
    pub explicit: bool,
    pub big_endian: bool,
}

impl Encoder<'_> {
    pub fn elements(&self, elements: &Elements, out: &mut Vec<u8>) {
        for element in elements {
            self.element(element, out);
        }
    }

    fn u16(&self, value: u16, out: &mut Vec<u8>) {
        out.extend_from_slice(&if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn u32(&self, value: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn tag(&self, tag: Tag, out: &mut Vec<u8>) {
        self.u16(tag.group(), out);
        self.u16(tag.element(), out);
    }

    fn head(&self, tag: Tag, vr: VR, length: u32, out: &mut Vec<u8>) {
        self.tag(tag, out);
        if !self.explicit {
            return self.u32(length, out);
        }
        let short = u16::try_from(length).ok().filter(|_| !is_long(vr));
        match short {
            Some(short) => {
                out.extend_from_slice(vr.to_string().as_bytes());
                self.u16(short, out);
            }
            None => {
                // PS3.5 6.2.2: a value too long for its VR's length field is written as UN.
                let vr = if is_long(vr) { vr } else { VR::UN };
                out.extend_from_slice(vr.to_string().as_bytes());
                out.extend_from_slice(&[0, 0]);
                self.u32(length, out);
            }
        }
    }

    fn element(&self, element: &Element, out: &mut Vec<u8>) {
        match &element.value {
            Value::Kept(_) | Value::New(_) => {
                let value = value(self.bytes, element);
                let padded = value.len().next_multiple_of(2);
                self.head(element.tag, element.vr, length(padded), out);
                out.extend_from_slice(value);
                if padded > value.len() {
                    let binary = matches!(element.vr, VR::UI | VR::OB | VR::UN);
                    out.push(if binary { 0 } else { b' ' });
                }
            }
            Value::Items(items) => {
                let mut body = Vec::new();
                for item in items {
                    let mut inner = Vec::new();
                    self.elements(item, &mut inner);
                    self.tag(Tag(0xFFFE, 0xE000), &mut body);
                    self.u32(length(inner.len()), &mut body);
                    body.append(&mut inner);
                }
                self.head(element.tag, VR::SQ, length(body.len()), out);
                out.append(&mut body);
            }
            Value::Fragments(ranges) => {
                self.head(element.tag, element.vr, u32::MAX, out);
                for range in ranges {
                    let fragment = self.bytes.get(range.clone()).unwrap_or_default();
                    self.tag(Tag(0xFFFE, 0xE000), out);
                    self.u32(length(fragment.len()), out);
                    out.extend_from_slice(fragment);
                }
                self.tag(Tag(0xFFFE, 0xE0DD), out);
                self.u32(0, out);
            }
        }
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("Limits bound the file, and what is written is hardly longer")
}

/// VRs with a 32-bit length (PS3.5 table 7.1-1).
fn is_long(vr: VR) -> bool {
    use VR::{OB, OD, OF, OL, OV, OW, SQ, SV, UC, UN, UR, UT, UV};
    matches!(vr, OB | OD | OF | OL | OV | OW | SQ | SV | UC | UN | UR | UT | UV)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DxFilm, DxSyntax, encode_dx};

    #[test]
    fn what_is_read_is_written_again() {
        for syntax in DxSyntax::ALL {
            let film = DxFilm { transfer_syntax: syntax, ..DxFilm::new(7, 6, (0..42).collect()) };
            let file = encode_dx(&film);
            let tree = Tree::parse(Path::new("a.dcm"), file.clone(), &Limits::default()).unwrap();
            let encoded = tree.encode();
            if syntax == DxSyntax::Deflated {
                let (limits, path) = (Limits::default(), Path::new("a.dcm"));
                assert_eq!(inflate(path, &encoded, 1 << 20, true, &limits).unwrap(), tree.bytes);
            } else {
                assert!(file.ends_with(&encoded) && encoded.len() > 84, "{syntax:?}");
            }
        }
    }

    #[test]
    fn deep_nesting_and_lying_lengths_are_errors() {
        let mut file = b"\x08\x00\x05\x00CS\x02\x00A ".to_vec();
        for _ in 0..5000 {
            file.extend_from_slice(b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff");
        }
        let parse = |file: &[u8]| Tree::parse(Path::new("a"), file.to_vec(), &Limits::default()).err();
        assert!(matches!(parse(&file), Some(ReadError::TooLarge { .. })));
        file.truncate(10 + 40);
        assert!(matches!(parse(&file), Some(ReadError::Parse { .. })));
        assert!(matches!(parse(b"\x08\x00\x05\x00CS\xff\x7fA "), Some(ReadError::Parse { .. })));
    }
}
