//! Receiver operating characteristic and precision–recall of one score a film.
//!
//! Reference: scikit-learn `roc_auc_score`, `roc_curve`, `precision_recall_curve`,
//! `average_precision_score`. Deviation: where scikit-learn warns and returns a number (no positive film),
//! here it is `None`.

use crate::LabelledScores;
use serde::{Deserialize, Serialize};

/// A point of the ROC curve: films with a score of at least `threshold` are called positive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// Score; `None` at the origin, where no film is called positive.
    pub threshold: Option<f64>,
    /// 1 - specificity.
    pub false_positive_rate: f64,
    /// Sensitivity.
    pub true_positive_rate: f64,
}

/// A point of the precision–recall curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PrPoint {
    /// Score.
    pub threshold: f64,
    /// Share of the positive films that are called positive.
    pub recall: f64,
    /// Share of the films called positive that are.
    pub precision: f64,
}

/// Area under the ROC curve, ties counted half; `None` unless both classes occur.
pub fn auroc(data: &LabelledScores) -> Option<f64> {
    if !data.has_both_classes() {
        return None;
    }
    // Twice the number of (positive, negative) pairs in the right order, in whole numbers.
    let mut twice_pairs = 0u64;
    let (mut tp, mut fp) = (0u64, 0u64);
    for step in data.steps() {
        let (new_tp, new_fp) = (step.tp as u64 - tp, step.fp as u64 - fp);
        twice_pairs += new_fp * (2 * tp + new_tp);
        (tp, fp) = (step.tp as u64, step.fp as u64);
    }
    Some(twice_pairs as f64 / (2.0 * tp as f64 * fp as f64))
}

/// The ROC curve from `(0, 0)` to `(1, 1)`, without points on a straight line between their neighbours;
/// `None` unless both classes occur.
pub fn roc_curve(data: &LabelledScores) -> Option<Vec<RocPoint>> {
    if !data.has_both_classes() {
        return None;
    }
    let steps = data.steps();
    let (p, n) = (data.positives() as f64, data.negatives() as f64);
    let mut kept: Vec<(Option<f64>, i64, i64)> = vec![(None, 0, 0)];
    for (i, step) in steps.iter().enumerate() {
        let here = (step.tp as i64, step.fp as i64);
        let straight = steps.get(i + 1).is_some_and(|next| {
            let &(_, tp0, fp0) = kept.last().expect("the origin is always kept");
            (here.0 - tp0) * (next.fp as i64 - here.1) == (here.1 - fp0) * (next.tp as i64 - here.0)
        });
        if !straight {
            kept.push((Some(step.threshold), here.0, here.1));
        }
    }
    let point = |(threshold, tp, fp): (Option<f64>, i64, i64)| RocPoint {
        threshold,
        false_positive_rate: fp as f64 / n,
        true_positive_rate: tp as f64 / p,
    };
    Some(kept.into_iter().map(point).collect())
}

/// The precision–recall curve, one point per distinct score, highest first; `None` without a positive
/// film.
pub fn pr_curve(data: &LabelledScores) -> Option<Vec<PrPoint>> {
    if data.positives() == 0 {
        return None;
    }
    let p = data.positives() as f64;
    let point = |s: crate::scores::Step| PrPoint {
        threshold: s.threshold,
        recall: s.tp as f64 / p,
        precision: s.tp as f64 / (s.tp + s.fp) as f64,
    };
    Some(data.steps().into_iter().map(point).collect())
}

/// Average precision: the sum over thresholds of precision times the gain in recall; `None` without a
/// positive film.
pub fn average_precision(data: &LabelledScores) -> Option<f64> {
    let mut before = 0.0;
    let mut sum = 0.0;
    for point in pr_curve(data)? {
        sum += (point.recall - before) * point.precision;
        before = point.recall;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn films() -> impl Strategy<Value = Vec<(bool, f64)>> {
        // Few distinct scores, so that ties are common.
        prop::collection::vec((any::<bool>(), (0u8..12).prop_map(|s| f64::from(s) / 8.0)), 2..60)
    }

    fn data(films: &[(bool, f64)]) -> LabelledScores {
        let (labels, scores): (Vec<_>, Vec<_>) = films.iter().copied().unzip();
        LabelledScores::new(&labels, &scores).unwrap()
    }

    #[test]
    fn a_tie_counts_half() {
        assert_eq!(auroc(&data(&[(true, 0.5), (false, 0.5)])), Some(0.5));
        assert_eq!(auroc(&data(&[(true, 0.7), (false, 0.5), (false, 0.7)])), Some(0.75));
    }

    #[test]
    fn one_class_alone_has_no_roc() {
        for films in [vec![(true, 0.1), (true, 0.9)], vec![(false, 0.1)], vec![]] {
            assert_eq!(auroc(&data(&films)), None);
            assert!(roc_curve(&data(&films)).is_none());
        }
        assert_eq!(average_precision(&data(&[(false, 0.1)])), None);
        assert_eq!(average_precision(&data(&[(true, 0.1)])), Some(1.0));
    }

    #[test]
    fn a_perfect_roc_has_one_corner() {
        let curve = roc_curve(&data(&[(true, 0.9), (true, 0.8), (false, 0.2), (false, 0.1)])).unwrap();
        let corners: Vec<_> = curve.iter().map(|p| (p.false_positive_rate, p.true_positive_rate)).collect();
        assert_eq!(corners, [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]);
    }

    proptest! {
        #[test]
        fn auroc_counts_pairs(films in films()) {
            let data = data(&films);
            let (mut right, mut pairs) = (0.0, 0.0);
            for a in films.iter().filter(|f| f.0) {
                for b in films.iter().filter(|f| !f.0) {
                    pairs += 1.0;
                    right += if a.1 > b.1 { 1.0 } else if a.1 == b.1 { 0.5 } else { 0.0 };
                }
            }
            match auroc(&data) {
                Some(value) => prop_assert!((value - right / pairs).abs() < 1e-12),
                None => prop_assert!(pairs == 0.0),
            }
        }

        #[test]
        fn a_monotone_map_changes_nothing(films in films()) {
            let mapped: Vec<_> = films.iter().map(|&(y, s)| (y, (3.0 * s).exp() - 5.0)).collect();
            prop_assert_eq!(auroc(&data(&films)), auroc(&data(&mapped)));
            prop_assert_eq!(average_precision(&data(&films)), average_precision(&data(&mapped)));
        }

        #[test]
        fn the_order_of_films_changes_nothing(films in films(), seed in any::<u64>()) {
            let mut shuffled = films.clone();
            let n = shuffled.len() as u64;
            for i in 0..shuffled.len() {
                shuffled.swap(i, (seed.wrapping_mul(i as u64 + 7) % n) as usize);
            }
            prop_assert_eq!(data(&films), data(&shuffled));
        }

        #[test]
        fn the_area_under_the_kept_corners_is_the_auroc(films in films()) {
            let data = data(&films);
            if let Some(curve) = roc_curve(&data) {
                let area: f64 = curve.windows(2).map(|w| {
                    (w[1].false_positive_rate - w[0].false_positive_rate)
                        * 0.5 * (w[0].true_positive_rate + w[1].true_positive_rate)
                }).sum();
                prop_assert!((area - auroc(&data).unwrap()).abs() < 1e-12);
            }
        }
    }
}
