//! Classifies the errors of Cloud KMS by HTTP status and canonical code, never by text (<https://cloud.google.com/apis/design/errors>).

use serde::Deserialize;

use crate::kms::{Denial, Outage, call_error::CallError, http::HttpResponse, oauth};

/// An unsuccessful answer, before the caller explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The key or its version is in a state without this use.
    FailedPrecondition,
    /// The request or the ciphertext is not valid.
    InvalidArgument,
    /// The access token is not accepted.
    Unauthenticated,
    /// The key exists already.
    AlreadyExists,
    /// Anything else, with its meaning.
    Other(CallError),
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Self::Other(error)
    }
}

impl oauth::Refusal for Refusal {
    fn unexpected(self) -> CallError {
        match self {
            Self::Other(error) => error,
            Self::FailedPrecondition => CallError::Denied(Denial::InvalidState),
            Self::Unauthenticated => CallError::Denied(Denial::Credentials(crate::kms::CredentialFault::AccessTokenRefused)),
            Self::InvalidArgument | Self::AlreadyExists => CallError::Misconfigured("Cloud KMS refuses the request".to_owned()),
        }
    }

    fn map_known(self, change: impl FnOnce(CallError) -> CallError) -> Self {
        match self {
            Self::Other(error) => Self::Other(change(error)),
            other => other,
        }
    }
}

/// What an unsuccessful answer means.
pub(super) fn sort(answer: &HttpResponse) -> Refusal {
    by_code(answer.status, code(&answer.body).as_deref())
}

/// The canonical code in an error of Google. A load balancer in between uses another form.
fn code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        status: String,
    }
    serde_json::from_slice::<Body>(body).ok().map(|body| body.error.status)
}

fn by_code(status: u16, code: Option<&str>) -> Refusal {
    match (status, code) {
        (400, Some("FAILED_PRECONDITION")) => Refusal::FailedPrecondition,
        (400, Some("INVALID_ARGUMENT")) => Refusal::InvalidArgument,
        (401, _) => Refusal::Unauthenticated,
        (409, Some("ALREADY_EXISTS")) => Refusal::AlreadyExists,
        (403, Some(_)) => Refusal::Other(CallError::Denied(Denial::AccessDenied)),
        (404, Some(_)) => Refusal::Other(CallError::Denied(Denial::NotFound)),
        (429, _) => Refusal::Other(CallError::Outage(Outage::Throttled)),
        // 408, 504: deadlines of Google. 409 ABORTED: a conflict that may pass. 499: cancelled.
        (408 | 409 | 499 | 500.., _) => Refusal::Other(CallError::Outage(Outage::ServerError)),
        (_, Some(_)) => Refusal::Other(CallError::Misconfigured(format!("Cloud KMS refuses the request (status {status})"))),
        (_, None) => Refusal::Other(CallError::Misconfigured(format!("the server is not Cloud KMS (status {status})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_final_or_may_pass() {
        let denied = |denial| Refusal::Other(CallError::Denied(denial));
        let outage = |outage| Refusal::Other(CallError::Outage(outage));
        for (status, code, expected) in [
            (400, "FAILED_PRECONDITION", Refusal::FailedPrecondition),
            (400, "INVALID_ARGUMENT", Refusal::InvalidArgument),
            (401, "UNAUTHENTICATED", Refusal::Unauthenticated),
            (403, "PERMISSION_DENIED", denied(Denial::AccessDenied)),
            (404, "NOT_FOUND", denied(Denial::NotFound)),
            (409, "ALREADY_EXISTS", Refusal::AlreadyExists),
            (409, "ABORTED", outage(Outage::ServerError)),
            (429, "RESOURCE_EXHAUSTED", outage(Outage::Throttled)),
            (500, "INTERNAL", outage(Outage::ServerError)),
            (503, "UNAVAILABLE", outage(Outage::ServerError)),
            (504, "DEADLINE_EXCEEDED", outage(Outage::ServerError)),
        ] {
            assert_eq!(by_code(status, Some(code)), expected, "{status} {code}");
        }
    }

    /// A load balancer without a route also answers 404. That does not mean that the key is missing.
    #[test]
    fn the_answer_of_a_proxy_is_not_a_denial() {
        for status in [302, 400, 403, 404] {
            let found = by_code(status, None);
            assert!(
                matches!(&found, Refusal::Other(CallError::Misconfigured(what)) if what.contains("not Cloud KMS")),
                "{status}: {found:?}"
            );
        }
        assert_eq!(by_code(502, None), Refusal::Other(CallError::Outage(Outage::ServerError)));
        assert_eq!(code(br#"{"error":{"code":404,"message":"hidden","status":"NOT_FOUND"}}"#).as_deref(), Some("NOT_FOUND"));
        assert_eq!(code(b"<html>"), None);
    }
}
