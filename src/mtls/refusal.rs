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
    /// A CA that issued the certificate is on the deny-list.
    #[error("a CA that issued this certificate is on the deny-list of the vault")]
    IssuerDenyListed,
    /// A CA that issued the certificate is on a revocation list.
    #[error("a CA that issued this certificate is revoked")]
    IssuerRevoked,
    /// There is no revocation list of the issuer.
    #[error("the revocation status of this certificate is unknown: the vault has no current revocation list of its issuer")]
    RevocationUnknown,
    /// As above, for a CA that issued the certificate.
    #[error(
        "the revocation status of a CA that issued this certificate is unknown: the vault has no current revocation list of its issuer"
    )]
    IssuerRevocationUnknown,
    /// The newest revocation list of an issuer has passed its next update.
    #[error(
        "the revocation status of this certificate is unknown: the vault has no current revocation list of an issuer of it; the newest list has \
         passed its next update"
    )]
    RevocationListExpired,
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
    /// A certificate of the chain breaks a rule.
    #[error("this certificate is not valid: {0}")]
    Invalid(&'static str),
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
    /// The reason if it is about a CA that issued the certificate.
    pub(super) const fn of_issuer(self) -> Self {
        match self {
            Self::Revoked => Self::IssuerRevoked,
            Self::DenyListed => Self::IssuerDenyListed,
            Self::RevocationUnknown => Self::IssuerRevocationUnknown,
            other => other,
        }
    }

    /// The label for metrics and logs, from a closed set.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::DenyListed => "deny_listed",
            Self::IssuerDenyListed => "issuer_deny_listed",
            Self::Revoked => "revoked",
            Self::IssuerRevoked => "issuer_revoked",
            Self::RevocationUnknown | Self::IssuerRevocationUnknown => "revocation_unknown",
            Self::RevocationListExpired => "revocation_list_expired",
            Self::Invalid(_) => "invalid",
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
            Self::DenyListed | Self::IssuerDenyListed | Self::Revoked | Self::IssuerRevoked => CertificateError::Revoked.into(),
            Self::RevocationUnknown | Self::IssuerRevocationUnknown | Self::RevocationListExpired => {
                CertificateError::UnknownRevocationStatus.into()
            }
            Self::Expired | Self::CaExpired => CertificateError::Expired.into(),
            Self::NotYetValid => CertificateError::NotValidYet.into(),
            Self::WrongPurpose => CertificateError::InvalidPurpose.into(),
            Self::Untrusted => CertificateError::UnknownIssuer.into(),
            Self::Invalid(_) => CertificateError::BadEncoding.into(),
            Self::NameNotAllowed | Self::NoIdentity(_) => CertificateError::ApplicationVerificationFailure.into(),
        }
    }
}
