//! One key gets a further wrap: re-wrapped inside the KMS where that can be, else unwrapped and wrapped. The private key stays sealed.

use std::fmt;

use crate::{
    crypto::{envelope, on_wiped_stack},
    domain::{AuditEvent, EncryptionContext, KeyId, KeyRecord, KeyState, KmsUse, Operation, SealedKey, Wrap, WrapperKey, WrapperKeyId},
    kms::{ForeignWrap, Wrapped, Wrapper, WrapperError},
    storage::{Change, CommitError},
};

use crate::vault::{Vault, VaultError, audit_gate::commit::Completed};

/// How a data key came under another wrapper key; the log tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WrapMethod {
    /// Inside the KMS.
    ReEncrypted,
    /// Through the memory of this process.
    Unwrapped,
}

impl fmt::Display for WrapMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReEncrypted => "re-encrypted by the KMS",
            Self::Unwrapped => "unwrapped and wrapped",
        })
    }
}

/// A new wrap that is yet to be verified.
struct NewWrap {
    wrapped: Vec<u8>,
    from: WrapperKeyId,
    how: WrapMethod,
}

impl Vault {
    /// Adds a wrap under `to`, verified by unwrapping it and comparing the commitment. A key that is gone, or has such a wrap by now, is
    /// done.
    ///
    /// # Errors
    /// The store's, the wrapper keys', or the log's; nothing is changed then.
    pub(in crate::vault) async fn rewrap(&self, id: KeyId, to: &WrapperKey) -> Result<(), VaultError> {
        let stored = self.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
        let record = &stored.record;
        let Some(sealed) = &record.sealed else { return Ok(()) };
        let context = record.attributes.encryption_context(&self.id);
        let mut event = AuditEvent { key: Some(id), node: Some(record.attributes.node.clone()), ..self.system_event(Operation::RewrapKey) };

        let target = self.wrapper(to).await?;
        let NewWrap { wrapped, from, how } = self.make_wrap(record, to, &*target, &context, &mut event.kms).await?;
        let verified = self.verify(to, &*target, &wrapped, sealed, &context, &mut event.kms).await?;
        if !verified {
            return Err(VaultError::Internal("a new wrap gave another data key"));
        }

        event.subject = Some(format!("{from} to {}, {how}", to.id));
        let now = (self.clock)();
        let generation = record.generation;
        let wrap = Wrap { wrapper_key: to.id, generation, wrapped, created_at: now, verified_at: Some(now), quarantined: false };
        let permit = self.policy().permit_system(Operation::RewrapKey, Some((id, record.attributes.node.clone())));
        match self.commit(event, Completed::changed(permit, (), Change::AddWrap { key: id, wrap })).await {
            // Destroyed, sealed anew or wrapped by another hand meanwhile: whoever asks for what is left finds out.
            Ok(_) | Err(CommitError::LostRace) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A wrap under `to` from the first live wrap that gives one; those that the KMS re-wraps by itself have the first turn.
    async fn make_wrap(
        &self,
        record: &KeyRecord,
        to: &WrapperKey,
        target: &dyn Wrapper,
        context: &EncryptionContext,
        kms: &mut KmsUse,
    ) -> Result<NewWrap, VaultError> {
        let keys = self.wrapper_keys().await?;
        let mut sources = self.ordered_wraps(&keys, record, false);
        sources.retain(|(key, _)| key.id != to.id);
        sources.sort_by_key(|(key, _)| !target.can_rewrap_from(key));
        let (mut refused, mut outage): (Option<VaultError>, Option<VaultError>) = (None, None);
        for (from, wrap) in sources {
            match self.wrap_from(from, wrap, record, to, target, context, kms).await {
                Ok(Some((wrapped, how))) => return Ok(NewWrap { wrapped, from: from.id, how }),
                Ok(None) => refused.get_or_insert(VaultError::State(KeyState::Quarantined)),
                Err(error @ VaultError::Wrapper(WrapperError::Unavailable { .. })) => outage.insert(error),
                Err(error) => refused.insert(error),
            };
        }
        Err(outage.or(refused).unwrap_or(VaultError::State(KeyState::Quarantined)))
    }

    /// A wrap under `to` from one wrap; `None` if that one is broken.
    #[expect(clippy::too_many_arguments, reason = "one wrap of one key, from one wrapper key to another")]
    async fn wrap_from(
        &self,
        from: &WrapperKey,
        wrap: &Wrap,
        record: &KeyRecord,
        to: &WrapperKey,
        target: &dyn Wrapper,
        context: &EncryptionContext,
        kms: &mut KmsUse,
    ) -> Result<Option<(Vec<u8>, WrapMethod)>, VaultError> {
        if target.can_rewrap_from(from) {
            // Connecting is what holds a wrapper key against the configuration.
            self.wrapper(from).await?;
            let answer = target.rewrap(ForeignWrap { key: from, wrapped: &wrap.wrapped }, context).await;
            match answer {
                Ok(Wrapped { bytes, receipt }) => {
                    kms.took(from.id, receipt.request_id);
                    return Ok(Some((bytes, WrapMethod::ReEncrypted)));
                }
                // Whether the wrap is broken or the wrapper key a wrong one, unwrapping finds out.
                Err(WrapperError::Invalid { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some(data_key) = self.unwrap(from, record, wrap, context, false, kms).await? else { return Ok(None) };
        let answer = target.wrap(&data_key, context).await;
        self.health.wrapper(to.id, &answer);
        let Wrapped { bytes, receipt } = answer?;
        kms.took(to.id, receipt.request_id);
        Ok(Some((bytes, WrapMethod::Unwrapped)))
    }

    /// Whether a new wrap opens to the data key that the sealed bytes are committed to.
    async fn verify(
        &self,
        to: &WrapperKey,
        target: &dyn Wrapper,
        wrapped: &[u8],
        sealed: &SealedKey,
        context: &EncryptionContext,
        kms: &mut KmsUse,
    ) -> Result<bool, VaultError> {
        let answer = target.unwrap(wrapped, context).await;
        self.health.wrapper(to.id, &answer);
        let unwrapped = answer?;
        kms.took(to.id, unwrapped.receipt.request_id);
        Ok(on_wiped_stack(|| envelope::commits(&unwrapped.data_key, sealed, context)))
    }
}
