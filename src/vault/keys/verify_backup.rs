//! The drill: opens every key of a copy, to know that a backup is one. Uses none, changes nothing that matters.

use std::sync::Arc;

use crate::{
    domain::{KeyId, KmsUse, NodeName},
    storage::{KeyFilter, Page},
};

use crate::vault::{Vault, VaultError, key_cache::unseal::RowTagRule};

/// What became of one key.
#[derive(Debug)]
pub enum BackupKeyResult {
    /// It opens, and is the key it says.
    Opens,
    /// A tombstone: there is nothing to open.
    Destroyed,
    /// It does not open.
    Fails(VaultError),
}

impl Vault {
    /// Opens every key, in whatever state, and tells of each. For a copy: what fails is quarantined in it.
    ///
    /// # Errors
    /// What the store says; a key that does not open is no error, but told.
    pub async fn verify_backup(self: &Arc<Self>, mut tell: impl FnMut(KeyId, &NodeName, BackupKeyResult)) -> Result<(), VaultError> {
        let filter = KeyFilter::all();
        let mut after = 0;
        loop {
            let page = self.store.keys(&filter, Page { after, limit: 100 }).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.position;
            for record in page.into_iter().map(|found| found.item) {
                let id = record.attributes.id;
                tell(id, &record.attributes.node, self.verify_backup_key(id).await);
            }
        }
    }

    async fn verify_backup_key(&self, id: KeyId) -> BackupKeyResult {
        let stored = match self.store.key(id).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return BackupKeyResult::Fails(VaultError::KeyNotFound(id)),
            Err(error) => return BackupKeyResult::Fails(error.into()),
        };
        if stored.record.lifecycle.is_destroyed() {
            return BackupKeyResult::Destroyed;
        }
        match self.unseal(&stored, RowTagRule::of(stored.record.lifecycle), &mut KmsUse::default()).await {
            Ok(_) => BackupKeyResult::Opens,
            Err(error) => BackupKeyResult::Fails(error),
        }
    }
}
