//! A file's tensors held against a network's: which is which, what is lacking, what is left over.

use serde::Serialize;

use super::sources::{Source, unwrapped};
use super::{Entry, Mismatch, StateDict, WeightsError};

/// What became of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Taken as it is.
    Matched,
    /// Taken in another form; [`Row::note`] says how.
    Reshaped,
    /// Asked to be left out: the network keeps its random values.
    LeftOut,
    /// In the file, of no use here, and no reason for doubt.
    Unused,
    /// The network has it, the file has not.
    Missing,
    /// The file has it, the network has not.
    Unexpected,
    /// Both have it, in shapes that do not fit.
    WrongShape,
}

/// One tensor of the network or the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The network's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The file's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// The network's shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<usize>>,
    /// The file's shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_shape: Option<Vec<usize>>,
    /// What became of it.
    pub fate: Fate,
    /// A remark for people.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub note: &'static str,
}

/// A file held against a network.
#[derive(Debug, Clone)]
pub struct Import {
    /// Every tensor of both: the network's by name, then what is left of the file.
    pub rows: Vec<Row>,
    /// The network's weights: the file's where they were taken, its own where left out.
    state: StateDict,
}

/// RetinaNet's tensor that tells how many anchors a place has: four offsets each.
const BOX_OFFSETS: &str = "head.regression_head.bbox_reg.bias";

/// Note of the rows whose first class was dropped.
const BACKGROUND: &str = "without torchvision's unused class 0, the background";

/// The file's tensors under the network's names. Names that lead nowhere keep theirs, in the second part.
///
/// # Errors
/// [`WeightsError::Format`] when two tensors of the file would be the same of the network.
pub fn named_as(
    network: &StateDict,
    file: StateDict,
    source: Source,
) -> Result<(Named, StateDict), WeightsError> {
    let mut named = Named::new();
    let mut rest = StateDict::new();
    let file = unwrapped(file);
    let finest_level = source.finest_level(file.keys().map(String::as_str));
    for (theirs, entry) in file {
        match source.candidates(&theirs, finest_level).into_iter().find(|ours| network.contains_key(ours)) {
            None => drop(rest.insert(theirs, entry)),
            Some(ours) => {
                if let Some((first, _)) = named.get(&ours) {
                    let message = format!("{first:?} and {theirs:?} of the file are both {ours:?}");
                    return Err(WeightsError::Format(message));
                }
                named.insert(ours, (theirs, entry));
            }
        }
    }
    Ok((named, rest))
}

/// The network's name → the file's name and values.
pub type Named = std::collections::BTreeMap<String, (String, Entry)>;

/// Whether `name` is `prefix` or lies under it: `head` holds `head.weight`, not `header.weight`.
pub fn is_under(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| prefix.ends_with('.') || rest.is_empty() || rest.starts_with('.'))
}

impl Import {
    /// Holds `file` against `network`, a state dict of random weights. What lies under a name of `leave_out`, on
    /// either side, is passed over.
    ///
    /// # Errors
    /// As [`named_as`]. What does not fit is in the rows; see [`Import::into_state`].
    pub fn new(
        network: StateDict,
        file: StateDict,
        source: Source,
        leave_out: &[String],
    ) -> Result<Self, WeightsError> {
        let left_out = |name: &str| leave_out.iter().any(|prefix| is_under(name, prefix));
        let (mut named, rest) = named_as(&network, file, source)?;
        let is_backbone =
            named.iter().any(|(ours, (theirs, _))| ours != theirs && ours.starts_with("backbone."));
        let anchors = network.get(BOX_OFFSETS).map_or(0, |entry| entry.values.len() / 4);
        let mut rows = Vec::with_capacity(network.len() + rest.len());
        let mut state = StateDict::new();
        for (name, own) in network {
            let found = named.remove(&name);
            let mut row = Row {
                file_name: found.as_ref().map(|(theirs, _)| theirs.clone()),
                file_shape: found.as_ref().map(|(_, entry)| entry.shape.clone()),
                shape: Some(own.shape.clone()),
                fate: Fate::Missing,
                note: "",
                name: Some(name.clone()),
            };
            if left_out(&name) || found.as_ref().is_some_and(|(theirs, _)| left_out(theirs)) {
                (row.fate, row.note) = (Fate::LeftOut, "random values");
                state.insert(name, own);
            } else if let Some((_, entry)) = found {
                if entry.shape == own.shape {
                    row.fate = Fate::Matched;
                    state.insert(name, entry);
                } else if let Some(entry) = without_background(&name, &entry, &own.shape, source, anchors) {
                    (row.fate, row.note) = (Fate::Reshaped, BACKGROUND);
                    state.insert(name, entry);
                } else {
                    row.fate = Fate::WrongShape;
                }
            }
            rows.push(row);
        }
        for (theirs, entry) in rest {
            let (fate, note) = match () {
                () if left_out(&theirs) => (Fate::LeftOut, ""),
                () if source.is_spare(&theirs, is_backbone) => {
                    (Fate::Unused, "not a part of the network here")
                }
                () => (Fate::Unexpected, ""),
            };
            let file_shape = Some(entry.shape);
            rows.push(Row { name: None, file_name: Some(theirs), shape: None, file_shape, fate, note });
        }
        Ok(Self { rows, state })
    }

