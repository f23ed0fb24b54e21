//! What every part of the vault needs: the vault id, the store, the clock and the source of randomness.

use std::sync::Arc;

use crate::{
    crypto::Random,
    domain::{Clock, Timestamp, VaultId},
    kms::KmsCalls,
    storage::KeyStore,
};

use super::VaultError;

/// The dependencies that all parts share. It decides nothing.
pub(super) struct Environment {
    /// The id of this vault. Every ciphertext is bound to it.
    pub vault_id: VaultId,
    /// The store. All parts read from it; only the audit gate commits to it.
    pub store: Arc<dyn KeyStore>,
    /// The clock.
    pub clock: Clock,
    /// The source of randomness.
    pub random: Arc<dyn Random>,
    /// The calls of the KMS that no entry has yet.
    pub kms_calls: Arc<KmsCalls>,
}

impl Environment {
    /// The current time.
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// `N` random bytes.
    ///
    /// # Errors
    /// `Internal` if the operating system provides no randomness.
    pub(super) fn random_bytes<const N: usize>(&self) -> Result<[u8; N], VaultError> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes)?;
        Ok(bytes)
    }
}
