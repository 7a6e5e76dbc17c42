//! Jobs: a film to be read by a model, once.
//!
//! ```text
//! waiting ──claim──▶ running ──┬─▶ done
//!    ▲                         ├─▶ failed        the film cannot be read, or attempts are used up
//!    └── fails for now, killed ┘
//! ```

use super::instances::insert;
use super::{InstanceRow, Store};
use crate::clock::now_ms;
use crate::error::ServeError;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior};
use serde::Serialize;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// To be read, now or later.
    Waiting,
    /// Being read.
    Running,
    /// Results are there.
    Done,
    /// There will be none unless someone asks again: a dead letter.
    Failed,
}

impl JobState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Running, Self::Done, Self::Failed];

    /// `waiting`, `running`, `done`, `failed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A film to be read by a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// From film and model.
    pub id: String,
    /// The film's content hash.
    pub film: String,
    /// The model's hash.
    pub model: String,
    /// Where it stands.
    pub state: JobState,
    /// Times that reading failed for now.
    pub attempts: u32,
    /// Times that the process died while it was under way.
    pub interruptions: u32,
    /// When the film came, ms since 1970.
    pub received_ms: i64,
    /// When it was done or failed.
    pub finished_ms: Option<i64>,
    /// Why it failed, or failed last.
    pub error: Option<String>,
}

const COLUMNS: &str = "id, film, model, state, attempts, interruptions, received_ms, finished_ms, error";

/// What became of a film that was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// A new job.
    New(Job),
    /// The job that this content has already.
    Known(Job),
}

impl Accepted {
    /// The job.
    pub fn job(&self) -> &Job {
        match self {
            Self::New(job) | Self::Known(job) => job,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    /// With these objects, to be sent to these destinations.
    Done {
        /// Result objects, whose files are in the spool.
        objects: Vec<InstanceRow>,
        /// Instance and destination of every delivery.
        deliveries: Vec<(String, String)>,
    },
    /// It may succeed later.
    Again {
        /// Why it failed.
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
    /// Takes a film in and makes its job, unless this content has one. `row.path` must be on the disk. `None` when
    /// `max_waiting` jobs are waiting.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn accept(
        &self,
        row: &InstanceRow,
        job: &str,
        model: &str,
        max_waiting: u64,
    ) -> Result<Option<Accepted>, ServeError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(known) = find(&transaction, job)? {
            return Ok(Some(Accepted::Known(known)));
        }
        if count(&transaction, JobState::Waiting)? >= max_waiting {
            return Ok(None);
        }
        insert(&transaction, row)?;
        transaction.execute(
            "INSERT INTO jobs (id, film, model, state, due_ms, received_ms) VALUES (?1, ?2, ?3, 'waiting', ?4, ?4)",
            (job, &row.id, model, row.received_ms),
        )?;
        let new = find(&transaction, job)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        transaction.commit()?;
        Ok(Some(Accepted::New(new)))
    }

    /// The next job that is due, now running. With none due, how long until one is, ms.
    ///
    /// A film that was under way when the process died is read alone, so that the deaths it may cause are not counted
    /// against another.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn claim_job(&self) -> Result<Result<Job, Option<i64>>, ServeError> {
        let now = now_ms();
        let connection = self.connection();
        let statement = format!(
            "UPDATE jobs SET state = 'running' WHERE id = (SELECT id FROM jobs WHERE state = 'waiting' AND due_ms <= ?1 \
             AND (interruptions = 0 OR NOT EXISTS (SELECT 1 FROM jobs WHERE state = 'running')) \
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND interruptions > 0) \
             ORDER BY due_ms, received_ms LIMIT 1) RETURNING {COLUMNS}"
        );
        if let Some(job) = connection.query_row(&statement, [now], read).optional()? {
            return Ok(Ok(job));
        }
        let next = "SELECT min(due_ms) FROM jobs WHERE state = 'waiting'";
        let due: Option<i64> = connection.query_row(next, [], |row| row.get(0))?;
        Ok(Err(due.map(|due| (due - now).max(0))))
    }

