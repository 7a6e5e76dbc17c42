//! The bit streams of a High-Throughput code block (ITU-T T.814 7.1): three in one code word, two behind it.
//!
//! Stuffed bits are taken out of a whole stream before it is decoded: then bits are found by their place alone, and
//! reading one sample needs nothing of the one before but its length.

/// A stream without its stuffed bits, the first lowest.
#[derive(Debug, Default)]
pub(super) struct Unstuffed {
    bytes: Vec<u8>,
    fill: u64,
}

impl Unstuffed {
    /// Bits in the order of bytes: a byte of ones is followed by one of seven bits. Behind the end come bits of `fill`.
    pub fn forward(&mut self, source: &[u8], fill: u64) {
        let mut out = self.writer(fill);
        let mut after_ones = false;
        let mut rest = source;
        while let Some((&byte, after)) = rest.split_first() {
            // Eight bytes at once where none of them is 0xFF.
            if let Some((&word, after)) = rest.split_first_chunk::<8>()
                && !after_ones
            {
                let word = u64::from_le_bytes(word);
                let inverse = !word;
                if inverse.wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080 == 0 {
                    out.word(word);
                    rest = after;
                    continue;
                }
            }
            out.bits(byte, if after_ones { 7 } else { 8 });
            after_ones = byte == 0xFF;
            rest = after;
        }
        out.end();
    }

    /// Bits from the last byte to the first: behind one above 0x8F, one that ends in seven ones has seven bits. Of the
    /// last byte, `skip` bits belong to something else.
    pub fn backward(&mut self, source: &[u8], skip: u32) {
        let mut out = self.writer(0);
        // The bits that are skipped count as ones; behind nothing, too, a bit may be stuffed.
        let mut after_high = true;
        let mut rest = source;
        if let Some((&byte, before)) = rest.split_last()
            && skip > 0
        {
            let byte = byte | ((1 << skip) - 1);
            let value = byte >> skip;
            out.bits(value, 8 - skip - u32::from(value & 7 == 7));
            after_high = byte > 0x8F;
            rest = before;
        }
        for &byte in rest.iter().rev() {
            out.bits(byte, if after_high && byte & 0x7F == 0x7F { 7 } else { 8 });
            after_high = byte > 0x8F;
        }
        out.end();
    }

    fn writer(&mut self, fill: u64) -> Writer<'_> {
        self.fill = fill;
        self.bytes.clear();
        Writer { bytes: &mut self.bytes, fill, pending: 0, count: 0 }
    }

    /// At least 57 bits from bit `at` on.
    #[inline(always)]
    pub fn peek(&self, at: usize) -> u64 {
        match self.bytes.get(at / 8..).and_then(|bytes| bytes.first_chunk()) {
            Some(&word) => u64::from_le_bytes(word) >> (at % 8),
            None => self.fill,
        }
    }
}

struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    fill: u64,
    pending: u64,
    /// Bits pending, fewer than eight.
    count: u32,
}

impl Writer<'_> {
    #[inline]
    fn bits(&mut self, value: u8, count: u32) {
        self.pending |= u64::from(value & (0xFF >> (8 - count))) << self.count;
        self.count += count;
        if self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    #[inline]
    fn word(&mut self, value: u64) {
        self.bytes.extend_from_slice(&(self.pending | value << self.count).to_le_bytes());
        // Two shifts, since one by 64 is none.
        self.pending = value >> 1 >> (63 - self.count);
    }

    fn end(self) {
        self.bytes.push((self.pending | self.fill << self.count) as u8);
        // So many that a read from within the data finds eight bytes.
        self.bytes.extend_from_slice(&self.fill.to_le_bytes());
    }
}

/// Events of the adaptive run-length coder (T.814 7.3.3).
#[derive(Debug)]
pub(super) struct Mel<'a> {
    bytes: &'a [u8],
    at: usize,
    current: u8,
    left: u32,
    state: usize,
    run: u32,
    /// Whether an event of 1 ends the run.
    one: bool,
}

