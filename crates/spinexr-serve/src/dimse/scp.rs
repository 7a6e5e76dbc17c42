//! Verification and storage SCP: takes films from modalities and archives.
//!
//! One thread an association, their number bounded. An object goes to the spool piece by piece as it comes; success is
//! answered when film and job are on the disk. A peer that stops talking runs into the read timeout, one that talks too
//! slowly into the association's time, when its socket is closed from outside.

use super::command::{self, C_ECHO_RQ, C_STORE_RQ, Command, file_meta, status};
use super::{FILM_CLASSES, FILM_SYNTAXES, VERIFICATION};
use crate::audit::Act;
use crate::config::Peer;
use crate::error::ServeError;
use crate::ingest::{self, Expected, Refused};
use crate::node::{Node, spawn};
use crate::tls;
use dicom_ul::association::server::AccessControl;
use dicom_ul::association::{Association, CloseSocket, SyncAssociation};
use dicom_ul::pdu::{
    AssociationRJServiceUserReason, PDataValue, PDataValueType, PresentationContextResultReason, UserIdentity,
};
use dicom_ul::{Pdu, ServerAssociation, ServerAssociationOptions};
use spinexr_dicom::is_uid;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// Pause between looks at the listening socket and at the time of the associations.
const TICK: Duration = Duration::from_millis(20);
/// Time for associations to end when the service does.
const GRACE: Duration = Duration::from_secs(5);
/// A-ASSOCIATE-RJ (PS3.8 9.3.4): transient, by the presentation layer, local limit exceeded.
const TOO_MANY: [u8; 10] = [3, 0, 0, 0, 0, 4, 0, 2, 3, 2];

/// An association under way.
struct Active {
    ends: Instant,
    socket: TcpStream,
    thread: JoinHandle<()>,
}

pub(crate) fn start(node: &Arc<Node>, listener: TcpListener) -> Result<JoinHandle<()>, ServeError> {
    let dicom = &node.config.dicom;
    let tls = match (&dicom.tls_certificate, &dicom.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(tls::server(certificate, key, dicom.tls_client_ca.as_deref())?)
        }
        _ => None,
    };
    listener.set_nonblocking(true).map_err(ServeError::io("dicom.listen"))?;
    spawn(node, "associations", move |node| accept(node, &listener, tls.as_ref()))
}

