//! The place of each request within the limits of its principal, from before its body is read until its answer was sent; and the task of its own
//! in which a call that changes state runs.

use std::sync::Arc;

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{domain::Operation, mtls::HeldByAnswer};

use super::{Api, extract, problem::Anonymous, trace::CallStart};

/// Takes a place by the kind of work of the route, or refuses the request with an entry. Runs after the identity check.
pub(super) async fn take_place(api: &Arc<Api>, start: CallStart, operation: Operation, mut request: Request, next: Next) -> Response {
    match api.vault.enter(&start.principal, operation).await {
        Ok(slot) => {
            let slot = Arc::new(slot);
            // A call that changes state keeps it too, because it goes on if its caller leaves.
            request.extensions_mut().insert(CallStart { slot: Some(Arc::clone(&slot)), ..start });
            let mut response = run(api, operation, request, next).await;
            // While the answer waits for a client that does not read, it counts towards the limits of its principal.
            response.extensions_mut().insert(HeldByAnswer(slot));
            response
        }
        Err(error) => Box::pin(extract::refuse(api, start, request, error)).await.into_response(),
    }
}

/// Runs every call that can change state in a task of its own, so that a lost connection interrupts no change.
async fn run(api: &Api, operation: Operation, request: Request, next: Next) -> Response {
    if !operation.changes_state() {
        return api.vault.attached(next.run(request)).await;
    }
    let answer = Box::pin(api.vault.detached(next.run(request))).await;
    answer.unwrap_or_else(|error| Anonymous::new(error.code(), error.to_string()).into_response())
}
