//! `reseal`: a new data key, salt and sealed form of the same private key, for the case that a data key may be compromised.

use crate::{
    crypto::{envelope, with_wiped_stack},
    domain::{AuditEvent, Job, KeyId, KeyRecord, KeyState, Operation, Permit, Timestamp, Wrap},
    storage::{Change, KeyUpdate, Reseal, StoredKey},
};

use super::KeyLifecycle;
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed, key_cache::RowTagRule};

impl Vault {
    /// Re-seals a key in any state but quarantined and destroyed. A background task adds its wraps under standby wrapper keys again.
    ///
    /// # Errors
    /// `State`, `TooMany`, the error of the wrapper keys, otherwise as [`Vault::sign`].
    pub async fn reseal_key(&self, call: &CallContext, id: KeyId) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let result = self
            .gate
            .run(self.gate.event(call, Operation::ResealKey), |mut event, _| async move {
                let result = self.key_lifecycle.try_reseal(&mut event, id).await;
                (event, result)
            })
            .await;
        self.key_cache.evict(id).await;
        if result.is_ok() {
            self.job_tracker.wake();
        }
        result
    }
}

impl KeyLifecycle {
    async fn try_reseal(&self, event: &mut AuditEvent, id: KeyId) -> Result<Completed<KeyRecord>, VaultError> {
        let (permit, stored) = self.key_cache.permit_stored_key(event, id).await?;
        self.gate.in_service()?;
        self.resealed(event, permit, &stored, self.env.now()).await
    }

    /// Re-seals one key for a job. The entry names the job.
    ///
    /// # Errors
    /// As [`Vault::reseal_key`].
    pub(in crate::vault) async fn reseal_for_job(&self, id: KeyId, job: &Job) -> Result<(), VaultError> {
        let stored = self.env.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
        if stored.record.sealed.is_none() {
            return Ok(());
        }
        let node = stored.record.attributes.node.clone();
        let permit = self.gate.policy().permit_system(Operation::ResealKey, Some((id, node.clone())));
        let subject = Some(job.id.to_string());
        let mut event = AuditEvent { key: Some(id), node: Some(node), subject, ..self.gate.system_event(Operation::ResealKey) };
        // If the clock was set back, the key must still count as re-sealed since the start of the job.
        let now = self.env.now().max(job.started_at);
        let completed = self.resealed(&mut event, permit, &stored, now).await?;
        let committed = self.gate.commit(event, completed).await;
        self.key_cache.evict(id).await;
        Ok(committed.map(drop)?)
    }

    /// The change that re-seals a row. It is a state change with a new revision, so that the earlier row cannot be restored unnoticed.
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
            self.key_cache.check_row(stored).await?;
            return Err(VaultError::State(state));
        }
        let unsealed = self.key_cache.unseal(stored, RowTagRule::of(record.lifecycle), &mut event.kms).await?;
        let context = record.attributes.encryption_context(&self.env.vault_id);
        let data_key = envelope::new_data_key(self.env.random.as_ref())?;
        let (sealed, row_key) = with_wiped_stack(|| envelope::seal(&data_key, &unsealed.material, &context, self.env.random.as_ref()))?;
        let (wrapper_key, wrapped) = self.wrapper_keys.wrap(&data_key, &context, &mut event.kms).await?;

        let if_revision = record.revision;
        record.revision = record.revision.saturating_add(1);
        record.generation = record.generation.saturating_add(1);
        record.row_tag = Some(row_key.tag(&record.tagged_bytes()));
        record.sealed = Some(sealed.clone());
        let generation = record.generation;
        let wrap = Wrap { wrapper_key, generation, wrapped, created_at: sealed_at, verified_at: Some(sealed_at), quarantined: false };
        record.wraps = vec![wrap.clone()];
        let to = record.state_change();
        event.change = Some(to);
        event.reason = Some(format!("generation {generation}"));
        let update = KeyUpdate { key: record.attributes.id, if_revision, to, row_tag: record.row_tag, reinstate_wrap: None };
        Ok(Completed::changed(permit, record, Change::Reseal(Box::new(Reseal { update, sealed, sealed_at, wrap }))))
    }
}
