//! The parts of the service together: what every thread shares, how it starts and how it ends.
//!
//! Threads: one for each worker that reads films, one for each destination, one for retention, one that accepts
//! associations and one for each association, and the HTTP server's. They meet only in the job store, and wake each other.

use crate::audit::{Act, Audit, Head, verify, verify_end};
use crate::config::Config;
use crate::dimse::scp;
use crate::error::ServeError;
use crate::http;
use crate::metrics::Metrics;
use crate::reader::{Model, ReadFilm, RenderFilm};
use crate::signal::Signal;
use crate::spool::Spool;
use crate::store::Store;
use crate::{delivery, heartbeat, retention, worker};
use spinexr_dicom::Limits;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How loud a message for the operator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// What happens in good order.
    Info,
    /// What someone should look at.
    Warning,
}

/// Takes messages for the operator. They name films by hash and never hold patient data.
pub type Log = Arc<dyn Fn(Severity, &str) + Send + Sync>;

/// What the program brings.
#[derive(Clone)]
pub struct Program {
    /// Reads a film.
    pub read: ReadFilm,
    /// Shows a film.
    pub render: RenderFilm,
    /// The models behind `read`.
    pub model: Model,
    /// Takes messages.
    pub log: Log,
    /// Version of the program.
    pub version: &'static str,
}

/// What every thread shares.
pub struct Node {
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) spool: Spool,
    pub(crate) store: Store,
    pub(crate) audit: Audit,
    pub(crate) metrics: Metrics,
    pub(crate) program: Program,
    pub(crate) model: Model,
    /// Rings when films wait to be read.
    pub(crate) films: Signal,
    /// Rings when results wait to be sent.
    pub(crate) results: Signal,
    /// Rings when a job has ended, for requests that wait for it.
    pub(crate) ended: Notify,
    /// When the job store was last told where the audit log ends.
    head_noted: Mutex<Option<Instant>>,
    /// When the minute began in which strangers' attempts are counted, and how many there were.
    strangers: Mutex<(Instant, u32)>,
}

/// Longest sleep without being woken; what another node put into the store wakes nobody here.
const NAP: Duration = Duration::from_secs(5);
const SHARED_NAP: Duration = Duration::from_secs(1);

/// Most lines a minute about attempts of strangers: what anyone can cause must not fill the disk.
const STRANGERS_A_MINUTE: u32 = 60;

/// How often at most the job store is told where the audit log ends: each time is a commit of its own.
const HEAD_PERIOD: Duration = Duration::from_secs(1);

impl Node {
    /// Writes an act down. Where the log ends is told to the store at most every [`HEAD_PERIOD`].
    pub(crate) fn note(&self, act: &Act<'_>) -> Result<(), ServeError> {
        let head = self.audit.append(act)?;
        let mut noted = self.head_noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is_some_and(|at| at.elapsed() < HEAD_PERIOD) {
            return Ok(());
        }
        *noted = Some(Instant::now());
        drop(noted);
        self.store.set_audit_head(&head)
    }

    /// Tells the store where the audit log ends.
    pub(crate) fn note_head(&self) -> Result<(), ServeError> {
        self.store.set_audit_head(&self.audit.head())
    }

    /// Writes down that someone unknown was turned away. Beyond [`STRANGERS_A_MINUTE`] only the metrics count them.
    pub(crate) fn note_stranger(&self, act: &Act<'_>) -> Result<(), ServeError> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.0.elapsed() >= Duration::from_secs(60) {
            *strangers = (Instant::now(), 0);
        }
        strangers.1 += 1;
        let count = strangers.1;
        drop(strangers);
        match count {
            1..=STRANGERS_A_MINUTE => self.note(act),
            _ => Ok(()),
        }
    }

    /// Longest sleep of a thread that has nothing to do.
    pub(crate) fn nap(&self) -> Duration {
        if self.store.is_shared() { SHARED_NAP } else { NAP }
    }

    /// Sleep until something is due, in so many ms.
    pub(crate) fn nap_until(&self, due: Option<i64>) -> Duration {
        due.map_or(self.nap(), |ms| Duration::from_millis(ms.max(0) as u64).min(self.nap()))
    }

    pub(crate) fn info(&self, message: &str) {
        (self.program.log)(Severity::Info, message);
    }

    pub(crate) fn warn(&self, message: &str) {
        (self.program.log)(Severity::Warning, message);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.films.is_stopped()
    }
}

/// The running service.
pub struct Server {
    node: Arc<Node>,
    threads: Vec<JoinHandle<()>>,
    http: http::Running,
    http_address: SocketAddr,
    dicom_address: Option<SocketAddr>,
}

