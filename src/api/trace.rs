//! Around every request: an id, the identity check, one log line, one measurement, a span if it is traced, and a problem document if a handler panicked.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Version, header::CONNECTION},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;

use crate::{
    domain::{Hex, KeyId, Operation, Principal},
    mtls::{RefusedClient, admit},
    traces::{self, ActiveSpan},
    vault::{CallFields, Code, Reason, RequestSlot},
};

use super::{
    Api, place,
    problem::{Anonymous, Refusal},
    request_span,
};

/// What is known of a call before it is read: an extension of its request.
#[derive(Clone)]
pub(super) struct CallStart {
    /// The id of the request: 32 hex digits, random.
    pub(super) request_id: Arc<str>,
    /// The caller.
    pub(super) principal: Principal,
    /// The place of the request within the limits of its principal. `None` until it has one.
    pub(super) slot: Option<Arc<RequestSlot>>,
}

/// The classes of status, by which requests are counted.
pub(super) const CLASSES: [&str; 3] = ["ok", "refused", "failed"];

/// The only middleware: each further one would cost every request several allocations. Gives the request its id, and logs and measures its result.
pub(super) async fn trace(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(&api);
    let version = request.version();
    // The span belongs to a caller, so that this comes before it.
    let admission = catch_unwind(AssertUnwindSafe(|| admit(&api.trust, &request)));
    let principal = admission.as_ref().ok().and_then(|admission| admission.as_ref().ok()).cloned();
    let mut span = request_span::begin(&api, principal.as_ref(), &request, &id);
    let matched = request.extensions().get::<MatchedPath>();
    let traceparent = request.headers().get("traceparent").cloned();
    let operation = matched.and_then(|path| api.operations.of(request.method(), path.as_str()));
    // Labels from closed sets: operations of the route table, and classes of status.
    let name = operation.map_or("none", |operation| operation.as_str());
    let call = CallFields::new(Arc::clone(&id), name, key_in(request.uri().path()));
    let answer = async {
        match admission {
            Ok(admission) => answer(&api, &id, operation, request, next, admission).await,
            Err(panic) => on_panic(panic),
        }
    };
    let answer = AssertUnwindSafe(answer).catch_unwind();
    let traced = traces::scope(span.as_ref().and_then(ActiveSpan::link), Arc::clone(&call).scope(answer));
    let mut response = traced.await.unwrap_or_else(on_panic);
    Anonymous::name(&mut response, &id);
    if let Ok(value) = HeaderValue::from_str(&id) {
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
    if let Some(span) = &mut span {
        request_span::describe(span, &call, &response);
    }
    let class = match status {
        0..400 => 0,
        400..500 => 1,
        _ => FAILED,
    };
    let outcome = CLASSES.get(class).copied().unwrap_or_default();
    api.request_seconds.record(
        operation,
        class,
        elapsed,
        || metrics::histogram!("keyvault_request_seconds", "operation" => name, "outcome" => outcome),
    );
    let principal = principal.as_ref().map_or("", |principal: &Principal| &*principal.name);
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    call.sync_scope(|| match response.extensions().get::<Refusal>() {
        Some(Refusal { code, reason, cause }) if class == FAILED => {
            let (code, reason) = (code.as_str(), reason.map(Reason::as_str));
            tracing::warn!(status, micros, principal, code, reason, cause, "request failed");
        }
        _ if class == FAILED => tracing::warn!(status, micros, principal, "request failed"),
        Some(Refusal { code, cause, .. }) => tracing::debug!(status, micros, principal, code = code.as_str(), cause, "request"),
        None => tracing::debug!(status, micros, principal, "request"),
    });
    response
}

/// The class of 5xx.
const FAILED: usize = 2;

/// Refuses a client that is not admitted, and lets others go on.
async fn answer(
    api: &Arc<Api>,
    id: &Arc<str>,
    operation: Option<Operation>,
    request: Request,
    next: Next,
    admission: Result<Principal, RefusedClient>,
) -> Response {
    match admission {
        Ok(principal) => {
            let start = CallStart { request_id: Arc::clone(id), principal, slot: None };
            place::take_place(api, start, operation.unwrap_or(Operation::NoSuchCall), request, next).await
        }
        Err(refused) => {
            refused.record(id);
            let mut response = Anonymous::new(Code::Unauthenticated, refused.reason.to_string()).into_response();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// The key that a path names. Other text from outside is no part of a log line.
fn key_in(path: &str) -> Option<KeyId> {
    path.strip_prefix("/v1/keys/")?.split('/').next()?.parse().ok()
}

/// What a caller sees of a panic: an internal error, without the panic message.
fn on_panic(_: Box<dyn Any + Send + 'static>) -> Response {
    metrics::counter!("keyvault_panics_total").increment(1);
    Anonymous::new(Code::Internal, "the vault failed; nothing was done").into_response()
}

fn request_id(api: &Api) -> Arc<str> {
    let mut random = [0; 16];
    // An id that is not unique makes the log less clear, but is no reason to refuse the call.
    let _ = api.random.fill(&mut random);
    Hex(&random).to_string().into()
}
