//! JPEG 2000 (ITU-T T.800) and High-Throughput JPEG 2000 (T.814), transfer syntaxes …4.90, .91 and .201 to .203.
//!
//! The decoders are crates; this file fences them in. The codestream's main header is read first and compared with
//! the data set, and what the header makes a decoder allocate (tiles, precincts, code blocks) must be in proportion
//! to the image and the stream. A panic of a decoder is an error of the file.

use super::{Colour, Samples};
use crate::pixel_format::PixelFormat;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes of a tile-part header at least: its SOT segment.
const TILE_PART_BYTES: u64 = 12;
/// Largest distance of the image from the origin of the reference grid.
const MAX_OFFSET: u32 = 65_535;

/// Whether [`decode`] knows the transfer syntax.
pub(super) fn decodes(uid: &str) -> bool {
    uid.strip_prefix("1.2.840.10008.1.2.4.").is_some_and(|n| matches!(n, "90" | "91" | "201" | "202" | "203"))
}

pub(super) fn decode(stream: &[u8], format: &PixelFormat, uid: &str) -> Result<Samples, String> {
    let stream = codestream(stream)?;
    let header = Header::of(stream)?;
    header.check(stream, format)?;
    if header.high_throughput == matches!(uid, "1.2.840.10008.1.2.4.90" | "1.2.840.10008.1.2.4.91") {
        let found =
            if header.high_throughput { "High-Throughput blocks" } else { "blocks of JPEG 2000 part 1" };
        return Err(format!("the stream holds {found}, which do not belong to this transfer syntax"));
    }
    let run = || if header.high_throughput { high_throughput(stream) } else { part_1(stream) };
    let planes = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(planes) => planes?,
        Err(_) => return Err("the decoder gave up on a corrupt stream".into()),
    };
    let pixels = format.height * format.width;
    if planes.len() != format.samples_per_pixel || planes.iter().any(|plane| plane.len() != pixels) {
        return Err(format!(
            "expected {} planes of {pixels} samples, found others",
            format.samples_per_pixel
        ));
    }
    // Both decoders add half the range to signed samples as well; it is taken off again here.
    let offset = if header.signed { 1i32 << (header.bits - 1) } else { 0 };
    let greatest = f32::from(u16::MAX >> (16 - header.bits));
    let mut values = vec![0u16; pixels * planes.len()];
    for (place, plane) in planes.iter().enumerate() {
        for (value, &sample) in values.iter_mut().skip(place).step_by(planes.len()).zip(plane) {
            *value = ((sample + 0.5).floor().clamp(0.0, greatest) as i32 - offset) as u16;
        }
    }
    let colour = if header.colour_transform { Colour::Rgb } else { Colour::AsDeclared };
    let precision = Some(header.bits);
    Ok(Samples { values, colour, precision })
}

/// An error when a tile-part from `at` on changes coding style or quantisation, on which [`Header::check`] and
/// [`with_halved_steps`] rely.
fn tile_parts_keep_the_style(stream: &[u8], mut at: usize) -> Result<(), String> {
    while let Some(&[0xFF, 0x90, 0, 10, _, _, a, b, c, d, _, _]) = stream.get(at..at + 12) {
        let mut segment = at + 12;
        while let Some(&[0xFF, marker, high, low]) = stream.get(segment..segment + 4) {
            match marker {
                0x93 => break, // the data
                0x52 | 0x53 | 0x5C | 0x5D => {
                    return Err("a coding style that differs by tile is not supported".into());
                }
                _ => segment += 2 + usize::from(u16::from_be_bytes([high, low])),
            }
        }
        match u32::from_be_bytes([a, b, c, d]) as usize {
            0 => return Ok(()), // the last one, up to the end
            length @ 0..14 => return Err(format!("a tile-part of {length} bytes")),
            length => at = at.saturating_add(length),
        }
    }
    Ok(())
}

/// The planes of a High-Throughput stream.
fn high_throughput(stream: &[u8]) -> Result<Vec<Vec<f32>>, String> {
    use dicom_toolkit_jpeg2000::{DecodeSettings, Image};
    let settings = DecodeSettings { strict: true, ..DecodeSettings::default() };
    let stream = with_halved_steps(stream)?;
    let image = Image::new(&stream, &settings).map_err(|e| e.to_string())?;
    let decoded = image.decode_native().map_err(|e| e.to_string())?;
    let count = usize::from(decoded.num_components).max(1);
    let samples: Vec<f32> = if decoded.bytes_per_sample == 1 {
        decoded.data.iter().map(|&sample| f32::from(sample)).collect()
    } else {
        decoded.data.chunks_exact(2).map(|b| f32::from(u16::from_le_bytes([b[0], b[1]]))).collect()
    };
    Ok((0..count).map(|place| samples.iter().skip(place).step_by(count).copied().collect()).collect())
}

