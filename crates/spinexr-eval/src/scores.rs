//! One score and one label a film: what ROC, thresholds and intervals are computed from.

use crate::error::{EvalError, Problem};

/// Labels and scores, best score first, with the study each film belongs to.
///
/// Films of equal score and label are interchangeable, and studies are numbered by name, so nothing
/// computed from this depends on the order in which films came.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledScores {
    scores: Vec<f64>,
    positive: Vec<bool>,
    study: Vec<u32>,
    studies: usize,
    positives: usize,
}

/// Counts among the films with a score of at least `threshold`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// A score that occurs.
    pub threshold: f64,
    /// Positive films at or above it.
    pub tp: usize,
    /// Negative films at or above it.
    pub fp: usize,
}

impl LabelledScores {
    /// From parallel slices; every film is a study of its own.
    ///
    /// # Errors
    /// Slices of different length, or a score that is not finite.
    pub fn new(positive: &[bool], scores: &[f64]) -> Result<Self, EvalError> {
        if positive.len() != scores.len() {
            let problem = Problem::Length { expected: positive.len(), got: scores.len() };
            return Err(EvalError::Score { index: positive.len().min(scores.len()), problem });
        }
        let mut order: Vec<(bool, f64)> = positive.iter().copied().zip(scores.iter().copied()).collect();
        check(order.iter().map(|f| f.1))?;
        // Numbered after sorting, so that the order of films does not show in the studies either.
        order.sort_by(|a, b| best_first(*a, *b));
        Self::build((0..).zip(order).map(|(i, (p, s))| (p, s, i)).collect::<Vec<(bool, f64, usize)>>())
    }

    /// From `(positive, score, study)` triples.
    ///
    /// # Errors
    /// A score that is not finite.
    pub fn with_studies<'a>(
        films: impl IntoIterator<Item = (bool, f64, &'a str)>,
    ) -> Result<Self, EvalError> {
        Self::build(films.into_iter().collect())
    }

    fn build<K: Ord + Clone>(mut films: Vec<(bool, f64, K)>) -> Result<Self, EvalError> {
        check(films.iter().map(|f| f.1))?;
        let mut names: Vec<K> = films.iter().map(|f| f.2.clone()).collect();
        names.sort_unstable();
        names.dedup();
        films.sort_by(|a, b| best_first((a.0, a.1), (b.0, b.1)).then_with(|| a.2.cmp(&b.2)));
        let study = films
            .iter()
            .map(|f| names.binary_search(&f.2).expect("every study is among the names") as u32)
            .collect();
        Ok(Self {
            positives: films.iter().filter(|f| f.0).count(),
            // -0.0 and 0.0 are one score.
            scores: films.iter().map(|f| f.1 + 0.0).collect(),
            positive: films.iter().map(|f| f.0).collect(),
            study,
            studies: names.len(),
        })
    }

    /// Number of films.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// No film.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// Number of positive films.
    pub fn positives(&self) -> usize {
        self.positives
    }

    /// Number of negative films.
    pub fn negatives(&self) -> usize {
        self.len() - self.positives
    }

    /// Number of studies.
    pub fn studies(&self) -> usize {
        self.studies
    }

    /// Scores, best first.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// Labels in the order of [`Self::scores`].
    pub fn positive(&self) -> &[bool] {
        &self.positive
    }

    /// Study numbers, `0..studies()`, in the order of [`Self::scores`].
    pub(crate) fn study(&self) -> &[u32] {
        &self.study
    }

    /// Both classes occur, so that ROC is defined.
    pub fn has_both_classes(&self) -> bool {
        self.positives() > 0 && self.negatives() > 0
    }

    /// Every score lies in `[0, 1]`.
    pub fn are_probabilities(&self) -> bool {
        self.scores.iter().all(|s| (0.0..=1.0).contains(s))
    }

    /// One score and label a study: its highest score, and whether any of its films is positive.
    pub fn by_study(&self) -> Self {
        let mut best = vec![(false, f64::NEG_INFINITY); self.studies];
        for ((&study, &score), &positive) in self.study.iter().zip(&self.scores).zip(&self.positive) {
            let of = &mut best[study as usize];
            *of = (of.0 || positive, of.1.max(score));
        }
        let (positive, scores): (Vec<bool>, Vec<f64>) = best.into_iter().unzip();
        Self::new(&positive, &scores).expect("each study has a film, whose score is finite")
    }

    /// Counts at every distinct score, highest first; films of equal score enter together.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let (mut tp, mut fp) = (0, 0);
        for (i, &threshold) in self.scores.iter().enumerate() {
            if self.positive[i] {
                tp += 1;
            } else {
                fp += 1;
            }
            if self.scores.get(i + 1) != Some(&threshold) {
                steps.push(Step { threshold, tp, fp });
            }
        }
        steps
    }
}

/// Higher scores first, positive films before negative ones; both zeros are one score.
fn best_first(a: (bool, f64), b: (bool, f64)) -> std::cmp::Ordering {
    (b.1 + 0.0).total_cmp(&(a.1 + 0.0)).then(b.0.cmp(&a.0))
}

fn check(scores: impl Iterator<Item = f64>) -> Result<(), EvalError> {
    match scores.enumerate().find(|s| !s.1.is_finite()) {
        Some((index, value)) => {
            Err(EvalError::Score { index, problem: Problem::NotFinite { what: "score".into(), value } })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tied_films_enter_together() {
        let data = LabelledScores::new(&[true, false, false, true], &[0.5, 0.5, 0.1, 0.9]).unwrap();
        let counts: Vec<_> = data.steps().iter().map(|s| (s.threshold, s.tp, s.fp)).collect();
        assert_eq!(counts, [(0.9, 1, 0), (0.5, 2, 1), (0.1, 2, 2)]);
    }

    #[test]
    fn a_study_is_as_suspicious_as_its_worst_film() {
        let films = [(false, 0.9, "a"), (true, 0.2, "a"), (false, 0.4, "b"), (false, 0.1, "b")];
        let studies = LabelledScores::with_studies(films).unwrap().by_study();
        assert_eq!(studies.scores(), [0.9, 0.4]);
        assert_eq!(studies.positive(), [true, false]);
        assert_eq!(LabelledScores::new(&[], &[]).unwrap().by_study().len(), 0);
    }

    #[test]
    fn both_zeros_are_one_score() {
        let data = LabelledScores::new(&[true, false], &[0.0, -0.0]).unwrap();
        assert_eq!(data.steps().len(), 1);
    }

    #[test]
    fn a_score_that_is_no_number_is_refused() {
        let error = LabelledScores::new(&[true, false], &[0.5, f64::NAN]).unwrap_err();
        assert_eq!(error.to_string(), "score 1: score is NaN; expected a finite number");
        assert!(LabelledScores::new(&[true], &[]).is_err());
    }
}
