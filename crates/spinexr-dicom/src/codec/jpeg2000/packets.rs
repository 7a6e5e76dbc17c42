//! Packets: which passes of which code blocks are in the stream, and where (ITU-T T.800 B.9, B.10, B.12).

use super::coding::{Coding, Order, Progression, Style, modes};
use super::geometry::{Band, Block, Component, Piece};
use super::header::Area;
use super::packet_bits::PacketBits;
use super::tag_tree;
use super::tile_parts::TileBytes;

/// Coding passes that a block may have in all layers: those of 37 bit planes, the most there are (T.800 A.6.4).
const MAX_PASSES: u16 = 109;

/// Reads all packets of a tile. A tile that ends before its last packet is an error.
pub(super) fn read(
    components: &mut [Component],
    area: Area,
    coding: &Coding,
    tile: &TileBytes,
) -> Result<(), String> {
    let mut reader = Reader { tile, body_at: 0, header_at: 0, added: vec![] };
    for progression in coding.progressions() {
        let places = places(components, area, coding.layers, &progression);
        // Within a group, every layer goes through all places before the next.
        let one_group = |a: &Place, b: &Place| match progression.order {
            Order::LayerResolutionComponent => true,
            Order::ResolutionLayerComponent => a.resolution == b.resolution,
            _ => false,
        };
        for group in places.chunk_by(one_group) {
            for layer in 0..progression.layers.min(coding.layers) {
                for place in group {
                    let component = usize::from(place.component);
                    let resolution = &mut components[component].resolutions[usize::from(place.resolution)];
                    // Later progressions leave out what earlier ones brought.
                    let layers_read = &mut resolution.layers_read[place.precinct as usize];
                    if u32::from(*layers_read) == layer {
                        *layers_read += 1;
                        let style = &coding.components[component].style;
                        reader.packet(
                            &mut resolution.bands,
                            place.precinct as usize,
                            layer,
                            style,
                            coding,
                        )?;
                    }
                }
            }
        }
    }
    let missing = |layers: &u16| u32::from(*layers) < coding.layers;
    if components.iter().flat_map(|c| &c.resolutions).any(|r| r.layers_read.iter().any(missing)) {
        return Err("the progressions leave packets out".into());
    }
    Ok(())
}

/// A precinct, and where it lies on the reference grid.
#[derive(Debug)]
struct Place {
    component: u16,
    resolution: u16,
    precinct: u32,
    x: u32,
    y: u32,
}

/// The precincts of a progression in their order, but for those that are complete.
fn places(components: &[Component], area: Area, layers: u32, progression: &Progression) -> Vec<Place> {
    let mut places = vec![];
    let (first, last) = progression.components;
    for (c, component) in (0..).zip(components).take(last).skip(first) {
        let (first, last) = progression.resolutions;
        for (r, resolution) in (0..).zip(&component.resolutions).take(last as usize).skip(first as usize) {
            for (precinct, &read) in (0..).zip(&resolution.layers_read) {
                if u32::from(read) < layers {
                    let (x, y) = resolution.precinct_origin(precinct, area);
                    places.push(Place { component: c, resolution: r, precinct, x, y });
                }
            }
        }
    }
    places.sort_unstable_by_key(|place| {
        let &Place { component, resolution, precinct, x, y } = place;
        let (component, resolution) = (component.into(), resolution.into());
        match progression.order {
            Order::LayerResolutionComponent | Order::ResolutionLayerComponent => {
                [resolution, component, precinct, 0, 0]
            }
            Order::ResolutionPosition => [resolution, y, x, component, precinct],
            Order::PositionComponent => [y, x, component, resolution, precinct],
            Order::ComponentPosition => [component, y, x, resolution, precinct],
        }
    });
    places
}

struct Reader<'a> {
    tile: &'a TileBytes<'a>,
    body_at: usize,
    /// Place in the packed headers, if there are any.
    header_at: usize,
    /// Band, block and piece of what the present packet holds.
    added: Vec<(usize, usize, usize)>,
}

impl Reader<'_> {
    fn packet(
        &mut self,
        bands: &mut [Band],
        precinct: usize,
        layer: u32,
        style: &Style,
        coding: &Coding,
    ) -> Result<(), String> {
        let body = &self.tile.body[..];
        if coding.start_of_packet && body.get(self.body_at..self.body_at + 2) == Some(&[0xFF, 0x91]) {
            self.body_at += 6;
        }
        let (headers, at) = match &self.tile.packed_headers {
            Some(headers) => (&headers[..], &mut self.header_at),
            None => (body, &mut self.body_at),
        };
        let mut bits = PacketBits::new(headers, *at);
        self.added.clear();
        if bits.bit()? == 1 {
            for (place, band) in bands.iter_mut().enumerate() {
                band_header(band, precinct, layer, style, &mut bits, |block, piece| {
                    self.added.push((place, block, piece));
                })?;
            }
        }
        *at = bits.end()?;
        if coding.end_of_header && headers.get(*at..*at + 2) == Some(&[0xFF, 0x92]) {
            *at += 2;
        }
        for &(band, block, piece) in &self.added {
            let piece = &mut bands[band].blocks[block].pieces[piece];
            piece.start = u32::try_from(self.body_at).map_err(|_| "a tile of more than 4 GiB")?;
            self.body_at += piece.length as usize;
            if self.body_at > body.len() {
                return Err("the stream ends inside a packet".into());
            }
        }
        Ok(())
    }
}

