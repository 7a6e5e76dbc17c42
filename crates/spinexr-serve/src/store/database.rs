//! The connection, and what makes changes to it safe: every write is one transaction, and there is one at a time over all
//! nodes of a store. In SQLite that is `BEGIN IMMEDIATE`, in PostgreSQL an advisory lock that the transaction takes first.
//! So a write may look at rows, decide, move files of the spool and change rows, and no other comes between.

use super::sql::{Session, StoreError};
use crate::config::Postgres as PostgresConfig;
use crate::error::ServeError;
use crate::tls;
use postgres::config::SslMode;
use postgres::{Client, Config, NoTls};
use rusqlite::TransactionBehavior;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Key of the advisory lock that a write holds; any number that is the same for all nodes.
const WRITE_LOCK: i64 = 0x0073_7069_6E65_7872;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for the other side to acknowledge what was sent: a broken network ends a connection after it.
const SILENCE: Duration = Duration::from_secs(15);
/// Longest run of a statement; it covers the wait for another node's write.
const STATEMENT: &str = "-c statement_timeout=60s -c idle_in_transaction_session_timeout=60s";

pub(super) enum Database {
    Sqlite(Mutex<rusqlite::Connection>),
    Postgres(Box<Mutex<Postgres>>),
}

/// A connection that is made anew when it was lost.
pub(super) struct Postgres {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    client: Option<Client>,
}

impl Postgres {
    fn client(&mut self) -> Result<&mut Client, StoreError> {
        let connected = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => match &self.tls {
                Some(tls) => self.config.connect(tls.clone())?,
                None => self.config.connect(NoTls)?,
            },
        };
        Ok(self.client.insert(connected))
    }
}

impl Database {
    pub(super) fn sqlite(path: &Path) -> Result<Self, StoreError> {
        let connection = rusqlite::Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(Self::Sqlite(Mutex::new(connection)))
    }

    /// # Errors
    /// [`ServeError::Config`], [`ServeError::Io`] of the password, [`ServeError::Tls`], [`ServeError::Store`].
    pub(super) fn postgres(settings: &PostgresConfig) -> Result<Self, ServeError> {
        let mut config = settings.parse()?;
        if let Some(path) = &settings.password_file {
            let password = std::fs::read_to_string(path).map_err(ServeError::io(path))?;
            config.password(password.trim_end_matches(['\r', '\n']));
        }
        let options = config.get_options().map(|options| format!("{options} ")).unwrap_or_default();
        config.options(&(options + STATEMENT)).application_name("spinexr");
        config.connect_timeout(CONNECT).tcp_user_timeout(SILENCE);
        let tls = match &settings.tls_ca {
            Some(ca) => {
                config.ssl_mode(SslMode::Require);
                Some(MakeRustlsConnect::new((*tls::client(ca)?).clone()))
            }
            None => None,
        };
        let mut postgres = Postgres { config, tls, client: None };
        postgres.client()?;
        Ok(Self::Postgres(Box::new(Mutex::new(postgres))))
    }

    /// Looks things up.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&mut Session<'_>) -> Result<T, StoreError>,
    ) -> Result<T, ServeError> {
        // A panic while a connection was held left no transaction open: both crates roll back what is dropped.
        let done = match self {
            Self::Sqlite(connection) => {
                work(&mut Session::Sqlite(&connection.lock().unwrap_or_else(PoisonError::into_inner)))
            }
            Self::Postgres(postgres) => {
                let mut postgres = postgres.lock().unwrap_or_else(PoisonError::into_inner);
                work(&mut Session::Postgres(postgres.client()?))
            }
        };
        Ok(done?)
    }

    /// Changes things, all or nothing: an error undoes all. What was changed is on the disk when this returns.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&mut Session<'_>) -> Result<T, ServeError>,
    ) -> Result<T, ServeError> {
        match self {
            Self::Sqlite(connection) => {
                let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                let transaction = connection
                    .transaction_with_behavior(TransactionBehavior::Immediate)
                    .map_err(StoreError::from)?;
                let done = work(&mut Session::Sqlite(&transaction))?;
                transaction.commit().map_err(StoreError::from)?;
                Ok(done)
            }
            Self::Postgres(postgres) => {
                let mut postgres = postgres.lock().unwrap_or_else(PoisonError::into_inner);
                let mut transaction = postgres.client()?.transaction().map_err(StoreError::from)?;
                // Whatever the server's default is: what is acknowledged must be on its disk.
                transaction.batch_execute("SET LOCAL synchronous_commit = on").map_err(StoreError::from)?;
                transaction
                    .execute("SELECT pg_advisory_xact_lock($1)", &[&WRITE_LOCK])
                    .map_err(StoreError::from)?;
                let mut session = Session::Transaction(transaction);
                let done = work(&mut session)?;
                let Session::Transaction(transaction) = session else { unreachable!("set above") };
                transaction.commit().map_err(StoreError::from)?;
                Ok(done)
            }
        }
    }
}
