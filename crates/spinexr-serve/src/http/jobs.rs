//! Jobs, their results and their deliveries.

use super::App;
use super::access::Actor;
use super::problem::Problem;
use crate::audit::Act;
use crate::clock::rfc3339;
use crate::config::ResultKind;
use crate::node::Node;
use crate::spool::Spool;
use crate::store::{Delivery, DeliveryState, InstanceRow, Job, JobState};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// Most entries of a list.
const MAX_LIMIT: u32 = 1000;

/// Which part of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    state: Option<String>,
    limit: Option<u32>,
    offset: Option<u32>,
}

impl Page {
    fn bounds(&self) -> (u32, u32) {
        (self.limit.unwrap_or(100).min(MAX_LIMIT), self.offset.unwrap_or(0))
    }

    fn state<T>(&self, from_name: fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        let read =
            |name: &String| from_name(name).ok_or_else(|| Problem::bad_request("there is no such state"));
        self.state.as_ref().map(read).transpose()
    }
}

/// A query, or what is wrong with it.
pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query.map(|Query(q)| q).map_err(|error| Problem::bad_request(error.body_text()))
}

/// A job for programs.
pub(super) fn describe(job: &Job, results: &[InstanceRow], deliveries: &[Delivery]) -> Value {
    let own = format!("/api/v1/jobs/{}", job.id);
    let mut links = json!({ "self": own });
    if job.state == JobState::Done {
        links["record"] = format!("{own}/record").into();
        links["overlay"] = format!("{own}/overlay").into();
        for result in results {
            links[result.kind.name()] = format!("{own}/objects/{}", result.kind.name()).into();
        }
    }
    json!({
        "id": job.id,
        "state": job.state,
        "film": job.film,
        "model": job.model,
        "attempts": job.attempts,
        "interruptions": job.interruptions,
        "received": rfc3339(job.received_ms),
        "finished": job.finished_ms.map(rfc3339),
        "error": job.error,
        "deliveries": deliveries.iter().map(describe_delivery).collect::<Vec<_>>(),
        "links": links,
    })
}

fn describe_delivery(delivery: &Delivery) -> Value {
    json!({
        "id": delivery.id,
        "job": delivery.job,
        "object": delivery.instance,
        "destination": delivery.destination,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "created": rfc3339(delivery.created_ms),
        "finished": delivery.finished_ms.map(rfc3339),
        "error": delivery.error,
    })
}

/// The job of that id.
fn find(node: &Node, id: &str) -> Result<Job, Problem> {
    node.store.job(id)?.ok_or_else(|| Problem::not_found("job"))
}

pub(super) async fn list(
    State(app): State<App>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let page = query(page)?;
    let state = page.state(JobState::from_name)?;
    let (limit, offset) = page.bounds();
    app.blocking(move |node| {
        let jobs = node.store.jobs(state, limit, offset)?;
        let jobs: Vec<Value> = jobs.iter().map(|job| describe(job, &[], &[])).collect();
        Ok(Json(json!({ "jobs": jobs })))
    })
    .await
}

/// Whether to wait for the job's end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patience {
    wait: Option<f64>,
}

/// Longest wait for a job's end, s: below the time that proxies give an answer.
const MAX_WAIT_S: f64 = 50.0;
/// How often a waiting request looks by itself: another node's jobs ring no bell here.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
    patience: Result<Query<Patience>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let wait = query(patience)?.wait.unwrap_or(0.0);
    if !(0.0..=MAX_WAIT_S).contains(&wait) {
        return Err(Problem::bad_request(format!("wait: expected 0 to {MAX_WAIT_S} seconds, got {wait}")));
    }
    let end = Instant::now() + Duration::from_secs_f64(wait);
    loop {
        // From here on a bell is heard, so that a job that ends while it is looked at is not missed.
        let bell = app.node.ended.notified();
        tokio::pin!(bell);
        bell.as_mut().enable();
        let id = id.clone();
        let left = end.saturating_duration_since(Instant::now());
        let answer = app
            .blocking(move |node| {
                let job = find(node, &id)?;
                let is_over = matches!(job.state, JobState::Done | JobState::Failed);
                // The bell rings for every job and wakes all who wait: what they do not answer is not looked up.
                if !is_over && !left.is_zero() && !node.is_stopping() {
                    return Ok(None);
                }
                Ok(Some(describe(&job, &node.store.results_of(&id)?, &node.store.deliveries_of(&id)?)))
            })
            .await?;
        if let Some(answer) = answer {
            return Ok(Json(answer));
        }
        // Whatever ended the wait, the job is looked at again.
        let _ = tokio::time::timeout(left.min(LOOK), bell).await;
    }
}

