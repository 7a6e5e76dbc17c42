//! Takes finished films away when they are old, or when there are too many.

use crate::audit::Act;
use crate::clock::now_ms;
use crate::error::ServeError;
use crate::node::{Node, spawn};
use crate::store::Removed;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often is looked.
const PERIOD: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 86_400_000;

pub(crate) fn start(node: &Arc<Node>) -> Result<JoinHandle<()>, ServeError> {
    spawn(node, "retention", |node| {
        while !node.is_stopping() {
            if let Err(error) = sweep(node) {
                node.warn(&format!("removing old films: {error}"));
            }
            // What was done last, before things became quiet.
            if let Err(error) = node.note_head() {
                node.warn(&format!("noting the end of the audit log: {error}"));
            }
            // Wake-ups are for readers; what counts here is the time, or the end.
            let until = std::time::Instant::now() + PERIOD;
            while !node.is_stopping() && std::time::Instant::now() < until {
                node.films.wait(node.films.round(), PERIOD);
            }
        }
    })
}

/// Removes all that the limits ask for; says how many films.
pub(crate) fn sweep(node: &Node) -> Result<u64, ServeError> {
    let limits = &node.config.retention;
    if limits.days == 0 && limits.max_bytes == 0 {
        return Ok(0);
    }
    let before = (limits.days > 0).then(|| now_ms() - i64::from(limits.days) * DAY_MS);
    let mut films = 0;
    loop {
        let delete = |removed: &Removed| node.spool.remove(&removed.paths, &removed.jobs);
        let Some(removed) = node.store.remove_oldest(before, limits.max_bytes, delete)? else {
            return Ok(films);
        };
        node.note(&Act { action: "film.removed", actor: "node", object: &removed.film, outcome: "ok" })?;
        films += 1;
    }
}
