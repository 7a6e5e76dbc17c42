//! What is written down for a film: one JSON Lines record.
//!
//! Every table, curve and threshold is computed from these records and the annotations; no model is
//! needed to repeat an evaluation.

use crate::{BoxXyxy, FilmFacts, Gate, Label, Method, Split, fusion};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A box that a detector proposes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Class.
    pub label: Label,
    /// Sigmoid of the class logit, `[0, 1]`.
    pub score: f32,
    /// Place, film px.
    pub xyxy: BoxXyxy,
}

/// Milliseconds spent on a film, by stage.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// Reading and decoding.
    pub read_ms: f64,
    /// Classifiers, shared out evenly over the batch.
    pub classify_ms: f64,
    /// Detector with its post-processing, shared out evenly over the batch.
    pub detect_ms: f64,
}

/// What a classifier says of a film. In files a number, or a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Logits {
    /// Of being abnormal: a member of the ensemble.
    Abnormal(f64),
    /// One a class of a classifier for other things, which has no part in the ensemble.
    Classes(Vec<f64>),
}

impl Logits {
    /// The logit of being abnormal, if that is what the classifier is for.
    pub fn abnormal(&self) -> Option<f64> {
        match self {
            Self::Abnormal(logit) => Some(*logit),
            Self::Classes(_) => None,
        }
    }

    /// The mean of the logits of several views of one film, as one classifier gives them; `None` without a view, or when
    /// their classes differ.
    pub fn mean(views: &[Self]) -> Option<Self> {
        let count = views.len() as f64;
        match views.first()? {
            Self::Abnormal(_) => {
                let logits: Option<Vec<f64>> = views.iter().map(Self::abnormal).collect();
                Some(Self::Abnormal(logits?.iter().sum::<f64>() / count))
            }
            Self::Classes(first) => {
                let mut sums = vec![0.0; first.len()];
                for view in views {
                    match view {
                        Self::Classes(logits) if logits.len() == sums.len() => {
                            sums.iter_mut().zip(logits).for_each(|(sum, logit)| *sum += logit);
                        }
                        _ => return None,
                    }
                }
                Some(Self::Classes(sums.into_iter().map(|sum| sum / count).collect()))
            }
        }
    }

    /// All values.
    pub fn values(&self) -> &[f64] {
        match self {
            Self::Abnormal(logit) => std::slice::from_ref(logit),
            Self::Classes(logits) => logits,
        }
    }
}

impl From<f64> for Logits {
    fn from(logit: f64) -> Self {
        Self::Abnormal(logit)
    }
}

/// The record of one film.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilmPrediction {
    /// File stem of the film, the image id of the data set.
    pub image: String,
    /// Study identifier; the image id where none is known.
    pub study: String,
    /// Part of the data set, when predicted on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Film height, px.
    pub height_px: u32,
    /// Film width, px.
    pub width_px: u32,
    /// Coded facts of the film's header, none of which points to a person; absent where nothing is known.
    #[serde(default, skip_serializing_if = "FilmFacts::is_empty")]
    pub facts: FilmFacts,
    /// Film-level logits of each classifier, by model name.
    pub logits: BTreeMap<String, Logits>,
    /// Sigmoid of the mean logit; `None` without a classifier.
    pub p_abnormal: Option<f64>,
    /// c*, the validation threshold on `p_abnormal`; `None` before one was chosen.
    pub threshold: Option<f64>,
    /// Boxes after the decision rule.
    pub boxes: Vec<Detection>,
    /// Boxes of the detector alone.
    pub boxes_before_gate: Vec<Detection>,
    /// Views and how boxes were put together; absent where each model ran once and there was one detector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// What was done to the pixels, as data (see `spinexr-dicom`).
    pub pixels: serde_json::Value,
    /// Time spent.
    #[serde(default)]
    pub timings: Timings,
    /// Hash of the bundle that made the record.
    pub model: String,
    /// True for demonstration models: trained on synthetic films, for showing how the program works.
    #[serde(default)]
    pub demonstration: bool,
}

impl FilmPrediction {
    /// Mean of the classifiers' logits of being abnormal; `None` without such a classifier.
    pub fn ensemble_logit(&self) -> Option<f64> {
        let logits: Vec<f64> = self.logits.values().filter_map(Logits::abnormal).collect();
        fusion::ensemble_logit(&logits)
    }

    /// Sets `threshold` and `boxes` from `boxes_before_gate` by the decision rule. Without a classifier
    /// every box stays.
    pub fn apply_gate(&mut self, gate: &Gate) {
        self.threshold = Some(gate.c_star);
        self.boxes = match self.p_abnormal {
            Some(p) => gate.apply(p, &self.boxes_before_gate),
            None => self.boxes_before_gate.clone(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Finding;

    #[test]
    fn views_of_one_classifier_have_a_mean() {
        let classes = |values: [f64; 2]| Logits::Classes(values.to_vec());
        assert_eq!(
            Logits::mean(&[Logits::Abnormal(1.0), Logits::Abnormal(-2.0)]),
            Some(Logits::Abnormal(-0.5))
        );
        assert_eq!(Logits::mean(&[classes([1.0, 2.0]), classes([3.0, 0.0])]), Some(classes([2.0, 1.0])));
        assert_eq!(Logits::mean(&[classes([1.0, 2.0]), Logits::Abnormal(1.0)]), None);
        assert_eq!(Logits::mean(&[]), None);
    }

    fn record() -> FilmPrediction {
        let detection = |score| Detection {
            label: Finding::VertebralCollapse.label(),
            score,
            xyxy: BoxXyxy::new(1.0, 2.0, 30.0, 40.0),
        };
        FilmPrediction {
            image: "a".into(),
            study: "s".into(),
            split: Some(Split::Test),
            height_px: 100,
            width_px: 80,
            facts: FilmFacts { view: Some("AP".into()), ..FilmFacts::default() },
            logits: BTreeMap::from([
                ("densenet121".to_owned(), Logits::Abnormal(-2.0)),
                ("densenet169".to_owned(), Logits::Abnormal(0.0)),
                ("three_classes".to_owned(), Logits::Classes(vec![9.0, 1.5, -9.0])),
            ]),
            p_abnormal: Some(fusion::sigmoid(-1.0)),
            threshold: None,
            boxes: vec![],
            boxes_before_gate: vec![detection(0.75), detection(0.25)],
            method: None,
            pixels: serde_json::json!({"polarity": "none"}),
            timings: Timings::default(),
            model: "abc".into(),
            demonstration: false,
        }
    }

    #[test]
    fn a_record_survives_json() {
        let mut record = record();
        record.apply_gate(&Gate::with_c_star(0.28));
        let line = serde_json::to_string(&record).unwrap();
        assert!(!line.contains('\n'));
        assert!(line.contains(r#""densenet121":-2.0"#) && line.contains(r#""three_classes":[9.0,1.5,-9.0]"#));
        assert_eq!(serde_json::from_str::<FilmPrediction>(&line).unwrap(), record);
    }

    #[test]
    fn the_gate_reads_p_abnormal() {
        let mut record = record(); // p = sigmoid(-1) = 0.269
        assert_eq!(record.ensemble_logit(), Some(-1.0));
        record.apply_gate(&Gate::with_c_star(0.28));
        assert_eq!(record.boxes.len(), 1);
        record.apply_gate(&Gate::with_c_star(0.26));
        assert_eq!(record.boxes.len(), 2);
        record.p_abnormal = None;
        record.apply_gate(&Gate::with_c_star(0.28));
        assert_eq!(record.boxes, record.boxes_before_gate);
    }
}
