//! `/docs`: the API as pages, from its OpenAPI document, and the error codes, from their table. They load nothing from elsewhere. The search works without
//! a script; the script only makes it immediate.
//!
//! | file | contains |
//! |---|---|
//! | `operation` | a call: parameters, body, answers, an example |
//! | `schema` | a schema: fields, types with links |
//! | `example` | values that fit a schema |
//! | `errors` | the error codes |

mod errors;
mod example;
mod operation;
mod schema;

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{Query, rejection::QueryRejection},
    http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    response::{IntoResponse, Response},
    routing::get,
};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use super::routes;

/// What a browser may do with the pages: use the style sheet and the script of this server, and send the search to it.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; img-src 'self'";

const STYLE: &str = include_str!("style.css");
const SEARCH: &str = include_str!("search.js");
const ICON: &str = include_str!("icon.svg");

/// The pages, for a router with any state: the vault serves them, and so does `canton-keyvault ui`.
pub fn documentation_pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let document = routes::openapi();
    let json = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
    let page = Arc::new(ApiPage::new(&serde_json::to_value(&document).unwrap_or_default()));
    let errors = Bytes::from(errors::page());
    Router::new()
        .route("/openapi.json", get(move || std::future::ready(([(CONTENT_TYPE, "application/json")], json.clone()))))
        .route("/docs", get(move |query| std::future::ready(html_answer(page.find(query).into()))))
        .route("/docs/errors", get(move || std::future::ready(html_answer(errors.clone()))))
        .route("/docs/style.css", get(async || ([(CONTENT_TYPE, "text/css; charset=utf-8"), NO_SNIFF], STYLE)))
        .route("/docs/icon.svg", get(async || ([(CONTENT_TYPE, "image/svg+xml"), NO_SNIFF], ICON)))
        .route("/docs/search.js", get(async || ([(CONTENT_TYPE, "text/javascript; charset=utf-8"), NO_SNIFF], SEARCH)))
}

const NO_SNIFF: (axum::http::HeaderName, &str) = (X_CONTENT_TYPE_OPTIONS, "nosniff");

fn html_answer(body: Bytes) -> Response {
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), NO_SNIFF, (CONTENT_SECURITY_POLICY, POLICY)], body).into_response()
}

/// The page of the API in the parts that a search shows or hides.
struct ApiPage {
    title: String,
    introduction: Markup,
    groups: Vec<Group>,
}

/// Parts under one headline.
struct Group {
    id: String,
    title: String,
    parts: Vec<Part>,
}

/// A call or a schema.
struct Part {
    /// What a search compares, in lower case.
    words: String,
    content: Markup,
}

impl ApiPage {
    fn new(document: &Value) -> Self {
        let info = |name: &str| document.pointer(&format!("/info/{name}")).and_then(Value::as_str).unwrap_or_default();
        let introduction = html! { @for text in info("description").split("\n\n") { p { (prose(text)) } } };
        let mut groups = operation::groups(document);
        groups.push(Group { id: "schemas".into(), title: "Schemas".into(), parts: schema::parts(document) });
        Self { title: format!("{} {}", info("title"), info("version")), introduction, groups }
    }

