//! The client of a connection: its verified certificate chain, parsed once, and the last decision about it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{
    certificate::ends,
    identity::{self, CertificateFields, Identity, IdentityError},
    refusal::NotAdmitted,
};
use crate::domain::{CertificateId, Principal, Timestamp};

/// The client of one connection: an `Extension<Arc<Peer>>` of each of its requests. A request cannot create or change it.
#[derive(Debug)]
pub struct Peer {
    /// SHA-256 of the client certificate.
    pub certificate: CertificateId,
    fields: CertificateFields,
    /// The certificates above the leaf that the client sent: digest and fields.
    issuers: Vec<(CertificateId, CertificateFields)>,
    name: Option<Arc<str>>,
    chain: Vec<CertificateDer<'static>>,
    bounds: Vec<Timestamp>,
    pub(super) decision: ArcSwap<CachedDecision>,
    /// Ends the connection after the requests in progress: `Connection: close`, or GOAWAY.
    close: CancellationToken,
}

impl Peer {
    /// Parses the chain of the client, leaf first.
    ///
    /// # Errors
    /// If the chain is empty or cannot be parsed. A certificate without a usable name is not an error here: its client gets a response that says so.
    pub fn read(chain: &[CertificateDer<'_>]) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::Malformed)?;
        let all = chain.iter().map(|certificate| identity::read(certificate)).collect::<Result<Vec<_>, _>>()?;
        let bounds = all.iter().map(|fields| ends(fields.not_after)).collect();
        let mut all = all.into_iter();
        let fields = all.next().ok_or(IdentityError::Malformed)?;
        let issuers = chain.iter().skip(1).map(|certificate| Sha256::digest(certificate).into()).zip(all).collect();
        Ok(Self {
            certificate: Sha256::digest(leaf).into(),
            name: fields.identity.as_ref().ok().map(Identity::name),
            fields,
            issuers,
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            bounds,
            decision: ArcSwap::from_pointee(CachedDecision::none()),
            close: CancellationToken::new(),
        })
    }

    /// Ends the connection after the requests in progress.
    pub(super) fn close(&self) {
        self.close.cancel();
    }

    /// Returns when the connection must end.
    pub(super) async fn closed(&self) {
        self.close.cancelled().await;
    }

    /// The name of the principal, or why the certificate has none.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn name(&self) -> Result<&Arc<str>, IdentityError> {
        self.name.as_ref().ok_or_else(|| self.fields.identity.as_ref().err().copied().unwrap_or(IdentityError::NoName))
    }

    /// The identity in the certificate.
    pub const fn identity(&self) -> &Result<Identity, IdentityError> {
        &self.fields.identity
    }

    /// The certificates above the leaf that the client sent.
    pub(super) fn issuers(&self) -> &[(CertificateId, CertificateFields)] {
        &self.issuers
    }

    /// The fields of the certificate.
    pub(super) const fn fields(&self) -> &CertificateFields {
        &self.fields
    }

    /// The distinguished name of the subject.
    pub fn subject(&self) -> &str {
        &self.fields.subject
    }

    /// The distinguished name of the issuer.
    pub fn issuer(&self) -> &str {
        &self.fields.issuer
    }

    /// The serial number in lower-case hex.
    pub fn serial(&self) -> &str {
        &self.fields.serial
    }

    /// The time at which the certificate expires.
    pub fn not_after(&self) -> Timestamp {
        ends(self.fields.not_after)
    }

    /// The chain (DER), leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The times at which the certificates of the chain expire.
    pub(super) fn bounds(&self) -> &[Timestamp] {
        &self.bounds
    }
}

/// The last decision about a client, and how long it is valid.
#[derive(Debug)]
pub(super) struct CachedDecision {
    /// The generation of the trust that decided.
    pub(super) generation: u64,
    /// The time at which the decision ends.
    pub(super) until: Timestamp,
    pub(super) outcome: Result<Principal, NotAdmitted>,
}

impl CachedDecision {
    /// No decision yet.
    const fn none() -> Self {
        Self { generation: 0, until: Timestamp::from_micros(i64::MIN), outcome: Err(NotAdmitted::Untrusted) }
    }
}
