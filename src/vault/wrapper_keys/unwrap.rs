//! Unwrapping of data keys: through any wrap whose data key matches the commitment of the sealed key.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    crypto::{SecretBytes, envelope, with_wiped_stack},
    domain::{EncryptionContext, KeyRecord, KeyState, KmsUse, Wrap, WrapperKey, WrapperKeyId},
    kms::{Outage, Unwrapped, WrapperError},
    storage::Change,
};

use super::WrapperKeys;
use crate::vault::{VaultError, quarantine::record_quarantine};

/// Added to the timeout of one round over all regions, so that the circuit breaker records the timeout first.
const BREAKER_MARGIN: Duration = Duration::from_millis(100);

/// The data key of a record.
pub(in crate::vault) struct DataKey {
    /// 32 bytes.
    pub key: SecretBytes,
    /// The wrapper key of the wrap, if that wrap is quarantined in the store although it opened.
    pub reinstated_wrap: Option<WrapperKeyId>,
}

impl WrapperKeys {
    /// The data key of a record, from the first wrap that opens to a data key matching the commitment. With `quarantined_too`, the
    /// quarantined wraps are tried last, because the store may have been repaired.
    ///
    /// # Errors
    /// `State(Quarantined)` if every wrap is invalid; otherwise the error of the wrapper keys. An outage takes precedence over a denial,
    /// because an outage can end. A denial ends the search unless `failover_on_denied` is set.
    pub(in crate::vault) async fn data_key(
        &self,
        record: &KeyRecord,
        context: &EncryptionContext,
        quarantined_too: bool,
        kms: &mut KmsUse,
    ) -> Result<DataKey, VaultError> {
        let (mut refused, mut outage): (Option<VaultError>, Option<VaultError>) = (None, None);
        let keys = self.registered().await?;
        let mut wraps = self.ordered_wraps(&keys, record, quarantined_too).into_iter().peekable();
        while let Some((key, wrap)) = wraps.next() {
            match self.unwrap(key, record, wrap, context, wraps.peek().is_some(), kms).await {
                Ok(Some(data_key)) => return Ok(DataKey { key: data_key, reinstated_wrap: wrap.quarantined.then_some(key.id) }),
                Ok(None) => {
                    refused
                        .get_or_insert(VaultError::Wrapper(WrapperError::Invalid { reference: key.reference.clone(), request_id: None }));
                }
                Err(error @ VaultError::Wrapper(WrapperError::Unavailable { .. })) => outage = Some(error),
                Err(VaultError::Wrapper(error)) => {
                    let stop = !self.failover_allowed(&error);
                    refused = Some(error.into());
                    if stop {
                        break;
                    }
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(outage.or(refused).unwrap_or(VaultError::State(KeyState::Quarantined)))
    }

    /// The data key of one wrap. `None` if the wrap is invalid although its wrapper key works; the wrap is quarantined then. With
    /// `has_next`, the timeout is one round over the regions instead of all retries, because another wrap can be tried.
    ///
    /// # Errors
    /// The error of the KMS.
    pub(super) async fn unwrap(
        &self,
        key: &WrapperKey,
        record: &KeyRecord,
        wrap: &Wrap,
        context: &EncryptionContext,
        has_next: bool,
        kms: &mut KmsUse,
    ) -> Result<Option<SecretBytes>, VaultError> {
        let wrapper = self.connect(key).await?;
        let time_limit = if has_next { wrapper.single_round_timeout().saturating_add(BREAKER_MARGIN) } else { Duration::MAX };
        let timed_out = |_| Err(WrapperError::Unavailable { reference: key.reference.clone(), outage: Outage::TimedOut, request_id: None });
        let result = timeout(time_limit, wrapper.unwrap(&wrap.wrapped, context)).await.unwrap_or_else(timed_out);
        self.health.record_call(key.id, &result);
        match result {
            Ok(Unwrapped { data_key, receipt: _ }) => {
                kms.took_part(key.id);
                let commits =
                    record.sealed.as_ref().is_some_and(|sealed| with_wiped_stack(|| envelope::commits(&data_key, sealed, context)));
                if commits {
                    return Ok(Some(data_key));
                }
            }
            // A wrapper key that does not open its own canary is another key or a wrong file. Then the wrap is not quarantined.
            Err(WrapperError::Invalid { reference, request_id }) => {
                if self.open_canary(key, &*wrapper).await.is_err() {
                    return Err(WrapperError::Invalid { reference, request_id }.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        if wrap.quarantined {
            return Ok(None);
        }
        let Wrap { wrapper_key, generation, wrapped, .. } = wrap.clone();
        let change = Change::QuarantineWrap { key: record.attributes.id, wrapper_key, generation, wrapped };
        let node = Some(record.attributes.node.clone());
        record_quarantine(&self.gate, record.attributes.id, node, change, &format!("wrap under {}", key.id)).await;
        Ok(None)
    }
}
