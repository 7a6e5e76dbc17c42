//! Storage SCU: sends result objects to an archive. The association is kept while there is more to send.

use super::command::{C_STORE_RQ, C_STORE_RSP, Command};
use super::scp::chain;
use crate::config::{Dicom, DicomTarget};
use crate::delivery::SendError;
use crate::error::ServeError;
use crate::store::InstanceRow;
use crate::tls;
use dicom_ul::association::client::TlsStream;
use dicom_ul::association::{Association, CloseSocket, SyncAssociation};
use dicom_ul::pdu::{PDataValue, PDataValueType};
use dicom_ul::{ClientAssociation, ClientAssociationOptions, Pdu};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What results come as: each class is a presentation context of its own.
const RESULT_CLASSES: [&str; 4] = [
    "1.2.840.10008.5.1.4.1.1.88.34", // Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.33", // Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.11.1",  // Grayscale Softcopy Presentation State
    "1.2.840.10008.5.1.4.1.1.7",     // Secondary Capture
];
const RESULT_SYNTAX: &str = "1.2.840.10008.1.2.1";

/// A receiver, and the association with it while there is one.
pub(crate) struct StoreScu {
    target: DicomTarget,
    calling: String,
    timeout: Duration,
    tls: Option<Arc<rustls::ClientConfig>>,
    open: Option<Open>,
}

enum Open {
    Plain(ClientAssociation<TcpStream>),
    Tls(Box<ClientAssociation<TlsStream>>),
}

impl StoreScu {
    pub fn new(target: &DicomTarget, own: &Dicom, timeout_s: u64) -> Result<Self, ServeError> {
        Ok(Self {
            calling: target.calling_ae_title.clone().unwrap_or_else(|| own.ae_title.clone()),
            timeout: Duration::from_secs(timeout_s),
            tls: target.tls_ca.as_deref().map(tls::client).transpose()?,
            target: target.clone(),
            open: None,
        })
    }

    /// Sends one object.
    pub fn send(&mut self, path: &Path, row: &InstanceRow) -> Result<(), SendError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.establish()?,
        };
        let result = match &mut open {
            Open::Plain(association) => store(association, path, row),
            Open::Tls(association) => store(association.as_mut(), path, row),
        };
        // After a failure of the connection nothing can be said on it any more.
        if !matches!(result, Err(SendError::Away(_))) {
            self.open = Some(open);
        }
        result
    }

    /// Ends the association, if there is one.
    pub fn release(&mut self) {
        match self.open.take() {
            Some(Open::Plain(association)) => drop(association.release()),
            Some(Open::Tls(association)) => drop(association.release()),
            None => {}
        }
    }

    fn establish(&self) -> Result<Open, SendError> {
        let mut options = ClientAssociationOptions::new()
            .calling_ae_title(self.calling.as_str())
            .called_ae_title(self.target.ae_title.as_str())
            .connection_timeout(self.timeout)
            .read_timeout(self.timeout)
            .write_timeout(self.timeout);
        for class in RESULT_CLASSES {
            options = options.with_presentation_context(class, vec![RESULT_SYNTAX]);
        }
        let away = |error: &dyn std::error::Error| SendError::Away(chain(error));
        let address = self.target.address.as_str();
        match &self.tls {
            None => Ok(Open::Plain(options.establish(address).map_err(|e| away(&e))?)),
            Some(tls) => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                let options = options.tls_config(Arc::clone(tls)).server_name(host.trim_matches(['[', ']']));
                Ok(Open::Tls(Box::new(options.establish_tls(address).map_err(|e| away(&e))?)))
            }
        }
    }
}

/// C-STORE of one object.
fn store<S: Read + Write + CloseSocket>(
    association: &mut ClientAssociation<S>,
    path: &Path,
    row: &InstanceRow,
) -> Result<(), SendError> {
    let away = |error: &dyn std::error::Error| SendError::Away(chain(error));
    let instance = &row.instance;
    let context = Association::presentation_contexts(association)
        .iter()
        .find(|c| {
            c.abstract_syntax == instance.sop_class_uid && c.transfer_syntax == instance.transfer_syntax
        })
        .map(|c| c.id);
    let Some(context) = context else {
        return Err(SendError::Refused("the receiver takes no objects of this SOP Class".into()));
    };
    let request = Command {
        field: C_STORE_RQ,
        message_id: 1,
        has_data_set: true,
        sop_class_uid: instance.sop_class_uid.clone(),
        sop_instance_uid: instance.sop_instance_uid.clone(),
        ..Command::default()
    };
    let data = vec![PDataValue {
        presentation_context_id: context,
        value_type: PDataValueType::Command,
        is_last: true,
        data: request.encode(),
    }];
    SyncAssociation::send(association, &Pdu::PData { data }).map_err(|e| away(&e))?;

    let mut file = File::open(path).map_err(|e| SendError::Refused(format!("the object is gone: {e}")))?;
    file.seek(SeekFrom::Start(instance.data_set_start)).map_err(|e| away(&e))?;
    let mut writer = SyncAssociation::send_pdata(association, context);
    io::copy(&mut file, &mut writer).and_then(|_| writer.finish()).map_err(|e| away(&e))?;

    let mut response = vec![];
    loop {
        match SyncAssociation::receive(association).map_err(|e| away(&e))? {
            Pdu::PData { data } => {
                for value in data.iter().filter(|v| v.value_type == PDataValueType::Command) {
                    response.extend(&value.data);
                    if value.is_last {
                        return judge(&response);
                    }
                }
            }
            _ => return Err(SendError::Away("the receiver ended the association".into())),
        }
        if response.len() > super::command::MAX_BYTES {
            return Err(SendError::Away("the receiver's response does not end".into()));
        }
    }
}

/// What a C-STORE response means (PS3.4 B.2.3): success and warnings are stored, out of resources may pass, the rest stays.
fn judge(response: &[u8]) -> Result<(), SendError> {
    match Command::decode(response) {
        Some(command) if command.field == C_STORE_RSP => match command.status {
            0x0000 | 0xB000..=0xBFFF => Ok(()),
            status @ (0xA700..=0xA7FF | 0x0110 | 0x0122 | 0x0124) => {
                Err(SendError::Away(format!("the receiver answered {status:04X}H")))
            }
            status => Err(SendError::Refused(format!("the receiver answered {status:04X}H"))),
        },
        _ => Err(SendError::Away("the receiver's response cannot be read".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_told_apart() {
        let answer = |status| {
            let request = Command { field: C_STORE_RQ, ..Command::default() };
            judge(&request.response(status, "").encode())
        };
        assert_eq!(answer(0x0000), Ok(()));
        assert_eq!(answer(0xB007), Ok(()));
        assert!(matches!(answer(0xA700), Err(SendError::Away(_))));
        assert!(matches!(answer(0xA900), Err(SendError::Refused(_))));
        assert!(matches!(answer(0xC001), Err(SendError::Refused(_))));
        assert!(matches!(judge(b"nonsense"), Err(SendError::Away(_))));
    }
}
