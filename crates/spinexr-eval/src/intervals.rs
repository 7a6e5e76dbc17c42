//! 95 % intervals: DeLong for AUROC, Wilson for proportions, the bootstrap for anything.
//!
//! - DeLong, DeLong & Clarke-Pearson, Biometrics 1988;44:837–845, in the fast form of Sun & Xu, IEEE SPL
//!   2014;21:1389–1393.
//! - Wilson, JASA 1927;22:209–212, without continuity correction.
//! - The bootstrap of the paper draws films: 10,000 resamples, threshold fixed, mean and the 2.5 and 97.5 %
//!   order statistics. Films of one study are not independent; drawing studies respects that.

use crate::LabelledScores;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The 97.5 % quantile of the normal distribution.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// A 95 % interval as `[low, high]`.
pub type Interval = [f64; 2];

/// The interval of `k` of `n`; `None` for `n` = 0.
///
/// # Panics
/// When `k > n`.
pub fn wilson(k: usize, n: usize) -> Option<Interval> {
    assert!(k <= n, "{k} of {n}");
    if n == 0 {
        return None;
    }
    let (count, total, z2) = (k as f64, n as f64, Z_95 * Z_95);
    let p = count / total;
    let centre = p + z2 / (2.0 * total);
    let half = Z_95 * (p * (1.0 - p) / total + z2 / (4.0 * total * total)).sqrt();
    let scale = 1.0 + z2 / total;
    // At the ends the bound is exact, which rounding would miss.
    let low = if k == 0 { 0.0 } else { (centre - half) / scale };
    let high = if k == n { 1.0 } else { (centre + half) / scale };
    Some([low, high])
}

/// The 97.5 % quantile of Student's t with `degrees` ≥ 1 of freedom, from the finite series of its distribution (Abramowitz &
/// Stegun 26.7.3 and 26.7.4).
pub fn student_t_975(degrees: usize) -> f64 {
    // P(|T| < t).
    let within = |t: f64| {
        let theta = (t / (degrees as f64).sqrt()).atan();
        let (sine, cosine) = theta.sin_cos();
        let odd = degrees % 2 == 1;
        let (mut term, mut power, mut sum) = (1.0, if odd { cosine } else { 1.0 }, 0.0);
        let mut step = if odd { 1 } else { 0 };
        while step + 2 <= degrees {
            sum += term * power;
            let (above, below) = (step + 1, step + 2);
            term *= above as f64 / below as f64;
            power *= cosine * cosine;
            step += 2;
        }
        if odd { std::f64::consts::FRAC_2_PI * (theta + sine * sum) } else { sine * sum }
    };
    let (mut low, mut high) = (1.9, 13.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if within(middle) < 0.95 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// AUROC with its DeLong variance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeLong {
    /// Area under the ROC curve.
    pub auroc: f64,
    /// Variance of it.
    pub variance: f64,
    /// 95 % interval, clipped to `[0, 1]`.
    pub interval: Interval,
}

/// The DeLong interval; `None` with fewer than two films of either class.
pub fn delong(data: &LabelledScores) -> Option<DeLong> {
    let (m, n) = (data.positives(), data.negatives());
    if m < 2 || n < 2 {
        return None;
    }
    let (mf, nf) = (m as f64, n as f64);
    // Films of one score share one structural component, so a step carries it with a weight.
    let (mut tp, mut fp) = (0usize, 0usize);
    let mut components: Vec<(f64, f64, f64, f64)> = Vec::new(); // positives, v10, negatives, v01
    for step in data.steps() {
        let (new_tp, new_fp) = ((step.tp - tp) as f64, (step.fp - fp) as f64);
        let negatives_below = (n - step.fp) as f64;
        let positives_above = tp as f64;
        let v10 = (negatives_below + 0.5 * new_fp) / nf;
        let v01 = (positives_above + 0.5 * new_tp) / mf;
        components.push((new_tp, v10, new_fp, v01));
        (tp, fp) = (step.tp, step.fp);
    }
    let auroc = crate::roc::auroc(data)?;
    let (mut s10, mut s01) = (0.0, 0.0);
    for &(positives, v10, negatives, v01) in &components {
        s10 += positives * (v10 - auroc) * (v10 - auroc);
        s01 += negatives * (v01 - auroc) * (v01 - auroc);
    }
    let variance = s10 / (mf - 1.0) / mf + s01 / (nf - 1.0) / nf;
    let half = Z_95 * variance.sqrt();
    Some(DeLong { auroc, variance, interval: [(auroc - half).max(0.0), (auroc + half).min(1.0)] })
}

/// What a bootstrap draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Films, as the paper does.
    Film,
    /// Studies with all their films.
    Study,
}

