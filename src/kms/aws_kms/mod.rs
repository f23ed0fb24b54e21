//! Wrapper keys in AWS KMS.
//!
//! | file | guarantees |
//! |---|---|
//! | `key_arn` | The identity of a key and its ARN in each region. |
//! | `provider` | Only allowed keys and regions are resolved, connected and created. |
//! | `region_key` | Every call names the keys and the encryption context. |
//! | `clients` | One SDK client and one circuit breaker for each region. |
//! | `credentials` | The credentials of all regions: loaded once at a time, and replaced while the vault serves. |
//! | `credential_source`, `credential_process`, `credential_error` | Where they come from, the process of a profile, and why there are none. |
//! | `canton_store` | Rows of Canton's encrypted private key store are decrypted for an import. |
//! | `posture`, `key_policy` | What AWS says of a key, and whether its key policy is as narrow as it should be. |
//! | `replicate`, `rotation` | Replicas of multi-Region keys; the rotation of the key material by AWS. |
//! | `error` | Each error of AWS is a denial, an outage or a fault of the configuration. |

#[cfg(feature = "aws-kms")]
mod canton_store;
#[cfg(feature = "aws-kms")]
mod clients;
#[cfg(feature = "aws-kms")]
mod credential_error;
#[cfg(feature = "aws-kms")]
mod credential_process;
#[cfg(feature = "aws-kms")]
mod credential_source;
#[cfg(feature = "aws-kms")]
mod credentials;
#[cfg(feature = "aws-kms")]
mod error;
pub(super) mod key_arn;
#[cfg(feature = "aws-kms")]
mod key_policy;
#[cfg(feature = "aws-kms")]
mod posture;
#[cfg(feature = "aws-kms")]
mod provider;
#[cfg(feature = "aws-kms")]
mod region_key;
#[cfg(feature = "aws-kms")]
mod replicate;
#[cfg(feature = "aws-kms")]
mod rotation;

#[cfg(feature = "aws-kms")]
pub use self::canton_store::CantonStoreDecryption;
#[cfg(feature = "aws-kms")]
pub(super) use self::provider::ENTRY;
