//! Wrapper keys in a KMS: one folder for each provider, and timeouts, retries and circuit breakers in front of all.
//!
//! A new provider is a folder with an `impl Provider` and an `ENTRY`, and one line in [`PROVIDERS`]. The text form of its kind, which is
//! stored and shown by the API, is a variant of [`crate::domain::ProviderKind`].

#[cfg_attr(
    not(all(feature = "aws-kms", feature = "openbao-transit", feature = "pkcs11", feature = "gcp-kms", feature = "azure-key-vault")),
    allow(dead_code, reason = "each provider needs a part of it")
)]
mod allowlist;
#[cfg_attr(not(feature = "aws-kms"), allow(dead_code, reason = "the allowlist needs a part of it"))]
mod aws_kms;
mod azure_key_vault;
#[cfg(any(feature = "openbao-transit", feature = "gcp-kms", feature = "azure-key-vault"))]
mod call_error;
#[cfg_attr(
    not(any(feature = "aws-kms", feature = "openbao-transit", feature = "gcp-kms", feature = "azure-key-vault")),
    allow(dead_code, reason = "the local provider calls no KMS")
)]
mod calls;
mod config;
mod connections;
mod cure;
mod gcp_kms;
#[cfg_attr(
    not(all(feature = "openbao-transit", feature = "gcp-kms")),
    allow(dead_code, reason = "the configuration and each provider need a part of it")
)]
mod http;
mod local;
#[cfg(any(feature = "gcp-kms", feature = "azure-key-vault"))]
mod oauth;
mod openbao;
mod pkcs11;
mod provider;
mod providers;
mod reason;
#[cfg_attr(
    not(any(feature = "aws-kms", feature = "openbao-transit", feature = "pkcs11", feature = "gcp-kms", feature = "azure-key-vault")),
    allow(dead_code, reason = "the local provider needs a part of it")
)]
mod resilience;
mod traced;

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    crypto::SecretBytes,
    domain::{EncryptionContext, KmsRotation, PostureLine, VaultId, WrapperKey},
};

#[cfg(feature = "aws-kms")]
pub use self::aws_kms::CantonStoreDecryption;
pub use self::azure_key_vault::AzureKeyVaultConfig;
pub use self::calls::{KmsCalls, TakenCalls};
pub use self::config::{CallLimits, EndpointUrl, WrapperConfig};
pub use self::connections::Connections;
pub use self::cure::Cure;
pub use self::gcp_kms::GcpKmsConfig;
pub use self::local::create_key_file;
pub use self::openbao::OpenbaoConfig;
pub use self::pkcs11::Pkcs11Config;
pub use self::providers::{CreateOptions, Providers};
pub use self::reason::Reason;

/// The providers of this binary.
const PROVIDERS: &[provider::ProviderEntry] = &[
    local::ENTRY,
    #[cfg(feature = "aws-kms")]
    aws_kms::ENTRY,
    #[cfg(feature = "openbao-transit")]
    openbao::ENTRY,
    #[cfg(feature = "pkcs11")]
    pkcs11::ENTRY,
    #[cfg(feature = "gcp-kms")]
    gcp_kms::ENTRY,
    #[cfg(feature = "azure-key-vault")]
    azure_key_vault::ENTRY,
];

/// A wrapper key, ready to use. It wraps data keys of 32 bytes.
#[async_trait]
pub trait Wrapper: Send + Sync {
    /// Wraps a data key, bound to `context`.
    ///
    /// # Errors
    /// [`WrapperError`].
    async fn wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, WrapperError>;

    /// Unwraps a data key, if it was wrapped under this key and this `context`.
    ///
    /// # Errors
    /// [`WrapperError`]; `Invalid` if this key did not make these bytes for this context.
    async fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, WrapperError>;

    /// Whether [`Wrapper::rewrap`] can take over what `other` wrapped: whether one KMS has both keys and can re-wrap.
    fn can_rewrap_from(&self, other: &WrapperKey) -> bool {
        let _ = other;
        false
    }

    /// Wraps under this key what another one wrapped, inside the KMS. The data key never leaves the KMS.
    ///
    /// # Errors
    /// [`WrapperError`]; `Invalid` if the other key did not make these bytes for this context, `Unfit` if the two do not meet.
    async fn rewrap(&self, from: ForeignWrap<'_>, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        let _ = context;
        Err(not_rewrappable("this wrapper key", from.key))
    }

    /// The longest time that one attempt in each region takes. A caller with an alternative need not wait longer.
    fn single_round_timeout(&self) -> Duration {
        Duration::MAX
    }

    /// Asks the KMS what the key is and whether it can be used.
    ///
    /// # Errors
    /// [`WrapperError`].
    async fn describe(&self) -> Result<Description, WrapperError>;

