//! Classifies the errors of AWS by code and status, never by text: a denial is final, an outage may pass.

use std::{
    error::Error,
    io,
    time::{Duration, SystemTime},
};

use aws_sdk_kms::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
    primitives::{DateTime, DateTimeFormat},
};

use super::credentials::Failure;
use crate::client::connector::is_tls;
use crate::kms::{CredentialFault, Denial, Outage, WrapperError};

/// What a failed call means. The error names the key, the permission and the request id, and repeats no other text of AWS. `now` is the
/// time with which the request was signed.
pub(super) fn sort<E>(reference: &str, permission: &'static str, error: &SdkError<E, HttpResponse>, now: SystemTime) -> WrapperError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let found = match error {
        SdkError::TimeoutError(_) => AwsError::Outage(Outage::TimedOut),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => AwsError::Outage(Outage::TimedOut),
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => not_sent(error),
        SdkError::ServiceError(answer) => {
            let found = by_code(answer.err().code().unwrap_or_default(), answer.raw().status().as_u16());
            match found {
                AwsError::Denied(Denial::Credentials(CredentialFault::SignatureRefused)) if differs(answer.raw(), now) => {
                    AwsError::Denied(Denial::Credentials(CredentialFault::ClockSkew))
                }
                found => found,
            }
        }
        // Not a valid answer: truncated, or not from KMS.
        _ => AwsError::Outage(Outage::ServerError),
    };
    match found.into_error(reference, error.request_id().map(str::to_owned)) {
        WrapperError::Denied { reference, denial: Denial::AccessDenied, request_id, .. } => {
            WrapperError::Denied { reference, denial: Denial::AccessDenied, permission: Some(permission), request_id }
        }
        other => other,
    }
}

/// Whether CloudTrail may have a record of a failed call. It has none of a call that AWS did not authenticate, or that did not reach AWS.
pub(super) fn is_recorded<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error {
        SdkError::ConstructionFailure(_) => false,
        SdkError::ServiceError(answer) => {
            let found = by_code(answer.err().code().unwrap_or_default(), answer.raw().status().as_u16());
            !matches!(found, AwsError::Denied(Denial::Credentials(_)))
        }
        SdkError::DispatchFailure(failure) if !failure.is_timeout() => {
            matches!(not_sent(error), AwsError::Outage(Outage::Unreachable)) && !was_refused(error)
        }
        _ => true,
    }
}

