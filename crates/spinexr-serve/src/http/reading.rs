//! What the web reader asks for: films with the model's findings, pixels, and readers' own readings.
//!
//! Reading is blinded: nobody is told another's reading of a film before their own is complete, and with
//! `reading.model = "after"` not the model's result either.

use super::App;
use super::access::Actor;
use super::jobs::{query, result_file};
use super::problem::Problem;
use crate::annotation::{Annotation, AnnotationState, compare, is_reader_name};
use crate::audit::Act;
use crate::config::ShowModel;
use crate::correction::{self, Correction, CorrectionError};
use crate::node::Node;
use crate::reader::Evidence;
use crate::spool::Spool;
use crate::store::{InstanceRow, Job, JobState, SavedAnnotation, Summary};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_TYPE, IF_MATCH};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use spinexr_core::FilmPrediction;
use spinexr_dicom::results::read_report_from;
use spinexr_dicom::{Policy, ReadOptions, read_viewer_pixels};
use std::collections::HashMap;

/// Most films of the list, the newest.
const MAX_FILMS: u32 = 5000;
/// Where a reader's name comes from when the service asks for no token.
const READER: HeaderName = HeaderName::from_static("x-reader");
/// Least overlap of two boxes that are the same, if nothing is said.
const IOU: f64 = 0.5;

/// The reader of a request: the token's name; without tokens, the name that the page sends.
fn reader(node: &Node, actor: &str, headers: &HeaderMap) -> Result<String, Problem> {
    let name = match actor.strip_prefix("token:") {
        Some(name) if !node.config.is_open() => name,
        _ => headers.get(READER).and_then(|value| value.to_str().ok()).unwrap_or_default(),
    };
    if is_reader_name(name) {
        Ok(name.to_owned())
    } else {
        let detail =
            "expected a reader's name (1 to 64 letters, digits, . _ -) in X-Reader, or as the token's";
        Err(Problem::bad_request(detail))
    }
}

fn record(node: &Node, job: &Job) -> Result<Option<FilmPrediction>, Problem> {
    if job.state != JobState::Done {
        return Ok(None);
    }
    // Retention may have taken it away in the meantime.
    let Some(bytes) = result_file(node, job, "record.json")? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        node.warn(&format!("record of job {}: {error}", job.id));
        Problem::internal()
    })
}

/// Whether this reader may see what the model found.
fn sees_model(node: &Node, state: Option<AnnotationState>) -> bool {
    match node.config.reading.model {
        ShowModel::Before => true,
        ShowModel::After => state == Some(AnnotationState::Complete),
    }
}

/// What lists show of a job's record.
fn summary(node: &Node, job: &Job) -> Result<Option<Summary>, Problem> {
    if job.summary.is_some() {
        return Ok(job.summary.clone());
    }
    let record = record(node, job)?;
    Ok(record.map(|r| Summary { image: r.image, p_abnormal: r.p_abnormal, threshold: r.threshold }))
}

/// What the list and the page of a film say of it.
fn describe(film: &InstanceRow, job: &Job, summary: Option<&Summary>) -> Value {
    json!({
        "id": film.id,
        "study": film.instance.study_uid,
        "study_date": film.instance.text("00080020"),
        "image": summary.map_or(&film.instance.sop_instance_uid, |s| &s.image),
        "body_part": film.instance.text("00180015"),
        "view": film.instance.text("00185101"),
        "state": job.state,
        "error": (job.state == JobState::Failed).then_some(&job.error),
        "p_abnormal": summary.and_then(|s| s.p_abnormal),
        "threshold": summary.and_then(|s| s.threshold),
    })
}

pub(super) async fn films(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    app.blocking(move |node| {
        let reader = reader(node, &actor, &headers)?;
        let states = node.store.annotation_states(&reader)?;
        let films = node.store.films(MAX_FILMS)?;
        // By study, the newest first; within it as the films came.
        let mut order: HashMap<&str, usize> = HashMap::new();
        for (place, (film, _)) in films.iter().enumerate() {
            order.entry(&film.instance.study_uid).or_insert(place);
        }
        let mut sorted: Vec<_> = films.iter().rev().collect();
        sorted.sort_by_key(|(film, _)| order[film.instance.study_uid.as_str()]);
        let mut rows = vec![];
        for (film, job) in sorted {
            let mine = states.get(&film.id).copied();
            let summary = if sees_model(node, mine) { summary(node, job)? } else { None };
            let mut row = describe(film, job, summary.as_ref());
            row["reading"] = json!(mine);
            rows.push(row);
        }
        Ok(Json(json!({
            "reader": reader,
            "labels": node.config.reading.labels,
            "model": {
                "hash": node.model.hash,
                "name": node.model.name,
                "display_score": node.model.display_score,
                "demonstration": node.model.demonstration,
            },
            "films": rows,
        })))
    })
    .await
}

