//! Why a client is not admitted: the reasons, their labels and their TLS alerts.

use rustls::CertificateError;

use super::identity::IdentityError;

/// Why a client is not admitted. The text is for the holder of the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// No client certificate.
    #[error("a client certificate is required")]
    NoCertificate,
    /// The certificate is on the deny-list.
    #[error("this certificate is on the deny-list of the vault")]
    DenyListed,
    /// The certificate is on a revocation list.
    #[error("this certificate is revoked")]
    Revoked,
    /// There is no current revocation list of the issuer.
    #[error("the revocation status of this certificate is unknown: the vault has no current revocation list of its issuer")]
    RevocationUnknown,
    /// A certificate of the chain has expired.
    #[error("this certificate, or one that issued it, has expired")]
    Expired,
    /// A certificate of the chain is not valid yet, or a clock is wrong.
    #[error("this certificate, or one that issued it, is not valid yet")]
    NotYetValid,
    /// The client CA has expired.
    #[error("the client CA that issued this certificate has expired")]
    CaExpired,
    /// The certificate is not for client authentication.
    #[error("this certificate is not for client authentication (extended key usage)")]
    WrongPurpose,
    /// No configured client CA issued the certificate.
    #[error("no client CA of this vault issued this certificate")]
    Untrusted,
    /// The client CA may not issue certificates for this name.
    #[error("the client CA of this certificate may not issue certificates for this name. See client_cas in the configuration of the vault")]
    NameNotAllowed,
    /// The certificate has no usable name.
    #[error("{0}")]
    NoIdentity(IdentityError),
}

impl NotAdmitted {
    /// The label for metrics and logs, from a closed set.
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
            Self::NameNotAllowed => "not_vouched",
            Self::NoIdentity(_) => "no_identity",
        }
    }

    /// Counts the refusal in `keyvault_not_admitted_total`, by reason.
    pub(super) fn count(self) {
        metrics::counter!("keyvault_not_admitted_total", "reason" => self.label()).increment(1);
    }

    /// The error of the handshake, from which the TLS alert follows.
    pub(super) fn alert(self) -> rustls::Error {
        match self {
            Self::NoCertificate => rustls::Error::NoCertificatesPresented,
            Self::DenyListed | Self::Revoked => CertificateError::Revoked.into(),
            Self::RevocationUnknown => CertificateError::UnknownRevocationStatus.into(),
            Self::Expired | Self::CaExpired => CertificateError::Expired.into(),
            Self::NotYetValid => CertificateError::NotValidYet.into(),
            Self::WrongPurpose => CertificateError::InvalidPurpose.into(),
            Self::Untrusted => CertificateError::UnknownIssuer.into(),
            Self::NameNotAllowed | Self::NoIdentity(_) => CertificateError::ApplicationVerificationFailure.into(),
        }
    }
}
