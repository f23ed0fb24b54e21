//! A wrapper key gets a replica in another region, which counts only once it works there.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    domain::{AuditEvent, Operation, Outcome, WrapperKey, WrapperKeyId, WrapperState},
    kms::{Denial, Outage, Wrapper, WrapperError},
    storage::{Change, Commit},
};

use super::register::unfit;
use crate::vault::{
    AuditedResult, CallContext, Vault, VaultError, WrapperKeyView,
    audit_gate::commit::{ATTEMPTS, Completed},
};

/// Between two looks at a replica that is not usable yet.
const PAUSE: Duration = Duration::from_millis(500);

impl Vault {
    /// Makes a replica of a wrapper key in `region`, waits until it opens the key's canary there, and only then counts the region among
    /// the key's. Repeated, it finds the replica that exists, and goes on waiting.
    ///
    /// # Errors
    /// The gate's; `NotFound`; `InvalidWrapperKeyState` for one that is retiring or retired; `InvalidAttributes` before anything is made, if it
    /// cannot or may not be; the wrapper key's; the log's.
    pub async fn replicate_wrapper_key(
        self: &Arc<Self>,
        call: &CallContext,
        id: WrapperKeyId,
        region: &str,
    ) -> Result<AuditedResult<WrapperKeyView>, VaultError> {
        let mut event = AuditEvent { subject: Some(format!("{id} in {region}")), ..self.event(call, Operation::ReplicateWrapperKey) };
        for _ in 0..ATTEMPTS {
            let done = self.try_replicate(&mut event, id, region).await;
            if let ControlFlow::Break(answer) = self.settle(event.clone(), done).await? {
                return Ok(answer);
            }
        }
        self.refuse(event, VaultError::Conflict).await
    }

    async fn try_replicate(&self, event: &mut AuditEvent, id: WrapperKeyId, region: &str) -> Result<Completed<WrapperKeyView>, VaultError> {
        let permit = self.permit_vault(event)?;
        self.in_service()?;
        let mut view = self.wrapper_key_view(id).await?;
        if matches!(view.key.state, WrapperState::Retiring | WrapperState::Retired) {
            return Err(VaultError::InvalidWrapperKeyState(view.key.state));
        }
        self.providers.may_replicate(&view.key, region).map_err(unfit)?;
        // Something outside is about to be made: the intent is in the log before it is.
        let intent = AuditEvent { outcome: Outcome::Intent, ..event.clone() };
        self.write(Commit::entry(intent)).await?;
        let request_id = self.providers.replicate(&view.key, region).await.map_err(unfit)?;
        event.kms.request_ids.extend(request_id);
        self.until_usable_in(&view.key, region).await?;

        let from = view.key.regions.clone();
        if from.iter().any(|known| known == region) {
            return Ok(Completed::read(permit, view));
        }
        view.key.regions.push(region.to_owned());
        let change = Change::SetWrapperKeyRegions { id, from, to: view.key.regions.clone() };
        Ok(Completed::changed(permit, view, change))
    }

    /// Waits until a wrapper key opens its canary in one region, at most `replica_timeout`: a new replica takes a while, and so does the
    /// news of its policy.
    pub(in crate::vault) async fn until_usable_in(&self, key: &WrapperKey, region: &str) -> Result<(), WrapperError> {
        let there = WrapperKey { regions: vec![region.to_owned()], ..key.clone() };
        let wrapper = self.providers.connect(&there).await?;
        let deadline = Instant::now() + self.providers.config().limits.replica_timeout;
        let reference = format!("{} in {region}", key.reference);
        let mut refused = None;
        loop {
            match timeout_at(deadline, self.works(&there, &*wrapper)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error @ WrapperError::Denied { denial: Denial::AccessDenied | Denial::Disabled | Denial::WrongKind, .. })) => {
                    refused = Some(error);
                }
                Ok(Err(error @ (WrapperError::Invalid { .. } | WrapperError::Misconfigured { .. }))) => return Err(error),
                // On its way, or away: a later look may tell.
                Ok(Err(_)) => refused = None,
                Err(_) => {}
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(refused.unwrap_or(WrapperError::Unavailable { reference, outage: Outage::NotUsableYet, request_id: None }));
            }
            sleep(PAUSE).await;
        }
    }

    async fn works(&self, key: &WrapperKey, wrapper: &dyn Wrapper) -> Result<(), WrapperError> {
        if !wrapper.describe().await?.usable {
            return Err(WrapperError::Unavailable { reference: key.reference.clone(), outage: Outage::NotUsableYet, request_id: None });
        }
        self.opens_canary(key, wrapper).await
    }
}
