//! The pixel pipeline of the standard (PS3.3 C.11): modality, VOI, polarity.
//!
//! Every step maps a stored value alone, so that each is worked out once for every value the bits can hold, and
//! the image is looked up.

use crate::dataset::DataSet;
use crate::film::{ModalityApplied, PolarityApplied, VoiApplied};
use crate::lut::{Lut, first_lut};
use crate::modality::Modality;
use crate::pixel_format::Photometric;
use crate::stored::Stored;
use crate::window::{Window, first_window};
use dicom_dictionary_std::tags;

/// What was done, stage by stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied {
    pub modality: ModalityApplied,
    pub voi: VoiApplied,
    pub polarity: PolarityApplied,
}

impl Applied {
    pub const NOTHING: Self =
        Self { modality: ModalityApplied::None, voi: VoiApplied::None, polarity: PolarityApplied::Unchanged };
}

/// Modality value of every possible stored value.
pub(crate) fn modality_table(
    data_set: &DataSet,
    stored: &Stored,
    notes: &mut Vec<String>,
) -> (Vec<f64>, Applied) {
    let modality = if stored.is_luma { Modality::None } else { Modality::of(data_set, notes) };
    let table = (0..1i32 << stored.bits).map(|i| modality.map(f64::from(stored.lowest + i))).collect();
    (table, Applied { modality: modality.applied(), ..Applied::NOTHING })
}

/// The VOI step a file asks for.
enum Voi {
    None,
    Lut(Lut),
    Window(Window),
}

impl Voi {
    /// The first item of the LUT sequence, else the first window.
    fn of(data_set: &DataSet, notes: &mut Vec<String>) -> Self {
        let lut = first_lut(data_set, data_set.voi_lut.as_ref(), "VOI LUT (0028,3010)", notes);
        match lut {
            Some(lut) => Self::Lut(lut),
            None => first_window(data_set, notes).map_or(Self::None, Self::Window),
        }
    }

    fn applied(&self) -> VoiApplied {
        match self {
            Self::None => VoiApplied::None,
            Self::Lut(lut) => {
                VoiApplied::Lut { entries: lut.entries.len() as u32, first: lut.first, bits: lut.bits }
            }
            &Self::Window(Window { center, width, function, .. }) => {
                VoiApplied::Window { center, width, function }
            }
        }
    }
}

/// VOI value of every possible stored value, in the output range of the step: a LUT's entries, or for a window
/// the range that the bits and the modality step span. Without a VOI step the modality values stay.
pub(crate) fn voi_table(data_set: &DataSet, stored: &Stored, notes: &mut Vec<String>) -> (Vec<f64>, Applied) {
    let (table, applied) = modality_table(data_set, stored, notes);
    if stored.is_luma {
        return (table, applied);
    }
    let voi = Voi::of(data_set, notes);
    let applied = Applied { voi: voi.applied(), ..applied };
    let table = match &voi {
        Voi::None => table,
        Voi::Lut(lut) => table.iter().map(|&x| lut.map(x)).collect(),
        Voi::Window(window) => {
            let (low, high) = window_output_range(stored, &applied.modality);
            table.iter().map(|&x| window.map_to(x, low, high)).collect()
        }
    };
    (table, applied)
}

/// Output range of a window: what the modality step can give.
fn window_output_range(stored: &Stored, modality: &ModalityApplied) -> (f64, f64) {
    let bits = stored.format.bits_stored;
    let (low, high) = if stored.format.signed {
        (-f64::from(1u32 << (bits - 1)), f64::from((1u32 << (bits - 1)) - 1))
    } else {
        (0.0, f64::from((1u32 << bits) - 1))
    };
    match *modality {
        ModalityApplied::Lut { bits, .. } => (0.0, f64::from(u16::MAX >> (16 - bits.clamp(1, 16)))),
        ModalityApplied::Rescale { slope, intercept } => (low * slope + intercept, high * slope + intercept),
        ModalityApplied::None => (low, high),
    }
}

