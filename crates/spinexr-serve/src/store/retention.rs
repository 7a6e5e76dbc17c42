//! What is taken away, and when: films whose jobs have all ended and whose results have all arrived or been given up. A
//! film that someone has read stays: its readings are worth more than its bytes.

use super::Store;
use super::instances::spool_bytes;
use super::sql::{Session, StoreError};
use crate::error::ServeError;

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
    HAVING count(CASE WHEN state IN ('waiting', 'running') THEN 1 END) = 0 AND NOT EXISTS (SELECT 1 FROM deliveries \
        JOIN jobs AS k ON deliveries.job = k.id WHERE k.film = j.film AND deliveries.state = 'waiting') \
        AND NOT EXISTS (SELECT 1 FROM annotations WHERE annotations.film = j.film) \
    ORDER BY max(finished_ms) LIMIT 1";

impl Store {
    /// Takes the finished film away that has been so for longest, if it finished before `finished_before_ms` or the files
    /// together pass `max_bytes` (0 for no bound). `delete` deletes the files, inside the transaction, so that the same film,
    /// sent again meanwhile, is either there before or comes after; what is gone already is no error.
    ///
    /// # Errors
    /// [`ServeError::Store`], and what `delete` gives.
    pub fn remove_oldest(
        &self,
        finished_before_ms: Option<i64>,
        max_bytes: u64,
        delete: impl FnOnce(&Removed) -> Result<(), ServeError>,
    ) -> Result<Option<Removed>, ServeError> {
        self.database.write(|sql| {
            let Some(removed) = oldest(sql, finished_before_ms, max_bytes)? else { return Ok(None) };
            delete(&removed)?;
            let film = [(&removed.film).into()];
            for statement in [
                "DELETE FROM deliveries WHERE job IN (SELECT id FROM jobs WHERE film = ?1)",
                "DELETE FROM instances WHERE job IN (SELECT id FROM jobs WHERE film = ?1)",
                "DELETE FROM jobs WHERE film = ?1",
                "DELETE FROM instances WHERE id = ?1",
            ] {
                sql.execute(statement, &film)?;
            }
            Ok(Some(removed))
        })
    }
}

/// The film whose turn it is, with all that goes with it.
fn oldest(
    sql: &mut Session<'_>,
    finished_before_ms: Option<i64>,
    max_bytes: u64,
) -> Result<Option<Removed>, StoreError> {
    let Some(row) = sql.row(OLDEST, &[])? else { return Ok(None) };
    let film: String = row.get(0)?;
    let this = [(&film).into()];
    let finished: Option<i64> = sql.value("SELECT max(finished_ms) FROM jobs WHERE film = ?1", &this)?;
    let is_old = finished_before_ms.is_some_and(|limit| finished.is_some_and(|at| at < limit));
    if !is_old && (max_bytes == 0 || spool_bytes(sql)? <= max_bytes) {
        return Ok(None);
    }
    let mut list = |query: &str| -> Result<Vec<String>, StoreError> {
        sql.rows(query, &this)?.iter().map(|row| row.get(0)).collect()
    };
    let jobs = list("SELECT id FROM jobs WHERE film = ?1")?;
    let paths =
        list("SELECT path FROM instances WHERE id = ?1 OR job IN (SELECT id FROM jobs WHERE film = ?1)")?;
    Ok(Some(Removed { film, jobs, paths }))
}
