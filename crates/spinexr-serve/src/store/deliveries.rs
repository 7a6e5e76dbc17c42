//! The outbox: a row for every result object and destination, made in the transaction that finishes the job.
//!
//! A delivery is tried until the receiver takes the object, refuses it for good, or its time is over. What the receiver has
//! acknowledged is marked in the next transaction. A kill between the two is the only way in which an object is sent again,
//! and then it is the same bytes under the same SOP Instance UID, which a receiver keeps once.

use super::Store;
use crate::clock::now_ms;
use crate::error::ServeError;
use rusqlite::{OptionalExtension, Row};
use serde::Serialize;

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// To be sent, now or later.
    Waiting,
    /// The receiver has it.
    Delivered,
    /// Given up: a dead letter.
    Failed,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Delivered, Self::Failed];

    /// `waiting`, `delivered`, `failed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// An object on its way to a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Number of the row.
    pub id: i64,
    /// The job that made the object.
    pub job: String,
    /// The object, by content.
    pub instance: String,
    /// Name of the destination.
    pub destination: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// Times it was tried.
    pub attempts: u32,
    /// When it was made, ms since 1970.
    pub created_ms: i64,
    /// When it was delivered or given up.
    pub finished_ms: Option<i64>,
    /// Why it failed last.
    pub error: Option<String>,
}

const COLUMNS: &str = "id, job, instance, destination, state, attempts, created_ms, finished_ms, error";

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The receiver has it.
    Delivered,
    /// It may take it later.
    Again {
        /// Why not now.
        error: String,
        /// When to try, ms since 1970.
        due_ms: i64,
    },
    /// It will not.
    Failed {
        /// Why.
        error: String,
    },
}

impl Store {
    /// The next delivery to a destination that is due. With none due, how long until one is, ms.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn next_delivery(&self, destination: &str) -> Result<Result<Delivery, Option<i64>>, ServeError> {
        let now = now_ms();
        let connection = self.connection();
        let statement = format!(
            "SELECT {COLUMNS}, due_ms FROM deliveries WHERE state = 'waiting' AND destination = ?1 ORDER BY due_ms, id \
             LIMIT 1"
        );
        let next = connection
            .query_row(&statement, [destination], |row| Ok((read(row)?, row.get::<_, i64>(9)?)))
            .optional()?;
        Ok(match next {
            Some((delivery, due_ms)) if due_ms <= now => Ok(delivery),
            Some((_, due_ms)) => Err(Some(due_ms - now)),
            None => Err(None),
        })
    }

    /// Writes down how an attempt ended.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn finish_delivery(&self, id: i64, sent: &Sent) -> Result<(), ServeError> {
        let now = now_ms();
        let (state, due_ms, finished_ms, error) = match sent {
            Sent::Delivered => (DeliveryState::Delivered, now, Some(now), None),
            Sent::Again { error, due_ms } => (DeliveryState::Waiting, *due_ms, None, Some(error)),
            Sent::Failed { error } => (DeliveryState::Failed, now, Some(now), Some(error)),
        };
        self.connection().execute(
            "UPDATE deliveries SET state = ?2, attempts = attempts + 1, due_ms = ?3, finished_ms = ?4, error = ?5 \
             WHERE id = ?1 AND state = 'waiting'",
            (id, state.name(), due_ms, finished_ms, error),
        )?;
        Ok(())
    }

    /// Gives up what waits for destinations that are not configured any more; says how many.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn fail_deliveries_except(&self, destinations: &[&str]) -> Result<usize, ServeError> {
        let list = serde_json::to_string(destinations).expect("names are plain data");
        let statement = "UPDATE deliveries SET state = 'failed', finished_ms = ?2, \
                         error = 'the destination is not configured any more' \
                         WHERE state = 'waiting' AND destination NOT IN (SELECT value FROM json_each(?1))";
        Ok(self.connection().execute(statement, (list, now_ms()))?)
    }

    /// A dead letter is tried again. False where there is no such delivery, or it has not failed.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn retry_delivery(&self, id: i64) -> Result<bool, ServeError> {
        let statement = "UPDATE deliveries SET state = 'waiting', attempts = 0, due_ms = ?2, created_ms = ?2, \
                         finished_ms = NULL WHERE id = ?1 AND state = 'failed'";
        Ok(self.connection().execute(statement, (id, now_ms()))? > 0)
    }

    /// The deliveries of a job.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn deliveries_of(&self, job: &str) -> Result<Vec<Delivery>, ServeError> {
        let connection = self.connection();
        let mut statement =
            connection.prepare(&format!("SELECT {COLUMNS} FROM deliveries WHERE job = ?1 ORDER BY id"))?;
        let rows = statement.query_map([job], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Deliveries, the newest first, of one state or all.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn deliveries(
        &self,
        state: Option<DeliveryState>,
        limit: u32,
        offset: u32,
    ) -> Result<Vec<Delivery>, ServeError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM deliveries WHERE ?1 IS NULL OR state = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3"
        );
        let connection = self.connection();
        let mut statement = connection.prepare(&statement)?;
        let rows = statement.query_map((state.map(DeliveryState::name), limit, offset), read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Deliveries by destination and state.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn count_deliveries(&self) -> Result<Vec<(String, DeliveryState, u64)>, ServeError> {
        let statement =
            "SELECT destination, state, count(*) FROM deliveries GROUP BY destination, state ORDER BY 1, 2";
        let connection = self.connection();
        let mut statement = connection.prepare(statement)?;
        let rows = statement.query_map([], |row| {
            let state: String = row.get(1)?;
            let state = DeliveryState::from_name(&state).unwrap_or(DeliveryState::Failed);
            Ok((row.get(0)?, state, row.get::<_, i64>(2)? as u64))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// A row of [`COLUMNS`].
fn read(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let state: String = row.get(4)?;
    Ok(Delivery {
        id: row.get(0)?,
        job: row.get(1)?,
        instance: row.get(2)?,
        destination: row.get(3)?,
        state: DeliveryState::from_name(&state).unwrap_or(DeliveryState::Failed),
        attempts: row.get(5)?,
        created_ms: row.get(6)?,
        finished_ms: row.get(7)?,
        error: row.get(8)?,
    })
}
