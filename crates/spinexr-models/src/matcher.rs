//! Which anchor answers for which true box.
//!
//! Reference: `torchvision.models.detection._utils.Matcher`. One deliberate difference: a true box that overlaps no
//! anchor at all claims none, where torchvision, with low-quality matches allowed, lets it claim every anchor without
//! overlap.

use spinexr_core::BoxXyxy;

/// The rôle of an anchor in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Answers for the true box of this index.
    Foreground(usize),
    /// Lies on no true box.
    Background,
    /// Between the two: no part of the loss.
    Ignored,
}

/// The overlaps that decide.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatcherConfig {
    /// IoU from which an anchor is foreground.
    pub foreground_iou: f32,
    /// IoU below which an anchor is background.
    pub background_iou: f32,
    /// Whether the best anchors of a true box are foreground whatever their IoU (`allow_low_quality_matches`).
    pub low_quality_matches: bool,
}

impl MatcherConfig {
    /// RetinaNet's 0.5 and 0.4; no true box goes without an anchor.
    pub const RETINANET: Self = Self { foreground_iou: 0.5, background_iou: 0.4, low_quality_matches: true };

    /// A [`Match`] for every anchor.
    ///
    /// An anchor goes to the true box it overlaps most, the first of equals. With low-quality matches the best anchors
    /// of a true box, all of equal ones, are foreground whatever their IoU, so that no box is without an anchor.
    pub fn assign(&self, anchors: &[BoxXyxy], truth: &[BoxXyxy]) -> Vec<Match> {
        let mut best_iou = vec![0.0f32; anchors.len()];
        let mut best_box = vec![0usize; anchors.len()];
        let mut forced = vec![false; anchors.len()];
        let mut leaders: Vec<usize> = Vec::new();
        for (index, target) in truth.iter().enumerate() {
            let mut highest = 0.0;
            leaders.clear();
            for (a, anchor) in anchors.iter().enumerate() {
                let iou = target.iou(anchor);
                if iou > best_iou[a] {
                    best_iou[a] = iou;
                    best_box[a] = index;
                }
                if iou > highest {
                    highest = iou;
                    leaders.clear();
                    leaders.push(a);
                } else if iou == highest && highest > 0.0 {
                    leaders.push(a);
                }
            }
            if self.low_quality_matches {
                leaders.iter().for_each(|&a| forced[a] = true);
            }
        }
        (0..anchors.len())
            .map(|a| match best_iou[a] {
                iou if iou >= self.foreground_iou || forced[a] => Match::Foreground(best_box[a]),
                iou if iou < self.background_iou => Match::Background,
                _ => Match::Ignored,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn column(x: f32) -> BoxXyxy {
        BoxXyxy::new(x, 0.0, x + 10.0, 10.0)
    }

    #[test]
    fn thresholds_split_the_anchors() {
        // IoU with the truth at 0: 1, 0.6.., 0.43, 0
        let anchors = [column(0.0), column(2.5), column(4.0), column(40.0)];
        let matches = MatcherConfig::RETINANET.assign(&anchors, &[column(0.0)]);
        use Match::*;
        assert_eq!(matches, [Foreground(0), Foreground(0), Ignored, Background]);
    }

    #[test]
    fn a_poor_best_anchor_still_answers() {
        let anchors = [column(8.0), column(8.0), column(30.0)];
        let matches = MatcherConfig::RETINANET.assign(&anchors, &[column(0.0)]);
        use Match::*;
        assert_eq!(matches, [Foreground(0), Foreground(0), Background]);
    }

    #[test]
    fn without_low_quality_matches_a_box_may_go_without_an_anchor() {
        let config = MatcherConfig { low_quality_matches: false, ..MatcherConfig::RETINANET };
        let anchors = [column(8.0), column(4.0), column(30.0)];
        use Match::*;
        assert_eq!(config.assign(&anchors, &[column(0.0)]), [Background, Ignored, Background]);
    }

    #[test]
    fn a_forced_anchor_keeps_its_own_best_box() {
        // The only anchor near box 1 overlaps box 0 more: it is forced by box 1, yet answers for box 0.
        let anchors = [column(0.0)];
        let matches = MatcherConfig::RETINANET.assign(&anchors, &[column(1.0), column(8.0)]);
        assert_eq!(matches, [Match::Foreground(0)]);
    }

    #[test]
    fn a_box_beyond_all_anchors_claims_none() {
        let matches = MatcherConfig::RETINANET.assign(&[column(0.0)], &[column(500.0)]);
        assert_eq!(matches, [Match::Background]);
    }

    #[test]
    fn without_boxes_all_is_background() {
        let matches = MatcherConfig::RETINANET.assign(&[column(0.0), column(5.0)], &[]);
        assert_eq!(matches, [Match::Background, Match::Background]);
    }

    proptest! {
        #[test]
        fn every_overlapped_box_has_an_anchor_near_it(
            raw in prop::collection::vec((0.0f32..90.0, 0.0f32..90.0, 2.0f32..60.0, 2.0f32..60.0), 1..12)
        ) {
            let anchors: Vec<_> = (0..100)
                .map(|i| BoxXyxy::new(0.0, 0.0, 16.0, 16.0).translate((i % 10) as f32 * 10.0, (i / 10) as f32 * 10.0))
                .collect();
            let truth: Vec<_> = raw.iter().map(|r| BoxXyxy::new(r.0, r.1, r.0 + r.2, r.1 + r.3)).collect();
            let matches = MatcherConfig::RETINANET.assign(&anchors, &truth);
            for target in &truth {
                let best = anchors.iter().map(|a| a.iou(target)).fold(0.0, f32::max);
                let all_foreground = anchors.iter().zip(&matches)
                    .filter(|(a, _)| best > 0.0 && a.iou(target) == best)
                    .all(|(_, m)| matches!(m, Match::Foreground(_)));
                prop_assert!(all_foreground);
            }
        }
    }
}
