//! The MQ arithmetic decoder (ITU-T T.800 annex C), and the raw bits that may stand in its place (D.6).
//!
//! The decoder of the standard adds a byte to its register when the bits run out. Here the register has 64 bits and
//! takes several bytes at once: they are added further down, which gives the same sums.

/// The first of 5 contexts of signs, behind 9 of significance, and so on (T.800 table D.7).
pub(super) const SIGNS: usize = 9;
pub(super) const REFINEMENTS: usize = 14;
pub(super) const RUN_LENGTH: usize = 17;
pub(super) const UNIFORM: usize = 18;

/// Probability of the less probable symbol, next state after each of both, whether they change places (T.800 table C.2).
const STATES: [(u16, u8, u8, bool); 47] = [
    (0x5601, 1, 1, true),
    (0x3401, 2, 6, false),
    (0x1801, 3, 9, false),
    (0x0AC1, 4, 12, false),
    (0x0521, 5, 29, false),
    (0x0221, 38, 33, false),
    (0x5601, 7, 6, true),
    (0x5401, 8, 14, false),
    (0x4801, 9, 14, false),
    (0x3801, 10, 14, false),
    (0x3001, 11, 17, false),
    (0x2401, 12, 18, false),
    (0x1C01, 13, 20, false),
    (0x1601, 29, 21, false),
    (0x5601, 15, 14, true),
    (0x5401, 16, 14, false),
    (0x5101, 17, 15, false),
    (0x4801, 18, 16, false),
    (0x3801, 19, 17, false),
    (0x3401, 20, 18, false),
    (0x3001, 21, 19, false),
    (0x2801, 22, 19, false),
    (0x2401, 23, 20, false),
    (0x2201, 24, 21, false),
    (0x1C01, 25, 22, false),
    (0x1801, 26, 23, false),
    (0x1601, 27, 24, false),
    (0x1401, 28, 25, false),
    (0x1201, 29, 26, false),
    (0x1101, 30, 27, false),
    (0x0AC1, 31, 28, false),
    (0x09C1, 32, 29, false),
    (0x08A1, 33, 30, false),
    (0x0521, 34, 31, false),
    (0x0441, 35, 32, false),
    (0x02A1, 36, 33, false),
    (0x0221, 37, 34, false),
    (0x0141, 38, 35, false),
    (0x0111, 39, 36, false),
    (0x0085, 40, 37, false),
    (0x0049, 41, 38, false),
    (0x0025, 42, 39, false),
    (0x0015, 43, 40, false),
    (0x0009, 44, 41, false),
    (0x0005, 45, 42, false),
    (0x0001, 45, 43, false),
    (0x5601, 46, 46, false),
];

/// The probability in a packed state: its highest 16 bits, as in the register.
const PROBABILITY: u64 = 0xFFFF << 48;

/// States by number * 2 + more probable symbol: probability, that symbol in bit 16, numbers of the next states in bits
/// 0 and 8. A context holds its state itself, which saves a look-up for most symbols.
static PACKED: [u64; 128] = packed();

const fn packed() -> [u64; 128] {
    let mut packed = [0; 128];
    let mut i = 0;
    while i < STATES.len() {
        let (probability, more, less, switch) = STATES[i];
        let mut symbol = 0;
        while symbol < 2 {
            let after_less = if switch { 1 - symbol } else { symbol };
            packed[2 * i + symbol] = (probability as u64) << 48
                | (symbol as u64) << 16
                | (2 * less as u64 + after_less as u64) << 8
                | (2 * more as u64 + symbol as u64);
            symbol += 1;
        }
        i += 1;
    }
    packed
}

/// The decoder over one code word. Copied into a pass, so that its fields are registers there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mq<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Interval and code register, both from the highest bit down.
    a: u64,
    c: u64,
    /// Where the next byte is added.
    shift: i32,
    contexts: [u64; 32],
}

impl<'a> Mq<'a> {
    pub fn new() -> Self {
        let mut mq = Self { bytes: &[], at: 0, a: 0, c: 0, shift: 0, contexts: [0; 32] };
        mq.reset();
        mq
    }

