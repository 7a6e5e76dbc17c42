//! One scan of JPEG-LS: contexts, prediction, Golomb codes and runs (T.87 annex A).

use super::Presets;
use super::bits::Bits;

/// Regular contexts, of which the first stands for runs and is not used (T.87 A.3.4).
const CONTEXTS: usize = 365;

/// Orders of the run lengths (T.87 A.2.1, table A.8): a run segment holds 2^J samples.
const J: [u8; 32] =
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// How components share a scan (T.87 B.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interleave {
    /// One component.
    None,
    /// A line of each component in turn.
    Line,
    /// A sample of each component in turn.
    Sample,
}

/// Parameters that hold for the whole scan (T.87 A.2.1 and C.2.4.1.1).
pub(super) struct Coding {
    max_value: i32,
    near: i32,
    /// Distance of two reconstructed errors: 2 NEAR + 1.
    step: i32,
    /// Number of different errors, RANGE.
    range: i32,
    /// Bits of an error in an escaped code, qbpp.
    error_bits: u32,
    /// Longest Golomb code, LIMIT.
    limit: u32,
    reset: i32,
    /// Quantised gradient (T.87 A.3.3), from -`max_value` on.
    quantised: Vec<i8>,
}

impl Coding {
    pub(super) fn new(bits: u32, near: i32, presets: &Presets) -> Result<Self, String> {
        let full = (1i32 << bits) - 1;
        let max_value = if presets.max_value == 0 { full } else { presets.max_value };
        if max_value > full || near > max_value / 2 {
            return Err(format!("greatest value {max_value} and NEAR {near} with {bits} bits"));
        }
        let [t1, t2, t3] = thresholds(max_value, near, presets)?;
        let reset = if presets.reset == 0 { 64 } else { presets.reset };
        if !(3..=max_value.max(255)).contains(&reset) {
            return Err(format!("RESET of {reset}"));
        }
        let step = 2 * near + 1;
        let range = (max_value + 2 * near) / step + 1;
        let bits_of = |count: i32| 32 - (count - 1).leading_zeros();
        let sample_bits = bits_of(max_value + 1).max(2);
        let quantised = (-max_value..=max_value)
            .map(|d| {
                let level = match d.abs() {
                    size if size <= near => 0,
                    size if size < t1 => 1,
                    size if size < t2 => 2,
                    size if size < t3 => 3,
                    _ => 4,
                };
                if d < 0 { -level } else { level }
            })
            .collect();
        Ok(Self {
            max_value,
            near,
            step,
            range,
            error_bits: bits_of(range),
            limit: 2 * (sample_bits + sample_bits.max(8)),
            reset,
            quantised,
        })
    }

    #[inline]
    fn quantise(&self, gradient: i32) -> i32 {
        i32::from(self.quantised[(gradient + self.max_value) as usize])
    }

    /// The sample from its prediction and error (T.87 A.4.5).
    #[inline]
    fn reconstruct(&self, prediction: i32, error: i32) -> u16 {
        let mut value = prediction + error * self.step;
        if value < -self.near {
            value += self.range * self.step;
        } else if value > self.max_value + self.near {
            value -= self.range * self.step;
        }
        value.clamp(0, self.max_value) as u16
    }
}

/// T1, T2 and T3 of the stream, or their defaults (T.87 C.2.4.1.1.1).
fn thresholds(max_value: i32, near: i32, presets: &Presets) -> Result<[i32; 3], String> {
    let bounded = |value: i32, least: i32| if (least..=max_value).contains(&value) { value } else { least };
    let basic = if max_value >= 128 {
        let factor = (max_value.min(4095) + 128) / 256;
        [factor + 2 + 3 * near, 4 * factor + 3 + 5 * near, 17 * factor + 4 + 7 * near]
    } else {
        let factor = 256 / (max_value + 1);
        [(3 / factor + 3 * near).max(2), (7 / factor + 5 * near).max(3), (21 / factor + 7 * near).max(4)]
    };
    let mut least = near + 1;
    let mut out = [0; 3];
    for (i, value) in out.iter_mut().enumerate() {
        *value = match presets.thresholds[i] {
            0 => bounded(basic[i], least),
            given if (least..=max_value).contains(&given) => given,
            given => return Err(format!("threshold T{} of {given}", i + 1)),
        };
        least = *value;
    }
    Ok(out)
}