/// Bits of a run by state (T.814 table 2).
const EXPONENTS: [u32; 13] = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5];

impl<'a> Mel<'a> {
    /// Over the bytes up to the last but one of the code word, whose lower half belongs to something else.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, current: 0, left: 0, state: 0, run: 0, one: false }
    }

    #[inline]
    pub fn event(&mut self) -> bool {
        if self.run == 0 && !self.one {
            self.next_run();
        }
        if self.run > 0 {
            self.run -= 1;
            return false;
        }
        self.one = false;
        true
    }

    fn next_run(&mut self) {
        let exponent = EXPONENTS[self.state];
        if self.bit() == 1 {
            self.run = 1 << exponent;
            self.state = (self.state + 1).min(12);
        } else {
            self.run = (0..exponent).fold(0, |run, _| run << 1 | self.bit());
            self.state = self.state.saturating_sub(1);
            self.one = true;
        }
    }

    fn bit(&mut self) -> u32 {
        if self.left == 0 {
            self.left = if self.current == 0xFF { 7 } else { 8 };
            self.current = match self.bytes.get(self.at) {
                Some(&byte) if self.at + 1 == self.bytes.len() => byte | 0xF,
                Some(&byte) => byte,
                None => 0xFF,
            };
            self.at += 1;
        }
        self.left -= 1;
        u32::from(self.current >> self.left & 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits of a stream one by one, as the standard tells them.
    fn forward_bits(source: &[u8]) -> Vec<u8> {
        let mut before = 0;
        let mut bits = vec![];
        for &byte in source {
            bits.extend((0..if before == 0xFF { 7 } else { 8 }).map(|i| byte >> i & 1));
            before = byte;
        }
        bits
    }

    #[test]
    fn stuffed_bits_are_gone() {
        let mut source: Vec<u8> = (0..200u32).map(|i| (i * i * 7 + i) as u8).collect();
        for at in [3, 20, 21, 64, 150, 199] {
            source[at] = 0xFF;
            if let Some(next) = source.get_mut(at + 1) {
                *next &= 0x7F;
            }
        }
        let bits = forward_bits(&source);
        let mut unstuffed = Unstuffed::default();
        unstuffed.forward(&source, u64::MAX);
        for (at, &bit) in bits.iter().enumerate() {
            assert_eq!(unstuffed.peek(at) & 1, u64::from(bit), "bit {at}");
        }
        assert_eq!(unstuffed.peek(bits.len()) & 0xFFFF, 0xFFFF, "ones behind the end");
        assert_eq!(unstuffed.peek(bits.len() + 10_000), u64::MAX);
    }

    #[test]
    fn a_stream_is_read_from_its_end() {
        let mut unstuffed = Unstuffed::default();
        // 0x90 is above 0x8F: the byte before it has a stuffed bit, as it ends in seven ones; the next has none.
        unstuffed.backward(&[0x7F, 0x12, 0x7F, 0x90], 0);
        assert_eq!(unstuffed.peek(0) & 0x3FFF_FFFF, 0x90 | 0x7F << 8 | 0x12 << 15 | 0x7F << 23);
        // Four bits of the last byte.
        unstuffed.backward(&[0x34, 0x2A], 4);
        assert_eq!(unstuffed.peek(0) & 0xFFF, 0x342);
        unstuffed.backward(&[0x34, 0xFA], 4);
        assert_eq!(unstuffed.peek(0) & 0x7FF, 0x34 << 3 | 7, "a stuffed bit in the first four");
    }

    #[test]
    fn events_come_in_runs() {
        // State 0 has runs of one: 1 is an event of 0, 0 an event of 1. Three ones lead to runs of two.
        let mut mel = Mel::new(&[0b1110_1101, 0, 0]);
        let events: Vec<bool> = (0..8).map(|_| mel.event()).collect();
        // 1, 1, 1: three zeros, state 3. 0 then 1: a zero, then a one; state 2. 1: a zero, state 3. 0, 1: zero, one.
        assert_eq!(events, [false, false, false, false, true, false, false, true]);
    }
}
