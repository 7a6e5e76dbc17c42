//! `serve`: the service around the real pipeline, and the small things it can be asked for.

use crate::{a_film, json, spinexr};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The service in a folder, on free ports; ended when dropped.
struct Service {
    child: Child,
    http: String,
}

impl Service {
    fn start(dir: &std::path::Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_spinexr"))
            .current_dir(dir)
            .args([
                "serve",
                "--json",
                "--data-dir",
                "data",
                "--http",
                "127.0.0.1:0",
                "--dicom",
                "127.0.0.1:0",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let first = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>().next();
        let http = first.unwrap().unwrap()["http"].as_str().unwrap().to_owned();
        Self { child, http }
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut socket = TcpStream::connect(&self.http).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/dicom\r\n\
             Content-Length: {}\r\n\r\n",
            self.http,
            body.len()
        );
        socket.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = vec![];
        socket.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
        (status, answer.split_off(end))
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.ask("GET", path, b"").1).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[cfg(unix)]
fn a_film_comes_back_as_every_result() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::start(dir.path());
    let (status, job) = service.ask("POST", "/api/v1/films", &fs::read(a_film()).unwrap());
    assert_eq!(status, 202, "{}", String::from_utf8_lossy(&job));
    let job: Value = serde_json::from_slice(&job).unwrap();
    let own = job["links"]["self"].as_str().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while service.json(own)["state"] != "done" {
        assert!(Instant::now() < end, "{}", service.json(own));
        std::thread::sleep(Duration::from_millis(20));
    }
    let record = service.json(&format!("{own}/record"));
    assert!(record["p_abnormal"].is_number() && record["demonstration"] == true, "{record}");
    let (_, overlay) = service.ask("GET", &format!("{own}/overlay"), b"");
    assert!(image::load_from_memory(&overlay).unwrap().width() >= 256);
    for kind in ["sr", "gsps", "sc"] {
        let (status, object) = service.ask("GET", &format!("{own}/objects/{kind}"), b"");
        assert_eq!((status, object.get(128..132)), (200, Some(b"DICM".as_slice())), "{kind}");
    }
    let films = service.json("/dicom-web/instances?Modality=DX");
    let url = films[0]["00081190"]["Value"][0].as_str().unwrap();
    let (_, picture) = service.ask("GET", &format!("{url}/rendered"), b"");
    assert_eq!(
        image::load_from_memory(&picture).unwrap().width(),
        record["width_px"].as_u64().unwrap() as u32
    );
    assert_eq!(service.json("/api/v1/models")["demonstration"], true);

    // SIGTERM ends it in good order, and the audit log of the folder holds.
    assert!(Command::new("kill").arg(service.child.id().to_string()).status().unwrap().success());
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
    let output = spinexr(dir.path())
        .args(["serve", "--data-dir", "data", "--verify-audit", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success() && json(&output)["seq"].as_u64().unwrap() >= 8);
    let log = dir.path().join("data/audit.jsonl");
    fs::write(&log, fs::read_to_string(&log).unwrap().replacen("\"ok\"", "\"OK\"", 1)).unwrap();
    let output =
        spinexr(dir.path()).args(["serve", "--data-dir", "data", "--verify-audit"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1"));
}

#[test]
fn configurations_and_tokens_are_made_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| spinexr(dir.path()).arg("serve").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    fs::write(dir.path().join("reference.toml"), run(&["--print-config"]).stdout).unwrap();
    let output = run(&["--config", "reference.toml", "--print-config", "--json"]);
    assert_eq!(json(&output)["dicom"]["ae_title"], "SPINEXR");

    let output = run(&["--new-token", "pacs"]);
    let (token, lines) = (text(output.stdout), text(output.stderr));
    assert!(token.starts_with("spinexr_") && !lines.contains(token.trim()));
    fs::write(dir.path().join("open.toml"), format!("[http]\nlisten = \"0.0.0.0:0\"\n{lines}")).unwrap();
    assert!(run(&["--config", "open.toml", "--print-config"]).status.success());

    fs::write(dir.path().join("closed.toml"), "[http]\nlisten = \"0.0.0.0:0\"\n").unwrap();
    for (args, expected) in [
        (vec!["--config", "closed.toml"], "http.listen"),
        (vec!["--dicom", "0.0.0.0:0"], "dicom.listen"),
        (vec!["--config", "missing.toml"], "missing.toml"),
        (vec!["--new-token", "a b"], "tokens[0].name"),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(output.stderr).contains(expected), "{args:?}");
    }
}
