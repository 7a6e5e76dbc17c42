//! Batches made ahead of time by background threads, handed out in order.
//!
//! A batch is asked for by its step number. At most `prefetch` steps are under way or waiting, each asked
//! for only when an earlier one was taken, so that memory stays bounded; which thread makes a batch, and
//! when, does not matter to what is in it.

use crate::DataError;
use crate::error::panic_message;
use crate::loader::Batch;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

type Made = (u64, Result<Batch, DataError>);

/// Makes the batch of a step.
pub(crate) type MakeBatch = dyn Fn(u64) -> Result<Batch, DataError> + Send + Sync;

/// The threads and what they have made.
pub(crate) struct Prefetcher {
    /// Dropped to send the workers home.
    steps: Option<Sender<u64>>,
    /// The workers' queue, to empty it at the end.
    todo: Receiver<u64>,
    made: Receiver<Made>,
    /// Made before their turn.
    early: BTreeMap<u64, Result<Batch, DataError>>,
    next_step: u64,
    /// First step not asked for yet.
    next_asked: u64,
    /// First step that does not exist.
    end: u64,
    workers: Vec<JoinHandle<()>>,
}

impl Prefetcher {
    /// Starts `threads` workers (at least one) on the steps `first_step..end`.
    pub(crate) fn start(
        make: Arc<MakeBatch>,
        first_step: u64,
        end: u64,
        threads: usize,
        prefetch: usize,
    ) -> Result<Self, DataError> {
        let (steps, todo) = unbounded::<u64>();
        let (done, made) = unbounded::<Made>();
        let mut workers = Vec::new();
        for i in 0..threads.max(1) {
            let (make, todo, done) = (Arc::clone(&make), todo.clone(), done.clone());
            let worker = std::thread::Builder::new()
                .name(format!("loader-{i}"))
                .spawn(move || {
                    for step in todo {
                        if done.send((step, caught(&*make, step))).is_err() {
                            return;
                        }
                    }
                })
                .map_err(|source| DataError::Panicked {
                    image_id: String::new(),
                    message: format!("cannot start a loader thread: {source}"),
                })?;
            workers.push(worker);
        }
        let mut this = Self {
            steps: Some(steps),
            todo,
            made,
            early: BTreeMap::new(),
            next_step: first_step,
            next_asked: first_step,
            end,
            workers,
        };
        for _ in 0..prefetch.max(1) {
            this.ask();
        }
        Ok(this)
    }

    fn ask(&mut self) {
        if self.next_asked < self.end
            && let Some(steps) = &self.steps
        {
            // A failed send means that all workers are gone, which the next receive reports.
            if steps.send(self.next_asked).is_ok() {
                self.next_asked += 1;
            }
        }
    }

    /// The batch of the next step, in order; `None` after the last. An error takes its step's place, and the
    /// step after it may be asked for.
    pub(crate) fn next(&mut self) -> Option<Result<Batch, DataError>> {
        if self.next_step >= self.end {
            return None;
        }
        loop {
            if let Some(batch) = self.early.remove(&self.next_step) {
                self.next_step += 1;
                self.ask();
                return Some(batch);
            }
            match self.made.recv() {
                Ok((step, batch)) => drop(self.early.insert(step, batch)),
                Err(_) => {
                    let step = self.next_step;
                    self.next_step = self.end;
                    return Some(Err(DataError::LoaderStopped { step }));
                }
            }
        }
    }
}

/// A panic takes its step's place as an error, so that no one waits for a batch that never comes.
fn caught(make: &MakeBatch, step: u64) -> Result<Batch, DataError> {
    catch_unwind(AssertUnwindSafe(|| make(step))).unwrap_or_else(|panic| {
        Err(DataError::Panicked { image_id: String::new(), message: panic_message(panic.as_ref()) })
    })
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        // Empty the queue first: a worker then finishes the batch in hand and finds nothing more to do.
        self.steps = None;
        while self.todo.try_recv().is_ok() {}
        for worker in self.workers.drain(..) {
            // A worker's panic was caught where the batch was made; there is nothing more to learn here.
            drop(worker.join());
        }
    }
}
