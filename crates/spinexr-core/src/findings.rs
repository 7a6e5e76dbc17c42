//! The vocabulary of VinDr-SpineXR: 13 annotated categories, 7 of them detected classes.
//!
//! It is for the data set's reader, for synthetic films and for the paper's tables. A box carries a
//! [`Label`], of this vocabulary or another (see [`crate::classes`]).
//!
//! The released CSV spells slipped vertebrae `Spondylolysthesis`; that spelling is written, and the
//! dictionary's `Spondylolisthesis` is understood as well. The six rarest categories fold into
//! [`Finding::OtherLesions`] for training and evaluation, as in the paper and its release.

use crate::classes::Label;
use std::fmt;

/// One of the seven classes that the paper's detectors are trained for.
///
/// The discriminant is the class index in [`crate::ClassList::vindr`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Finding {
    /// LT2.
    DiscSpaceNarrowing = 0,
    /// LT4.
    ForaminalStenosis = 1,
    /// LT6.
    Osteophytes = 2,
    /// LT8, spelt as the data set spells it.
    Spondylolysthesis = 3,
    /// LT10.
    SurgicalImplant = 4,
    /// LT11.
    VertebralCollapse = 5,
    /// LT13, with the six rarest categories folded in.
    OtherLesions = 6,
}

impl Finding {
    /// All classes in index order, which is the order of the columns in the paper's table.
    pub const ALL: [Self; 7] = [
        Self::DiscSpaceNarrowing,
        Self::ForaminalStenosis,
        Self::Osteophytes,
        Self::Spondylolysthesis,
        Self::SurgicalImplant,
        Self::VertebralCollapse,
        Self::OtherLesions,
    ];

    /// Number of classes.
    pub const COUNT: usize = Self::ALL.len();

    /// Class index, `0..COUNT`.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The class at `index`, or `None` past the last.
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }

    /// The label of its boxes.
    pub fn label(self) -> Label {
        Label::new(self.name()).expect("the release's names are labels")
    }

    /// The finding that a label names as the release does.
    pub fn of_label(label: &Label) -> Option<Self> {
        Self::ALL.into_iter().find(|finding| finding.name() == label.name())
    }

    /// The string of the released annotation files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DiscSpaceNarrowing => "Disc space narrowing",
            Self::ForaminalStenosis => "Foraminal stenosis",
            Self::Osteophytes => "Osteophytes",
            Self::Spondylolysthesis => "Spondylolysthesis",
            Self::SurgicalImplant => "Surgical implant",
            Self::VertebralCollapse => "Vertebral collapse",
            Self::OtherLesions => "Other lesions",
        }
    }

    /// The column of the paper's table 3: `LT2` … `LT13`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::DiscSpaceNarrowing => "LT2",
            Self::ForaminalStenosis => "LT4",
            Self::Osteophytes => "LT6",
            Self::Spondylolysthesis => "LT8",
            Self::SurgicalImplant => "LT10",
            Self::VertebralCollapse => "LT11",
            Self::OtherLesions => "LT13",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Finding {
    type Err = UnknownFinding;

    /// A class by the name of any of the 13 categories, folded.
    fn from_str(name: &str) -> Result<Self, UnknownFinding> {
        name.parse::<Category>().map(Category::finding)
    }
}

/// One of the 13 categories that the paper's radiologists marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Category {
    /// LT1: vertebrae grown together.
    Ankylosis,
    /// LT2.
    DiscSpaceNarrowing,
    /// LT3: bone at a ligament's attachment.
    Enthesophytes,
    /// LT4.
    ForaminalStenosis,
    /// LT5.
    Fracture,
    /// LT6.
    Osteophytes,
    /// LT7.
    ScleroticLesion,
    /// LT8.
    Spondylolysthesis,
    /// LT9: dense bone under an end plate.
    SubchondralSclerosis,
    /// LT10.
    SurgicalImplant,
    /// LT11.
    VertebralCollapse,
    /// LT12.
    ForeignBody,
    /// LT13.
    OtherLesions,
}

