//! JPEG extended sequential DCT of 12 bits (ITU-T T.81 process 4, transfer syntax …4.51), one grey component.
//!
//! Our own decoder, because no maintained crate in Rust reads 12-bit DCT. It follows T.81 alone: Huffman tables of
//! annex C and F, the inverse DCT of A.3.3 in `f32`, rounded once. A stream that ends before its last block is an
//! error, never a grey rest.

use std::f32::consts::PI;

/// Samples of a block.
const BLOCK: usize = 64;
/// Bits looked up at once when a Huffman code is decoded.
const LOOKUP_BITS: u32 = 9;

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
    let mut tables = Tables::default();
    let mut component = None;
    let mut at = 2;
    loop {
        let (marker, segment, next) = segment(stream, at)?;
        at = next;
        match marker {
            0xC1 => component = Some(Component::of(segment)?),
            0xC4 => tables.read_huffman(segment)?,
            0xDB => tables.read_quantisation(segment)?,
            0xDD => {
                let &[high, low] = segment else { return Err("restart interval of a wrong length".into()) };
                tables.restart_interval = usize::from(u16::from_be_bytes([high, low]));
            }
            0xDA => {
                let component = component.ok_or("the scan comes before the frame header")?;
                return tables.scan(segment, &component, &stream[at..], height, width);
            }
            0xC0..=0xCF => return Err(format!("coding process of marker FF{marker:02X} is not supported")),
            0xD9 => return Err("the JPEG ends before its scan".into()),
            _ => {}
        }
    }
}

