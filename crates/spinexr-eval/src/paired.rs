//! Two models on the same films: paired tests, and their correction when many are made.
//!
//! - AUROC: DeLong, DeLong & Clarke-Pearson, Biometrics 1988;44:837–845.
//! - Decisions: McNemar's exact test (reference: statsmodels `mcnemar(exact=True)`).
//! - Many tests: Holm, Scand J Statist 1979;6:65–70; Benjamini & Hochberg, J R Stat Soc B 1995;57:289–300.

use crate::error::{EvalError, Problem};
use crate::intervals::{Interval, Z_95};
use serde::{Deserialize, Serialize};

/// Two AUROCs on the same films.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeLongTest {
    /// Of the first and the second model.
    pub auroc: [f64; 2],
    /// Variances of the two, and their covariance.
    pub variance: [f64; 2],
    /// Films in common make it positive.
    pub covariance: f64,
    /// First minus second.
    pub difference: f64,
    /// 95 % interval of the difference.
    pub interval: Interval,
    /// Difference over its standard error; `None` when the two never disagree on a pair.
    pub z: Option<f64>,
    /// Two-sided p of no difference; `None` with `z`.
    pub p: Option<f64>,
}

/// DeLong's paired test; `None` with fewer than two films of either class.
///
/// `positive`, `first`, `second`: the label and both models' scores of each film.
///
/// # Errors
/// Slices of different length, or a score that is not finite.
pub fn delong_test(
    positive: &[bool],
    first: &[f64],
    second: &[f64],
) -> Result<Option<DeLongTest>, EvalError> {
    delong_test_of_means(positive, &[first], &[second])
}

/// As [`delong_test`], of the mean AUROC of several runs a side, such as seeds of one method: the components of DeLong's
/// variance are linear, so a film's component is the mean of its components in the runs.
///
/// # Errors
/// As [`delong_test`]; a side without a run is [`Problem::Length`].
pub fn delong_test_of_means(
    positive: &[bool],
    first: &[&[f64]],
    second: &[&[f64]],
) -> Result<Option<DeLongTest>, EvalError> {
    if first.is_empty() || second.is_empty() {
        let problem = Problem::Length { expected: positive.len(), got: 0 };
        return Err(EvalError::Score { index: 0, problem });
    }
    for scores in first.iter().chain(second) {
        if scores.len() != positive.len() {
            let problem = Problem::Length { expected: positive.len(), got: scores.len() };
            return Err(EvalError::Score { index: positive.len().min(scores.len()), problem });
        }
        if let Some(index) = scores.iter().position(|s| !s.is_finite()) {
            let problem = Problem::NotFinite { what: "score".to_owned(), value: scores[index] };
            return Err(EvalError::Score { index, problem });
        }
    }
    let positives = positive.iter().filter(|p| **p).count();
    let negatives = positive.len() - positives;
    if positives < 2 || negatives < 2 {
        return Ok(None);
    }
    let components = [first, second].map(|runs| {
        let runs: Vec<Components> =
            runs.iter().map(|scores| Components::of(positive, scores, positives, negatives)).collect();
        Components::mean(&runs)
    });
    let [a, b] = &components;
    let auroc = [a.auroc, b.auroc];
    let covariance = |x: &Components, y: &Components| {
        covariance(&x.positives, &y.positives) / positives as f64
            + covariance(&x.negatives, &y.negatives) / negatives as f64
    };
    let variance = [covariance(a, a), covariance(b, b)];
    let both = covariance(a, b);
    let difference = auroc[0] - auroc[1];
    let error = (variance[0] + variance[1] - 2.0 * both).max(0.0).sqrt();
    // What is left of equal variances after rounding is no error.
    let z = (error > 1e-9).then(|| difference / error);
    Ok(Some(DeLongTest {
        auroc,
        variance,
        covariance: both,
        difference,
        interval: [difference - Z_95 * error, difference + Z_95 * error],
        z,
        p: z.map(two_sided_p),
    }))
}

