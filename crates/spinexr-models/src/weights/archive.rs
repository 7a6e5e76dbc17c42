//! The zip archive that `torch.save` writes: entries as they are, without compression.
//!
//! Reference: PKWARE's APPNOTE.TXT, sections 4.3 (layout) and 4.5.3 (sizes beyond 32 bits).

use std::collections::BTreeMap;

use super::WeightsError;

/// The entries of an archive by name.
#[derive(Debug)]
pub(super) struct Archive<'a>(BTreeMap<String, &'a [u8]>);

const END: &[u8] = b"PK\x05\x06";
const END_64_LOCATOR: &[u8] = b"PK\x06\x07";
const END_64: &[u8] = b"PK\x06\x06";
const CENTRAL: &[u8] = b"PK\x01\x02";
pub(super) const LOCAL: &[u8] = b"PK\x03\x04";

/// Longest comment after the end record, and the record itself.
const END_REACH: usize = 0xffff + 22;

impl<'a> Archive<'a> {
    /// Reads the directory and checks every entry: place, size, checksum.
    ///
    /// # Errors
    /// [`WeightsError::Format`] for an archive that is cut short or damaged, or an entry that is compressed.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WeightsError> {
        let cut = || WeightsError::Format("the zip archive is cut short or damaged".to_owned());
        let from = bytes.len().saturating_sub(END_REACH);
        let end = from
            + bytes[from..]
                .windows(END.len())
                .rposition(|window| window == END)
                .ok_or_else(|| WeightsError::Format("the zip archive has no directory: cut short".into()))?;
        let comment = usize::from(u16_at(bytes, end + 20).ok_or_else(cut)?);
        if end + 22 + comment != bytes.len() {
            return Err(cut());
        }
        let mut count = u64::from(u16_at(bytes, end + 10).ok_or_else(cut)?);
        let mut at = u64::from(u32_at(bytes, end + 16).ok_or_else(cut)?);
        let locator = end.checked_sub(20).filter(|at| bytes[*at..].starts_with(END_64_LOCATOR));
        if let Some(locator) = locator {
            let end_64 = usize::try_from(u64_at(bytes, locator + 8).ok_or_else(cut)?).map_err(|_| cut())?;
            if !bytes.get(end_64..).ok_or_else(cut)?.starts_with(END_64) {
                return Err(cut());
            }
            count = u64_at(bytes, end_64 + 32).ok_or_else(cut)?;
            at = u64_at(bytes, end_64 + 48).ok_or_else(cut)?;
        }
        let mut at = usize::try_from(at).map_err(|_| cut())?;
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let header = bytes.get(at..).ok_or_else(cut)?;
            if !header.starts_with(CENTRAL) {
                return Err(cut());
            }
            let length = |i| u16_at(header, i).map(usize::from).ok_or_else(cut);
            let (name_length, extra_length, comment_length) = (length(28)?, length(30)?, length(32)?);
            let name = header.get(46..46 + name_length).ok_or_else(cut)?;
            let name = std::str::from_utf8(name).map_err(|_| cut())?.to_owned();
            let extra = header.get(46 + name_length..46 + name_length + extra_length).ok_or_else(cut)?;
            if length(10)? != 0 {
                return Err(WeightsError::Format(format!(
                    "entry {name:?} of the zip archive is compressed, which PyTorch never does"
                )));
            }
            let sizes = Sizes::read(header, extra).ok_or_else(cut)?;
            let data = data_of(bytes, &sizes).ok_or_else(|| {
                WeightsError::Format(format!(
                    "entry {name:?} of the zip archive has {} bytes from {}, which the file of {} bytes has not",
                    sizes.stored,
                    sizes.local_at,
                    bytes.len()
                ))
            })?;
            if crc32fast::hash(data) != u32_at(header, 16).ok_or_else(cut)? {
                return Err(WeightsError::Format(format!(
                    "the checksum of entry {name:?} of the zip archive does not match: the file is damaged"
                )));
            }
            entries.insert(name, data);
            at += 46 + name_length + extra_length + comment_length;
        }
        Ok(Self(entries))
    }

    /// The entry of this name.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.0.get(name).copied()
    }

    /// The name of the first entry that ends so.
    pub fn name_ending(&self, end: &str) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|name| name.ends_with(end))
    }
}

struct Sizes {
    stored: u64,
    local_at: u64,
}

impl Sizes {
    fn read(header: &[u8], extra: &[u8]) -> Option<Self> {
        let (packed, plain, local_at) = (u32_at(header, 20)?, u32_at(header, 24)?, u32_at(header, 42)?);
        // Values that do not fit in 32 bits stand in the extra field 1, in this order and only those.
        let mut large = large_values(extra);
        let mut wide = |value: u32| match value {
            u32::MAX => large.next(),
            value => Some(value.into()),
        };
        let (plain, packed, local_at) = (wide(plain)?, wide(packed)?, wide(local_at)?);
        (plain == packed).then_some(Self { stored: packed, local_at })
    }
}

fn large_values(extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut rest = extra;
    let mut found: &[u8] = &[];
    while let (Some(id), Some(length)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let Some(data) = rest.get(4..4 + usize::from(length)) else { break };
        if id == 1 {
            found = data;
            break;
        }
        rest = &rest[4 + usize::from(length)..];
    }
    found.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b))
}

fn data_of<'a>(bytes: &'a [u8], sizes: &Sizes) -> Option<&'a [u8]> {
    let local_at = usize::try_from(sizes.local_at).ok()?;
    let local = bytes.get(local_at..).filter(|local| local.starts_with(LOCAL))?;
    let start = 30 + usize::from(u16_at(local, 26)?) + usize::from(u16_at(local, 28)?);
    local.get(start..start.checked_add(usize::try_from(sizes.stored).ok()?)?)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}
