//! What OpenBao answers, sorted: a denial is final, an outage may pass. By status and form, never by text.

use super::http_client::Answer;
use crate::kms::{Denial, Outage, WrapperError};

/// What a failure means, before it is known which key it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Denied(Denial),
    Invalid,
    Outage(Outage),
    Misconfigured(String),
}

impl Kind {
    /// OpenBao gives no request id with an error, so there is none to tell.
    pub(super) fn about(self, reference: &str) -> WrapperError {
        let (reference, request_id) = (reference.to_owned(), None);
        match self {
            Self::Denied(denial) => WrapperError::Denied { reference, denial, request_id },
            Self::Invalid => WrapperError::Invalid { reference, request_id },
            Self::Outage(outage) => WrapperError::Unavailable { reference, outage, request_id },
            Self::Misconfigured(what) => WrapperError::Misconfigured { reference, what },
        }
    }
}

/// The answer, if it is a success.
pub(super) fn done(answer: Answer) -> Result<Answer, Kind> {
    if matches!(answer.status, 200 | 204) { Ok(answer) } else { Err(sort(&answer)) }
}

/// What an answer means that is no success. A 400 is for the caller to explain, who knows what was asked.
pub(super) fn sort(answer: &Answer) -> Kind {
    by_status(answer.status, answer.is_error())
}

/// OpenBao said yes and left out what it is for.
pub(super) const UNUSABLE_ANSWER: Kind = Kind::Outage(Outage::ServerError);

/// The statuses that OpenBao documents; `is_ours` if the body has the form of its errors.
fn by_status(status: u16, is_ours: bool) -> Kind {
    match status {
        429 => Kind::Outage(Outage::Throttled),
        // 412: a standby that lags. 472, 473: standbys. 503: sealed. 307: a standby that does not forward, whom nobody follows.
        307 | 412 | 472 | 473 | 500.. => Kind::Outage(Outage::ServerError),
        403 if is_ours => Kind::Denied(Denial::AccessDenied),
        404 if is_ours => Kind::Denied(Denial::NotFound),
        _ if is_ours => Kind::Misconfigured(format!("OpenBao refuses the request (status {status})")),
        _ => Kind::Misconfigured(format!("what answers is not OpenBao (status {status})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_final_or_may_pass() {
        for (status, expected) in [
            (403, Kind::Denied(Denial::AccessDenied)),
            (404, Kind::Denied(Denial::NotFound)),
            (429, Kind::Outage(Outage::Throttled)),
            (307, Kind::Outage(Outage::ServerError)),
            (412, Kind::Outage(Outage::ServerError)),
            (473, Kind::Outage(Outage::ServerError)),
            (500, Kind::Outage(Outage::ServerError)),
            (502, Kind::Outage(Outage::ServerError)),
            (503, Kind::Outage(Outage::ServerError)),
        ] {
            assert_eq!(by_status(status, true), expected, "{status}");
        }
        for status in [400, 405, 418] {
            assert!(matches!(by_status(status, true), Kind::Misconfigured(what) if what.contains("refuses")), "{status}");
        }
    }

    /// A load balancer that has no route says 404 too, and no key is gone then.
    #[test]
    fn what_stands_between_denies_nothing() {
        for status in [200, 400, 403, 404] {
            assert!(matches!(by_status(status, false), Kind::Misconfigured(what) if what.contains("not OpenBao")), "{status}");
        }
        assert_eq!(by_status(502, false), Kind::Outage(Outage::ServerError));
    }
}
