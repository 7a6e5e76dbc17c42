//! The API's description: an OpenAPI document, and a page that shows it. Both are in the program and need no network.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;

const DOCUMENT: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("page.html");

pub(super) async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "max-age=300")], DOCUMENT)
}

pub(super) async fn page() -> impl IntoResponse {
    // The page's own style and script are inside it; it loads the document and nothing else.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, policy)], PAGE)
}

#[cfg(test)]
mod tests {
    use super::super::routes;
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document = document();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys().filter(|k| *k != "parameters");
                methods.map(|method| (method.clone(), path.clone()))
            })
            .collect();
        let routes: BTreeSet<(String, String)> =
            routes::table().iter().map(|r| (r.method.to_owned(), r.path.to_owned())).collect();
        assert_eq!(described, routes);
    }

    #[test]
    fn parameters_and_references_hold() {
        let document = document();
        for (path, item) in document["paths"].as_object().unwrap() {
            let names: BTreeSet<&str> =
                path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')).collect();
            for (method, operation) in item.as_object().unwrap() {
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let declared: BTreeSet<String> = parameters
                    .iter()
                    .map(|p| resolve(&document, p))
                    .filter(|p| p["in"] == "path")
                    .map(|p| p["name"].as_str().unwrap().to_owned())
                    .collect();
                assert_eq!(
                    declared.iter().map(String::as_str).collect::<BTreeSet<_>>(),
                    names,
                    "{method} {path}"
                );
                assert!(
                    operation["summary"].is_string() && operation["responses"].is_object(),
                    "{method} {path}"
                );
            }
        }
        check_references(&document, &document);
    }

    fn resolve(document: &Value, value: &Value) -> Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference}")).clone()
            }
            None => value.clone(),
        }
    }

    fn check_references(document: &Value, value: &Value) {
        match value {
            Value::Object(map) => {
                resolve(document, value);
                map.values().for_each(|v| check_references(document, v));
            }
            Value::Array(list) => list.iter().for_each(|v| check_references(document, v)),
            _ => {}
        }
    }
}
