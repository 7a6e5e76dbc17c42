//! Reads waiting films, one after another.
//!
//! Results are on the disk before the transaction that names them, so that a job is either done, with everything that is
//! to be sent, or waits still. A run that is repeated after a kill writes the same files again.

use crate::audit::Act;
use crate::backoff::pause_ms;
use crate::clock::now_ms;
use crate::error::ServeError;
use crate::node::{Node, spawn};
use crate::reader::{Evidence, ReadFailure, Reading};
use crate::spool::{Spool, content_id};
use crate::store::{Finished, InstanceKind, InstanceRow, Job, Summary};
use spinexr_core::whole_file;
use spinexr_dicom::read_instance;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) fn start(node: &Arc<Node>, number: usize) -> Result<JoinHandle<()>, ServeError> {
    spawn(node, &format!("reader-{number}"), move |node| {
        while !node.is_stopping() {
            let round = node.films.round();
            match work_once(node, number as u32) {
                Ok(Some(wait)) => node.films.wait(round, wait),
                Ok(None) => {}
                Err(error) => {
                    node.warn(&format!("reading films: {error}"));
                    node.films.wait(round, node.nap());
                }
            }
        }
    })
}

/// Reads the next film. With none due, how long to wait.
fn work_once(node: &Node, worker: u32) -> Result<Option<Duration>, ServeError> {
    let job = match node.store.claim_job(worker, &node.model.hash)? {
        Ok(job) => job,
        Err(due) => return Ok(Some(node.nap_until(due))),
    };
    let start = Instant::now();
    let finished = read(node, &job)?;
    if !node.store.finish_job(&job.id, &finished)? {
        node.warn(&format!(
            "job {} was taken over by another node: this one was not heard of in time",
            job.id
        ));
        return Ok(None);
    }
    let outcome = match &finished {
        Finished::Done { .. } => "ok",
        Finished::Again { error, .. } | Finished::Failed { error } => error,
    };
    node.ended.notify_waiters();
    node.metrics.read(&finished, start.elapsed());
    node.note(&Act { action: "film.read", actor: "node", object: &job.id, outcome })?;
    match &finished {
        Finished::Done { .. } => node.results.wake(),
        Finished::Again { error, .. } => node.warn(&format!("job {}: {error}; tried again later", job.id)),
        Finished::Failed { error } => node.warn(&format!("job {} failed: {error}", job.id)),
    }
    // Others may have had to wait for a film that is read alone.
    node.films.wake();
    Ok(None)
}

fn read(node: &Node, job: &Job) -> Result<Finished, ServeError> {
    let path = node.spool.path(&Spool::film_name(&job.film));
    let reading = catch_unwind(AssertUnwindSafe(|| (node.program.read)(&path)))
        .unwrap_or_else(|_| Err(ReadFailure::ForNow("the reader panicked".into())));
    let attempt = job.attempts + 1;
    match reading {
        Ok(reading) => keep(node, job, &reading),
        Err(ReadFailure::ForNow(error)) if attempt < node.config.queue.max_attempts => {
            let queue = &node.config.queue;
            let pause = pause_ms(queue.backoff_ms, queue.max_backoff_ms, attempt, &job.id);
            Ok(Finished::Again { error, due_ms: now_ms() + pause as i64 })
        }
        Err(ReadFailure::ForNow(error) | ReadFailure::Film(error)) => Ok(Finished::Failed { error }),
    }
}

/// Puts the results into the spool and names their deliveries.
fn keep(node: &Node, job: &Job, reading: &Reading) -> Result<Finished, ServeError> {
    let folder = Spool::results_name(&job.id);
    let write = |name: &str, bytes: &[u8]| {
        let path = node.spool.path(&folder).join(name);
        whole_file::write(&path, bytes).map_err(ServeError::io(path))
    };
    let record = serde_json::to_vec_pretty(&reading.record).expect("a record is plain data");
    write("record.json", &record)?;
    if let Some(png) = &reading.overlay_png {
        write("overlay.png", png)?;
    }
    for (evidence, png) in
        [(Evidence::Film, &reading.evidence_png), (Evidence::Boxes, &reading.box_evidence_png)]
    {
        if let Some(png) = png {
            write(evidence.file_name(), png)?;
        }
    }
    let (mut objects, mut deliveries) = (vec![], vec![]);
    for object in &reading.objects {
        let name = format!("{}.dcm", object.kind.name());
        write(&name, &object.file)?;
        let path = format!("{folder}/{name}");
        let place = node.spool.path(&path);
        let instance = match read_instance(&place, &node.limits) {
            Ok(instance) => instance,
            Err(error) => return Ok(Finished::Failed { error: format!("the {name} made here: {error}") }),
        };
        let mut file = std::fs::File::open(&place).map_err(ServeError::io(&place))?;
        let id = content_id(&mut file, &instance.transfer_syntax, instance.data_set_start)
            .map_err(ServeError::io(&place))?;
        for destination in node.config.destinations.iter().filter(|d| d.takes(object.kind)) {
            deliveries.push((id.clone(), destination.name.clone()));
        }
        objects.push(InstanceRow {
            id,
            kind: InstanceKind::Result(object.kind),
            job: Some(job.id.clone()),
            path,
            bytes: object.file.len() as u64,
            received_ms: now_ms(),
            instance,
        });
    }
    let summary = Summary {
        image: reading.record.image.clone(),
        p_abnormal: reading.record.p_abnormal,
        threshold: reading.record.threshold,
    };
    Ok(Finished::Done { objects, deliveries, summary })
}
