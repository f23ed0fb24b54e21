//! The place of each request within the limits of its principal, from before its body is read until its answer was sent.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{
    domain::{Operation, Principal},
    vault::RequestSlot,
};

use super::{Api, extract};

/// Takes a place by the kind of work of the route, or refuses the request with an entry. Runs after the identity check.
pub(super) async fn take_place(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let Some(principal) = request.extensions().get::<Principal>().cloned() else { return next.run(request).await };
    match api.vault.enter(&principal, operation(&api, &request)).await {
        Ok(slot) => {
            let slot = Arc::new(slot);
            // A call that changes state keeps it too, because it goes on if its caller leaves.
            request.extensions_mut().insert(Arc::clone(&slot));
            hold(next.run(request).await, slot).await
        }
        Err(error) => extract::refuse(&api, request, error).await.into_response(),
    }
}

/// The operation of a route.
pub(super) fn operation(api: &Api, request: &Request) -> Operation {
    let matched = request.extensions().get::<MatchedPath>();
    matched.and_then(|path| api.operations.of(request.method(), path.as_str())).unwrap_or(Operation::NoSuchCall)
}

/// The answer, whose bytes hold the place: while they wait for a client that does not read, they count towards the limits of its principal.
async fn hold(response: Response, slot: Arc<RequestSlot>) -> Response {
    let (parts, body) = response.into_parts();
    // The answers of all routes are in memory already, so that this neither waits nor copies.
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) if bytes.is_empty() => Response::from_parts(parts, Body::empty()),
        Ok(bytes) => Response::from_parts(parts, Body::from(Bytes::from_owner(HeldBytes { bytes, _slot: slot }))),
        Err(_) => Response::from_parts(parts, Body::empty()),
    }
}

/// The bytes of an answer. The place is free once they are sent, or the connection has ended.
struct HeldBytes {
    bytes: Bytes,
    _slot: Arc<RequestSlot>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
