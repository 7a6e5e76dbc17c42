//! The modality step (PS3.3 C.11.1): the manufacturer's numbers to numbers with a meaning.

use crate::attributes::number;
use crate::dataset::DataSet;
use crate::film::ModalityApplied;
use crate::lut::{Lut, first_lut};
use dicom_dictionary_std::tags;

/// The step a file asks for.
pub(crate) enum Modality {
    None,
    Lut(Lut),
    Rescale { slope: f64, intercept: f64 },
}

impl Modality {
    /// The first item of the LUT sequence, else the rescale pair, else nothing.
    pub fn of(data_set: &DataSet, notes: &mut Vec<String>) -> Self {
        if let Some(lut) =
            first_lut(data_set, data_set.modality_lut.as_ref(), "Modality LUT (0028,3000)", notes)
        {
            return Self::Lut(lut);
        }
        let texts = (data_set.raw_text(tags::RESCALE_SLOPE), data_set.raw_text(tags::RESCALE_INTERCEPT));
        match texts {
            (Some(slope_text), Some(intercept_text)) => {
                match (number(&slope_text), number(&intercept_text)) {
                    (Some(slope), Some(intercept)) if slope.is_finite() && intercept.is_finite() => {
                        Self::Rescale { slope, intercept }
                    }
                    _ => {
                        notes.push(format!(
                        "rescale slope {slope_text:?} and intercept {intercept_text:?} are not numbers: not used"
                    ));
                        Self::None
                    }
                }
            }
            (None, None) => Self::None,
            _ => {
                notes.push("rescale slope or intercept missing: not used".into());
                Self::None
            }
        }
    }

    pub fn map(&self, x: f64) -> f64 {
        match self {
            Self::None => x,
            Self::Lut(lut) => lut.map(x),
            Self::Rescale { slope, intercept } => x * slope + intercept,
        }
    }

    pub fn applied(&self) -> ModalityApplied {
        match self {
            Self::None => ModalityApplied::None,
            Self::Lut(lut) => {
                ModalityApplied::Lut { entries: lut.entries.len() as u32, first: lut.first, bits: lut.bits }
            }
            Self::Rescale { slope, intercept } => {
                ModalityApplied::Rescale { slope: *slope, intercept: *intercept }
            }
        }
    }
}
