//! Verification of a backup: opens every key of a copy of the store. It uses no key.

use crate::{
    domain::{KeyId, KmsUse, NodeName},
    storage::{KeyFilter, PageRequest},
};

use crate::vault::{Vault, VaultError, key_cache::RowTagRule};

/// The number of keys that are read from the store at once.
const PAGE_SIZE: u32 = 100;

/// The result of one key.
#[derive(Debug)]
pub enum BackupKeyResult {
    /// The key opens, and is the one that its row names.
    Opens,
    /// The key was destroyed. There is nothing to open.
    Destroyed,
    /// The key does not open.
    Fails(VaultError),
}

impl Vault {
    /// Opens every key in any state and reports each result. It must run on a copy, because a key that fails a check is quarantined.
    ///
    /// # Errors
    /// `StorageUnavailable`. A key that does not open is reported and is not an error.
    pub async fn verify_backup(&self, mut report: impl FnMut(KeyId, &NodeName, BackupKeyResult)) -> Result<(), VaultError> {
        let filter = KeyFilter::all();
        let mut after = 0;
        loop {
            let page = self.env.store.keys(&filter, PageRequest { after, limit: PAGE_SIZE }).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.position;
            for record in page.into_iter().map(|found| found.item) {
                let id = record.attributes.id;
                report(id, &record.attributes.node, self.verify_backup_key(id).await);
            }
        }
    }

    async fn verify_backup_key(&self, id: KeyId) -> BackupKeyResult {
        let stored = match self.env.store.key(id).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return BackupKeyResult::Fails(VaultError::KeyNotFound(id)),
            Err(error) => return BackupKeyResult::Fails(error.into()),
        };
        if stored.record.lifecycle.is_destroyed() {
            return BackupKeyResult::Destroyed;
        }
        match self.key_cache.unseal(&stored, RowTagRule::of(stored.record.lifecycle), &mut KmsUse::default()).await {
            Ok(_) => BackupKeyResult::Opens,
            Err(error) => BackupKeyResult::Fails(error),
        }
    }
}