/// Whether there was no connection at all.
fn was_refused(error: &(dyn Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    chain.filter_map(<dyn Error>::downcast_ref::<io::Error>).any(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether the header `Date` of an answer (RFC 9110, 6.6.1) differs from `now` by more than AWS accepts.
fn differs(answer: &HttpResponse, now: SystemTime) -> bool {
    let date = answer.headers().get("date").and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
    let Some(theirs) = date.and_then(|date| SystemTime::try_from(date).ok()) else { return false };
    let difference = now.duration_since(theirs).unwrap_or_else(|earlier| earlier.duration());
    difference > MAX_DIFFERENCE
}

/// KMS answered success without the expected content.
pub(super) fn unusable_answer(reference: &str) -> WrapperError {
    AwsError::Outage(Outage::ServerError).into_error(reference, None)
}

/// What a code of KMS means.
enum AwsError {
    Denied(Denial),
    Invalid,
    Outage(Outage),
    Misconfigured(String),
}

impl AwsError {
    fn into_error(self, reference: &str, request_id: Option<String>) -> WrapperError {
        let reference = reference.to_owned();
        match self {
            Self::Denied(denial) => WrapperError::Denied { reference, denial, permission: None, request_id },
            Self::Invalid => WrapperError::Invalid { reference, request_id },
            Self::Outage(outage) => WrapperError::Unavailable { reference, outage, request_id },
            Self::Misconfigured(what) => WrapperError::Misconfigured { reference, what },
        }
    }
}

/// The published error codes of `Encrypt`, `Decrypt`, `ReEncrypt`, `DescribeKey` and of AWS in common.
fn by_code(code: &str, status: u16) -> AwsError {
    match code {
        "AccessDeniedException" | "NotAuthorized" | "OptInRequired" => AwsError::Denied(Denial::AccessDenied),
        "ExpiredTokenException" | "ExpiredToken" => AwsError::Denied(Denial::Credentials(CredentialFault::Expired)),
        "InvalidClientTokenId" | "MissingAuthenticationToken" | "MissingAuthenticationTokenException" | "UnrecognizedClientException" => {
            AwsError::Denied(Denial::Credentials(CredentialFault::UnknownAccessKey))
        }
        // RequestExpired: the time of the request is too far from that of AWS.
        "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "RequestExpired"
        | "SignatureDoesNotMatch" => AwsError::Denied(Denial::Credentials(CredentialFault::SignatureRefused)),
        "DisabledException" => AwsError::Denied(Denial::Disabled),
        "KMSInvalidStateException" => AwsError::Denied(Denial::InvalidState),
        "NotFoundException" | "InvalidArnException" => AwsError::Denied(Denial::NotFound),
        "InvalidKeyUsageException" | "UnsupportedOperationException" => AwsError::Denied(Denial::WrongKind),
        // IncorrectKey: made by another key than the one that was named. For ReEncrypt, that is its source key.
        "InvalidCiphertextException" | "IncorrectKeyException" => AwsError::Invalid,
        "ThrottlingException" | "Throttling" | "LimitExceededException" | "RequestLimitExceeded" | "TooManyRequestsException" => {
            AwsError::Outage(Outage::Throttled)
        }
        "RequestTimeout" | "RequestTimeoutException" => AwsError::Outage(Outage::TimedOut),
        // Comes with status 500, and the documentation of AWS says that it can be retried.
        "KeyUnavailableException" | "KMSInternalException" | "DependencyTimeoutException" | "ServiceUnavailable" | "InternalFailure" => {
            AwsError::Outage(Outage::ServerError)
        }
        _ if status == 429 => AwsError::Outage(Outage::Throttled),
        _ if status >= 500 => AwsError::Outage(Outage::ServerError),
        _ if code.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            AwsError::Misconfigured(format!("KMS refuses the request as {code} ({status})"))
        }
        _ => AwsError::Misconfigured(format!("the server is not KMS (status {status})")),
    }
}

/// The request was not sent: there was no connection, or there were no credentials.
fn not_sent(error: &(dyn Error + 'static)) -> AwsError {
    let chain = || std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    match chain().find_map(<dyn Error>::downcast_ref::<Failure>) {
        Some(Failure::Denied(fault)) => return AwsError::Denied(Denial::Credentials(*fault)),
        Some(Failure::Outage(outage)) => return AwsError::Outage(*outage),
        None => {}
    }
    AwsError::Outage(if is_tls(error) { Outage::TlsFailed } else { Outage::Unreachable })
}

/// The difference of the clocks that AWS accepts.
const MAX_DIFFERENCE: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_final_or_may_pass() {
        let found = |code, status| by_code(code, status).into_error("k", None);
        let denied = |denial| WrapperError::Denied { reference: "k".into(), denial, permission: None, request_id: None };
        let credentials = |fault| denied(Denial::Credentials(fault));
        let outage = |outage| WrapperError::Unavailable { reference: "k".into(), outage, request_id: None };
        for (code, status, expected) in [
            ("AccessDeniedException", 400, denied(Denial::AccessDenied)),
            ("ExpiredTokenException", 400, credentials(CredentialFault::Expired)),
            ("UnrecognizedClientException", 400, credentials(CredentialFault::UnknownAccessKey)),
            ("InvalidSignatureException", 400, credentials(CredentialFault::SignatureRefused)),
            ("SignatureDoesNotMatch", 403, credentials(CredentialFault::SignatureRefused)),
            ("DisabledException", 400, denied(Denial::Disabled)),
            ("KMSInvalidStateException", 400, denied(Denial::InvalidState)),
            ("NotFoundException", 400, denied(Denial::NotFound)),
            ("InvalidKeyUsageException", 400, denied(Denial::WrongKind)),
            ("IncorrectKeyException", 400, WrapperError::Invalid { reference: "k".into(), request_id: None }),
            ("InvalidCiphertextException", 400, WrapperError::Invalid { reference: "k".into(), request_id: None }),
            ("ThrottlingException", 400, outage(Outage::Throttled)),
            ("KeyUnavailableException", 500, outage(Outage::ServerError)),
            ("SomethingNew", 503, outage(Outage::ServerError)),
            ("", 429, outage(Outage::Throttled)),
        ] {
            assert_eq!(found(code, status), expected, "{code}");
        }
        assert!(found("ValidationException", 400).to_string().contains("ValidationException"));
        assert!(!found("<html>secret", 400).to_string().contains("html"));
    }
}
