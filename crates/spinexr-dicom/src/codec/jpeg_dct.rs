//! JPEG DCT of 12 bits with one grey component: sequential (ITU-T T.81 process 4, transfer syntax …4.51) and the
//! retired progressive forms (processes 8 and 12, …4.53 and .55).
//!
//! Our own decoder, because no maintained crate in Rust reads 12-bit DCT. It follows T.81 alone: Huffman codes of
//! annexes C and F, progression of annex G, the inverse DCT of A.3.3 in `f32`, rounded once. A stream that ends
//! before its last block is an error, never a grey rest.

use super::jpeg_entropy::{Bits, Huffman, HuffmanTables, MISSING_TABLE, segment};
use std::f32::consts::PI;

/// Samples of a block.
const BLOCK: usize = 64;
/// Most scans of a frame. Encoders make about ten; the rest would only cost time.
const MAX_SCANS: usize = 256;

/// Place in the block, row-major, of each coefficient in coded order (T.81 figure A.6).
const ZIGZAG: [u8; BLOCK] = zigzag();

const fn zigzag() -> [u8; BLOCK] {
    let mut order = [0; BLOCK];
    let (mut row, mut column, mut i) = (0usize, 0usize, 0);
    while i < BLOCK {
        order[i] = (8 * row + column) as u8;
        i += 1;
        // Diagonals of an even sum go up and to the right, the others down and to the left.
        if (row + column).is_multiple_of(2) {
            if column == 7 {
                row += 1;
            } else if row == 0 {
                column += 1;
            } else {
                row -= 1;
                column += 1;
            }
        } else if row == 7 {
            column += 1;
        } else if column == 0 {
            row += 1;
        } else {
            row += 1;
            column -= 1;
        }
    }
    order
}

/// Decodes one grey frame of `height` x `width` samples of 12 bits, row-major.
///
/// The caller has compared size, precision and number of components with the frame header.
pub(super) fn decode_12_bit(stream: &[u8], height: usize, width: usize) -> Result<Vec<u16>, String> {
    let (block_rows, block_columns) = (height.div_ceil(8), width.div_ceil(8));
    let blocks = block_rows * block_columns;
    // A sequential block takes two codes at least, a progressive one shares its codes with at most 2^15 others
    // but takes a bit for its DC coefficient.
    if stream.len().saturating_mul(8) < blocks {
        return Err(format!("{} bytes cannot hold {blocks} blocks", stream.len()));
    }
    let mut tables = Tables::default();
    let mut frame: Option<Frame> = None;
    let mut coefficients: Vec<[i16; BLOCK]> = Vec::new();
    let (mut scans, mut at) = (0, 2);
    loop {
        let (marker, segment, next) = segment(stream, at)?;
        at = next;
        match marker {
            0xC1 | 0xC2 if frame.is_none() => {
                frame = Some(Frame::of(segment, marker == 0xC2)?);
                coefficients = vec![[0; BLOCK]; blocks];
            }
            0xC4 => tables.huffman.read(segment)?,
            0xDB => tables.read_quantisation(segment)?,
            0xDD => {
                let &[high, low] = segment else { return Err("restart interval of a wrong length".into()) };
                tables.restart_interval = usize::from(u16::from_be_bytes([high, low]));
            }
            0xDA => {
                let frame = frame.as_ref().ok_or("the scan comes before the frame header")?;
                at += tables.scan(segment, frame, &stream[at..], &mut coefficients)?;
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(format!("more than {MAX_SCANS} scans"));
                }
                if !frame.progressive {
                    return tables.pixels(frame, &coefficients, height, width);
                }
            }
            0xC0..=0xCF => return Err(format!("coding process of marker FF{marker:02X} is not supported")),
            0xD9 => {
                let frame = frame.filter(|_| scans > 0).ok_or("the JPEG ends before its scan")?;
                return tables.pixels(&frame, &coefficients, height, width);
            }
            _ => {}
        }
    }
}

/// The frame header with its one component.
#[derive(Debug, Clone, Copy)]
struct Frame {
    progressive: bool,
    identifier: u8,
    quantisation: u8,
}

impl Frame {
    fn of(segment: &[u8], progressive: bool) -> Result<Self, String> {
        // Precision, height, width and the number of components were compared with the data set.
        match *segment {
            [_, _, _, _, _, 1, identifier, _, quantisation] => {
                Ok(Self { progressive, identifier, quantisation })
            }
            _ => Err("expected a frame header with one component".into()),
        }
    }
}

