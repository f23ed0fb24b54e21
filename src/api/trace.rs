//! Around every request: an id, one log line, one measurement, and a problem document if a handler panicked.

use std::{any::Any, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Version, header::CONNECTION},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{
    domain::{Hex, Operation, Principal},
    mtls::RefusedClient,
    vault::Code,
};

use super::{Api, problem::Anonymous};

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
    let mut response = next.run(request).await;
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
    let operation = matched.and_then(|path| api.operations.of(&method, path.as_str()));
    if version <= Version::HTTP_11 && matches!(operation, Some(Operation::ImportKey | Operation::ExportKey)) {
        // The buffers of the connection held a key in plain text. Closing the connection wipes them.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // Labels from closed sets: operations of the route table, and classes of status.
    let operation = operation.map_or("none", |operation| operation.as_str());
    let class = match status {
        0..400 => "ok",
        400..500 => "refused",
        _ => "failed",
    };
    metrics::histogram!("keyvault_request_seconds", "operation" => operation, "outcome" => class).record(elapsed.as_secs_f64());
    let principal = response.extensions().get::<Principal>().map_or("", |principal| &*principal.name);
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    if class == "failed" {
        tracing::warn!(request_id = id.as_str(), operation, status, micros, principal, "request failed");
    } else {
        tracing::debug!(request_id = id.as_str(), operation, status, micros, principal, "request");
    }
    response
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