/// The stream with every quantisation step halved in its main header, and with it a bit more for each coefficient.
///
/// The decoder puts a coefficient at the lower end of its quantisation interval, which is allowed (T.800 E.1.1.2)
/// but dims every detail by half a step. It does know half a step as a bit, however, which it drops only because
/// the header's exponent leaves no room for it. One more in the exponent makes that room, and the coefficient comes
/// out in the middle of its interval, where the reference decoders put it. Reversible streams have no steps.
fn with_halved_steps(stream: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let mut stream = Cow::Borrowed(stream);
    let mut at = 2;
    while let Some(&[0xFF, marker, high, low]) = stream.get(at..at + 4) {
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        // QCD, or QCC behind the number of its component (fewer than 257 of them).
        let style = match marker {
            0x90 => break,
            0x5C => at + 4,
            0x5D => at + 5,
            _ => {
                at = end;
                continue;
            }
        };
        at = end;
        let quantised = stream.get(style).is_some_and(|style| style & 0x1F != 0);
        if !quantised || end > stream.len() {
            continue;
        }
        for step in stream.to_mut()[style + 1..end].chunks_exact_mut(2) {
            if step[0] >= 31 << 3 {
                return Err("a quantisation step below all others".into());
            }
            step[0] += 1 << 3; // the exponent is the five highest bits
        }
    }
    Ok(stream)
}

/// The planes of a stream of part 1.
fn part_1(stream: &[u8]) -> Result<Vec<Vec<f32>>, String> {
    use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};
    let settings = DecodeSettings { strict: true, ..DecodeSettings::default() };
    let image = Image::new(stream, &settings).map_err(|e| crate::dataset::chain(&e))?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(|e| crate::dataset::chain(&e))?;
    Ok(decoded.components().iter().map(|component| component.samples().to_vec()).collect())
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

/// What the main header (T.800 annex A) says, as far as it decides what decoding costs.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// Right and lower end of the image on the reference grid, and its left and upper one.
    grid: (u32, u32),
    origin: (u32, u32),
    tile: (u32, u32),
    tile_origin: (u32, u32),
    components: usize,
    bits: u32,
    signed: bool,
    colour_transform: bool,
    high_throughput: bool,
    layers: u64,
    /// Coding style of each component.
    styles: Vec<Style>,
}

/// Coding style of a component (T.800 A.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Style {
    levels: u32,
    /// Precinct sizes as powers of two, by resolution from the lowest.
    precincts: Vec<(u32, u32)>,
    high_throughput: bool,
}

impl Header {
    /// Parses everything before the first tile-part.
    fn of(stream: &[u8]) -> Result<Self, String> {
        let mut header = None;
        let mut default: Option<Style> = None;
        let mut own: Vec<(usize, Style)> = vec![];
        let mut at = 2;
        loop {
            let Some(&[0xFF, marker, high, low]) = stream.get(at..at + 4) else {
                return Err(format!("expected a marker segment at byte {at}"));
            };
            if marker == 0x90 {
                break; // the first tile-part
            }
            let length = usize::from(u16::from_be_bytes([high, low]));
            let Some(segment) = stream.get(at + 4..at + 2 + length) else {
                return Err(format!("the stream ends inside the segment of marker FF{marker:02X}"));
            };
            at += 2 + length;
            match marker {
                0x51 => header = Some(Self::of_size(segment)?),
                0x52 => {
                    let header = header.as_mut().ok_or("the coding style comes before the size")?;
                    let &[flags, _, l0, l1, transform, ref rest @ ..] = segment else {
                        return Err("the coding style is too short".into());
                    };
                    header.layers = u64::from(u16::from_be_bytes([l0, l1]));
                    header.colour_transform = transform != 0;
                    default = Some(Style::of(flags, rest)?);
                }
                0x53 => {
                    let (component, rest) = match segment {
                        [component, rest @ ..] => (usize::from(*component), rest),
                        [] => return Err("the coding style of a component is empty".into()),
                    };
                    let Some((&flags, rest)) = rest.split_first() else {
                        return Err("the coding style of a component is too short".into());
                    };
                    own.push((component, Style::of(flags, rest)?));
                }
                _ => {}
            }
        }
        let mut header: Self = header.ok_or("the stream has no size (SIZ)")?;
        let default = default.ok_or("the stream has no coding style (COD)")?;
        header.styles = vec![default; header.components];
        for (component, style) in own {
            *header.styles.get_mut(component).ok_or("coding style of a component that is not there")? = style;
        }
        header.high_throughput = header.styles.iter().any(|style| style.high_throughput);
        tile_parts_keep_the_style(stream, at)?;
        if header.colour_transform && header.components < 3 {
            return Err("a colour transform of fewer than three components".into());
        }
        Ok(header)
    }