/// Statistics of a regular context (T.87 A.2.1).
#[derive(Clone, Copy)]
struct Context {
    /// Sum of error sizes: at most RESET of them, 65535 each.
    a: u32,
    /// Bias.
    b: i32,
    /// Correction of the prediction.
    c: i32,
    /// Occurrences.
    n: i32,
}

/// Statistics of a run interruption context.
#[derive(Clone, Copy)]
struct RunContext {
    a: u32,
    n: i32,
    negative: i32,
}

/// A scan, ready to be decoded.
pub(super) struct Scan {
    pub(super) coding: Coding,
    pub(super) interleave: Interleave,
    /// Lines between restart markers; 0 without them.
    pub(super) restart_interval: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Scan {
    /// Decodes into `values`, whose pixels hold `stride` samples, of which the scan fills those at `places`.
    /// Returns the bytes of `data` that were used.
    pub(super) fn decode(
        &self,
        data: &[u8],
        places: &[usize],
        stride: usize,
        values: &mut [u16],
    ) -> Result<usize, String> {
        let mut state = State::new(&self.coding, data);
        // Two lines a component, with a sample more on the left and on the right (T.87 A.2.1, figure A.4).
        let row = self.width + 2;
        let mut previous = vec![0u16; row * places.len()];
        let mut current = previous.clone();
        let mut run_index = [0usize; 3];
        for y in 0..self.height {
            if self.restart_interval > 0 && y > 0 && y.is_multiple_of(self.restart_interval) {
                state.restart()?;
                previous.fill(0);
                current.fill(0);
                run_index = [0; 3];
            }
            for (above, line) in previous.chunks_exact_mut(row).zip(current.chunks_exact_mut(row)) {
                above[row - 1] = above[row - 2];
                line[0] = above[1];
            }
            match self.interleave {
                Interleave::Sample => state.pixels(&previous, &mut current, row, &mut run_index[0])?,
                Interleave::None | Interleave::Line => {
                    let lines = previous.chunks_exact(row).zip(current.chunks_exact_mut(row));
                    for ((above, line), run_index) in lines.zip(&mut run_index) {
                        state.line(above, line, run_index)?;
                    }
                }
            }
            let pixels = &mut values[y * self.width * stride..][..self.width * stride];
            for (line, &place) in current.chunks_exact(row).zip(places) {
                for (pixel, &value) in pixels.iter_mut().skip(place).step_by(stride).zip(&line[1..]) {
                    *pixel = value;
                }
            }
            std::mem::swap(&mut previous, &mut current);
        }
        Ok(state.bits.end())
    }
}

/// What changes from sample to sample.
struct State<'a> {
    coding: &'a Coding,
    bits: Bits<'a>,
    regular: Vec<Context>,
    /// After runs that end between different samples, and between (nearly) equal ones.
    runs: [RunContext; 2],
}

/// What lies around a sample: left, above, above left, above right.
#[derive(Clone, Copy)]
struct Around {
    a: i32,
    b: i32,
    c: i32,
    d: i32,
}

impl Around {
    #[inline]
    fn at(above: &[u16], line: &[u16], x: usize) -> Self {
        Self {
            a: i32::from(line[x - 1]),
            b: i32::from(above[x]),
            c: i32::from(above[x - 1]),
            d: i32::from(above[x + 1]),
        }
    }
}

impl<'a> State<'a> {
    fn new(coding: &'a Coding, data: &'a [u8]) -> Self {
        let mut state = Self {
            coding,
            bits: Bits::new(data),
            regular: Vec::new(),
            runs: [RunContext { a: 0, n: 1, negative: 0 }; 2],
        };
        state.reset();
        state
    }

    /// Initial statistics, T.87 A.2.1.
    fn reset(&mut self) {
        let a = ((self.coding.range + 32) / 64).max(2).unsigned_abs();
        self.regular.clear();
        self.regular.resize(CONTEXTS, Context { a, b: 0, c: 0, n: 1 });
        self.runs = [RunContext { a, n: 1, negative: 0 }; 2];
    }

