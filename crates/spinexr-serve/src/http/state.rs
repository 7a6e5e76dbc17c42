//! How the service is: health, readiness, metrics, models.

use super::App;
use super::problem::Problem;
use crate::ingest::check_room;
use crate::metrics::exposition;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::{Value, json};

/// The process answers.
pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The store answers and films would be taken.
pub(super) async fn ready(State(app): State<App>) -> Result<Json<Value>, Problem> {
    let not_ready = |detail: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", detail);
    if app.node.is_stopping() {
        return Err(not_ready("the service is stopping".into()));
    }
    app.blocking(move |node| check_room(node).map_err(|refused| Problem::from(&refused))).await?;
    Ok(Json(json!({ "status": "ready" })))
}

pub(super) async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let text = app.blocking(|node| Ok(exposition(node)?)).await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

pub(super) async fn models(State(app): State<App>) -> Json<Value> {
    let model = &app.node.model;
    Json(json!({
        "hash": model.hash,
        "demonstration": model.demonstration,
        "models": model.description,
        "version": app.node.program.version,
        "notice": "Research use only; not a medical device.",
    }))
}
