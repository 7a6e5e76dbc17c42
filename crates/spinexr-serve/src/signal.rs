//! Waking threads that wait for work, and telling them to stop.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Counts wake-ups, so that one that comes just before a thread begins to wait is not missed.
#[derive(Debug, Default)]
pub struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rounds: u64,
    stopped: bool,
}

impl Signal {
    /// Wakes all who wait.
    pub fn wake(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rounds += 1;
        self.changed.notify_all();
    }

    /// Wakes all who wait, for good.
    pub fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.changed.notify_all();
    }

    /// Whether [`Signal::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped
    }

    /// The round to wait from: taken before one looks for work.
    pub fn round(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rounds
    }

    /// Waits for a wake-up after `round`, for the end, or for `most`.
    pub fn wait(&self, round: u64, most: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Woken or out of time: either way the caller looks for work again.
        drop(self.changed.wait_timeout_while(state, most, |s| s.rounds == round && !s.stopped));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_wake_up_before_waiting_is_not_missed() {
        let signal = Signal::default();
        let round = signal.round();
        signal.wake();
        let start = Instant::now();
        signal.wait(round, Duration::from_secs(60));
        signal.stop();
        signal.wait(signal.round(), Duration::from_secs(60));
        assert!(start.elapsed() < Duration::from_secs(30) && signal.is_stopped());
    }
}
