//! Every reason why a wrapper key cannot be used, with the words for an operator. One table: a reason, and what to do about it.

use crate::domain::text_enum;

use super::{CredentialFault, Denial, Outage, WrapperError};

text_enum!(
    /// Why a wrapper key cannot be used. Each reason has its own remedy.
    Reason as "reason" {
        /// A policy denies the call.
        AccessDenied = "access_denied",
        /// The key is disabled.
        KeyDisabled = "key_disabled",
        /// The key is pending deletion, or in another state without use.
        KeyPendingDeletion = "key_pending_deletion",
        /// The key does not exist.
        KeyNotFound = "key_not_found",
        /// The key is no symmetric encryption key.
        KeyOfWrongKind = "key_of_wrong_kind",
        /// The key can be exported from the KMS.
        KeyExportable = "key_exportable",
        /// The version of the key that made the wrap may not decrypt.
        KeyVersionDisabled = "key_version_disabled",
        /// No source has credentials.
        CredentialsMissing = "credentials_missing",
        /// The credentials have expired.
        CredentialsExpired = "credentials_expired",
        /// AWS does not know the access key.
        AccessKeyUnknown = "access_key_unknown",
        /// The signature does not match the secret of the access key.
        SignatureRefused = "signature_refused",
        /// The clock of the machine is wrong.
        ClockSkew = "clock_skew",
        /// The credential process failed.
        CredentialProcessFailed = "credential_process_failed",
        /// The credential process ended well, but its output is no credentials.
        CredentialProcessOutput = "credential_process_output",
        /// The login of AWS SSO has ended.
        SsoLoginEnded = "sso_login_ended",
        /// AWS STS refuses the role.
        RoleRefused = "role_refused",
        /// AWS STS refuses the web identity token.
        WebIdentityRefused = "web_identity_refused",
        /// The endpoint of container credentials refuses.
        CredentialEndpointRefused = "credential_endpoint_refused",
        /// A file or variable of the credentials cannot be used.
        CredentialsMisconfigured = "credentials_misconfigured",
        /// OpenBao refuses the token.
        TokenRefused = "token_refused",
        /// OpenBao refuses the client certificate.
        CertificateLoginRefused = "certificate_login_refused",
        /// No access token is given.
        LoginRefused = "login_refused",
        /// The KMS refuses the access token.
        AccessTokenRefused = "access_token_refused",
        /// A PKCS#11 token refuses the PIN.
        PinRefused = "pin_refused",
        /// A PKCS#11 token has locked the PIN.
        PinLocked = "pin_locked",
        /// A PKCS#11 token has one try of the PIN left.
        PinLastTry = "pin_last_try",
        /// The wrap was not made by this key for this context.
        WrapInvalid = "wrap_invalid",
        /// The configuration does not allow the wrapper key.
        NotAllowed = "not_allowed",
        /// The request must be changed.
        RequestUnfit = "request_unfit",
        /// The reference, a region or a file is not usable.
        Misconfigured = "misconfigured",
        /// TLS fails.
        TlsFailed = "tls_failed",
        /// No connection.
        Unreachable = "unreachable",
        /// No answer in time.
        TimedOut = "timed_out",
        /// The source of the credentials does not answer.
        CredentialsUnavailable = "credentials_unavailable",
        /// Too many requests.
        Throttled = "throttled",
        /// The KMS failed.
        ServerError = "server_error",
        /// The OpenBao server is sealed.
        Sealed = "sealed",
        /// No slot has the PKCS#11 token.
        TokenAbsent = "token_absent",
        /// The replica is not usable yet.
        ReplicaNotReady = "replica_not_ready",
        /// Not tried after recent failures.
        NotTried = "not_tried",
    }
);

