//! `freeze` and `unfreeze`: the switch for incidents. A freeze takes effect in memory at once, and in the audit log as soon as it can be
//! written (the exception of invariant 3).

use crate::{domain::Operation, storage::Change};

use super::{
    AuditedResult, CallContext, Vault, VaultError,
    audit_gate::{Completed, PendingEntry},
};

/// A change that is in force.
#[derive(Debug)]
pub struct Effective<T> {
    /// The result.
    pub value: T,
    /// Whether its audit entry is durable. `false` only for a disable or a freeze while the audit log is unavailable; the entry is then
    /// written later.
    pub recorded: bool,
}

impl Vault {
    /// Wipes all open keys and refuses all use until `unfreeze`. A restart does not end it.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn freeze(&self, call: &CallContext) -> Result<Effective<()>, VaultError> {
        let event = self.gate.event(call, Operation::Freeze);
        let permit = match self.gate.permit_vault(&event) {
            Ok(permit) => permit,
            Err(error) => return self.gate.refuse(event, error).await,
        };
        self.gate.set_frozen(true);
        self.key_cache.evict_all().await;
        let _lock = self.gate.lock_freeze().await;
        if !self.gate.frozen() {
            // An unfreeze was committed meanwhile. This call came after it.
            self.gate.set_frozen(true);
            self.key_cache.evict_all().await;
        }
        match self.gate.conclude(event.clone(), Ok(Completed::changed(permit, (), Change::SetFrozen(true)))).await {
            Ok(_) => Ok(Effective { value: (), recorded: true }),
            Err(VaultError::AuditUnavailable(_)) => {
                self.gate.pending_audit().push(PendingEntry::Freeze { event: Box::new(event) });
                Ok(Effective { value: (), recorded: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Ends a freeze: first in the audit log, then in memory.
    ///
    /// # Errors
    /// `Forbidden` or `AuditUnavailable`.
    pub async fn unfreeze(&self, call: &CallContext) -> Result<AuditedResult<()>, VaultError> {
        let event = self.gate.event(call, Operation::Unfreeze);
        let permit = match self.gate.permit_vault(&event) {
            Ok(permit) => permit,
            Err(error) => return self.gate.refuse(event, error).await,
        };
        let _lock = self.gate.lock_freeze().await;
        let unfrozen = self.gate.conclude(event, Ok(Completed::changed(permit, (), Change::SetFrozen(false)))).await?;
        self.gate.pending_audit().discard_freezes();
        self.gate.set_frozen(false);
        self.job_tracker.wake();
        Ok(unfrozen)
    }
}