/// A file of a job's results; `None` where there is none of that name.
pub(super) fn result_file(node: &Node, job: &Job, name: &str) -> Result<Option<Vec<u8>>, Problem> {
    let path = node.spool.path(&Spool::results_name(&job.id)).join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            node.warn(&format!("{}: {error}", path.display()));
            Err(Problem::internal())
        }
    }
}

/// A file of a finished job's results, with a line in the audit log.
async fn result(app: &App, actor: String, id: String, name: String) -> Result<Vec<u8>, Problem> {
    app.blocking(move |node| {
        let job = find(node, &id)?;
        if job.state != JobState::Done {
            let detail = format!("the job is {}", job.state.name());
            return Err(Problem::new(StatusCode::CONFLICT, "not-done", detail));
        }
        let bytes = result_file(node, &job, &name)?.ok_or_else(|| Problem::not_found("result"))?;
        node.note(&Act { action: "result.read", actor: &actor, object: &job.id, outcome: &name })?;
        Ok(bytes)
    })
    .await
}

pub(super) async fn record(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let bytes = result(&app, actor, id, "record.json".into()).await?;
    Ok(([(CONTENT_TYPE, "application/json")], bytes))
}

pub(super) async fn overlay(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let bytes = result(&app, actor, id, "overlay.png".into()).await?;
    Ok(([(CONTENT_TYPE, "image/png")], bytes))
}

pub(super) async fn object(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    Path((id, kind)): Path<(String, String)>,
) -> Result<impl IntoResponse, Problem> {
    let kind = ResultKind::from_name(&kind).ok_or_else(|| Problem::not_found("form of a result"))?;
    let bytes = result(&app, actor, id, format!("{}.dcm", kind.name())).await?;
    Ok(([(CONTENT_TYPE, "application/dicom")], bytes))
}

pub(super) async fn retry(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    app.blocking(move |node| {
        find(node, &id)?;
        if !node.store.retry_job(&id)? {
            return Err(Problem::new(StatusCode::CONFLICT, "not-failed", "the job has not failed"));
        }
        node.note(&Act { action: "job.retried", actor: &actor, object: &id, outcome: "ok" })?;
        node.films.wake();
        Ok((StatusCode::ACCEPTED, Json(describe(&find(node, &id)?, &[], &[]))))
    })
    .await
}

pub(super) async fn deliveries(
    State(app): State<App>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let page = query(page)?;
    let state = page.state(DeliveryState::from_name)?;
    let (limit, offset) = page.bounds();
    app.blocking(move |node| {
        let deliveries = node.store.deliveries(state, limit, offset)?;
        let deliveries: Vec<Value> = deliveries.iter().map(describe_delivery).collect();
        Ok(Json(json!({ "deliveries": deliveries })))
    })
    .await
}

pub(super) async fn retry_delivery(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let number: i64 = id.parse().map_err(|_| Problem::not_found("delivery"))?;
    app.blocking(move |node| {
        if !node.store.retry_delivery(number)? {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "not-failed",
                "no failed delivery has this number",
            ));
        }
        node.note(&Act { action: "delivery.retried", actor: &actor, object: &id, outcome: "ok" })?;
        node.results.wake();
        Ok(StatusCode::ACCEPTED)
    })
    .await
}