    /// Whether the key is what was connected to, as far as that costs no call to a KMS: the file of a key may have been removed or replaced.
    ///
    /// # Errors
    /// [`WrapperError`], as a new connection would give it.
    async fn still_there(&self) -> Result<(), WrapperError> {
        Ok(())
    }

    /// Asks the KMS how it rotates the key material. `None` if the KMS does not report it.
    ///
    /// # Errors
    /// [`WrapperError`]; a denial is of this question alone.
    async fn rotation(&self) -> Result<Option<KmsRotation>, WrapperError> {
        Ok(None)
    }

    /// Asks the KMS for the posture of the key: what it is, and who may use it. `vault` is the id of the vault, which is in the context of
    /// every call.
    ///
    /// # Errors
    /// [`WrapperError`]; what the KMS does not permit the vault to read is a line, not an error.
    async fn posture(&self, vault: &VaultId) -> Result<Vec<PostureLine>, WrapperError> {
        let _ = vault;
        Ok(Vec::new())
    }
}

/// The refusal to re-wrap between two keys that no common KMS has.
fn not_rewrappable(reference: &str, other: &WrapperKey) -> WrapperError {
    WrapperError::Unfit { reference: reference.to_owned(), what: format!("no KMS has both this key and {}", other.reference) }
}

/// A data key as another wrapper key wrapped it.
#[derive(Debug, Clone, Copy)]
pub struct ForeignWrap<'a> {
    /// The wrapper key that made it, which the configuration must allow.
    pub key: &'a WrapperKey,
    /// What its provider returned.
    pub wrapped: &'a [u8],
}

/// A wrapped data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// What the provider returned.
    pub bytes: Vec<u8>,
    /// The region and request id of the KMS.
    pub receipt: KmsReceipt,
}

/// An unwrapped data key.
pub struct Unwrapped {
    /// 32 bytes.
    pub data_key: SecretBytes,
    /// The region and request id of the KMS.
    pub receipt: KmsReceipt,
}

/// What a KMS reports about an answer, for the audit entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KmsReceipt {
    /// The region that answered.
    pub region: Option<String>,
    /// The request id that the KMS assigned.
    pub request_id: Option<String>,
}

/// What a wrapper key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The identity: never an alias, and without the region.
    pub identity: String,
    /// The resolved reference: an ARN, a URL, a PKCS#11 URI, a resource name, a file path.
    pub reference: String,
    /// The regions or servers that have it.
    pub regions: Vec<String>,
    /// Whether the KMS would use it now.
    pub usable: bool,
}

/// Why a call to a wrapper key failed. Only `Unavailable` may succeed when repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrapperError {
    /// The KMS refuses. The refusal may be intended.
    #[error("wrapper key {reference} was refused: {denial}{}", permission.map_or_else(String::new, |permission| format!(": {permission}")))]
    Denied {
        /// Which key.
        reference: String,
        /// Why.
        denial: Denial,
        /// The permission that is missing, as the KMS names it. Only with [`Denial::AccessDenied`].
        permission: Option<&'static str>,
        /// Request id of the KMS.
        request_id: Option<String>,
    },
    /// The ciphertext was not made by this key for this context.
    #[error("wrapper key {reference} did not make this wrap for this key")]
    Invalid {
        /// Which key.
        reference: String,
        /// Request id of the KMS.
        request_id: Option<String>,
    },
    /// The KMS is unreachable, slow, throttles or fails. Try again.
    #[error("wrapper key {reference} cannot be reached: {outage}")]
    Unavailable {
        /// Which key.
        reference: String,
        /// The kind of outage.
        outage: Outage,
        /// Request id of the KMS, if it answered.
        request_id: Option<String>,
    },
    /// The configuration does not allow this wrapper key.
    #[error("{reference} is not allowed: it matches no pattern of [wrapper] allowed in the configuration")]
    NotAllowed {
        /// What was asked for.
        reference: String,
    },
    /// The request cannot be fulfilled as it is. The caller must change it.
    #[error("{reference}: {what}")]
    Unfit {
        /// What was asked for.
        reference: String,
        /// What to ask for instead.
        what: String,
    },
    /// The reference, a region or a file is not usable. The text says why and how to fix it.
    #[error("wrapper key {reference}: {what}")]
    Misconfigured {
        /// What was asked for.
        reference: String,
        /// The fault and its fix.
        what: String,
    },
}

impl WrapperError {
    /// The request id of the KMS, if it answered.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Denied { request_id, .. } | Self::Invalid { request_id, .. } | Self::Unavailable { request_id, .. } => {
                request_id.as_deref()
            }
            Self::NotAllowed { .. } | Self::Unfit { .. } | Self::Misconfigured { .. } => None,
        }
    }
}

