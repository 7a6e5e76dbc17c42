//! Text files that others may have written.

use crate::EvalError;
use std::path::Path;

/// The text of a file, with a byte order mark removed.
pub(crate) fn read_text(path: &Path) -> Result<String, EvalError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| EvalError::Io { path: path.to_owned(), source })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}
