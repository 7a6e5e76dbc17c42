//! How a tile is cut: resolutions, bands, precincts and code blocks (ITU-T T.800 B.5 to B.7).

use super::coding::{Coding, ComponentCoding};
use super::header::Area;
use super::tag_tree::{self, Node};

/// A component of a tile.
#[derive(Debug)]
pub(super) struct Component {
    /// From the lowest.
    pub resolutions: Vec<Resolution>,
}

#[derive(Debug)]
pub(super) struct Resolution {
    pub area: Area,
    /// Precincts across and down, and the size of each as powers of two.
    pub across: u32,
    pub down: u32,
    precinct: (u32, u32),
    /// Halvings between the image and this resolution.
    reduction: u32,
    pub bands: Vec<Band>,
    /// Layers read, by precinct.
    pub layers_read: Vec<u16>,
}

/// Which halves a band holds, of the frequencies across and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BandKind {
    LowLow,
    /// High across.
    HighLow,
    /// High down.
    LowHigh,
    HighHigh,
}

#[derive(Debug)]
pub(super) struct Band {
    pub kind: BandKind,
    pub area: Area,
    /// Magnitude bit planes, those of a region of interest included.
    pub planes: u32,
    /// What a coefficient of 1 stands for.
    pub step: f32,
    /// Size of a code block as powers of two.
    pub block: (u32, u32),
    pub precincts: Vec<Precinct>,
    pub blocks: Vec<Block>,
    /// Tag trees of all precincts: inclusion, then zero bit planes, of each.
    pub nodes: Vec<Node>,
}

/// The code blocks of a precinct in one band.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Precinct {
    /// The first block, counted in blocks from the origin.
    pub column: u32,
    pub row: u32,
    pub across: u16,
    pub down: u16,
    /// Where its blocks and nodes begin.
    pub blocks_at: u32,
    pub nodes_at: u32,
}

/// What the packets say of a code block.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    /// Bit planes without a one, from the highest.
    pub zero_planes: u16,
    pub passes: u16,
    /// Bits that lengths take at least (Lblock, T.800 B.10.7); 0 before the block is included.
    pub length_bits: u8,
    pub pieces: Vec<Piece>,
}

/// Coded bytes of some passes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub start: u32,
    pub length: u32,
    pub passes: u32,
    /// Whether a code word begins here; else the one before goes on.
    pub opens: bool,
}

/// The components of a tile over `area`, for `bytes` bytes of packets and their headers.
pub(super) fn components(
    area: Area,
    coding: &Coding,
    bits: u32,
    bytes: usize,
) -> Result<Vec<Component>, String> {
    // Every precinct has a packet for every layer, and every packet takes a byte at least (T.800 B.9). What is
    // allocated below is in proportion to precincts and samples.
    let mut packets = 0u64;
    for component in &coding.components {
        for r in 0..=component.style.levels {
            let (across, down) =
                precincts(reduced(area, component.style.levels - r), component.style.precincts[r as usize]);
            packets += u64::from(across) * u64::from(down) * u64::from(coding.layers);
        }
    }
    if packets > bytes as u64 || coding.layers == 0 {
        return Err(format!("{packets} packets in {bytes} bytes"));
    }
    coding.components.iter().map(|component| Component::new(area, component, bits)).collect()
}

/// `area` after halvings (T.800 equation B-14).
fn reduced(area: Area, halvings: u32) -> Area {
    let half = |n: u32| u64::from(n).div_ceil(1 << halvings) as u32;
    Area { x0: half(area.x0), y0: half(area.y0), x1: half(area.x1), y1: half(area.y1) }
}

/// Precincts across and down (T.800 equation B-16).
fn precincts(area: Area, (width, height): (u32, u32)) -> (u32, u32) {
    if area.is_empty() {
        return (0, 0);
    }
    let count = |start: u32, end: u32, size: u32| end.div_ceil(1 << size) - (start >> size);
    (count(area.x0, area.x1, width), count(area.y0, area.y1, height))
}

impl Component {
    fn new(area: Area, coding: &ComponentCoding, bits: u32) -> Result<Self, String> {
        let levels = coding.style.levels;
        let resolutions = (0..=levels).map(|r| Resolution::new(area, r, coding, bits));
        Ok(Self { resolutions: resolutions.collect::<Result<_, String>>()? })
    }
}

