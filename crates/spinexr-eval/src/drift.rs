//! A new batch of predictions beside a reference: do scores, boxes and headers still look as they did?
//!
//! No truth is needed, and none is judged: drift says that the films or the answers have changed, not that the answers are
//! wrong.
//!
//! - Population stability index: Σ (q − p) ln(q / p) over bins, ten of equal share in the reference; half a film is added to
//!   every bin, so that an empty one gives a finite figure. By custom, below 0.1 is little and from 0.25 on is much.
//! - Numbers: Kolmogorov and Smirnov's distance (reference: scipy `ks_2samp`). Codes: half the sum of the differences of
//!   shares, with the χ² statistic for its test.
//! - p: the studies of both are dealt out anew at random, many times; films of one study stay together, and ties do no harm.
//!   The same deals say how large the index becomes by chance alone, which in a small batch is far above 0.1.

use crate::compare::Correction;
use crate::intervals::Stream;
use crate::run::{RunReport, SHOWN_SCORE, facts};
use crate::threshold::Scorer;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use spinexr_core::FilmPrediction;
use std::collections::{BTreeMap, BTreeSet};

/// Bins of the index for numbers.
const BINS: usize = 10;
/// Index from which a shift is much, by custom.
pub const MUCH: f64 = 0.25;
/// Index below which a shift is little, by custom.
pub const LITTLE: f64 = 0.1;
/// Level of the corrected p.
const LEVEL: f64 = 0.05;
/// Studies below which a batch is called small.
const FEW_STUDIES: usize = 50;

/// How drift is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftOptions {
    /// Random deals of the studies.
    pub permutations: usize,
    /// Deal `i` is drawn from stream `i` of this seed.
    pub seed: u64,
    /// Correction of all p values together.
    pub correction: Correction,
}

impl Default for DriftOptions {
    fn default() -> Self {
        Self { permutations: 2000, seed: 0, correction: Correction::Holm }
    }
}

/// How many there are on one side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchCounts {
    /// Films.
    pub films: usize,
    /// Studies.
    pub studies: usize,
    /// Hashes of the bundles that made the records.
    pub bundles: Vec<String>,
}

impl BatchCounts {
    fn of(films: &[FilmPrediction]) -> Self {
        let studies: BTreeSet<&str> = films.iter().map(|f| f.study.as_str()).collect();
        let bundles: BTreeSet<&str> = films.iter().map(|f| f.model.as_str()).collect();
        Self {
            films: films.len(),
            studies: studies.len(),
            bundles: bundles.into_iter().map(str::to_owned).collect(),
        }
    }
}

/// How one side is distributed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Lower quartile, median and upper quartile.
    Quartiles([f64; 3]),
    /// Share of the films by code.
    Shares(BTreeMap<String, f64>),
}

/// One quantity on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftRow {
    /// What is compared.
    pub quantity: String,
    /// Films of the reference and of the batch that have it.
    pub films: [usize; 2],
    /// How the reference is distributed.
    pub reference: Distribution,
    /// How the batch is.
    pub batch: Distribution,
    /// Population stability index.
    pub psi: f64,
    /// What the index stays below in 95 % of random deals: the index of a batch like the reference.
    pub psi_by_chance: f64,
    /// Kolmogorov and Smirnov's distance of numbers, half the sum of the differences of shares of codes; `[0, 1]`.
    pub distance: f64,
    /// p of so large a difference by chance.
    pub p: f64,
    /// p corrected for the number of quantities.
    pub p_adjusted: f64,
    /// `p_adjusted` is below 0.05.
    pub differs: bool,
}

/// The comparison, as in `drift.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftReport {
    /// [`RunReport::NOTICE`].
    pub notice: String,
    /// The reference.
    pub reference: BatchCounts,
    /// The batch.
    pub batch: BatchCounts,
    /// One entry a quantity that both sides have.
    pub rows: Vec<DriftRow>,
    /// Quantities that only one side has, and so say nothing.
    pub not_compared: Vec<String>,
    /// How it was looked for.
    pub options: DriftOptions,
    /// What it comes to, in sentences.
    pub statement: Vec<String>,
}

