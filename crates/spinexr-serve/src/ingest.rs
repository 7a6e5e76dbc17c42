//! From received bytes to a job: the one way in, for HTTP, STOW-RS and C-STORE alike.
//!
//! The order makes it safe to be killed anywhere: the file is synced and has its name, then film and job are one
//! transaction, then the audit line, then the sender hears of it. A sender who has heard nothing sends again, and the same
//! content gives the same job.

use crate::audit::Act;
use crate::clock::now_ms;
use crate::error::ServeError;
use crate::node::Node;
use crate::spool::{Spool, content_id, job_id};
use crate::store::{Accepted, InstanceKind, InstanceRow};
use spinexr_dicom::{ReadError, read_instance, read_size};
use tempfile::NamedTempFile;

/// Why a film was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is no DICOM file, or a broken one.
    #[error("{0}")]
    NotDicom(String),
    /// It is a DICOM file that holds no film that could be read.
    #[error("{0}")]
    NotAFilm(String),
    /// Larger than the limit.
    #[error("larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Not now: too much is waiting.
    #[error("{0}")]
    Full(&'static str),
    /// The service failed.
    #[error(transparent)]
    Failed(#[from] ServeError),
}

impl Refused {
    /// In one word, for metrics and the audit log.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotDicom(_) => "not-dicom",
            Self::NotAFilm(_) => "not-a-film",
            Self::TooLarge { .. } => "too-large",
            Self::Full(_) => "full",
            Self::Failed(_) => "failed",
        }
    }
}

/// What a sender asked for beyond the film itself.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// STOW-RS to one study: films of others are refused.
    pub study_uid: Option<String>,
    /// C-STORE: the command's SOP Class and SOP Instance, which must be the film's.
    pub sop: Option<(String, String)>,
}

/// A film that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its job.
    pub accepted: Accepted,
    /// Who it is.
    pub row: InstanceRow,
}

/// Whether anything can be taken now; asked before a body is received.
///
/// # Errors
/// [`Refused::Full`], [`Refused::Failed`].
pub fn check_room(node: &Node) -> Result<(), Refused> {
    if node.store.spool_bytes()? >= node.config.queue.max_spool_bytes {
        return Err(Refused::Full("the spool is full"));
    }
    if node.store.count_jobs(crate::store::JobState::Waiting)? >= node.config.queue.max_waiting {
        return Err(Refused::Full("too many films are waiting"));
    }
    Ok(())
}

/// Takes a received film in. `actor` is who sent it.
///
/// # Errors
/// Any [`Refused`]; nothing of the film is kept then.
pub fn take(
    node: &Node,
    received: NamedTempFile,
    expected: &Expected,
    actor: &str,
) -> Result<Taken, Refused> {
    let taken = examine(node, received, expected);
    let (object, outcome) = match &taken {
        Ok(taken) => (taken.row.id.as_str(), if is_new(taken) { "ok" } else { "known" }),
        Err(refused) => ("film", refused.reason()),
    };
    node.metrics.received(outcome);
    node.note(&Act { action: "film.received", actor, object, outcome })?;
    if taken.as_ref().is_ok_and(is_new) {
        node.films.wake();
    }
    taken
}

/// Notes that a film was refused before all of it had come.
///
/// # Errors
/// [`ServeError`] of the audit log.
pub fn refuse(node: &Node, refused: &Refused, actor: &str) -> Result<(), ServeError> {
    node.metrics.received(refused.reason());
    node.note(&Act { action: "film.received", actor, object: "film", outcome: refused.reason() })
}

fn is_new(taken: &Taken) -> bool {
    matches!(taken.accepted, Accepted::New(_))
}

fn examine(node: &Node, mut received: NamedTempFile, expected: &Expected) -> Result<Taken, Refused> {
    let path = received.path().to_owned();
    let instance = read_instance(&path, &node.limits).map_err(|e| refusal(&e))?;
    if !instance.has_pixels {
        return Err(Refused::NotAFilm("the object has no Pixel Data (7FE0,0010)".into()));
    }
    let (height, width) = read_size(&path, &node.limits).map_err(|e| refusal(&e))?;
    let pixels = u64::from(height) * u64::from(width);
    if pixels == 0 || pixels > node.limits.max_pixels {
        let limit = node.limits.max_pixels;
        return Err(Refused::NotAFilm(format!("{height} × {width} pixels: expected 1 to {limit}")));
    }
    if expected.study_uid.as_ref().is_some_and(|uid| *uid != instance.study_uid) {
        return Err(Refused::NotAFilm("the object is of another study than the one addressed".into()));
    }
    if let Some((class, uid)) = &expected.sop
        && (*class != instance.sop_class_uid || *uid != instance.sop_instance_uid)
    {
        return Err(Refused::NotAFilm("SOP Class or Instance UID differ from the command's".into()));
    }
    let io = ServeError::io(&path);
    let film =
        content_id(received.as_file_mut(), &instance.transfer_syntax, instance.data_set_start).map_err(io)?;
    let bytes = received.as_file().metadata().map_err(ServeError::io(&path))?.len();
    let job = job_id(&film, &node.model.hash);
    received.as_file().sync_all().map_err(ServeError::io(&path))?;
    let row = InstanceRow {
        kind: InstanceKind::Film,
        job: None,
        path: Spool::film_name(&film),
        id: film,
        bytes,
        received_ms: now_ms(),
        instance,
    };
    let keep = || node.spool.keep_film(received, &row.id);
    match node.store.accept(&row, &job, &node.model.hash, node.config.queue.max_waiting, keep)? {
        Some(accepted) => Ok(Taken { accepted, row }),
        None => Err(Refused::Full("too many films are waiting")),
    }
}

/// What the sender is told of a file that cannot be read. The path is ours and says nothing to it.
fn refusal(error: &ReadError) -> Refused {
    match error {
        ReadError::Io { source, path } => {
            let kind = source.kind();
            Refused::Failed(ServeError::Io { path: path.clone(), source: kind.into() })
        }
        ReadError::UnknownFormat { .. } | ReadError::NameDiffers { .. } => {
            Refused::NotDicom("not a DICOM file".into())
        }
        ReadError::TooLarge { what, found, limit, .. } => {
            Refused::NotAFilm(format!("{what} is {found}, more than the limit of {limit}"))
        }
        ReadError::Parse { offset, reason, .. } => {
            Refused::NotDicom(format!("data set broken at byte {offset}: {reason}"))
        }
        ReadError::Attribute { tag, name, expected, .. } => {
            Refused::NotAFilm(format!("{name} {tag}: expected {expected}"))
        }
        ReadError::NoPixelData { .. } => Refused::NotAFilm("the object has no Pixel Data (7FE0,0010)".into()),
        ReadError::UnsupportedTransferSyntax { uid, name, .. } => {
            Refused::NotAFilm(format!("transfer syntax {uid} ({name}) is not supported"))
        }
        _ => Refused::NotAFilm("the object cannot be read as a film".into()),
    }
}
