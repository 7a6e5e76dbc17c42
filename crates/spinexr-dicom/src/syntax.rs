//! How a data set is coded: file meta information (PS3.10 7.1), or a guess from the first element without it.

use crate::error::ReadError;
use dicom_encoding::transfer_syntax::{TransferSyntax, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::{TransferSyntaxRegistry, entries};
use std::path::Path;

/// A transfer syntax as far as reading goes.
pub(crate) struct Syntax {
    /// Transfer Syntax UID (0002,0010), as declared or guessed.
    pub uid: String,
    /// Its name in the standard.
    pub name: String,
    pub big_endian: bool,
    pub deflated: bool,
    /// What the (inflated) data set is parsed as.
    pub parsed_as: &'static TransferSyntax,
}

const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
const EXPLICIT_BE: &str = "1.2.840.10008.1.2.2";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";

/// Retired syntaxes that are decoded but not registered in dicom-rs, with their names.
const RETIRED_JPEG: [(&str, &str); 2] = [
    ("1.2.840.10008.1.2.4.53", "JPEG Spectral Selection, Non-Hierarchical (Process 6 & 8)"),
    ("1.2.840.10008.1.2.4.55", "JPEG Full Progression, Non-Hierarchical (Process 10 & 12)"),
];

/// Transfer syntaxes without a lossless form: JPEG baseline and extended, and the retired ones on their processes.
pub(crate) const ALWAYS_LOSSY: [&str; 4] =
    ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"];

/// First bytes of a DICOM file or bare data set?
pub(crate) fn looks_like_dicom(head: &[u8]) -> bool {
    head.get(128..132) == Some(b"DICM".as_slice()) || bare_syntax(head).is_some() || starts_with_meta(head)
}

/// File meta group right at the start.
fn starts_with_meta(head: &[u8]) -> bool {
    head.starts_with(&[2, 0]) && head.get(4..6).is_some_and(is_vr)
}

fn is_vr(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_uppercase)
}

/// The syntax of a data set that begins, as most do, with a short element of group 0008.
fn bare_syntax(head: &[u8]) -> Option<&'static str> {
    let head = head.get(..8)?;
    match (head[0], head[1]) {
        (8, 0) if is_vr(&head[4..6]) => Some(EXPLICIT_LE),
        (0, 8) if is_vr(&head[4..6]) => Some(EXPLICIT_BE),
        (8, 0) if head[3] == 0 && head[6..8] == [0, 0] => Some(IMPLICIT_LE),
        _ => None,
    }
}

/// The syntax of the data set in `file`, and where the data set starts.
pub(crate) fn detect(
    path: &Path,
    file: &[u8],
    notes: &mut Vec<String>,
) -> Result<(Syntax, usize), ReadError> {
    let start = if file.get(128..132) == Some(b"DICM".as_slice()) {
        132
    } else if starts_with_meta(file) {
        notes.push("no preamble: file meta information at the start".into());
        0
    } else if let Some(uid) = bare_syntax(file) {
        notes.push(format!("no file meta information: read as {uid}"));
        return Ok((known(path, uid)?, 0));
    } else {
        return Err(unknown_format(path, file));
    };
    let (declared, end) = read_meta(path, file, start)?;
    let uid = match declared {
        Some(uid) => uid,
        None => {
            let guess = if file.get(end + 4..end + 6).is_some_and(is_vr) { EXPLICIT_LE } else { IMPLICIT_LE };
            notes.push(format!("no Transfer Syntax UID (0002,0010): read as {guess}"));
            guess.to_string()
        }
    };
    Ok((known(path, &uid)?, end))
}

pub(crate) fn unknown_format(path: &Path, file: &[u8]) -> ReadError {
    let found = if file.is_empty() {
        "nothing: the file is empty".to_string()
    } else {
        file.iter().take(8).map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(" ")
    };
    ReadError::UnknownFormat { path: path.into(), found }
}