/// What a scan carries (T.81 B.2.3, G.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// All coefficients of each block.
    Sequential,
    /// The DC coefficients but for their `low` lowest bits.
    DcFirst { low: u32 },
    /// Bit `low` of the DC coefficients.
    DcRefine { low: u32 },
    /// A band of AC coefficients but for their `low` lowest bits.
    AcFirst { band: (usize, usize), low: u32 },
    /// Bit `low` of a band of AC coefficients.
    AcRefine { band: (usize, usize), low: u32 },
}

impl Pass {
    fn of(progressive: bool, start: u8, end: u8, approximation: u8) -> Result<Self, String> {
        if !progressive {
            // These three are fixed for a sequential scan, and some writers leave them zero.
            return Ok(Self::Sequential);
        }
        let band = (usize::from(start), usize::from(end));
        let (high, low) = (approximation >> 4, u32::from(approximation & 15));
        if low > 13 || (high > 0 && u32::from(high) != low + 1) {
            return Err(format!("successive approximation from {high} to {low}"));
        }
        match (band, high) {
            ((0, 0), 0) => Ok(Self::DcFirst { low }),
            ((0, 0), _) => Ok(Self::DcRefine { low }),
            ((1..=63, end), 0) if (band.0..BLOCK).contains(&end) => Ok(Self::AcFirst { band, low }),
            ((1..=63, end), _) if (band.0..BLOCK).contains(&end) => Ok(Self::AcRefine { band, low }),
            _ => Err(format!("spectral band {start} to {end}")),
        }
    }
}

#[derive(Default)]
struct Tables {
    quantisation: [Option<[u16; BLOCK]>; 4],
    huffman: HuffmanTables,
    /// Blocks between restart markers; 0 without them.
    restart_interval: usize,
}

impl Tables {
    /// Define Quantisation Tables, T.81 B.2.4.1.
    fn read_quantisation(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let Some((&head, rest)) = segment.split_first() {
            let bytes = match head >> 4 {
                0 => BLOCK,
                1 => 2 * BLOCK,
                _ => return Err("quantisation table of an unknown precision".into()),
            };
            let slot = self.quantisation.get_mut(usize::from(head & 15));
            let (Some(slot), Some(values)) = (slot, rest.get(..bytes)) else {
                return Err("broken quantisation table".into());
            };
            let mut table = [0u16; BLOCK];
            for (i, entry) in table.iter_mut().enumerate() {
                *entry = match bytes {
                    BLOCK => u16::from(values[i]),
                    _ => u16::from_be_bytes([values[2 * i], values[2 * i + 1]]),
                };
            }
            *slot = Some(table);
            segment = &rest[bytes..];
        }
        Ok(())
    }

    /// Decodes the scan whose header is `header` and whose entropy-coded data begins `data`, into the
    /// coefficients. Returns the bytes used.
    fn scan(
        &self,
        header: &[u8],
        frame: &Frame,
        data: &[u8],
        coefficients: &mut [[i16; BLOCK]],
    ) -> Result<usize, String> {
        let &[1, identifier, selectors, start, end, approximation] = header else {
            return Err("expected the header of a scan with one component".into());
        };
        if identifier != frame.identifier {
            return Err("the scan names a component that the frame does not have".into());
        }
        let pass = Pass::of(frame.progressive, start, end, approximation)?;
        let dc = || self.huffman.dc(selectors >> 4);
        let ac = || self.huffman.ac(selectors & 15);
        let mut coder = BlockDecoder { bits: Bits::new(data), previous_dc: 0, ended_blocks: 0 };
        for (i, block) in coefficients.iter_mut().enumerate() {
            if self.restart_interval > 0 && i > 0 && i % self.restart_interval == 0 {
                coder.bits.restart()?;
                (coder.previous_dc, coder.ended_blocks) = (0, 0);
            }
            match pass {
                Pass::Sequential => {
                    coder.dc_first(dc()?, 0, block)?;
                    coder.ac_first(ac()?, (1, BLOCK - 1), 0, false, block)?;
                }
                Pass::DcFirst { low } => coder.dc_first(dc()?, low, block)?,
                Pass::DcRefine { low } => block[0] |= (coder.bits.unsigned(1)? << low) as i16,
                Pass::AcFirst { band, low } => coder.ac_first(ac()?, band, low, true, block)?,
                Pass::AcRefine { band, low } => coder.ac_refine(ac()?, band, low, block)?,
            }
        }
        Ok(coder.bits.end())
    }

