//! Sends results: one thread a destination, one object after another, so that a receiver that is away delays no other.

use crate::audit::Act;
use crate::backoff::pause_ms;
use crate::clock::now_ms;
use crate::config::Destination;
use crate::dimse::scu::StoreScu;
use crate::error::ServeError;
use crate::node::{Node, spawn};
use crate::store::{Delivery, InstanceRow, Sent};
use crate::stow::StowClient;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

const HOUR_MS: i64 = 3_600_000;

/// How an object reaches a destination.
enum Sender {
    Dicom(StoreScu),
    Stow(StowClient),
}

/// Why an object did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SendError {
    /// The receiver is away, or cannot take anything now.
    Away(String),
    /// The receiver will not take this object.
    Refused(String),
}

pub(crate) fn start(node: &Arc<Node>, destination: &Destination) -> Result<JoinHandle<()>, ServeError> {
    let sender = match (&destination.dicom, &destination.stow) {
        (Some(target), _) => Sender::Dicom(StoreScu::new(target, &node.config.dicom, destination.timeout_s)?),
        (None, Some(target)) => Sender::Stow(StowClient::new(target, destination.timeout_s)?),
        (None, None) => unreachable!("Config::check asks for one of them"),
    };
    let name = destination.name.clone();
    spawn(node, &format!("send-{name}"), move |node| run(node, &name, sender))
}

fn run(node: &Node, name: &str, mut sender: Sender) {
    // Failures in a row, whichever object they met: while a receiver is away, objects are not tried one by one.
    let mut failures = 0;
    while !node.results.is_stopped() {
        let round = node.results.round();
        let wait = match send_next(node, name, &mut sender, &mut failures) {
            Ok(wait) => wait,
            Err(error) => {
                node.warn(&format!("sending to {name}: {error}"));
                Some(node.nap())
            }
        };
        match wait {
            Some(wait) if failures == 0 => {
                sender.rest();
                node.results.wait(round, wait);
            }
            // New results do not end a receiver's absence: only the time does, or the end of the service.
            Some(wait) => {
                let until = std::time::Instant::now() + wait;
                while let Some(left) = until.checked_duration_since(std::time::Instant::now())
                    && !node.results.is_stopped()
                {
                    node.results.wait(node.results.round(), left);
                }
            }
            None => {}
        }
    }
}

/// Sends the next object. Gives how long to wait before the one after it.
fn send_next(
    node: &Node,
    name: &str,
    sender: &mut Sender,
    failures: &mut u32,
) -> Result<Option<Duration>, ServeError> {
    let delivery = match node.store.next_delivery(name)? {
        Ok(delivery) => delivery,
        Err(due) => {
            *failures = 0;
            return Ok(Some(node.nap_until(due)));
        }
    };
    let result = match node.store.instance(&delivery.instance)? {
        Some(row) => {
            let path = node.spool.path(&row.path);
            sender.send(&path, &row)
        }
        None => Err(SendError::Refused("the object is gone".into())),
    };
    let (sent, wait) = outcome(node, &delivery, result, failures);
    node.store.finish_delivery(delivery.id, &sent)?;
    node.metrics.sent(name, &sent);
    let object = &delivery.instance;
    let actor = format!("destination:{name}");
    match &sent {
        Sent::Delivered => node.note(&Act { action: "result.sent", actor: &actor, object, outcome: "ok" })?,
        Sent::Again { error, .. } => node.warn(&format!("sending to {name}: {error}; tried again later")),
        Sent::Failed { error } => {
            node.warn(&format!("sending {object} to {name} given up: {error}"));
            node.note(&Act { action: "result.sent", actor: &actor, object, outcome: error })?;
        }
    }
    Ok(wait)
}

fn outcome(
    node: &Node,
    delivery: &Delivery,
    result: Result<(), SendError>,
    failures: &mut u32,
) -> (Sent, Option<Duration>) {
    let queue = &node.config.queue;
    match result {
        Ok(()) => {
            *failures = 0;
            (Sent::Delivered, None)
        }
        Err(SendError::Refused(error)) => {
            *failures = 0;
            (Sent::Failed { error }, None)
        }
        Err(SendError::Away(error)) => {
            *failures += 1;
            let pause = pause_ms(queue.backoff_ms, queue.max_backoff_ms, *failures, &delivery.destination);
            let due_ms = now_ms() + pause as i64;
            let ends = delivery.created_ms + queue.delivery_hours as i64 * HOUR_MS;
            let sent = if due_ms > ends { Sent::Failed { error } } else { Sent::Again { error, due_ms } };
            (sent, Some(Duration::from_millis(pause)))
        }
    }
}

impl Sender {
    fn send(&mut self, path: &Path, row: &InstanceRow) -> Result<(), SendError> {
        match self {
            Self::Dicom(scu) => scu.send(path, row),
            Self::Stow(client) => client.send(path, row),
        }
    }

    /// Nothing is left to send for now.
    fn rest(&mut self) {
        if let Self::Dicom(scu) = self {
            scu.release();
        }
    }
}
