//! The job store: the truth about every film, job, result and delivery. One SQLite file in the data folder, or a PostgreSQL
//! database that several nodes share (`database.rs` tells how changes stay apart).
//!
//! Every change that must hold together is one transaction, on the disk before the call returns. Files of the spool come and
//! go inside the transaction that writes or removes their row: a film's file is synced and in its place before the row that
//! names it is committed, and a removed film's is deleted before its rows are. So a kill leaves at most a file without a row,
//! swept at the next start ([`crate::spool::Spool::sweep`]), or rows whose files are gone, which the next round of retention
//! takes away, or the same film, sent again, mends.
//!
//! A node is a process with a name: `local` for the one that owns a SQLite file. What a node has under way bears its name,
//! and is given to others when it has not been heard of for a while ([`Store::beat`]).

mod annotations;
mod database;
mod deliveries;
mod instances;
mod jobs;
mod nodes;
mod retention;
mod sql;
mod tables;

pub use annotations::SavedAnnotation;
pub use deliveries::{Delivery, DeliveryState, Sent};
pub use instances::{InstanceKind, InstanceRow, Level, Query};
pub use jobs::{Accepted, Finished, Job, JobState, Summary};
pub use nodes::{Kept, Recovery};
pub use retention::Removed;
pub use sql::StoreError;

use crate::audit::Head;
use crate::config::Config;
use crate::error::ServeError;
use crate::spool::{node_name, spool_id};
use database::Database;
use std::path::Path;

/// Name of the one node of a SQLite store.
const LOCAL: &str = "local";

/// The open store.
pub struct Store {
    database: Database,
    node: String,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("node", &self.node).field("is_shared", &self.is_shared()).finish()
    }
}

impl Store {
    /// Opens or begins the store that a configuration names.
    ///
    /// # Errors
    /// [`ServeError::Version`] for one of another version; [`ServeError::Config`] when the nodes of a shared store have
    /// different spools; [`ServeError::Store`], [`ServeError::Io`], [`ServeError::Tls`].
    pub fn of(config: &Config) -> Result<Self, ServeError> {
        let Some(settings) = &config.store.postgres else {
            return Self::sqlite(&config.data_dir.join("jobs.sqlite"));
        };
        let node = node_name(&config.data_dir)?;
        let store = Self::prepare(Database::postgres(settings)?, node, Path::new("PostgreSQL"))?;
        let here = spool_id(&config.spool_dir())?;
        let known = store.database.write(|sql| match tables::fact(sql, "spool")? {
            Some(known) => Ok(known),
            None => {
                tables::set_fact(sql, "spool", &here)?;
                Ok(here.clone())
            }
        })?;
        if known != here {
            return Err(ServeError::Config {
                key: "store.spool_dir".into(),
                expected: format!("the spool that the other nodes of this database use ({known})"),
                got: format!("{} ({here})", config.spool_dir().display()),
            });
        }
        Ok(store)
    }

    /// Opens or begins the store in a SQLite file.
    ///
    /// # Errors
    /// [`ServeError::Version`], [`ServeError::Store`].
    pub fn sqlite(path: &Path) -> Result<Self, ServeError> {
        Self::prepare(Database::sqlite(path)?, LOCAL.into(), path)
    }

    fn prepare(database: Database, node: String, place: &Path) -> Result<Self, ServeError> {
        if let Some(found) = database.write(|sql| Ok(tables::prepare(sql)?))? {
            return Err(ServeError::Version { path: place.into(), expected: tables::VERSION, found });
        }
        Ok(Self { database, node })
    }

    /// Whether other nodes may use it at the same time.
    pub fn is_shared(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }

