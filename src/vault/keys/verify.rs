//! `verify`: opens a key from its stored form, past the cache, and answers only if it is the key that its id names. The caller gets nothing of the key.

use crate::domain::{AuditEvent, KeyId, KeyState, Operation, WrapperKeyId};

use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed, key_cache::RowTagRule};

/// A key that opened, and passed the checks of an opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedKey {
    /// The state, which verification does not change.
    pub state: KeyState,
    /// The wrapper key that unwrapped the data key.
    pub wrapper_key: Option<WrapperKeyId>,
}

impl Vault {
    /// Verifies a key in any state but destroyed, also a quarantined one. The row must be the one of the log, a wrap must open under its wrapper key, the
    /// seal and the row tag must be valid, the derived public key must have the id as its fingerprint, and the key must sign or decrypt a test value. A key
    /// that fails is quarantined, as by a use.
    ///
    /// # Errors
    /// `KeyNotFound`, `Forbidden`, `State` for a destroyed key or one that fails, `Frozen`, `TooMany`; the errors of the wrapper keys, the store and the audit
    /// log.
    pub async fn verify_key(&self, call: &CallContext, id: KeyId) -> Result<AuditedResult<VerifiedKey>, VaultError> {
        let event = self.gate.event(call, Operation::VerifyKey);
        self.gate
            .run(event, |mut event, _| async move {
                let result = self.try_verify(&mut event, id).await;
                (event, result)
            })
            .await
    }

    async fn try_verify(&self, event: &mut AuditEvent, id: KeyId) -> Result<Completed<VerifiedKey>, VaultError> {
        let (permit, stored) = self.key_cache.permit_stored_key(event, id).await?;
        self.gate.in_service()?;
        let lifecycle = stored.record.lifecycle;
        if lifecycle.is_destroyed() {
            self.key_cache.check_row(&stored).await?;
            return Err(VaultError::State(lifecycle.state()));
        }
        self.limits.cache_miss(permit.principal())?;
        self.key_cache.unseal(&stored, RowTagRule::of(lifecycle), &mut event.kms).await?;
        let wrapper_key = event.kms.wrapper_keys.first().copied();
        Ok(Completed::read(permit, VerifiedKey { state: lifecycle.state(), wrapper_key }))
    }
}
