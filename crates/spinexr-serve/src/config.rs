//! The configuration: TOML, every key optional, unknown keys refused. [`Config::load`] gives one that was checked.
//!
//! Without a file the service listens on loopback only, for demonstrations, and asks nobody for a token. On any other
//! address it starts only with tokens (HTTP) and a list of peers (DICOM).

mod check;

use crate::error::ServeError;
use serde::{Deserialize, Serialize};
use spinexr_core::Category;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Every key with its meaning and its default, as a file.
pub const REFERENCE: &str = include_str!("reference.toml");

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder for the job store, the films, the results and the audit log.
    pub data_dir: PathBuf,
    /// The HTTP side.
    pub http: Http,
    /// The DICOM side.
    pub dicom: Dicom,
    /// Jobs and deliveries.
    pub queue: Queue,
    /// Where jobs and films are.
    pub store: Store,
    /// What is kept, and for how long.
    pub retention: Retention,
    /// Readings by people, in the web reader.
    pub reading: ReadingRules,
    /// Who may use the HTTP API.
    pub tokens: Vec<Token>,
    /// Where results go.
    pub destinations: Vec<Destination>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "spinexr-serve".into(),
            http: Http::default(),
            dicom: Dicom::default(),
            queue: Queue::default(),
            store: Store::default(),
            retention: Retention::default(),
            reading: ReadingRules::default(),
            tokens: vec![],
            destinations: vec![],
        }
    }
}

/// The HTTP side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port.
    pub listen: SocketAddr,
    /// Largest request body, bytes.
    pub max_body_bytes: u64,
    /// Most connections at a time.
    pub max_connections: usize,
    /// A request's head must be there within this time, s.
    pub header_timeout_s: u64,
    /// Longest pause between two pieces of a body, s.
    pub idle_timeout_s: u64,
    /// A body must be there within this time, s.
    pub body_timeout_s: u64,
    /// Requests a minute of one token or address; 0 for no limit.
    pub requests_per_minute: u32,
    /// Certificate chain (PEM); with `tls_key`, HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_body_bytes: 256 << 20,
            max_connections: 256,
            header_timeout_s: 10,
            idle_timeout_s: 10,
            body_timeout_s: 300,
            requests_per_minute: 0,
            tls_certificate: None,
            tls_key: None,
        }
    }
}

/// The DICOM side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dicom {
    /// Whether to listen for associations.
    pub enabled: bool,
    /// Address and port.
    pub listen: SocketAddr,
    /// Application Entity Title of this node.
    pub ae_title: String,
    /// Who may associate; everyone on loopback when empty.
    pub peers: Vec<Peer>,
    /// Largest PDU taken, bytes: 4096 to 131072.
    pub max_pdu_bytes: u32,
    /// Largest object taken, bytes.
    pub max_object_bytes: u64,
    /// Most associations at a time.
    pub max_associations: usize,
    /// Longest wait for a peer's next bytes, s.
    pub idle_timeout_s: u64,
    /// An association is cut off after this time, s.
    pub association_timeout_s: u64,
    /// Certificate chain (PEM); with `tls_key`, TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Authorities (PEM) one of which must have signed a peer's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_client_ca: Option<PathBuf>,
}

impl Default for Dicom {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from(([127, 0, 0, 1], 11112)),
            ae_title: "SPINEXR".into(),
            peers: vec![],
            max_pdu_bytes: 65_536,
            max_object_bytes: 256 << 20,
            max_associations: 16,
            idle_timeout_s: 30,
            association_timeout_s: 1800,
            tls_certificate: None,
            tls_key: None,
            tls_client_ca: None,
        }
    }
}

