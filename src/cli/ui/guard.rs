//! The check of every request before a page sees it, and the headers of every answer. Nothing of the vault is in a refusal.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{COOKIE, HOST, ORIGIN},
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{layout, server::App};

/// What a browser may do with a page: use the style sheet of this server, and send forms to this server. No script, no frame, no other server.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; script-src 'none'";

/// The headers of every answer. With `no-referrer` a browser would send `Origin: null` with forms.
const HEADERS: &[(&str, &str)] = &[
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Paths that work without a session: the one that begins it, and what the page of a refusal loads.
const OPEN: &[&str] = &["/login", "/style.css", "/docs/icon.svg"];

/// Lets a request through, or refuses it.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let checked = check(&app, request.method(), request.uri().path(), request.headers());
    let mut answer = match checked {
        Ok(()) => next.run(request).await,
        Err(reason) => refusal(StatusCode::FORBIDDEN, reason),
    };
    for (name, value) in HEADERS {
        // The pages of the API document have a policy of their own, for their search.
        answer.headers_mut().entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
    answer
}

/// A page that says why a request was refused.
pub(super) fn refusal(status: StatusCode, reason: &str) -> Response {
    (status, layout::message("Refused", reason)).into_response()
}

fn check(app: &App, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), &'static str> {
    let host = one(headers, &HOST).filter(|host| app.session.is_host(host));
    let Some(host) = host else {
        return Err("The request names another server. Open the URL that the command printed; it begins with the address of this machine.");
    };
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if !reads && one(headers, &ORIGIN).and_then(|origin| origin.strip_prefix("http://")) != Some(host) {
        return Err("The form was not sent by a page of this server.");
    }
    let mut cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    if OPEN.contains(&path) || cookies.any(|cookies| app.session.has_cookie(cookies)) {
        return Ok(());
    }
    Err("This browser has no session. Open the URL that the command printed. It works once: for another browser, start the command again.")
}

/// The value of a header that occurs once.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
