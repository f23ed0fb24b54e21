//! Retries failed audit writes: the entries of disables and freezes that took effect while the audit log was unavailable.

use crate::{
    domain::{AuditEvent, KeyId, Operation},
    storage::Change,
};

use super::Background;
use crate::vault::{VaultError, audit_gate::PendingEntry};

impl Background {
    /// Writes the pending entries, oldest first. Entries that cannot be written stay pending.
    pub(super) async fn flush_pending_audit(&self) {
        let pending = self.gate.pending_audit().take();
        if pending.is_empty() && self.gate.audit_failing() {
            // Without calls, only a write of our own shows that the audit log works again.
            let event = AuditEvent { subject: Some("the log can be written again".into()), ..self.gate.system_event(Operation::Status) };
            let _ = self.gate.record(event).await;
        }
        for entry in pending {
            let written = match &entry {
                PendingEntry::Disable { id, event } => self.write_disable(*id, event).await,
                PendingEntry::Freeze { event } => {
                    let _lock = self.gate.lock_freeze().await;
                    if !self.gate.frozen() {
                        // An unfreeze was committed after this freeze.
                        continue;
                    }
                    let event = AuditEvent { reason: Some("recorded late".into()), ..(**event).clone() };
                    self.gate.record_change(Change::SetFrozen(true), event).await.map_err(VaultError::from)
                }
            };
            match (written, entry) {
                (Ok(()), PendingEntry::Disable { id, .. }) => self.gate.pending_audit().clear_disabled(id),
                (Ok(()), PendingEntry::Freeze { .. }) => {}
                (Err(_), entry) => self.gate.pending_audit().push(entry),
            }
        }
    }

    async fn write_disable(&self, id: KeyId, event: &AuditEvent) -> Result<(), VaultError> {
        let mut event = AuditEvent { reason: Some("recorded late".into()), ..event.clone() };
        match self.key_lifecycle.try_disable(&mut event, id).await {
            Ok(completed) => self.gate.commit(event, completed).await.map(drop).map_err(VaultError::from),
            // Another operation took the key further out of use meanwhile. The audit log has its state.
            Err(VaultError::InvalidKeyState(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