/// The probability of a normal value at least as far from 0.
pub fn two_sided_p(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// For each film the share of films of the other class that are on the right side of it, ties half.
struct Components {
    auroc: f64,
    positives: Vec<f64>,
    negatives: Vec<f64>,
}

impl Components {
    fn of(positive: &[bool], scores: &[f64], positives: usize, negatives: usize) -> Self {
        let sorted = |of: bool| {
            let mut values: Vec<f64> =
                scores.iter().zip(positive).filter(|(_, p)| **p == of).map(|(s, _)| *s).collect();
            values.sort_unstable_by(f64::total_cmp);
            values
        };
        let (of_positives, of_negatives) = (sorted(true), sorted(false));
        // How many of `values` lie below `score`, ties half.
        let below = |values: &[f64], score: f64| {
            let (less, up_to) =
                (values.partition_point(|v| *v < score), values.partition_point(|v| *v <= score));
            0.5 * (less + up_to) as f64
        };
        let mut of_class = [Vec::with_capacity(negatives), Vec::with_capacity(positives)];
        for (&score, &is_positive) in scores.iter().zip(positive) {
            of_class[usize::from(is_positive)].push(match is_positive {
                true => below(&of_negatives, score) / negatives as f64,
                false => 1.0 - below(&of_positives, score) / positives as f64,
            });
        }
        let [of_negatives, of_positives] = of_class;
        let auroc = of_positives.iter().sum::<f64>() / positives as f64;
        Self { auroc, positives: of_positives, negatives: of_negatives }
    }
}

impl Components {
    /// Component by component; of at least one run.
    fn mean(runs: &[Self]) -> Self {
        let count = runs.len() as f64;
        let mean = |of: &dyn Fn(&Self) -> &Vec<f64>| -> Vec<f64> {
            let mut sums = vec![0.0; of(&runs[0]).len()];
            for run in runs {
                sums.iter_mut().zip(of(run)).for_each(|(sum, value)| *sum += value);
            }
            sums.into_iter().map(|sum| sum / count).collect()
        };
        Self {
            auroc: runs.iter().map(|run| run.auroc).sum::<f64>() / count,
            positives: mean(&|run| &run.positives),
            negatives: mean(&|run| &run.negatives),
        }
    }
}

/// Sample covariance, with n − 1.
fn covariance(x: &[f64], y: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    x.iter().zip(y).map(|(a, b)| (a - mx) * (b - my)).sum::<f64>() / (x.len() - 1) as f64
}

/// Two-sided p of McNemar's exact test: of the films that only one model got right, `first` were the first's and
/// `second` the second's. 1 when there is none.
pub fn mcnemar(first: u64, second: u64) -> f64 {
    let (n, k) = (first + second, first.min(second));
    if n == 0 {
        return 1.0;
    }
    let ln_choose = |k: u64| {
        libm::lgamma(n as f64 + 1.0) - libm::lgamma(k as f64 + 1.0) - libm::lgamma((n - k) as f64 + 1.0)
    };
    let half = -(n as f64) * std::f64::consts::LN_2;
    let tail: f64 = (0..=k).map(|i| (ln_choose(i) + half).exp()).sum();
    (2.0 * tail).min(1.0)
}

/// Holm's adjusted p values: reject what stays below the level, and all of the claims hold together.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0.0f64;
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max((p.len() - rank) as f64 * p[i]).min(1.0);
        adjusted[i] = largest;
    }
    adjusted
}

/// Benjamini and Hochberg's adjusted p values: of what is rejected at a level, that share is false on average.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut smallest = 1.0f64;
    for (rank, &i) in order.iter().enumerate().rev() {
        smallest = smallest.min(p[i] * p.len() as f64 / (rank + 1) as f64);
        adjusted[i] = smallest;
    }
    adjusted
}