    /// Writes down how a run ended: results and their deliveries appear together with the job's state, or not at all. An
    /// object that was made before keeps its deliveries.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn finish_job(&self, job: &str, finished: &Finished) -> Result<(), ServeError> {
        let now = now_ms();
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match finished {
            Finished::Done { objects, deliveries } => {
                for object in objects {
                    insert(&transaction, object)?;
                }
                for (instance, destination) in deliveries {
                    transaction.execute(
                        "INSERT OR IGNORE INTO deliveries (job, instance, destination, state, due_ms, created_ms) \
                         VALUES (?1, ?2, ?3, 'waiting', ?4, ?4)",
                        (job, instance, destination, now),
                    )?;
                }
                transaction.execute(
                    "UPDATE jobs SET state = 'done', finished_ms = ?2, error = NULL WHERE id = ?1",
                    (job, now),
                )?;
            }
            Finished::Again { error, due_ms } => {
                transaction.execute(
                    "UPDATE jobs SET state = 'waiting', attempts = attempts + 1, due_ms = ?2, error = ?3 WHERE id = ?1",
                    (job, due_ms, error),
                )?;
            }
            Finished::Failed { error } => {
                transaction.execute(
                    "UPDATE jobs SET state = 'failed', attempts = attempts + 1, finished_ms = ?2, error = ?3 \
                     WHERE id = ?1",
                    (job, now, error),
                )?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Puts a job that was stopped in good order back into the queue.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn release_job(&self, job: &str) -> Result<(), ServeError> {
        let statement = "UPDATE jobs SET state = 'waiting' WHERE id = ?1 AND state = 'running'";
        self.connection().execute(statement, [job])?;
        Ok(())
    }

    /// After a start: jobs that were running when the last process died wait again, each after a pause that grows with the
    /// times it happened, so that a film that kills the process cannot keep the others from being read. One that was under
    /// way at `max_interruptions` deaths is failed. Gives the ids of those.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn recover_jobs(&self, max_interruptions: u32, backoff_ms: u64) -> Result<Vec<String>, ServeError> {
        let now = now_ms();
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute(
            "UPDATE jobs SET state = 'waiting', interruptions = interruptions + 1, \
             due_ms = ?1 + ?2 * interruptions * interruptions, \
             error = 'the process ended while the film was being read' WHERE state = 'running'",
            (now, backoff_ms as i64),
        )?;
        let failed = {
            let mut statement = transaction.prepare(
                "UPDATE jobs SET state = 'failed', finished_ms = ?1 WHERE state = 'waiting' AND interruptions >= ?2 \
                 RETURNING id",
            )?;
            let rows = statement.query_map((now, max_interruptions), |row| row.get(0))?;
            rows.collect::<Result<Vec<String>, _>>()?
        };
        transaction.commit()?;
        Ok(failed)
    }

    /// A dead letter is tried again, from the beginning. False where there is no such job, or it has not failed.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn retry_job(&self, job: &str) -> Result<bool, ServeError> {
        let statement = "UPDATE jobs SET state = 'waiting', attempts = 0, interruptions = 0, due_ms = ?2, \
                         finished_ms = NULL WHERE id = ?1 AND state = 'failed'";
        Ok(self.connection().execute(statement, (job, now_ms()))? > 0)
    }

    /// The job of that id.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn job(&self, id: &str) -> Result<Option<Job>, ServeError> {
        Ok(find(&self.connection(), id)?)
    }

    /// Jobs, the newest first, of one state or all.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn jobs(&self, state: Option<JobState>, limit: u32, offset: u32) -> Result<Vec<Job>, ServeError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM jobs WHERE ?1 IS NULL OR state = ?1 ORDER BY received_ms DESC, id LIMIT ?2 OFFSET ?3"
        );
        let connection = self.connection();
        let mut statement = connection.prepare(&statement)?;
        let rows = statement.query_map((state.map(JobState::name), limit, offset), read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Films with the job that read each last, the newest first.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn films(&self, limit: u32) -> Result<Vec<(InstanceRow, Job)>, ServeError> {
        let jobs: Vec<Job> = {
            // SQLite takes the other columns from the row that has the greatest `max`.
            let statement = format!(
                "SELECT {COLUMNS}, max(received_ms) FROM jobs GROUP BY film ORDER BY received_ms DESC, id LIMIT ?1"
            );
            let connection = self.connection();
            let mut statement = connection.prepare(&statement)?;
            let rows = statement.query_map([limit], read)?;
            rows.collect::<Result<_, _>>()?
        };
        let mut films = Vec::with_capacity(jobs.len());
        for job in jobs {
            // Retention may have taken one away in the meantime.
            if let Some(film) = self.instance(&job.film)? {
                films.push((film, job));
            }
        }
        Ok(films)
    }

    /// The film of that content, with the job that read it last.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn film(&self, id: &str) -> Result<Option<(InstanceRow, Job)>, ServeError> {
        let statement =
            format!("SELECT {COLUMNS} FROM jobs WHERE film = ?1 ORDER BY received_ms DESC, id LIMIT 1");
        let job = self.connection().query_row(&statement, [id], read).optional()?;
        let film = self.instance(id)?;
        Ok(film.zip(job))
    }

    /// How many jobs are in a state.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn count_jobs(&self, state: JobState) -> Result<u64, ServeError> {
        Ok(count(&self.connection(), state)?)
    }
}

