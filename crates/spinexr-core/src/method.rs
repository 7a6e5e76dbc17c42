//! What was done at prediction beside running each model once: views of a film, and how boxes were put together.
//!
//! It changes probabilities and scores, so a threshold holds for the method of the predictions it was chosen on. A
//! record and a bundle therefore carry it.

use crate::box_fusion::WeightedBoxFusion;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The views of a film that each model sees beside the film as it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tta {
    /// Also mirrored left to right, at every size.
    #[serde(default)]
    pub flip: bool,
    /// Further sizes, as shares of the model's input size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scales: Vec<f32>,
}

/// One view of a film.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Share of the model's input size.
    pub scale: f32,
    /// Mirrored left to right.
    pub flip: bool,
}

impl Tta {
    /// Least and largest of `scales`.
    pub const SCALES: std::ops::RangeInclusive<f32> = 0.25..=4.0;

    /// No other view.
    pub const fn none() -> Self {
        Self { flip: false, scales: Vec::new() }
    }

    /// The film as it is, then the other views.
    pub fn views(&self) -> Vec<View> {
        let scales = std::iter::once(1.0).chain(self.scales.iter().copied());
        let flips: &[bool] = if self.flip { &[false, true] } else { &[false] };
        scales.flat_map(|scale| flips.iter().map(move |&flip| View { scale, flip })).collect()
    }
}

/// How the boxes of several detectors and views become one list.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxFusion {
    /// Class-wise suppression over all of them.
    Nms,
    /// Weighted box fusion, all lists counting the same.
    Wbf(WeightedBoxFusion),
}

/// What was done at prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// Views of each film: logits are averaged over them, boxes put together.
    pub tta: Tta,
    /// How boxes were put together; used where there is more than one detector or view.
    pub box_fusion: BoxFusion,
}

impl Method {
    /// One view; several detectors by weighted box fusion.
    pub const fn plain() -> Self {
        Self { tta: Tta::none(), box_fusion: BoxFusion::Wbf(WeightedBoxFusion::PUBLISHED) }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.tta.flip, self.tta.scales.as_slice()) {
            (false, []) => f.write_str("one view a film")?,
            (flip, scales) => {
                let views = self.tta.views().len();
                write!(f, "{views} views a film (")?;
                f.write_str(if flip { "flip" } else { "" })?;
                f.write_str(if flip && !scales.is_empty() { ", " } else { "" })?;
                if !scales.is_empty() {
                    write!(
                        f,
                        "sizes 1, {}",
                        scales.iter().map(f32::to_string).collect::<Vec<_>>().join(", ")
                    )?;
                }
                f.write_str(")")?;
            }
        }
        match self.box_fusion {
            BoxFusion::Nms => f.write_str(", boxes joined by suppression"),
            BoxFusion::Wbf(w) => {
                write!(f, ", boxes joined by weighted box fusion at IoU {}", w.iou_threshold)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_begin_with_the_film_as_it_is() {
        assert_eq!(Tta::none().views(), [View { scale: 1.0, flip: false }]);
        let views = Tta { flip: true, scales: vec![0.75] }.views();
        let brief: Vec<(f32, bool)> = views.iter().map(|v| (v.scale, v.flip)).collect();
        assert_eq!(brief, [(1.0, false), (1.0, true), (0.75, false), (0.75, true)]);
    }

    #[test]
    fn a_method_reads_as_it_is_written_and_says_itself_in_words() {
        let method = Method { tta: Tta { flip: true, scales: vec![0.75, 1.25] }, ..Method::plain() };
        let json = serde_json::to_string(&method).unwrap();
        assert_eq!(serde_json::from_str::<Method>(&json).unwrap(), method);
        assert_eq!(
            method.to_string(),
            "6 views a film (flip, sizes 1, 0.75, 1.25), boxes joined by weighted box fusion at IoU 0.55"
        );
        let plain = Method { box_fusion: BoxFusion::Nms, ..Method::plain() };
        assert_eq!(plain.to_string(), "one view a film, boxes joined by suppression");
    }
}
