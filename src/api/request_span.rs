//! The span of a request: begun before the call is read, described by its answer. Nothing that a client wrote is in it, except ids in their fixed form.

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
    response::Response,
};

use crate::{
    domain::Principal,
    traces::{ActiveSpan, TraceParent},
    vault::CallFields,
};

use super::{Api, problem::Refusal};

/// The methods that a span names (RFC 9110, section 9, and RFC 5789). Others are text of the client.
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Begins the span of a request of a caller, if the call is traced. Its name is the method and the route, as the conventions of OpenTelemetry for HTTP want it.
pub(super) fn begin(api: &Api, caller: Option<&Principal>, request: &Request, request_id: &str) -> Option<ActiveSpan> {
    let tracer = api.tracer.as_ref()?;
    let parent = request.headers().get("traceparent").and_then(|header| header.to_str().ok()).and_then(TraceParent::parse);
    let (method, route) = (method(request.method()), request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    let name = route.map_or_else(|| "HTTP".to_owned(), |route| format!("{method} {route}"));
    let mut span = match caller {
        Some(caller) => tracer.begin(caller, parent, request_id, name)?,
        None => tracer.begin(&Principal::unauthenticated(None), parent, request_id, name)?,
    };
    span.text("http.request.method", method);
    if let Some(route) = route {
        span.text("http.route", route.to_owned());
    }
    Some(span)
}

/// Describes the span by the answer. Its end is when it is dropped.
pub(super) fn describe(span: &mut ActiveSpan, call: &CallFields, response: &Response) {
    let status = response.status();
    span.number("http.response.status_code", status.as_u16().into());
    span.text("keyvault.operation", call.operation);
    span.text("keyvault.request_id", call.request_id.to_string());
    if let Some(key) = call.key() {
        span.text("keyvault.key_id", key.to_string());
    }
    if let Some(node) = call.node() {
        span.text("keyvault.node", node.to_string());
    }
    let code = response.extensions().get::<Refusal>().map(|refusal| refusal.code.as_str());
    if let Some(code) = code {
        span.text("keyvault.code", code);
    }
    if status.is_server_error() {
        span.failed(code.unwrap_or("internal"));
    }
}

fn method(method: &Method) -> &'static str {
    METHODS.iter().copied().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}
