//! QIDO-RS (PS3.18 10.6): studies, series and instances, with the attributes of table 10.6.3-3 to -5.

use super::super::App;
use super::super::access::Actor;
use super::super::problem::Problem;
use super::{retrieve_url, uid};
use crate::audit::Act;
use crate::node::Node;
use crate::store::{InstanceRow, Level, Query};
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{self, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Most answers to one query.
const MAX_LIMIT: u32 = 1000;

/// Attributes given of a study, where it has them.
const OF_STUDY: [&str; 11] = [
    "00080005", "00080020", "00080030", "00080050", "00080090", "00081030", "00100010", "00100020",
    "00100030", "00100040", "00200010",
];
/// Those of a series, beside the study's UID.
const OF_SERIES: [&str; 6] = ["00080005", "00080060", "0008103E", "00180015", "00200011", "00201041"];
/// Those of an instance, beside study's and series' UIDs.
const OF_INSTANCE: [&str; 10] = [
    "00080005", "00080016", "00080018", "00080060", "00200013", "00280008", "00280010", "00280011",
    "00280100", "00185101",
];

type Parameters = Result<extract::Query<Vec<(String, String)>>, QueryRejection>;
type Places = Path<HashMap<String, String>>;

pub(crate) async fn find_studies(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    places: Places,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    find(app, actor, Level::Study, places, parameters).await
}

pub(crate) async fn find_series(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    places: Places,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    find(app, actor, Level::Series, places, parameters).await
}

pub(crate) async fn find_instances(
    State(app): State<App>,
    Extension(Actor(actor)): Extension<Actor>,
    places: Places,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    find(app, actor, Level::Instance, places, parameters).await
}

async fn find(
    app: App,
    actor: String,
    level: Level,
    Path(mut places): Places,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    let extract::Query(parameters) = parameters.map_err(|e| Problem::bad_request(e.body_text()))?;
    let (mut query, whole) = read(&parameters)?;
    if let Some(study) = places.remove("study") {
        query.study_uid = Some(uid(study)?);
    }
    if let Some(series) = places.remove("series") {
        query.series_uid = Some(uid(series)?);
    }
    let answers = app
        .blocking(move |node| {
            let rows = node.store.find_instances(level, &query)?;
            let answers =
                rows.iter().map(|row| describe(node, level, row, whole)).collect::<Result<Vec<_>, _>>()?;
            // What was looked for may name a patient; that a search was made, and how much it found, does not.
            let outcome = format!("{} found", answers.len());
            node.note(&Act {
                action: "instances.searched",
                actor: &actor,
                object: "instances",
                outcome: &outcome,
            })?;
            Ok(answers)
        })
        .await?;
    Ok(([(CONTENT_TYPE, "application/dicom+json")], Value::Array(answers).to_string()))
}

/// The query, and whether all attributes are asked for.
fn read(parameters: &[(String, String)]) -> Result<(Query, bool), Problem> {
    let mut query = Query { limit: 100, ..Query::default() };
    let mut whole = false;
    for (name, value) in parameters {
        let value = value.trim();
        let number =
            || value.parse::<u32>().map_err(|_| Problem::bad_request(format!("{name}: expected a number")));
        match name.as_str() {
            "limit" => query.limit = number()?.min(MAX_LIMIT),
            "offset" => query.offset = number()?,
            "includefield" => whole |= value.eq_ignore_ascii_case("all"),
            "fuzzymatching" => {}
            _ if value.is_empty() => {}
            "StudyInstanceUID" | "0020000D" => query.study_uid = Some(uid(value.into())?),
            "SeriesInstanceUID" | "0020000E" => query.series_uid = Some(uid(value.into())?),
            "SOPInstanceUID" | "00080018" => query.sop_instance_uid = Some(uid(value.into())?),
            "SOPClassUID" | "00080016" => query.sop_class_uid = Some(uid(value.into())?),
            "Modality" | "00080060" | "ModalitiesInStudy" | "00080061" => query.modality = Some(value.into()),
            "PatientID" | "00100020" => query.patient_id = Some(value.into()),
            "PatientName" | "00100010" => query.patient_name = Some(value.into()),
            "AccessionNumber" | "00080050" => query.accession = Some(value.into()),
            "StudyDate" | "00080020" => {
                let (from, to) = value.split_once('-').unwrap_or((value, value));
                for date in [from, to] {
                    if !(date.is_empty() || date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit())) {
                        return Err(Problem::bad_request(
                            "StudyDate: expected YYYYMMDD, or two with - between",
                        ));
                    }
                }
                let some = |date: &str| (!date.is_empty()).then(|| date.to_owned());
                (query.study_date_from, query.study_date_to) = (some(from), some(to));
            }
            // A filter that is not understood must not look like one that was applied.
            _ => return Err(Problem::bad_request(format!("no search by {name:.40}"))),
        }
    }
    Ok((query, whole))
}

