//! One of several nodes: says that it lives, and takes over what nodes left that do not.

use crate::audit::Act;
use crate::error::ServeError;
use crate::node::{Node, spawn};
use crate::store::Recovery;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Beats in the time after which a node is taken for dead: two may fail.
const BEATS: u32 = 3;

pub(crate) fn start(node: &Arc<Node>) -> Result<JoinHandle<()>, ServeError> {
    spawn(node, "heartbeat", |node| {
        let period = Duration::from_secs(node.config.store.lease_s) / BEATS;
        // To the end of the work that is under way, which the others must leave alone: the last to stop are the senders.
        while !node.results.is_stopped() {
            let next = Instant::now() + period;
            if let Err(error) = beat(node) {
                node.warn(&format!("telling other nodes that this one lives: {error}"));
            }
            while !node.results.is_stopped()
                && let Some(left) = next.checked_duration_since(Instant::now())
            {
                node.results.wait(node.results.round(), left);
            }
        }
    })
}

/// As [`beat`], for the first time: only among nodes that read films with the same models. A job's result must not depend on
/// which node was free.
pub(crate) fn join(node: &Node) -> Result<(), ServeError> {
    let model = &node.model.hash;
    if let Some(other) = node.store.other_model(model, node.config.store.lease_s * 1000)? {
        return Err(ServeError::Config {
            key: "store.postgres".into(),
            expected: format!("the models and thresholds of the other nodes ({other})"),
            got: model.clone(),
        });
    }
    beat(node)
}

/// Says that this node lives, and takes over what others left.
pub(crate) fn beat(node: &Node) -> Result<(), ServeError> {
    let failed = node.store.beat(&node.model.hash, node.config.store.lease_s * 1000, recovery(node))?;
    report(node, &failed)?;
    // What was taken over may be read and sent here.
    node.films.wake();
    Ok(())
}

/// What the configuration says of films during which a process died.
pub(crate) fn recovery(node: &Node) -> Recovery {
    let queue = &node.config.queue;
    Recovery { max_interruptions: queue.max_interruptions, backoff_ms: queue.backoff_ms }
}

/// Writes down which jobs failed because each time the process ended with them.
pub(crate) fn report(node: &Node, failed: &[String]) -> Result<(), ServeError> {
    for job in failed {
        node.warn(&format!("job {job} failed: the process ended each time its film was being read"));
        let outcome = "the process ended each time";
        node.note(&Act { action: "film.read", actor: "node", object: job, outcome })?;
    }
    Ok(())
}
