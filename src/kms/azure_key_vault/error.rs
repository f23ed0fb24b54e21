//! Classifies the errors of Azure Key Vault by HTTP status and error code, never by text
//! (<https://learn.microsoft.com/azure/key-vault/general/rest-error-codes>).

use serde::Deserialize;

use crate::kms::{CredentialFault, Denial, Outage, call_error::CallError, http::HttpResponse, oauth};

/// An unsuccessful answer, before the caller explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The version of the key is disabled.
    Disabled,
    /// The request or the ciphertext is not valid.
    BadParameter,
    /// There is no such key or version.
    NotFound,
    /// The access token is not accepted.
    Unauthorized,
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
            Self::Disabled => CallError::Denied(Denial::Disabled),
            Self::NotFound => CallError::Denied(Denial::NotFound),
            Self::Unauthorized => CallError::Denied(Denial::Credentials(CredentialFault::AccessTokenRefused)),
            Self::BadParameter => CallError::Misconfigured("Azure Key Vault refuses the request (BadParameter)".to_owned()),
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
    let (code, inner) = codes(&answer.body).map_or((None, None), |(code, inner)| (Some(code), inner));
    by_code(answer.status, code.as_deref(), inner.as_deref())
}

/// The code and the inner code of an error of Azure. A proxy in between uses another form.
fn codes(body: &[u8]) -> Option<(String, Option<String>)> {
    #[derive(Deserialize)]
    struct Body {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        code: String,
        #[serde(default, alias = "innerError", alias = "inner_error")]
        innererror: Option<Inner>,
    }
    #[derive(Deserialize)]
    struct Inner {
        code: Option<String>,
    }
    let error = serde_json::from_slice::<Body>(body).ok()?.error;
    Some((error.code, error.innererror.and_then(|inner| inner.code)))
}

fn by_code(status: u16, code: Option<&str>, inner: Option<&str>) -> Refusal {
    match (status, code) {
        (400, Some("BadParameter")) => Refusal::BadParameter,
        (401, _) => Refusal::Unauthorized,
        (403, Some(_)) if inner == Some("KeyDisabled") => Refusal::Disabled,
        (403, Some(_)) if matches!(inner, Some("KeyExpired" | "KeyNotYetValid")) => Refusal::Other(CallError::Denied(Denial::InvalidState)),
        (403, Some(_)) => Refusal::Other(CallError::Denied(Denial::AccessDenied)),
        (404, Some(_)) => Refusal::NotFound,
        // 409: the key is deleted, and can be recovered.
        (409, Some(_)) => Refusal::Other(CallError::Denied(Denial::InvalidState)),
        (429, _) => Refusal::Other(CallError::Outage(Outage::Throttled)),
        (408 | 500.., _) => Refusal::Other(CallError::Outage(Outage::ServerError)),
        (_, Some(_)) => Refusal::Other(CallError::Misconfigured(format!("Azure Key Vault refuses the request (status {status})"))),
        (_, None) => Refusal::Other(CallError::Misconfigured(format!("the server is not Azure Key Vault (status {status})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_final_or_may_pass() {
        let denied = |denial| Refusal::Other(CallError::Denied(denial));
        let outage = |outage| Refusal::Other(CallError::Outage(outage));
        for (status, code, inner, expected) in [
            (400, "BadParameter", None, Refusal::BadParameter),
            (401, "Unauthorized", None, Refusal::Unauthorized),
            (403, "Forbidden", Some("KeyDisabled"), Refusal::Disabled),
            (403, "Forbidden", Some("KeyExpired"), denied(Denial::InvalidState)),
            (403, "Forbidden", Some("ForbiddenByRbac"), denied(Denial::AccessDenied)),
            (403, "Forbidden", Some("ForbiddenByFirewall"), denied(Denial::AccessDenied)),
            (403, "Forbidden", None, denied(Denial::AccessDenied)),
            (404, "KeyNotFound", None, Refusal::NotFound),
            (409, "Conflict", None, denied(Denial::InvalidState)),
            (429, "Throttled", None, outage(Outage::Throttled)),
            (500, "InternalServerError", None, outage(Outage::ServerError)),
            (503, "ServiceUnavailable", None, outage(Outage::ServerError)),
        ] {
            assert_eq!(by_code(status, Some(code), inner), expected, "{status} {code}");
        }
    }

    #[test]
    fn the_answer_of_a_proxy_is_not_a_denial() {
        for status in [302, 400, 403, 404] {
            let found = by_code(status, None, None);
            let fits = matches!(&found, Refusal::Other(CallError::Misconfigured(what)) if what.contains("not Azure Key Vault"));
            assert!(fits, "{status}: {found:?}");
        }
        let text = br#"{"error":{"code":"Forbidden","message":"hidden","innererror":{"code":"KeyDisabled"}}}"#;
        assert_eq!(codes(text), Some(("Forbidden".into(), Some("KeyDisabled".into()))));
        assert_eq!(codes(b"<html>"), None);
    }
}
