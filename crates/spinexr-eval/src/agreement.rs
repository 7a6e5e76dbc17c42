//! How far two readers agree: on films, on findings, on places.
//!
//! - Cohen's kappa (Educ Psychol Meas 1960;20:37–46) with the large-sample error of Fleiss, Cohen and Everitt (Psychol
//!   Bull 1969;72:323–327); reference: statsmodels `inter_rater.cohens_kappa`.
//! - Boxes of one finding on one film are matched one to one, best overlap first, as far as it reaches a threshold; what
//!   is left over was seen by one reader alone.
//!
//! Kappa falls with the prevalence of a finding though readers agree as well as before (Feinstein and Cicchetti, J Clin
//! Epidemiol 1990;43:543–549), so the four counts and the agreements on presence and on absence stand beside it.

use crate::intervals::{Interval, Z_95};
use serde::{Deserialize, Serialize};
use spinexr_core::BoxXyxy;
use std::collections::{BTreeMap, BTreeSet};

/// What one reader says of a film.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FilmReading {
    /// Finding and place of every box, film px. None means "no finding".
    pub boxes: Vec<(String, BoxXyxy)>,
}

/// Yes or no of two readers for the same things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Both say yes.
    pub both: usize,
    /// The first alone says yes.
    pub first: usize,
    /// The second alone says yes.
    pub second: usize,
    /// Neither says yes.
    pub neither: usize,
}

/// Agreement on yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct YesNo {
    /// How often each answer was given.
    pub counts: Counts,
    /// Share of equal answers; `None` without films.
    pub observed: Option<f64>,
    /// Cohen's kappa; `None` where both readers give one and the same answer throughout.
    pub kappa: Option<f64>,
    /// 95 % interval of kappa, clipped to `[-1, 1]`.
    pub kappa_interval: Option<Interval>,
    /// Agreement on yes: 2·both ÷ all yeses; `None` without a yes.
    pub positive: Option<f64>,
    /// Agreement on no; `None` without a no.
    pub negative: Option<f64>,
}

impl Counts {
    fn add(&mut self, first: bool, second: bool) {
        *match (first, second) {
            (true, true) => &mut self.both,
            (true, false) => &mut self.first,
            (false, true) => &mut self.second,
            (false, false) => &mut self.neither,
        } += 1;
    }

    /// All measures of agreement.
    pub fn agreement(self) -> YesNo {
        let [a, b, c, d] = [self.both, self.first, self.second, self.neither].map(|count| count as f64);
        let n = a + b + c + d;
        let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let observed = share(a + d, n);
        let (yes, no) = ([(a + b) / n, (a + c) / n], [(c + d) / n, (b + d) / n]); // shares of either reader
        let expected = yes[0] * yes[1] + no[0] * no[1];
        let kappa =
            observed.filter(|_| expected < 1.0).map(|observed| (observed - expected) / (1.0 - expected));
        let interval = kappa.map(|kappa| {
            let diagonal: f64 = [(a, yes), (d, no)]
                .iter()
                .map(|(count, [p, q])| count / n * (1.0 - (p + q) * (1.0 - kappa)).powi(2))
                .sum();
            // Off the diagonal: the share of (i, j) with the second reader's share of i and the first's of j.
            let off = b / n * (yes[1] + no[0]).powi(2) + c / n * (no[1] + yes[0]).powi(2);
            let rest = (kappa - expected * (1.0 - kappa)).powi(2);
            let variance = (diagonal + (1.0 - kappa).powi(2) * off - rest) / ((1.0 - expected).powi(2) * n);
            let half = Z_95 * variance.max(0.0).sqrt();
            [(kappa - half).max(-1.0), (kappa + half).min(1.0)]
        });
        YesNo {
            counts: self,
            observed,
            kappa,
            kappa_interval: interval,
            positive: share(2.0 * a, 2.0 * a + b + c),
            negative: share(2.0 * d, 2.0 * d + b + c),
        }
    }
}

/// Agreement on the boxes of a finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindingAgreement {
    /// Whether a film shows it at all.
    pub films: YesNo,
    /// Boxes that were matched with one of the other reader.
    pub matched: usize,
    /// Boxes of the first reader without a match.
    pub only_first: usize,
    /// Boxes of the second reader without a match.
    pub only_second: usize,
    /// Mean IoU of the matched; `None` without one.
    pub mean_iou: Option<f64>,
    /// 2·matched ÷ all boxes of both; `None` without a box.
    pub box_agreement: Option<f64>,
}