    /// All contexts as at first (T.800 table D.7).
    pub fn reset(&mut self) {
        self.contexts = [PACKED[0]; 32];
        self.contexts[0] = PACKED[2 * 4];
        self.contexts[RUN_LENGTH] = PACKED[2 * 3];
        self.contexts[UNIFORM] = PACKED[2 * 46];
    }

    /// Starts a code word (INITDEC, T.800 C.3.5); the contexts stay.
    pub fn start(&mut self, bytes: &'a [u8]) {
        (self.bytes, self.at) = (bytes, 0);
        (self.a, self.c, self.shift) = (0x8000 << 48, 0, 55);
        (self.c, self.shift, self.at) = filled(bytes, 0, 0, 55);
    }

    /// The next symbol (DECODE, T.800 C.3.2).
    #[inline(always)]
    pub fn decode(&mut self, context: usize) -> u32 {
        let state = self.contexts[context & 31];
        let probability = state & PROBABILITY;
        let symbol = (state >> 16 & 1) as u32;
        let a = self.a - probability;
        if self.c >= probability && a >> 63 == 1 {
            self.c -= probability;
            self.a = a;
            return symbol;
        }
        // Either sub-interval may hold the less probable symbol, which is as good as random here: no branches.
        let lower = u64::from(self.c < probability);
        let less = lower ^ u64::from(a < probability);
        let mask = lower.wrapping_neg();
        let a = (a & !mask) | (probability & mask);
        let c = self.c - (probability & !mask);
        self.contexts[context & 31] = PACKED[(state >> (8 * less) & 127) as usize];
        let shift = (a | 1).leading_zeros();
        self.a = a << shift;
        self.c = c << shift;
        self.shift += shift as i32;
        if self.shift > 40 {
            (self.c, self.shift, self.at) = filled(self.bytes, self.at, self.c, self.shift);
        }
        symbol ^ less as u32
    }
}

/// The register with bytes added as far as they fit (BYTEIN, T.800 C.3.4).
fn filled(bytes: &[u8], mut at: usize, mut c: u64, mut shift: i32) -> (u64, i32, usize) {
    let mut after_ones = at > 0 && bytes.get(at - 1) == Some(&0xFF);
    // Where the byte before was 0xFF, this one has a bit less.
    while shift >= 0 {
        match bytes.get(at) {
            Some(&byte) if !(after_ones && byte > 0x8F) => {
                c = c.wrapping_add(u64::from(byte) << shift);
                at += 1;
                after_ones = byte == 0xFF;
                shift -= if after_ones { 7 } else { 8 };
            }
            // Behind the end there are ones only.
            _ => {
                c = c.wrapping_add(if after_ones { 0xFF << shift >> 1 } else { 0xFF << shift });
                shift -= 8;
            }
        }
    }
    (c, shift, at)
}

/// Bits of a pass without arithmetic coding: behind a byte of ones there is a byte of seven bits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RawBits<'a> {
    bytes: &'a [u8],
    at: usize,
    current: u8,
    left: u32,
}

