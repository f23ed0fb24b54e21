//! The registered wrapper keys as the vault uses them: the active one for new keys, any live wrap to open.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    crypto::{SecretBytes, envelope, on_wiped_stack},
    domain::{EncryptionContext, KeyRecord, KeyState, KmsUse, VaultId, Wrap, WrapperKey, WrapperKeyId, WrapperState},
    kms::{Outage, Unwrapped, Wrapped, Wrapper, WrapperError},
    storage::Change,
};

use crate::vault::{Vault, VaultError, key_cache::unseal::RowTagRule};

/// What binds the canary of a wrapper key: `version`, `vault`, `canary`.
pub fn canary_context(vault: &VaultId, id: WrapperKeyId) -> EncryptionContext {
    EncryptionContext::new(vec![("version", "1".into()), ("vault", vault.to_string()), ("canary", id.to_string())])
}

impl Vault {
    /// The registered wrapper keys; read again whenever the store moved on.
    pub(in crate::vault) async fn wrapper_keys(&self) -> Result<Arc<Vec<WrapperKey>>, VaultError> {
        let revision = self.store.revision();
        let known = self.wrapper_keys.load_full();
        if known.0 == revision && !known.1.is_empty() {
            return Ok(Arc::clone(&known.1));
        }
        let keys: Arc<Vec<WrapperKey>> = Arc::new(self.store.wrapper_keys().await?);
        self.wrapper_keys.store(Arc::new((revision, Arc::clone(&keys))));
        self.health.know_only(&keys);
        Ok(keys)
    }

    /// The wrapper key for new keys.
    pub(in crate::vault) async fn active_wrapper(&self) -> Result<WrapperKey, VaultError> {
        let keys = self.wrapper_keys().await?;
        keys.iter().find(|key| key.state == WrapperState::Active).cloned().ok_or_else(|| self.no_wrapper_key())
    }

    /// Why there is none: what kept the first one from being registered may be nothing that time cures.
    pub(in crate::vault) fn no_wrapper_key(&self) -> VaultError {
        self.health.first_wrapper_fault().map_or(VaultError::NoWrapperKey, VaultError::Wrapper)
    }

    /// Wraps a data key under the active wrapper key, and proves that it comes back.
    pub(in crate::vault) async fn wrap(
        &self,
        data_key: &SecretBytes,
        context: &EncryptionContext,
        kms: &mut KmsUse,
    ) -> Result<(WrapperKeyId, Vec<u8>), VaultError> {
        let active = self.active_wrapper().await?;
        let wrapper = self.wrapper(&active).await?;
        let proof = wrap_and_prove(&*wrapper, data_key, context, kms).await;
        self.health.wrapper(active.id, &proof);
        let wrap = proof?.ok_or(VaultError::Internal("a fresh wrap gave another data key"))?;
        kms.took_part(active.id);
        Ok((active.id, wrap))
    }

