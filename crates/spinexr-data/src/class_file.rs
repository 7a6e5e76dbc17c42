//! A file of class names, one a line, in index order: `classes.txt` of several formats.

use crate::error::reading;
use crate::{DataError, RowError};
use spinexr_core::{ClassList, Label};
use std::path::Path;

/// Largest file: as many classes as a list may have, of the longest names.
const MAX_BYTES: u64 = (ClassList::MAX_CLASSES * (Label::MAX_BYTES + 2)) as u64;

/// Reads the list; blank lines at the end are passed over, and none of the `reserved` names may be a class.
///
/// # Errors
/// [`DataError::Rows`] naming the line of a name that cannot be a class or comes twice, [`DataError::Layout`],
/// [`DataError::Read`].
pub(crate) fn read(path: &Path, reserved: &[&str]) -> Result<ClassList, DataError> {
    let size = path.metadata().map_err(reading(path))?.len();
    if size > MAX_BYTES {
        return Err(DataError::Layout {
            path: path.to_owned(),
            expected: format!("class names, at most {MAX_BYTES} bytes"),
            found: format!("{size} bytes"),
        });
    }
    let text = std::fs::read_to_string(path).map_err(reading(path))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut labels: Vec<Label> = vec![];
    for (line, name) in (1..).zip(text.trim_end().lines().map(str::trim)) {
        let fault = |expected: String, found: String| DataError::Rows {
            errors: vec![RowError { path: path.to_owned(), line, column: String::new(), expected, found }],
            total: 1,
        };
        let label = Label::new(name).map_err(|e| fault("a class name".to_owned(), e.to_string()))?;
        if reserved.iter().any(|word| word.eq_ignore_ascii_case(name)) {
            return Err(fault(
                "a class name".to_owned(),
                format!("{name:?}, which has another meaning here"),
            ));
        }
        if let Some(first) = labels.iter().position(|known| *known == label) {
            return Err(fault("every class once".to_owned(), format!("{name:?} as on line {}", first + 1)));
        }
        labels.push(label);
    }
    ClassList::new(labels).map_err(|e| DataError::Layout {
        path: path.to_owned(),
        expected: "a list of classes".to_owned(),
        found: e.to_string(),
    })
}
