//! Classes: a box's label is a name, and an ordered list of names gives each its index.
//!
//! A data set, an experiment, a bundle and an evaluation each have one list. The list of VinDr-SpineXR
//! ([`ClassList::vindr`]) is one among others; what is special to its vocabulary is in [`crate::findings`].

use crate::findings::Finding;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// The name of a class, on a box or in a list. Cheap to clone.
///
/// 1 to [`Label::MAX_BYTES`] bytes without control characters and without blanks at the ends, so that names that
/// look alike in a table are alike.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Label(Arc<str>);

impl Label {
    /// Longest name, bytes of UTF-8.
    pub const MAX_BYTES: usize = 200;

    /// A label of this name.
    ///
    /// # Errors
    /// [`BadLabel`] for a name that is no label's.
    pub fn new(name: &str) -> Result<Self, BadLabel> {
        let legal = !name.is_empty() && name.len() <= Self::MAX_BYTES && name.trim() == name;
        if legal && !name.chars().any(char::is_control) {
            return Ok(Self(name.into()));
        }
        Err(BadLabel { name: name.chars().take(60).collect(), bytes: name.len() })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Maps by label can be asked by name.
impl Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = BadLabel;

    fn try_from(name: String) -> Result<Self, BadLabel> {
        Self::new(&name)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0.as_ref().to_owned()
    }
}

/// Different names in order; the place of a name is the class index in tensors, bundles and results files.
/// Cheap to clone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "Vec<Label>", try_from = "Vec<Label>")]
pub struct ClassList(Arc<Classes>);

struct Classes {
    labels: Vec<Label>,
    index: HashMap<Label, usize>,
}

static VINDR: LazyLock<ClassList> = LazyLock::new(|| {
    ClassList::new(Finding::ALL.map(Finding::label)).expect("seven different names are a list")
});

impl ClassList {
    /// Most classes of a list.
    pub const MAX_CLASSES: usize = 10_000;

    /// A list of these labels.
    ///
    /// # Errors
    /// [`BadClassList`] for a label that comes twice, or too many.
    pub fn new(labels: impl IntoIterator<Item = Label>) -> Result<Self, BadClassList> {
        let labels: Vec<Label> = labels.into_iter().take(Self::MAX_CLASSES + 1).collect();
        if labels.len() > Self::MAX_CLASSES {
            return Err(BadClassList::TooMany);
        }
        let mut index = HashMap::with_capacity(labels.len());
        for (i, label) in labels.iter().enumerate() {
            if let Some(first) = index.insert(label.clone(), i) {
                return Err(BadClassList::Twice { label: label.clone(), first, second: i });
            }
        }
        Ok(Self(Arc::new(Classes { labels, index })))
    }

    /// A list of these names.
    ///
    /// # Errors
    /// As [`ClassList::new`], and for a name that is no label's.
    pub fn from_names<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Self, BadClassList> {
        let labels = names.into_iter().map(|name| Label::new(name.as_ref()));
        Self::new(labels.collect::<Result<Vec<_>, _>>()?)
    }

    /// The seven classes of VinDr-SpineXR, in the order of the paper's table.
    pub fn vindr() -> Self {
        VINDR.clone()
    }

    /// It is the list of VinDr-SpineXR, in its order.
    pub fn is_vindr(&self) -> bool {
        *self == *VINDR
    }

    /// The labels by class index.
    pub fn labels(&self) -> &[Label] {
        &self.0.labels
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.0.labels.len()
    }

    /// No class.
    pub fn is_empty(&self) -> bool {
        self.0.labels.is_empty()
    }

    /// The label of a class index, `None` past the last.
    pub fn get(&self, index: usize) -> Option<&Label> {
        self.0.labels.get(index)
    }

    /// The class index of a label.
    ///
    /// # Errors
    /// [`UnknownLabel`] for one that is not of the list.
    pub fn index(&self, label: &Label) -> Result<usize, UnknownLabel> {
        self.0.index.get(label).copied().ok_or_else(|| self.unknown(label.name()))
    }

    /// The label of the list that a name stands for: the name itself, or in the list of VinDr-SpineXR the name of
    /// any of its 13 categories, in either spelling.
    ///
    /// # Errors
    /// [`UnknownLabel`] for a name that stands for none.
    pub fn find(&self, name: &str) -> Result<&Label, UnknownLabel> {
        if let Some(&index) = self.0.index.get(name) {
            return Ok(&self.0.labels[index]);
        }
        match name.parse::<Finding>() {
            Ok(finding) if self.is_vindr() => Ok(&self.0.labels[finding.index()]),
            _ => Err(self.unknown(name)),
        }
    }

    /// The heading of a class in a table: in the list of VinDr-SpineXR the code of the paper's table, else the name.
    pub fn heading<'a>(&self, label: &'a Label) -> &'a str {
        match Finding::of_label(label) {
            Some(finding) if self.is_vindr() => finding.code(),
            _ => label.name(),
        }
    }

    fn unknown(&self, name: &str) -> UnknownLabel {
        UnknownLabel { name: name.to_owned(), known: self.clone() }
    }
}

impl PartialEq for ClassList {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.labels == other.0.labels
    }
}

impl Eq for ClassList {}

