//! Who is imaged, and how.

use crate::random::Stream;

/// The part of the spine on the films of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Region {
    /// Lower ribs to sacrum.
    Lumbar,
    /// Skull base to upper ribs.
    Cervical,
}

/// The direction of the beam.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// Front to back.
    Ap,
    /// Side to side.
    Lateral,
    /// Half-way, which opens the foramina of the neck and the lumbar facet joints.
    Oblique,
}

/// Patient's sex, as far as DICOM's `M` and `F` go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sex {
    /// `F`
    Female,
    /// `M`
    Male,
}

/// What is individual about a patient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patient {
    /// Sex.
    pub sex: Sex,
    /// Age, years.
    pub age_years: u32,
    /// Size of the skeleton, 1 for the mean of both sexes.
    pub scale: f32,
    /// Girth, 1 for the mean.
    pub build: f32,
    /// Density of cancellous bone as a share of compact bone; about 0.2 when young, 0.1 when porotic.
    pub cancellous: f32,
    /// Thickness of the cortical shell relative to a young adult's.
    pub shell: f32,
}

impl Patient {
    /// Draws a patient. Findings come with age: the mean is 41 years for a normal study and 57 for an
    /// abnormal one, which makes 49 in all; 62 % are female (paper, section 2.1).
    pub fn draw(stream: &mut Stream, abnormal: bool) -> Self {
        let sex = if stream.chance(0.62) { Sex::Female } else { Sex::Male };
        let mean = if abnormal { 57.0 } else { 41.0 };
        let age = (mean + 13.0 * stream.normal()).clamp(16.0, 92.0);
        let tall = if sex == Sex::Male { 1.04 } else { 0.96 };
        let past_fifty = (age - 50.0).max(0.0);
        let loss = past_fifty * if sex == Sex::Female { 0.0024 } else { 0.0014 };
        Self {
            sex,
            age_years: age.round() as u32,
            scale: tall + 0.035 * stream.normal(),
            build: (1.0 + 0.14 * stream.normal() + 0.002 * (age - 45.0)).clamp(0.72, 1.45),
            cancellous: (0.2 - loss + 0.018 * stream.normal()).clamp(0.07, 0.26),
            shell: (1.0 - 4.0 * loss + 0.08 * stream.normal()).clamp(0.6, 1.25),
        }
    }
}
