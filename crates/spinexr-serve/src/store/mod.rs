//! The job store: one SQLite file, which is the truth about every film, job, result and delivery.
//!
//! Every change that must hold together is one transaction, on the disk (`synchronous = FULL`) before the call returns.
//! Files of the spool are written and synced before the row that names them; a file without a row is a leftover of a kill
//! and swept at the next start ([`crate::spool::Spool::sweep`]).
//!
//! One process owns the store, held to it by a lock on the data folder. Calls are short and take the one connection in
//! turn.

mod annotations;
mod deliveries;
mod instances;
mod jobs;
mod retention;

pub use annotations::SavedAnnotation;
pub use deliveries::{Delivery, DeliveryState, Sent};
pub use instances::{InstanceKind, InstanceRow, Level, Query};
pub use jobs::{Accepted, Finished, Job, JobState};
pub use retention::Removed;

use crate::audit::Head;
use crate::error::ServeError;
use rusqlite::{Connection, OptionalExtension};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Version of the tables.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE instances (
    id TEXT PRIMARY KEY,              -- SHA-256 of transfer syntax and data set
    kind TEXT NOT NULL,               -- film, sr, gsps, sc
    job TEXT,                         -- what made it; none for a film
    path TEXT NOT NULL,               -- in the spool
    bytes INTEGER NOT NULL,
    data_set_start INTEGER NOT NULL,
    transfer_syntax TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    modality TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    patient_name TEXT NOT NULL,
    study_date TEXT NOT NULL,
    accession TEXT NOT NULL,
    attributes TEXT NOT NULL,         -- DICOM JSON Model
    received_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX instances_by_uid ON instances (study_uid, series_uid, sop_instance_uid);
CREATE INDEX instances_by_job ON instances (job);
CREATE INDEX instances_by_bytes ON instances (bytes);   -- their sum is asked for with every film
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,              -- from film and model
    film TEXT NOT NULL REFERENCES instances (id),
    model TEXT NOT NULL,
    state TEXT NOT NULL,              -- waiting, running, done, failed
    attempts INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    finished_ms INTEGER,
    error TEXT
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, due_ms);
CREATE INDEX jobs_by_film ON jobs (film);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL REFERENCES jobs (id),
    instance TEXT NOT NULL REFERENCES instances (id),
    destination TEXT NOT NULL,
    state TEXT NOT NULL,              -- waiting, delivered, failed
    attempts INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    finished_ms INTEGER,
    error TEXT,
    UNIQUE (instance, destination)
) STRICT;
CREATE INDEX deliveries_by_state ON deliveries (state, destination, due_ms);
CREATE INDEX deliveries_by_job ON deliveries (job);
CREATE TABLE annotations (
    film TEXT NOT NULL REFERENCES instances (id),
    reader TEXT NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,              -- draft, complete
    begun_ms INTEGER NOT NULL,
    saved_ms INTEGER NOT NULL,
    document TEXT NOT NULL,           -- the reading, JSON
    PRIMARY KEY (film, reader)
) STRICT;
CREATE TABLE audit_head (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL) STRICT;
";

/// The open store.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens or begins the store at `path`.
    ///
    /// # Errors
    /// [`ServeError::Version`] for one of another version, [`ServeError::Store`].
    pub fn open(path: &Path) -> Result<Self, ServeError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let transaction = connection.transaction()?;
        let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match found {
            0 => {
                transaction.execute_batch(TABLES)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            VERSION => {}
            found => return Err(ServeError::Version { path: path.into(), expected: VERSION, found }),
        }
        transaction.commit()?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// The one connection. A panic while it was held left no transaction open: rusqlite rolls one back when dropped.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last line of the audit log that is known here.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn audit_head(&self) -> Result<Head, ServeError> {
        let query = "SELECT seq, hash FROM audit_head";
        let read =
            |row: &rusqlite::Row<'_>| Ok(Head { seq: row.get::<_, i64>(0)? as u64, hash: row.get(1)? });
        Ok(self.connection().query_row(query, [], read).optional()?.unwrap_or_default())
    }

    /// Notes the last line of the audit log. It may lag behind the log after a kill, never be ahead of it.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn set_audit_head(&self, head: &Head) -> Result<(), ServeError> {
        let statement = "INSERT INTO audit_head VALUES (1, ?1, ?2) ON CONFLICT (one) DO UPDATE SET seq = ?1, hash = ?2 \
                         WHERE seq < ?1";
        self.connection().execute(statement, (head.seq as i64, &head.hash))?;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("jobs.sqlite")).unwrap();
        (dir, store)
    }

    /// A film's row, another for each number.
    pub(crate) fn film(number: u32) -> InstanceRow {
        InstanceRow {
            id: format!("{number:064x}"),
            kind: InstanceKind::Film,
            job: None,
            path: format!("films/00/{number}.dcm"),
            bytes: 100,
            received_ms: i64::from(number),
            instance: spinexr_dicom::Instance {
                transfer_syntax: "1.2.840.10008.1.2.1".into(),
                data_set_start: 0,
                sop_class_uid: "1.2".into(),
                sop_instance_uid: format!("1.2.{number}"),
                study_uid: "1.3".into(),
                series_uid: "1.4".into(),
                has_pixels: true,
                attributes: serde_json::Map::new(),
            },
        }
    }

    #[test]
    fn another_version_is_refused() {
        let (dir, store) = store();
        store.connection().pragma_update(None, "user_version", 99).unwrap();
        drop(store);
        let error = Store::open(&dir.path().join("jobs.sqlite")).unwrap_err();
        assert!(matches!(error, ServeError::Version { found: 99, .. }), "{error}");
    }

    #[test]
    fn the_audit_head_only_goes_forward() {
        let (_dir, store) = store();
        assert_eq!(store.audit_head().unwrap(), Head::default());
        for (seq, expected) in [(3, 3), (5, 5), (4, 5)] {
            store.set_audit_head(&Head { seq, hash: seq.to_string() }).unwrap();
            assert_eq!(store.audit_head().unwrap().seq, expected);
        }
    }
}
