//! Nodes: who is alive, and what the others left behind.

use super::Store;
use super::sql::{Row, Session, StoreError};
use crate::error::ServeError;
use std::collections::HashSet;

/// What is to become of jobs whose node has died.
#[derive(Debug, Clone, Copy)]
pub struct Recovery {
    /// A film that was under way at so many deaths is held to be their reason, and its job fails.
    pub max_interruptions: u32,
    /// Pause after the first death but one; it grows with the square of their number, ms.
    pub backoff_ms: u64,
}

/// What is needed of the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Files that rows name.
    pub paths: HashSet<String>,
    /// Jobs whose results are there, or are being made by another node.
    pub jobs: HashSet<String>,
    /// Other nodes that live.
    pub nodes: HashSet<String>,
}

impl Store {
    /// After a start: what this node had under way when it ended waits again. Gives the ids of the jobs that failed by it.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn recover(&self, recovery: Recovery) -> Result<Vec<String>, ServeError> {
        self.database.write(|sql| Ok(release(sql, &self.node, recovery)?))
    }

    /// Says that this node is alive and reads films with `model`, and gives the others what nodes had under way that have not
    /// said so for `lease_ms`. Gives the ids of the jobs that failed by it. Times are the database's, so that clocks of nodes
    /// need not agree.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn beat(&self, model: &str, lease_ms: u64, recovery: Recovery) -> Result<Vec<String>, ServeError> {
        self.database.write(|sql| {
            let now = sql.now_ms()?;
            sql.execute(
                "INSERT INTO nodes (id, seen_ms, model) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (id) DO UPDATE SET seen_ms = ?2, model = ?3",
                &[(&self.node).into(), now.into(), model.into()],
            )?;
            let oldest = now - lease_ms as i64;
            // Not from `nodes` alone: one that was taken for dead and lives may have taken work before it says so.
            let dead = sql.rows(
                "SELECT DISTINCT held.node FROM (SELECT node FROM jobs WHERE state = 'running' UNION \
                 SELECT node FROM deliveries WHERE state = 'waiting' AND node IS NOT NULL) AS held \
                 WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.id = held.node AND nodes.seen_ms >= ?1)",
                &[oldest.into()],
            )?;
            let mut failed = vec![];
            for row in dead {
                failed.extend(release(sql, &row.get::<String>(0)?, recovery)?);
            }
            sql.execute("DELETE FROM nodes WHERE seen_ms < ?1", &[oldest.into()])?;
            Ok(failed)
        })
    }

    /// A model other than `model` with which another node reads films, if one has said so within `lease_ms`.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn other_model(&self, model: &str, lease_ms: u64) -> Result<Option<String>, ServeError> {
        self.database.read(|sql| {
            let oldest = sql.now_ms()? - lease_ms as i64;
            let query = "SELECT model FROM nodes WHERE id <> ?1 AND seen_ms >= ?2 AND model <> ?3";
            let row = sql.row(query, &[(&self.node).into(), oldest.into(), model.into()])?;
            row.map(|row| row.get(0)).transpose()
        })
    }

    /// Runs `work`, which takes files away that no row needs, while no film, job or result can come or go.
    ///
    /// # Errors
    /// [`ServeError::Store`], and what `work` gives.
    pub fn sweep<T>(&self, work: impl FnOnce(&Kept) -> Result<T, ServeError>) -> Result<T, ServeError> {
        self.database.write(|sql| {
            let list = |rows: Vec<Row>| rows.iter().map(|row| row.get(0)).collect::<Result<_, StoreError>>();
            let jobs = "SELECT id FROM jobs WHERE state = 'done' OR (state = 'running' AND node <> ?1)";
            work(&Kept {
                paths: list(sql.rows("SELECT path FROM instances", &[])?)?,
                jobs: list(sql.rows(jobs, &[(&self.node).into()])?)?,
                nodes: list(sql.rows("SELECT id FROM nodes WHERE id <> ?1", &[(&self.node).into()])?)?,
            })
        })
    }
}

