//! The first check of every request: the identity of the client, and whether it is admitted now. The policy decides what it may do.

use std::sync::Arc;

use axum::extract::Request;

use super::{Trust, peer::Peer, refusal::NotAdmitted, refusal_log::RefusedClient};
use crate::domain::Principal;

/// The principal of a request that [`super::serve`] received.
///
/// # Errors
/// [`RefusedClient`], whose reason is for the answer. The connection ends after the requests in progress.
pub fn admit(trust: &Trust, request: &Request) -> Result<Principal, RefusedClient> {
    let peer = request.extensions().get::<Arc<Peer>>();
    peer.ok_or(NotAdmitted::NoCertificate).and_then(|peer| trust.admit(peer)).map_err(|reason| {
        reason.count();
        if let Some(peer) = peer {
            peer.close();
        }
        RefusedClient { log: trust.refusals(), peer: peer.cloned(), reason }
    })
}