fn find(connection: &Connection, id: &str) -> rusqlite::Result<Option<Job>> {
    connection.query_row(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"), [id], read).optional()
}

fn count(connection: &Connection, state: JobState) -> rusqlite::Result<u64> {
    let statement = "SELECT count(*) FROM jobs WHERE state = ?1";
    Ok(connection.query_row(statement, [state.name()], |row| row.get::<_, i64>(0))? as u64)
}

/// A row of [`COLUMNS`].
fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    let state: String = row.get(3)?;
    Ok(Job {
        id: row.get(0)?,
        film: row.get(1)?,
        model: row.get(2)?,
        state: JobState::from_name(&state).unwrap_or(JobState::Failed),
        attempts: row.get(4)?,
        interruptions: row.get(5)?,
        received_ms: row.get(6)?,
        finished_ms: row.get(7)?,
        error: row.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{film, store};
    use super::super::{DeliveryState, InstanceKind};
    use super::*;
    use crate::config::ResultKind;

    /// Takes films 1 to `n` in as jobs j1 to jn.
    fn filled(store: &Store, n: u32) {
        for number in 1..=n {
            let accepted = store.accept(&film(number), &format!("j{number}"), "m", 100).unwrap();
            assert!(matches!(accepted, Some(Accepted::New(_))));
        }
    }

    fn claim(store: &Store) -> Option<String> {
        store.claim_job().unwrap().ok().map(|job| job.id)
    }

    #[test]
    fn jobs_are_taken_in_order_and_once() {
        let (_dir, store) = store();
        filled(&store, 2);
        assert!(matches!(store.accept(&film(1), "j1", "m", 100), Ok(Some(Accepted::Known(_)))));
        assert_eq!(store.accept(&film(3), "j3", "m", 2).unwrap(), None, "no room");
        assert_eq!(
            [claim(&store), claim(&store), claim(&store)],
            [Some("j1".into()), Some("j2".into()), None]
        );
    }

    #[test]
    fn what_is_tried_again_waits_for_its_time() {
        let (_dir, store) = store();
        filled(&store, 1);
        claim(&store);
        let again = Finished::Again { error: "e".into(), due_ms: now_ms() + 60_000 };
        store.finish_job("j1", &again).unwrap();
        match store.claim_job().unwrap() {
            Err(Some(wait)) => assert!((50_000..=60_000).contains(&wait)),
            other => panic!("{other:?}"),
        }
        store.finish_job("j1", &Finished::Failed { error: "e".into() }).unwrap();
        assert!(store.retry_job("j1").unwrap() && !store.retry_job("j1").unwrap());
        assert_eq!(claim(&store).as_deref(), Some("j1"));
    }

    #[test]
    fn a_film_that_kills_the_process_is_read_alone_and_given_up() {
        let (_dir, store) = store();
        filled(&store, 3);
        assert_eq!([claim(&store), claim(&store)], [Some("j1".into()), Some("j2".into())]);
        assert!(store.recover_jobs(3, 0).unwrap().is_empty(), "the process died");
        // What was not under way goes on; beside it, what was waits.
        let first = claim(&store).unwrap();
        let alone = store.job(&first).unwrap().unwrap().interruptions > 0;
        assert_eq!(claim(&store), None, "{first} {alone}");
        store.finish_job(&first, &Finished::Failed { error: "e".into() }).unwrap();
        let mut deaths = 0;
        while store.count_jobs(JobState::Waiting).unwrap() > 0 && deaths < 20 {
            let id = claim(&store).unwrap();
            if store.job(&id).unwrap().unwrap().interruptions > 0 {
                assert_eq!(claim(&store), None, "read alone");
            }
            deaths += 1;
            store.recover_jobs(3, 0).unwrap();
        }
        assert_eq!(store.count_jobs(JobState::Failed).unwrap(), 3);
        assert!(deaths <= 3 + 2, "{deaths}");
    }

    #[test]
    fn later_deaths_are_followed_by_longer_pauses() {
        let (_dir, store) = store();
        filled(&store, 1);
        for pause in [0, 10_000, 40_000] {
            store.connection().execute("UPDATE jobs SET due_ms = 0", []).unwrap();
            claim(&store).unwrap();
            let before = now_ms();
            store.recover_jobs(100, 10_000).unwrap();
            let due: i64 =
                store.connection().query_row("SELECT due_ms FROM jobs", [], |row| row.get(0)).unwrap();
            assert!((pause..pause + 1000).contains(&(due - before)), "{due}");
        }
    }

    #[test]
    fn a_result_made_again_is_not_sent_again() {
        let (_dir, store) = store();
        filled(&store, 1);
        let mut object = film(9);
        object.kind = InstanceKind::Result(ResultKind::Sr);
        object.job = Some("j1".into());
        let deliveries = vec![(object.id.clone(), "archive".to_owned())];
        let done = Finished::Done { objects: vec![object], deliveries };
        claim(&store);
        store.finish_job("j1", &done).unwrap();
        let delivery = store.next_delivery("archive").unwrap().unwrap();
        store.finish_delivery(delivery.id, &super::super::Sent::Delivered).unwrap();
        store.finish_job("j1", &done).unwrap();
        assert_eq!(store.next_delivery("archive").unwrap(), Err(None));
        assert_eq!(store.deliveries_of("j1").unwrap()[0].state, DeliveryState::Delivered);
        assert_eq!(store.results_of("j1").unwrap().len(), 1);
        assert_eq!(store.fail_deliveries_except(&[]).unwrap(), 0, "what has arrived stays so");
    }
}
