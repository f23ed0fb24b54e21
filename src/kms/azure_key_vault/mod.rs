//! Wrapper keys in Azure Key Vault and Azure Managed HSM, over their REST API (<https://learn.microsoft.com/rest/api/keyvault/>, version 7.4).
//!
//! | file | guarantees |
//! |---|---|
//! | `config` | `[[wrapper.azure_key_vault]]`: a vault, how it is reached, and how the vault logs in. |
//! | `key_reference` | The identity of a key and its address. |
//! | `provider` | Only allowed keys are resolved, connected and created. |
//! | `vault_key` | Wrapping and unwrapping with a key, bound to the encryption context. |
//! | `wrap_format` | The bytes of a wrap, and how an RSA key binds the context. |
//! | `api` | The calls, and their ids. |
//! | `credentials` | Access tokens: by a federated token, a client secret, or the managed identity of the machine. |
//! | `key_info`, `posture` | What Azure says of a key, whether it may be used, and how it is assessed. |
//! | `error` | Each response is a denial, an outage or a fault of the configuration. |

#[cfg(feature = "azure-key-vault")]
mod api;
#[cfg_attr(not(feature = "azure-key-vault"), allow(dead_code, reason = "an entry is checked in every build"))]
mod config;
#[cfg(feature = "azure-key-vault")]
mod credentials;
#[cfg(feature = "azure-key-vault")]
mod error;
#[cfg(feature = "azure-key-vault")]
mod key_info;
#[cfg_attr(not(feature = "azure-key-vault"), allow(dead_code, reason = "the configuration needs a part of it"))]
mod key_reference;
#[cfg(feature = "azure-key-vault")]
mod posture;
#[cfg(feature = "azure-key-vault")]
mod provider;
#[cfg(feature = "azure-key-vault")]
mod vault_key;
#[cfg(feature = "azure-key-vault")]
mod wrap_format;

pub use self::config::AzureKeyVaultConfig;
#[cfg(feature = "azure-key-vault")]
pub(super) use self::provider::ENTRY;
