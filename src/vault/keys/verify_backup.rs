//! Verification of a backup: opens one key of a copy of the store. It uses no key.

use crate::domain::{KeyId, KmsUse, NodeName};

use crate::vault::{Code, Vault, VaultError, key_cache::RowTagRule};

/// The result of one key.
#[derive(Debug)]
pub enum BackupKeyResult {
    /// The key opens, and is the one that its row names.
    Opens,
    /// The key was destroyed, and the log confirms it. There is nothing to open.
    Destroyed,
    /// The key does not open.
    Fails {
        /// The code.
        code: Code,
        /// Why.
        why: String,
    },
}

/// A key of a backup after its verification.
#[derive(Debug)]
pub struct VerifiedBackupKey {
    /// The node, if the row can be read.
    pub node: Option<NodeName>,
    /// The result.
    pub result: BackupKeyResult,
}

impl Vault {
    /// Opens a key in any state. It must run on a copy, because a key that fails a check is quarantined.
    pub async fn verify_backup_key(&self, id: KeyId) -> VerifiedBackupKey {
        let failed = |code, why: String| VerifiedBackupKey { node: None, result: BackupKeyResult::Fails { code, why } };
        let stored = match self.env.store.key(id).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return failed(Code::NotFound, VaultError::KeyNotFound(id).to_string()),
            // The conversion to an error for callers would lose which column cannot be read.
            Err(error) => return failed(VaultError::from(error.clone()).code(), error.to_string()),
        };
        let (lifecycle, mut kms) = (stored.record.lifecycle, KmsUse::default());
        let verified = if lifecycle.is_destroyed() {
            self.key_cache.check_row(&stored).await.map(|()| BackupKeyResult::Destroyed)
        } else {
            self.key_cache.unseal(&stored, RowTagRule::of(lifecycle), &mut kms).await.map(|_| BackupKeyResult::Opens)
        };
        let result = verified.unwrap_or_else(|error| BackupKeyResult::Fails { code: error.code(), why: error.to_string() });
        VerifiedBackupKey { node: Some(stored.record.attributes.node), result }
    }
}