impl Category {
    /// All categories in the paper's order, LT1 to LT13.
    pub const ALL: [Self; 13] = [
        Self::Ankylosis,
        Self::DiscSpaceNarrowing,
        Self::Enthesophytes,
        Self::ForaminalStenosis,
        Self::Fracture,
        Self::Osteophytes,
        Self::ScleroticLesion,
        Self::Spondylolysthesis,
        Self::SubchondralSclerosis,
        Self::SurgicalImplant,
        Self::VertebralCollapse,
        Self::ForeignBody,
        Self::OtherLesions,
    ];

    /// The category's name; for the seven released classes, the released string.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ankylosis => "Ankylosis",
            Self::DiscSpaceNarrowing => "Disc space narrowing",
            Self::Enthesophytes => "Enthesophytes",
            Self::ForaminalStenosis => "Foraminal stenosis",
            Self::Fracture => "Fracture",
            Self::Osteophytes => "Osteophytes",
            Self::ScleroticLesion => "Sclerotic lesion",
            Self::Spondylolysthesis => "Spondylolysthesis",
            Self::SubchondralSclerosis => "Subchondral sclerosis",
            Self::SurgicalImplant => "Surgical implant",
            Self::VertebralCollapse => "Vertebral collapse",
            Self::ForeignBody => "Foreign body",
            Self::OtherLesions => "Other lesions",
        }
    }

    /// The detected class this category is trained and evaluated as.
    pub const fn finding(self) -> Finding {
        match self {
            Self::DiscSpaceNarrowing => Finding::DiscSpaceNarrowing,
            Self::ForaminalStenosis => Finding::ForaminalStenosis,
            Self::Osteophytes => Finding::Osteophytes,
            Self::Spondylolysthesis => Finding::Spondylolysthesis,
            Self::SurgicalImplant => Finding::SurgicalImplant,
            Self::VertebralCollapse => Finding::VertebralCollapse,
            Self::Ankylosis
            | Self::Enthesophytes
            | Self::Fracture
            | Self::ScleroticLesion
            | Self::SubchondralSclerosis
            | Self::ForeignBody
            | Self::OtherLesions => Finding::OtherLesions,
        }
    }
}

impl std::str::FromStr for Category {
    type Err = UnknownFinding;

    /// A category by name: letter case, surrounding blanks and `_`/`-` for blanks do not matter.
    fn from_str(name: &str) -> Result<Self, UnknownFinding> {
        let wanted = normalise(name);
        if wanted == "spondylolisthesis" {
            return Ok(Self::Spondylolysthesis);
        }
        Self::ALL
            .into_iter()
            .find(|c| normalise(c.name()) == wanted)
            .ok_or_else(|| UnknownFinding { name: name.to_owned() })
    }
}

fn normalise(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace(['_', '-'], " ")
}

/// A name that is none of the 13 categories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFinding {
    /// The name as found.
    pub name: String,
}

impl fmt::Display for UnknownFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown finding {:?}; expected one of: ", self.name)?;
        for (i, category) in Category::ALL.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, category.name())?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownFinding {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_follow_the_table() {
        for (i, finding) in Finding::ALL.into_iter().enumerate() {
            assert_eq!(finding.index(), i);
            assert_eq!(Finding::from_index(i), Some(finding));
            assert_eq!(finding.name().parse::<Finding>().unwrap(), finding);
            assert_eq!(Finding::of_label(&finding.label()), Some(finding));
        }
        assert_eq!(Finding::from_index(7), None);
    }

    #[test]
    fn both_spellings_of_the_slip_are_one_class() {
        for name in ["Spondylolysthesis", "Spondylolisthesis", " spondylolisthesis "] {
            assert_eq!(name.parse::<Finding>().unwrap(), Finding::Spondylolysthesis);
        }
        assert_eq!(Finding::Spondylolysthesis.name(), "Spondylolysthesis");
    }

    #[test]
    fn rare_categories_fold_into_other_lesions() {
        let folded = Category::ALL.into_iter().filter(|c| c.finding() == Finding::OtherLesions);
        assert_eq!(folded.count(), 7);
        assert_eq!("Foreign body".parse::<Finding>().unwrap(), Finding::OtherLesions);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = "Scoliosis".parse::<Finding>().unwrap_err().to_string();
        assert!(error.contains("\"Scoliosis\"") && error.contains("Vertebral collapse"), "{error}");
    }
}
