//! What is taken away, and when: films whose jobs have all ended and whose results have all arrived or been given up. A
//! film that someone has read stays: its readings are worth more than its bytes.

use super::Store;
use crate::error::ServeError;
use rusqlite::{OptionalExtension, TransactionBehavior};

/// A film whose rows are gone, and the files that are to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The film.
    pub film: String,
    /// Its jobs.
    pub jobs: Vec<String>,
    /// Files in the spool.
    pub paths: Vec<String>,
}

const OLDEST: &str = "SELECT film FROM jobs AS j GROUP BY film \
    HAVING sum(state IN ('waiting', 'running')) = 0 AND NOT EXISTS (SELECT 1 FROM deliveries \
        JOIN jobs AS k ON deliveries.job = k.id WHERE k.film = j.film AND deliveries.state = 'waiting') \
        AND NOT EXISTS (SELECT 1 FROM annotations WHERE annotations.film = j.film) \
    ORDER BY max(finished_ms) LIMIT 1";

impl Store {
    /// Removes the rows of the finished film that has been so for longest, if it finished before `finished_before_ms` or
    /// the files together pass `max_bytes` (0 for no bound). Files are deleted by the caller, after: a kill between leaves
    /// files without rows, which the next start sweeps.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn remove_oldest(
        &self,
        finished_before_ms: Option<i64>,
        max_bytes: u64,
    ) -> Result<Option<Removed>, ServeError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let Some(film) = transaction.query_row(OLDEST, [], |row| row.get::<_, String>(0)).optional()? else {
            return Ok(None);
        };
        let finished = "SELECT max(finished_ms) FROM jobs WHERE film = ?1";
        let finished: Option<i64> = transaction.query_row(finished, [&film], |row| row.get(0))?;
        let is_old = finished_before_ms.is_some_and(|limit| finished.is_some_and(|at| at < limit));
        let bytes: i64 =
            transaction.query_row("SELECT coalesce(sum(bytes), 0) FROM instances", [], |r| r.get(0))?;
        if !is_old && (max_bytes == 0 || bytes as u64 <= max_bytes) {
            return Ok(None);
        }
        let list = |query: &str| -> rusqlite::Result<Vec<String>> {
            transaction.prepare(query)?.query_map([&film], |row| row.get(0))?.collect()
        };
        let jobs = list("SELECT id FROM jobs WHERE film = ?1")?;
        let of_film = "id = ?1 OR job IN (SELECT id FROM jobs WHERE film = ?1)";
        let paths = list(&format!("SELECT path FROM instances WHERE {of_film}"))?;
        transaction
            .execute("DELETE FROM deliveries WHERE job IN (SELECT id FROM jobs WHERE film = ?1)", [&film])?;
        transaction
            .execute("DELETE FROM instances WHERE job IN (SELECT id FROM jobs WHERE film = ?1)", [&film])?;
        transaction.execute("DELETE FROM jobs WHERE film = ?1", [&film])?;
        transaction.execute("DELETE FROM instances WHERE id = ?1", [&film])?;
        transaction.commit()?;
        Ok(Some(Removed { film, jobs, paths }))
    }
}
