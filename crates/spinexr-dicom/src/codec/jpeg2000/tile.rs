//! From the packets of a tile to its samples.

use super::coding::{Coding, ComponentCoding, modes};
use super::geometry::{self, Band, BandKind, Component};
use super::header::{Area, Size};
use super::ht::{self, HighThroughput};
use super::packets;
use super::tier1::{self, Tier1};
use super::tile_parts::TileBytes;
use super::wavelet::{Bands, Irreversible, Level, Reversible, Wavelet, band_gain};

/// Buffers that blocks of all tiles share.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    tier1: Tier1,
    high_throughput: HighThroughput,
}

/// Decodes a tile into its place in `values`, which holds the whole image.
pub(super) fn decode(
    tile: &TileBytes,
    area: Area,
    size: &Size,
    coding: &Coding,
    buffers: &mut Buffers,
    values: &mut [u16],
) -> Result<(), String> {
    let bytes = tile.body.len() + tile.packed_headers.as_ref().map_or(0, Vec::len);
    let mut components = geometry::components(area, coding, size.bits, bytes)?;
    packets::read(&mut components, area, coding, tile)?;
    let mut sources = Vec::with_capacity(components.len());
    for (component, coding) in components.into_iter().zip(&coding.components) {
        sources.push(if coding.style.reversible {
            Source::Reversible(rows(component, coding, &tile.body, buffers)?)
        } else {
            Source::Irreversible(rows(component, coding, &tile.body, buffers)?)
        });
    }
    let depth = Depth::of(size);
    let count = size.components;
    let (left, width) = ((area.x0 - size.image.x0) as usize * count, area.width() * count);
    let first = (area.y0 - size.image.y0) as usize;
    let lines = values.chunks_exact_mut(size.image.width() * count);
    for line in lines.skip(first).take(area.height()) {
        let out = &mut line[left..left + width];
        match (&mut sources[..], coding.colour_transform) {
            ([Source::Reversible(a), Source::Reversible(b), Source::Reversible(c)], true) => {
                reversible_colour(a.next_row(), b.next_row(), c.next_row(), depth, out);
            }
            ([Source::Irreversible(a), Source::Irreversible(b), Source::Irreversible(c)], true) => {
                irreversible_colour(a.next_row(), b.next_row(), c.next_row(), depth, out);
            }
            (sources, _) => {
                for (place, source) in sources.iter_mut().enumerate() {
                    match source {
                        Source::Reversible(rows) => depth.write(rows.next_row(), out, place, count),
                        Source::Irreversible(rows) => depth.write(rows.next_row(), out, place, count),
                    }
                }
            }
        }
    }
    Ok(())
}

enum Source {
    Reversible(Rows<Reversible>),
    Irreversible(Rows<Irreversible>),
}

/// The rows of a component: of its highest level, or of its only band.
enum Rows<W: Wavelet> {
    Level(Box<Level<W>>),
    Band { samples: Vec<W::Sample>, width: usize, row: usize },
}

impl<W: Wavelet> Rows<W> {
    fn next_row(&mut self) -> &[W::Sample] {
        match self {
            Self::Level(level) => level.next_row(),
            Self::Band { samples, width, row } => {
                *row += 1;
                &samples[(*row - 1) * *width..*row * *width]
            }
        }
    }
}

/// Coefficients of a wavelet from what block decoders give: sign, magnitude, and one bit behind the point.
trait Coefficients: Wavelet {
    /// The converter for coefficients of this step.
    fn converter(step: f32) -> impl Fn(u32) -> Self::Sample;
}

impl Coefficients for Reversible {
    fn converter(_: f32) -> impl Fn(u32) -> i32 {
        |coded| {
            let sign = coded as i32 >> 31;
            (((coded & 0x7FFF_FFFF) >> 1) as i32 ^ sign).wrapping_sub(sign)
        }
    }
}

impl Coefficients for Irreversible {
    fn converter(step: f32) -> impl Fn(u32) -> f32 {
        let half = 0.5 * step;
        move |coded| {
            let magnitude = (coded & 0x7FFF_FFFF) as i32 as f32 * half;
            f32::from_bits(magnitude.to_bits() | coded & 0x8000_0000)
        }
    }
}

/// Decodes the blocks of a component and puts all its levels together but the highest.
fn rows<W: Coefficients>(
    component: Component,
    coding: &ComponentCoding,
    body: &[u8],
    buffers: &mut Buffers,
) -> Result<Rows<W>, String> {
    let levels = coding.style.levels;
    let mut low = vec![];
    for (r, resolution) in (0..).zip(component.resolutions) {
        let area = resolution.area;
        let level = levels + 1 - r;
        let mut bands = [None, None, None];
        for band in &resolution.bands {
            let (place, high) = match band.kind {
                BandKind::LowLow => (0, 0),
                BandKind::HighLow => (0, 1),
                BandKind::LowHigh => (1, 1),
                BandKind::HighHigh => (2, 2),
            };
            let gain = match (r, levels) {
                (_, 0) => 1.0,
                (0, _) => band_gain(levels, high),
                _ => band_gain(level, high),
            };
            bands[place] = coefficients::<W>(band, gain, coding, body, buffers)?;
        }
        let [high_low, low_high, high_high] = bands;
        if r == 0 {
            low = high_low.unwrap_or_else(|| vec![W::Sample::default(); area.width() * area.height()]);
        } else if !area.is_empty() {
            let mut synthesis = Box::new(Level::new(area, Bands { low, high_low, low_high, high_high }));
            if r == levels {
                return Ok(Rows::Level(synthesis));
            }
            low = Vec::with_capacity(area.width() * area.height());
            (0..area.height()).for_each(|_| low.extend_from_slice(synthesis.next_row()));
        }
        if r == levels {
            return Ok(Rows::Band { samples: low, width: area.width(), row: 0 });
        }
    }
    Err("a component without resolutions".into())
}