/// A node that may send films.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its Application Entity Title.
    pub ae_title: String,
    /// Its address, or a network as `10.1.0.0/16`; any address when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Jobs and deliveries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// Most jobs waiting; beyond it films are refused for the time being.
    pub max_waiting: u64,
    /// Most bytes in the data folder; beyond it films are refused for the time being.
    pub max_spool_bytes: u64,
    /// Films read at a time.
    pub workers: usize,
    /// Times a film is tried when reading it fails for a reason that may pass.
    pub max_attempts: u32,
    /// Times a film may be under way when the process dies, before it is held to be the reason.
    pub max_interruptions: u32,
    /// Hours for which a delivery is tried.
    pub delivery_hours: u64,
    /// First pause before trying again, ms; doubled each time, with jitter.
    pub backoff_ms: u64,
    /// Longest pause, ms.
    pub max_backoff_ms: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_waiting: 10_000,
            max_spool_bytes: 100 << 30,
            workers: 1,
            max_attempts: 5,
            max_interruptions: 5,
            delivery_hours: 72,
            backoff_ms: 1000,
            max_backoff_ms: 600_000,
        }
    }
}

/// Where jobs and films are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Folder of films and results, one for all nodes of a database; `spool` in the data folder when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_dir: Option<PathBuf>,
    /// A node that has not been heard of for so long is taken for dead, and the others do its work, s.
    pub lease_s: u64,
    /// The database that several nodes share; a SQLite file in the data folder when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
}

impl Default for Store {
    fn default() -> Self {
        Self { spool_dir: None, lease_s: 60, postgres: None }
    }
}

/// A PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// As libpq takes it: `host=db user=spinexr dbname=spinexr`, or a URL. Without a password.
    pub connection: String,
    /// File with the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// TLS, to a server whose certificate one of these authorities (PEM) has signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
}

/// What is kept, and for how long.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days that a finished film and its results are kept; 0 for ever.
    pub days: u32,
    /// Bytes of finished films and results to keep, the oldest go first; 0 for no bound.
    pub max_bytes: u64,
}

/// When a reader is shown what the model found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShowModel {
    /// Before the reading: the reader corrects the model.
    #[default]
    Before,
    /// Once the reader's own reading is complete.
    After,
}

/// Readings by people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadingRules {
    /// Findings that can be marked, in the order of the keys 1 to 9.
    pub labels: Vec<String>,
    /// When the model's result is shown.
    pub model: ShowModel,
}

impl Default for ReadingRules {
    /// The 13 categories of the data set, and the model's result at once.
    fn default() -> Self {
        let labels = Category::ALL.iter().map(|category| category.name().to_owned()).collect();
        Self { labels, model: ShowModel::Before }
    }
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See films and results.
    Read,
    /// Send films and see the state of jobs.
    Submit,
    /// See films and the model's findings in the web reader, and keep readings under the token's name.
    Annotate,
    /// Metrics, dead letters, and all else.
    Admin,
}

/// Someone who may use the HTTP API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Name in the audit log.
    pub name: String,
    /// SHA-256 of the token, hexadecimal. A token is 256 random bits, which no guessing finds, so a plain hash is enough.
    pub sha256: String,
    /// What it allows.
    pub roles: Vec<Role>,
}

/// Form of a result object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultKind {
    /// Structured report.
    Sr,
    /// Greyscale softcopy presentation state.
    Gsps,
    /// Secondary capture with the boxes drawn.
    Sc,
}

impl ResultKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sr, Self::Gsps, Self::Sc];

    /// `sr`, `gsps`, `sc`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sr => "sr",
            Self::Gsps => "gsps",
            Self::Sc => "sc",
        }
    }

    /// The form of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Where results go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Name in states, metrics and the audit log.
    pub name: String,
    /// Forms to send; all when empty.
    #[serde(default)]
    pub formats: Vec<ResultKind>,
    /// Longest wait for the receiver, s.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u64,
    /// By C-STORE; this or `stow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dicom: Option<DicomTarget>,
    /// By STOW-RS; this or `dicom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stow: Option<StowTarget>,
}

fn default_timeout_s() -> u64 {
    60
}

/// A receiver of C-STORE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DicomTarget {
    /// `host:port`.
    pub address: String,
    /// The receiver's Application Entity Title.
    pub ae_title: String,
    /// Ours towards it; the node's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calling_ae_title: Option<String>,
    /// TLS, to a receiver whose certificate one of these authorities (PEM) has signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
}

