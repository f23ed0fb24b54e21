//! Classifies the errors of OpenBao by status and form, never by text: a denial is final, an outage may pass.

use crate::kms::{Denial, Outage, call_error::CallError};

pub(super) use crate::kms::call_error::UNUSABLE_ANSWER;

/// The statuses that OpenBao documents. `is_ours` if the body has the form of its errors.
pub(super) fn by_status(status: u16, is_ours: bool) -> CallError {
    match status {
        429 => CallError::Outage(Outage::Throttled),
        503 if is_ours => CallError::Outage(Outage::Sealed),
        // 412: a standby that lags. 472, 473: standbys. 503: a proxy without a server. 307: a standby that does not forward; redirects are not followed.
        307 | 412 | 472 | 473 | 500.. => CallError::Outage(Outage::ServerError),
        403 if is_ours => CallError::Denied(Denial::AccessDenied),
        404 if is_ours => CallError::Denied(Denial::NotFound),
        _ if is_ours => CallError::Misconfigured(format!("OpenBao refuses the request (status {status})")),
        _ => CallError::Misconfigured(format!("the server is not OpenBao (status {status})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_final_or_may_pass() {
        for (status, expected) in [
            (403, CallError::Denied(Denial::AccessDenied)),
            (404, CallError::Denied(Denial::NotFound)),
            (429, CallError::Outage(Outage::Throttled)),
            (307, CallError::Outage(Outage::ServerError)),
            (412, CallError::Outage(Outage::ServerError)),
            (473, CallError::Outage(Outage::ServerError)),
            (500, CallError::Outage(Outage::ServerError)),
            (502, CallError::Outage(Outage::ServerError)),
            (503, CallError::Outage(Outage::Sealed)),
        ] {
            assert_eq!(by_status(status, true), expected, "{status}");
        }
        for status in [400, 405, 418] {
            assert!(matches!(by_status(status, true), CallError::Misconfigured(what) if what.contains("refuses")), "{status}");
        }
    }

    /// A load balancer without a route also answers 404. That does not mean that the key is missing.
    #[test]
    fn the_answer_of_a_proxy_is_not_a_denial() {
        for status in [200, 400, 403, 404] {
            assert!(matches!(by_status(status, false), CallError::Misconfigured(what) if what.contains("not OpenBao")), "{status}");
        }
        for status in [502, 503] {
            assert_eq!(by_status(status, false), CallError::Outage(Outage::ServerError));
        }
    }
}
