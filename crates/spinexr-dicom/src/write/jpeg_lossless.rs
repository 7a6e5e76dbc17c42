//! JPEG lossless, process 14 with selection value 1 (ITU-T T.81 annex H): each pixel is predicted by its left
//! neighbour, and the difference is Huffman coded with a table made for the image.

/// Categories of differences: 0 to 16 bits.
const CATEGORIES: usize = 17;
/// Longest code T.81 allows, bits.
const MAX_CODE_BITS: usize = 16;

/// One grey frame, row-major `[height, width]`, as a JPEG stream.
pub(super) fn encode(pixels: &[u16], height: usize, width: usize, precision: u8) -> Vec<u8> {
    let mut counts = [0u64; CATEGORIES];
    for_each_difference(pixels, width, precision, |difference| counts[category(difference)] += 1);
    let (lengths, symbols) = code_lengths(&counts);
    let codes = codes(&lengths, &symbols);

    let mut out = Vec::with_capacity(pixels.len() + 256);
    out.extend_from_slice(&[0xFF, 0xD8]); // SOI
    out.extend_from_slice(&[0xFF, 0xC3, 0, 11, precision]); // SOF3, one component without subsampling
    out.extend_from_slice(&(height as u16).to_be_bytes());
    out.extend_from_slice(&(width as u16).to_be_bytes());
    out.extend_from_slice(&[1, 1, 0x11, 0]);
    out.extend_from_slice(&[0xFF, 0xC4]); // DHT, class 0, table 0
    out.extend_from_slice(&(19 + symbols.len() as u16).to_be_bytes());
    out.push(0);
    out.extend_from_slice(&lengths);
    out.extend_from_slice(&symbols);
    out.extend_from_slice(&[0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 0, 0]); // SOS, predictor 1, no point transform
    let mut bits = BitWriter { out, pending: 0, count: 0 };
    for_each_difference(pixels, width, precision, |difference| {
        let category = category(difference);
        let (code, length) = codes[category];
        bits.put(code, length);
        // Category 16 holds the single difference 32768 and has no further bits (T.81 table H.2).
        if category != 0 && category != 16 {
            let extra = if difference < 0 { difference - 1 } else { difference } as u32;
            bits.put(extra & ((1 << category) - 1), category as u32);
        }
    });
    let mut out = bits.finish();
    out.extend_from_slice(&[0xFF, 0xD9]); // EOI
    out
}

/// Calls `f` with each pixel minus its prediction, modulo 2^16, in -32767..=32768.
fn for_each_difference(pixels: &[u16], width: usize, precision: u8, mut f: impl FnMut(i32)) {
    // The first pixel is predicted by half the range, the first of a later row by the pixel above.
    let mut row_prediction = 1u16 << (precision - 1);
    for row in pixels.chunks(width) {
        let mut prediction = row_prediction;
        for &value in row {
            let difference = i32::from(value.wrapping_sub(prediction) as i16);
            f(if difference == -32_768 { 32_768 } else { difference });
            prediction = value;
        }
        row_prediction = row[0];
    }
}

/// Bits needed for the magnitude of a difference.
fn category(difference: i32) -> usize {
    (32 - difference.unsigned_abs().leading_zeros()) as usize
}

