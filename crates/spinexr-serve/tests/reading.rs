//! Readings by people: kept under their names, versioned, blinded, compared.
#![allow(clippy::unwrap_used)] // in a helper, as in a test, it fails the test

mod common;

use common::{agent, config, film_file, program, wait_until};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use spinexr_core::{Detection, Finding, hex};
use spinexr_dicom::results::{Algorithm, ResultOptions, SourceFilm, structured_report};
use spinexr_serve::config::{Role, ShowModel, Token};
use spinexr_serve::{Config, Server};
use std::path::Path;

struct Service {
    server: Server,
    agent: ureq::Agent,
    folder: tempfile::TempDir,
}

/// What comes with a request: reader's name, token.
#[derive(Clone, Copy, Default)]
struct As<'a> {
    reader: &'a str,
    token: &'a str,
}

fn reader(name: &str) -> As<'_> {
    As { reader: name, token: "" }
}

impl Service {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        change(&mut config);
        Self { server: Server::start(config, program()).unwrap(), agent: agent(), folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.http_address())
    }

    /// Hands a film in, waits until it was read, gives its content hash.
    fn film(&self, number: u16, token: &str) -> String {
        let mut request = self.agent.post(self.url("/api/v1/films")).content_type("application/dicom");
        if !token.is_empty() {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.send(&film_file(number)).unwrap();
        let job: Value = serde_json::from_slice(&response.body_mut().read_to_vec().unwrap()).unwrap();
        let own = job["links"]["self"].as_str().unwrap().to_owned();
        wait_until("the film was read", || {
            self.get(&own, As { token, ..As::default() }).1["state"] == "done"
        });
        job["film"].as_str().unwrap().to_owned()
    }

    fn get(&self, path: &str, who: As<'_>) -> (u16, Value) {
        let mut request = self.agent.get(self.url(path)).header("X-Reader", who.reader);
        if !who.token.is_empty() {
            request = request.header("Authorization", format!("Bearer {}", who.token));
        }
        let mut response = request.call().unwrap();
        let body = response.body_mut().read_to_vec().unwrap();
        (response.status().as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    fn save(&self, film: &str, who: As<'_>, over: &str, reading: &Value) -> (u16, Value) {
        let path = format!("/api/v1/reading/films/{film}/reading");
        let mut request = self.agent.put(self.url(&path)).header("X-Reader", who.reader);
        if !over.is_empty() {
            request = request.header("If-Match", over);
        }
        if !who.token.is_empty() {
            request = request.header("Authorization", format!("Bearer {}", who.token));
        }
        let mut response = request.send(reading.to_string().as_bytes()).unwrap();
        let body = response.body_mut().read_to_vec().unwrap();
        (response.status().as_u16(), serde_json::from_slice(&body).unwrap())
    }
}

/// The films of the tests have 6 × 4 pixels.
fn with_box(xyxy: [f64; 4], label: &str, state: &str) -> Value {
    let found = json!({ "id": "b1", "label": label, "xyxy": xyxy, "origin": "reader" });
    json!({ "state": state, "no_finding": false, "boxes": [found], "rejected": [] })
}

fn no_finding() -> Value {
    json!({ "state": "complete", "no_finding": true, "boxes": [], "rejected": [] })
}

#[test]
fn a_reading_is_kept_and_versioned() {
    let service = Service::start(|_| {});
    let film = service.film(1, "");
    let (status, list) = service.get("/api/v1/reading/films", reader("a"));
    assert_eq!(status, 200);
    assert_eq!(list["labels"].as_array().unwrap().len(), 13);
    assert_eq!((&list["films"][0]["id"], &list["films"][0]["reading"]), (&json!(film), &Value::Null));
    assert_eq!(list["films"][0]["p_abnormal"], 0.25);

    let draft = with_box([1.0, 1.0, 5.0, 3.5], "Osteophytes", "draft");
    assert_eq!(service.save(&film, reader("a"), "\"0\"", &draft), (200, json!({ "version": 1 })));
    let (status, problem) = service.save(&film, reader("a"), "\"0\"", &no_finding());
    assert_eq!((status, &problem["type"]), (412, &json!("urn:spinexr:problem:changed")));
    assert_eq!(service.save(&film, reader("a"), "\"1\"", &no_finding()).1["version"], 2);
    let (_, opened) = service.get(&format!("/api/v1/reading/films/{film}"), reader("a"));
    assert_eq!((&opened["version"], &opened["reading"]), (&json!(2), &no_finding()));
    assert_eq!(service.get("/api/v1/reading/films", reader("a")).1["films"][0]["reading"], "complete");
    service.server.stop();
}

#[test]
fn what_is_no_reading_is_refused() {
    let service = Service::start(|_| {});
    let film = service.film(1, "");
    let proper = with_box([1.0, 1.0, 5.0, 3.5], "Osteophytes", "draft");
    let outside = with_box([1.0, 1.0, 7.0, 3.5], "Osteophytes", "draft");
    let unknown = with_box([1.0, 1.0, 5.0, 3.5], "Spur", "draft");
    let cases = [
        (422, "inside 0, 0, 6, 4", "0", &outside),
        (422, "unknown finding", "0", &unknown),
        (428, "If-Match", "", &proper),
        (428, "If-Match", "\"x\"", &proper),
        (400, "unknown variant", "0", &json!({ "state": "done", "no_finding": true, "boxes": [] })),
        (400, "", "0", &json!([])),
    ];
    for (expected, part, over, reading) in cases {
        let (status, problem) = service.save(&film, reader("a"), over, reading);
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == expected && detail.contains(part), "{status} {detail}");
    }
    for name in ["", "a b", "../a", &"a".repeat(65)] {
        assert_eq!(service.save(&film, reader(name), "0", &proper).0, 400, "{name:?}");
    }
    let none = "0".repeat(64);
    assert_eq!(service.save(&none, reader("a"), "0", &proper).0, 404);
    for path in ["", "/pixels", "/evidence/film", "/evidence/else"] {
        assert_eq!(service.get(&format!("/api/v1/reading/films/{none}{path}"), reader("a")).0, 404);
    }
    let long = json!({ "state": "draft", "no_finding": false, "boxes": [], "from": "x".repeat(1 << 20) });
    assert_eq!(service.save(&film, reader("a"), "0", &long).0, 413);
    service.server.stop();
}

#[test]
fn readers_are_blind_until_they_are_done_and_can_be_compared() {
    let service = Service::start(|_| {});
    let films = [service.film(1, ""), service.film(2, "")];
    let first = with_box([0.0, 0.0, 4.0, 4.0], "Osteophytes", "complete");
    let second = with_box([0.0, 0.0, 4.0, 3.0], "Osteophytes", "complete");
    for film in &films {
        assert_eq!(service.save(film, reader("a"), "0", &first).0, 200);
    }
    let others = |name| {
        let (_, film) = service.get(&format!("/api/v1/reading/films/{}", films[0]), reader(name));
        film["others"].as_array().unwrap().clone()
    };
    assert_eq!(others("b"), Vec::<Value>::new());
    let draft = with_box([0.0, 0.0, 4.0, 3.0], "Osteophytes", "draft");
    service.save(&films[0], reader("b"), "0", &draft);
    assert_eq!((others("b").len(), others("a").len()), (0, 0), "a draft neither sees nor is seen");
    service.save(&films[0], reader("b"), "1", &second);
    service.save(&films[1], reader("b"), "0", &no_finding());
    assert_eq!((&others("b")[0]["reader"], &others("a")[0]["reader"]), (&json!("a"), &json!("b")));

    let (status, compared) = service.get("/api/v1/reading/agreement", reader(""));
    assert_eq!(status, 200);
    let agreement = &compared["pairs"][0]["agreement"];
    assert_eq!((&agreement["films"], &agreement["boxes"]["matched"]), (&json!(2), &json!(1)));
    assert!((agreement["boxes"]["mean_iou"].as_f64().unwrap() - 0.75).abs() < 1e-6);
    assert_eq!(agreement["abnormal"]["counts"], json!({ "both": 1, "first": 1, "second": 0, "neither": 0 }));
    let strict = service.get("/api/v1/reading/agreement?iou=0.8", reader("")).1;
    let refused = service.get("/api/v1/reading/agreement?iou=much", reader(""));
    assert_eq!((refused.0, &refused.1["type"]), (400, &json!("urn:spinexr:problem:bad-request")));
    assert_eq!(strict["pairs"][0]["agreement"]["boxes"]["matched"], 0);
    for query in ["?iou=0", "?iou=2", "?iou=x", "?what=1"] {
        assert_eq!(service.get(&format!("/api/v1/reading/agreement{query}"), reader("")).0, 400, "{query}");
    }
    service.server.stop();
}

#[test]
fn the_model_waits_for_the_reader_where_it_must() {
    let service = Service::start(|config| config.reading.model = ShowModel::After);
    let film = service.film(1, "");
    let path = format!("/api/v1/reading/films/{film}");
    let (_, before) = service.get(&path, reader("a"));
    assert_eq!((&before["is_model_hidden"], &before["record"]), (&json!(true), &Value::Null));
    assert_eq!((&before["p_abnormal"], &before["evidence"]), (&Value::Null, &json!([])));
    let evidence = |of: &str| service.get(&format!("{path}/evidence/{of}"), reader("a")).0;
    assert_eq!(evidence("boxes"), 404);
    assert_eq!(service.get("/api/v1/reading/films", reader("a")).1["films"][0]["p_abnormal"], Value::Null);
    service.save(&film, reader("a"), "0", &no_finding());
    let (_, after) = service.get(&path, reader("a"));
    assert_eq!((&after["is_model_hidden"], &after["p_abnormal"]), (&json!(false), &json!(0.25)));
    assert_eq!(after["record"]["threshold"], 0.5);
    assert_eq!(after["evidence"], json!(["boxes"]), "there is none of the film");
    assert_eq!(["boxes", "film", "else"].map(evidence), [200, 404, 404]);
    assert_eq!(service.get("/api/v1/reading/films", reader("a")).1["films"][0]["p_abnormal"], 0.25);
    service.server.stop();
}

#[test]
fn with_tokens_the_reader_is_who_the_token_says() {
    let token = |name: &str, roles: &[Role]| Token {
        name: name.into(),
        sha256: hex(&Sha256::digest(name.as_bytes())),
        roles: roles.to_vec(),
    };
    let service = Service::start(|config| {
        config.tokens = vec![
            token("dr-a", &[Role::Annotate]),
            token("sender", &[Role::Submit]),
            token("boss", &[Role::Admin]),
        ];
    });
    let film = service.film(1, "sender");
    let path = "/api/v1/reading/films";
    assert_eq!(service.get(path, reader("dr-a")).0, 401);
    assert_eq!(service.get(path, As { reader: "x", token: "sender" }).0, 403);
    let me = As { reader: "somebody.else", token: "dr-a" };
    assert_eq!(service.get(path, me).1["reader"], "dr-a");
    assert_eq!(service.save(&film, me, "0", &no_finding()).0, 200);
    let (_, opened) = service.get(&format!("{path}/{film}"), As { reader: "", token: "boss" });
    assert_eq!(opened["reading"], Value::Null, "the admin is another reader");
    assert_eq!(service.get("/api/v1/reading/agreement", me).0, 403);
    assert_eq!(service.get("/api/v1/reading/agreement", As { token: "boss", ..me }).0, 200);
    service.server.stop();
}

#[test]
fn pixels_come_with_their_window() {
    let service = Service::start(|_| {});
    let film = service.film(7, "");
    let url = service.url(&format!("/api/v1/reading/films/{film}/pixels"));
    let mut response = service.agent.get(&url).call().unwrap();
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((header("x-film-width"), header("x-film-height")), ("6".into(), "4".into()));
    assert_eq!(header("x-film-inverted"), "false");
    assert!(header("x-film-low").parse::<f64>().unwrap() < header("x-film-high").parse::<f64>().unwrap());
    let bytes = response.body_mut().read_to_vec().unwrap();
    let values: Vec<u16> = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
    assert_eq!(values, common::film(7).pixels);
    service.server.stop();
}

#[test]
fn the_page_is_served_and_loads_nothing_from_elsewhere() {
    let service = Service::start(|_| {});
    for (path, kind) in
        [("/reader/", "text/html"), ("/reader/main.js", "text/javascript"), ("/reader/style.css", "text/css")]
    {
        let response = service.agent.get(service.url(path)).call().unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let header = |name: &str| response.headers()[name].to_str().unwrap();
        assert!(header("content-type").starts_with(kind));
        assert!(header("content-security-policy").starts_with("default-src 'none'; script-src 'self'"));
    }
    assert_eq!(service.agent.get(service.url("/reader/other.js")).call().unwrap().status(), 404);
    service.server.stop();
}

/// A report on film `number`, with these boxes and their confidences.
fn report(number: u16, boxes: &[([f32; 4], f32)]) -> Vec<u8> {
    let limits = Default::default();
    let source = SourceFilm::from_bytes(Path::new("film"), film_file(number), &limits).unwrap();
    let boxes: Vec<Detection> = boxes
        .iter()
        .map(|(xyxy, score)| Detection {
            label: Finding::Osteophytes.label(),
            score: *score,
            xyxy: (*xyxy).into(),
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.dcm");
    std::fs::write(&path, film_file(number)).unwrap();
    let mut record = common::read(&path).unwrap().record;
    record.boxes_before_gate.clone_from(&boxes);
    record.boxes = boxes;
    let by = Algorithm {
        name: "test model".into(),
        version: "1".into(),
        model_hash: "0".repeat(64),
        weights_sha256: "0".repeat(64),
        config_hash: "0".repeat(64),
        parameters: "none".into(),
        software_version: "0".into(),
    };
    structured_report(&source, &record, &by, &ResultOptions::default()).unwrap().file().to_vec()
}

#[test]
fn a_corrected_report_becomes_the_readers_reading() {
    let service = Service::start(|_| {});
    let film = service.film(1, "");
    let send = |body: &[u8], query: &str, who: &str| {
        let url = service.url(&format!("/api/v1/reading/reports{query}"));
        let request = service.agent.post(url).header("X-Reader", who).content_type("application/dicom");
        let mut response = request.send(body).unwrap();
        let body = response.body_mut().read_to_vec().unwrap();
        (response.status().as_u16(), serde_json::from_slice::<Value>(&body).unwrap())
    };
    let reading = || service.get(&format!("/api/v1/reading/films/{film}"), reader("a")).1;

    let one = report(1, &[([1.0, 0.5, 3.25, 2.0], 0.75)]);
    assert_eq!(
        send(&one, "", "a"),
        (200, json!({ "films": [{ "film": film, "version": 1 }], "refused": [] }))
    );
    let found = reading();
    assert_eq!(found["reading"]["state"], "complete");
    assert_eq!(found["reading"]["boxes"][0]["label"], "Osteophytes");
    assert_eq!(found["reading"]["boxes"][0]["xyxy"], json!([1.0, 0.5, 3.25, 2.0]));
    assert_eq!(found["reading"]["boxes"][0]["origin"], "model");

    // What is there stays, unless replacing it is asked for.
    let none = report(1, &[]);
    assert_eq!(send(&none, "", "a").0, 409);
    assert_eq!(reading()["version"], 1);
    assert_eq!(send(&none, "?replace=true", "a").1["films"][0]["version"], 2);
    assert_eq!(reading()["reading"]["no_finding"], true);
    assert_eq!(send(&one, "", "b").0, 200, "another reader has none yet");

    assert_eq!(send(&report(2, &[]), "", "a").0, 404, "a film that was never sent");
    assert_eq!(send(&film_file(1), "", "c").0, 422, "no report");
    assert_eq!(send(b"no DICOM", "", "c").0, 422);
    assert_eq!(send(&one, "", "no reader").0, 400);
    assert_eq!(send(&one, "?replace=perhaps", "a").0, 400);
    assert_eq!(send(&vec![0; 9 << 20], "", "a").0, 413);
    let refused = send(&report(2, &[]), "", "a").1.to_string();
    assert!(!refused.contains(service.folder.path().to_str().unwrap()), "{refused}");
}
