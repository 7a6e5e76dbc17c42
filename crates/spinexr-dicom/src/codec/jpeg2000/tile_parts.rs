//! Tile-parts: which bytes of the stream belong to which tile (ITU-T T.800 A.4, A.7).

use super::header::{Header, Segment};
use std::borrow::Cow;

/// The bytes of one tile.
#[derive(Debug, Default)]
pub(super) struct TileBytes<'a> {
    /// Marker segments of its tile-parts' headers.
    pub segments: Vec<Segment<'a>>,
    /// Packets, or their bodies when the headers are packed.
    pub body: Cow<'a, [u8]>,
    /// Packet headers, when they lie apart from the bodies.
    pub packed_headers: Option<Vec<u8>>,
    parts: usize,
}

/// The tiles of a stream in the order of their numbers.
pub(super) fn tiles<'a>(stream: &'a [u8], header: &Header<'a>) -> Result<Vec<TileBytes<'a>>, String> {
    let count = header.size.tiles() as usize;
    let mut tiles: Vec<TileBytes<'_>> = Vec::new();
    tiles.resize_with(count, TileBytes::default);
    let mut main_headers = packed_by_tile_part(&header.packed_headers)?;
    let mut at = header.end;
    while stream.get(at..at + 2) == Some(&[0xFF, 0x90]) {
        let (segment, mut next) = Segment::at(stream, at)?;
        let &[i0, i1, a, b, c, d, part, _] = segment.bytes else {
            return Err("a tile-part header (SOT) of a wrong length".into());
        };
        let index = usize::from(u16::from_be_bytes([i0, i1]));
        let tile = tiles.get_mut(index).ok_or_else(|| format!("tile {index} of {count}"))?;
        if tile.parts != usize::from(part) {
            return Err(format!("tile-part {part} of a tile, expected {}", tile.parts));
        }
        tile.parts += 1;
        let end = match u32::from_be_bytes([a, b, c, d]) as usize {
            0 => stream.len() - if stream.ends_with(&[0xFF, 0xD9]) { 2 } else { 0 },
            length => at.saturating_add(length),
        };
        if end > stream.len() {
            return Err("the stream ends inside a tile-part".into());
        }
        let mut packed = vec![];
        while stream.get(next..next + 2) != Some(&[0xFF, 0x93]) {
            let (segment, after) = Segment::at(stream, next)?;
            match segment.marker {
                0x61 => packed.push(segment),
                // What decoding goes by; lengths and comments are not.
                0x52 | 0x53 | 0x5C..=0x5F => tile.segments.push(segment),
                _ => {}
            }
            next = after;
        }
        let body = stream.get(next + 2..end).ok_or("a tile-part that is shorter than its header")?;
        match &mut tile.body {
            whole if whole.is_empty() => *whole = Cow::Borrowed(body),
            parts => parts.to_mut().extend_from_slice(body),
        }
        packed.sort_by_key(|s| s.bytes.first().copied());
        if !packed.is_empty() {
            let headers = tile.packed_headers.get_or_insert_default();
            packed.iter().for_each(|s| headers.extend_from_slice(s.bytes.get(1..).unwrap_or_default()));
        }
        if let Some(headers) = &mut main_headers {
            let headers = headers.next().ok_or("packet headers of a tile-part are missing")?;
            tile.packed_headers.get_or_insert_default().extend(headers);
        }
        at = end;
    }
    match tiles.iter().position(|tile| tile.parts == 0) {
        Some(index) => Err(format!("the stream ends before tile {index}")),
        None => Ok(tiles),
    }
}

/// The packed headers of PPM segments by tile-part: a length of four bytes stands before those of each. Lengths and
/// headers may go over the end of a segment.
fn packed_by_tile_part(segments: &[Segment]) -> Result<Option<impl Iterator<Item = Vec<u8>>>, String> {
    if segments.is_empty() {
        return Ok(None);
    }
    let bytes: Vec<u8> =
        segments.iter().flat_map(|s| s.bytes.get(1..).unwrap_or_default()).copied().collect();
    let mut parts = vec![];
    let mut rest = &bytes[..];
    while let Some((&length, after)) = rest.split_first_chunk::<4>() {
        let Some((part, after)) = after.split_at_checked(u32::from_be_bytes(length) as usize) else {
            return Err("packed packet headers end early".into());
        };
        parts.push(part.to_vec());
        rest = after;
    }
    Ok(Some(parts.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_headers_go_over_the_ends_of_segments() {
        // Two tile-parts with three and two bytes; the second length is cut by the end of the first segment.
        let segments = [[0, 0, 0, 0, 3, 7, 8, 9, 0, 0].as_slice(), [1, 0, 2, 5, 6].as_slice()]
            .map(|bytes| Segment { marker: 0x60, bytes });
        let parts: Vec<_> = packed_by_tile_part(&segments).unwrap().unwrap().collect();
        assert_eq!(parts, [vec![7, 8, 9], vec![5, 6]]);
        assert!(packed_by_tile_part(&segments[..1]).unwrap().is_some());
        let cut = [Segment { marker: 0x60, bytes: &[0, 0, 0, 0, 9, 1] }];
        assert!(packed_by_tile_part(&cut).is_err());
        assert!(packed_by_tile_part(&[]).unwrap().is_none());
    }
}
