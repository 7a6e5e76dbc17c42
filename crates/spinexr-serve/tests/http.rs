//! The HTTP side from outside: what is taken, what is given, and what is refused with which status.

#![expect(clippy::unwrap_used, reason = "whatever goes wrong here is a failed test")]

mod common;

use common::{Receiver, agent, config, film, film_file, program, report_uid, stow_to, wait_until};
use serde_json::Value;
use sha2::{Digest, Sha256};
use spinexr_core::hex;
use spinexr_dicom::{DxSyntax, encode_dx};
use spinexr_serve::config::{Role, Token};
use spinexr_serve::{Config, Server, verify_audit};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A service in a folder of its own, and a client of it.
struct Service {
    dir: TempDir,
    server: Option<Server>,
    base: String,
}

impl Service {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.dicom.enabled = false;
        change(&mut config);
        let server = Server::start(config, program()).unwrap();
        let base = format!("http://{}", server.http_address());
        Self { dir, server: Some(server), base }
    }

    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        self.get_with(path, &[])
    }

    fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> (u16, Vec<u8>) {
        let mut request = agent().get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = request.call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap())
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    fn post(&self, path: &str, media_type: &str, body: &[u8], headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = agent().post(format!("{}{path}", self.base)).header("Content-Type", media_type);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = request.send(body).unwrap();
        let text = answer.body_mut().read_to_vec().unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&text).unwrap_or(Value::Null))
    }

    fn post_film(&self, file: &[u8]) -> (u16, Value) {
        self.post("/api/v1/films", "application/dicom", file, &[])
    }

    /// Waits for a job to end; gives it.
    fn ended(&self, job: &Value) -> Value {
        let path = job["links"]["self"].as_str().unwrap();
        let mut state = Value::Null;
        wait_until("a job has ended", || {
            state = self.json(path);
            state["state"] == "done" || state["state"] == "failed"
        });
        state
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.base.strip_prefix("http://").unwrap()).unwrap()
    }

    /// Raw bytes in, everything that comes back out.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(bytes).unwrap();
        let mut answer = vec![];
        let mut piece = [0; 4096];
        // The connection may be reset after the answer, as the rest of the request was not read.
        while let Ok(n) = socket.read(&mut piece) {
            answer.extend(&piece[..n]);
            if n == 0 || answer.ends_with(b"}") {
                break;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

fn multipart(kind: &str, parts: &[Vec<u8>]) -> (String, Vec<u8>) {
    let mut body = vec![];
    for part in parts {
        body.extend(b"--xyz\r\nContent-Type: application/dicom\r\n\r\n");
        body.extend(part);
        body.extend(b"\r\n");
    }
    body.extend(b"--xyz--\r\n");
    (format!("{kind}; type=\"application/dicom\"; boundary=xyz"), body)
}

#[test]
fn a_film_becomes_results_in_every_form() {
    let receiver = Receiver::start(vec![]);
    let mut service = Service::start(|c| c.destinations = vec![stow_to(&receiver)]);
    let (status, job) = service.post_film(&film_file(1));
    assert_eq!(status, 202, "{job}");
    let job = service.ended(&job);
    assert_eq!(job["state"], "done");
    let (status, again) = service.post_film(&film_file(1));
    assert_eq!((status, &again["id"]), (200, &job["id"]), "the same content is not read again");

    let link = |name: &str| job["links"][name].as_str().unwrap().to_owned();
    assert_eq!(service.json(&link("record"))["p_abnormal"], 0.25);
    assert!(service.get(&link("overlay")).1.starts_with(b"\x89PNG"));
    let (status, object) = service.get(&link("sr"));
    assert_eq!((status, &object[128..132]), (200, b"DICM".as_slice()));
    assert_eq!(service.get(&format!("{}/objects/gsps", link("self"))).0, 404);
    assert_eq!(service.get(&format!("{}/objects/exe", link("self"))).0, 404);
    assert_eq!(service.get("/api/v1/jobs/../jobs").0, 400);

    wait_until("the result is delivered", || {
        service.json(&link("self"))["deliveries"][0]["state"] == "delivered"
    });
    assert!(receiver.objects().contains_key(&report_uid(&film(1).sop_instance_uid)));
    assert_eq!(service.json("/api/v1/jobs?state=done")["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(service.json("/api/v1/deliveries")["deliveries"][0]["destination"], "archive");
    assert_eq!(service.get("/api/v1/jobs?state=lost").0, 400);
    assert_eq!(service.get("/api/v1/jobs?sate=done").0, 400);

    let metrics = String::from_utf8(service.get("/metrics").1).unwrap();
    assert!(metrics.contains("spinexr_jobs{state=\"done\"} 1\n"), "{metrics}");
    assert!(metrics.contains("spinexr_films_received_total{outcome=\"known\"} 1\n"), "{metrics}");
    for secret in ["SYNTHETIC", "P1", &film(1).study_uid, &film(1).sop_instance_uid] {
        assert!(!metrics.contains(secret), "metrics hold {secret}");
    }
    service.server.take().unwrap().stop();
    let head = verify_audit(&config(service.dir.path())).unwrap();
    assert!(head.seq >= 7);
    let log = std::fs::read_to_string(service.dir.path().join("audit.jsonl")).unwrap();
    for secret in ["SYNTHETIC", "\"P1", &film(1).study_uid, &film(1).sop_instance_uid] {
        assert!(!log.contains(secret), "the audit log holds {secret}");
    }
}

#[test]
fn several_films_in_one_request_each_have_their_answer() {
    let service = Service::start(|_| {});
    let parts = [film_file(1), b"no film".to_vec(), film_file(2)];
    let (media_type, body) = multipart("multipart/form-data", &parts);
    let (status, answer) = service.post("/api/v1/films", &media_type, &body, &[]);
    assert_eq!(status, 207, "{answer}");
    let films = answer["films"].as_array().unwrap();
    assert!(films[0]["id"].is_string() && films[2]["id"].is_string());
    assert_eq!(films[1]["problem"]["status"], 415);
    let (media_type, body) = multipart("multipart/form-data", &parts[..1]);
    assert_eq!(service.post("/api/v1/films", &media_type, &body, &[]).0, 202);
    assert_eq!(service.post("/api/v1/films", &media_type, &body[..body.len() - 6], &[]).0, 400);
    assert_eq!(service.post("/api/v1/films", "multipart/form-data", &body, &[]).0, 400);
    assert_eq!(service.post("/api/v1/films", &media_type, b"--xyz--", &[]).0, 400);
}

#[test]
fn tokens_and_roles_are_asked_for() {
    let token = |name: &str, role| Token {
        name: name.into(),
        sha256: hex(&Sha256::digest(name.as_bytes())),
        roles: vec![role],
    };
    let service = Service::start(|c| {
        c.tokens = vec![token("r", Role::Read), token("s", Role::Submit), token("a", Role::Admin)];
    });
    let get =
        |path: &str, who: &str| service.get_with(path, &[("Authorization", &format!("Bearer {who}"))]).0;
    let film = film_file(1);
    let submit = |who: &str| {
        let header = format!("Bearer {who}");
        service.post("/api/v1/films", "application/dicom", &film, &[("Authorization", &header)])
    };
    let (status, problem) = service.post_film(&film);
    assert_eq!((status, &problem["type"]), (401, &"urn:spinexr:problem:unauthorized".into()));
    assert_eq!(submit("nobody").0, 401);
    assert_eq!(submit("r").0, 403);
    let (status, job) = submit("s");
    assert_eq!(status, 202);
    let job = format!("/api/v1/jobs/{}", job["id"].as_str().unwrap());
    wait_until("the film is read", || {
        service.get_with(&format!("{job}/record"), &[("Authorization", "Bearer a")]).0 == 200
    });

    for (path, read, sent, admin) in [
        ("/metrics", 200, 403, 200),
        ("/api/v1/models", 200, 200, 200),
        ("/api/v1/jobs", 200, 403, 200),
        (job.as_str(), 200, 200, 200),
        (&format!("{job}/record"), 200, 403, 200),
        ("/api/v1/deliveries", 403, 403, 200),
        ("/dicom-web/studies", 200, 403, 200),
        ("/dicom-web/studies/1.2.3/metadata", 404, 403, 404),
    ] {
        assert_eq!((get(path, "r"), get(path, "s"), get(path, "a")), (read, sent, admin), "{path}");
        assert_eq!(service.get(path).0, 401, "{path}");
    }
    for path in ["/", "/openapi.json", "/healthz", "/readyz"] {
        assert_eq!(service.get(path).0, 200, "{path}");
    }
    // An unknown page is no way around the question either.
    assert_eq!(service.get("/api/v1/nothing").0, 404);
    assert_eq!(service.post("/api/v1/jobs", "text/plain", b"", &[]).0, 405);
    // Strangers are written down, and cannot fill the disk.
    for _ in 0..80 {
        assert_eq!(service.get("/api/v1/jobs").0, 401);
    }
    let log = std::fs::read_to_string(service.dir.path().join("audit.jsonl")).unwrap();
    let lines = log.lines().filter(|l| l.contains("request.refused") && l.contains("unauthorized")).count();
    assert!((20..=60).contains(&lines), "{lines}");
}

#[test]
fn without_tokens_only_this_machine_is_answered() {
    let service = Service::start(|_| {});
    let ask = |head: &str| service.raw(format!("GET /api/v1/jobs HTTP/1.1\r\n{head}\r\n").as_bytes());
    assert!(ask("Host: localhost\r\n").starts_with("HTTP/1.1 200"));
    assert!(ask("Host: rebound.example\r\n").starts_with("HTTP/1.1 403"));
    assert!(ask("Host: localhost\r\nOrigin: https://page.example\r\n").starts_with("HTTP/1.1 403"));
    let outside = Config::from_toml("[http]\nlisten = \"0.0.0.0:0\"").unwrap_err();
    assert!(outside.to_string().contains("http.listen"), "{outside}");
}

#[test]
fn what_is_no_film_is_refused_with_its_reason() {
    let service = Service::start(|_| {});
    let refused = |file: &[u8]| {
        let (status, problem) = service.post_film(file);
        assert_eq!(problem["status"], status, "{problem}");
        (status, problem["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned())
    };
    assert_eq!(refused(b"%PDF-1.7"), (415, "not-dicom".into()));
    assert_eq!(refused(b""), (415, "not-dicom".into()));
    assert_eq!(refused(b"\x89PNG\r\n\x1a\nand more"), (415, "not-dicom".into()));
    let whole = film_file(1);
    assert_eq!(refused(&whole[..300]), (415, "not-dicom".into()));
    // No pixels; pixels that no reader could hold.
    let report = common::dicom_file(common::SR_CLASS, "1.2.3", "1.2", "1.2.4", "P1");
    assert_eq!(refused(&report), (422, "not-a-film".into()));
    let rows = whole.windows(8).position(|w| w == b"\x28\x00\x10\x00US\x02\x00").unwrap();
    let mut huge = whole.clone();
    huge[rows + 8..rows + 10].copy_from_slice(&65_535u16.to_le_bytes());
    let columns = whole.windows(8).position(|w| w == b"\x28\x00\x11\x00US\x02\x00").unwrap();
    huge[columns + 8..columns + 10].copy_from_slice(&65_535u16.to_le_bytes());
    assert_eq!(refused(&huge), (422, "not-a-film".into()));
    // A path where a UID belongs.
    let uid = film(1).study_uid;
    let at = whole.windows(uid.len()).position(|w| w == uid.as_bytes()).unwrap();
    let mut tricky = whole.clone();
    tricky[at..at + 16].copy_from_slice(b"../../../etc/abc");
    assert_eq!(refused(&tricky), (422, "not-a-film".into()));

    assert_eq!(service.post("/api/v1/films", "text/plain", &whole, &[]).0, 415);
    assert_eq!(
        service.post("/api/v1/films", "application/dicom", &whole, &[("Content-Encoding", "gzip")]).0,
        415
    );
    // Nothing of all that was kept.
    let kept = std::fs::read_dir(service.dir.path().join("spool/films")).unwrap().count();
    let half = std::fs::read_dir(service.dir.path().join("spool/incoming/local")).unwrap().count();
    assert_eq!((kept, half), (0, 0));
}

#[test]
fn a_decompression_bomb_is_refused() {
    let service = Service::start(|_| {});
    // The deflated form of a film, its data set replaced by 600 MB of nothing.
    let film = spinexr_dicom::DxFilm { transfer_syntax: DxSyntax::Deflated, ..film(1) };
    let deflated = encode_dx(&film);
    let uid = b"1.2.840.10008.1.2.1.99";
    assert!(deflated.windows(uid.len()).any(|w| w == uid));
    let length = u32::from_le_bytes(deflated[140..144].try_into().unwrap()) as usize;
    let mut bomb = deflated[..144 + length].to_vec();
    let mut encoder = flate2::write::DeflateEncoder::new(&mut bomb, flate2::Compression::fast());
    // A private element that claims it all.
    encoder.write_all(b"\x09\x00\x01\x10OB\x00\x00\x00\x00\x00\x25").unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..600 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap();
    assert!(bomb.len() < 8 << 20);
    let (status, problem) = service.post_film(&bomb);
    assert_eq!(status, 422, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("inflated"), "{problem}");
}

#[test]
fn size_time_and_rate_are_bounded() {
    let service = Service::start(|c| {
        c.http.max_body_bytes = 10_000;
        c.http.idle_timeout_s = 1;
        c.http.header_timeout_s = 1;
    });
    assert_eq!(service.post_film(&[0; 10_001]).0, 413);
    let head = "POST /api/v1/films HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/dicom\r\n";
    // Announced without end, and then too much.
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    let mut flood = chunked.clone().into_bytes();
    for _ in 0..3 {
        flood.extend(format!("{:x}\r\n", 4096).as_bytes());
        flood.extend([0; 4096]);
        flood.extend(b"\r\n");
    }
    assert!(service.raw(&flood).starts_with("HTTP/1.1 413"));
    // A body that stops coming; a head that does not end.
    let slow = service.raw(format!("{head}Content-Length: 5000\r\n\r\nDI").as_bytes());
    assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");
    assert!(!service.raw(b"GET /healthz HTTP/1.1\r\nHost: loc").contains("200 OK"));

    let service = Service::start(|c| c.http.requests_per_minute = 3);
    for _ in 0..3 {
        assert_eq!(service.get("/healthz").0, 200);
    }
    let (status, problem) = service.get("/healthz");
    assert_eq!(status, 429, "{}", String::from_utf8_lossy(&problem));
}

#[test]
fn a_full_queue_asks_to_come_back() {
    let service = Service::start(|c| {
        c.queue.max_waiting = 1;
        c.queue.backoff_ms = 60_000;
        c.queue.max_backoff_ms = 60_000;
    });
    // A film that failed for now waits for a minute: the queue is full, and stays so.
    let later = |n: u16| encode_dx(&spinexr_dicom::DxFilm { view_position: "LATER".into(), ..film(n) });
    let (_, job) = service.post_film(&later(0));
    let own = job["links"]["self"].as_str().unwrap();
    wait_until("the film has failed once", || {
        let job = service.json(own);
        job["state"] == "waiting" && job["attempts"] == 1
    });
    let answer = agent()
        .post(format!("{}/api/v1/films", service.base))
        .header("Content-Type", "application/dicom")
        .send(&later(1)[..])
        .unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));

    // A sender that writes its whole body before it listens is told so as well, not cut off while it writes.
    let head = "POST /api/v1/films HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/dicom\r\n";
    let body = vec![0; 20 << 20];
    let mut socket = service.connect();
    write!(socket, "{head}Content-Length: {}\r\n\r\n", body.len()).unwrap();
    socket.write_all(&body).unwrap();
    assert!(status_line(&mut socket).starts_with("HTTP/1.1 503"));
    // One that asks first is answered before it has written any of it.
    let mut socket = service.connect();
    write!(socket, "{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    assert!(status_line(&mut socket).starts_with("HTTP/1.1 503"));
}

fn status_line(socket: &mut TcpStream) -> String {
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).unwrap();
    line
}

#[test]
fn a_request_can_wait_for_the_end_of_a_job() {
    let service = Service::start(|c| {
        c.queue.backoff_ms = 60_000;
        c.queue.max_backoff_ms = 60_000;
    });
    let (_, job) = service.post_film(&film_file(1));
    let own = job["links"]["self"].as_str().unwrap();
    assert_eq!(service.json(&format!("{own}?wait=15"))["state"], "done");
    let later = encode_dx(&spinexr_dicom::DxFilm { view_position: "LATER".into(), ..film(2) });
    let (_, job) = service.post_film(&later);
    let own = job["links"]["self"].as_str().unwrap();
    let start = Instant::now();
    assert_eq!(service.json(&format!("{own}?wait=0.7"))["state"], "waiting", "tried again in a minute");
    assert!(start.elapsed() >= Duration::from_millis(700));
    for refused in ["51", "-1", "NaN", "long"] {
        assert_eq!(service.get(&format!("{own}?wait={refused}")).0, 400, "{refused}");
    }
    assert_eq!(service.get("/api/v1/jobs/none?wait=5").0, 404);
}

#[test]
fn dead_letters_can_be_tried_again() {
    let receiver = Receiver::start(vec![400]);
    let service = Service::start(|c| {
        c.destinations = vec![stow_to(&receiver)];
        c.queue.max_attempts = 2;
    });
    let of_view = |view: &str, n| encode_dx(&spinexr_dicom::DxFilm { view_position: view.into(), ..film(n) });
    for (view, error, attempts) in
        [("BROKEN", "made to fail", 1), ("LATER", "for now", 2), ("PANIC", "panicked", 2)]
    {
        let (_, job) = service.post_film(&of_view(view, 1));
        let job = service.ended(&job);
        assert_eq!((&job["state"], &job["attempts"]), (&"failed".into(), &attempts.into()), "{view}");
        assert!(job["error"].as_str().unwrap().contains(error), "{job}");
        let own = job["links"]["self"].as_str().unwrap();
        assert_eq!(service.get(&format!("{own}/record")).0, 409);
        assert_eq!(service.post(&format!("{own}/retry"), "text/plain", b"", &[]).0, 202);
        service.ended(&job);
    }
    let (_, job) = service.post_film(&film_file(5));
    let own = job["links"]["self"].as_str().unwrap().to_owned();
    assert_eq!(service.ended(&job)["state"], "done");
    assert_eq!(service.post(&format!("{own}/retry"), "text/plain", b"", &[]).0, 409);
    wait_until("the delivery is refused", || service.json(&own)["deliveries"][0]["state"] == "failed");
    let number = service.json(&own)["deliveries"][0]["id"].as_i64().unwrap();
    let retry = format!("/api/v1/deliveries/{number}/retry");
    assert_eq!(service.post(&retry, "text/plain", b"", &[]).0, 202);
    wait_until("the delivery arrives", || service.json(&own)["deliveries"][0]["state"] == "delivered");
    assert_eq!(service.post(&retry, "text/plain", b"", &[]).0, 409);
}

#[test]
fn old_films_go_and_those_on_their_way_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.dicom.enabled = false;
    let start = |config: &Config| Server::start(config.clone(), program()).unwrap();
    let server = start(&config);
    let base = format!("http://{}", server.http_address());
    for n in 0..3 {
        let url = format!("{base}/api/v1/films");
        agent().post(url).header("Content-Type", "application/dicom").send(&film_file(n)[..]).unwrap();
    }
    let done = |base: &str| {
        let text =
            agent().get(format!("{base}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
        let line = text.lines().find(|l| l.starts_with("spinexr_jobs{state=\"done\"}")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    wait_until("three films are read", || done(&base) == 3);
    server.stop();
    // Room for one film and its result: at the next start the older ones go, with their files.
    config.retention.max_bytes = 4000;
    let server = start(&config);
    let base = format!("http://{}", server.http_address());
    wait_until("older films are gone", || done(&base) < 3);
    server.stop();
    let files = |folder: &str| {
        let folders = std::fs::read_dir(dir.path().join("spool").join(folder)).unwrap();
        folders.map(|f| std::fs::read_dir(f.unwrap().path()).unwrap().count()).sum::<usize>()
    };
    let left = files("films");
    assert!((1..3).contains(&left) && files("results") == left, "{left} films, {} results", files("results"));
    assert!(std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap().contains("film.removed"));
}

#[test]
fn dicomweb_stores_finds_and_gives() {
    let service = Service::start(|_| {});
    let (one, two) = (film(1), film(2));
    let (media_type, body) = multipart("multipart/related", &[encode_dx(&one), encode_dx(&two)]);
    let (status, answer) = service.post("/dicom-web/studies", &media_type, &body, &[]);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["00081199"]["Value"].as_array().unwrap().len(), 2);
    let (media_type, body) = multipart("multipart/related", &[encode_dx(&one), b"junk".to_vec()]);
    let (status, answer) = service.post("/dicom-web/studies", &media_type, &body, &[]);
    assert_eq!((status, &answer["00081198"]["Value"][0]["00081197"]["Value"][0]), (202, &0xC000.into()));
    // Only films of the study that is addressed.
    let other = format!("/dicom-web/studies/{}", two.study_uid);
    assert_eq!(service.post(&other, &media_type, &body, &[]).0, 409);
    assert_eq!(service.post("/dicom-web/studies/..x", &media_type, &body, &[]).0, 400);
    assert_eq!(service.post("/dicom-web/studies", "application/dicom", &body, &[]).0, 415);

    wait_until("both films are read", || {
        service.json("/api/v1/jobs?state=done")["jobs"].as_array().unwrap().len() == 2
    });
    let studies = service.json("/dicom-web/studies");
    assert_eq!(studies.as_array().unwrap().len(), 2);
    let of_one = format!("/dicom-web/studies?StudyInstanceUID={}&includefield=00081030", one.study_uid);
    let study = &service.json(&of_one)[0];
    assert_eq!(study["0020000D"]["Value"][0], one.study_uid.as_str());
    assert_eq!(study["00201208"]["Value"][0], 2, "the film and its report: {study}");
    assert_eq!(study["00100020"]["Value"][0], one.patient_id.as_str());
    for (query, count) in [
        ("PatientID=P1", 1),
        ("PatientID=P*", 2),
        ("PatientID=p1", 0),
        ("PatientID=P[1]", 0),
        ("StudyDate=20260101-20260201", 2),
        ("StudyDate=-20260101", 0),
        ("ModalitiesInStudy=SR", 2),
        ("ModalitiesInStudy=CT", 0),
        ("limit=1", 1),
        ("limit=1&offset=2", 0),
    ] {
        assert_eq!(
            service.json(&format!("/dicom-web/studies?{query}")).as_array().unwrap().len(),
            count,
            "{query}"
        );
    }
    assert_eq!(service.get("/dicom-web/studies?Nonsense=1").0, 400);
    let series = format!("/dicom-web/studies/{}/series", one.study_uid);
    assert_eq!(service.json(&series).as_array().unwrap().len(), 2);
    assert_eq!(
        service.json(&format!("{series}?Modality=DX"))[0]["0020000E"]["Value"][0],
        one.series_uid.as_str()
    );

    let instance = format!("{series}/{}/instances/{}", one.series_uid, one.sop_instance_uid);
    let (status, file) = service.get_with(&instance, &[("Accept", "application/dicom")]);
    assert_eq!((status, &file), (200, &encode_dx(&one)), "as it was stored");
    let (status, parts) =
        service.get_with(&instance, &[("Accept", "multipart/related; type=\"application/dicom\"")]);
    assert!(status == 200 && parts.windows(file.len()).any(|w| w == file));
    let whole = format!("/dicom-web/studies/{}", one.study_uid);
    let (_, parts) = service.get(&whole);
    assert!(parts.windows(file.len()).any(|w| w == file) && parts.len() > file.len() + 500);
    assert_eq!(service.get_with(&whole, &[("Accept", "application/dicom")]).0, 406);
    assert_eq!(service.get_with(&whole, &[("Accept", "image/jpeg")]).0, 406);
    let metadata = service.json(&format!("{instance}/metadata"));
    assert_eq!(metadata[0]["00280010"]["Value"][0], 4);
    assert!(metadata[0].get("7FE00010").is_none());
    assert_eq!(service.json(&format!("{whole}/metadata")).as_array().unwrap().len(), 2);
    assert!(service.get(&format!("{instance}/rendered")).1.starts_with(b"\x89PNG"));
    assert_eq!(service.get(&format!("{instance}/frames/1/rendered")).0, 200);
    assert_eq!(service.get(&format!("{instance}/frames/2/rendered")).0, 422);
    assert_eq!(service.get(&format!("{instance}/frames/0/rendered")).0, 404);
    for path in ["/dicom-web/studies/1.2.3", "/dicom-web/studies/1.2.3/metadata"] {
        assert_eq!(service.get(path).0, 404, "{path}");
    }
    assert_eq!(service.get("/dicom-web/studies/%2e%2e%2fetc/metadata").0, 400);
    let report = report_uid(&one.sop_instance_uid);
    let found = service.json(&format!("/dicom-web/instances?SOPInstanceUID={report}"));
    assert_eq!(found[0]["00080016"]["Value"][0], common::SR_CLASS);
}