/// The film of that id, with the job that read it last.
fn find(node: &Node, film: &str) -> Result<(InstanceRow, Job), Problem> {
    node.store.film(film)?.ok_or_else(|| Problem::not_found("film"))
}

pub(super) async fn film(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    app.blocking(move |node| {
        let reader = reader(node, &actor, &headers)?;
        let (film, job) = find(node, &id)?;
        let (mine, others): (Vec<SavedAnnotation>, Vec<_>) =
            node.store.annotations(Some(&id))?.into_iter().partition(|saved| saved.reader == reader);
        let mine = mine.into_iter().next();
        let state = mine.as_ref().map(|saved| saved.annotation.state);
        let is_complete = state == Some(AnnotationState::Complete);
        let shown = sees_model(node, state);
        let record = if shown { record(node, &job)? } else { None };
        let results = node.spool.path(&Spool::results_name(&job.id));
        let evidence = Evidence::ALL.into_iter().filter(|e| shown && results.join(e.file_name()).is_file());
        let summary = if shown { summary(node, &job)? } else { None };
        let mut answer = describe(&film, &job, summary.as_ref());
        answer["evidence"] = json!(evidence.map(Evidence::name).collect::<Vec<_>>());
        answer["is_model_hidden"] = (!shown && job.state == JobState::Done).into();
        answer["record"] = json!(record);
        answer["version"] = mine.as_ref().map_or(0, |saved| saved.version).into();
        answer["reading"] = json!(mine.map(|saved| saved.annotation));
        let finished = others.iter().filter(|saved| saved.annotation.state == AnnotationState::Complete);
        let others: Vec<Value> = finished
            .filter(|_| is_complete)
            .map(|saved| json!({ "reader": saved.reader, "reading": saved.annotation }))
            .collect();
        answer["others"] = others.into();
        node.note(&Act { action: "film.opened", actor: &actor, object: &id, outcome: "ok" })?;
        Ok(Json(answer))
    })
    .await
}

/// Grey values as 16-bit little endian, row-major; the window in headers.
pub(super) async fn pixels(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    app.blocking(move |node| {
        find(node, &id)?;
        let options = ReadOptions { policy: Policy::Standard, limits: node.limits, ..ReadOptions::default() };
        let path = node.spool.path(&Spool::film_name(&id));
        let shown = read_viewer_pixels(&path, &options).map_err(|error| {
            node.warn(&format!("showing film {id}: {error}"));
            // Where the file lies here is no business of the page.
            let detail = error.to_string().replace(&path.display().to_string(), "the film");
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unreadable", detail)
        })?;
        let bytes: Vec<u8> = shown.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let header = |name, value: String| (HeaderName::from_static(name), value);
        let headers = [
            header("content-type", "application/octet-stream".to_owned()),
            header("x-film-width", shown.width_px.to_string()),
            header("x-film-height", shown.height_px.to_string()),
            header("x-film-low", shown.low.to_string()),
            header("x-film-high", shown.high.to_string()),
            header("x-film-inverted", shown.inverted.to_string()),
        ];
        Ok((headers, bytes))
    })
    .await
}