/// Compares the records of a batch with those of a reference. Films without a quantity are left out of its row.
pub fn drift(reference: &[FilmPrediction], batch: &[FilmPrediction], options: &DriftOptions) -> DriftReport {
    let deals = Deals::of(reference, batch);
    let (numbers, codes) = (numbers(reference, batch), codes(reference.first().or(batch.first())));
    let mut rows = Vec::new();
    let mut not_compared = Vec::new();
    let mut take = |name: &str, row: Option<DriftRow>| match row {
        Some(row) => rows.push(row),
        None => not_compared.push(name.to_owned()),
    };
    for (name, of) in &numbers {
        let values: Vec<Option<f64>> = reference.iter().chain(batch).map(of).collect();
        if values.iter().any(Option::is_some) {
            take(name, number_row(name, &values, &deals, options));
        }
    }
    for (name, of) in &codes {
        let values: Vec<Option<String>> = reference.iter().chain(batch).map(of).collect();
        if values.iter().any(Option::is_some) {
            take(name, code_row(name, &values, &deals, options));
        }
    }
    let adjusted = options.correction.adjust(&rows.iter().map(|row| row.p).collect::<Vec<f64>>());
    for (row, adjusted) in rows.iter_mut().zip(adjusted) {
        (row.p_adjusted, row.differs) = (adjusted, adjusted < LEVEL);
    }
    let (reference, batch) = (BatchCounts::of(reference), BatchCounts::of(batch));
    let statement = statement(&reference, &batch, &rows, &deals, options);
    DriftReport {
        notice: RunReport::NOTICE.into(),
        reference,
        batch,
        rows,
        not_compared,
        options: *options,
        statement,
    }
}

type Number = Box<dyn Fn(&FilmPrediction) -> Option<f64>>;
type Code = Box<dyn Fn(&FilmPrediction) -> Option<String>>;

/// Scores and boxes of a film.
fn numbers(reference: &[FilmPrediction], batch: &[FilmPrediction]) -> Vec<(String, Number)> {
    let films = || reference.iter().chain(batch);
    let models: BTreeSet<&String> = films().flat_map(|f| f.logits.keys()).collect();
    let labels: BTreeSet<String> =
        films().flat_map(|f| &f.boxes_before_gate).map(|b| b.label.to_string()).collect();
    let mut all: Vec<(String, Number)> = Vec::new();
    all.push(("p(abnormal), ensemble".into(), Box::new(|film| Scorer::Ensemble.probability(film))));
    for model in models {
        let scorer = Scorer::Model(model.clone());
        all.push((format!("p(abnormal), {model}"), Box::new(move |film| scorer.probability(film))));
    }
    if labels.is_empty() {
        return all;
    }
    all.push((
        format!("boxes of a film with a score of at least {SHOWN_SCORE}"),
        Box::new(|film| {
            let shown = film.boxes_before_gate.iter().filter(|b| f64::from(b.score) >= SHOWN_SCORE);
            Some(shown.count() as f64)
        }),
    ));
    for label in labels {
        let name = format!("best score of a box, {label}");
        all.push((
            name,
            Box::new(move |film| {
                let of_label = film.boxes_before_gate.iter().filter(|b| b.label.to_string() == label);
                Some(of_label.map(|b| f64::from(b.score)).fold(0.0, f64::max))
            }),
        ));
    }
    all
}

/// The call and the header of a film; every film has the same facts, known or not.
fn codes(any: Option<&FilmPrediction>) -> Vec<(String, Code)> {
    let called: Code = Box::new(|film| {
        let (p, c) = (Scorer::Ensemble.probability(film)?, film.threshold?);
        Some(if p >= c { "abnormal" } else { "normal" }.to_owned())
    });
    let mut all: Vec<(String, Code)> = vec![("call at c*".to_owned(), called)];
    for (i, (name, _)) in any.map(facts).into_iter().flatten().enumerate() {
        all.push((name.to_owned(), Box::new(move |film| facts(film).into_iter().nth(i)?.1)));
    }
    all
}

