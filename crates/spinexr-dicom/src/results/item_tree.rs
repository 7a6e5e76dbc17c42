//! A data set with all its sequences, for objects whose content lies in sequences. Built without recursion, as in
//! `dataset`, and bounded in depth and number of elements before anything is kept.

use crate::attributes::tag_text;
use crate::dataset::{chain, inflate};
use crate::error::ReadError;
use crate::options::Limits;
use crate::syntax::{Syntax, detect};
use dicom_core::{Tag, VR};
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

/// Most elements and items of a data set: a report of a thousand boxes has some sixty thousand.
const MAX_ELEMENTS: usize = 1 << 20;

/// A value, or the items of a sequence.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Value { vr: VR, range: Range<usize> },
    Items(Vec<Item>),
}

/// Elements by tag.
#[derive(Debug, Clone, Default)]
pub(super) struct Item {
    elements: BTreeMap<Tag, Node>,
}

impl Item {
    /// A value with its VR; `None` where the element is missing or a sequence.
    pub fn value(&self, tag: Tag) -> Option<(VR, Range<usize>)> {
        match self.elements.get(&tag)? {
            Node::Value { vr, range } => Some((*vr, range.clone())),
            Node::Items(_) => None,
        }
    }

    /// The items of a sequence; none where the element is missing or no sequence.
    pub fn items(&self, tag: Tag) -> &[Self] {
        match self.elements.get(&tag) {
            Some(Node::Items(items)) => items,
            _ => &[],
        }
    }

    /// Whether the element is there but is no sequence.
    pub fn is_value(&self, tag: Tag) -> bool {
        matches!(self.elements.get(&tag), Some(Node::Value { .. }))
    }
}

/// A parsed data set over its bytes.
pub(super) struct ItemTree {
    pub bytes: Vec<u8>,
    pub syntax: Syntax,
    pub root: Item,
}

/// What is open while the tokens are read.
enum Open {
    Item(Item),
    Sequence(Tag, Vec<Item>),
}

/// Parses a DICOM file, or a bare data set.
pub(super) fn parse_items(path: &Path, file: Vec<u8>, limits: &Limits) -> Result<ItemTree, ReadError> {
    let (syntax, start) = detect(path, &file, &mut Vec::new())?;
    let (bytes, start) = if syntax.deflated {
        (inflate(path, &file[start..], limits.max_inflated_bytes, true, limits)?, 0)
    } else {
        (file, start)
    };
    let root = walk(path, &bytes, start, &syntax, limits)?;
    Ok(ItemTree { bytes, syntax, root })
}

fn walk(
    path: &Path,
    bytes: &[u8],
    start: usize,
    syntax: &Syntax,
    limits: &Limits,
) -> Result<Item, ReadError> {
    let broken = |position: u64, reason: String| ReadError::Parse {
        path: path.into(),
        offset: start as u64 + position,
        reason,
    };
    let too_large = |what, found: usize, limit: usize| ReadError::TooLarge {
        path: path.into(),
        what,
        found: found as u64,
        limit: limit as u64,
    };
    let source = Cursor::new(&bytes[start..]);
    let mut reader =
        LazyDataSetReader::new_with_ts(source, syntax.parsed_as).map_err(|e| broken(0, chain(&e)))?;
    let mut open = vec![Open::Item(Item::default())];
    let mut position = 0;
    let mut elements = 0;
    while let Some(token) = reader.advance() {
        elements += 1;
        if elements > MAX_ELEMENTS {
            return Err(too_large("the number of elements", elements, MAX_ELEMENTS));
        }
        match token.map_err(|error| broken(position, chain(&error)))? {
            LazyDataToken::SequenceStart { tag, .. } => {
                let depth = open.len().div_ceil(2);
                if depth > limits.max_depth {
                    return Err(too_large("the nesting of sequences", depth, limits.max_depth));
                }
                open.push(Open::Sequence(tag, vec![]));
            }
            LazyDataToken::ItemStart { .. } => open.push(Open::Item(Item::default())),
            LazyDataToken::ItemEnd => match (open.pop(), open.last_mut()) {
                (Some(Open::Item(item)), Some(Open::Sequence(_, items))) => items.push(item),
                _ => return Err(broken(position, "an item ends that did not begin".to_owned())),
            },
            LazyDataToken::SequenceEnd => match (open.pop(), open.last_mut()) {
                (Some(Open::Sequence(tag, items)), Some(Open::Item(item))) => {
                    item.elements.insert(tag, Node::Items(items));
                }
                _ => return Err(broken(position, "a sequence ends that did not begin".to_owned())),
            },
            LazyDataToken::LazyValue { header, decoder } => {
                position = decoder.position();
                let length = header.len.get().unwrap_or(u32::MAX);
                let begin = start + position as usize;
                let left = bytes.len().saturating_sub(begin);
                if length as usize > left {
                    let tag = tag_text(header.tag);
                    return Err(broken(position, format!("{tag} claims {length} bytes, {left} are left")));
                }
                let Some(Open::Item(item)) = open.last_mut() else {
                    return Err(broken(position, "an element outside an item".to_owned()));
                };
                let node = Node::Value { vr: header.vr, range: begin..begin + length as usize };
                item.elements.insert(header.tag, node);
                decoder.skip_bytes(length).map_err(|e| broken(position, chain(&e)))?;
            }
            LazyDataToken::PixelSequenceStart | LazyDataToken::LazyItemValue { .. } => {
                return Err(broken(position, "expected no encapsulated pixels".to_owned()));
            }
            _ => {}
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(Open::Item(root)), true) => Ok(root),
        _ => Err(broken(position, "the file ends inside a sequence".to_owned())),
    }
}
