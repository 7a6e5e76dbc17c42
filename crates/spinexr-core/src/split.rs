//! The part of a data set that a film belongs to.
//!
//! The official release has `train` and `test` only; validation films are taken from `train` by study
//! (see `spinexr-data`), because a threshold chosen on test films is no result.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Training, validation or test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Models see these films and their boxes.
    Train,
    /// Thresholds, checkpoints and settings are chosen on these.
    Validation,
    /// Looked at once, for the tables.
    Test,
}

impl Split {
    /// `train`, `validation`, `test`.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// Lower-case name, as in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