/// Which study each film is of; the reference's come first, then the batch's.
struct Deals {
    study: Vec<u32>,
    reference_films: usize,
    reference_studies: usize,
    studies: usize,
    /// Films that are in both.
    in_both: usize,
}

impl Deals {
    fn of(reference: &[FilmPrediction], batch: &[FilmPrediction]) -> Self {
        let mut number: BTreeMap<(bool, &str), u32> = BTreeMap::new();
        let sides = reference.iter().map(|f| (false, f)).chain(batch.iter().map(|f| (true, f)));
        let study: Vec<u32> = sides
            .map(|(side, film)| {
                let next = number.len() as u32;
                *number.entry((side, film.study.as_str())).or_insert(next)
            })
            .collect();
        let images: BTreeSet<&str> = reference.iter().map(|f| f.image.as_str()).collect();
        Self {
            study,
            reference_films: reference.len(),
            reference_studies: number.keys().filter(|(side, _)| !side).count(),
            studies: number.len(),
            in_both: batch.iter().filter(|f| images.contains(f.image.as_str())).count(),
        }
    }

    /// Which studies are dealt to the batch, as they are.
    fn observed(&self) -> Vec<bool> {
        (0..self.studies).map(|study| study >= self.reference_studies).collect()
    }

    /// As many studies of the batch, drawn at random.
    fn dealt(&self, seed: u64, deal: usize) -> Vec<bool> {
        let mut order: Vec<u32> = (0..self.studies as u32).collect();
        let mut stream = Stream::new(seed, deal as u64);
        let wanted = self.studies - self.reference_studies;
        let mut batch = vec![false; self.studies];
        // The first steps of Fisher and Yates's shuffle; the bias of the product is below 2⁻³².
        for i in 0..wanted {
            let left = (self.studies - i) as u64;
            let j = i + ((u128::from(stream.next()) * u128::from(left)) >> 64) as usize;
            order.swap(i, j);
            batch[order[i] as usize] = true;
        }
        batch
    }
}

/// p and the 95 % quantile of the index, from `(statistic, index)` as observed and in each deal.
fn by_chance(
    observed: f64,
    deals: &Deals,
    options: &DriftOptions,
    of: impl Fn(&[bool]) -> Option<(f64, f64)> + Sync,
) -> (f64, f64) {
    let dealt: Vec<(f64, f64)> = (0..options.permutations)
        .into_par_iter()
        .filter_map(|deal| of(&deals.dealt(options.seed, deal)))
        .collect();
    // Rounding must not tell equal statistics apart.
    let as_large = dealt.iter().filter(|(statistic, _)| *statistic >= observed - 1e-12).count();
    let p = (1 + as_large) as f64 / (1 + dealt.len()) as f64;
    let mut index: Vec<f64> = dealt.into_iter().map(|(_, index)| index).collect();
    index.sort_unstable_by(f64::total_cmp);
    let quantile = index.get((index.len() * 95).div_ceil(100).saturating_sub(1)).copied();
    (p, quantile.unwrap_or(f64::INFINITY))
}

fn number_row(name: &str, values: &[Option<f64>], deals: &Deals, options: &DriftOptions) -> Option<DriftRow> {
    let sorted_side = |side: &[Option<f64>]| {
        let mut known: Vec<f64> = side.iter().flatten().copied().collect();
        known.sort_unstable_by(f64::total_cmp);
        known
    };
    let (reference, batch) = values.split_at(deals.reference_films);
    let (reference, batch) = (sorted_side(reference), sorted_side(batch));
    if reference.is_empty() || batch.is_empty() {
        return None;
    }
    let edges = edges(&reference);
    // Value, study and bin of every film that has the quantity, in ascending order.
    let mut films: Vec<(f64, u32, usize)> = values
        .iter()
        .zip(&deals.study)
        .filter_map(|(value, study)| Some(((*value)?, *study)))
        .map(|(value, study)| (value, study, edges.partition_point(|edge| *edge < value)))
        .collect();
    films.sort_by(|a, b| a.0.total_cmp(&b.0));
    let statistics = |in_batch: &[bool]| {
        let mut counts = [vec![0usize; edges.len() + 1], vec![0usize; edges.len() + 1]];
        for &(_, study, bin) in &films {
            counts[usize::from(in_batch[study as usize])][bin] += 1;
        }
        let [n, m] = [0, 1].map(|side: usize| counts[side].iter().sum::<usize>());
        (n > 0 && m > 0).then(|| (ks(&films, in_batch, n, m), psi(&counts)))
    };
    let (distance, psi) = statistics(&deals.observed())?;
    let (p, psi_by_chance) = by_chance(distance, deals, options, statistics);
    Some(DriftRow {
        quantity: name.to_owned(),
        films: [reference.len(), batch.len()],
        reference: Distribution::Quartiles(quartiles(&reference)),
        batch: Distribution::Quartiles(quartiles(&batch)),
        psi,
        psi_by_chance,
        distance,
        p,
        p_adjusted: p,
        differs: false,
    })
}

