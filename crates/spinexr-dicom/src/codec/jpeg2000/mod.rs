//! JPEG 2000 (ITU-T T.800) and High-Throughput JPEG 2000 (T.814), transfer syntaxes …4.90, .91 and .201 to .203.
//!
//! Our own decoder of both: the crates there are take up to four times as long as OpenJPEG, or take memory by the
//! header's word. A stream is read in these steps, a file each: the main header ([`header`], [`coding`]), which must agree
//! with the data set; the bytes of each tile ([`tile_parts`]); its resolutions, bands and code blocks ([`geometry`]);
//! which passes of the blocks are there ([`packets`]); the blocks ([`tier1`] or [`ht`]), wavelets ([`wavelet`]) and
//! colour ([`tile`]). What a header makes us allocate is in proportion to the image and the stream.
//!
//! Not supported, with an error: subsampled components, components of different depths, blocks of both kinds in one
//! component. A stream that ends before its last packet is an error.

mod coding;
mod contexts;
mod geometry;
mod header;
mod ht;
mod ht_bits;
mod ht_tables;
mod mq;
mod packet_bits;
mod packets;
mod tag_tree;
mod tier1;
mod tile;
mod tile_parts;
mod wavelet;

use super::{Colour, Samples};
use crate::pixel_format::PixelFormat;
use header::Header;

/// Whether [`decode`] knows the transfer syntax.
pub(super) fn decodes(uid: &str) -> bool {
    uid.strip_prefix("1.2.840.10008.1.2.4.").is_some_and(|n| matches!(n, "90" | "91" | "201" | "202" | "203"))
}

pub(super) fn decode(stream: &[u8], format: &PixelFormat, uid: &str) -> Result<Samples, String> {
    let stream = codestream(stream)?;
    let header = Header::of(stream, format)?;
    let high_throughput = header.coding.high_throughput();
    if high_throughput == matches!(uid, "1.2.840.10008.1.2.4.90" | "1.2.840.10008.1.2.4.91") {
        let found = if high_throughput { "High-Throughput blocks" } else { "blocks of JPEG 2000 part 1" };
        return Err(format!("the stream holds {found}, which do not belong to this transfer syntax"));
    }
    let tiles = tile_parts::tiles(stream, &header)?;
    let mut values = vec![0u16; format.frame_samples()];
    let mut buffers = tile::Buffers::default();
    let mut colour_transform = header.coding.colour_transform;
    for (index, bytes) in tiles.iter().enumerate() {
        let own =
            if bytes.segments.is_empty() { None } else { Some(header.coding.of_tile(&bytes.segments)?) };
        let coding = own.as_ref().unwrap_or(&header.coding);
        if coding.high_throughput() != high_throughput {
            return Err("tiles with blocks of different parts are not supported".into());
        }
        colour_transform |= coding.colour_transform;
        tile::decode(bytes, header.size.tile_area(index), &header.size, coding, &mut buffers, &mut values)?;
    }
    let colour = if colour_transform { Colour::Rgb } else { Colour::AsDeclared };
    Ok(Samples { values, colour, precision: Some(header.size.bits) })
}

/// The codestream itself: some files wrap it in the boxes of a JP2 file (T.800 annex I), against PS3.5 A.4.4.
fn codestream(stream: &[u8]) -> Result<&[u8], String> {
    if stream.starts_with(&[0xFF, 0x4F, 0xFF, 0x51]) {
        return Ok(stream);
    }
    if stream.get(4..8) != Some(b"jP  ") {
        return Err("expected a JPEG 2000 codestream (FF 4F FF 51)".into());
    }
    let mut rest = stream;
    while let Some((&[a, b, c, d, kind @ ..], after)) = rest.split_first_chunk::<8>() {
        let (header, length) = match (u32::from_be_bytes([a, b, c, d]), after.first_chunk::<8>()) {
            (0, _) => (8, rest.len()),
            (1, Some(&long)) => (16, usize::try_from(u64::from_be_bytes(long)).unwrap_or(usize::MAX)),
            (length, _) => (8, length as usize),
        };
        if length < header || length > rest.len() {
            return Err("a JP2 box is longer than the stream".into());
        }
        if &kind == b"jp2c" {
            let inner = &rest[header..length];
            return if inner.starts_with(&[0xFF, 0x4F, 0xFF, 0x51]) {
                Ok(inner)
            } else {
                Err("expected a JPEG 2000 codestream in the JP2 box".into())
            };
        }
        rest = &rest[length..];
    }
    Err("a JP2 file without a codestream".into())
}

#[cfg(test)]
mod tests;
