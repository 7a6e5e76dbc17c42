//! A reader's reading of one film: boxes with their findings, or that there is nothing to find.

use crate::store::SavedAnnotation;
use serde::{Deserialize, Serialize};
use spinexr_core::BoxXyxy;
use spinexr_eval::agreement::{Agreement, FilmReading, agreement};
use std::collections::{BTreeMap, HashSet};

/// Most boxes of a reading, and most rejected boxes.
const MAX_BOXES: usize = 1000;
/// Most bytes of what names a box of the model.
const MAX_FROM_BYTES: usize = 400;

/// How far a reading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnotationState {
    /// Under way.
    Draft,
    /// The reader has said that it is done.
    Complete,
}

impl AnnotationState {
    /// `draft`, `complete`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Complete => "complete",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Draft, Self::Complete].into_iter().find(|state| state.name() == name)
    }
}

/// Who drew a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The reader.
    Reader,
    /// The model; the reader has accepted it, and perhaps changed it.
    Model,
}

/// A box of a reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnotatedBox {
    /// Its name within the reading.
    pub id: String,
    /// What it shows.
    pub label: String,
    /// Where, film px.
    pub xyxy: BoxXyxy,
    /// Who drew it.
    pub origin: Origin,
    /// The model's score, of a box that came from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// The model's box that was accepted: label and place as the model gave them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// A box of the model that the reader holds to be wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectedBox {
    /// What the model saw.
    pub label: String,
    /// How sure it was.
    pub score: f32,
    /// Where, film px.
    pub xyxy: BoxXyxy,
}

/// A reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annotation {
    /// How far it has come.
    pub state: AnnotationState,
    /// The reader says that there is nothing to find.
    pub no_finding: bool,
    /// What was found.
    pub boxes: Vec<AnnotatedBox>,
    /// Boxes of the model that the reader holds to be wrong.
    #[serde(default)]
    pub rejected: Vec<RejectedBox>,
}

impl Annotation {
    /// What is wrong with a reading of a film of that size, if anything. `labels`: those that may be used.
    ///
    /// # Errors
    /// A sentence for the reader: the box, what was expected, what was found.
    pub fn check(&self, labels: &[String], width_px: u32, height_px: u32) -> Result<(), String> {
        let most = self.boxes.len().max(self.rejected.len());
        if most > MAX_BOXES {
            return Err(format!("expected {MAX_BOXES} boxes at most, got {most}"));
        }
        let mut ids = HashSet::new();
        for AnnotatedBox { id, label, xyxy, score, from, .. } in &self.boxes {
            let is_name = (1..=16).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
            if !is_name {
                return Err(format!("box {id:?}: expected an id of 1 to 16 letters and digits"));
            }
            if !ids.insert(id) {
                return Err(format!("box {id}: two boxes of that id"));
            }
            if !labels.contains(label) {
                return Err(format!("box {id}: unknown finding {label:?}; known: {}", labels.join(", ")));
            }
            let is_inside = xyxy.is_proper()
                && xyxy.x1 >= 0.0
                && xyxy.y1 >= 0.0
                && xyxy.x2 <= width_px as f32
                && xyxy.y2 <= height_px as f32;
            if !is_inside {
                let found = [xyxy.x1, xyxy.y1, xyxy.x2, xyxy.y2];
                return Err(format!(
                    "box {id}: expected a box inside 0, 0, {width_px}, {height_px}, got {found:?}"
                ));
            }
            if score.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
                return Err(format!("box {id}: expected a score of 0 to 1, got {score:?}"));
            }
            if from.as_ref().is_some_and(|from| from.len() > MAX_FROM_BYTES) {
                return Err(format!("box {id}: expected {MAX_FROM_BYTES} bytes in \"from\" at most"));
            }
        }
        if self.rejected.iter().any(|r| !r.xyxy.is_finite() || r.label.len() > MAX_FROM_BYTES) {
            return Err("a rejected box is none: its place is not finite, or its label too long".to_owned());
        }
        if self.no_finding && !self.boxes.is_empty() {
            return Err("expected either boxes or \"no finding\", got both".to_owned());
        }
        if self.state == AnnotationState::Complete && !self.no_finding && self.boxes.is_empty() {
            return Err("a complete reading has boxes, or says \"no finding\"".to_owned());
        }
        Ok(())
    }
}

