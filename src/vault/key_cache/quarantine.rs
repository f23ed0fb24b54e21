//! Setting aside what failed a check: first in memory, then in the store, with an entry that says why.

use crate::{
    domain::{AuditEvent, KeyId, KeyRecord, KeyState, KmsUse, Lifecycle, NodeName, Operation, StateChange, Transition},
    storage::{Change, Commit, KeyUpdate, UnreadableKey},
};

use crate::vault::{Vault, VaultError};

impl Vault {
    /// Quarantines a key and gives the error for its caller. If the store cannot record it, the key is refused all the same, since
    /// the check that failed fails again.
    pub(in crate::vault) async fn quarantine(&self, record: &KeyRecord, reason: &str) -> VaultError {
        let id = record.attributes.id;
        self.cache.forget(id).await;
        // What the row was tampered into does not count: the log says where the key stood.
        let logged = match self.store.key(id).await {
            Ok(Some(stored)) => stored.logged,
            _ => None,
        };
        let stood = logged.unwrap_or(record.state_change());
        if let Ok(lifecycle) = stood.lifecycle.after(Transition::Quarantine) {
            let update = KeyUpdate {
                key: id,
                if_revision: record.revision,
                to: StateChange { revision: stood.revision.saturating_add(1), lifecycle, ..stood },
                row_tag: None,
                lift: None,
            };
            self.set_aside(id, Some(record.attributes.node.clone()), Change::UpdateKey(update), reason, KmsUse::default()).await;
        }
        VaultError::State(KeyState::Quarantined)
    }

    /// Quarantines a key whose row cannot be read, and gives the error for its caller; one who may not see the key learns nothing. The
    /// log remembers it, so that mending the row by hand does not bring the key back.
    pub(in crate::vault) async fn unreadable(&self, event: &mut AuditEvent, id: KeyId, what: &str) -> VaultError {
        let unreadable_key = match self.store.unreadable_key(id).await {
            Ok(unreadable_key) => unreadable_key.unwrap_or(UnreadableKey { node: None, logged: None }),
            Err(error) => return error.into(),
        };
        if let Err(error) = self.permit_on_key(event, id, unreadable_key.node.as_ref()) {
            return error;
        }
        let stood =
            unreadable_key.logged.unwrap_or(StateChange { revision: 0, lifecycle: Lifecycle::ACTIVE, successor: None, delete_at: None });
        if let Ok(lifecycle) = stood.lifecycle.after(Transition::Quarantine) {
            self.cache.forget(id).await;
            let to = StateChange { revision: stood.revision.saturating_add(1), lifecycle, ..stood };
            self.set_aside(
                id,
                unreadable_key.node,
                Change::SetAside { key: id, to },
                &format!("the row cannot be read: {what}"),
                KmsUse::default(),
            )
            .await;
        }
        VaultError::State(KeyState::Quarantined)
    }

    /// Commits a quarantine of a key or of a wrap with its entry, and the KMS requests that showed the fault.
    pub(in crate::vault) async fn set_aside(&self, id: KeyId, node: Option<NodeName>, change: Change, reason: &str, kms: KmsUse) {
        let event = AuditEvent {
            key: Some(id),
            node,
            reason: Some(reason.to_owned()),
            kms,
            change: match &change {
                Change::UpdateKey(KeyUpdate { to, .. }) | Change::SetAside { to, .. } => Some(*to),
                _ => None,
            },
            ..self.system_event(Operation::Quarantine)
        };
        tracing::error!(key = %id, reason, "quarantined");
        if let Err(error) = self.write(Commit::change(change, event)).await {
            tracing::error!(key = %id, %error, "the quarantine could not be recorded; the check fails again at the next use");
        }
    }
}