    fn restart(&mut self) -> Result<(), String> {
        self.bits.restart()?;
        self.reset();
        Ok(())
    }

    /// One line of one component. Sample `x` is at `x + 1` of the slices.
    fn line(&mut self, above: &[u16], line: &mut [u16], run_index: &mut usize) -> Result<(), String> {
        let end = line.len() - 1;
        let mut x = 1;
        while x < end {
            let around = Around::at(above, line, x);
            let context = self.context(around);
            if context != 0 {
                line[x] = self.regular(around, context)?;
                x += 1;
                continue;
            }
            let length = self.run_length(end - x, run_index)?;
            let value = line[x - 1];
            line[x..x + length].fill(value);
            x += length;
            if x < end {
                let Around { a, b, .. } = Around::at(above, line, x);
                let near = (a - b).abs() <= self.coding.near;
                line[x] = self.interruption(a, b, near, *run_index)?;
                *run_index = run_index.saturating_sub(1);
                x += 1;
            }
        }
        Ok(())
    }

    /// One line of pixels whose samples lie together in the stream. The line of each component has `row` samples.
    fn pixels(
        &mut self,
        above: &[u16],
        lines: &mut [u16],
        row: usize,
        run_index: &mut usize,
    ) -> Result<(), String> {
        let components = lines.len() / row;
        let end = row - 1;
        let mut x = 1;
        while x < end {
            let mut around = [Around { a: 0, b: 0, c: 0, d: 0 }; 3];
            let mut contexts = [0; 3];
            for i in 0..components {
                around[i] = Around::at(&above[i * row..], &lines[i * row..], x);
                contexts[i] = self.context(around[i]);
            }
            if contexts.iter().any(|&context| context != 0) {
                for i in 0..components {
                    lines[i * row + x] = self.regular(around[i], contexts[i])?;
                }
                x += 1;
                continue;
            }
            let length = self.run_length(end - x, run_index)?;
            for line in lines.chunks_exact_mut(row) {
                let value = line[x - 1];
                line[x..x + length].fill(value);
            }
            x += length;
            if x < end {
                for i in 0..components {
                    let (a, b) = (i32::from(lines[i * row + x - 1]), i32::from(above[i * row + x]));
                    lines[i * row + x] = self.interruption(a, b, false, *run_index)?;
                }
                *run_index = run_index.saturating_sub(1);
                x += 1;
            }
        }
        Ok(())
    }

    /// Signed number of the context (T.87 A.3.4): 0 for a run, negative when all signs are turned.
    #[inline]
    fn context(&self, around: Around) -> i32 {
        let Around { a, b, c, d } = around;
        let quantise = |gradient| self.coding.quantise(gradient);
        81 * quantise(d - b) + 9 * quantise(b - c) + quantise(c - a)
    }

    /// A sample in regular mode (T.87 A.4 to A.6).
    #[inline]
    fn regular(&mut self, around: Around, context: i32) -> Result<u16, String> {
        let coding = self.coding;
        let Around { a, b, c, .. } = around;
        let sign = if context < 0 { -1 } else { 1 };
        let context = &mut self.regular[context.unsigned_abs() as usize];
        let median = if c >= a.max(b) {
            a.min(b)
        } else if c <= a.min(b) {
            a.max(b)
        } else {
            a + b - c
        };
        let prediction = (median + sign * context.c).clamp(0, coding.max_value);
        let k = golomb_order(context.a, context.n)?;
        let mapped = golomb(&mut self.bits, k, coding.limit, coding.error_bits)?;
        let mut error = if mapped & 1 == 0 { mapped >> 1 } else { -((mapped + 1) >> 1) };
        if k == 0 && coding.near == 0 && 2 * context.b <= -context.n {
            error = -error - 1;
        }
        check_error(error)?;
        context.b += error * coding.step;
        context.a += error.unsigned_abs();
        if context.n == coding.reset {
            context.a >>= 1;
            context.b >>= 1;
            context.n >>= 1;
        }
        context.n += 1;
        if context.b <= -context.n {
            context.b = (context.b + context.n).max(1 - context.n);
            context.c = (context.c - 1).max(-128);
        } else if context.b > 0 {
            context.b = (context.b - context.n).min(0);
            context.c = (context.c + 1).min(127);
        }
        Ok(coding.reconstruct(prediction, sign * error))
    }

