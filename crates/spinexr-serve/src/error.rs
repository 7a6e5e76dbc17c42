//! What stops the service, or one of its parts.

use crate::store::StoreError;
use std::path::PathBuf;

/// An error of the service itself. What is wrong with a film that was sent is a [`crate::ingest::Refused`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The job store refused.
    #[error("job store: {0}")]
    Store(#[from] StoreError),
    /// The data folder was made by another version of the program.
    #[error("{}: the job store has version {found}, this program reads {expected}", path.display())]
    Version {
        /// The store.
        path: PathBuf,
        /// Version this program writes.
        expected: i64,
        /// Version found.
        found: i64,
    },
    /// Another process serves from the folder.
    #[error("{}: in use by another process", path.display())]
    InUse {
        /// The data folder.
        path: PathBuf,
    },
    /// A value of the configuration cannot be used.
    #[error("configuration: {key}: expected {expected}, got {got}")]
    Config {
        /// Key, as `http.listen`.
        key: String,
        /// What would be usable.
        expected: String,
        /// What is there.
        got: String,
    },
    /// The configuration cannot be read as TOML with the known keys.
    #[error("configuration: {0}")]
    Toml(#[from] toml::de::Error),
    /// A port could not be opened.
    #[error("listening on {address}: {source}")]
    Listen {
        /// Address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("{}: {reason}", path.display())]
    Tls {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The audit log does not hold together.
    #[error("{}: line {line}: {reason}", path.display())]
    Audit {
        /// The log.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl ServeError {
    /// Gives an error of the file system its place.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