/// What to do about each reason. `docs/errors.md` is generated from this table.
const REMEDIES: &[(Reason, &str)] = &[
    (
        Reason::AccessDenied,
        "Permit the action that the detail names: in the key policy and the IAM policy of the vault (deploy/aws), in the policy of its \
         OpenBao token (deploy/openbao), in a role on the key (deploy/gcp, deploy/azure), or as an attribute of the key in its PKCS#11 token. The key is not disabled.",
    ),
    (Reason::KeyDisabled, "Somebody may have disabled it on purpose: ask the KMS administrators. Then enable it in the KMS."),
    (Reason::KeyPendingDeletion, "Ask the KMS administrators, and cancel the deletion before it is due."),
    (
        Reason::KeyNotFound,
        "Check the account, the region and the name in the reference. A KMS key that was deleted is lost: use a backup under another wrapper key.",
    ),
    (
        Reason::KeyOfWrongKind,
        "Register a symmetric key for encryption and decryption (AWS: SYMMETRIC_DEFAULT; OpenBao: aes256-gcm96; PKCS#11: AES of 256 bits; \
         Google: ENCRYPT_DECRYPT; Azure: oct-HSM of 256 bits, or RSA).",
    ),
    (
        Reason::KeyExportable,
        "Create a key that cannot leave the KMS, and rotate to it: a transit key without exportable and allow_plaintext_backup, or a key in a \
         PKCS#11 token with CKA_SENSITIVE and without CKA_EXTRACTABLE.",
    ),
    (
        Reason::KeyVersionDisabled,
        "Lower min_decryption_version of the transit key again, or enable or restore the version of the key in Cloud KMS or Azure Key Vault. \
         Somebody may have disabled it on purpose.",
    ),
    (
        Reason::CredentialsMissing,
        "Configure one source of credentials for the user of the vault: docs/operations.md lists them. Check AWS_PROFILE and HOME.",
    ),
    (Reason::CredentialsExpired, "Renew the credentials at their source. The vault uses them within seconds, without a restart."),
    (
        Reason::AccessKeyUnknown,
        "The access key was deleted or deactivated, or its session token is not valid. Put a valid access key into the source of the credentials.",
    ),
    (
        Reason::SignatureRefused,
        "Correct the secret access key. If it is right, check that the endpoint of [wrapper] belongs to the region of the key.",
    ),
    (Reason::ClockSkew, "Set the clock of the machine, and keep it right with NTP. AWS accepts a difference of at most 5 minutes."),
    (
        Reason::CredentialProcessFailed,
        "Run the command of credential_process as the user of the vault: its exit code and its own messages say what is wrong.",
    ),
    (
        Reason::CredentialProcessOutput,
        "Run the command of credential_process as the user of the vault: it must print one JSON object with Version 1, AccessKeyId and \
         SecretAccessKey.",
    ),
    (Reason::SsoLoginEnded, "Run `aws sso login` for the profile, as the user of the vault. For a server, use a role instead of SSO."),
    (Reason::RoleRefused, "Permit sts:AssumeRole to the base credentials, and name them in the trust policy of the role."),
    (
        Reason::WebIdentityRefused,
        "Check the trust policy of the role, the identity provider, and that the token file is renewed (AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE).",
    ),
    (
        Reason::CredentialEndpointRefused,
        "Check the role of the task or pod, and the authorization token (AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE).",
    ),
    (
        Reason::CredentialsMisconfigured,
        "Correct the profile, the file or the variable that the log names. The vault reads them again at the next call.",
    ),
    (Reason::TokenRefused, "Write a new token to token_file. The vault reads it at the next call."),
    (
        Reason::CertificateLoginRefused,
        "Check the role and the CA of the certificate login in OpenBao, and the options role, certificate and namespace of [[wrapper.openbao]].",
    ),
    (
        Reason::LoginRefused,
        "Check the service account and its key file, or the pool, the token and the service account of the federation (gcp-kms), or the tenant, the client id and the secret, federated credential or managed \
         identity (azure-key-vault), and the clock of the machine. The log has the code of the refusal.",
    ),
    (
        Reason::AccessTokenRefused,
        "Check that the endpoint and the tenant in the configuration are those of the KMS, that the identity of the vault still exists, and that \
         the KMS and the credentials are of the same cloud.",
    ),
    (
        Reason::PinRefused,
        "Write the right PIN to pin_file of [[wrapper.pkcs11]]. If the PIN in it is right by now, write the file again. The vault reads it at \
         the next call.",
    ),
    (Reason::PinLocked, "Let the security officer of the token set a new PIN, and write it to pin_file of [[wrapper.pkcs11]]."),
    (
        Reason::PinLastTry,
        "Log in to the token once with the right PIN (pkcs11-tool --login --list-objects), which gives all tries back, and write that PIN to \
         pin_file of [[wrapper.pkcs11]].",
    ),
    (Reason::WrapInvalid, "The wrap is damaged or belongs to another key: restore a backup. Other wraps of the same key still open it."),
    (Reason::NotAllowed, "If the wrapper key is yours, add it to [wrapper] allowed."),
    (Reason::RequestUnfit, "Change the request as the detail says."),
    (Reason::Misconfigured, "Correct what the detail names: the reference, a region or a file."),
    (
        Reason::TlsFailed,
        "Check the certificate of the server, its host name, and the CA file of the configuration. The log has the details.",
    ),
    (Reason::Unreachable, "Check the network, the firewall and the address of the KMS. The vault retries."),
    (Reason::TimedOut, "Check the network and the load of the KMS. The vault retries."),
    (Reason::CredentialsUnavailable, "Check the process, STS, SSO or metadata service that gives the credentials. The vault retries."),
    (Reason::Throttled, "The account exceeds its quota: lower [wrapper.limits] rate_limit, or raise the quota. The vault retries."),
    (Reason::ServerError, "Wait for the KMS. The vault retries."),
    (Reason::Sealed, "Unseal the OpenBao server. The vault retries."),
    (
        Reason::TokenAbsent,
        "Insert the token, or start its server, and check its label in [[wrapper.pkcs11]]. The vault initializes the library again and \
         retries.",
    ),
    (Reason::ReplicaNotReady, "Repeat the call to continue waiting."),
    (Reason::NotTried, "See the reason of the calls before. The vault tries again within seconds."),
];

