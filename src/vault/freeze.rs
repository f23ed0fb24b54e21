//! `freeze` and `unfreeze`: the switch for incidents. A freeze takes effect in memory at once, and in the audit log as soon as it can be
//! written (the exception of invariant 3).

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use crate::{domain::Operation, storage::Change};

use super::{
    AuditedResult, CallContext, Vault, VaultError,
    audit_gate::{Completed, PendingEntry},
    environment::Environment,
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
    /// Wipes all open keys and refuses all use until `unfreeze`. A restart does not end it. If the caller is dropped, the freeze is still
    /// recorded.
    ///
    /// # Errors
    /// `Forbidden`; `TooMany` if the vault is frozen already.
    pub async fn freeze(&self, call: &CallContext) -> Result<Effective<()>, VaultError> {
        let event = self.gate.event(call, Operation::Freeze);
        let permit = match self.gate.permit_vault(&event) {
            Ok(permit) => permit,
            Err(error) => return self.gate.refuse(event, error).await,
        };
        // A freeze that changes something is never refused. Each needs an unfreeze before, and the rate of those is limited.
        if self.gate.frozen()
            && let Err(limited) = self.limits.repeated_freeze(&call.principal)
        {
            return self.gate.refuse(event, limited).await;
        }
        self.gate.set_frozen(true);
        self.key_cache.evict_all().await;
        let (gate, key_cache) = (Arc::clone(&self.gate), Arc::clone(&self.key_cache));
        // The freeze is in force. Its record is waited for only as long as a caller should wait.
        let recording = self.detached_calls.spawn(async move {
            let _lock = gate.lock_freeze().await;
            if !gate.frozen() {
                // An unfreeze was committed meanwhile. This call came after it.
                gate.set_frozen(true);
                key_cache.evict_all().await;
            }
            match gate.conclude(event.clone(), Ok(Completed::changed(permit, (), Change::SetFrozen(true)))).await {
                Ok(_) => Ok(true),
                Err(VaultError::AuditUnavailable(_)) => {
                    tracing::warn!(principal = &*event.principal.name, "the vault is frozen; the audit entry is written later");
                    gate.pending_audit().push(PendingEntry::Freeze { event: Box::new(event) });
                    Ok(false)
                }
                Err(error) => Err(error),
            }
        });
        let recorded = in_time(&self.env, recording).await.unwrap_or(Ok(false))?;
        Ok(Effective { value: (), recorded })
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

/// The result of a task, or `None` if it takes longer than a caller should wait. The task goes on.
pub(super) async fn in_time<T>(env: &Environment, mut task: JoinHandle<T>) -> Option<T> {
    let patience = env.store.commit_timeout() + Duration::from_millis(50);
    match tokio::time::timeout(patience, &mut task).await.ok()? {
        Ok(result) => Some(result),
        Err(error) => error.try_into_panic().map_or(None, |panic| std::panic::resume_unwind(panic)),
    }
}