impl Resolution {
    fn new(tile: Area, r: u32, coding: &ComponentCoding, bits: u32) -> Result<Self, String> {
        let reduction = coding.style.levels - r;
        let area = reduced(tile, reduction);
        let precinct = coding.style.precincts[r as usize];
        let (across, down) = precincts(area, precinct);
        let kinds: &[_] = match r {
            _ if area.is_empty() => &[],
            0 => &[BandKind::LowLow],
            _ => &[BandKind::HighLow, BandKind::LowHigh, BandKind::HighHigh],
        };
        let mut resolution = Self {
            area,
            across,
            down,
            precinct,
            reduction,
            bands: Vec::with_capacity(kinds.len()),
            layers_read: vec![0; across as usize * down as usize],
        };
        for &kind in kinds {
            let band = Band::new(tile, r, kind, &resolution, coding, bits)?;
            resolution.bands.push(band);
        }
        Ok(resolution)
    }

    /// Where a precinct lies on the reference grid, as far as the order of packets goes by it (T.800 B.12.1.3).
    pub fn precinct_origin(&self, precinct: u32, tile: Area) -> (u32, u32) {
        let (column, row) = (precinct % self.across, precinct / self.across);
        let at = |i: u32, start: u32, size: u32, least: u32| {
            let origin = (u64::from(start >> size) + u64::from(i)) << (size + self.reduction);
            origin.max(least.into()) as u32
        };
        let x = at(column, self.area.x0, self.precinct.0, tile.x0);
        (x, at(row, self.area.y0, self.precinct.1, tile.y0))
    }
}

impl Band {
    fn new(
        tile: Area,
        r: u32,
        kind: BandKind,
        resolution: &Resolution,
        coding: &ComponentCoding,
        bits: u32,
    ) -> Result<Self, String> {
        let levels = coding.style.levels;
        let (high_across, high_down, gain, place) = match kind {
            BandKind::LowLow => (false, false, 0, 0),
            BandKind::HighLow => (true, false, 1, 3 * r as usize - 2),
            BandKind::LowHigh => (false, true, 1, 3 * r as usize - 1),
            BandKind::HighHigh => (true, true, 2, 3 * r as usize),
        };
        let decompositions = if r == 0 { levels } else { levels - r + 1 };
        // T.800 equation B-15.
        let part = |n: u32, high: bool| {
            let offset = if high { 1u64 << (decompositions - 1) } else { 0 };
            u64::from(n).saturating_sub(offset).div_ceil(1 << decompositions) as u32
        };
        let area = Area {
            x0: part(tile.x0, high_across),
            y0: part(tile.y0, high_down),
            x1: part(tile.x1, high_across),
            y1: part(tile.y1, high_down),
        };
        let (exponent, mantissa) = coding.quantisation.step(place, decompositions, levels)?;
        let planes = coding.quantisation.planes(exponent) + coding.region_shift;
        // T.800 equation E-3.
        let step = (1.0 + mantissa as f32 / 2048.0) * 2f32.powi((bits + gain) as i32 - exponent as i32);
        // A precinct of a higher resolution holds half as many samples of each band (T.800 equations B-17, B-18).
        let halved = u32::from(r > 0);
        let precinct = (resolution.precinct.0 - halved, resolution.precinct.1 - halved);
        let block = (coding.style.block.0.min(precinct.0), coding.style.block.1.min(precinct.1));
        let mut band = Self {
            kind,
            area,
            planes,
            step,
            block,
            precincts: Vec::with_capacity(resolution.across as usize * resolution.down as usize),
            blocks: vec![],
            nodes: vec![],
        };
        let (mut blocks, mut nodes) = (0, 0);
        for row in 0..resolution.down {
            let (y0, down) = blocks_along(
                resolution.area.y0,
                resolution.precinct.1,
                row,
                precinct.1,
                (area.y0, area.y1),
                block.1,
            );
            for column in 0..resolution.across {
                let (x0, across) = blocks_along(
                    resolution.area.x0,
                    resolution.precinct.0,
                    column,
                    precinct.0,
                    (area.x0, area.x1),
                    block.0,
                );
                let (across, down) = if across == 0 || down == 0 { (0, 0) } else { (across, down) };
                let place = |n: usize| u32::try_from(n).map_err(|_| "a band of more than 2^32 code blocks");
                band.precincts.push(Precinct {
                    column: x0,
                    row: y0,
                    // At most 2^15 samples, in blocks of four at least.
                    across: across as u16,
                    down: down as u16,
                    blocks_at: place(blocks)?,
                    nodes_at: place(nodes)?,
                });
                blocks += across as usize * down as usize;
                nodes += 2 * tag_tree::nodes(across, down);
            }
        }
        band.blocks = vec![Block::default(); blocks];
        band.nodes = vec![Node::default(); nodes];
        Ok(band)
    }