/// Agreement of two readers on the films that both have read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Films.
    pub films: usize,
    /// Least IoU at which two boxes are the same.
    pub iou: f64,
    /// Whether a film shows anything.
    pub abnormal: YesNo,
    /// By finding; those that neither reader has marked are left out.
    pub findings: BTreeMap<String, FindingAgreement>,
    /// All findings together; boxes of different findings do not match.
    pub boxes: FindingAgreement,
}

#[derive(Default)]
struct Tally {
    films: Counts,
    matched: usize,
    only: [usize; 2],
    sum_iou: f64,
}

impl Tally {
    fn agreement(&self) -> FindingAgreement {
        let all = 2 * self.matched + self.only[0] + self.only[1];
        let share = |part: f64, whole: usize| (whole > 0).then(|| part / whole as f64);
        FindingAgreement {
            films: self.films.agreement(),
            matched: self.matched,
            only_first: self.only[0],
            only_second: self.only[1],
            mean_iou: share(self.sum_iou, self.matched),
            box_agreement: share(2.0 * self.matched as f64, all),
        }
    }
}

/// Agreement of two readers, one pair of readings a film. `iou`: least overlap of boxes that are the same, `(0, 1]`.
pub fn agreement(films: &[(&FilmReading, &FilmReading)], iou: f64) -> Agreement {
    let labels: BTreeSet<&str> = films
        .iter()
        .flat_map(|(first, second)| first.boxes.iter().chain(&second.boxes))
        .map(|(label, _)| label.as_str())
        .collect();
    let mut tallies: BTreeMap<&str, Tally> =
        labels.into_iter().map(|label| (label, Tally::default())).collect();
    let mut abnormal = Counts::default();
    let mut together = Tally::default();
    for (first, second) in films {
        let is_abnormal = [!first.boxes.is_empty(), !second.boxes.is_empty()];
        abnormal.add(is_abnormal[0], is_abnormal[1]);
        together.films.add(is_abnormal[0], is_abnormal[1]);
        for (label, tally) in &mut tallies {
            let of = |reading: &FilmReading| -> Vec<BoxXyxy> {
                reading.boxes.iter().filter(|(other, _)| other == label).map(|(_, xyxy)| *xyxy).collect()
            };
            let boxes = [of(first), of(second)];
            tally.films.add(!boxes[0].is_empty(), !boxes[1].is_empty());
            let overlaps = matched(&boxes[0], &boxes[1], iou);
            for tally in [tally, &mut together] {
                tally.matched += overlaps.len();
                tally.sum_iou += overlaps.iter().sum::<f64>();
                for (only, boxes) in tally.only.iter_mut().zip(&boxes) {
                    *only += boxes.len() - overlaps.len();
                }
            }
        }
    }
    Agreement {
        films: films.len(),
        iou,
        abnormal: abnormal.agreement(),
        findings: tallies.iter().map(|(label, tally)| ((*label).to_owned(), tally.agreement())).collect(),
        boxes: together.agreement(),
    }
}

