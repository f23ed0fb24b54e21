//! The key cache: private keys that are open in memory, and every check between a stored row and an open key.

pub(in crate::vault) mod cache;
pub(in crate::vault) mod cached_key;
pub(in crate::vault) mod quarantine;
pub(in crate::vault) mod refresh;
pub(in crate::vault) mod unseal;
