//! Three nodes share a PostgreSQL store and a spool. 150 films go to whichever of them answers; nodes are killed and started
//! anew, and one stays dead. Every result arrives, as one object.
//!
//! Needs a server: `SPINEXR_TEST_POSTGRES` names a connection that may make schemas. Without it the test says that it was
//! skipped.

#![expect(clippy::unwrap_used, reason = "whatever goes wrong here is a failed test")]

mod common;

use common::{
    Receiver, agent, config, film, film_file, program, report_uid, serve_until_killed, start_process,
    stow_to, wait_until,
};
use postgres::{Client, NoTls};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spinexr_serve::config::Postgres;
use spinexr_serve::store::{DeliveryState, JobState, Store};
use spinexr_serve::{Config, ServeError, Server, verify_audit};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const FILMS: u16 = 150;
const NODES: usize = 3;
const KILLS: usize = 10;

/// The configuration of node `number` in `folder`.
fn node_config(folder: &Path, connection: &str, number: usize) -> Config {
    let mut config = config(&folder.join(format!("node{number}")));
    config.store.postgres =
        Some(Postgres { connection: connection.into(), password_file: None, tls_ca: None });
    config.store.spool_dir = Some(folder.join("spool"));
    config.store.lease_s = 10;
    config.dicom.enabled = false;
    config.queue.workers = 2;
    // Here the deaths are not the films' fault.
    config.queue.max_interruptions = 1000;
    config
}

/// Not a test of its own: a node, in a process that the other test has started.
#[test]
fn node_to_be_killed() {
    let Ok(folder) = std::env::var("SPINEXR_SERVE_NODES_FOLDER") else { return };
    let get = |name: &str| std::env::var(format!("SPINEXR_SERVE_NODES_{name}")).unwrap();
    let mut config = node_config(Path::new(&folder), &get("CONNECTION"), get("NUMBER").parse().unwrap());
    config.destinations = vec![stow_to(&Receiver::at(get("RECEIVER").parse().unwrap()))];
    // Long enough for a kill to fall into it.
    serve_until_killed(config, Duration::from_millis(10));
}

#[test]
fn nodes_that_die_lose_nothing_and_send_nothing_anew() {
    let Ok(server) = std::env::var("SPINEXR_TEST_POSTGRES") else {
        eprintln!("skipped: SPINEXR_TEST_POSTGRES names no server");
        return;
    };
    let schema = "test_nodes";
    let clean = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
    let sql = |statement: &str| Client::connect(&server, NoTls).unwrap().batch_execute(statement).unwrap();
    sql(&format!("{clean}; CREATE SCHEMA {schema}"));
    let connection = format!("{server} options='-c search_path={schema}'");
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(vec![503; 10]);
    let address = receiver.address.to_string();
    let start = |number: usize| -> (Child, String) {
        let number = number.to_string();
        let environment = [
            ("SPINEXR_SERVE_NODES_FOLDER", dir.path().to_str().unwrap()),
            ("SPINEXR_SERVE_NODES_CONNECTION", &connection),
            ("SPINEXR_SERVE_NODES_NUMBER", &number),
            ("SPINEXR_SERVE_NODES_RECEIVER", &address),
        ];
        start_process("node_to_be_killed", &environment)
    };
    let (mut children, addresses): (Vec<Child>, Vec<String>) = (0..NODES).map(start).unzip();
    let addresses = Arc::new(Mutex::new(addresses));

    let sender = {
        let addresses = Arc::clone(&addresses);
        std::thread::spawn(move || {
            let (agent, mut node) = (agent(), 0);
            for number in 0..FILMS {
                let file = film_file(number);
                wait_until("a film is taken", || {
                    node = (node + 1) % NODES;
                    let url = format!("http://{}/api/v1/films", addresses.lock().unwrap()[node]);
                    let answer = agent.post(url).header("Content-Type", "application/dicom").send(&file[..]);
                    answer.is_ok_and(|a| a.status().is_success())
                });
            }
        })
    };
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.random_range(50..400)));
        let victim = random.random_range(0..NODES);
        children[victim].kill().unwrap(); // SIGKILL
        children[victim].wait().unwrap();
        // The last one stays dead: the others must do what it had under way.
        if kill + 1 < KILLS {
            let (child, address) = start(victim);
            children[victim] = child;
            addresses.lock().unwrap()[victim] = address;
        }
    }
    sender.join().unwrap();
    wait_until("all results have arrived", || receiver.objects().len() == usize::from(FILMS));
    let store = Store::of(&node_config(dir.path(), &connection, NODES)).unwrap();
    wait_until("all deliveries are noted", || {
        let delivered = vec![("archive".to_owned(), DeliveryState::Delivered, u64::from(FILMS))];
        store.count_deliveries().unwrap() == delivered
    });
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    let objects = receiver.objects();
    let expected: BTreeSet<String> = (0..FILMS).map(|n| report_uid(&film(n).sop_instance_uid)).collect();
    assert_eq!(objects.keys().cloned().collect::<BTreeSet<_>>(), expected);
    let copies: usize = objects.values().map(Vec::len).sum();
    assert!(objects.values().all(|copies| copies.iter().all(|c| *c == copies[0])), "other bytes");
    // Only an answer that a kill cut off is asked for again: at most one for every kill.
    assert!(copies <= usize::from(FILMS) + KILLS, "{copies} copies");
    assert_eq!(store.count_jobs(JobState::Done).unwrap(), u64::from(FILMS));
    for number in 0..NODES {
        let config = node_config(dir.path(), &connection, number);
        // Every node has done something, and its own log of it holds.
        assert!(verify_audit(&config).unwrap().seq > 2, "node {number}");
    }

    // A node with another spool would not find the films of the others.
    let mut elsewhere = node_config(dir.path(), &connection, NODES + 1);
    elsewhere.store.spool_dir = Some(dir.path().join("elsewhere"));
    match Server::start(elsewhere, program()).map(|_| ()) {
        Err(ServeError::Config { key, .. }) => assert_eq!(key, "store.spool_dir"),
        other => panic!("{other:?}"),
    }
    // One with other models would make a job's result depend on who was free.
    let (child, _) = start(0);
    children[0] = child;
    let mut other = program();
    other.model.hash = "other".into();
    let refused = Server::start(node_config(dir.path(), &connection, NODES + 2), other).map(|_| ());
    children[0].kill().unwrap();
    children[0].wait().unwrap();
    match refused {
        Err(ServeError::Config { key, .. }) => assert_eq!(key, "store.postgres"),
        other => panic!("{other:?}"),
    }
    drop(store);
    sql(&clean);
    println!("{copies} objects sent for {FILMS} films, {NODES} nodes and {KILLS} kills");
}