fn describe(node: &Node, level: Level, row: &InstanceRow, whole: bool) -> Result<Value, Problem> {
    let i = &row.instance;
    let mut out = Map::new();
    let mut copy = |tags: &[&str]| {
        for tag in tags {
            if let Some(element) = i.attributes.get(*tag) {
                out.insert((*tag).into(), element.clone());
            }
        }
    };
    match level {
        Level::Study => copy(&OF_STUDY),
        Level::Series => copy(&OF_SERIES),
        Level::Instance if whole => out = i.attributes.clone(),
        Level::Instance => copy(&OF_INSTANCE),
    }
    let mut put =
        |tag: &str, vr: &str, value: Value| out.insert(tag.into(), json!({ "vr": vr, "Value": value }));
    put("0020000D", "UI", json!([i.study_uid]));
    let url = match level {
        Level::Study => {
            let (series, instances, modalities) = node.store.counts(&i.study_uid, None)?;
            put("00080061", "CS", json!(modalities));
            put("00201206", "IS", json!([series]));
            put("00201208", "IS", json!([instances]));
            retrieve_url(&i.study_uid, None, None)
        }
        Level::Series => {
            let (_, instances, _) = node.store.counts(&i.study_uid, Some(&i.series_uid))?;
            put("0020000E", "UI", json!([i.series_uid]));
            put("00201209", "IS", json!([instances]));
            retrieve_url(&i.study_uid, Some(&i.series_uid), None)
        }
        Level::Instance => {
            put("0020000E", "UI", json!([i.series_uid]));
            put("00083002", "UI", json!([i.transfer_syntax]));
            retrieve_url(&i.study_uid, Some(&i.series_uid), Some(&i.sop_instance_uid))
        }
    };
    put("00081190", "UR", json!([url]));
    Ok(Value::Object(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(name: &str, value: &str) -> Result<Query, u16> {
        read(&[(name.into(), value.into())]).map(|(q, _)| q).map_err(|p| p.status.as_u16())
    }

    #[test]
    fn parameters_by_name_and_tag() {
        assert_eq!(read_one("StudyInstanceUID", "1.2").unwrap().study_uid.as_deref(), Some("1.2"));
        assert_eq!(read_one("00100020", "A*").unwrap().patient_id.as_deref(), Some("A*"));
        let dates = |text| read_one("StudyDate", text).map(|q| (q.study_date_from, q.study_date_to));
        let day = |text: &str| Some(text.to_owned());
        assert_eq!(dates("20260101"), Ok((day("20260101"), day("20260101"))));
        assert_eq!(dates("20260101-"), Ok((day("20260101"), None)));
        assert_eq!(dates("-20260102"), Ok((None, day("20260102"))));
        assert_eq!(dates("yesterday"), Err(400));
        assert_eq!(read_one("limit", "5000").unwrap().limit, 1000);
        assert_eq!(read_one("StudyInstanceUID", "../x"), Err(400));
        assert_eq!(read_one("Height", "1"), Err(400));
    }
}
