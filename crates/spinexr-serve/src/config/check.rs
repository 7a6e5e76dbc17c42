//! Which configurations can be used.

use super::{Config, Peer, Postgres};
use crate::annotation::is_reader_name;
use crate::config::Role;
use crate::error::ServeError;
use std::net::IpAddr;
use std::path::PathBuf;

/// Shortest time after which a node is taken for dead: a slow disk or database must not look like death.
const MIN_LEASE_S: u64 = 10;
/// Longest such time: an hour.
const MAX_LEASE_S: u64 = 3600;
/// Longest pause before something is tried again: a week.
const MAX_BACKOFF_MS: u64 = 7 * 24 * 3_600_000;
/// Longest time for which a delivery is tried: ten years.
const MAX_DELIVERY_HOURS: u64 = 10 * 365 * 24;

impl Config {
    /// Whether the configuration can be used.
    ///
    /// # Errors
    /// [`ServeError::Config`] names the first key that cannot.
    pub fn check(&self) -> Result<(), ServeError> {
        if !self.http.listen.ip().is_loopback() && self.tokens.is_empty() {
            let listen = self.http.listen;
            return fail("http.listen", "a loopback address where there are no [[tokens]]", listen);
        }
        pair("http.tls_certificate, http.tls_key", &self.http.tls_certificate, &self.http.tls_key)?;
        pair("dicom.tls_certificate, dicom.tls_key", &self.dicom.tls_certificate, &self.dicom.tls_key)?;
        at_least_one("http.max_body_bytes", self.http.max_body_bytes)?;
        at_least_one("http.max_connections", self.http.max_connections as u64)?;
        at_least_one("http.header_timeout_s", self.http.header_timeout_s)?;
        at_least_one("http.idle_timeout_s", self.http.idle_timeout_s)?;
        at_least_one("http.body_timeout_s", self.http.body_timeout_s)?;
        self.check_dicom()?;
        at_least_one("queue.workers", self.queue.workers as u64)?;
        at_least_one("queue.max_attempts", self.queue.max_attempts.into())?;
        at_least_one("queue.max_interruptions", self.queue.max_interruptions.into())?;
        at_least_one("queue.backoff_ms", self.queue.backoff_ms)?;
        within("queue.max_backoff_ms", self.queue.max_backoff_ms, self.queue.backoff_ms, MAX_BACKOFF_MS)?;
        within("queue.delivery_hours", self.queue.delivery_hours, 0, MAX_DELIVERY_HOURS)?;
        within("store.lease_s", self.store.lease_s, MIN_LEASE_S, MAX_LEASE_S)?;
        if let Some(postgres) = &self.store.postgres {
            postgres.parse()?;
        }
        if self.reading.labels.is_empty() || self.reading.labels.iter().any(String::is_empty) {
            return fail(
                "reading.labels",
                "at least one finding, none of them empty",
                format!("{:?}", self.reading.labels),
            );
        }
        for (i, token) in self.tokens.iter().enumerate() {
            let is_hash = token.sha256.len() == 64 && token.sha256.bytes().all(|b| b.is_ascii_hexdigit());
            if !is_hash {
                return fail(&format!("tokens[{i}].sha256"), "64 hexadecimal digits", "something else");
            }
            if token.roles.is_empty() {
                return fail(
                    &format!("tokens[{i}].roles"),
                    "at least one of read, submit, annotate, admin",
                    "none",
                );
            }
            if token.roles.contains(&Role::Annotate) && !is_reader_name(&token.name) {
                let expected = "1 to 64 letters, digits, . _ - for a token that reads films";
                return fail(&format!("tokens[{i}].name"), expected, &token.name);
            }
            unique(&format!("tokens[{i}].name"), &token.name, self.tokens[..i].iter().map(|t| &t.name))?;
        }
        for (i, destination) in self.destinations.iter().enumerate() {
            let key = format!("destinations[{i}]");
            let before = self.destinations[..i].iter().map(|d| &d.name);
            unique(&format!("{key}.name"), &destination.name, before)?;
            at_least_one(&format!("{key}.timeout_s"), destination.timeout_s)?;
            if destination.dicom.is_some() == destination.stow.is_some() {
                return fail(&key, "either dicom or stow", "both or neither");
            }
            if let Some(dicom) = &destination.dicom {
                check_ae_title(&format!("{key}.dicom.ae_title"), &dicom.ae_title)?;
                if let Some(calling) = &dicom.calling_ae_title {
                    check_ae_title(&format!("{key}.dicom.calling_ae_title"), calling)?;
                }
            }
            if let Some(stow) = &destination.stow
                && !(stow.url.starts_with("http://") || stow.url.starts_with("https://"))
            {
                return fail(&format!("{key}.stow.url"), "http:// or https://", &stow.url);
            }
        }
        Ok(())
    }

