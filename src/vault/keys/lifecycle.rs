//! The steps of a key's life: enable, disable, supersede, schedule deletion, cancel it, and the destruction at its end.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use crate::{
    domain::{AuditEvent, Class, KeyId, KeyRecord, Operation, Permit, Timestamp, Transition},
    storage::{Change, KeyUpdate, StoredKey},
};

use crate::vault::{
    AuditedResult, CallContext, Vault, VaultError,
    audit_gate::commit::{ATTEMPTS, Completed},
    key_cache::{cached_key::OpenKey, unseal::RowTagRule},
};

/// A state that is in force, and whether the log has it yet: `false` only for a disable or freeze while the log is down.
#[derive(Debug)]
pub struct Effective<T> {
    /// What is in force now.
    pub value: T,
    /// Whether its entry is durable; if not, it is written as soon as it can be.
    pub recorded: bool,
}

/// The waiting time of a deletion, in days: at least a week, as with AWS KMS.
pub const DELETION_DAYS: std::ops::RangeInclusive<u32> = 7..=365;

impl Vault {
    /// Lifts `disabled` or `quarantined`; opens the key to prove it, and restores the state before, never more.
    ///
    /// # Errors
    /// `InvalidKeyState`, the wrapper key's errors, else as [`Vault::sign`].
    pub async fn enable(self: &Arc<Self>, call: &CallContext, id: KeyId) -> Result<AuditedResult<KeyRecord>, VaultError> {
        self.transition(call, Operation::EnableKey, id, Transition::Enable, None).await
    }

    /// Makes a key with a successor stop signing, for ever.
    ///
    /// # Errors
    /// `Permanent`, `InvalidKeyState`, else as [`Vault::sign`].
    pub async fn supersede(self: &Arc<Self>, call: &CallContext, id: KeyId) -> Result<AuditedResult<KeyRecord>, VaultError> {
        self.transition(call, Operation::SupersedeKey, id, Transition::Supersede, None).await
    }

    /// Refuses the key for use from now on, and destroys it after `days`.
    ///
    /// # Errors
    /// `InvalidRequest` if `days` is out of range, `Permanent`, `InvalidKeyState`, else as [`Vault::sign`].
    pub async fn delete(self: &Arc<Self>, call: &CallContext, id: KeyId, days: u32) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let after = DELETION_DAYS.contains(&days).then(|| Duration::from_secs(u64::from(days) * 24 * 3600));
        let Some(after) = after else {
            let (first, last) = (DELETION_DAYS.start(), DELETION_DAYS.end());
            let event = AuditEvent { key: Some(id), ..self.event(call, Operation::DeleteKey) };
            return self.refuse(event, VaultError::InvalidRequest(format!("days: {first} to {last}"))).await;
        };
        let delete_at = (self.clock)().plus(after);
        self.transition(call, Operation::DeleteKey, id, Transition::ScheduleDeletion, Some(delete_at)).await
    }

    /// Gives a key back the state it had before its deletion was scheduled.
    ///
    /// # Errors
    /// `InvalidKeyState`, else as [`Vault::enable`].
    pub async fn cancel_deletion(self: &Arc<Self>, call: &CallContext, id: KeyId) -> Result<AuditedResult<KeyRecord>, VaultError> {
        self.transition(call, Operation::CancelDeletion, id, Transition::CancelDeletion, None).await
    }

    async fn transition(
        self: &Arc<Self>,
        call: &CallContext,
        operation: Operation,
        id: KeyId,
        transition: Transition,
        delete_at: Option<Timestamp>,
    ) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let mut event = self.event(call, operation);
        for _ in 0..ATTEMPTS {
            event = self.event(call, operation);
            let done = self.try_transition(&mut event, id, transition, delete_at).await;
            let settled = self.settle(event.clone(), done).await;
            self.cache.forget(id).await;
            if let ControlFlow::Break(answer) = settled? {
                return Ok(answer);
            }
        }
        self.refuse(event, VaultError::Conflict).await
    }

    async fn try_transition(
        &self,
        event: &mut AuditEvent,
        id: KeyId,
        transition: Transition,
        delete_at: Option<Timestamp>,
    ) -> Result<Completed<KeyRecord>, VaultError> {
        let (permit, stored) = self.permit_key(event, id).await?;
        self.in_service_for(transition)?;
        let for_ever = matches!(transition, Transition::Supersede | Transition::ScheduleDeletion);
        if for_ever && stored.record.attributes.class == Class::Permanent {
            return Err(VaultError::Permanent);
        }
        if transition != Transition::Disable {
            self.check_row(&stored).await?;
        }
        self.apply_transition(event, permit, &stored, transition, delete_at).await
    }

    /// The change that takes a row one step on. A row that comes into use is opened and tagged; one that goes out of use is not,
    /// since that must work while the KMS is down.
    pub(in crate::vault) async fn apply_transition(
        &self,
        event: &mut AuditEvent,
        permit: Permit,
        stored: &StoredKey,
        transition: Transition,
        delete_at: Option<Timestamp>,
    ) -> Result<Completed<KeyRecord>, VaultError> {
        // Where row and log disagree, the log says where the key stood.
        let stood = stored.logged.unwrap_or(stored.record.state_change());
        let lifecycle = stood.lifecycle.after(transition).map_err(|refused| VaultError::InvalidKeyState(refused.from))?;
        let mut record = stored.record.clone();
        let if_revision = record.revision;
        record.lifecycle = lifecycle;
        record.revision = stood.revision.saturating_add(1);
        record.successor = stood.successor;
        record.delete_at = delete_at;
        record.row_tag = None;
        let mut lift = None;
        if lifecycle.can_decrypt() {
            let unsealed = self.unseal(stored, RowTagRule::of(stood.lifecycle), &mut event.kms).await?;
            record.row_tag = Some(unsealed.ready.row_key.tag(&record.tagged_bytes()));
            lift = unsealed.lift;
        } else if let Some(ready) = self.open_as(stored).await {
            record.row_tag = Some(ready.row_key.tag(&record.tagged_bytes()));
        }
        let to = record.state_change();
        event.change = Some(to);
        let change = Change::UpdateKey(KeyUpdate { key: record.attributes.id, if_revision, to, row_tag: record.row_tag, lift });
        for wrap in record.wraps.iter_mut().filter(|wrap| Some(wrap.wrapper_key) == lift) {
            wrap.quarantined = false;
        }
        if lifecycle.is_destroyed() {
            (record.sealed, record.wraps) = (None, Vec::new());
        }
        Ok(Completed::changed(permit, record, change))
    }

    /// The open key of this very row: one of an earlier revision may be sealed under another data key, whose tags mean nothing now.
    async fn open_as(&self, stored: &StoredKey) -> Option<Arc<OpenKey>> {
        let opened = self.cache.get(stored.record.attributes.id).await?;
        if opened.revision == stored.record.revision { opened.ready() } else { None }
    }

    /// Disabling and scheduling a deletion go on while the vault is frozen: they take rights away.
    fn in_service_for(&self, transition: Transition) -> Result<(), VaultError> {
        match (transition, self.in_service()) {
            (Transition::Disable | Transition::ScheduleDeletion, Err(VaultError::Frozen)) => Ok(()),
            (_, in_service) => in_service,
        }
    }
}