/// Kolmogorov and Smirnov's distance of `n` and `m` films in ascending order, those of the batch by study.
fn ks(films: &[(f64, u32, usize)], in_batch: &[bool], n: usize, m: usize) -> f64 {
    let (mut reference, mut batch, mut largest) = (0usize, 0usize, 0.0f64);
    for (i, film) in films.iter().enumerate() {
        if in_batch[film.1 as usize] {
            batch += 1;
        } else {
            reference += 1;
        }
        if films.get(i + 1).is_none_or(|next| next.0 != film.0) {
            largest = largest.max((reference as f64 / n as f64 - batch as f64 / m as f64).abs());
        }
    }
    largest
}

/// Upper ends of all bins but the last, each of a tenth of the sorted values; fewer where values are equal.
fn edges(sorted: &[f64]) -> Vec<f64> {
    let mut edges: Vec<f64> =
        (1..BINS).map(|i| sorted[(i * sorted.len()).div_ceil(BINS).saturating_sub(1)]).collect();
    edges.dedup();
    // A bin past the largest value would be empty on the reference's side.
    if edges.last() == sorted.last() {
        edges.pop();
    }
    edges
}

/// Population stability index of counts of the reference and of the batch, by bin.
fn psi(counts: &[Vec<usize>; 2]) -> f64 {
    let bins = counts[0].len() as f64;
    let share = |side: usize, bin: usize| {
        let total: usize = counts[side].iter().sum();
        (counts[side][bin] as f64 + 0.5) / (total as f64 + 0.5 * bins)
    };
    (0..counts[0].len())
        .map(|bin| {
            let (p, q) = (share(0, bin), share(1, bin));
            (q - p) * (q / p).ln()
        })
        .sum()
}

