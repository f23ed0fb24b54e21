//! Tries again what the log would not take: deferred disables and freezes, and counted refusals.

use std::sync::Arc;

use crate::{
    domain::{AuditEvent, Operation},
    storage::{Change, Commit},
    vault::{Vault, VaultError, audit_gate::pending_audit::PendingEntry},
};

impl Vault {
    /// Writes the entries of what is in force already, oldest first.
    pub(in crate::vault) async fn write_deferred(self: &Arc<Self>) {
        let waiting = self.pending_audit.take();
        if waiting.is_empty() && self.health.audit_failing() {
            // Nobody may be calling: find out by ourselves that the log works again.
            let event = AuditEvent { subject: Some("the log can be written again".into()), ..self.system_event(Operation::Status) };
            let _ = self.write(Commit::entry(event)).await;
        }
        for pending_audit in waiting {
            let written = match &pending_audit {
                PendingEntry::Disable { id, event } => self.write_disable(*id, event).await,
                PendingEntry::Freeze { event } => {
                    let _turn = self.freeze_lock.lock().await;
                    if !self.frozen() {
                        // Somebody ended it meanwhile, in the log too.
                        continue;
                    }
                    let event = AuditEvent { reason: Some("recorded late".into()), ..(**event).clone() };
                    let change = Some(Change::SetFrozen(true));
                    self.write(Commit { change, ..Commit::entry(event) }).await.map(|_| ()).map_err(VaultError::from)
                }
            };
            match (written, pending_audit) {
                (Ok(()), PendingEntry::Disable { id, .. }) => self.pending_audit.enabled(id),
                (Ok(()), PendingEntry::Freeze { .. }) => {}
                (Err(_), pending_audit) => self.pending_audit.push(pending_audit),
            }
        }
    }

    async fn write_disable(self: &Arc<Self>, id: crate::domain::KeyId, event: &AuditEvent) -> Result<(), VaultError> {
        let mut event = AuditEvent { reason: Some("recorded late".into()), ..event.clone() };
        match self.try_disable(&mut event, id).await {
            Ok(done) => self.commit(event, done).await.map(|_| ()).map_err(VaultError::from),
            // Somebody else took it further out of use, or its principal lost the right meanwhile: it stays off in memory until a
            // restart, and the log says what it says.
            Err(VaultError::InvalidKeyState(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes one entry for each kind of refusal that was only counted.
    pub(in crate::vault) async fn write_counted_refusals(&self) {
        for event in self.refusal_throttle.drain() {
            if self.write(Commit::entry(event.clone())).await.is_err() {
                self.refusal_throttle.restore(event);
            }
        }
    }
}
