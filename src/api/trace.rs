//! Around every request: an id, one log line, one measurement, and a problem document if a handler panicked.

use std::{any::Any, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Version, header::CONNECTION},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{
    domain::{Hex, KeyId, Operation, Principal},
    mtls::RefusedClient,
    vault::{CallFields, Code, Reason},
};

use super::{
    Api,
    problem::{Anonymous, Refusal},
};

/// The id of a request: 32 hex digits, random.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Gives the request its id, and logs and measures its result.
pub(super) async fn trace(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(&api);
    request.extensions_mut().insert(id.clone());
    let (method, version) = (request.method().clone(), request.version());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let traceparent = request.headers().get("traceparent").cloned();
    let operation = matched.and_then(|path| api.operations.of(&method, path.as_str()));
    // Labels from closed sets: operations of the route table, and classes of status.
    let name = operation.map_or("none", |operation| operation.as_str());
    let call = CallFields::new(Arc::clone(&id.0), name, key_in(request.uri().path()));
    let mut response = Arc::clone(&call).scope(next.run(request)).await;
    if let Some(refused) = response.extensions_mut().remove::<RefusedClient>() {
        refused.record(id.as_str());
    }
    Anonymous::name(&mut response, id.as_str());
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert("x-request-id", value);
    }
    if let Some(parent) = traceparent {
        response.headers_mut().insert("traceparent", parent);
    }
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    let (status, elapsed) = (response.status().as_u16(), began.elapsed());
    if version <= Version::HTTP_11 && matches!(operation, Some(Operation::ImportKey | Operation::ExportKey)) {
        // The buffers of the connection held a key in plain text. Closing the connection wipes them.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let class = match status {
        0..400 => "ok",
        400..500 => "refused",
        _ => "failed",
    };
    metrics::histogram!("keyvault_request_seconds", "operation" => name, "outcome" => class).record(elapsed.as_secs_f64());
    let principal = response.extensions().get::<Principal>().map_or("", |principal| &*principal.name);
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    call.sync_scope(|| match response.extensions().get::<Refusal>() {
        Some(Refusal { code, reason, cause }) if class == "failed" => {
            let (code, reason) = (code.as_str(), reason.map(Reason::as_str));
            tracing::warn!(status, micros, principal, code, reason, cause, "request failed");
        }
        _ if class == "failed" => tracing::warn!(status, micros, principal, "request failed"),
        Some(Refusal { code, cause, .. }) => tracing::debug!(status, micros, principal, code = code.as_str(), cause, "request"),
        None => tracing::debug!(status, micros, principal, "request"),
    });
    response
}

/// The key that a path names. Other text from outside is no part of a log line.
fn key_in(path: &str) -> Option<KeyId> {
    path.strip_prefix("/v1/keys/")?.split('/').next()?.parse().ok()
}

/// What a caller sees of a panic: an internal error, without the panic message.
pub(super) fn on_panic(_: Box<dyn Any + Send + 'static>) -> Response {
    metrics::counter!("keyvault_panics_total").increment(1);
    Anonymous::new(Code::Internal, "the vault failed; nothing was done").into_response()
}

fn request_id(api: &Api) -> RequestId {
    let mut random = [0; 16];
    // An id that is not unique makes the log less clear, but is no reason to refuse the call.
    let _ = api.random.fill(&mut random);
    RequestId(Hex(&random).to_string().into())
}
