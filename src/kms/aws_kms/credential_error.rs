//! Classifies why credentials cannot be loaded, by the types and codes of the SDK, never by text. The texts may hold secrets.

use std::{error::Error, io};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ConnectorError, ProvideErrorMetadata};
use aws_sdk_sts::operation::{assume_role::AssumeRoleError, assume_role_with_web_identity::AssumeRoleWithWebIdentityError};

use crate::kms::{CredentialFault, Outage};

use super::{credential_source::Source, credentials::Failure};

/// What a failed load from `source` means.
pub(super) fn classify(source: Source, error: &CredentialsError) -> Failure {
    let denied = Failure::Denied;
    match error {
        CredentialsError::CredentialsNotLoaded(_) if source == Source::Instance => return denied(CredentialFault::Missing),
        CredentialsError::CredentialsNotLoaded(_) if source == Source::Environment => return denied(CredentialFault::Missing),
        CredentialsError::ProviderTimedOut(_) => return Failure::Outage(Outage::CredentialsUnavailable),
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
            return denied(CredentialFault::Misconfigured);
        }
        _ => {}
    }
    let first: &(dyn Error + 'static) = error;
    let chain = || std::iter::successors(Some(first), |error: &&(dyn Error + 'static)| (*error).source());
    if chain().any(<dyn Error>::is::<ConnectorError>) {
        return Failure::Outage(Outage::CredentialsUnavailable);
    }
    if let Some(refused) = chain().find_map(<dyn Error>::downcast_ref::<AssumeRoleError>) {
        return of_sts(refused.code(), CredentialFault::RoleRefused);
    }
    if let Some(refused) = chain().find_map(<dyn Error>::downcast_ref::<AssumeRoleWithWebIdentityError>) {
        return of_sts(refused.code(), CredentialFault::WebIdentityRefused);
    }
    match source {
        Source::Sso => denied(CredentialFault::SsoLoginEnded),
        _ if chain().any(<dyn Error>::is::<io::Error>) => denied(CredentialFault::Misconfigured),
        Source::Container | Source::Instance => denied(CredentialFault::EndpointRefused),
        Source::WebIdentity => denied(CredentialFault::WebIdentityRefused),
        Source::Environment | Source::Profile | Source::Process => denied(CredentialFault::Misconfigured),
    }
}

/// The published error codes of `AssumeRole` and `AssumeRoleWithWebIdentity`. `refused` is the fault of a refusal of the role itself.
fn of_sts(code: Option<&str>, refused: CredentialFault) -> Failure {
    match code.unwrap_or_default() {
        "ExpiredToken" | "ExpiredTokenException" if refused == CredentialFault::RoleRefused => Failure::Denied(CredentialFault::Expired),
        "InvalidClientTokenId" | "UnrecognizedClientException" => Failure::Denied(CredentialFault::UnknownAccessKey),
        "SignatureDoesNotMatch" | "IncompleteSignature" => Failure::Denied(CredentialFault::SignatureRefused),
        "" | "Throttling" | "ServiceUnavailable" | "InternalFailure" | "IDPCommunicationError" => {
            Failure::Outage(Outage::CredentialsUnavailable)
        }
        _ => Failure::Denied(refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_sts_is_a_fault_of_its_own_or_an_outage() {
        use CredentialFault::{Expired, RoleRefused, SignatureRefused, UnknownAccessKey, WebIdentityRefused};
        for (code, of, expected) in [
            ("AccessDenied", RoleRefused, Some(RoleRefused)),
            ("ExpiredToken", RoleRefused, Some(Expired)),
            ("ExpiredTokenException", WebIdentityRefused, Some(WebIdentityRefused)),
            ("InvalidIdentityToken", WebIdentityRefused, Some(WebIdentityRefused)),
            ("InvalidClientTokenId", RoleRefused, Some(UnknownAccessKey)),
            ("SignatureDoesNotMatch", RoleRefused, Some(SignatureRefused)),
            ("Throttling", RoleRefused, None),
        ] {
            let found = match of_sts(Some(code), of) {
                Failure::Denied(fault) => Some(fault),
                Failure::Outage(_) => None,
            };
            assert_eq!(found, expected, "{code}");
        }
    }
}
