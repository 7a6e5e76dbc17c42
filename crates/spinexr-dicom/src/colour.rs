//! Grey from colour: films exported as secondary captures. Luma after ITU-R BT.601, which is the Y of DICOM's
//! own YBR_FULL (PS3.3 C.7.6.3.1.2).

use crate::dataset::DataSet;
use crate::pixel_format::Photometric;
use dicom_dictionary_std::tags;

/// Weights of red, green and blue, in thousandths.
const WEIGHTS: [u64; 3] = [299, 587, 114];

/// Luma of one pixel, rounded.
pub(crate) fn luma_of(rgb: [u16; 3]) -> u16 {
    let sum: u64 = rgb.iter().zip(WEIGHTS).map(|(&v, w)| u64::from(v) * w).sum();
    ((sum + 500) / 1000) as u16
}

/// Luma of samples that lie together by pixel, in `bits` bits.
pub(crate) fn luma(
    samples: &[u16],
    photometric: Photometric,
    palette: Option<&Palette>,
    bits: u32,
) -> Vec<i32> {
    let mask = u16::MAX >> (16 - bits);
    match (photometric, palette) {
        (_, Some(palette)) => samples.iter().map(|&index| palette.luma(index)).collect(),
        (Photometric::YbrFull | Photometric::YbrFull422, _) => {
            samples.chunks_exact(3).map(|ybr| i32::from(ybr[0] & mask)).collect()
        }
        _ => samples
            .chunks_exact(3)
            .map(|rgb| i32::from(luma_of([rgb[0] & mask, rgb[1] & mask, rgb[2] & mask])))
            .collect(),
    }
}

/// Palette Color Lookup Tables (PS3.3 C.7.9), as the 8-bit luma of each entry.
pub(crate) struct Palette {
    first: i32,
    luma: Vec<i32>,
}

impl Palette {
    /// The three tables of a data set; `None` when they are missing, segmented or too short.
    pub fn of(data_set: &DataSet) -> Option<Self> {
        let table = |descriptor, data| {
            let words = data_set.words(data_set.elements.get(&descriptor)?);
            let &[count, first, bits] = words.as_slice() else { return None };
            let count = if count == 0 { 65_536 } else { usize::from(count) };
            let element = data_set.elements.get(&data)?;
            let mut entries = data_set.words(element);
            if entries.len() < count && bits == 8 {
                entries = data_set.value(element).iter().map(|&b| u16::from(b)).collect();
            }
            entries.truncate(count);
            (entries.len() == count).then_some((i32::from(first), bits, entries))
        };
        let (first, bits, red) = table(
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?;
        let (_, _, green) = table(
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?;
        let (_, _, blue) = table(
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?;
        if red.len() != green.len() || red.len() != blue.len() {
            return None;
        }
        // Many files declare 16 bits and fill only 8.
        let wide = red.iter().chain(&green).chain(&blue).any(|&v| v > 255);
        let shift = if wide { bits.clamp(9, 16) - 8 } else { 0 };
        let rgb = red.iter().zip(&green).zip(&blue).map(|((&r, &g), &b)| [r, g, b].map(|v| v >> shift));
        Some(Self { first, luma: rgb.map(|rgb| i32::from(luma_of(rgb).min(255))).collect() })
    }

    fn luma(&self, index: u16) -> i32 {
        let last = self.luma.len() as i32 - 1;
        self.luma[(i32::from(index) - self.first).clamp(0, last) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luma_of_grey_is_grey() {
        for v in [0, 1, 77, 255, 65_535] {
            assert_eq!(luma_of([v; 3]), v);
        }
        assert_eq!(luma_of([255, 0, 0]), 76);
    }
}
