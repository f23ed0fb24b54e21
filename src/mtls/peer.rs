//! Who stands at the other end of a connection: the verified chain, parsed once, and where it stood when last judged.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::{
    identity::{self, CertificateFields, Identity, IdentityError},
    trust::Standing,
};
use crate::domain::{CertificateId, Timestamp};

/// The client of one connection, an `Extension<Arc<Peer>>` of each of its requests. Nothing in a request can make or change one.
#[derive(Debug)]
pub struct Peer {
    /// SHA-256 of the client's own certificate.
    pub certificate: CertificateId,
    fields: CertificateFields,
    name: Option<Arc<str>>,
    chain: Vec<CertificateDer<'static>>,
    bounds: Vec<Timestamp>,
    pub(super) standing: ArcSwap<Standing>,
}

impl Peer {
    /// Parses a chain as the client sent it, its own certificate first.
    ///
    /// # Errors
    /// If there is none, or one that cannot be parsed. A certificate that names nobody is still a peer: it gets an answer that says so.
    pub fn read(chain: &[CertificateDer<'_>]) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::Malformed)?;
        let all = chain.iter().map(|certificate| identity::read(certificate)).collect::<Result<Vec<_>, _>>()?;
        let bounds = all.iter().map(|fields| ends(fields.not_after)).collect();
        let fields = all.into_iter().next().ok_or(IdentityError::Malformed)?;
        Ok(Self {
            certificate: Sha256::digest(leaf).into(),
            name: fields.identity.as_ref().ok().map(Identity::name),
            fields,
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            bounds,
            standing: ArcSwap::from_pointee(Standing::unjudged()),
        })
    }

    /// The principal's name, or why the certificate proves none.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn name(&self) -> Result<&Arc<str>, IdentityError> {
        self.name.as_ref().ok_or_else(|| self.fields.identity.as_ref().err().copied().unwrap_or(IdentityError::NoName))
    }

    /// The name in its parts.
    pub const fn identity(&self) -> &Result<Identity, IdentityError> {
        &self.fields.identity
    }

    /// The issuer's distinguished name, as shown.
    pub fn issuer(&self) -> &str {
        &self.fields.issuer
    }

    /// The serial number in lower-case hex.
    pub fn serial(&self) -> &str {
        &self.fields.serial
    }

    /// When the certificate expires.
    pub fn not_after(&self) -> Timestamp {
        ends(self.fields.not_after)
    }

    /// The chain (DER), the client's own certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The instants at which a certificate of the chain expires.
    pub(super) fn bounds(&self) -> &[Timestamp] {
        &self.bounds
    }
}

/// The instant from which something with this last second is not valid any more.
pub(super) const fn ends(last_second: i64) -> Timestamp {
    Timestamp::from_micros(last_second.saturating_add(1).saturating_mul(1_000_000))
}
