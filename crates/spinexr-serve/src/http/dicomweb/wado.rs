//! WADO-RS (PS3.18 10.4): instances, their metadata, and films as pictures.

use super::super::App;
use super::super::access::Actor;
use super::super::problem::Problem;
use super::uid;
use crate::audit::Act;
use crate::node::Node;
use crate::reader::ReadFailure;
use crate::store::{InstanceKind, InstanceRow, Level, Query};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use futures_util::stream::unfold;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Most instances of one answer.
const MAX_INSTANCES: u32 = 10_000;
/// Bytes of a piece of an answer, and how many may wait for a slow client.
const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 4;

type Places = Path<HashMap<String, String>>;

/// The instances that a path names, and a line in the audit log for each.
fn find(
    node: &Node,
    places: &HashMap<String, String>,
    actor: &str,
    action: &str,
) -> Result<Vec<InstanceRow>, Problem> {
    let place = |name: &str| places.get(name).cloned().map(uid).transpose();
    let query = Query {
        study_uid: place("study")?,
        series_uid: place("series")?,
        sop_instance_uid: place("instance")?,
        limit: MAX_INSTANCES,
        ..Query::default()
    };
    let rows = node.store.find_instances(Level::Instance, &query)?;
    if rows.is_empty() {
        return Err(Problem::not_found("instance"));
    }
    for row in &rows {
        node.note(&Act { action, actor, object: &row.id, outcome: "ok" })?;
    }
    Ok(rows)
}

/// `…/metadata` of a study, a series or an instance.
pub(crate) async fn metadata(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(places): Places,
) -> Result<impl IntoResponse, Problem> {
    let rows = app.blocking(move |node| find(node, &places, &actor, "metadata.read")).await?;
    let list = rows.into_iter().map(|row| {
        let mut attributes = row.instance.attributes;
        attributes.insert("00083002".into(), json!({ "vr": "UI", "Value": [row.instance.transfer_syntax] }));
        Value::Object(attributes)
    });
    let text = Value::Array(list.collect()).to_string();
    Ok(([(CONTENT_TYPE, "application/dicom+json")], text))
}

/// The instances of a study or series, or one instance: as parts, or a single one as it is where that is asked for.
pub(crate) async fn retrieve(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(places): Places,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*").to_ascii_lowercase();
    let single = accept.starts_with("application/dicom") && !accept.starts_with("application/dicom+");
    let fits = single || accept.contains("multipart/related") || accept.contains("*/*");
    if !fits {
        let detail =
            "instances come as multipart/related; type=\"application/dicom\", or one as application/dicom";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", detail));
    }
    let rows = app.blocking(move |node| find(node, &places, &actor, "instance.read")).await?;
    if single && rows.len() > 1 {
        let detail = "several instances come as multipart/related";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", detail));
    }
    if single {
        let length = rows[0].bytes;
        let body = stream(&app, rows, None);
        let headers = [(CONTENT_TYPE, "application/dicom".to_owned()), (CONTENT_LENGTH, length.to_string())];
        return Ok((headers, body).into_response());
    }
    // The content's own hash cannot occur in the content.
    let boundary = format!("spinexr-{}", &rows[0].id[..32]);
    let content = format!("multipart/related; type=\"application/dicom\"; boundary={boundary}");
    let body = stream(&app, rows, Some(boundary));
    Ok(([(CONTENT_TYPE, content)], body).into_response())
}

/// Files one after another, read as the client takes them.
fn stream(app: &App, rows: Vec<InstanceRow>, boundary: Option<String>) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let node = Arc::clone(&app.node);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send(&node, &rows, boundary.as_deref(), &sender) {
            // Breaking the answer off is the only way left to say that it is not whole.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Body::from_stream(unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }))
}

fn send(
    node: &Node,
    rows: &[InstanceRow],
    boundary: Option<&str>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let put = |bytes: Vec<u8>| sender.blocking_send(Ok(bytes.into())).map_err(gone);
    for row in rows {
        if let Some(boundary) = boundary {
            put(format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n").into_bytes())?;
        }
        let mut file = File::open(node.spool.path(&row.path))?;
        loop {
            let mut piece = vec![];
            (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            if piece.is_empty() {
                break;
            }
            put(piece)?;
        }
        if boundary.is_some() {
            put(b"\r\n".to_vec())?;
        }
    }
    match boundary {
        Some(boundary) => put(format!("--{boundary}--\r\n").into_bytes()),
        None => Ok(()),
    }
}

/// `…/rendered`: a film as PNG; of a multi-frame film the frame that the path names, counted from 1.
pub(crate) async fn rendered(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(places): Places,
) -> Result<impl IntoResponse, Problem> {
    let frame = match places.get("frame") {
        None => 1,
        Some(text) => {
            text.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(|| Problem::not_found("frame"))?
        }
    };
    let png = app
        .blocking(move |node| {
            let row = find(node, &places, &actor, "film.shown")?.remove(0);
            if !matches!(row.kind, InstanceKind::Film) {
                let detail = "only films are shown as pictures; a job's overlay shows its result";
                return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", detail));
            }
            match (node.program.render)(&node.spool.path(&row.path), frame - 1) {
                Ok(png) => Ok(png),
                Err(ReadFailure::Film(_)) => Err(Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "not-shown",
                    "the film, or this frame of it, cannot be read",
                )),
                Err(ReadFailure::ForNow(error)) => {
                    node.warn(&format!("showing a film: {error}"));
                    Err(Problem::internal())
                }
            }
        })
        .await?;
    Ok(([(CONTENT_TYPE, "image/png")], png))
}
