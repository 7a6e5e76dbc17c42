//! Who may do what, and how often.
//!
//! A token comes as `Authorization: Bearer …`; its SHA-256 is compared with the configured ones. Without any configured
//! token the service is on loopback and open; then a request must name a loopback host and come from no other site's page,
//! so that a web page in the user's browser cannot reach it, neither by name (DNS rebinding) nor across sites.

use super::problem::Problem;
use crate::config::{Config, Role, Token};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use spinexr_core::hex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Most clients whose rate is remembered.
const MAX_CLIENTS: usize = 10_000;

/// Who a request is from, as the audit log names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor(pub String);

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone: nothing of a film is told.
    Public,
    /// Tokens with one of these roles; an admin may do all.
    Any(&'static [Role]),
}

/// Lets a request pass, or says why not.
pub(crate) fn authorize(
    config: &Config,
    access: Access,
    headers: &HeaderMap,
    peer: IpAddr,
) -> Result<Actor, Problem> {
    if config.is_open() {
        check_local(headers)?;
        return Ok(Actor(format!("open@{peer}")));
    }
    let Access::Any(roles) = access else { return Ok(Actor(format!("anyone@{peer}"))) };
    let unauthorized = |detail| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
    let header =
        headers.get(AUTHORIZATION).ok_or_else(|| unauthorized("expected Authorization: Bearer TOKEN"))?;
    let token = header.to_str().ok().and_then(|text| text.split_once(' '));
    let token =
        token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    let token = token.ok_or_else(|| unauthorized("expected Authorization: Bearer TOKEN"))?;
    let token = find(&config.tokens, token).ok_or_else(|| unauthorized("unknown token"))?;
    if token.roles.contains(&Role::Admin) || token.roles.iter().any(|role| roles.contains(role)) {
        Ok(Actor(format!("token:{}", token.name)))
    } else {
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "the token has no role that allows this"))
    }
}

/// The configured token of that text. All are compared, each to its end: the time tells nothing.
fn find<'a>(tokens: &'a [Token], text: &str) -> Option<&'a Token> {
    let hash = hex(&Sha256::digest(text.as_bytes()));
    let mut found = None;
    for token in tokens {
        let differences =
            token.sha256.bytes().zip(hash.bytes()).fold(0, |sum, (a, b)| sum | (a.to_ascii_lowercase() ^ b));
        if differences == 0 {
            found = Some(token);
        }
    }
    found
}

fn check_local(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail| Err(Problem::new(StatusCode::FORBIDDEN, "not-local", detail));
    let text = |name| headers.get(name).map(|v: &axum::http::HeaderValue| v.to_str().unwrap_or_default());
    if !text(HOST).is_some_and(is_local_host) {
        return refuse("without tokens only requests to localhost are answered");
    }
    if let Some(origin) = text(ORIGIN) {
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        // Another port of this machine is another site.
        if text(HOST) != Some(host) {
            return refuse("without tokens no requests of other sites' pages are answered");
        }
    }
    Ok(())
}

fn is_local_host(host: &str) -> bool {
    let name = if host.starts_with('[') {
        host.split_once(']').map_or(host, |(name, _)| &name[1..])
    } else {
        host.split_once(':').map_or(host, |(name, _)| name)
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Token buckets, one a client: a minute's requests may come at once, then they come at the rate.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    clients: Mutex<HashMap<String, (f64, Instant)>>,
}

impl Rates {
    /// Counts a request; with the rate used up, the seconds until there is room again.
    pub fn count(&self, client: &str, per_minute: u32, now: Instant) -> Result<(), u32> {
        if per_minute == 0 {
            return Ok(());
        }
        let most = f64::from(per_minute);
        let per_second = most / 60.0;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(client) {
            // Whoever has been quiet for a minute has a full bucket and need not be remembered.
            clients.retain(|_, (_, seen)| now.duration_since(*seen).as_secs() < 60);
            if clients.len() >= MAX_CLIENTS {
                return Err(60);
            }
        }
        let (left, seen) = clients.entry(client.to_owned()).or_insert((most, now));
        *left = (*left + now.duration_since(*seen).as_secs_f64() * per_second).min(most);
        *seen = now;
        if *left < 1.0 {
            return Err(((1.0 - *left) / per_second).ceil() as u32);
        }
        *left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn local_hosts() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:80", "[::1]:8080", "127.8.8.8"] {
            assert!(is_local_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[2001:db8::1]",
            "10.0.0.1",
        ] {
            assert!(!is_local_host(host), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        let check = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            check_local(&headers).is_ok()
        };
        assert!(check("localhost:8080", None));
        assert!(check("localhost:8080", Some("http://localhost:8080")));
        assert!(!check("localhost:8080", Some("http://localhost:3000")));
        assert!(!check("localhost:8080", Some("https://evil.example")));
        assert!(!check("localhost:8080", Some("null")));
        assert!(!check("evil.example:8080", None));
    }

    #[test]
    fn roles_decide() {
        let token = |name: &str, roles: &[Role]| Token {
            name: name.into(),
            sha256: hex(&Sha256::digest(name.as_bytes())).to_uppercase(),
            roles: roles.to_vec(),
        };
        let config = Config {
            tokens: vec![token("r", &[Role::Read]), token("s", &[Role::Submit]), token("a", &[Role::Admin])],
            ..Config::default()
        };
        let peer = IpAddr::from([10, 0, 0, 1]);
        let ask = |header: Option<&str>, access| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(AUTHORIZATION, header.parse().unwrap());
            }
            authorize(&config, access, &headers, peer).map(|a| a.0).map_err(|p| p.status.as_u16())
        };
        let read = Access::Any(&[Role::Read]);
        assert_eq!(ask(Some("Bearer r"), read), Ok("token:r".into()));
        assert_eq!(ask(Some("bearer a"), read), Ok("token:a".into()));
        assert_eq!(ask(Some("Bearer s"), read), Err(403));
        assert_eq!(ask(Some("Bearer x"), read), Err(401));
        assert_eq!(ask(Some("Basic r"), read), Err(401));
        assert_eq!(ask(None, read), Err(401));
        assert_eq!(ask(None, Access::Public), Ok("anyone@10.0.0.1".into()));
    }

    #[test]
    fn rates_refill() {
        let rates = Rates::default();
        let start = Instant::now();
        for _ in 0..60 {
            assert_eq!(rates.count("a", 60, start), Ok(()));
        }
        assert_eq!(rates.count("a", 60, start), Err(1));
        assert_eq!(rates.count("b", 60, start), Ok(()));
        assert_eq!(rates.count("a", 60, start + Duration::from_secs(2)), Ok(()));
        assert_eq!(rates.count("a", 0, start), Ok(()));
    }
}