    fn check_dicom(&self) -> Result<(), ServeError> {
        let dicom = &self.dicom;
        if dicom.enabled && !dicom.listen.ip().is_loopback() && dicom.peers.is_empty() {
            return fail("dicom.listen", "a loopback address where there are no dicom.peers", dicom.listen);
        }
        check_ae_title("dicom.ae_title", &dicom.ae_title)?;
        if !(4096..=131_072).contains(&dicom.max_pdu_bytes) {
            return fail("dicom.max_pdu_bytes", "4096 to 131072", dicom.max_pdu_bytes);
        }
        at_least_one("dicom.max_object_bytes", dicom.max_object_bytes)?;
        at_least_one("dicom.max_associations", dicom.max_associations as u64)?;
        at_least_one("dicom.idle_timeout_s", dicom.idle_timeout_s)?;
        at_least_one("dicom.association_timeout_s", dicom.association_timeout_s)?;
        if dicom.tls_client_ca.is_some() && dicom.tls_key.is_none() {
            return fail(
                "dicom.tls_client_ca",
                "dicom.tls_certificate and dicom.tls_key beside it",
                "neither",
            );
        }
        for (i, peer) in dicom.peers.iter().enumerate() {
            check_ae_title(&format!("dicom.peers[{i}].ae_title"), &peer.ae_title)?;
            if let Some(network) = peer.address.as_ref().filter(|n| parse_network(n).is_none()) {
                return fail(
                    &format!("dicom.peers[{i}].address"),
                    "an address, or a network as 10.1.0.0/16",
                    network,
                );
            }
        }
        Ok(())
    }
}

impl Postgres {
    /// The connection, without the password of the file.
    pub(crate) fn parse(&self) -> Result<postgres::Config, ServeError> {
        const KEY: &str = "store.postgres.connection";
        // Neither message repeats the text: it may hold a password.
        let config: postgres::Config = match self.connection.parse() {
            Ok(config) => config,
            Err(_) => return fail(KEY, "host=… user=… dbname=…, or a URL", "something else"),
        };
        if config.get_password().is_some() {
            return fail(KEY, "no password; it belongs into password_file", "one");
        }
        Ok(config)
    }
}

impl Peer {
    /// Whether this is the peer of that title at that address.
    pub fn is(&self, ae_title: &str, address: IpAddr) -> bool {
        let within = |network: &String| parse_network(network).is_some_and(|n| contains(n, address));
        self.ae_title == ae_title && self.address.as_ref().is_none_or(within)
    }
}

/// An address and the bits of it that count.
fn parse_network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address.parse::<IpAddr>().ok()?, Some(bits.parse::<u32>().ok()?)),
        None => (text.parse().ok()?, None),
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some((address, bits))
}

fn contains((network, bits): (IpAddr, u32), address: IpAddr) -> bool {
    let (a, b, width) = match (network, address.to_canonical()) {
        (IpAddr::V4(n), IpAddr::V4(a)) => (u128::from(u32::from(n)), u128::from(u32::from(a)), 32),
        (IpAddr::V6(n), IpAddr::V6(a)) => (u128::from(n), u128::from(a), 128),
        _ => return false,
    };
    bits == 0 || (a ^ b) >> (width - bits) == 0
}

fn fail<T>(key: &str, expected: &str, got: impl std::fmt::Display) -> Result<T, ServeError> {
    Err(ServeError::Config { key: key.into(), expected: expected.into(), got: got.to_string() })
}