    /// How many tensors had this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.rows.iter().filter(|row| row.fate == fate).count()
    }

    /// Takes what the file has beyond the network as no fault.
    pub fn ignore_unexpected(mut self) -> Self {
        for row in self.rows.iter_mut().filter(|row| row.fate == Fate::Unexpected) {
            row.fate = Fate::Unused;
        }
        self
    }

    /// The network's weights, whole.
    ///
    /// # Errors
    /// [`WeightsError::Head`] when a head is for another number of classes and nothing else is amiss,
    /// [`WeightsError::Mismatch`] with every name that is missing, unexpected or of another shape.
    pub fn into_state(self) -> Result<StateDict, WeightsError> {
        let mut mismatch = Mismatch::default();
        for row in self.rows {
            let (name, file_name) = (row.name.unwrap_or_default(), row.file_name.unwrap_or_default());
            match row.fate {
                Fate::Missing => mismatch.missing.push(name),
                Fate::Unexpected => mismatch.unexpected.push(file_name),
                Fate::WrongShape => {
                    let (shape, found) = (row.shape.unwrap_or_default(), row.file_shape.unwrap_or_default());
                    mismatch.shapes.push((name, shape, found));
                }
                Fate::Matched | Fate::Reshaped | Fate::LeftOut | Fate::Unused => {}
            }
        }
        if mismatch.is_empty() {
            return Ok(self.state);
        }
        let only_outputs = |(_, expected, found): &(String, Vec<usize>, Vec<usize>)| {
            expected.len() == found.len() && expected.iter().skip(1).eq(found.iter().skip(1))
        };
        if mismatch.missing.is_empty()
            && mismatch.unexpected.is_empty()
            && mismatch.shapes.iter().all(only_outputs)
        {
            let (name, expected, found) = mismatch.shapes.swap_remove(0);
            return Err(WeightsError::Head { name, expected: expected[0], found: found[0] });
        }
        Err(WeightsError::Mismatch(mismatch))
    }
}

