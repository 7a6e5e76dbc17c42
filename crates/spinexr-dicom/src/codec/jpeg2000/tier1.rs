//! Code blocks of part 1: bit planes, three passes each, by arithmetic decoding (ITU-T T.800 annex D).
//!
//! What the contexts ask of a sample's neighbourhood is kept in one word for a column of four samples, a stripe high:
//! bit 3 r + c says whether the sample in row r (0 is above the stripe, 5 below) and column c (0 to the left, 1 the
//! column itself, 2 to the right) is significant. Signs of the column itself are in bits 18 (above), 19 + 3 k
//! (sample k) and 31 (below), "refined before" in 20 + 3 k, "seen in this bit plane" in 21 + 3 k.

use super::coding::modes;
use super::contexts::{SIGN, SIGNIFICANCE};
use super::geometry::{BandKind, Piece};
use super::mq::{Mq, REFINEMENTS, RUN_LENGTH, RawBits, UNIFORM};

const SIGNIFICANT: u32 = 1 << 4;
/// The eight neighbours of a column's first sample.
const NEIGHBOURS: u32 = 0x1EF;
const REFINED: u32 = 1 << 20;
const SEEN: u32 = 1 << 21;
const ALL_SIGNIFICANT: u32 = SIGNIFICANT | SIGNIFICANT << 3 | SIGNIFICANT << 6 | SIGNIFICANT << 9;
const ALL_SEEN: u32 = SEEN | SEEN << 3 | SEEN << 6 | SEEN << 9;
/// Bit planes whose samples fit beside a sign and half a step.
const MAX_PLANES: u32 = 30;

/// The buffers of a block, kept from block to block.
#[derive(Debug, Default)]
pub(super) struct Tier1 {
    /// A word for every column of every stripe, with a border around.
    flags: Vec<u32>,
    /// Samples, row-major: sign in the highest bit, then the magnitude with one bit behind the point.
    pub samples: Vec<u32>,
    joined: Vec<u8>,
}

/// What decoding a block goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockCoding {
    pub kind: BandKind,
    pub modes: u8,
    pub width: usize,
    pub height: usize,
    /// Bit planes from the first that may hold a one.
    pub planes: u32,
}

impl Tier1 {
    /// Decodes a block of `body` into `samples`, each in the middle of its interval.
    pub fn decode(&mut self, coding: &BlockCoding, pieces: &[Piece], body: &[u8]) -> Result<(), String> {
        let &BlockCoding { width, height, planes, modes, kind } = coding;
        if planes > MAX_PLANES {
            return Err(format!("a block of {planes} bit planes"));
        }
        self.flags.clear();
        self.flags.resize((height.div_ceil(4) + 2) * (width + 2), 0);
        self.samples.clear();
        self.samples.resize(width * height, 0);
        let mut block = Block {
            flags: &mut self.flags,
            samples: &mut self.samples,
            width,
            height,
            causal: modes & modes::VERTICALLY_CAUSAL != 0,
            contexts: &SIGNIFICANCE[match kind {
                BandKind::LowLow | BandKind::LowHigh => 0,
                BandKind::HighLow => 1,
                BandKind::HighHigh => 2,
            }],
        };
        let of_piece = |piece: &Piece| &body[piece.start as usize..][..piece.length as usize];
        if pieces.len() > 1 {
            self.joined.clear();
            pieces.iter().for_each(|piece| self.joined.extend_from_slice(of_piece(piece)));
        }
        let mut bytes = match pieces {
            [one] => of_piece(one),
            _ => &self.joined[..],
        };
        let mut mq = Mq::new();
        let mut pass = 0u32;
        for word in pieces.chunk_by(|_, next| !next.opens) {
            let (these, rest) = bytes.split_at(word.iter().map(|piece| piece.length as usize).sum());
            bytes = rest;
            let raw = modes & modes::BYPASS != 0 && pass >= 10 && !pass.is_multiple_of(3);
            let mut raw_bits = RawBits::new(these);
            if !raw {
                mq.start(these);
            }
            for _ in 0..word.iter().map(|piece| piece.passes).sum() {
                // Some encoders append passes below the last bit plane, with nothing in them.
                let Some(plane @ 1..) = planes.checked_sub(pass.div_ceil(3)) else { return Ok(()) };
                match (pass % 3, raw) {
                    (0, _) => {
                        mq = block.cleanup(mq, plane);
                        if modes & modes::SEGMENTATION != 0
                            && (0..4).fold(0, |symbols, _| symbols << 1 | mq.decode(UNIFORM)) != 0b1010
                        {
                            return Err("a segmentation symbol is damaged".into());
                        }
                    }
                    (1, false) => mq = block.significance(mq, plane),
                    (1, true) => raw_bits = block.significance(raw_bits, plane),
                    (_, false) => mq = block.refinement(mq, plane),
                    (_, true) => raw_bits = block.refinement(raw_bits, plane),
                }
                if modes & modes::RESET != 0 {
                    mq.reset();
                }
                pass += 1;
            }
        }
        Ok(())
    }
}

