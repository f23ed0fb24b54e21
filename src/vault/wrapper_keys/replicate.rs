//! Replication of a wrapper key to another region. The region is used only after the key works there.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    domain::{AuditEvent, Operation, Outcome, WrapperKey, WrapperKeyId, WrapperState},
    kms::{Denial, Outage, Wrapper, WrapperError},
    storage::Change,
};

use super::{WrapperKeyView, WrapperKeys, register::invalid_if_unfit};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

/// Interval between two checks whether a replica is usable.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

impl Vault {
    /// Creates a replica of a wrapper key in `region`, waits until it opens the canary there, and then adds the region to the wrapper key.
    /// A repeated request finds the existing replica and continues to wait. Permitted while the vault is frozen: it opens no private key.
    ///
    /// # Errors
    /// `Forbidden`; `NotFound`; `InvalidWrapperKeyState` for a retiring or retired wrapper key; `InvalidAttributes`, before anything is
    /// created, if the replica is impossible or not allowed; the error of the KMS; `AuditUnavailable`.
    pub async fn replicate_wrapper_key(
        &self,
        call: &CallContext,
        id: WrapperKeyId,
        region: &str,
    ) -> Result<AuditedResult<WrapperKeyView>, VaultError> {
        let event = AuditEvent { subject: Some(format!("{id} in {region}")), ..self.gate.event(call, Operation::ReplicateWrapperKey) };
        self.gate
            .run(event, |event, _| async move {
                let result = self.wrapper_keys.try_replicate(&event, id, region).await;
                (event, result)
            })
            .await
    }
}

impl WrapperKeys {
    async fn try_replicate(&self, event: &AuditEvent, id: WrapperKeyId, region: &str) -> Result<Completed<WrapperKeyView>, VaultError> {
        let permit = self.gate.permit_vault(event)?;
        self.gate.not_stopping()?;
        let mut view = self.view_of(id).await?;
        if matches!(view.key.state, WrapperState::Retiring | WrapperState::Retired) {
            return Err(VaultError::InvalidWrapperKeyState(view.key.state));
        }
        self.providers.may_replicate(&view.key, region).map_err(invalid_if_unfit)?;
        // The intent entry precedes every effect outside the vault.
        let intent = AuditEvent { outcome: Outcome::Intent, ..event.clone() };
        self.gate.record(intent).await?;
        self.providers.replicate(&view.key, region).await.map_err(invalid_if_unfit)?;
        self.wait_until_usable(&view.key, region).await?;

        let from = view.key.regions.clone();
        if from.iter().any(|known| known == region) {
            return Ok(Completed::read(permit, view));
        }
        view.key.regions.push(region.to_owned());
        let change = Change::SetWrapperKeyRegions { id, from, to: view.key.regions.clone() };
        Ok(Completed::changed(permit, view, change))
    }

    /// Waits until a wrapper key opens its canary in one region, at most `replica_timeout`. A new replica and its policy become effective
    /// after some seconds.
    ///
    /// # Errors
    /// The last denial, or `Unavailable` with `NotUsableYet`, after the timeout. An invalid wrap or a misconfiguration at once.
    pub(super) async fn wait_until_usable(&self, key: &WrapperKey, region: &str) -> Result<(), WrapperError> {
        let in_region = WrapperKey { regions: vec![region.to_owned()], ..key.clone() };
        let wrapper = self.providers.connect(&in_region).await?;
        let deadline = Instant::now() + self.providers.config().limits.replica_timeout;
        let reference = format!("{} in {region}", key.reference);
        let mut refused = None;
        loop {
            match timeout_at(deadline, self.check_usable(&in_region, &*wrapper)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error @ WrapperError::Denied { denial: Denial::AccessDenied | Denial::Disabled | Denial::WrongKind, .. })) => {
                    refused = Some(error);
                }
                Ok(Err(error @ (WrapperError::Invalid { .. } | WrapperError::Misconfigured { .. }))) => return Err(error),
                // Other errors can end while the replica is created.
                Ok(Err(_)) => refused = None,
                Err(_) => {}
            }
            if Instant::now() + POLL_INTERVAL >= deadline {
                return Err(refused.unwrap_or(WrapperError::Unavailable { reference, outage: Outage::NotUsableYet, request_id: None }));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn check_usable(&self, key: &WrapperKey, wrapper: &dyn Wrapper) -> Result<(), WrapperError> {
        if !wrapper.describe().await?.usable {
            return Err(WrapperError::Unavailable { reference: key.reference.clone(), outage: Outage::NotUsableYet, request_id: None });
        }
        self.open_canary(key, wrapper).await
    }
}
