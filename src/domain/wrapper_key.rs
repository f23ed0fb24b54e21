//! A registered wrapper key: its provider, identity, regions and state.

use super::{Timestamp, WrapperKeyId, WrapperKeyName, text::text_enum};

text_enum!(
    /// The kind of KMS of a wrapper key.
    ProviderKind as "wrapper provider" {
        /// A key in a file, for development. Elsewhere the configuration must allow it explicitly.
        Local = "local",
        /// AWS KMS.
        AwsKms = "aws-kms",
        /// The transit engine of OpenBao.
        OpenbaoTransit = "openbao-transit",
        /// A key in a PKCS#11 token: an HSM, or a token in software.
        Pkcs11 = "pkcs11",
        /// Cloud KMS of Google.
        GcpKms = "gcp-kms",
        /// Azure Key Vault or Managed HSM.
        AzureKeyVault = "azure-key-vault",
    }
);

text_enum!(
    /// The state of a wrapper key.
    WrapperState as "wrapper key state" {
        /// Wraps new keys and unwraps.
        Active = "active",
        /// A background task keeps it filled. It unwraps.
        Standby = "standby",
        /// Unwraps, but wraps no new keys.
        Draining = "draining",
        /// Gets no new wraps. Its wraps are about to be deleted.
        Retiring = "retiring",
        /// Has no wraps.
        Retired = "retired",
    }
);

text_enum!(
    /// The cause of a rotation in the KMS.
    KmsRotationKind as "kind of KMS rotation" {
        /// The schedule of the KMS.
        Automatic = "automatic",
        /// A request of a person.
        OnDemand = "on-demand",
    }
);

/// How the KMS rotates the key material of a wrapper key. Existing wraps stay under the older material.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KmsRotation {
    /// Whether the KMS rotates it automatically.
    pub automatic: bool,
    /// Days between two automatic rotations.
    pub period_days: Option<u32>,
    /// When the next automatic rotation is due.
    pub next_at: Option<Timestamp>,
    /// When the last rotation was, of either kind. `None` if there was none.
    pub last_at: Option<Timestamp>,
    /// The kind of the last rotation.
    pub last_kind: Option<KmsRotationKind>,
    /// When a rotation on demand started that is not complete.
    pub on_demand_since: Option<Timestamp>,
}

/// A registered wrapper key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapperKey {
    /// The short id in this vault.
    pub id: WrapperKeyId,
    /// Its name. A store has it in the chain of state changes only, and in no column.
    pub name: Option<WrapperKeyName>,
    /// The kind of KMS.
    pub provider: ProviderKind,
    /// The identity, without alias and region: `aws:<partition>:<account>:<key id>`, `openbao:<cluster id>:<mount>:<name>:<second of
    /// creation>`, `pkcs11:<serial number of the token>:<CKA_ID in hex>`, `gcp:<project>:<location>:<key ring>:<key>`, `azure:<host of the vault>:<key>`, or
    /// `local:<16 hex digits of the digest of the key>`.
    pub identity: String,
    /// The resolved reference: an ARN, a URL, a PKCS#11 URI, a resource name, or a file path.
    pub reference: String,
    /// The regions in the order to try. Empty for providers without regions.
    pub regions: Vec<String>,
    /// The state.
    pub state: WrapperState,
    /// The canary: a random data key wrapped at registration. It distinguishes an invalid wrap from a wrong wrapper key.
    pub canary: Vec<u8>,
    /// When it was registered.
    pub created_at: Timestamp,
}
