//! Principals: callers, whose name a client certificate proves, and the vault itself.

use std::sync::Arc;

/// SHA-256 of a client certificate's DER.
pub type CertificateId = [u8; 32];

/// An authenticated caller. Outside tests it is made from a verified certificate only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// `spiffe://…` or `dns:…`, `system` for operations of the vault itself, or `unauthenticated` for clients that were not admitted.
    pub name: Arc<str>,
    /// The certificate. `None` for the vault itself, and for a client without one.
    pub certificate: Option<CertificateId>,
}

impl Principal {
    /// The principal of the vault itself, for background tasks, starts and reloads. No certificate gives this name, because it has no
    /// scheme.
    pub fn system() -> Self {
        Self { name: "system".into(), certificate: None }
    }

    /// Whether this is the vault itself.
    pub fn is_system(&self) -> bool {
        &*self.name == "system"
    }

    /// A client that was not admitted, with its certificate if it sent one. No certificate gives this name either.
    pub fn unauthenticated(certificate: Option<CertificateId>) -> Self {
        Self { name: "unauthenticated".into(), certificate }
    }
}
