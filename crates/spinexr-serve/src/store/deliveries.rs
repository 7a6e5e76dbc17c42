//! The outbox: a row for every result object and destination, made in the transaction that finishes the job.
//!
//! A delivery is tried until the receiver takes the object, refuses it for good, or its time is over. What the receiver has
//! acknowledged is marked in the next transaction. A kill between the two is the only way in which an object is sent again,
//! and then it is the same bytes under the same SOP Instance UID, which a receiver keeps once.

use super::Store;
use super::sql::{Row, Session, StoreError, Value};
use crate::clock::now_ms;
use crate::error::ServeError;
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
    /// The next delivery to a destination that is due, which this node is now sending. With none due, how long until one is,
    /// ms.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn next_delivery(&self, destination: &str) -> Result<Result<Delivery, Option<i64>>, ServeError> {
        // The only node of a store need not say what it sends.
        match self.is_shared() {
            true => self.database.write(|sql| {
                let next = self.look(sql, destination)?;
                if let Ok(delivery) = &next {
                    let claim = "UPDATE deliveries SET node = ?2 WHERE id = ?1";
                    sql.execute(claim, &[delivery.id.into(), (&self.node).into()])?;
                }
                Ok(next)
            }),
            false => self.database.read(|sql| self.look(sql, destination)),
        }
    }

    /// The next delivery that no other node is sending.
    fn look(
        &self,
        sql: &mut Session<'_>,
        destination: &str,
    ) -> Result<Result<Delivery, Option<i64>>, StoreError> {
        let now = now_ms();
        let statement = format!(
            "SELECT {COLUMNS}, due_ms FROM deliveries WHERE state = 'waiting' AND destination = ?1 \
             AND (node IS NULL OR node = ?2) ORDER BY due_ms, id LIMIT 1"
        );
        let Some(row) = sql.row(&statement, &[destination.into(), (&self.node).into()])? else {
            return Ok(Err(None));
        };
        let due_ms: i64 = row.get(9)?;
        Ok(if due_ms <= now { Ok(read(&row)?) } else { Err(Some(due_ms - now)) })
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
        // A delivery that another node took over, as this one was held for dead, is that one's to note; but what has arrived
        // has arrived.
        let statement = "UPDATE deliveries SET state = ?2, attempts = attempts + 1, due_ms = ?3, finished_ms = ?4, \
                         error = ?5, node = NULL WHERE id = ?1 AND state = 'waiting' \
                         AND (node IS NULL OR node = ?6 OR ?2 = 'delivered')";
        let values: [Value; 6] = [
            id.into(),
            state.name().into(),
            due_ms.into(),
            finished_ms.into(),
            error.into(),
            (&self.node).into(),
        ];
        self.database.write(|sql| {
            sql.execute(statement, &values)?;
            Ok(())
        })
    }

    /// Gives up what waits for destinations that are not configured any more; says how many.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn fail_deliveries_except(&self, destinations: &[&str]) -> Result<u64, ServeError> {
        let mut values: Vec<Value> = vec![now_ms().into()];
        let mut condition = String::new();
        for name in destinations {
            values.push((*name).into());
            condition += &format!(" AND destination <> ?{}", values.len());
        }
        let statement = format!(
            "UPDATE deliveries SET state = 'failed', finished_ms = ?1, \
             error = 'the destination is not configured any more' WHERE state = 'waiting'{condition}"
        );
        self.database.write(|sql| Ok(sql.execute(&statement, &values)?))
    }

    /// A dead letter is tried again. False where there is no such delivery, or it has not failed.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn retry_delivery(&self, id: i64) -> Result<bool, ServeError> {
        let statement = "UPDATE deliveries SET state = 'waiting', attempts = 0, due_ms = ?2, created_ms = ?2, \
                         finished_ms = NULL WHERE id = ?1 AND state = 'failed'";
        self.database.write(|sql| Ok(sql.execute(statement, &[id.into(), now_ms().into()])? > 0))
    }

    /// The deliveries of a job.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn deliveries_of(&self, job: &str) -> Result<Vec<Delivery>, ServeError> {
        let statement = format!("SELECT {COLUMNS} FROM deliveries WHERE job = ?1 ORDER BY id");
        self.database.read(|sql| sql.rows(&statement, &[job.into()])?.iter().map(read).collect())
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
            "SELECT {COLUMNS} FROM deliveries WHERE state = ?1 OR ?1 IS NULL ORDER BY id DESC LIMIT ?2 OFFSET ?3"
        );
        let values = [state.map(DeliveryState::name).into(), limit.into(), offset.into()];
        self.database.read(|sql| sql.rows(&statement, &values)?.iter().map(read).collect())
    }

    /// Deliveries by destination and state.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn count_deliveries(&self) -> Result<Vec<(String, DeliveryState, u64)>, ServeError> {
        let statement =
            "SELECT destination, state, count(*) FROM deliveries GROUP BY destination, state ORDER BY 1, 2";
        let read = |row: &Row| {
            let state: String = row.get(1)?;
            Ok((row.get(0)?, DeliveryState::from_name(&state).unwrap_or(DeliveryState::Failed), row.get(2)?))
        };
        self.database.read(|sql| sql.rows(statement, &[])?.iter().map(read).collect())
    }
}

/// A row of [`COLUMNS`].
fn read(row: &Row) -> Result<Delivery, StoreError> {
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
