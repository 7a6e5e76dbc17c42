//! DICOMweb (PS3.18): STOW-RS, QIDO-RS and WADO-RS for what the service holds, films and results alike.
//!
//! Objects are given as they were stored: nothing is transcoded.

mod qido;
mod stow;
mod wado;

pub(super) use qido::{find_instances, find_series, find_studies};
pub(super) use stow::store;
pub(super) use wado::{metadata, rendered, retrieve};

use super::problem::Problem;
use spinexr_dicom::is_uid;

/// The UID in a path.
fn uid(text: String) -> Result<String, Problem> {
    if is_uid(&text) { Ok(text) } else { Err(Problem::bad_request("expected a UID in the path")) }
}

/// Where an instance is retrieved.
fn retrieve_url(study: &str, series: Option<&str>, instance: Option<&str>) -> String {
    let mut url = format!("/dicom-web/studies/{study}");
    for (level, uid) in [("series", series), ("instances", instance)] {
        if let Some(uid) = uid {
            url.push_str(&format!("/{level}/{uid}"));
        }
    }
    url
}
