//! The first middleware of every route: the identity of the client, and whether it is admitted now. The policy decides what it may do.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header::CONNECTION},
    middleware::Next,
    response::Response,
};
use tokio_util::sync::CancellationToken;

use super::{Trust, peer::Peer, refusal::NotAdmitted, refusal_log::RefusedClient};

/// The state of [`admit`]: the trust, and the response to a refusal.
#[derive(Clone)]
pub struct Admission {
    trust: Arc<Trust>,
    refuse: Arc<dyn Fn(NotAdmitted) -> Response + Send + Sync>,
}

impl Admission {
    /// `refuse` makes the response to a client that is not admitted.
    pub fn new(trust: Arc<Trust>, refuse: impl Fn(NotAdmitted) -> Response + Send + Sync + 'static) -> Self {
        Self { trust, refuse: Arc::new(refuse) }
    }
}

/// A middleware for `axum::middleware::from_fn_with_state(Admission, admit)`: puts the [`crate::domain::Principal`] into the extensions
/// of the request and of its response (for the log line), or responds with `refuse` and ends the connection. The response to a
/// refused client has a [`RefusedClient`] in its extensions, for the log line.
pub async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Arc<Peer>>().ok_or(NotAdmitted::NoCertificate);
    match peer.and_then(|peer| admission.trust.admit(peer)) {
        Ok(principal) => {
            request.extensions_mut().insert(principal.clone());
            let mut response = next.run(request).await;
            response.extensions_mut().insert(principal);
            response
        }
        Err(reason) => {
            reason.count();
            if let Some(close) = request.extensions().get::<CloseConnection>() {
                close.0.cancel();
            }
            let mut response = (admission.refuse)(reason);
            let peer = request.extensions().get::<Arc<Peer>>().cloned();
            response.extensions_mut().insert(RefusedClient { log: admission.trust.refusals(), peer, reason });
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// Ends the connection of a request after the requests in progress: `Connection: close`, or GOAWAY.
#[derive(Debug, Clone)]
pub(super) struct CloseConnection(pub(super) CancellationToken);
