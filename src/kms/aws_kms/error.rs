//! Classifies the errors of AWS by code and status, never by text: a denial is final, an outage may pass.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::{
    config::http::HttpResponse,
    error::{ConnectorError, ProvideErrorMetadata, SdkError},
    operation::RequestId,
};

use crate::kms::{Denial, Outage, WrapperError};

/// What a failed call means. The error names the key and the request id, and repeats no other text of AWS.
pub(super) fn sort<E>(reference: &str, error: &SdkError<E, HttpResponse>) -> WrapperError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let found = match error {
        SdkError::TimeoutError(_) => AwsError::Outage(Outage::TimedOut),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => AwsError::Outage(Outage::TimedOut),
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => not_sent(error),
        SdkError::ServiceError(answer) => by_code(answer.err().code().unwrap_or_default(), answer.raw().status().as_u16()),
        // Not a valid answer: truncated, or not from KMS.
        _ => AwsError::Outage(Outage::ServerError),
    };
    found.into_error(reference, error.request_id().map(str::to_owned))
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
            Self::Denied(denial) => WrapperError::Denied { reference, denial, request_id },
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
        "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "UnrecognizedClientException" => AwsError::Denied(Denial::CredentialsRejected),
        "DisabledException" => AwsError::Denied(Denial::Disabled),
        "KMSInvalidStateException" => AwsError::Denied(Denial::InvalidState),
        "NotFoundException" | "InvalidArnException" => AwsError::Denied(Denial::NotFound),
        "InvalidKeyUsageException" | "UnsupportedOperationException" => AwsError::Denied(Denial::WrongKind),
        // IncorrectKey: made by another key than the one that was named. For ReEncrypt, that is its source key.
        "InvalidCiphertextException" | "IncorrectKeyException" => AwsError::Invalid,
        "ThrottlingException" | "Throttling" | "LimitExceededException" | "RequestLimitExceeded" | "TooManyRequestsException" => {
            AwsError::Outage(Outage::Throttled)
        }
        "RequestExpired" | "RequestTimeout" | "RequestTimeoutException" => AwsError::Outage(Outage::TimedOut),
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
///
/// A credential source that is unreachable or slow is an outage. Missing or refused credentials need an operator.
fn not_sent(error: &(dyn Error + 'static)) -> AwsError {
    let chain = || std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    let Some(at) = chain().position(<dyn Error>::is::<CredentialsError>) else { return AwsError::Outage(Outage::Unreachable) };
    let mut causes = chain().skip(at);
    match causes.next().and_then(|cause| cause.downcast_ref()) {
        Some(CredentialsError::ProviderTimedOut(_)) => AwsError::Outage(Outage::TimedOut),
        _ if causes.any(<dyn Error>::is::<ConnectorError>) => AwsError::Outage(Outage::Unreachable),
        _ => AwsError::Denied(Denial::CredentialsRejected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_final_or_may_pass() {
        let found = |code, status| by_code(code, status).into_error("k", None);
        let denied = |denial| WrapperError::Denied { reference: "k".into(), denial, request_id: None };
        let outage = |outage| WrapperError::Unavailable { reference: "k".into(), outage, request_id: None };
        for (code, status, expected) in [
            ("AccessDeniedException", 400, denied(Denial::AccessDenied)),
            ("ExpiredTokenException", 400, denied(Denial::CredentialsRejected)),
            ("UnrecognizedClientException", 400, denied(Denial::CredentialsRejected)),
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
