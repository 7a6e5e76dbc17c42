//! Parts of the tests: films, a quick reader, and a receiver that counts.

#![allow(dead_code, reason = "each test uses some of it")]

use sha2::{Digest, Sha256};
use spinexr_core::FilmPrediction;
use spinexr_core::prediction::Timings;
use spinexr_dicom::{DxFilm, derived_uid, encode_dx, read_instance};
use spinexr_serve::config::{Destination, ResultKind, StowTarget};
use spinexr_serve::reader::{Model, ReadFailure, Reading, ResultObject};
use spinexr_serve::{Config, Program, Server};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const SR_CLASS: &str = "1.2.840.10008.5.1.4.1.1.88.34";

/// A small film; each number gives another.
pub fn film(number: u16) -> DxFilm {
    let mut film = DxFilm::new(4, 6, (0..24).map(|i| (number + i) % 4096).collect());
    film.patient_id = format!("P{}", number % 7);
    film.study_date = "20260131".into();
    film
}

pub fn film_file(number: u16) -> Vec<u8> {
    encode_dx(&film(number))
}

/// A DICOM file of an explicit little endian data set.
pub fn dicom_file(class: &str, instance: &str, study: &str, series: &str, patient: &str) -> Vec<u8> {
    let element = |out: &mut Vec<u8>, group: u16, number: u16, vr: &[u8; 2], value: &str| {
        let pad = if vr == b"UI" { '\0' } else { ' ' };
        let padded = if value.len() % 2 == 1 { format!("{value}{pad}") } else { value.to_owned() };
        out.extend(group.to_le_bytes());
        out.extend(number.to_le_bytes());
        out.extend(vr);
        out.extend((padded.len() as u16).to_le_bytes());
        out.extend(padded.as_bytes());
    };
    let mut meta = vec![];
    element(&mut meta, 2, 2, b"UI", class);
    element(&mut meta, 2, 3, b"UI", instance);
    element(&mut meta, 2, 16, b"UI", "1.2.840.10008.1.2.1");
    let mut out = vec![0; 128];
    out.extend(b"DICM\x02\x00\x00\x00UL\x04\x00");
    out.extend((meta.len() as u32).to_le_bytes());
    out.extend(meta);
    element(&mut out, 0x0008, 0x0016, b"UI", class);
    element(&mut out, 0x0008, 0x0018, b"UI", instance);
    element(&mut out, 0x0008, 0x0060, b"CS", "SR");
    element(&mut out, 0x0010, 0x0020, b"LO", patient);
    element(&mut out, 0x0020, 0x000D, b"UI", study);
    element(&mut out, 0x0020, 0x000E, b"UI", series);
    out
}

/// Result UID of a film's report.
pub fn report_uid(film_instance: &str) -> String {
    derived_uid(format!("report of {film_instance}").as_bytes())
}

/// A reader that takes no time and finds nothing. Films of view position `BROKEN` cannot be read, those of `LATER` fail for
/// now.
pub fn read(path: &Path) -> Result<Reading, ReadFailure> {
    let instance = read_instance(path, &Default::default()).map_err(|e| ReadFailure::Film(e.to_string()))?;
    match instance.text("00185101").as_deref() {
        Some("BROKEN") => return Err(ReadFailure::Film("made to fail".into())),
        Some("LATER") => return Err(ReadFailure::ForNow("made to fail for now".into())),
        Some("PANIC") => panic!("made to panic"),
        _ => {}
    }
    let uid = report_uid(&instance.sop_instance_uid);
    let series = derived_uid(uid.as_bytes());
    let patient = instance.text("00100020").unwrap_or_default();
    Ok(Reading {
        record: FilmPrediction {
            facts: Default::default(),
            image: "film".into(),
            study: instance.study_uid.clone(),
            split: None,
            height_px: 4,
            width_px: 6,
            logits: BTreeMap::new(),
            p_abnormal: Some(0.25),
            threshold: Some(0.5),
            boxes: vec![],
            boxes_before_gate: vec![],
            method: None,
            pixels: serde_json::json!({}),
            timings: Timings::default(),
            model: "made-up".into(),
            demonstration: true,
        },
        overlay_png: Some(b"\x89PNG\r\n\x1a\nnot really".to_vec()),
        evidence_png: None,
        box_evidence_png: Some(b"\x89PNG\r\n\x1a\nnor this".to_vec()),
        objects: vec![ResultObject {
            kind: ResultKind::Sr,
            file: dicom_file(SR_CLASS, &uid, &instance.study_uid, &series, &patient),
        }],
    })
}

