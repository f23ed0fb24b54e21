//! `disable`: takes effect in memory at once, and in the audit log as soon as it can be written (the exception of invariant 3).

use std::sync::{Mutex, PoisonError};

use crate::domain::{AuditEvent, KeyId, KeyRecord, Operation, Transition};

use super::KeyLifecycle;
use crate::vault::{
    CallContext, Effective, Vault, VaultError,
    audit_gate::{Completed, PendingEntry},
};

impl Vault {
    /// Disables a key: it is refused for use and wiped from memory from now on, even while the KMS and the audit log are unavailable.
    ///
    /// # Errors
    /// `KeyNotFound`, `Forbidden`, `InvalidKeyState`, or `StorageUnavailable` if the store cannot be read.
    pub async fn disable(&self, call: &CallContext, id: KeyId) -> Result<Effective<KeyRecord>, VaultError> {
        // What is in force in memory after the last attempt, for the case that the commit fails.
        let in_force: Mutex<Option<(KeyRecord, AuditEvent)>> = Mutex::default();
        let result = self
            .gate
            .run(self.gate.event(call, Operation::DisableKey), |mut event, _| {
                let in_force = &in_force;
                async move {
                    let result = self.key_lifecycle.try_disable(&mut event, id).await;
                    if let Ok(completed) = &result {
                        *in_force.lock().unwrap_or_else(PoisonError::into_inner) = Some((completed.value.clone(), event.clone()));
                    }
                    (event, result)
                }
            })
            .await;
        let in_force = in_force.into_inner().unwrap_or_else(PoisonError::into_inner);
        let pending = self.gate.pending_audit();
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
