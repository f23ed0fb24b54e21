//! The first layer of every route of the API: who speaks, and may it still. What it may do is the gate's question.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header::CONNECTION},
    middleware::Next,
    response::Response,
};
use rustls::CertificateError;
use tokio_util::sync::CancellationToken;

use super::{Trust, identity::IdentityError, peer::Peer};

/// Why a peer may not speak. The text is for the one who holds the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// No client certificate.
    #[error("a client certificate is required")]
    NoCertificate,
    /// On the deny-list.
    #[error("this certificate is on the vault's deny-list")]
    DenyListed,
    /// On its CA's revocation list.
    #[error("this certificate is revoked")]
    Revoked,
    /// Its CA is to be checked for revocations, and no current list of its issuer is at hand.
    #[error("it cannot be told whether this certificate is revoked: the vault has no current revocation list of its issuer")]
    RevocationUnknown,
    /// A certificate of the chain is too old.
    #[error("this certificate, or one that issued it, has expired")]
    Expired,
    /// A certificate of the chain is too young, or a clock is wrong.
    #[error("this certificate, or one that issued it, is not valid yet")]
    NotYetValid,
    /// The CA is too old.
    #[error("the client CA that issued this certificate has expired")]
    CaExpired,
    /// Not for client authentication.
    #[error("this certificate is not meant for client authentication (extended key usage)")]
    WrongPurpose,
    /// No client CA of ours stands behind it.
    #[error("no client CA of this vault issued this certificate")]
    Untrusted,
    /// The CA stands behind it, but may not vouch for this name.
    #[error("the client CA that issued this certificate may not vouch for its name; see client_cas in the vault's configuration")]
    NotVouched,
    /// It names nobody.
    #[error("{0}")]
    NoIdentity(IdentityError),
}

impl NotAdmitted {
    /// One word for metrics and logs, from a closed set.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::DenyListed => "deny_listed",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation_unknown",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::CaExpired => "ca_expired",
            Self::WrongPurpose => "wrong_purpose",
            Self::Untrusted => "untrusted",
            Self::NotVouched => "not_vouched",
            Self::NoIdentity(_) => "no_identity",
        }
    }

    /// Counts it in `keyvault_not_admitted_total`, by reason.
    pub(super) fn count(self) {
        metrics::counter!("keyvault_not_admitted_total", "reason" => self.label()).increment(1);
    }

    /// What a handshake says of it: the TLS alert follows from this.
    pub(super) fn alert(self) -> rustls::Error {
        match self {
            Self::NoCertificate => rustls::Error::NoCertificatesPresented,
            Self::DenyListed | Self::Revoked => CertificateError::Revoked.into(),
            Self::RevocationUnknown => CertificateError::UnknownRevocationStatus.into(),
            Self::Expired | Self::CaExpired => CertificateError::Expired.into(),
            Self::NotYetValid => CertificateError::NotValidYet.into(),
            Self::WrongPurpose => CertificateError::InvalidPurpose.into(),
            Self::Untrusted => CertificateError::UnknownIssuer.into(),
            Self::NotVouched | Self::NoIdentity(_) => CertificateError::ApplicationVerificationFailure.into(),
        }
    }
}

/// What [`admit`] needs: whom to believe, and how to say no.
#[derive(Clone)]
pub struct Admission {
    trust: Arc<Trust>,
    refuse: Arc<dyn Fn(NotAdmitted) -> Response + Send + Sync>,
}

impl Admission {
    /// `refuse` makes the answer to a peer that may not speak.
    pub fn new(trust: Arc<Trust>, refuse: impl Fn(NotAdmitted) -> Response + Send + Sync + 'static) -> Self {
        Self { trust, refuse: Arc::new(refuse) }
    }
}

/// A middleware for `axum::middleware::from_fn_with_state(Admission, admit)`: puts the [`crate::domain::Principal`] into the extensions
/// of the request and of its answer (for the log line), or answers by `refuse` and lets the connection end.
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
            if let Some(hang_up) = request.extensions().get::<HangUp>() {
                hang_up.0.cancel();
            }
            let mut response = (admission.refuse)(reason);
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// Ends the connection of a request once what is under way has been answered: `Connection: close`, or GOAWAY.
#[derive(Debug, Clone)]
pub(super) struct HangUp(pub(super) CancellationToken);
