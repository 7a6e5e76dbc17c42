//! Jobs: a film to be read by a model, once.
//!
//! ```text
//! waiting ──claim──▶ running ──┬─▶ done
//!    ▲                         ├─▶ failed        the film cannot be read, or attempts are used up
//!    └── fails for now, killed ┘
//! ```

use super::instances::{self, insert};
use super::sql::{Row, Session, StoreError};
use super::{InstanceRow, Store};
use crate::clock::now_ms;
use crate::error::ServeError;
use serde::{Deserialize, Serialize};

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

/// What lists show of a finished job's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the film.
    pub image: String,
    /// Probability that the film is abnormal.
    pub p_abnormal: Option<f64>,
    /// From where on it counts as abnormal.
    pub threshold: Option<f64>,
}

/// A film to be read by a model.
#[derive(Debug, Clone, PartialEq)]
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
    /// What was found, in short; none for a job that an older version of the program did.
    pub summary: Option<Summary>,
}

const COLUMNS: &str =
    "id, film, model, state, attempts, interruptions, received_ms, finished_ms, error, summary";

/// What became of a film that was handed in.
#[derive(Debug, Clone, PartialEq)]
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
        /// What lists show of the record.
        summary: Summary,
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
    /// Takes a film in and makes its job, unless this content has one. `keep` puts the film's file at `row.path`, durably,
    /// where it is not there yet; it is called inside the transaction, and not at all when `None` is given because
    /// `max_waiting` jobs are waiting.
    ///
    /// # Errors
    /// [`ServeError::Store`], and what `keep` gives.
    pub fn accept(
        &self,
        row: &InstanceRow,
        job: &str,
        model: &str,
        max_waiting: u64,
        keep: impl FnOnce() -> Result<(), ServeError>,
    ) -> Result<Option<Accepted>, ServeError> {
        self.database.write(|sql| {
            if let Some(known) = find(sql, job)? {
                keep()?;
                return Ok(Some(Accepted::Known(known)));
            }
            if count(sql, JobState::Waiting)? >= max_waiting {
                return Ok(None);
            }
            keep()?;
            insert(sql, row)?;
            let new = sql.row(
                &format!(
                    "INSERT INTO jobs (id, film, model, state, due_ms, received_ms) \
                     VALUES (?1, ?2, ?3, 'waiting', ?4, ?4) RETURNING {COLUMNS}"
                ),
                &[job.into(), (&row.id).into(), model.into(), row.received_ms.into()],
            )?;
            Ok(new.as_ref().map(read).transpose()?.map(Accepted::New))
        })
    }

    /// The next job that is due, now running for `worker` of this node, with `model`: one that waited for another, which is no
    /// more in use, is read with this one all the same. With none due, how long until one is, ms.
    ///
    /// What this worker had under way before goes back into the queue first: it asks for another only when it is done with
    /// that, or the store or the disk failed it.
    ///
    /// A film that was under way when the process died is read alone on its node, so that the deaths it may cause are not
    /// counted against another.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn claim_job(&self, worker: u32, model: &str) -> Result<Result<Job, Option<i64>>, ServeError> {
        let now = now_ms();
        let claim = format!(
            "UPDATE jobs SET state = 'running', node = ?2, worker = ?3, model = ?4 \
             WHERE id = (SELECT id FROM jobs WHERE state = 'waiting' AND due_ms <= ?1 \
             AND (interruptions = 0 OR NOT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND node = ?2)) \
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND node = ?2 AND interruptions > 0) \
             ORDER BY due_ms, received_ms LIMIT 1) RETURNING {COLUMNS}"
        );
        self.database.write(|sql| {
            sql.execute(
                "UPDATE jobs SET state = 'waiting', node = NULL, worker = NULL \
                 WHERE state = 'running' AND node = ?1 AND worker = ?2",
                &[(&self.node).into(), worker.into()],
            )?;
            let values = [now.into(), (&self.node).into(), worker.into(), model.into()];
            if let Some(row) = sql.row(&claim, &values)? {
                return Ok(Ok(read(&row)?));
            }
            let due: Option<i64> = sql.value("SELECT min(due_ms) FROM jobs WHERE state = 'waiting'", &[])?;
            Ok(Err(due.map(|due| (due - now).max(0))))
        })
    }

    /// Writes down how a run ended: results and their deliveries appear together with the job's state, or not at all. An
    /// object that was made before keeps its deliveries. False when the job is not this node's any more, because the node was
    /// taken for dead meanwhile; then nothing is written.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn finish_job(&self, job: &str, finished: &Finished) -> Result<bool, ServeError> {
        let now = now_ms();
        self.database.write(|sql| {
            let is_ours = "SELECT count(*) FROM jobs WHERE id = ?1 AND state = 'running' AND node = ?2";
            if sql.value::<i64>(is_ours, &[job.into(), (&self.node).into()])? == 0 {
                return Ok(false);
            }
            match finished {
                Finished::Done { objects, deliveries, summary } => {
                    for object in objects {
                        insert(sql, object)?;
                    }
                    for (instance, destination) in deliveries {
                        sql.execute(
                            "INSERT INTO deliveries (job, instance, destination, state, due_ms, created_ms) \
                             VALUES (?1, ?2, ?3, 'waiting', ?4, ?4) ON CONFLICT DO NOTHING",
                            &[job.into(), instance.into(), destination.into(), now.into()],
                        )?;
                    }
                    let summary = serde_json::to_string(summary).expect("a summary is plain data");
                    sql.execute(
                        "UPDATE jobs SET state = 'done', finished_ms = ?2, error = NULL, summary = ?3 WHERE id = ?1",
                        &[job.into(), now.into(), summary.into()],
                    )?;
                }
                Finished::Again { error, due_ms } => {
                    sql.execute(
                        "UPDATE jobs SET state = 'waiting', attempts = attempts + 1, due_ms = ?2, error = ?3 \
                         WHERE id = ?1",
                        &[job.into(), (*due_ms).into(), error.into()],
                    )?;
                }
                Finished::Failed { error } => {
                    sql.execute(
                        "UPDATE jobs SET state = 'failed', attempts = attempts + 1, finished_ms = ?2, error = ?3 \
                         WHERE id = ?1",
                        &[job.into(), now.into(), error.into()],
                    )?;
                }
            }
            sql.execute("UPDATE jobs SET node = NULL, worker = NULL WHERE id = ?1", &[job.into()])?;
            Ok(true)
        })
    }

    /// A dead letter is tried again, from the beginning. False where there is no such job, or it has not failed.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn retry_job(&self, job: &str) -> Result<bool, ServeError> {
        let statement = "UPDATE jobs SET state = 'waiting', attempts = 0, interruptions = 0, due_ms = ?2, \
                         finished_ms = NULL WHERE id = ?1 AND state = 'failed'";
        self.database.write(|sql| Ok(sql.execute(statement, &[job.into(), now_ms().into()])? > 0))
    }

    /// The job of that id.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn job(&self, id: &str) -> Result<Option<Job>, ServeError> {
        self.database.read(|sql| find(sql, id))
    }

    /// Jobs, the newest first, of one state or all.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn jobs(&self, state: Option<JobState>, limit: u32, offset: u32) -> Result<Vec<Job>, ServeError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM jobs WHERE state = ?1 OR ?1 IS NULL ORDER BY received_ms DESC, id LIMIT ?2 OFFSET ?3"
        );
        let values = [state.map(JobState::name).into(), limit.into(), offset.into()];
        self.database.read(|sql| sql.rows(&statement, &values)?.iter().map(read).collect())
    }

    /// Films with the job that read each last, the newest first.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn films(&self, limit: u32) -> Result<Vec<(InstanceRow, Job)>, ServeError> {
        let statement = format!(
            "SELECT {}, {} FROM (SELECT {COLUMNS}, row_number() OVER (PARTITION BY film \
             ORDER BY received_ms DESC, id) AS place FROM jobs) AS newest JOIN instances ON instances.id = newest.film \
             WHERE place = 1 ORDER BY newest.received_ms DESC, newest.id LIMIT ?1",
            of("newest", COLUMNS),
            of("instances", instances::COLUMNS),
        );
        let rows = self.database.read(|sql| sql.rows(&statement, &[limit.into()]))?;
        let both = |row: Row| {
            let (job, film) = row.split(COLUMNS.split(", ").count());
            Ok((instances::read(&film)?, read(&job)?))
        };
        Ok(rows.into_iter().map(both).collect::<Result<_, StoreError>>()?)
    }

    /// The film of that content, with the job that read it last.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn film(&self, id: &str) -> Result<Option<(InstanceRow, Job)>, ServeError> {
        let statement =
            format!("SELECT {COLUMNS} FROM jobs WHERE film = ?1 ORDER BY received_ms DESC, id LIMIT 1");
        let job =
            self.database.read(|sql| sql.row(&statement, &[id.into()])?.as_ref().map(read).transpose())?;
        let film = self.instance(id)?;
        Ok(film.zip(job))
    }

    /// How many jobs are in a state.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn count_jobs(&self, state: JobState) -> Result<u64, ServeError> {
        self.database.read(|sql| count(sql, state))
    }
}