impl Reason {
    /// What an operator has to do.
    pub fn remedy(self) -> &'static str {
        // A test checks that every reason is in the table.
        REMEDIES.iter().find(|(reason, _)| *reason == self).map_or("", |(_, remedy)| remedy)
    }
}

impl WrapperError {
    /// The error and what to do about it, in one line, for `check`.
    pub fn with_remedy(&self) -> String {
        format!("{self}. Fix: {}", self.reason().remedy())
    }

    /// The reason.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Denied { denial, .. } => denial.reason(),
            Self::Invalid { .. } => Reason::WrapInvalid,
            Self::Unavailable { outage, .. } => outage.reason(),
            Self::NotAllowed { .. } => Reason::NotAllowed,
            Self::Unfit { .. } => Reason::RequestUnfit,
            Self::Misconfigured { .. } => Reason::Misconfigured,
        }
    }
}

impl Denial {
    const fn reason(self) -> Reason {
        match self {
            Self::AccessDenied => Reason::AccessDenied,
            Self::Credentials(fault) => fault.reason(),
            Self::Disabled => Reason::KeyDisabled,
            Self::InvalidState => Reason::KeyPendingDeletion,
            Self::NotFound => Reason::KeyNotFound,
            Self::WrongKind => Reason::KeyOfWrongKind,
            Self::Exportable => Reason::KeyExportable,
            Self::OldVersion => Reason::KeyVersionDisabled,
        }
    }
}

impl CredentialFault {
    const fn reason(self) -> Reason {
        match self {
            Self::Missing => Reason::CredentialsMissing,
            Self::Expired => Reason::CredentialsExpired,
            Self::UnknownAccessKey => Reason::AccessKeyUnknown,
            Self::SignatureRefused => Reason::SignatureRefused,
            Self::ClockSkew => Reason::ClockSkew,
            Self::ProcessFailed(_) => Reason::CredentialProcessFailed,
            Self::ProcessOutput => Reason::CredentialProcessOutput,
            Self::SsoLoginEnded => Reason::SsoLoginEnded,
            Self::RoleRefused => Reason::RoleRefused,
            Self::WebIdentityRefused => Reason::WebIdentityRefused,
            Self::EndpointRefused => Reason::CredentialEndpointRefused,
            Self::Misconfigured => Reason::CredentialsMisconfigured,
            Self::TokenRefused => Reason::TokenRefused,
            Self::CertificateLoginRefused => Reason::CertificateLoginRefused,
            Self::LoginRefused => Reason::LoginRefused,
            Self::AccessTokenRefused => Reason::AccessTokenRefused,
            Self::PinRefused => Reason::PinRefused,
            Self::PinLocked => Reason::PinLocked,
            Self::PinLastTry => Reason::PinLastTry,
        }
    }
}

impl Outage {
    const fn reason(self) -> Reason {
        match self {
            Self::Unreachable => Reason::Unreachable,
            Self::TlsFailed => Reason::TlsFailed,
            Self::TimedOut => Reason::TimedOut,
            Self::CredentialsUnavailable => Reason::CredentialsUnavailable,
            Self::Throttled => Reason::Throttled,
            Self::ServerError => Reason::ServerError,
            Self::Sealed => Reason::Sealed,
            Self::TokenAbsent => Reason::TokenAbsent,
            Self::NotUsableYet => Reason::ReplicaNotReady,
            Self::NotTried => Reason::NotTried,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_remedy_of_its_own() {
        for reason in Reason::ALL {
            assert_eq!(REMEDIES.iter().filter(|(of, _)| of == reason).count(), 1, "{reason}");
            assert_eq!(REMEDIES.iter().filter(|(_, remedy)| *remedy == reason.remedy()).count(), 1, "{reason}");
        }
    }
}
