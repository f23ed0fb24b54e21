//! `disable`, `freeze` and their like: in force in memory first, in the log as soon as it can be (invariant 3, the one exception).

use std::{ops::ControlFlow, sync::Arc};

use crate::{
    domain::{AuditEvent, KeyId, KeyRecord, Lifecycle, Operation, Transition},
    storage::Change,
};

use super::{
    Answer, Call, InForce, Vault, VaultError,
    commit::{ATTEMPTS, Done},
    deferred::Deferred,
};

impl Vault {
    /// Switches a key off: refused and wiped from this moment, also while neither KMS nor log can be reached.
    ///
    /// # Errors
    /// The gate's, `WrongState`, or that the store cannot be read.
    pub async fn disable(self: &Arc<Self>, call: &Call, id: KeyId) -> Result<InForce<KeyRecord>, VaultError> {
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
                    self.deferred.enabled(id);
                    return Ok(InForce { value: answer.into_value(), recorded: true });
                }
                Ok(ControlFlow::Continue(())) => self.deferred.enabled(id),
                Err(VaultError::AuditUnavailable(_)) => {
                    self.deferred.push(Deferred::Disable { id, event: Box::new(event) });
                    return Ok(InForce { value: record, recorded: false });
                }
                Err(error) => {
                    self.deferred.enabled(id);
                    return Err(error);
                }
            }
        }
        self.refuse(event, VaultError::Conflict).await
    }

    pub(super) async fn try_disable(self: &Arc<Self>, event: &mut AuditEvent, id: KeyId) -> Result<Done<KeyRecord>, VaultError> {
        let (permit, stored) = self.permit_key(event, id).await?;
        let stood = stored.logged.map_or(stored.record.lifecycle, |logged| logged.lifecycle);
        let may: Result<Lifecycle, _> = stood.after(Transition::Disable);
        may.map_err(|refused| VaultError::WrongState(refused.from))?;
        let done = self.stepped(event, permit, &stored, Transition::Disable, None).await?;
        self.deferred.disable(id);
        self.cache.forget(id).await;
        Ok(done)
    }

    /// Wipes every open key and refuses all use, until `unfreeze`, restarts included.
    ///
    /// # Errors
    /// The gate's.
    pub async fn freeze(self: &Arc<Self>, call: &Call) -> Result<InForce<()>, VaultError> {
        let event = self.event(call, Operation::Freeze);
        let permit = match self.permit_vault(&event) {
            Ok(permit) => permit,
            Err(error) => return self.refuse(event, error).await,
        };
        self.set_frozen(true);
        self.cache.wipe_all().await;
        let _turn = self.switch.lock().await;
        if !self.frozen() {
            // An unfreeze was under way: this call came after it.
            self.set_frozen(true);
            self.cache.wipe_all().await;
        }
        match self.conclude(event.clone(), Ok(Done::changed(permit, (), Change::SetFrozen(true)))).await {
            Ok(_) => Ok(InForce { value: (), recorded: true }),
            Err(VaultError::AuditUnavailable(_)) => {
                self.deferred.push(Deferred::Freeze { event: Box::new(event) });
                Ok(InForce { value: (), recorded: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes calls again: first in the log, then in memory.
    ///
    /// # Errors
    /// The gate's, or that the log cannot be written.
    pub async fn unfreeze(self: &Arc<Self>, call: &Call) -> Result<Answer<()>, VaultError> {
        let event = self.event(call, Operation::Unfreeze);
        let permit = match self.permit_vault(&event) {
            Ok(permit) => permit,
            Err(error) => return self.refuse(event, error).await,
        };
        let _turn = self.switch.lock().await;
        let answer = self.conclude(event, Ok(Done::changed(permit, (), Change::SetFrozen(false)))).await?;
        self.deferred.unfrozen();
        self.set_frozen(false);
        self.job_bell.send_replace(());
        Ok(answer)
    }
}
