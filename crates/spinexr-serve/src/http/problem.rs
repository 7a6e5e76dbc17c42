//! Errors as problem details (RFC 9457).

use crate::error::ServeError;
use crate::ingest::Refused;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::json;

/// Seconds after which a sender may try again when the service is full.
const RETRY_AFTER_S: u32 = 30;

/// What went wrong, for a program and for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub status: StatusCode,
    /// Last part of the problem's type: one word that does not change.
    pub kind: &'static str,
    pub detail: String,
    /// Seconds after which it may be over.
    pub retry_after_s: Option<u32>,
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after_s: None }
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("there is no such {what}"))
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// The service's own failure. What it was stands in the operator's log, not here.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the service failed; its log says how")
    }

    pub fn body(&self) -> serde_json::Value {
        json!({
            "type": format!("urn:spinexr:problem:{}", self.kind),
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        })
    }
}

impl From<ServeError> for Problem {
    fn from(_: ServeError) -> Self {
        Self::internal()
    }
}

impl From<&Refused> for Problem {
    fn from(refused: &Refused) -> Self {
        let (status, kind) = match refused {
            Refused::NotDicom(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-dicom"),
            Refused::NotAFilm(_) => (StatusCode::UNPROCESSABLE_ENTITY, "not-a-film"),
            Refused::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Refused::Full(_) => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            Refused::Failed(_) => return Self::internal(),
        };
        let retry_after_s = matches!(refused, Refused::Full(_)).then_some(RETRY_AFTER_S);
        Self { status, kind, detail: refused.to_string(), retry_after_s }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