/// Where the symbols of a pass come from.
trait Symbols: Copy {
    fn symbol(&mut self, context: usize) -> u32;
    /// A sign by its entry in [`SIGN`].
    fn sign(&mut self, entry: u8) -> u32;
}

impl Symbols for Mq<'_> {
    #[inline(always)]
    fn symbol(&mut self, context: usize) -> u32 {
        self.decode(context)
    }

    #[inline(always)]
    fn sign(&mut self, entry: u8) -> u32 {
        self.decode(usize::from(entry & 31)) ^ u32::from(entry >> 7)
    }
}

impl Symbols for RawBits<'_> {
    #[inline(always)]
    fn symbol(&mut self, _: usize) -> u32 {
        self.bit()
    }

    #[inline(always)]
    fn sign(&mut self, _: u8) -> u32 {
        self.bit()
    }
}

struct Block<'a> {
    flags: &'a mut [u32],
    samples: &'a mut [u32],
    width: usize,
    height: usize,
    causal: bool,
    contexts: &'static [u8; 512],
}

/// One stripe: its flags, those of the stripes beside it, and its samples.
struct Stripe<'a> {
    above: &'a mut [u32],
    here: &'a mut [u32],
    below: &'a mut [u32],
    samples: &'a mut [u32],
    width: usize,
    causal: bool,
    contexts: &'static [u8; 512],
}

/// One coding pass. Its decoder is a field, not a reference, so that it can stay in registers through a stripe.
trait Pass {
    /// Column x, of which `rows` samples are in the block.
    #[inline(always)]
    fn column(&mut self, stripe: &mut Stripe, x: usize, rows: usize) {
        let mut flags = stripe.here[x + 1];
        let Some(first) = self.begin(stripe, &mut flags, x, rows) else { return };
        if first == 0 {
            self.sample::<0>(stripe, &mut flags, x);
        }
        if first <= 1 && rows > 1 {
            self.sample::<1>(stripe, &mut flags, x);
        }
        if first <= 2 && rows > 2 {
            self.sample::<2>(stripe, &mut flags, x);
        }
        if first <= 3 && rows > 3 {
            self.sample::<3>(stripe, &mut flags, x);
        }
        stripe.here[x + 1] = self.end(flags);
    }

    /// The first sample of a column that is not decided yet, or none.
    fn begin(&mut self, stripe: &mut Stripe, flags: &mut u32, x: usize, rows: usize) -> Option<usize>;

    /// Sample K of the column: known in advance, so that shifts are constants.
    fn sample<const K: usize>(&mut self, stripe: &mut Stripe, flags: &mut u32, x: usize);

    fn end(&self, flags: u32) -> u32 {
        flags
    }
}

/// Significance propagation (T.800 D.3.1).
struct Significance<S> {
    symbols: S,
    plane: u32,
}

/// Magnitude refinement (T.800 D.3.3).
struct Refinement<S> {
    symbols: S,
    plane: u32,
}

/// Cleanup (T.800 D.3.4).
struct Cleanup<'a> {
    symbols: Mq<'a>,
    plane: u32,
}

impl Block<'_> {
    /// Goes through all columns in the order of the scan (T.800 D.1).
    #[inline(always)]
    fn scan<P: Pass>(&mut self, mut pass: P) -> P {
        let stride = self.width + 2;
        for (s, samples) in self.samples.chunks_mut(4 * self.width).enumerate() {
            let rows = self.height - 4 * s;
            let (above, rest) = self.flags[s * stride..].split_at_mut(stride);
            let (here, rest) = rest.split_at_mut(stride);
            let below = &mut rest[..stride];
            let (width, causal, contexts) = (self.width, self.causal, self.contexts);
            let mut stripe = Stripe { above, here, below, samples, width, causal, contexts };
            // A number known in advance lets the loops over samples unroll.
            if rows >= 4 {
                (0..width).for_each(|x| pass.column(&mut stripe, x, 4));
            } else {
                (0..width).for_each(|x| pass.column(&mut stripe, x, rows));
            }
        }
        pass
    }

    #[inline(never)]
    fn significance<S: Symbols>(&mut self, symbols: S, plane: u32) -> S {
        self.scan(Significance { symbols, plane }).symbols
    }

    #[inline(never)]
    fn refinement<S: Symbols>(&mut self, symbols: S, plane: u32) -> S {
        self.scan(Refinement { symbols, plane }).symbols
    }

    #[inline(never)]
    fn cleanup<'a>(&mut self, symbols: Mq<'a>, plane: u32) -> Mq<'a> {
        self.scan(Cleanup { symbols, plane }).symbols
    }
}

