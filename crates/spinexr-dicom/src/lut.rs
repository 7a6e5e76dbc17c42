//! Lookup tables of the Modality and VOI LUT Sequences (PS3.3 C.11.1.1, C.11.2.1.1).

use crate::dataset::{DataSet, Elements};
use dicom_dictionary_std::tags;

/// The first item of a LUT sequence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lut {
    /// Input value mapped by the first entry.
    pub first: i32,
    /// Bits of an entry, 1 to 16.
    pub bits: u16,
    pub entries: Vec<u16>,
}

/// A LUT as the file has it, usable or not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawLut {
    /// Number of entries claimed; 0 in the file means 65,536.
    pub count: usize,
    pub first: i32,
    pub bits: u16,
    /// The 16-bit words there are.
    pub words: Vec<u16>,
    /// The bytes there are.
    pub bytes: Vec<u8>,
}

impl RawLut {
    /// Descriptor (0028,3002) and data (0028,3006) of `item`; `None` when either is missing.
    pub fn of(data_set: &DataSet, item: &Elements) -> Option<Self> {
        let descriptor = item.get(&tags::LUT_DESCRIPTOR)?;
        let data = item.get(&tags::LUT_DATA)?;
        let &[count, first, bits] = data_set.words(descriptor).as_slice() else { return None };
        Some(Self {
            count: if count == 0 { 65_536 } else { usize::from(count) },
            first: if data_set.is_signed(descriptor) { i32::from(first as i16) } else { i32::from(first) },
            bits,
            words: data_set.words(data),
            bytes: data_set.value(data).to_vec(),
        })
    }

    /// The table, or why it cannot be used.
    pub fn usable(&self) -> Result<Lut, String> {
        if !(1..=16).contains(&self.bits) {
            return Err(format!("entries of {} bits", self.bits));
        }
        let mut entries = self.words.clone();
        if entries.len() < self.count && self.bits <= 8 && self.bytes.len() >= self.count {
            // Two entries of 8 bits in each word.
            entries = self.bytes.iter().map(|&b| u16::from(b)).collect();
        }
        if entries.len() < self.count {
            return Err(format!("{} entries claimed, {} there", self.count, entries.len()));
        }
        entries.truncate(self.count);
        Ok(Lut { first: self.first, bits: self.bits, entries })
    }
}

impl Lut {
    /// The entry for `x`, rounded to a whole number; inputs beyond the table take its ends.
    pub fn map(&self, x: f64) -> f64 {
        let last = self.entries.len() as f64 - 1.0;
        let index = (x.round_ties_even() - f64::from(self.first)).clamp(0.0, last);
        f64::from(self.entries[index as usize])
    }

    /// Greatest output its bits allow.
    pub fn full_scale(&self) -> f64 {
        f64::from(u16::MAX >> (16 - self.bits))
    }
}

/// The usable table of a sequence's first item. An unusable one leaves a note.
pub(crate) fn first_lut(
    data_set: &DataSet,
    item: Option<&Elements>,
    name: &str,
    notes: &mut Vec<String>,
) -> Option<Lut> {
    let item = item?;
    let lut = RawLut::of(data_set, item).ok_or_else(|| "descriptor or data missing".to_string());
    match lut.and_then(|raw| raw.usable()) {
        Ok(lut) => Some(lut),
        Err(reason) => {
            notes.push(format!("{name} not usable ({reason}): ignored"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_beyond_the_table_take_its_ends() {
        let lut = Lut { first: -2, bits: 12, entries: vec![5, 6, 7] };
        assert_eq!([-9.0, -2.0, -1.0, 0.0, 9.0].map(|x| lut.map(x)), [5.0, 5.0, 6.0, 7.0, 7.0]);
        assert_eq!(lut.full_scale(), 4095.0);
    }

    #[test]
    fn packed_and_short_tables() {
        let raw =
            RawLut { count: 4, first: 0, bits: 8, words: vec![0x0201, 0x0403], bytes: vec![1, 2, 3, 4] };
        assert_eq!(raw.usable().unwrap().entries, [1, 2, 3, 4]);
        assert!(RawLut { bits: 12, ..raw.clone() }.usable().is_err());
        assert!(RawLut { bits: 0, ..raw }.usable().is_err());
    }
}
