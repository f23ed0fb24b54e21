//! `disable`, `freeze` and their like: in force in memory first, in the log as soon as it can be (invariant 3, the one exception).

use std::{ops::ControlFlow, sync::Arc};

use crate::{
    domain::{AuditEvent, KeyId, KeyRecord, Lifecycle, Operation, Transition},
    storage::Change,
};

use crate::vault::{
    AuditedResult, CallContext, Effective, Vault, VaultError,
    audit_gate::{
        commit::{ATTEMPTS, Completed},
        pending_audit::PendingEntry,
    },
};

impl Vault {
    /// Switches a key off: refused and wiped from this moment, also while neither KMS nor log can be reached.
    ///
    /// # Errors
    /// The gate's, `InvalidKeyState`, or that the store cannot be read.
    pub async fn disable(self: &Arc<Self>, call: &CallContext, id: KeyId) -> Result<Effective<KeyRecord>, VaultError> {
        let mut event = self.event(call, Operation::DisableKey);
        for _ in 0..ATTEMPTS {
            event = self.event(call, Operation::DisableKey);
            let done = match self.try_disable(&mut event, id).await {
                Ok(done) => done,
                Err(error) => return self.refuse(event, error).await,
            };
            let record = done.value.clone();
            match self.settle(event.clone(), Ok(done)).await {
                Ok(ControlFlow::Break(answer)) => {
                    self.pending_audit.enabled(id);
                    return Ok(Effective { value: answer.into_value(), recorded: true });
                }
                Ok(ControlFlow::Continue(())) => self.pending_audit.enabled(id),
                Err(VaultError::AuditUnavailable(_)) => {
                    self.pending_audit.push(PendingEntry::Disable { id, event: Box::new(event) });
                    return Ok(Effective { value: record, recorded: false });
                }
                Err(error) => {
                    self.pending_audit.enabled(id);
                    return Err(error);
                }
            }
        }
        self.refuse(event, VaultError::Conflict).await
    }

    pub(in crate::vault) async fn try_disable(
        self: &Arc<Self>,
        event: &mut AuditEvent,
        id: KeyId,
    ) -> Result<Completed<KeyRecord>, VaultError> {
        let (permit, stored) = self.permit_key(event, id).await?;
        let stood = stored.logged.map_or(stored.record.lifecycle, |logged| logged.lifecycle);
        let may: Result<Lifecycle, _> = stood.after(Transition::Disable);
        may.map_err(|refused| VaultError::InvalidKeyState(refused.from))?;
        let done = self.apply_transition(event, permit, &stored, Transition::Disable, None).await?;
        self.pending_audit.disable(id);
        self.cache.forget(id).await;
        Ok(done)
    }

    /// Wipes every open key and refuses all use, until `unfreeze`, restarts included.
    ///
    /// # Errors
    /// The gate's.
    pub async fn freeze(self: &Arc<Self>, call: &CallContext) -> Result<Effective<()>, VaultError> {
        let event = self.event(call, Operation::Freeze);
        let permit = match self.permit_vault(&event) {
            Ok(permit) => permit,
            Err(error) => return self.refuse(event, error).await,
        };
        self.set_frozen(true);
        self.cache.wipe_all().await;
        let _turn = self.freeze_lock.lock().await;
        if !self.frozen() {
            // An unfreeze was under way: this call came after it.
            self.set_frozen(true);
            self.cache.wipe_all().await;
        }
        match self.conclude(event.clone(), Ok(Completed::changed(permit, (), Change::SetFrozen(true)))).await {
            Ok(_) => Ok(Effective { value: (), recorded: true }),
            Err(VaultError::AuditUnavailable(_)) => {
                self.pending_audit.push(PendingEntry::Freeze { event: Box::new(event) });
                Ok(Effective { value: (), recorded: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes calls again: first in the log, then in memory.
    ///
    /// # Errors
    /// The gate's, or that the log cannot be written.
    pub async fn unfreeze(self: &Arc<Self>, call: &CallContext) -> Result<AuditedResult<()>, VaultError> {
        let event = self.event(call, Operation::Unfreeze);
        let permit = match self.permit_vault(&event) {
            Ok(permit) => permit,
            Err(error) => return self.refuse(event, error).await,
        };
        let _turn = self.freeze_lock.lock().await;
        let answer = self.conclude(event, Ok(Completed::changed(permit, (), Change::SetFrozen(false)))).await?;
        self.pending_audit.unfrozen();
        self.set_frozen(false);
        self.job_wakeup.send_replace(());
        Ok(answer)
    }
}