/// Transfer Syntax UID, and the end of group 0002, which is always explicit little endian. The group's length
/// element is not relied on: it is wrong in some files, and the next group shows the end as well.
fn read_meta(path: &Path, file: &[u8], start: usize) -> Result<(Option<String>, usize), ReadError> {
    let mut at = start;
    let mut uid = None;
    while let Some(&[2, 0, e0, e1, v0, v1, l0, l1]) = file.get(at..at + 8) {
        let broken = |reason: String| ReadError::Parse { path: path.into(), offset: at as u64, reason };
        let element = u16::from_le_bytes([e0, e1]);
        let (header, length) = match &[v0, v1] {
            b"OB" | b"OW" | b"SQ" | b"UN" | b"UT" => {
                let Some(&[a, b, c, d]) = file.get(at + 8..at + 12) else {
                    return Err(broken("file meta information is cut off".into()));
                };
                (12, u32::from_le_bytes([a, b, c, d]) as usize)
            }
            _ => (8, usize::from(u16::from_le_bytes([l0, l1]))),
        };
        let Some(value) = file.get(at + header..).and_then(|rest| rest.get(..length)) else {
            let left = file.len().saturating_sub(at + header);
            return Err(broken(format!("(0002,{element:04X}) claims {length} bytes, {left} are left")));
        };
        if element == 0x0010 {
            let text = String::from_utf8_lossy(value);
            uid = Some(text.trim_matches(['\0', ' ']).to_string()).filter(|uid| !uid.is_empty());
        }
        at += header + length;
    }
    Ok((uid, at))
}

impl Syntax {
    /// Explicit VR Little Endian.
    pub fn explicit_le() -> Self {
        let registered = explicit_le();
        Self {
            uid: EXPLICIT_LE.into(),
            name: registered.name().into(),
            big_endian: false,
            deflated: false,
            parsed_as: registered,
        }
    }
}

/// The syntax registered under `uid`.
fn known(path: &Path, uid: &str) -> Result<Syntax, ReadError> {
    let retired = RETIRED_JPEG.iter().find(|(retired, _)| *retired == uid);
    let registered = match retired {
        // Their data sets are as those of every JPEG.
        Some(_) => TransferSyntaxRegistry.get(entries::JPEG_EXTENDED.uid()),
        None => TransferSyntaxRegistry.get(uid),
    };
    let registered = registered.ok_or_else(|| unsupported(path, uid))?;
    let deflated = uid == DEFLATED;
    Ok(Syntax {
        uid: uid.to_string(),
        name: retired.map_or(registered.name(), |(_, name)| *name).to_string(),
        big_endian: uid == EXPLICIT_BE,
        deflated,
        parsed_as: if deflated { explicit_le() } else { registered },
    })
}

fn explicit_le() -> &'static TransferSyntax {
    TransferSyntaxRegistry
        .get(entries::EXPLICIT_VR_LITTLE_ENDIAN.uid())
        .expect("every build registers the uncompressed syntaxes")
}

/// The error for a coding that cannot be read, with the standard's name for it where there is one.
pub(crate) fn unsupported(path: &Path, uid: &str) -> ReadError {
    let name =
        TransferSyntaxRegistry.get(uid).map_or_else(|| "unknown".to_string(), |s| s.name().to_string());
    ReadError::UnsupportedTransferSyntax { path: path.into(), uid: uid.to_string(), name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta_of(file: &[u8]) -> Result<(Option<String>, usize), ReadError> {
        read_meta(Path::new("a.dcm"), file, 0)
    }

    #[test]
    fn a_wrong_group_length_does_not_matter() {
        let mut file = b"\x02\x00\x00\x00UL\x04\x00\xff\xff\x00\x00".to_vec();
        file.extend_from_slice(b"\x02\x00\x10\x00UI\x12\x001.2.840.10008.1.2\0");
        file.extend_from_slice(b"\x08\x00\x05\x00\x00\x00\x00\x00");
        let (uid, end) = meta_of(&file).unwrap();
        assert_eq!(uid.as_deref(), Some(IMPLICIT_LE));
        assert_eq!(end, file.len() - 8);
    }

    #[test]
    fn a_length_beyond_the_file_is_an_error() {
        assert!(matches!(meta_of(b"\x02\x00\x10\x00UI\xff\x7f1.2"), Err(ReadError::Parse { .. })));
    }

    #[test]
    fn bare_data_sets_are_told_apart() {
        assert_eq!(bare_syntax(b"\x08\x00\x05\x00CS\x0a\x00"), Some(EXPLICIT_LE));
        assert_eq!(bare_syntax(b"\x00\x08\x00\x05CS\x00\x0a"), Some(EXPLICIT_BE));
        assert_eq!(bare_syntax(b"\x08\x00\x05\x00\x0a\x00\x00\x00"), Some(IMPLICIT_LE));
        assert_eq!(bare_syntax(b"plain text"), None);
    }
}