/// The coefficients of a band; `None` when all are zero.
fn coefficients<W: Coefficients>(
    band: &Band,
    gain: f32,
    coding: &ComponentCoding,
    body: &[u8],
    buffers: &mut Buffers,
) -> Result<Option<Vec<W::Sample>>, String> {
    if band.blocks.iter().all(|block| block.pieces.is_empty()) {
        return Ok(None);
    }
    let convert = W::converter(band.step * gain);
    let width = band.area.width();
    let mut samples = vec![W::Sample::default(); width * band.area.height()];
    for precinct in &band.precincts {
        for (row, blocks) in (0..).zip(band.blocks_of(precinct).chunks_exact(precinct.across.max(1).into())) {
            for (column, block) in (0..).zip(blocks) {
                if block.pieces.is_empty() {
                    continue;
                }
                let area = band.block_area(precinct, column, row);
                let (block_width, block_height) = (area.width(), area.height());
                let (coded, stride) = if coding.style.has(modes::HIGH_THROUGHPUT) {
                    let block_coding = ht::BlockCoding {
                        width: block_width,
                        height: block_height,
                        zero_planes: block.zero_planes.into(),
                        planes: band.planes,
                        causal: coding.style.has(modes::VERTICALLY_CAUSAL),
                    };
                    let decoder = &mut buffers.high_throughput;
                    decoder.decode(&block_coding, &block.pieces, body)?;
                    (&mut decoder.samples, decoder.stride)
                } else {
                    let block_coding = tier1::BlockCoding {
                        kind: band.kind,
                        modes: coding.style.modes,
                        width: block_width,
                        height: block_height,
                        planes: band.planes - u32::from(block.zero_planes),
                    };
                    let decoder = &mut buffers.tier1;
                    decoder.decode(&block_coding, &block.pieces, body)?;
                    (&mut decoder.samples, block_width)
                };
                if coding.region_shift > 0 {
                    lower_region(coded, coding.region_shift);
                }
                let lines = samples[area.y0 as usize * width..].chunks_mut(width);
                for (line, coded) in lines.zip(coded.chunks_exact(stride)).take(block_height) {
                    let line = &mut line[area.x0 as usize..area.x1 as usize];
                    line.iter_mut().zip(coded).for_each(|(sample, &coded)| *sample = convert(coded));
                }
            }
        }
    }
    Ok(Some(samples))
}

/// Takes back what raised the coefficients of a region of interest above all others (T.800 H.1).
fn lower_region(coded: &mut [u32], shift: u32) {
    for coded in coded {
        let magnitude = *coded & 0x7FFF_FFFF;
        if u64::from(magnitude) >= 2u64 << shift {
            *coded = *coded & 0x8000_0000 | magnitude >> shift;
        }
    }
}

/// Where samples end: their offset (T.800 G.1) and range.
#[derive(Debug, Clone, Copy)]
struct Depth {
    offset: i32,
    least: i32,
    greatest: i32,
}

/// A sample of either transformation as a stored value; negative ones in two's complement.
trait Stored: Copy {
    fn stored(self, depth: Depth) -> u16;
}

impl Stored for i32 {
    #[inline(always)]
    fn stored(self, depth: Depth) -> u16 {
        self.wrapping_add(depth.offset).clamp(depth.least, depth.greatest) as u16
    }
}

impl Stored for f32 {
    #[inline(always)]
    fn stored(self, depth: Depth) -> u16 {
        let (least, greatest) = (depth.least as f32, depth.greatest as f32);
        let value = self + depth.offset as f32;
        let value = if value > least { value } else { least };
        let value = if value < greatest { value } else { greatest };
        // In numbers of this size the lowest bit is 1: the sum is rounded to whole numbers, half to even, and its
        // lowest bits are the number. A conversion that checks its range would be several times as long.
        (value + 12_582_912.0).to_bits() as u16
    }
}

impl Depth {
    fn of(size: &Size) -> Self {
        let half = 1 << (size.bits - 1);
        if size.signed {
            Self { offset: 0, least: -half, greatest: half - 1 }
        } else {
            Self { offset: half, least: 0, greatest: 2 * half - 1 }
        }
    }

    /// Writes the samples of component `place` of `count`.
    fn write<T: Stored>(self, row: &[T], out: &mut [u16], place: usize, count: usize) {
        if count == 1 {
            out.iter_mut().zip(row).for_each(|(out, &sample)| *out = sample.stored(self));
        } else {
            let out = out.iter_mut().skip(place).step_by(count);
            out.zip(row).for_each(|(out, &sample)| *out = sample.stored(self));
        }
    }
}

/// T.800 equations G-6 to G-8.
fn reversible_colour(y: &[i32], u: &[i32], v: &[i32], depth: Depth, out: &mut [u16]) {
    for (((out, &y), &u), &v) in out.as_chunks_mut::<3>().0.iter_mut().zip(y).zip(u).zip(v) {
        let green = y.wrapping_sub(u.wrapping_add(v) >> 2);
        *out = [v.wrapping_add(green), green, u.wrapping_add(green)].map(|sample| sample.stored(depth));
    }
}

/// T.800 equations G-12 to G-14.
fn irreversible_colour(y: &[f32], cb: &[f32], cr: &[f32], depth: Depth, out: &mut [u16]) {
    for (((out, &y), &cb), &cr) in out.as_chunks_mut::<3>().0.iter_mut().zip(y).zip(cb).zip(cr) {
        let rgb = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
        *out = rgb.map(|sample| sample.stored(depth));
    }
}
