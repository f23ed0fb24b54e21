//! The place of each request within the limits of its principal, from before its body is read until its answer was sent; and the task of its own
//! in which a call that changes state runs.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{
    domain::{Operation, Principal},
    mtls::HeldByAnswer,
};

use super::{Api, extract, problem::Anonymous};

/// Takes a place by the kind of work of the route, or refuses the request with an entry. Runs after the identity check.
pub(super) async fn take_place(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let operation = operation(&api, &request);
    let Some(principal) = request.extensions().get::<Principal>().cloned() else { return run(&api, operation, request, next).await };
    match api.vault.enter(&principal, operation).await {
        Ok(slot) => {
            let slot = Arc::new(slot);
            // A call that changes state keeps it too, because it goes on if its caller leaves.
            request.extensions_mut().insert(Arc::clone(&slot));
            let mut response = run(&api, operation, request, next).await;
            // While the answer waits for a client that does not read, it counts towards the limits of its principal.
            response.extensions_mut().insert(HeldByAnswer(slot));
            response
        }
        Err(error) => extract::refuse(&api, request, error).await.into_response(),
    }
}

/// Runs every call that can change state in a task of its own, so that a lost connection interrupts no change.
async fn run(api: &Api, operation: Operation, request: Request, next: Next) -> Response {
    if !operation.changes_state() {
        return api.vault.attached(next.run(request)).await;
    }
    let answer = api.vault.detached(next.run(request)).await;
    answer.unwrap_or_else(|error| Anonymous::new(error.code(), error.to_string()).into_response())
}

/// The operation of a route.
fn operation(api: &Api, request: &Request) -> Operation {
    let matched = request.extensions().get::<MatchedPath>();
    matched.and_then(|path| api.operations.of(request.method(), path.as_str())).unwrap_or(Operation::NoSuchCall)
}
