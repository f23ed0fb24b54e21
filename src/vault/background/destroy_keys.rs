//! The end of a deletion: facts stay as a tombstone, sealed bytes and wraps go.

use std::sync::Arc;

use crate::{
    domain::{AuditEvent, KeyId, Operation, Transition},
    vault::{Vault, VaultError},
};

/// At most so many in one go: the rest follows in the next.
const BATCH: u32 = 100;

impl Vault {
    /// Destroys the keys whose waiting time is over.
    pub async fn destroy_due(self: &Arc<Self>) {
        match self.store.due_for_destruction((self.clock)(), BATCH).await {
            Ok(due) => {
                for id in due {
                    if let Err(error) = self.destroy(id).await {
                        tracing::error!(key = %id, %error, "a key whose time has come could not be destroyed; it is tried again");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "keys that are due for destruction could not be looked up"),
        }
    }

    async fn destroy(self: &Arc<Self>, id: KeyId) -> Result<(), VaultError> {
        let stored = self.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
        // An edited `delete_at` destroys nothing: the log must know of the deletion.
        self.check_row(&stored).await?;
        let node = stored.record.attributes.node.clone();
        let permit = self.policy().permit_system(Operation::DestroyKey, Some((id, node.clone())));
        let mut event = AuditEvent { key: Some(id), node: Some(node), ..self.system_event(Operation::DestroyKey) };
        let done = self.apply_transition(&mut event, permit, &stored, Transition::Destroy, stored.record.delete_at).await?;
        self.commit(event, done).await?;
        self.cache.forget(id).await;
        Ok(())
    }
}
