//! The main header of a codestream (ITU-T T.800 annex A), as far as decoding goes by it.

use super::coding::Coding;
use crate::pixel_format::PixelFormat;

/// Bytes of a tile-part at least: its SOT segment.
const TILE_PART_BYTES: u64 = 12;
/// Largest distance of the image from the origin of the reference grid.
const MAX_OFFSET: u32 = 65_535;

/// A rectangle: from (x0, y0), to below (x1, y1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub x0: u32,
    pub y0: u32,
    pub x1: u32,
    pub y1: u32,
}

impl Area {
    pub fn width(&self) -> usize {
        self.x1.saturating_sub(self.x0) as usize
    }

    pub fn height(&self) -> usize {
        self.y1.saturating_sub(self.y0) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.x1 <= self.x0 || self.y1 <= self.y0
    }
}

/// A marker segment: the second byte of its marker, and its parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment<'a> {
    pub marker: u8,
    pub bytes: &'a [u8],
}

impl<'a> Segment<'a> {
    /// The segment at `at`, and where it ends.
    pub fn at(stream: &'a [u8], at: usize) -> Result<(Self, usize), String> {
        let Some(&[0xFF, marker, high, low]) = stream.get(at..at + 4) else {
            return Err(format!("expected a marker segment at byte {at}"));
        };
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        match stream.get(at + 4..end) {
            Some(bytes) => Ok((Self { marker, bytes }, end)),
            None => Err(format!("the stream ends inside the segment of marker FF{marker:02X}")),
        }
    }
}

/// What is known before the first tile-part.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub size: Size,
    pub coding: Coding,
    /// Packet headers of all tile-parts, in the order of their segments (PPM, T.800 A.7.4).
    pub packed_headers: Vec<Segment<'a>>,
    /// Where the first tile-part begins.
    pub end: usize,
}

/// SIZ, T.800 A.5.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// The image on the reference grid.
    pub image: Area,
    pub tile: (u32, u32),
    pub tile_origin: (u32, u32),
    pub components: usize,
    pub bits: u32,
    pub signed: bool,
}

impl<'a> Header<'a> {
    /// Reads the header and compares it with the data set.
    pub fn of(stream: &'a [u8], format: &PixelFormat) -> Result<Self, String> {
        let mut segments = vec![];
        let mut at = 2;
        while stream.get(at..at + 2) != Some(&[0xFF, 0x90]) {
            let (segment, end) = Segment::at(stream, at)?;
            segments.push(segment);
            at = end;
        }
        let size = segments.iter().find(|s| s.marker == 0x51).ok_or("the stream has no size (SIZ)")?;
        let size = Size::of(size.bytes)?;
        size.check(stream, format)?;
        let coding = Coding::of_main(&segments, size.components)?;
        segments.retain(|s| s.marker == 0x60);
        segments.sort_by_key(|s| s.bytes.first().copied());
        Ok(Self { size, coding, packed_headers: segments, end: at })
    }
}

impl Size {
    fn of(segment: &[u8]) -> Result<Self, String> {
        let long = |i: usize| -> Option<u32> { Some(u32::from_be_bytes(*segment.get(i..)?.first_chunk()?)) };
        let pair = |i: usize| Some((long(i)?, long(i + 4)?));
        let fields = || Some((pair(2)?, pair(10)?, pair(18)?, pair(26)?, segment.get(34..36)?));
        let ((x1, y1), (x0, y0), tile, tile_origin, count) = fields().ok_or("the size (SIZ) is too short")?;
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
            image: Area { x0, y0, x1, y1 },
            tile,
            tile_origin,
            components,
            bits: u32::from(depth & 0x7F) + 1,
            signed: depth & 0x80 != 0,
        })
    }

    /// Compares the size with the data set, and the number of tiles with the stream.
    fn check(&self, stream: &[u8], format: &PixelFormat) -> Result<(), String> {
        let (width, height) = (self.image.width(), self.image.height());
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
        if self.image.x0.max(self.image.y0) > MAX_OFFSET {
            let origin = (self.image.x0, self.image.y0);
            return Err(format!("image offset of {origin:?} on the reference grid"));
        }
        let ends = |tile: u32, start: u32, image: u32| {
            tile > 0 && start <= image && u64::from(start) + u64::from(tile) > u64::from(image)
        };
        if !ends(self.tile.0, self.tile_origin.0, self.image.x0)
            || !ends(self.tile.1, self.tile_origin.1, self.image.y0)
        {
            return Err("the first tile lies outside of the image".into());
        }
        let (bytes, tiles) = (stream.len() as u64, self.tiles());
        if tiles > 65_535 || tiles * TILE_PART_BYTES > bytes {
            return Err(format!("{tiles} tiles in {bytes} bytes"));
        }
        Ok(())
    }

    fn tiles_across(&self) -> u64 {
        u64::from(self.image.x1 - self.tile_origin.0).div_ceil(self.tile.0.into())
    }

    /// Tiles of the image.
    pub fn tiles(&self) -> u64 {
        self.tiles_across() * u64::from(self.image.y1 - self.tile_origin.1).div_ceil(self.tile.1.into())
    }

    /// The part of the image in tile `index` (T.800 B.3), which must be below [`Self::tiles`].
    pub fn tile_area(&self, index: usize) -> Area {
        let across = self.tiles_across();
        let (column, row) = (index as u64 % across, index as u64 / across);
        let start = |first: u32, tile: u32, i: u64, image: u32| {
            (u64::from(first) + i * u64::from(tile)).max(image.into()) as u32
        };
        let end = |first: u32, tile: u32, i: u64, image: u32| {
            (u64::from(first) + (i + 1) * u64::from(tile)).min(image.into()) as u32
        };
        Area {
            x0: start(self.tile_origin.0, self.tile.0, column, self.image.x0),
            y0: start(self.tile_origin.1, self.tile.1, row, self.image.y0),
            x1: end(self.tile_origin.0, self.tile.0, column, self.image.x1),
            y1: end(self.tile_origin.1, self.tile.1, row, self.image.y1),
        }
    }
}