/// The marker segment at `at`: marker, parameters, end.
fn segment(stream: &[u8], mut at: usize) -> Result<(u8, &[u8], usize), String> {
    while stream.get(at..at + 2) == Some(&[0xFF, 0xFF]) {
        at += 1;
    }
    let Some(&[0xFF, marker]) = stream.get(at..at + 2) else {
        return Err(format!("expected a JPEG marker at byte {at}"));
    };
    if matches!(marker, 0x01 | 0xD0..=0xD9) {
        return Ok((marker, &[], at + 2));
    }
    let length = match stream.get(at + 2..at + 4) {
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    if length < 2 {
        return Err(format!("marker FF{marker:02X} at byte {at} has no segment"));
    }
    match stream.get(at + 4..at + 2 + length) {
        Some(segment) => Ok((marker, segment, at + 2 + length)),
        None => Err(format!("the JPEG ends inside the segment of marker FF{marker:02X}")),
    }
}

/// The one component of the frame header.
#[derive(Debug, Clone, Copy)]
struct Component {
    identifier: u8,
    quantisation: u8,
}

impl Component {
    fn of(segment: &[u8]) -> Result<Self, String> {
        // Precision, height, width and the number of components were compared with the data set.
        match segment {
            &[_, _, _, _, _, 1, identifier, _, quantisation] => Ok(Self { identifier, quantisation }),
            _ => Err("expected a frame header with one component".into()),
        }
    }
}

#[derive(Default)]
struct Tables {
    quantisation: [Option<[u16; BLOCK]>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
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

    /// Define Huffman Tables, T.81 B.2.4.2.
    fn read_huffman(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let Some((&head, rest)) = segment.split_first() {
            let class = match head >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err("Huffman table of an unknown class".into()),
            };
            let (Some(slot), Some(counts)) =
                (class.get_mut(usize::from(head & 15)), rest.first_chunk::<16>())
            else {
                return Err("broken Huffman table".into());
            };
            let total: usize = counts.iter().map(|&n| usize::from(n)).sum();
            let symbols = rest.get(16..16 + total).ok_or("a Huffman table ends early")?;
            *slot = Some(Huffman::new(counts, symbols)?);
            segment = &rest[16 + total..];
        }
        Ok(())
    }

    /// Decodes the scan whose header is `header` and whose entropy-coded data begins `data`.
    fn scan(
        &self,
        header: &[u8],
        component: &Component,
        data: &[u8],
        height: usize,
        width: usize,
    ) -> Result<Vec<u16>, String> {
        // The last three bytes are fixed for a sequential scan, and some writers leave them zero (T.81 B.2.3).
        let &[1, identifier, selectors, _, _, _] = header else {
            return Err("expected the header of a scan with one component".into());
        };
        if identifier != component.identifier {
            return Err("the scan names a component that the frame does not have".into());
        }
        let missing = "a table that the scan names is missing";
        let dc = self.dc.get(usize::from(selectors >> 4)).and_then(Option::as_ref).ok_or(missing)?;
        let ac = self.ac.get(usize::from(selectors & 15)).and_then(Option::as_ref).ok_or(missing)?;
        let steps = self.quantisation.get(usize::from(component.quantisation)).and_then(Option::as_ref);
        let steps = steps.ok_or(missing)?;

        let (block_rows, block_columns) = (height.div_ceil(8), width.div_ceil(8));
        // A block takes two codes at least, and with them two bits.
        if data.len().saturating_mul(4) < block_rows * block_columns {
            return Err(format!("{} bytes cannot hold {} blocks", data.len(), block_rows * block_columns));
        }
        let idct = InverseDct::new();
        let mut pixels = vec![0u16; height * width];
        let mut bits = Bits::new(data);
        let mut previous_dc = 0i32;
        for block in 0..block_rows * block_columns {
            if self.restart_interval > 0 && block > 0 && block % self.restart_interval == 0 {
                bits.restart()?;
                previous_dc = 0;
            }
            let mut coefficients = [0f32; BLOCK];
            let only_dc = decode_block(&mut bits, dc, ac, steps, &mut previous_dc, &mut coefficients)?;
            let (top, left) = (block / block_columns * 8, block % block_columns * 8);
            let samples = idct.apply(&coefficients, only_dc);
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

/// One block (T.81 F.2.2) as dequantised coefficients; whether all but the first are zero.
fn decode_block(
    bits: &mut Bits<'_>,
    dc: &Huffman,
    ac: &Huffman,
    steps: &[u16; BLOCK],
    previous_dc: &mut i32,
    coefficients: &mut [f32; BLOCK],
) -> Result<bool, String> {
    let category = dc.decode(bits)?;
    if category > 15 {
        return Err(format!("DC difference of {category} bits"));
    }
    let dc_value = previous_dc.wrapping_add(bits.signed(u32::from(category))?);
    if !(-32_768..=32_767).contains(&dc_value) {
        return Err("DC coefficient out of range".into());
    }
    *previous_dc = dc_value;
    coefficients[0] = (dc_value * i32::from(steps[0])) as f32;
    let mut only_dc = true;
    let mut k = 1;
    while k < BLOCK {
        let symbol = ac.decode(bits)?;
        let (run, category) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if category == 0 {
            if run < 15 {
                break; // end of block
            }
            k += 16;
            continue;
        }
        k += run;
        let value = bits.signed(category)?;
        let (Some(&place), Some(&step)) = (ZIGZAG.get(k), steps.get(k)) else {
            return Err("a block has more than 64 coefficients".into());
        };
        coefficients[usize::from(place)] = (value * i32::from(step)) as f32;
        only_dc = false;
        k += 1;
    }
    Ok(only_dc)
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

    fn apply(&self, coefficients: &[f32; BLOCK], only_dc: bool) -> [f32; BLOCK] {
        if only_dc {
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

/// A Huffman table (T.81 annex C), looked up by the next bits.
struct Huffman {
    /// By the next [`LOOKUP_BITS`]: (length, symbol); length 0 for longer codes.
    short: Vec<(u8, u8)>,
    /// By length: the first code, and where its symbol lies.
    first: [(u32, usize); 17],
    /// Codes of each length.
    counts: [u8; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    fn new(counts_by_length: &[u8; 16], symbols: &[u8]) -> Result<Self, String> {
        let mut short = vec![(0, 0); 1 << LOOKUP_BITS];
        let (mut first, mut counts) = ([(0, 0); 17], [0u8; 17]);
        counts[1..].copy_from_slice(counts_by_length);
        let (mut code, mut at) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = u32::from(counts[length as usize]);
            if code + count > 1 << length {
                return Err("a Huffman table has more codes than fit".into());
            }
            first[length as usize] = (code, at);
            for _ in 0..count {
                if length <= LOOKUP_BITS {
                    let spare = LOOKUP_BITS - length;
                    let begin = (code << spare) as usize;
                    short[begin..begin + (1 << spare)].fill((length as u8, symbols[at]));
                }
                code += 1;
                at += 1;
            }
            code <<= 1;
        }
        Ok(Self { short, first, counts, symbols: symbols.to_vec() })
    }

    fn decode(&self, bits: &mut Bits<'_>) -> Result<u8, String> {
        let next = bits.peek16();
        let (length, symbol) = self.short[(next >> (16 - LOOKUP_BITS)) as usize];
        if length > 0 {
            bits.skip(u32::from(length))?;
            return Ok(symbol);
        }
        for length in LOOKUP_BITS + 1..=16 {
            let (first, at) = self.first[length as usize];
            let code = next >> (16 - length);
            if code >= first && code - first < u32::from(self.counts[length as usize]) {
                bits.skip(length)?;
                return Ok(self.symbols[at + (code - first) as usize]);
            }
        }
        Err("no such Huffman code".into())
    }
}

/// Entropy-coded data: bits from the highest on, a zero byte after each FF left out (T.81 F.1.2.3).
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// Bits not yet used, at the top.
    cache: u64,
    /// How many of them are from the data; the rest are zeros.
    count: u32,
}

impl<'a> Bits<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, cache: 0, count: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match (self.data.get(self.at), self.data.get(self.at + 1)) {
                (Some(0xFF), Some(0)) => {
                    self.at += 2;
                    0xFF
                }
                (Some(0xFF) | None, _) => return, // a marker, or the end
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.cache |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next 16 bits, zeros behind the end.
    fn peek16(&mut self) -> u32 {
        if self.count < 16 {
            self.fill();
        }
        (self.cache >> 48) as u32
    }

    fn skip(&mut self, bits: u32) -> Result<(), String> {
        if bits > self.count {
            return Err("the scan ends before its last block".into());
        }
        self.cache <<= bits;
        self.count -= bits;
        Ok(())
    }

    /// A value of `bits` bits in the form of T.81 F.2.2.1 (EXTEND). At most 15.
    fn signed(&mut self, bits: u32) -> Result<i32, String> {
        if bits == 0 {
            return Ok(0);
        }
        let value = (self.peek16() >> (16 - bits)) as i32;
        self.skip(bits)?;
        Ok(if value < 1 << (bits - 1) { value - (1 << bits) + 1 } else { value })
    }

    /// Passes a restart marker; what is left of the bits before it is padding.
    fn restart(&mut self) -> Result<(), String> {
        if self.count >= 8 {
            return Err("data left over before a restart marker".into());
        }
        while self.data.get(self.at..self.at + 2) == Some(&[0xFF, 0xFF]) {
            self.at += 1;
        }
        match self.data.get(self.at..self.at + 2) {
            Some(&[0xFF, 0xD0..=0xD7]) => {
                *self = Self { data: self.data, at: self.at + 2, cache: 0, count: 0 };
                Ok(())
            }
            _ => Err("expected a restart marker".into()),
        }
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
        let samples = InverseDct::new().apply(&coefficients, false);
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

    #[test]
    fn an_overfull_huffman_table_is_an_error() {
        let mut counts = [0u8; 16];
        counts[0] = 3;
        assert!(Huffman::new(&counts, &[1, 2, 3]).is_err());
    }
}