    /// Length of a run of which at most `left` samples lie on the line (T.87 A.7.1).
    fn run_length(&mut self, left: usize, run_index: &mut usize) -> Result<usize, String> {
        let mut length = 0;
        while self.bits.take(1)? == 1 {
            let full = 1usize << J[*run_index];
            if full > left - length {
                return Ok(left);
            }
            length += full;
            *run_index = (*run_index + 1).min(31);
            if length == left {
                return Ok(left);
            }
        }
        length += self.bits.take(u32::from(J[*run_index]))? as usize;
        if length >= left {
            return Err("a run is longer than its line".into());
        }
        Ok(length)
    }

    /// The sample that ends a run (T.87 A.7.2).
    fn interruption(&mut self, a: i32, b: i32, near: bool, run_index: usize) -> Result<u16, String> {
        let coding = self.coding;
        let kind = i32::from(near);
        let context = &mut self.runs[usize::from(near)];
        let (prediction, sign) = match (near, a > b) {
            (true, _) => (a, 1),
            (false, true) => (b, -1),
            (false, false) => (b, 1),
        };
        let k = golomb_order(context.a + (kind * (context.n >> 1)).unsigned_abs(), context.n)?;
        let limit = coding.limit - u32::from(J[run_index]) - 1;
        let mapped = golomb(&mut self.bits, k, limit, coding.error_bits)?;
        let odd = (mapped + kind) & 1;
        let size = (mapped + kind + odd) >> 1;
        let turned = k != 0 || 2 * context.negative >= context.n;
        let error = if turned == (odd == 1) { -size } else { size };
        check_error(error)?;
        context.negative += i32::from(error < 0);
        context.a += ((mapped + 1 - kind) >> 1).unsigned_abs();
        if context.n == coding.reset {
            context.a >>= 1;
            context.n >>= 1;
            context.negative >>= 1;
        }
        context.n += 1;
        Ok(coding.reconstruct(prediction, sign * error))
    }
}

/// Order k of the Golomb code: the least with N · 2^k >= A (T.87 A.5.1).
#[inline]
fn golomb_order(a: u32, n: i32) -> Result<u32, String> {
    let mut k = 0;
    while (i64::from(n) << k) < i64::from(a) {
        k += 1;
    }
    if k > 16 { Err("errors grow beyond all samples".into()) } else { Ok(k) }
}

/// A value in the length-limited Golomb code of order `k` (T.87 A.5.3).
#[inline]
fn golomb(bits: &mut Bits<'_>, k: u32, limit: u32, error_bits: u32) -> Result<i32, String> {
    // LIMIT exceeds the other two by one at least, whatever the run order takes from it.
    let escape = limit.saturating_sub(error_bits + 1);
    let zeros = bits.zeros(escape)?;
    let value = if zeros < escape { (zeros << k) + bits.take(k)? } else { bits.take(error_bits)? + 1 };
    Ok(value as i32)
}

/// An error may be as large as a sample of 16 bits, which keeps all sums far from overflow.
#[inline]
fn check_error(error: i32) -> Result<(), String> {
    if error.abs() > 65_535 { Err("an error larger than any sample".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_thresholds_are_those_of_the_standard() {
        for (bits, near, expected) in [(8, 0, [3, 7, 21]), (8, 3, [12, 22, 42]), (12, 0, [18, 67, 276])] {
            let max_value = (1 << bits) - 1;
            assert_eq!(thresholds(max_value, near, &Presets::default()), Ok(expected), "{bits} {near}");
            let coding = Coding::new(bits, near, &Presets::default()).unwrap();
            let levels = expected.map(|t| (coding.quantise(t - 1), coding.quantise(t), coding.quantise(-t)));
            assert_eq!(levels, [(1, 2, -2), (2, 3, -3), (3, 4, -4)]);
        }
    }
}
