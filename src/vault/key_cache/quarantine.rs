//! Quarantine of a key that failed a check: first evicted from memory, then stored, with an audit entry that says why.

use crate::{
    domain::{AuditEvent, KeyId, KeyRecord, KeyState, Lifecycle, StateChange, Transition},
    storage::{Change, KeyUpdate, UnreadableKey},
};

use super::KeyCache;
use crate::vault::{VaultError, quarantine::record_quarantine};

impl KeyCache {
    /// Quarantines a key, and returns the error for the caller. If the store cannot record it, the key is refused all the same, because the
    /// failed check is repeated at the next use.
    pub(super) async fn quarantine(&self, record: &KeyRecord, reason: &str) -> VaultError {
        let id = record.attributes.id;
        self.entries.evict(id).await;
        // The row may have been edited. The audit log is the authority on the state of the key.
        let logged = match self.env.store.key(id).await {
            Ok(Some(stored)) => stored.logged_state,
            _ => None,
        };
        let current = logged.unwrap_or(record.state_change());
        if let Ok(lifecycle) = current.lifecycle.after(Transition::Quarantine) {
            let update = KeyUpdate {
                key: id,
                if_revision: record.revision,
                to: StateChange { revision: current.revision.saturating_add(1), lifecycle, ..current },
                row_tag: None,
                reinstate_wrap: None,
            };
            let node = Some(record.attributes.node.clone());
            record_quarantine(&self.gate, id, node, Change::UpdateKey(update), reason).await;
        }
        VaultError::State(KeyState::Quarantined)
    }

    /// Quarantines a key whose row cannot be read, and returns the error for the caller. A caller who may not see the key gets the answer
    /// for an unknown key. The audit log keeps the quarantine, so a manual repair of the row does not bring the key back into use.
    pub(super) async fn quarantine_unreadable(&self, event: &mut AuditEvent, id: KeyId, what: &str) -> VaultError {
        let row = match self.env.store.unreadable_key(id).await {
            Ok(row) => row.unwrap_or(UnreadableKey { node: None, logged_state: None }),
            Err(error) => return error.into(),
        };
        if let Err(error) = self.gate.permit_key(event, id, row.node.as_ref()) {
            return error;
        }
        let initial = StateChange { revision: 0, lifecycle: Lifecycle::ACTIVE, successor: None, delete_at: None };
        let current = row.logged_state.unwrap_or(initial);
        if let Ok(lifecycle) = current.lifecycle.after(Transition::Quarantine) {
            self.entries.evict(id).await;
            let to = StateChange { revision: current.revision.saturating_add(1), lifecycle, ..current };
            let reason = format!("the row cannot be read: {what}");
            record_quarantine(&self.gate, id, row.node, Change::SetAside { key: id, to }, &reason).await;
        }
        VaultError::State(KeyState::Quarantined)
    }
}
