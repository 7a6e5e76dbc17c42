//! Code blocks of High-Throughput JPEG 2000 (ITU-T T.814 clause 7): a cleanup pass for all bit planes down to one, and
//! two passes that refine it by one plane.
//!
//! Samples come in quads, two across and two down. A first round reads what the quads look like (which samples are
//! not zero, how long they are), a second their bits.

use super::geometry::Piece;
use super::ht_bits::{Mel, Unstuffed};
use super::ht_tables::{FIRST_LINE, OTHER_LINES, Table};

/// Bit planes whose samples fit beside a sign and half a step.
const MAX_PLANES: u32 = 30;

/// The buffers of a block, kept from block to block.
#[derive(Debug, Default)]
pub(super) struct HighThroughput {
    /// Of each quad: its entry of [`Table`], and above 16 bits the excess of its exponent (u).
    quads: Vec<u32>,
    /// Magnitudes along the lower line of the quads above.
    line: Vec<u32>,
    magnitudes: Unstuffed,
    words: Unstuffed,
    joined: Vec<u8>,
    /// Whether a sample is significant, with a border: 1 since the cleanup pass, 2 since the one behind it.
    significant: Vec<u8>,
    /// Samples by rows of `stride`: sign in the highest bit, then the magnitude with one bit behind the point.
    pub samples: Vec<u32>,
    pub stride: usize,
}

/// What decoding a block goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockCoding {
    pub width: usize,
    pub height: usize,
    /// Bit planes from the first that may hold a one, down to that of the cleanup pass.
    pub zero_planes: u32,
    pub planes: u32,
    /// Whether the second pass looks into the stripe below.
    pub causal: bool,
}

impl HighThroughput {
    /// Decodes a block of `body` into `samples`, each in the middle of its interval.
    pub fn decode(&mut self, coding: &BlockCoding, pieces: &[Piece], body: &[u8]) -> Result<(), String> {
        let of_piece = |piece: &Piece| &body[piece.start as usize..][..piece.length as usize];
        let Some((cleanup, refinements)) = pieces.split_first() else {
            return Err("a code block without passes".into());
        };
        if coding.planes > MAX_PLANES || coding.zero_planes >= coding.planes {
            return Err(format!("a block of {} bit planes, {} empty", coding.planes, coding.zero_planes));
        }
        // The plane of the cleanup pass.
        let plane = coding.planes - 1 - coding.zero_planes;
        self.cleanup(coding, of_piece(cleanup), plane)?;
        let passes: u32 = refinements.iter().map(|piece| piece.passes).sum();
        if passes > 0 {
            if plane == 0 {
                return Err("a refinement below the last bit plane".into());
            }
            let mut joined = std::mem::take(&mut self.joined);
            joined.clear();
            refinements.iter().for_each(|piece| joined.extend_from_slice(of_piece(piece)));
            self.map_significance(coding);
            self.significance(coding, &joined, plane);
            if passes > 1 {
                self.refinement(coding, &joined, plane);
            }
            self.joined = joined;
        }
        Ok(())
    }

    fn cleanup(&mut self, coding: &BlockCoding, bytes: &[u8], plane: u32) -> Result<(), String> {
        if bytes.is_empty() {
            self.stride = coding.width;
            self.samples.clear();
            self.samples.resize(coding.width * coding.height.next_multiple_of(4), 0);
            return Ok(());
        }
        // The last 12 bits say how long the two streams at the end are (T.814 7.1.1).
        let &[.., low, high] = bytes else { return Err("a code block of less than two bytes".into()) };
        let suffix = usize::from(high) << 4 | usize::from(low & 15);
        if suffix < 2 || suffix > bytes.len() || suffix > 4079 {
            return Err(format!("{suffix} bytes of {} in a code block", bytes.len()));
        }
        let (magnitudes, suffix) = bytes.split_at(bytes.len() - suffix);
        let suffix = &suffix[..suffix.len() - 1];
        self.words.backward(suffix, 4);
        self.magnitudes.forward(magnitudes, u64::MAX);
        self.read_quads(coding, Mel::new(suffix));
        self.read_samples(coding, plane)
    }

    /// Quads of a line, and room behind them for the neighbours of the last.
    fn line_of_quads(width: usize) -> usize {
        width.div_ceil(4) * 2 + 2
    }