/// How a bootstrap is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapOptions {
    /// Number of resamples.
    pub resamples: usize,
    /// Resample `i` is drawn from stream `i` of this seed, whatever thread draws it.
    pub seed: u64,
}

impl BootstrapOptions {
    /// The paper's 10,000 resamples.
    pub const fn paper(seed: u64) -> Self {
        Self { resamples: 10_000, seed }
    }
}

/// What the resamples say of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrapped {
    /// Mean over the resamples.
    pub mean: f64,
    /// The 2.5 and 97.5 % order statistics.
    pub interval: Interval,
    /// Resamples in which the metric was not defined; they are left out.
    pub undefined: usize,
}

/// The bootstrap of the film-level metrics; `None` where a metric was defined in no resample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BinaryBootstrap {
    /// Area under the ROC curve.
    pub auroc: Option<Bootstrapped>,
    /// F1 at the fixed threshold.
    pub f1: Option<Bootstrapped>,
    /// Sensitivity at the fixed threshold.
    pub sensitivity: Option<Bootstrapped>,
    /// Specificity at the fixed threshold.
    pub specificity: Option<Bootstrapped>,
}

/// Draws `options.resamples` times as many units as there are, with replacement, and evaluates each
/// resample at the fixed `threshold` (without one, AUROC only).
///
/// The scores are sorted once; a resample is a count for each film, so it costs one pass.
pub fn bootstrap(
    data: &LabelledScores,
    threshold: Option<f64>,
    unit: Unit,
    options: &BootstrapOptions,
) -> BinaryBootstrap {
    let samples = resampled(data, threshold, unit, options);
    let of = |metric: usize| summarise(samples.iter().map(|s| s[metric]));
    BinaryBootstrap { auroc: of(0), f1: of(1), sensitivity: of(2), specificity: of(3) }
}

/// AUROC of each resample of studies, NaN where not defined. Resample `i` draws the same studies for every model of the same
/// films, so differences between models are paired.
pub fn resampled_auroc(data: &LabelledScores, options: &BootstrapOptions) -> Vec<f64> {
    resampled(data, None, Unit::Study, options).into_iter().map(|sample| sample[0]).collect()
}

/// AUROC, F1, sensitivity and specificity of each resample; none without a film.
fn resampled(
    data: &LabelledScores,
    threshold: Option<f64>,
    unit: Unit,
    options: &BootstrapOptions,
) -> Vec<[f64; 4]> {
    if data.is_empty() {
        return Vec::new();
    }
    let units = match unit {
        Unit::Film => data.len(),
        Unit::Study => data.studies(),
    };
    let scores = data.scores();
    let films: Vec<ResampledFilm> = (0..data.len())
        .map(|i| ResampledFilm {
            unit: if unit == Unit::Film { i as u32 } else { data.study()[i] },
            positive: data.positive()[i],
            last_of_tie: scores.get(i + 1) != Some(&scores[i]),
        })
        .collect();
    let called = threshold.map(|c| scores.partition_point(|&s| s >= c));

    (0..options.resamples)
        .into_par_iter()
        .map_init(
            || vec![0u32; units],
            |counts, resample| {
                counts.fill(0);
                resample_units(counts, &mut Stream::new(options.seed, resample as u64));
                evaluate(&films, counts, called)
            },
        )
        .collect()
}

struct ResampledFilm {
    unit: u32,
    positive: bool,
    last_of_tie: bool,
}

/// SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): a generator of eight bytes that is fast enough for tens
/// of millions of draws and whose numbers no change of a library alters.
pub(crate) struct Stream(u64);

