//! Wrapper keys in the transit engine of OpenBao.
//!
//! | file | guarantees |
//! |---|---|
//! | `config` | `[[wrapper.openbao]]`: addresses, files and logins of a cluster. |
//! | `key_reference` | The identity of a transit key and its URL. |
//! | `provider` | Only allowed keys are resolved, connected and created. |
//! | `transit_key` | Wrapping and unwrapping with a transit key, bound to the encryption context. |
//! | `cluster`, `http_client` | The servers of a cluster, requests to one server. |
//! | `login`, `token_renewal` | Logins with a certificate or a token, and the renewal of tokens. |
//! | `key_info`, `posture` | What OpenBao says of a key, whether it may be used, and how it is assessed. |
//! | `error` | Each response is a denial, an outage or a fault of the configuration. |

#[cfg(feature = "openbao-transit")]
mod cluster;
mod config;
#[cfg(feature = "openbao-transit")]
mod error;
#[cfg(feature = "openbao-transit")]
mod http_client;
#[cfg(feature = "openbao-transit")]
mod key_info;
#[cfg_attr(not(feature = "openbao-transit"), allow(dead_code, reason = "the configuration needs a part of it"))]
mod key_reference;
#[cfg(feature = "openbao-transit")]
mod login;
#[cfg(feature = "openbao-transit")]
mod posture;
#[cfg(feature = "openbao-transit")]
mod provider;
#[cfg(feature = "openbao-transit")]
mod token_renewal;
#[cfg(feature = "openbao-transit")]
mod transit_key;

pub use self::config::OpenbaoConfig;
#[cfg(feature = "openbao-transit")]
pub(super) use self::provider::ENTRY;
