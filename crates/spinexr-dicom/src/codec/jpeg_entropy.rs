//! What the codings of ITU-T T.81 share: marker segments, Huffman tables (annexes B and C) and the bits between markers.

/// Bits looked up at once when a Huffman code is decoded.
const LOOKUP_BITS: u32 = 9;

pub(super) const MISSING_TABLE: &str = "a table that the scan names is missing";

/// The marker segment at `at`: marker, parameters, end.
pub(super) fn segment(stream: &[u8], mut at: usize) -> Result<(u8, &[u8], usize), String> {
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

/// The Huffman tables of a stream, by class and slot.
#[derive(Default)]
pub(super) struct HuffmanTables {
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
}

impl HuffmanTables {
    /// Define Huffman Tables, T.81 B.2.4.2.
    pub fn read(&mut self, mut segment: &[u8]) -> Result<(), String> {
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

    /// The table of DC coefficients, or of differences, in a slot.
    pub fn dc(&self, slot: u8) -> Result<&Huffman, String> {
        huffman(&self.dc, slot)
    }

    /// The table of AC coefficients in a slot.
    pub fn ac(&self, slot: u8) -> Result<&Huffman, String> {
        huffman(&self.ac, slot)
    }
}

fn huffman(tables: &[Option<Huffman>; 4], slot: u8) -> Result<&Huffman, String> {
    tables.get(usize::from(slot)).and_then(Option::as_ref).ok_or_else(|| MISSING_TABLE.into())
}

/// A Huffman table (T.81 annex C), looked up by the next bits.
pub(super) struct Huffman {
    /// By the next [`LOOKUP_BITS`]: (length, symbol); length 0 for longer codes.
    short: Vec<(u8, u8)>,
    /// By length: the first code, and where its symbol lies.
    first: [(u32, usize); 17],
    /// Codes of each length.
    counts: [u8; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    pub fn new(counts_by_length: &[u8; 16], symbols: &[u8]) -> Result<Self, String> {
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

    /// A symbol that says a number of bits, at most 15, and the value of these: [`Huffman::decode`] and
    /// [`Bits::signed`], mostly in one step. 16 stands for 2^15 (T.81 H.1.2.2).
    #[inline]
    pub fn difference(&self, bits: &mut Bits<'_>) -> Result<i32, String> {
        if bits.count < 32 {
            bits.fill();
        }
        let (length, category) = self.short[(bits.cache >> (64 - LOOKUP_BITS)) as usize];
        let (length, category) = (u32::from(length), u32::from(category));
        if length > 0 && category <= 15 && length + category <= bits.count {
            // No bit is a shift by 64, in two steps.
            let value = (bits.cache << length >> 1 >> (63 - category)) as i32;
            bits.cache <<= length + category;
            bits.count -= length + category;
            return Ok(extended(value, category));
        }
        match self.decode(bits)? {
            category @ 0..=15 => bits.signed(u32::from(category)),
            16 => Ok(1 << 15),
            category => Err(format!("a difference of {category} bits")),
        }
    }

    pub fn decode(&self, bits: &mut Bits<'_>) -> Result<u8, String> {
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
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// Bits not yet used, at the top.
    cache: u64,
    /// How many of them are from the data; the rest are zeros.
    count: u32,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, cache: 0, count: 0 }
    }

    fn fill(&mut self) {
        // Eight bytes without an FF among them: no zero to leave out and no marker. Those for which there is no room are
        // taken again the next time, over the same bits.
        if let Some(&bytes) = self.data.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let word = u64::from_be_bytes(bytes);
            if !has_ff(word) {
                let taken = (64 - self.count) / 8;
                self.cache |= word >> self.count;
                self.at += taken as usize;
                self.count += 8 * taken;
                return;
            }
        }
        // What the fast way left behind the counted bits must not stay when a marker follows.
        self.cache &= !(u64::MAX.checked_shr(self.count).unwrap_or(0));
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

    /// The next `bits` bits, at most 16.
    pub fn unsigned(&mut self, bits: u32) -> Result<u32, String> {
        if bits == 0 {
            return Ok(0);
        }
        let value = self.peek16() >> (16 - bits);
        self.skip(bits)?;
        Ok(value)
    }

    /// Where the scan's data ends: at the next marker, or behind the last byte.
    pub fn end(&self) -> usize {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let marker = rest.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF));
        marker.map_or(self.data.len(), |offset| self.at + offset)
    }

    /// A value of `bits` bits in the form of T.81 F.2.2.1 (EXTEND). At most 15.
    pub fn signed(&mut self, bits: u32) -> Result<i32, String> {
        if bits == 0 {
            return Ok(0);
        }
        let value = (self.peek16() >> (16 - bits)) as i32;
        self.skip(bits)?;
        Ok(extended(value, bits))
    }

    /// Passes a restart marker; what is left of the bits before it is padding.
    pub fn restart(&mut self) -> Result<(), String> {
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

/// EXTEND of T.81 F.2.2.1: of `bits` bits, the lower half stands for negative values.
fn extended(value: i32, bits: u32) -> i32 {
    if value < (1 << bits) >> 1 { value - (1 << bits) + 1 } else { value }
}

/// Whether a byte of the word is FF.
fn has_ff(word: u64) -> bool {
    let zeros = !word;
    zeros.wrapping_sub(0x0101_0101_0101_0101) & !zeros & 0x8080_8080_8080_8080 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_come_as_one_by_one_from_the_bytes(
            data in proptest::collection::vec(prop_oneof![Just(0xFFu8), Just(0), any::<u8>()], 0..40),
            widths in proptest::collection::vec(0u32..=16, 1..60),
        ) {
            // The definition: bytes up to a marker, a zero after FF left out.
            let mut plain = Vec::new();
            let mut at = 0;
            while let Some(&byte) = data.get(at) {
                match (byte, data.get(at + 1)) {
                    (0xFF, Some(0)) => at += 2,
                    (0xFF, _) => break,
                    _ => at += 1,
                }
                plain.extend((0..8).rev().map(|bit| u32::from(byte >> bit & 1)));
            }
            let mut bits = Bits::new(&data);
            let mut plain = plain.into_iter().peekable();
            for width in widths {
                let expected: Vec<u32> = plain.by_ref().take(width as usize).collect();
                let found = bits.unsigned(width);
                if expected.len() < width as usize {
                    prop_assert!(found.is_err());
                    break;
                }
                prop_assert_eq!(found, Ok(expected.iter().fold(0, |sum, bit| sum << 1 | bit)));
            }
        }
    }
}