    /// SIZ, T.800 A.5.1.
    fn of_size(segment: &[u8]) -> Result<Self, String> {
        let long = |i: usize| -> Option<u32> { Some(u32::from_be_bytes(*segment.get(i..)?.first_chunk()?)) };
        let pair = |i: usize| Some((long(i)?, long(i + 4)?));
        let fields = || Some((pair(2)?, pair(10)?, pair(18)?, pair(26)?, segment.get(34..36)?));
        let (grid, origin, tile, tile_origin, count) = fields().ok_or("the size (SIZ) is too short")?;
        let components = usize::from(u16::from_be_bytes([count[0], count[1]]));
        let depths = segment.get(36..36 + 3 * components).unwrap_or_default();
        let Some(&[depth, _, _]) = depths.first_chunk::<3>() else {
            return Err("the size (SIZ) is too short".into());
        };
        if depths.chunks_exact(3).any(|c| c[0] != depth) {
            return Err("components of different depths are not supported".into());
        }
        if depths.chunks_exact(3).any(|c| c[1..] != [1, 1]) {
            return Err("subsampled components are not supported".into());
        }
        Ok(Self {
            grid,
            origin,
            tile,
            tile_origin,
            components,
            bits: u32::from(depth & 0x7F) + 1,
            signed: depth & 0x80 != 0,
            colour_transform: false,
            high_throughput: false,
            layers: 0,
            styles: vec![],
        })
    }

    /// Compares the header with the data set, and what decoding would take with the stream.
    fn check(&self, stream: &[u8], format: &PixelFormat) -> Result<(), String> {
        let size = |end: u32, start: u32| end.checked_sub(start).map_or(0, |n| n as usize);
        let (width, height) = (size(self.grid.0, self.origin.0), size(self.grid.1, self.origin.1));
        if (height, width) != (format.height, format.width) {
            return Err(format!(
                "expected {} x {} pixels (rows x columns), the stream holds {height} x {width}",
                format.height, format.width
            ));
        }
        if self.components != format.samples_per_pixel {
            let samples = format.samples_per_pixel;
            return Err(format!(
                "expected {samples} samples per pixel, the stream holds {}",
                self.components
            ));
        }
        if self.bits > format.bits_allocated {
            return Err(format!("{} bits for Bits Allocated {}", self.bits, format.bits_allocated));
        }
        if self.origin.0.max(self.origin.1) > MAX_OFFSET {
            return Err(format!("image offset of {:?} on the reference grid", self.origin));
        }
        let ends = |tile: u32, start: u32, image: u32| {
            tile > 0 && start <= image && u64::from(start) + u64::from(tile) > u64::from(image)
        };
        if !ends(self.tile.0, self.tile_origin.0, self.origin.0)
            || !ends(self.tile.1, self.tile_origin.1, self.origin.1)
        {
            return Err("the first tile lies outside of the image".into());
        }
        let bytes = stream.len() as u64;
        let across = u64::from(self.grid.0 - self.tile_origin.0).div_ceil(u64::from(self.tile.0));
        let down = u64::from(self.grid.1 - self.tile_origin.1).div_ceil(u64::from(self.tile.1));
        if across * down > 65_535 || across * down * TILE_PART_BYTES > bytes {
            return Err(format!("{} tiles in {bytes} bytes", across * down));
        }
        // Every precinct has a packet for every layer, and every packet takes a byte at least (T.800 B.9).
        let mut packets = 0u64;
        for style in &self.styles {
            packets += self.precincts(style, across, down) * self.layers;
        }
        if packets > bytes {
            return Err(format!("{packets} packets in {bytes} bytes"));
        }
        Ok(())
    }

    /// Precincts of one component in all tiles (T.800 B.6), or a number beyond any stream.
    fn precincts(&self, style: &Style, across: u64, down: u64) -> u64 {
        let mut total = 0u64;
        for level in 0..=style.levels {
            let (width, height) = style.precincts[level as usize];
            let reduction = style.levels - level;
            let count = |tiles: u64, first: u32, tile: u32, begin: u32, end: u32, precinct: u32| -> u64 {
                (0..tiles)
                    .map(|i| {
                        let start = (u64::from(first) + i * u64::from(tile)).max(u64::from(begin));
                        let stop = (u64::from(first) + (i + 1) * u64::from(tile)).min(u64::from(end));
                        let (start, stop) = (start.div_ceil(1 << reduction), stop.div_ceil(1 << reduction));
                        if stop > start { stop.div_ceil(1 << precinct) - (start >> precinct) } else { 0 }
                    })
                    .sum()
            };
            total += count(across, self.tile_origin.0, self.tile.0, self.origin.0, self.grid.0, width)
                * count(down, self.tile_origin.1, self.tile.1, self.origin.1, self.grid.1, height);
        }
        total
    }
}

impl Style {
    /// SPcod or SPcoc (T.800 table A.15) behind the flags of Scod or Scoc.
    fn of(flags: u8, parameters: &[u8]) -> Result<Self, String> {
        let &[levels, width, height, blocks, _, ref precincts @ ..] = parameters else {
            return Err("the coding style is too short".into());
        };
        if levels > 32 {
            return Err(format!("{levels} decomposition levels"));
        }
        if width > 8 || height > 8 || width + height > 8 {
            return Err("code blocks of more than 4096 samples".into());
        }
        let levels = u32::from(levels);
        let precincts = if flags & 1 == 0 {
            vec![(15, 15); levels as usize + 1]
        } else {
            let sizes: Vec<_> = precincts.iter().map(|&p| (u32::from(p & 15), u32::from(p >> 4))).collect();
            if sizes.len() <= levels as usize {
                return Err("precinct sizes are missing".into());
            }
            sizes
        };
        Ok(Self { levels, precincts, high_throughput: blocks & 0x40 != 0 })
    }
}
