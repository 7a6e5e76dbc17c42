//! STOW-RS (PS3.18 10.5).

use super::super::App;
use super::super::access::Actor;
use super::super::body::{discard, media_type, parameter, parts, pieces, to_spool};
use super::super::films::{MAX_PARTS, room};
use super::super::problem::Problem;
use super::{retrieve_url, uid};
use crate::ingest::{self, Expected, Refused};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

/// `POST /dicom-web/studies` and `/dicom-web/studies/{study}`.
pub(crate) async fn store(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    study: Option<Path<String>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let study = study.map(|Path(text)| uid(text)).transpose()?;
    let of_dicom = parameter(&headers, "type").is_none_or(|t| t.eq_ignore_ascii_case("application/dicom"));
    if media_type(&headers) != "multipart/related" || !of_dicom {
        let detail = "expected multipart/related; type=\"application/dicom\"";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail));
    }
    let pieces = pieces(&app, &headers, body)?;
    if let Err(problem) = room(&app).await {
        discard(&headers, pieces).await;
        return Err(problem);
    }
    let mut parts = parts(&headers, pieces)?;
    let (mut stored, mut failed, mut full) = (vec![], vec![], 0);
    while let Some(part) = parts.next().await? {
        if stored.len() + failed.len() == MAX_PARTS {
            return Err(Problem::bad_request(format!("more than {MAX_PARTS} objects in one request")));
        }
        if !matches!(part.as_str(), "" | "application/dicom") {
            failed.push(failure(0xC000, &format!("a part of type {part}")));
            continue;
        }
        let file = to_spool(&app, Box::pin(parts.data())).await?;
        let expected = Expected { study_uid: study.clone(), sop: None };
        let actor = actor.clone();
        let taken = app.blocking(move |node| Ok(ingest::take(node, file, &expected, &actor))).await?;
        match taken {
            Ok(taken) => {
                let i = &taken.row.instance;
                let url = retrieve_url(&i.study_uid, Some(&i.series_uid), Some(&i.sop_instance_uid));
                stored.push(json!({
                    "00081150": { "vr": "UI", "Value": [i.sop_class_uid] },
                    "00081155": { "vr": "UI", "Value": [i.sop_instance_uid] },
                    "00081190": { "vr": "UR", "Value": [url] },
                }));
            }
            Err(refused) => {
                full += usize::from(matches!(refused, Refused::Full(_)));
                failed.push(failure(reason(&app, &refused), &refused.to_string()));
            }
        }
    }
    if stored.is_empty() && failed.is_empty() {
        return Err(Problem::bad_request("the multipart body has no parts"));
    }
    if stored.is_empty() && full == failed.len() {
        return Err(Problem::from(&Refused::Full("too many films are waiting")));
    }
    let status = match (stored.is_empty(), failed.is_empty()) {
        (false, true) => StatusCode::OK,
        (false, false) => StatusCode::ACCEPTED,
        (true, _) => StatusCode::CONFLICT,
    };
    let mut answer = Map::new();
    for (tag, items) in [("00081199", stored), ("00081198", failed)] {
        if !items.is_empty() {
            answer.insert(tag.into(), json!({ "vr": "SQ", "Value": items }));
        }
    }
    Ok((status, [(CONTENT_TYPE, "application/dicom+json")], Value::Object(answer).to_string())
        .into_response())
}

/// Failure Reason (0008,1197), PS3.18 table I.2-2, after PS3.4.
fn reason(app: &App, refused: &Refused) -> u16 {
    match refused {
        Refused::NotDicom(_) => 0xC000,
        Refused::NotAFilm(_) => 0xA900,
        Refused::TooLarge { .. } | Refused::Full(_) => 0xA700,
        Refused::Failed(error) => {
            app.node.warn(&format!("taking a film: {error}"));
            0x0110
        }
    }
}

/// An item of Failed SOP Sequence, with Error Comment (0000,0902) for a person.
fn failure(reason: u16, comment: &str) -> Value {
    json!({
        "00081197": { "vr": "US", "Value": [reason] },
        "00000902": { "vr": "LO", "Value": [comment.chars().take(64).collect::<String>()] },
    })
}
