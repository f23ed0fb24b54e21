//! The posture of one wrapper key: what its KMS says of the key and of those who may use it, assessed.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    domain::{AuditEvent, Operation, PostureLine, WrapperKey, WrapperKeyId},
    kms::{Outage, WrapperError},
};

use super::WrapperKeys;
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

/// Timeout of all questions to the KMS. A key in several regions is asked for in each.
const KMS_TIMEOUT: Duration = Duration::from_secs(10);

impl Vault {
    /// Assesses one wrapper key and its policy, as its KMS reports them now.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `StorageUnavailable` or `AuditUnavailable`; `Wrapper` if the KMS does not answer or refuses every question.
    pub async fn wrapper_key_posture(
        &self,
        call: &CallContext,
        id: WrapperKeyId,
    ) -> Result<AuditedResult<(WrapperKey, Vec<PostureLine>)>, VaultError> {
        let event = AuditEvent { subject: Some(id.to_string()), ..self.gate.event(call, Operation::ShowPosture) };
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            let key = self.wrapper_keys.view_of(id).await?.key;
            let lines = self.wrapper_keys.posture(&key).await.map_err(VaultError::Wrapper)?;
            Ok(Completed::read(permit, (key, lines)))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }
}

impl WrapperKeys {
    async fn posture(&self, key: &WrapperKey) -> Result<Vec<PostureLine>, WrapperError> {
        let wrapper = self.connections.get(key).await?;
        let timed_out = |_| WrapperError::Unavailable { reference: key.reference.clone(), outage: Outage::TimedOut, request_id: None };
        timeout(KMS_TIMEOUT, wrapper.posture(&self.env.vault_id)).await.map_err(timed_out)?
    }
}