/// Linear between order statistics, as NumPy's default.
fn quartiles(sorted: &[f64]) -> [f64; 3] {
    [0.25, 0.5, 0.75].map(|share| {
        let place = share * (sorted.len() - 1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        sorted[low] + (place - place.floor()) * (sorted[high] - sorted[low])
    })
}

fn code_row(
    name: &str,
    values: &[Option<String>],
    deals: &Deals,
    options: &DriftOptions,
) -> Option<DriftRow> {
    let codes: Vec<&String> = values.iter().flatten().collect::<BTreeSet<_>>().into_iter().collect();
    let films: Vec<(u32, usize)> = values
        .iter()
        .zip(&deals.study)
        .filter_map(|(value, study)| {
            let code = codes.binary_search(&value.as_ref()?).expect("every code is among the codes");
            Some((*study, code))
        })
        .collect();
    let count = |in_batch: &[bool]| {
        let mut counts = [vec![0usize; codes.len()], vec![0usize; codes.len()]];
        for &(study, code) in &films {
            counts[usize::from(in_batch[study as usize])][code] += 1;
        }
        counts
    };
    let statistics = |in_batch: &[bool]| {
        let counts = count(in_batch);
        let both = counts.iter().all(|side| side.iter().sum::<usize>() > 0);
        both.then(|| (chi_squared(&counts), psi(&counts)))
    };
    let observed = count(&deals.observed());
    let (statistic, psi) = statistics(&deals.observed())?;
    let (p, psi_by_chance) = by_chance(statistic, deals, options, statistics);
    let total = |side: usize| observed[side].iter().sum::<usize>();
    let share = |side: usize, code: usize| observed[side][code] as f64 / total(side) as f64;
    let shares = |side: usize| {
        Distribution::Shares(codes.iter().enumerate().map(|(i, c)| ((*c).clone(), share(side, i))).collect())
    };
    Some(DriftRow {
        quantity: name.to_owned(),
        films: [total(0), total(1)],
        reference: shares(0),
        batch: shares(1),
        psi,
        psi_by_chance,
        distance: 0.5 * (0..codes.len()).map(|i| (share(0, i) - share(1, i)).abs()).sum::<f64>(),
        p,
        p_adjusted: p,
        differs: false,
    })
}

/// Pearson's statistic of two rows of counts.
fn chi_squared(counts: &[Vec<usize>; 2]) -> f64 {
    let totals = [0, 1].map(|side: usize| counts[side].iter().sum::<usize>() as f64);
    let all = totals[0] + totals[1];
    let mut sum = 0.0;
    for (reference, batch) in counts[0].iter().zip(&counts[1]) {
        let column = (reference + batch) as f64;
        for (count, total) in [(*reference, totals[0]), (*batch, totals[1])] {
            let expected = total * column / all;
            if expected > 0.0 {
                sum += (count as f64 - expected) * (count as f64 - expected) / expected;
            }
        }
    }
    sum
}

fn statement(
    reference: &BatchCounts,
    batch: &BatchCounts,
    rows: &[DriftRow],
    deals: &Deals,
    options: &DriftOptions,
) -> Vec<String> {
    let mut lines = Vec::new();
    if rows.is_empty() {
        lines.push("The two have no quantity in common: nothing can be said of drift.".to_owned());
        return lines;
    }
    let mut differing: Vec<&DriftRow> = rows.iter().filter(|row| row.differs).collect();
    differing.sort_by(|a, b| b.psi.total_cmp(&a.psi));
    let correction = options.correction.name();
    if differing.is_empty() {
        lines.push(format!(
            "No drift is shown: none of {} quantities differs (p corrected by {correction}, {LEVEL}).",
            rows.len()
        ));
    } else {
        let words = |row: &&DriftRow| {
            let size = match row.psi {
                psi if psi >= MUCH => "much",
                psi if psi >= LITTLE => "some",
                _ => "little",
            };
            format!("{} (PSI {:.2}, {size}; distance {:.2})", row.quantity, row.psi, row.distance)
        };
        let list: Vec<String> = differing.iter().map(words).collect();
        lines.push(format!(
            "Drift: {} of {} quantities differ (p corrected by {correction}, {LEVEL}): {}.",
            differing.len(),
            rows.len(),
            list.join("; ")
        ));
    }
    // Smirnov's asymptotic bound at the strictest corrected level, in studies.
    let level = LEVEL / rows.len() as f64;
    let studies = 1.0 / reference.studies.max(1) as f64 + 1.0 / batch.studies.max(1) as f64;
    let least = ((2.0 / level).ln() / 2.0 * studies).sqrt();
    lines.push(match least {
        least if least >= 1.0 => format!(
            "With {} studies beside {}, no difference whatever could be shown.",
            batch.studies, reference.studies
        ),
        least => format!(
            "With {} studies beside {}, distances below about {least:.2} would mostly go unseen.",
            batch.studies, reference.studies
        ),
    });
    let small = batch.studies.min(reference.studies);
    if small < FEW_STUDIES {
        lines.push(format!(
            "Only {small} studies on one side: compare each index with what chance alone gives, not with 0.1 and 0.25."
        ));
    }
    if reference.bundles != batch.bundles {
        lines.push(
            "The records were made by different bundles: scores may differ because the models do.".to_owned(),
        );
    }
    if deals.in_both > 0 {
        lines.push(format!("{} films are in both; they hide drift.", deals.in_both));
    }
    lines
        .push("Drift says that films or answers have changed, not whether the answers are right.".to_owned());
    lines
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