impl Server {
    /// Starts everything. When this returns, films are taken.
    ///
    /// # Errors
    /// Any [`ServeError`].
    pub fn start(config: Config, program: Program) -> Result<Self, ServeError> {
        config.check()?;
        let spool = Spool::open(&config)?;
        let store = Store::of(&config)?;
        let audit = Audit::open(&spool.audit_path())?;
        verify_end(&spool.audit_path(), &store.audit_head()?)?;
        // Ports before any work begins: a second service on the same ports fails at once.
        let http_listener = listen(config.http.listen)?;
        let dicom_listener = if config.dicom.enabled { Some(listen(config.dicom.listen)?) } else { None };
        let limits = Limits {
            max_file_bytes: config.http.max_body_bytes.max(config.dicom.max_object_bytes),
            ..Limits::default()
        };
        let node = Arc::new(Node {
            limits,
            spool,
            store,
            audit,
            metrics: Metrics::default(),
            model: program.model.clone(),
            program,
            films: Signal::default(),
            results: Signal::default(),
            ended: Notify::new(),
            head_noted: Mutex::new(None),
            strangers: Mutex::new((Instant::now(), 0)),
            config,
        });
        recover(&node)?;

        let http_address = http_listener.local_addr().map_err(ServeError::io("http.listen"))?;
        let mut dicom_address = None;
        let mut threads = vec![];
        if let Some(listener) = dicom_listener {
            dicom_address = Some(listener.local_addr().map_err(ServeError::io("dicom.listen"))?);
            threads.push(scp::start(&node, listener)?);
        }
        // Senders are made first, so that a certificate that cannot be read stops the start.
        for destination in &node.config.destinations {
            threads.push(delivery::start(&node, destination)?);
        }
        for number in 0..node.config.queue.workers {
            threads.push(worker::start(&node, number)?);
        }
        threads.push(retention::start(&node)?);
        if node.store.is_shared() {
            threads.push(heartbeat::start(&node)?);
        }
        let http = http::start(&node, http_listener)?;
        node.note(&Act { action: "node.started", actor: "node", object: &node.model.hash, outcome: "ok" })?;
        Ok(Self { node, threads, http, http_address, dicom_address })
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where associations are accepted.
    pub fn dicom_address(&self) -> Option<SocketAddr> {
        self.dicom_address
    }

    /// Ends in good order: no new films, what is under way is finished, what waits is there at the next start.
    pub fn stop(self) {
        self.node.films.stop();
        self.node.results.stop();
        self.http.stop();
        for thread in self.threads {
            // A thread that panicked has nothing left to finish.
            let _ = thread.join();
        }
        let act = Act { action: "node.stopped", actor: "node", object: &self.node.model.hash, outcome: "ok" };
        if let Err(error) = self.node.note(&act).and_then(|()| self.node.note_head()) {
            self.node.warn(&error.to_string());
        }
    }
}

/// Checks the audit log of a node: its chain, and that its end is the one the job store remembers.
///
/// # Errors
/// [`ServeError::Audit`] names the first line that does not hold.
pub fn verify_audit(config: &Config) -> Result<Head, ServeError> {
    let log = config.data_dir.join("audit.jsonl");
    let head = verify(&log)?;
    verify_end(&log, &Store::of(config)?.audit_head()?)?;
    Ok(head)
}

fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).map_err(|source| ServeError::Listen { address: address.to_string(), source })
}

/// Puts things in order after the last process, however it ended.
fn recover(node: &Node) -> Result<(), ServeError> {
    let failed = node.store.recover(heartbeat::recovery(node))?;
    heartbeat::report(node, &failed)?;
    heartbeat::join(node)?;
    let swept = node.spool.sweep(&node.store)?;
    if swept > 0 {
        node.info(&format!("{swept} unfinished files of the last run removed"));
    }
    let names: Vec<&str> = node.config.destinations.iter().map(|d| d.name.as_str()).collect();
    let given_up = node.store.fail_deliveries_except(&names)?;
    if given_up > 0 {
        node.warn(&format!("{given_up} deliveries wait for destinations that are not configured any more"));
    }
    Ok(())
}

/// A thread of the service. One that panics is reported; the others go on.
pub(crate) fn spawn(
    node: &Arc<Node>,
    name: &str,
    work: impl FnOnce(&Arc<Node>) + Send + 'static,
) -> Result<JoinHandle<()>, ServeError> {
    let node = Arc::clone(node);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(&node))
        .map_err(ServeError::io(format!("thread {name}")))
}