impl fmt::Debug for ClassList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.labels()).finish()
    }
}

/// Names in a message; of a long list the first.
const LISTED: usize = 20;

impl fmt::Display for ClassList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("(no class)");
        }
        for (i, label) in self.labels().iter().take(LISTED).enumerate() {
            write!(f, "{}{label}", if i == 0 { "" } else { ", " })?;
        }
        match self.len().checked_sub(LISTED) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

impl TryFrom<Vec<Label>> for ClassList {
    type Error = BadClassList;

    fn try_from(labels: Vec<Label>) -> Result<Self, BadClassList> {
        Self::new(labels)
    }
}

impl From<ClassList> for Vec<Label> {
    fn from(list: ClassList) -> Self {
        list.labels().to_vec()
    }
}

/// A name that cannot be a label's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "class name {name:?} of {bytes} bytes; expected 1 to {} bytes without control characters or blanks at the ends",
    Label::MAX_BYTES
)]
pub struct BadLabel {
    /// The name, or how it begins.
    pub name: String,
    /// Its length, bytes.
    pub bytes: usize,
}

/// Labels that are no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadClassList {
    /// A name is no label's.
    #[error(transparent)]
    Label(#[from] BadLabel),
    /// A label comes twice.
    #[error("class {label:?} twice, as number {first} and {second} counted from 0; expected different names")]
    Twice {
        /// The label.
        label: Label,
        /// Its first index.
        first: usize,
        /// Its second index.
        second: usize,
    },
    /// More than [`ClassList::MAX_CLASSES`].
    #[error("expected at most {} classes", ClassList::MAX_CLASSES)]
    TooMany,
}

/// A label that is not of the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown class {name:?}; expected one of: {known}")]
pub struct UnknownLabel {
    /// The name as found.
    pub name: String,
    /// The list.
    pub known: ClassList,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cells() -> ClassList {
        ClassList::from_names(["RBC", "WBC", "Platelets"]).unwrap()
    }

    #[test]
    fn a_list_maps_names_and_indices() {
        let cells = cells();
        assert_eq!(cells.len(), 3);
        for (i, label) in cells.labels().iter().enumerate() {
            assert_eq!(cells.index(label), Ok(i));
            assert_eq!(cells.get(i), Some(label));
            assert_eq!(cells.find(label.name()), Ok(label));
        }
        assert_eq!(cells.get(3), None);
        let error = cells.find("Osteophytes").unwrap_err().to_string();
        assert_eq!(error, r#"unknown class "Osteophytes"; expected one of: RBC, WBC, Platelets"#);
    }

    #[test]
    fn the_list_of_vindr_knows_its_vocabulary_and_no_other_does() {
        let vindr = ClassList::vindr();
        assert!(vindr.is_vindr() && !cells().is_vindr());
        for (name, label) in [
            ("Spondylolisthesis", Finding::Spondylolysthesis),
            ("foreign_body", Finding::OtherLesions),
            ("Vertebral collapse", Finding::VertebralCollapse),
        ] {
            assert_eq!(vindr.find(name), Ok(&label.label()));
        }
        assert!(vindr.find("Scoliosis").is_err());
        let other_order = ClassList::new(Finding::ALL.map(Finding::label).into_iter().rev()).unwrap();
        assert!(!other_order.is_vindr() && other_order.find("Foreign body").is_err());
        assert_eq!(vindr.heading(&Finding::SurgicalImplant.label()), "LT10");
        assert_eq!(other_order.heading(&Finding::SurgicalImplant.label()), "Surgical implant");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let refused = |names: &[&str]| ClassList::from_names(names).unwrap_err().to_string();
        assert!(refused(&["a", "b", "a"]).contains(r#"class "a" twice, as number 0 and 2"#));
        for name in ["", " ", "a ", "\ta", "a\nb", "\u{7f}"] {
            assert!(refused(&[name]).contains("expected 1 to 200 bytes"), "{name:?}");
        }
        assert!(Label::new(&"x".repeat(200)).is_ok());
        assert!(Label::new(&"x".repeat(201)).unwrap_err().to_string().len() < 250);
        let many = |n: usize| ClassList::from_names((0..n).map(|i| i.to_string()));
        assert!(many(10_000).is_ok());
        assert_eq!(many(10_001).unwrap_err(), BadClassList::TooMany);
        assert!(many(10_000).unwrap().find("x").unwrap_err().to_string().ends_with("19 and 9980 more"));
    }

    #[test]
    fn in_files_labels_are_names_and_lists_are_checked() {
        let text = r#"["RBC","WBC","Platelets"]"#;
        let read: ClassList = serde_json::from_str(text).unwrap();
        assert_eq!(read, cells());
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(serde_json::from_str::<ClassList>(r#"["RBC","RBC"]"#).is_err());
        assert!(serde_json::from_str::<Label>(r#""""#).is_err());
    }

    proptest! {
        #[test]
        fn every_name_is_a_label_that_survives_a_file_or_an_error(name in ".{0,40}") {
            if let Ok(label) = Label::new(&name) {
                let text = serde_json::to_string(&label).unwrap();
                prop_assert_eq!(serde_json::from_str::<Label>(&text).unwrap(), label);
            }
        }
    }
}
