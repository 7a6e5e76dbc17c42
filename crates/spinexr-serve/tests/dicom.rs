//! The DICOM side from outside: who may associate, what is taken, and results sent by C-STORE.

#![expect(clippy::unwrap_used, reason = "whatever goes wrong here is a failed test")]

mod common;

use common::{SR_CLASS, agent, config, film, program, report_uid, wait_until};
use dicom_ul::pdu::{PDataValue, PDataValueType};
use dicom_ul::{ClientAssociation, ClientAssociationOptions, Pdu, ServerAssociationOptions};
use spinexr_dicom::{DxFilm, encode_dx};
use spinexr_serve::config::{Destination, DicomTarget, Peer};
use spinexr_serve::{Config, Server};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DX: &str = "1.2.840.10008.5.1.4.1.1.1.1";
const VERIFICATION: &str = "1.2.840.10008.1.1";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";

fn start(change: impl FnOnce(&mut Config)) -> (TempDir, Server, SocketAddr) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    let server = Server::start(config, program()).unwrap();
    let address = server.dicom_address().unwrap();
    (dir, server, address)
}

fn associate(
    address: SocketAddr,
    calling: &str,
    called: &str,
) -> Result<ClientAssociation<TcpStream>, String> {
    ClientAssociationOptions::new()
        .calling_ae_title(calling)
        .called_ae_title(called)
        .with_presentation_context(VERIFICATION, vec![EXPLICIT])
        .with_presentation_context(DX, vec![EXPLICIT])
        .read_timeout(Duration::from_secs(20))
        .establish(address)
        .map_err(|e| format!("{e:?}"))
}

/// An element of a command set.
fn element(number: u16, value: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0];
    out.extend(number.to_le_bytes());
    out.extend((value.len() as u32).to_le_bytes());
    out.extend(value);
    out
}