    /// Dequantises and transforms all blocks.
    fn pixels(
        &self,
        frame: &Frame,
        coefficients: &[[i16; BLOCK]],
        height: usize,
        width: usize,
    ) -> Result<Vec<u16>, String> {
        let steps = self.quantisation.get(usize::from(frame.quantisation)).and_then(Option::as_ref);
        let steps = steps.ok_or(MISSING_TABLE)?;
        let mut steps_in_place = [0f32; BLOCK];
        for (&place, &step) in ZIGZAG.iter().zip(steps) {
            steps_in_place[usize::from(place)] = f32::from(step);
        }
        let idct = InverseDct::new();
        let mut pixels = vec![0u16; height * width];
        for (i, block) in coefficients.iter().enumerate() {
            let (top, left) = (i / width.div_ceil(8) * 8, i % width.div_ceil(8) * 8);
            let samples = idct.apply(&std::array::from_fn(|i| f32::from(block[i]) * steps_in_place[i]));
            let columns = 8.min(width - left);
            for (row, samples) in samples.chunks_exact(8).take(height - top).enumerate() {
                let start = (top + row) * width + left;
                for (pixel, sample) in pixels[start..start + columns].iter_mut().zip(samples) {
                    // Level shift of 12 bits (T.81 A.3.1); the cast saturates.
                    *pixel = ((sample + 2048.5).floor() as u16).min(4095);
                }
            }
        }
        Ok(pixels)
    }
}

/// Decodes blocks of one scan, one after the other.
struct BlockDecoder<'a> {
    bits: Bits<'a>,
    previous_dc: i32,
    /// Blocks to come whose band has already ended (EOBRUN).
    ended_blocks: u32,
}

impl BlockDecoder<'_> {
    /// DC coefficient as a difference (T.81 F.2.2.1, G.1.2.1).
    fn dc_first(&mut self, table: &Huffman, low: u32, block: &mut [i16; BLOCK]) -> Result<(), String> {
        let category = table.decode(&mut self.bits)?;
        if category > 15 {
            return Err(format!("DC difference of {category} bits"));
        }
        self.previous_dc += self.bits.signed(u32::from(category))?;
        block[0] = coefficient(self.previous_dc, low)?;
        Ok(())
    }

    /// AC coefficients of a band (T.81 F.2.2.2, G.1.2.2). Only progressive scans have runs of ended blocks.
    fn ac_first(
        &mut self,
        table: &Huffman,
        (start, end): (usize, usize),
        low: u32,
        progressive: bool,
        block: &mut [i16; BLOCK],
    ) -> Result<(), String> {
        if self.ended_blocks > 0 {
            self.ended_blocks -= 1;
            return Ok(());
        }
        let mut k = start;
        while k <= end {
            let symbol = table.decode(&mut self.bits)?;
            let (run, category) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            if category == 0 {
                if run == 15 {
                    k += 16;
                    continue;
                }
                if progressive {
                    self.ended_blocks = (1 << run) - 1 + self.bits.unsigned(run)?;
                }
                break;
            }
            k += run as usize;
            if k > end {
                return Err("a block has more coefficients than its band".into());
            }
            block[usize::from(ZIGZAG[k])] = coefficient(self.bits.signed(category)?, low)?;
            k += 1;
        }
        Ok(())
    }

    /// One more bit of the AC coefficients of a band (T.81 G.1.2.3).
    fn ac_refine(
        &mut self,
        table: &Huffman,
        (start, end): (usize, usize),
        low: u32,
        block: &mut [i16; BLOCK],
    ) -> Result<(), String> {
        let bit = 1i16 << low;
        let mut k = start;
        if self.ended_blocks == 0 {
            while k <= end {
                let symbol = table.decode(&mut self.bits)?;
                let (mut zeros, category) = (u32::from(symbol >> 4), symbol & 15);
                let new = match category {
                    0 if zeros < 15 => {
                        self.ended_blocks = (1 << zeros) + self.bits.unsigned(zeros)?;
                        break;
                    }
                    0 => 0, // sixteen zeros
                    1 if self.bits.unsigned(1)? == 1 => bit,
                    1 => -bit,
                    _ => return Err("a refined coefficient of more than one bit".into()),
                };
                // Coefficients that are known already get their bit on the way and do not count as zeros.
                while k <= end {
                    let value = &mut block[usize::from(ZIGZAG[k])];
                    if *value == 0 {
                        if zeros == 0 {
                            *value = new;
                            k += 1;
                            break;
                        }
                        zeros -= 1;
                    } else {
                        self.refine(value, bit)?;
                    }
                    k += 1;
                }
            }
        }
        if self.ended_blocks > 0 {
            for &place in ZIGZAG.iter().take(end + 1).skip(k) {
                let value = &mut block[usize::from(place)];
                if *value != 0 {
                    self.refine(value, bit)?;
                }
            }
            self.ended_blocks -= 1;
        }
        Ok(())
    }

    fn refine(&mut self, value: &mut i16, bit: i16) -> Result<(), String> {
        if self.bits.unsigned(1)? == 1 && *value & bit == 0 {
            *value = value.saturating_add(if *value > 0 { bit } else { -bit });
        }
        Ok(())
    }
}

