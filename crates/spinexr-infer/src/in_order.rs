//! Work done ahead in background threads, handed over in the order of the list.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

struct State<R> {
    /// Next item a thread may take.
    next: usize,
    /// Items handed over.
    delivered: usize,
    /// Finished, not yet handed over.
    ready: BTreeMap<usize, Result<R, String>>,
    /// The receiver has had enough.
    stopped: bool,
}

/// Runs `work` on every item in `threads` background threads and calls `take` on this thread with each
/// result, in the order of `items`. At most `window` items are being worked on or wait to be taken, so
/// memory stays bounded however slow `take` is. A panic in `work` becomes `Err` with its message, and the
/// rest goes on. `take` may break off; items not begun are then left out.
pub(crate) fn map_in_order<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    window: usize,
    work: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(usize, Result<R, String>) -> ControlFlow<()>,
) {
    let state = Mutex::new(State { next: 0, delivered: 0, ready: BTreeMap::new(), stopped: false });
    let changed = Condvar::new();
    let window = window.max(1);

    let background = || {
        loop {
            let index = {
                let mut s = lock(&state);
                while !s.stopped && s.next < items.len() && s.next >= s.delivered + window {
                    s = changed.wait(s).unwrap_or_else(PoisonError::into_inner);
                }
                if s.stopped || s.next >= items.len() {
                    return;
                }
                s.next += 1;
                s.next - 1
            };
            let result = catch_unwind(AssertUnwindSafe(|| work(&items[index]))).map_err(message_of);
            lock(&state).ready.insert(index, result);
            changed.notify_all();
        }
    };

    std::thread::scope(|scope| {
        // Lets the threads go even when `take` panics; without it the scope would wait for ever.
        let _stop = StopOnDrop { state: &state, changed: &changed };
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(background);
        }
        for index in 0..items.len() {
            let result = {
                let mut s = lock(&state);
                loop {
                    if let Some(result) = s.ready.remove(&index) {
                        s.delivered += 1;
                        break result;
                    }
                    s = changed.wait(s).unwrap_or_else(PoisonError::into_inner);
                }
            };
            changed.notify_all();
            if take(index, result).is_break() {
                return;
            }
        }
    });
}

struct StopOnDrop<'a, R> {
    state: &'a Mutex<State<R>>,
    changed: &'a Condvar,
}

impl<R> Drop for StopOnDrop<'_, R> {
    fn drop(&mut self) {
        lock(self.state).stopped = true;
        self.changed.notify_all();
    }
}

/// No code that can panic runs under the lock, so a poisoned state is still a whole one.
fn lock<R>(state: &Mutex<State<R>>) -> MutexGuard<'_, State<R>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text of a panic.
pub(crate) fn message_of(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => match panic.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => "no message".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn results_come_in_order_and_ahead_no_further_than_the_window() {
        let items: Vec<usize> = (0..50).collect();
        let begun = AtomicUsize::new(0);
        let mut taken = vec![];
        map_in_order(
            &items,
            4,
            6,
            |&i| {
                begun.fetch_add(1, Ordering::SeqCst);
                // Later items of a window are done first.
                (0..(6 - i % 6) * 1000).map(std::hint::black_box).sum::<usize>();
                i * 10
            },
            |i, result| {
                // While item i is being taken, at most `window` further ones have been begun.
                assert!(begun.load(Ordering::SeqCst) <= i + 1 + 6);
                taken.push(result.unwrap());
                ControlFlow::Continue(())
            },
        );
        assert_eq!(taken, (0..50).map(|i| i * 10).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_spoils_one_item_only() {
        let mut seen = vec![];
        map_in_order(
            &[0, 1, 2],
            2,
            2,
            |&i| {
                assert!(i != 1, "item {i} is bad");
                i
            },
            |_, result| {
                seen.push(result);
                ControlFlow::Continue(())
            },
        );
        assert_eq!(seen[0], Ok(0));
        assert!(seen[1].as_ref().unwrap_err().contains("item 1 is bad"));
        assert_eq!(seen[2], Ok(2));
    }

    #[test]
    fn breaking_off_stops_early() {
        let items: Vec<usize> = (0..1000).collect();
        let begun = AtomicUsize::new(0);
        map_in_order(
            &items,
            2,
            3,
            |_| begun.fetch_add(1, Ordering::SeqCst),
            |i, _| match i {
                5 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            },
        );
        assert!(begun.load(Ordering::SeqCst) < 20);
    }

    #[test]
    fn nothing_to_do_is_done() {
        map_in_order(&[] as &[u8], 4, 4, |_| (), |_, _| ControlFlow::Continue(()));
    }
}