pub fn program() -> Program {
    Program {
        read: Arc::new(read),
        render: Arc::new(|path, frame| {
            if frame > 0 {
                return Err(ReadFailure::Film("one frame".into()));
            }
            std::fs::metadata(path)
                .map(|_| b"\x89PNG\r\n\x1a\nrendered".to_vec())
                .map_err(|e| ReadFailure::ForNow(e.to_string()))
        }),
        model: Model {
            name: "made-up".into(),
            display_score: None,
            hash: "made-up".into(),
            demonstration: true,
            description: serde_json::json!([]),
        },
        log: Arc::new(|_, _| {}),
        version: "0",
    }
}

/// Everything on free ports, with short pauses.
pub fn config(data_dir: &Path) -> Config {
    let mut config = Config { data_dir: data_dir.into(), ..Config::default() };
    config.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.dicom.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.queue.backoff_ms = 5;
    config.queue.max_backoff_ms = 20;
    config
}

pub fn stow_to(receiver: &Receiver) -> Destination {
    Destination {
        name: "archive".into(),
        formats: vec![],
        timeout_s: 10,
        dicom: None,
        stow: Some(StowTarget {
            url: format!("http://{}/dicom-web", receiver.address),
            token_file: None,
            password_file: None,
            tls_ca: None,
        }),
    }
}

/// A STOW-RS receiver that keeps the hash of every object it took, by SOP Instance UID.
pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    objects: BTreeMap<String, Vec<[u8; 32]>>,
    /// Statuses to answer before the first 200.
    refusals: Vec<u16>,
}

impl Receiver {
    /// Answers the first requests with these statuses, taking nothing.
    pub fn start(refusals: Vec<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(Received { refusals, ..Received::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let mut socket = socket;
                    while answer(&mut socket, &state).is_some() {}
                });
            }
        });
        Self { address, state }
    }

    /// Another process's receiver, by its address.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, state: Arc::default() }
    }

    /// Hashes of what came under each UID.
    pub fn objects(&self) -> BTreeMap<String, Vec<[u8; 32]>> {
        self.state.lock().unwrap().objects.clone()
    }
}

/// One request; `None` at the end of the connection.
fn answer(socket: &mut TcpStream, state: &Mutex<Received>) -> Option<()> {
    let mut head = vec![];
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length: usize = head.lines().find_map(|l| l.strip_prefix("content-length: "))?.trim().parse().ok()?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    let status = {
        let mut state = state.lock().unwrap();
        match state.refusals.pop() {
            Some(status) => status,
            None => {
                let start = body.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
                let end = body.len() - body.rsplit(|b| *b == b'\n').nth(1)?.len() - 3;
                let file = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(file.path(), &body[start..end]).unwrap();
                let instance = read_instance(file.path(), &Default::default()).unwrap();
                let hash: [u8; 32] = Sha256::digest(&body[start..end]).into();
                state.objects.entry(instance.sop_instance_uid).or_default().push(hash);
                200
            }
        }
    };
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: 2\r\nContent-Type: application/dicom+json\r\n\r\n{{}}"
    );
    socket.write_all(answer.as_bytes()).ok()
}

/// What a process of [`start_process`] does: serves, taking so long for each film.
pub fn serve_until_killed(config: Config, takes: Duration) -> ! {
    let mut program = program();
    let read = Arc::clone(&program.read);
    program.read = Arc::new(move |path| {
        std::thread::sleep(takes);
        read(path)
    });
    let server = Server::start(config, program).unwrap();
    println!("\nlistening {}", server.http_address());
    loop {
        std::thread::park();
    }
}

/// Starts this test program anew, for one test of it that serves until it is killed and prints `listening ADDRESS`; gives it
/// and its address.
pub fn start_process(test: &str, environment: &[(&str, &str)]) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| line.unwrap().strip_prefix("listening ").map(str::to_owned));
    // The pipe stays open as long as its reading end is; the process prints nothing more.
    (child, address.expect("the process starts"))
}

/// An HTTP client that gives every status as it is.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .new_agent()
}

/// Waits until `done`, at most 60 s.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "waited 60 s until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
