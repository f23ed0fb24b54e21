//! `disable`: takes effect in memory at once, and in the audit log as soon as it can be written (the exception of invariant 3).

use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{AuditEvent, KeyId, KeyRecord, Operation, Transition};

use super::KeyLifecycle;
use crate::vault::{
    CallContext, Effective, Vault, VaultError,
    audit_gate::{AuditGate, Completed, PendingEntry},
    freeze::in_time,
};

impl Vault {
    /// Disables a key: it is refused for use and wiped from memory from now on, even while the KMS and the audit log are unavailable.
    ///
    /// # Errors
    /// `KeyNotFound`, `Forbidden`, `InvalidKeyState`, or `StorageUnavailable` if the store cannot be read.
    pub async fn disable(&self, call: &CallContext, id: KeyId) -> Result<Effective<KeyRecord>, VaultError> {
        let (gate, lifecycle, event) =
            (Arc::clone(&self.gate), Arc::clone(&self.key_lifecycle), self.gate.event(call, Operation::DisableKey));
        let in_force = InForce::default();
        let recording = self.detached_calls.spawn(record(gate, lifecycle, event, id, Arc::clone(&in_force)));
        match in_time(&self.env, recording).await {
            Some(result) => result,
            // The record takes too long. If the key is disabled in memory, the caller need not wait for it.
            None => match in_force.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                Some((value, _)) => Ok(Effective { value: value.clone(), recorded: false }),
                None => Err(VaultError::OutcomeUnknown),
            },
        }
    }
}

/// What is in force in memory after the last attempt, for the case that the commit fails or takes long.
type InForce = Arc<Mutex<Option<(KeyRecord, AuditEvent)>>>;

/// Disables the key and records it, or keeps the entry until it can be written.
async fn record(
    gate: Arc<AuditGate>,
    lifecycle: Arc<KeyLifecycle>,
    event: AuditEvent,
    id: KeyId,
    in_force: InForce,
) -> Result<Effective<KeyRecord>, VaultError> {
    let result = gate
        .run(event, |mut event, _| {
            let (in_force, lifecycle) = (&in_force, &lifecycle);
            async move {
                let result = lifecycle.try_disable(&mut event, id).await;
                if let Ok(completed) = &result {
                    *in_force.lock().unwrap_or_else(PoisonError::into_inner) = Some((completed.value.clone(), event.clone()));
                }
                (event, result)
            }
        })
        .await;
    let in_force = in_force.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let pending = gate.pending_audit();
    match (result, in_force) {
        (Ok(result), _) => {
            pending.clear_disabled(id);
            Ok(Effective { value: result.into_value(), recorded: true })
        }
        (Err(VaultError::AuditUnavailable(_)), Some((record, event))) => {
            pending.push(PendingEntry::Disable { id, event: Box::new(event) });
            Ok(Effective { value: record, recorded: false })
        }
        (Err(error), in_force) => {
            if in_force.is_some() {
                pending.clear_disabled(id);
            }
            Err(error)
        }
    }
}

impl KeyLifecycle {
    /// One attempt to disable a key. The key is disabled in memory before the commit.
    ///
    /// # Errors
    /// As [`Vault::disable`].
    pub(in crate::vault) async fn try_disable(&self, event: &mut AuditEvent, id: KeyId) -> Result<Completed<KeyRecord>, VaultError> {
        let (permit, stored) = self.key_cache.permit_stored_key(event, id).await?;
        let completed = self.apply_transition(event, permit, &stored, Transition::Disable, None).await?;
        self.gate.pending_audit().disable(id);
        self.key_cache.evict(id).await;
        Ok(completed)
    }
}