/// Columns of a table that a statement joins with another.
fn of(table: &str, columns: &str) -> String {
    columns.split(", ").map(|column| format!("{table}.{column}")).collect::<Vec<_>>().join(", ")
}

fn find(sql: &mut Session<'_>, id: &str) -> Result<Option<Job>, StoreError> {
    let statement = format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1");
    sql.row(&statement, &[id.into()])?.as_ref().map(read).transpose()
}

fn count(sql: &mut Session<'_>, state: JobState) -> Result<u64, StoreError> {
    sql.value("SELECT count(*) FROM jobs WHERE state = ?1", &[state.name().into()])
}

/// A row of [`COLUMNS`].
fn read(row: &Row) -> Result<Job, StoreError> {
    let state: String = row.get(3)?;
    let summary: Option<String> = row.get(9)?;
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
        // One that cannot be read is as good as none: the record has it.
        summary: summary.and_then(|text| serde_json::from_str(&text).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{film, on_each};
    use super::super::{DeliveryState, InstanceKind, Recovery, Sent};
    use super::*;
    use crate::config::ResultKind;

    /// Takes films 1 to `n` in as jobs j1 to jn.
    fn fill(store: &Store, n: u32) {
        for number in 1..=n {
            let accepted = store.take(number, &format!("j{number}"), 100);
            assert!(matches!(accepted, Some(Accepted::New(_))));
        }
    }

    /// What a worker gets to do.
    fn claim(store: &Store, worker: u32) -> Option<String> {
        store.claim_job(worker, "m").unwrap().ok().map(|job| job.id)
    }

    fn failed() -> Finished {
        Finished::Failed { error: "e".into() }
    }

    #[test]
    fn jobs_are_taken_in_order_and_once() {
        on_each(|store| {
            fill(store, 2);
            assert!(matches!(store.take(1, "j1", 100), Some(Accepted::Known(_))));
            assert_eq!(store.take(3, "j3", 2), None, "no room");
            assert_eq!(
                [claim(store, 0), claim(store, 1), claim(store, 2)],
                [Some("j1".into()), Some("j2".into()), None]
            );
        });
    }

    #[test]
    fn a_worker_that_asks_again_gives_back_what_it_had() {
        on_each(|store| {
            fill(store, 2);
            assert_eq!(claim(store, 0).as_deref(), Some("j1"));
            assert_eq!(claim(store, 0).as_deref(), Some("j1"), "the store failed it: the same again");
            assert!(store.finish_job("j1", &failed()).unwrap());
            assert_eq!(claim(store, 0).as_deref(), Some("j2"));
            assert_eq!(store.count_jobs(JobState::Running).unwrap(), 1);
        });
    }

    #[test]
    fn a_job_tells_the_model_that_read_it() {
        on_each(|store| {
            fill(store, 1);
            assert_eq!(store.claim_job(0, "newer").unwrap().unwrap().model, "newer");
            assert_eq!(store.job("j1").unwrap().unwrap().model, "newer");
        });
    }

    #[test]
    fn what_is_tried_again_waits_for_its_time() {
        on_each(|store| {
            fill(store, 1);
            claim(store, 0);
            let again = Finished::Again { error: "e".into(), due_ms: now_ms() + 60_000 };
            store.finish_job("j1", &again).unwrap();
            match store.claim_job(0, "m").unwrap() {
                Err(Some(wait)) => assert!((50_000..=60_000).contains(&wait)),
                other => panic!("{other:?}"),
            }
            store.run("UPDATE jobs SET due_ms = 0");
            claim(store, 0);
            store.finish_job("j1", &failed()).unwrap();
            assert!(store.retry_job("j1").unwrap() && !store.retry_job("j1").unwrap());
            assert_eq!(claim(store, 0).as_deref(), Some("j1"));
        });
    }

    #[test]
    fn a_film_that_kills_the_process_is_read_alone_and_given_up() {
        let recovery = Recovery { max_interruptions: 3, backoff_ms: 0 };
        on_each(|store| {
            fill(store, 3);
            assert_eq!([claim(store, 0), claim(store, 1)], [Some("j1".into()), Some("j2".into())]);
            assert!(store.recover(recovery).unwrap().is_empty(), "the process died");
            // What was not under way goes on; beside it, what was waits.
            let first = claim(store, 0).unwrap();
            assert_eq!(claim(store, 1), None, "{first}");
            store.finish_job(&first, &failed()).unwrap();
            let mut deaths = 0;
            while store.count_jobs(JobState::Waiting).unwrap() > 0 && deaths < 20 {
                let id = claim(store, 0).unwrap();
                if store.job(&id).unwrap().unwrap().interruptions > 0 {
                    assert_eq!(claim(store, 1), None, "read alone");
                }
                deaths += 1;
                store.recover(recovery).unwrap();
            }
            assert_eq!(store.count_jobs(JobState::Failed).unwrap(), 3);
            assert!(deaths <= 3 + 2, "{deaths}");
        });
    }

    #[test]
    fn later_deaths_are_followed_by_longer_pauses() {
        on_each(|store| {
            fill(store, 1);
            for pause in [0, 10_000, 40_000] {
                store.run("UPDATE jobs SET due_ms = 0");
                claim(store, 0).unwrap();
                let before = now_ms();
                store.recover(Recovery { max_interruptions: 100, backoff_ms: 10_000 }).unwrap();
                let due = store.number("SELECT due_ms FROM jobs") - before;
                // The database's clock may be another's.
                assert!((pause - 500..pause + 2000).contains(&due), "{due}");
            }
        });
    }

    #[test]
    fn a_result_made_again_is_not_sent_again() {
        on_each(|store| {
            fill(store, 1);
            let mut object = film(9);
            object.kind = InstanceKind::Result(ResultKind::Sr);
            object.job = Some("j1".into());
            let deliveries = vec![(object.id.clone(), "archive".to_owned())];
            let summary = Summary { image: "i".into(), p_abnormal: Some(0.25), threshold: None };
            let done = Finished::Done { objects: vec![object], deliveries, summary: summary.clone() };
            claim(store, 0);
            assert!(store.finish_job("j1", &done).unwrap());
            assert_eq!(store.job("j1").unwrap().unwrap().summary, Some(summary));
            let delivery = store.next_delivery("archive").unwrap().unwrap();
            store.finish_delivery(delivery.id, &Sent::Delivered).unwrap();
            assert!(!store.finish_job("j1", &done).unwrap(), "nobody is reading it");
            store.run("UPDATE jobs SET state = 'waiting'");
            claim(store, 0);
            assert!(store.finish_job("j1", &done).unwrap());
            assert_eq!(store.next_delivery("archive").unwrap(), Err(None));
            assert_eq!(store.deliveries_of("j1").unwrap()[0].state, DeliveryState::Delivered);
            assert_eq!(store.results_of("j1").unwrap().len(), 1);
            assert_eq!(store.fail_deliveries_except(&[]).unwrap(), 0, "what has arrived stays so");
        });
    }
}
