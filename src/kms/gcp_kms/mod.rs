//! Wrapper keys in Cloud KMS of Google, over its REST API (<https://cloud.google.com/kms/docs/reference/rest>).
//!
//! | file | guarantees |
//! |---|---|
//! | `config` | `[wrapper.gcp_kms]`: addresses, the file of the credentials, the key ring of new keys. |
//! | `key_reference` | The identity of a key and its resource name. |
//! | `provider` | Only allowed keys are resolved, connected and created. |
//! | `crypto_key` | Wrapping and unwrapping with a key, bound to the encryption context and to the key version. |
//! | `api` | The calls, and their ids. |
//! | `checksum` | CRC-32C over what is sent and received. |
//! | `credentials` | Where access tokens come from: the metadata server, or a file. |
//! | `assertion` | The signed assertion of a service account. |
//! | `external_account`, `token_exchange` | The configuration of workload identity federation, and the exchange of a token of another issuer. |
//! | `key_info`, `posture` | What Cloud KMS says of a key, whether it may be used, and how it is assessed. |
//! | `error` | Each response is a denial, an outage or a fault of the configuration. |

#[cfg(feature = "gcp-kms")]
mod api;
#[cfg(feature = "gcp-kms")]
mod assertion;
#[cfg(feature = "gcp-kms")]
mod checksum;
mod config;
#[cfg(feature = "gcp-kms")]
mod credentials;
#[cfg(feature = "gcp-kms")]
mod crypto_key;
#[cfg(feature = "gcp-kms")]
mod error;
#[cfg(feature = "gcp-kms")]
mod external_account;
#[cfg(feature = "gcp-kms")]
mod key_info;
#[cfg_attr(not(feature = "gcp-kms"), allow(dead_code, reason = "the configuration needs a part of it"))]
mod key_reference;
#[cfg(feature = "gcp-kms")]
mod posture;
#[cfg(feature = "gcp-kms")]
mod provider;
#[cfg(feature = "gcp-kms")]
mod token_exchange;

pub use self::config::GcpKmsConfig;
#[cfg(feature = "gcp-kms")]
pub(super) use self::provider::ENTRY;

/// Of access tokens: Cloud KMS only.
#[cfg(feature = "gcp-kms")]
const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
