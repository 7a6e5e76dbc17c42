//! The web reader: files that are in the program and load nothing from anywhere else.

use super::problem::Problem;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal: $kind:ident),* $(,)?) => {
        &[$(($name, $kind, include_str!(concat!("../../web/", $name)))),*]
    };
}

const FILES: &[(&str, &str, &str)] = files!(
    "index.html": HTML,
    "style.css": CSS,
    "main.js": SCRIPT,
    "api.js": SCRIPT,
    "findings.js": SCRIPT,
    "geometry.js": SCRIPT,
    "keys.js": SCRIPT,
    "painter.js": SCRIPT,
    "pane.js": SCRIPT,
    "reading.js": SCRIPT,
    "studies.js": SCRIPT,
);

/// Scripts and styles from here alone, so that text in a film's header cannot become a script; pictures of evidence are blobs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

type File = ([(HeaderName, &'static str); 3], &'static str);

fn find(name: &str) -> Option<File> {
    let &(_, kind, text) = FILES.iter().find(|(known, ..)| *known == name)?;
    // Asked for anew each time: a page of one version must not run with scripts of another.
    Some(([(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-cache")], text))
}

pub(super) async fn to_page() -> impl IntoResponse {
    (StatusCode::SEE_OTHER, [(LOCATION, "/reader/")])
}

pub(super) async fn page() -> impl IntoResponse {
    find("index.html").expect("the page is among the files")
}

pub(super) async fn file(Path(name): Path<String>) -> Result<impl IntoResponse, Problem> {
    find(&name).ok_or_else(|| Problem::not_found("page"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_is_named_is_there() {
        for (_, _, text) in FILES {
            let imports = text.lines().filter_map(|line| line.split_once("from \"./")?.1.split_once('"'));
            for (name, _) in imports {
                assert!(find(name).is_some(), "{name}");
            }
        }
        let page = FILES[0].2;
        for name in ["style.css", "main.js"] {
            assert!(page.contains(&format!("\"{name}\"")) && find(name).is_some());
        }
        assert!(find("../Cargo.toml").is_none());
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        for (name, _, text) in FILES {
            let allowed = ["http://www.w3.org/2000/svg"]; // a namespace, never fetched
            let text = allowed.iter().fold((*text).to_owned(), |text, allowed| text.replace(allowed, ""));
            assert!(!text.contains("http://") && !text.contains("https://"), "{name}");
        }
    }
}