    /// The last line of this node's audit log that is known here.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn audit_head(&self) -> Result<Head, ServeError> {
        let query = "SELECT seq, hash FROM audit_heads WHERE node = ?1";
        self.database.read(|sql| {
            let row = sql.row(query, &[(&self.node).into()])?;
            row.map_or_else(|| Ok(Head::default()), |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? }))
        })
    }

    /// Notes the last line of this node's audit log. It may lag behind the log after a kill, never be ahead of it.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn set_audit_head(&self, head: &Head) -> Result<(), ServeError> {
        let statement = "INSERT INTO audit_heads (node, seq, hash) VALUES (?1, ?2, ?3) ON CONFLICT (node) \
                         DO UPDATE SET seq = ?2, hash = ?3 WHERE audit_heads.seq < ?2";
        let values = [(&self.node).into(), (head.seq as i64).into(), (&head.hash).into()];
        self.database.write(|sql| {
            sql.execute(statement, &values)?;
            Ok(())
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::Postgres;
    use postgres::{Client, NoTls};

    /// Where a PostgreSQL server is for tests; without it they run on SQLite alone, and say so.
    const POSTGRES: &str = "SPINEXR_TEST_POSTGRES";

    /// A schema of its own in the tests' server, gone when dropped.
    pub(crate) struct Schema {
        name: String,
        pub(crate) connection: String,
    }

    impl Schema {
        fn new() -> Option<Self> {
            let server = std::env::var(POSTGRES).ok()?;
            let mut random = [0; 8];
            getrandom::fill(&mut random).unwrap();
            let name = format!("test_{}", spinexr_core::hex(&random));
            Client::connect(&server, NoTls).unwrap().batch_execute(&format!("CREATE SCHEMA {name}")).unwrap();
            Some(Self { connection: format!("{server} options='-c search_path={name}'"), name })
        }

        /// The store of one of its nodes.
        pub(crate) fn store(&self, node: &str) -> Store {
            let settings =
                Postgres { connection: self.connection.clone(), password_file: None, tls_ca: None };
            let database = Database::postgres(&settings).unwrap();
            Store::prepare(database, node.into(), Path::new("PostgreSQL")).unwrap()
        }
    }

    impl Drop for Schema {
        fn drop(&mut self) {
            let drop = format!("DROP SCHEMA {} CASCADE", self.name);
            Client::connect(&std::env::var(POSTGRES).unwrap(), NoTls).unwrap().batch_execute(&drop).unwrap();
        }
    }

    /// Runs a test on an empty SQLite store and, where a server is given, on an empty PostgreSQL store.
    pub(crate) fn on_each(test: impl Fn(&Store)) {
        let dir = tempfile::tempdir().unwrap();
        test(&Store::sqlite(&dir.path().join("jobs.sqlite")).unwrap());
        with_schema(|schema| test(&schema.store("a")));
    }

    /// Runs a test on PostgreSQL, where a server is given.
    pub(crate) fn with_schema(test: impl Fn(&Schema)) {
        match Schema::new() {
            Some(schema) => test(&schema),
            None => eprintln!("skipped on PostgreSQL: {POSTGRES} names no server"),
        }
    }

    impl Store {
        /// Statements of a test.
        pub(crate) fn run(&self, statements: &str) {
            self.database.write(|sql| Ok(sql.execute_all(statements)?)).unwrap();
        }

        /// A number that a test asks for.
        pub(crate) fn number(&self, query: &str) -> i64 {
            self.database.read(|sql| sql.value(query, &[])).unwrap()
        }

        /// As [`Store::accept`], of a film whose file is there.
        pub(crate) fn take(&self, number: u32, job: &str, max_waiting: u64) -> Option<Accepted> {
            self.accept(&film(number), job, "m", max_waiting, || Ok(())).unwrap()
        }
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
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.sqlite");
        Store::sqlite(&path).unwrap().run("PRAGMA user_version = 99");
        let error = Store::sqlite(&path).unwrap_err();
        assert!(matches!(error, ServeError::Version { found: 99, .. }), "{error}");
        with_schema(|schema| {
            schema.store("a").run("UPDATE store_facts SET value = '99' WHERE name = 'version'");
            let settings =
                Postgres { connection: schema.connection.clone(), password_file: None, tls_ca: None };
            let database = Database::postgres(&settings).unwrap();
            let error = Store::prepare(database, "a".into(), Path::new("PostgreSQL")).unwrap_err();
            assert!(matches!(error, ServeError::Version { found: 99, .. }), "{error}");
        });
    }

    #[test]
    fn a_store_of_version_1_is_brought_to_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.sqlite");
        let old = tables::TABLES_1;
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch(old).unwrap();
        connection
            .execute_batch(
                "INSERT INTO instances VALUES ('f', 'film', NULL, 'films/f', 1, 0, 'x', 'c', '1.2', '1.3', '1.4', \
                 'DX', 'P', 'N', '', '', '{}', 0); \
                 INSERT INTO jobs (id, film, model, state, due_ms, received_ms) VALUES ('j', 'f', 'm', 'running', 0, 0); \
                 INSERT INTO audit_head VALUES (1, 7, 'seven'); PRAGMA user_version = 1;",
            )
            .unwrap();
        drop(connection);
        let store = Store::sqlite(&path).unwrap();
        assert_eq!(store.audit_head().unwrap(), Head { seq: 7, hash: "seven".into() });
        store.recover(Recovery { max_interruptions: 5, backoff_ms: 0 }).unwrap();
        assert_eq!(store.job("j").unwrap().unwrap().state, JobState::Waiting);
        assert_eq!(Store::sqlite(&path).unwrap().job("j").unwrap().unwrap().interruptions, 1);
    }

    #[test]
    fn the_audit_head_only_goes_forward() {
        on_each(|store| {
            assert_eq!(store.audit_head().unwrap(), Head::default());
            for (seq, expected) in [(3, 3), (5, 5), (4, 5)] {
                store.set_audit_head(&Head { seq, hash: seq.to_string() }).unwrap();
                assert_eq!(store.audit_head().unwrap().seq, expected);
            }
        });
    }

    #[test]
    fn what_fails_leaves_nothing() {
        on_each(|store| {
            let disk = || {
                Err(ServeError::Io { path: "film".into(), source: std::io::ErrorKind::StorageFull.into() })
            };
            assert!(store.accept(&film(1), "j1", "m", 100, disk).is_err());
            assert_eq!((store.job("j1").unwrap(), store.instance(&film(1).id).unwrap()), (None, None));
            assert!(store.take(1, "j1", 100).is_some());
        });
    }

    #[test]
    fn searches_take_wildcards_and_nothing_else_for_one() {
        on_each(|store| {
            for (number, id, name) in [(1, "P_1", "DOE^JANE"), (2, "PX1", "Doe^John"), (3, "P[1", "Roe")] {
                let mut row = film(number);
                let attribute =
                    |vr: &str, value: serde_json::Value| serde_json::json!({ "vr": vr, "Value": [value] });
                row.instance.attributes.insert("00100020".into(), attribute("LO", id.into()));
                let name = serde_json::json!({ "Alphabetic": name });
                row.instance.attributes.insert("00100010".into(), attribute("PN", name));
                store.accept(&row, &format!("j{number}"), "m", 9, || Ok(())).unwrap();
            }
            let found = |id: Option<&str>, name: Option<&str>| {
                let query = Query {
                    patient_id: id.map(Into::into),
                    patient_name: name.map(Into::into),
                    limit: 10,
                    ..Query::default()
                };
                store.find_instances(Level::Instance, &query).unwrap().len()
            };
            assert_eq!(
                [found(Some("P_1"), None), found(Some("P?1"), None), found(Some("P*"), None)],
                [1, 3, 3]
            );
            assert_eq!(
                [found(Some("P[1"), None), found(Some("p*"), None), found(Some("%"), None)],
                [1, 0, 0]
            );
            assert_eq!([found(None, Some("doe*")), found(None, Some("*^J?hn"))], [2, 1]);
            assert_eq!(store.counts("1.3", None).unwrap(), (1, 3, vec![]));
            // The newest of a study stands for it.
            let query = Query { limit: 10, ..Query::default() };
            let studies = store.find_instances(Level::Study, &query).unwrap();
            assert_eq!(studies.iter().map(|row| row.received_ms).collect::<Vec<_>>(), [3]);
        });
    }
}