/// torchvision counts classes of a detector from 1 and its RetinaNet has an output for class 0, which no box ever
/// has: `[A (K + 1), …]` without the first of each anchor's outputs, when `[A K, …]` is wanted.
fn without_background(
    name: &str,
    entry: &Entry,
    wanted: &[usize],
    source: Source,
    anchors: usize,
) -> Option<Entry> {
    if source != Source::Torchvision || !name.contains("classification_head.cls_logits.") {
        return None;
    }
    let (found, expected) = (*entry.shape.first()?, *wanted.first()?);
    if anchors == 0 || found != expected + anchors || entry.shape[1..] != wanted[1..] {
        return None;
    }
    let row: usize = wanted[1..].iter().product();
    let classes = found / anchors;
    let values =
        entry.values.chunks_exact(classes * row).flat_map(|anchor| &anchor[row..]).copied().collect();
    Some(Entry { shape: wanted.to_vec(), values })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(entries: &[(&str, &[usize], f32)]) -> StateDict {
        let entry = |shape: &[usize], value| Entry {
            shape: shape.to_vec(),
            values: vec![value; shape.iter().product()],
        };
        entries.iter().map(|(name, shape, value)| ((*name).to_owned(), entry(shape, *value))).collect()
    }

    fn network() -> StateDict {
        state(&[
            ("backbone.body.conv1.weight", &[4, 3, 7, 7], 0.0),
            ("backbone.body.layer1.0.bn1.bias", &[4], 0.0),
            ("head.last.weight", &[2, 4], 0.0),
        ])
    }

    #[test]
    fn a_backbone_alone_needs_the_rest_left_out() {
        let file = state(&[
            ("conv1.weight", &[4, 3, 7, 7], 1.0),
            ("layer1.0.bn1.bias", &[4], 2.0),
            ("fc.weight", &[10, 4], 3.0),
        ]);
        let import = Import::new(network(), file.clone(), Source::Torchvision, &[]).unwrap();
        assert_eq!((import.count(Fate::Matched), import.count(Fate::Unused)), (2, 1));
        let error = import.into_state().unwrap_err().to_string();
        assert!(error.contains("1 missing (head.last.weight)"), "{error}");
        let import = Import::new(network(), file, Source::Torchvision, &["head".to_owned()]).unwrap();
        let state = import.into_state().unwrap();
        assert_eq!(state["backbone.body.layer1.0.bn1.bias"].values, [2.0; 4]);
        assert_eq!(state["head.last.weight"].values, [0.0; 8]);
    }

    #[test]
    fn a_head_for_other_classes_says_what_to_do() {
        let mut file = network();
        file.insert("head.last.weight".to_owned(), Entry { shape: vec![5, 4], values: vec![0.0; 20] });
        let error = Import::new(network(), file, Source::Torchvision, &[]).unwrap().into_state().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("5 outputs") && text.contains("expected 2") && text.contains("leave"),
            "{text}"
        );
    }

    #[test]
    fn unexpected_names_are_faults_unless_told() {
        let mut file = network();
        file.extend(state(&[("extra.se.weight", &[1], 0.0)]));
        let import = || Import::new(network(), file.clone(), Source::Timm, &[]).unwrap();
        let error = import().into_state().unwrap_err().to_string();
        assert!(error.contains("1 unexpected (extra.se.weight)"), "{error}");
        import().ignore_unexpected().into_state().unwrap();
        let left = Import::new(network(), file.clone(), Source::Timm, &["extra".to_owned()]).unwrap();
        left.into_state().unwrap();
    }

    #[test]
    fn two_tensors_for_one_place_are_an_error() {
        let mut file = network();
        file.extend(state(&[("conv1.weight", &[4, 3, 7, 7], 1.0)]));
        let error = Import::new(network(), file, Source::Torchvision, &[]).unwrap_err().to_string();
        assert!(error.contains("are both"), "{error}");
    }

    #[test]
    fn the_background_goes_from_each_anchor() {
        let name = "head.classification_head.cls_logits.bias";
        // Two anchors, two classes.
        let network = state(&[(name, &[4], 0.0), (BOX_OFFSETS, &[8], 0.0)]);
        let values = vec![90.0, 1.0, 2.0, 91.0, 3.0, 4.0];
        let mut file = state(&[(BOX_OFFSETS, &[8], 0.0)]);
        file.insert(name.to_owned(), Entry { shape: vec![6], values });
        let import = Import::new(network.clone(), file.clone(), Source::Torchvision, &[]).unwrap();
        assert_eq!(import.rows[0].fate, Fate::Reshaped);
        assert_eq!(import.into_state().unwrap()[name].values, [1.0, 2.0, 3.0, 4.0]);
        assert!(Import::new(network, file, Source::Effdet, &[]).unwrap().into_state().is_err());
    }

    #[test]
    fn a_prefix_ends_at_a_dot() {
        assert!(is_under("head.weight", "head") && is_under("head", "head") && is_under("head.w", "head."));
        assert!(!is_under("header.weight", "head"));
    }
}
