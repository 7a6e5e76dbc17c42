//! `spinexr serve`: a DICOM node and an HTTP service around a reader of films.
//!
//! ```text
//! C-STORE ──┐                                                  ┌──▶ C-STORE
//! STOW-RS ──┼─▶ spool + job ─▶ reader ─▶ results + outbox ─────┼──▶ STOW-RS
//! HTTP ─────┘   (one transaction)        (one transaction)     └──▶ QIDO-RS, WADO-RS, HTTP
//! ```
//!
//! The reader is a function that the program brings ([`reader::ReadFilm`]): nothing here knows of models.
//!
//! **What is promised.** A film whose sender was told of success is on the disk and will be read, whatever kills the process
//! when. Each result object is handed to each destination until that has acknowledged it, refused it for good, or its time is
//! over. An acknowledged object is not sent again, but for one case: a kill after the receiver's answer and before the
//! transaction that notes it. Then the same bytes come again under the same SOP Instance UID, and a receiver keeps one.

pub mod annotation;
pub mod audit;
mod backoff;
pub mod clock;
pub mod config;
pub mod correction;
mod delivery;
mod dimse;
mod end;
mod error;
mod heartbeat;
mod http;
pub mod ingest;
mod metrics;
mod node;
pub mod reader;
mod retention;
mod signal;
pub mod spool;
pub mod store;
mod stow;
mod tls;
pub mod token;
mod worker;

pub use config::Config;
pub use end::wait_for_end;
pub use error::ServeError;
pub use node::{Log, Node, Program, Server, Severity, verify_audit};