    /// The blocks of a precinct, row by row.
    pub fn blocks_of(&self, precinct: &Precinct) -> &[Block] {
        let first = precinct.blocks_at as usize;
        &self.blocks[first..first + usize::from(precinct.across) * usize::from(precinct.down)]
    }

    /// The samples of a block within the band, counted from the band's first.
    pub fn block_area(&self, precinct: &Precinct, column: u32, row: u32) -> Area {
        let along = |i: u32, size: u32, start: u32, end: u32| {
            let first = i << size;
            (first.max(start) - start, (first + (1 << size)).min(end) - start)
        };
        let (x0, x1) = along(precinct.column + column, self.block.0, self.area.x0, self.area.x1);
        let (y0, y1) = along(precinct.row + row, self.block.1, self.area.y0, self.area.y1);
        Area { x0, y0, x1, y1 }
    }
}

/// The first code block of precinct `i` along one side of a band, and their number.
fn blocks_along(
    resolution_start: u32,
    resolution_precinct: u32,
    i: u32,
    precinct: u32,
    (start, end): (u32, u32),
    block: u32,
) -> (u32, u32) {
    let first = u64::from((resolution_start >> resolution_precinct) + i) << precinct;
    let from = first.max(start.into());
    let to = (first + (1 << precinct)).min(end.into());
    if from >= to {
        return (0, 0);
    }
    let column = from >> block;
    (column as u32, (to.div_ceil(1 << block) - column) as u32)
}

#[cfg(test)]
mod tests {
    use super::super::coding::Coding;
    use super::super::header::Segment;
    use super::*;
    use proptest::prelude::*;

    /// A coding of one component with these sizes as powers of two.
    fn coding(levels: u8, block: (u8, u8), precincts: &[u8]) -> Coding {
        let style = [&[1, 0, 0, 1, 0, levels, block.0 - 2, block.1 - 2, 0, 1], precincts].concat();
        let quantisation = vec![0x40; 2 + 3 * usize::from(levels)];
        let segments =
            [Segment { marker: 0x52, bytes: &style }, Segment { marker: 0x5C, bytes: &quantisation }];
        Coding::of_main(&segments, 1).unwrap()
    }

    proptest! {
        /// Bands of all resolutions have the samples of the tile, and their blocks every sample once.
        #[test]
        fn blocks_cover_their_bands_once(
            (x0, y0, width, height) in (0u32..40, 0u32..40, 1u32..70, 1u32..70),
            levels in 0u8..5,
            block in (2u8..6, 2u8..6),
            precincts in prop::collection::vec((1u8..6, 1u8..6), 5),
        ) {
            let area = Area { x0, y0, x1: x0 + width, y1: y0 + height };
            let sizes: Vec<u8> = precincts.iter().map(|&(w, h)| h << 4 | w).collect();
            let coding = coding(levels, block, &sizes[..=levels.into()]);
            let components = components(area, &coding, 8, 1 << 20).unwrap();
            let mut samples = 0;
            for resolution in &components[0].resolutions {
                for band in &resolution.bands {
                    let (width, height) = (band.area.width(), band.area.height());
                    samples += width * height;
                    let mut covered = vec![0; width * height];
                    prop_assert_eq!(band.precincts.len(), resolution.layers_read.len());
                    for precinct in &band.precincts {
                        for row in 0..u32::from(precinct.down) {
                            for column in 0..u32::from(precinct.across) {
                                let area = band.block_area(precinct, column, row);
                                prop_assert!(!area.is_empty());
                                for y in area.y0..area.y1 {
                                    for x in area.x0..area.x1 {
                                        covered[y as usize * width + x as usize] += 1;
                                    }
                                }
                            }
                        }
                    }
                    prop_assert!(covered.iter().all(|&times| times == 1), "{:?}", band.kind);
                }
            }
            prop_assert_eq!(samples, width as usize * height as usize);
        }
    }

    #[test]
    fn more_packets_than_bytes_are_refused() {
        let area = Area { x0: 0, y0: 0, x1: 64, y1: 64 };
        let coding = coding(1, (4, 4), &[0x11, 0x11]);
        // 16 x 16 precincts of 2 x 2 samples of the lower resolution, 32 x 32 of the higher.
        assert!(components(area, &coding, 8, 1280).is_ok());
        assert_eq!(components(area, &coding, 8, 1279).unwrap_err(), "1280 packets in 1279 bytes");
    }
}
