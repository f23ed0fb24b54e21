//! One transition of a stored key: the new state, its row tag, and the change for the store.

use std::sync::Arc;

use crate::{
    domain::{AuditEvent, KeyId, KeyRecord, Operation, Permit, Timestamp, Transition},
    storage::{Change, KeyUpdate, StoredKey},
};

use super::KeyLifecycle;
use crate::vault::{
    VaultError,
    audit_gate::Completed,
    key_cache::{OpenKey, RowTagRule},
};

impl KeyLifecycle {
    /// The change that applies a transition to a row, see [`KeyLifecycle::transitioned`].
    ///
    /// # Errors
    /// As [`KeyLifecycle::transitioned`].
    pub(super) async fn apply_transition(
        &self,
        event: &mut AuditEvent,
        permit: Permit,
        stored: &StoredKey,
        transition: Transition,
        delete_at: Option<Timestamp>,
    ) -> Result<Completed<KeyRecord>, VaultError> {
        let (record, update) = self.transitioned(event, stored, transition, delete_at).await?;
        Ok(Completed::changed(permit, record, Change::UpdateKey(update)))
    }

    /// The key after a transition, and the update of its row. If the key comes into use, it is unsealed and the row gets a tag. If it goes out of
    /// use, the row gets a tag only if the key is open in memory, because a disable must work while the KMS is unavailable.
    ///
    /// # Errors
    /// `InvalidKeyState`; the errors of [`KeyCache::unseal`](crate::vault::key_cache::KeyCache::unseal).
    pub(super) async fn transitioned(
        &self,
        event: &mut AuditEvent,
        stored: &StoredKey,
        transition: Transition,
        delete_at: Option<Timestamp>,
    ) -> Result<(KeyRecord, KeyUpdate), VaultError> {
        // If row and audit log disagree, the audit log is the authority.
        let current = stored.logged_state.unwrap_or(stored.record.state_change());
        let lifecycle = current.lifecycle.after(transition).map_err(VaultError::InvalidKeyState)?;
        let mut record = stored.record.clone();
        let if_revision = record.revision;
        record.lifecycle = lifecycle;
        record.revision = current.revision.saturating_add(1);
        record.successor = current.successor;
        record.delete_at = delete_at;
        record.row_tag = None;
        let mut reinstated = None;
        if lifecycle.can_decrypt() {
            let unsealed = self.key_cache.unseal(stored, RowTagRule::of(current.lifecycle), &mut event.kms).await?;
            record.row_tag = Some(unsealed.open_key.row_key.tag(&record.tagged_bytes()));
            reinstated = unsealed.reinstated_wrap;
        } else if let Some(open_key) = self.open_key_of(stored).await {
            record.row_tag = Some(open_key.row_key.tag(&record.tagged_bytes()));
        }
        let to = record.state_change();
        event.change = Some(to);
        let update = KeyUpdate { key: record.attributes.id, if_revision, to, row_tag: record.row_tag, reinstate_wrap: reinstated };
        for wrap in record.wraps.iter_mut().filter(|wrap| Some(wrap.wrapper_key) == reinstated) {
            wrap.quarantined = false;
        }
        if lifecycle.is_destroyed() {
            (record.sealed, record.wraps) = (None, Vec::new());
        }
        Ok((record, update))
    }

    /// The change that destroys a key whose deletion is due. The audit log must know of the deletion, so that an edited `delete_at` destroys
    /// nothing.
    ///
    /// # Errors
    /// `KeyNotFound`, `State(Quarantined)`, `InvalidKeyState` or `StorageUnavailable`.
    pub(in crate::vault) async fn try_destroy(&self, event: &mut AuditEvent, id: KeyId) -> Result<Completed<KeyRecord>, VaultError> {
        let stored = self.env.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
        self.key_cache.check_row(&stored).await?;
        let node = stored.record.attributes.node.clone();
        event.node = Some(node.clone());
        let permit = self.gate.policy().permit_system(Operation::DestroyKey, Some((id, node)));
        self.apply_transition(event, permit, &stored, Transition::Destroy, stored.record.delete_at).await
    }

    /// The cached key of exactly this row. A cached key of an earlier revision can have another data key, and with it another row key.
    async fn open_key_of(&self, stored: &StoredKey) -> Option<Arc<OpenKey>> {
        let cached = self.key_cache.cached(stored.record.attributes.id).await?;
        if cached.revision == stored.record.revision { cached.open_key() } else { None }
    }
}