/// Why a KMS refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The policy denies the call.
    #[error("a policy denies the call")]
    AccessDenied,
    /// The vault cannot prove who it is. This says nothing of the key.
    #[error("{0}")]
    Credentials(CredentialFault),
    /// Disabled.
    #[error("the key is disabled")]
    Disabled,
    /// Scheduled for deletion, or in a state that does not allow the call.
    #[error("the key is pending deletion or in a state that allows no use")]
    InvalidState,
    /// There is no such key.
    #[error("the key does not exist in this account and region")]
    NotFound,
    /// A key of another kind.
    #[error("the key is not a symmetric encryption key")]
    WrongKind,
    /// A user with the permission can export the key from the KMS. Nothing new is wrapped under such a key.
    #[error("the key can be exported or backed up, so nothing new is wrapped under it")]
    Exportable,
    /// The key version that made this wrap is disabled. Newer versions may work.
    #[error("the key version that made this wrap may no longer decrypt")]
    OldVersion,
}

/// What is wrong with the credentials of the vault. The key may be in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    /// No source has any.
    #[error(
        "no AWS credentials were found. Looked at the environment, the shared credentials and config files with the profile, web identity, \
         container credentials and the instance metadata"
    )]
    Missing,
    /// They have expired.
    #[error("the credentials have expired")]
    Expired,
    /// AWS does not know the access key, or its session token.
    #[error("AWS does not accept the access key: it does not exist, is deactivated, or its session token is not valid")]
    UnknownAccessKey,
    /// The signature is not that of the access key.
    #[error("the signature does not match: the secret access key is wrong")]
    SignatureRefused,
    /// The clocks of the vault and of AWS differ.
    #[error("the clock of this machine differs from that of AWS by more than 5 minutes, so that AWS refuses every signature")]
    ClockSkew,
    /// The exit code of the credential process. `None` if a signal ended it or it cannot be started.
    #[error("the credential_process failed{}", .0.map_or_else(|| " without an exit code".to_owned(), |code| format!(" with exit code {code}")))]
    ProcessFailed(Option<i32>),
    /// The output is no credentials.
    #[error("the credential_process printed no valid credentials")]
    ProcessOutput,
    /// The cached token of AWS SSO is missing, expired or refused.
    #[error("the login of AWS SSO has ended, or its token cache cannot be read")]
    SsoLoginEnded,
    /// STS refuses `AssumeRole`.
    #[error("AWS STS refuses sts:AssumeRole for the role of the profile")]
    RoleRefused,
    /// STS refuses `AssumeRoleWithWebIdentity`.
    #[error("AWS STS refuses the web identity token, or its role")]
    WebIdentityRefused,
    /// The endpoint of the container credentials refuses.
    #[error("the endpoint of the container or instance credentials refuses the request")]
    EndpointRefused,
    /// A profile, a file or a variable is not usable.
    #[error("the configuration of the AWS credentials is not usable")]
    Misconfigured,
    /// OpenBao refuses the token for every call.
    #[error("OpenBao refuses the token: it has expired or was revoked")]
    TokenRefused,
    /// OpenBao refuses the login by certificate.
    #[error("OpenBao refuses the login by client certificate: no role accepts it")]
    CertificateLoginRefused,
    /// The token endpoint or the metadata server refuses the identity of the vault.
    #[error("no access token is given: the login of the vault is refused")]
    LoginRefused,
    /// The KMS refuses a new access token.
    #[error("the KMS does not accept the access token")]
    AccessTokenRefused,
    /// A PKCS#11 token refuses the PIN. It is not tried again until its file changes.
    #[error("the PKCS#11 token refuses the PIN, which is not tried again until its file is written")]
    PinRefused,
    /// A PKCS#11 token has locked the PIN.
    #[error("the PKCS#11 token has locked the PIN after too many wrong ones")]
    PinLocked,
    /// A PKCS#11 token locks the PIN if the next one is wrong.
    #[error("the PKCS#11 token has one try of the PIN left, and the vault does not use it")]
    PinLastTry,
}

/// The kind of outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// No connection.
    #[error("no connection")]
    Unreachable,
    /// The certificate of the server is not accepted, or it does not accept that of the vault. A person must act; another region or server may work.
    #[error("TLS fails: a certificate is not accepted")]
    TlsFailed,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The source of the credentials is unreachable, slow or fails.
    #[error("the source of the credentials does not answer")]
    CredentialsUnavailable,
    /// Too many requests.
    #[error("throttled")]
    Throttled,
    /// The KMS failed.
    #[error("the KMS failed")]
    ServerError,
    /// The server is sealed.
    #[error("the OpenBao server is sealed")]
    Sealed,
    /// No slot has the PKCS#11 token.
    #[error("the PKCS#11 token is in no slot")]
    TokenAbsent,
    /// A replica exists, but does not work yet.
    #[error("the replica is not usable yet; repeat the call to continue waiting")]
    NotUsableYet,
    /// The circuit breaker is open after repeated failures, or too many calls are waiting.
    #[error("not tried, because recent calls failed or too many calls are waiting")]
    NotTried,
}
