//! STOW-RS client (PS3.18 10.5): one object a request.

use crate::config::StowTarget;
use crate::delivery::SendError;
use crate::error::ServeError;
use crate::store::InstanceRow;
use crate::tls;
use base64::Engine;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Most bytes of an answer that are read.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Failed SOP Sequence and Failure Reason.
const FAILED_SOP_SEQUENCE: &str = "00081198";
const FAILURE_REASON: &str = "00081197";

/// A receiver.
pub(crate) struct StowClient {
    target: StowTarget,
    agent: Agent,
}

impl StowClient {
    pub fn new(target: &StowTarget, timeout_s: u64) -> Result<Self, ServeError> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &target.tls_ca {
            let certificates = tls::certificates(path)?;
            let certificates = certificates.iter().map(|c| Certificate::from_der(c).to_owned()).collect();
            tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates)));
        }
        let agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(timeout_s)))
            .http_status_as_error(false)
            // A redirect would carry the object, and the credentials, to another place than the one configured.
            .max_redirects(0)
            .tls_config(tls.build())
            .build()
            .new_agent();
        let client = Self { target: target.clone(), agent };
        client.authorization().map_err(|reason| ServeError::Config {
            key: "destinations.stow".into(),
            expected: "files that can be read".into(),
            got: reason,
        })?;
        Ok(client)
    }

    /// Read anew for each request, so that a secret can be changed while the service runs.
    fn authorization(&self) -> Result<Option<String>, String> {
        let read = |path: &Path| {
            let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok::<_, String>(text.trim().to_owned())
        };
        if let Some(path) = &self.target.token_file {
            return Ok(Some(format!("Bearer {}", read(path)?)));
        }
        if let Some(path) = &self.target.password_file {
            return Ok(Some(format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(read(path)?)
            )));
        }
        Ok(None)
    }

    /// Sends one object.
    pub fn send(&self, path: &Path, row: &InstanceRow) -> Result<(), SendError> {
        let file = std::fs::read(path).map_err(|e| SendError::Refused(format!("the object is gone: {e}")))?;
        // The content's own hash cannot occur in the content.
        let boundary = format!("spinexr-{}", &row.id[..32]);
        let mut body = format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n").into_bytes();
        body.extend(file);
        body.extend(format!("\r\n--{boundary}--\r\n").as_bytes());

        let url = format!("{}/studies", self.target.url.trim_end_matches('/'));
        let content = format!("multipart/related; type=\"application/dicom\"; boundary={boundary}");
        let mut request =
            self.agent.post(url).header("Content-Type", content).header("Accept", "application/dicom+json");
        if let Some(authorization) = self.authorization().map_err(SendError::Away)? {
            request = request.header("Authorization", authorization);
        }
        let mut answer = request.send(&body[..]).map_err(|e| SendError::Away(e.to_string()))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec().unwrap_or_default();
        judge(status, &text)
    }
}

/// What an answer means (PS3.18 10.5.3). What an operator can put right, as a wrong token, may pass; what is wrong with
/// the object stays.
fn judge(status: u16, body: &[u8]) -> Result<(), SendError> {
    let reason = failure_reason(body);
    match (status, reason) {
        (200..=299, None) => Ok(()),
        (200..=299 | 409, Some(reason)) if reason & 0xFF00 == 0xA700 => {
            Err(SendError::Away(format!("the receiver failed to store, reason {reason:04X}H")))
        }
        (200..=299 | 409, Some(reason)) => {
            Err(SendError::Refused(format!("the receiver failed to store, reason {reason:04X}H")))
        }
        (400 | 409 | 413 | 415 | 422, _) => {
            Err(SendError::Refused(format!("the receiver answered {status}")))
        }
        _ => Err(SendError::Away(format!("the receiver answered {status}"))),
    }
}

/// Failure Reason (0008,1197) of the first object that was not stored.
fn failure_reason(body: &[u8]) -> Option<u64> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let data_set = answer.as_array().and_then(|list| list.first()).unwrap_or(&answer);
    let failed = data_set.get(FAILED_SOP_SEQUENCE)?.get("Value")?.get(0)?;
    Some(failed.get(FAILURE_REASON).and_then(|e| e.get("Value")?.get(0)?.as_u64()).unwrap_or(0x0110))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let failed = |reason: u64| {
            format!(
                r#"{{"00081198":{{"vr":"SQ","Value":[{{"00081197":{{"vr":"US","Value":[{reason}]}}}}]}}}}"#
            )
        };
        let stored = br#"{"00081199":{"vr":"SQ","Value":[{}]}}"#;
        assert_eq!(judge(200, stored), Ok(()));
        assert_eq!(judge(200, b""), Ok(()));
        for status in [401, 403, 404, 429, 500, 503, 302] {
            assert!(matches!(judge(status, b""), Err(SendError::Away(_))), "{status}");
        }
        for status in [400, 409, 413, 415] {
            assert!(matches!(judge(status, b""), Err(SendError::Refused(_))), "{status}");
        }
        assert!(matches!(judge(202, failed(0xA700).as_bytes()), Err(SendError::Away(_))));
        assert!(matches!(judge(202, failed(0xC000).as_bytes()), Err(SendError::Refused(_))));
        assert!(matches!(judge(409, failed(0x0122).as_bytes()), Err(SendError::Refused(_))));
    }
}