impl<'a> RawBits<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, ..Self::default() }
    }

    #[inline]
    pub fn bit(&mut self) -> u32 {
        if self.left == 0 {
            self.left = if self.current == 0xFF { 7 } else { 8 };
            self.current = self.bytes.get(self.at).copied().unwrap_or(0xFF);
            self.at += 1;
        }
        self.left -= 1;
        u32::from(self.current >> self.left & 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONTEXTS: usize = UNIFORM + 1;

    /// The encoder of the standard (T.800 C.2), one context state for each context.
    struct Encoder {
        a: u32,
        c: u32,
        count: u32,
        bytes: Vec<u8>,
        contexts: [(usize, u32); CONTEXTS],
    }

    impl Encoder {
        fn new() -> Self {
            let mut contexts = [(0, 0); CONTEXTS];
            (contexts[0], contexts[RUN_LENGTH], contexts[UNIFORM]) = ((4, 0), (3, 0), (46, 0));
            // A byte stands before the first, for a carry that never comes.
            Self { a: 0x8000, c: 0, count: 12, bytes: vec![0], contexts }
        }

        fn encode(&mut self, context: usize, symbol: u32) {
            let (state, more) = self.contexts[context];
            let (probability, after_more, after_less, switch) = STATES[state];
            let probability = u32::from(probability);
            self.a -= probability;
            let likely = symbol == more;
            let renormalise = !likely || self.a & 0x8000 == 0;
            if likely == (self.a < probability) && renormalise {
                self.a = probability;
            } else {
                self.c += probability;
            }
            if renormalise {
                self.contexts[context] = if likely {
                    (after_more.into(), more)
                } else {
                    (after_less.into(), if switch { 1 - more } else { more })
                };
                while self.a & 0x8000 == 0 {
                    self.a <<= 1;
                    self.c <<= 1;
                    self.count -= 1;
                    if self.count == 0 {
                        self.byte_out();
                    }
                }
            }
        }

        fn byte_out(&mut self) {
            if self.bytes.last() != Some(&0xFF) && self.c & 0x0800_0000 != 0 {
                *self.bytes.last_mut().unwrap() += 1;
                self.c &= 0x07FF_FFFF;
            }
            if self.bytes.last() == Some(&0xFF) {
                self.bytes.push((self.c >> 20) as u8);
                (self.c, self.count) = (self.c & 0xF_FFFF, 7);
            } else {
                self.bytes.push((self.c >> 19) as u8);
                (self.c, self.count) = (self.c & 0x7_FFFF, 8);
            }
        }

        fn finish(mut self) -> Vec<u8> {
            let end = self.c + self.a;
            self.c |= 0xFFFF;
            if self.c >= end {
                self.c -= 0x8000;
            }
            for _ in 0..2 {
                self.c <<= self.count;
                self.byte_out();
            }
            if self.bytes.last() == Some(&0xFF) {
                self.bytes.pop();
            }
            self.bytes.split_off(1)
        }
    }

    #[test]
    fn the_test_sequence_of_the_standard_comes_back() {
        // ITU-T T.88 H.2, which has the same coder.
        let coded = [
            0x84, 0xC7, 0x3B, 0xFC, 0xE1, 0xA1, 0x43, 0x04, 0x02, 0x20, 0x00, 0x00, 0x41, 0x0D, 0xBB, 0x86,
            0xF4, 0x31, 0x7F, 0xFF, 0x88, 0xFF, 0x37, 0x47, 0x1A, 0xDB, 0x6A, 0xDF, 0xFF, 0xAC,
        ];
        let plain = [
            0x00, 0x02, 0x00, 0x51, 0x00, 0x00, 0x00, 0xC0, 0x03, 0x52, 0x87, 0x2A, 0xAA, 0xAA, 0xAA, 0xAA,
            0x82, 0xC0, 0x20, 0x00, 0xFC, 0xD7, 0x9E, 0xF6, 0xBF, 0x7F, 0xED, 0x90, 0x4F, 0x46, 0xA3, 0xBF,
        ];
        let mut mq = Mq::new();
        mq.start(&coded);
        for byte in plain {
            assert_eq!((0..8).fold(0, |byte, _| byte << 1 | mq.decode(1)), byte);
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(
            symbols in prop::collection::vec((0..CONTEXTS, 0..100u32), 0..3000),
            rare in 1..100u32,
        ) {
            let mut encoder = Encoder::new();
            for &(context, symbol) in &symbols {
                encoder.encode(context, u32::from(symbol < rare));
            }
            let bytes = encoder.finish();
            let mut mq = Mq::new();
            mq.start(&bytes);
            for (i, &(context, symbol)) in symbols.iter().enumerate() {
                prop_assert_eq!(mq.decode(context), u32::from(symbol < rare), "symbol {}", i);
            }
        }
    }

    #[test]
    fn raw_bits_leave_stuffed_ones_out() {
        let mut bits = RawBits::new(&[0xA5, 0xFF, 0x55]);
        let read: Vec<u32> = (0..25).map(|_| bits.bit()).collect();
        assert_eq!(read[..8], [1, 0, 1, 0, 0, 1, 0, 1]);
        assert_eq!(read[8..16], [1; 8]);
        assert_eq!(read[16..23], [1, 0, 1, 0, 1, 0, 1]);
        assert_eq!(read[23..], [1, 1], "ones behind the end");
    }
}
