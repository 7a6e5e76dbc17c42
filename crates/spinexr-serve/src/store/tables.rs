//! The tables, one version for both databases.

use super::sql::{Session, StoreError};

/// Version of the tables. 2 has nodes: who reads a film, who sends an object, and an audit head for each.
pub(super) const VERSION: i64 = 2;

/// As SQLite makes them; [`postgres`] has the differences.
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
    error TEXT,
    node TEXT,                        -- who reads it, while running
    worker INTEGER,                   -- which of its workers
    summary TEXT                      -- what lists show of the record, JSON
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
    node TEXT,                        -- who is sending it
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
CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    seen_ms INTEGER NOT NULL,         -- by the database's clock
    model TEXT NOT NULL               -- what it reads films with
) STRICT;
CREATE TABLE audit_heads (node TEXT PRIMARY KEY, seq INTEGER NOT NULL, hash TEXT NOT NULL) STRICT;
";

/// The step from version 1, which only SQLite had.
const FROM_1: &str = "
ALTER TABLE jobs ADD COLUMN node TEXT;
ALTER TABLE jobs ADD COLUMN worker INTEGER;
ALTER TABLE jobs ADD COLUMN summary TEXT;
UPDATE jobs SET node = 'local' WHERE state = 'running';
ALTER TABLE deliveries ADD COLUMN node TEXT;
CREATE TABLE nodes (id TEXT PRIMARY KEY, seen_ms INTEGER NOT NULL, model TEXT NOT NULL) STRICT;
CREATE TABLE audit_heads (node TEXT PRIMARY KEY, seq INTEGER NOT NULL, hash TEXT NOT NULL) STRICT;
INSERT INTO audit_heads SELECT 'local', seq, hash FROM audit_head;
DROP TABLE audit_head;
";

/// [`TABLES`] in PostgreSQL's words.
fn postgres() -> String {
    TABLES
        .replace("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
        .replace("INTEGER", "BIGINT")
        .replace(") STRICT;", ");")
}

/// Makes the tables where there are none, and brings older ones to this version. Gives the version found, where it is one
/// that this program does not know.
pub(super) fn prepare(sql: &mut Session<'_>) -> Result<Option<i64>, StoreError> {
    match sql {
        Session::Sqlite(_) => {
            let found: i64 = sql.value("PRAGMA user_version", &[])?;
            match found {
                0 => sql.execute_all(TABLES)?,
                1 => sql.execute_all(FROM_1)?,
                VERSION => return Ok(None),
                found => return Ok(Some(found)),
            }
            sql.execute_all(&format!("PRAGMA user_version = {VERSION}"))?;
        }
        Session::Postgres(_) | Session::Transaction(_) => {
            sql.execute_all(
                "CREATE TABLE IF NOT EXISTS store_facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
            )?;
            match fact(sql, "version")? {
                None => {
                    sql.execute_all(&postgres())?;
                    set_fact(sql, "version", &VERSION.to_string())?;
                }
                Some(found) if found == VERSION.to_string() => {}
                Some(found) => return Ok(Some(found.parse().unwrap_or(-1))),
            }
        }
    }
    Ok(None)
}

/// What all nodes of a PostgreSQL store have in common, by name.
pub(super) fn fact(sql: &mut Session<'_>, name: &str) -> Result<Option<String>, StoreError> {
    let row = sql.row("SELECT value FROM store_facts WHERE name = ?1", &[name.into()])?;
    row.map(|row| row.get(0)).transpose()
}

pub(super) fn set_fact(sql: &mut Session<'_>, name: &str, value: &str) -> Result<(), StoreError> {
    sql.execute("INSERT INTO store_facts (name, value) VALUES (?1, ?2)", &[name.into(), value.into()])?;
    Ok(())
}

/// The tables of version 1, for the test of the step from it.
#[cfg(test)]
pub(super) const TABLES_1: &str = "
CREATE TABLE instances (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    job TEXT,
    path TEXT NOT NULL,
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
    attributes TEXT NOT NULL,
    received_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX instances_by_uid ON instances (study_uid, series_uid, sop_instance_uid);
CREATE INDEX instances_by_job ON instances (job);
CREATE INDEX instances_by_bytes ON instances (bytes);
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    film TEXT NOT NULL REFERENCES instances (id),
    model TEXT NOT NULL,
    state TEXT NOT NULL,
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
    state TEXT NOT NULL,
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
    state TEXT NOT NULL,
    begun_ms INTEGER NOT NULL,
    saved_ms INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (film, reader)
) STRICT;
CREATE TABLE audit_head (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL) STRICT;
";
