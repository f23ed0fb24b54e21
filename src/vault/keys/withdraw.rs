//! `withdraw`: the way back from an import by mistake, also of a permanent key. Only a key that was never used since its import can be withdrawn.
//!
//! "Never used" rests on the log. The first use of an imported key is a state change: it is in the hash chain that a start verifies, and in
//! memory. The writer of the store looks at it again in the transaction of the withdrawal, so that a use and a withdrawal at the same time
//! cannot both succeed. A use by a program without this rule is found in the entries about the key (`storage/sqlite/uses.rs`).

use crate::{
    domain::{AuditEvent, KeyId, KeyRecord, Operation, Origin, Timestamp, Transition},
    storage::{Change, StoreError},
};

use super::KeyLifecycle;
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

impl Vault {
    /// Schedules the destruction of an imported key that was never used: it is refused for use at once, and destroyed after `days`, unless
    /// [`Vault::cancel_deletion`] restores it.
    ///
    /// # Errors
    /// `InvalidRequest` if `days` is out of range, `NotImported`, `KeyWasUsed`, `KeyUseUnknown`, `InvalidKeyState`, `TooMany`, otherwise as
    /// [`Vault::sign`].
    pub async fn withdraw_key(&self, call: &CallContext, id: KeyId, days: u32) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let delete_at = self.time_of_deletion(call, Operation::WithdrawKey, id, days).await?;
        let withdrawn = self
            .gate
            .run(self.gate.event(call, Operation::WithdrawKey), |mut event, _| async move {
                let result = match self.limits.log_read(&call.principal) {
                    Ok(_slot) => self.key_lifecycle.try_withdraw(&mut event, id, delete_at).await,
                    Err(limited) => Err(limited),
                };
                (event, result)
            })
            .await;
        self.key_cache.evict(id).await;
        withdrawn
    }
}

impl KeyLifecycle {
    async fn try_withdraw(&self, event: &mut AuditEvent, id: KeyId, delete_at: Timestamp) -> Result<Completed<KeyRecord>, VaultError> {
        let (permit, stored) = self.key_cache.permit_stored_key(event, id).await?;
        self.in_service_for(Transition::ScheduleDeletion)?;
        if stored.record.attributes.origin == Origin::Imported {
            self.key_cache.check_row(&stored).await?;
        }
        self.check_withdrawal(&stored.record).await?;
        let (record, update) = self.transitioned(event, &stored, Transition::ScheduleDeletion, Some(delete_at)).await?;
        Ok(Completed::changed(permit, record, Change::Withdraw(update)))
    }

    /// Whether the key can be withdrawn now.
    ///
    /// # Errors
    /// `NotImported`, `InvalidKeyState`, `KeyWasUsed`, `KeyUseUnknown`, or the error of the store.
    pub(in crate::vault) async fn check_withdrawal(&self, record: &KeyRecord) -> Result<(), VaultError> {
        // The column is a hint only: without an entry of its import, no key counts as never used.
        if record.attributes.origin != Origin::Imported {
            return Err(VaultError::NotImported);
        }
        record.lifecycle.after(Transition::ScheduleDeletion).map_err(VaultError::InvalidKeyState)?;
        match self.env.store.use_since_import(record.attributes.id).await {
            Ok(None) => Ok(()),
            Ok(Some(found)) => Err(VaultError::KeyWasUsed(found)),
            Err(StoreError::Corrupt { table: "audit_entries", what }) => Err(VaultError::KeyUseUnknown(what)),
            Err(error) => Err(error.into()),
        }
    }
}
