//! Who calls: a name proven by a client certificate, or the vault itself.

use std::sync::Arc;

/// SHA-256 of a client certificate's DER.
pub type CertificateId = [u8; 32];

/// The authenticated caller. Made from a verified certificate, nowhere else (tests aside).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// `spiffe://…` or `dns:…`; `system` for the vault's own acts.
    pub name: Arc<str>,
    /// The certificate that proved it; `None` for the vault itself.
    pub certificate: Option<CertificateId>,
}

impl Principal {
    /// The vault itself: timers, start-up, reloads. No certificate yields this name, since it has no scheme.
    pub fn system() -> Self {
        Self { name: "system".into(), certificate: None }
    }
}
