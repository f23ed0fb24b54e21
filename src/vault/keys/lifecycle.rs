//! Lifecycle operations of callers: enable, supersede, restrict signing, schedule a deletion, cancel it. `disable` is in its own file.

use std::time::Duration;

use crate::domain::{AuditEvent, Class, KeyId, KeyRecord, MappingKinds, Operation, Origin, Purpose, Timestamp, Transition};

use super::KeyLifecycle;
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

/// The allowed waiting time of a deletion, in days. The minimum is that of AWS KMS.
pub const DELETION_DAYS: std::ops::RangeInclusive<u32> = 7..=365;

impl Vault {
    /// Enables a disabled or quarantined key. The key is opened first. It returns to the state before, not to a higher one.
    ///
    /// # Errors
    /// `InvalidKeyState`, the error of the wrapper keys, otherwise as [`Vault::sign`].
    pub async fn enable(&self, call: &CallContext, id: KeyId) -> Result<AuditedResult<KeyRecord>, VaultError> {
        self.transition(call, Operation::EnableKey, id, Transition::Enable, None).await
    }

    /// Ends the signing of a key with a successor, permanently. It still decrypts.
    ///
    /// # Errors
    /// `Permanent`, `InvalidKeyState`, otherwise as [`Vault::sign`].
    pub async fn supersede(&self, call: &CallContext, id: KeyId) -> Result<AuditedResult<KeyRecord>, VaultError> {
        self.transition(call, Operation::SupersedeKey, id, Transition::Supersede, None).await
    }

    /// Limits a signing key to topology transactions with mappings of these kinds, or removes the limit (`None`).
    ///
    /// # Errors
    /// `InvalidAttributes` if it is not a signing key, `InvalidKeyState` if it is not active or would not change, otherwise as
    /// [`Vault::enable`].
    pub async fn restrict_signing(
        &self,
        call: &CallContext,
        id: KeyId,
        topology_only: Option<MappingKinds>,
    ) -> Result<AuditedResult<KeyRecord>, VaultError> {
        self.transition(call, Operation::RestrictSigning, id, Transition::RestrictSigning(topology_only), None).await
    }

    /// Schedules the deletion of a key: it is refused for use at once, and destroyed after `days`.
    ///
    /// # Errors
    /// `InvalidRequest` if `days` is out of range, `Permanent`, `InvalidKeyState`, otherwise as [`Vault::sign`].
    pub async fn delete(&self, call: &CallContext, id: KeyId, days: u32) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let delete_at = self.time_of_deletion(call, Operation::DeleteKey, id, days).await?;
        self.transition(call, Operation::DeleteKey, id, Transition::ScheduleDeletion, Some(delete_at)).await
    }

    /// The time in so many days, in microseconds as all times.
    ///
    /// # Errors
    /// `InvalidRequest` if `days` is out of range, with an entry.
    pub(super) async fn time_of_deletion(
        &self,
        call: &CallContext,
        operation: Operation,
        id: KeyId,
        days: u32,
    ) -> Result<Timestamp, VaultError> {
        if DELETION_DAYS.contains(&days) {
            return Ok(self.env.now().plus(Duration::from_secs(u64::from(days) * 24 * 3600)));
        }
        let (first, last) = (DELETION_DAYS.start(), DELETION_DAYS.end());
        let event = AuditEvent { key: Some(id), ..self.gate.event(call, operation) };
        self.gate.refuse(event, VaultError::InvalidRequest(format!("days: supply {first} to {last}"))).await
    }

    /// Cancels a scheduled deletion. The key returns to the state before.
    ///
    /// # Errors
    /// `InvalidKeyState`, otherwise as [`Vault::enable`].
    pub async fn cancel_deletion(&self, call: &CallContext, id: KeyId) -> Result<AuditedResult<KeyRecord>, VaultError> {
        self.transition(call, Operation::CancelDeletion, id, Transition::CancelDeletion, None).await
    }

    async fn transition(
        &self,
        call: &CallContext,
        operation: Operation,
        id: KeyId,
        transition: Transition,
        delete_at: Option<Timestamp>,
    ) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let result = self
            .gate
            .run(self.gate.event(call, operation), |mut event, _| async move {
                let result = self.key_lifecycle.try_transition(&mut event, id, transition, delete_at).await;
                (event, result)
            })
            .await;
        self.key_cache.evict(id).await;
        result
    }
}

impl KeyLifecycle {
    async fn try_transition(
        &self,
        event: &mut AuditEvent,
        id: KeyId,
        transition: Transition,
        delete_at: Option<Timestamp>,
    ) -> Result<Completed<KeyRecord>, VaultError> {
        let (permit, stored) = self.key_cache.permit_stored_key(event, id).await?;
        self.in_service_for(transition)?;
        self.key_cache.check_row(&stored).await?;
        check_step(&stored.record, transition)?;
        self.apply_transition(event, permit, &stored, transition, delete_at).await
    }

    /// A deletion can be scheduled while the vault is frozen, because it only takes rights away.
    pub(super) fn in_service_for(&self, transition: Transition) -> Result<(), VaultError> {
        match (transition, self.gate.in_service()) {
            (Transition::ScheduleDeletion, Err(VaultError::Frozen)) => Ok(()),
            (_, in_service) => in_service,
        }
    }
}

/// Whether a key in this state, of this class and purpose, takes a step. The state comes first: a permanent key that is destroyed is destroyed.
///
/// # Errors
/// `InvalidKeyState`, `Permanent` or `InvalidAttributes`.
pub(in crate::vault) fn check_step(record: &KeyRecord, step: Transition) -> Result<(), VaultError> {
    let attributes = &record.attributes;
    record.lifecycle.after(step).map_err(VaultError::InvalidKeyState)?;
    match step {
        Transition::Supersede if attributes.class == Class::Permanent => Err(VaultError::Permanent("superseded")),
        Transition::ScheduleDeletion if attributes.class == Class::Permanent => {
            let withdraw = matches!(attributes.origin, Origin::Imported);
            Err(VaultError::Permanent(if withdraw { "deleted. If it was never used, it can be withdrawn" } else { "deleted" }))
        }
        Transition::RestrictSigning(_) if attributes.purpose != Purpose::Signing => {
            Err(VaultError::InvalidAttributes("only a signing key can be limited to topology transactions".into()))
        }
        _ => Ok(()),
    }
}