fn accept(node: &Arc<Node>, listener: &TcpListener, tls: Option<&Arc<rustls::ServerConfig>>) {
    let mut active: Vec<Active> = vec![];
    while !node.is_stopping() {
        active.retain(|a| !a.thread.is_finished());
        let now = Instant::now();
        for late in active.iter().filter(|a| a.ends <= now) {
            let _ = late.socket.shutdown(Shutdown::Both);
        }
        match listener.accept() {
            Ok((socket, address)) => {
                let begun = begin(node, socket, address.ip(), &active, tls);
                match begun {
                    Ok(Some(association)) => active.push(association),
                    Ok(None) => node.metrics.association("too-many"),
                    Err(error) => node.warn(&format!("beginning an association: {error}")),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(TICK),
            Err(error) => {
                // Out of file descriptors, for instance: associations that end bring some back.
                node.warn(&format!("accepting associations: {error}"));
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }
    let ends = Instant::now() + GRACE;
    while active.iter().any(|a| !a.thread.is_finished()) && Instant::now() < ends {
        std::thread::sleep(TICK);
    }
    for association in active {
        let _ = association.socket.shutdown(Shutdown::Both);
        let _ = association.thread.join();
    }
}

/// `None` when there are too many already.
fn begin(
    node: &Arc<Node>,
    mut socket: TcpStream,
    address: IpAddr,
    active: &[Active],
    tls: Option<&Arc<rustls::ServerConfig>>,
) -> Result<Option<Active>, ServeError> {
    let io = || ServeError::io("association");
    socket.set_nonblocking(false).map_err(io())?;
    if active.len() >= node.config.dicom.max_associations {
        let _ = socket.write_all(&TOO_MANY);
        return Ok(None);
    }
    let ends = Instant::now() + Duration::from_secs(node.config.dicom.association_timeout_s);
    let clone = socket.try_clone().map_err(io())?;
    let tls = tls.cloned();
    let thread = spawn(node, "association", move |node| associate(node, socket, address, tls))?;
    Ok(Some(Active { ends, socket: clone, thread }))
}

/// Who may associate.
struct Access<'a> {
    peers: &'a [Peer],
    address: IpAddr,
}

impl AccessControl for Access<'_> {
    fn check_access(
        &self,
        this_ae_title: &str,
        calling_ae_title: &str,
        called_ae_title: &str,
        _user_identity: Option<&UserIdentity>,
    ) -> Result<(), AssociationRJServiceUserReason> {
        if called_ae_title != this_ae_title {
            return Err(AssociationRJServiceUserReason::CalledAETitleNotRecognized);
        }
        if !self.peers.is_empty() && !self.peers.iter().any(|p| p.is(calling_ae_title, self.address)) {
            return Err(AssociationRJServiceUserReason::CallingAETitleNotRecognized);
        }
        Ok(())
    }
}

fn associate(node: &Node, socket: TcpStream, address: IpAddr, tls: Option<Arc<rustls::ServerConfig>>) {
    let dicom = &node.config.dicom;
    let idle = Duration::from_secs(dicom.idle_timeout_s);
    let mut options = ServerAssociationOptions::new()
        .ae_access_control(Access { peers: &dicom.peers, address })
        .ae_title(dicom.ae_title.as_str())
        .max_pdu_length(dicom.max_pdu_bytes)
        .read_timeout(idle)
        .write_timeout(idle)
        .with_abstract_syntax(VERIFICATION);
    for class in FILM_CLASSES {
        options = options.with_abstract_syntax(class);
    }
    for syntax in FILM_SYNTAXES {
        options = options.with_transfer_syntax(syntax);
    }
    let result = match tls {
        Some(config) => match options.tls_config(config).establish_tls(socket) {
            Ok(association) => converse(node, association, address),
            Err(error) => Err(error.to_string()),
        },
        None => match options.establish(socket) {
            Ok(association) => converse(node, association, address),
            Err(error) => Err(error.to_string()),
        },
    };
    match result {
        Ok(()) => node.metrics.association("released"),
        Err(error) => {
            node.metrics.association("failed");
            node.warn(&format!("association from {address}: {error}"));
            let actor = format!("address:{address}");
            let act =
                Act { action: "association.failed", actor: &actor, object: "association", outcome: &error };
            if let Err(error) = node.note_stranger(&act) {
                node.warn(&error.to_string());
            }
        }
    }
}

/// An object on its way in.
struct Incoming {
    request: Command,
    context: u8,
    file: Option<NamedTempFile>,
    bytes: u64,
    /// Why it will be refused, though the peer still sends it.
    refused: Option<Refused>,
}

/// Answers a peer until it releases the association.
fn converse<S: Read + Write + CloseSocket>(
    node: &Node,
    mut association: ServerAssociation<S>,
    address: IpAddr,
) -> Result<(), String> {
    let actor = format!("ae:{}@{address}", association.peer_ae_title());
    let mut command_bytes: Vec<u8> = vec![];
    let mut incoming: Option<Incoming> = None;
    loop {
        let pdu = SyncAssociation::receive(&mut association).map_err(|e| chain(&e))?;
        let values = match pdu {
            Pdu::PData { data } => data,
            Pdu::ReleaseRQ => {
                SyncAssociation::send(&mut association, &Pdu::ReleaseRP).map_err(|e| chain(&e))?;
                return Ok(());
            }
            Pdu::AbortRQ { .. } => return Err("aborted by the peer".into()),
            _ => {
                let _ = SyncAssociation::abort(association);
                return Err("a PDU that has no place in an association".into());
            }
        };
        for value in values {
            let response = match value.value_type {
                PDataValueType::Command => {
                    command_bytes.extend(&value.data);
                    if command_bytes.len() > command::MAX_BYTES || incoming.is_some() {
                        let _ = SyncAssociation::abort(association);
                        return Err("a command set that is too long, or inside a data set".into());
                    }
                    if !value.is_last {
                        continue;
                    }
                    let request = Command::decode(&std::mem::take(&mut command_bytes));
                    let Some(request) = request else {
                        let _ = SyncAssociation::abort(association);
                        return Err("a command set that cannot be read".into());
                    };
                    match request.field {
                        C_ECHO_RQ => {
                            Some((value.presentation_context_id, request.response(status::SUCCESS, "")))
                        }
                        C_STORE_RQ if request.has_data_set => {
                            incoming =
                                Some(expect(node, &association, request, value.presentation_context_id));
                            None
                        }
                        _ => {
                            let text = "only C-ECHO and C-STORE are spoken here";
                            let response = request.response(status::UNRECOGNIZED_OPERATION, text);
                            Some((value.presentation_context_id, response))
                        }
                    }
                }
                PDataValueType::Data => {
                    let Some(object) = &mut incoming else {
                        let _ = SyncAssociation::abort(association);
                        return Err("a data set that no command announced".into());
                    };
                    object.push(node, &value.data);
                    if object.bytes > 4 * node.config.dicom.max_object_bytes {
                        let _ = SyncAssociation::abort(association);
                        return Err("an object many times larger than the limit".into());
                    }
                    match incoming.take_if(|_| value.is_last) {
                        Some(object) => Some((object.context, object.finish(node, &actor))),
                        None => None,
                    }
                }
            };
            if let Some((context, response)) = response {
                let data = vec![PDataValue {
                    presentation_context_id: context,
                    value_type: PDataValueType::Command,
                    is_last: true,
                    data: response.encode(),
                }];
                SyncAssociation::send(&mut association, &Pdu::PData { data }).map_err(|e| chain(&e))?;
            }
        }
        if node.is_stopping() && incoming.is_none() {
            let _ = SyncAssociation::abort(association);
            return Ok(());
        }
    }
}

/// Makes ready for the object that a C-STORE request announces.
fn expect<S: Read + Write + CloseSocket>(
    node: &Node,
    association: &ServerAssociation<S>,
    request: Command,
    context: u8,
) -> Incoming {
    let negotiated = association
        .presentation_contexts()
        .iter()
        .find(|c| c.id == context && c.reason == PresentationContextResultReason::Acceptance);
    let begin = || {
        let Some(negotiated) = negotiated.filter(|c| c.abstract_syntax == request.sop_class_uid) else {
            return Err(Refused::NotAFilm("no accepted presentation context of that SOP Class".into()));
        };
        if !is_uid(&request.sop_class_uid) || !is_uid(&request.sop_instance_uid) {
            return Err(Refused::NotAFilm("Affected SOP Instance UID: expected a UID".into()));
        }
        ingest::check_room(node)?;
        let mut file = node.spool.incoming()?;
        let syntax = negotiated.transfer_syntax.trim_end_matches(['\0', ' ']);
        let meta = file_meta(&request.sop_class_uid, &request.sop_instance_uid, syntax);
        file.write_all(&meta).map_err(ServeError::io(file.path()))?;
        Ok(file)
    };
    let (file, refused) = match begin() {
        Ok(file) => (Some(file), None),
        Err(refused) => (None, Some(refused)),
    };
    Incoming { request, context, file, bytes: 0, refused }
}

impl Incoming {
    /// Takes the next piece. What is refused already is let pass by.
    fn push(&mut self, node: &Node, data: &[u8]) {
        self.bytes += data.len() as u64;
        let limit = node.config.dicom.max_object_bytes;
        if let Some(file) = &mut self.file {
            let result = if self.bytes > limit {
                Err(Refused::TooLarge { limit })
            } else {
                file.write_all(data).map_err(|e| Refused::Failed(ServeError::io(file.path())(e)))
            };
            if let Err(refused) = result {
                self.file = None;
                self.refused = Some(refused);
            }
        }
    }

    /// The response, when all has come.
    fn finish(self, node: &Node, actor: &str) -> Command {
        let expected = Expected {
            study_uid: None,
            sop: Some((self.request.sop_class_uid.clone(), self.request.sop_instance_uid.clone())),
        };
        let taken = match (self.file, self.refused) {
            (Some(file), _) => ingest::take(node, file, &expected, actor),
            (None, refused) => {
                let refused = refused.unwrap_or(Refused::Full("the object was not received"));
                ingest::refuse(node, &refused, actor)
                    .map_or_else(|e| Err(Refused::Failed(e)), |()| Err(refused))
            }
        };
        match taken {
            Ok(_) => self.request.response(status::SUCCESS, ""),
            Err(refused) => {
                let code = match &refused {
                    Refused::Full(_) => status::OUT_OF_RESOURCES,
                    Refused::NotAFilm(_) => status::NOT_OF_CLASS,
                    Refused::NotDicom(_) | Refused::TooLarge { .. } => status::CANNOT_UNDERSTAND,
                    Refused::Failed(error) => {
                        node.warn(&format!("taking a film: {error}"));
                        status::PROCESSING_FAILURE
                    }
                };
                let comment = match &refused {
                    Refused::Failed(_) => "the service failed".to_owned(),
                    told => told.to_string(),
                };
                self.request.response(code, &comment)
            }
        }
    }
}

/// An error with its causes. Those of dicom-ul hold addresses and PDU types, nothing of a data set.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
