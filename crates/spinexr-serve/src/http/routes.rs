//! The table of routes: method, path, who may use it, and what answers. The router is made from it, and a test holds the
//! OpenAPI document to it.

use super::access::{Access, Actor, authorize};
use super::problem::Problem;
use super::{App, Peer, dicomweb, films, jobs, openapi, reading, state, web};
use crate::audit::Act;
use crate::config::Role;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Response, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post, put};
use axum::{Extension, Router};
use std::time::Instant;

const READ: Access = Access::Any(&[Role::Read]);
const SUBMIT: Access = Access::Any(&[Role::Submit]);
const READ_OR_SUBMIT: Access = Access::Any(&[Role::Read, Role::Submit]);
const ANNOTATE: Access = Access::Any(&[Role::Annotate]);
const ADMIN: Access = Access::Any(&[]);

/// Longest reading that is taken; a thousand boxes are a fifth of it.
const MAX_READING_BYTES: usize = 1 << 20;
/// Longest structured report that is taken.
const MAX_REPORT_BYTES: usize = 8 << 20;

/// One entry of the table.
pub(super) struct Route {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the test that holds the OpenAPI document to the table")
    )]
    pub method: &'static str,
    pub path: &'static str,
    access: Access,
    handler: MethodRouter<App>,
}

/// All of it.
pub(super) fn table() -> Vec<Route> {
    let mut table = vec![];
    let mut on_get = |path, access, handler| table.push(Route { method: "get", path, access, handler });
    on_get("/", Access::Public, get(openapi::page));
    on_get("/openapi.json", Access::Public, get(openapi::document));
    on_get("/healthz", Access::Public, get(state::health));
    on_get("/readyz", Access::Public, get(state::ready));
    on_get("/metrics", READ, get(state::metrics));
    on_get("/api/v1/models", READ_OR_SUBMIT, get(state::models));
    on_get("/api/v1/jobs", READ, get(jobs::list));
    on_get("/api/v1/jobs/{job}", READ_OR_SUBMIT, get(jobs::show));
    on_get("/api/v1/jobs/{job}/record", READ, get(jobs::record));
    on_get("/api/v1/jobs/{job}/overlay", READ, get(jobs::overlay));
    on_get("/api/v1/jobs/{job}/objects/{kind}", READ, get(jobs::object));
    on_get("/api/v1/deliveries", ADMIN, get(jobs::deliveries));
    on_get("/reader", Access::Public, get(web::to_page));
    on_get("/reader/", Access::Public, get(web::page));
    on_get("/reader/{file}", Access::Public, get(web::file));
    on_get("/api/v1/reading/films", ANNOTATE, get(reading::films));
    on_get("/api/v1/reading/films/{film}", ANNOTATE, get(reading::film));
    on_get("/api/v1/reading/films/{film}/pixels", ANNOTATE, get(reading::pixels));
    on_get("/api/v1/reading/films/{film}/evidence/{of}", ANNOTATE, get(reading::evidence));
    on_get("/api/v1/reading/agreement", ADMIN, get(reading::agreements));
    on_get("/dicom-web/studies", READ, get(dicomweb::find_studies));
    on_get("/dicom-web/series", READ, get(dicomweb::find_series));
    on_get("/dicom-web/instances", READ, get(dicomweb::find_instances));
    on_get("/dicom-web/studies/{study}", READ, get(dicomweb::retrieve));
    on_get("/dicom-web/studies/{study}/metadata", READ, get(dicomweb::metadata));
    on_get("/dicom-web/studies/{study}/series", READ, get(dicomweb::find_series));
    on_get("/dicom-web/studies/{study}/instances", READ, get(dicomweb::find_instances));
    on_get("/dicom-web/studies/{study}/series/{series}", READ, get(dicomweb::retrieve));
    on_get("/dicom-web/studies/{study}/series/{series}/metadata", READ, get(dicomweb::metadata));
    on_get("/dicom-web/studies/{study}/series/{series}/instances", READ, get(dicomweb::find_instances));
    let instance = "/dicom-web/studies/{study}/series/{series}/instances/{instance}";
    on_get(instance, READ, get(dicomweb::retrieve));
    let metadata = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/metadata";
    on_get(metadata, READ, get(dicomweb::metadata));
    let rendered = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered";
    on_get(rendered, READ, get(dicomweb::rendered));
    let frame = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frame}/rendered";
    on_get(frame, READ, get(dicomweb::rendered));

    let mut on_post = |path, access, handler| table.push(Route { method: "post", path, access, handler });
    on_post("/api/v1/films", SUBMIT, post(films::submit));
    on_post("/api/v1/jobs/{job}/retry", ADMIN, post(jobs::retry));
    on_post("/api/v1/deliveries/{delivery}/retry", ADMIN, post(jobs::retry_delivery));
    on_post("/dicom-web/studies", SUBMIT, post(dicomweb::store));
    on_post("/dicom-web/studies/{study}", SUBMIT, post(dicomweb::store));
    let handler = post(reading::correct).layer(DefaultBodyLimit::max(MAX_REPORT_BYTES));
    table.push(Route { method: "post", path: "/api/v1/reading/reports", access: ANNOTATE, handler });
    let reading = "/api/v1/reading/films/{film}/reading";
    let handler = put(reading::save).layer(DefaultBodyLimit::max(MAX_READING_BYTES));
    table.push(Route { method: "put", path: reading, access: ANNOTATE, handler });
    table
}

/// The router: every route behind its own access, whatever it does.
pub(super) fn router(app: &App) -> Router {
    let mut router = Router::new();
    for Route { path, access, handler, .. } in table() {
        let guard = from_fn_with_state((app.clone(), access), guard);
        router = router.route(path, handler.route_layer(guard));
    }
    router
        .fallback(|| async { Problem::not_found("page") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "the page does not take this method",
            )
        })
        .layer(from_fn_with_state(app.clone(), finish))
        .layer(from_fn(refuse_doubtful))
        .with_state(app.clone())
}

async fn guard(
    State((app, access)): State<(App, Access)>,
    Extension(Peer(peer)): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let actor = authorize(&app.node.config, access, request.headers(), peer.ip());
    // A client without a good token is counted by its address.
    let client = actor.as_ref().map_or_else(|_| format!("address:{}", peer.ip()), |actor| actor.0.clone());
    if let Err(seconds) = app.rates.count(&client, app.node.config.http.requests_per_minute, Instant::now()) {
        let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate", "too many requests");
        problem.retry_after_s = Some(seconds);
        return problem.into_response();
    }
    match actor {
        Ok(actor) => {
            request.extensions_mut().insert::<Actor>(actor);
            next.run(request).await
        }
        Err(problem) => {
            let refused = app.blocking(move |node| {
                let act = Act {
                    action: "request.refused",
                    actor: &client,
                    object: "request",
                    outcome: problem.kind,
                };
                node.note_stranger(&act)?;
                Ok(problem)
            });
            refused.await.unwrap_or_else(|problem| problem).into_response()
        }
    }
}

/// What every answer gets.
async fn finish(State(app): State<App>, request: Request, next: Next) -> Response<Body> {
    let mut response = next.run(request).await;
    app.node.metrics.request(response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Answers are about patients: no cache keeps them.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Paths that have no business here: none of ours needs an escape.
async fn refuse_doubtful(request: Request, next: Next) -> Response<Body> {
    if request.uri().path().contains(['%', '\\']) || request.uri().path().contains("..") {
        return Problem::bad_request("the path has characters that no page of this service has")
            .into_response();
    }
    next.run(request).await
}
