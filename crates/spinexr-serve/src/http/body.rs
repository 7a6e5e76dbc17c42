//! Bodies as they come in: bounded in size, in time and in pauses, and written to the spool piece by piece.

use super::App;
use super::multipart::Parts;
use super::problem::Problem;
use crate::error::ServeError;
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use futures_util::stream::{BoxStream, StreamExt, unfold};
use std::io::Write;
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Pieces that may wait for the disk.
const PIECES: usize = 4;

/// What a client sends wrongly, or too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than the limit of {0} bytes")]
    TooLarge(u64),
    #[error("the body comes too slowly")]
    TooSlow,
    #[error("the body broke off")]
    Broken,
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let (status, kind) = match error {
            BodyError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            BodyError::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too-slow"),
            BodyError::Broken => (StatusCode::BAD_REQUEST, "broken-body"),
        };
        Self::new(status, kind, error.to_string())
    }
}

pub(crate) type Pieces = BoxStream<'static, Result<Bytes, BodyError>>;

/// The pieces of a body, within the limits of the configuration.
///
/// # Errors
/// A body that says itself that it is too large, or is compressed.
pub(crate) fn pieces(app: &App, headers: &HeaderMap, body: Body) -> Result<Pieces, Problem> {
    let http = &app.node.config.http;
    let limit = http.max_body_bytes;
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(BodyError::TooLarge(limit).into());
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let detail = "the body is compressed; send it as it is";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-encoding", detail));
    }
    let ends = Instant::now() + Duration::from_secs(http.body_timeout_s);
    let idle = Duration::from_secs(http.idle_timeout_s);
    let begin = (body.into_data_stream(), 0, false);
    Ok(unfold(begin, move |(mut stream, seen, over)| async move {
        if over {
            return None;
        }
        let next = match timeout_at(ends.min(Instant::now() + idle), stream.next()).await {
            Err(_) => Err(BodyError::TooSlow),
            Ok(None) => return None,
            Ok(Some(Err(_))) => Err(BodyError::Broken),
            Ok(Some(Ok(piece))) if seen + piece.len() as u64 > limit => Err(BodyError::TooLarge(limit)),
            Ok(Some(Ok(piece))) => Ok(piece),
        };
        let seen = seen + next.as_ref().map_or(0, |piece| piece.len() as u64);
        let over = next.is_err();
        Some((next, (stream, seen, over)))
    })
    .boxed())
}

/// Reads a body that is not wanted to its end, within the limits of all bodies, before its sender is told so: one that is
/// still writing when the connection closes never sees the answer. A sender that asks first (RFC 9110 10.1.1) has not
/// begun to write.
pub(crate) async fn discard(headers: &HeaderMap, mut pieces: Pieces) {
    let asks_first =
        headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !asks_first {
        while let Some(Ok(_)) = pieces.next().await {}
    }
}

/// Writes pieces to a file of the spool; gone when dropped.
pub(crate) async fn to_spool<E: Into<Problem>>(
    app: &App,
    mut pieces: impl futures_util::Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<NamedTempFile, Problem> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES);
    let node = app.node.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let mut file = node.spool.incoming()?;
        while let Some(piece) = receiver.blocking_recv() {
            file.write_all(&piece).map_err(ServeError::io(file.path()))?;
        }
        Ok::<_, ServeError>(file)
    });
    let mut failed = None;
    while let Some(piece) = pieces.next().await {
        match piece {
            // The writer has failed and says below how.
            Ok(piece) => {
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                failed = Some(error.into());
                break;
            }
        }
    }
    drop(sender);
    let written = writer.await;
    if let Some(problem) = failed {
        return Err(problem);
    }
    match written {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(app.internal(&error)),
        Err(_) => Err(Problem::internal()),
    }
}

/// The parts of a multipart body of any kind.
///
/// # Errors
/// A content type without a boundary.
pub(crate) fn parts(headers: &HeaderMap, pieces: Pieces) -> Result<Parts, Problem> {
    let boundary = parameter(headers, "boundary").filter(|b| !b.is_empty() && b.len() <= 70);
    let boundary =
        boundary.ok_or_else(|| Problem::bad_request("multipart without a boundary of 1 to 70 characters"))?;
    Ok(Parts::new(pieces, &boundary))
}

/// The media type of a request, in lower case, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A parameter of the media type.
pub(crate) fn parameter(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    text.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}