/// IoU of every matched pair, best first. Equal overlaps go in order of the boxes' places, not of their listing.
fn matched(first: &[BoxXyxy], second: &[BoxXyxy], least: f64) -> Vec<f64> {
    let place = |b: &BoxXyxy| [b.x1, b.y1, b.x2, b.y2];
    let mut pairs: Vec<(f64, usize, usize)> = vec![];
    for (i, a) in first.iter().enumerate() {
        for (j, b) in second.iter().enumerate() {
            let overlap = f64::from(a.iou(b));
            if overlap >= least && overlap > 0.0 {
                pairs.push((overlap, i, j));
            }
        }
    }
    let by_place = |i: usize, j: usize, k: usize, l: usize| {
        place(&first[i])
            .partial_cmp(&place(&first[k]))
            .into_iter()
            .chain(place(&second[j]).partial_cmp(&place(&second[l])))
            .find(|order| order.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    };
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| by_place(a.1, a.2, b.1, b.2)));
    let (mut is_taken, mut is_given) = (vec![false; first.len()], vec![false; second.len()]);
    let mut overlaps = vec![];
    for (overlap, i, j) in pairs {
        if !is_taken[i] && !is_given[j] {
            (is_taken[i], is_given[j]) = (true, true);
            overlaps.push(overlap);
        }
    }
    overlaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(both: usize, first: usize, second: usize, neither: usize) -> Counts {
        Counts { both, first, second, neither }
    }

    /// statsmodels 0.15.0 `cohens_kappa([[both, first], [second, neither]])`: kappa and `kappa ∓ z·std_kappa`.
    #[test]
    fn kappa_is_statsmodels() {
        for (counts, kappa, interval) in KAPPAS {
            let found = counts.agreement();
            assert!((found.kappa.unwrap() - kappa).abs() < 1e-12, "{counts:?}: {found:?}");
            let [low, high] = found.kappa_interval.unwrap();
            assert!(
                (low - interval[0]).abs() < 1e-9 && (high - interval[1]).abs() < 1e-9,
                "{counts:?}: {found:?}"
            );
        }
    }

    #[rustfmt::skip]
    const KAPPAS: [(Counts, f64, Interval); 3] = [
        (Counts { both: 40, first: 9, second: 14, neither: 137 }, 0.699503527567285, [0.585548011610937, 0.813459043523634]),
        (Counts { both: 3, first: 1, second: 0, neither: 96 }, 0.852071005917160, [0.566762710694337, 1.000000000000000]),
        (Counts { both: 5, first: 20, second: 17, neither: 8 }, -0.480000000000000, [-0.721404835900408, -0.238595164099592]),
    ];

    #[test]
    fn undefined_is_none() {
        let none = Counts::default().agreement();
        assert_eq!((none.observed, none.kappa, none.positive, none.negative), (None, None, None, None));
        // Both always say no: they agree, and kappa says nothing.
        let same = counts(0, 0, 0, 9).agreement();
        assert_eq!(
            (same.observed, same.kappa, same.positive, same.negative),
            (Some(1.0), None, None, Some(1.0))
        );
    }

    fn film(boxes: &[(&str, [f32; 4])]) -> FilmReading {
        FilmReading {
            boxes: boxes.iter().map(|(label, xyxy)| ((*label).to_owned(), (*xyxy).into())).collect(),
        }
    }

    #[test]
    fn boxes_are_matched_by_finding_and_overlap() {
        let first =
            film(&[("A", [0., 0., 10., 10.]), ("A", [20., 0., 30., 10.]), ("B", [50., 50., 60., 60.])]);
        let second =
            film(&[("A", [0., 0., 10., 8.]), ("B", [50., 50., 60., 51.]), ("C", [20., 0., 30., 10.])]);
        let empty = film(&[]);
        let found = agreement(&[(&first, &second), (&empty, &empty), (&empty, &second)], 0.5);
        assert_eq!(found.films, 3);
        assert_eq!(found.abnormal.counts, counts(1, 0, 1, 1));
        let a = &found.findings["A"];
        assert_eq!((a.matched, a.only_first, a.only_second), (1, 1, 1));
        assert!((a.mean_iou.unwrap() - 0.8).abs() < 1e-6);
        assert_eq!(a.films.counts, counts(1, 0, 1, 1));
        let b = &found.findings["B"]; // an overlap of 0.1 is no match
        assert_eq!((b.matched, b.only_first, b.only_second, b.mean_iou), (0, 1, 2, None));
        assert_eq!(found.findings["C"].only_second, 2);
        assert_eq!((found.boxes.matched, found.boxes.only_first, found.boxes.only_second), (1, 2, 5));
        assert_eq!(found.boxes.box_agreement, Some(2.0 / 9.0));
    }

    #[test]
    fn each_box_is_matched_once() {
        let first = film(&[("A", [0., 0., 10., 10.])]);
        let second = film(&[("A", [0., 0., 10., 9.]), ("A", [0., 0., 10., 10.])]);
        let found = agreement(&[(&first, &second)], 0.5);
        assert_eq!((found.boxes.matched, found.boxes.only_second), (1, 1));
        assert_eq!(found.boxes.mean_iou, Some(1.0));
    }

    proptest! {
        /// The order of boxes and which reader is called the first change nothing.
        #[test]
        fn symmetric(boxes in prop::collection::vec((0usize..2, 0usize..2, 0f32..20., 0f32..20.), 0..12)) {
            let of = |reader: usize| FilmReading {
                boxes: boxes.iter().filter(|b| b.0 == reader)
                    .map(|&(_, label, x, y)| (format!("{label}"), [x, y, x + 10.0, y + 10.0].into())).collect(),
            };
            let (first, second) = (of(0), of(1));
            let reversed = FilmReading { boxes: first.boxes.iter().rev().cloned().collect() };
            let there = agreement(&[(&first, &second)], 0.4);
            let back = agreement(&[(&second, &reversed)], 0.4);
            prop_assert_eq!(there.boxes.matched, back.boxes.matched);
            prop_assert_eq!(there.boxes.only_first, back.boxes.only_second);
            prop_assert_eq!(there.boxes.mean_iou, back.boxes.mean_iou);
            prop_assert_eq!(there.abnormal.kappa, back.abnormal.kappa);
            let same = agreement(&[(&first, &reversed)], 0.4);
            prop_assert_eq!((same.boxes.only_first, same.boxes.only_second), (0, 0));
        }
    }
}