    /// First round: significance, known bits and exponents of all quads (T.814 7.3.5, 7.3.6).
    fn read_quads(&mut self, coding: &BlockCoding, mut mel: Mel) {
        let stride = Self::line_of_quads(coding.width);
        let lines = coding.height.div_ceil(2);
        self.quads.clear();
        self.quads.resize(stride * lines, 0);
        let mut at = 0;
        let (first, others) = self.quads.split_at_mut(stride);
        let columns = coding.width.div_ceil(2);
        let mut context = 0;
        for (pair, quads) in first[..stride - 2].as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let mut bits = self.words.peek(at);
            let mut taken = 0;
            let a = quad(&FIRST_LINE, context, &mut bits, &mut taken, &mut mel);
            context = (a & 0x10) << 3 | (a & 0xE0) << 2;
            let mut b = 0;
            if 2 * pair + 1 < columns {
                b = quad(&FIRST_LINE, context, &mut bits, &mut taken, &mut mel);
            }
            context = (b & 0x10) << 3 | (b & 0xE0) << 2;
            let mut mode = a >> 3 & 1 | b >> 2 & 2;
            if mode == 3 && mel.event() {
                mode = 4;
            }
            let (u, v) = excess(mode, bits, &mut taken);
            // The exponent of a line without one above is 1 at least.
            *quads = [a | (u + 1) << 16, b | (v + 1) << 16];
            at += taken;
        }
        let mut above = first;
        for line in others.chunks_exact_mut(stride) {
            let mut context = 0;
            for (pair, quads) in line[..stride - 2].as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let [n0, n1, n2] = [above[2 * pair], above[2 * pair + 1], above[2 * pair + 2]];
                let mut bits = self.words.peek(at);
                let mut taken = 0;
                context |= (n0 & 0xA0) << 2 | (n1 & 0x20) << 4;
                let a = quad(&OTHER_LINES, context, &mut bits, &mut taken, &mut mel);
                context = (a & 0x40) << 2 | (a & 0x80) << 1 | n0 & 0x80 | (n1 & 0xA0) << 2 | (n2 & 0x20) << 4;
                let mut b = 0;
                if 2 * pair + 1 < columns {
                    b = quad(&OTHER_LINES, context, &mut bits, &mut taken, &mut mel);
                }
                context = (b & 0x40) << 2 | (b & 0x80) << 1 | n1 & 0x80;
                let mut mode = a >> 3 & 1 | b >> 2 & 2;
                if mode == 3 {
                    mode = 5;
                }
                let (u, v) = excess(mode, bits, &mut taken);
                *quads = [a | u << 16, b | v << 16];
                at += taken;
            }
            above = line;
        }
    }

    /// Second round: signs and magnitudes (T.814 7.3.7, 7.3.8).
    fn read_samples(&mut self, coding: &BlockCoding, plane: u32) -> Result<(), String> {
        let stride = Self::line_of_quads(coding.width);
        let columns = coding.width.div_ceil(2);
        self.stride = 2 * columns;
        self.samples.clear();
        self.samples.resize(self.stride * coding.height.next_multiple_of(4), 0);
        self.line.clear();
        self.line.resize(columns + 2, 0);
        let greatest = coding.zero_planes + 2;
        let mut at = 0;
        let lines = self.quads.chunks_exact(stride).zip(self.samples.chunks_exact_mut(2 * self.stride));
        for (y, (quads, samples)) in lines.enumerate() {
            let (top, bottom) = samples.split_at_mut(self.stride);
            let line = &mut self.line[..columns + 2];
            let mut left = 0;
            let places = top.as_chunks_mut::<2>().0.iter_mut().zip(bottom.as_chunks_mut::<2>().0);
            for (x, (&quad, (top, bottom))) in quads.iter().zip(places).enumerate() {
                // The exponent above counts where more than one sample is significant (T.814 7.3.7).
                let several = quad & 0xF0 & (quad & 0xF0).wrapping_sub(0x10) != 0;
                let above = if several { 31 - (line[x] | line[x + 1] | 2).leading_zeros() } else { 1 };
                if quad & 0xF0 == 0 {
                    line[x] = left;
                    left = 0;
                    continue;
                }
                let exponent = (quad >> 16) + if y == 0 { 0 } else { above };
                if exponent > greatest {
                    return Err(format!("a sample of {exponent} bits, expected at most {greatest}"));
                }
                let mut sample = |i: u32| {
                    let significant = quad >> (4 + i) & 1;
                    let length = (exponent - (quad >> (12 + i) & 1)) * significant;
                    let bits = self.magnitudes.peek(at) as u32;
                    at += length as usize;
                    // The sign is the lowest bit; half a step takes its place.
                    let magnitude = bits & ((1 << length) - 1) | (quad >> (8 + i) & 1) << length | 1;
                    let value = bits << 31 | magnitude.wrapping_add(2) << plane;
                    let mask = significant.wrapping_neg();
                    (value & mask, magnitude & mask)
                };
                let a = sample(0);
                let b = sample(1);
                let c = sample(2);
                let d = sample(3);
                *top = [a.0, c.0];
                *bottom = [b.0, d.0];
                line[x] = left | b.1;
                left = d.1;
            }
            line[columns] = left;
        }
        Ok(())
    }

    /// Notes which samples the cleanup pass found.
    fn map_significance(&mut self, coding: &BlockCoding) {
        let width = coding.width + 2;
        self.significant.clear();
        self.significant.resize(width * (coding.height + 2), 0);
        for (row, samples) in
            self.significant[width..].chunks_exact_mut(width).zip(self.samples.chunks_exact(self.stride))
        {
            row[1..].iter_mut().zip(&samples[..coding.width]).for_each(|(flag, &s)| *flag = u8::from(s != 0));
        }
    }

    /// Significance propagation by one plane (T.814 7.4): by stripes of four rows, in which every four columns have
    /// their bits first and their signs behind.
    fn significance(&mut self, coding: &BlockCoding, bytes: &[u8], plane: u32) {
        self.magnitudes.forward(bytes, 0);
        let width = coding.width + 2;
        let mut at = 0;
        let mut bit = || {
            at += 1;
            (self.magnitudes.peek(at - 1) & 1) as u32
        };
        let mut found = vec![];
        for top in (0..coding.height).step_by(4) {
            let bottom = (top + 4).min(coding.height);
            for first in (0..coding.width).step_by(4) {
                for x in first..(first + 4).min(coding.width) {
                    for y in top..bottom {
                        // In the map with its border, (x, y) is the upper left neighbour's place.
                        let near = |row: usize| {
                            self.significant[row * width + x..][..3].iter().fold(0, |any, &flag| any | flag)
                        };
                        if self.significant[(y + 1) * width + x + 1] != 0 {
                            continue;
                        }
                        let below = if coding.causal && y + 1 == top + 4 { 0 } else { near(y + 2) };
                        if near(y) | near(y + 1) | below != 0 && bit() == 1 {
                            self.significant[(y + 1) * width + x + 1] = 2;
                            found.push(y * self.stride + x);
                        }
                    }
                }
                for place in found.drain(..) {
                    self.samples[place] = bit() << 31 | 3 << (plane - 1);
                }
            }
        }
    }

    /// Magnitude refinement by one plane (T.814 7.5).
    fn refinement(&mut self, coding: &BlockCoding, bytes: &[u8], plane: u32) {
        self.words.backward(bytes, 0);
        let width = coding.width + 2;
        let mut at = 0;
        for top in (0..coding.height).step_by(4) {
            for x in 0..coding.width {
                for y in top..(top + 4).min(coding.height) {
                    if self.significant[(y + 1) * width + x + 1] == 1 {
                        let bit = (self.words.peek(at) & 1) as u32;
                        at += 1;
                        let sample = &mut self.samples[y * self.stride + x];
                        *sample = (*sample ^ (bit ^ 1) << plane) | 1 << (plane - 1);
                    }
                }
            }
        }
    }
}

