//! What a failed call of a KMS over HTTP means: a denial is final, an outage may pass, a fault of the configuration needs a person.

use super::{Denial, Outage, WrapperError};

/// What a failure means, before it is known which key it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    /// The KMS refuses.
    Denied(Denial),
    /// The policy of the KMS does not permit this.
    NotPermitted(&'static str),
    /// The key did not make the wrap for this context.
    Invalid,
    /// It may pass.
    Outage(Outage),
    /// A file, an address or an option cannot be used. The text says why and how to fix it.
    Misconfigured(String),
}

/// The KMS answered success without the expected content.
pub(super) const UNUSABLE_ANSWER: CallError = CallError::Outage(Outage::ServerError);

impl CallError {
    /// The same error; if the permission for the call is missing, with the name of that permission.
    pub(super) fn needing(self, permission: &'static str) -> Self {
        if self == Self::Denied(Denial::AccessDenied) { Self::NotPermitted(permission) } else { self }
    }

    /// The error about a key, of a KMS that sends no request id with an error.
    pub(super) fn about(self, reference: &str) -> WrapperError {
        self.about_request(reference, None)
    }

    /// The error about a key, and the request that failed.
    pub(super) fn about_request(self, reference: &str, request_id: Option<String>) -> WrapperError {
        let reference = reference.to_owned();
        match self {
            Self::Denied(denial) => WrapperError::Denied { reference, denial, permission: None, request_id },
            Self::NotPermitted(permission) => {
                WrapperError::Denied { reference, denial: Denial::AccessDenied, permission: Some(permission), request_id }
            }
            Self::Invalid => WrapperError::Invalid { reference, request_id },
            Self::Outage(outage) => WrapperError::Unavailable { reference, outage, request_id },
            Self::Misconfigured(what) => WrapperError::Misconfigured { reference, what },
        }
    }
}