    /// The page, with the parts that have all words of the query. The others are hidden, so that the script can show them again.
    fn find(&self, query: Result<Query<HashMap<String, String>>, QueryRejection>) -> String {
        let asked = query.ok().and_then(|Query(mut values)| values.remove("q")).unwrap_or_default();
        let lower = asked.to_lowercase();
        let words: Vec<&str> = lower.split_whitespace().collect();
        let fits = |part: &Part| words.iter().all(|word| part.words.contains(word));
        let found = self.groups.iter().flat_map(|group| &group.parts).filter(|part| fits(part)).count();
        let body = html! {
            (self.introduction)
            p { a href="/openapi.json" { "openapi.json" } " (OpenAPI 3.1, for generators) · " a href="/docs/errors" { "Error codes" } }
            form role="search" method="get" action="/docs" {
                label for="search" { "Search calls and schemas" }
                input type="search" id="search" name="q" value=(asked) autocomplete="off";
                button type="submit" { "Search" }
                @if !words.is_empty() { a href="/docs" { "Show all" } }
            }
            p id="found" role="status" { (found) " found" }
            nav aria-label="Contents" { ul { @for group in &self.groups { li { a href={ "#" (group.id) } { (group.title) } } } } }
            @for Group { id, title, parts } in &self.groups {
                section id=(id) hidden[!parts.iter().any(fits)] {
                    h2 { (title) }
                    @for part in parts { details data-search=(part.words) hidden[!fits(part)] { (part.content) } }
                }
            }
        };
        document(&self.title, &body, true)
    }
}

/// The document of a page.
fn document(title: &str, body: &Markup, with_search: bool) -> String {
    let head = html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        title { (title) }
        link rel="stylesheet" href="/docs/style.css";
        link rel="icon" href="/docs/icon.svg" type="image/svg+xml";
        @if with_search { script src="/docs/search.js" defer {} }
    };
    html! { (DOCTYPE) html lang="en" { head { (head) } body { main { h1 { (title) } (body) } } } }.into_string()
}

/// Text of the document, in which `code` stands in backquotes.
fn prose(text: &str) -> Markup {
    let mut code = false;
    let mut shown = String::with_capacity(text.len() + 32);
    for part in text.split('`') {
        let part = html! { @if code { code { (part) } } @else { (part) } };
        shown.push_str(&part.into_string());
        code = !code;
    }
    PreEscaped(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> String {
        let uri = format!("/docs?q={query}").parse().unwrap();
        ApiPage::new(&serde_json::to_value(routes::openapi()).unwrap()).find(Query::try_from_uri(&uri))
    }

    #[test]
    fn the_page_shows_every_call_and_schema_and_loads_nothing_from_elsewhere() {
        let page = page("");
        let document = serde_json::to_value(routes::openapi()).unwrap();
        for path in document["paths"].as_object().unwrap().keys() {
            assert!(page.contains(&html! { (path) }.into_string()), "{path}");
        }
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("id=\"schema-{name}\"")), "{name}");
        }
        let page = page + &errors::page();
        let loaded: Vec<_> = page.split("src=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(loaded, ["/docs/search.js"]);
        for word in ["<style", "style=", "onclick", "javascript:", "http://"] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(!page.contains("href=\"https:"));
    }

    #[test]
    fn every_link_inside_the_pages_leads_somewhere() {
        let (page, errors) = (page(""), errors::page());
        let links: std::collections::BTreeSet<_> = page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(links.len() > 100, "{}", links.len());
        for link in links {
            let (place, id) = link.split_once('#').unwrap_or((link, ""));
            if ["/docs/style.css", "/docs/icon.svg", "/openapi.json", "/docs"].contains(&place) {
                continue;
            }
            let target = if place == "/docs/errors" { &errors } else { &page };
            assert!(id.is_empty() || target.contains(&format!("id=\"{id}\"")), "{link}");
        }
    }

    #[test]
    fn a_search_hides_what_does_not_have_all_words_and_stays_text() {
        let page = page("POST+Reseals%22%3E%3Cscript%3E");
        assert!(page.contains("value=\"POST Reseals&quot;&gt;&lt;script&gt;\"") && page.contains(">0 found<"), "{page}");
        let page = self::page("post+reseals%2F%7Bid%7D%2Fabort");
        assert!(page.contains(">1 found<"), "{page}");
        let shown: Vec<_> = page.split("<details ").skip(1).filter(|part| !part.split('>').next().unwrap().contains(" hidden")).collect();
        assert!(shown.len() == 1 && shown[0].contains("/v1/keys/reseals/{id}/abort"), "{shown:?}");
    }
}