impl Stream {
    /// Stream `index` of a seed. The start is mixed twice, so that streams of near seeds share no stretch.
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        let mut of_seed = Self(seed);
        let mut of_index = Self(of_seed.next() ^ index.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self(of_index.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Adds as many draws to `counts` as it has entries, each entry equally likely (Lemire, ACM TOMACS
/// 2019;29:3), two draws from each 64 random bits.
pub(crate) fn resample_units(counts: &mut [u32], stream: &mut Stream) {
    let bound = counts.len() as u32;
    let reject_below = bound.wrapping_neg() % bound;
    let mut left = counts.len();
    while left > 0 {
        let bits = stream.next();
        for half in [bits as u32, (bits >> 32) as u32] {
            let product = u64::from(half) * u64::from(bound);
            if product as u32 >= reject_below && left > 0 {
                counts[(product >> 32) as usize] += 1;
                left -= 1;
            }
        }
    }
}

/// AUROC, F1, sensitivity and specificity of one resample; NaN where not defined.
fn evaluate(films: &[ResampledFilm], counts: &[u32], called: Option<usize>) -> [f64; 4] {
    // The threshold lies between two ties, so the films above it are a run of whole ties.
    let (above, below) = films.split_at(called.unwrap_or(0));
    let mut sums = PairSums::default();
    sums.add(above, counts);
    let (true_positives, false_positives) = (sums.tp, sums.fp);
    sums.add(below, counts);
    let PairSums { tp, fp, twice_pairs } = sums;
    // 0 / 0 is NaN, which is what "not defined" is until the summary.
    let auroc = twice_pairs as f64 / (2 * tp * fp) as f64;
    if called.is_none() {
        return [auroc, f64::NAN, f64::NAN, f64::NAN];
    }
    let f1 = (2 * true_positives) as f64 / (true_positives + false_positives + tp) as f64;
    let sensitivity = true_positives as f64 / tp as f64;
    let specificity = (fp - false_positives) as f64 / fp as f64;
    [auroc, f1, sensitivity, specificity]
}

/// Films passed so far, and twice the pairs in the right order among them.
#[derive(Default)]
struct PairSums {
    tp: u64,
    fp: u64,
    twice_pairs: u64,
}

impl PairSums {
    /// Passes films, best score first, that end with the last of a tie.
    fn add(&mut self, films: &[ResampledFilm], counts: &[u32]) {
        let (mut tie_tp, mut tie_fp) = (0u64, 0u64);
        for film in films {
            let weight = u64::from(counts[film.unit as usize]);
            let positive = weight * u64::from(film.positive);
            tie_tp += positive;
            tie_fp += weight - positive;
            if film.last_of_tie {
                self.twice_pairs += tie_fp * (2 * self.tp + tie_tp);
                self.tp += tie_tp;
                self.fp += tie_fp;
                (tie_tp, tie_fp) = (0, 0);
            }
        }
    }
}

/// Mean and order statistics of the defined values; `None` where none is.
pub(crate) fn summarise(values: impl Iterator<Item = f64>) -> Option<Bootstrapped> {
    let (mut defined, mut undefined) = (Vec::new(), 0);
    for value in values {
        if value.is_nan() {
            undefined += 1;
        } else {
            defined.push(value);
        }
    }
    if defined.is_empty() {
        return None;
    }
    defined.sort_unstable_by(f64::total_cmp);
    let count = defined.len();
    let tail = (0.025 * count as f64) as usize;
    Some(Bootstrapped {
        mean: defined.iter().sum::<f64>() / count as f64,
        interval: [defined[tail], defined[count - 1 - tail]],
        undefined,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{binary::Confusion, roc};

    /// 240 films, three to a study, that overlap.
    fn films() -> Vec<(bool, f64, String)> {
        (0..240u32)
            .map(|i| {
                let noise = f64::from(i.wrapping_mul(2_654_435_761) >> 24) / 256.0;
                let positive = i % 5 < 2;
                (positive, 0.6 * noise + if positive { 0.3 } else { 0.0 }, format!("s{}", i / 3))
            })
            .collect()
    }

    fn data(films: &[(bool, f64, String)]) -> LabelledScores {
        LabelledScores::with_studies(films.iter().map(|f| (f.0, f.1, f.2.as_str()))).unwrap()
    }

    #[test]
    fn the_bootstrap_surrounds_the_estimate() {
        let data = data(&films());
        let point = roc::auroc(&data).unwrap();
        let c = Confusion::at(&data, 0.4);
        for unit in [Unit::Film, Unit::Study] {
            let b = bootstrap(&data, Some(0.4), unit, &BootstrapOptions { resamples: 2000, seed: 1 });
            for (summary, value) in [
                (b.auroc, point),
                (b.f1, c.f1().unwrap()),
                (b.sensitivity, c.sensitivity().unwrap()),
                (b.specificity, c.specificity().unwrap()),
            ] {
                let summary = summary.unwrap();
                assert!((summary.mean - value).abs() < 0.01, "{summary:?} {value}");
                assert!(summary.interval[0] < value && value < summary.interval[1]);
                assert_eq!(summary.undefined, 0);
            }
        }
        let by_film = bootstrap(&data, None, Unit::Film, &BootstrapOptions::paper(3)).auroc.unwrap();
        let delong = delong(&data).unwrap();
        assert!((by_film.interval[0] - delong.interval[0]).abs() < 0.01);
        assert!((by_film.interval[1] - delong.interval[1]).abs() < 0.01);
    }

    #[test]
    fn neither_threads_nor_the_order_of_films_change_the_bootstrap() {
        let films = films();
        let mut reversed = films.clone();
        reversed.reverse();
        let options = BootstrapOptions { resamples: 500, seed: 9 };
        let run = |threads: usize, films: &[(bool, f64, String)], unit| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let data = data(films);
            pool.install(|| bootstrap(&data, Some(0.4), unit, &options))
        };
        for unit in [Unit::Film, Unit::Study] {
            let one = run(1, &films, unit);
            assert_eq!(one, run(3, &films, unit));
            assert_eq!(one, run(2, &reversed, unit));
        }
        let other_seed = BootstrapOptions { seed: 10, ..options };
        assert_ne!(run(1, &films, Unit::Film), bootstrap(&data(&films), Some(0.4), Unit::Film, &other_seed));
    }

    #[test]
    fn films_of_one_study_widen_the_interval() {
        // Every study is ten copies of one film.
        let films: Vec<_> =
            films().iter().step_by(3).flat_map(|f| std::iter::repeat_n(f.clone(), 10)).collect();
        let data = data(&films);
        let width = |unit| {
            let b = bootstrap(&data, None, unit, &BootstrapOptions { resamples: 2000, seed: 5 });
            let [low, high] = b.auroc.unwrap().interval;
            high - low
        };
        assert!(width(Unit::Study) > 2.0 * width(Unit::Film));
    }

    #[test]
    fn quantiles_of_student_equal_scipy() {
        // scipy.stats.t.ppf(0.975, degrees)
        for (degrees, expected) in [
            (1, 12.706204736174694),
            (2, 4.302652729749462),
            (3, 3.1824463052837078),
            (4, 2.7764451051977934),
            (9, 2.262157162798205),
            (30, 2.0422724563012378),
            (99, 1.9842169515864174),
        ] {
            let got = student_t_975(degrees);
            assert!((got - expected).abs() < 1e-9, "{degrees}: {got}, expected {expected}");
        }
    }

    #[test]
    fn every_unit_is_drawn_alike() {
        let mut counts = vec![0u32; 37];
        for resample in 0..20_000 {
            resample_units(&mut counts, &mut Stream::new(11, resample));
        }
        assert_eq!(counts.iter().sum::<u32>(), 37 * 20_000);
        // 20,000 draws each with a standard deviation of 140.
        assert!(counts.iter().all(|&c| c.abs_diff(20_000) < 700), "{counts:?}");
        // The published first outputs of SplitMix64 from state 0.
        let mut zero = Stream(0);
        assert_eq!([zero.next(), zero.next()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn one_resample_equals_the_plain_metrics() {
        let data = data(&films());
        let scores = data.scores();
        let films: Vec<_> = (0..data.len())
            .map(|i| ResampledFilm {
                unit: i as u32,
                positive: data.positive()[i],
                last_of_tie: scores.get(i + 1) != Some(&scores[i]),
            })
            .collect();
        let called = scores.partition_point(|&s| s >= 0.4);
        let got = evaluate(&films, &vec![1; films.len()], Some(called));
        let c = Confusion::at(&data, 0.4);
        let expected = [roc::auroc(&data), c.f1(), c.sensitivity(), c.specificity()].map(Option::unwrap);
        assert_eq!(got, expected);
    }

    #[test]
    fn resamples_of_one_class_are_left_out_and_counted() {
        let data = LabelledScores::new(&[true, false, false], &[0.9, 0.1, 0.2]).unwrap();
        let b = bootstrap(&data, Some(0.5), Unit::Film, &BootstrapOptions { resamples: 1000, seed: 0 });
        let auroc = b.auroc.unwrap();
        // (2/3)^3 + (1/3)^3 of the resamples hold one class only.
        assert!((250..420).contains(&auroc.undefined), "{}", auroc.undefined);
        assert_eq!(auroc.interval, [1.0, 1.0]);
        let none = LabelledScores::new(&[true], &[0.9]).unwrap();
        assert_eq!(bootstrap(&none, None, Unit::Film, &BootstrapOptions::paper(0)).auroc, None);
        assert_eq!(delong(&none), None);
        assert_eq!(wilson(0, 0), None);
    }
}