/// Puts back what a node had under way: a job after a pause that grows with the times that its node died, so that a film
/// that kills the process cannot keep the others from being read.
fn release(sql: &mut Session<'_>, node: &str, recovery: Recovery) -> Result<Vec<String>, StoreError> {
    let now = sql.now_ms()?;
    sql.execute(
        "UPDATE jobs SET state = 'waiting', node = NULL, worker = NULL, interruptions = interruptions + 1, \
         due_ms = ?1 + ?2 * interruptions * interruptions, \
         error = 'the process ended while the film was being read' WHERE state = 'running' AND node = ?3",
        &[now.into(), (recovery.backoff_ms as i64).into(), node.into()],
    )?;
    sql.execute("UPDATE deliveries SET node = NULL WHERE state = 'waiting' AND node = ?1", &[node.into()])?;
    let failed = sql.rows(
        "UPDATE jobs SET state = 'failed', finished_ms = ?1 WHERE state = 'waiting' AND interruptions >= ?2 \
         RETURNING id",
        &[now.into(), recovery.max_interruptions.into()],
    )?;
    failed.iter().map(|row| row.get(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{film, with_schema};
    use super::super::{Finished, InstanceKind, JobState, Sent, Summary};
    use super::*;
    use crate::config::ResultKind;
    use std::collections::BTreeSet;

    const RECOVERY: Recovery = Recovery { max_interruptions: 5, backoff_ms: 0 };
    const LEASE_MS: u64 = 60_000;

    /// Takes a node's last sign of life far back.
    fn silence(store: &Store, node: &str) {
        store.run(&format!("UPDATE nodes SET seen_ms = 0 WHERE id = '{node}'"));
    }

    fn done(objects: Vec<super::super::InstanceRow>) -> Finished {
        let deliveries = objects.iter().map(|object| (object.id.clone(), "archive".to_owned())).collect();
        let summary = Summary { image: "i".into(), p_abnormal: None, threshold: None };
        Finished::Done { objects, deliveries, summary }
    }

    #[test]
    fn nodes_share_the_work_and_none_does_it_twice() {
        with_schema(|schema| {
            let filler = schema.store("filler");
            for number in 1..=60 {
                filler.take(number, &format!("j{number}"), 100);
            }
            let done_by = std::thread::scope(|scope| {
                let work = |node: &'static str| {
                    let store = schema.store(node);
                    store.beat("m", LEASE_MS, RECOVERY).unwrap();
                    let mut mine = vec![];
                    while let Ok(job) = store.claim_job(0, "m").unwrap() {
                        assert!(store.finish_job(&job.id, &done(vec![])).unwrap());
                        mine.push(job.id);
                    }
                    mine
                };
                let threads = ["a", "b", "c"].map(|node| scope.spawn(move || work(node)));
                threads.map(|thread| thread.join().unwrap())
            });
            let all: Vec<&String> = done_by.iter().flatten().collect();
            assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (60, 60));
            assert!(done_by.iter().filter(|mine| !mine.is_empty()).count() >= 2, "{done_by:?}");
            assert_eq!(filler.count_jobs(JobState::Done).unwrap(), 60);
        });
    }

    #[test]
    fn the_living_do_the_work_of_the_dead() {
        with_schema(|schema| {
            let (a, b) = (schema.store("a"), schema.store("b"));
            a.beat("m", LEASE_MS, RECOVERY).unwrap();
            b.beat("m", LEASE_MS, RECOVERY).unwrap();
            a.take(1, "j1", 9);
            assert_eq!(a.claim_job(0, "m").unwrap().unwrap().id, "j1");
            b.beat("m", LEASE_MS, RECOVERY).unwrap();
            assert_eq!(b.claim_job(0, "m").unwrap(), Err(None), "a lives");
            silence(&b, "a");
            b.beat("m", LEASE_MS, RECOVERY).unwrap();
            let taken = b.claim_job(0, "m").unwrap().unwrap();
            assert_eq!((taken.id.as_str(), taken.interruptions), ("j1", 1));
            // The one that was held for dead comes back: its result is no more wanted.
            assert!(!a.finish_job("j1", &done(vec![])).unwrap());
            a.beat("m", LEASE_MS, RECOVERY).unwrap();
            assert!(b.finish_job("j1", &done(vec![])).unwrap());
        });
    }

    #[test]
    fn nodes_of_other_models_are_told_of() {
        with_schema(|schema| {
            let (a, b) = (schema.store("a"), schema.store("b"));
            a.beat("old", LEASE_MS, RECOVERY).unwrap();
            assert_eq!(b.other_model("new", LEASE_MS).unwrap().as_deref(), Some("old"));
            assert_eq!(b.other_model("old", LEASE_MS).unwrap(), None);
            assert_eq!(a.other_model("new", LEASE_MS).unwrap(), None, "its own former model is no other's");
            silence(&b, "a");
            assert_eq!(b.other_model("new", LEASE_MS).unwrap(), None, "the dead have no model");
        });
    }

    #[test]
    fn work_taken_by_one_that_was_held_for_dead_is_not_lost() {
        with_schema(|schema| {
            let (a, b) = (schema.store("a"), schema.store("b"));
            a.beat("m", LEASE_MS, RECOVERY).unwrap();
            silence(&b, "a");
            b.beat("m", LEASE_MS, RECOVERY).unwrap();
            // Before its next sign of life a takes a film, and dies.
            a.take(1, "j1", 9);
            a.claim_job(0, "m").unwrap().unwrap();
            b.beat("m", LEASE_MS, RECOVERY).unwrap();
            assert_eq!(b.claim_job(0, "m").unwrap().unwrap().id, "j1");
        });
    }

    #[test]
    fn an_object_is_sent_by_one_node() {
        with_schema(|schema| {
            let (a, b) = (schema.store("a"), schema.store("b"));
            a.beat("m", LEASE_MS, RECOVERY).unwrap();
            b.beat("m", LEASE_MS, RECOVERY).unwrap();
            a.take(1, "j1", 9);
            a.claim_job(0, "m").unwrap().unwrap();
            let object = |number| {
                let mut object = film(number);
                object.kind = InstanceKind::Result(ResultKind::Sr);
                object.job = Some("j1".into());
                object
            };
            a.finish_job("j1", &done(vec![object(8), object(9)])).unwrap();
            let of_a = a.next_delivery("archive").unwrap().unwrap();
            let of_b = b.next_delivery("archive").unwrap().unwrap();
            assert_ne!(of_a.id, of_b.id);
            assert_eq!(a.next_delivery("archive").unwrap().unwrap().id, of_a.id, "asked again, the same");
            b.finish_delivery(of_b.id, &Sent::Delivered).unwrap();
            assert_eq!(b.next_delivery("archive").unwrap(), Err(None));
            silence(&b, "a");
            b.beat("m", LEASE_MS, RECOVERY).unwrap();
            assert_eq!(b.next_delivery("archive").unwrap().unwrap().id, of_a.id);
            // What a sent before it was held for dead has arrived; what it failed to send is not its affair any more.
            a.finish_delivery(of_a.id, &Sent::Failed { error: "e".into() }).unwrap();
            assert_eq!(b.next_delivery("archive").unwrap().unwrap().id, of_a.id);
            a.finish_delivery(of_a.id, &Sent::Delivered).unwrap();
            assert_eq!(b.next_delivery("archive").unwrap(), Err(None));
        });
    }

    #[test]
    fn what_others_have_under_way_is_kept() {
        with_schema(|schema| {
            let (a, b) = (schema.store("a"), schema.store("b"));
            a.beat("m", LEASE_MS, RECOVERY).unwrap();
            b.beat("m", LEASE_MS, RECOVERY).unwrap();
            for number in 1..=3 {
                a.take(number, &format!("j{number}"), 9);
            }
            a.claim_job(0, "m").unwrap().unwrap();
            b.claim_job(0, "m").unwrap().unwrap();
            let kept = b.sweep(|kept| Ok(kept.clone())).unwrap();
            assert_eq!(kept.jobs, HashSet::from(["j1".to_owned()]));
            assert_eq!(kept.nodes, HashSet::from(["a".to_owned()]));
            assert_eq!(kept.paths.len(), 3);
        });
    }

    #[test]
    fn a_lost_connection_is_made_anew() {
        with_schema(|schema| {
            let store = schema.store("a");
            store.take(1, "j1", 9);
            let me = store.number("SELECT CAST(pg_backend_pid() AS BIGINT)");
            let killer = schema.store("b");
            killer.run(&format!("SELECT pg_terminate_backend({me})"));
            // The first call may find it out; one after it must not.
            let answers = (0..20).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(50));
                store.job("j1").is_ok_and(|job| job.is_some())
            });
            assert!(answers);
            assert_ne!(store.number("SELECT CAST(pg_backend_pid() AS BIGINT)"), me);
        });
    }
}
