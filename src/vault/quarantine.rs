//! Setting aside what failed a check: first in memory, then in the store, with an entry that says why.

use crate::{
    domain::{AuditEvent, KeyRecord, KeyState, Operation, StateChange, Transition},
    storage::{Change, Commit, KeyUpdate},
};

use super::{Vault, VaultError};

impl Vault {
    /// Quarantines a key and gives the error for its caller. If the store cannot record it, the key is refused all the same, since
    /// the check that failed fails again.
    pub(super) async fn quarantine(&self, record: &KeyRecord, reason: &str) -> VaultError {
        let id = record.facts.id;
        self.cache.forget(id).await;
        // What the row was tampered into does not count: the log says where the key stood.
        let logged = match self.store.key(id).await {
            Ok(Some(stored)) => stored.logged,
            _ => None,
        };
        let stood = logged.map_or(record.lifecycle, |logged| logged.lifecycle);
        let revision = logged.map_or(record.revision, |logged| logged.revision).saturating_add(1);
        if let Ok(lifecycle) = stood.after(Transition::Quarantine) {
            let update = KeyUpdate {
                key: id,
                if_revision: record.revision,
                to: StateChange { revision, lifecycle },
                successor: record.successor,
                delete_at: record.delete_at,
                row_tag: None,
            };
            self.set_aside(record, Change::UpdateKey(update), reason).await;
        }
        VaultError::State(KeyState::Quarantined)
    }

    /// Commits a quarantine of a key or of a wrap with its entry.
    pub(super) async fn set_aside(&self, record: &KeyRecord, change: Change, reason: &str) {
        let id = record.facts.id;
        let event = AuditEvent {
            key: Some(id),
            node: Some(record.facts.node.clone()),
            reason: Some(reason.to_owned()),
            change: match &change {
                Change::UpdateKey(update) => Some(update.to),
                _ => None,
            },
            ..self.system_event(Operation::Quarantine)
        };
        tracing::error!(key = %id, reason, "quarantined");
        if let Err(error) = self.write(Commit { change: Some(change), idempotency: None, unchanged: None, event }).await {
            tracing::error!(key = %id, %error, "the quarantine could not be recorded; the check fails again at the next use");
        }
    }
}