/// The entry of the next quad: what the context and the next bits say, where no event says that it is empty.
#[inline(always)]
fn quad(table: &Table, context: u32, bits: &mut u64, taken: &mut usize, mel: &mut Mel) -> u32 {
    if context == 0 && !mel.event() {
        return 0;
    }
    let entry = table[(context as usize & 0x380) | (*bits & 127) as usize];
    let length = u32::from(entry & 7);
    *bits >>= length;
    *taken += length as usize;
    entry.into()
}

/// The excess exponents of two quads (T.814 7.3.6).
#[inline(always)]
fn excess(mode: u32, bits: u64, taken: &mut usize) -> (u32, u32) {
    let entry = EXCESS[(mode as usize & 7) << 6 | (bits & 63) as usize];
    let (prefix, first, second) = (entry & 7, entry >> 3 & 7, entry >> 6 & 7);
    let suffix = (bits >> prefix) as u32;
    *taken += (prefix + first + second) as usize;
    let u = (entry >> 9 & 15) + (suffix & ((1 << first) - 1));
    let v = (entry >> 13 & 15) + (suffix >> first & ((1 << second) - 1));
    (u, v)
}

/// Prefixes of two excess exponents by mode and the next six bits: length of the prefixes, lengths of both suffixes (3
/// bits each), values before the suffixes (4 bits each). Modes: neither quad has one, the first has, the second, both
/// on the first line, both there after an event, both on another line (T.814 table 3).
static EXCESS: [u32; 512] = {
    /// Length, length of the suffix, value.
    const fn prefix(bits: usize) -> (u32, u32, u32) {
        match bits & 7 {
            0b000 => (3, 5, 5),
            0b100 => (3, 1, 3),
            0b010 | 0b110 => (2, 0, 2),
            _ => (1, 0, 1),
        }
    }
    let mut table = [0; 512];
    let mut i = 0;
    while i < 6 * 64 {
        let (mode, bits) = (i >> 6, i & 63);
        let none = (0, 0, 0);
        let a = if mode == 0 || mode == 2 { none } else { prefix(bits) };
        let b = match mode {
            0 | 1 => none,
            // Behind a long prefix on the first line, the second is a single bit.
            3 if a.0 == 3 => (1, 0, (bits >> 3 & 1) as u32 + 1),
            _ => prefix(bits >> a.0),
        };
        let more = if mode == 4 { 2 } else { 0 };
        table[i] = (a.0 + b.0) | a.1 << 3 | b.1 << 6 | (a.2 + more) << 9 | (b.2 + more) << 13;
        i += 1;
    }
    table
};
