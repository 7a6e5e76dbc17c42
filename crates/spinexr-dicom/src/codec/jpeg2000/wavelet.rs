//! The inverse wavelet transformations, 5/3 and 9/7 (ITU-T T.800 annex F).
//!
//! One level puts four bands together. It gives its rows one after the other and holds a few at a time: the rows of
//! low and of high frequency are put together across, then go through the lifting steps down. The standard extends
//! a signal by mirroring it before it lifts; here rows are mirrored by their numbers.

use super::header::Area;

/// One of the two transformations.
pub(super) trait Wavelet {
    type Sample: Copy + Default;
    /// Rows of lifting before the first that is given.
    const LEAD: i64;

    /// Puts a row of `low` and `high` samples together; `odd` says whether the first is a high one.
    fn across(line: &mut Line<Self::Sample>, odd: bool, out: &mut [Self::Sample]);

    /// A sample that is alone in its row or column (T.800 F.3.6).
    fn alone(sample: Self::Sample, high: bool) -> Self::Sample;

    /// The next step down, for low row n and high row n.
    fn down(rows: &mut Rows<Self::Sample>);
}

/// 5/3, exact in integers.
#[derive(Debug)]
pub(super) struct Reversible;

/// 9/7. The bands are scaled already (see [`band_gain`]).
#[derive(Debug)]
pub(super) struct Irreversible;

/// Low and high samples of a row, each with one more at both ends.
#[derive(Debug, Default)]
pub(super) struct Line<T> {
    low: Vec<T>,
    high: Vec<T>,
}

/// Rows on their way down.
#[derive(Debug, Default)]
pub(super) struct Rows<T> {
    /// What comes next, put together across.
    low: Vec<T>,
    high: Vec<T>,
    /// Lifted in part: the high row before, and for 9/7 the two behind it.
    high_before: Vec<T>,
    low_1: Vec<T>,
    high_1: Vec<T>,
    /// Done: an even row, the one before, and the odd one between.
    even: Vec<T>,
    even_before: Vec<T>,
    odd: Vec<T>,
}

/// The bands of a level; those without a coefficient are not there.
#[derive(Debug)]
pub(super) struct Bands<T> {
    pub low: Vec<T>,
    pub high_low: Option<Vec<T>>,
    pub low_high: Option<Vec<T>>,
    pub high_high: Option<Vec<T>>,
}

/// One level, as a source of rows.
#[derive(Debug)]
pub(super) struct Level<W: Wavelet> {
    area: Area,
    bands: Bands<W::Sample>,
    line: Line<W::Sample>,
    rows: Rows<W::Sample>,
    /// The number n of the next step, whose rows are 2 n - 1 and 2 n less twice the lead.
    step: i64,
    /// The next row.
    row: i64,
}

impl<W: Wavelet> Level<W> {
    /// The level whose result covers `area`.
    pub fn new(area: Area, bands: Bands<W::Sample>) -> Self {
        let row = || vec![W::Sample::default(); area.width()];
        let line = |length: usize| vec![W::Sample::default(); length + 2];
        let low = low_before(area.x1) - low_before(area.x0);
        let mut level = Self {
            area,
            bands,
            line: Line { low: line(low), high: line(area.width() - low) },
            rows: Rows {
                low: row(),
                high: row(),
                high_before: row(),
                low_1: row(),
                high_1: row(),
                even: row(),
                even_before: row(),
                odd: row(),
            },
            step: i64::from(area.y0) / 2 - W::LEAD,
            row: area.y0.into(),
        };
        if area.height() > 1 {
            level.high_row(level.step - 1);
            std::mem::swap(&mut level.rows.high, &mut level.rows.high_before);
        }
        level
    }

    /// The next row; there are as many as `area` has.
    pub fn next_row(&mut self) -> &[W::Sample] {
        let row = self.row;
        self.row += 1;
        if self.area.height() == 1 {
            return self.only_row();
        }
        // Row 2 n of a step comes behind row 2 n - 1.
        while row > 2 * (self.step - 1 - W::LEAD) {
            self.low_row(self.step);
            self.high_row(self.step);
            W::down(&mut self.rows);
            self.step += 1;
        }
        if row % 2 == 0 { &self.rows.even } else { &self.rows.odd }
    }

    fn only_row(&mut self) -> &[W::Sample] {
        let (n, high) = (i64::from(self.area.y0) / 2, self.area.y0 % 2 == 1);
        if high {
            self.high_row(n);
        } else {
            self.low_row(n);
        }
        let row = if high { &mut self.rows.high } else { &mut self.rows.low };
        row.iter_mut().for_each(|sample| *sample = W::alone(*sample, high));
        row
    }