/// A receiver of STOW-RS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StowTarget {
    /// Base URL of the DICOMweb service; `/studies` is added.
    pub url: String,
    /// File with a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// File with `user:password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Authorities (PEM) in place of the web's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
}

impl Destination {
    /// Whether results of this form go there.
    pub fn takes(&self, kind: ResultKind) -> bool {
        self.formats.is_empty() || self.formats.contains(&kind)
    }
}

impl Config {
    /// Reads a configuration and checks it.
    ///
    /// # Errors
    /// [`ServeError::Io`], [`ServeError::Toml`], [`ServeError::Config`].
    pub fn load(path: &Path) -> Result<Self, ServeError> {
        let text = std::fs::read_to_string(path).map_err(ServeError::io(path))?;
        Self::from_toml(&text)
    }

    /// As [`Config::load`], from the text.
    ///
    /// # Errors
    /// [`ServeError::Toml`], [`ServeError::Config`].
    pub fn from_toml(text: &str) -> Result<Self, ServeError> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// The configuration as TOML, every key with its value.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration is plain data")
    }

    /// Folder of films and results.
    pub fn spool_dir(&self) -> PathBuf {
        self.store.spool_dir.clone().unwrap_or_else(|| self.data_dir.join("spool"))
    }

    /// Whether requests need no token: on loopback, with none configured.
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_survives_toml() {
        let config = Config::default();
        config.check().unwrap();
        assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
        assert_eq!(Config::from_toml("").unwrap(), config);
    }

    #[test]
    fn the_reference_is_the_default_and_leaves_no_key_out() {
        assert_eq!(Config::from_toml(REFERENCE).unwrap(), Config::default());
        // With its examples in force, every key there is stands in it.
        let examples: String = REFERENCE
            .lines()
            .filter(|line| *line != "peers = []")
            .map(|line| match line.strip_prefix("# ") {
                Some(key)
                    if key.starts_with('[')
                        || key.split_once(" = ").is_some_and(|(k, _)| !k.contains(' ')) =>
                {
                    key
                }
                _ => line,
            })
            .map(|line| line.replace('…', &"0".repeat(64)) + "\n")
            .collect();
        let full = Config::from_toml(&examples).unwrap();
        assert_eq!((full.tokens.len(), full.destinations.len(), full.dicom.peers.len()), (1, 2, 1));
        let written = full.to_toml();
        for line in written.lines().filter(|line| line.contains(" = ")) {
            let key = line.split(" = ").next().unwrap();
            assert!(REFERENCE.contains(&format!("{key} = ")), "{key}");
        }
        let absent: Vec<&str> = [
            "tls_client_ca",
            "tls_certificate",
            "tls_key",
            "token_file",
            "password_file",
            "tls_ca",
            "spool_dir",
        ]
        .into_iter()
        .filter(|key| !written.contains(key))
        .collect();
        assert!(absent.is_empty(), "{absent:?}");
    }

    #[test]
    fn a_full_configuration_is_read() {
        let text = r#"
            data_dir = "/var/lib/spinexr"
            [http]
            listen = "0.0.0.0:8080"
            [dicom]
            listen = "0.0.0.0:104"
            peers = [{ ae_title = "PACS", address = "10.1.0.0/16" }, { ae_title = "MODALITY" }]
            [[tokens]]
            name = "pacs"
            sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
            roles = ["read", "submit"]
            [[destinations]]
            name = "archive"
            dicom = { address = "10.1.2.3:104", ae_title = "ARCHIVE" }
            formats = ["sr", "gsps"]
            [[destinations]]
            name = "web"
            stow = { url = "https://pacs.example/dicom-web" }
        "#;
        let config = Config::from_toml(text).unwrap();
        assert!(
            config.destinations[0].takes(ResultKind::Sr) && !config.destinations[0].takes(ResultKind::Sc)
        );
        assert!(config.destinations[1].takes(ResultKind::Sc));
        assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
    }
}
