//! Authorization: attributes in, permit or refusal out. No other file mints permits for callers.

use crate::{
    domain::{AuditEvent, Denied, KeyId, NodeName, Permit, Target},
    storage::{StoreError, StoredKey},
};

use super::AuditGate;
use crate::vault::{VaultError, error::denied};

/// A key that the caller may use for the operation, or whose row cannot be read.
pub(in crate::vault) enum PermittedKey {
    /// The permit and the stored row.
    Readable(Permit, Box<StoredKey>),
    /// The row cannot be read. The string says why. Nothing was authorized.
    Unreadable(String),
}

impl AuditGate {
    /// Authorizes an operation on a stored key. An unknown key and a key that the caller may not see get the same answer.
    ///
    /// # Errors
    /// `KeyNotFound`, `Forbidden`, `SinkFailing`, or `StorageUnavailable`.
    pub(in crate::vault) async fn permit_stored_key(&self, event: &mut AuditEvent, id: KeyId) -> Result<PermittedKey, VaultError> {
        event.key = Some(id);
        let stored = match self.env.store.key(id).await {
            Err(StoreError::Corrupt { table: "keys" | "wraps", what }) => return Ok(PermittedKey::Unreadable(what)),
            stored => stored?,
        };
        let permit = self.permit_key(event, id, stored.as_ref().map(|stored| &stored.record.attributes.node))?;
        let stored = stored.ok_or(VaultError::KeyNotFound(id))?;
        Ok(PermittedKey::Readable(permit, Box::new(stored)))
    }

    /// Authorizes an operation on a key whose node is known. `None` means that the key does not exist.
    ///
    /// # Errors
    /// `KeyNotFound`, `Forbidden` or `SinkFailing`.
    pub(in crate::vault) fn permit_key(&self, event: &mut AuditEvent, id: KeyId, node: Option<&NodeName>) -> Result<Permit, VaultError> {
        event.key = Some(id);
        // Refusals carry the node too, so that the auditors of the node see the attempt.
        event.node = node.cloned();
        let target = node.map_or(Target::UnknownKey(id), |node| Target::Key(id, node));
        self.permit(event, target, |refused| denied(refused, Some(id), node))
    }

    /// Authorizes the creation of a key on a node.
    ///
    /// # Errors
    /// `UndeclaredNode`, `Forbidden` or `SinkFailing`.
    pub(in crate::vault) fn permit_node(&self, event: &mut AuditEvent, node: &NodeName) -> Result<Permit, VaultError> {
        event.node = Some(node.clone());
        self.permit(event, Target::Node(node), |refused| denied(refused, None, Some(node)))
    }

    /// Authorizes a list. The permit says which nodes the list may cover.
    ///
    /// # Errors
    /// `Forbidden` or `SinkFailing`.
    pub(in crate::vault) fn permit_inventory(&self, event: &AuditEvent) -> Result<Permit, VaultError> {
        self.permit(event, Target::Inventory, |refused| denied(refused, None, None))
    }

    /// Authorizes an operation on the vault as a whole.
    ///
    /// # Errors
    /// `Forbidden` or `SinkFailing`.
    pub(in crate::vault) fn permit_vault(&self, event: &AuditEvent) -> Result<Permit, VaultError> {
        self.permit(event, Target::Vault, |refused| denied(refused, None, None))
    }

    /// Gives a permit, unless a required audit sink is known to fail: then no work is done for a call whose answer would be held back.
    fn permit(&self, event: &AuditEvent, target: Target<'_>, denied: impl FnOnce(Denied) -> VaultError) -> Result<Permit, VaultError> {
        let permit = self.policy().permit(&event.principal, event.operation, target).map_err(denied)?;
        match self.sinks.holds_back(event.operation) {
            None => Ok(permit),
            Some(sink) => Err(VaultError::SinkFailing { sink: sink.name.to_owned(), fault: sink.fault }),
        }
    }
}