/// `value` · 2^`low`, which must fit 16 bits.
fn coefficient(value: i32, low: u32) -> Result<i16, String> {
    value
        .checked_mul(1 << low)
        .and_then(|value| i16::try_from(value).ok())
        .ok_or_else(|| "a coefficient of more than 16 bits".to_string())
}

/// Inverse DCT of 8 x 8 (T.81 A.3.3), one dimension after the other.
struct InverseDct {
    /// `basis[u][x]` = C(u)/2 · cos((2x + 1)uπ/16).
    basis: [[f32; 8]; 8],
}

impl InverseDct {
    fn new() -> Self {
        let mut basis = [[0f32; 8]; 8];
        for (u, row) in basis.iter_mut().enumerate() {
            let scale = if u == 0 { 0.5 / 2f32.sqrt() } else { 0.5 };
            for (x, value) in row.iter_mut().enumerate() {
                *value = scale * ((2 * x + 1) as f32 * u as f32 * PI / 16.0).cos();
            }
        }
        Self { basis }
    }

    fn apply(&self, coefficients: &[f32; BLOCK]) -> [f32; BLOCK] {
        if coefficients[1..].iter().all(|&c| c == 0.0) {
            return [coefficients[0] / 8.0; BLOCK];
        }
        let mut columns_done = [0f32; BLOCK]; // [y, u] of the sum over v
        for (v, row) in coefficients.chunks_exact(8).enumerate() {
            if row.iter().all(|&c| c == 0.0) {
                continue;
            }
            for (y, out) in columns_done.chunks_exact_mut(8).enumerate() {
                let weight = self.basis[v][y];
                for (out, c) in out.iter_mut().zip(row) {
                    *out += weight * c;
                }
            }
        }
        let mut samples = [0f32; BLOCK];
        for (out, row) in samples.chunks_exact_mut(8).zip(columns_done.chunks_exact(8)) {
            for (c, basis) in row.iter().zip(&self.basis) {
                for (out, b) in out.iter_mut().zip(basis) {
                    *out += c * b;
                }
            }
        }
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zigzag_visits_every_place_once() {
        assert_eq!(ZIGZAG[..6], [0, 1, 8, 16, 9, 2]);
        assert_eq!(ZIGZAG[60..], [47, 55, 62, 63][..]);
        let mut seen = ZIGZAG;
        seen.sort_unstable();
        assert!(seen.iter().enumerate().all(|(i, &place)| i == usize::from(place)));
    }

    #[test]
    fn the_inverse_transform_is_that_of_the_definition() {
        let coefficients: [f32; BLOCK] =
            std::array::from_fn(|i| ((i * 37 % 101) as f32 - 50.0) / (1 + i) as f32);
        let samples = InverseDct::new().apply(&coefficients);
        for y in 0..8 {
            for x in 0..8 {
                let mut sum = 0f64;
                for v in 0..8 {
                    for u in 0..8 {
                        let scale = |k: usize| if k == 0 { 0.5f64.sqrt() } else { 1.0 };
                        let angle =
                            |i: usize, k: usize| ((2 * i + 1) * k) as f64 * std::f64::consts::PI / 16.0;
                        sum += scale(u) * scale(v) / 4.0
                            * f64::from(coefficients[8 * v + u])
                            * angle(x, u).cos()
                            * angle(y, v).cos();
                    }
                }
                assert!((f64::from(samples[8 * y + x]) - sum).abs() < 1e-4);
            }
        }
    }

    /// Bits as a scan, with a zero byte after each FF and ones at the end.
    struct Scan {
        bytes: Vec<u8>,
        bits: Vec<u8>,
    }

    impl Scan {
        fn put(&mut self, value: u32, length: u32) {
            self.bits.extend((0..length).rev().map(|i| (value >> i & 1) as u8));
        }

        fn flush(&mut self) {
            self.bits.resize(self.bits.len().next_multiple_of(8), 1);
            for byte in std::mem::take(&mut self.bits).chunks(8) {
                let byte = byte.iter().fold(0, |byte, bit| byte << 1 | bit);
                self.bytes.push(byte);
                if byte == 0xFF {
                    self.bytes.push(0);
                }
            }
        }

        /// A DC difference, in a table of sixteen codes of five bits.
        fn dc(&mut self, difference: i32) {
            let category = 32 - difference.unsigned_abs().leading_zeros();
            self.put(category, 5);
            self.put((if difference < 0 { difference - 1 } else { difference }) as u32, category);
        }
    }

    /// A stream of 24 x 16 pixels: six blocks, each of one value.
    fn stream(sof: u8, scans: &[(&[u8; 3], Vec<u8>)], restart_interval: u8) -> Vec<u8> {
        let mut out = vec![0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0];
        out.extend([2u8; 64]);
        out.extend([0xFF, sof, 0, 11, 12, 0, 16, 0, 24, 1, 1, 0x11, 0]);
        // DC: the categories 0 to 15 in codes of five bits.
        out.extend([0xFF, 0xC4, 0, 35, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend(0..16);
        // AC: the end of a block, a one-bit coefficient and a run of ended blocks, in codes of two bits.
        out.extend([
            0xFF, 0xC4, 0, 22, 0x10, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x01, 0x20,
        ]);
        out.extend([0xFF, 0xDD, 0, 4, 0, restart_interval]);
        for (band, data) in scans {
            out.extend([0xFF, 0xDA, 0, 8, 1, 1, 0]);
            out.extend(*band);
            out.extend(data);
        }
        out.extend([0xFF, 0xD9]);
        out
    }

    /// Quantised DC of the blocks; a step of 2 makes a quarter of it the level above 2048.
    const LEVELS: [i32; 6] = [0, 400, -800, 4000, -4004, 8188];

    fn is_as_drawn(pixels: &[u16]) {
        for (i, &pixel) in pixels.iter().enumerate() {
            let block = i / 24 / 8 * 3 + i % 24 / 8;
            assert_eq!(i32::from(pixel), (LEVELS[block] / 4 + 2048).min(4095), "pixel {i}");
        }
    }

    #[test]
    fn restart_markers_set_the_prediction_back() {
        let mut scan = Scan { bytes: vec![], bits: vec![] };
        for (i, level) in LEVELS.into_iter().enumerate() {
            if i > 0 && i % 2 == 0 {
                scan.flush();
                scan.bytes.extend([0xFF, 0xD0 + (i / 2 - 1) as u8]);
            }
            scan.dc(if i % 2 == 0 { level } else { level - LEVELS[i - 1] });
            scan.put(0, 2);
        }
        scan.flush();
        let good = stream(0xC1, &[(&[0, 63, 0], scan.bytes)], 2);
        is_as_drawn(&decode_12_bit(&good, 16, 24).unwrap());
        let marker = good.windows(2).rposition(|w| w == [0xFF, 0xD1]).unwrap();
        for cut in [marker, marker + 2, good.len() - 4] {
            assert!(decode_12_bit(&good[..cut], 16, 24).is_err());
        }
    }

    #[test]
    fn progressive_scans_add_up() {
        let mut first = Scan { bytes: vec![], bits: vec![] };
        let mut last = 0;
        for level in LEVELS {
            first.dc((level >> 2) - last);
            last = level >> 2;
        }
        first.flush();
        let refine = |bit: i32| {
            let mut scan = Scan { bytes: vec![], bits: vec![] };
            for level in LEVELS {
                scan.put((level >> bit & 1) as u32, 1);
            }
            scan.flush();
            scan.bytes
        };
        // Of the AC coefficients, all six blocks end at once: a run of 4 + 2.
        let mut ac = Scan { bytes: vec![], bits: vec![] };
        ac.put(2, 2);
        ac.put(2, 2);
        ac.flush();
        let scans = [
            (&[0, 0, 0x02], first.bytes),
            (&[1, 63, 0x01], ac.bytes.clone()),
            (&[0, 0, 0x21], refine(1)),
            (&[1, 63, 0x10], ac.bytes),
            (&[0, 0, 0x10], refine(0)),
        ];
        is_as_drawn(&decode_12_bit(&stream(0xC2, &scans, 0), 16, 24).unwrap());
        let broken = [(&[0, 0, 0x02], scans[0].1.clone()), (&[5, 3, 0x00], scans[1].1.clone())];
        assert!(decode_12_bit(&stream(0xC2, &broken, 0), 16, 24).unwrap_err().contains("band"));
    }

    #[test]
    fn an_overfull_huffman_table_is_an_error() {
        let mut counts = [0u8; 16];
        counts[0] = 3;
        assert!(Huffman::new(&counts, &[1, 2, 3]).is_err());
    }
}
