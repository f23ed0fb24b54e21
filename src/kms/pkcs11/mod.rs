//! Wrapper keys in a PKCS#11 token: an HSM, or a token in software. The library of the vendor is loaded into this process.
//!
//! | file | guarantees |
//! |---|---|
//! | `config` | `[[wrapper.pkcs11]]`: the library, the token, the file of the PIN. |
//! | `key_reference` | The identity of a key in a token, and its PKCS#11 URI. |
//! | `provider` | Only allowed keys are resolved, connected and created. |
//! | `token_key` | Wrapping and unwrapping with AES-256-GCM in the token, bound to the encryption context. |
//! | `key_attributes`, `posture` | What the token says of a key, whether it may be used, and how it is assessed. |
//! | `token` | Logins and sessions of one token: bounded in number, on blocking threads, renewed when they are lost. |
//! | `library` | A loaded library: initialized once for the process, and again after a failure. |
//! | `pin` | The PIN in its file. A refused PIN is not tried again. |
//! | `error` | Each return value is a denial, an outage or a fault of the configuration. |

mod config;
#[cfg(feature = "pkcs11")]
mod error;
#[cfg(feature = "pkcs11")]
mod key_attributes;
#[cfg(feature = "pkcs11")]
mod key_reference;
#[cfg(feature = "pkcs11")]
mod library;
#[cfg(feature = "pkcs11")]
mod pin;
#[cfg(feature = "pkcs11")]
mod posture;
#[cfg(feature = "pkcs11")]
mod provider;
#[cfg(feature = "pkcs11")]
mod token;
#[cfg(feature = "pkcs11")]
mod token_key;

pub use self::config::Pkcs11Config;
#[cfg(feature = "pkcs11")]
pub(super) use self::provider::ENTRY;