fn uid(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

fn command(class: &str, field: u16, instance: Option<&str>) -> Vec<u8> {
    let mut body = element(0x0002, &uid(class));
    body.extend(element(0x0100, &field.to_le_bytes()));
    body.extend(element(0x0110, &7u16.to_le_bytes()));
    body.extend(element(0x0800, &(if instance.is_some() { 1u16 } else { 0x0101 }).to_le_bytes()));
    if let Some(instance) = instance {
        body.extend(element(0x1000, &uid(instance)));
    }
    let mut out = element(0, &(body.len() as u32).to_le_bytes());
    out.extend(body);
    out
}

fn send(
    association: &mut ClientAssociation<TcpStream>,
    context: u8,
    value_type: PDataValueType,
    data: Vec<u8>,
) {
    let value = PDataValue { presentation_context_id: context, value_type, is_last: true, data };
    association.send(&Pdu::PData { data: vec![value] }).unwrap();
}

/// Status of the response, and its comment.
fn response(association: &mut ClientAssociation<TcpStream>) -> (u16, String) {
    let Pdu::PData { data } = association.receive().unwrap() else { panic!("expected a response") };
    let mut bytes = &data[0].data[..];
    let (mut status, mut comment) = (None, String::new());
    while bytes.len() >= 8 {
        let number = u16::from_le_bytes([bytes[2], bytes[3]]);
        let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
        let value = &bytes[8..8 + length];
        match number {
            0x0900 => status = Some(u16::from_le_bytes(value.try_into().unwrap())),
            0x0902 => comment = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
        bytes = &bytes[8 + length..];
    }
    (status.unwrap(), comment)
}

/// Data set of a film, without file meta information.
fn data_set(film: &DxFilm) -> Vec<u8> {
    let file = encode_dx(film);
    let length = u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize;
    file[144 + length..].to_vec()
}

fn store(association: &mut ClientAssociation<TcpStream>, instance: &str, data: &[u8]) -> (u16, String) {
    let context = association.presentation_contexts().iter().find(|c| c.abstract_syntax == DX).unwrap().id;
    send(association, context, PDataValueType::Command, command(DX, 0x0001, Some(instance)));
    let mut writer = association.send_pdata(context);
    writer.write_all(data).unwrap();
    writer.finish().unwrap();
    response(association)
}

fn jobs(server: &Server) -> Vec<serde_json::Value> {
    let url = format!("http://{}/api/v1/jobs", server.http_address());
    let text = agent().get(url).call().unwrap().body_mut().read_to_string().unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["jobs"].as_array().unwrap().clone()
}

#[test]
fn films_come_by_c_store_and_are_the_same_as_files() {
    let (_dir, server, address) = start(|_| {});
    let mut association = associate(address, "MODALITY", "SPINEXR").unwrap();
    let echo =
        association.presentation_contexts().iter().find(|c| c.abstract_syntax == VERIFICATION).unwrap().id;
    send(&mut association, echo, PDataValueType::Command, command(VERIFICATION, 0x0030, None));
    assert_eq!(response(&mut association), (0, String::new()));
    let one = film(1);
    assert_eq!(store(&mut association, &one.sop_instance_uid, &data_set(&one)), (0, String::new()));
    assert_eq!(store(&mut association, &one.sop_instance_uid, &data_set(&one)).0, 0, "again: the same job");
    // Another operation, and what is no film, in the same association.
    send(&mut association, echo, PDataValueType::Command, command(VERIFICATION, 0x0020, None));
    assert_eq!(response(&mut association).0, 0x0211);
    assert_eq!(store(&mut association, &one.sop_instance_uid, &data_set(&film(2))).0, 0xA900);
    assert_eq!(store(&mut association, "../../etc/passwd", &data_set(&one)).0, 0xA900);
    assert_eq!(store(&mut association, "1.2.3", b"no data set at all").0, 0xC000);
    assert_eq!(store(&mut association, &film(3).sop_instance_uid, &data_set(&film(3))).0, 0);
    association.release().unwrap();
    wait_until("two films are read", || jobs(&server).iter().filter(|j| j["state"] == "done").count() == 2);
    assert_eq!(jobs(&server).len(), 2);

    let url = format!("http://{}/api/v1/films", server.http_address());
    let answer =
        agent().post(url).header("Content-Type", "application/dicom").send(&encode_dx(&one)[..]).unwrap();
    assert_eq!(answer.status().as_u16(), 200, "the same film as a file is known");
    server.stop();
}

#[test]
fn strangers_are_rejected() {
    let local = |title: &str, address: &str| Peer { ae_title: title.into(), address: Some(address.into()) };
    let (_dir, server, address) = start(|c| {
        c.dicom.peers = vec![local("PACS", "127.0.0.0/8"), local("FAR", "10.0.0.0/8")];
    });
    associate(address, "PACS", "SPINEXR").unwrap().release().unwrap();
    for (calling, called, reason) in [
        ("PACS", "OTHER", "CalledAETitleNotRecognized"),
        ("STRANGER", "SPINEXR", "CallingAETitleNotRecognized"),
        ("FAR", "SPINEXR", "CallingAETitleNotRecognized"),
    ] {
        let error = associate(address, calling, called).unwrap_err();
        assert!(error.contains(reason), "{calling} to {called}: {error}");
    }
    server.stop();
}

#[test]
fn size_time_and_number_are_bounded() {
    let (_dir, server, address) = start(|c| {
        c.dicom.max_object_bytes = 2000;
        c.dicom.max_associations = 2;
        c.dicom.idle_timeout_s = 1;
        c.dicom.association_timeout_s = 3;
    });
    let mut association = associate(address, "A", "SPINEXR").unwrap();
    let (status, comment) = store(&mut association, "1.2.3", &[0; 3000]);
    assert_eq!(status, 0xC000);
    assert!(comment.contains("limit of 2000 bytes"), "{comment}");
    let second = associate(address, "B", "SPINEXR").unwrap();
    let third = associate(address, "C", "SPINEXR").unwrap_err();
    assert!(
        third.contains("LocalLimitExceeded") || third.contains("Wire") || third.contains("ReadPdu"),
        "{third}"
    );
    drop(second);
    drop(association);

    // One that says nothing, and one that says something now and then: both are cut off.
    for pause in [None, Some(Duration::from_millis(300))] {
        let begin = Instant::now();
        let mut quiet = None;
        wait_until("there is room again", || {
            quiet = associate(address, "Q", "SPINEXR").ok();
            quiet.is_some()
        });
        let mut quiet = quiet.unwrap();
        match pause {
            None => assert!(quiet.receive().is_err()),
            Some(pause) => {
                // A PDU that never ends, a byte at a time.
                let stream = quiet.inner_stream();
                let mut bytes = [4, 0, 0, 0, 100, 0].into_iter().chain(std::iter::repeat(0));
                wait_until("the association is cut off", || {
                    std::thread::sleep(pause);
                    stream.write_all(&[bytes.next().unwrap()]).is_err()
                });
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(15));
    }
    server.stop();
}

#[test]
fn a_full_queue_is_out_of_resources() {
    let (_dir, server, address) = start(|c| c.queue.max_spool_bytes = 1);
    let mut association = associate(address, "A", "SPINEXR").unwrap();
    let (one, two) = (film(1), film(2));
    assert_eq!(store(&mut association, &one.sop_instance_uid, &data_set(&one)).0, 0);
    let (status, comment) = store(&mut association, &two.sop_instance_uid, &data_set(&two));
    assert_eq!((status, comment.trim()), (0xA700, "the spool is full"));
    association.release().unwrap();
    server.stop();
}

#[test]
fn results_go_out_by_c_store() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let (sender, received) = mpsc::channel();
    // A receiver that is out of resources first and takes it then.
    std::thread::spawn(move || {
        let options = ServerAssociationOptions::new()
            .accept_called_ae_title()
            .ae_title("ARCHIVE")
            .with_abstract_syntax(SR_CLASS)
            .with_transfer_syntax(EXPLICIT);
        for status in [0xA700u16, 0] {
            let Ok(mut association) = options.establish(listener.accept().unwrap().0) else {
                panic!("no association")
            };
            let (mut data, mut instance) = (vec![], vec![]);
            loop {
                match association.receive() {
                    Ok(Pdu::PData { data: values }) => {
                        for value in values {
                            match value.value_type {
                                PDataValueType::Command => instance = value.data,
                                PDataValueType::Data => data.extend(value.data),
                            }
                            if value.is_last && !data.is_empty() {
                                let mut body = element(0x0100, &0x8001u16.to_le_bytes());
                                body.extend(element(0x0120, &1u16.to_le_bytes()));
                                body.extend(element(0x0800, &0x0101u16.to_le_bytes()));
                                body.extend(element(0x0900, &status.to_le_bytes()));
                                let value = PDataValue {
                                    presentation_context_id: value.presentation_context_id,
                                    value_type: PDataValueType::Command,
                                    is_last: true,
                                    data: body,
                                };
                                association.send(&Pdu::PData { data: vec![value] }).unwrap();
                                sender.send((status, instance.clone(), std::mem::take(&mut data))).unwrap();
                            }
                        }
                    }
                    Ok(Pdu::ReleaseRQ) => {
                        association.send(&Pdu::ReleaseRP).unwrap();
                        break;
                    }
                    _ => break,
                }
            }
        }
    });
    let (_dir, server, address) = start(|c| {
        c.destinations = vec![Destination {
            name: "archive".into(),
            formats: vec![],
            timeout_s: 10,
            dicom: Some(DicomTarget {
                address: target.to_string(),
                ae_title: "ARCHIVE".into(),
                calling_ae_title: None,
                tls_ca: None,
            }),
            stow: None,
        }];
    });
    let one = film(1);
    let mut association = associate(address, "A", "SPINEXR").unwrap();
    assert_eq!(store(&mut association, &one.sop_instance_uid, &data_set(&one)).0, 0);
    association.release().unwrap();
    let wanted = report_uid(&one.sop_instance_uid);
    for status in [0xA700, 0] {
        let (answered, instance, data) = received.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(answered, status);
        assert!(
            instance.windows(wanted.len()).any(|w| w == wanted.as_bytes()),
            "the command names the report"
        );
        assert!(data.windows(wanted.len()).any(|w| w == wanted.as_bytes()), "and so does the data set");
    }
    wait_until("the delivery is noted", || {
        let id = jobs(&server)[0]["id"].as_str().unwrap().to_owned();
        let url = format!("http://{}/api/v1/jobs/{id}", server.http_address());
        let job = agent().get(url).call().unwrap().body_mut().read_to_string().unwrap();
        job.contains("\"delivered\"")
    });
    server.stop();
}