    /// Low row n, or the one that mirroring finds in its place.
    fn low_row(&mut self, n: i64) {
        let n = (mirrored(2 * n, self.area) / 2) as usize - low_before(self.area.y0);
        let (low, high) = (self.line.low.len() - 2, self.line.high.len() - 2);
        self.line.low[1..=low].copy_from_slice(&self.bands.low[n * low..][..low]);
        fill(&mut self.line.high[1..=high], self.bands.high_low.as_deref(), n);
        put_together::<W>(&mut self.line, self.area, &mut self.rows.low);
    }

    fn high_row(&mut self, n: i64) {
        let n = (mirrored(2 * n + 1, self.area) / 2) as usize - (self.area.y0 / 2) as usize;
        if self.bands.low_high.is_none() && self.bands.high_high.is_none() {
            self.rows.high.fill(W::Sample::default());
            return;
        }
        let (low, high) = (self.line.low.len() - 2, self.line.high.len() - 2);
        fill(&mut self.line.low[1..=low], self.bands.low_high.as_deref(), n);
        fill(&mut self.line.high[1..=high], self.bands.high_high.as_deref(), n);
        put_together::<W>(&mut self.line, self.area, &mut self.rows.high);
    }
}

/// Even numbers below `end`.
fn low_before(end: u32) -> usize {
    end.div_ceil(2) as usize
}

/// Row `y` within the rows of `area`, which has two at least (T.800 equation F-4).
fn mirrored(y: i64, area: Area) -> i64 {
    let (first, last) = (i64::from(area.y0), i64::from(area.y1) - 1);
    let offset = (y - first).rem_euclid(2 * (last - first).max(1));
    first + offset.min(2 * (last - first) - offset)
}

/// Row n of a band, which may be without coefficients.
fn fill<T: Copy + Default>(line: &mut [T], band: Option<&[T]>, n: usize) {
    match band {
        Some(band) => line.copy_from_slice(&band[n * line.len()..][..line.len()]),
        None => line.fill(T::default()),
    }
}

fn put_together<W: Wavelet>(line: &mut Line<W::Sample>, area: Area, out: &mut [W::Sample]) {
    let odd = area.x0 % 2 == 1;
    match (out, odd) {
        ([one], false) => *one = W::alone(line.low[1], false),
        ([one], true) => *one = W::alone(line.high[1], true),
        (out, _) => W::across(line, odd, out),
    }
}

/// One lifting step along a line: adds to each `target` what `change` makes of the two `source` samples beside it.
/// Both have one more at each end; those of `target` are mirrored anew.
#[inline(always)]
fn lift<T: Copy>(target: &mut [T], source: &[T], shift: usize, change: impl Fn(T, T, T) -> T) {
    let length = target.len() - 2;
    let (before, after) = (&source[shift..shift + length], &source[shift + 1..shift + 1 + length]);
    for ((target, &before), &after) in target[1..=length].iter_mut().zip(before).zip(after) {
        *target = change(*target, before, after);
    }
    mirror_ends(target);
}

/// The neighbour beyond an end is the first or last of its own kind, whichever kind the end is.
fn mirror_ends<T: Copy>(line: &mut [T]) {
    let length = line.len() - 2;
    line[0] = line[1];
    line[length + 1] = line[length];
}

fn interleave<T: Copy>(first: &[T], second: &[T], out: &mut [T]) {
    let (pairs, rest) = out.as_chunks_mut::<2>();
    let last = first[pairs.len() + 1];
    for ((pair, &a), &b) in pairs.iter_mut().zip(&first[1..]).zip(&second[1..]) {
        *pair = [a, b];
    }
    rest.fill(last);
}

impl Wavelet for Reversible {
    type Sample = i32;
    const LEAD: i64 = 0;

    #[inline]
    fn across(line: &mut Line<i32>, odd: bool, out: &mut [i32]) {
        let Line { low, high } = line;
        mirror_ends(high);
        let shift = usize::from(odd);
        // T.800 equations F-5 and F-6. What no encoder makes may overflow.
        lift(low, high, shift, even_5_3);
        lift(high, low, 1 - shift, odd_5_3);
        if odd { interleave(high, low, out) } else { interleave(low, high, out) }
    }

    fn alone(sample: i32, high: bool) -> i32 {
        if high { sample / 2 } else { sample }
    }

