//! Classifies the errors of OpenBao by status and form, never by text: a denial is final, an outage may pass.

use crate::kms::{Denial, Outage, WrapperError};

/// What a failure means, before it is known which key it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OpenbaoError {
    Denied(Denial),
    /// A policy of OpenBao does not permit this.
    NotPermitted(&'static str),
    Invalid,
    Outage(Outage),
    Misconfigured(String),
}

impl OpenbaoError {
    /// The same error; if the token lacks the permission for a path of the API, with the name of that permission.
    pub(super) fn needing(self, permission: &'static str) -> Self {
        if self == Self::Denied(Denial::AccessDenied) { Self::NotPermitted(permission) } else { self }
    }

    /// OpenBao sends no request id with an error.
    pub(super) fn about(self, reference: &str) -> WrapperError {
        let (reference, request_id) = (reference.to_owned(), None);
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

/// OpenBao answered success without the expected content.
pub(super) const UNUSABLE_ANSWER: OpenbaoError = OpenbaoError::Outage(Outage::ServerError);

/// The statuses that OpenBao documents. `is_ours` if the body has the form of its errors.
pub(super) fn by_status(status: u16, is_ours: bool) -> OpenbaoError {
    match status {
        429 => OpenbaoError::Outage(Outage::Throttled),
        503 if is_ours => OpenbaoError::Outage(Outage::Sealed),
        // 412: a standby that lags. 472, 473: standbys. 503: a proxy without a server. 307: a standby that does not forward; redirects are not followed.
        307 | 412 | 472 | 473 | 500.. => OpenbaoError::Outage(Outage::ServerError),
        403 if is_ours => OpenbaoError::Denied(Denial::AccessDenied),
        404 if is_ours => OpenbaoError::Denied(Denial::NotFound),
        _ if is_ours => OpenbaoError::Misconfigured(format!("OpenBao refuses the request (status {status})")),
        _ => OpenbaoError::Misconfigured(format!("the server is not OpenBao (status {status})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_final_or_may_pass() {
        for (status, expected) in [
            (403, OpenbaoError::Denied(Denial::AccessDenied)),
            (404, OpenbaoError::Denied(Denial::NotFound)),
            (429, OpenbaoError::Outage(Outage::Throttled)),
            (307, OpenbaoError::Outage(Outage::ServerError)),
            (412, OpenbaoError::Outage(Outage::ServerError)),
            (473, OpenbaoError::Outage(Outage::ServerError)),
            (500, OpenbaoError::Outage(Outage::ServerError)),
            (502, OpenbaoError::Outage(Outage::ServerError)),
            (503, OpenbaoError::Outage(Outage::Sealed)),
        ] {
            assert_eq!(by_status(status, true), expected, "{status}");
        }
        for status in [400, 405, 418] {
            assert!(matches!(by_status(status, true), OpenbaoError::Misconfigured(what) if what.contains("refuses")), "{status}");
        }
    }

    /// A load balancer without a route also answers 404. That does not mean that the key is missing.
    #[test]
    fn the_answer_of_a_proxy_is_not_a_denial() {
        for status in [200, 400, 403, 404] {
            assert!(matches!(by_status(status, false), OpenbaoError::Misconfigured(what) if what.contains("not OpenBao")), "{status}");
        }
        for status in [502, 503] {
            assert_eq!(by_status(status, false), OpenbaoError::Outage(Outage::ServerError));
        }
    }
}