/// Numbers of codes by length 1..=16, and the symbols in order of length (T.81 K.2).
fn code_lengths(counts: &[u64; CATEGORIES]) -> ([u8; MAX_CODE_BITS], Vec<u8>) {
    // A reserved symbol of least weight takes the code of all ones, which T.81 forbids.
    let mut trees: Vec<(u64, Vec<usize>)> = vec![(0, vec![CATEGORIES])];
    trees.extend((0..CATEGORIES).filter(|&s| counts[s] > 0).map(|s| (counts[s], vec![s])));
    let mut depth = [0usize; CATEGORIES + 1];
    while trees.len() > 1 {
        trees.sort_by_key(|(weight, members)| std::cmp::Reverse((*weight, std::cmp::Reverse(members[0]))));
        let (light, mut members) = trees.pop().expect("more than one tree");
        let (heavy, others) = trees.pop().expect("more than one tree");
        members.extend(others);
        for &symbol in &members {
            depth[symbol] += 1;
        }
        trees.push((light + heavy, members));
    }
    let mut numbers = [0usize; CATEGORIES + 2];
    for &bits in depth.iter().filter(|&&d| d > 0) {
        numbers[bits] += 1;
    }
    // Codes too long move up in pairs (T.81 figure K.3).
    for bits in (MAX_CODE_BITS + 1..numbers.len()).rev() {
        while numbers[bits] > 0 {
            let mut shorter = bits - 2;
            while numbers[shorter] == 0 {
                shorter -= 1;
            }
            numbers[bits] -= 2;
            numbers[bits - 1] += 1;
            numbers[shorter + 1] += 2;
            numbers[shorter] -= 1;
        }
    }
    // The reserved symbol is among the longest.
    if let Some(longest) = numbers.iter().rposition(|&n| n > 0) {
        numbers[longest] -= 1;
    }
    let mut symbols: Vec<u8> = (0..CATEGORIES as u8).filter(|&s| depth[usize::from(s)] > 0).collect();
    symbols.sort_by_key(|&s| (depth[usize::from(s)], s));
    let mut lengths = [0u8; MAX_CODE_BITS];
    for (length, &number) in lengths.iter_mut().zip(&numbers[1..]) {
        *length = number as u8;
    }
    (lengths, symbols)
}

/// Code and length of each category (T.81 C.2).
fn codes(lengths: &[u8; MAX_CODE_BITS], symbols: &[u8]) -> [(u32, u32); CATEGORIES] {
    let mut table = [(0, 0); CATEGORIES];
    let mut code = 0;
    let mut next = symbols.iter();
    for (bits, &number) in (1..).zip(lengths) {
        for &symbol in next.by_ref().take(usize::from(number)) {
            table[usize::from(symbol)] = (code, bits);
            code += 1;
        }
        code <<= 1;
    }
    table
}

/// Bits, most significant first; a zero follows every byte of ones.
struct BitWriter {
    out: Vec<u8>,
    pending: u64,
    count: u32,
}

impl BitWriter {
    fn put(&mut self, value: u32, bits: u32) {
        self.pending = self.pending << bits | u64::from(value);
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.pending >> self.count) as u8;
            self.out.push(byte);
            if byte == 0xFF {
                self.out.push(0);
            }
        }
    }

    /// Fills the last byte with ones.
    fn finish(mut self) -> Vec<u8> {
        let missing = (8 - self.count % 8) % 8;
        self.put((1 << missing) - 1, missing);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn differences_wrap_around() {
        let mut seen = Vec::new();
        for_each_difference(&[0, 65_535, 32_767, 65_535], 2, 16, |d| seen.push(d));
        assert_eq!(seen, [32_768, -1, 32_767, 32_768]);
    }

    proptest! {
        #[test]
        fn codes_are_prefix_free_and_short(counts in prop::array::uniform17(prop_oneof![Just(0u64), 1u64..5, 1u64..1_000_000_000])) {
            prop_assume!(counts.iter().any(|&c| c > 0));
            let (lengths, symbols) = code_lengths(&counts);
            prop_assert_eq!(symbols.len(), counts.iter().filter(|&&c| c > 0).count());
            prop_assert_eq!(symbols.len(), lengths.iter().map(|&n| usize::from(n)).sum::<usize>());
            // Kraft: the sum stays below one, so that the code of all ones is free.
            let kraft: f64 = (1..).zip(&lengths).map(|(bits, &n)| f64::from(n) * 0.5f64.powi(bits)).sum();
            prop_assert!(kraft < 1.0, "{}", kraft);
        }
    }

    #[test]
    fn fibonacci_weights_stay_within_sixteen_bits() {
        let mut counts = [1u64; CATEGORIES];
        for i in 2..CATEGORIES {
            counts[i] = counts[i - 1] + counts[i - 2];
        }
        let (lengths, symbols) = code_lengths(&counts);
        assert_eq!(symbols.len(), CATEGORIES);
        assert_eq!(lengths.iter().map(|&n| usize::from(n)).sum::<usize>(), CATEGORIES);
    }
}
