//! Lists and shows keys, without their secrets.

use crate::{
    domain::{AuditEvent, Class, KeyId, KeyName, KeyRecord, KeyState, NodeName, Operation, Purpose, Timestamp},
    storage::KeyFilter,
};

use crate::vault::{
    AuditedResult, CallContext, ItemPage, PageRequest, Vault, VaultError,
    audit_gate::Completed,
    pagination::{item_page, one_more},
};

/// Filters of a list of keys. All given filters must match.
#[derive(Debug, Default)]
pub struct KeyQuery {
    /// The node.
    pub node: Option<NodeName>,
    /// The purpose.
    pub purpose: Option<Purpose>,
    /// The state.
    pub state: Option<KeyState>,
    /// The class.
    pub class: Option<Class>,
    /// The whole name.
    pub name: Option<KeyName>,
    /// The whole name, or the beginning of the id.
    pub key: Option<KeyName>,
    /// Created at this time or later.
    pub created_since: Option<Timestamp>,
    /// Created before this time.
    pub created_before: Option<Timestamp>,
}

impl Vault {
    /// Lists the keys on the nodes that the caller may see.
    ///
    /// # Errors
    /// `Forbidden`, `StorageUnavailable` or `AuditUnavailable`.
    pub async fn list_keys(
        &self,
        call: &CallContext,
        query: KeyQuery,
        page: PageRequest,
    ) -> Result<AuditedResult<ItemPage<KeyRecord>>, VaultError> {
        let event = AuditEvent { node: query.node.clone(), ..self.gate.event(call, Operation::ListKeys) };
        let result = async {
            let permit = self.gate.permit_inventory(&event)?;
            let KeyQuery { node, purpose, state, class, name, key, created_since, created_before } = query;
            let (nodes, key) = (permit.nodes().clone(), key.map(|text| text.as_str().to_owned()));
            let filter = KeyFilter { nodes, node, purpose, state, class, name, key, created_since, created_before };
            let found = self.env.store.keys(&filter, one_more(page)).await?;
            Ok(Completed::read(permit, item_page(found, page)))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }

    /// Shows one key.
    ///
    /// # Errors
    /// `KeyNotFound`, otherwise as [`Vault::list_keys`].
    pub async fn show_key(&self, call: &CallContext, id: KeyId) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let mut event = self.gate.event(call, Operation::ShowKey);
        let result = self.key_cache.permit_stored_key(&mut event, id).await;
        let result = result.map(|(permit, stored)| Completed::read(permit, stored.record));
        self.gate.conclude(event, result).await
    }
}