    fn down(rows: &mut Rows<i32>) {
        std::mem::swap(&mut rows.even, &mut rows.even_before);
        let width = rows.low.len();
        let (low, high, high_before) = (&rows.low[..width], &rows.high[..width], &rows.high_before[..width]);
        let (even, odd) = (&mut rows.even[..width], &mut rows.odd[..width]);
        let even_before = &rows.even_before[..width];
        for i in 0..width {
            even[i] = even_5_3(low[i], high_before[i], high[i]);
            odd[i] = odd_5_3(high_before[i], even_before[i], even[i]);
        }
        std::mem::swap(&mut rows.high, &mut rows.high_before);
    }
}

#[inline(always)]
fn even_5_3(low: i32, before: i32, after: i32) -> i32 {
    low.wrapping_sub(before.wrapping_add(after).wrapping_add(2) >> 2)
}

#[inline(always)]
fn odd_5_3(high: i32, before: i32, after: i32) -> i32 {
    high.wrapping_add(before.wrapping_add(after) >> 1)
}

/// Lifting parameters of the 9/7 filter (T.800 table F.4).
const ALPHA: f32 = -1.586_134_3;
const BETA: f32 = -0.052_980_12;
const GAMMA: f32 = 0.882_911_1;
const DELTA: f32 = 0.443_506_85;
const K: f32 = 1.230_174_1;

/// What a band's coefficients are scaled by, so that the lifting of all levels needs no scaling: the highest level is
/// 1, `high` says in how many directions the band is high.
pub(super) fn band_gain(level: u32, high: i32) -> f32 {
    // Two low directions scale by K each, two high ones by its inverse, and each level in between by K twice.
    K.powi(2 * (level as i32 - 1) + 2 - 2 * high)
}

impl Wavelet for Irreversible {
    type Sample = f32;
    const LEAD: i64 = 1;

    #[inline]
    fn across(line: &mut Line<f32>, odd: bool, out: &mut [f32]) {
        let Line { low, high } = line;
        mirror_ends(high);
        let shift = usize::from(odd);
        // T.800 equation F-7 without its scaling.
        lift(low, high, shift, |x, a, b| x - DELTA * (a + b));
        lift(high, low, 1 - shift, |x, a, b| x - GAMMA * (a + b));
        lift(low, high, shift, |x, a, b| x - BETA * (a + b));
        lift(high, low, 1 - shift, |x, a, b| x - ALPHA * (a + b));
        if odd { interleave(high, low, out) } else { interleave(low, high, out) }
    }

    fn alone(sample: f32, high: bool) -> f32 {
        // Such a sample is not scaled by the filter: what `band_gain` did is taken back.
        if high { sample * (0.5 * K) } else { sample / K }
    }

