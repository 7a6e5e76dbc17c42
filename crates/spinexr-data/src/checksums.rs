//! `SHA256SUMS`, the list of checksums that a release comes with (PhysioNet's is `SHA256SUMS.txt`).

use crate::DataError;
use crate::error::reading;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Names of the list, the first that exists is read.
const NAMES: [&str; 2] = ["SHA256SUMS.txt", "SHA256SUMS"];

/// Largest list, bytes: a hundred million films.
const MAX_LIST_BYTES: u64 = 1 << 33;

/// A list of checksums.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checksums {
    /// The list's file.
    pub path: PathBuf,
    /// Path below the list's folder, with `/` between its parts, → SHA-256.
    pub sums: BTreeMap<String, [u8; 32]>,
    /// Lines that are no checksum and path below the folder, as line number and reason.
    pub broken: Vec<(u64, String)>,
}

impl Checksums {
    /// The list of the folder `dir`; `None` where it has none.
    ///
    /// # Errors
    /// [`DataError::Read`], [`DataError::Layout`] for a list that is larger than any release's.
    pub fn of_folder(dir: &Path) -> Result<Option<Self>, DataError> {
        let Some(path) = NAMES.iter().map(|name| dir.join(name)).find(|path| path.is_file()) else {
            return Ok(None);
        };
        let size = path.metadata().map_err(reading(&path))?.len();
        if size > MAX_LIST_BYTES {
            let (expected, found) = (format!("at most {MAX_LIST_BYTES} bytes"), format!("{size} bytes"));
            return Err(DataError::Layout { path, expected, found });
        }
        let text = std::fs::read(&path).map_err(reading(&path))?;
        let mut list = Self { path, ..Self::default() };
        for (line, number) in text.split(|&b| b == b'\n').zip(1..) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match parse_line(line) {
                Ok((name, sum)) => {
                    if list.sums.insert(name.clone(), sum).is_some_and(|other| other != sum) {
                        list.broken.push((number, format!("`{name}` has another checksum further up")));
                    }
                }
                Err(reason) => list.broken.push((number, reason)),
            }
        }
        Ok(Some(list))
    }

    /// The checksum listed for the file at `path` of the folder `dir`.
    pub fn of(&self, dir: &Path, path: &Path) -> Option<[u8; 32]> {
        self.sums.get(&below(dir, path)?).copied()
    }
}

/// The name under which a list in `dir` has the file at `path`.
pub(crate) fn below(dir: &Path, path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> =
        path.strip_prefix(dir).ok()?.components().map(|part| part.as_os_str().to_str()).collect();
    Some(parts?.join("/"))
}

/// `<64 hex digits> <path>`, as `sha256sum` writes it: one or two blanks, or a blank and `*`.
fn parse_line(line: &[u8]) -> Result<(String, [u8; 32]), String> {
    let text = std::str::from_utf8(line).map_err(|_| "expected UTF-8 text".to_owned())?;
    let (digits, name) =
        text.split_once([' ', '\t']).ok_or_else(|| "expected a checksum, a blank and a path".to_owned())?;
    let mut sum = [0u8; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return Err(format!("expected 64 hexadecimal digits, found {} characters", digits.chars().count()));
    }
    for (byte, pair) in sum.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).expect("the digits are ASCII");
        *byte = u8::from_str_radix(pair, 16).map_err(|_| format!("`{pair}` is not hexadecimal"))?;
    }
    let name = name.trim_start_matches([' ', '\t']);
    let name = name.strip_prefix('*').unwrap_or(name);
    let name = name.strip_prefix("./").unwrap_or(name);
    // A list is somebody else's: it must not send us outside its folder.
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !inside {
        return Err("expected a path inside the folder".to_owned());
    }
    Ok((name.to_owned(), sum))
}

/// SHA-256 of a file, read piece by piece.
pub(crate) fn sha256_of_file(path: &Path) -> Result<[u8; 32], DataError> {
    let mut file = File::open(path).map_err(reading(path))?;
    let mut hash = Sha256::new();
    let mut piece = vec![0u8; 1 << 16];
    loop {
        match file.read(&mut piece).map_err(reading(path))? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&piece[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_line() {
        let hex = "AB".repeat(32);
        for line in [format!("{hex}  a/b.dicom"), format!("{hex} *a/b.dicom"), format!("{hex} ./a/b.dicom")] {
            assert_eq!(parse_line(line.as_bytes()), Ok(("a/b.dicom".to_owned(), [0xAB; 32])));
        }
        let wrong = [
            format!("{hex}a  a"),
            "  a".to_owned(),
            format!("{}  a", "xy".repeat(32)),
            format!("{hex}  ../a"),
            format!("{hex}  /etc/passwd"),
            format!("{hex}  "),
        ];
        for line in wrong {
            assert!(parse_line(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_list_is_found_and_its_faults_are_told_by_line() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Checksums::of_folder(dir.path()).unwrap(), None);
        let (a, b) = ("aa".repeat(32), "bb".repeat(32));
        std::fs::write(dir.path().join("SHA256SUMS"), format!("{a}  x.csv\r\n\n{b}  x.csv\nnonsense\n"))
            .unwrap();
        let list = Checksums::of_folder(dir.path()).unwrap().unwrap();
        assert_eq!(list.broken.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(list.of(dir.path(), &dir.path().join("x.csv")), Some([0xBB; 32]));
        assert_eq!(list.of(dir.path(), Path::new("/elsewhere/x.csv")), None);
    }

    #[test]
    fn a_file_is_hashed_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, vec![7u8; 200_000]).unwrap();
        assert_eq!(sha256_of_file(&path).unwrap(), <[u8; 32]>::from(Sha256::digest(vec![7u8; 200_000])));
    }
}
