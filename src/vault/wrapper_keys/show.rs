//! One wrapper key, with its current status in the KMS.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    domain::{AuditEvent, Class, KeyState, KmsRotation, Operation, Timestamp, WrapperKey, WrapperKeyId, WrapperState},
    kms::{Denial, Outage, WrapperError},
    storage::KeyFilter,
};

use super::{WrapperKeyView, WrapperKeys};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

/// What the KMS says of a wrapper key.
#[derive(Debug, Clone, Default)]
pub struct KmsStatus {
    /// Whether the KMS would use it now. `None` if the KMS did not say.
    pub usable: Option<bool>,
    /// How the KMS rotates the key material. `None` if the KMS did not say or does not rotate it.
    pub rotation: Option<KmsRotation>,
    /// The number of long-term keys created before the last rotation of the key material. `None` if no rotation is known.
    pub long_term_keys_older: Option<u64>,
    /// Why a value is missing.
    pub reason: Option<String>,
}

/// Timeout of the questions to the KMS. The answer is complete without them.
const KMS_TIMEOUT: Duration = Duration::from_secs(3);

impl Vault {
    /// Shows one wrapper key and its status in the KMS. The KMS is not asked about a retired one.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `StorageUnavailable` or `AuditUnavailable`. A KMS that does not answer is not an error.
    pub async fn show_wrapper_key(
        &self,
        call: &CallContext,
        id: WrapperKeyId,
    ) -> Result<AuditedResult<(WrapperKeyView, Option<KmsStatus>)>, VaultError> {
        let event = AuditEvent { subject: Some(id.to_string()), ..self.gate.event(call, Operation::ShowWrapperKey) };
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            let view = self.wrapper_keys.view_of(id).await?;
            let status = match view.key.state {
                WrapperState::Retired => None,
                _ => Some(self.wrapper_keys.kms_status(&view.key).await?),
            };
            Ok(Completed::read(permit, (view, status)))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }
}

impl WrapperKeys {
    async fn kms_status(&self, key: &WrapperKey) -> Result<KmsStatus, VaultError> {
        let wrapper = match self.connections.get(key).await {
            Ok(wrapper) => wrapper,
            Err(error) => return Ok(KmsStatus { reason: Some(error.to_string()), ..KmsStatus::default() }),
        };
        let timed_out = || WrapperError::Unavailable { reference: key.reference.clone(), outage: Outage::TimedOut, request_id: None };
        let (description, rotation) = tokio::join!(timeout(KMS_TIMEOUT, wrapper.describe()), timeout(KMS_TIMEOUT, wrapper.rotation()));
        let description = description.unwrap_or_else(|_| Err(timed_out()));
        let rotation = rotation.unwrap_or_else(|_| Err(timed_out()));
        let reason = match (&description, &rotation) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(_), Err(WrapperError::Denied { denial: Denial::AccessDenied, .. })) => Some(NO_PERMISSION.to_owned()),
            (Ok(_), Err(error)) => Some(format!("the rotation of the key material is unknown: {error}")),
            (Ok(_), Ok(_)) => None,
        };
        let rotation = rotation.ok().flatten();
        let long_term_keys_older = match rotation.as_ref().and_then(|rotation| rotation.last_at) {
            Some(last) => Some(self.long_term_keys_before(last).await?),
            None => None,
        };
        Ok(KmsStatus { usable: description.ok().map(|description| description.usable), rotation, long_term_keys_older, reason })
    }

    /// The number of long-term keys that were created before `at` and are not destroyed. `GET /v1/keys` lists them.
    async fn long_term_keys_before(&self, at: Timestamp) -> Result<u64, VaultError> {
        let all = KeyFilter { class: Some(Class::LongTerm), created_before: Some(at), ..KeyFilter::all() };
        let destroyed = KeyFilter { state: Some(KeyState::Destroyed), ..all.clone() };
        Ok(self.env.store.count_keys(&all).await?.saturating_sub(self.env.store.count_keys(&destroyed).await?))
    }
}

const NO_PERMISSION: &str = "the rotation of the key material is unknown: the vault needs kms:GetKeyRotationStatus and kms:ListKeyRotations \
     on the key (deploy/aws)";