fn at_least_one(key: &str, value: u64) -> Result<(), ServeError> {
    if value == 0 { fail(key, "at least 1", value) } else { Ok(()) }
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<(), ServeError> {
    if (least..=most).contains(&value) { Ok(()) } else { fail(key, &format!("{least} to {most}"), value) }
}

fn pair(keys: &str, a: &Option<PathBuf>, b: &Option<PathBuf>) -> Result<(), ServeError> {
    if a.is_some() == b.is_some() { Ok(()) } else { fail(keys, "both or neither", "one of them") }
}

fn unique<'a>(
    key: &str,
    name: &String,
    mut before: impl Iterator<Item = &'a String>,
) -> Result<(), ServeError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
        return fail(key, "1 to 32 letters, digits, - and _", format!("{name:?}"));
    }
    if before.any(|other| other == name) {
        return fail(key, "a name of its own", name);
    }
    Ok(())
}

/// PS3.5 6.2, VR AE.
fn check_ae_title(key: &str, title: &str) -> Result<(), ServeError> {
    let plain = |b: u8| (0x20..0x7F).contains(&b) && b != b'\\';
    if title.trim().is_empty() || title.trim() != title || title.len() > 16 || !title.bytes().all(plain) {
        return fail(key, "1 to 16 ASCII characters without a backslash", format!("{title:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let hash = "0".repeat(64);
        let token = format!("[[tokens]]\nname = \"a\"\nsha256 = \"{hash}\"\nroles = [\"read\"]\n");
        let cases = [
            ("[http]\nlisten = \"0.0.0.0:80\"".to_owned(), "http.listen"),
            ("[dicom]\nlisten = \"[::]:104\"".to_owned(), "dicom.listen"),
            ("[dicom]\nae_title = \"A\\\\B\"".to_owned(), "dicom.ae_title"),
            ("[dicom]\nae_title = \"SEVENTEEN_LETTERS\"".to_owned(), "dicom.ae_title"),
            (
                "[dicom]\npeers = [{ ae_title = \"A\", address = \"10.0.0.0/33\" }]".to_owned(),
                "peers[0].address",
            ),
            ("[http]\ntls_key = \"a\"".to_owned(), "http.tls_certificate"),
            ("[queue]\nworkers = 0".to_owned(), "queue.workers"),
            ("[store]\nlease_s = 1".to_owned(), "store.lease_s"),
            ("[queue]\nmax_backoff_ms = 999".to_owned(), "queue.max_backoff_ms: expected 1000 to"),
            (format!("[queue]\ndelivery_hours = {}", i64::MAX), "queue.delivery_hours"),
            (
                "[store]\npostgres = { connection = \"host=db password=secret\" }".to_owned(),
                "store.postgres.connection",
            ),
            ("[store]\npostgres = { connection = \"secret\" }".to_owned(), "store.postgres.connection"),
            (format!("{token}{token}"), "tokens[1].name"),
            (token.replace(&hash, "secret"), "tokens[0].sha256"),
            (
                "[[destinations]]\nname = \"a\"\nstow = { url = \"ftp://x\" }".to_owned(),
                "destinations[0].stow.url",
            ),
            ("nonsense = 1".to_owned(), "nonsense"),
            ("[http]\nlitsen = \"127.0.0.1:80\"".to_owned(), "litsen"),
        ];
        for (text, expected) in cases {
            let error = Config::from_toml(&text).expect_err(&text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("secret"), "a token's text is not repeated: {error}");
        }
    }

    #[test]
    fn peers_are_told_by_title_and_network() {
        let peer = |address: Option<&str>| Peer { ae_title: "PACS".into(), address: address.map(Into::into) };
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(peer(None).is("PACS", at("8.8.8.8")));
        assert!(!peer(None).is("pacs", at("8.8.8.8")));
        assert!(peer(Some("10.1.0.0/16")).is("PACS", at("10.1.255.1")));
        assert!(!peer(Some("10.1.0.0/16")).is("PACS", at("10.2.0.1")));
        assert!(peer(Some("10.1.0.7")).is("PACS", at("::ffff:10.1.0.7")));
        assert!(!peer(Some("10.1.0.7")).is("PACS", at("10.1.0.6")));
        assert!(peer(Some("0.0.0.0/0")).is("PACS", at("1.2.3.4")));
        assert!(peer(Some("fd00::/8")).is("PACS", at("fd12::1")));
    }
}
