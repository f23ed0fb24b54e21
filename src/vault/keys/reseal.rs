//! `reseal`: a new data key, salt and sealed form for the same private key, for when a data key may be known.

use std::{ops::ControlFlow, sync::Arc};

use crate::{
    crypto::{envelope, on_wiped_stack},
    domain::{AuditEvent, KeyId, KeyRecord, KeyState, Operation, Permit, Timestamp, Wrap},
    storage::{Change, KeyUpdate, Reseal, StoredKey},
};

use crate::vault::{
    AuditedResult, CallContext, Vault, VaultError,
    audit_gate::commit::{ATTEMPTS, Completed},
    key_cache::unseal::RowTagRule,
};

impl Vault {
    /// Seals a key anew, whatever its state, unless it is quarantined or gone. Its wraps under other wrapper keys than the active one
    /// are made again by the job that fills these.
    ///
    /// # Errors
    /// `State`, the wrapper key's errors, else as [`Vault::sign`].
    pub async fn reseal_key(self: &Arc<Self>, call: &CallContext, id: KeyId) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let mut event = self.event(call, Operation::ResealKey);
        for _ in 0..ATTEMPTS {
            event = self.event(call, Operation::ResealKey);
            let done = self.try_reseal(&mut event, id).await;
            let settled = self.settle(event.clone(), done).await;
            self.cache.forget(id).await;
            if let ControlFlow::Break(answer) = settled? {
                self.job_wakeup.send_replace(());
                return Ok(answer);
            }
        }
        self.refuse(event, VaultError::Conflict).await
    }

    async fn try_reseal(&self, event: &mut AuditEvent, id: KeyId) -> Result<Completed<KeyRecord>, VaultError> {
        let (permit, stored) = self.permit_key(event, id).await?;
        self.in_service()?;
        self.resealed(event, permit, &stored, (self.clock)()).await
    }

    /// Seals one key anew for a job.
    pub(in crate::vault) async fn reseal_for_job(self: &Arc<Self>, id: KeyId, started_at: Timestamp) -> Result<(), VaultError> {
        let stored = self.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
        if stored.record.sealed.is_none() {
            return Ok(());
        }
        let node = stored.record.attributes.node.clone();
        let permit = self.policy().permit_system(Operation::ResealKey, Some((id, node.clone())));
        let mut event = AuditEvent { key: Some(id), node: Some(node), ..self.system_event(Operation::ResealKey) };
        // Should the clock have been set back, the key counts as done all the same.
        let now = (self.clock)().max(started_at);
        let done = self.resealed(&mut event, permit, &stored, now).await?;
        let committed = self.commit(event, done).await;
        self.cache.forget(id).await;
        Ok(committed.map(drop)?)
    }

    /// The change that seals a row anew. It is a state change of its own, so that the row as it was cannot come back unnoticed.
    async fn resealed(
        &self,
        event: &mut AuditEvent,
        permit: Permit,
        stored: &StoredKey,
        sealed_at: Timestamp,
    ) -> Result<Completed<KeyRecord>, VaultError> {
        let mut record = stored.record.clone();
        let state = record.lifecycle.state();
        if matches!(state, KeyState::Destroyed | KeyState::Quarantined) {
            self.check_row(stored).await?;
            return Err(VaultError::State(state));
        }
        let unsealed = self.unseal(stored, RowTagRule::of(record.lifecycle), &mut event.kms).await?;
        let context = record.attributes.encryption_context(&self.id);
        let data_key = envelope::new_data_key(self.random.as_ref())?;
        let (sealed, row_key) = on_wiped_stack(|| envelope::seal(&data_key, &unsealed.material, &context, self.random.as_ref()))?;
        let (wrapper_key, wrapped) = self.wrap(&data_key, &context, &mut event.kms).await?;

        let if_revision = record.revision;
        record.revision = record.revision.saturating_add(1);
        record.generation = record.generation.saturating_add(1);
        record.row_tag = Some(row_key.tag(&record.tagged_bytes()));
        record.sealed = Some(sealed.clone());
        let generation = record.generation;
        let wrap = Wrap { wrapper_key, generation, wrapped, created_at: sealed_at, verified_at: Some(sealed_at), quarantined: false };
        record.wraps = vec![wrap.clone()];
        event.change = Some(record.state_change());
        event.reason = Some(format!("generation {generation}"));
        let update = KeyUpdate { key: record.attributes.id, if_revision, to: record.state_change(), row_tag: record.row_tag, lift: None };
        Ok(Completed::changed(permit, record, Change::Reseal(Box::new(Reseal { update, sealed, sealed_at, wrap }))))
    }
}