impl<S: Symbols> Pass for Significance<S> {
    #[inline(always)]
    fn begin(&mut self, _: &mut Stripe, flags: &mut u32, _: usize, _: usize) -> Option<usize> {
        (*flags != 0).then_some(0)
    }

    #[inline(always)]
    fn sample<const K: usize>(&mut self, stripe: &mut Stripe, flags: &mut u32, x: usize) {
        if *flags & (SIGNIFICANT | SEEN) << (3 * K) == 0 && *flags & NEIGHBOURS << (3 * K) != 0 {
            if self.symbols.symbol(stripe.context(*flags, K)) == 1 {
                stripe.discover(&mut self.symbols, flags, x, K, self.plane);
            }
            *flags |= SEEN << (3 * K);
        }
    }
}

impl<S: Symbols> Pass for Refinement<S> {
    #[inline(always)]
    fn begin(&mut self, _: &mut Stripe, flags: &mut u32, _: usize, _: usize) -> Option<usize> {
        (*flags & ALL_SIGNIFICANT != 0).then_some(0)
    }

    #[inline(always)]
    fn sample<const K: usize>(&mut self, stripe: &mut Stripe, flags: &mut u32, x: usize) {
        if *flags & (SIGNIFICANT | SEEN) << (3 * K) == SIGNIFICANT << (3 * K) {
            let context = if *flags & REFINED << (3 * K) != 0 {
                REFINEMENTS + 2
            } else {
                REFINEMENTS + usize::from(*flags & NEIGHBOURS << (3 * K) != 0)
            };
            let bit = self.symbols.symbol(context);
            let sample = &mut stripe.samples[K * stripe.width + x];
            *sample = (*sample ^ (bit ^ 1) << self.plane) | 1 << (self.plane - 1);
            *flags |= REFINED << (3 * K);
        }
    }
}

impl Pass for Cleanup<'_> {
    #[inline(always)]
    fn begin(&mut self, stripe: &mut Stripe, flags: &mut u32, x: usize, rows: usize) -> Option<usize> {
        if *flags != 0 || rows < 4 {
            return Some(0);
        }
        if self.symbols.decode(RUN_LENGTH) == 0 {
            return None;
        }
        let first = (self.symbols.decode(UNIFORM) << 1 | self.symbols.decode(UNIFORM)) as usize;
        stripe.discover(&mut self.symbols, flags, x, first, self.plane);
        Some(first + 1)
    }

    #[inline(always)]
    fn sample<const K: usize>(&mut self, stripe: &mut Stripe, flags: &mut u32, x: usize) {
        if *flags & (SIGNIFICANT | SEEN) << (3 * K) == 0
            && self.symbols.decode(stripe.context(*flags, K)) == 1
        {
            stripe.discover(&mut self.symbols, flags, x, K, self.plane);
        }
    }

    #[inline(always)]
    fn end(&self, flags: u32) -> u32 {
        flags & !ALL_SEEN
    }
}

impl Stripe<'_> {
    /// Context of sample k's significance.
    #[inline(always)]
    fn context(&self, flags: u32, k: usize) -> usize {
        self.contexts[(flags >> (3 * k)) as usize & 511].into()
    }

    /// Sample k of column x has become significant in `plane`: reads its sign, and tells its neighbours.
    #[inline(always)]
    fn discover(&mut self, symbols: &mut impl Symbols, flags: &mut u32, x: usize, k: usize, plane: u32) {
        let sign_above = if k == 0 { *flags >> 18 } else { *flags >> (16 + 3 * k) };
        let around = (*flags >> (3 * k) & 0xAA)
            | (sign_above & 1)
            | (self.here[x] >> (19 + 3 * k) & 1) << 2
            | (self.here[x + 2] >> (19 + 3 * k) & 1) << 4
            | (*flags >> (22 + 3 * k) & 1) << 6;
        let sign = symbols.sign(SIGN[around as usize & 255]);
        self.samples[k * self.width + x] = sign << 31 | 3 << (plane - 1);
        self.here[x] |= 1 << (5 + 3 * k);
        self.here[x + 2] |= 1 << (3 + 3 * k);
        *flags |= SIGNIFICANT << (3 * k) | sign << (19 + 3 * k);
        if k == 0 && !self.causal {
            self.above[x] |= 1 << 17;
            self.above[x + 1] |= 1 << 16 | sign << 31;
            self.above[x + 2] |= 1 << 15;
        }
        if k == 3 {
            self.below[x] |= 1 << 2;
            self.below[x + 1] |= 1 << 1 | sign << 18;
            self.below[x + 2] |= 1;
        }
    }
}