/// What the header of a packet says of one band (T.800 B.10).
fn band_header(
    band: &mut Band,
    precinct: usize,
    layer: u32,
    style: &Style,
    bits: &mut PacketBits,
    mut added: impl FnMut(usize, usize),
) -> Result<(), String> {
    let precinct = band.precincts[precinct];
    let size = (u32::from(precinct.across), u32::from(precinct.down));
    let trees = tag_tree::nodes(size.0, size.1);
    let (inclusion, zero_planes) = band.nodes[precinct.nodes_at as usize..][..2 * trees].split_at_mut(trees);
    for y in 0..size.1 {
        for x in 0..size.0 {
            let index = precinct.blocks_at as usize + (y * size.0 + x) as usize;
            let block = &mut band.blocks[index];
            if block.length_bits > 0 {
                if bits.bit()? == 0 {
                    continue;
                }
            } else {
                // The number of layers has 16 bits.
                if tag_tree::read(inclusion, size, (x, y), layer as u16 + 1, bits)?.is_none() {
                    continue;
                }
                let planes = band.planes as u16;
                let zero = tag_tree::read(zero_planes, size, (x, y), planes + 1, bits)?;
                block.zero_planes = zero.ok_or("more empty bit planes than there are")?;
                block.length_bits = 3;
            }
            let passes = passes(bits)?;
            while bits.bit()? == 1 {
                block.length_bits = block.length_bits.saturating_add(1);
            }
            let before = block.pieces.len();
            if style.has(modes::HIGH_THROUGHPUT) {
                high_throughput_pieces(block, passes, bits)?;
            } else {
                pieces(block, passes, style, bits)?;
            }
            let coded = band.planes.saturating_sub(block.zero_planes.into());
            if coded == 0 || (style.has(modes::HIGH_THROUGHPUT) && block.passes > 3) {
                return Err(format!("{} coding passes of {coded} bit planes", block.passes));
            }
            (before..block.pieces.len()).for_each(|piece| added(index, piece));
        }
    }
    Ok(())
}

/// Number of new coding passes (T.800 table B.4).
fn passes(bits: &mut PacketBits) -> Result<u32, String> {
    for (width, first) in [(1, 1), (1, 2), (2, 3), (5, 6)] {
        let code = bits.bits(width)?;
        if code < (1 << width) - 1 {
            return Ok(first + code);
        }
    }
    Ok(37 + bits.bits(7)?)
}

/// Lengths of the code words that `passes` more passes belong to (T.800 B.10.7).
fn pieces(block: &mut Block, mut passes: u32, style: &Style, bits: &mut PacketBits) -> Result<(), String> {
    while passes > 0 {
        let done = u32::from(block.passes);
        let (opens, left) = if style.has(modes::TERMINATE) {
            (true, 1)
        } else if !style.has(modes::BYPASS) {
            (done == 0, u32::MAX)
        } else if done < 10 {
            (done == 0, 10 - done)
        } else {
            // Raw bits of two passes, then a cleanup pass (T.800 table D.9).
            [(true, 2), (false, 1), (true, 1)][(done - 10) as usize % 3]
        };
        let these = passes.min(left);
        push(block, these, these, opens, bits)?;
        passes -= these;
    }
    Ok(())
}

/// The same for High-Throughput blocks: the cleanup pass is a code word, its refinements are another (T.814 B.3).
fn high_throughput_pieces(block: &mut Block, mut passes: u32, bits: &mut PacketBits) -> Result<(), String> {
    if block.passes == 0 {
        // Passes in threes stand for bit planes that are left out.
        let left_out = (passes - 1) / 3;
        block.zero_planes += left_out as u16;
        push(block, 1, 3 * left_out + 1, true, bits)?;
        passes -= 3 * left_out + 1;
    }
    if passes > 0 {
        push(block, passes, passes, block.passes == 1, bits)?;
    }
    Ok(())
}

fn push(
    block: &mut Block,
    passes: u32,
    counted: u32,
    opens: bool,
    bits: &mut PacketBits,
) -> Result<(), String> {
    let width = u32::from(block.length_bits) + counted.ilog2();
    if width > 32 {
        return Err(format!("a length of {width} bits"));
    }
    let length = bits.bits(width)?;
    block.pieces.push(Piece { start: 0, length, passes, opens });
    // Not held to the planes of this block: some encoders write a few more.
    block.passes += passes as u16;
    if block.passes > MAX_PASSES {
        return Err(format!("{} coding passes of a block", block.passes));
    }
    Ok(())
}
