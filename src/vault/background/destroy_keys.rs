//! Destruction of keys whose deletion is due: the sealed bytes and the wraps are deleted, the attributes stay.

use crate::domain::{AuditEvent, KeyId, Operation};

use super::Background;
use crate::vault::VaultError;

/// Maximum number of keys in one run.
const BATCH_SIZE: u32 = 100;

impl Background {
    /// Destroys the keys whose deletion is due. A failure is logged, and the next run retries.
    pub(in crate::vault) async fn destroy_due_keys(&self) {
        match self.env.store.due_for_destruction(self.env.now(), BATCH_SIZE).await {
            Ok(due) => {
                for id in due {
                    if let Err(error) = self.destroy(id).await {
                        tracing::error!(key = %id, %error, "a key could not be destroyed; the vault retries");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the keys that are due for destruction could not be read"),
        }
    }

    async fn destroy(&self, id: KeyId) -> Result<(), VaultError> {
        let mut event = AuditEvent { key: Some(id), ..self.gate.system_event(Operation::DestroyKey) };
        let completed = self.key_lifecycle.try_destroy(&mut event, id).await?;
        self.gate.commit(event, completed).await?;
        self.key_cache.evict(id).await;
        Ok(())
    }
}
