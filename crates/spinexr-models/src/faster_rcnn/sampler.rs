//! Which anchors or proposals of an image take part in a loss: a fixed number, foreground up to a share of it.
//!
//! Reference: `torchvision.models.detection._utils.BalancedPositiveNegativeSampler`. What is drawn there from a
//! global generator is a pure function of a seed here.

use serde::{Deserialize, Serialize};

use crate::init::Stream;
use crate::matcher::Match;

/// How many are taken of an image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// Of both kinds together; fewer where an image has not as many.
    pub per_image: usize,
    /// Largest share of foreground. What foreground lacks, background fills.
    pub foreground_share: f64,
}

/// Which of more candidates than are needed are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleOrder {
    /// Drawn at random; the same seed draws the same.
    Drawn(u64),
    /// The first by index, to compare implementations.
    ByIndex,
}

/// The indices that were taken, each list ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Foreground.
    pub foreground: Vec<usize>,
    /// Background.
    pub background: Vec<usize>,
}

impl Sample {
    /// Both kinds, ascending.
    pub fn all(&self) -> Vec<usize> {
        let mut all = [&self.foreground[..], &self.background[..]].concat();
        all.sort_unstable();
        all
    }
}

impl SamplerConfig {
    /// A sample of `matches`. `purpose` tells draws of one seed apart, such as `rpn/0` for the anchors of image 0.
    pub fn sample(&self, matches: &[Match], order: SampleOrder, purpose: &str) -> Sample {
        let indices = |wanted: fn(&Match) -> bool| -> Vec<usize> {
            (0..matches.len()).filter(|&index| wanted(&matches[index])).collect()
        };
        let foreground = indices(|found| matches!(found, Match::Foreground(_)));
        let background = indices(|found| matches!(found, Match::Background));
        let most_foreground = (self.per_image as f64 * self.foreground_share) as usize;
        let foreground = order.take(foreground, most_foreground, &format!("{purpose}/foreground"));
        let left = self.per_image.saturating_sub(foreground.len());
        let background = order.take(background, left, &format!("{purpose}/background"));
        Sample { foreground, background }
    }
}

impl SampleOrder {
    /// At most `count` of `candidates`, which are ascending, as is the result.
    fn take(self, mut candidates: Vec<usize>, count: usize, purpose: &str) -> Vec<usize> {
        if count >= candidates.len() {
            return candidates;
        }
        if let Self::Drawn(seed) = self {
            // The first `count` steps of Fisher's and Yates's shuffle.
            let mut stream = Stream::new(seed, purpose);
            for place in 0..count {
                let from = place + stream.below(candidates.len() - place);
                candidates.swap(place, from);
            }
        }
        candidates.truncate(count);
        candidates.sort_unstable();
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every third foreground, every seventh ignored, the others background.
    fn matches(count: usize) -> Vec<Match> {
        (0..count)
            .map(|i| match i {
                i if i % 3 == 0 => Match::Foreground(i % 5),
                i if i % 7 == 0 => Match::Ignored,
                _ => Match::Background,
            })
            .collect()
    }

    const EIGHT: SamplerConfig = SamplerConfig { per_image: 8, foreground_share: 0.25 };

    #[test]
    fn by_index_takes_the_first() {
        let sample = EIGHT.sample(&matches(40), SampleOrder::ByIndex, "rpn/0");
        assert_eq!(sample.foreground, [0, 3]);
        assert_eq!(sample.background, [1, 2, 4, 5, 8, 10]);
        assert_eq!(sample.all(), [0, 1, 2, 3, 4, 5, 8, 10]);
    }

    #[test]
    fn background_fills_what_foreground_lacks_and_nothing_is_invented() {
        let only = |kind: Match, count| vec![kind; count];
        let sample = EIGHT.sample(&only(Match::Background, 20), SampleOrder::Drawn(1), "rpn/0");
        assert_eq!((sample.foreground.len(), sample.background.len()), (0, 8));
        let sample = EIGHT.sample(&only(Match::Foreground(0), 20), SampleOrder::Drawn(1), "rpn/0");
        assert_eq!((sample.foreground.len(), sample.background.len()), (2, 0));
        let sample = EIGHT.sample(&only(Match::Ignored, 20), SampleOrder::Drawn(1), "rpn/0");
        assert!(sample.all().is_empty());
        assert!(EIGHT.sample(&[], SampleOrder::Drawn(1), "rpn/0").all().is_empty());
    }

    #[test]
    fn a_draw_depends_on_seed_and_purpose_alone() {
        let all = matches(400);
        let draw = |seed, purpose| EIGHT.sample(&all, SampleOrder::Drawn(seed), purpose);
        assert_eq!(draw(5, "rpn/0"), draw(5, "rpn/0"));
        assert_ne!(draw(5, "rpn/0"), draw(6, "rpn/0"));
        assert_ne!(draw(5, "rpn/0"), draw(5, "rpn/1"));
    }

    #[test]
    fn each_candidate_is_drawn_as_often() {
        let all = vec![Match::Background; 20];
        let mut times = [0usize; 20];
        for seed in 0..2000 {
            let sample = EIGHT.sample(&all, SampleOrder::Drawn(seed), "rpn/0");
            sample.background.iter().for_each(|&i| times[i] += 1);
        }
        // 800 expected; five standard deviations are 110.
        assert!(times.iter().all(|&n| (690..=910).contains(&n)), "{times:?}");
    }

    proptest! {
        #[test]
        fn a_sample_is_ascending_distinct_and_of_the_right_kind(count in 0usize..300, seed: u64) {
            let all = matches(count);
            let sample = EIGHT.sample(&all, SampleOrder::Drawn(seed), "roi/0");
            prop_assert!(sample.all().windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(sample.foreground.iter().all(|&i| matches!(all[i], Match::Foreground(_))));
            prop_assert!(sample.background.iter().all(|&i| matches!(all[i], Match::Background)));
            prop_assert!(sample.foreground.len() <= 2 && sample.all().len() <= 8);
        }
    }
}