pub(super) async fn evidence(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    Path((id, of)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    app.blocking(move |node| {
        let reader = reader(node, &actor, &headers)?;
        let (_, job) = find(node, &id)?;
        let state = node.store.annotation(&id, &reader)?.map(|saved| saved.annotation.state);
        let none = || Problem::not_found("picture of evidence");
        let evidence = Evidence::from_name(&of).ok_or_else(none)?;
        if !sees_model(node, state) {
            return Err(none());
        }
        let bytes = result_file(node, &job, evidence.file_name())?.ok_or_else(none)?;
        Ok(([(CONTENT_TYPE, "image/png")], bytes))
    })
    .await
}

/// The version that an `If-Match` header names; 0 for a reading that is not there yet.
fn version(headers: &HeaderMap) -> Result<u64, Problem> {
    let text = headers.get(IF_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.trim_matches('"').parse().map_err(|_| {
        let detail = "expected If-Match: \"VERSION\", the version that the reading was made from";
        Problem::new(StatusCode::PRECONDITION_REQUIRED, "version", detail)
    })
}

pub(super) async fn save(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    app.blocking(move |node| {
        let reader = reader(node, &actor, &headers)?;
        let over = version(&headers)?;
        let body = body.map_err(|error| Problem::new(error.status(), "body", error.body_text()))?;
        let annotation: Annotation =
            serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
        let (_, job) = find(node, &id)?;
        let unreadable =
            || Problem::new(StatusCode::CONFLICT, "not-read", "the film has not been read by the model yet");
        let film = record(node, &job)?.ok_or_else(unreadable)?;
        annotation
            .check(&node.config.reading.labels, film.width_px, film.height_px)
            .map_err(|detail| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "reading", detail))?;
        let Some(version) = node.store.save_annotation(&id, &reader, over, &annotation)? else {
            let detail = "this reading was changed in another window; open the film again";
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "changed", detail));
        };
        let outcome = format!("version {version}, {}", annotation.state.name());
        node.note(&Act { action: "reading.saved", actor: &actor, object: &id, outcome: &outcome })?;
        Ok(Json(json!({ "version": version })))
    })
    .await
}

/// How a corrected report is taken over.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Corrections {
    #[serde(default)]
    replace: bool,
}

/// A structured report that was corrected in another viewer becomes the reader's own readings of its films.
pub(super) async fn correct(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    corrections: Result<Query<Corrections>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<impl IntoResponse, Problem> {
    let replace = query(corrections)?.replace;
    app.blocking(move |node| {
        let reader = reader(node, &actor, &headers)?;
        let body = body.map_err(|error| Problem::new(error.status(), "body", error.body_text()))?;
        let name = std::path::Path::new("the report");
        let report = read_report_from(name, body.to_vec(), &node.limits)
            .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "report", error.to_string()))?;
        let labels = &node.config.reading.labels[..];
        let correction = Correction { reader: &reader, labels: Some(labels), replace };
        let spool_dir = node.config.spool_dir();
        let (mut taken, mut refused) = (vec![], vec![]);
        for film in &report.films {
            match correction::take(&node.store, &spool_dir, film, &correction) {
                Ok(corrected) => {
                    let outcome = format!("version {}, from a report", corrected.version);
                    let object = &corrected.film;
                    node.note(&Act { action: "reading.saved", actor: &actor, object, outcome: &outcome })?;
                    taken.push(corrected);
                }
                Err(CorrectionError::Failed(error)) => return Err(error.into()),
                Err(error) => refused.push(error),
            }
        }
        let status = match (&taken[..], &refused[..]) {
            (_, []) => StatusCode::OK,
            ([], [CorrectionError::UnknownFilm { .. }]) => StatusCode::NOT_FOUND,
            ([], [CorrectionError::ReadAlready { .. } | CorrectionError::Changed { .. }]) => {
                StatusCode::CONFLICT
            }
            ([], [_]) => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::MULTI_STATUS,
        };
        if let ([], [error]) = (&taken[..], &refused[..]) {
            return Err(Problem::new(status, "reading", error.to_string()));
        }
        let refused: Vec<String> = refused.iter().map(ToString::to_string).collect();
        Ok((status, Json(json!({ "films": taken, "refused": refused }))))
    })
    .await
}

/// How to compare readers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Comparison {
    iou: Option<f64>,
}

/// Agreement of every two readers on the films that both have completed.
pub(super) async fn agreements(
    State(app): State<App>,
    comparison: Result<Query<Comparison>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let iou = query(comparison)?.iou.unwrap_or(IOU);
    if !(iou > 0.0 && iou <= 1.0) {
        return Err(Problem::bad_request(format!("iou: expected above 0 to 1, got {iou}")));
    }
    app.blocking(move |node| {
        let saved = node.store.annotations(None)?;
        Ok(Json(json!({ "pairs": compare(&saved, iou) })))
    })
    .await
}