/// Two readers compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// One of them.
    pub first: String,
    /// The other.
    pub second: String,
    /// On the films that both have completed.
    pub agreement: Agreement,
}

/// Every two readers who have completed a film in common, by name. `iou`: least overlap of boxes that are the same.
pub fn compare(saved: &[SavedAnnotation], iou: f64) -> Vec<Pair> {
    let mut by_reader: BTreeMap<&str, BTreeMap<&str, FilmReading>> = BTreeMap::new();
    for saved in saved.iter().filter(|saved| saved.annotation.state == AnnotationState::Complete) {
        let boxes = saved.annotation.boxes.iter().map(|b| (b.label.clone(), b.xyxy)).collect();
        by_reader.entry(&saved.reader).or_default().insert(&saved.film, FilmReading { boxes });
    }
    let mut pairs = vec![];
    for (i, (first, a)) in by_reader.iter().enumerate() {
        for (second, b) in by_reader.iter().skip(i + 1) {
            let both: Vec<_> = a.iter().filter_map(|(film, reading)| Some((reading, b.get(film)?))).collect();
            if !both.is_empty() {
                let agreement = agreement(&both, iou);
                pairs.push(Pair { first: (*first).to_owned(), second: (*second).to_owned(), agreement });
            }
        }
    }
    pairs
}

/// Whether a text can name a reader: 1 to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit.
pub fn is_reader_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn annotation() -> Annotation {
        let text = r#"{"state":"complete","no_finding":false,"boxes":[
            {"id":"b1","label":"Osteophytes","xyxy":[1,2,30,40],"origin":"reader"},
            {"id":"b2","label":"Surgical implant","xyxy":[0,0,100,200],"origin":"model","score":0.5,"from":"Surgical implant|0,0,9,9"}],
            "rejected":[{"label":"Osteophytes","score":0.25,"xyxy":[5,5,9,9]}]}"#;
        serde_json::from_str(text).unwrap()
    }

    fn labels() -> Vec<String> {
        vec!["Osteophytes".into(), "Surgical implant".into()]
    }

    #[test]
    fn a_proper_reading_passes() {
        let proper = annotation();
        assert_eq!(proper.check(&labels(), 100, 200), Ok(()));
        let text = serde_json::to_string(&proper).unwrap();
        assert_eq!(serde_json::from_str::<Annotation>(&text).unwrap(), proper);
    }

    #[test]
    fn what_is_wrong_is_said() {
        type Spoil = fn(&mut Annotation);
        let cases: [(&str, Spoil); 10] = [
            ("inside 0, 0, 100, 200", |a| a.boxes[1].xyxy.x2 = 100.5),
            ("inside 0, 0, 100, 200", |a| a.boxes[0].xyxy.x1 = f32::NAN),
            ("inside 0, 0, 100, 200", |a| a.boxes[0].xyxy.x2 = 1.0),
            ("unknown finding \"Spur\"", |a| a.boxes[0].label = "Spur".into()),
            ("two boxes of that id", |a| a.boxes[1].id = "b1".into()),
            ("1 to 16 letters and digits", |a| a.boxes[1].id = "../b".into()),
            ("score of 0 to 1", |a| a.boxes[1].score = Some(2.0)),
            ("either boxes or", |a| a.no_finding = true),
            ("has boxes, or says", |a| a.boxes.clear()),
            ("1000 boxes at most", |a| a.boxes = vec![a.boxes[0].clone(); 1001]),
        ];
        for (part, spoil) in cases {
            let mut spoilt = annotation();
            spoil(&mut spoilt);
            let error = spoilt.check(&labels(), 100, 200).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn names_of_readers() {
        for name in ["a", "dr.who", "R2_d2-x"] {
            assert!(is_reader_name(name), "{name}");
        }
        for name in ["", ".a", "a b", "ä", "a/b", &"a".repeat(65)] {
            assert!(!is_reader_name(name), "{name}");
        }
    }
}
