//! What is wrong with a configuration, said so that it can be mended.

use std::path::PathBuf;

/// Errors of experiment files and `--set` overrides.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the experiment: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, or not an experiment.
    #[error("{}:{line}: {message}{}", path.display(), did_you_mean(hint))]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What was expected and found.
        message: String,
        /// A known key close to an unknown one.
        hint: Option<String>,
    },
    /// An override without `=`.
    #[error("--set {got}: expected key=value, for instance optimiser.lr=0.01")]
    SetSyntax {
        /// The argument.
        got: String,
    },
    /// An override of an unknown key, or with a value of the wrong kind.
    #[error("--set {key}={value}: {message}{}", did_you_mean(hint))]
    Set {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What was expected and found.
        message: String,
        /// A known key close to an unknown one.
        hint: Option<String>,
    },
    /// A value out of its range.
    #[error("{key}: expected {expected}, found {found}")]
    Invalid {
        /// Dotted key.
        key: &'static str,
        /// Its range.
        expected: &'static str,
        /// Its value.
        found: String,
    },
}

impl ConfigError {
    pub(crate) fn invalid(key: &'static str, expected: &'static str, found: impl std::fmt::Display) -> Self {
        Self::Invalid { key, expected, found: found.to_string() }
    }
}

fn did_you_mean(hint: &Option<String>) -> String {
    hint.as_ref().map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}

/// Line of a byte offset, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&b| b == b'\n').count()
}

/// For "unknown field `x`, expected one of `y`, `z`", or for "unexpected keys in table: x, available keys: y, z":
/// the expected name nearest to the (first) unknown one.
pub(crate) fn unknown_field_hint(message: &str) -> Option<String> {
    let listed = |names: &str| names.split(", ").map(str::to_owned).collect::<Vec<String>>();
    if let Some(rest) = message.strip_prefix("unexpected keys in table: ") {
        let (unknown, known) = rest.split_once(", available keys: ")?;
        return nearest_key(listed(unknown).first()?, listed(known).iter());
    }
    let rest =
        message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let mut quoted = rest.split('`');
    let unknown = quoted.next()?;
    let known: Vec<String> = quoted.skip(1).step_by(2).map(str::to_owned).collect();
    nearest_key(unknown, known.iter())
}

/// The known key with the fewest edits to `key`; `None` when too much of it
/// would change: more than half, and more than two letters of a longer word.
pub(crate) fn nearest_key<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    known
        .map(|candidate| (edits(key, candidate), candidate))
        .min_by_key(|(distance, candidate)| (*distance, (*candidate).clone()))
        .filter(|(distance, candidate)| {
            let length = key.chars().count().max(candidate.chars().count());
            *distance < length && (2 * distance <= length || *distance <= 2)
        })
        .map(|(_, candidate)| candidate.clone())
}

/// Levenshtein distance in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distances() {
        for (a, b, distance) in
            [("lr", "lr", 0), ("lr", "", 2), ("kitten", "sitting", 3), ("optimizer", "optimiser", 1)]
        {
            assert_eq!(edits(a, b), distance);
            assert_eq!(edits(b, a), distance);
        }
    }

    #[test]
    fn hints_come_from_the_expected_names() {
        let message = "unknown field `momentun`, expected `momentum` or `nesterov`";
        assert_eq!(unknown_field_hint(message).as_deref(), Some("momentum"));
        assert_eq!(unknown_field_hint("unknown field `zzzzzz`, expected `momentum`"), None);
        let message = "unknown variant `sdg`, expected `sgd` or `adamw`";
        assert_eq!(unknown_field_hint(message).as_deref(), Some("sgd"));
        assert_eq!(unknown_field_hint("invalid type"), None);
        let message = "unexpected keys in table: momentun, available keys: momentum, nesterov";
        assert_eq!(unknown_field_hint(message).as_deref(), Some("momentum"));
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!(line_of("a\nb\nc", 0), 1);
        assert_eq!(line_of("a\nb\nc", 2), 2);
        assert_eq!(line_of("a\nb\nc", 4), 3);
    }
}
