//! Pixels for a viewer whose user moves the window: all of a film's values, and the window that the film asks for.

use crate::dataset::DataSet;
use crate::film::{ModalityApplied, PolarityApplied, VoiApplied, VoiFunction};
use crate::standard::display_table;
use crate::stored::Stored;

/// Grey values before the window, with the window.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewerPixels {
    /// Height, px.
    pub height_px: u32,
    /// Width, px.
    pub width_px: u32,
    /// Row-major `[H, W]`: stored values counted from the least that their bits can hold. Where the way to the display
    /// is no straight line (a LUT, a sigmoid, colour), display values from 0 to 65,535.
    pub values: Vec<u16>,
    /// Value that the film wants black, or white if `inverted`.
    pub low: f64,
    /// Value that the film wants white, or black if `inverted`; above `low`.
    pub high: f64,
    /// Low values are bright.
    pub inverted: bool,
}

impl ViewerPixels {
    pub(crate) fn of(data_set: &DataSet, stored: &Stored, notes: &mut Vec<String>) -> Self {
        let (height_px, width_px) = (stored.height as u32, stored.width as u32);
        let (table, applied) = display_table(data_set, stored, notes);
        let is_inverted = applied.polarity == PolarityApplied::Inverted;
        let Some((low, high)) = straight(&applied.modality, &applied.voi) else {
            let full = f32::from(u16::MAX);
            let table: Vec<u16> = table.iter().map(|y| (y * full).round() as u16).collect();
            let values = stored.through(&table);
            return Self { height_px, width_px, values, low: 0.0, high: f64::from(full), inverted: false };
        };
        let lowest = f64::from(stored.lowest);
        let values = stored.values.iter().map(|&value| (value - stored.lowest) as u16).collect();
        // A negative slope turns the film's grey scale round.
        let inverted = is_inverted != (low > high);
        let (low, high) = (low.min(high) - lowest, low.max(high) - lowest);
        Self { height_px, width_px, values, low, high: high.max(low + 1e-3), inverted }
    }
}

/// Stored values that a straight way to the display maps to 0 and to 1.
fn straight(modality: &ModalityApplied, voi: &VoiApplied) -> Option<(f64, f64)> {
    let (slope, intercept) = match *modality {
        ModalityApplied::None => (1.0, 0.0),
        ModalityApplied::Rescale { slope, intercept } if slope != 0.0 => (slope, intercept),
        ModalityApplied::Rescale { .. } | ModalityApplied::Lut { .. } => return None,
    };
    let (low, high) = match *voi {
        VoiApplied::Window { center, width, function } => match function {
            // PS3.3 C.11.2.1.2.1: the line runs through (center - 0.5, 0.5) with the slope 1 / (width - 1).
            VoiFunction::Linear => (center - 0.5 - (width - 1.0) / 2.0, center - 0.5 + (width - 1.0) / 2.0),
            VoiFunction::LinearExact => (center - width / 2.0, center + width / 2.0),
            VoiFunction::Sigmoid => return None,
        },
        VoiApplied::MinMax { min, max } => (min, max),
        VoiApplied::None | VoiApplied::Lut { .. } => return None,
    };
    let stored = |value: f64| (value - intercept) / slope;
    Some((stored(low), stored(high)))
}
