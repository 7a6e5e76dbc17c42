//! Films in a folder.

use crate::error::ReadError;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Extensions that name a film, lower case.
const EXTENSIONS: [&str; 5] = ["dcm", "dicom", "png", "jpg", "jpeg"];
/// Deepest folder that is looked into.
const MAX_FOLDER_DEPTH: usize = 32;

/// The films at `path`: the file itself, whatever its name, or all films of a folder and its subfolders, sorted
/// by path. A film has a known extension or the prefix of a DICOM file. Hidden files are left out, and links to
/// folders are not followed.
///
/// # Errors
/// [`ReadError::Io`] when `path` or a folder in it cannot be read, [`ReadError::NoFilm`] when `path` is neither
/// file nor folder. A folder without films gives an empty list.
pub fn find_films(path: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let io = |source| ReadError::Io { path: path.into(), source };
    let metadata = fs::metadata(path).map_err(io)?;
    if metadata.is_file() {
        return Ok(vec![path.into()]);
    }
    if !metadata.is_dir() {
        return Err(ReadError::NoFilm { path: path.into() });
    }
    let mut films = Vec::new();
    let mut folders = vec![(path.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let io = |source| ReadError::Io { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let kind = entry.file_type().map_err(io)?;
            let path = entry.path();
            if kind.is_dir() && depth < MAX_FOLDER_DEPTH {
                folders.push((path, depth + 1));
            } else if !kind.is_dir() && path.is_file() && is_film(&path) {
                films.push(path);
            }
        }
    }
    films.sort();
    Ok(films)
}

fn is_film(path: &Path) -> bool {
    let known = path
        .extension()
        .and_then(|e| e.to_str())
        .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)));
    known || has_dicom_prefix(path)
}

/// `DICM` after the preamble (PS3.10 7.1). A file that cannot be read is no film by content.
fn has_dicom_prefix(path: &Path) -> bool {
    let mut head = [0u8; 132];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head[128..] == *b"DICM"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn films_are_found_by_name_or_prefix_and_sorted() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        for name in ["z.PNG", "b/c/a.dicom", "b/x.jpeg", "notes.txt", ".hidden.dcm"] {
            fs::write(root.join(name), b"x").unwrap();
        }
        let mut bare = vec![0u8; 128];
        bare.extend_from_slice(b"DICM");
        fs::write(root.join("b/IM0001"), bare).unwrap();
        let found = find_films(root).unwrap();
        let names: Vec<_> = found.iter().map(|p| p.strip_prefix(root).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["b/IM0001", "b/c/a.dicom", "b/x.jpeg", "z.PNG"]);
        assert_eq!(find_films(&root.join("notes.txt")).unwrap().len(), 1);
        assert!(matches!(find_films(&root.join("none")), Err(ReadError::Io { .. })));
    }
}