    /// The data key of a record, from the first wrap that gives one which matches the commitment. Where a key comes back into use, the
    /// quarantined wraps have their turn last, since the store may have been mended; the one that opens is named.
    ///
    /// # Errors
    /// `State(Quarantined)` if every wrap is broken, else the error of the wrapper keys, an outage before a denial: the outage
    /// may pass. A denial ends it, unless `failover_on_denied`.
    pub(in crate::vault) async fn data_key(
        &self,
        record: &KeyRecord,
        context: &EncryptionContext,
        tag: RowTagRule,
        kms: &mut KmsUse,
    ) -> Result<(SecretBytes, Option<WrapperKeyId>), VaultError> {
        let (mut refused, mut outage): (Option<VaultError>, Option<VaultError>) = (None, None);
        let keys = self.wrapper_keys().await?;
        let mut wraps = self.ordered_wraps(&keys, record, tag == RowTagRule::MayBeAbsent).into_iter().peekable();
        while let Some((key, wrap)) = wraps.next() {
            match self.unwrap(key, record, wrap, context, wraps.peek().is_some(), kms).await {
                Ok(Some(data_key)) => return Ok((data_key, wrap.quarantined.then_some(key.id))),
                Ok(None) => {
                    refused
                        .get_or_insert(VaultError::Wrapper(WrapperError::Invalid { reference: key.reference.clone(), request_id: None }));
                }
                Err(error @ VaultError::Wrapper(WrapperError::Unavailable { .. })) => outage = Some(error),
                Err(VaultError::Wrapper(error)) => {
                    let ends = !self.failover_allowed(&error);
                    refused = Some(error.into());
                    if ends {
                        break;
                    }
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(outage.or(refused).unwrap_or(VaultError::State(KeyState::Quarantined)))
    }

    /// One wrap's data key; `None`, and the wrap quarantined, if the wrap is broken although its wrapper key works.
    pub(in crate::vault) async fn unwrap(
        &self,
        key: &WrapperKey,
        record: &KeyRecord,
        wrap: &Wrap,
        context: &EncryptionContext,
        has_next: bool,
        kms: &mut KmsUse,
    ) -> Result<Option<SecretBytes>, VaultError> {
        let wrapper = self.wrapper(key).await?;
        // Where another wrap can open it, one that hangs costs a round, not a whole call; a little more, so that its breaker learns.
        let patience = if has_next { wrapper.single_round_timeout().saturating_add(A_LITTLE) } else { Duration::MAX };
        let late = |_| Err(WrapperError::Unavailable { reference: key.reference.clone(), outage: Outage::TimedOut, request_id: None });
        let result = timeout(patience, wrapper.unwrap(&wrap.wrapped, context)).await.unwrap_or_else(late);
        self.health.wrapper(key.id, &result);
        let request_id = match result {
            Ok(Unwrapped { data_key, receipt }) => {
                kms.took(key.id, receipt.request_id.clone());
                let commits = record.sealed.as_ref().is_some_and(|sealed| on_wiped_stack(|| envelope::commits(&data_key, sealed, context)));
                if commits {
                    return Ok(Some(data_key));
                }
                receipt.request_id
            }
            // Never for an error of the KMS: a wrapper key that no longer opens its own canary is another key, or a wrong file.
            Err(WrapperError::Invalid { reference, request_id }) => {
                if self.opens_canary(key, &*wrapper).await.is_err() {
                    return Err(WrapperError::Invalid { reference, request_id }.into());
                }
                request_id
            }
            Err(error) => return Err(error.into()),
        };
        if wrap.quarantined {
            return Ok(None);
        }
        let Wrap { wrapper_key, generation, wrapped, .. } = wrap.clone();
        let change = Change::QuarantineWrap { key: record.attributes.id, wrapper_key, generation, wrapped };
        self.set_aside(
            record.attributes.id,
            Some(record.attributes.node.clone()),
            change,
            &format!("wrap under {}", key.id),
            KmsUse { request_ids: request_id.into_iter().collect(), wrapper_keys: Vec::new() },
        )
        .await;
        Ok(None)
    }

    /// Whether a wrapper key opens what was wrapped when it was registered.
    pub(in crate::vault) async fn opens_canary(&self, key: &WrapperKey, wrapper: &dyn Wrapper) -> Result<(), WrapperError> {
        wrapper.unwrap(&key.canary, &canary_context(&self.id, key.id)).await.map(drop)
    }

    /// The connected wrapper of a registered wrapper key.
    pub(in crate::vault) async fn wrapper(&self, key: &WrapperKey) -> Result<Arc<dyn Wrapper>, VaultError> {
        let wrapper = self.connections.get(key).await;
        if wrapper.is_err() {
            self.health.wrapper(key.id, &wrapper);
        }
        Ok(wrapper?)
    }
}

/// Wraps a data key, unwraps it again and compares: a wrap that does not open would be a lost key. `None` if it gave another one.
pub(in crate::vault) async fn wrap_and_prove(
    wrapper: &dyn Wrapper,
    data_key: &SecretBytes,
    context: &EncryptionContext,
    kms: &mut KmsUse,
) -> Result<Option<Vec<u8>>, WrapperError> {
    let Wrapped { bytes, receipt } = wrapper.wrap(data_key, context).await?;
    kms.request_ids.extend(receipt.request_id);
    let Unwrapped { data_key: back, receipt } = wrapper.unwrap(&bytes, context).await?;
    kms.request_ids.extend(receipt.request_id);
    Ok(back.same(data_key).then_some(bytes))
}

const A_LITTLE: Duration = Duration::from_millis(100);