/// Display value, 0 to 1 with bone bright, of every possible stored value.
pub(crate) fn display_table(
    data_set: &DataSet,
    stored: &Stored,
    notes: &mut Vec<String>,
) -> (Vec<f32>, Applied) {
    let (modality, applied) = modality_table(data_set, stored, notes);
    if stored.is_luma {
        let full = ((1u32 << stored.bits) - 1) as f64;
        return (modality.iter().map(|&x| (x / full) as f32).collect(), applied);
    }
    let counts = stored.histogram();
    let mut voi = Voi::of(data_set, notes);
    if let Voi::Window(window) = voi
        && window.repaired
        && is_blank(&window, &modality, &counts)
    {
        notes.push("the window so read leaves nothing of the film: not used".into());
        voi = Voi::None;
    }
    let mut voi_applied = voi.applied();
    let mut table: Vec<f64> = match &voi {
        Voi::Lut(lut) => modality.iter().map(|&x| lut.map(x) / lut.full_scale()).collect(),
        Voi::Window(window) => modality.iter().map(|&x| window.map(x)).collect(),
        Voi::None => {
            let (min, max) = range_without_padding(data_set, stored, &modality, &counts, notes);
            voi_applied = VoiApplied::MinMax { min, max };
            let scale = |x: f64| if max > min { ((x - min) / (max - min)).clamp(0.0, 1.0) } else { 0.0 };
            modality.iter().map(|&x| scale(x)).collect()
        }
    };
    let polarity = polarity(data_set, stored, notes);
    if polarity == PolarityApplied::Inverted {
        table.iter_mut().for_each(|y| *y = 1.0 - *y);
    }
    let applied = Applied { voi: voi_applied, polarity, ..applied };
    (table.into_iter().map(|y| y as f32).collect(), applied)
}

/// Whether a window maps every pixel to one end.
fn is_blank(window: &Window, modality: &[f64], counts: &[u32]) -> bool {
    let mut outputs =
        modality.iter().zip(counts).filter(|&(_, &count)| count > 0).map(|(&x, _)| window.map(x));
    let first = outputs.next();
    outputs.all(|y| Some(y) == first)
}

/// Photometric Interpretation alone decides. Presentation LUT Shape (2050,0020) restates it, INVERSE for
/// MONOCHROME1, so that obeying both would invert twice.
pub(crate) fn polarity(data_set: &DataSet, stored: &Stored, notes: &mut Vec<String>) -> PolarityApplied {
    let inverted = stored.format.photometric == Photometric::Monochrome1;
    let shape = data_set.text(tags::PRESENTATION_LUT_SHAPE);
    match (inverted, shape.as_deref()) {
        (true, Some("IDENTITY")) | (false, Some("INVERSE")) => notes.push(format!(
            "Presentation LUT Shape (2050,0020) {} contradicts {:?}, which is followed",
            shape.unwrap_or_default(),
            stored.format.photometric
        )),
        _ => {}
    }
    if inverted { PolarityApplied::Inverted } else { PolarityApplied::Unchanged }
}

/// Least and greatest modality value of the pixels that are not padding; of all when there is nothing else.
fn range_without_padding(
    data_set: &DataSet,
    stored: &Stored,
    modality: &[f64],
    counts: &[u32],
    notes: &mut Vec<String>,
) -> (f64, f64) {
    let padding = padding_range(data_set, stored);
    let is_padding = |index: usize| {
        padding.is_some_and(|(low, high)| (low..=high).contains(&(stored.lowest + index as i32)))
    };
    let range = |keep: &dyn Fn(usize) -> bool| {
        let values = (0..counts.len()).filter(|&i| counts[i] > 0 && keep(i)).map(|i| modality[i]);
        values.fold(None, |range: Option<(f64, f64)>, x| {
            Some(range.map_or((x, x), |(low, high)| (low.min(x), high.max(x))))
        })
    };
    if let Some((low, high)) = padding {
        notes.push(format!("stored values {low} to {high} are padding"));
    }
    range(&|i| !is_padding(i)).or_else(|| range(&|_| true)).unwrap_or((0.0, 0.0))
}

/// Pixel Padding Value (0028,0120) and Range Limit (0028,0121), PS3.3 C.7.5.1.1.2, in stored values.
fn padding_range(data_set: &DataSet, stored: &Stored) -> Option<(i32, i32)> {
    let value = |tag| {
        let word = data_set.word(tag)?;
        Some(match (stored.format.signed, stored.format.bits_allocated) {
            (true, 8) => i32::from(word as i8),
            (true, _) => i32::from(word as i16),
            (false, _) => i32::from(word),
        })
    };
    let first = value(tags::PIXEL_PADDING_VALUE)?;
    let limit = value(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(first);
    Some((first.min(limit), first.max(limit)))
}