    fn down(rows: &mut Rows<f32>) {
        std::mem::swap(&mut rows.even, &mut rows.even_before);
        let width = rows.low.len();
        let (low, high, high_before) = (&rows.low[..width], &rows.high[..width], &rows.high_before[..width]);
        let (low_1, high_1) = (&mut rows.low_1[..width], &mut rows.high_1[..width]);
        let (even, odd) = (&mut rows.even[..width], &mut rows.odd[..width]);
        let even_before = &rows.even_before[..width];
        for i in 0..width {
            let low_next = low[i] - DELTA * (high_before[i] + high[i]);
            let high_next = high_before[i] - GAMMA * (low_1[i] + low_next);
            even[i] = low_1[i] - BETA * (high_1[i] + high_next);
            odd[i] = high_1[i] - ALPHA * (even_before[i] + even[i]);
            low_1[i] = low_next;
            high_1[i] = high_next;
        }
        std::mem::swap(&mut rows.high, &mut rows.high_before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The procedures of the standard on a signal from `first` on (T.800 F.3.6 to F.3.8): mirror, then lift in turn.
    fn reference_line(signal: &[f64], first: i64, reversible: bool) -> Vec<f64> {
        let length = signal.len() as i64;
        if length == 1 {
            let half = if reversible { (signal[0] / 2.0).trunc() } else { signal[0] / 2.0 };
            return vec![if first % 2 == 0 { signal[0] } else { half }];
        }
        let margin = 6;
        let mut line: Vec<f64> = (-margin..length + margin)
            .map(|i| {
                let offset = i.rem_euclid(2 * (length - 1));
                signal[offset.min(2 * (length - 1) - offset) as usize]
            })
            .collect();
        let mut step = |parity: i64, by: &dyn Fn(f64, f64, f64) -> f64| {
            for i in 1..line.len() - 1 {
                if (first - margin + i as i64).rem_euclid(2) == parity {
                    line[i] = by(line[i], line[i - 1], line[i + 1]);
                }
            }
        };
        if reversible {
            step(0, &|x, a, b| x - ((a + b + 2.0) / 4.0).floor());
            step(1, &|x, a, b| x + ((a + b) / 2.0).floor());
        } else {
            let k = 1.230_174_104_914_001;
            step(0, &|x, _, _| x * k);
            step(1, &|x, _, _| x / k);
            step(0, &|x, a, b| x - 0.443_506_852_043_971 * (a + b));
            step(1, &|x, a, b| x - 0.882_911_075_530_934 * (a + b));
            step(0, &|x, a, b| x + 0.052_980_118_572_961 * (a + b));
            step(1, &|x, a, b| x + 1.586_134_342_059_924 * (a + b));
        }
        line[margin as usize..(margin + length) as usize].to_vec()
    }

    /// All rows of a level, of coefficients by place on the grid; and the reference.
    fn both<W: Wavelet>(
        area: Area,
        coefficients: &[f64],
        reversible: bool,
        sample: impl Fn(f64, i32) -> W::Sample,
    ) -> (Vec<W::Sample>, Vec<f64>) {
        let (width, height) = (area.width(), area.height());
        let band = |high_across: u32, high_down: u32| -> Vec<W::Sample> {
            let mut band = vec![];
            for y in 0..height {
                for x in 0..width {
                    let odd = ((area.x0 + x as u32) % 2, (area.y0 + y as u32) % 2);
                    if odd == (high_across, high_down) {
                        band.push(sample(coefficients[y * width + x], (high_across + high_down) as i32));
                    }
                }
            }
            band
        };
        let bands = Bands {
            low: band(0, 0),
            high_low: Some(band(1, 0)),
            low_high: Some(band(0, 1)),
            high_high: Some(band(1, 1)),
        };
        let mut level = Level::<W>::new(area, bands);
        let ours = (0..height).flat_map(|_| level.next_row().to_vec()).collect();
        let mut grid: Vec<Vec<f64>> =
            coefficients.chunks(width).map(|row| reference_line(row, area.x0.into(), reversible)).collect();
        for x in 0..width {
            let column: Vec<f64> = grid.iter().map(|row| row[x]).collect();
            for (row, value) in grid.iter_mut().zip(reference_line(&column, area.y0.into(), reversible)) {
                row[x] = value;
            }
        }
        (ours, grid.concat())
    }

    proptest! {
        #[test]
        fn levels_are_those_of_the_standard(
            (x0, y0, width, height) in (0u32..4, 0u32..4, 1u32..14, 1u32..14),
            seed in any::<u32>(),
        ) {
            let area = Area { x0, y0, x1: x0 + width, y1: y0 + height };
            let mut state = seed;
            let coefficients: Vec<f64> = (0..width * height)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    f64::from((state >> 20) as i32 - 2048)
                })
                .collect();
            let (ours, reference) = both::<Reversible>(area, &coefficients, true, |value, _| value as i32);
            prop_assert_eq!(ours.iter().map(|&value| f64::from(value)).collect::<Vec<_>>(), reference);
            let sample = |value: f64, high: i32| value as f32 * band_gain(1, high);
            let (ours, reference) = both::<Irreversible>(area, &coefficients, false, sample);
            for (ours, reference) in ours.iter().zip(reference) {
                prop_assert!((f64::from(*ours) - reference).abs() < 0.02, "{} for {}", ours, reference);
            }
        }

        #[test]
        fn a_band_that_is_not_there_is_zero((x0, y0, width, height) in (0u32..2, 0u32..2, 1u32..9, 1u32..9)) {
            let area = Area { x0, y0, x1: x0 + width, y1: y0 + height };
            let low = low_before(area.x1) - low_before(area.x0);
            let lows = low_before(area.y1) - low_before(area.y0);
            let samples: Vec<i32> = (0..(low * lows) as i32).map(|i| i * 37 % 101 - 50).collect();
            let zeros = |count: usize| Some(vec![0; count]);
            let (high, highs) = (area.width() - low, area.height() - lows);
            let mut sparse = Level::<Reversible>::new(
                area,
                Bands { low: samples.clone(), high_low: None, low_high: None, high_high: None },
            );
            let mut full = Level::<Reversible>::new(
                area,
                Bands {
                    low: samples,
                    high_low: zeros(high * lows),
                    low_high: zeros(low * highs),
                    high_high: zeros(high * highs),
                },
            );
            for _ in 0..height {
                prop_assert_eq!(sparse.next_row(), full.next_row());
            }
        }
    }
}
