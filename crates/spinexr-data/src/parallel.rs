//! Independent jobs on a few threads, their results taken on the calling thread.

use crossbeam_channel::bounded;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `job(0) .. job(count - 1)` on `threads` threads (at least one) and gives each result to `take` on the
/// calling thread, in the order in which they finish. At most `2 · threads` results exist at a time.
///
/// # Errors
/// The first error of `take`; no further job is started then.
///
/// # Panics
/// When `job` does.
pub(crate) fn in_parallel<T: Send, E>(
    count: usize,
    threads: usize,
    job: impl Fn(usize) -> T + Sync,
    mut take: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    let threads = threads.clamp(1, count.max(1));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (done, results) = bounded(threads);
        for _ in 0..threads {
            let (done, next, job) = (done.clone(), &next, &job);
            scope.spawn(move || {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    // A failed send means that the taker has given up.
                    if i >= count || done.send((i, job(i))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for (i, result) in results {
            take(i, result)?;
        }
        Ok(())
    })
}
