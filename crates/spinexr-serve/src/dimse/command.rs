//! Command sets (PS3.7 6.3): always implicit little endian, always group 0000.

/// Command fields of PS3.7 E.1 that are spoken here.
pub(crate) const C_STORE_RQ: u16 = 0x0001;
pub(crate) const C_STORE_RSP: u16 = 0x8001;
pub(crate) const C_ECHO_RQ: u16 = 0x0030;
/// Command Data Set Type of a message without a data set.
const NO_DATA_SET: u16 = 0x0101;

const AFFECTED_SOP_CLASS_UID: u16 = 0x0002;
const COMMAND_FIELD: u16 = 0x0100;
const MESSAGE_ID: u16 = 0x0110;
const MESSAGE_ID_RESPONDED_TO: u16 = 0x0120;
const PRIORITY: u16 = 0x0700;
const DATA_SET_TYPE: u16 = 0x0800;
const STATUS: u16 = 0x0900;
const ERROR_COMMENT: u16 = 0x0902;
const AFFECTED_SOP_INSTANCE_UID: u16 = 0x1000;

/// Most bytes of a command set; those spoken here have some 200.
pub(crate) const MAX_BYTES: usize = 16 << 10;

/// Statuses of PS3.7 annex C and PS3.4 B.2.3.
pub(crate) mod status {
    pub(crate) const SUCCESS: u16 = 0x0000;
    /// Refused: out of resources. The sender may try again.
    pub(crate) const OUT_OF_RESOURCES: u16 = 0xA700;
    /// Error: data set does not match SOP Class.
    pub(crate) const NOT_OF_CLASS: u16 = 0xA900;
    /// Error: cannot understand.
    pub(crate) const CANNOT_UNDERSTAND: u16 = 0xC000;
    /// Failed: processing failure.
    pub(crate) const PROCESSING_FAILURE: u16 = 0x0110;
    /// Failed: unrecognized operation.
    pub(crate) const UNRECOGNIZED_OPERATION: u16 = 0x0211;
}

/// A command set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Command {
    pub field: u16,
    /// Message ID, or the one responded to.
    pub message_id: u16,
    pub has_data_set: bool,
    pub status: u16,
    pub sop_class_uid: String,
    pub sop_instance_uid: String,
    pub error_comment: String,
}

impl Command {
    /// Reads a command set; `None` for bytes that are none.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut command = Self::default();
        let mut seen_field = false;
        let mut data_set_type = NO_DATA_SET;
        while !bytes.is_empty() {
            let (header, rest) = bytes.split_at_checked(8)?;
            let group = u16::from_le_bytes([header[0], header[1]]);
            let element = u16::from_le_bytes([header[2], header[3]]);
            let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
            let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            bytes = rest;
            if group != 0 {
                return None;
            }
            let number = || Some(u16::from_le_bytes(value.try_into().ok()?));
            match element {
                COMMAND_FIELD => {
                    command.field = number()?;
                    seen_field = true;
                }
                MESSAGE_ID | MESSAGE_ID_RESPONDED_TO => command.message_id = number()?,
                DATA_SET_TYPE => data_set_type = number()?,
                STATUS => command.status = number()?,
                AFFECTED_SOP_CLASS_UID => command.sop_class_uid = text(value),
                AFFECTED_SOP_INSTANCE_UID => command.sop_instance_uid = text(value),
                ERROR_COMMENT => command.error_comment = text(value),
                _ => {}
            }
        }
        command.has_data_set = data_set_type != NO_DATA_SET;
        seen_field.then_some(command)
    }

    /// The bytes of the command set, a request or a response by its field.
    pub fn encode(&self) -> Vec<u8> {
        let is_response = self.field & 0x8000 != 0;
        let mut body = vec![];
        if !self.sop_class_uid.is_empty() {
            put(&mut body, AFFECTED_SOP_CLASS_UID, &padded(&self.sop_class_uid, 0));
        }
        put(&mut body, COMMAND_FIELD, &self.field.to_le_bytes());
        let id = if is_response { MESSAGE_ID_RESPONDED_TO } else { MESSAGE_ID };
        put(&mut body, id, &self.message_id.to_le_bytes());
        if self.field == C_STORE_RQ {
            put(&mut body, PRIORITY, &0u16.to_le_bytes());
        }
        let data_set_type = if self.has_data_set { 1 } else { NO_DATA_SET };
        put(&mut body, DATA_SET_TYPE, &data_set_type.to_le_bytes());
        if is_response {
            put(&mut body, STATUS, &self.status.to_le_bytes());
            if !self.error_comment.is_empty() {
                put(&mut body, ERROR_COMMENT, &padded(&self.error_comment, b' '));
            }
        }
        if !self.sop_instance_uid.is_empty() {
            put(&mut body, AFFECTED_SOP_INSTANCE_UID, &padded(&self.sop_instance_uid, 0));
        }
        let mut out = vec![];
        put(&mut out, 0, &(body.len() as u32).to_le_bytes());
        out.append(&mut body);
        out
    }

    /// The response to this request. The comment is cut to what VR LO holds.
    pub fn response(&self, status: u16, comment: &str) -> Self {
        let printable = |c: &char| (' '..='~').contains(c) && *c != '\\';
        Self {
            field: self.field | 0x8000,
            message_id: self.message_id,
            has_data_set: false,
            status,
            sop_class_uid: self.sop_class_uid.clone(),
            sop_instance_uid: self.sop_instance_uid.clone(),
            error_comment: comment.chars().filter(printable).take(64).collect(),
        }
    }
}

