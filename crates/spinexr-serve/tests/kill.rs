//! 200 films are sent while the service is killed 20 times, at points drawn from a seed. Every result arrives, as one object.

#![expect(clippy::unwrap_used, reason = "whatever goes wrong here is a failed test")]

mod common;

use common::{
    Receiver, agent, config, film, film_file, report_uid, serve_until_killed, start_process, stow_to,
    wait_until,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spinexr_serve::store::{DeliveryState, JobState, Store};
use spinexr_serve::verify_audit;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const FILMS: u16 = 200;
const KILLS: usize = 20;

/// Not a test of its own: the process that is killed. It runs where the other test has started this program anew.
#[test]
fn process_to_be_killed() {
    let Ok(folder) = std::env::var("SPINEXR_SERVE_KILL_FOLDER") else { return };
    let address = std::env::var("SPINEXR_SERVE_KILL_RECEIVER").unwrap().parse().unwrap();
    let mut config = config(Path::new(&folder));
    config.destinations = vec![stow_to(&Receiver::at(address))];
    config.dicom.enabled = false;
    config.queue.workers = 2;
    // Here the deaths are not the films' fault.
    config.queue.max_interruptions = 1000;
    // Long enough for a kill to fall into it.
    serve_until_killed(config, Duration::from_millis(3));
}

/// Starts the process; gives it and its address.
fn start(folder: &Path, receiver: &Receiver) -> (Child, String) {
    let receiver = receiver.address.to_string();
    let environment =
        [("SPINEXR_SERVE_KILL_FOLDER", folder.to_str().unwrap()), ("SPINEXR_SERVE_KILL_RECEIVER", &receiver)];
    start_process("process_to_be_killed", &environment)
}

#[test]
fn kills_lose_nothing_and_send_nothing_anew() {
    let dir = tempfile::tempdir().unwrap();
    // Some refusals that pass, so that deliveries wait and are tried again as well.
    let receiver = Receiver::start(vec![503; 10]);
    let (mut child, address) = start(dir.path(), &receiver);
    let address = Arc::new(Mutex::new(address));
    let accepted = Arc::new(AtomicUsize::new(0));

    let sender = {
        let (address, accepted) = (Arc::clone(&address), Arc::clone(&accepted));
        std::thread::spawn(move || {
            let agent = agent();
            for number in 0..FILMS {
                let file = film_file(number);
                wait_until("a film is taken", || {
                    let url = format!("http://{}/api/v1/films", address.lock().unwrap());
                    let answer = agent.post(url).header("Content-Type", "application/dicom").send(&file[..]);
                    answer.is_ok_and(|a| a.status().is_success())
                });
                accepted.fetch_add(1, Ordering::SeqCst);
            }
        })
    };

    let mut random = ChaCha8Rng::seed_from_u64(7);
    for kill in 0..KILLS {
        // The kills are spread over the films, and fall some random time after one was taken.
        let least = kill * usize::from(FILMS) / (KILLS + 1);
        wait_until("films are taken", || accepted.load(Ordering::SeqCst) >= least);
        std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let (next, next_address) = start(dir.path(), &receiver);
        child = next;
        *address.lock().unwrap() = next_address;
    }
    sender.join().unwrap();
    wait_until("all results have arrived", || receiver.objects().len() == usize::from(FILMS));
    wait_until("all deliveries are noted", || {
        let url = format!("http://{}/metrics", address.lock().unwrap());
        let text = agent().get(url).call().unwrap().body_mut().read_to_string().unwrap();
        text.contains(&format!("spinexr_deliveries{{destination=\"archive\",state=\"delivered\"}} {FILMS}\n"))
    });
    child.kill().unwrap();
    child.wait().unwrap();

    let objects = receiver.objects();
    let expected: BTreeSet<String> = (0..FILMS).map(|n| report_uid(&film(n).sop_instance_uid)).collect();
    assert_eq!(
        objects.keys().cloned().collect::<BTreeSet<_>>(),
        expected,
        "one object for every film, no other"
    );
    let copies: usize = objects.values().map(Vec::len).sum();
    assert!(
        objects.values().all(|copies| copies.iter().all(|c| *c == copies[0])),
        "an object came with other bytes"
    );
    // Only an answer that a kill cut off is asked for again: at most one for every kill.
    assert!(copies <= usize::from(FILMS) + KILLS, "{copies} copies");

    let store = Store::of(&config(dir.path())).unwrap();
    assert_eq!(store.count_jobs(JobState::Done).unwrap(), u64::from(FILMS));
    for state in [JobState::Waiting, JobState::Running, JobState::Failed] {
        assert_eq!(store.count_jobs(state).unwrap(), 0, "{state:?}");
    }
    let delivered = vec![("archive".to_owned(), DeliveryState::Delivered, u64::from(FILMS))];
    assert_eq!(store.count_deliveries().unwrap(), delivered);
    drop(store);
    verify_audit(&config(dir.path())).unwrap();
    // A last start in good order: nothing is left to do, and nothing is sent.
    let (child, _) = start(dir.path(), &receiver);
    let mut child = child;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(receiver.objects().values().map(Vec::len).sum::<usize>(), copies);
    println!("{copies} objects sent for {FILMS} films and {KILLS} kills");
}