fn ascending(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden_sets;
    use serde_json::Value;

    #[test]
    fn delong_equals_the_reference() {
        let wanted = &golden_sets::results("metrics_binary")["paired"];
        let [first, second] = ["plain/scores", "paired/second_scores"].map(golden_sets::tensor);
        let found = delong_test(&golden_sets::labels("plain"), &first, &second).unwrap().unwrap();
        let near = |what: &str, got: f64, expected: &Value| {
            let expected = expected.as_f64().unwrap();
            assert!((got - expected).abs() < 1e-12, "{what}: {got}, expected {expected}");
        };
        for i in 0..2 {
            near("auroc", found.auroc[i], &wanted["auc"][i]);
            near("variance", found.variance[i], &wanted["covariance"][i][i]);
        }
        near("covariance", found.covariance, &wanted["covariance"][0][1]);
        near("z", found.z.unwrap(), &wanted["z"]);
        near("p", found.p.unwrap(), &wanted["p_two_sided"]);
    }

    #[test]
    fn a_model_against_itself_shows_nothing() {
        let positive = [true, true, false, false, true];
        let scores = [0.9, 0.4, 0.5, 0.1, 0.7];
        let found = delong_test(&positive, &scores, &scores).unwrap().unwrap();
        assert_eq!((found.difference, found.z, found.p), (0.0, None, None));
        // Any monotone map of the scores ranks alike.
        let mapped = scores.map(|s| 3.0 * s - 8.0);
        assert_eq!(delong_test(&positive, &scores, &mapped).unwrap().unwrap().z, None);
        assert_eq!(delong_test(&[true, false], &[0.1, 0.2], &[0.1, 0.2]).unwrap(), None);
        assert!(delong_test(&positive, &scores, &scores[..4]).is_err());
        assert!(delong_test(&positive, &scores, &[f64::NAN; 5]).is_err());
    }

    #[test]
    fn the_mean_of_one_run_is_the_run_and_of_two_lies_between() {
        let positive: Vec<bool> = (0..60).map(|i| i % 3 == 0).collect();
        let scores = |k: u32| -> Vec<f64> {
            let noise =
                |i: u32| f64::from(i.wrapping_mul(2_654_435_761).wrapping_add(k * 977) >> 22) / 1024.0;
            (0..60u32).map(|i| noise(i + k) + if i % 3 == 0 { 0.3 } else { 0.0 }).collect()
        };
        let [a, b, c] = [scores(1), scores(2), scores(3)];
        let twice = delong_test_of_means(&positive, &[&a, &a], &[&c]).unwrap().unwrap();
        let once = delong_test(&positive, &a, &c).unwrap().unwrap();
        assert!((twice.z.unwrap() - once.z.unwrap()).abs() < 1e-9);
        let both = delong_test_of_means(&positive, &[&a, &b], &[&c]).unwrap().unwrap();
        let other = delong_test(&positive, &b, &c).unwrap().unwrap();
        assert!((both.difference - 0.5 * (once.difference + other.difference)).abs() < 1e-12);
        // The variance of a mean, from the variances and covariances of pairs.
        let pair = delong_test(&positive, &a, &b).unwrap().unwrap();
        let expected = 0.25 * (pair.variance[0] + pair.variance[1] + 2.0 * pair.covariance);
        assert!((both.variance[0] - expected).abs() < 1e-12);
        assert!(delong_test_of_means(&positive, &[], &[&c]).is_err());
    }

    #[test]
    fn mcnemar_and_corrections_equal_the_reference() {
        let results = golden_sets::results("metrics_calibration");
        for row in results["mcnemar"].as_array().unwrap() {
            let (b, c) = (row["b"].as_u64().unwrap(), row["c"].as_u64().unwrap());
            let expected = row["exact"].as_f64().unwrap();
            assert!((mcnemar(b, c) - expected).abs() < 1e-10, "{b} {c}: {} {expected}", mcnemar(b, c));
            assert_eq!(mcnemar(b, c), mcnemar(c, b));
        }
        let multiple = &results["multiple"];
        let numbers = |key: &str| -> Vec<f64> {
            multiple[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
        };
        let p = numbers("p");
        for (got, key) in [(holm(&p), "holm"), (benjamini_hochberg(&p), "benjamini_hochberg")] {
            for (got, expected) in got.iter().zip(numbers(key)) {
                assert!((got - expected).abs() < 1e-12, "{key}: {got} {expected}");
            }
        }
        assert!(holm(&[]).is_empty());
    }
}