fn put(out: &mut Vec<u8>, element: u16, value: &[u8]) {
    out.extend([0, 0]);
    out.extend(element.to_le_bytes());
    out.extend((value.len() as u32).to_le_bytes());
    out.extend(value);
}

/// Text of even length.
fn padded(text: &str, pad: u8) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    if !bytes.len().is_multiple_of(2) {
        bytes.push(pad);
    }
    bytes
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_matches(['\0', ' ']).to_owned()
}

/// Preamble and file meta information (PS3.10 7.1) of an object that came in that coding.
///
/// The UIDs must be UIDs in form.
pub(crate) fn file_meta(sop_class_uid: &str, sop_instance_uid: &str, transfer_syntax: &str) -> Vec<u8> {
    let mut group = vec![];
    let mut element = |number: u16, vr: &[u8; 2], value: &[u8]| {
        group.extend(2u16.to_le_bytes());
        group.extend(number.to_le_bytes());
        group.extend(vr);
        if vr == b"OB" {
            group.extend([0, 0]);
            group.extend((value.len() as u32).to_le_bytes());
        } else {
            group.extend((value.len() as u16).to_le_bytes());
        }
        group.extend(value);
    };
    element(0x0001, b"OB", &[0, 1]);
    element(0x0002, b"UI", &padded(sop_class_uid, 0));
    element(0x0003, b"UI", &padded(sop_instance_uid, 0));
    element(0x0010, b"UI", &padded(transfer_syntax, 0));
    element(0x0012, b"UI", &padded(dicom_ul::IMPLEMENTATION_CLASS_UID, 0));
    let mut out = vec![0; 128];
    out.extend(b"DICM");
    out.extend([2, 0, 0, 0, b'U', b'L', 4, 0]);
    out.extend((group.len() as u32).to_le_bytes());
    out.append(&mut group);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_and_responses_survive() {
        let request = Command {
            field: C_STORE_RQ,
            message_id: 7,
            has_data_set: true,
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.1.1".into(),
            sop_instance_uid: "1.2.3".into(),
            ..Command::default()
        };
        assert_eq!(Command::decode(&request.encode()), Some(request.clone()));
        let response = request.response(status::OUT_OF_RESOURCES, "too many \\ films are waiting");
        assert_eq!(response.field, C_STORE_RSP);
        let read = Command::decode(&response.encode()).unwrap();
        assert_eq!((read.status, read.message_id, read.has_data_set), (0xA700, 7, false));
        assert_eq!(read.error_comment, "too many  films are waiting");
        // The group's length, as PS3.7 6.3.1 asks.
        let bytes = response.encode();
        assert_eq!(u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize, bytes.len() - 12);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::decode(&bytes);
        }

        #[test]
        fn a_cut_command_is_none(cut in 1usize..60) {
            let bytes = Command { field: C_ECHO_RQ, sop_class_uid: "1.2.840.10008.1.1".into(), ..Command::default() };
            let bytes = bytes.encode();
            let read = Command::decode(&bytes[..bytes.len() - cut.min(bytes.len())]);
            prop_assert!(read.is_none_or(|c| c.field == C_ECHO_RQ));
        }
    }
}
