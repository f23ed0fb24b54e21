//! A further wrap for one key: re-encrypted inside the KMS where possible, otherwise unwrapped and wrapped. The private key stays sealed.

use std::fmt;

use crate::{
    crypto::{envelope, with_wiped_stack},
    domain::{
        AuditEvent, EncryptionContext, JobId, KeyId, KeyRecord, KeyState, KmsUse, Operation, SealedKey, Wrap, WrapperKey, WrapperKeyId,
    },
    kms::{ForeignWrap, Unwrapped, Wrapped, Wrapper, WrapperError},
    storage::{Change, CommitError},
};

use super::{
    WrapperKeys,
    canary::{canary_context, wrap_and_verify},
};
use crate::vault::{VaultError, audit_gate::Completed};

/// How a data key was wrapped under another wrapper key. The audit entry records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WrapMethod {
    /// Inside the KMS.
    ReEncrypted,
    /// The data key was in the memory of this process.
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

/// A new wrap that is not yet verified.
struct NewWrap {
    wrapped: Vec<u8>,
    from: WrapperKeyId,
    method: WrapMethod,
}

impl WrapperKeys {
    /// Adds a wrap of one key under `to`. The wrap is verified: it must unwrap to a data key that matches the commitment. A key that was
    /// destroyed, or that has such a wrap already, is a success. The entry names the job that asks for it, if there is one.
    ///
    /// # Errors
    /// The errors of the store, the KMS and the commit. The wraps of the key are unchanged then.
    pub(in crate::vault) async fn rewrap(&self, id: KeyId, to: &WrapperKey, job: Option<JobId>) -> Result<(), VaultError> {
        let stored = self.env.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
        let record = &stored.record;
        let Some(sealed) = &record.sealed else { return Ok(()) };
        let context = record.attributes.encryption_context(&self.env.vault_id);
        let node = record.attributes.node.clone();
        let mut event = AuditEvent { key: Some(id), node: Some(node.clone()), ..self.gate.system_event(Operation::RewrapKey) };

        let target = self.connect(to).await?;
        let NewWrap { wrapped, from, method } = self.new_wrap(record, to, &*target, &context, &mut event.kms).await?;
        if !self.verify_wrap(to, &*target, &wrapped, sealed, &context, &mut event.kms).await? {
            return Err(VaultError::Internal("a new wrap opens to another data key"));
        }

        let job = job.map_or_else(String::new, |job| format!(", {job}"));
        event.subject = Some(format!("{from} to {}, {method}{job}", to.id));
        let now = self.env.now();
        let generation = record.generation;
        let wrap = Wrap { wrapper_key: to.id, generation, wrapped, created_at: now, verified_at: Some(now), quarantined: false };
        let permit = self.gate.policy().permit_system(Operation::RewrapKey, Some((id, node)));
        match self.gate.commit(event, Completed::changed(permit, (), Change::AddWrap { key: id, wrap })).await {
            // The key was destroyed, re-sealed or wrapped by another operation meanwhile. The next sweep finds what is missing.
            Ok(_) | Err(CommitError::LostRace) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Verifies before a rotation that `to` wraps and unwraps a random value, and, if `keys_remain`, that it can take over what `active`
    /// wrapped. Without remaining keys `active` is not called, because it may be out of reach.
    ///
    /// # Errors
    /// The error of the KMS; `Internal` if another value came back.
    pub(in crate::vault) async fn verify_for_rotation(
        &self,
        kms: &mut KmsUse,
        to: &WrapperKey,
        active: &WrapperKey,
        keys_remain: bool,
    ) -> Result<(), VaultError> {
        const MISMATCH: VaultError = VaultError::Internal("a canary opens to another data key");
        let context = canary_context(&self.env.vault_id, to.id);
        let random = envelope::new_data_key(self.env.random.as_ref())?;
        let target = self.connections.get(to).await?;
        wrap_and_verify(&*target, &random, &context).await?.ok_or(MISMATCH)?;
        if !keys_remain || !target.can_rewrap_from(active) {
            return Ok(());
        }
        let source = self.connections.get(active).await?;
        let Wrapped { bytes, receipt: _ } = source.wrap(&random, &context).await?;
        kms.took_part(active.id);
        let Wrapped { bytes, receipt: _ } = target.rewrap(ForeignWrap { key: active, wrapped: &bytes }, &context).await?;
        kms.took_part(to.id);
        let Unwrapped { data_key, receipt: _ } = target.unwrap(&bytes, &context).await?;
        if data_key.same(&random) { Ok(()) } else { Err(MISMATCH) }
    }

    /// A wrap under `to`, from the first usable wrap that gives one. Wraps that the KMS can re-encrypt itself are tried first.
    async fn new_wrap(
        &self,
        record: &KeyRecord,
        to: &WrapperKey,
        target: &dyn Wrapper,
        context: &EncryptionContext,
        kms: &mut KmsUse,
    ) -> Result<NewWrap, VaultError> {
        let keys = self.registered().await?;
        let mut sources = self.ordered_wraps(&keys, record, false);
        sources.retain(|(key, _)| key.id != to.id);
        sources.sort_by_key(|(key, _)| !target.can_rewrap_from(key));
        let (mut refused, mut outage): (Option<VaultError>, Option<VaultError>) = (None, None);
        for (from, wrap) in sources {
            match self.wrap_from(from, wrap, record, to, target, context, kms).await {
                Ok(Some((wrapped, method))) => return Ok(NewWrap { wrapped, from: from.id, method }),
                Ok(None) => refused.get_or_insert(VaultError::State(KeyState::Quarantined)),
                Err(error @ VaultError::Wrapper(WrapperError::Unavailable { .. })) => outage.insert(error),
                Err(error) => refused.insert(error),
            };
        }
        Err(outage.or(refused).unwrap_or(VaultError::State(KeyState::Quarantined)))
    }

    /// A wrap under `to` from one wrap. `None` if that wrap is invalid.
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
            // Connecting checks the wrapper key against the allowlist of the configuration.
            self.connect(from).await?;
            let rewrapped = target.rewrap(ForeignWrap { key: from, wrapped: &wrap.wrapped }, context).await;
            match rewrapped {
                Ok(Wrapped { bytes, receipt: _ }) => {
                    kms.took_part(from.id);
                    return Ok(Some((bytes, WrapMethod::ReEncrypted)));
                }
                // Either the wrap is invalid or the wrapper key is another one. Unwrapping decides.
                Err(WrapperError::Invalid { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some(data_key) = self.unwrap(from, record, wrap, context, false, kms).await? else { return Ok(None) };
        let wrapped = target.wrap(&data_key, context).await;
        self.health.record_call(to.id, &wrapped);
        let Wrapped { bytes, receipt: _ } = wrapped?;
        kms.took_part(to.id);
        Ok(Some((bytes, WrapMethod::Unwrapped)))
    }

    /// Whether a new wrap opens to the data key that the sealed key commits to.
    async fn verify_wrap(
        &self,
        to: &WrapperKey,
        target: &dyn Wrapper,
        wrapped: &[u8],
        sealed: &SealedKey,
        context: &EncryptionContext,
        kms: &mut KmsUse,
    ) -> Result<bool, VaultError> {
        let unwrapped = target.unwrap(wrapped, context).await;
        self.health.record_call(to.id, &unwrapped);
        let Unwrapped { data_key, receipt: _ } = unwrapped?;
        kms.took_part(to.id);
        Ok(with_wiped_stack(|| envelope::commits(&data_key, sealed, context)))
    }
}
