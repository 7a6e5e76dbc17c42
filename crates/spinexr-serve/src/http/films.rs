//! Films handed in over HTTP.

use super::access::Actor;
use super::body::{discard, media_type, parts, pieces, to_spool};
use super::problem::Problem;
use super::{App, jobs};
use crate::ingest::{self, Expected, Taken, check_room};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{HeaderMap, LOCATION};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// Most films in one request.
pub(super) const MAX_PARTS: usize = 500;

/// `POST /api/v1/films`: one film as the body, or several as parts.
pub(super) async fn submit(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let pieces = pieces(&app, &headers, body)?;
    if let Err(problem) = room(&app).await {
        discard(&headers, pieces).await;
        return Err(problem);
    }
    match media_type(&headers).as_str() {
        "application/dicom" | "application/octet-stream" => {
            let file = to_spool(&app, pieces).await?;
            let taken = take(&app, file, Expected::default(), &actor).await?;
            let (status, answer) = answer(&taken);
            let location = format!("/api/v1/jobs/{}", taken.accepted.job().id);
            Ok((status, [(LOCATION, location)], axum::Json(answer)).into_response())
        }
        "multipart/form-data" | "multipart/related" => {
            let mut parts = parts(&headers, pieces)?;
            let mut answers: Vec<Value> = vec![];
            let mut all_taken = true;
            while parts.next().await?.is_some() {
                if answers.len() == MAX_PARTS {
                    return Err(Problem::bad_request(format!("more than {MAX_PARTS} films in one request")));
                }
                let file = to_spool(&app, Box::pin(parts.data())).await?;
                answers.push(match take(&app, file, Expected::default(), &actor).await {
                    Ok(taken) => answer(&taken).1,
                    Err(problem) => {
                        all_taken = false;
                        json!({ "problem": problem.body() })
                    }
                });
            }
            if answers.is_empty() {
                return Err(Problem::bad_request("the multipart body has no parts"));
            }
            let status = if all_taken { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
            Ok((status, axum::Json(json!({ "films": answers }))).into_response())
        }
        other => {
            let detail = format!("expected application/dicom or multipart/form-data, got {other:?}");
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail))
        }
    }
}

/// Whether anything can be taken now.
pub(super) async fn room(app: &App) -> Result<(), Problem> {
    app.blocking(|node| check_room(node).map_err(|refused| Problem::from(&refused))).await
}

/// Takes a received film in, with its refusal as a problem.
pub(super) async fn take(
    app: &App,
    file: NamedTempFile,
    expected: Expected,
    actor: &str,
) -> Result<Taken, Problem> {
    let actor = actor.to_owned();
    app.blocking(move |node| {
        ingest::take(node, file, &expected, &actor).map_err(|refused| {
            if let ingest::Refused::Failed(error) = &refused {
                node.warn(&format!("taking a film: {error}"));
            }
            Problem::from(&refused)
        })
    })
    .await
}

/// 202 for a new job, 200 for one that this content has already.
fn answer(taken: &Taken) -> (StatusCode, Value) {
    match &taken.accepted {
        crate::store::Accepted::New(job) => (StatusCode::ACCEPTED, jobs::describe(job, &[], &[])),
        crate::store::Accepted::Known(job) => (StatusCode::OK, jobs::describe(job, &[], &[])),
    }
}
