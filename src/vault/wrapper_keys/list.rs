//! The list of wrapper keys, each with its use and its health.

use crate::{
    domain::{Operation, Timestamp, WrapperKey, WrapperKeyId},
    kms::{Reason, WrapperError},
};

use super::{WrapperHealth, WrapperKeys};
use crate::vault::{AuditedResult, CallContext, ItemPage, PageRequest, Vault, VaultError, audit_gate::Completed};

/// A wrapper key, its use and its health.
#[derive(Debug, Clone)]
pub struct WrapperKeyView {
    /// The wrapper key.
    pub key: WrapperKey,
    /// The number of keys with a wrap under it.
    pub keys: u64,
    /// The last time an audited operation wrapped or unwrapped a data key under it.
    pub last_used_at: Option<Timestamp>,
    /// Its health as this process knows it.
    pub health: WrapperHealth,
    /// The error of the last call, if that call failed.
    pub fault: Option<WrapperError>,
    /// The number of keys without a verified wrap under it. Only of the active wrapper key, and only if they were counted.
    pub left: Option<u64>,
    /// What to do about these keys, if no rotation runs.
    pub incomplete: Option<String>,
}

impl WrapperKeyView {
    /// The reason of the fault.
    pub fn fault_reason(&self) -> Option<Reason> {
        self.fault.as_ref().map(WrapperError::reason)
    }
}

impl Vault {
    /// Lists the wrapper keys.
    ///
    /// # Errors
    /// `Forbidden`, `StorageUnavailable` or `AuditUnavailable`.
    pub async fn list_wrapper_keys(
        &self,
        call: &CallContext,
        page: PageRequest,
    ) -> Result<AuditedResult<ItemPage<WrapperKeyView>>, VaultError> {
        let event = self.gate.event(call, Operation::ListWrapperKeys);
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            let all = self.wrapper_keys.views().await?;
            let start = usize::try_from(page.after).unwrap_or(usize::MAX);
            let items: Vec<WrapperKeyView> = all.iter().skip(start).take(page.limit as usize).cloned().collect();
            let end = start.saturating_add(items.len());
            let next = (end < all.len()).then_some(end as u64);
            Ok(Completed::read(permit, ItemPage { items, next }))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }
}

impl WrapperKeys {
    /// One wrapper key.
    ///
    /// # Errors
    /// `NotFound` or `StorageUnavailable`.
    pub(super) async fn view_of(&self, id: WrapperKeyId) -> Result<WrapperKeyView, VaultError> {
        let found = self.views().await?.into_iter().find(|view| view.key.id == id);
        found.ok_or(VaultError::NotFound("such wrapper key"))
    }

    async fn views(&self) -> Result<Vec<WrapperKeyView>, VaultError> {
        let views = self.env.store.keys_by_wrapper_key().await?.into_iter();
        Ok(views.map(|found| self.view(found)).collect())
    }
}
