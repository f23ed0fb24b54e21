//! One wrapper key, with what its KMS says of it at this moment.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    domain::{AuditEvent, Class, KeyState, KmsRotation, Operation, Timestamp, WrapperKey, WrapperKeyId, WrapperState},
    kms::{Denial, Outage, WrapperError},
    storage::KeyFilter,
};

use crate::vault::{AuditedResult, CallContext, Vault, VaultError, WrapperKeyView, audit_gate::commit::Completed};

/// What a KMS says of a wrapper key.
#[derive(Debug, Clone, Default)]
pub struct KmsStatus {
    /// Whether it would use it now; `None` if it did not say.
    pub usable: Option<bool>,
    /// How it rotates it; `None` if it did not say, or does no such thing.
    pub rotation: Option<KmsRotation>,
    /// How many long-term keys were created before the last rotation; `None` if none is known.
    pub long_term_keys_older: Option<u64>,
    /// Why something is not said.
    pub reason: Option<String>,
}

/// How long a KMS may take to say it: people wait, and what the store knows is told in any case.
const PATIENCE: Duration = Duration::from_secs(3);

impl Vault {
    /// Shows one wrapper key, and what its KMS says of it; one that is retired is not asked about.
    ///
    /// # Errors
    /// The gate's, the store's or the log's; `NotFound`. A KMS that does not answer is none.
    pub async fn show_wrapper_key(
        self: &Arc<Self>,
        call: &CallContext,
        id: WrapperKeyId,
    ) -> Result<AuditedResult<(WrapperKeyView, Option<KmsStatus>)>, VaultError> {
        let event = AuditEvent { subject: Some(id.to_string()), ..self.event(call, Operation::ShowWrapperKey) };
        let done = self.try_show_wrapper_key(&event, id).await;
        self.conclude(event, done).await
    }

    async fn try_show_wrapper_key(
        &self,
        event: &AuditEvent,
        id: WrapperKeyId,
    ) -> Result<Completed<(WrapperKeyView, Option<KmsStatus>)>, VaultError> {
        let permit = self.permit_vault(event)?;
        let view = self.wrapper_key_view(id).await?;
        let look = match view.key.state {
            WrapperState::Retired => None,
            _ => Some(self.kms_status(&view.key).await?),
        };
        Ok(Completed::read(permit, (view, look)))
    }

    async fn kms_status(&self, key: &WrapperKey) -> Result<KmsStatus, VaultError> {
        let wrapper = match self.connections.get(key).await {
            Ok(wrapper) => wrapper,
            Err(error) => return Ok(KmsStatus { reason: Some(error.to_string()), ..KmsStatus::default() }),
        };
        let late = || WrapperError::Unavailable { reference: key.reference.clone(), outage: Outage::TimedOut, request_id: None };
        let (described, rotation) = tokio::join!(timeout(PATIENCE, wrapper.describe()), timeout(PATIENCE, wrapper.rotation()));
        let described = described.unwrap_or_else(|_| Err(late()));
        let rotation = rotation.unwrap_or_else(|_| Err(late()));
        let reason = match (&described, &rotation) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(_), Err(WrapperError::Denied { denial: Denial::AccessDenied, .. })) => Some(NO_RIGHT.to_owned()),
            (Ok(_), Err(error)) => Some(format!("the rotation of its material is not told: {error}")),
            (Ok(_), Ok(_)) => None,
        };
        let rotation = rotation.ok().flatten();
        let long_term_keys_older = match rotation.as_ref().and_then(|rotation| rotation.last_at) {
            Some(last) => Some(self.long_term_keys_before(last).await?),
            None => None,
        };
        Ok(KmsStatus { usable: described.ok().map(|described| described.usable), rotation, long_term_keys_older, reason })
    }

    /// How many long-term keys that still exist were created before; `GET /v1/keys` lists which.
    async fn long_term_keys_before(&self, at: Timestamp) -> Result<u64, VaultError> {
        let all = KeyFilter { class: Some(Class::LongTerm), created_before: Some(at), ..KeyFilter::all() };
        let gone = KeyFilter { state: Some(KeyState::Destroyed), ..all.clone() };
        Ok(self.store.count_keys(&all).await?.saturating_sub(self.store.count_keys(&gone).await?))
    }
}

const NO_RIGHT: &str =
    "the rotation of its material is not told: the vault needs kms:GetKeyRotationStatus and kms:ListKeyRotations on the key (deploy/aws)";
